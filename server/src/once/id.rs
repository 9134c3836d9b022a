//! A session's name, which says when it was issued and how long it lives.
//!
//! ```text
//!   issued ms u48 | lifetime s u32 | group u32 | entry and place u64 | CRC16 u16        big-endian, 24 bytes, 48 hex digits
//! ```
//!
//! Nothing is kept of a session until its first write, and nothing for ever: a group that has no record of an id tells a new
//! session from one that it has forgotten by the id alone. The lifetime is in the id so that a change of the setting can't
//! make a forgotten session look young again. The checksum is against mistakes, not against malice: whoever makes up an id
//! harms nobody's session but his own.

use crate::slot::crc16;
use holdfast_engine::GroupId;
use std::fmt;

/// The length of an id.
pub const SESSION_ID_BYTES: usize = holdfast_engine::table::RECORD_NAME_BYTES;
/// Its length as text.
pub const SESSION_TEXT_BYTES: usize = 2 * SESSION_ID_BYTES;
/// The longest lifetime: 30 days.
pub const LIFETIME_SECONDS_MAX: u32 = 30 * 24 * 3600;
/// How far ahead of a group's time an id's may be: another group issued it, and their clocks differ. Ids further ahead were made
/// up.
pub const ISSUE_SKEW_MS: u64 = 600_000;

const CHECK_AT: usize = SESSION_ID_BYTES - 2;

/// A session's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; SESSION_ID_BYTES]);

impl SessionId {
    /// The id that the entry at `place` of a group issues.
    pub fn issue(issued_ms: u64, lifetime_seconds: u32, group: GroupId, place: u64) -> Self {
        let mut bytes = [0; SESSION_ID_BYTES];
        bytes[..6].copy_from_slice(&issued_ms.to_be_bytes()[2..]);
        bytes[6..10].copy_from_slice(&lifetime_seconds.clamp(1, LIFETIME_SECONDS_MAX).to_be_bytes());
        bytes[10..14].copy_from_slice(&(group as u32).to_be_bytes());
        bytes[14..22].copy_from_slice(&place.to_be_bytes());
        let check = crc16(&bytes[..CHECK_AT]);
        bytes[CHECK_AT..].copy_from_slice(&check.to_be_bytes());
        SessionId(bytes)
    }

    /// An id from its bytes; `None` when they are none.
    pub fn from_bytes(bytes: [u8; SESSION_ID_BYTES]) -> Option<Self> {
        let id = SessionId(bytes);
        let sound = crc16(&bytes[..CHECK_AT]).to_be_bytes() == bytes[CHECK_AT..];
        (sound && (1..=LIFETIME_SECONDS_MAX).contains(&id.lifetime_seconds())).then_some(id)
    }

    /// Reads an id as it is shown.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != SESSION_TEXT_BYTES {
            return None;
        }
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; SESSION_ID_BYTES];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(digits[0])? << 4 | digit(digits[1])?;
        }
        SessionId::from_bytes(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; SESSION_ID_BYTES] {
        &self.0
    }

    /// When it was issued, by the clock of the group that did, in milliseconds since the epoch.
    pub fn issued_ms(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..6]);
        u64::from_be_bytes(bytes)
    }

    fn lifetime_seconds(&self) -> u32 {
        u32::from_be_bytes([self.0[6], self.0[7], self.0[8], self.0[9]])
    }

    /// When it is forgotten if it was last used at `used_ms`: a lifetime after that, or after its issue.
    pub fn deadline_ms(&self, used_ms: u64) -> u64 {
        used_ms.max(self.issued_ms()).saturating_add(u64::from(self.lifetime_seconds()) * 1000)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SessionId({self})")
    }
}
