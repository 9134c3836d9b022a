//! Sessions: what their entries do to a replica.

use super::{GroupKeyspace, Replica, internal};
use crate::command::{self, CommandSpec, Exec, keys_of};
use crate::defects::{self, Defect};
use crate::entry::EntryError;
use crate::once::{
    ACKNOWLEDGED, BEYOND, DIFFERS, EXPIRED, FULL, INVALID_ID, ISSUE_SKEW_MS, NOT_KEPT, OnceHead, REPLY_BYTES_MAX,
    REPLY_BYTES_TIGHT, Record, SessionId, SessionLimits, Verdict,
};
use crate::resp::Reply;
use crate::slot::slot_of;
use holdfast_engine::table::{RECORD_OVERHEAD_BYTES, RecordKey};

/// Bits of an id's place below the entry's index: as those of an incarnation.
const PLACE_OP_BITS: u32 = 20;
/// Bytes that a new record and its first reply may need.
const NEW_RECORD_BYTES: u64 = RECORD_OVERHEAD_BYTES + 48;

/// What an entry about sessions did.
#[derive(Debug, Clone, Copy)]
pub enum SessionEffect {
    /// An id was issued, or refused.
    Issued,
    /// The command was run; the reply is its own.
    Ran(&'static CommandSpec),
    /// It had been run before; the reply is that of the first time.
    Replayed,
    /// It was refused.
    Refused,
    /// Records of sessions that are over were forgotten, so many.
    Swept(u64),
}

impl Replica {
    /// Whether a logged number is one about sessions, for [`Replica::apply_session`].
    pub fn is_session(number: u16) -> bool {
        matches!(number, internal::SESSION_ONCE | internal::SESSION_NEW | internal::SESSION_SWEEP)
    }

    /// Applies a logged command about sessions. `reply` is empty, speaks RESP3 and gets exactly one value, except from a sweep;
    /// `op` is the command's place in the entry, `value_bytes_max` as in [`Exec`]. `touch`: it counts as a use of its keys.
    ///
    /// # Errors
    /// When it can't be read, or the store failed: this replica must go no further.
    pub fn apply_session(
        &mut self,
        number: u16,
        args: &[&[u8]],
        op: u32,
        value_bytes_max: usize,
        touch: bool,
        reply: &mut Reply,
    ) -> Result<SessionEffect, EntryError> {
        match number {
            internal::SESSION_ONCE => self.apply_once(args, op, value_bytes_max, touch, reply),
            internal::SESSION_NEW => {
                let limits = args.get(1).and_then(|head| SessionLimits::decode(head));
                let limits = limits.ok_or(EntryError::Malformed("head of a new session"))?;
                if self.has_room(limits.bytes_max) {
                    let place = (self.applying << PLACE_OP_BITS) | u64::from(op);
                    let id = SessionId::issue(self.time_ms, limits.retention_seconds, self.group, place);
                    reply.bulk(id.to_string().as_bytes());
                    Ok(SessionEffect::Issued)
                } else {
                    reply.error(FULL);
                    Ok(SessionEffect::Refused)
                }
            }
            internal::SESSION_SWEEP => Ok(SessionEffect::Swept(self.sweep_sessions(args.get(1..).unwrap_or_default()))),
            other => Err(EntryError::Command(other)),
        }
    }

    fn has_room(&self, bytes_max: u64) -> bool {
        self.table.records_bytes() + NEW_RECORD_BYTES <= bytes_max
    }

    fn apply_once(
        &mut self,
        args: &[&[u8]],
        op: u32,
        value_bytes_max: usize,
        touch: bool,
        reply: &mut Reply,
    ) -> Result<SessionEffect, EntryError> {
        let head = args.get(1).and_then(|head| OnceHead::decode(head));
        let head = head.ok_or(EntryError::Malformed("head of a numbered write"))?;
        let OnceHead { session, number, low, fingerprint, bytes_max, .. } = head;
        let spec = command::by_id(head.command).ok_or(EntryError::Command(head.command))?;
        // The head stands where a name would: no handler looks at that.
        let args = &args[1..];
        let position = keys_of(spec, args).next().ok_or(EntryError::Malformed("numbered write without a key"))?;
        let key = RecordKey { slot: slot_of(args[position]), name: *session.as_bytes() };
        let mut refuse = |text: &str| {
            reply.error(text);
            Ok(SessionEffect::Refused)
        };
        if session.issued_ms() > self.time_ms.saturating_add(ISSUE_SKEW_MS) {
            return refuse(INVALID_ID);
        }
        let before = match self.table.record(&key) {
            // NB: damage that a checksum did not show. Guessing could run the write twice.
            Some(bytes) => Some(Record::decode(bytes).ok_or(EntryError::Malformed("record of a session"))?),
            None => None,
        };
        let live = before.filter(|record| session.deadline_ms(record.used_ms()) > self.time_ms);
        let is_new = live.is_none();
        if is_new && session.deadline_ms(0) <= self.time_ms {
            return refuse(EXPIRED);
        }
        if is_new && !self.has_room(bytes_max) {
            return refuse(FULL);
        }
        let mut record = live.unwrap_or_default();
        if defects::has(Defect::SessionForgotten) {
            record = Record::default();
        }
        record.advance(self.time_ms, low);
        let refusal = match record.judge(number, fingerprint) {
            Verdict::Run => None,
            Verdict::Replay(stored) => {
                reply.output_mut().extend(stored);
                self.table.put_record(key, &record.encode());
                return Ok(SessionEffect::Replayed);
            }
            Verdict::NotKept => Some(NOT_KEPT),
            Verdict::Acknowledged => Some(ACKNOWLEDGED),
            Verdict::Differs => Some(DIFFERS),
            Verdict::Beyond => Some(BEYOND),
        };
        // Live sessions may go on for a while when there is no room for new ones, but not without end.
        let crowded = |replica: &Self| replica.table.records_bytes() > bytes_max.saturating_add(bytes_max / 2);
        if !is_new && (refusal.is_some() || crowded(self)) {
            // What was acknowledged goes in any case, and may be what makes room.
            self.table.put_record(key, &record.encode());
        }
        if let Some(text) = refusal.or(crowded(self).then_some(FULL)) {
            return refuse(text);
        }
        let now_ms = self.time_ms;
        let mut keys = GroupKeyspace::new(self, false, touch, op);
        spec.execute(&mut Exec { keys: &mut keys, args, reply, now_ms, value_bytes_max });
        if let Some(fault) = keys.take_fault() {
            return Err(EntryError::Store(fault.to_string()));
        }
        let tight = self.table.records_bytes() > bytes_max;
        let reply_bytes_max = if tight { REPLY_BYTES_TIGHT } else { REPLY_BYTES_MAX };
        let stored = (reply.output().len_bytes() <= reply_bytes_max).then(|| reply.output().to_vec());
        record.keep(number, fingerprint, stored.as_deref());
        self.table.put_record(key, &record.encode());
        Ok(SessionEffect::Ran(spec))
    }

    /// Forgets those of the records whose sessions are over by the group's time.
    fn sweep_sessions(&mut self, keys: &[&[u8]]) -> u64 {
        let mut count = 0;
        for key in keys {
            let Some(key) = decode_key(key) else { continue };
            if self.table.record(&key).is_some_and(|record| is_over(&key, record, self.time_ms)) {
                self.table.delete_record(&key);
                count += 1;
            }
        }
        count
    }

    /// Looks at up to `limit` records after one for sessions that are over at `clock_ms`: where to go on (`None`: from the
    /// beginning), and arguments for [`internal::SESSION_SWEEP`].
    pub fn old_sessions(
        &self,
        after: Option<RecordKey>,
        limit: usize,
        clock_ms: u64,
    ) -> (Option<RecordKey>, Vec<Vec<u8>>) {
        let mut seen = 0;
        let mut last = None;
        let mut found = Vec::new();
        for (key, record) in self.table.records_after(after).take(limit) {
            if is_over(key, record, clock_ms) {
                found.push([key.slot.to_le_bytes().as_slice(), &key.name].concat());
            }
            seen += 1;
            last = Some(*key);
        }
        (last.filter(|_| seen == limit), found)
    }

    /// Records of sessions, and the bytes that they take.
    pub fn session_figures(&self) -> (u64, u64) {
        (self.table.records_len() as u64, self.table.records_bytes())
    }
}

/// A record's key as a sweep names it: slot, little-endian, and name.
fn decode_key(bytes: &[u8]) -> Option<RecordKey> {
    let (slot, name) = bytes.split_first_chunk()?;
    Some(RecordKey { slot: u16::from_le_bytes(*slot), name: name.try_into().ok()? })
}

/// Whether a record's session is over. What can't be read stays: somebody should look at it.
fn is_over(key: &RecordKey, record: &[u8], now_ms: u64) -> bool {
    let used_ms = Record::used_ms_of(record);
    SessionId::from_bytes(key.name).zip(used_ms).is_some_and(|(id, used_ms)| id.deadline_ms(used_ms) <= now_ms)
}
