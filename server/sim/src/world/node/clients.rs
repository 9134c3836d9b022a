//! Requests of clients: decoded, routed, gathered into turns, answered. Follows `shard/{conn,dispatch,turn,cluster}.rs`.

use holdfast_raft::ReadError;
use holdfast_server::cluster::route::{Route, Standing, route, route_to_any_leader};
use holdfast_server::command::{self, CommandSpec, Connection, Handler, VALUE_BYTES_MAX_DEFAULT};
use holdfast_server::entry::{EntryBuilder, OpArena};
use holdfast_server::once::{OnceCall, SessionLimits};
use holdfast_server::replica::{ReadGate, internal};
use holdfast_server::resp::{Decoder, Limits, Proto, Reply, Step};
use std::collections::VecDeque;

use super::super::settings::ReplicaReads;
use super::{Effect, Node, Timer};

/// Entries of this node's that may be under way while another is proposed.
const UNDER_WAY_MAX: usize = 2;
/// Bytes of a turn after which writes wait for what is under way.
const TURN_BYTES_MAX: usize = 64 << 10;
const NOT_PROPOSED: &str = "CLUSTERDOWN The leader changed before the command was taken; ask again";

/// A client's connection: the client's number, and its number for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::world) struct ConnId {
    pub(in crate::world) client: u32,
    pub(in crate::world) connection: u32,
}

/// Why a connection's next command waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    None,
    Quorum,
    Paused,
}

/// Where a command belongs.
enum Place {
    /// This node leads what it is about.
    Here,
    /// Here, from what a replica knows.
    Replica,
    /// Here, once the replica has applied what its leader names.
    Follower,
    /// Not here; the text says where, or why not.
    Elsewhere(String),
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) reply: Reply,
    /// It has said READONLY.
    read_only: bool,
    /// Commands in turns that are not answered yet.
    pub(super) pending: u32,
    input: Vec<u8>,
    decoder: Decoder,
    hold: Hold,
    /// Bytes of input that were there when the quorum was asked, and those that a confirmed round allows reads of.
    asked_bytes: usize,
    granted: usize,
}

/// What is to be done for a connection when its place in the log is reached.
#[derive(Debug)]
pub(super) enum Work {
    Write,
    Read(usize),
    Ready(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Op {
    pub(super) conn: Option<ConnId>,
    pub(super) work: Work,
}

/// The operations that belong to one log entry.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) ops: Vec<Op>,
    pub(super) arena: OpArena,
}

/// What was gathered since the last commit, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Turn {
    builder: EntryBuilder,
    batch: Batch,
    scheduled: bool,
    pub(super) waiting: VecDeque<Batch>,
}

impl Turn {
    pub(super) fn has_gathered(&self) -> bool {
        !self.batch.ops.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.builder.len_bytes() >= TURN_BYTES_MAX && self.waiting.len() >= UNDER_WAY_MAX
    }
}

/// Reads that one round of the quorum shall confirm.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) context: u64,
    pub(super) index: Option<u64>,
    /// The question went to the leader, which is another.
    by_follower: bool,
    conns: Vec<ConnId>,
}

impl Node {
    /// Bytes of a client.
    pub(in crate::world) fn request(&mut self, id: ConnId, bytes: &[u8]) {
        let conn = self.conns.entry(id).or_insert_with(|| Conn {
            reply: Reply::new(Proto::Resp2),
            read_only: false,
            pending: 0,
            input: Vec::new(),
            decoder: Decoder::new(),
            hold: Hold::None,
            asked_bytes: 0,
            granted: 0,
        });
        conn.input.extend_from_slice(bytes);
        self.runnable.push_back(id);
        self.pump();
    }

    /// A client closed its connection. What it asked goes on.
    pub(in crate::world) fn closed(&mut self, id: ConnId) {
        self.conns.remove(&id);
    }

    /// Runs the commands that a connection has sent, as far as it may.
    pub(super) fn run_input(&mut self, id: ConnId) {
        let limits = Limits::default();
        while let Some(conn) = self.conns.get_mut(&id) {
            if conn.hold != Hold::None {
                break;
            }
            let input = std::mem::take(&mut conn.input);
            let mut decoder = std::mem::take(&mut conn.decoder);
            let (used, goes_on) = match decoder.decode(&input, &limits) {
                Ok(Step::Command { consumed }) => {
                    let mut args = Vec::new();
                    decoder.fill_args(&input, &mut args);
                    let done = self.dispatch(id, &args);
                    (if done { consumed } else { 0 }, done)
                }
                Ok(Step::Empty { consumed }) => (consumed, true),
                Ok(Step::Incomplete { .. }) => (0, false),
                Err(error) => {
                    self.answer(id, &error.to_string());
                    (input.len(), false)
                }
            };
            let Some(conn) = self.conns.get_mut(&id) else { break };
            if conn.hold == Hold::Quorum {
                conn.asked_bytes = input.len();
            }
            if used > 0 {
                conn.granted = conn.granted.saturating_sub(used);
            }
            conn.input = input[used..].to_vec();
            conn.decoder = decoder;
            if !goes_on {
                break;
            }
        }
    }

    /// `false`: the same command must be dispatched again once the connection's hold is released.
    fn dispatch(&mut self, id: ConnId, args: &[&[u8]]) -> bool {
        let spec = match command::resolve(args) {
            Ok(spec) => spec,
            Err(rejection) => return self.answer(id, rejection.failure(args).text()),
        };
        match spec.handler {
            Handler::Data(_) => self.dispatch_data(id, spec, args, None),
            Handler::Once => match OnceCall::parse(args, self.session_limits()) {
                Ok(call) => self.dispatch_data(id, call.spec, call.args, Some(&call)),
                Err(failure) => self.answer(id, failure.text()),
            },
            Handler::NewSession => self.dispatch_new_session(id),
            Handler::Connection(Connection::Readonly) => {
                self.conns.get_mut(&id).into_iter().for_each(|conn| conn.read_only = true);
                self.answer_with(id, Reply::ok)
            }
            _ => self.answer(id, "ERR not simulated"),
        }
    }

    fn session_limits(&self) -> SessionLimits {
        SessionLimits { retention_seconds: self.settings.session_retention_seconds, bytes_max: 64 << 20 }
    }

    fn dispatch_new_session(&mut self, id: ConnId) -> bool {
        if let Some(text) = self.halted() {
            return self.answer(id, &text);
        }
        let leads = self.leads();
        if let Some(text) = route_to_any_leader(&self.topology, |_| leads).error() {
            let text = text.into_owned();
            return self.answer(id, &text);
        }
        if self.host.write_stall() || self.turn.is_full() {
            self.held_back.insert(id);
            return self.hold(id, Hold::Paused);
        }
        self.turn.builder.push(internal::SESSION_NEW, &[b"", &self.session_limits().encode()]);
        self.gather(id, Work::Write);
        true
    }

    /// Runs a command on keys, or has it run; `once`: it is what a numbered write carries.
    fn dispatch_data(
        &mut self,
        id: ConnId,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        once: Option<&OnceCall<'_>>,
    ) -> bool {
        let writes = spec.is_write();
        if writes && let Some(text) = self.halted() {
            return self.answer(id, &text);
        }
        let (replica, fresh) = match self.place_of(id, spec, args) {
            Place::Here => (false, true),
            Place::Replica => (true, false),
            Place::Follower => (true, true),
            Place::Elsewhere(text) => {
                self.mark(if text.starts_with("MOVED") { "redirections" } else { "refusals without a leader" });
                return self.answer(id, &text);
            }
        };
        if writes && (self.host.write_stall() || self.turn.is_full()) {
            self.held_back.insert(id);
            self.mark("writes held back");
            return self.hold(id, Hold::Paused);
        }
        let pending = self.conns.get(&id).map_or(0, |conn| conn.pending);
        // A replica can't move the group's time: it shows what it knows.
        let needs_time = !writes && fresh && self.has_ending_key(spec, args);
        if needs_time && replica {
            // A deadline has passed of which the group doesn't know yet. Only the leader can tell it.
            self.mark("deadlines left to the leader");
            let elsewhere = match route(&self.topology, spec, args, Standing::default(), |_| false) {
                Route::Serve => Route::ClusterDown.to_string(),
                elsewhere => elsewhere.to_string(),
            };
            return self.answer(id, &elsewhere);
        }
        if needs_time && let Some(text) = self.halted() {
            return self.answer(id, &text);
        }
        if !writes && fresh && pending == 0 && !needs_time && !self.may_read(id) {
            return false;
        }
        if replica && !fresh {
            self.mark("stale reads by followers");
        }
        if writes {
            match once {
                Some(call) => self.turn.builder.push(internal::SESSION_ONCE, &call.logged()),
                None => self.turn.builder.push(spec.id, args),
            }
            self.gather(id, Work::Write);
        } else if pending > 0 || needs_time {
            let at = self.turn.batch.arena.push(spec.id, args);
            self.mark(if needs_time { "reads that moved the group's time" } else { "reads behind writes" });
            self.gather(id, Work::Read(at));
        } else {
            self.read_now(id, spec, args);
        }
        true
    }

    /// Whether the deadline of one of a command's keys has passed since the group's time last moved.
    fn has_ending_key(&mut self, spec: &'static CommandSpec, args: &[&[u8]]) -> bool {
        let clock_ms = self.clock_ms;
        for position in command::keys_of(spec, args) {
            match self.host.data_mut().is_ending(args[position], clock_ms) {
                Ok(false) => {}
                Ok(true) => return true,
                Err(error) => self.fail(&error.to_string()),
            }
        }
        false
    }

    /// What clients are told once the log took no more.
    fn halted(&self) -> Option<String> {
        self.host.fault().map(|reason| format!("CLUSTERDOWN {reason}"))
    }

    /// Whether this node answers a command about keys.
    fn place_of(&self, id: ConnId, spec: &'static CommandSpec, args: &[&[u8]]) -> Place {
        // NB: a halted replica may hold half of an entry: it shows nothing any more.
        if let Some(text) = self.halted() {
            return Place::Elsewhere(text);
        }
        let leads = self.leads();
        let read_only = self.conns.get(&id).is_some_and(|conn| conn.read_only);
        match route(&self.topology, spec, args, Standing { read_only }, |_| leads).error() {
            None if leads => Place::Here,
            None if self.settings.replica_reads != ReplicaReads::Linearizable => Place::Replica,
            None if self.host.data().raft().role_state().leader.is_some() => Place::Follower,
            None => Place::Elsewhere(Route::ClusterDown.to_string()),
            Some(text) => Place::Elsewhere(text.into_owned()),
        }
    }

    fn read_now(&mut self, id: ConnId, spec: &'static CommandSpec, args: &[&[u8]]) {
        let now_ms = self.read_time_ms();
        if let Err(error) = self.run(spec, args, Some(id), now_ms, 0) {
            self.fail(&error.to_string());
        }
        self.touched.insert(id);
    }

    fn gather(&mut self, id: ConnId, work: Work) {
        self.turn.batch.ops.push(Op { conn: Some(id), work });
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pending += 1;
        }
        self.schedule_turn();
    }

    /// Answers an error in the command's place in the connection's order.
    fn answer(&mut self, id: ConnId, text: &str) -> bool {
        self.answer_with(id, |reply| reply.error(text))
    }

    fn answer_with(&mut self, id: ConnId, write: impl FnOnce(&mut Reply)) -> bool {
        let Some(conn) = self.conns.get_mut(&id) else { return true };
        if conn.pending == 0 {
            write(&mut conn.reply);
            self.touched.insert(id);
        } else {
            let mut reply = Reply::new(Proto::Resp2);
            write(&mut reply);
            self.gather(id, Work::Ready(reply.output().to_vec()));
        }
        true
    }

    fn hold(&mut self, id: ConnId, hold: Hold) -> bool {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.hold = hold;
        }
        false
    }

    /// Lets a held connection go on.
    pub(super) fn release(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.hold = Hold::None;
            self.runnable.push_back(id);
        }
    }

    // ---- turns -----------------------------------------------------------------------------------------------------

    pub(super) fn schedule_turn(&mut self) {
        if !std::mem::replace(&mut self.turn.scheduled, true) {
            let span = self.random.range(self.settings.turn_us.clone());
            self.after(span, Timer::Turn);
        }
    }

    pub(super) fn may_propose(&self) -> bool {
        self.turn.waiting.len() < UNDER_WAY_MAX && !self.host.data().raft().is_transferring()
    }

    /// Adds a command of the node's own.
    pub(super) fn push_internal(&mut self, command: u16, args: &[&[u8]]) {
        self.turn.builder.push(command, args);
        self.turn.batch.ops.push(Op { conn: None, work: Work::Write });
        self.schedule_turn();
    }

    /// Commits what the turn gathered, or leaves it until what is under way is applied.
    pub(super) fn commit_turn(&mut self) {
        self.turn.scheduled = false;
        if self.turn.has_gathered() && self.may_propose() {
            let stamp_ms = self.host.data_mut().next_stamp_ms(self.clock_ms);
            let payload = self.turn.builder.finish(stamp_ms, VALUE_BYTES_MAX_DEFAULT);
            let mut batch = std::mem::take(&mut self.turn.batch);
            if self.host.fault().is_some() {
                self.lose(batch);
            } else {
                match self.host.data_mut().propose(payload) {
                    Ok((term, index)) => {
                        (batch.term, batch.index) = (term, index);
                        if !self.turn.waiting.is_empty() {
                            self.mark("entries behind others");
                        }
                        self.turn.waiting.push_back(batch);
                    }
                    Err(_) => self.refuse_batch(batch),
                }
            }
        }
        self.ask_quorum();
        if self.host.log_wants_flush() {
            self.maintain();
        }
    }

    /// Answers commands that were never proposed.
    fn refuse_batch(&mut self, batch: Batch) {
        self.mark("turns refused");
        for op in batch.ops {
            let Some(id) = op.conn else { continue };
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.pending -= 1;
            match op.work {
                Work::Ready(bytes) => conn.reply.output_mut().extend(&bytes),
                Work::Write | Work::Read(_) => conn.reply.error(NOT_PROPOSED),
            }
            self.touched.insert(id);
        }
    }

    /// The outcome of commands is unknown: nothing more is answered on their connections, which close.
    pub(super) fn lose(&mut self, batch: Batch) {
        for id in batch.ops.iter().filter_map(|op| op.conn) {
            if let Some(mut conn) = self.conns.remove(&id) {
                self.mark("connections closed with an unknown outcome");
                self.touched.remove(&id);
                if !conn.reply.output().is_empty() {
                    let bytes = conn.reply.output().to_vec();
                    conn.reply.output_mut().clear();
                    self.effects.push(Effect::Reply { conn: id, bytes });
                }
                self.effects.push(Effect::Break { conn: id });
            }
        }
    }

    /// Leadership is lost: what was proposed may be committed by the next leader, or not.
    pub(super) fn lose_under_way(&mut self) {
        for batch in std::mem::take(&mut self.turn.waiting) {
            self.lose(batch);
        }
    }

    pub(super) fn lose_everything(&mut self) {
        self.lose_under_way();
        let batch = std::mem::take(&mut self.turn.batch);
        self.lose(batch);
        self.turn.builder = EntryBuilder::default();
    }

    /// Sends replies that are ready.
    pub(super) fn flush_touched(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !conn.reply.output().is_empty() {
                let bytes = conn.reply.output().to_vec();
                conn.reply.output_mut().clear();
                self.effects.push(Effect::Reply { conn: id, bytes });
            }
        }
    }

    // ---- reads -----------------------------------------------------------------------------------------------------

    /// Whether a linearizable read of the connection may run now. `false`: the connection is held until it may.
    fn may_read(&mut self, id: ConnId) -> bool {
        if self.conns.get(&id).is_some_and(|conn| conn.granted > 0) {
            return true;
        }
        match self.host.data_mut().read_gate(self.mono_ms) {
            ReadGate::Open => {
                self.mark("reads under a lease");
                true
            }
            ReadGate::Ask | ReadGate::NotLeader => {
                self.readers.push(id);
                self.schedule_turn();
                self.hold(id, Hold::Quorum)
            }
        }
    }

    fn ask_quorum(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let context = self.next_context;
        self.next_context += 1;
        let conns = std::mem::take(&mut self.readers);
        let by_follower = !self.host.data().raft().is_leader();
        match self.host.data_mut().read_index(self.mono_ms, context) {
            Ok(()) => self.asked.push_back(Asked { context, index: None, by_follower, conns }),
            // They ask again in the turn that the answer to an earlier question begins.
            Err(ReadError::TooManyReads) => self.readers = conns,
            Err(ReadError::NotLeader { .. }) => conns.into_iter().for_each(|conn| self.release(conn)),
        }
    }

    /// Reads that found too many waiting ask again.
    pub(super) fn ask_again(&mut self) {
        if !self.readers.is_empty() {
            self.schedule_turn();
        }
    }

    /// Lets all reads go that wait for the quorum's word, without it.
    pub(super) fn release_readers(&mut self) {
        for conn in std::mem::take(&mut self.readers) {
            self.release(conn);
        }
        std::mem::take(&mut self.asked).into_iter().for_each(|asked| self.drop_asked(asked));
    }

    /// Reads won't be confirmed: they are dispatched again, and told who leads.
    pub(super) fn drop_read(&mut self, context: u64) {
        if let Some(at) = self.asked.iter().position(|asked| asked.context == context)
            && let Some(asked) = self.asked.remove(at)
        {
            self.drop_asked(asked);
        }
    }

    fn drop_asked(&mut self, asked: Asked) {
        self.mark(if asked.by_follower { "reads by followers given up" } else { "quorum reads dropped" });
        asked.conns.into_iter().for_each(|conn| self.release(conn));
    }

    /// Lets reads go on that are confirmed and whose index is applied.
    pub(super) fn serve_confirmed(&mut self) {
        let applied = self.host.data().applied().index;
        while let Some(at) = self.asked.iter().position(|asked| asked.index.is_some_and(|index| index <= applied)) {
            let Some(asked) = self.asked.remove(at) else { return };
            for id in asked.conns {
                self.mark(if asked.by_follower { "reads by followers" } else { "reads by the quorum" });
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.granted = conn.asked_bytes;
                }
                self.release(id);
            }
        }
    }
}
