//! What a simulation did, as one number, and as lines for those who want to read it.
//!
//! Every event is folded into a hash of 64 bits. Two runs of the same seed must give the same hash; where they do not,
//! something in the simulation depends on what the seed does not decide (an address in memory, the order of a hash map, the
//! real clock), and no failure can be replayed. The lines are made only if somebody reads them, and are no part of the hash.

use std::fmt;

use crate::random::mix;
use crate::time::{Micros, Shown};

/// Takes a line of the trace.
pub type LineSink = Box<dyn FnMut(&str)>;

/// The trace of one run.
pub struct Trace {
    hash: u64,
    events: u64,
    lines: Option<LineSink>,
}

impl Default for Trace {
    fn default() -> Self {
        Trace::new()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Trace({:016x} after {} events)", self.hash, self.events)
    }
}

impl Trace {
    /// A trace that nobody reads.
    pub fn new() -> Trace {
        Trace { hash: 0, events: 0, lines: None }
    }

    /// A trace whose lines go somewhere.
    pub fn with_lines(lines: LineSink) -> Trace {
        Trace { lines: Some(lines), ..Trace::new() }
    }

    /// Something happened: its time, its kind, and what else tells it from others.
    pub fn event(&mut self, now: Micros, kind: &str, numbers: &[u64]) {
        self.events += 1;
        self.fold(now);
        self.fold_bytes(kind.as_bytes());
        for number in numbers {
            self.fold(*number);
        }
    }

    /// Folds a number into the hash.
    pub fn fold(&mut self, number: u64) {
        // Not commutative: the same numbers in another order give another hash.
        self.hash = mix(self.hash.rotate_left(23) ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    /// Folds bytes and their count into the hash.
    pub fn fold_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(bytes.len() as u64);
    }

    /// Says something to those who read along. The words are not made if nobody does.
    pub fn say(&mut self, now: Micros, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines(&format!("{:>12}  {}", Shown(now).to_string(), words()));
        }
    }

    /// Whether anybody reads along.
    pub fn has_reader(&self) -> bool {
        self.lines.is_some()
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The events so far.
    pub fn events(&self) -> u64 {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn hash(events: &[(u64, &str, &[u64])]) -> u64 {
        let mut trace = Trace::new();
        for (now, kind, numbers) in events {
            trace.event(*now, kind, numbers);
        }
        trace.hash()
    }

    #[test]
    fn hash_tells_every_difference() {
        let base = hash(&[(1, "send", &[1, 2]), (2, "send", &[3])]);
        assert_eq!(base, hash(&[(1, "send", &[1, 2]), (2, "send", &[3])]));
        assert_ne!(base, hash(&[(2, "send", &[3]), (1, "send", &[1, 2])]));
        assert_ne!(base, hash(&[(1, "send", &[2, 1]), (2, "send", &[3])]));
        assert_ne!(base, hash(&[(1, "sent", &[1, 2]), (2, "send", &[3])]));
        assert_ne!(base, hash(&[(1, "send", &[1, 2])]));
    }

    #[test]
    fn lines_are_made_for_readers_only_and_are_no_part_of_the_hash() {
        let mut silent = Trace::new();
        silent.say(1, || unreachable!("nobody reads"));
        let lines = Rc::new(RefCell::new(Vec::new()));
        let sink = Rc::clone(&lines);
        let mut read = Trace::with_lines(Box::new(move |line| sink.borrow_mut().push(line.to_owned())));
        read.say(1_500_000, || "hello".to_owned());
        assert_eq!(*lines.borrow(), ["    1.500000  hello"]);
        assert_eq!(silent.hash(), read.hash());
    }
}
