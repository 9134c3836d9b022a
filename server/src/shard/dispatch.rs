//! From a decoded command to what is done with it.
//!
//! Hop 2 of the data path. In: a command's arguments, slices of the read buffer. Out: a write in the turn's log entry, a read
//! answered at once (or behind the connection's own writes), a connection command answered at once, or a job.
//!
//! The order of a connection's replies is the order of its commands. A read may be answered at once only if nothing of its
//! connection is waiting: then the applied state holds every write that was ever acknowledged, and the read is
//! linearizable. NB: with one voter no round to other replicas is needed for that, and none is made.

use super::Shard;
use super::conn::{ConnKey, Hold, Wanted};
use super::turn::Client;
use crate::cluster::route::{Route, Standing, route, route_to_any_leader};
use crate::command::{self, CommandSpec, Connection, Handler, Needs, flag};
use crate::connection::{self, ConnContext, NOAUTH, Outcome};
use crate::once::{self, OnceCall, SessionLimits};
use crate::replica::Resident;
use crate::resp::{Decoder, Limits, Reply, Step};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of replies to reads that wait in the turn, above which a connection's next read waits for the turn to be answered.
const PENDING_READ_BYTES_MAX: usize = 1 << 20;
/// Commands looked at, and keys wanted of the store, beyond the command that has to wait for its own.
const LOOK_AHEAD_COMMANDS_MAX: usize = 256;
const LOOK_AHEAD_KEYS_MAX: usize = 64;

/// The answer to a command whose keys have more in them than may be in memory at once.
const TOO_MUCH_AT_ONCE: &str =
    "ERR the values of the keys are more than output-bytes-max together; ask for fewer keys at a time";

/// The code of a refusal of a numbered write that another node, or another moment, may not give.
const REFUSED: &str = "SESSIONREFUSED";

/// What memory knows of the keys of a command.
#[derive(Debug, Default)]
struct Seen {
    /// Keys that must be read from the store first.
    missing: VecDeque<Vec<u8>>,
    /// The group's time must move before the command runs.
    needs_time: bool,
    /// Some may not be in memory for long.
    fleeting: bool,
    /// The length of the values of those that are in memory.
    data_bytes: usize,
}

/// Where a command belongs.
enum Place {
    /// This node leads what it is about, or is alone.
    Here,
    /// Here, from what a replica knows: the client said READONLY.
    Replica,
    /// Here, once the replica has applied what its leader names: the client said READONLY, and the settings say that it
    /// shall read what is true now.
    Follower,
    /// Not here; the text says where, or why not.
    Elsewhere(String),
}

impl Shard {
    /// Whether this node answers a command about keys.
    fn place_of(&self, place: usize, spec: &'static CommandSpec, args: &[&[u8]]) -> Place {
        let Some(topology) = self.topology() else { return Place::Here };
        if let Some(text) = self.parted().filter(|_| spec.is_read() || spec.is_write()) {
            return Place::Elsewhere(text.to_owned());
        }
        // NB: a halted replica may hold half of an entry: it shows nothing any more.
        if let Some(text) = self.halted().filter(|_| spec.is_read() || spec.is_write()) {
            return Place::Elsewhere(text);
        }
        let leads = self.leads();
        let standing = Standing { read_only: self.conns[place].session.read_only };
        match route(topology, spec, args, standing, |_| leads).error() {
            None if leads => Place::Here,
            None if !self.node.settings.fresh_replica_reads => Place::Replica,
            None if self.host.data().raft().role_state().leader.is_some() => Place::Follower,
            None => Place::Elsewhere(Route::ClusterDown.to_string()),
            Some(text) => Place::Elsewhere(text.into_owned()),
        }
    }

    /// What clients are told once the log took no more: in a cluster, that others may do better. Nothing was done.
    pub(super) fn halted(&self) -> Option<String> {
        let code = if self.node.is_clustered() { "CLUSTERDOWN" } else { "MISCONF" };
        self.host.fault().map(|reason| format!("{code} {reason}"))
    }

    /// What the connection may send now.
    pub(super) fn limits(&self, place: usize) -> Limits {
        Limits { unauthenticated: !self.conns[place].session.authenticated, ..self.limits }
    }

    /// Runs a command or puts it where it waits its turn. `false`: not yet; the same command must be dispatched again
    /// once the connection's hold is released.
    pub(super) fn dispatch(&mut self, place: usize, args: &[&[u8]]) -> bool {
        let now_ms = self.clock_ms();
        self.conns[place].session.saw_command(now_ms);
        let spec = match command::resolve(args) {
            Ok(spec) => spec,
            Err(_) if connection::is_http(args) => {
                tracing::warn!(
                    client = self.conns[place].serial,
                    "client dropped: it speaks HTTP, perhaps unwittingly"
                );
                self.conns[place].dead = true;
                return true;
            }
            Err(rejection) => {
                let failure = rejection.failure(args);
                let authenticated = self.conns[place].session.authenticated;
                return self.refuse(place, if authenticated { failure.text() } else { NOAUTH });
            }
        };
        if !self.conns[place].session.authenticated && spec.flags & flag::NO_AUTH == 0 {
            return self.refuse(place, NOAUTH);
        }
        if self.is_paused(spec) {
            return self.hold(place, Hold::Paused);
        }
        match spec.handler {
            Handler::Connection(command) => self.run_connection_command(place, spec, command, args),
            Handler::Table(_) | Handler::Container => {
                self.answer_now(place, |reply| spec.answer(args, reply));
                true
            }
            Handler::Special(special) => {
                if self.conns[place].pending > 0 {
                    return self.hold(place, Hold::Barrier);
                }
                if self.awaits_successor() {
                    return self.hold(place, Hold::Paused);
                }
                match self.place_of(place, spec, args) {
                    Place::Here | Place::Follower if spec.is_read() && !self.may_read(place) => return false,
                    Place::Here | Place::Replica | Place::Follower => {}
                    Place::Elsewhere(text) => return self.refuse(place, &text),
                }
                self.run_special(place, spec, special, args);
                true
            }
            Handler::Data(_) => self.dispatch_data(place, spec, args, None),
            Handler::Once => match OnceCall::parse(args, SessionLimits::of(&self.node.settings)) {
                Ok(call) => self.dispatch_data(place, call.spec, call.args, Some(&call)),
                Err(failure) => self.refuse(place, failure.text()),
            },
            Handler::NewSession => self.dispatch_new_session(place, args),
        }
    }

    fn dispatch_new_session(&mut self, place: usize, args: &[&[u8]]) -> bool {
        if let Err(failure) = once::parse_new(args) {
            return self.refuse(place, failure.text());
        }
        if let Some(text) = self.halted() {
            return self.refuse(place, &text);
        }
        if self.awaits_successor() || self.host.write_stall() || self.is_turn_full() {
            return self.hold(place, Hold::Paused);
        }
        if let Some(topology) = self.topology() {
            if let Some(text) = self.parted() {
                return self.refuse(place, text);
            }
            let leads = self.leads();
            if let Some(text) = route_to_any_leader(topology, |_| leads).error() {
                let text = text.into_owned();
                return self.refuse(place, &text);
            }
        }
        self.push_new_session(place, SessionLimits::of(&self.node.settings));
        true
    }

    /// Refuses a command for the limits that this node has right now. To a numbered write that must not read like the command's own answer,
    /// which an earlier attempt may have got.
    fn refuse_for_now(&mut self, place: usize, text: &str, once: Option<&OnceCall<'_>>) -> bool {
        match once {
            Some(_) => self.refuse(place, &format!("{REFUSED} {}", text.strip_prefix("ERR ").unwrap_or(text))),
            None => self.refuse(place, text),
        }
    }

    /// Runs a command on keys, or has it run; `once`: it is what a numbered write carries.
    fn dispatch_data(
        &mut self,
        place: usize,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        once: Option<&OnceCall<'_>>,
    ) -> bool {
        if let Err(failure) = command::check_sizes(spec, args, self.limits.bulk_bytes_max) {
            return self.refuse_for_now(place, failure.text(), once);
        }
        let writes = spec.is_write();
        if writes && let Some(text) = self.halted() {
            return self.refuse(place, &text);
        }
        if self.awaits_successor() {
            return self.hold(place, Hold::Paused);
        }
        // Whether it is no leader that answers, and whether it must be made sure first that it knows all.
        let (replica, fresh) = match self.place_of(place, spec, args) {
            Place::Here => (false, true),
            Place::Replica => (true, false),
            Place::Follower => (true, true),
            Place::Elsewhere(text) => return self.refuse(place, &text),
        };
        let joins = writes || self.conns[place].pending > 0;
        if (writes && self.host.write_stall()) || (joins && self.is_turn_full()) {
            return self.hold(place, Hold::Paused);
        }
        // A replica can't move the group's time: it shows what it knows.
        let clock_ms = if fresh { self.clock_ms } else { self.host.data().time_ms() };
        let needs = spec.needs(args);
        let Seen { missing, needs_time, fleeting, data_bytes } = self.look_at_keys(spec, args, needs, clock_ms);
        let loads = if needs == Needs::Values { data_bytes } else { 0 };
        let loads_max = self.loads_max();
        if std::mem::take(&mut self.conns[place].overfull) || loads > loads_max {
            for key in std::mem::take(&mut self.conns[place].pinned) {
                self.host.data_mut().unpin(&key);
            }
            return self.refuse_for_now(place, TOO_MUCH_AT_ONCE, once);
        }
        if !missing.is_empty() {
            let bytes_max = (loads_max - loads) as u64;
            self.conns[place].wanted = Wanted { own: missing, needs, bytes_max, ahead: Vec::new() };
            return self.hold(place, Hold::Fetch);
        }
        if needs_time && replica {
            // A deadline has passed of which the group doesn't know yet. Only the leader can tell it.
            let text = match self.topology().map(|topology| route(topology, spec, args, Standing::default(), |_| false))
            {
                Some(Route::Serve) | None => Route::ClusterDown.to_string(),
                Some(elsewhere) => elsewhere.to_string(),
            };
            return self.refuse(place, &text);
        }
        if needs_time && let Some(text) = self.halted() {
            // The key's time has come, but the log can't be told so any more, and after a restart it might be there again.
            return self.refuse(place, &text);
        }
        // NB: a read behind writes, or behind the group's time, waits for an entry, and needs no other word of the quorum.
        let waits = self.conns[place].pending > 0 || needs_time;
        if !writes && fresh && !waits && !self.may_read(place) {
            return false;
        }
        if !writes && self.conns[place].pending > 0 {
            // Its reply comes together with those of the whole turn: many large ones must not.
            self.conns[place].pending_read_bytes += loads;
            if self.conns[place].pending_read_bytes > PENDING_READ_BYTES_MAX {
                return self.hold(place, Hold::Barrier);
            }
        }
        let pinned = std::mem::take(&mut self.conns[place].pinned);
        if writes || self.conns[place].pending > 0 || needs_time {
            let held = self.hold_keys(spec, args, pinned, fleeting);
            self.unpin_after_turn(held, if fleeting { loads } else { 0 });
            if let Some(call) = once {
                self.push_once(place, call);
            } else if writes {
                self.push_write(place, spec, args);
            } else {
                self.push_read(place, spec, args, needs_time);
            }
        } else {
            let mut bounds = self.bounds_of_reads();
            if replica {
                bounds.now_ms = self.host.data().time_ms();
            }
            let client = Client { key: self.key_of(place), silent: self.conns[place].session.is_silent() };
            // A read that fails has answered so.
            let _ = self.run(spec, args, Some(client), bounds, &mut None);
            for key in &pinned {
                self.host.data_mut().unpin(key);
            }
        }
        self.conns[place].session.ran_command(spec);
        true
    }

    /// What memory knows of the keys of a command.
    fn look_at_keys(&self, spec: &'static CommandSpec, args: &[&[u8]], needs: Needs, clock_ms: u64) -> Seen {
        let mut seen = Seen::default();
        if needs != Needs::Nothing {
            for position in command::keys_of(spec, args) {
                let key = args[position];
                match self.host.data().resident(key, clock_ms, needs) {
                    Some(Resident { ending, fleeting, data_bytes }) => {
                        seen.needs_time |= ending;
                        seen.fleeting |= fleeting;
                        seen.data_bytes = seen.data_bytes.saturating_add(data_bytes);
                    }
                    None => seen.missing.push_back(key.to_vec()),
                }
            }
        }
        seen
    }

    /// Bytes of values that one command may have in memory: what its reply may hold anyway, and never less than two of the
    /// largest values, so that no command of two keys is refused.
    fn loads_max(&self) -> usize {
        self.node.settings.output_bytes_max.max(self.limits.bulk_bytes_max.saturating_mul(2))
    }

    /// Keeps in memory, until the turn is applied, the keys of a command that will be looked at then: those that were fetched
    /// for it are pinned already, others may be in memory only for now.
    fn hold_keys(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        mut pinned: Vec<Vec<u8>>,
        fleeting: bool,
    ) -> Vec<Vec<u8>> {
        if fleeting {
            pinned.sort_unstable();
            let fetched = pinned.len();
            for key in command::keys_of(spec, args).map(|position| args[position]) {
                let is_pinned = pinned[..fetched].binary_search_by(|other| other.as_slice().cmp(key)).is_ok();
                if !is_pinned && self.host.data_mut().hold(key) {
                    pinned.push(key.to_vec());
                }
            }
        }
        pinned
    }

    /// Adds the keys that the commands in `input` will need and that only the store knows to those that the connection waits
    /// for already: a pipeline of reads is fetched together, not one after another.
    pub(super) fn look_ahead(&mut self, place: usize, input: &[u8]) {
        let limits = self.limits(place);
        let mut ahead = Vec::new();
        let keys_max = LOOK_AHEAD_KEYS_MAX.saturating_sub(self.conns[place].wanted.own.len());
        let mut decoder = Decoder::new();
        let mut rest = input;
        for _ in 0..LOOK_AHEAD_COMMANDS_MAX {
            match decoder.decode(rest, &limits) {
                Ok(Step::Empty { consumed }) => rest = &rest[consumed..],
                Ok(Step::Command { consumed }) => {
                    let mut args = Vec::with_capacity(decoder.args_len());
                    decoder.fill_args(rest, &mut args);
                    if let Ok(spec) = command::resolve(&args)
                        && matches!(spec.handler, Handler::Data(_))
                    {
                        let needs = spec.needs(&args);
                        let seen = self.look_at_keys(spec, &args, needs, self.clock_ms);
                        ahead.extend(seen.missing.into_iter().map(|key| (key, needs)));
                    }
                    if ahead.len() >= keys_max {
                        ahead.truncate(keys_max);
                        break;
                    }
                    rest = &rest[consumed..];
                }
                // What is incomplete or wrong is dealt with when its turn comes.
                Ok(Step::Incomplete { .. }) | Err(_) => break,
            }
        }
        self.conns[place].wanted.ahead = ahead;
    }

    fn run_connection_command(
        &mut self,
        place: usize,
        spec: &'static CommandSpec,
        command: Connection,
        args: &[&[u8]],
    ) -> bool {
        if self.conns[place].pending > 0 {
            return self.hold(place, Hold::Barrier);
        }
        if command == Connection::Info {
            self.publish_figures();
        } else {
            self.publish();
        }
        let node = Arc::clone(&self.node);
        let now_ms = self.read_time_ms();
        let started = std::time::Instant::now();
        let conn = &mut self.conns[place];
        let mark = conn.reply.output().mark();
        let was_silent = conn.session.is_silent();
        // CLIENT INFO and CLIENT LIST name themselves.
        conn.info.ran(spec.id);
        let mut context = ConnContext::new(&mut conn.session, &node, args, &mut conn.reply, now_ms);
        context.now_us = super::wall_clock_us();
        connection::run(command, &mut context);
        let outcome = context.outcome;
        let error = conn.reply.take_error();
        let silent = was_silent && conn.session.is_silent() || conn.session.is_off();
        if silent {
            conn.reply.output_mut().rewind(mark);
        }
        conn.session.ran_command(spec);
        conn.reply.set_proto(conn.session.proto);
        if outcome == Outcome::Close {
            conn.closing = true;
        }
        let info = Arc::clone(&conn.info);
        self.metrics.record_command(spec, args, started.elapsed(), error, Some(&info));
        true
    }

    /// Whether CLIENT PAUSE holds the command back. CLIENT itself always goes through: it is what ends a pause.
    fn is_paused(&self, spec: &CommandSpec) -> bool {
        self.node.is_paused(spec.is_write(), self.clock_ms) && !spec.name.starts_with("client")
    }

    /// Answers an error in the command's place in the connection's order.
    pub(super) fn refuse(&mut self, place: usize, text: &str) -> bool {
        self.answer_now(place, |reply| reply.error(text));
        true
    }

    /// Writes a reply that needs nothing from the group, behind what the connection still waits for.
    pub(super) fn answer_now(&mut self, place: usize, write: impl FnOnce(&mut Reply)) {
        let conn = &mut self.conns[place];
        let silent = conn.session.is_silent();
        conn.session.answered();
        if conn.pending == 0 {
            let mark = conn.reply.output().mark();
            write(&mut conn.reply);
            if let Some(code) = conn.reply.take_error() {
                self.node.stats.record_error(code.as_str());
            }
            if silent {
                conn.reply.output_mut().rewind(mark);
            }
        } else {
            let mut reply = Reply::new(conn.session.proto);
            write(&mut reply);
            if let Some(code) = reply.take_error() {
                self.node.stats.record_error(code.as_str());
            }
            let bytes = if silent { Vec::new() } else { reply.output().to_vec() };
            self.push_ready(place, bytes);
        }
    }

    /// Keeps the connection's next command waiting.
    pub(super) fn hold(&mut self, place: usize, hold: Hold) -> bool {
        self.conns[place].hold = hold;
        match hold {
            Hold::Paused => {
                let key = self.key_of(place);
                self.paused.push(key);
            }
            // Released when the turn has answered: every connection with an unanswered command is written to then.
            Hold::Barrier => assert!(self.conns[place].pending > 0, "a barrier without anything to wait for"),
            Hold::None | Hold::Fetch | Hold::Job | Hold::Quorum => {}
        }
        false
    }

    /// Lets a held connection go on.
    pub(super) fn release(&mut self, key: ConnKey) {
        if let Some(conn) = self.conn_mut(key) {
            conn.hold = Hold::None;
            conn.wake();
        }
    }
}
