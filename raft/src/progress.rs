//! What a leader knows about one other replica.
//!
//! ```text
//!             accepted                      entries compacted
//!   Probe ───────────────▶ Replicate ─────────────────────────▶ Snapshot
//!     ▲  ◀── rejected, unreachable ─┘                              │
//!     └──────────────── finished, failed, or caught up ◀───────────┘
//! ```
//! In *Probe* one append is on its way at a time, to find where the logs part. In *Replicate* appends follow each other
//! without waiting, within limits by count and bytes. In *Snapshot* nothing is appended until the host has delivered a
//! snapshot.
//!
//! Invariants: `matched < next`; `matched` never falls within a leader's term: a rejection or a hint is advice about
//! `next`, an acceptance is a fact. A replica that turns out to have forgotten one is not heard any more.

use std::collections::VecDeque;

use crate::entry::{Millis, ReplicaId};

/// How appends are sent to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One at a time; `sent` says that it is on its way.
    Probe { sent: bool },
    /// A pipeline.
    Replicate,
    /// Waiting for a snapshot; its index once the host has begun to send it.
    Snapshot { index: Option<u64> },
}

/// What a leader knows about one other replica.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The replica.
    pub(crate) id: ReplicaId,
    /// How appends are sent.
    pub(crate) mode: Mode,
    /// Its log durably equals ours up to here.
    pub(crate) matched: u64,
    /// The next entry to send.
    pub(crate) next: u64,
    /// When it last said something in this term.
    pub(crate) heard_at: Millis,
    /// A message to it could not be delivered, and it has said nothing since.
    pub(crate) lost: bool,
    /// It has said that it sleeps, since it was last asked to.
    pub(crate) asleep: bool,
    /// The newest heartbeat round that it answered.
    pub(crate) round: u64,
    /// The commit index that it was last told by an append.
    pub(crate) commit_told: u64,
    /// Send an append even if there is nothing new, to find out whether one was lost.
    pub(crate) nudge: bool,
    /// Don't read the host's log for it before the next tick: the last read found the entries not at hand.
    pub(crate) stalled: bool,
    /// The host was asked for a snapshot on this replica's own request.
    pub(crate) snapshot_requested: bool,
    /// It was caught lacking entries that it had acknowledged: nothing that it says counts any more.
    pub(crate) promise_lost: bool,
    /// Appends on their way: (last entry, bytes).
    inflight: VecDeque<(u64, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// A replica of which nothing is known; the next entry to try is `next`.
    pub(crate) fn new(id: ReplicaId, next: u64, now: Millis) -> Progress {
        Progress {
            id,
            mode: Mode::Probe { sent: false },
            matched: 0,
            next,
            heard_at: now,
            lost: false,
            asleep: false,
            round: 0,
            commit_told: 0,
            nudge: false,
            stalled: false,
            snapshot_requested: false,
            promise_lost: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.nudge = false;
        assert!(self.matched < self.next, "replica {}: matched {} not below next {}", self.id, self.matched, self.next);
    }

    /// Back to one append at a time, from what is known for certain.
    pub(crate) fn probe(&mut self) {
        self.next = self.matched + 1;
        self.set_mode(Mode::Probe { sent: false });
    }

    /// The replica needs a snapshot.
    pub(crate) fn await_snapshot(&mut self) {
        self.next = self.matched + 1;
        self.set_mode(Mode::Snapshot { index: None });
    }

    /// The replica's log equals ours up to `index`. Says whether that is news.
    pub(crate) fn accepted(&mut self, index: u64, first_index: u64) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched + 1);
        while self.inflight.front().is_some_and(|sent| sent.0 <= index) {
            if let Some((_, bytes)) = self.inflight.pop_front() {
                self.inflight_bytes -= bytes;
            }
        }
        match self.mode {
            // A probe's answer shows where the logs meet, even if it brings no news.
            Mode::Probe { .. } if index + 1 >= self.next || news => {
                self.next = self.matched + 1;
                self.set_mode(Mode::Replicate);
            }
            Mode::Snapshot { index: sent }
                if self.matched + 1 >= first_index || sent.is_some_and(|sent| sent <= self.matched) =>
            {
                self.next = self.matched + 1;
                self.set_mode(Mode::Replicate);
            }
            _ => {}
        }
        news
    }

    /// The replica refused the append after `previous`; no entry above `hint` can be equal. Says whether that was news.
    pub(crate) fn rejected(&mut self, previous: u64, hint: u64) -> bool {
        match self.mode {
            Mode::Replicate if previous > self.matched => {
                // The pipeline broke: an append was lost or overtaken. What is matched stays so.
                self.probe();
                true
            }
            Mode::Probe { .. } if previous == self.next - 1 && previous > self.matched => {
                self.next = previous.min(hint + 1).max(self.matched + 1);
                self.set_mode(Mode::Probe { sent: false });
                true
            }
            // Late or repeated: the question has moved on.
            _ => false,
        }
    }

    /// Whether one more append with entries may be sent.
    pub(crate) fn window_open(&self, appends_max: usize, bytes_max: usize) -> bool {
        match self.mode {
            Mode::Probe { sent } => !sent,
            Mode::Replicate => {
                self.inflight.is_empty() || (self.inflight.len() < appends_max && self.inflight_bytes < bytes_max)
            }
            Mode::Snapshot { .. } => false,
        }
    }

    /// An append was sent that ends in entry `last`; `bytes` is zero if it had no entries.
    pub(crate) fn sent(&mut self, last: u64, bytes: usize) {
        self.nudge = false;
        match &mut self.mode {
            Mode::Probe { sent } => *sent = true,
            Mode::Replicate => {
                if bytes > 0 {
                    self.next = last + 1;
                    self.inflight.push_back((last, bytes));
                    self.inflight_bytes += bytes;
                }
            }
            Mode::Snapshot { .. } => {}
        }
    }

    /// The replica answered a heartbeat.
    pub(crate) fn answered(&mut self, round: u64, last_index: u64) {
        self.round = self.round.max(round);
        match &mut self.mode {
            // It lives: the probe or its answer may have been lost.
            Mode::Probe { sent } => *sent = false,
            Mode::Replicate => self.nudge |= self.matched < last_index,
            Mode::Snapshot { .. } => {}
        }
    }

    /// How many appends and bytes are on their way.
    pub(crate) fn inflight(&self) -> (usize, usize) {
        (self.inflight.len(), self.inflight_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating(matched: u64, next: u64) -> Progress {
        Progress { matched, next, mode: Mode::Replicate, ..Progress::new(2, next, 0) }
    }

    #[test]
    fn rejection_never_lowers_matched() {
        let mut progress = replicating(5, 9);
        assert!(!progress.rejected(5, 0), "what is matched can't be refused");
        assert!(progress.rejected(8, 0));
        assert_eq!((progress.matched, progress.next), (5, 6));
        assert!(!progress.rejected(8, 0), "a second refusal of the same pipeline is old news");
    }

    #[test]
    fn window_closes_by_count_and_by_bytes() {
        let mut progress = replicating(0, 1);
        assert!(progress.window_open(2, 100));
        progress.sent(1, 60);
        assert!(progress.window_open(2, 100));
        progress.sent(2, 10);
        assert!(!progress.window_open(2, 100));
        progress.accepted(1, 1);
        assert!(progress.window_open(2, 100));
        progress.sent(3, 1000);
        assert!(!progress.window_open(9, 100));
        progress.accepted(3, 1);
        assert!(progress.window_open(1, 1), "one append is always admitted");
        assert_eq!(progress.inflight(), (0, 0));
    }

    #[test]
    fn probe_moves_by_the_hint() {
        let mut progress = Progress::new(2, 10, 0);
        progress.sent(9, 0);
        assert!(!progress.window_open(9, 9));
        assert!(progress.rejected(9, 3));
        assert_eq!(progress.next, 4);
        assert!(!progress.rejected(9, 1), "an answer to an older probe");
        assert!(progress.accepted(3, 1));
        assert_eq!((progress.mode, progress.next), (Mode::Replicate, 4));
    }

    #[test]
    fn snapshot_ends_when_the_log_reaches() {
        let mut progress = Progress::new(2, 1, 0);
        progress.await_snapshot();
        progress.accepted(5, 8);
        assert_eq!(progress.mode, Mode::Snapshot { index: None });
        progress.accepted(7, 8);
        assert_eq!(progress.mode, Mode::Replicate);
    }
}
