//! Elections: when a replica asks to lead, and whom it lets lead.
//!
//! ```text
//!             silence for T..2T            majority would            majority did
//!  Follower ───────────────────▶ PreCandidate ────────────▶ Candidate ────────────▶ Leader
//!     ▲                               │                        │                      │
//!     └── a leader speaks, a higher term, or no majority ◀─────┴──── no quorum for T ─┘
//! ```
//! - **PreVote**: asking changes nobody's term, so a replica that comes back from a partition doesn't depose a leader
//!   that works.
//! - **Loyalty**: whoever heard a leader within the election timeout T answers no candidate, unless that leader asked
//!   for the election itself. With CheckQuorum (a leader that hears no majority for T resigns) this makes one-way
//!   partitions harmless, and it is what leases rest on. That is why the moment of hearing outlives a change of term,
//!   and why a restarted replica waits T.
//! - An answer to a candidate names what the answering replica knows to be committed. A leader that commits its own
//!   removal resigns; if the others didn't hear of the commit, they still count it as a voter, and its longer log would
//!   refuse them for ever. Told so, they apply the change and go on without it.
//! - The question names it, too. A learner may have been promoted without knowing that this is committed; if its log is the longest of
//!   those that are left, it can't be won against, and would never stand itself.
//! - A vote is told once it is on disk; so is a request for votes, because it states where the candidate's log ends: a
//!   candidate that crashed and lost that end must not win with answers to it.

use bytes::Bytes;

use crate::{
    defects::{self, Defect},
    entry::{EntryKind, Millis, ReplicaId},
    error::StepError,
    message::{MessageBody, Position},
    progress::Progress,
    quorum::VoteOutcome,
    raft::Raft,
    ready::Role,
};

impl Raft {
    pub(crate) fn reset_election_deadline(&mut self) {
        let timeout = self.config.election_timeout_ms;
        self.election_deadline = self.now + timeout + self.random.below(timeout);
    }

    /// Whether a leader was heard so lately that nobody else gets this replica's vote. A leader is loyal to itself.
    pub(crate) fn is_loyal(&self) -> bool {
        if defects::has(Defect::DisloyalVoter) {
            return false;
        }
        self.role == Role::Leader
            || self.leader_heard_at.is_some_and(|heard| self.now < heard + self.config.election_timeout_ms)
    }

    pub(crate) fn tick_follower(&mut self) {
        self.tick_forwarded();
        if self.now < self.election_deadline {
            return;
        }
        if self.may_campaign() {
            self.reset_election_deadline();
            if self.config.pre_vote { self.pre_campaign() } else { self.start_campaign(false) }
        } else if self.conf.is_voter(self.config.id) {
            // Something passing stands in the way (a write, entries to hand out): look again soon.
            self.election_deadline = self.now + self.config.heartbeat_interval_ms;
        } else {
            self.reset_election_deadline();
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        if self.sleep.asleep {
            return;
        }
        self.tick_woken();
        if !self.conf.is_sole_voter(self.config.id) {
            let (id, now) = (self.config.id, self.now);
            let heard = self.conf.majority_value(|voter| if voter == id { now } else { self.heard_at(voter) });
            let heard = heard.max(self.sleep.woken_at);
            if heard + self.config.election_timeout_ms <= now || self.is_write_stalled() {
                self.become_follower(self.term, None);
                return;
            }
        }
        self.tick_transfer();
        if self.now >= self.heartbeat_due {
            self.start_round();
        }
    }

    fn heard_at(&self, voter: ReplicaId) -> Millis {
        self.peers.iter().find(|peer| peer.id == voter).map_or(0, |peer| peer.heard_at)
    }

    /// Whether this replica may stand for election now.
    pub(crate) fn may_campaign(&self) -> bool {
        self.role != Role::Leader
            && self.conf.is_voter(self.config.id)
            // A committed entry not handed out could be a membership change.
            && self.log.delivered() == self.log.commit()
            && !self.is_installing()
            && self.snapshot_requested.is_none()
            && !self.is_write_stalled()
    }

    /// Stands for election without waiting for a timeout: for a group of one voter at its start, and for tests. Says
    /// whether a campaign began; committed entries that must be handed out first only delay it to the next
    /// [`Raft::ready`]. A replica that lately heard a leader doesn't campaign: leases rest on that.
    pub fn campaign(&mut self) -> bool {
        self.campaign_wanted = false;
        let alone = self.conf.is_sole_voter(self.config.id);
        if self.role == Role::Leader || (self.is_loyal() && !alone) {
            return false;
        }
        if !self.may_campaign() {
            self.campaign_wanted = self.conf.is_voter(self.config.id) && self.log.delivered() < self.log.commit();
            return false;
        }
        self.reset_election_deadline();
        if self.config.pre_vote && !alone {
            self.pre_campaign()
        } else {
            self.start_campaign(false)
        }
        true
    }

    fn pre_campaign(&mut self) {
        self.role = Role::PreCandidate;
        self.sleep.asleep = false;
        self.leader = None;
        self.reads.drop_forwarded();
        self.votes.clear();
        self.own_vote_sequence = None;
        let (last_index, last_term) = (self.log.last(), self.log.last_term());
        let (next_term, commit) = (self.term + 1, self.commit_position());
        for voter in self.other_voters() {
            self.send(voter, MessageBody::PreVote { last_index, last_term, commit });
            if let Some(message) = self.messages.last_mut() {
                message.term = next_term;
            }
        }
        self.record_vote(self.config.id, true);
    }

    /// Stands for election in the next term. With `transfer`, the leader asked for it.
    pub(crate) fn start_campaign(&mut self, transfer: bool) {
        assert_ne!(self.role, Role::Leader, "a leader doesn't campaign");
        self.term += 1;
        self.vote = self.config.id;
        self.role = Role::Candidate;
        self.sleep.asleep = false;
        self.leader = None;
        self.reads.drop_forwarded();
        self.votes.clear();
        // The own vote counts when it is on disk, like anybody's.
        self.own_vote_sequence = Some(self.barrier());
        let (last_index, last_term) = (self.log.last(), self.log.last_term());
        for voter in self.other_voters() {
            self.send_durable(voter, MessageBody::Vote { last_index, last_term, transfer });
        }
    }

    fn other_voters(&self) -> Vec<ReplicaId> {
        let id = self.config.id;
        self.conf.members().into_iter().filter(|member| *member != id && self.conf.is_voter(*member)).collect()
    }

    // NB: whether the asker is a voter here isn't looked at: this replica's membership may be behind.

    pub(crate) fn on_pre_vote(&mut self, from: ReplicaId, term: u64, last_index: u64, last_term: u64) {
        let free = term > self.term || self.vote == from || (self.vote == 0 && self.leader.is_none());
        let granted = free && self.log.is_up_to_date(last_index, last_term);
        if !granted {
            return self.refuse_pre_vote(from);
        }
        let commit = self.commit_position();
        self.send(from, MessageBody::PreVoteReply { granted: true, commit });
        if let Some(message) = self.messages.last_mut() {
            message.term = term;
        }
    }

    pub(crate) fn on_vote(&mut self, from: ReplicaId, last_index: u64, last_term: u64, transfer: bool) {
        // NB: also in a term that it has come to by other means than a request for its vote.
        if !transfer && self.vote != from && self.is_loyal() {
            return;
        }
        let free = self.vote == from || (self.vote == 0 && self.leader.is_none()) || defects::has(Defect::VoteTwice);
        let granted = free && self.log.is_up_to_date(last_index, last_term);
        if !granted {
            return self.refuse_vote(from);
        }
        if self.role != Role::Follower {
            // Asking around in this term bound nobody, this replica least.
            self.become_follower(self.term, None);
        }
        self.vote = from;
        if transfer {
            self.leader_heard_at = None;
        }
        self.reset_election_deadline();
        let commit = self.commit_position();
        self.send_durable(from, MessageBody::VoteReply { granted: true, commit });
    }

    pub(crate) fn refuse_pre_vote(&mut self, to: ReplicaId) {
        let commit = self.commit_position();
        self.send(to, MessageBody::PreVoteReply { granted: false, commit });
    }

    pub(crate) fn refuse_vote(&mut self, to: ReplicaId) {
        let commit = self.commit_position();
        self.send(to, MessageBody::VoteReply { granted: false, commit });
    }

    fn commit_position(&self) -> Position {
        let index = self.log.commit();
        Position { index, term: self.log.term(index).unwrap_or(0) }
    }

    /// Takes over what another replica knows to be committed, if the own log holds that entry.
    pub(crate) fn learn_commit(&mut self, position: Position) {
        if self.role != Role::Leader && self.log.term(position.index) == Some(position.term) {
            self.log.commit_to(position.index);
        }
    }

    pub(crate) fn on_pre_vote_reply(&mut self, from: ReplicaId, term: u64, granted: bool) {
        let current = if granted { term == self.term + 1 } else { term == self.term };
        if self.role == Role::PreCandidate && current {
            self.record_vote(from, granted);
        }
    }

    pub(crate) fn on_vote_reply(&mut self, from: ReplicaId, granted: bool) {
        if self.role == Role::Candidate {
            self.record_vote(from, granted);
        }
    }

    /// Counts one answer, and acts when the outcome is clear. A voter's first answer stands.
    pub(crate) fn record_vote(&mut self, from: ReplicaId, granted: bool) {
        if !self.conf.is_voter(from) {
            return;
        }
        if !self.votes.iter().any(|(voter, _)| *voter == from) {
            self.votes.push((from, granted));
        }
        let votes = &self.votes;
        let outcome =
            self.conf.vote_outcome(|id| votes.iter().find(|(voter, _)| *voter == id).map(|(_, granted)| *granted));
        match (outcome, self.role) {
            (VoteOutcome::Won, Role::PreCandidate) => self.start_campaign(false),
            (VoteOutcome::Won, Role::Candidate) => self.become_leader(),
            (VoteOutcome::Lost, _) => self.become_follower(self.term, None),
            _ => {}
        }
    }

    /// Follows: a higher term, a leader of this term, or nobody for now.
    pub(crate) fn become_follower(&mut self, term: u64, leader: Option<ReplicaId>) {
        assert!(term >= self.term, "terms never fall");
        if term > self.term {
            self.term = term;
            self.vote = 0;
        }
        if self.leader != leader {
            self.reads.drop_forwarded();
        }
        if self.role == Role::Leader {
            self.stop_leading();
        }
        if self.role != Role::Follower || leader.is_some() || self.sleep.asleep {
            self.reset_election_deadline();
        }
        self.sleep.asleep = false;
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();
        self.own_vote_sequence = None;
    }

    fn stop_leading(&mut self) {
        self.peers.clear();
        self.heartbeat_due = Millis::MAX;
        self.transfer = None;
        self.uncommitted_bytes = 0;
        self.reads.drop_all();
        self.snapshots_needed.clear();
        self.replicate = false;
    }

    fn become_leader(&mut self) {
        assert!(
            self.role == Role::Candidate && self.vote == self.config.id,
            "only a candidate that voted for itself becomes leader"
        );
        let id = self.config.id;
        self.role = Role::Leader;
        self.leader = Some(id);
        self.votes.clear();
        self.own_vote_sequence = None;
        let next = self.log.last() + 1;
        self.peers = self
            .conf
            .members()
            .into_iter()
            .filter(|member| *member != id)
            .map(|member| Progress::new(member, next, self.now))
            .collect();
        self.uncommitted_bytes = 0;
        self.transfer = None;
        self.reads.start_term();
        // Only an entry of the own term can be committed by counting, and commits the rest with it. A change of membership may be
        // among what the predecessors left, or be committed without a seal: this entry is one.
        self.conf_barrier = self.append_own(EntryKind::Noop, Bytes::new());
        self.conf_sealed = self.conf.clone();
        if !self.peers.is_empty() {
            self.start_round();
        }
    }

    /// A message of this term's leader arrived.
    pub(crate) fn hear_leader(&mut self, from: ReplicaId) -> Result<(), StepError> {
        match self.leader {
            Some(leader) if leader != from => {
                return Err(StepError::TwoLeaders { from, leader, term: self.term });
            }
            Some(_) => {}
            None => self.become_follower(self.term, Some(from)),
        }
        self.leader_heard_at = Some(self.now);
        self.reset_election_deadline();
        Ok(())
    }
}
