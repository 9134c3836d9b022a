//! The term of every entry in the log, in a few words of memory.
//!
//! Terms never fall along a log and change only with a leader, so the whole map index → term is a short list of
//! *runs*. With it the core answers "does my log match here?", computes conflict hints, and decides votes without
//! reading the host's log.

use std::collections::VecDeque;

use crate::{error::LogError, log::LogReader};

/// The terms of the entries from the base (exclusive in content, known by term) to the last.
///
/// Invariants: `runs` is never empty; `runs[0].0 <= base`; indexes and terms of the runs strictly rise; every run starts
/// at or below `last`; `base <= last`.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The entry before the first one available: compacted away, its term still known.
    base: u64,
    /// The last entry.
    last: u64,
    /// Where each term starts: (first index, term).
    runs: VecDeque<(u64, u64)>,
}

impl Terms {
    /// A log that is empty after `base`.
    pub(crate) fn new(base: u64, term: u64) -> Terms {
        Terms { base, last: base, runs: VecDeque::from([(base, term)]) }
    }

    /// Reads the map off a stored log. Finds each change of term by bisection, so it takes few questions.
    pub(crate) fn read(log: &dyn LogReader) -> Result<Terms, LogError> {
        let damaged = |what: String| LogError::Damaged(what);
        let (first, last) = (log.first_index(), log.last_index());
        if first == 0 || last.checked_add(1).is_none_or(|end| end < first) {
            return Err(damaged(format!("its first index is {first}, its last {last}")));
        }
        let mut terms = Terms::new(first - 1, log.term(first - 1)?);
        let mut low = first - 1;
        while low < last {
            let term = terms.last_term();
            let last_term = log.term(last)?;
            if last_term < term {
                return Err(damaged(format!("terms fall from {term} to {last_term} after entry {low}")));
            }
            if last_term == term {
                terms.last = last;
                break;
            }
            // The first index with a term above `term` lies in (low, high].
            let mut high = last;
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if log.term(middle)? > term {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            let next_term = log.term(high)?;
            terms.last = high - 1;
            terms.push(high, next_term);
            low = high;
        }
        Ok(terms)
    }

    /// The index before the first available entry.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The last index.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The term of the last entry.
    pub(crate) fn last_term(&self) -> u64 {
        self.runs.back().map_or(0, |run| run.1)
    }

    /// The term of the entry at `index`; `None` below the base and above the last.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index < self.base || index > self.last {
            return None;
        }
        // Nearly every question is about the newest run.
        if let Some(&(start, term)) = self.runs.back()
            && index >= start
        {
            return Some(term);
        }
        let run = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[run - 1].1)
    }

    /// Adds the entry right after the last.
    ///
    /// # Panics
    /// If the index isn't the next or the term falls.
    pub(crate) fn push(&mut self, index: u64, term: u64) {
        assert_eq!(index, self.last + 1, "entries are appended one after the other");
        let last_term = self.last_term();
        assert!(term >= last_term, "entry {index} of term {term} follows one of term {last_term}");
        self.last = index;
        if term > last_term {
            self.runs.push_back((index, term));
        }
    }

    /// Cuts everything after `last`.
    ///
    /// # Panics
    /// If `last` lies below the base.
    pub(crate) fn truncate(&mut self, last: u64) {
        assert!(last >= self.base && last <= self.last, "cut at {last} outside {}..={}", self.base, self.last);
        self.last = last;
        while self.runs.len() > 1 && self.runs.back().is_some_and(|run| run.0 > last) {
            self.runs.pop_back();
        }
    }

    /// Forgets what lies below `base`.
    pub(crate) fn compact(&mut self, base: u64) {
        if base <= self.base {
            return;
        }
        assert!(base <= self.last, "compaction to {base} passes the last entry {}", self.last);
        self.base = base;
        while self.runs.len() > 1 && self.runs[1].0 <= base {
            self.runs.pop_front();
        }
    }

    /// The largest index up to `index` whose term is at most `term`, with its term. This is the conflict hint, and the
    /// leader's answer to one: above it, no entry can be equal. The base stands for all below it.
    pub(crate) fn last_at_most(&self, index: u64, term: u64) -> (u64, u64) {
        let mut index = index.clamp(self.base, self.last);
        for &(start, run_term) in self.runs.iter().rev() {
            if start > index {
                continue;
            }
            if run_term <= term {
                return (index, run_term);
            }
            if start <= self.base {
                break;
            }
            index = start - 1;
        }
        (self.base, self.runs[0].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms_of(base: u64, terms: &[u64]) -> Terms {
        let mut log = Terms::new(base, terms[0]);
        for (index, term) in (base + 1..).zip(&terms[1..]) {
            log.push(index, *term);
        }
        log
    }

    #[test]
    fn runs_answer_like_a_list() {
        let list = [0, 1, 1, 2, 2, 2, 5, 5, 9];
        let mut log = terms_of(0, &list);
        for (index, term) in list.iter().enumerate() {
            assert_eq!(log.term(index as u64), Some(*term));
        }
        assert_eq!(log.term(9), None);
        log.compact(4);
        assert_eq!(log.term(3), None);
        assert_eq!(log.term(4), Some(2));
        log.truncate(6);
        assert_eq!((log.last(), log.last_term()), (6, 5));
        log.truncate(5);
        assert_eq!((log.last(), log.last_term()), (5, 2));
        log.push(6, 7);
        assert_eq!(log.term(6), Some(7));
        log.compact(6);
        assert_eq!((log.base(), log.last(), log.last_term()), (6, 6, 7));
    }

    #[test]
    fn hint_skips_whole_terms() {
        let log = terms_of(0, &[0, 1, 1, 3, 3, 3, 6, 6]);
        assert_eq!(log.last_at_most(7, 6), (7, 6));
        assert_eq!(log.last_at_most(7, 5), (5, 3));
        assert_eq!(log.last_at_most(4, 2), (2, 1));
        assert_eq!(log.last_at_most(4, 3), (4, 3));
        assert_eq!(log.last_at_most(100, 0), (0, 0));
    }
}
