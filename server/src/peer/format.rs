//! Frames: what goes over a connection between nodes, as bytes. Pure: no socket, no clock.
//!
//! ```text
//!  frame   ┌─────────────────┬──────────────┬──────┬──────────┐
//!          │ body length u32 │ crc32 (body) │ kind │ fields … │     integers little-endian
//!          └─────────────────┴──────────────┴──────┴──────────┘
//!                                           └───── body ──────┘
//!  append  … │ count u32 │ count × ( term u64 │ kind u8 │ length u32 ) │ payload │ payload │ …
//! ```
//!
//! Encoding appends to an [`Output`]: small fields into its vector, payloads over [`COPIED_BYTES_MAX`] by reference, so that a
//! vectored write sends an entry or a piece of a snapshot from where it lies. The checksum is taken over the parts in order and
//! put into the head last.
//!
//! Decoding gives payloads as slices of the frame. A slice keeps the whole frame in memory, so there is a rule: a payload is
//! a slice if the memory that it would pin is at most [`PINNED_RATIO_MAX`] times its own size, else a copy.
//!
//! The checksum is about accidents, not about enemies; nothing is believed because of it. Each length is compared with what is
//! there before anything is allocated for it, and what no correct node sends is an error that names it. The page
//! `docs/src/formats/peer.md` has all the fields.

mod fields;
mod raft;
#[cfg(test)]
mod tests;

use super::{JoinReply, JoinRequest, PeerMessage, SnapshotChunk, SnapshotStatus};
use crate::cluster::{Address, NodeId, Pace, Starts};
use crate::replica::StateHash;
use crate::resp::Output;
use bytes::Bytes;
use fields::{Owner, Reader, put_address, put_payload, put_text, put_u8, put_u32, put_u64s, put_u128};

/// The version of the protocol that this release speaks.
pub const VERSION: u8 = 1;
/// What either side sends first: seven fixed bytes, then the version of the protocol.
pub const PREFACE: [u8; 8] = *b"HFPEER\0\x01";
/// Bytes of a frame before its body.
pub const HEAD_BYTES: usize = 8;
/// Payloads of up to this many bytes are copied into the frame, larger ones are sent from where they lie.
pub const COPIED_BYTES_MAX: usize = 4 * 1024;
/// How many times its own size a payload may pin in memory.
pub const PINNED_RATIO_MAX: usize = 4;
/// The most starts in a hello.
const STARTS_KEPT: usize = holdfast_engine::folder::STARTS_KEPT;
/// The most nodes in a welcome.
const PEERS_MAX: usize = 1024;

const _: () = assert!(PREFACE[7] == VERSION, "the preface says the version");

/// The kinds of frames. The numbers never change their meaning; 1 to 3 keep their fields in every version.
mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const ACCEPT: u8 = 2;
    pub(super) const REFUSE: u8 = 3;
    pub(super) const JOIN_REQUEST: u8 = 4;
    pub(super) const JOIN_REPLY: u8 = 5;
    pub(super) const REMOVED: u8 = 6;
    pub(super) const PROMISE_LOST: u8 = 7;
    pub(super) const PRE_VOTE: u8 = 0x10;
    pub(super) const PRE_VOTE_REPLY: u8 = 0x11;
    pub(super) const VOTE: u8 = 0x12;
    pub(super) const VOTE_REPLY: u8 = 0x13;
    pub(super) const APPEND: u8 = 0x14;
    pub(super) const APPEND_ACCEPTED: u8 = 0x15;
    pub(super) const APPEND_REJECTED: u8 = 0x16;
    pub(super) const HEARTBEAT: u8 = 0x17;
    pub(super) const HEARTBEAT_REPLY: u8 = 0x18;
    pub(super) const SNAPSHOT: u8 = 0x19;
    pub(super) const SNAPSHOT_REPLY: u8 = 0x1a;
    pub(super) const SNAPSHOT_WANTED: u8 = 0x1b;
    pub(super) const TIMEOUT_NOW: u8 = 0x1c;
    pub(super) const STALE_TERM: u8 = 0x1d;
    pub(super) const READ_INDEX: u8 = 0x1e;
    pub(super) const READ_INDEX_REPLY: u8 = 0x1f;
    pub(super) const SNAPSHOT_CHUNK: u8 = 0x20;
    pub(super) const SNAPSHOT_STATUS: u8 = 0x21;
    pub(super) const BEAT: u8 = 0x22;
    pub(super) const STATE_HASH: u8 = 0x23;
    pub(super) const RAFT_PROMISE_LOST: u8 = 0x24;
}

/// Why bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The head announces more than is allowed.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    Length {
        /// What is announced, in bytes.
        length: usize,
        /// What is allowed, in bytes.
        limit: usize,
    },
    /// The body is not what was sent.
    #[error("the checksum of a frame doesn't match: the bytes were altered on the way")]
    Checksum,
    /// A newer release's frame, or none.
    #[error("a frame is of the unknown kind {0}")]
    Kind(u8),
    /// The body breaks a rule.
    #[error("a frame is malformed: {0}")]
    Body(&'static str),
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Messages of [`Lane::Control`](super::Lane::Control).
    Control,
    /// Messages of [`Lane::Bulk`](super::Lane::Bulk).
    Bulk,
    /// One [`JoinRequest`] and its reply.
    Join,
}

/// What the dialing side says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The cluster's identity; 0 from a node that wants to join one.
    pub cluster: u128,
    /// The sender; 0 if it has no number yet.
    pub from: NodeId,
    /// Who is expected at the other end; 0 for whoever it is.
    pub to: NodeId,
    /// Where the sender's clients connect.
    pub client: Address,
    /// Where the sender's peers connect.
    pub peer: Address,
    /// The sender's starts, by which an older copy of its folder is known; empty from a node that wants to join.
    pub starts: Starts,
    /// What the sender's timing rests on.
    pub pace: Pace,
}

/// Everything that a frame can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message between nodes that know each other.
    Message(PeerMessage),
    /// The dialing side's first words.
    Hello(Hello),
    /// The accepting side's answer: it is this node, and takes messages.
    Accept(NodeId),
    /// The accepting side's answer: it takes none, for the reason given.
    Refuse(String),
    /// The accepting side's answer to a node that the cluster has removed: it is never let in again. With the text of a refusal.
    Removed(String),
    /// The accepting side's answer to a node whose folder is not the one that made its promises: it is never let in again. With the
    /// text of a refusal.
    PromiseLost(String),
    /// A node asks for a place in the cluster.
    JoinRequest(JoinRequest),
    /// The answer to that.
    JoinReply(JoinReply),
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The body's length in bytes.
    pub length: usize,
    /// The body's checksum.
    pub crc: u32,
}

impl Head {
    /// Reads a head.
    ///
    /// # Errors
    /// If the body would be empty or longer than `bytes_max`.
    pub fn decode(bytes: &[u8; HEAD_BYTES], bytes_max: usize) -> Result<Self, FormatError> {
        let [a, b, c, d, crc @ ..] = *bytes;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > bytes_max {
            return Err(FormatError::Length { length, limit: bytes_max });
        }
        if length == 0 {
            return Err(FormatError::Body("it is empty"));
        }
        Ok(Head { length, crc: u32::from_le_bytes(crc) })
    }
}

/// The checksum of a frame's body.
pub fn checksum(body: &[u8]) -> u32 {
    crc32fast::hash(body)
}

/// Appends a message's frame to `out` and returns its size, head included.
///
/// # Errors
/// If the frame's size is over `bytes_max` (which counts the head too) or over what a head can say; `out` is then as before.
///
/// # Panics
/// If the entries of an append are not consecutive.
pub fn encode_message(message: &PeerMessage, bytes_max: usize, out: &mut Output) -> Result<usize, FormatError> {
    frame(out, bytes_max, |out| match message {
        PeerMessage::Raft { group, message } => raft::put(out, *group, message),
        PeerMessage::SnapshotChunk(chunk) => {
            put_u8(out, kind::SNAPSHOT_CHUNK);
            put_u64s(out, [chunk.group, chunk.transfer, chunk.term, chunk.offset]);
            put_u8(out, u8::from(chunk.last));
            put_payload(out, &chunk.bytes);
        }
        PeerMessage::Beat => put_u8(out, kind::BEAT),
        PeerMessage::SnapshotStatus { group, transfer, status } => {
            put_u8(out, kind::SNAPSHOT_STATUS);
            put_u64s(out, [*group, *transfer]);
            match status {
                SnapshotStatus::Received(offset) => {
                    put_u8(out, 0);
                    put_u64s(out, [*offset]);
                }
                SnapshotStatus::Complete => put_u8(out, 1),
                SnapshotStatus::Refused => put_u8(out, 2),
            }
        }
        PeerMessage::StateHash { group, found } => {
            put_u8(out, kind::STATE_HASH);
            put_u64s(out, [*group, found.index]);
            put_u8(out, u8::from(found.hash.is_some()));
            found.hash.iter().for_each(|hash| put_u128(out, *hash));
        }
    })
}

/// Appends any frame to `out` and returns its size, head included.
///
/// # Errors
/// As [`encode_message`].
///
/// # Panics
/// As [`encode_message`].
pub fn encode(any: &Frame, bytes_max: usize, out: &mut Output) -> Result<usize, FormatError> {
    if let Frame::Message(message) = any {
        return encode_message(message, bytes_max, out);
    }
    frame(out, bytes_max, |out| match any {
        Frame::Message(_) => {}
        Frame::Hello(hello) => {
            put_u8(out, kind::HELLO);
            put_u8(out, purpose_to_wire(hello.purpose));
            put_u128(out, hello.cluster);
            put_u64s(out, [hello.from, hello.to]);
            put_address(out, &hello.client);
            put_address(out, &hello.peer);
            put_u64s(out, [hello.starts.boot]);
            let runs = &hello.starts.runs[..hello.starts.runs.len().min(STARTS_KEPT)];
            put_u8(out, runs.len() as u8);
            runs.iter().for_each(|run| put_u64s(out, [*run]));
            put_u64s(out, [hello.pace.election_timeout_ms, hello.pace.lease_ms, hello.pace.clock_drift_percent]);
        }
        Frame::Accept(node) => {
            put_u8(out, kind::ACCEPT);
            put_u64s(out, [*node]);
        }
        Frame::Refuse(reason) => {
            put_u8(out, kind::REFUSE);
            put_text(out, reason);
        }
        Frame::Removed(reason) => {
            put_u8(out, kind::REMOVED);
            put_text(out, reason);
        }
        Frame::PromiseLost(reason) => {
            put_u8(out, kind::PROMISE_LOST);
            put_text(out, reason);
        }
        Frame::JoinRequest(request) => {
            put_u8(out, kind::JOIN_REQUEST);
            put_u128(out, request.folder);
            put_address(out, &request.client);
            put_address(out, &request.peer);
        }
        Frame::JoinReply(reply) => {
            put_u8(out, kind::JOIN_REPLY);
            put_join_reply(out, reply);
        }
    })
}

/// Writes a frame: a place for the head, the body, then the head.
fn frame(out: &mut Output, bytes_max: usize, body: impl FnOnce(&mut Output)) -> Result<usize, FormatError> {
    let mark = out.mark();
    out.extend(&[0; HEAD_BYTES]);
    body(out);
    let bytes = out.len_bytes_since(mark);
    let length = bytes - HEAD_BYTES;
    let Some(length) = u32::try_from(length).ok().filter(|_| bytes <= bytes_max) else {
        out.rewind(mark);
        return Err(FormatError::Length { length, limit: bytes_max.saturating_sub(HEAD_BYTES) });
    };
    let mut crc = crc32fast::Hasher::new();
    out.for_each_since(mark, HEAD_BYTES, |part| crc.update(part));
    let [a, b, c, d] = length.to_le_bytes();
    let [e, f, g, h] = crc.finalize().to_le_bytes();
    out.overwrite_at(mark, &[a, b, c, d, e, f, g, h]);
    Ok(bytes)
}

/// Reads the body of a frame. Payloads are slices of it where that pins little.
///
/// # Errors
/// Says what is wrong with it.
pub fn decode(head: Head, body: &Bytes) -> Result<Frame, FormatError> {
    decode_pinning(head, body, body.len())
}

/// Reads the body of a frame that is part of an allocation of `pinned_bytes`.
pub(super) fn decode_pinning(head: Head, body: &Bytes, pinned_bytes: usize) -> Result<Frame, FormatError> {
    read(head, body, Some(Owner { body, pinned_bytes }))
}

/// Reads the body of a frame from bytes that are needed for others: payloads are copied.
///
/// # Errors
/// As [`decode`].
pub fn decode_borrowed(head: Head, body: &[u8]) -> Result<Frame, FormatError> {
    read(head, body, None)
}

fn read(head: Head, body: &[u8], owner: Option<Owner<'_>>) -> Result<Frame, FormatError> {
    if head.length != body.len() {
        return Err(FormatError::Body("its length is not the announced one"));
    }
    if checksum(body) != head.crc {
        return Err(FormatError::Checksum);
    }
    let mut reader = Reader::new(body, owner);
    let frame = match reader.u8()? {
        kind::HELLO => Frame::Hello(Hello {
            purpose: purpose_from_wire(reader.u8()?).ok_or(FormatError::Body("its purpose is unknown"))?,
            cluster: reader.u128()?,
            from: reader.u64()?,
            to: reader.u64()?,
            client: reader.address()?,
            peer: reader.address()?,
            starts: read_starts(&mut reader)?,
            pace: Pace {
                election_timeout_ms: reader.u64()?,
                lease_ms: reader.u64()?,
                clock_drift_percent: reader.u64()?,
            },
        }),
        kind::ACCEPT => Frame::Accept(reader.u64()?),
        kind::REFUSE => Frame::Refuse(reader.text()?.to_string()),
        kind::REMOVED => Frame::Removed(reader.text()?.to_string()),
        kind::PROMISE_LOST => Frame::PromiseLost(reader.text()?.to_string()),
        kind::JOIN_REQUEST => Frame::JoinRequest(JoinRequest {
            folder: reader.u128()?,
            client: reader.address()?,
            peer: reader.address()?,
        }),
        kind::JOIN_REPLY => Frame::JoinReply(read_join_reply(&mut reader)?),
        kind::SNAPSHOT_CHUNK => Frame::Message(PeerMessage::SnapshotChunk(read_chunk(&mut reader)?)),
        kind::BEAT => Frame::Message(PeerMessage::Beat),
        kind::SNAPSHOT_STATUS => {
            let (group, transfer) = (reader.u64()?, reader.u64()?);
            let status = match reader.u8()? {
                0 => SnapshotStatus::Received(reader.u64()?),
                1 => SnapshotStatus::Complete,
                2 => SnapshotStatus::Refused,
                _ => return Err(FormatError::Body("the status of a snapshot is unknown")),
            };
            Frame::Message(PeerMessage::SnapshotStatus { group, transfer, status })
        }
        kind::STATE_HASH => {
            let (group, index) = (reader.u64()?, reader.u64()?);
            let hash = if reader.flag()? { Some(reader.u128()?) } else { None };
            Frame::Message(PeerMessage::StateHash { group, found: StateHash { index, hash } })
        }
        kind @ (kind::PRE_VOTE..=kind::READ_INDEX_REPLY | kind::RAFT_PROMISE_LOST) => {
            Frame::Message(raft::read(kind, &mut reader)?)
        }
        kind => return Err(FormatError::Kind(kind)),
    };
    reader.finish()?;
    Ok(frame)
}

fn read_starts(reader: &mut Reader<'_>) -> Result<Starts, FormatError> {
    let boot = reader.u64()?;
    let count = usize::from(reader.u8()?);
    if count > STARTS_KEPT {
        return Err(FormatError::Body("it names too many starts"));
    }
    let runs = (0..count).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    Ok(Starts { boot, runs })
}

fn read_chunk(reader: &mut Reader<'_>) -> Result<SnapshotChunk, FormatError> {
    let (group, transfer, term, offset) = (reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?);
    let last = reader.flag()?;
    let bytes = reader.payload(reader.left())?;
    if offset.checked_add(bytes.len() as u64).is_none() {
        return Err(FormatError::Body("a piece of a snapshot ends beyond all numbers"));
    }
    Ok(SnapshotChunk { group, transfer, term, offset, bytes, last })
}

fn put_join_reply(out: &mut Output, reply: &JoinReply) {
    match reply {
        JoinReply::Welcome { cluster, node, peers } => {
            put_u8(out, 0);
            put_u128(out, *cluster);
            put_u64s(out, [*node]);
            put_u32(out, peers.len() as u32);
            for (id, address) in peers {
                put_u64s(out, [*id]);
                put_address(out, address);
            }
        }
        JoinReply::Redirect { leader } => {
            put_u8(out, 1);
            put_address(out, leader);
        }
        JoinReply::Retry { reason } => {
            put_u8(out, 2);
            put_text(out, reason);
        }
        JoinReply::Refused { reason } => {
            put_u8(out, 3);
            put_text(out, reason);
        }
    }
}

fn read_join_reply(reader: &mut Reader<'_>) -> Result<JoinReply, FormatError> {
    Ok(match reader.u8()? {
        0 => {
            let (cluster, node) = (reader.u128()?, reader.u64()?);
            if cluster == 0 || node == 0 {
                return Err(FormatError::Body("a welcome without a cluster or a number"));
            }
            let count = reader.u32()? as usize;
            if count > PEERS_MAX {
                return Err(FormatError::Body("a welcome names too many nodes"));
            }
            let mut peers = Vec::new();
            for _ in 0..count {
                peers.push((reader.u64()?, reader.address()?));
            }
            JoinReply::Welcome { cluster, node, peers }
        }
        1 => JoinReply::Redirect { leader: reader.address()? },
        2 => JoinReply::Retry { reason: reader.text()?.to_string() },
        3 => JoinReply::Refused { reason: reader.text()?.to_string() },
        _ => return Err(FormatError::Body("the reply to a join is unknown")),
    })
}

fn purpose_to_wire(purpose: Purpose) -> u8 {
    match purpose {
        Purpose::Control => 0,
        Purpose::Bulk => 1,
        Purpose::Join => 2,
    }
}

fn purpose_from_wire(number: u8) -> Option<Purpose> {
    [Purpose::Control, Purpose::Bulk, Purpose::Join].into_iter().find(|purpose| purpose_to_wire(*purpose) == number)
}
