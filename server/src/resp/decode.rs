//! Bytes from a client into commands, without copying arguments and without parsing anything twice.
//!
//! A client sends commands as arrays of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) or, from a human's terminal,
//! as a line of words (`GET k\r\n`). The caller reads into a buffer of its own and calls [`Decoder::decode`] with all
//! of it that has not been consumed:
//!
//! ```text
//!   buffer  [ *2..GET k | *3..SET k v | *2..GE ]
//!             ▲ Command{consumed: 20}   ▲ Incomplete{need}: read more, call again with the same first byte
//! ```
//!
//! The state kept between calls is a position and the spans of the arguments found so far, so a value that arrives in
//! a thousand pieces costs a thousand calls of constant work. `need` says how long the buffer must at least be before
//! another call can get any further. It is what a stranger announced: read towards it, but grow the buffer as bytes really
//! arrive.
//!
//! Everything here comes from strangers. A length is checked against [`Limits`] before anything is allocated by it, an
//! announced count allocates nothing, and what does not parse is a [`ProtocolError`] in the words of Redis, after which
//! the connection must be closed: there is no way to find the next frame.
//!
//! Invariant: until a command is complete, `position` never passes the end of the buffer seen last, and each span lies
//! before it.

use super::inline::split_words;

/// Longest line (an inline command, or the header of an array or a string) that is waited for.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Most arguments of a command before the client has authenticated.
const UNAUTHENTICATED_ARGS_MAX: i64 = 10;

/// Longest argument before the client has authenticated.
const UNAUTHENTICATED_BULK_BYTES_MAX: i64 = 16 * 1024;

/// The shortest argument on the wire, `$0\r\n\r\n`.
const ARG_BYTES_MIN: usize = 6;

/// Span vectors that one huge command has grown beyond this many arguments are given back.
const KEPT_SPANS_MAX: usize = 1024;

/// What a client may ask this decoder to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Most arguments of one command.
    pub args_max: usize,
    /// Longest line that is waited for, in bytes.
    pub inline_bytes_max: usize,
    /// Longest command on the wire, in bytes, framing included; at most 4 GiB - 1.
    pub command_bytes_max: usize,
    /// Whether the client still has to authenticate: then 10 arguments of 16 KiB are the most it may send.
    pub unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 64 << 20,
            args_max: 1024 * 1024,
            inline_bytes_max: INLINE_BYTES_MAX,
            command_bytes_max: 256 << 20,
            unauthenticated: false,
        }
    }
}

/// What a call of [`Decoder::decode`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A whole command of at least one argument, see [`Decoder::fill_args`]. The first `consumed` bytes of the buffer
    /// are done with once its arguments are; the next call starts after them.
    Command {
        /// Length of the command on the wire.
        consumed: usize,
    },
    /// Only empty commands (`*0`, a blank line), which get no reply. The caller drops `consumed` bytes and calls again.
    Empty {
        /// Length of what was skipped.
        consumed: usize,
    },
    /// The command goes on after the end of the buffer.
    Incomplete {
        /// How many bytes the buffer must hold, in total, before calling again can get any further.
        need: usize,
    },
}

/// Why a stream can't be understood. Its text, code included, is the error that Redis would answer before it closes the
/// connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The count of an array is no number, or too large.
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// The length of a string is no number, negative, or too large.
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// A string was due and something else came.
    #[error("ERR Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// The line with an array's count does not end.
    #[error("ERR Protocol error: too big mbulk count string")]
    TooBigMultibulkCount,
    /// The line with a string's length does not end.
    #[error("ERR Protocol error: too big bulk count string")]
    TooBigBulkCount,
    /// An inline command does not end.
    #[error("ERR Protocol error: too big inline request")]
    TooBigInline,
    /// A quote in an inline command is not closed, or followed by something other than a space.
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// More arguments than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// A longer argument than a client may send before it has authenticated.
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// The command as a whole is larger than the limit, though each argument is not.
    #[error("ERR Protocol error: too big request")]
    TooBigCommand,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first byte of a command.
    Start,
    /// Inside an array with that many arguments to come.
    Array { remaining: usize },
    /// A command has been handed out.
    Done,
}

/// The decoder of one connection. See the module's text.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// Bytes of the buffer that need not be looked at again.
    position: usize,
    /// Bytes known to contain no line end, from `position` on: where the search goes on.
    searched: usize,
    /// Bytes of empty commands before the one being decoded.
    skipped: usize,
    spans: Vec<Span>,
    /// Words of an inline command, unescaped; spans point in here if `inline`.
    words: Vec<u8>,
    inline: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            position: 0,
            searched: 0,
            skipped: 0,
            spans: Vec::new(),
            words: Vec::new(),
            inline: false,
        }
    }

    /// Looks for the next command in `buffer`, which begins where the last command ended. After
    /// [`Step::Incomplete`] the next call must be given a buffer with the same first byte and at least as long.
    ///
    /// # Errors
    /// [`ProtocolError`] when the bytes can't be the beginning of a command or break a limit. The stream is lost then.
    pub fn decode(&mut self, buffer: &[u8], limits: &Limits) -> Result<Step, ProtocolError> {
        if self.state == State::Done {
            self.reset();
        }
        assert!(self.position <= buffer.len(), "the buffer must not shrink before a command is complete");
        loop {
            let found = match self.state {
                State::Array { remaining } => self.arguments(buffer, remaining, limits)?,
                State::Start | State::Done => match buffer.get(self.position) {
                    None => Some(buffer.len() + 1),
                    Some(b'*') => self.array_header(buffer, limits)?,
                    Some(_) => self.inline(buffer, limits)?,
                },
            };
            match (found, self.state) {
                (Some(_), _) if self.skipped > 0 => {
                    // What follows the empty commands is parsed again, once, when they are gone from the buffer.
                    let consumed = self.skipped;
                    self.reset();
                    return Ok(Step::Empty { consumed });
                }
                (Some(need), _) => {
                    debug_assert!(need > buffer.len());
                    return Ok(Step::Incomplete { need });
                }
                (None, State::Done) => return Ok(Step::Command { consumed: self.position }),
                (None, State::Start) => self.skipped = self.position,
                (None, State::Array { .. }) => {}
            }
        }
    }

    /// The number of arguments of the command that was just found.
    pub fn args_len(&self) -> usize {
        self.spans.len()
    }

    /// Appends the arguments of the command that was just found to `args`. `buffer` is the one that was decoded.
    ///
    /// # Panics
    /// If `buffer` is shorter than the command that was found in it.
    #[inline]
    pub fn fill_args<'a>(&'a self, buffer: &'a [u8], args: &mut Vec<&'a [u8]>) {
        debug_assert_eq!(self.state, State::Done);
        let source = if self.inline { self.words.as_slice() } else { buffer };
        args.extend(self.spans.iter().map(|span| &source[span.start as usize..][..span.len as usize]));
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.words.capacity()
    }

    /// Forgets the command being decoded, or the one just found: the next call starts at its buffer's first byte.
    #[inline]
    pub fn reset(&mut self) {
        self.state = State::Start;
        self.position = 0;
        self.searched = 0;
        self.skipped = 0;
        self.inline = false;
        self.spans.clear();
        if self.spans.capacity() > KEPT_SPANS_MAX {
            self.spans = Vec::new();
        }
        if self.words.capacity() > 0 {
            self.words = Vec::new();
        }
    }

    /// `*<count>\r\n`. Returns the bytes needed if the line is not complete.
    #[inline]
    fn array_header(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let (count, end) = match self.header(buffer, limits) {
            Header::Number(count, end) => (count, end),
            Header::Incomplete(need) => return Ok(Some(need)),
            Header::TooLong => return Err(ProtocolError::TooBigMultibulkCount),
            Header::Invalid => return Err(ProtocolError::InvalidMultibulkLength),
        };
        if count > limits.args_max as i64 {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if limits.unauthenticated && count > UNAUTHENTICATED_ARGS_MAX {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        self.position = end;
        self.searched = 0;
        if count > 0 {
            self.state = State::Array { remaining: count as usize };
        }
        Ok(None)
    }

    /// `$<length>\r\n<bytes>\r\n`, as often as is due.
    #[inline]
    fn arguments(
        &mut self,
        buffer: &[u8],
        mut remaining: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, ProtocolError> {
        let command_bytes_max = limits.command_bytes_max.min(u32::MAX as usize);
        while remaining > 0 {
            let (len, start) = match self.header(buffer, limits) {
                Header::Number(len, start) if buffer[self.position] == b'$' => (len, start),
                Header::Incomplete(need) => {
                    self.state = State::Array { remaining };
                    return Ok(Some(need));
                }
                Header::TooLong => return Err(ProtocolError::TooBigBulkCount),
                Header::Number(..) | Header::Invalid => {
                    return Err(match buffer[self.position] {
                        b'$' => ProtocolError::InvalidBulkLength,
                        other => ProtocolError::ExpectedBulk(other),
                    });
                }
            };
            if len < 0 || len > limits.bulk_bytes_max as i64 {
                return Err(ProtocolError::InvalidBulkLength);
            }
            if limits.unauthenticated && len > UNAUTHENTICATED_BULK_BYTES_MAX {
                return Err(ProtocolError::UnauthenticatedBulk);
            }
            let len = len as usize;
            let end = start.saturating_add(len).saturating_add(2);
            if end - self.skipped > command_bytes_max {
                return Err(ProtocolError::TooBigCommand);
            }
            if end > buffer.len() {
                // The header is parsed again when the rest has come: once, since `need` covers all of the argument.
                self.state = State::Array { remaining };
                return Ok(Some(end.saturating_add((remaining - 1) * ARG_BYTES_MIN)));
            }
            self.spans.push(Span { start: start as u32, len: len as u32 });
            self.position = end;
            self.searched = 0;
            remaining -= 1;
        }
        self.state = State::Done;
        Ok(None)
    }

    /// The number in the line at `position`, behind its first byte.
    #[inline]
    fn header(&mut self, buffer: &[u8], limits: &Limits) -> Header {
        // Almost every header is a few digits that have all arrived.
        let line = &buffer[self.position..];
        let mut number = 0i64;
        for (at, &byte) in line.iter().enumerate().skip(1).take(9) {
            let digit = byte.wrapping_sub(b'0');
            if digit < 10 {
                if number == 0 && at > 1 {
                    break;
                }
                number = number * 10 + i64::from(digit);
            } else if byte == b'\r' && at > 1 && line.len() > at + 1 {
                return Header::Number(number, self.position + at + 2);
            } else {
                break;
            }
        }
        self.header_slow(buffer, limits)
    }

    #[cold]
    fn header_slow(&mut self, buffer: &[u8], limits: &Limits) -> Header {
        let line = &buffer[self.position..];
        let Some(end) = memchr::memchr(b'\r', &line[self.searched..]).map(|at| at + self.searched) else {
            self.searched = line.len();
            if line.len() > limits.inline_bytes_max {
                return Header::TooLong;
            }
            return Header::Incomplete(buffer.len() + 1);
        };
        // The same limit when it all came at once: what a client gets must not depend on how its bytes were cut.
        if end > limits.inline_bytes_max {
            return Header::TooLong;
        }
        if end + 2 > line.len() {
            self.searched = end;
            return Header::Incomplete(buffer.len() + 1);
        }
        // Only the line end's first byte is looked at, as Redis does.
        match line.get(1..end).and_then(parse_integer) {
            Some(number) => Header::Number(number, self.position + end + 2),
            None => Header::Invalid,
        }
    }

    /// A line of words.
    fn inline(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let line = &buffer[self.position..];
        let Some(end) = memchr::memchr(b'\n', &line[self.searched..]).map(|at| at + self.searched) else {
            self.searched = line.len();
            if line.len() > limits.inline_bytes_max {
                return Err(ProtocolError::TooBigInline);
            }
            return Ok(Some(buffer.len() + 1));
        };
        if end > limits.inline_bytes_max {
            return Err(ProtocolError::TooBigInline);
        }
        let text = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
        self.words.clear();
        let spans = &mut self.spans;
        let fine = split_words(text, &mut self.words, |start, end| {
            spans.push(Span { start: start as u32, len: (end - start) as u32 });
        });
        if !fine {
            return Err(ProtocolError::UnbalancedQuotes);
        }
        if self.spans.len() > limits.args_max {
            return Err(ProtocolError::TooBigInline);
        }
        if limits.unauthenticated && self.spans.len() > UNAUTHENTICATED_ARGS_MAX as usize {
            return Err(ProtocolError::UnauthenticatedMultibulk);
        }
        self.position += end + 1;
        self.searched = 0;
        if !self.spans.is_empty() {
            self.inline = true;
            self.state = State::Done;
        }
        Ok(None)
    }
}

enum Header {
    /// The number, and where the next line begins.
    Number(i64, usize),
    Incomplete(usize),
    TooLong,
    Invalid,
}

/// A decimal integer as Redis takes it: an optional minus, no plus, no space, no leading zero, no overflow.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] if !negative => return Some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    // Downwards, because the smallest integer has no positive counterpart.
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// Empties `args` and hands its memory on to arguments of another lifetime, so that one vector serves every command
/// of a connection.
pub fn recycle_args<'a>(mut args: Vec<&[u8]>) -> Vec<&'a [u8]> {
    args.clear();
    // The standard library collects a vector's own iterator in place; and even if it did not, this would be correct.
    args.into_iter().map(|_| -> &'a [u8] { &[] }).collect()
}
