//! Exactly once: numbered writes that may be sent again, whatever became of them.
//!
//! A client made by [`Client::exactly_once`] gives each of its writes a number in a session of the server's
//! (`HOLDFAST SESSION`, `HOLDFAST ONCE`). The server remembers the answers to numbers that are not acknowledged yet, so a write
//! of unknown outcome is simply sent again, to whoever leads by then, until it is answered: it takes effect once.
//!
//! ```text
//!   call ──▶ number ──▶ HOLDFAST ONCE id number low-water SET k v ──reply──▶ number done, low-water mark rises
//!              ▲              ▲                    │
//!              │              └── again ◀──────────┤ lost, timed out, moved, no leader
//!              └─ of a new session ◀───────────────┘ session over, and the first try: it certainly did nothing
//! ```
//!
//! Several writes may be under way at once, up to [`WINDOW`]; more wait. A session is renewed at half its lifetime, so that
//! a write is never sent in a session that is about to be forgotten. What remains unknown: a write whose last try failed when the
//! time was up ([`Error::Unsettled`]). [`Client::number`] gives such a write out, to be sent again for as long as the caller likes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::client::{Client, Patience};
use crate::command::{Command, Effect};
use crate::error::{Error, Outcome, ServerError};
use crate::value::Value;

/// Numbers that may be unacknowledged at a time; the server refuses more.
pub const WINDOW: u64 = 128;

/// Letters of a session's id, and where its lifetime stands in it: seconds, in hexadecimal.
const ID_LETTERS: usize = 48;
const LIFETIME_AT: std::ops::Range<usize> = 12..20;
/// How often a write that certainly did nothing is moved to another session.
const SESSIONS_MAX: u32 = 3;

/// Codes of error replies that are no answer of the command's own: it was not executed by this try.
const REFUSALS: [&str; 15] = [
    "ASK",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "READONLY",
    "SESSIONACKED",
    "SESSIONEXPIRED",
    "SESSIONFULL",
    "SESSIONMISMATCH",
    "SESSIONREFUSED",
    "SESSIONWINDOW",
    "TRYAGAIN",
];

/// The session of a client and its clones, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    current: tokio::sync::Mutex<Option<Arc<Session>>>,
}

#[derive(Debug)]
struct Session {
    id: Box<str>,
    begun: Instant,
    lifetime: Duration,
    numbers: Mutex<Numbers>,
    /// Told when a number is done.
    done: Notify,
}

#[derive(Debug)]
struct Numbers {
    next: u64,
    /// Those that are given out and not done: the least of them is the low-water mark.
    open: BTreeSet<u64>,
}

impl Numbers {
    fn low(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

impl Session {
    fn new(id: &str) -> Option<Self> {
        let seconds = id.get(LIFETIME_AT).and_then(|digits| u32::from_str_radix(digits, 16).ok())?;
        (id.len() == ID_LETTERS && id.bytes().all(|letter| letter.is_ascii_hexdigit())).then(|| Session {
            id: id.into(),
            begun: Instant::now(),
            lifetime: Duration::from_secs(seconds.into()),
            numbers: Mutex::new(Numbers { next: 1, open: BTreeSet::new() }),
            done: Notify::new(),
        })
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        // Its holders leave it whole even when they panic.
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number, once it is within the window; `None` when the time is up.
    async fn take(&self, deadline: Instant) -> Option<u64> {
        loop {
            let done = self.done.notified();
            tokio::pin!(done);
            // Before looking, so that nothing that happens from here on is missed.
            done.as_mut().enable();
            {
                let mut numbers = self.numbers();
                let number = numbers.next;
                if number - numbers.low() < WINDOW {
                    numbers.open.insert(number);
                    numbers.next += 1;
                    return Some(number);
                }
            }
            timeout_at(deadline, done).await.ok()?;
        }
    }

    fn release(&self, number: u64) {
        self.numbers().open.remove(&number);
        self.done.notify_waiters();
    }
}

impl Sessions {
    /// A session that will live for a while; `not`: one that is over already.
    async fn get(&self, client: &Client, deadline: Instant, not: Option<&Arc<Session>>) -> Result<Arc<Session>, Error> {
        // Held while asking, so that many writers begin one session between them.
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref()
            && session.begun.elapsed() < session.lifetime / 2
            && !not.is_some_and(|over| Arc::ptr_eq(over, session))
        {
            return Ok(session.clone());
        }
        // It changes nothing that anybody sees, so it may be asked for as often as need be.
        let begin = Command::read("HOLDFAST").arg("SESSION").arg("NEW");
        let patience = Patience::stubborn(deadline, client.config());
        let (reply, _) = client.attempts(std::slice::from_ref(&begin), Effect::Read, patience).await;
        let value = match reply?.pop() {
            Some(Value::Error(error)) => return Err(Error::Server(error)),
            other => other.unwrap_or(Value::Null),
        };
        let id = value.as_bytes().and_then(|id| std::str::from_utf8(id).ok());
        let session = id.and_then(Session::new).ok_or_else(|| Error::Unexpected {
            command: "HOLDFAST SESSION NEW".into(),
            got: value.kind(),
            expected: "a session's id",
        })?;
        Ok(current.insert(Arc::new(session)).clone())
    }
}

/// A write with its number. It may be sent as often as need be; the number is done when this is dropped.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// use holdfast_client::{Command, Outcome};
/// let client = client.exactly_once();
/// let mut write = client.number(Command::write("APPEND").key("log").arg("one,")).await?;
/// let length = loop {
///     match write.send().await {
///         Err(error) if error.outcome() == Outcome::Unknown => continue, // the cluster is away: ask again
///         other => break other?,
///     }
/// };
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct NumberedWrite {
    client: Client,
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    number: u64,
    command: Command,
    /// A try may have been executed: the write can't move to another session any more.
    unsettled: bool,
}

impl NumberedWrite {
    /// Gives a write its number, in the session that there is or a new one.
    pub(crate) async fn new(client: Client, sessions: Arc<Sessions>, command: Command) -> Result<Self, Error> {
        let deadline = Instant::now() + client.config().timeout;
        let (session, number) = numbered(&client, &sessions, deadline, None).await?;
        Ok(NumberedWrite { client, sessions, session, number, command, unsettled: false })
    }

    /// Its number in its session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The id of its session.
    pub fn session(&self) -> &str {
        &self.session.id
    }

    /// Sends it, again and again, until it is answered or [`Config::timeout`](crate::Config::timeout) is over. Sent once more
    /// after that, it still takes effect once.
    ///
    /// # Errors
    /// The command's own error; [`Error::Unsettled`] when the outcome is unknown; [`Error::ReplyNotKept`] when it was executed
    /// and its long reply is lost; any other error when it was certainly not executed.
    pub async fn send(&mut self) -> Result<Value, Error> {
        let deadline = Instant::now() + self.client.config().timeout;
        let mut sessions = 1;
        loop {
            let low = self.session.numbers().low();
            let request = self.command.numbered(&self.session.id, self.number, low);
            let patience = Patience::stubborn(deadline, self.client.config());
            let (result, unknown) = self.client.attempts(std::slice::from_ref(&request), Effect::Read, patience).await;
            self.unsettled |= unknown;
            let failure = match result.map(|mut values| values.pop()) {
                Ok(Some(Value::Error(error))) => match error.code() {
                    "SESSIONAPPLIED" => return Err(Error::ReplyNotKept),
                    _ if is_refusal(&error) => Error::Server(error),
                    _ => return Err(Error::Server(error)),
                },
                Ok(Some(value)) => return Ok(value),
                Ok(None) => return Err(Error::Invalid("a request without a command".into())),
                Err(error) => error,
            };
            self.unsettled |= failure.outcome() == Outcome::Unknown;
            if self.unsettled {
                return Err(Error::Unsettled { last: Box::new(failure) });
            }
            let over = matches!(&failure, Error::Server(error) if error.code() == "SESSIONEXPIRED");
            if !over || sessions >= SESSIONS_MAX {
                return Err(failure);
            }
            sessions += 1;
            let (session, number) = numbered(&self.client, &self.sessions, deadline, Some(&self.session)).await?;
            self.session.release(self.number);
            (self.session, self.number) = (session, number);
        }
    }
}

impl Drop for NumberedWrite {
    fn drop(&mut self) {
        self.session.release(self.number);
    }
}

/// Whether this try was certainly not executed, whatever an earlier one was.
fn is_refusal(error: &ServerError) -> bool {
    // NB: limits of size differ between nodes while they are being changed.
    REFUSALS.contains(&error.code()) || error.text().starts_with("ERR Protocol error")
}

async fn numbered(
    client: &Client,
    sessions: &Sessions,
    deadline: Instant,
    not: Option<&Arc<Session>>,
) -> Result<(Arc<Session>, u64), Error> {
    let session = sessions.get(client, deadline, not).await?;
    match session.take(deadline).await {
        Some(number) => Ok((session, number)),
        None => {
            let (address, after) = (client.address().await, client.config().timeout);
            Err(Error::TimedOut { address, after, outcome: Outcome::NotExecuted })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(&format!("{}{:08x}{}", "0".repeat(12), 10, "0".repeat(28))).unwrap()
    }

    #[test]
    fn id_says_how_long_it_lives() {
        assert_eq!(session().lifetime, Duration::from_secs(10));
        for id in ["", "0a", &"x".repeat(48), &"0".repeat(49)] {
            assert!(Session::new(id).is_none(), "{id}");
        }
    }

    #[tokio::test]
    async fn numbers_wait_for_the_window() {
        let session = Arc::new(session());
        let soon = || Instant::now() + Duration::from_secs(60);
        for number in 1..=WINDOW {
            assert_eq!(session.take(soon()).await, Some(number));
        }
        assert_eq!(session.take(Instant::now()).await, None, "the window is full");
        let waiting = tokio::spawn({
            let session = session.clone();
            async move { session.take(Instant::now() + Duration::from_secs(60)).await }
        });
        session.release(2);
        assert_eq!(session.numbers().low(), 1, "a later one that is done doesn't raise the mark");
        session.release(1);
        assert_eq!(session.numbers().low(), 3);
        assert_eq!(waiting.await.unwrap(), Some(WINDOW + 1));
    }
}
