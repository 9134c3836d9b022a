//! From a decoded command to what is done with it.
//!
//! Hop 2 of the data path. In: a command's arguments, slices of the read buffer. Out: a write in the turn's log entry, a read
//! answered at once (or behind the connection's own writes), a connection command answered at once, or a job.
//!
//! The order of a connection's replies is the order of its commands. A read may be answered at once only if nothing of its
//! connection is waiting: then the applied state holds every write that was ever acknowledged, and the read is
//! linearizable. NB: with one voter no round to other replicas is needed for that, and none is made.

use super::Shard;
use super::conn::{ConnKey, Hold};
use crate::cluster::route::{Standing, route};
use crate::command::{self, CommandSpec, Connection, Handler, Needs, flag};
use crate::connection::{self, ConnContext, NOAUTH, Outcome};
use crate::replica::Residence;
use crate::resp::{Decoder, Limits, Reply, Step};
use std::sync::Arc;

/// Bytes of replies to reads that wait in the turn, above which a connection's next read waits for the turn to be answered.
const PENDING_READ_BYTES_MAX: usize = 1 << 20;
/// Commands looked at, and keys wanted of the store, beyond the command that has to wait for its own.
const LOOK_AHEAD_COMMANDS_MAX: usize = 256;
const LOOK_AHEAD_KEYS_MAX: usize = 64;

/// Where a command belongs.
enum Place {
    /// This node leads what it is about, or is alone.
    Here,
    /// Here, from what a replica knows: the client said READONLY.
    Replica,
    /// Not here; the text says where, or why not.
    Elsewhere(String),
}

impl Shard {
    /// Whether this node answers a command about keys.
    fn place_of(&self, place: usize, spec: &'static CommandSpec, args: &[&[u8]]) -> Place {
        let Some(topology) = self.topology() else { return Place::Here };
        let leads = self.leads();
        let standing = Standing { read_only: self.conns[place].session.read_only };
        match route(topology, spec, args, standing, |_| leads).error() {
            None if leads => Place::Here,
            None => Place::Replica,
            Some(text) => Place::Elsewhere(text.into_owned()),
        }
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
                    Place::Here if spec.is_read() && !self.may_read(place) => return false,
                    Place::Here | Place::Replica => {}
                    Place::Elsewhere(text) => return self.refuse(place, &text),
                }
                self.run_special(place, spec, special, args);
                true
            }
            Handler::Data(_) => self.dispatch_data(place, spec, args),
        }
    }

    fn dispatch_data(&mut self, place: usize, spec: &'static CommandSpec, args: &[&[u8]]) -> bool {
        if let Err(failure) = command::check_sizes(spec, args, self.limits.bulk_bytes_max) {
            return self.refuse(place, failure.text());
        }
        let writes = spec.is_write();
        if writes && let Some(reason) = self.host.fault() {
            let text = format!("MISCONF {reason}");
            return self.refuse(place, &text);
        }
        if self.awaits_successor() {
            return self.hold(place, Hold::Paused);
        }
        let replica = match self.place_of(place, spec, args) {
            Place::Here => false,
            Place::Replica => true,
            Place::Elsewhere(text) => return self.refuse(place, &text),
        };
        if writes && (self.host.write_stall() || self.is_turn_full()) {
            return self.hold(place, Hold::Paused);
        }
        let needs_keys = !writes || spec.needs(args) == Needs::Keys;
        let mut needs_time = false;
        if needs_keys {
            // A replica can't move the group's time: it shows what it knows.
            let clock_ms = if replica { self.host.data().time_ms() } else { self.clock_ms() };
            let mut missing: Vec<Vec<u8>> = Vec::new();
            for position in command::keys_of(spec, args) {
                let key = args[position];
                match self.host.data().residence(key, clock_ms) {
                    Residence::Here => {}
                    Residence::Ending => needs_time = true,
                    Residence::Unknown => missing.push(key.to_vec()),
                }
            }
            if !missing.is_empty() {
                self.conns[place].wanted = missing;
                return self.hold(place, Hold::Fetch);
            }
        }
        if needs_time && let Some(reason) = self.host.fault() {
            // The key's time has come, but the log can't be told so any more, and after a restart it might be there again.
            let text = format!("MISCONF {reason}");
            return self.refuse(place, &text);
        }
        // NB: a read behind writes, or behind the group's time, waits for an entry, and needs no other word of the quorum.
        let waits = self.conns[place].pending > 0 || needs_time;
        if !writes && !replica && !waits && !self.may_read(place) {
            return false;
        }
        if !writes && self.conns[place].pending > 0 {
            // Its reply comes together with those of the whole turn: many large ones must not.
            let keys = command::keys_of(spec, args);
            let bytes: usize = keys.map(|position| self.host.data().value_bytes(args[position])).sum();
            self.conns[place].pending_read_bytes += bytes;
            if self.conns[place].pending_read_bytes > PENDING_READ_BYTES_MAX {
                return self.hold(place, Hold::Barrier);
            }
        }
        let pinned = std::mem::take(&mut self.conns[place].pinned);
        if writes {
            self.unpin_after_turn(pinned);
            self.push_write(place, spec, args);
        } else if self.conns[place].pending > 0 || needs_time {
            self.unpin_after_turn(pinned);
            self.push_read(place, spec, args, needs_time);
        } else {
            let now_ms = if replica { self.host.data().time_ms() } else { self.read_time_ms() };
            let silent = self.conns[place].session.is_silent();
            let key = self.key_of(place);
            // A read that fails has answered so.
            let _ = self.run(spec, args, Some(key), silent, now_ms, &mut None);
            for key in &pinned {
                self.host.data_mut().unpin(key);
            }
        }
        self.conns[place].session.ran_command(spec);
        true
    }

    /// Adds the keys that the commands in `input` will need and that only the store knows to those that the connection waits
    /// for already: a pipeline of reads is fetched together, not one after another.
    pub(super) fn look_ahead(&mut self, place: usize, input: &[u8]) {
        let limits = self.limits(place);
        let mut wanted = std::mem::take(&mut self.conns[place].wanted);
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
                        && (!spec.is_write() || spec.needs(&args) == Needs::Keys)
                    {
                        for key in command::keys_of(spec, &args).map(|position| args[position]) {
                            if self.host.data().residence(key, self.clock_ms) == Residence::Unknown {
                                wanted.push(key.to_vec());
                            }
                        }
                    }
                    if wanted.len() >= LOOK_AHEAD_KEYS_MAX {
                        break;
                    }
                    rest = &rest[consumed..];
                }
                // What is incomplete or wrong is dealt with when its turn comes.
                Ok(Step::Incomplete { .. }) | Err(_) => break,
            }
        }
        self.conns[place].wanted = wanted;
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
