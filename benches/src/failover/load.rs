//! Writers and readers, each a thread with a cluster client of its own.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::cluster::{ClusterClient, ClusterConnection};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind};

use super::book::{Book, Kind, Outcome, counter_key};

/// How long a client waits for a connection, and for a reply.
const CONNECT_PATIENCE: Duration = Duration::from_millis(300);
const REPLY_PATIENCE: Duration = Duration::from_secs(1);
/// The pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(5);
/// Stories of stale reads that are kept.
const STORIES_MAX: usize = 20;

/// What the threads share.
#[derive(Debug)]
pub struct Board {
    /// Asks all to end.
    pub stop: AtomicBool,
    /// Acknowledged writes, attempts of unknown outcome, refused attempts, and reads.
    pub acknowledged: AtomicU64,
    /// See [`Board::acknowledged`].
    pub unknown: AtomicU64,
    /// See [`Board::acknowledged`].
    pub refused: AtomicU64,
    /// See [`Board::acknowledged`].
    pub reads: AtomicU64,
    /// For each counter, the highest value that was acknowledged or read so far.
    floors: Vec<AtomicU64>,
    /// When something was broken last, and how long after that a write that began later succeeded.
    fault: Mutex<Option<(Instant, Option<Duration>)>>,
    /// What should not have been seen.
    stories: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// For so many writers.
    pub fn new(writers: u64) -> Self {
        Board {
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            floors: (0..writers).map(|_| AtomicU64::new(0)).collect(),
            fault: Mutex::new(None),
            stories: Mutex::new(Vec::new()),
        }
    }

    /// Something is broken from now on.
    pub fn broken_at(&self, at: Instant) {
        *locked(&self.fault) = Some((at, None));
    }

    /// How long after the last fault a client's write succeeded that began after it.
    pub fn first_success(&self) -> Option<Duration> {
        locked(&self.fault).and_then(|(_, first)| first)
    }

    /// What should not have been seen, so far.
    pub fn stories(&self) -> Vec<String> {
        locked(&self.stories).clone()
    }

    fn tell(&self, story: String) {
        let mut stories = locked(&self.stories);
        if stories.len() < STORIES_MAX {
            stories.push(story);
        }
    }

    fn ends(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn succeeded(&self, began: Instant) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        if let Some((at, first @ None)) = &mut *locked(&self.fault)
            && began > *at
        {
            *first = Some(at.elapsed());
        }
    }
}

/// A client that is made anew after each failure, so that every attempt is one request: the client's own retries would
/// hide how often a command was sent.
struct Session {
    clients: Vec<ClusterClient>,
    connection: Option<ClusterConnection>,
    next: usize,
}

impl Session {
    fn new(addresses: &[SocketAddr], first: usize) -> Result<Self, String> {
        // Whoever is asked first for the map may be the one that is gone: each client begins with another.
        let client = |start: usize| {
            let turned = addresses.iter().cycle().skip(start).take(addresses.len());
            ClusterClient::builder(turned.map(|address| format!("redis://{address}")))
                .retries(0)
                .connection_timeout(CONNECT_PATIENCE)
                .response_timeout(REPLY_PATIENCE)
                .build()
                .map_err(|error| error.to_string())
        };
        let clients = (0..addresses.len()).map(client).collect::<Result<_, _>>()?;
        Ok(Session { clients, connection: None, next: first })
    }

    /// One attempt. `None`: there was nobody to ask.
    fn attempt<T: redis::FromRedisValue>(&mut self, command: &Cmd) -> Option<Result<T, RedisError>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                self.next += 1;
                let client = &self.clients[self.next % self.clients.len()];
                none.insert(client.get_connection().ok()?)
            }
        };
        let result = command.query(connection);
        if result.is_err() {
            self.connection = None;
        }
        Some(result)
    }
}

/// What an error says of the attempt: the text if it should never be answered.
fn outcome_of(error: &RedisError) -> Result<Outcome, String> {
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::Moved
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::TryAgain
            | ServerErrorKind::BusyLoading,
        )
        | ErrorKind::ClusterConnectionNotFound => Ok(Outcome::Refused),
        _ if error.is_connection_refusal() => Ok(Outcome::Refused),
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType | ErrorKind::Parse => {
            Err(error.to_string())
        }
        _ => Ok(Outcome::Unknown),
    }
}

/// Writes until it is told to stop; what it did is in the book.
///
/// # Errors
/// If the server answers what it never should.
pub fn write(addresses: &[SocketAddr], writer: u64, board: &Board) -> Result<Book, String> {
    let mut session = Session::new(addresses, writer as usize)?;
    let mut book = Book::new(writer);
    while !board.ends() {
        let number = book.begin();
        let (key, value) = (book.key(number), book.value(number));
        let command = match Book::kind(number) {
            Kind::Set => redis::cmd("SET").arg(&key).arg(&value).to_owned(),
            Kind::Append => redis::cmd("APPEND").arg(&key).arg(&value).to_owned(),
            Kind::Increment => redis::cmd("INCR").arg(&key).to_owned(),
        };
        while !board.ends() {
            let began = Instant::now();
            let outcome = match session.attempt::<redis::Value>(&command) {
                Some(Ok(reply)) => {
                    if Book::kind(number) == Kind::Increment {
                        let redis::Value::Int(now) = reply else { return Err(format!("INCR gave {reply:?}")) };
                        board.floors[writer as usize].fetch_max(now as u64, Ordering::SeqCst);
                    }
                    board.succeeded(began);
                    Outcome::Acknowledged
                }
                Some(Err(error)) => outcome_of(&error)?,
                None => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            };
            book.enter(outcome);
            match outcome {
                Outcome::Acknowledged => break,
                Outcome::Refused => board.refused.fetch_add(1, Ordering::Relaxed),
                Outcome::Unknown => board.unknown.fetch_add(1, Ordering::Relaxed),
            };
            std::thread::sleep(PAUSE);
        }
    }
    Ok(book)
}

/// Reads counters until it is told to stop; what is stale goes on the board.
///
/// # Errors
/// If the server answers what it never should.
pub fn read(addresses: &[SocketAddr], reader: usize, board: &Board) -> Result<(), String> {
    let mut session = Session::new(addresses, reader)?;
    let mut next = reader;
    while !board.ends() {
        let counter = next % board.floors.len();
        next += 1;
        let floor = board.floors[counter].load(Ordering::SeqCst);
        let key = counter_key(counter as u64);
        match session.attempt::<Option<u64>>(redis::cmd("GET").arg(&key)) {
            Some(Ok(value)) => {
                let value = value.unwrap_or(0);
                if value < floor {
                    board.tell(format!("STALE: {key} was {floor} before a read began that gave {value}"));
                }
                board.floors[counter].fetch_max(value, Ordering::SeqCst);
                board.reads.fetch_add(1, Ordering::Relaxed);
            }
            Some(Err(error)) => {
                outcome_of(&error)?;
                std::thread::sleep(PAUSE);
            }
            None => std::thread::sleep(PAUSE),
        }
    }
    Ok(())
}
