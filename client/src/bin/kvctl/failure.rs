//! What ends a run, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use holdfast_client::{Error, Outcome};
use serde_json::json;

/// The result of a command that got its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done.
    Yes,
    /// The key is absent, or the condition does not hold.
    No,
    /// The server refused something; it was reported already.
    Refused,
}

/// Why a command could not be carried out.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server, or the way to it.
    Client(Error),
    /// The command line asks for something impossible.
    Usage(String),
    /// A local file or stream, and what was being done with it.
    Local(String, io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Client(error)
    }
}

impl From<io::Error> for Failure {
    /// Only output is written with `?`; other streams name themselves.
    fn from(error: io::Error) -> Self {
        Failure::Local("cannot write the output".into(), error)
    }
}

impl Answer {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Answer::Yes => 0,
            Answer::Refused => 1,
            Answer::No => 3,
        }
    }

    /// Yes or no.
    pub(crate) fn from(truth: bool) -> Self {
        if truth { Answer::Yes } else { Answer::No }
    }
}

impl Failure {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Client(Error::Server(_) | Error::Unexpected { .. } | Error::ReplyNotKept) => 1,
            Failure::Client(Error::Invalid(_)) | Failure::Usage(_) => 2,
            Failure::Client(error) => match error.outcome() {
                Outcome::NotExecuted => 4,
                Outcome::Unknown => 5,
            },
            // Whoever reads our output has seen enough: not a failure.
            Failure::Local(_, error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Local(..) => 6,
        }
    }

    fn is_quiet(&self) -> bool {
        matches!(self, Failure::Local(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn kind(&self) -> &'static str {
        match self {
            Failure::Client(Error::Server(_)) => "server",
            Failure::Client(Error::Unexpected { .. }) => "unexpected",
            Failure::Client(Error::Protocol { .. }) => "protocol",
            Failure::Client(Error::Connect { .. }) => "connect",
            Failure::Client(Error::Lost { .. }) => "lost",
            Failure::Client(Error::TimedOut { .. }) => "timeout",
            Failure::Client(Error::Redirected { .. }) => "redirected",
            Failure::Client(Error::Unsettled { .. }) => "unsettled",
            Failure::Client(Error::ReplyNotKept) => "reply not kept",
            Failure::Client(Error::Invalid(_)) | Failure::Usage(_) => "usage",
            Failure::Local(..) => "local",
        }
    }

    /// What a person should know, advice included.
    pub(crate) fn message(&self) -> String {
        match self {
            Failure::Usage(text) => text.clone(),
            Failure::Local(what, error) => format!("{what}: {error}"),
            Failure::Client(error) => {
                let mut text = crate::text::escape(error.to_string().as_bytes(), false);
                match error {
                    Error::Server(server) if matches!(server.code(), "NOAUTH" | "WRONGPASS") => {
                        text.push_str(" (set KVCTL_PASSWORD, and KVCTL_USER if it is not `default`)");
                    }
                    Error::Redirected { .. } => text.push_str(" (the command was not executed)"),
                    Error::Connect { .. } => text.push_str(" (is the server running? --addr or KVCTL_ADDR names it)"),
                    Error::Lost { outcome, .. } | Error::TimedOut { outcome, .. } | Error::Protocol { outcome, .. } => {
                        text.push_str(match outcome {
                            Outcome::NotExecuted => " (the command was not executed)",
                            Outcome::Unknown => " (whether the command was executed is unknown)",
                        });
                    }
                    _ => {}
                }
                text
            }
        }
    }

    /// Prints it to standard error and gives the exit code.
    pub(crate) fn report(&self, as_json: bool) -> u8 {
        if self.is_quiet() {
        } else if as_json {
            let mut error = json!({ "kind": self.kind(), "message": self.message() });
            if let Failure::Client(cause) = self {
                error["outcome"] = match cause.outcome() {
                    Outcome::NotExecuted => "not executed".into(),
                    Outcome::Unknown => "unknown".into(),
                };
                if let Error::Server(server) = cause {
                    error["code"] = server.code().into();
                    error["message"] = server.text().into();
                }
            }
            eprintln!("{}", json!({ "error": error }));
        } else {
            eprintln!("kvctl: {}", self.message());
        }
        self.exit_code()
    }
}

/// The exit code of a run.
pub(crate) fn finish(result: Result<Answer, Failure>, as_json: bool) -> ExitCode {
    match result {
        Ok(answer) => answer.exit_code().into(),
        Err(failure) => failure.report(as_json).into(),
    }
}
