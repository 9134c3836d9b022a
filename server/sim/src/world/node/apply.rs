//! Committed entries: applied in log order, their replies written into the connections that asked. Follows `shard/turn.rs`.

use holdfast_raft::{ConfState, Entry, EntryKind};
use holdfast_server::command::{self, CommandSpec, Exec, VALUE_BYTES_MAX_DEFAULT};
use holdfast_server::entry::{EntryError, EntryReader};
use holdfast_server::once::write_reply;
use holdfast_server::replica::{DATA_GROUP, GroupKeyspace, InternalEffect, Replica, SessionEffect};
use holdfast_server::resp::{Proto, Reply};

use super::clients::{Batch, ConnId, Work};
use super::{Effect, Node, hash_bytes, hash_payload};

impl Node {
    /// Applies one committed entry, whoever proposed it.
    ///
    /// # Errors
    /// When it can't be read, or the store failed.
    pub(super) fn apply(&mut self, entry: &Entry, conf: Option<ConfState>) -> Result<(), String> {
        let mut batch = match self.turn.waiting.front() {
            Some(front) if front.index == entry.index => self.turn.waiting.pop_front().unwrap_or_default(),
            _ => Batch::default(),
        };
        if batch.index == entry.index && batch.term != entry.term {
            self.mark("proposals replaced");
            self.lose(std::mem::take(&mut batch));
        }
        let stamp_before = self.host.data().time_ms();
        if entry.kind == EntryKind::Normal && !entry.payload.is_empty() {
            self.apply_commands(entry, &mut batch).map_err(|error| format!("entry {}: {error}", entry.index))?;
        }
        if let Some(conf) = &conf {
            self.effects.push(Effect::Members { index: entry.index, conf: conf.clone() });
        }
        self.host.data_mut().finish_entry(entry, conf);
        let stamp_ms = self.host.data().time_ms();
        if stamp_ms < stamp_before {
            return Err(format!("the group's time went back from {stamp_before} to {stamp_ms}"));
        }
        let (index, term, hash) = (entry.index, entry.term, hash_payload(&entry.payload));
        self.effects.push(Effect::Applied { index, term, hash, stamp_ms });
        if index.is_multiple_of(self.settings.compare_every) {
            let hash = self.state_hash()?;
            self.effects.push(Effect::State { index, hash });
        }
        if !batch.ops.is_empty() {
            return Err("operations of a batch were not run".to_owned());
        }
        Ok(())
    }

    /// A hash over everything that replicas must agree on at their applied index.
    ///
    /// # Errors
    /// When the store can't be read.
    pub(in crate::world) fn state_hash(&mut self) -> Result<u64, String> {
        let (view, meta) =
            self.host.begin_sending(DATA_GROUP).map_err(|error| error.to_string())?.ok_or("the group is gone")?;
        let header = view.header();
        let applied = view.applied();
        let mut hash = hash_bytes(applied.index ^ applied.term.rotate_left(32) ^ applied.stamp_ms, &header.conf_state);
        for row in view.rows(0, u16::MAX) {
            let row = row.map_err(|error| error.to_string())?;
            hash = hash_bytes(hash ^ row.hash, &row.key);
            hash = hash_bytes(hash ^ row.object.deadline_ms, &row.object.data);
        }
        drop(view);
        self.host.finish_sending(DATA_GROUP, meta.index);
        Ok(hash)
    }

    fn apply_commands(&mut self, entry: &Entry, batch: &mut Batch) -> Result<(), EntryError> {
        let mut reader = EntryReader::new(&entry.payload)?;
        self.host.data_mut().begin_apply(entry.index, reader.stamp_ms());
        let mut args = Vec::new();
        let mut place = 0;
        if batch.ops.is_empty() {
            while let Some(number) = reader.next(&mut args)? {
                self.run_logged(number, &args, None, &mut place)?;
            }
            return Ok(());
        }
        if batch.ops.iter().any(|op| op.conn.is_some()) {
            let conf = self.conf.clone();
            self.effects.push(Effect::Acknowledged { index: entry.index, term: entry.term, conf });
        }
        let mut kept = Vec::new();
        for op in batch.ops.drain(..) {
            match op.work {
                Work::Write => {
                    let number = reader.next(&mut args)?.ok_or(EntryError::Malformed("fewer ops than proposed"))?;
                    self.run_logged(number, &args, op.conn, &mut place)?;
                }
                Work::Read(at) => {
                    let number = batch.arena.get(at, &mut kept)?;
                    let spec = command::by_id(number).ok_or(EntryError::Command(number))?;
                    let now_ms = self.read_time_ms();
                    self.run(spec, &kept, op.conn, now_ms, place)?;
                }
                Work::Ready(bytes) => {
                    if let Some(conn) = op.conn.and_then(|conn| self.conns.get_mut(&conn)) {
                        conn.reply.output_mut().extend(&bytes);
                    }
                }
            }
            if let Some(id) = op.conn
                && let Some(conn) = self.conns.get_mut(&id)
            {
                conn.pending -= 1;
                self.touched.insert(id);
            }
        }
        if reader.next(&mut args)?.is_some() {
            return Err(EntryError::Malformed("more ops than proposed"));
        }
        Ok(())
    }

    fn run_logged(
        &mut self,
        number: u16,
        args: &[&[u8]],
        conn: Option<ConnId>,
        place: &mut u32,
    ) -> Result<(), EntryError> {
        match self.host.data_mut().apply_internal(number, args) {
            InternalEffect::Reclaimed(count) => {
                self.mark(if count > 0 { "expired keys deleted" } else { "expired keys that were none any more" });
                return Ok(());
            }
            InternalEffect::Members => {
                self.answer_joins();
                self.topology_changed = true;
                return Ok(());
            }
            InternalEffect::Checks => return Ok(()),
            InternalEffect::Unknown => {}
        }
        if Replica::is_session(number) {
            *place += 1;
            return self.run_session(number, args, conn, *place);
        }
        let spec = command::by_id(number).ok_or(EntryError::Command(number))?;
        let now_ms = self.host.data().time_ms();
        *place += 1;
        self.run(spec, args, conn, now_ms, *place)
    }

    /// Runs a logged command about sessions.
    ///
    /// # Errors
    /// As [`Node::run`].
    fn run_session(&mut self, number: u16, args: &[&[u8]], conn: Option<ConnId>, place: u32) -> Result<(), EntryError> {
        let mut reply = Reply::new(Proto::Resp3);
        let replica = self.host.data_mut();
        let effect = replica.apply_session(number, args, place, VALUE_BYTES_MAX_DEFAULT, true, &mut reply)?;
        self.mark(match effect {
            SessionEffect::Issued => "sessions issued",
            SessionEffect::Ran(_) => "numbered writes run",
            SessionEffect::Replayed => "numbered writes answered again",
            SessionEffect::Refused => "numbered writes refused",
            SessionEffect::Swept(0) => "sweeps that came too late",
            SessionEffect::Swept(_) => "sessions forgotten",
        });
        if let Some(conn) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            write_reply(&reply.output().to_vec(), &mut conn.reply);
        }
        Ok(())
    }

    /// Runs a data command against the table, its reply going to the connection if that is still there.
    ///
    /// # Errors
    /// When a write met a failure of the store.
    pub(super) fn run(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        conn: Option<ConnId>,
        now_ms: u64,
        place: u32,
    ) -> Result<(), EntryError> {
        let client = conn.and_then(|conn| self.conns.get_mut(&conn));
        let reply = client.map_or(&mut self.sink, |conn| &mut conn.reply);
        let mut keys = GroupKeyspace::new(self.host.data_mut(), spec.is_read(), true, place);
        let value_bytes_max = VALUE_BYTES_MAX_DEFAULT;
        spec.execute(&mut Exec { keys: &mut keys, args, reply, now_ms, value_bytes_max });
        let fault = keys.take_fault();
        let _ = reply.take_error();
        self.sink.output_mut().clear();
        fault.map_or(Ok(()), |fault| Err(EntryError::Store(fault.to_string())))
    }

    pub(super) fn read_time_ms(&self) -> u64 {
        self.clock_ms.max(self.host.data().time_ms())
    }
}
