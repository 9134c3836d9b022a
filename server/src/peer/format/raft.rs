//! Raft's messages as frames.

use super::fields::{Reader, put_payload, put_u8, put_u32, put_u64s};
use super::{FormatError, kind};
use crate::peer::PeerMessage;
use crate::resp::Output;
use holdfast_engine::GroupId;
use holdfast_raft::membership::LEARNERS_MAX;
use holdfast_raft::{ConfState, Entry, EntryKind, Message, MessageBody, Position, SnapshotMeta, VOTERS_MAX};

/// What an entry takes before the payloads: term, kind, length.
const ENTRY_HEAD_BYTES: usize = 8 + 1 + 4;

pub(super) fn put(out: &mut Output, group: GroupId, message: &Message) {
    let head = [group, message.from, message.to, message.term];
    let mut begin = |kind| {
        put_u8(out, kind);
        put_u64s(out, head);
    };
    match &message.body {
        MessageBody::PreVote { last_index, last_term, commit } => {
            begin(kind::PRE_VOTE);
            put_u64s(out, [*last_index, *last_term, commit.index, commit.term]);
        }
        MessageBody::PreVoteReply { granted, commit } => {
            begin(kind::PRE_VOTE_REPLY);
            put_vote_reply(out, *granted, *commit);
        }
        MessageBody::Vote { last_index, last_term, transfer } => {
            begin(kind::VOTE);
            put_u64s(out, [*last_index, *last_term]);
            put_u8(out, u8::from(*transfer));
        }
        MessageBody::VoteReply { granted, commit } => {
            begin(kind::VOTE_REPLY);
            put_vote_reply(out, *granted, *commit);
        }
        MessageBody::Append { previous_index, previous_term, commit, entries } => {
            begin(kind::APPEND);
            put_u64s(out, [*previous_index, *previous_term, *commit]);
            put_entries(out, *previous_index, entries);
        }
        MessageBody::AppendAccepted { index } => {
            begin(kind::APPEND_ACCEPTED);
            put_u64s(out, [*index]);
        }
        MessageBody::AppendRejected { previous_index, hint_index, hint_term } => {
            begin(kind::APPEND_REJECTED);
            put_u64s(out, [*previous_index, *hint_index, *hint_term]);
        }
        MessageBody::Heartbeat { round, commit, sleep } => {
            begin(kind::HEARTBEAT);
            put_u64s(out, [*round, *commit]);
            put_u8(out, u8::from(*sleep));
        }
        MessageBody::HeartbeatReply { round, asleep } => {
            begin(kind::HEARTBEAT_REPLY);
            put_u64s(out, [*round]);
            put_u8(out, u8::from(*asleep));
        }
        MessageBody::ReadIndex { request } => {
            begin(kind::READ_INDEX);
            put_u64s(out, [*request]);
        }
        MessageBody::ReadIndexReply { request, index } => {
            begin(kind::READ_INDEX_REPLY);
            put_u64s(out, [*request]);
            put_u8(out, u8::from(index.is_some()));
            put_u64s(out, [index.unwrap_or(0)]);
        }
        MessageBody::Snapshot { meta } => {
            begin(kind::SNAPSHOT);
            put_u64s(out, [meta.index, meta.term]);
            put_conf_state(out, &meta.conf_state);
        }
        MessageBody::SnapshotReply { index } => {
            begin(kind::SNAPSHOT_REPLY);
            put_u64s(out, [*index]);
        }
        MessageBody::SnapshotWanted { index_min } => {
            begin(kind::SNAPSHOT_WANTED);
            put_u64s(out, [*index_min]);
        }
        MessageBody::PromiseLost { last_index } => {
            begin(kind::RAFT_PROMISE_LOST);
            put_u64s(out, [*last_index]);
        }
        MessageBody::TimeoutNow => begin(kind::TIMEOUT_NOW),
        MessageBody::StaleTerm => begin(kind::STALE_TERM),
    }
}

fn put_vote_reply(out: &mut Output, granted: bool, commit: Position) {
    put_u8(out, u8::from(granted));
    put_u64s(out, [commit.index, commit.term]);
}

fn put_entries(out: &mut Output, previous_index: u64, entries: &[Entry]) {
    put_u32(out, entries.len() as u32);
    let mut previous = previous_index;
    for entry in entries {
        // The index is not written: the reader counts. A gap here would put entries in wrong places over there.
        assert_eq!(previous.checked_add(1), Some(entry.index), "the entries of an append are consecutive");
        previous = entry.index;
        put_u64s(out, [entry.term]);
        put_u8(out, entry_kind_to_wire(entry.kind));
        put_u32(out, entry.payload.len() as u32);
    }
    for entry in entries {
        put_payload(out, &entry.payload);
    }
}

fn put_conf_state(out: &mut Output, conf: &ConfState) {
    for list in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        // No list of a valid state has more than 64.
        put_u8(out, list.len() as u8);
        list.iter().for_each(|id| put_u64s(out, [*id]));
    }
    put_u8(out, u8::from(conf.auto_leave));
}

/// Reads what follows the kind byte.
pub(super) fn read(kind: u8, reader: &mut Reader<'_>) -> Result<PeerMessage, FormatError> {
    let group = reader.u64()?;
    let (from, to, term) = (reader.u64()?, reader.u64()?, reader.u64()?);
    if from == 0 || to == 0 || from == to {
        return Err(FormatError::Body("a message's sender and receiver can't be"));
    }
    let body = match kind {
        kind::PRE_VOTE => {
            MessageBody::PreVote { last_index: reader.u64()?, last_term: reader.u64()?, commit: position(reader)? }
        }
        kind::PRE_VOTE_REPLY => MessageBody::PreVoteReply { granted: reader.flag()?, commit: position(reader)? },
        kind::VOTE => {
            MessageBody::Vote { last_index: reader.u64()?, last_term: reader.u64()?, transfer: reader.flag()? }
        }
        kind::VOTE_REPLY => MessageBody::VoteReply { granted: reader.flag()?, commit: position(reader)? },
        kind::APPEND => {
            let (previous_index, previous_term, commit) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let entries = read_entries(reader, previous_index)?;
            MessageBody::Append { previous_index, previous_term, commit, entries }
        }
        kind::APPEND_ACCEPTED => MessageBody::AppendAccepted { index: reader.u64()? },
        kind::APPEND_REJECTED => MessageBody::AppendRejected {
            previous_index: reader.u64()?,
            hint_index: reader.u64()?,
            hint_term: reader.u64()?,
        },
        kind::HEARTBEAT => {
            MessageBody::Heartbeat { round: reader.u64()?, commit: reader.u64()?, sleep: reader.flag()? }
        }
        kind::HEARTBEAT_REPLY => MessageBody::HeartbeatReply { round: reader.u64()?, asleep: reader.flag()? },
        kind::READ_INDEX => MessageBody::ReadIndex { request: reader.u64()? },
        kind::READ_INDEX_REPLY => {
            let (request, known, index) = (reader.u64()?, reader.flag()?, reader.u64()?);
            if !known && index != 0 {
                return Err(FormatError::Body("an unknown index has a value"));
            }
            MessageBody::ReadIndexReply { request, index: known.then_some(index) }
        }
        kind::SNAPSHOT => {
            let (index, term) = (reader.u64()?, reader.u64()?);
            MessageBody::Snapshot { meta: SnapshotMeta { index, term, conf_state: read_conf_state(reader)? } }
        }
        kind::SNAPSHOT_REPLY => MessageBody::SnapshotReply { index: reader.u64()? },
        kind::SNAPSHOT_WANTED => MessageBody::SnapshotWanted { index_min: reader.u64()? },
        kind::RAFT_PROMISE_LOST => MessageBody::PromiseLost { last_index: reader.u64()? },
        kind::TIMEOUT_NOW => MessageBody::TimeoutNow,
        kind::STALE_TERM => MessageBody::StaleTerm,
        _ => return Err(FormatError::Kind(kind)),
    };
    Ok(PeerMessage::Raft { group, message: Message { from, to, term, body } })
}

fn position(reader: &mut Reader<'_>) -> Result<Position, FormatError> {
    Ok(Position { index: reader.u64()?, term: reader.u64()? })
}

fn read_entries(reader: &mut Reader<'_>, previous_index: u64) -> Result<Vec<Entry>, FormatError> {
    let count = reader.u32()? as usize;
    // Before anything is allocated: the heads of that many entries must be there.
    if count.checked_mul(ENTRY_HEAD_BYTES).is_none_or(|bytes| bytes > reader.left()) {
        return Err(FormatError::Body("more entries are announced than fit into the frame"));
    }
    let mut heads = Vec::with_capacity(count);
    for _ in 0..count {
        let term = reader.u64()?;
        let kind = entry_kind_from_wire(reader.u8()?).ok_or(FormatError::Body("an entry is of an unknown kind"))?;
        let length = reader.u32()? as usize;
        if kind == EntryKind::Noop && length > 0 {
            return Err(FormatError::Body("an empty entry has a payload"));
        }
        heads.push((term, kind, length));
    }
    let mut entries = Vec::with_capacity(count);
    let mut index = previous_index;
    for (term, kind, length) in heads {
        index = index.checked_add(1).ok_or(FormatError::Body("an entry's index is beyond all numbers"))?;
        entries.push(Entry { term, index, kind, payload: reader.payload(length)? });
    }
    Ok(entries)
}

fn read_conf_state(reader: &mut Reader<'_>) -> Result<ConfState, FormatError> {
    let mut conf = ConfState::default();
    for list in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
        let count = usize::from(reader.u8()?);
        if count > VOTERS_MAX.max(LEARNERS_MAX) {
            return Err(FormatError::Body("a list of members is too long"));
        }
        for _ in 0..count {
            list.push(reader.u64()?);
        }
    }
    conf.auto_leave = reader.flag()?;
    conf.validate().map_err(FormatError::Body)?;
    Ok(conf)
}

/// The kinds of entries on the wire. The numbers never change.
fn entry_kind_to_wire(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::Noop => 1,
        EntryKind::ConfChange => 2,
    }
}

fn entry_kind_from_wire(number: u8) -> Option<EntryKind> {
    [EntryKind::Normal, EntryKind::Noop, EntryKind::ConfChange]
        .into_iter()
        .find(|kind| entry_kind_to_wire(*kind) == number)
}
