//! A turn: what one pass over the ready sockets asked of the group, committed together.
//!
//! Hops 2 to 5 of the data path. In: commands from [`super::dispatch`]. Out: one log entry (several when it would pass its
//! cap) through Raft and the WAL with one write and one fdatasync; then the entry's commands applied in log order, each
//! reply encoded into its connection's output.
//!
//! The turn's operations are kept in the order in which they came, reads that must see the turn's writes among them. A
//! write's arguments live in the log entry alone; a waiting read's in the batch's arena.

use super::Shard;
use super::conn::ConnKey;
use crate::command::{self, CommandSpec, Exec};
use crate::entry::{EntryBuilder, EntryError, EntryReader, OpArena};
use crate::replica::{GroupKeyspace, Replica, internal};
use crate::slot::key_ref;
use bytes::Bytes;
use holdfast_engine::table::Table;
use holdfast_raft::{Entry, EntryKind};
use std::collections::VecDeque;
use std::time::Instant;

/// Bytes of entries after which a turn is committed though more sockets are ready.
const TURN_BYTES_MAX: usize = 8 << 20;

/// Bytes that a turn may put into the table above which the memtables are looked at right after it.
const HEAVY_BYTES: usize = 1 << 20;

/// How many bytes a command may add to the table beyond its own length: SETRANGE of one byte far out is a short command, and
/// a long value. Without counting them, a turn of short commands could take more memory than there is.
fn grown_bytes(spec: &CommandSpec, args: &[&[u8]], value_bytes_max: usize) -> usize {
    let number = |index: usize| {
        let arg = args.get(index).copied().unwrap_or_default();
        command::parse_i64(arg.strip_prefix(b"#").unwrap_or(arg)).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
    };
    let bytes = match spec.name {
        "setrange" => number(2),
        "setbit" => number(2) / 8,
        // Offsets stand at various places, in units of up to 64 bits.
        "bitfield" => (2..args.len()).map(|index| number(index).saturating_mul(8)).max().unwrap_or(0),
        _ => 0,
    };
    bytes.min(value_bytes_max)
}

/// What is to be done for a connection when its place in the log is reached.
#[derive(Debug)]
pub(super) enum Work {
    /// The next command of the entry.
    Write,
    /// A command that changes nothing, kept in the arena.
    Read(usize),
    /// A reply that is known already, but must keep its place.
    Ready(Box<[u8]>),
}

/// One operation of a turn.
#[derive(Debug)]
pub(super) struct TurnOp {
    /// Whose it is; `None` for the shard's own.
    pub(super) conn: Option<ConnKey>,
    pub(super) work: Work,
    /// CLIENT REPLY OFF or SKIP: nothing is sent.
    pub(super) silent: bool,
}

/// The operations that belong to one log entry.
#[derive(Debug, Default)]
pub(super) struct Batch {
    index: u64,
    term: u64,
    ops: Vec<TurnOp>,
    arena: OpArena,
}

/// What has been collected since the last commit.
#[derive(Debug, Default)]
pub(super) struct Turn {
    builder: EntryBuilder,
    batch: Batch,
    sealed: Vec<(Bytes, Batch)>,
    sealed_bytes: usize,
    /// What the turn's commands may add to the table, and hold in memory until they are applied, beyond their own length.
    grown_bytes: usize,
    /// Commit an entry although no command writes: a read found a deadline between group time and now.
    needs_time: bool,
    scheduled: bool,
    /// The place in its entry of the command that is being applied.
    op: u32,
    /// Keys that need not stay in memory once the turn is applied.
    unpins: Vec<Vec<u8>>,
    /// Batches whose entries are proposed, in index order.
    waiting: VecDeque<Batch>,
    /// Emptied batches, kept for their allocations.
    spare: Vec<Batch>,
}

/// A command of an entry: its number, and its arguments behind its name.
type Logged<'w, 'a> = (u16, &'w [&'a [u8]]);

/// Reads an entry's commands a few at a time, and has the table made ready for the keys of those few.
#[derive(Debug)]
struct Window<'a> {
    reader: EntryReader<'a>,
    /// Each command's number and where its arguments end.
    commands: Vec<(u16, usize)>,
    args: Vec<&'a [u8]>,
    next: usize,
    args_next: usize,
}

impl<'a> Window<'a> {
    fn new(payload: &'a [u8]) -> Result<Self, EntryError> {
        let reader = EntryReader::new(payload)?;
        Ok(Window { reader, commands: Vec::new(), args: Vec::new(), next: 0, args_next: 0 })
    }

    /// The next command; `None` at the end.
    fn next(&mut self, replica: &Replica) -> Result<Option<Logged<'_, 'a>>, EntryError> {
        if self.next == self.commands.len() {
            self.refill(replica)?;
        }
        let Some(&(number, end)) = self.commands.get(self.next) else { return Ok(None) };
        let args = &self.args[self.args_next..end];
        self.next += 1;
        self.args_next = end;
        Ok(Some((number, args)))
    }

    fn refill(&mut self, replica: &Replica) -> Result<(), EntryError> {
        self.commands.clear();
        self.args.clear();
        (self.next, self.args_next) = (0, 0);
        let mut keys = [(0, 0); Table::WARM_KEYS_MAX];
        let mut known = 0;
        while known < keys.len() && self.commands.len() < keys.len() {
            let start = self.args.len();
            let Some(number) = self.reader.next_appended(&mut self.args)? else { break };
            self.commands.push((number, self.args.len()));
            let args = &self.args[start..];
            let Some(spec) = command::by_id(number) else { continue };
            for (place, position) in keys[known..].iter_mut().zip(command::keys_of(spec, args)) {
                let key = key_ref(args[position]);
                *place = (key.slot, key.hash);
                known += 1;
            }
        }
        if known > 1 {
            replica.warm(&keys[..known]);
        }
        Ok(())
    }
}

impl Turn {
    fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.batch.ops.is_empty() && self.builder.count() == 0 && !self.needs_time
    }
}

impl Shard {
    /// Applies what the log holds beyond the table, before anybody is served.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        loop {
            let committed = self.replica.persist(self.mono_ms())?;
            if committed.is_empty() {
                return Ok(());
            }
            for entry in &committed {
                self.apply(entry).map_err(|error| error.to_string())?;
                while self.replica.maintain(self.clock_ms, self.mono_ms()) {
                    // The flusher is behind; it has a thread of its own.
                    std::thread::yield_now();
                }
                if let Some(reason) = self.replica.write_refusal() {
                    return Err(reason.to_owned());
                }
            }
            self.replica.finished_apply();
        }
    }

    /// Adds a write to the turn.
    pub(super) fn push_write(&mut self, place: usize, spec: &'static CommandSpec, args: &[&[u8]]) {
        self.turn.builder.push(spec.id, args);
        let silent = self.conns[place].session.is_silent();
        let conn = Some(self.key_of(place));
        self.turn.batch.ops.push(TurnOp { conn, work: Work::Write, silent });
        self.turn.grown_bytes += grown_bytes(spec, args, self.limits.bulk_bytes_max);
        self.joined_turn(place);
        if self.turn.builder.is_full() {
            self.seal_entry();
        }
    }

    /// Adds a read that must wait for earlier writes, or for the group's time, to the turn.
    pub(super) fn push_read(&mut self, place: usize, spec: &'static CommandSpec, args: &[&[u8]], needs_time: bool) {
        let at = self.turn.batch.arena.push(spec.id, args);
        let silent = self.conns[place].session.is_silent();
        let conn = Some(self.key_of(place));
        self.turn.batch.ops.push(TurnOp { conn, work: Work::Read(at), silent });
        self.turn.needs_time |= needs_time;
        self.joined_turn(place);
    }

    /// Adds a reply that is known already but follows commands that are not answered yet.
    pub(super) fn push_ready(&mut self, place: usize, bytes: Vec<u8>) {
        let conn = Some(self.key_of(place));
        self.turn.batch.ops.push(TurnOp { conn, work: Work::Ready(bytes.into_boxed_slice()), silent: false });
        self.joined_turn(place);
    }

    /// Adds a command of the shard's own, without a connection.
    pub(super) fn push_internal(&mut self, command: u16, args: &[&[u8]]) {
        self.turn.builder.push(command, args);
        self.turn.batch.ops.push(TurnOp { conn: None, work: Work::Write, silent: true });
        self.schedule_turn();
    }

    /// Lets keys go once the turn in which they are used is applied. `data_bytes` is what they hold in memory until then, and
    /// may add to the memtable when a write changes them.
    pub(super) fn unpin_after_turn(&mut self, keys: impl IntoIterator<Item = Vec<u8>>, data_bytes: usize) {
        self.turn.unpins.extend(keys);
        self.turn.grown_bytes += data_bytes;
    }

    fn joined_turn(&mut self, place: usize) {
        let conn = &mut self.conns[place];
        conn.pending += 1;
        if !conn.touched {
            conn.touched = true;
            let key = self.key_of(place);
            self.touched.push(key);
        }
        self.schedule_turn();
        let bytes = self.turn.builder.len_bytes() + self.turn.sealed_bytes + self.turn.batch.arena.len_bytes();
        if bytes + self.turn.grown_bytes >= TURN_BYTES_MAX {
            self.commit_turn();
        }
    }

    fn schedule_turn(&mut self) {
        if !self.turn.scheduled {
            self.turn.scheduled = true;
            self.turn_notify.notify_one();
        }
    }

    fn seal_entry(&mut self) {
        let stamp_ms = self.replica.next_stamp_ms(self.clock_ms());
        let payload = self.turn.builder.finish(stamp_ms);
        self.turn.sealed_bytes += payload.len();
        let next = self.turn.spare.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.turn.batch, next);
        self.turn.sealed.push((payload, batch));
        self.turn.needs_time = false;
    }

    /// Commits what the turn collected, applies it and answers.
    pub(super) fn commit_turn(&mut self) {
        self.turn.scheduled = false;
        let heavy = self.turn.sealed_bytes + self.turn.grown_bytes >= HEAVY_BYTES;
        if !self.turn.is_empty() {
            if self.turn.builder.count() > 0 || self.turn.needs_time || !self.turn.batch.ops.is_empty() {
                self.seal_entry();
            }
            if let Err(reason) = self.commit_sealed() {
                self.fail_turn(&reason);
            }
        }
        self.turn.sealed_bytes = 0;
        self.turn.grown_bytes = 0;
        for key in self.turn.unpins.drain(..) {
            self.replica.unpin(&key);
        }
        self.flush_touched();
        if self.replica.log_wants_flush() || heavy {
            // A stall that this finds is noticed by the next write, and ended by the housekeeping.
            self.replica.maintain(self.clock_ms, self.mono_ms());
        }
        if !std::mem::replace(&mut self.wrote_log, true) {
            self.wrote_notify.notify_one();
        }
    }

    fn commit_sealed(&mut self) -> Result<(), String> {
        let mut sealed = std::mem::take(&mut self.turn.sealed);
        for (payload, mut batch) in sealed.drain(..) {
            match self.replica.propose(payload) {
                Ok((term, index)) => {
                    batch.term = term;
                    batch.index = index;
                    self.turn.waiting.push_back(batch);
                }
                Err(reason) => {
                    self.turn.waiting.push_back(batch);
                    return Err(reason);
                }
            }
        }
        self.turn.sealed = sealed;
        let started = Instant::now();
        let mut committed = self.replica.persist(self.mono_ms())?;
        self.metrics.record_sync(started.elapsed());
        // Raft hands out what is committed in bounded portions.
        while !committed.is_empty() {
            for entry in &committed {
                self.apply(entry).map_err(|error| error.to_string())?;
            }
            self.replica.finished_apply();
            committed = self.replica.persist(self.mono_ms())?;
        }
        Ok(())
    }

    /// A write whose fate is unknown: nothing more is answered on its connection, which closes.
    fn fail_turn(&mut self, reason: &str) {
        self.replica.stop_writes(reason);
        let waiting = std::mem::take(&mut self.turn.waiting);
        let sealed = std::mem::take(&mut self.turn.sealed);
        // An entry that was applied in part has answered some; whoever still waits gets no answer.
        for key in std::mem::take(&mut self.touched) {
            if let Some(conn) = self.conn_mut(key) {
                conn.touched = false;
                if conn.pending > 0 {
                    conn.dead = true;
                }
                conn.wake();
            }
        }
        for batch in waiting.into_iter().chain(sealed.into_iter().map(|(_, batch)| batch)) {
            for key in batch.ops.iter().filter_map(|op| op.conn) {
                if let Some(conn) = self.conn_mut(key) {
                    conn.dead = true;
                    conn.wake();
                }
            }
        }
    }

    /// Applies one committed entry, whoever proposed it.
    fn apply(&mut self, entry: &Entry) -> Result<(), EntryError> {
        let mut batch = match self.turn.waiting.front() {
            Some(front) if front.index == entry.index => self.turn.waiting.pop_front().unwrap_or_default(),
            _ => Batch::default(),
        };
        if batch.index == entry.index && batch.term != entry.term {
            // Another leader's entry took the place: what was proposed here is lost, and its clients can't know.
            for key in batch.ops.drain(..).filter_map(|op| op.conn) {
                if let Some(conn) = self.conn_mut(key) {
                    conn.dead = true;
                    conn.wake();
                }
            }
        }
        if entry.kind == EntryKind::Normal && !entry.payload.is_empty() {
            let mut commands = Window::new(&entry.payload)?;
            self.replica.begin_apply(entry.index, commands.reader.stamp_ms());
            self.turn.op = 0;
            let mut last = None;
            if batch.ops.is_empty() {
                while let Some((number, args)) = commands.next(&self.replica)? {
                    self.run_logged(number, args, None, true, &mut last)?;
                }
            } else {
                let mut kept_args = Vec::new();
                for op in batch.ops.drain(..) {
                    match op.work {
                        Work::Write => {
                            let (number, args) = commands
                                .next(&self.replica)?
                                .ok_or(EntryError::Malformed("fewer ops than proposed"))?;
                            self.run_logged(number, args, op.conn, op.silent, &mut last)?;
                        }
                        Work::Read(at) => {
                            let number = batch.arena.get(at, &mut kept_args)?;
                            if let (Some(spec), Some(key)) = (command::by_id(number), op.conn) {
                                let now_ms = self.read_time_ms();
                                self.run(spec, &kept_args, Some(key), op.silent, now_ms, &mut last)?;
                            }
                        }
                        Work::Ready(bytes) => {
                            if let Some(conn) = op.conn.and_then(|key| self.conn_mut(key)) {
                                conn.reply.output_mut().extend(&bytes);
                            }
                        }
                    }
                    if let Some(conn) = op.conn.and_then(|key| self.conn_mut(key)) {
                        conn.pending -= 1;
                    }
                }
                if commands.next(&self.replica)?.is_some() {
                    return Err(EntryError::Malformed("more ops than proposed"));
                }
            }
        }
        self.replica.set_applied(entry.index, entry.term);
        batch.ops.clear();
        batch.arena.clear();
        if self.turn.spare.len() < 4 {
            self.turn.spare.push(batch);
        }
        Ok(())
    }

    /// Runs one command of a log entry.
    fn run_logged(
        &mut self,
        number: u16,
        args: &[&[u8]],
        conn: Option<ConnKey>,
        silent: bool,
        last: &mut Option<Instant>,
    ) -> Result<(), EntryError> {
        if number == internal::RECLAIM {
            let count = self.replica.reclaim(&args[1..]);
            self.metrics.batch.counters.expired_keys += count;
            return Ok(());
        }
        let spec = command::by_id(number).ok_or(EntryError::Command(number))?;
        let now_ms = self.replica.time_ms();
        self.turn.op += 1;
        self.run(spec, args, conn, silent, now_ms, last)
    }

    /// Runs a data command against the table, its reply going to the connection if that is still there.
    ///
    /// # Errors
    /// When a write met a failure of the store: the entry is not applied.
    ///
    /// `last` is when the command before it ended: one reading of the clock a command is enough.
    pub(super) fn run(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        conn: Option<ConnKey>,
        silent: bool,
        now_ms: u64,
        last: &mut Option<Instant>,
    ) -> Result<(), EntryError> {
        let started = last.unwrap_or_else(Instant::now);
        let client = match conn {
            Some(key) if !silent => self.conns.get_mut(key.place).filter(|conn| conn.serial == key.serial),
            _ => None,
        };
        let (reply, info, touch) = match client {
            Some(conn) => (&mut conn.reply, Some(&conn.info), !conn.session.is_no_touch()),
            None => (&mut self.sink, None, true),
        };
        let value_bytes_max = self.limits.bulk_bytes_max;
        let mark = reply.output().mark();
        let mut keys = GroupKeyspace::new(&mut self.replica, spec.is_read(), touch, self.turn.op);
        spec.execute(&mut Exec { keys: &mut keys, args, reply, now_ms, value_bytes_max });
        let fault = keys.take_fault();
        if let Some(fault) = &fault {
            reply.output_mut().rewind(mark);
            reply.error(&format!("ERR the store could not be read: {fault}"));
        }
        let error = reply.take_error();
        let ended = Instant::now();
        *last = Some(ended);
        self.metrics.record_command(spec, args, ended - started, error, info);
        if info.is_none() {
            self.sink.output_mut().clear();
        }
        match fault {
            // Another replica, or this one after a restart, would do something else: this one must go no further.
            Some(fault) if spec.is_write() => Err(EntryError::Store(fault.to_string())),
            _ => Ok(()),
        }
    }
}
