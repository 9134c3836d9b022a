//! A client that shows what is on the wire: which type of RESP a reply has, and what its bytes are.

use super::PATIENCE;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A value of RESP2 or RESP3, as it came.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    NullBulk,
    NullArray,
    Null,
    Array(Vec<Value>),
    Set(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Double(String),
    BigNumber(String),
    Boolean(bool),
    Verbatim(Vec<u8>),
}

impl Value {
    pub fn int(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => panic!("no integer: {other}"),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) | Value::Verbatim(bytes) => bytes,
            Value::Simple(text) => text.as_bytes(),
            other => panic!("no string: {other}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("text")
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => items,
            other => panic!("no array: {other}"),
        }
    }

    pub fn is_ok(&self) -> bool {
        *self == Value::Simple("OK".into())
    }

    pub fn is_error(&self, prefix: &str) -> bool {
        matches!(self, Value::Error(text) if text.starts_with(prefix))
    }
}

/// One line that tells every type from every other: what the scripts in `tests/scripts` are written in.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, open: &str, items: &[Value]| {
            f.write_str(open)?;
            for (at, item) in items.iter().enumerate() {
                write!(f, "{}{item}", if at > 0 { ", " } else { "" })?;
            }
            f.write_str("]")
        };
        match self {
            Value::Simple(text) => write!(f, "+{text}"),
            Value::Error(text) => write!(f, "-{text}"),
            Value::Int(number) => write!(f, ":{number}"),
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Verbatim(bytes) => write!(f, "=\"{}\"", bytes.escape_ascii()),
            Value::NullBulk => f.write_str("nil"),
            Value::NullArray => f.write_str("nil[]"),
            Value::Null => f.write_str("_"),
            Value::Array(items) => list(f, "[", items),
            Value::Set(items) => list(f, "~[", items),
            Value::Push(items) => list(f, ">[", items),
            Value::Map(pairs) => {
                f.write_str("{")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
            Value::Double(text) => write!(f, ",{text}"),
            Value::BigNumber(text) => write!(f, "({text}"),
            Value::Boolean(value) => write!(f, "#{}", if *value { 't' } else { 'f' }),
        }
    }
}

/// A connection that reads and writes RESP.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address, PATIENCE).expect("connect")
    }

    /// Connects, if somebody listens; nothing takes longer than `patience`.
    pub fn try_connect(address: SocketAddr, patience: Duration) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("send");
    }

    /// Sends a command and reads its reply.
    pub fn call(&mut self, args: &[&[u8]]) -> Value {
        self.send(&encode(args));
        self.reply()
    }

    /// Sends a command written as words without quotes, and reads its reply.
    pub fn run(&mut self, line: &str) -> Value {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.call(&words)
    }

    /// Sends a command and reads its reply, or finds that the connection has ended or takes too long.
    pub fn try_call(&mut self, args: &[&[u8]]) -> io::Result<Value> {
        self.stream.get_mut().write_all(&encode(args))?;
        self.try_reply()
    }

    /// As [`Client::try_call`], for a command written as words without quotes.
    pub fn try_run(&mut self, line: &str) -> io::Result<Value> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.try_call(&words)
    }

    /// Reads a reply; the connection must still be there.
    pub fn reply(&mut self) -> Value {
        self.try_reply().expect("a reply")
    }

    /// Reads a reply, or finds that the connection has ended.
    pub fn try_reply(&mut self) -> io::Result<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| odd("an empty line"))?;
        let number = || rest.parse::<i64>().map_err(|_| odd(&line));
        Ok(match kind {
            "+" => Value::Simple(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Int(number()?),
            "_" => Value::Null,
            "," => Value::Double(rest.into()),
            "(" => Value::BigNumber(rest.into()),
            "#" => Value::Boolean(rest == "t"),
            "$" if rest == "-1" => Value::NullBulk,
            "*" if rest == "-1" => Value::NullArray,
            "$" => Value::Bulk(self.bytes(number()?)?),
            "=" => Value::Verbatim(self.bytes(number()?)?),
            "*" => Value::Array(self.values(number()?)?),
            "~" => Value::Set(self.values(number()?)?),
            ">" => Value::Push(self.values(number()?)?),
            "%" => {
                let mut pairs = Vec::new();
                for _ in 0..number()? {
                    pairs.push((self.try_reply()?, self.try_reply()?));
                }
                Value::Map(pairs)
            }
            _ => return Err(odd(&line)),
        })
    }

    /// Reads to the end of the connection: what still came, without the error that a reset leaves.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return rest,
                Ok(count) => rest.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return rest,
                Err(error) => panic!("the connection stays open: {error}"),
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.into()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(odd(&line)),
        }
    }

    fn bytes(&mut self, count: i64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(count).map_err(|_| odd("a negative length"))? + 2];
        self.stream.read_exact(&mut bytes)?;
        assert!(bytes.ends_with(b"\r\n"), "a string of another length than announced");
        bytes.truncate(bytes.len() - 2);
        Ok(bytes)
    }

    fn values(&mut self, count: i64) -> io::Result<Vec<Value>> {
        (0..count).map(|_| self.try_reply()).collect()
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {what:?}"))
}

/// A command as clients send it.
pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Splits a line into words; words in double quotes may hold spaces and `\x00`, `\r`, `\n`, `\"`, `\\`.
pub fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(first) = bytes.find(|byte| *byte != b' ') {
        let mut word = Vec::new();
        if first != b'"' {
            word.push(first);
            while let Some(byte) = bytes.next_if(|byte| *byte != b' ') {
                word.push(byte);
            }
            words.push(word);
            continue;
        }
        loop {
            match bytes.next().expect("a closing quote") {
                b'"' => break,
                b'\\' => match bytes.next().expect("an escaped byte") {
                    b'r' => word.push(b'\r'),
                    b'n' => word.push(b'\n'),
                    b'x' => {
                        let digits = [bytes.next().expect("digit"), bytes.next().expect("digit")];
                        let digits = std::str::from_utf8(&digits).expect("digits");
                        word.push(u8::from_str_radix(digits, 16).expect("two digits"));
                    }
                    other => word.push(other),
                },
                byte => word.push(byte),
            }
        }
        words.push(word);
    }
    words
}
