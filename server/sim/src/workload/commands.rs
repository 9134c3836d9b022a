//! Which commands the clients send, and what their replies say.
//!
//! A command is three things at once: words for the server, an [`Operation`] for the history, and a [`Reading`] that turns
//! the reply into an [`Answer`]. Keys are of three kinds that do not mix, so that no command is ever applied to a value of
//! the wrong kind, and an error that says so is a violation.

use holdfast_client::Value;

use crate::check::{Answer, Operation, Outcome, Text};
use crate::random::Random;

/// Codes of error replies that promise: the command was not executed, and will not be. Any other error is not expected from
/// the commands here and counts against the server.
pub const REFUSED_CODES: [&str; 11] = [
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
];

/// What a key is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Values that are set, compared and deleted; also a lock.
    Register,
    /// A number that is added to.
    Counter,
    /// A string that is appended to.
    Log,
    /// Two keys of one slot that are only ever written together, with the same value: one key of the model.
    Pair,
    /// A register whose values go away after a while; mostly a lock.
    Lease,
}

/// How a reply is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The value, or null for none.
    Value,
    /// `OK`, or null where the condition did not hold.
    OkOrNull,
    /// 1: done; 0: the value is another; -1: there is none.
    Compared,
    /// 1: done; 0: not.
    OneOrZero,
    /// The number afterwards.
    Number,
    /// The length afterwards.
    Length,
    /// The values of a pair's keys, which are the same.
    Both,
    /// 2: done; 0: not.
    TwoOrZero,
}

/// How long a value stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// So many milliseconds.
    Milliseconds(u64),
    /// Until it is overwritten, whatever was said before.
    ForEver,
}

/// A command, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The command's name and arguments.
    pub words: Vec<Vec<u8>>,
    /// The key, which is among the words; of a pair, what its keys have in common.
    pub key: Vec<u8>,
    /// What it does.
    pub operation: Operation,
    /// How its reply is read.
    pub reading: Reading,
    /// How long the value that it stores or finds is there from then on.
    pub lapse: Option<Span>,
}

impl Request {
    /// Reads a key.
    pub fn get(key: &[u8]) -> Request {
        request(&[b"GET", key], key, Operation::Get, Reading::Value)
    }

    /// Reads a key or a pair, whichever has this name.
    pub(super) fn read_all(key: &[u8]) -> Request {
        if !names(key, PAIR) {
            return Request::get(key);
        }
        let [one, other] = keys_of_pair(key);
        request(&[b"MGET", &one, &other], key, Operation::Get, Reading::Both)
    }

    /// What a reply says about the operation.
    ///
    /// # Errors
    /// If the command has no such reply: then the server is wrong, whatever the history says.
    pub fn read(&self, reply: &Value) -> Result<Outcome, String> {
        let answer = match (self.reading, reply) {
            (_, Value::Error(error)) if REFUSED_CODES.contains(&error.code()) => return Ok(Outcome::Failed),
            (Reading::Value, Value::Null) => Answer::Value(None),
            (Reading::Value, Value::Bulk(bytes)) => Answer::Value(Some(Text::from(&bytes[..]))),
            (Reading::OkOrNull, Value::Simple(text)) if &text[..] == b"OK" => Answer::Done,
            (Reading::OkOrNull, Value::Null) => Answer::Refused,
            (Reading::Both, Value::Array(values)) => match &values[..] {
                [Value::Null, Value::Null] => Answer::Value(None),
                [Value::Bulk(one), Value::Bulk(other)] if one == other => Answer::Value(Some(Text::from(&one[..]))),
                // NB: nobody writes this, so it is found.
                [one, other] => Answer::Value(Some(format!("{one:?} and {other:?}").as_str().into())),
                _ => return Err(format!("a pair was answered with {values:?}")),
            },
            (Reading::TwoOrZero, Value::Integer(2)) => Answer::Done,
            (Reading::TwoOrZero, Value::Integer(0)) => Answer::Refused,
            (Reading::Compared | Reading::OneOrZero, Value::Integer(1)) => Answer::Done,
            (Reading::Compared, Value::Integer(0)) => Answer::Different,
            (Reading::Compared, Value::Integer(-1)) => Answer::Absent,
            (Reading::OneOrZero, Value::Integer(0)) => Answer::Refused,
            (Reading::Number, Value::Integer(number)) => Answer::Number(*number),
            (Reading::Length, Value::Integer(length)) if *length >= 0 => Answer::Length(length.unsigned_abs()),
            _ => {
                let words: Vec<String> = self.words.iter().map(|word| word.escape_ascii().to_string()).collect();
                return Err(format!("`{}` was answered with {reply:?}", words.join(" ")));
            }
        };
        Ok(Outcome::Answered(answer))
    }
}

fn request(words: &[&[u8]], key: &[u8], operation: Operation, reading: Reading) -> Request {
    let words = words.iter().map(|word| word.to_vec()).collect();
    Request { words, key: key.to_vec(), operation, reading, lapse: None }
}

/// What a client knows when it draws a command.
pub(super) struct Knowledge<'client> {
    /// The key's value as this client last saw or wrote it.
    pub(super) seen: Option<&'client Text>,
    /// A value that nobody has written or will write again.
    pub(super) unique: String,
}

/// Draws a command on a key of this kind.
pub(super) fn draw(random: &mut Random, kind: KeyKind, key: &[u8], knowledge: &Knowledge<'_>) -> Request {
    match kind {
        KeyKind::Register => draw_register(random, key, knowledge),
        KeyKind::Counter => draw_counter(random, key),
        KeyKind::Log => draw_log(random, key, &knowledge.unique),
        KeyKind::Pair => draw_pair(random, key, &knowledge.unique),
        KeyKind::Lease => draw_lease(random, key, knowledge),
    }
}

/// Draws a read of a key of this kind.
pub(super) fn draw_read(random: &mut Random, kind: KeyKind, key: &[u8]) -> Request {
    match kind {
        KeyKind::Register | KeyKind::Counter | KeyKind::Lease => Request::get(key),
        KeyKind::Log if random.chance(300) => strlen(key),
        KeyKind::Log => Request::get(key),
        KeyKind::Pair if random.chance(300) => half_of_pair(random, key),
        KeyKind::Pair => Request::read_all(key),
    }
}

fn strlen(key: &[u8]) -> Request {
    request(&[b"STRLEN", key], key, Operation::Get, Reading::Length)
}

/// What only the names of pairs have in them.
pub(super) const PAIR: &str = "pair";

/// What only the names of logs have in them.
pub(super) const LOG: &str = "log";

/// Whether a key of this name is a log.
pub(super) fn is_log(key: &[u8]) -> bool {
    names(key, LOG)
}

/// Whether a key is of the kind whose names have this in them. NB: in front of it may be what all names begin with.
fn names(key: &[u8], kind: &str) -> bool {
    key.windows(kind.len()).any(|part| part == kind.as_bytes())
}

fn keys_of_pair(name: &[u8]) -> [Vec<u8>; 2] {
    ["a", "b"].map(|end| [b"{", name, b"}", end.as_bytes()].concat())
}

fn half_of_pair(random: &mut Random, name: &[u8]) -> Request {
    let [one, other] = keys_of_pair(name);
    request(&[b"GET", if random.chance(500) { &one } else { &other }], name, Operation::Get, Reading::Value)
}

fn draw_pair(random: &mut Random, name: &[u8], unique: &str) -> Request {
    let new = unique.as_bytes();
    let [one, other] = keys_of_pair(name);
    let set = Operation::Set(Text::from(new));
    let create = Operation::CompareAndSet { expected: None, new: Text::from(new) };
    match random.weighted(&[35, 10, 35, 10, 10]) {
        0 => Request::read_all(name),
        1 => half_of_pair(random, name),
        2 => request(&[b"MSET", &one, new, &other, new], name, set, Reading::OkOrNull),
        3 => request(&[b"MSETNX", &one, new, &other, new], name, create, Reading::OneOrZero),
        _ => request(&[b"DEL", &other, &one], name, Operation::Delete, Reading::TwoOrZero),
    }
}

fn draw_register(random: &mut Random, key: &[u8], knowledge: &Knowledge<'_>) -> Request {
    let new = knowledge.unique.as_bytes();
    let stored = Text::from(new);
    // Whoever has seen nothing yet, and now and then somebody else, guesses wrong.
    let wrong = Text::from("never written");
    let expected = if random.chance(900) { knowledge.seen.unwrap_or(&wrong) } else { &wrong };
    let swap = Operation::CompareAndSet { expected: Some(expected.clone()), new: stored.clone() };
    let create = Operation::CompareAndSet { expected: None, new: stored.clone() };
    let remove = Operation::CompareAndDelete { expected: expected.clone() };
    let old = expected.as_bytes();
    match random.weighted(&[40, 15, 5, 10, 8, 5, 6, 4, 2, 3, 3]) {
        0 => Request::get(key),
        1 => request(&[b"SET", key, new], key, Operation::Set(stored), Reading::OkOrNull),
        2 => request(&[b"SET", key, new, b"GET"], key, Operation::Set(stored), Reading::Value),
        3 => request(&[b"CAS", key, old, new], key, swap, Reading::Compared),
        4 => request(&[b"SET", key, new, b"IFEQ", old], key, swap, Reading::OkOrNull),
        5 => request(&[b"SET", key, new, b"IFEQ", old, b"GET"], key, swap, Reading::Value),
        6 => request(&[b"SET", key, new, b"NX"], key, create, Reading::OkOrNull),
        7 => request(&[b"DEL", key], key, Operation::Delete, Reading::OneOrZero),
        8 => request(&[b"GETDEL", key], key, Operation::Delete, Reading::Value),
        9 => request(&[b"CAD", key, old], key, remove, Reading::Compared),
        _ => request(&[b"DELIFEQ", key, old], key, remove, Reading::OneOrZero),
    }
}

/// A lock is taken for a while, prolonged by who has it, released or forgotten; others look at it.
fn draw_lease(random: &mut Random, key: &[u8], knowledge: &Knowledge<'_>) -> Request {
    let new = knowledge.unique.as_bytes();
    let stored = Text::from(new);
    let wrong = Text::from("never written");
    let expected = knowledge.seen.unwrap_or(&wrong);
    let old = expected.as_bytes();
    let swap = Operation::CompareAndSet { expected: Some(expected.clone()), new: stored.clone() };
    let create = Operation::CompareAndSet { expected: None, new: stored.clone() };
    let span_ms = match random.weighted(&[40, 40, 20]) {
        0 => random.range(20..=500),
        1 => random.range(500..=2000),
        _ => random.range(2000..=8000),
    };
    let word = span_ms.to_string();
    let ms = word.as_bytes();
    let lapsing = |words: &[&[u8]], operation, reading| Request {
        lapse: Some(Span::Milliseconds(span_ms)),
        ..request(words, key, operation, reading)
    };
    match random.weighted(&[39, 26, 8, 8, 5, 4, 2, 2, 4, 2]) {
        0 => Request::get(key),
        1 => lapsing(&[b"SET", key, new, b"NX", b"PX", ms], create, Reading::OkOrNull),
        2 => lapsing(&[b"SET", key, new, b"PX", ms], Operation::Set(stored), Reading::OkOrNull),
        3 => lapsing(&[b"SET", key, new, b"IFEQ", old, b"PX", ms], swap, Reading::OkOrNull),
        4 => lapsing(&[b"CAS", key, old, new, b"PX", ms], swap, Reading::Compared),
        5 => request(
            &[b"CAD", key, old],
            key,
            Operation::CompareAndDelete { expected: expected.clone() },
            Reading::Compared,
        ),
        6 => request(&[b"GETDEL", key], key, Operation::Delete, Reading::Value),
        7 => request(&[b"SET", key, new], key, Operation::Set(stored), Reading::OkOrNull),
        8 => lapsing(&[b"GETEX", key, b"PX", ms], Operation::Get, Reading::Value),
        _ => Request {
            lapse: Some(Span::ForEver),
            ..request(&[b"GETEX", key, b"PERSIST"], key, Operation::Get, Reading::Value)
        },
    }
}

fn draw_counter(random: &mut Random, key: &[u8]) -> Request {
    let by = random.range(2..=9);
    let word = by.to_string();
    let by = by as i64;
    match random.weighted(&[30, 50, 10, 10]) {
        0 => Request::get(key),
        1 => request(&[b"INCR", key], key, Operation::Increment(1), Reading::Number),
        2 => request(&[b"INCRBY", key, word.as_bytes()], key, Operation::Increment(by), Reading::Number),
        _ => request(&[b"DECRBY", key, word.as_bytes()], key, Operation::Increment(-by), Reading::Number),
    }
}

fn draw_log(random: &mut Random, key: &[u8], unique: &str) -> Request {
    let piece = format!("{unique};");
    match random.weighted(&[60, 30, 10]) {
        0 => {
            let operation = Operation::Append(piece.as_str().into());
            request(&[b"APPEND", key, piece.as_bytes()], key, operation, Reading::Length)
        }
        1 => Request::get(key),
        _ => strlen(key),
    }
}

/// A command in the protocol's bytes: an array of bulk strings.
pub fn encode(words: &[Vec<u8>], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_client::ServerError;

    use super::*;

    fn answered(answer: Answer) -> Result<Outcome, String> {
        Ok(Outcome::Answered(answer))
    }

    fn reading(reading: Reading) -> Request {
        Request { reading, ..Request::get(b"k") }
    }

    #[test]
    fn replies_mean_what_the_reference_says() {
        let bulk = Value::Bulk(b"v"[..].into());
        let ok = Value::Simple(b"OK"[..].into());
        assert_eq!(reading(Reading::Value).read(&bulk), answered(Answer::Value(Some("v".into()))));
        assert_eq!(reading(Reading::Value).read(&Value::Null), answered(Answer::Value(None)));
        assert_eq!(reading(Reading::OkOrNull).read(&ok), answered(Answer::Done));
        assert_eq!(reading(Reading::OkOrNull).read(&Value::Null), answered(Answer::Refused));
        let compared = [1, 0, -1].map(|number| reading(Reading::Compared).read(&Value::Integer(number)));
        assert_eq!(compared, [Answer::Done, Answer::Different, Answer::Absent].map(answered));
        let deleted = [1, 0].map(|number| reading(Reading::OneOrZero).read(&Value::Integer(number)));
        assert_eq!(deleted, [Answer::Done, Answer::Refused].map(answered));
        assert_eq!(reading(Reading::Number).read(&Value::Integer(-3)), answered(Answer::Number(-3)));
        assert_eq!(reading(Reading::Length).read(&Value::Integer(3)), answered(Answer::Length(3)));
    }

    #[test]
    fn refusals_are_certain_and_other_errors_are_the_servers_fault() {
        let error = |text: &str| Request::get(b"k").read(&Value::Error(ServerError::new(text.as_bytes())));
        assert_eq!(error("MOVED 1 127.0.0.1:7001"), Ok(Outcome::Failed));
        assert_eq!(error("CLUSTERDOWN The cluster is down"), Ok(Outcome::Failed));
        assert!(error("ERR value is not an integer or out of range").is_err());
        assert!(error("WRONGTYPE Operation against a key").unwrap_err().starts_with("`GET k` was answered with Error"));
        assert!(reading(Reading::OneOrZero).read(&Value::Integer(2)).is_err());
        assert!(reading(Reading::OkOrNull).read(&Value::Simple(b"QUEUED"[..].into())).is_err());
    }

    #[test]
    fn every_command_is_drawn_and_names_its_key() {
        let mut random = Random::new(1);
        let mut names = BTreeSet::new();
        for number in 0..3000 {
            let kind = [KeyKind::Register, KeyKind::Counter, KeyKind::Log, KeyKind::Lease][number % 4];
            let seen = Text::from("seen");
            let knowledge = Knowledge { seen: Some(&seen), unique: format!("1.{number}") };
            let request = draw(&mut random, kind, b"key", &knowledge);
            assert_eq!(request.words[1], b"key");
            let options = request.words.iter().skip(3).filter(|word| word.is_ascii() && word.is_ascii_uppercase_word());
            let name: Vec<String> = std::iter::once(&request.words[0])
                .chain(options)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            names.insert(name.join(" "));
        }
        let expected = [
            "APPEND",
            "CAD",
            "CAS",
            "CAS PX",
            "DECRBY",
            "DEL",
            "DELIFEQ",
            "GET",
            "GETDEL",
            "GETEX",
            "INCR",
            "INCRBY",
            "SET",
            "SET GET",
            "SET IFEQ",
            "SET IFEQ GET",
            "SET IFEQ PX",
            "SET NX",
            "SET NX PX",
            "SET PX",
            "STRLEN",
        ];
        assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    }

    trait Uppercase {
        fn is_ascii_uppercase_word(&self) -> bool;
    }

    impl Uppercase for Vec<u8> {
        fn is_ascii_uppercase_word(&self) -> bool {
            self.iter().all(u8::is_ascii_uppercase)
        }
    }

    #[test]
    fn halves_of_a_pair_that_differ_are_a_value_that_nobody_wrote() {
        let bulk = |text: &'static str| Value::Bulk(text.as_bytes().into());
        let read = |one, other| reading(Reading::Both).read(&Value::Array(vec![one, other]));
        assert_eq!(read(bulk("v"), bulk("v")), answered(Answer::Value(Some("v".into()))));
        assert_eq!(read(Value::Null, Value::Null), answered(Answer::Value(None)));
        assert_ne!(read(bulk("v"), bulk("w")), answered(Answer::Value(Some("v".into()))));
        assert_ne!(read(bulk("v"), Value::Null), answered(Answer::Value(Some("v".into()))));
        assert!(reading(Reading::TwoOrZero).read(&Value::Integer(1)).is_err());
        let request = Request::read_all(b"pair-0.1");
        assert_eq!(request.words, [b"MGET".to_vec(), b"{pair-0.1}a".to_vec(), b"{pair-0.1}b".to_vec()]);
    }

    #[test]
    fn commands_are_encoded_as_arrays_of_bulk_strings() {
        let mut bytes = Vec::new();
        encode(&[b"GET".to_vec(), b"a\r\n".to_vec()], &mut bytes);
        assert_eq!(bytes, b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n");
    }
}
