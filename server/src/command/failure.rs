//! Why a command was refused, in the words that clients know.

use std::borrow::Cow;

/// A refusal. Its text begins with the error's code (`ERR`, `WRONGTYPE`, `BUSYKEY`…), as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(Cow<'static, str>);

impl Failure {
    /// The command's words are in an order or a number that it doesn't know.
    pub const SYNTAX: Failure = Failure::fixed("ERR syntax error");
    /// An argument or a value that must be a 64-bit integer isn't one.
    pub const NOT_INTEGER: Failure = Failure::fixed("ERR value is not an integer or out of range");
    /// An argument or a value that must be a number isn't one.
    pub const NOT_FLOAT: Failure = Failure::fixed("ERR value is not a valid float");
    /// An increment would leave the range of 64 bits.
    pub const OVERFLOW: Failure = Failure::fixed("ERR increment or decrement would overflow");
    /// The key holds another kind of value than the command is for.
    pub const WRONG_TYPE: Failure = Failure::fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// RENAME and OBJECT need the key to be there.
    pub const NO_SUCH_KEY: Failure = Failure::fixed("ERR no such key");
    /// COPY onto itself.
    pub const SAME_OBJECT: Failure = Failure::fixed("ERR source and destination objects are the same");
    /// A value would be, or is, longer than the limit.
    pub const VALUE_TOO_LONG: Failure = Failure::fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// A key is longer than [`super::KEY_BYTES_MAX`].
    pub const KEY_TOO_LONG: Failure = Failure::fixed("ERR key exceeds maximum allowed size (512 KiB)");

    /// A refusal whose text is known beforehand.
    pub const fn fixed(text: &'static str) -> Self {
        Failure(Cow::Borrowed(text))
    }

    /// A refusal that names what it refuses.
    pub fn new(text: String) -> Self {
        Failure(Cow::Owned(text))
    }

    /// MSET and its like were given a key without a value.
    pub(crate) fn wrong_arity(name: &str) -> Self {
        Failure::new(format!("ERR wrong number of arguments for '{name}' command"))
    }

    /// A deadline that is not positive, or that no 64-bit number of milliseconds can hold.
    pub(crate) fn invalid_expire(name: &str) -> Self {
        Failure::new(format!("ERR invalid expire time in '{name}' command"))
    }

    /// The text, code first.
    pub fn text(&self) -> &str {
        &self.0
    }
}
