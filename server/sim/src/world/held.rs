//! What a disk is known to hold of the log: the simulation's own account, kept apart from the core's.
//!
//! The core says what it has on disk; whether that is true is what the simulation is for. So the account is made from what
//! was sealed into batches and from when the writer returned from the sync of each.

use holdfast_engine::log::GroupLog;
use std::collections::VecDeque;

/// A group's log by its terms, and its hard state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The entry after which the log begins: its index and term. What is before it is in the store.
    base: (u64, u64),
    /// The terms of the entries after it.
    terms: VecDeque<u64>,
    /// The term and vote.
    pub(super) term: u64,
    pub(super) vote: u64,
}

impl Held {
    /// The account of a log as it is.
    pub(super) fn of(log: &GroupLog) -> Held {
        let mut held = Held::default();
        held.follow(log);
        held
    }

    /// Brings the account up to a log that has changed since. Costs what changed at the log's ends.
    pub(super) fn follow(&mut self, log: &GroupLog) {
        let hard_state = log.hard_state();
        (self.term, self.vote) = (hard_state.term, hard_state.vote);
        self.follow_entries(log.compacted(), log.last_index(), |index| log.term(index));
    }

    /// The same, from another account.
    pub(super) fn follow_held(&mut self, other: &Held) {
        (self.term, self.vote) = (other.term, other.vote);
        self.follow_entries(other.base, other.last(), |index| other.term_at(index));
    }

    fn follow_entries(&mut self, base: (u64, u64), last: u64, term: impl Fn(u64) -> Option<u64>) {
        if base.0 > self.last() || base.0 < self.base.0 {
            self.terms.clear();
        } else {
            self.terms.drain(..(base.0 - self.base.0) as usize);
        }
        self.base = base;
        self.terms.truncate(last.saturating_sub(base.0) as usize);
        // Two logs that agree on an entry agree on all before it: only the end can differ.
        while self.terms.back().is_some_and(|back| term(self.last()) != Some(*back)) {
            self.terms.pop_back();
        }
        for index in self.last() + 1..=last {
            self.terms.push_back(term(index).unwrap_or(0));
        }
    }

    /// The last entry's index.
    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.terms.len() as u64
    }

    /// The last entry's term and index: of two logs, the one with the higher pair is the more complete.
    pub(super) fn end(&self) -> (u64, u64) {
        (self.terms.back().copied().unwrap_or(self.base.1), self.last())
    }

    /// The term of an entry, if it is in the log.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.base.0)? {
            0 => Some(self.base.1),
            place => self.terms.get(place as usize - 1).copied(),
        }
    }

    /// Whether the entry is in the log, or its effect in the store.
    pub(super) fn has(&self, index: u64, term: u64) -> bool {
        index < self.base.0 || self.term_at(index) == Some(term)
    }

    /// Whether the log begins after a snapshot that took the place of what `other` has there: an entry of an older term, which was
    /// thus never committed.
    pub(super) fn begins_anew(&self, other: &Held) -> bool {
        self.term >= other.term && other.term_at(self.base.0).is_some_and(|term| term < self.base.1)
    }

    /// Whether everything that `other` has is here too, with a hard state that is no older.
    pub(super) fn covers(&self, other: &Held) -> bool {
        let state = self.term > other.term || (self.term, self.vote) == (other.term, other.vote);
        let last = other.last();
        state && (last < self.base.0 || self.term_at(last) == other.term_at(last))
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (last_term, last) = self.end();
        let first = self.base.0 + 1;
        write!(formatter, "entries {first} to {last} (term {last_term}), term {}, vote {}", self.term, self.vote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(base: (u64, u64), terms: &[u64]) -> Held {
        Held { base, terms: terms.iter().copied().collect(), term: 9, vote: 1 }
    }

    #[test]
    fn account_follows_appends_cuts_and_compaction() {
        let mut account = held((1, 1), &[1, 1, 2]);
        for next in [
            held((1, 1), &[1, 1, 2, 2]),
            held((1, 1), &[1, 3]),
            held((2, 1), &[3, 3, 4]),
            held((20, 4), &[]),
            held((20, 4), &[5]),
        ] {
            account.follow_held(&next);
            assert_eq!(account, next);
        }
    }

    #[test]
    fn log_covers_what_it_grew_from_and_not_what_was_cut() {
        let (short, long, other) = (held((1, 1), &[1, 2]), held((1, 1), &[1, 2, 2]), held((1, 1), &[1, 3, 3]));
        assert!(long.covers(&short) && !short.covers(&long) && !other.covers(&short));
        assert!(held((7, 3), &[]).covers(&short));
        assert!(!Held { term: 8, ..long.clone() }.covers(&short));
        let anew = held((3, 3), &[]);
        assert!(
            anew.begins_anew(&long) && !held((3, 2), &[]).begins_anew(&long) && !held((7, 3), &[]).begins_anew(&long)
        );
        assert!(short.has(3, 2) && !short.has(4, 2) && !short.has(3, 1) && held((7, 3), &[]).has(3, 2));
    }
}
