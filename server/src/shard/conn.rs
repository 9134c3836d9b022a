//! One client connection: from readable bytes to commands, and from replies to the socket.
//!
//! Hop 1 and hop 6 of the data path. In: bytes from the socket. Out: decoded commands to [`super::dispatch`]; later the
//! replies that [`super::turn`] wrote into the connection's output. A connection at rest holds no read buffer: bytes are
//! read into a buffer of the shard and decoded there; only an unfinished command is kept.
//!
//! Back-pressure: a connection with too many unanswered commands or too much unsent output is not read from until it has
//! drained; what the client sends then waits in the kernel, and its own writes block.

use super::Shard;
use crate::command::Needs;
use crate::node::ClientInfo;
use crate::resp::{Decoder, Reply, Step, recycle_args};
use crate::session::Session;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read from a socket in one system call.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// How often a connection may fill the read buffer before the others get their turn.
const READS_PER_POLL: usize = 4;
/// Unanswered commands after which a connection is not read from.
pub(super) const PENDING_MAX: u32 = 16 * 1024;
/// Unsent output after which a connection's next commands wait.
pub(super) const OUTPUT_SOFT_BYTES: usize = 1 << 20;
/// Input that is read ahead of a connection that may not run a command now; enough to notice that the client left.
const READ_AHEAD_BYTES: usize = 64 * 1024;
/// Parts given to one vectored write.
const WRITE_PARTS_MAX: usize = 64;

/// Names a connection; the serial tells a reused place from the connection that had it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnKey {
    pub(super) place: usize,
    pub(super) serial: u64,
}

/// Why the next command of a connection may not run yet. The command stays undecoded in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It may run.
    None,
    /// It must see all earlier commands of the connection answered.
    Barrier,
    /// A key of it is being read from the store.
    Fetch,
    /// An earlier command is still at work (SCAN, WAIT).
    Job,
    /// A read waits for a round of the quorum.
    Quorum,
    /// CLIENT PAUSE, or the table takes no writes until the flusher has caught up.
    Paused,
}

/// Keys that a connection needs from the store.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Those of the command that waits for them: pinned until it has run.
    pub(super) own: VecDeque<Vec<u8>>,
    /// What of them.
    pub(super) needs: Needs,
    /// Bytes of values that may be loaded for it.
    pub(super) bytes_max: u64,
    /// Those of commands behind it, which may as well be read now: remembered as far as the cache does.
    pub(super) ahead: Vec<(Vec<u8>, Needs)>,
}

/// A connection's state.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) serial: u64,
    pub(super) session: Session,
    pub(super) info: Arc<ClientInfo>,
    pub(super) reply: Reply,
    /// Commands of this connection in turns that are not answered yet.
    pub(super) pending: u32,
    pub(super) hold: Hold,
    /// In the turn's list of connections to write to.
    pub(super) touched: bool,
    /// The client has sent all it will send.
    pub(super) eof: bool,
    /// Bytes that the replies to reads waiting in the turn will take, about.
    pub(super) pending_read_bytes: usize,
    /// Close once what was asked is answered and sent.
    pub(super) closing: bool,
    /// Close now: the socket failed, or the outcome of a command is unknown.
    pub(super) dead: bool,
    /// Keys held in memory for the command that waits for them.
    pub(super) pinned: Vec<Vec<u8>>,
    /// Keys to be read from the store before the connection goes on.
    pub(super) wanted: Wanted,
    /// The values that the next command needs were found to be more than it may load.
    pub(super) overfull: bool,
    /// Wakes the job that the connection waits for, to look whether it should go on.
    pub(super) job_waker: Option<Waker>,
    /// Bytes of input, from the next command on, that were there when a round of the quorum was asked for, and those that a
    /// confirmed round allows reads of.
    pub(super) asked_bytes: usize,
    pub(super) granted: usize,
    /// The index of the connection's last write that was answered.
    pub(super) last_write: u64,
    stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
    /// Bytes that `input` must hold before decoding again can get further.
    need: usize,
    write_blocked: bool,
    waker: Option<Waker>,
}

impl Conn {
    pub(super) fn new(serial: u64, stream: TcpStream, session: Session, info: Arc<ClientInfo>) -> Self {
        let reply = Reply::new(session.proto);
        Conn {
            serial,
            session,
            info,
            reply,
            pending: 0,
            hold: Hold::None,
            touched: false,
            eof: false,
            pending_read_bytes: 0,
            closing: false,
            dead: false,
            pinned: Vec::new(),
            wanted: Wanted::default(),
            overfull: false,
            job_waker: None,
            asked_bytes: 0,
            granted: 0,
            last_write: 0,
            stream,
            decoder: Decoder::default(),
            input: Vec::new(),
            need: 0,
            write_blocked: false,
            waker: None,
        }
    }

    /// Lets the connection's task run again, soon.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// The memory that this connection's buffers take, in bytes.
    pub(super) fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.reply.output().memory_bytes()
    }

    /// Bytes read but not yet run.
    pub(super) fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// Whether the next command may be decoded and run.
    fn may_run(&self) -> bool {
        self.hold == Hold::None
            && !self.closing
            && !self.dead
            && self.pending < PENDING_MAX
            && self.reply.output().len_bytes() < OUTPUT_SOFT_BYTES
    }

    /// Whether there is kept input that may hold a whole command, and it may be run.
    fn may_run_kept_input(&self) -> bool {
        !self.input.is_empty() && self.input.len() >= self.need && self.may_run()
    }

    /// Whether to read from the socket.
    fn may_read(&self) -> bool {
        !self.closing && !self.eof && !self.dead && (self.may_run() || self.input.len() < READ_AHEAD_BYTES)
    }

    /// Writes as much output as the socket takes now, and says how many bytes that was.
    pub(super) fn flush(&mut self) -> u64 {
        let mut total = 0;
        if self.dead {
            return total;
        }
        while !self.reply.output().is_empty() {
            let result = match self.reply.output().as_contiguous() {
                Some(bytes) => self.stream.try_write(bytes),
                None => {
                    let mut parts = [IoSlice::new(&[]); WRITE_PARTS_MAX];
                    let used = self.reply.output().io_slices(&mut parts);
                    self.stream.try_write_vectored(&parts[..used])
                }
            };
            match result {
                Ok(0) => {
                    self.dead = true;
                    break;
                }
                Ok(sent) => {
                    self.reply.output_mut().advance(sent);
                    total += sent as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.write_blocked {
                        self.write_blocked = true;
                        self.wake();
                    }
                    return total;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.dead = true;
                    break;
                }
            }
        }
        self.write_blocked = false;
        if self.dead || ((self.closing || self.eof) && self.pending == 0) {
            self.wake();
        }
        total
    }

    fn is_finished(&self) -> bool {
        // What was asked before the client closed its side is answered; then nobody is left to serve.
        let asked_all = self.closing || (self.eof && self.hold == Hold::None && !self.may_run_kept_input());
        self.dead || (asked_all && self.pending == 0 && self.hold != Hold::Job && self.reply.output().is_empty())
    }
}

/// The task that drives a connection's socket. It ends when the connection is closed.
#[derive(Debug)]
pub(super) struct ConnTask {
    pub(super) shard: Rc<std::cell::RefCell<Shard>>,
    pub(super) key: ConnKey,
}

impl Future for ConnTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.shard.borrow_mut().poll_conn(self.key, context)
    }
}

impl Drop for ConnTask {
    fn drop(&mut self) {
        if let Ok(mut shard) = self.shard.try_borrow_mut() {
            shard.remove_conn(self.key);
        }
    }
}

impl Shard {
    /// Does all that a connection can do now: send, run kept input, read and run.
    fn poll_conn(&mut self, key: ConnKey, context: &mut Context<'_>) -> Poll<()> {
        let _guard = super::AbortOnPanic;
        let place = key.place;
        let Some(conn) = self.conns.get_mut(place).filter(|conn| conn.serial == key.serial) else {
            return Poll::Ready(());
        };
        if !conn.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            conn.waker = Some(context.waker().clone());
            conn.info.set_waker(context.waker());
        }
        if conn.info.is_killed() {
            conn.dead = true;
        }
        if let Some(waker) = conn.job_waker.take() {
            waker.wake();
        }
        self.clock_ms = super::wall_clock_ms();
        if conn.write_blocked && !conn.dead {
            match conn.stream.poll_write_ready(context) {
                Poll::Ready(Ok(())) => self.metrics.batch.counters.output_bytes += conn.flush(),
                Poll::Ready(Err(_)) => conn.dead = true,
                Poll::Pending => {}
            }
            if conn.write_blocked && !conn.dead {
                // The flush ran into the end of the socket's buffer again: register for the next readiness.
                if let Poll::Ready(Err(_)) = conn.stream.poll_write_ready(context) {
                    conn.dead = true;
                }
            }
        }
        self.run_kept_input(place);
        let mut reads = 0;
        loop {
            let conn = &mut self.conns[place];
            if !conn.may_read() {
                break;
            }
            if reads == READS_PER_POLL {
                context.waker().wake_by_ref();
                break;
            }
            reads += 1;
            match self.read_once(place, context) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => {
                    let conn = &mut self.conns[place];
                    conn.eof = true;
                    // Nobody waits for the answer of a blocking command any more.
                    conn.dead |= conn.info.is_blocked();
                    break;
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => {
                    self.conns[place].dead = true;
                    break;
                }
            }
        }
        self.check_output_limit(place);
        let conn = &mut self.conns[place];
        if !conn.touched && !conn.write_blocked {
            self.metrics.batch.counters.output_bytes += conn.flush();
            if conn.may_run_kept_input() {
                // Commands stood back behind a large output, which is gone now.
                context.waker().wake_by_ref();
            }
        }
        if conn.eof && conn.hold == Hold::Paused && !self.node.pause_ended(self.clock_ms) {
            // The operator's pause may last for ever, and a client that closed its side has most likely gone.
            conn.dead = true;
        }
        if conn.is_finished() {
            self.remove_conn(key);
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Reads what the socket has, once, and runs the commands in it.
    fn read_once(&mut self, place: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let conn = &mut self.conns[place];
        if conn.input.is_empty() {
            let mut scratch = std::mem::take(&mut self.scratch);
            let mut buffer = ReadBuf::new(&mut scratch);
            let result = Pin::new(&mut conn.stream).poll_read(context, &mut buffer);
            let count = buffer.filled().len();
            if let Poll::Ready(Ok(())) = result {
                self.metrics.batch.counters.input_bytes += count as u64;
                let used = self.run_input(place, &scratch[..count]);
                let conn = &mut self.conns[place];
                conn.input.extend_from_slice(&scratch[used..count]);
            }
            self.scratch = scratch;
            return result.map(|result| result.map(|()| count));
        }
        // Grow by what is known to come, but never ahead of what has come: an announced length alone costs nothing.
        let len = conn.input.len();
        let room = conn.need.saturating_sub(len).clamp(READ_BYTES / 4, len.max(READ_BYTES));
        conn.input.resize(len + room, 0);
        let mut buffer = ReadBuf::new(&mut conn.input[len..]);
        let result = Pin::new(&mut conn.stream).poll_read(context, &mut buffer);
        let count = buffer.filled().len();
        conn.input.truncate(len + count);
        if let Poll::Ready(Ok(())) = result {
            self.metrics.batch.counters.input_bytes += count as u64;
            self.run_kept_input(place);
        }
        result.map(|result| result.map(|()| count))
    }

    /// Runs the commands in the input that was kept.
    fn run_kept_input(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        if !conn.may_run_kept_input() {
            return;
        }
        let mut input = std::mem::take(&mut conn.input);
        let used = self.run_input(place, &input);
        if used == input.len() {
            input.clear();
            if input.capacity() > READ_BYTES {
                input = Vec::new();
            }
        } else {
            input.drain(..used);
            if input.capacity() > READ_BYTES && input.len() < READ_BYTES / 2 && self.conns[place].need < READ_BYTES {
                input.shrink_to(READ_BYTES);
            }
        }
        self.conns[place].input = input;
    }

    /// Decodes and runs commands from `input` and says how many bytes they took.
    fn run_input(&mut self, place: usize, input: &[u8]) -> usize {
        let mut used = 0;
        let mut args: Vec<&[u8]> = std::mem::take(&mut self.args);
        // Taken out, since the arguments of an inline command live in it while the shard runs them.
        let mut decoder = std::mem::take(&mut self.conns[place].decoder);
        self.conns[place].need = 0;
        while used < input.len() && self.conns[place].may_run() {
            let limits = self.limits(place);
            match decoder.decode(&input[used..], &limits) {
                Ok(Step::Incomplete { need }) => {
                    self.conns[place].need = need;
                    break;
                }
                Ok(Step::Empty { consumed }) => {
                    used += consumed;
                    let conn = &mut self.conns[place];
                    conn.granted = conn.granted.saturating_sub(consumed);
                }
                Ok(Step::Command { consumed }) => {
                    let mut words = recycle_args(args);
                    decoder.fill_args(&input[used..], &mut words);
                    let done = self.dispatch(place, &words);
                    args = recycle_args(words);
                    if !done {
                        match self.conns[place].hold {
                            Hold::Fetch => {
                                self.look_ahead(place, &input[used + consumed..]);
                                self.fetch(place);
                            }
                            Hold::Quorum => self.conns[place].asked_bytes = input.len() - used,
                            _ => {}
                        }
                        // The decoder starts over with the same bytes when the hold is released.
                        break;
                    }
                    used += consumed;
                    let conn = &mut self.conns[place];
                    conn.granted = conn.granted.saturating_sub(consumed);
                }
                Err(error) => {
                    self.answer_now(place, |reply| reply.error(&error.to_string()));
                    self.conns[place].closing = true;
                    used = input.len();
                }
            }
        }
        self.args = recycle_args(args);
        self.conns[place].decoder = decoder;
        used
    }
}
