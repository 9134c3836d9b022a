//! The search for an order: Wing and Gong's algorithm with Lowe's memory of what was tried.
//!
//! Calls and returns stand in one list in the order of time. The operations that may come next are those whose call
//! stands before the first return: anything later began after that operation had ended. One of them is taken if its answer
//! is true of the state, its call and return leave the list, and so on until the list is empty. When nothing fits, the last
//! choice is undone (its two entries go back to where they were) and the next one tried.
//!
//! ```text
//!   A ├────────┤                     list:  A( B( )A C( )B )C
//!   B     ├────────────┤             may come next: A or B; after A: B or C; after A, B: C
//!   C            ├──────────┤
//! ```
//!
//! Seven things keep it short. None of them loses an order that exists.
//!
//! - **What can change nothing is taken at once.** If a read (or a refused write) fits the present state, an order with it
//!   here exists whenever any order from here does: moving it to the front disturbs nobody. So it is never undone for the
//!   sake of another choice. A write that happens to store what is there already is not of this kind: it may be needed
//!   later, where it does change something.
//! - **What was tried is remembered**: the operations taken so far and the state. The same two again lead nowhere again.
//! - **Operations of unknown outcome** are not in the list: they may come at any time after their call, or not at all. They
//!   are tried last. Having more of them left is never worse, so a configuration is hopeless as soon as the same
//!   one *with more of them left* was: of configurations that differ only in what was used up, the memory keeps the ones
//!   with the most left.
//! - **A hidden operation must matter.** If the one that comes right after it would be as true without it and leave the same
//!   state, an order without it exists too, so that one is not tried: a hidden write is never overwritten unseen.
//! - **A log knows its order.** Where a key is only read and appended to, the longest value that was read says in which
//!   order the appends up to it came, so no other is tried.
//! - **Twins** (unknown operations that do the same, such as increments by one) are used in the order of their calls.
//! - **Values that nobody saw are one value.** If no answer and no condition names what a write stored, nobody can tell it
//!   from what another such write stored. So writes of unknown outcome that were never seen are twins, too.

use std::collections::{HashMap, HashSet};

use super::history::{Call, Outcome};
use super::model::{ABSENT, Answer, Heard, Move, Operation, State, States, Text};

/// What the search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    NoOrder,
    /// Neither is known.
    OutOfBudget,
}

/// An operation that was answered.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Its place in the history of the key.
    call: usize,
    operation: Move,
    heard: Heard,
    /// Its answer says that it changed nothing, wherever that answer is true.
    is_pure: bool,
}

/// An operation whose outcome is unknown, and that would change something.
#[derive(Debug)]
struct Hidden {
    /// Its place in the history of the key.
    call: usize,
    operation: Move,
    called_at: u64,
    /// The one before it that does the same.
    twin: Option<usize>,
}

/// An operation, by its place in `known` or `hidden`.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Known(usize),
    Hidden(usize),
}

/// Where to look for the next choice.
#[derive(Debug, Clone, Copy)]
enum Cursor {
    /// From this entry of the list.
    Entry(usize),
    /// From this place in `hidden`.
    Hidden(usize),
}

/// A choice that was made, and how to undo it.
#[derive(Debug, Clone, Copy)]
struct Frame {
    choice: Choice,
    state_before: State,
    highest_before: usize,
    /// It can change nothing, so there is no alternative to it.
    forced: bool,
}

/// Calls and returns by time, as a ring of numbers: 0 is both ends, the call of known operation `i` is entry `2i + 1`, its
/// return `2i + 2`.
#[derive(Debug)]
struct Ring {
    next: Vec<usize>,
    previous: Vec<usize>,
}

const ENDS: usize = 0;

const fn call_entry(known: usize) -> usize {
    2 * known + 1
}

const fn is_return(entry: usize) -> bool {
    entry.is_multiple_of(2)
}

impl Ring {
    fn new(mut entries: Vec<(u64, usize)>) -> Ring {
        entries.sort_unstable();
        let mut ring = Ring { next: vec![ENDS; entries.len() + 1], previous: vec![ENDS; entries.len() + 1] };
        let mut last = ENDS;
        for (_, entry) in entries {
            ring.next[last] = entry;
            ring.previous[entry] = last;
            last = entry;
        }
        ring.next[last] = ENDS;
        ring.previous[ENDS] = last;
        ring
    }

    fn remove(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Puts an entry back; the last one removed comes back first.
    fn put_back(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = entry;
        self.previous[next] = entry;
    }
}

/// A search over the history of one key.
#[derive(Debug)]
pub(super) struct Search {
    states: States,
    known: Vec<Known>,
    hidden: Vec<Hidden>,
    ring: Ring,
    /// When each entry of the ring happened.
    places: Vec<u64>,
    state: State,
    /// One bit for each known operation that was taken.
    taken: Vec<u64>,
    /// The highest of them, plus one.
    highest: usize,
    taken_count: usize,
    /// One bit for each hidden operation that was used.
    used: Vec<u64>,
    frames: Vec<Frame>,
    /// For the state and what was taken: the sets of used operations from which the rest was, or is being, tried.
    tried: HashMap<Box<[u64]>, Vec<Box<[u64]>>>,
    steps: u64,
    steps_max: u64,
    best: Vec<Choice>,
    best_count: Option<usize>,
    best_state: State,
}

impl Search {
    /// Prepares to look for an order of these calls, which stand in the order of time.
    pub(super) fn new(calls: &[Call], steps_max: u64) -> Search {
        debug_assert!(
            calls.is_sorted_by_key(|call| call.called_at),
            "what was tried is told apart by numbers in this order"
        );
        let mut states = States::new();
        if let Some(value) = longest_read_of_a_log(calls) {
            states.appends_lead_to(value);
        }
        let unseen = Unseen::of(calls);
        let (mut known, mut hidden) = (Vec::new(), Vec::<Hidden>::new());
        let (mut entries, mut places) = (Vec::new(), vec![0]);
        for (call, record) in calls.iter().enumerate() {
            let operation = states.operation(&unseen.as_one(&record.operation));
            match (&record.outcome, record.returned_at) {
                (Outcome::Answered(answer), Some(returned_at)) => {
                    let entry = call_entry(known.len());
                    entries.extend([(record.called_at, entry), (returned_at, entry + 1)]);
                    places.extend([record.called_at, returned_at]);
                    let heard = states.answer(answer);
                    known.push(Known { call, operation, heard, is_pure: states.is_pure(operation, heard) });
                }
                (Outcome::Failed, _) => {}
                _ if record.operation == Operation::Get => {}
                _ => {
                    let twin = hidden.iter().rposition(|other| other.operation == operation);
                    hidden.push(Hidden { call, operation, called_at: record.called_at, twin });
                }
            }
        }
        Search {
            taken: vec![0; known.len().div_ceil(64)],
            used: vec![0; hidden.len().div_ceil(64)],
            ring: Ring::new(entries),
            states,
            known,
            hidden,
            places,
            state: ABSENT,
            highest: 0,
            taken_count: 0,
            frames: Vec::new(),
            tried: HashMap::new(),
            steps: 0,
            steps_max,
            best: Vec::new(),
            best_count: None,
            best_state: ABSENT,
        }
    }

    /// Transitions tried so far.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Looks for an order.
    pub(super) fn run(&mut self) -> Found {
        loop {
            self.take_what_changes_nothing();
            if self.taken_count == self.known.len() {
                // What is hidden need not have happened.
                return Found::Order;
            }
            let mut cursor = self.remember().then(|| Cursor::Entry(self.ring.next[ENDS]));
            loop {
                if self.steps > self.steps_max {
                    return Found::OutOfBudget;
                }
                if cursor.is_some_and(|cursor| self.choose_from(cursor)) {
                    break;
                }
                self.note_dead_end();
                cursor = match self.undo_to_choice() {
                    Some(cursor) => Some(cursor),
                    None => return Found::NoOrder,
                };
            }
        }
    }

    /// Takes every operation that may come next, fits, and can change nothing.
    fn take_what_changes_nothing(&mut self) {
        let mut entry = self.ring.next[ENDS];
        while !is_return(entry) {
            let number = entry / 2;
            let Known { operation, heard, is_pure, .. } = self.known[number];
            self.steps += 1;
            if is_pure && self.states.step(self.state, operation, heard).is_some() {
                // Its return leaves the list with it, so that the loop goes on to what was called after that.
                self.take(number, self.state, true);
            }
            entry = self.ring.next[entry];
            if entry == call_entry(number) + 1 && is_set(&self.taken, number) {
                entry = self.ring.next[entry];
            }
        }
    }

    /// Takes the first operation from the cursor on that fits. Says whether there is one.
    fn choose_from(&mut self, cursor: Cursor) -> bool {
        let without_hidden = match self.frames.last() {
            Some(Frame { choice: Choice::Hidden(_), state_before, .. }) => Some(*state_before),
            _ => None,
        };
        let first_hidden = match cursor {
            Cursor::Entry(mut entry) => {
                while !is_return(entry) {
                    let Known { operation, heard, .. } = self.known[entry / 2];
                    self.steps += 1;
                    if let Some(after) = self.states.step(self.state, operation, heard)
                        && without_hidden.is_none_or(|state| self.states.step(state, operation, heard) != Some(after))
                    {
                        self.take(entry / 2, after, false);
                        return true;
                    }
                    entry = self.ring.next[entry];
                }
                0
            }
            Cursor::Hidden(first) => first,
        };
        let horizon = self.horizon();
        for place in first_hidden..self.hidden.len() {
            let Hidden { operation, called_at, twin, .. } = self.hidden[place];
            if called_at > horizon {
                break;
            }
            if is_set(&self.used, place) || twin.is_some_and(|twin| !is_set(&self.used, twin)) {
                continue;
            }
            self.steps += 1;
            if let Some(after) = self.states.step_unheard(self.state, operation)
                && without_hidden.is_none_or(|state| self.states.after(state, operation) != after)
            {
                self.push_frame(Choice::Hidden(place), false);
                set(&mut self.used, place);
                self.state = after;
                return true;
            }
        }
        false
    }

    /// When the first of the operations not yet taken returned: what was called later comes later.
    fn horizon(&self) -> u64 {
        let mut entry = self.ring.next[ENDS];
        while !is_return(entry) {
            entry = self.ring.next[entry];
        }
        self.places[entry]
    }

    fn push_frame(&mut self, choice: Choice, forced: bool) {
        self.frames.push(Frame { choice, state_before: self.state, highest_before: self.highest, forced });
    }

    fn take(&mut self, known: usize, after: State, forced: bool) {
        self.push_frame(Choice::Known(known), forced);
        self.ring.remove(call_entry(known));
        self.ring.remove(call_entry(known) + 1);
        set(&mut self.taken, known);
        self.taken_count += 1;
        self.highest = self.highest.max(known + 1);
        self.state = after;
    }

    /// Undoes the last choice that had alternatives and gives where to go on looking; `None` if there is no such choice.
    fn undo_to_choice(&mut self) -> Option<Cursor> {
        loop {
            let frame = self.frames.pop()?;
            self.state = frame.state_before;
            self.highest = frame.highest_before;
            let cursor = match frame.choice {
                Choice::Known(known) => {
                    clear(&mut self.taken, known);
                    self.taken_count -= 1;
                    self.ring.put_back(call_entry(known) + 1);
                    self.ring.put_back(call_entry(known));
                    Cursor::Entry(self.ring.next[call_entry(known)])
                }
                Choice::Hidden(place) => {
                    clear(&mut self.used, place);
                    Cursor::Hidden(place + 1)
                }
            };
            if !frame.forced {
                return Some(cursor);
            }
        }
    }

    /// Notes that the present configuration is being tried. False if it is known to lead nowhere.
    fn remember(&mut self) -> bool {
        // Everything below the first operation in the list is taken, everything from `highest` on is not.
        let first_word = (self.ring.next[ENDS] / 2) / 64;
        let end_word = self.highest.div_ceil(64).max(first_word);
        let head = u64::from(self.state) | (first_word as u64) << 32;
        let key: Box<[u64]> = std::iter::once(head).chain(self.taken[first_word..end_word].iter().copied()).collect();
        let tried = self.tried.entry(key).or_default();
        if tried.iter().any(|other| is_subset(other, &self.used)) {
            return false;
        }
        tried.retain(|other| !is_subset(&self.used, other));
        tried.push(self.used.clone().into());
        true
    }

    fn note_dead_end(&mut self) {
        if self.best_count.is_none_or(|best| self.taken_count > best) {
            self.best_count = Some(self.taken_count);
            self.best_state = self.state;
            self.best = self.frames.iter().map(|frame| frame.choice).collect();
        }
    }

    /// After a search in vain: the longest order that was found, as places in the history of the key.
    pub(super) fn longest_order(&self) -> Vec<usize> {
        let call = |choice: &Choice| match *choice {
            Choice::Known(known) => self.known[known].call,
            Choice::Hidden(place) => self.hidden[place].call,
        };
        self.best.iter().map(call).collect()
    }

    /// After a search in vain: what the key holds after the longest order.
    pub(super) fn longest_order_value(&self) -> Option<Text> {
        self.states.value(self.best_state).cloned()
    }
}

/// Tells the values that nobody saw from the others.
#[derive(Debug)]
struct Unseen<'a> {
    /// What answers and conditions name; `None` where values grow out of each other, so that all of them may matter.
    seen: Option<HashSet<&'a Text>>,
    /// Stands for all values that nobody saw.
    one: Text,
}

impl<'a> Unseen<'a> {
    fn of(calls: &'a [Call]) -> Unseen<'a> {
        let mut seen = HashSet::new();
        let mut grows = false;
        for call in calls {
            match &call.operation {
                Operation::CompareAndSet { expected: Some(expected), .. }
                | Operation::CompareAndDelete { expected } => {
                    seen.insert(expected);
                }
                Operation::Increment(_) | Operation::Append(_) => grows = true,
                _ => {}
            }
            if let Outcome::Answered(Answer::Value(Some(value))) = &call.outcome {
                seen.insert(value);
            }
            // NB: of those that nobody knows to be stored, any may go away once the time of the first of them is over. That is more
            // than can happen, and never less.
            if call.lapse.is_some() && matches!(call.outcome, Outcome::Answered(_)) {
                seen.extend(call.stored());
            }
        }
        // It must be none of those that were seen.
        let mut one = String::from("(a value that nobody saw)");
        while seen.contains(&Text::from(&one[..])) {
            one.push(' ');
        }
        Unseen { seen: (!grows).then_some(seen), one: one.as_str().into() }
    }

    /// The operation, with one and the same value in place of any that nobody saw.
    fn as_one(&self, operation: &Operation) -> Operation {
        let is_unseen = |value: &Text| self.seen.as_ref().is_some_and(|seen| !seen.contains(value));
        match operation {
            Operation::Set(value) if is_unseen(value) => Operation::Set(self.one.clone()),
            Operation::Lapse(value) if is_unseen(value) => Operation::Lapse(self.one.clone()),
            Operation::CompareAndSet { expected, new } if is_unseen(new) => {
                Operation::CompareAndSet { expected: expected.clone(), new: self.one.clone() }
            }
            other => other.clone(),
        }
    }
}

/// If the key is only read and appended to: the longest value that was read.
fn longest_read_of_a_log(calls: &[Call]) -> Option<Text> {
    if !calls.iter().all(|call| matches!(call.operation, Operation::Get | Operation::Append(_))) {
        return None;
    }
    let read = |call: &Call| match &call.outcome {
        Outcome::Answered(Answer::Value(value)) => value.clone(),
        _ => None,
    };
    calls.iter().filter_map(read).max_by_key(|value| value.as_bytes().len())
}

fn is_set(bits: &[u64], place: usize) -> bool {
    bits[place / 64] >> (place % 64) & 1 == 1
}

fn set(bits: &mut [u64], place: usize) {
    bits[place / 64] |= 1 << (place % 64);
}

fn clear(bits: &mut [u64], place: usize) {
    bits[place / 64] &= !(1 << (place % 64));
}

/// Whether all bits of `part` are in `whole`.
fn is_subset(part: &[u64], whole: &[u64]) -> bool {
    part.iter().zip(whole).all(|(part, whole)| part & !whole == 0)
}

/// Whether what was heard is true when the key holds this value.
pub(super) fn fits(value: Option<&Text>, call: &Call) -> bool {
    let Outcome::Answered(answer) = &call.outcome else { return true };
    let mut states = States::new();
    let before = states.state(value);
    let (operation, heard) = (states.operation(&call.operation), states.answer(answer));
    states.step(before, operation, heard).is_some()
}
