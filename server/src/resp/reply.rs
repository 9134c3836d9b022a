//! The encoder: a handler says what it means in the terms of RESP3, the client's protocol version decides the bytes.
//!
//! A `Reply` lives as long as its connection and is appended to by one command after the other. Aggregates are
//! announced with their length and then filled: `array(2)`, `int(1)`, `bulk(b"x")`. Where the length is known only
//! at the end, [`Reply::deferred_array`] leaves a place for it.

use super::output::{Mark, Output};
use bytes::Bytes;

/// The protocol version that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Proto {
    /// The version that every client starts with.
    #[default]
    Resp2,
    /// Asked for with `HELLO 3`: maps, sets, doubles, booleans, nulls and pushes as types of their own.
    Resp3,
}

impl Proto {
    /// The version's number, as `HELLO` names it.
    pub fn number(self) -> u8 {
        match self {
            Proto::Resp2 => 2,
            Proto::Resp3 => 3,
        }
    }
}

/// The first word of an error, by which errors are counted (`ERR`, `WRONGTYPE`, ...). Cut at 31 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode {
    bytes: [u8; 31],
    len: u8,
}

impl ErrorCode {
    /// The first word of `text`.
    pub fn of(text: &str) -> Self {
        let word = text.as_bytes().split(|&byte| byte == b' ').next().unwrap_or_default();
        let mut code = ErrorCode { bytes: [0; 31], len: 0 };
        for (target, source) in code.bytes.iter_mut().zip(word) {
            *target = if source.is_ascii_graphic() { *source } else { b'?' };
            code.len += 1;
        }
        code
    }

    /// The word as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or("?")
    }
}

impl std::fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of an aggregate whose length is not known yet; see [`Reply::deferred_array`].
#[derive(Debug)]
#[must_use = "an aggregate without its header is not a reply"]
pub struct Deferred(Mark);

/// Encodes replies into the output of one connection.
#[derive(Debug, Default)]
pub struct Reply {
    proto: Proto,
    output: Output,
    error: Option<ErrorCode>,
}

impl Reply {
    /// An encoder for `proto` with an empty output.
    pub fn new(proto: Proto) -> Self {
        Self { proto, output: Output::new(), error: None }
    }

    /// The version in which replies are encoded.
    #[inline]
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Changes the version for what follows.
    pub fn set_proto(&mut self, proto: Proto) {
        self.proto = proto;
    }

    /// The bytes that wait to be sent.
    #[inline]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The bytes that wait to be sent, to be sent or rewound.
    #[inline]
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }

    /// The code of the last error written since this was last asked: how a command's failure is counted.
    #[inline]
    pub fn take_error(&mut self) -> Option<ErrorCode> {
        self.error.take()
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.output.extend(b"+OK\r\n");
    }

    /// A simple string. Line ends in it, which would break the framing, become spaces.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error: its code, a space, its text (`"ERR syntax error"`). Line ends become spaces.
    #[cold]
    pub fn error(&mut self, text: &str) {
        self.error = Some(ErrorCode::of(text));
        self.line(b'-', text.trim_end_matches(['\r', '\n']).as_bytes());
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, value: i64) {
        self.header_signed(b':', value);
    }

    /// A string of any bytes, copied.
    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        self.output.reserve(value.len() + 32);
        self.header(b'$', value.len());
        self.output.extend(value);
        self.output.extend(b"\r\n");
    }

    /// A string of any bytes; from [`SHARED_BYTES_MIN`](super::SHARED_BYTES_MIN) on it is not copied.
    #[inline]
    pub fn bulk_shared(&mut self, value: &Bytes) {
        if value.len() < super::SHARED_BYTES_MIN {
            return self.bulk(value);
        }
        self.header(b'$', value.len());
        self.output.extend_shared(value);
        self.output.extend(b"\r\n");
    }

    /// An integer as a string.
    pub fn bulk_int(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Nothing, where a string or another single value could have been.
    #[inline]
    pub fn null(&mut self) {
        self.output.extend(match self.proto {
            Proto::Resp2 => b"$-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// Nothing, where an array could have been.
    pub fn null_array(&mut self) {
        self.output.extend(match self.proto {
            Proto::Resp2 => b"*-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// Announces an array of `len` elements.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// Announces a map of `len` pairs; a flat array of `2 * len` in RESP2.
    pub fn map(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.header(b'*', len * 2),
            Proto::Resp3 => self.header(b'%', len),
        }
    }

    /// Announces a set of `len` elements; an array in RESP2.
    pub fn set(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.header(b'*', len),
            Proto::Resp3 => self.header(b'~', len),
        }
    }

    /// Announces an out-of-band message of `len` elements; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        match self.proto {
            Proto::Resp2 => self.header(b'*', len),
            Proto::Resp3 => self.header(b'>', len),
        }
    }

    /// Leaves a place for an array's header; [`Reply::finish_array`] fills it in. Deferred aggregates nest if they are
    /// finished in reverse order, and nothing may be sent in between.
    pub fn deferred_array(&mut self) -> Deferred {
        Deferred(self.output.mark())
    }

    /// Fills in the header of an array that turned out to have `len` elements.
    pub fn finish_array(&mut self, place: Deferred, len: usize) {
        let mut header = Output::new();
        std::mem::swap(&mut header, &mut self.output);
        self.header(b'*', len);
        std::mem::swap(&mut header, &mut self.output);
        self.output.insert_at(place.0, &header.to_vec());
    }

    /// A floating-point number: the shortest digits that read back as the same value, laid out as C's `%.17g` would;
    /// a string in RESP2.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        match self.proto {
            Proto::Resp2 => self.bulk(text.as_bytes()),
            Proto::Resp3 => self.line(b',', text.as_bytes()),
        }
    }

    /// A truth value; `:1` or `:0` in RESP2.
    pub fn boolean(&mut self, value: bool) {
        self.output.extend(match (self.proto, value) {
            (Proto::Resp2, true) => b":1\r\n",
            (Proto::Resp2, false) => b":0\r\n",
            (Proto::Resp3, true) => b"#t\r\n",
            (Proto::Resp3, false) => b"#f\r\n",
        });
    }

    /// Text to be shown to a human as it is, with a format of three letters (`txt`, `mkd`); a string in RESP2.
    ///
    /// # Panics
    /// If `format` is not three bytes long.
    pub fn verbatim(&mut self, format: &str, text: &str) {
        assert_eq!(format.len(), 3, "a verbatim format has three letters");
        match self.proto {
            Proto::Resp2 => self.bulk(text.as_bytes()),
            Proto::Resp3 => {
                self.header(b'=', text.len() + 4);
                self.output.extend(format.as_bytes());
                self.output.extend(b":");
                self.output.extend(text.as_bytes());
                self.output.extend(b"\r\n");
            }
        }
    }

    /// An integer of any size, given as its decimal digits; a string in RESP2.
    pub fn big_number(&mut self, digits: &str) {
        match self.proto {
            Proto::Resp2 => self.bulk(digits.as_bytes()),
            Proto::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// An array of simple strings, as the `HELP` subcommands answer: a status line each.
    pub fn help(&mut self, lines: &[&str]) {
        self.array(lines.len());
        for line in lines {
            self.simple(line);
        }
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.output.reserve(text.len() + 3);
        self.output.extend(&[kind]);
        if memchr::memchr2(b'\r', b'\n', text).is_none() {
            self.output.extend(text);
        } else {
            for &byte in text {
                self.output.extend(&[if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }]);
            }
        }
        self.output.extend(b"\r\n");
    }

    #[inline]
    fn header(&mut self, kind: u8, len: usize) {
        // One digit is by far the most frequent length.
        if len < 10 {
            self.output.extend(&[kind, b'0' + len as u8, b'\r', b'\n']);
        } else {
            self.header_signed(kind, len as i64);
        }
    }

    #[inline]
    fn header_signed(&mut self, kind: u8, value: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(value).as_bytes();
        // 20 digits and a sign, the kind and the line end fit: one append instead of three.
        let mut line = [0u8; 24];
        line[0] = kind;
        line[1..=digits.len()].copy_from_slice(digits);
        line[digits.len() + 1] = b'\r';
        line[digits.len() + 2] = b'\n';
        self.output.extend(&line[..digits.len() + 3]);
    }
}

/// The shortest decimal that reads back as `value`, in the layout of C's `%.17g`: `3`, `0.1`, `1e+20`, `inf`, `nan`.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let Ok(exponent) = exponent.parse::<i32>() else { return scientific };
    if (-4..17).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Reply)) -> (String, String) {
        let encode = |proto| {
            let mut reply = Reply::new(proto);
            write(&mut reply);
            String::from_utf8(reply.output().to_vec()).unwrap()
        };
        (encode(Proto::Resp2), encode(Proto::Resp3))
    }

    fn check(write: impl Fn(&mut Reply), resp2: &str, resp3: &str) {
        assert_eq!(both(write), (resp2.to_owned(), resp3.to_owned()));
    }

    #[test]
    fn each_type_has_its_form_in_both_versions() {
        check(|r| r.ok(), "+OK\r\n", "+OK\r\n");
        check(|r| r.int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        check(|r| r.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n");
        check(|r| r.bulk(b"0123456789"), "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n");
        check(|r| r.null(), "$-1\r\n", "_\r\n");
        check(|r| r.null_array(), "*-1\r\n", "_\r\n");
        check(|r| r.array(11), "*11\r\n", "*11\r\n");
        check(|r| r.map(2), "*4\r\n", "%2\r\n");
        check(|r| r.set(2), "*2\r\n", "~2\r\n");
        check(|r| r.push(2), "*2\r\n", ">2\r\n");
        check(|r| r.boolean(true), ":1\r\n", "#t\r\n");
        check(|r| r.double(0.5), "$3\r\n0.5\r\n", ",0.5\r\n");
        check(|r| r.verbatim("txt", "hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
        check(|r| r.big_number("123"), "$3\r\n123\r\n", "(123\r\n");
    }

    #[test]
    fn error_keeps_its_code_and_cannot_break_the_framing() {
        let mut reply = Reply::new(Proto::Resp2);
        reply.error("WRONGTYPE bad\r\n+OK\r\nthing\r\n");
        assert_eq!(reply.output().to_vec(), b"-WRONGTYPE bad  +OK  thing\r\n");
        assert_eq!(reply.take_error().map(|code| code.as_str().to_owned()), Some("WRONGTYPE".to_owned()));
        assert_eq!(reply.take_error(), None);
    }

    #[test]
    fn deferred_arrays_nest_and_keep_shared_segments_in_place() {
        let big = Bytes::from(vec![b'x'; super::super::SHARED_BYTES_MIN]);
        let mut reply = Reply::new(Proto::Resp2);
        reply.int(1);
        let outer = reply.deferred_array();
        reply.bulk_shared(&big);
        let inner = reply.deferred_array();
        reply.int(2);
        reply.finish_array(inner, 1);
        reply.finish_array(outer, 2);
        let expected = [b":1\r\n*2\r\n$32768\r\n".as_slice(), &big, b"\r\n*1\r\n:2\r\n"].concat();
        assert_eq!(reply.output().to_vec(), expected);
    }

    #[test]
    fn doubles_read_back_and_look_like_c() {
        for (value, text) in [
            (3.0, "3"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(format_double(value), text);
        }
        for value in [f64::MAX, f64::MIN_POSITIVE, 1.0 / 3.0, 5e-324] {
            assert_eq!(format_double(value).parse::<f64>().unwrap(), value);
        }
    }
}
