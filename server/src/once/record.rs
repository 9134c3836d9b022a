//! What a slot remembers of a session: the replies that are not acknowledged yet.
//!
//! ```text
//!   1 (version) | used ms | mark | replies | { number - mark | fingerprint u32 | length + 1, or 0 | reply } …
//! ```
//!
//! Numbers are varints unless a width is given; replies ascend by number. An idle session whose replies are all acknowledged is
//! ten bytes.

/// How far above the low-water mark a number may be: numbers from the mark on, so many of them.
pub const WINDOW: u64 = 128;
/// The longest reply that is kept; of longer ones it is only remembered that there was one.
pub const REPLY_BYTES_MAX: usize = 1024;
/// The same once there is no room for new sessions.
pub const REPLY_BYTES_TIGHT: usize = 64;

const VERSION: u8 = 1;

/// A reply that may be asked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    number: u64,
    fingerprint: u32,
    /// `None`: it was too long.
    reply: Option<Box<[u8]>>,
}

/// A session's record in a slot.
///
/// Invariants: replies ascend by number; every number is in `mark .. mark + WINDOW`; the mark and the time never go back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    used_ms: u64,
    mark: u64,
    kept: Vec<Kept>,
}

/// What is to be done with a numbered write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It is new: run it, and [`Record::keep`] the reply.
    Run,
    /// It was run: this is what it answered.
    Replay(&'a [u8]),
    /// It was run; its answer was not kept.
    NotKept,
    /// Its answer was acknowledged and is forgotten.
    Acknowledged,
    /// Something else was run under this number.
    Differs,
    /// The number is too far above the mark.
    Beyond,
}

impl Record {
    /// Notes a use at `now_ms` and forgets what is acknowledged: all below `low`.
    pub fn advance(&mut self, now_ms: u64, low: u64) {
        self.used_ms = self.used_ms.max(now_ms);
        if low > self.mark {
            self.mark = low;
            let acknowledged = self.kept.partition_point(|kept| kept.number < low);
            self.kept.drain(..acknowledged);
        }
    }

    /// Judges a write.
    pub fn judge(&self, number: u64, fingerprint: u32) -> Verdict<'_> {
        if number < self.mark {
            return Verdict::Acknowledged;
        }
        match self.kept.binary_search_by_key(&number, |kept| kept.number) {
            Ok(at) => match &self.kept[at] {
                kept if kept.fingerprint != fingerprint => Verdict::Differs,
                Kept { reply: Some(reply), .. } => Verdict::Replay(reply),
                Kept { reply: None, .. } => Verdict::NotKept,
            },
            Err(_) if number - self.mark >= WINDOW => Verdict::Beyond,
            Err(_) => Verdict::Run,
        }
    }

    /// Remembers what a write answered; `None` for a reply that is too long to be kept.
    ///
    /// # Panics
    /// When the verdict on this number was another than [`Verdict::Run`]: it would have taken effect twice; or when the reply is
    /// over [`REPLY_BYTES_MAX`].
    pub fn keep(&mut self, number: u64, fingerprint: u32, reply: Option<&[u8]>) {
        let Err(at) = self.kept.binary_search_by_key(&number, |kept| kept.number) else {
            panic!("number {number} of a session was run twice");
        };
        assert!(number >= self.mark && number - self.mark < WINDOW, "number {number} is outside the window");
        assert!(
            reply.is_none_or(|reply| reply.len() <= REPLY_BYTES_MAX),
            "a reply of a session is too long to be kept"
        );
        self.kept.insert(at, Kept { number, fingerprint, reply: reply.map(Into::into) });
    }

    /// When it was last used, in milliseconds since the epoch by the group's time.
    pub fn used_ms(&self) -> u64 {
        self.used_ms
    }

    /// How many replies are kept.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// Whether no reply is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let replies: usize = self.kept.iter().map(|kept| 16 + kept.reply.as_ref().map_or(0, |reply| reply.len())).sum();
        let mut out = Vec::with_capacity(24 + replies);
        out.push(VERSION);
        put(&mut out, self.used_ms);
        put(&mut out, self.mark);
        put(&mut out, self.kept.len() as u64);
        for Kept { number, fingerprint, reply } in &self.kept {
            put(&mut out, number - self.mark);
            out.extend_from_slice(&fingerprint.to_le_bytes());
            put(&mut out, reply.as_ref().map_or(0, |reply| reply.len() as u64 + 1));
            out.extend_from_slice(reply.as_deref().unwrap_or_default());
        }
        out
    }

    /// When the record with these bytes was last used, without reading the rest.
    pub fn used_ms_of(bytes: &[u8]) -> Option<u64> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        take(&mut rest)
    }

    /// Reads it back; `None` when these are no record's bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let (used_ms, mark) = (take(&mut rest)?, take(&mut rest)?);
        let count = take(&mut rest).filter(|count| *count <= WINDOW)?;
        let mut kept: Vec<Kept> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let number = mark.checked_add(take(&mut rest).filter(|above| *above < WINDOW)?)?;
            if kept.last().is_some_and(|last| last.number >= number) {
                return None;
            }
            let (fingerprint, tail) = rest.split_first_chunk()?;
            rest = tail;
            let reply = match take(&mut rest)? {
                0 => None,
                length => {
                    let length = usize::try_from(length - 1).ok().filter(|length| *length <= REPLY_BYTES_MAX)?;
                    let (reply, tail) = rest.split_at_checked(length)?;
                    rest = tail;
                    Some(reply.into())
                }
            };
            kept.push(Kept { number, fingerprint: u32::from_le_bytes(*fingerprint), reply });
        }
        rest.is_empty().then_some(Record { used_ms, mark, kept })
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
