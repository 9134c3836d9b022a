//! Bytes to replies.
//!
//! The decoder is resumable: it consumes each element as soon as it is complete and keeps the unfinished aggregates on a
//! stack of its own, so a reply of a million elements that arrives in small pieces costs linear time, and nesting costs
//! no stack of the thread. Everything that a peer announces is checked against [`Limits`] before memory is set aside
//! for it: a header alone can't make the client allocate.
//!
//! Not taken: RESP3's streamed strings and aggregates (`$?`, `*?`), which no server sends. Attributes are read and
//! dropped.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ServerError;
use crate::value::Value;

/// Strings up to this size are copied out of the read buffer, so that a small value doesn't keep a large buffer alive.
const COPIED_BYTES_MAX: usize = 4096;

/// Room set aside for the elements of an aggregate before any of them has arrived.
const ELEMENTS_RESERVED_MAX: usize = 1024;

/// Bounds on what a reply may be; whoever exceeds them loses the connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Levels of nesting.
    pub depth_max: usize,
    /// Bytes in a header, status or error line.
    pub line_bytes_max: usize,
    /// Bytes in one string.
    pub bulk_bytes_max: usize,
    /// Bytes that one whole reply may take in memory, with what each element costs.
    pub reply_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { depth_max: 32, line_bytes_max: 64 << 10, bulk_bytes_max: 512 << 20, reply_bytes_max: 1 << 30 }
    }
}

/// Bytes that are not a reply, or a reply beyond the limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reply starts with a byte that names no type.
    #[error("byte 0x{0:02x} starts no reply")]
    Type(u8),
    /// A line of a certain kind can't be read.
    #[error("malformed {what}: `{line}`")]
    Malformed {
        /// What the line should have been.
        what: &'static str,
        /// Its beginning, escaped.
        line: String,
    },
    /// A string isn't followed by CR LF.
    #[error("a string is not followed by CR LF")]
    Unterminated,
    /// Something is larger than allowed.
    #[error("{what} is larger than the client's limit of {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A reply came although nothing was asked.
    #[error("a reply came that no request waits for")]
    Unasked,
}

/// What an aggregate becomes when its last element is there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    Attribute,
}

/// What a string becomes when its bytes are there.
#[derive(Debug, Clone, Copy)]
enum Text {
    Bulk,
    Error,
    Verbatim,
}

#[derive(Debug)]
struct Unfinished {
    kind: Aggregate,
    expected: usize,
    items: Vec<Value>,
}

/// Turns a stream of bytes into replies. RESP2 and RESP3 need no distinction.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    /// Aggregates whose elements are still arriving, the outermost first.
    stack: Vec<Unfinished>,
    /// A string whose header was read.
    string: Option<(Text, usize)>,
    /// How far the buffer was searched in vain for the end of a line.
    searched: usize,
    /// Bytes that the reply under construction takes so far.
    used: usize,
}

/// What a line of the protocol announces.
enum Header {
    Value(Value),
    String(Text, usize),
    Aggregate(Aggregate, usize),
}

impl Decoder {
    /// A decoder at the start of a reply.
    pub fn new(limits: Limits) -> Self {
        Decoder { limits, stack: Vec::new(), string: None, searched: 0, used: 0 }
    }

    /// Takes the next whole reply off the buffer; `None` when more bytes are needed. It may consume bytes of an unfinished
    /// reply; the caller only ever appends to the buffer. After an error the stream can't be read on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Value>, ProtocolError> {
        loop {
            let value = if let Some((kind, length)) = self.string {
                if buffer.len() < length + 2 {
                    return Ok(None);
                }
                self.string = None;
                take_string(buffer, kind, length)?
            } else {
                let Some(line) = self.take_line(buffer)? else { return Ok(None) };
                match self.read_header(&line)? {
                    Header::Value(value) => value,
                    Header::String(kind, length) => {
                        self.account(length)?;
                        self.string = Some((kind, length));
                        continue;
                    }
                    Header::Aggregate(Aggregate::Attribute, 0) => continue,
                    Header::Aggregate(kind, 0) => build(kind, Vec::new()),
                    Header::Aggregate(kind, expected) => {
                        if self.stack.len() >= self.limits.depth_max {
                            return Err(too_large("the nesting of a reply", self.limits.depth_max));
                        }
                        let items = Vec::with_capacity(expected.min(ELEMENTS_RESERVED_MAX));
                        self.stack.push(Unfinished { kind, expected, items });
                        continue;
                    }
                }
            };
            self.account(size_of::<Value>())?;
            if let Some(whole) = self.place(value) {
                self.used = 0;
                return Ok(Some(whole));
            }
        }
    }

    /// Bytes that must still arrive before the next step, if a string is under way: a hint for sizing the read buffer.
    pub(crate) fn missing(&self, buffered: usize) -> usize {
        self.string.map_or(0, |(_, length)| (length + 2).saturating_sub(buffered))
    }

    /// Puts a finished value into the innermost unfinished aggregate; gives the whole reply if that was the last piece.
    fn place(&mut self, mut value: Value) -> Option<Value> {
        loop {
            let Some(top) = self.stack.last_mut() else { return Some(value) };
            top.items.push(value);
            if top.items.len() < top.expected {
                return None;
            }
            let top = self.stack.pop()?;
            if top.kind == Aggregate::Attribute {
                // The value that the attribute describes comes next.
                return None;
            }
            value = build(top.kind, top.items);
        }
    }

    fn account(&mut self, bytes: usize) -> Result<(), ProtocolError> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limits.reply_bytes_max {
            return Err(too_large("a reply in memory", self.limits.reply_bytes_max));
        }
        Ok(())
    }

    /// Takes a line off the buffer, without its CR LF.
    fn take_line(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let Some(found) = buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = buffer.len();
            if buffer.len() > self.limits.line_bytes_max {
                return Err(too_large("a line", self.limits.line_bytes_max));
            }
            return Ok(None);
        };
        let end = self.searched + found;
        self.searched = 0;
        if end > self.limits.line_bytes_max {
            return Err(too_large("a line", self.limits.line_bytes_max));
        }
        if end < 2 || buffer[end - 1] != b'\r' {
            return Err(malformed("line", &buffer[..end]));
        }
        let line = Bytes::copy_from_slice(&buffer[..end - 1]);
        buffer.advance(end + 1);
        Ok(Some(line))
    }

    fn read_header(&mut self, line: &Bytes) -> Result<Header, ProtocolError> {
        let rest = line.slice(1..);
        let value = match line[0] {
            b'+' => Value::Simple(rest),
            b'-' => Value::Error(ServerError::new(&rest)),
            b':' => Value::Integer(number(&rest, "integer")?),
            b'_' => Value::Null,
            b',' => Value::Double(double(&rest)?),
            b'#' => match rest.as_ref() {
                b"t" => Value::Boolean(true),
                b"f" => Value::Boolean(false),
                _ => return Err(malformed("boolean", line)),
            },
            b'(' => {
                let digits = rest.strip_prefix(b"-").unwrap_or(&rest);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(malformed("big number", line));
                }
                Value::BigNumber(rest)
            }
            b'$' => return self.string_header(&rest, Text::Bulk),
            b'!' => return self.string_header(&rest, Text::Error),
            b'=' => return self.string_header(&rest, Text::Verbatim),
            b'*' => return self.aggregate_header(&rest, Aggregate::Array),
            b'%' => return self.aggregate_header(&rest, Aggregate::Map),
            b'~' => return self.aggregate_header(&rest, Aggregate::Set),
            b'>' => return self.aggregate_header(&rest, Aggregate::Push),
            b'|' => return self.aggregate_header(&rest, Aggregate::Attribute),
            other => return Err(ProtocolError::Type(other)),
        };
        // Status and error lines hold as many bytes as they say.
        self.account(line.len())?;
        Ok(Header::Value(value))
    }

    fn string_header(&self, text: &[u8], kind: Text) -> Result<Header, ProtocolError> {
        if text == b"-1" && matches!(kind, Text::Bulk) {
            return Ok(Header::Value(Value::Null));
        }
        let length = length(text, "string length")?;
        if length > self.limits.bulk_bytes_max {
            return Err(too_large("a string", self.limits.bulk_bytes_max));
        }
        Ok(Header::String(kind, length))
    }

    fn aggregate_header(&self, text: &[u8], kind: Aggregate) -> Result<Header, ProtocolError> {
        if text == b"-1" && kind == Aggregate::Array {
            return Ok(Header::Value(Value::Null));
        }
        let count = length(text, "element count")?;
        let per_count = if matches!(kind, Aggregate::Map | Aggregate::Attribute) { 2 } else { 1 };
        let elements = count.saturating_mul(per_count);
        // Each element takes at least its own size, so a count beyond the limit can be refused before they arrive.
        if elements.saturating_mul(size_of::<Value>()) > self.limits.reply_bytes_max {
            return Err(too_large("a reply in memory", self.limits.reply_bytes_max));
        }
        Ok(Header::Aggregate(kind, elements))
    }
}

fn take_string(buffer: &mut BytesMut, kind: Text, length: usize) -> Result<Value, ProtocolError> {
    if &buffer[length..length + 2] != b"\r\n" {
        return Err(ProtocolError::Unterminated);
    }
    let bytes = if length <= COPIED_BYTES_MAX {
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        buffer.advance(length);
        bytes
    } else {
        buffer.split_to(length).freeze()
    };
    buffer.advance(2);
    match kind {
        Text::Bulk => Ok(Value::Bulk(bytes)),
        Text::Error => Ok(Value::Error(ServerError::new(&bytes))),
        Text::Verbatim => match bytes.as_ref() {
            [a, b, c, b':', ..] => Ok(Value::Verbatim { format: [*a, *b, *c], text: bytes.slice(4..) }),
            other => Err(malformed("verbatim string", other)),
        },
    }
}

fn build(kind: Aggregate, items: Vec<Value>) -> Value {
    match kind {
        Aggregate::Array | Aggregate::Attribute => Value::Array(items),
        Aggregate::Set => Value::Set(items),
        Aggregate::Push => Value::Push(items),
        Aggregate::Map => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Value::Map(pairs)
        }
    }
}

fn number(text: &[u8], what: &'static str) -> Result<i64, ProtocolError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| malformed(what, text))
}

fn length(text: &[u8], what: &'static str) -> Result<usize, ProtocolError> {
    // `parse` alone would take a plus sign, which the protocol doesn't know here.
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(malformed(what, text));
    }
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| malformed(what, text))
}

fn double(text: &[u8]) -> Result<f64, ProtocolError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(|| malformed("double", text))
}

fn malformed(what: &'static str, line: &[u8]) -> ProtocolError {
    let shown = &line[..line.len().min(40)];
    ProtocolError::Malformed { what, line: shown.escape_ascii().to_string() }
}

fn too_large(what: &'static str, limit: usize) -> ProtocolError {
    ProtocolError::TooLarge { what, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, ProtocolError> {
        let mut decoder = Decoder::new(Limits::default());
        let mut buffer = BytesMut::from(bytes);
        let mut values = Vec::new();
        while let Some(value) = decoder.decode(&mut buffer)? {
            values.push(value);
        }
        Ok(values)
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    const EVERY_TYPE: &[u8] = b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n*-1\r\n_\r\n,1.5\r\n,inf\r\n#t\r\n\
        (123456789012345678901234567890\r\n=7\r\ntxt:abc\r\n*2\r\n*1\r\n:1\r\n%1\r\n+k\r\n:2\r\n~1\r\n:3\r\n>2\r\n+message\r\n\
        :4\r\n|1\r\n+ttl\r\n:5\r\n:6\r\n!7\r\nERR x\r\n\r\n*0\r\n%0\r\n";

    fn every_value() -> Vec<Value> {
        vec![
            Value::Simple(Bytes::from_static(b"OK")),
            Value::Error(ServerError::new(b"ERR no")),
            Value::Integer(-7),
            bulk("a\r\n"),
            bulk(""),
            Value::Null,
            Value::Null,
            Value::Null,
            Value::Double(1.5),
            Value::Double(f64::INFINITY),
            Value::Boolean(true),
            Value::BigNumber(Bytes::from_static(b"123456789012345678901234567890")),
            Value::Verbatim { format: *b"txt", text: Bytes::from_static(b"abc") },
            Value::Array(vec![
                Value::Array(vec![Value::Integer(1)]),
                Value::Map(vec![(Value::Simple(Bytes::from_static(b"k")), Value::Integer(2))]),
            ]),
            Value::Set(vec![Value::Integer(3)]),
            Value::Push(vec![Value::Simple(Bytes::from_static(b"message")), Value::Integer(4)]),
            Value::Integer(6),
            Value::Error(ServerError::new(b"ERR x\r\n")),
            Value::Array(vec![]),
            Value::Map(vec![]),
        ]
    }

    #[test]
    fn every_type_is_understood() {
        // The error string above has seven bytes: "ERR x" and a line break of its own.
        assert_eq!(decode_all(EVERY_TYPE).unwrap(), every_value());
    }

    #[test]
    fn pieces_give_the_same_as_the_whole() {
        for size in 1..24 {
            let mut decoder = Decoder::new(Limits::default());
            let mut buffer = BytesMut::new();
            let mut values = Vec::new();
            for piece in EVERY_TYPE.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(value) = decoder.decode(&mut buffer).unwrap() {
                    values.push(value);
                }
            }
            assert_eq!(values, every_value(), "pieces of {size}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n"[..],
            b":12x\r\n",
            b"$+3\r\nabc\r\n",
            b"$3\r\nabcd\r\n",
            b"$?\r\n",
            b"*-2\r\n",
            b"#x\r\n",
            b",abc\r\n",
            b"(12a\r\n",
            b"=2\r\nab\r\n",
            b"+no carriage return\n",
            b"\r\n",
            b"$99999999999999999999999\r\n",
        ] {
            assert!(decode_all(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn announced_sizes_are_bounded() {
        assert!(matches!(decode_all(b"$536870913\r\n"), Err(ProtocolError::TooLarge { .. })));
        assert!(matches!(decode_all(b"*9000000000\r\n"), Err(ProtocolError::TooLarge { .. })));
        assert!(matches!(decode_all(b"%18446744073709551615\r\n"), Err(ProtocolError::TooLarge { .. })));
        let deep = b"*1\r\n".repeat(33);
        assert!(matches!(decode_all(&deep), Err(ProtocolError::TooLarge { what: "the nesting of a reply", .. })));
        let endless_line = vec![b'+'; (64 << 10) + 2];
        assert!(matches!(decode_all(&endless_line), Err(ProtocolError::TooLarge { what: "a line", .. })));
    }

    #[test]
    fn many_small_elements_count_against_the_reply_limit() {
        let limits = Limits { reply_bytes_max: 1000, ..Limits::default() };
        let mut decoder = Decoder::new(limits);
        let mut bytes = BytesMut::from(&b"*2\r\n"[..]);
        for _ in 0..2 {
            bytes.extend_from_slice(b"*20\r\n");
            bytes.extend_from_slice(&b":1\r\n".repeat(20));
        }
        assert!(matches!(decoder.decode(&mut bytes), Err(ProtocolError::TooLarge { .. })));
    }

    #[test]
    fn limit_is_per_reply_not_per_stream() {
        let mut decoder = Decoder::new(Limits { reply_bytes_max: 200, ..Limits::default() });
        let mut bytes = BytesMut::from(&b"$50\r\n"[..]);
        bytes.extend_from_slice(&[b'x'; 50]);
        bytes.extend_from_slice(b"\r\n");
        let one = bytes.clone();
        for _ in 0..100 {
            bytes.extend_from_slice(&one);
        }
        let mut count = 0;
        while decoder.decode(&mut bytes).unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 101);
    }
}
