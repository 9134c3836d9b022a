//! What can go wrong, and whether the command may have happened all the same.

use std::fmt;
use std::time::Duration;

use crate::config::Address;
use crate::decode::ProtocolError;

/// Whether a command that failed may have been executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was not executed and never will be: repeating it is safe.
    NotExecuted,
    /// It was sent, and no answer came: it may or may not have been executed, now or a moment later. Repeating a write
    /// may apply it twice.
    Unknown,
}

/// An error that the server answered with, for example `WRONGTYPE Operation against a key ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    text: Box<str>,
}

/// Where a cluster node says that a slot is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The hash slot, 0 to 16383.
    pub slot: u16,
    /// The node to ask; an empty host means the node that answered, on another port.
    pub address: Address,
    /// True for `ASK` (this one command only), false for `MOVED` (from now on).
    pub only_this_command: bool,
}

impl ServerError {
    /// Wraps the text of an error reply, without the leading `-`.
    pub fn new(text: &[u8]) -> Self {
        ServerError { text: String::from_utf8_lossy(text).into() }
    }

    /// The first word, if it is a code: `ERR`, `WRONGTYPE`, `MOVED`; otherwise nothing.
    pub fn code(&self) -> &str {
        let word = self.text.split(' ').next().unwrap_or_default();
        if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') { word } else { "" }
    }

    /// The whole text, the code included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The other node that a `MOVED` or `ASK` error names; `None` for other errors and for malformed ones.
    pub fn redirect(&self) -> Option<Redirect> {
        let mut words = self.text.split(' ');
        let only_this_command = match words.next()? {
            "MOVED" => false,
            "ASK" => true,
            _ => return None,
        };
        let slot = words.next()?.parse().ok().filter(|slot| *slot < 16384)?;
        // The host may be an IPv6 address without brackets, so the port is what follows the last colon.
        let (host, port) = words.next()?.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let address = Address::new(host, port.parse().ok().filter(|port| *port != 0)?);
        Some(Redirect { slot, address, only_this_command })
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for ServerError {}

/// Why a command has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The server answered with an error. It did not execute the command.
    #[error(transparent)]
    Server(#[from] ServerError),

    /// No connection could be made, so nothing was sent.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// The server's address.
        address: Address,
        /// What the operating system or the server said.
        reason: String,
    },

    /// The connection broke.
    #[error("the connection to {address} was lost: {reason}")]
    Lost {
        /// The server's address.
        address: Address,
        /// What was seen.
        reason: String,
        /// Whether the command may have been executed.
        outcome: Outcome,
    },

    /// No answer came in time.
    #[error("{address} did not answer within {after:?}")]
    TimedOut {
        /// The server's address.
        address: Address,
        /// How long the client waited.
        after: Duration,
        /// Whether the command may have been executed.
        outcome: Outcome,
    },

    /// The nodes of the cluster point at each other, or change too fast to be followed. Nothing was executed.
    #[error("the cluster redirected the command {count} times, at last to {address}")]
    Redirected {
        /// Where the last redirection pointed.
        address: Address,
        /// How many there were.
        count: u32,
    },

    /// The peer sent bytes that are not the Redis protocol, or more than the client's limits allow.
    #[error("{address} sent what is not a valid reply: {source}")]
    Protocol {
        /// The server's address.
        address: Address,
        /// What was wrong.
        source: ProtocolError,
        /// Whether the command may have been executed.
        outcome: Outcome,
    },

    /// A numbered write of a session, or a command of [`Client::repeat`](crate::Client::repeat), was sent, perhaps more than once, and its
    /// last try failed: an earlier one may have been executed. Sent again it still takes effect once.
    #[error("whether the command was executed is unknown; the last try: {last}")]
    Unsettled {
        /// Why the last try failed.
        last: Box<Error>,
    },

    /// A numbered write was executed, but the answer was lost, and is too long for the server to have kept it.
    #[error("the command was executed; its reply was lost, and too long to be kept")]
    ReplyNotKept,

    /// The reply is well-formed but not of a type that this command answers with.
    #[error("{command} was answered with {got}, but {expected} was expected")]
    Unexpected {
        /// The command's name.
        command: String,
        /// The type that came.
        got: &'static str,
        /// The type that the client can use.
        expected: &'static str,
    },

    /// The request makes no sense and was not sent.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// Whether the command may have been executed although it failed.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Server(_) | Error::Connect { .. } | Error::Redirected { .. } | Error::Invalid(_) => {
                Outcome::NotExecuted
            }
            Error::Lost { outcome, .. } | Error::TimedOut { outcome, .. } | Error::Protocol { outcome, .. } => *outcome,
            Error::Unsettled { .. } | Error::ReplyNotKept => Outcome::Unknown,
            // An answer came, so it was executed in some way; what way, the caller can't tell.
            Error::Unexpected { .. } => Outcome::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_the_first_word_in_capitals() {
        assert_eq!(ServerError::new(b"WRONGTYPE Operation against").code(), "WRONGTYPE");
        assert_eq!(ServerError::new(b"something odd").code(), "");
        assert_eq!(ServerError::new(b"").code(), "");
    }

    #[test]
    fn redirect_names_slot_and_node() {
        let moved = ServerError::new(b"MOVED 3999 127.0.0.1:6381").redirect().unwrap();
        assert_eq!(moved, Redirect { slot: 3999, address: Address::new("127.0.0.1", 6381), only_this_command: false });
        let ask = ServerError::new(b"ASK 0 ::1:7000").redirect().unwrap();
        assert_eq!(ask, Redirect { slot: 0, address: Address::new("::1", 7000), only_this_command: true });
        let brackets = ServerError::new(b"MOVED 0 [::1]:7000").redirect().unwrap();
        assert_eq!(brackets.address, Address::new("::1", 7000));
    }

    #[test]
    fn malformed_redirect_is_an_ordinary_error() {
        for text in [
            "MOVED",
            "MOVED x 1:2",
            "MOVED 16384 h:1",
            "MOVED 1 host",
            "MOVED 1 h:99999",
            "MOVED 1 h:0",
            "ERR MOVED 1 h:1",
        ] {
            assert_eq!(ServerError::new(text.as_bytes()).redirect(), None, "{text}");
        }
    }
}
