//! `kvctl shell`: commands typed one after another on one connection.
//!
//! The line editor blocks while a person thinks, so it has a thread of its own; the connection lives on the main thread
//! and notices at once when the server goes away. A lost connection is replaced before the next command, and the person
//! is told, because the state that it held is gone: an open transaction is never continued on the new one. A cluster's
//! redirection is followed in the same way.
//!
//! Without a terminal on standard input, lines are read and executed as they come, which makes scripts possible.

mod docs;
mod editor;
mod split;

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_client::{Address, Command, Config, Connection, Error, Outcome, Value};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Editor};

use self::docs::Docs;
use self::editor::Assistant;
use self::split::{SplitError, split};
use crate::commands::refuse_streams;
use crate::failure::{Answer, Failure};
use crate::output::{Output, pretty};
use crate::text::escape;

/// Answers that took longer than this say how long.
const SLOW: Duration = Duration::from_millis(500);

const HISTORY_LINES_MAX: usize = 10_000;

/// Nodes that are kept to turn to.
const SEEDS_MAX: usize = 16;

/// Redirections of one command that are followed.
const REDIRECTS_MAX: usize = 5;

/// What the editor's thread hands over.
enum Typed {
    Line(String),
    /// The line was given up (Ctrl-C).
    Cancelled,
    /// Nothing more will come.
    End,
}

pub(crate) async fn run(config: Config, output: &mut Output) -> Result<Answer, Failure> {
    let mut session = Session::new(config);
    if std::io::stdin().is_terminal() {
        interactive(&mut session, output).await
    } else {
        script(&mut session, output).await
    }
}

/// The connection and the state that the server keeps for it.
struct Session {
    config: Arc<Config>,
    connection: Option<Connection>,
    /// A connection was made before: a new one is worth telling.
    was_connected: bool,
    in_transaction: bool,
    assistant: Assistant,
}

impl Session {
    fn new(config: Config) -> Self {
        Session {
            config: Arc::new(config),
            connection: None,
            was_connected: false,
            in_transaction: false,
            assistant: Assistant::default(),
        }
    }

    async fn connection(&mut self) -> Result<Connection, Failure> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = self.connect().await?;
        if self.was_connected {
            eprintln!("(connected again; what the old connection held, such as SELECT or WATCH, is gone)");
        }
        self.was_connected = true;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Connects to the node of last time, or to the first of the others that answers.
    async fn connect(&mut self) -> Result<Connection, Error> {
        let error = match Connection::open(self.config.clone()).await {
            Err(error @ Error::Connect { .. }) => error,
            other => return other,
        };
        for place in 0..self.config.seeds.len() {
            let config = Arc::make_mut(&mut self.config);
            std::mem::swap(&mut config.address, &mut config.seeds[place]);
            match Connection::open(self.config.clone()).await {
                Err(Error::Connect { .. }) => {}
                other => return other,
            }
        }
        Err(error)
    }

    /// Executes a command, at the node that the cluster names if it names another.
    async fn execute(&mut self, words: Vec<Bytes>) -> Result<Value, Failure> {
        for _ in 0..REDIRECTS_MAX {
            let in_transaction = self.in_transaction;
            let failure = match self.execute_here(words.clone()).await {
                Err(failure) => failure,
                done => return done,
            };
            // Inside a transaction there is nothing to follow with: it is the connection's.
            let redirect = match &failure {
                Failure::Client(Error::Server(error)) if !in_transaction => error.redirect(),
                _ => None,
            };
            let Some(redirect) = redirect.filter(|redirect| !redirect.only_this_command) else { return Err(failure) };
            self.move_to(redirect.address);
        }
        self.execute_here(words).await
    }

    /// Goes to another node; the one that named it is kept among those to turn to.
    fn move_to(&mut self, mut address: Address) {
        let config = Arc::make_mut(&mut self.config);
        if address.host.is_empty() {
            address.host = config.address.host.clone();
        }
        let previous = std::mem::replace(&mut config.address, address);
        config.seeds.retain(|seed| *seed != config.address && *seed != previous);
        config.seeds.insert(0, previous);
        config.seeds.truncate(SEEDS_MAX);
        if std::io::stdin().is_terminal() {
            eprintln!("(redirected to {})", config.address);
        }
        self.connection = None;
        self.was_connected = false;
    }

    async fn execute_here(&mut self, words: Vec<Bytes>) -> Result<Value, Failure> {
        refuse_streams(&words)?;
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        let database = words.get(1).and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let lost = self.connection.as_ref().is_none_or(Connection::is_closed);
        if lost && self.in_transaction {
            self.in_transaction = false;
            let address = self.config.address.clone();
            let reason = "the open transaction is gone with it".into();
            return Err(Error::Lost { address, reason, outcome: Outcome::NotExecuted }.into());
        }
        let connection = self.connection().await?;
        let Some(command) = Command::from_words(words) else {
            return Err(Failure::Usage("an empty command".into()));
        };
        let result = connection.call(command).await;
        match (name.as_str(), &result) {
            ("MULTI", Ok(_)) => self.in_transaction = true,
            ("EXEC" | "DISCARD" | "RESET", _) => self.in_transaction = false,
            ("SELECT", Ok(_)) if !self.in_transaction => {
                if let Some(database) = database {
                    Arc::make_mut(&mut self.config).database = database;
                }
            }
            _ => {}
        }
        if result.as_ref().is_err_and(|error| !matches!(error, Error::Server(_))) {
            // Whatever state it was in, the next command starts from a known one.
            self.connection = None;
            self.in_transaction = false;
        }
        Ok(result?)
    }

    fn prompt(&self) -> String {
        let address = &self.config.address;
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            return "not connected> ".to_owned();
        }
        let database = match self.config.database {
            0 => String::new(),
            number => format!("[{number}]"),
        };
        format!("{address}{database}{}> ", if self.in_transaction { "(TX)" } else { "" })
    }
}

async fn interactive(session: &mut Session, output: &mut Output) -> Result<Answer, Failure> {
    match session.connection().await {
        Ok(connection) => {
            // A server that doesn't know the command just isn't explained.
            if let Ok(reply) = connection.call(Command::read("COMMAND").arg("DOCS")).await {
                session.assistant.learn(Docs::from_reply(reply));
            }
        }
        Err(failure) => eprintln!("kvctl: {}", failure.message()),
    }
    let (to_editor, prompts) = mpsc::channel();
    let (to_session, mut typed) = tokio::sync::mpsc::channel(1);
    let assistant = session.assistant.clone();
    let thread =
        std::thread::Builder::new().name("editor".into()).spawn(move || edit(assistant, &prompts, &to_session));
    thread.map_err(|error| Failure::Local("cannot start the line editor".into(), error))?;

    loop {
        if to_editor.send(session.prompt()).is_err() {
            return Ok(Answer::Yes);
        }
        let line = match typed.recv().await {
            Some(Typed::Line(line)) => line,
            Some(Typed::Cancelled) => continue,
            Some(Typed::End) | None => return Ok(Answer::Yes),
        };
        let words = match split(line.as_bytes()) {
            Ok(words) if words.is_empty() => continue,
            Ok(words) => words,
            Err(_) => {
                eprintln!("(error) a space must follow a closing quote");
                continue;
            }
        };
        match own_command(&words) {
            Some(Own::Leave) => return Ok(Answer::Yes),
            Some(Own::Clear) => output.line("\x1b[2J\x1b[H")?,
            Some(Own::Help) => output.line(&help(&session.assistant, &words[1..]))?,
            None => {
                let start = Instant::now();
                match session.execute(words).await {
                    Ok(value) if output.json => output.reply(&value)?,
                    Ok(value) => {
                        let mut text = String::new();
                        pretty(&value, 0, &mut text);
                        output.line(&text)?;
                    }
                    Err(Failure::Client(Error::Server(error))) => {
                        output.line(&format!("(error) {}", escape(error.text().as_bytes(), false)))?;
                    }
                    Err(failure) => eprintln!("(error) {}", failure.message()),
                }
                if start.elapsed() >= SLOW {
                    output.line(&format!("({:.2}s)", start.elapsed().as_secs_f64()))?;
                }
            }
        }
        output.flush()?;
    }
}

enum Own {
    Leave,
    Clear,
    Help,
}

fn own_command(words: &[Bytes]) -> Option<Own> {
    let name = words[0].to_ascii_lowercase();
    match (name.as_slice(), words.len()) {
        (b"exit" | b"quit", 1) => Some(Own::Leave),
        (b"clear", 1) => Some(Own::Clear),
        (b"help" | b"?", _) => Some(Own::Help),
        _ => None,
    }
}

fn help(assistant: &Assistant, words: &[Bytes]) -> String {
    if words.is_empty() {
        return "Type a command, for example SET greeting \"hello world\".\n\
                help NAME   explains a command (help config get)\n\
                Tab         completes names\n\
                exit        leaves; so does Ctrl-D"
            .to_owned();
    }
    let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    assistant.with_docs(|docs| {
        let Some((_, name, doc)) = docs.lookup(&words) else {
            return format!("The server documents no command `{}`.", escape(words.join(" ").as_bytes(), false));
        };
        let mut text = format!("{name} {}\n  {}", doc.arguments.join(" "), doc.summary);
        if !doc.since.is_empty() || !doc.group.is_empty() {
            text.push_str(&format!("\n  group {}, since {}", doc.group, doc.since));
        }
        let prefix = format!("{name} ");
        let inner: Vec<&str> = docs.names().filter(|other| other.starts_with(&prefix)).collect();
        if !inner.is_empty() {
            text.push_str(&format!("\n  subcommands: {}", inner.join(", ")));
        }
        text
    })
}

/// The editor's thread: shows a prompt when told to, hands the line over.
fn edit(assistant: Assistant, prompts: &mpsc::Receiver<String>, typed: &tokio::sync::mpsc::Sender<Typed>) {
    let settings = rustyline::Config::builder()
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_LINES_MAX)
        .map(|builder| builder.history_ignore_space(true).build());
    let editor = settings.and_then(Editor::<Assistant, FileHistory>::with_config);
    let mut editor = match editor {
        Ok(editor) => editor,
        Err(error) => {
            eprintln!("kvctl: the line editor does not start: {error}");
            return;
        }
    };
    editor.set_helper(Some(assistant));
    let history = history_file();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    while let Ok(prompt) = prompts.recv() {
        let message = match editor.readline(&prompt) {
            Ok(line) => {
                if !holds_secret(&line)
                    && editor.add_history_entry(line.as_str()).unwrap_or(false)
                    && let Some(path) = &history
                {
                    // At once: a shell that is killed keeps what was typed.
                    let _ = editor.append_history(path);
                }
                Typed::Line(line)
            }
            Err(ReadlineError::Interrupted) => Typed::Cancelled,
            Err(ReadlineError::Eof) => Typed::End,
            Err(error) => {
                eprintln!("kvctl: cannot read the line: {error}");
                Typed::End
            }
        };
        if typed.blocking_send(message).is_err() {
            return;
        }
    }
}

fn history_file() -> Option<PathBuf> {
    match std::env::var_os("KVCTL_HISTORY") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => std::env::home_dir().map(|home| home.join(".kvctl_history")),
    }
}

/// Lines that carry a password stay out of the history.
fn holds_secret(line: &str) -> bool {
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_ascii_lowercase).collect();
    let has = |word: &str| words.iter().any(|other| other.trim_matches(['"', '\'']) == word);
    match words.first().map(String::as_str) {
        Some("auth") => true,
        Some("hello") => has("auth"),
        Some("migrate") => has("auth") || has("auth2"),
        Some("config") => has("requirepass") || has("masterauth"),
        Some("acl") => has("setuser"),
        _ => false,
    }
}

/// Commands from a file or pipe.
async fn script(session: &mut Session, output: &mut Output) -> Result<Answer, Failure> {
    let mut answer = Answer::Yes;
    let mut input = std::io::stdin().lock();
    let mut text = Vec::new();
    loop {
        let read = input.read_until(b'\n', &mut text);
        let read = read.map_err(|error| Failure::Local("cannot read standard input".into(), error))?;
        let words = match split(&text) {
            // An open quote continues on the next line, if there is one.
            Err(SplitError::Open) if read > 0 => continue,
            Err(SplitError::Open) => return Err(Failure::Usage("the last line has an open quote".into())),
            Err(SplitError::Attached) => {
                let line = escape(text.trim_ascii(), false);
                return Err(Failure::Usage(format!("a space must follow a closing quote: {line}")));
            }
            Ok(words) => words,
        };
        text.clear();
        if words.is_empty() {
            if read == 0 {
                return Ok(answer);
            }
            continue;
        }
        if matches!(own_command(&words), Some(Own::Leave)) {
            return Ok(answer);
        }
        match session.execute(words).await {
            Ok(value) => {
                output.reply(&value)?;
                if matches!(value, Value::Bulk(_)) && !output.json && !output.terminal {
                    output.item(b"", b'\n')?;
                }
            }
            Err(failure @ Failure::Client(Error::Server(_))) => {
                output.flush()?;
                failure.report(output.json);
                answer = Answer::Refused;
            }
            // Going on after a lost connection would execute what follows without what came before.
            Err(failure) => return Err(failure),
        }
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_stay_out_of_the_history() {
        for line in ["AUTH sesame", "hello 3 AUTH default sesame", "CONFIG SET requirepass \"x\"", "acl setuser a >x"] {
            assert!(holds_secret(line), "{line}");
        }
        for line in ["GET auth", "HELLO 3", "CONFIG GET maxmemory"] {
            assert!(!holds_secret(line), "{line}");
        }
    }
}
