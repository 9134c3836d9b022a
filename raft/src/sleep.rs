//! Sleep: a group in which nothing happens sends nothing.
//!
//! ```text
//!   leader, quiet for sleep_after ══ Heartbeat { sleep } ══▶ follower: has all of it? asleep, no election timer
//!          ◀══ HeartbeatReply { asleep } ══
//!   all of them? asleep: no heartbeats, no CheckQuorum                    any message of the group, a proposal, a read,
//!                                                                         or word that a node is gone: awake
//! ```
//!
//! A node has many groups, and most of them are quiet most of the time. Instead of the groups their *nodes* show each
//! other that they live, once for all groups that two nodes share ([the host's](Raft::peer_lost) part).
//!
//! Nothing but liveness depends on it. A sleeping leader has no lease, since that comes from rounds of heartbeats: the first
//! read wakes the group and waits for a round. Terms, votes and logs are what they would be without.
//!
//! # Who wakes
//! - A *leader* whose host proposes, reads, changes the membership or hands over; that gets any message other than an answer
//!   to a heartbeat; or whose host says that a member is gone. It gives its followers an election timeout from then on to be heard, and a
//!   round goes out at once.
//! - A *follower* that gets any message but another request to sleep, or whose host says that the leader is gone. In that case
//!   it has waited long enough and campaigns soon; if it is a candidate that wakes it, it stays loyal for an election
//!   timeout, in which the leader, woken by the same candidate, can show itself.

use crate::{
    entry::{Millis, ReplicaId},
    message::{Message, MessageBody},
    progress::Mode,
    raft::Raft,
    ready::Role,
};

/// What sleep needs to know.
#[derive(Debug, Default)]
pub(crate) struct Sleep {
    /// No heartbeats are sent or expected.
    pub(crate) asleep: bool,
    /// A leader's last proposal, read, or change.
    active_at: Millis,
    /// A leader was woken since its last tick. Proposals bring no clock, and while a group sleeps it may not be ticked: what
    /// counts from the moment of waking is set with the next tick.
    woken: bool,
    /// When that was. Followers that slept can't have been heard lately.
    pub(crate) woken_at: Millis,
    /// The first round since then that asked to sleep.
    asked_from: Option<u64>,
}

impl Raft {
    /// Whether the group sleeps as far as this replica knows: its host must find out by other means whether the leader, or
    /// on the leader the followers, still live, and say so with [`Raft::peer_lost`].
    pub fn is_asleep(&self) -> bool {
        self.sleep.asleep
    }

    /// The group is in use: for reads under a lease, of which nothing else tells.
    pub fn touch(&mut self, now: Millis) {
        self.advance(now);
        if self.role == Role::Leader {
            self.note_activity();
        }
    }

    /// The host has found that another replica's node does not answer any more, for an election timeout.
    pub fn peer_lost(&mut self, now: Millis, id: ReplicaId) {
        self.advance(now);
        if self.role == Role::Leader {
            self.report_unreachable(id);
        } else if self.sleep.asleep && self.leader == Some(id) {
            self.wake();
            // The silence has lasted for a timeout already. What is left is to keep candidates apart.
            self.election_deadline = self.now + self.random.below(self.config.election_timeout_ms);
        }
    }

    /// Something is asked of this leader.
    pub(crate) fn note_activity(&mut self) {
        self.wake();
        self.sleep.active_at = self.now;
        self.sleep.asked_from = None;
    }

    pub(crate) fn wake(&mut self) {
        if !std::mem::take(&mut self.sleep.asleep) {
            return;
        }
        if self.role == Role::Leader {
            self.sleep.asked_from = None;
            self.sleep.woken = true;
            self.heartbeat_due = self.now;
        } else {
            self.reset_election_deadline();
        }
    }

    /// A leader's tick: silence counts from when it woke.
    pub(crate) fn tick_woken(&mut self) {
        if std::mem::take(&mut self.sleep.woken) {
            self.sleep.active_at = self.now;
            self.sleep.woken_at = self.now;
        }
    }

    /// A message arrived.
    pub(crate) fn wake_by(&mut self, message: &Message) {
        if !self.sleep.asleep {
            return;
        }
        match message.body {
            MessageBody::HeartbeatReply { .. } if self.role == Role::Leader => {}
            MessageBody::Heartbeat { sleep: true, .. } if message.term == self.term => {}
            MessageBody::PreVote { .. } | MessageBody::Vote { transfer: false, .. } => {
                if self.role != Role::Leader && self.leader.is_some() {
                    // NB: more loyal than the truth demands, never less.
                    self.leader_heard_at = Some(self.now);
                }
                self.wake();
            }
            _ => self.wake(),
        }
    }

    /// Whether nothing is left to do and nothing was asked for long enough.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(sleep_after) = self.config.sleep_after_ms else { return false };
        let last = self.log.last();
        self.role == Role::Leader
            && !self.sleep.woken
            && self.now >= self.sleep.active_at + sleep_after
            && self.is_settled()
            && self.log.term(last) == Some(self.term)
            && self.transfer.is_none()
            && !self.conf.is_joint()
            && self.conf_barrier <= self.log.delivered()
            && !self.reads.is_busy()
            && self.peers.iter().all(|peer| peer.mode == Mode::Replicate && peer.matched == last && !peer.lost)
    }

    /// Whether all of the log is on this disk, committed and handed out.
    fn is_settled(&self) -> bool {
        let last = self.log.last();
        self.log.commit() == last && self.log.persisted() == last && self.log.delivered() == last
    }

    /// Whether the round that is about to be sent asks the followers to sleep.
    pub(crate) fn asks_to_sleep(&mut self, round: u64) -> bool {
        let asks = self.is_quiet();
        if asks && self.sleep.asked_from.is_none() {
            // What they agreed to before was another question.
            self.peers.iter_mut().for_each(|peer| peer.asleep = false);
        }
        self.sleep.asked_from = if asks { self.sleep.asked_from.or(Some(round)) } else { None };
        asks
    }

    /// The leader asks to sleep. Says whether this replica does.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        let ready = self.is_settled()
            && !self.is_installing()
            && self.snapshot_requested.is_none()
            && self.snapshot_postponed.is_none();
        if ready {
            self.sleep.asleep = true;
            self.election_deadline = Millis::MAX;
        }
        ready
    }

    /// A follower answered a round, and says whether it sleeps. If all do, and still nothing is asked, the leader does too.
    pub(crate) fn sleep_if_all_do(&mut self, from: ReplicaId, round: u64, asleep: bool) {
        let Some(asked_from) = self.sleep.asked_from else { return };
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) {
            peer.asleep = asleep && round >= asked_from;
        }
        if self.peers.iter().all(|peer| peer.asleep) && self.is_quiet() {
            self.sleep.asleep = true;
            self.heartbeat_due = Millis::MAX;
        }
    }
}
