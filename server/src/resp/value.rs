//! Replies as a client reads them: RESP2 and RESP3 into a tree of values.
//!
//! For tests, benchmarks and tools in this workspace that talk to a server. It is not resumable: call it again when
//! more has arrived. Depth and lengths are bounded, since a server can be as broken as a client.

use super::decode::parse_integer;

/// Deepest nesting of aggregates that is followed.
pub const DEPTH_MAX: usize = 32;

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+OK`.
    Simple(String),
    /// `-ERR ...`.
    Error(String),
    /// `:1`.
    Int(i64),
    /// `$1\r\nx`, and a verbatim string without its format.
    Bulk(Vec<u8>),
    /// The nulls of both versions.
    Null,
    /// `*`.
    Array(Vec<Value>),
    /// `%`.
    Map(Vec<(Value, Value)>),
    /// `~`.
    Set(Vec<Value>),
    /// `>`.
    Push(Vec<Value>),
    /// `,`.
    Double(f64),
    /// `#`.
    Boolean(bool),
    /// `(`, as its digits.
    BigNumber(String),
}

/// Bytes that are no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a reply: {what} at byte {position}")]
pub struct ValueError {
    what: &'static str,
    position: usize,
}

impl Value {
    /// Parses the first reply in `bytes`: the value and its length on the wire, or `None` if more is to come.
    ///
    /// # Errors
    /// If the bytes can't be the beginning of a reply, or it is nested deeper than [`DEPTH_MAX`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Value, usize)>, ValueError> {
        let mut parser = Parser { bytes, position: 0 };
        Ok(parser.value(0)?.map(|value| (value, parser.position)))
    }

    /// Parses all of `bytes` as replies, for tests that know that they are complete.
    ///
    /// # Errors
    /// As [`Value::parse`], and if the last reply is cut off.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<Value>, ValueError> {
        let mut values = Vec::new();
        let mut position = 0;
        while position < bytes.len() {
            let (value, len) =
                Value::parse(&bytes[position..])?.ok_or(ValueError { what: "a cut off reply", position })?;
            values.push(value);
            position += len;
        }
        Ok(values)
    }

    /// The text of a simple or bulk string.
    pub fn as_text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Value::Simple(text) => Some(text.as_str().into()),
            Value::Bulk(bytes) => Some(String::from_utf8_lossy(bytes)),
            _ => None,
        }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Option<Value>, ValueError> {
        if depth > DEPTH_MAX {
            return Err(self.error("nesting too deep"));
        }
        let start = self.position;
        let Some(line) = self.line() else { return Ok(None) };
        let [kind, rest @ ..] = line else { return Err(self.error("an empty line")) };
        let text = || String::from_utf8_lossy(rest).into_owned();
        Ok(Some(match kind {
            b'+' => Value::Simple(text()),
            b'-' => Value::Error(text()),
            b'(' => Value::BigNumber(text()),
            b'_' => Value::Null,
            b':' => Value::Int(parse_integer(rest).ok_or_else(|| self.error("no integer"))?),
            b'#' => match rest {
                b"t" => Value::Boolean(true),
                b"f" => Value::Boolean(false),
                _ => return Err(self.error("no boolean")),
            },
            b',' => Value::Double(text().parse().map_err(|_| self.error("no double"))?),
            b'$' | b'=' => {
                let Some(len) = self.length(rest)? else { return Ok(Some(Value::Null)) };
                let Some(payload) = self.bytes.get(self.position..self.position.saturating_add(len)) else {
                    return Ok(None);
                };
                if self.bytes.len() < self.position + len + 2 {
                    return Ok(None);
                }
                self.position += len + 2;
                if *kind == b'=' && len >= 4 {
                    Value::Bulk(payload[4..].to_vec())
                } else {
                    Value::Bulk(payload.to_vec())
                }
            }
            b'*' | b'~' | b'>' | b'%' => {
                let Some(len) = self.length(rest)? else { return Ok(Some(Value::Null)) };
                let mut values = Vec::new();
                for _ in 0..if *kind == b'%' { len.saturating_mul(2) } else { len } {
                    let Some(value) = self.value(depth + 1)? else { return Ok(None) };
                    values.push(value);
                }
                match kind {
                    b'*' => Value::Array(values),
                    b'~' => Value::Set(values),
                    b'>' => Value::Push(values),
                    _ => {
                        let mut pairs = Vec::with_capacity(len);
                        let mut values = values.into_iter();
                        while let (Some(key), Some(value)) = (values.next(), values.next()) {
                            pairs.push((key, value));
                        }
                        Value::Map(pairs)
                    }
                }
            }
            _ => {
                self.position = start;
                return Err(self.error("an unknown type"));
            }
        }))
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let end = memchr::memmem::find(rest, b"\r\n")?;
        self.position += end + 2;
        Some(&rest[..end])
    }

    /// A length; `None` is RESP2's null.
    fn length(&self, digits: &[u8]) -> Result<Option<usize>, ValueError> {
        match parse_integer(digits) {
            Some(-1) => Ok(None),
            Some(len) if len >= 0 => Ok(Some(len as usize)),
            _ => Err(self.error("no length")),
        }
    }

    fn error(&self, what: &'static str) -> ValueError {
        ValueError { what, position: self.position }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Proto, Reply};
    use proptest::prelude::*;

    fn write(value: &Value, reply: &mut Reply) {
        match value {
            Value::Simple(text) => reply.simple(text),
            Value::Error(text) => reply.error(text),
            Value::Int(value) => reply.int(*value),
            Value::Bulk(bytes) => reply.bulk(bytes),
            Value::Null => reply.null(),
            Value::Double(value) => reply.double(*value),
            Value::Boolean(value) => reply.boolean(*value),
            Value::BigNumber(digits) => reply.big_number(digits),
            Value::Array(values) => {
                reply.array(values.len());
                values.iter().for_each(|value| write(value, reply));
            }
            Value::Set(values) => {
                reply.set(values.len());
                values.iter().for_each(|value| write(value, reply));
            }
            Value::Push(values) => {
                reply.push(values.len());
                values.iter().for_each(|value| write(value, reply));
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    write(key, reply);
                    write(value, reply);
                }
            }
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[ -~]{0,20}".prop_map(Value::Simple),
            "[A-Z]{1,10} [a-z]{1,10}".prop_map(Value::Error),
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(any::<u8>(), 0..100).prop_map(Value::Bulk),
            Just(Value::Null),
            (-1e300f64..1e300).prop_map(Value::Double),
            any::<bool>().prop_map(Value::Boolean),
            "[1-9][0-9]{0,40}".prop_map(Value::BigNumber),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Set),
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Push),
                proptest::collection::vec((inner.clone(), inner), 0..5).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_the_encoder_writes_is_what_a_client_reads(value in values()) {
            let mut reply = Reply::new(Proto::Resp3);
            write(&value, &mut reply);
            let bytes = reply.output().to_vec();
            prop_assert_eq!(Value::parse(&bytes).unwrap(), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Value::parse(&bytes[..cut]).unwrap(), None);
            }
        }

        #[test]
        fn random_replies_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Value::parse(&bytes);
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        let bytes = b"*1\r\n".repeat(DEPTH_MAX + 2);
        assert!(Value::parse(&bytes).is_err());
    }
}
