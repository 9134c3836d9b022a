//! One outgoing connection: its queue, and writing from it.
//!
//! ```text
//!   send ──▶ Output ──flush──▶ try_write_vectored ──▶ socket
//!                                   │ would block, or enough for this turn
//!                                   ▼
//!                            the task of dial.rs goes on when the socket takes more
//! ```
//!
//! The queue exists while the connection does. What a lost connection held is lost, and whoever sent it sends again: Raft
//! does. The bound counts bytes as they go over the socket; a full queue refuses the new message, since what waits
//! already is older and wanted first.

use super::format::{self, FormatError, HEAD_BYTES};
use super::{Lane, PeerMessage, PeerOptions};
use crate::resp::Output;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Parts given to one vectored write.
const WRITE_PARTS_MAX: usize = 64;
/// Bytes written to one connection before others get their turn.
const WRITE_BYTES_PER_TURN: usize = 1 << 20;

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// There is no connection.
    Down,
    /// The queue is full.
    Full,
    /// No frame may be that large.
    TooLarge,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the node is not a peer any more")]
    Stopped,
    #[error("the node has another address now")]
    Moved,
    #[error("the other side closed it")]
    Closed,
    #[error("the other side took nothing for {} ms", .0.as_millis())]
    Stalled(Duration),
    #[error("the other side sent something where only this side speaks")]
    Spoke,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A place for one outgoing connection.
#[derive(Debug)]
pub(super) struct Wire {
    open: RefCell<Option<Open>>,
    /// Tells the task that something below changed, or that the socket didn't take everything.
    changed: Notify,
    /// Ends a pause before the next attempt.
    pub(super) hurry: Notify,
    stopped: Cell<bool>,
    /// The addresses changed.
    moved: Cell<bool>,
    /// In the list of wires to flush.
    pub(super) dirty: Cell<bool>,
}

#[derive(Debug)]
struct Open {
    stream: Rc<TcpStream>,
    since: Instant,
    output: Output,
    /// The task goes on with writing: the socket is full, or there was enough for one turn.
    waiting: bool,
    /// When bytes were last written; only kept while `waiting`.
    progress: Instant,
    failure: Option<io::Error>,
}

impl Wire {
    pub(super) fn new() -> Self {
        Wire {
            open: RefCell::new(None),
            changed: Notify::new(),
            hurry: Notify::new(),
            stopped: Cell::new(false),
            moved: Cell::new(false),
            dirty: Cell::new(false),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.borrow().is_some()
    }

    /// Since when the connection is there.
    pub(super) fn since(&self) -> Option<Instant> {
        self.open.borrow().as_ref().map(|open| open.since)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.open.borrow().as_ref().map_or(0, |open| open.output.len_bytes())
    }

    /// Ends the connection and the task, for good.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        self.changed.notify_one();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// Lets the task look at the addresses again.
    pub(super) fn readdress(&self) {
        self.moved.set(true);
        self.changed.notify_one();
    }

    /// Waits until the wire is stopped or its node's addresses changed.
    pub(super) async fn interrupted(&self) {
        while !self.stopped.get() && !self.moved.replace(false) {
            self.changed.notified().await;
        }
    }

    pub(super) fn install(&self, stream: Rc<TcpStream>) {
        let output = Output::new();
        *self.open.borrow_mut() = Some(Open {
            stream,
            since: Instant::now(),
            output,
            waiting: false,
            progress: Instant::now(),
            failure: None,
        });
    }

    pub(super) fn remove(&self) {
        *self.open.borrow_mut() = None;
    }

    /// Queues a message.
    pub(super) fn queue(&self, lane: Lane, message: &PeerMessage, options: &PeerOptions) -> Result<(), NotQueued> {
        let mut open = self.open.borrow_mut();
        let Some(open) = open.as_mut().filter(|open| open.failure.is_none()) else { return Err(NotQueued::Down) };
        let frame_max = options.frame_bytes_max.saturating_add(HEAD_BYTES);
        let queued = open.output.len_bytes();
        let room = match options.queue_bytes_max(lane).checked_sub(queued) {
            _ if queued == 0 => frame_max,
            Some(room) if room > 0 => room.min(frame_max),
            _ => return Err(NotQueued::Full),
        };
        match format::encode_message(message, room, &mut open.output) {
            Ok(_) => Ok(()),
            Err(FormatError::Length { length, .. }) if length > options.frame_bytes_max => Err(NotQueued::TooLarge),
            Err(_) => Err(NotQueued::Full),
        }
    }

    /// Writes what waits, unless the task is at it already, and returns how many bytes the socket took.
    pub(super) fn flush(&self) -> usize {
        let mut open = self.open.borrow_mut();
        let Some(open) = open.as_mut().filter(|open| !open.waiting && open.failure.is_none()) else { return 0 };
        let bytes = open.write();
        if open.waiting || open.failure.is_some() {
            open.progress = Instant::now();
            self.changed.notify_one();
        }
        bytes
    }

    /// Drives the connection until it ends. `written` is told of the bytes that the socket took here.
    pub(super) async fn drive(
        &self,
        stream: &TcpStream,
        stall: Duration,
        moved: impl Fn() -> bool,
        written: impl Fn(usize),
    ) -> End {
        let mut probe = [0];
        loop {
            let deadline = match self.open.borrow_mut().as_mut() {
                None => return End::Closed,
                Some(Open { failure: Some(error), .. }) => {
                    return std::mem::replace(error, io::ErrorKind::Other.into()).into();
                }
                Some(open) => open.waiting.then(|| open.progress + stall),
            };
            if self.stopped.get() {
                return End::Stopped;
            }
            if self.moved.replace(false) && moved() {
                return End::Moved;
            }
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                ready = stream.writable(), if deadline.is_some() => {
                    if let Err(error) = ready {
                        return error.into();
                    }
                    written(self.go_on());
                    // There may be room for more at once: other tasks first.
                    tokio::task::yield_now().await;
                }
                ready = stream.readable() => match ready.and_then(|()| stream.try_read(&mut probe)) {
                    Ok(0) => return End::Closed,
                    Ok(_) => return End::Spoke,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error.into(),
                },
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return End::Stalled(stall);
                }
            }
        }
    }

    /// Writes more of what a flush left.
    fn go_on(&self) -> usize {
        let mut open = self.open.borrow_mut();
        let Some(open) = open.as_mut() else { return 0 };
        let bytes = open.write();
        if bytes > 0 {
            open.progress = Instant::now();
        }
        bytes
    }
}

impl Open {
    /// Writes until nothing waits, the socket is full, or it was enough for a turn.
    fn write(&mut self) -> usize {
        let mut total = 0;
        self.waiting = false;
        while !self.output.is_empty() {
            if total >= WRITE_BYTES_PER_TURN {
                self.waiting = true;
                break;
            }
            let result = match self.output.as_contiguous() {
                Some(bytes) => self.stream.try_write(bytes),
                None => {
                    let mut parts = [IoSlice::new(&[]); WRITE_PARTS_MAX];
                    let used = self.output.io_slices(&mut parts);
                    self.stream.try_write_vectored(&parts[..used])
                }
            };
            match result {
                Ok(0) => {
                    self.failure = Some(io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(sent) => {
                    self.output.advance(sent);
                    total += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.waiting = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        total
    }
}
