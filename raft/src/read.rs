//! Linearizable reads without log entries: quorum rounds and leases.
//!
//! # ReadIndex
//! ```text
//!   read_index(context) ─▶ waiting ──(a round starts)──▶ asked, at the commit index of that moment
//!                                                          │  a majority answers that round or a later one
//!                                                          ▼
//!                                           ReadState { context, index }: serve once index is applied
//! ```
//! A leader that was replaced without noticing could answer with old data. So it asks: reads that came in are attached
//! to the next *round* of heartbeats, and once a majority has answered that round in the leader's term, the leader was
//! leader after the reads came in. One round serves all reads of a turn, and few rounds are under way at a time. A
//! leader has a current commit index only after an entry of its own term is committed; reads wait for that.
//!
//! # Lease
//! Whoever answered a round is loyal to this leader for one election timeout from when it heard it (see `election`).
//! So for somewhat less than that, counted from when the round was *sent*, nobody else can lead and reads need not ask:
//! see [`Config::lease_ms`](crate::Config::lease_ms) for the bound. A new leader has no lease; a change of membership
//! ends it until a later round confirms it among the new members; a leadership transfer ends it for the rest of the
//! term, because the request to campaign may still be under way when the transfer is given up.

use std::collections::VecDeque;

use crate::{
    defects::{self, Defect},
    entry::{Millis, ReplicaId},
    error::ReadError,
    message::MessageBody,
    raft::Raft,
    ready::{ReadState, Role},
};

/// How many rounds with reads may be unanswered; further reads wait for the next.
const READ_ROUNDS_MAX: usize = 4;

/// Reads that one round shall confirm.
#[derive(Debug)]
struct Asked {
    round: u64,
    index: u64,
    contexts: Vec<u64>,
}

/// Rounds of heartbeats and the reads that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// The newest round of this term.
    pub(crate) round: u64,
    /// The newest round that a majority answered.
    confirmed: u64,
    /// When the unconfirmed rounds were sent.
    sent: VecDeque<(u64, Millis)>,
    /// The send time of the newest confirmed round, if it may start a lease.
    lease_from: Option<Millis>,
    /// Older rounds start no lease.
    lease_round_min: u64,
    /// No lease in this term any more.
    lease_barred: bool,
    waiting: Vec<u64>,
    asked: VecDeque<Asked>,
    asked_count: usize,
    done: Vec<ReadState>,
    dropped: Vec<u64>,
}

impl Reads {
    /// A new leader starts with no rounds and no lease.
    pub(crate) fn start_term(&mut self) {
        self.round = 0;
        self.confirmed = 0;
        self.sent.clear();
        self.lease_from = None;
        self.lease_round_min = 0;
        self.lease_barred = false;
    }

    /// Leadership is lost: nothing that waits can be confirmed.
    pub(crate) fn drop_all(&mut self) {
        self.dropped.append(&mut self.waiting);
        for asked in self.asked.drain(..) {
            self.dropped.extend(asked.contexts);
        }
        self.asked_count = 0;
        self.lease_from = None;
        self.sent.clear();
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.done.is_empty() || !self.dropped.is_empty()
    }

    pub(crate) fn take_output(&mut self) -> (Vec<ReadState>, Vec<u64>) {
        (std::mem::take(&mut self.done), std::mem::take(&mut self.dropped))
    }

    /// No lease in this term any more.
    pub(crate) fn bar_lease(&mut self) {
        if defects::has(Defect::LeaseAfterTransfer) {
            return;
        }
        self.lease_barred = true;
        self.lease_from = None;
    }

    /// A majority answered `round`.
    fn confirm(&mut self, round: u64) {
        if round <= self.confirmed {
            return;
        }
        self.confirmed = round;
        while let Some(&(number, sent_at)) = self.sent.front()
            && number <= round
        {
            self.sent.pop_front();
            if number >= self.lease_round_min && !self.lease_barred {
                self.lease_from = Some(sent_at);
            }
        }
        while self.asked.front().is_some_and(|asked| asked.round <= round) {
            if let Some(asked) = self.asked.pop_front() {
                self.asked_count -= asked.contexts.len();
                let index = asked.index;
                self.done.extend(asked.contexts.into_iter().map(|context| ReadState { context, index }));
            }
        }
    }
}

impl Raft {
    /// Asks to read. `context` is any number of the host's; it comes back in [`Ready::reads`](crate::Ready::reads) when
    /// the read may be served, or in [`Ready::reads_dropped`](crate::Ready::reads_dropped) if leadership is lost before.
    /// Read the clock for `now` after the request arrived.
    ///
    /// # Errors
    /// If this replica doesn't lead, or too many reads wait.
    pub fn read_index(&mut self, now: Millis, context: u64) -> Result<(), ReadError> {
        self.advance(now);
        if self.role != Role::Leader {
            return Err(ReadError::NotLeader { hint: self.leader });
        }
        if let Some(index) = self.lease_read(now) {
            self.reads.done.push(ReadState { context, index });
            return Ok(());
        }
        if self.reads.waiting.len() + self.reads.asked_count >= self.config.reads_waiting_max {
            return Err(ReadError::TooManyReads);
        }
        self.reads.waiting.push(context);
        Ok(())
    }

    /// The index that must be applied to serve a read at once, if this leader may serve reads without asking: it is the
    /// sole voter, or holds a lease at `now`. Read the clock right before, and the data right after.
    pub fn lease_read(&self, now: Millis) -> Option<u64> {
        if self.role != Role::Leader || !self.has_committed_in_term() {
            return None;
        }
        let now = if defects::has(Defect::LeaseAfterClockJump) { self.now } else { now.max(self.now) };
        let alone = self.conf.is_sole_voter(self.config.id);
        let leased = self.config.lease
            && (self.transfer.is_none() || defects::has(Defect::LeaseAfterTransfer))
            && self.reads.lease_from.is_some_and(|from| now < from + self.config.lease_ms());
        (alone || leased).then_some(self.log.commit())
    }

    fn has_committed_in_term(&self) -> bool {
        self.log.term(self.log.commit()) == Some(self.term) || defects::has(Defect::ReadBeforeFirstCommit)
    }

    /// Only rounds sent from now on start a lease.
    pub(crate) fn forget_lease(&mut self) {
        self.reads.lease_from = None;
        self.reads.lease_round_min = self.reads.round + 1;
        // Under the new membership the rounds under way may be answered already.
        self.confirm_rounds();
    }

    /// Whether waiting reads can be attached to a round now.
    pub(crate) fn can_ask_reads(&self) -> bool {
        !self.reads.waiting.is_empty()
            && self.role == Role::Leader
            && self.has_committed_in_term()
            && self.reads.asked.len() < READ_ROUNDS_MAX
    }

    /// Attaches waiting reads to a new round.
    pub(crate) fn ask_reads(&mut self) {
        if !self.can_ask_reads() {
            return;
        }
        let contexts = std::mem::take(&mut self.reads.waiting);
        let index = self.log.commit();
        if self.conf.is_sole_voter(self.config.id) || defects::has(Defect::ReadIndexWithoutRound) {
            self.reads.done.extend(contexts.into_iter().map(|context| ReadState { context, index }));
            return;
        }
        self.start_round();
        self.reads.asked_count += contexts.len();
        self.reads.asked.push_back(Asked { round: self.reads.round, index, contexts });
    }

    /// Sends a round of heartbeats.
    pub(crate) fn start_round(&mut self) {
        if self.peers.is_empty() {
            self.heartbeat_due = Millis::MAX;
            return;
        }
        self.heartbeat_due = self.now + self.config.heartbeat_interval_ms;
        self.reads.round += 1;
        let round = self.reads.round;
        self.reads.sent.push_back((round, self.now));
        for place in 0..self.peers.len() {
            let peer = &self.peers[place];
            let (to, commit) = (peer.id, self.log.commit().min(peer.matched));
            self.send(to, MessageBody::Heartbeat { round, commit });
        }
        self.confirm_rounds();
    }

    pub(crate) fn on_heartbeat_reply(&mut self, from: ReplicaId, round: u64) {
        if self.role != Role::Leader {
            return;
        }
        let last = self.log.last();
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else {
            return;
        };
        peer.answered(round, last);
        self.replicate |= peer.matched < last || peer.mode == crate::progress::Mode::Probe { sent: false };
        self.confirm_rounds();
    }

    /// Looks which round a majority has answered by now.
    fn confirm_rounds(&mut self) {
        let (id, newest) = (self.config.id, self.reads.round);
        let round = self.conf.majority_value(|voter| {
            if voter == id {
                return newest;
            }
            self.peers.iter().find(|peer| peer.id == voter).map_or(0, |peer| peer.round)
        });
        let confirmed = self.reads.confirmed;
        self.reads.confirm(round);
        if defects::has(Defect::LeaseFromAnswer) && self.reads.confirmed > confirmed && self.reads.lease_from.is_some()
        {
            self.reads.lease_from = Some(self.now);
        }
    }
}
