//! One socket, and the task that owns it.
//!
//! Callers hand requests to the task through a bounded queue and wait for the replies. The task writes what is queued in
//! one go, so requests of many callers, or of one caller who doesn't wait, are pipelined without asking for it; it reads
//! replies and gives them to the requests in order.
//!
//! ```text
//!   call() ──Request──▶ queue ──▶ unsent segments ──▶ socket
//!      ▲                              │
//!      └────────── reply ◀── waiting (in order) ◀── decoder ◀── socket
//! ```
//!
//! A request is in one of three states, and the change from the first is decided by one compare-and-swap: *queued*, then
//! either *taken* by the task or *abandoned* by its caller (whose time ran out). So a caller who gives up knows for
//! certain whether its request can still reach the server. When the connection breaks, requests of which no byte was
//! handed to the kernel fail with [`Outcome::NotExecuted`], the others with [`Outcome::Unknown`].
//!
//! A connection that is lost stays lost; [`crate::Client`] makes new ones. Messages that nobody asked for (RESP3 pushes)
//! are dropped.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::command::Command;
use crate::config::{Address, Config};
use crate::decode::{Decoder, Limits, ProtocolError};
use crate::error::{Error, Outcome};
use crate::value::Value;

/// Room that is made for one read; grows towards what a long string still needs.
const READ_BYTES_MIN: usize = 16 << 10;
const READ_BYTES_MAX: usize = 1 << 20;

/// No further requests are taken from the queue while this much is waiting to be written.
const UNSENT_BYTES_MAX: usize = 1 << 20;

/// Buffers that are handed to one `writev`.
const SLICES_PER_WRITE: usize = 32;

const QUEUED: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// The version of the protocol that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The one of old; maps arrive as flat arrays.
    Resp2,
    /// With maps, sets, doubles, booleans and nulls.
    Resp3,
}

/// A connection that was greeted and, if a password is set, authenticated. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    config: Arc<Config>,
    queue: mpsc::Sender<Request>,
    protocol: Protocol,
}

struct Request {
    segments: Vec<Bytes>,
    bytes: usize,
    replies: usize,
    state: Arc<AtomicU8>,
    answer: oneshot::Sender<Result<Vec<Value>, Error>>,
}

impl Connection {
    /// Connects, agrees on RESP3 (or RESP2 with servers that know no better), authenticates and selects the database.
    ///
    /// # Errors
    /// [`Error::Connect`] if the server can't be reached in time, [`Error::Server`] if it refuses the greeting: a missing
    /// or wrong password, too many clients.
    pub async fn open(config: Arc<Config>) -> Result<Self, Error> {
        let deadline = Instant::now() + config.connect_timeout;
        let address = &config.address;
        let failed = |reason: String| Error::Connect { address: address.clone(), reason };
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        let stream = match timeout_at(deadline, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(failed(plain_reason(&error))),
            Err(_) => return Err(failed(format!("no answer within {:?}", config.connect_timeout))),
        };
        // Requests are already gathered into large writes; waiting for more would only add delay.
        stream.set_nodelay(true).map_err(|error| failed(plain_reason(&error)))?;

        let (queue, requests) = mpsc::channel(config.inflight_requests_max.max(1));
        let task = Task::new(&config);
        tokio::spawn(task.run(stream, requests));
        let mut connection = Connection { config: config.clone(), queue, protocol: Protocol::Resp3 };
        match connection.greet(deadline).await {
            Ok(protocol) => connection.protocol = protocol,
            Err(error @ Error::Server(_)) => return Err(error),
            // The greeting changes nothing, so whatever happened to it, the caller's command was not executed.
            Err(error) => return Err(failed(format!("the greeting failed: {error}"))),
        }
        Ok(connection)
    }

    async fn greet(&self, deadline: Instant) -> Result<Protocol, Error> {
        let config = &self.config;
        let user = config.user.as_deref().unwrap_or("default");
        let mut hello = Command::read("HELLO").arg("3");
        if let Some(password) = &config.password {
            hello = hello.arg("AUTH").arg(user).arg(password);
        }
        if let Some(name) = &config.name {
            hello = hello.arg("SETNAME").arg(name);
        }
        let protocol = match self.call_by(hello, deadline).await {
            Ok(_) => Protocol::Resp3,
            Err(Error::Server(error)) if error.code() == "NOPROTO" || error.text().contains("unknown command") => {
                if let Some(password) = &config.password {
                    let auth = Command::read("AUTH");
                    // Servers from before users existed take a password only.
                    let auth = if config.user.is_some() { auth.arg(user) } else { auth };
                    self.call_by(auth.arg(password), deadline).await?;
                }
                Protocol::Resp2
            }
            Err(error) => return Err(error),
        };
        if config.database != 0 {
            self.call_by(Command::read("SELECT").number(config.database), deadline).await?;
        }
        Ok(protocol)
    }

    /// Sends one command and waits for its reply.
    ///
    /// # Errors
    /// An error reply is [`Error::Server`]; see [`Error::outcome`] for the others.
    pub async fn call(&self, command: Command) -> Result<Value, Error> {
        self.call_by(command, Instant::now() + self.config.timeout).await
    }

    /// Sends several commands back to back and waits for all replies. Error replies are among the values: one command's
    /// failure doesn't hide what the others answered.
    ///
    /// # Errors
    /// Only if the replies can't be had; then the outcome is that of the whole.
    pub async fn pipeline(&self, commands: &[Command]) -> Result<Vec<Value>, Error> {
        self.pipeline_by(commands, Instant::now() + self.config.timeout).await
    }

    pub(crate) async fn call_by(&self, command: Command, deadline: Instant) -> Result<Value, Error> {
        match self.pipeline_by(std::slice::from_ref(&command), deadline).await?.pop() {
            Some(Value::Error(error)) => Err(Error::Server(error)),
            Some(value) => Ok(value),
            None => Err(Error::Invalid("a request without a command".into())),
        }
    }

    pub(crate) async fn pipeline_by(&self, commands: &[Command], deadline: Instant) -> Result<Vec<Value>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut small = BytesMut::new();
        let mut segments = Vec::new();
        for command in commands {
            command.encode(&mut small, &mut segments);
        }
        segments.push(small.freeze());
        let bytes = segments.iter().map(Bytes::len).sum();
        let state = Arc::new(AtomicU8::new(QUEUED));
        let (answer, reply) = oneshot::channel();
        let request = Request { segments, bytes, replies: commands.len(), state: state.clone(), answer };

        let address = || self.config.address.clone();
        let timed_out = |outcome| Error::TimedOut { address: address(), after: self.config.timeout, outcome };
        let gone = |outcome| Error::Lost { address: address(), reason: "it is closed".into(), outcome };
        match timeout_at(deadline, self.queue.send(request)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(gone(Outcome::NotExecuted)),
            Err(_) => return Err(timed_out(Outcome::NotExecuted)),
        }
        match timeout_at(deadline, reply).await {
            Ok(Ok(result)) => result,
            // The task is gone without a word: its runtime was shut down.
            Ok(Err(_)) => Err(gone(Outcome::Unknown)),
            Err(_) => {
                let abandoned = state.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire);
                Err(timed_out(if abandoned.is_ok() { Outcome::NotExecuted } else { Outcome::Unknown }))
            }
        }
    }

    /// The protocol that was agreed on when the connection was made.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the connection is known to be lost; if so, every call fails with [`Outcome::NotExecuted`].
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }
}

/// A request whose replies are awaited.
struct Waiting {
    /// Where in the stream of bytes its frame begins.
    start: u64,
    replies: usize,
    values: Vec<Value>,
    answer: oneshot::Sender<Result<Vec<Value>, Error>>,
}

/// What ended the connection.
enum End {
    /// Nobody holds a handle any more.
    Unneeded,
    Lost(String),
    Protocol(ProtocolError),
}

struct Task {
    address: Address,
    decoder: Decoder,
    received: BytesMut,
    unsent: VecDeque<Bytes>,
    unsent_bytes: usize,
    /// Positions in the stream of bytes to the server: end of what was taken from the queue, end of what was written.
    taken_up_to: u64,
    written_up_to: u64,
    waiting: VecDeque<Waiting>,
    waiting_max: usize,
}

impl Task {
    fn new(config: &Config) -> Self {
        let limits: Limits = config.limits.clone();
        Task {
            address: config.address.clone(),
            decoder: Decoder::new(limits),
            received: BytesMut::new(),
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            taken_up_to: 0,
            written_up_to: 0,
            waiting: VecDeque::new(),
            waiting_max: config.inflight_requests_max.max(1),
        }
    }

    async fn run(mut self, mut stream: TcpStream, mut requests: mpsc::Receiver<Request>) {
        let end = self.serve(&mut stream, &mut requests).await;
        requests.close();
        self.fail(&end);
        while let Some(request) = requests.recv().await {
            let _ = request.answer.send(Err(self.error(&end, Outcome::NotExecuted)));
        }
    }

    async fn serve(&mut self, stream: &mut TcpStream, requests: &mut mpsc::Receiver<Request>) -> End {
        let (mut reader, mut writer) = stream.split();
        loop {
            let room = self.decoder.missing(self.received.len()).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            self.received.reserve(room);
            let may_take = self.waiting.len() < self.waiting_max && self.unsent_bytes < UNSENT_BYTES_MAX;
            tokio::select! {
                // Reading first: a connection that the server has closed is noticed before a request is put on it.
                biased;
                read = reader.read_buf(&mut self.received) => match read {
                    Ok(0) => return End::Lost("the server closed it".into()),
                    Ok(_) => if let Err(end) = self.deliver() { return end },
                    Err(error) => return End::Lost(plain_reason(&error)),
                },
                request = requests.recv(), if may_take => match request {
                    Some(request) => {
                        self.take(request);
                        // What else is queued goes out with the same write.
                        while self.waiting.len() < self.waiting_max && self.unsent_bytes < UNSENT_BYTES_MAX {
                            let Ok(request) = requests.try_recv() else { break };
                            self.take(request);
                        }
                    }
                    None => return End::Unneeded,
                },
                written = write_some(&mut writer, &self.unsent), if !self.unsent.is_empty() => match written {
                    Ok(count) => self.written(count),
                    Err(error) => return End::Lost(plain_reason(&error)),
                },
            }
        }
    }

    fn take(&mut self, request: Request) {
        let taken = request.state.compare_exchange(QUEUED, TAKEN, Ordering::AcqRel, Ordering::Acquire);
        if taken.is_err() || request.answer.is_closed() {
            return;
        }
        self.waiting.push_back(Waiting {
            start: self.taken_up_to,
            replies: request.replies,
            values: Vec::with_capacity(request.replies),
            answer: request.answer,
        });
        self.taken_up_to += request.bytes as u64;
        self.unsent_bytes += request.bytes;
        self.unsent.extend(request.segments.into_iter().filter(|segment| !segment.is_empty()));
    }

    fn written(&mut self, mut count: usize) {
        self.written_up_to += count as u64;
        self.unsent_bytes -= count;
        while let Some(front) = self.unsent.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.unsent.pop_front();
        }
    }

    /// Gives the replies in the buffer to those who wait for them.
    fn deliver(&mut self) -> Result<(), End> {
        while let Some(value) = self.decoder.decode(&mut self.received).map_err(End::Protocol)? {
            if matches!(value, Value::Push(_)) {
                continue;
            }
            let Some(front) = self.waiting.front_mut() else {
                // A server that has no room for another client says so before it is asked anything, and hangs up.
                return Err(match value {
                    Value::Error(error) => End::Lost(format!("the server said `{error}`")),
                    _ => End::Protocol(ProtocolError::Unasked),
                });
            };
            front.values.push(value);
            if front.values.len() == front.replies
                && let Some(done) = self.waiting.pop_front()
            {
                // Who asked may have given up meanwhile; then nobody needs the answer.
                let _ = done.answer.send(Ok(done.values));
            }
        }
        Ok(())
    }

    fn fail(&mut self, end: &End) {
        for waiting in std::mem::take(&mut self.waiting) {
            let untouched = self.written_up_to <= waiting.start;
            let outcome = if untouched { Outcome::NotExecuted } else { Outcome::Unknown };
            let _ = waiting.answer.send(Err(self.error(end, outcome)));
        }
    }

    fn error(&self, end: &End, outcome: Outcome) -> Error {
        let address = self.address.clone();
        match end {
            End::Unneeded => Error::Lost { address, reason: "it was dropped".into(), outcome },
            End::Lost(reason) => Error::Lost { address, reason: reason.clone(), outcome },
            End::Protocol(source) => Error::Protocol { address, source: source.clone(), outcome },
        }
    }
}

async fn write_some(writer: &mut tokio::net::tcp::WriteHalf<'_>, unsent: &VecDeque<Bytes>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
    let mut used = 0;
    for (slot, segment) in slices.iter_mut().zip(unsent) {
        *slot = IoSlice::new(segment);
        used += 1;
    }
    match writer.write_vectored(&slices[..used]).await {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}

/// The operating system's words without its error number.
fn plain_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}
