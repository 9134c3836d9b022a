//! What is sent: a command's arguments and what the client must know about them.

use bytes::{BufMut, Bytes, BytesMut};

/// Arguments of at least this size are handed to the socket as they are; smaller ones are copied into one buffer.
const SHARED_ARGUMENT_BYTES_MIN: usize = 32 * 1024;

/// What executing a command does to the data, as far as a retry is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It changes nothing: it may be repeated at will.
    Read,
    /// It may change something: it is repeated only when it is certain that it was not executed.
    Write,
}

/// One command with its arguments.
///
/// The key that routes it is marked by [`Command::key`]: with several nodes, that key's slot decides who is asked.
#[derive(Debug, Clone)]
pub struct Command {
    arguments: Vec<Bytes>,
    routing_key: Option<usize>,
    effect: Effect,
}

impl Command {
    /// A command that changes nothing, for example `GET`.
    pub fn read(name: &'static str) -> Self {
        Command { arguments: vec![Bytes::from_static(name.as_bytes())], routing_key: None, effect: Effect::Read }
    }

    /// A command that may change data, for example `SET`.
    pub fn write(name: &'static str) -> Self {
        Command { effect: Effect::Write, ..Command::read(name) }
    }

    /// Any command, given as its words; taken for a write, since its meaning is not known here. `None` without words.
    pub fn from_words(words: Vec<Bytes>) -> Option<Self> {
        (!words.is_empty()).then_some(Command { arguments: words, routing_key: None, effect: Effect::Write })
    }

    /// Appends a key; the first one routes the command.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.routing_key.get_or_insert(self.arguments.len());
        self.arg(key)
    }

    /// Appends an argument, copied.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.arguments.push(Bytes::copy_from_slice(argument.as_ref()));
        self
    }

    /// Appends an argument that is already shared: a large value is not copied on its way to the socket.
    #[must_use]
    pub fn arg_shared(mut self, argument: Bytes) -> Self {
        self.arguments.push(argument);
        self
    }

    /// Appends a number.
    #[must_use]
    pub fn number(self, number: impl Into<i128>) -> Self {
        let number: i128 = number.into();
        self.arg(number.to_string())
    }

    /// The command's name as it was given.
    pub fn name(&self) -> &[u8] {
        &self.arguments[0]
    }

    /// The key by which it is routed, if it has one.
    pub fn routing_key(&self) -> Option<&Bytes> {
        self.routing_key.map(|position| &self.arguments[position])
    }

    /// Whether it may change data.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The same as a numbered write of a session.
    pub(crate) fn numbered(&self, session: &str, number: u64, low: u64) -> Command {
        let mut numbered = Command::write("HOLDFAST").arg("ONCE").arg(session).number(number).number(low);
        numbered.routing_key = self.routing_key.map(|position| position + numbered.arguments.len());
        numbered.arguments.extend(self.arguments.iter().cloned());
        numbered
    }

    /// Writes the command's frame: small parts into `small`, which is cut off into `segments` around large arguments.
    pub(crate) fn encode(&self, small: &mut BytesMut, segments: &mut Vec<Bytes>) {
        put_header(small, b'*', self.arguments.len());
        for argument in &self.arguments {
            put_header(small, b'$', argument.len());
            if argument.len() >= SHARED_ARGUMENT_BYTES_MIN {
                segments.push(small.split().freeze());
                segments.push(argument.clone());
            } else {
                small.put_slice(argument);
            }
            small.put_slice(b"\r\n");
        }
    }
}

fn put_header(out: &mut BytesMut, kind: u8, count: usize) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut rest = count;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    out.put_slice(&digits[start..]);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(command: &Command) -> (Vec<u8>, usize) {
        let mut small = BytesMut::new();
        let mut segments = Vec::new();
        command.encode(&mut small, &mut segments);
        segments.push(small.freeze());
        (segments.concat(), segments.len())
    }

    #[test]
    fn frame_is_an_array_of_bulk_strings() {
        let (bytes, segments) = encoded(&Command::write("SET").key("k").arg(b"\r\n\0").number(-10));
        assert_eq!(bytes, b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\n\r\n\0\r\n$3\r\n-10\r\n");
        assert_eq!(segments, 1);
    }

    #[test]
    fn large_argument_is_a_segment_of_its_own() {
        let value = Bytes::from(vec![7; SHARED_ARGUMENT_BYTES_MIN]);
        let (bytes, segments) = encoded(&Command::write("SET").key("k").arg_shared(value.clone()));
        assert_eq!(segments, 3);
        assert!(bytes.starts_with(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$32768\r\n"));
        assert!(bytes.ends_with(b"\x07\r\n"));
    }

    #[test]
    fn first_key_routes() {
        let command = Command::read("MGET").key("a").key("b");
        assert_eq!(command.routing_key().unwrap().as_ref(), b"a");
        assert_eq!(Command::read("PING").routing_key(), None);
        let numbered = Command::write("SET").key("k").arg("v").numbered("id", 7, 5);
        assert_eq!(numbered.routing_key().unwrap().as_ref(), b"k");
        assert_eq!(numbered.arguments.join(&b' '), b"HOLDFAST ONCE id 7 5 SET k v");
    }
}
