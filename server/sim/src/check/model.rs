//! The model: one key of a database that is a single copy and does one thing at a time.
//!
//! A key is absent or holds a string. [`Operation`] is what a client may ask, [`Answer`] what it may hear. Several commands
//! do the same and answer differently (`CAS` says whether the value was another or there was none, `SET … IFEQ` does not,
//! `SET … IFEQ … GET` gives the old value), so an answer says how much it tells, and the model says whether it is true.
//!
//! The search meets the same values over and over, so they are numbered ([`States`]): a state is a small number, and
//! comparing, hashing and copying it costs nothing whatever the length of the value.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// A value: bytes that are cheap to copy and are shown escaped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<[u8]>);

/// Longer values are shown by their two ends.
const SHOWN_BYTES_MAX: usize = 60;

impl Text {
    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Text {
        Text(bytes.into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        text.as_bytes().into()
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        Text(bytes.into())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= SHOWN_BYTES_MAX {
            return write!(formatter, "\"{}\"", self.0.escape_ascii());
        }
        let (head, tail) = (&self.0[..SHOWN_BYTES_MAX / 2], &self.0[self.0.len() - SHOWN_BYTES_MAX / 2..]);
        write!(formatter, "\"{}…{}\" ({} bytes)", head.escape_ascii(), tail.escape_ascii(), self.0.len())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// What a client asks of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Gives the value.
    Get,
    /// Stores a value, whatever was there.
    Set(Text),
    /// Stores `new` if the key holds `expected`; `None` expects that there is nothing.
    CompareAndSet {
        /// What must be there.
        expected: Option<Text>,
        /// What is stored then.
        new: Text,
    },
    /// Removes the key.
    Delete,
    /// Removes the key if it holds exactly this.
    CompareAndDelete {
        /// What must be there.
        expected: Text,
    },
    /// Adds to the number that the value is; nothing counts as 0.
    Increment(i64),
    /// Appends to the value; nothing counts as empty.
    Append(Text),
    /// The value's time is over, if it is still there. Nobody asks for it.
    Lapse(Text),
}

/// What a client heard. Where nothing else is said, an answer goes with any operation and tells whether the operation
/// took effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// What was there before: of a GET, or of a write that gives the old value. Tells nothing else.
    Value(Option<Text>),
    /// It took effect.
    Done,
    /// The condition did not hold, for whatever reason; or there was nothing to delete.
    Refused,
    /// The condition did not hold: the key holds another value.
    Different,
    /// The condition did not hold: there is no such key.
    Absent,
    /// The number after the increment.
    Number(i64),
    /// The length after the append, in bytes.
    Length(u64),
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Get => write!(formatter, "get"),
            Operation::Set(value) => write!(formatter, "set {value}"),
            Operation::CompareAndSet { expected: Some(expected), new } => {
                write!(formatter, "set {new} if {expected}")
            }
            Operation::CompareAndSet { expected: None, new } => write!(formatter, "set {new} if absent"),
            Operation::Delete => write!(formatter, "delete"),
            Operation::CompareAndDelete { expected } => write!(formatter, "delete if {expected}"),
            Operation::Increment(by) => write!(formatter, "add {by}"),
            Operation::Append(suffix) => write!(formatter, "append {suffix}"),
            Operation::Lapse(value) => write!(formatter, "the time of {value} ends"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Value(Some(value)) => write!(formatter, "it was {value}"),
            Answer::Value(None) => write!(formatter, "there was nothing"),
            Answer::Done => write!(formatter, "done"),
            Answer::Refused => write!(formatter, "not done"),
            Answer::Different => write!(formatter, "not done: another value"),
            Answer::Absent => write!(formatter, "not done: no such key"),
            Answer::Number(number) => write!(formatter, "now {number}"),
            Answer::Length(length) => write!(formatter, "now {length} bytes"),
        }
    }
}

/// The number of a state of the key.
pub(super) type State = u32;

/// The key does not exist.
pub(super) const ABSENT: State = 0;

/// An operation whose values are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Move {
    Get,
    Set(State),
    CompareAndSet(State, State),
    Delete,
    CompareAndDelete(State),
    Increment(i64),
    /// Appends the value with this number.
    Append(State),
}

/// An answer whose values are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Value(State),
    Done,
    Refused,
    Different,
    Absent,
    Number(i64),
    Length(u64),
}

/// Every value that the key may have held, by number.
#[derive(Debug)]
pub(super) struct States {
    /// What state `number` holds is at `number - 1`.
    values: Vec<Text>,
    numbers: HashMap<Text, State>,
    /// What an append or an increment of a state gave before.
    grown: HashMap<(State, Move), Option<State>>,
    /// What appends lead to, where that is known.
    goal: Option<Text>,
}

impl States {
    pub(super) fn new() -> States {
        States { values: Vec::new(), numbers: HashMap::new(), grown: HashMap::new(), goal: None }
    }

    /// Says that the key holds this value at some time, and that nothing is done to it but appending: then it holds a
    /// beginning of this value before, and something that begins with it after. Appends that lead elsewhere don't fit.
    pub(super) fn appends_lead_to(&mut self, goal: Text) {
        self.goal = Some(goal);
    }

    /// What a state holds.
    pub(super) fn value(&self, state: State) -> Option<&Text> {
        self.values.get((state as usize).wrapping_sub(1))
    }

    fn number(&mut self, value: &Text) -> State {
        if let Some(state) = self.numbers.get(value) {
            return *state;
        }
        self.values.push(value.clone());
        let state = self.values.len() as State;
        self.numbers.insert(value.clone(), state);
        state
    }

    pub(super) fn state(&mut self, value: Option<&Text>) -> State {
        value.map_or(ABSENT, |value| self.number(value))
    }

    pub(super) fn operation(&mut self, operation: &Operation) -> Move {
        match operation {
            Operation::Get => Move::Get,
            Operation::Set(value) => Move::Set(self.number(value)),
            Operation::CompareAndSet { expected, new } => {
                Move::CompareAndSet(self.state(expected.as_ref()), self.number(new))
            }
            Operation::Delete => Move::Delete,
            Operation::CompareAndDelete { expected } | Operation::Lapse(expected) => {
                Move::CompareAndDelete(self.number(expected))
            }
            Operation::Increment(by) => Move::Increment(*by),
            Operation::Append(suffix) => Move::Append(self.number(suffix)),
        }
    }

    pub(super) fn answer(&mut self, answer: &Answer) -> Heard {
        match answer {
            Answer::Value(value) => Heard::Value(self.state(value.as_ref())),
            Answer::Done => Heard::Done,
            Answer::Refused => Heard::Refused,
            Answer::Different => Heard::Different,
            Answer::Absent => Heard::Absent,
            Answer::Number(number) => Heard::Number(*number),
            Answer::Length(length) => Heard::Length(*length),
        }
    }

    /// Does an operation: whether it took effect, and the state afterwards.
    fn apply(&mut self, before: State, operation: Move) -> (bool, State) {
        let after = match operation {
            Move::Get => Some(before),
            Move::Set(value) => Some(value),
            Move::CompareAndSet(expected, new) => (before == expected).then_some(new),
            Move::Delete => (before != ABSENT).then_some(ABSENT),
            Move::CompareAndDelete(expected) => (before == expected).then_some(ABSENT),
            Move::Increment(_) | Move::Append(_) => self.grow(before, operation),
        };
        (after.is_some(), after.unwrap_or(before))
    }

    fn grow(&mut self, before: State, operation: Move) -> Option<State> {
        if let Some(known) = self.grown.get(&(before, operation)) {
            return *known;
        }
        let old = self.value(before).map_or(&b""[..], Text::as_bytes);
        let grown = match operation {
            Move::Increment(by) => {
                let number = if before == ABSENT { Some(0) } else { number_in(old) };
                number.and_then(|number| number.checked_add(by)).map(|sum| sum.to_string().into_bytes())
            }
            Move::Append(suffix) => {
                let suffix = self.value(suffix).map_or(&b""[..], Text::as_bytes);
                let due = self.goal.as_ref().and_then(|goal| goal.as_bytes().get(old.len()..)).unwrap_or_default();
                let leads_there = suffix.starts_with(due) || due.starts_with(suffix);
                leads_there.then(|| [old, suffix].concat())
            }
            _ => None,
        };
        let state = grown.map(|value| self.number(&value.into()));
        self.grown.insert((before, operation), state);
        state
    }

    /// Does an operation that was answered so: the state afterwards, or `None` if that answer is wrong here.
    pub(super) fn step(&mut self, before: State, operation: Move, heard: Heard) -> Option<State> {
        let (done, after) = self.apply(before, operation);
        let is_true = match heard {
            Heard::Value(value) => value == before,
            Heard::Done => done,
            Heard::Refused => !done,
            Heard::Different => !done && before != ABSENT,
            Heard::Absent => !done && before == ABSENT,
            Heard::Number(number) => {
                done && self.value(after).and_then(|text| number_in(text.as_bytes())) == Some(number)
            }
            Heard::Length(length) => done && self.value(after).map_or(0, |text| text.as_bytes().len() as u64) == length,
        };
        is_true.then_some(after)
    }

    /// Whether an operation with this answer changed nothing, whatever was there.
    pub(super) fn is_pure(&mut self, operation: Move, heard: Heard) -> bool {
        match heard {
            // The answer names the only state in which it is true.
            Heard::Value(before) => self.step(before, operation, heard) == Some(before),
            Heard::Refused | Heard::Different | Heard::Absent => true,
            Heard::Done | Heard::Number(_) | Heard::Length(_) => operation == Move::Get,
        }
    }

    /// The state after an operation, whatever its answer.
    pub(super) fn after(&mut self, before: State, operation: Move) -> State {
        self.apply(before, operation).1
    }

    /// Does an operation that nobody heard the answer of; `None` if it changes nothing.
    pub(super) fn step_unheard(&mut self, before: State, operation: Move) -> Option<State> {
        let (_, after) = self.apply(before, operation);
        (after != before).then_some(after)
    }
}

/// The number that a value is, if it is one as Redis writes it.
fn number_in(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}
