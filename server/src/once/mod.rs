//! Exactly once: numbered writes of a session take effect at most once, however often they are sent.
//!
//! A client that loses its connection in the middle of a write can't know whether it happened. With a session it sends the same
//! write again, under the same number, to whoever leads now, and gets the answer that the first execution got.
//!
//! ```text
//!   HOLDFAST SESSION NEW ──▶ log ──▶ an id: when it was issued, how long it lives, which entry issued it
//!
//!   HOLDFAST ONCE id number low-water command key …
//!        │ OnceCall: the command resolved, one slot, the number within the window
//!        ▼
//!   log: SESSION_ONCE, what bounds it, the command ──apply, on every replica──▶ Record (slot, session)
//!                                                                                 │ unknown number: run, keep the reply
//!                                                                                 │ known: the reply that was kept
//!                                                                                 └ below the mark, expired, …: refused
//! ```
//!
//! The record is one of the table's (`engine::table::records`), keyed by slot and session: so it is in the generation that its
//! write is in, in snapshots, and moves with its slot. FLUSHALL does not touch it. Everything that decides is in the log: the
//! entry's stamp for the time, the session's id for its retention, the operation for the room that there is.
//!
//! # Invariants
//! - A number takes effect at most once in a session: it is run only if it is not in the record, not below the record's mark, and
//!   the record can't have been forgotten (then the id is older than its retention, and refused).
//! - A record holds at most [`WINDOW`] replies, each of at most [`REPLY_BYTES_MAX`].
//! - What is stored is the reply in RESP3, whatever the client speaks, so that all replicas store the same bytes.

mod id;
mod record;
#[cfg(test)]
mod tests;
mod translate;

pub use id::{ISSUE_SKEW_MS, LIFETIME_SECONDS_MAX, SESSION_ID_BYTES, SESSION_TEXT_BYTES, SessionId};
pub use record::{REPLY_BYTES_MAX, REPLY_BYTES_TIGHT, Record, Verdict, WINDOW};
pub use translate::write_reply;

use crate::cluster::route::{Slots, slots_of};
use crate::command::{self, CommandSpec, Failure, Handler};
use crate::replica::internal;
use crate::settings::Settings;
use xxhash_rust::xxh3::Xxh3;

/// Words of a request before the command: HOLDFAST ONCE session number low-water.
pub const COMMAND_AT: usize = 5;

/// The session is over; nothing was done now.
pub const EXPIRED: &str =
    "SESSIONEXPIRED The session is over: nothing was done, and whether it was done before is not known any more";
/// There is no room for the record; nothing was done.
pub const FULL: &str =
    "SESSIONFULL There is no room for another session's record (session-bytes-max); nothing was done";
/// The number was acknowledged and is forgotten.
pub const ACKNOWLEDGED: &str = "SESSIONACKED The number is below the low-water mark: its reply is forgotten";
/// Something else was sent under this number.
pub const DIFFERS: &str = "SESSIONMISMATCH Another command was sent under this number; nothing was done";
/// It happened, and its reply is not there any more.
pub const NOT_KEPT: &str = "SESSIONAPPLIED The command was executed; its reply was too long to be kept";
/// The number is too far above the mark.
pub const BEYOND: &str = "SESSIONWINDOW The number is 128 or more above the low-water mark; nothing was done";
/// No id that was ever given out.
pub const INVALID_ID: &str = "ERR invalid session id";
const CROSS_SLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";

/// What bounds sessions, as set on the node that takes a command. It goes into the log with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// How long a session that is not used is remembered, in seconds.
    pub retention_seconds: u32,
    /// Memory for all records of a group, in bytes.
    pub bytes_max: u64,
}

impl SessionLimits {
    /// Those of a node's settings.
    pub fn of(settings: &Settings) -> Self {
        SessionLimits { retention_seconds: settings.session_retention_seconds, bytes_max: settings.session_bytes_max }
    }

    /// The head of a logged [`internal::SESSION_NEW`].
    pub fn encode(&self) -> [u8; 12] {
        let mut head = [0; 12];
        head[..4].copy_from_slice(&self.retention_seconds.to_le_bytes());
        head[4..].copy_from_slice(&self.bytes_max.to_le_bytes());
        head
    }

    /// Reads it back.
    pub fn decode(head: &[u8]) -> Option<Self> {
        let (seconds, bytes) = (head.get(..4)?.try_into().ok()?, head.get(4..)?.try_into().ok()?);
        Some(SessionLimits { retention_seconds: u32::from_le_bytes(seconds), bytes_max: u64::from_le_bytes(bytes) })
    }
}

/// What a logged numbered write says beside its command's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnceHead {
    /// The session.
    pub session: SessionId,
    /// The write's number in it.
    pub number: u64,
    /// All numbers below are acknowledged.
    pub low: u64,
    /// The command's number.
    pub command: u16,
    /// Tells whether it is the same request.
    pub fingerprint: u32,
    /// As [`SessionLimits::bytes_max`].
    pub bytes_max: u64,
}

/// The length of an [`OnceHead`] in the log.
const HEAD_BYTES: usize = SESSION_ID_BYTES + 8 + 8 + 2 + 4 + 8;

impl OnceHead {
    /// Its bytes in the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(self.session.as_bytes());
        head.extend_from_slice(&self.number.to_le_bytes());
        head.extend_from_slice(&self.low.to_le_bytes());
        head.extend_from_slice(&self.command.to_le_bytes());
        head.extend_from_slice(&self.fingerprint.to_le_bytes());
        head.extend_from_slice(&self.bytes_max.to_le_bytes());
        head
    }

    /// Reads it back; `None` when these are no such bytes.
    pub fn decode(head: &[u8]) -> Option<Self> {
        let (session, rest) = head.split_first_chunk::<SESSION_ID_BYTES>()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (low, rest) = rest.split_first_chunk()?;
        let (command, rest) = rest.split_first_chunk()?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (bytes_max, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(OnceHead {
            session: SessionId::from_bytes(*session)?,
            number: u64::from_le_bytes(*number),
            low: u64::from_le_bytes(*low),
            command: u16::from_le_bytes(*command),
            fingerprint: u32::from_le_bytes(*fingerprint),
            bytes_max: u64::from_le_bytes(*bytes_max),
        })
    }
}

/// A `HOLDFAST ONCE` request, checked.
#[derive(Debug)]
pub struct OnceCall<'a> {
    /// The command that is to take effect once.
    pub spec: &'static CommandSpec,
    /// Its arguments, the name first.
    pub args: &'a [&'a [u8]],
    head: Vec<u8>,
}

impl<'a> OnceCall<'a> {
    /// Checks a request; `args` begins with HOLDFAST.
    ///
    /// # Errors
    /// What no command, no write, or no write in one slot is; a session or numbers that make no sense; a number beyond the window.
    pub fn parse(args: &'a [&'a [u8]], limits: SessionLimits) -> Result<Self, Failure> {
        let words = args.get(2..COMMAND_AT).ok_or(Failure::SYNTAX)?;
        let session = SessionId::parse(words[0]).ok_or(Failure::fixed(INVALID_ID))?;
        let (number, low) = (parse_number(words[1])?, parse_number(words[2])?);
        let args = &args[COMMAND_AT..];
        let spec = command::resolve(args).map_err(|rejection| rejection.failure(args))?;
        if !spec.is_write() || !matches!(spec.handler, Handler::Data(_)) {
            let text = format!("ERR HOLDFAST ONCE is for commands that write keys, '{}' does not", spec.name);
            return Err(Failure::new(text));
        }
        match slots_of(spec, args) {
            Slots::One(_) => {}
            Slots::Many => return Err(Failure::fixed(CROSS_SLOT)),
            Slots::None => {
                let text = format!("ERR HOLDFAST ONCE is for commands that write keys, '{}' names none", spec.name);
                return Err(Failure::new(text));
            }
        }
        if number < low {
            return Err(Failure::fixed(ACKNOWLEDGED));
        }
        if number - low >= WINDOW {
            return Err(Failure::fixed(BEYOND));
        }
        let (command, fingerprint, bytes_max) = (spec.id, fingerprint_of(spec, args), limits.bytes_max);
        let head = OnceHead { session, number, low, command, fingerprint, bytes_max }.encode();
        Ok(OnceCall { spec, args, head })
    }

    /// The arguments of [`internal::SESSION_ONCE`] as they are logged, behind the place of a name.
    pub fn logged(&self) -> Vec<&[u8]> {
        let mut args: Vec<&[u8]> = Vec::with_capacity(self.args.len() + 1);
        args.push(b"");
        args.push(&self.head);
        args.extend_from_slice(&self.args[1..]);
        args
    }
}

fn parse_number(word: &[u8]) -> Result<u64, Failure> {
    command::parse_i64(word).and_then(|number| u64::try_from(number).ok()).ok_or(Failure::NOT_INTEGER)
}

/// A short hash of a request: another command under the same number is a client's mistake that must be noticed.
fn fingerprint_of(spec: &CommandSpec, args: &[&[u8]]) -> u32 {
    let mut hash = Xxh3::new();
    hash.update(&spec.id.to_le_bytes());
    for arg in &args[1..] {
        hash.update(&(arg.len() as u64).to_le_bytes());
        hash.update(arg);
    }
    hash.digest() as u32
}

/// Looks through the envelope of a logged numbered write: the row and the arguments of the command that acts on keys, whatever
/// the entry's number. `None` for what is no command.
pub fn inner<'w, 'a>(number: u16, args: &'w [&'a [u8]]) -> Option<(&'static CommandSpec, &'w [&'a [u8]])> {
    if number == internal::SESSION_ONCE {
        let head = OnceHead::decode(args.get(1)?)?;
        // The head stands where a name would: no handler looks at that.
        return Some((command::by_id(head.command)?, &args[1..]));
    }
    Some((command::by_id(number)?, args))
}

/// Whether `args` is `HOLDFAST SESSION NEW`.
///
/// # Errors
/// A syntax error if it is not.
pub fn parse_new(args: &[&[u8]]) -> Result<(), Failure> {
    match args {
        [_, _, word] if word.eq_ignore_ascii_case(b"new") => Ok(()),
        _ => Err(Failure::SYNTAX),
    }
}
