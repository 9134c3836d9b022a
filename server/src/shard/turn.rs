//! A turn: what one pass over the ready sockets asked of the group, committed together.
//!
//! Hops 2 to 5 of the data path. In: commands from [`super::dispatch`]. Out: one log entry (several when it would pass its
//! cap) through Raft and the WAL with one write and one fdatasync; then the entry's commands applied in log order, each
//! reply encoded into its connection's output. [`super::pump`] carries entries through Raft and hands back those that are
//! committed.
//!
//! A node that is alone commits a turn at once. In a cluster a turn's entry is under way for a while; a second may follow it,
//! and what is asked meanwhile gathers for the next: the slower the disks and the network, the more a turn holds.
//!
//! The turn's operations are kept in the order in which they came, reads that must see the turn's writes among them. A
//! write's arguments live in the log entry alone; a waiting read's in the batch's arena.

use super::Shard;
use super::conn::ConnKey;
use crate::cluster::route::{Route, Standing, route};
use crate::command::{self, CommandSpec, Exec};
use crate::entry::{EntryBuilder, EntryError, EntryReader, OpArena};
use crate::once::{self, OnceCall, SessionLimits};
use crate::replica::{GroupKeyspace, InternalEffect, Replica, SessionEffect, internal};
use crate::resp::{Proto, Reply};
use crate::slot::key_ref;
use bytes::Bytes;
use holdfast_engine::table::Table;
use holdfast_raft::{ConfState, Entry, EntryKind};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::Instant;

/// Bytes of entries after which a turn is committed though more sockets are ready.
const TURN_BYTES_MAX: usize = 8 << 20;
/// Entries of this node's that may be under way while another is proposed.
const UNDER_WAY_MAX: usize = 2;
/// What is answered to a command that was taken, but never proposed: a definite failure, so that clients may ask again.
const NOT_PROPOSED: &str = "CLUSTERDOWN The leader changed before the command was taken; ask again";

/// Bytes that a turn may put into the table above which the memtables are looked at right after it.
const HEAVY_BYTES: usize = 1 << 20;

/// The rows under which sessions' own work is counted; what they carry is counted under its own.
static ONCE: LazyLock<&CommandSpec> = LazyLock::new(|| session_row(b"once"));
static NEW_SESSION: LazyLock<&CommandSpec> = LazyLock::new(|| session_row(b"session"));

fn session_row(name: &[u8]) -> &'static CommandSpec {
    let row = command::lookup(b"holdfast").and_then(|spec| spec.subcommand(name));
    row.unwrap_or_else(|| unreachable!("the table has a row for HOLDFAST {}", name.escape_ascii()))
}

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

/// Who is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) key: ConnKey,
    /// CLIENT REPLY OFF or SKIP: nothing is sent.
    pub(super) silent: bool,
}

/// What bounds a command besides its keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Its time, in milliseconds since the epoch.
    pub(super) now_ms: u64,
    /// The largest value that it may make, in bytes.
    pub(super) value_bytes_max: usize,
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
    /// Keys that need not stay in memory once the batch is applied.
    unpins: Vec<Vec<u8>>,
    /// How many memtables had been let go when the entry was proposed.
    checkpoints: u64,
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
            let Some((spec, args)) = once::inner(number, &self.args[start..]) else { continue };
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

    /// What the turn holds and may add to the table, in bytes.
    fn bytes(&self) -> usize {
        self.builder.len_bytes() + self.sealed_bytes + self.batch.arena.len_bytes() + self.grown_bytes
    }

    /// Whether something is collected, or under way.
    pub(super) fn has_work(&self) -> bool {
        !self.is_empty() || !self.waiting.is_empty()
    }

    /// Whether the turn holds all it may, and can't be committed yet.
    pub(super) fn is_full(&self) -> bool {
        self.bytes() >= TURN_BYTES_MAX && self.under_way() >= UNDER_WAY_MAX
    }

    /// Whether the entry at this index was proposed here, and no memtable was let go since: then what it needs is in memory still.
    pub(super) fn is_prepared(&self, index: u64, checkpoints: u64) -> bool {
        self.waiting.front().is_some_and(|batch| batch.index == index && batch.checkpoints == checkpoints)
    }

    /// Entries proposed here and not applied yet.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len()
    }
}

impl Shard {
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

    /// Adds a numbered write to the turn.
    pub(super) fn push_once(&mut self, place: usize, call: &OnceCall<'_>) {
        self.push_session(place, internal::SESSION_ONCE, &call.logged());
        self.turn.grown_bytes += grown_bytes(call.spec, call.args, self.limits.bulk_bytes_max);
        self.joined_turn(place);
        if self.turn.builder.is_full() {
            self.seal_entry();
        }
    }

    /// Adds the beginning of a session to the turn.
    pub(super) fn push_new_session(&mut self, place: usize, limits: SessionLimits) {
        self.push_session(place, internal::SESSION_NEW, &[b"", &limits.encode()]);
        self.joined_turn(place);
        if self.turn.builder.is_full() {
            self.seal_entry();
        }
    }

    fn push_session(&mut self, place: usize, number: u16, args: &[&[u8]]) {
        self.turn.builder.push(number, args);
        let silent = self.conns[place].session.is_silent();
        let conn = Some(self.key_of(place));
        self.turn.batch.ops.push(TurnOp { conn, work: Work::Write, silent });
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
        self.turn.grown_bytes += bytes.len();
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
        self.turn.batch.unpins.extend(keys);
        self.turn.grown_bytes += data_bytes;
    }

    fn joined_turn(&mut self, place: usize) {
        self.conns[place].pending += 1;
        self.schedule_turn();
        if self.turn.bytes() >= TURN_BYTES_MAX {
            self.commit_turn();
        }
    }

    /// Has the turn task run, be there commands or not.
    pub(super) fn wake_turn(&mut self) {
        self.schedule_turn();
    }

    fn schedule_turn(&mut self) {
        if !self.turn.scheduled {
            self.turn.scheduled = true;
            self.turn_notify.notify_one();
        }
    }

    fn seal_entry(&mut self) {
        let stamp_ms = self.host.data_mut().next_stamp_ms(self.clock_ms);
        let payload = self.turn.builder.finish(stamp_ms, self.limits.bulk_bytes_max);
        self.turn.sealed_bytes += payload.len();
        let next = self.turn.spare.pop().unwrap_or_default();
        let batch = std::mem::replace(&mut self.turn.batch, next);
        self.turn.sealed.push((payload, batch));
        self.turn.needs_time = false;
    }

    /// Whether another entry may follow those that are under way.
    fn may_propose(&self) -> bool {
        self.turn.under_way() < UNDER_WAY_MAX && !self.host.data().raft().is_transferring() && !self.awaits_successor()
    }

    /// Commits what the turn collected, or leaves it until what is under way is applied; then does all that is due.
    pub(super) fn commit_turn(&mut self) {
        self.turn.scheduled = false;
        let heavy = self.turn.sealed_bytes + self.turn.grown_bytes >= HEAVY_BYTES;
        if self.turn.is_empty() {
            let unpins = std::mem::take(&mut self.turn.batch.unpins);
            self.unpin_all(unpins);
        } else if self.may_propose() {
            if self.turn.builder.count() > 0 || self.turn.needs_time || !self.turn.batch.ops.is_empty() {
                self.seal_entry();
            }
            self.propose_sealed();
            self.turn.sealed_bytes = 0;
            self.turn.grown_bytes = 0;
        }
        self.ask_quorum();
        self.pump();
        if self.host.log_wants_flush() || heavy {
            // A stall that this finds is noticed by the next write, and ended by the housekeeping.
            self.host.maintain(self.clock_ms);
        }
    }

    /// Goes on with a turn that had to wait, once there is room for its entry.
    pub(super) fn resume_turn(&mut self) {
        if !self.turn.is_empty() && self.may_propose() {
            self.schedule_turn();
        }
    }

    fn propose_sealed(&mut self) {
        let mut sealed = std::mem::take(&mut self.turn.sealed);
        for (payload, mut batch) in sealed.drain(..) {
            if self.host.fault().is_some() {
                self.lose(batch);
                continue;
            }
            match self.host.data_mut().propose(payload.clone()) {
                Ok((term, index)) => {
                    batch.term = term;
                    batch.index = index;
                    batch.checkpoints = self.host.data().checkpoints;
                    self.turn.waiting.push_back(batch);
                }
                Err(error) => {
                    tracing::debug!(%error, "a turn was not proposed");
                    self.refuse_batch(&payload, batch);
                }
            }
        }
        self.turn.sealed = sealed;
    }

    fn unpin_all(&mut self, keys: Vec<Vec<u8>>) {
        for key in keys {
            self.host.data_mut().unpin(&key);
        }
    }

    /// Notes that a connection has output to be sent.
    fn touch(&mut self, key: ConnKey) {
        if let Some(conn) = self.conn_mut(key)
            && !std::mem::replace(&mut conn.touched, true)
        {
            self.touched.push(key);
        }
    }

    /// Answers commands that were never proposed: with who leads, if that is known. Whoever asked may ask again.
    fn refuse_batch(&mut self, payload: &[u8], mut batch: Batch) {
        // NB: this entry was made here; that it can't be read is no reason to leave anybody without an answer.
        let mut commands = Window::new(payload).ok();
        let mut kept_args = Vec::new();
        for op in batch.ops.drain(..) {
            let text = match op.work {
                Work::Write => match commands.as_mut().map(|commands| commands.next(self.host.data())) {
                    Some(Ok(Some((number, args)))) => self.refusal(number, args),
                    _ => NOT_PROPOSED.into(),
                },
                Work::Read(at) => match batch.arena.get(at, &mut kept_args) {
                    Ok(number) => self.refusal(number, &kept_args),
                    Err(_) => NOT_PROPOSED.into(),
                },
                Work::Ready(_) => Cow::Borrowed(""),
            };
            let Some(key) = op.conn else { continue };
            let Some(conn) = self.conn_mut(key) else { continue };
            conn.pending -= 1;
            match op.work {
                Work::Ready(bytes) => conn.reply.output_mut().extend(&bytes),
                Work::Write | Work::Read(_) if op.silent => {}
                Work::Write | Work::Read(_) => conn.reply.error(&text),
            }
            self.touch(key);
        }
        self.retire(batch);
    }

    /// What is answered to a command that this node took and did not propose.
    fn refusal(&self, number: u16, args: &[&[u8]]) -> Cow<'static, str> {
        let route = self.topology().zip(once::inner(number, args)).map(|(topology, (spec, args))| {
            // As whoever leads nothing.
            route(topology, spec, args, Standing::default(), |_| false)
        });
        match route {
            Some(moved @ Route::Moved { .. }) => moved.to_string().into(),
            _ => NOT_PROPOSED.into(),
        }
    }

    /// The outcome of commands is unknown: nothing more is answered on their connections, which close.
    fn lose(&mut self, batch: Batch) {
        for key in batch.ops.iter().filter_map(|op| op.conn) {
            if let Some(conn) = self.conn_mut(key)
                && !conn.dead
            {
                conn.flush();
                conn.dead = true;
                conn.wake();
            }
        }
        self.retire(batch);
    }

    /// Keeps an emptied batch for its allocations.
    fn retire(&mut self, mut batch: Batch) {
        self.unpin_all(std::mem::take(&mut batch.unpins));
        batch.ops.clear();
        batch.arena.clear();
        (batch.index, batch.term) = (0, 0);
        if self.turn.spare.len() < 4 {
            self.turn.spare.push(batch);
        }
    }

    /// Leadership is lost: what was proposed may be committed by the next leader, or not.
    pub(super) fn lose_under_way(&mut self) {
        for batch in std::mem::take(&mut self.turn.waiting) {
            self.lose(batch);
        }
    }

    /// The log or the store failed: nothing is written any more, and nobody who waits can be answered.
    pub(super) fn fail_turn(&mut self, reason: &str) {
        self.host.halt(reason);
        self.lose_under_way();
        self.release_readers();
        for (_, batch) in std::mem::take(&mut self.turn.sealed) {
            self.lose(batch);
        }
        let batch = std::mem::take(&mut self.turn.batch);
        self.lose(batch);
        self.turn.builder = EntryBuilder::default();
        self.turn.needs_time = false;
    }

    /// Applies one committed entry, whoever proposed it.
    ///
    /// # Errors
    /// When it can't be read, or the store failed: this replica must go no further.
    pub(super) fn apply(&mut self, entry: &Entry, conf: Option<ConfState>) -> Result<(), EntryError> {
        let mut batch = match self.turn.waiting.front() {
            Some(front) if front.index == entry.index => self.turn.waiting.pop_front().unwrap_or_default(),
            _ => Batch::default(),
        };
        if batch.index == entry.index && batch.term != entry.term {
            // Another leader's entry took the place: what was proposed here is lost, and its clients can't know.
            self.lose(std::mem::take(&mut batch));
        }
        if entry.kind == EntryKind::Normal
            && !entry.payload.is_empty()
            && let Err(error) = self.apply_commands(entry, &mut batch)
        {
            // The entry is committed, and whoever still waits for an answer can't be told what it did.
            self.lose(batch);
            return Err(error);
        }
        self.host.data_mut().finish_entry(entry, conf);
        self.retire(batch);
        Ok(())
    }

    /// Runs the commands of an entry, and what waits for its place in the log.
    fn apply_commands(&mut self, entry: &Entry, batch: &mut Batch) -> Result<(), EntryError> {
        let mut commands = Window::new(&entry.payload)?;
        let value_bytes_max = commands.reader.value_bytes_max();
        self.host.data_mut().begin_apply(entry.index, commands.reader.stamp_ms());
        self.turn.op = 0;
        let mut last = None;
        if batch.ops.is_empty() {
            while let Some((number, args)) = commands.next(self.host.data())? {
                self.run_logged(number, args, None, value_bytes_max, &mut last)?;
            }
            return Ok(());
        }
        let mut kept_args = Vec::new();
        for place in 0..batch.ops.len() {
            let TurnOp { conn, silent, work } = &mut batch.ops[place];
            let (conn, silent, work) = (*conn, *silent, std::mem::replace(work, Work::Write));
            match work {
                Work::Write => {
                    let next = commands.next(self.host.data())?;
                    let (number, args) = next.ok_or(EntryError::Malformed("fewer ops than proposed"))?;
                    let client = conn.map(|key| Client { key, silent });
                    self.run_logged(number, args, client, value_bytes_max, &mut last)?;
                }
                Work::Read(at) => {
                    let number = batch.arena.get(at, &mut kept_args)?;
                    if let (Some(spec), Some(key)) = (command::by_id(number), conn) {
                        let bounds = self.bounds_of_reads();
                        self.run(spec, &kept_args, Some(Client { key, silent }), bounds, &mut last)?;
                    }
                    kept_args.clear();
                }
                Work::Ready(bytes) => {
                    if let Some(conn) = conn.and_then(|key| self.conn_mut(key)) {
                        conn.reply.output_mut().extend(&bytes);
                    }
                }
            }
            if let Some(key) = conn
                && let Some(conn) = self.conn_mut(key)
            {
                conn.pending -= 1;
                conn.last_write = entry.index;
                self.touch(key);
            }
        }
        match commands.next(self.host.data())? {
            Some(_) => Err(EntryError::Malformed("more ops than proposed")),
            None => Ok(()),
        }
    }

    /// What bounds a read that runs now.
    pub(super) fn bounds_of_reads(&self) -> Bounds {
        Bounds { now_ms: self.read_time_ms(), value_bytes_max: self.limits.bulk_bytes_max }
    }

    /// Runs one command of a log entry.
    fn run_logged(
        &mut self,
        number: u16,
        args: &[&[u8]],
        client: Option<Client>,
        value_bytes_max: usize,
        last: &mut Option<Instant>,
    ) -> Result<(), EntryError> {
        match self.host.data_mut().apply_internal(number, args) {
            InternalEffect::Reclaimed(count) => {
                self.metrics.batch.counters.expired_keys += count;
                return Ok(());
            }
            InternalEffect::Members => {
                self.members_changed = true;
                return Ok(());
            }
            InternalEffect::Checks => return Ok(()),
            InternalEffect::Unknown => {}
        }
        if Replica::is_session(number) {
            return self.run_session(number, args, client, value_bytes_max, last);
        }
        let spec = command::by_id(number).ok_or(EntryError::Command(number))?;
        let now_ms = self.host.data().time_ms();
        self.turn.op += 1;
        self.run(spec, args, client, Bounds { now_ms, value_bytes_max }, last)
    }

    /// Runs a logged command about sessions, its reply going to the connection if that is still there.
    ///
    /// # Errors
    /// As [`Shard::run`].
    fn run_session(
        &mut self,
        number: u16,
        args: &[&[u8]],
        client: Option<Client>,
        value_bytes_max: usize,
        last: &mut Option<Instant>,
    ) -> Result<(), EntryError> {
        let started = last.unwrap_or_else(Instant::now);
        self.turn.op += 1;
        let conn = client.filter(|client| !client.silent).map(|client| client.key);
        let touch = conn.and_then(|key| self.conn_mut(key)).is_none_or(|conn| !conn.session.is_no_touch());
        // What is stored must not depend on the protocol that a client speaks.
        let mut reply = Reply::new(Proto::Resp3);
        let op = self.turn.op;
        let effect = self.host.data_mut().apply_session(number, args, op, value_bytes_max, touch, &mut reply)?;
        let ended = Instant::now();
        *last = Some(ended);
        self.metrics.sessions.count(effect);
        let (spec, args) = match effect {
            SessionEffect::Swept(_) => return Ok(()),
            SessionEffect::Ran(spec) => (spec, &args[1..]),
            SessionEffect::Issued => (*NEW_SESSION, args),
            SessionEffect::Replayed | SessionEffect::Refused => (*ONCE, args),
        };
        let error = reply.take_error();
        let conn = conn.and_then(|key| self.conns.get_mut(key.place).filter(|conn| conn.serial == key.serial));
        if let Some(conn) = conn {
            match reply.proto() == conn.reply.proto() {
                true => conn.reply.output_mut().append(reply.output_mut()),
                false => once::write_reply(&reply.output().to_vec(), &mut conn.reply),
            }
            // Counted below.
            let _ = conn.reply.take_error();
            self.metrics.record_command(spec, args, ended - started, error, Some(&conn.info));
        } else {
            self.metrics.record_command(spec, args, ended - started, error, None);
        }
        Ok(())
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
        client: Option<Client>,
        bounds: Bounds,
        last: &mut Option<Instant>,
    ) -> Result<(), EntryError> {
        let started = last.unwrap_or_else(Instant::now);
        let client = match client {
            Some(Client { key, silent: false }) => {
                self.conns.get_mut(key.place).filter(|conn| conn.serial == key.serial)
            }
            _ => None,
        };
        let (reply, info, touch) = match client {
            Some(conn) => (&mut conn.reply, Some(&conn.info), !conn.session.is_no_touch()),
            None => (&mut self.sink, None, true),
        };
        let Bounds { now_ms, value_bytes_max } = bounds;
        let mark = reply.output().mark();
        let mut keys = GroupKeyspace::new(self.host.data_mut(), spec.is_read(), touch, self.turn.op);
        spec.execute(&mut Exec { keys: &mut keys, args, reply, now_ms, value_bytes_max });
        let fault = keys.take_fault();
        if let Some(fault) = &fault {
            reply.output_mut().rewind(mark);
            // NB: a write gets no answer. It is committed, and will take effect wherever the store can be read.
            if !spec.is_write() {
                reply.error(&format!("ERR the store could not be read: {fault}"));
            }
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
