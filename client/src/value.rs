//! A decoded reply.

use bytes::Bytes;

use crate::error::ServerError;

/// A reply of the server: every type of RESP3; RESP2's replies are a subset.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// No value: RESP3's null, RESP2's null bulk string and null array.
    Null,
    /// A short status such as `OK`.
    Simple(Bytes),
    /// An error; on top level the client turns it into [`crate::Error::Server`], inside an array it stays here.
    Error(ServerError),
    /// A whole number.
    Integer(i64),
    /// A string of bytes.
    Bulk(Bytes),
    /// A floating-point number, infinities and "not a number" included.
    Double(f64),
    /// True or false.
    Boolean(bool),
    /// A number of any size, as its decimal digits.
    BigNumber(Bytes),
    /// Text for people, with its format (`txt` or `mkd`).
    Verbatim {
        /// Three letters that name the format.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
    /// A list.
    Array(Vec<Value>),
    /// Pairs of key and value in the server's order.
    Map(Vec<(Value, Value)>),
    /// A collection without order.
    Set(Vec<Value>),
    /// A message that no request asked for.
    Push(Vec<Value>),
}

impl Value {
    /// The bytes of a bulk, simple, verbatim or big-number reply.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => Some(bytes),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The same as [`Value::as_bytes`] by value, without a copy.
    pub fn into_bytes(self) -> Option<Bytes> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => Some(bytes),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The number in an integer or boolean reply, or in a string of digits.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(*number),
            Value::Boolean(truth) => Some(i64::from(*truth)),
            other => std::str::from_utf8(other.as_bytes()?).ok()?.parse().ok(),
        }
    }

    /// The elements of an array, set or push.
    pub fn as_elements(&self) -> Option<&[Value]> {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Pairs of a map, or of an array that alternates keys and values as RESP2 sends maps.
    pub fn into_pairs(self) -> Option<Vec<(Value, Value)>> {
        match self {
            Value::Map(pairs) => Some(pairs),
            Value::Array(items) if items.len() % 2 == 0 => {
                let mut pairs = Vec::with_capacity(items.len() / 2);
                let mut items = items.into_iter();
                while let (Some(key), Some(value)) = (items.next(), items.next()) {
                    pairs.push((key, value));
                }
                Some(pairs)
            }
            _ => None,
        }
    }

    /// Whether this is the status `OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Value::Simple(text) if text.as_ref() == b"OK")
    }

    /// The name of the type, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Simple(_) => "a status",
            Value::Error(_) => "an error",
            Value::Integer(_) => "an integer",
            Value::Bulk(_) => "a string",
            Value::Double(_) => "a double",
            Value::Boolean(_) => "a boolean",
            Value::BigNumber(_) => "a big number",
            Value::Verbatim { .. } => "a text",
            Value::Array(_) => "an array",
            Value::Map(_) => "a map",
            Value::Set(_) => "a set",
            Value::Push(_) => "a push message",
        }
    }
}
