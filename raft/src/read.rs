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
//! # On a replica that follows
//! ```text
//!   follower: read_index(context) ─▶ forwarded ══ ReadIndex ══▶ leader: as its own ══ ReadIndexReply ══▶ ReadState
//! ```
//! The leader finds the index as for a read of its own, with its lease or a round, and the follower answers from its own
//! table once that is applied. A question carries a random number, so that an answer to one that was asked before a restart
//! is never taken for that to a later one. It is given up when the leader or the term changes, or when no
//! answer came within an election timeout.
//!
//! # Lease
//! Whoever answered a round is loyal to this leader for one election timeout from when it heard it (see `election`).
//! So for somewhat less than that, counted from when the round was *sent*, nobody else can lead and reads need not ask:
//! see [`Config::lease_ms`](crate::Config::lease_ms) for the bound. A new leader has no lease; while a change of membership is under
//! way there is none, and after it not until a later round confirms it among the new members; a leadership transfer ends it for the rest of the
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

/// How many questions to the leader may be unanswered; further reads are refused until one is.
const READ_FORWARDS_MAX: usize = 16;

/// Who asked to read.
#[derive(Debug, Clone, Copy)]
enum Reader {
    /// The host, with its context.
    Here(u64),
    /// Another replica, with the number of its question.
    Peer(ReplicaId, u64),
}

/// Reads that one round shall confirm.
#[derive(Debug)]
struct Asked {
    round: u64,
    index: u64,
    readers: Vec<Reader>,
}

/// A read that the leader was asked about.
#[derive(Debug)]
struct Forwarded {
    request: u64,
    context: u64,
    sent_at: Millis,
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
    waiting: Vec<Reader>,
    asked: VecDeque<Asked>,
    asked_count: usize,
    /// What this replica asked the leader that it follows.
    forwarded: Vec<Forwarded>,
    /// Answers to other replicas: to whom, which question, and the index.
    replies: Vec<(ReplicaId, u64, u64)>,
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
        let asked = self.asked.drain(..).flat_map(|asked| asked.readers);
        // NB: other replicas notice by themselves that this one leads no more.
        self.dropped.extend(self.waiting.drain(..).chain(asked).filter_map(|reader| match reader {
            Reader::Here(context) => Some(context),
            Reader::Peer(..) => None,
        }));
        self.replies.clear();
        self.asked_count = 0;
        self.lease_from = None;
        self.sent.clear();
    }

    /// The leader that was asked is none any more, or not known to be.
    pub(crate) fn drop_forwarded(&mut self) {
        self.dropped.extend(self.forwarded.drain(..).map(|forwarded| forwarded.context));
    }

    /// When the first of the unanswered questions was asked.
    pub(crate) fn forwarded_since(&self) -> Option<Millis> {
        self.forwarded.first().map(|forwarded| forwarded.sent_at)
    }

    /// Whether reads wait for a round.
    pub(crate) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.asked.is_empty()
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
                self.asked_count -= asked.readers.len();
                self.answer(asked.readers, asked.index);
            }
        }
    }

    fn answer(&mut self, readers: Vec<Reader>, index: u64) {
        for reader in readers {
            match reader {
                Reader::Here(context) => self.done.push(ReadState { context, index }),
                Reader::Peer(id, request) => self.replies.push((id, request, index)),
            }
        }
    }
}

impl Raft {
    /// Asks to read. `context` is any number of the host's; it comes back in [`Ready::reads`](crate::Ready::reads) when
    /// the read may be served, or in [`Ready::reads_dropped`](crate::Ready::reads_dropped) if leadership is lost before.
    /// Read the clock for `now` after the request arrived. A replica that follows asks its leader.
    ///
    /// # Errors
    /// If no leader is known, or too many reads wait.
    pub fn read_index(&mut self, now: Millis, context: u64) -> Result<(), ReadError> {
        self.advance(now);
        if self.role != Role::Leader {
            return self.forward_read(context);
        }
        if let Some(index) = self.lease_read(now) {
            self.reads.done.push(ReadState { context, index });
            return Ok(());
        }
        self.queue_read(Reader::Here(context))
    }

    fn queue_read(&mut self, reader: Reader) -> Result<(), ReadError> {
        if self.reads.waiting.len() + self.reads.asked_count >= self.config.reads_waiting_max {
            return Err(ReadError::TooManyReads);
        }
        self.note_activity();
        self.reads.waiting.push(reader);
        Ok(())
    }

    /// Asks the leader about a read.
    fn forward_read(&mut self, context: u64) -> Result<(), ReadError> {
        let Some(leader) = self.leader else {
            return Err(ReadError::NotLeader { hint: None });
        };
        if defects::has(Defect::FollowerReadUnasked) {
            self.reads.done.push(ReadState { context, index: self.log.commit() });
            return Ok(());
        }
        if self.reads.forwarded.len() >= READ_FORWARDS_MAX {
            return Err(ReadError::TooManyReads);
        }
        let request = self.random.next();
        self.reads.forwarded.push(Forwarded { request, context, sent_at: self.now });
        self.send(leader, MessageBody::ReadIndex { request });
        Ok(())
    }

    /// Gives up the questions that have been without an answer for an election timeout: one of the two messages is lost.
    pub(crate) fn tick_forwarded(&mut self) {
        let (now, patience) = (self.now, self.config.election_timeout_ms);
        let late = self.reads.forwarded.partition_point(|forwarded| forwarded.sent_at + patience <= now);
        self.reads.dropped.extend(self.reads.forwarded.drain(..late).map(|forwarded| forwarded.context));
    }

    /// A replica asks what it must have applied for a read.
    pub(crate) fn on_read_index(&mut self, from: ReplicaId, request: u64) {
        if self.role != Role::Leader {
            return self.send(from, MessageBody::ReadIndexReply { request, index: None });
        }
        if !self.conf.contains(from) {
            return;
        }
        if let Some(index) = self.lease_read(self.now) {
            return self.send(from, MessageBody::ReadIndexReply { request, index: Some(index) });
        }
        if self.queue_read(Reader::Peer(from, request)).is_err() {
            self.send(from, MessageBody::ReadIndexReply { request, index: None });
        }
    }

    /// The leader has answered.
    pub(crate) fn on_read_index_reply(&mut self, from: ReplicaId, request: u64, index: Option<u64>) {
        if self.leader != Some(from) {
            return;
        }
        let Some(place) = self.reads.forwarded.iter().position(|forwarded| forwarded.request == request) else {
            return;
        };
        let context = self.reads.forwarded.remove(place).context;
        match index {
            Some(index) => self.reads.done.push(ReadState { context, index }),
            None => self.reads.dropped.push(context),
        }
    }

    fn send_read_replies(&mut self) {
        for (to, request, index) in std::mem::take(&mut self.reads.replies) {
            self.send(to, MessageBody::ReadIndexReply { request, index: Some(index) });
        }
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
            // Those who know of a change before this replica follows it may not need to ask whoever the lease rests on.
            && self.conf_barrier <= self.log.delivered()
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
        let readers = std::mem::take(&mut self.reads.waiting);
        let index = self.log.commit();
        if self.conf.is_sole_voter(self.config.id) || defects::has(Defect::ReadIndexWithoutRound) {
            self.reads.answer(readers, index);
            self.send_read_replies();
            return;
        }
        self.start_round();
        self.reads.asked_count += readers.len();
        self.reads.asked.push_back(Asked { round: self.reads.round, index, readers });
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
        let sleep = self.asks_to_sleep(round);
        for place in 0..self.peers.len() {
            let peer = &self.peers[place];
            let (to, commit) = (peer.id, self.log.commit().min(peer.matched));
            self.send(to, MessageBody::Heartbeat { round, commit, sleep });
        }
        self.confirm_rounds();
    }

    pub(crate) fn on_heartbeat_reply(&mut self, from: ReplicaId, round: u64, asleep: bool) {
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
        self.sleep_if_all_do(from, round, asleep);
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
        self.send_read_replies();
    }
}
