//! What a leader does about the membership, found out anew with every tick from the list of members and from Raft.
//!
//! ```text
//!   the list has a node, the group hasn't ─▶ learner ─▶ caught up ─▶ voter
//!   the list says that a node is leaving  ─▶ it leads? hand over ─▶ out of the group, and so off the list
//! ```
//!
//! Nothing of this is remembered anywhere else: whoever leads next goes on where the last one stopped.
//!
//! # Caveats
//! - A voter is taken out only while a majority of those that stay answers. Otherwise the group could commit the change, by the
//!   old majority, and then nothing more. A removal that must wait for that holds up no newcomer: one may be what it waits for.
//! - A node that is marked as leaving is never made a learner or voter again.

use super::Replica;
use crate::cluster::{Members, NodeId};
use holdfast_raft::{ConfChange, ConfState, ConfStep};

/// A learner that lags by no more entries than this becomes a voter.
const CAUGHT_UP_ENTRIES: u64 = 1000;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MembershipStep {
    /// Propose this change.
    Change(ConfChange),
    /// Hand leadership to this node.
    HandOver(NodeId),
}

/// Why a node can't be taken out of the group now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CannotLose {
    /// It is the only one with a vote.
    OnlyVoter,
    /// Of the voters that would stay, these don't answer, and the others are no majority.
    NoQuorum {
        /// How many would stay.
        voters: usize,
        /// Who of them doesn't answer.
        silent: Vec<NodeId>,
    },
}

/// What a leader knows of another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer {
    id: NodeId,
    /// Up to where its log is known to equal the leader's, on its disk.
    matched: u64,
    /// It answers, and gets the log by entries.
    follows: bool,
    awaits_snapshot: bool,
}

/// What the decisions rest on.
#[derive(Debug)]
struct Leader<'a> {
    id: NodeId,
    members: &'a Members,
    conf: &'a ConfState,
    last_index: u64,
    peers: Vec<Peer>,
}

impl Leader<'_> {
    fn next_step(&self) -> Option<MembershipStep> {
        let Leader { members, conf, .. } = self;
        let leaving = members.leaving;
        if let Some(id) = leaving {
            if id == self.id {
                return self.successor().map(MembershipStep::HandOver);
            }
            // NB: also for a node that is not in the group: an earlier leader's change that takes it in may still be under way.
            if self.can_lose(id).is_ok() {
                return Some(MembershipStep::Change(ConfChange::one(ConfStep::Remove(id))));
            }
        }
        let mut newcomers = members.nodes.keys().filter(|id| !conf.contains(**id) && leaving != Some(**id));
        let room = conf.learners.len() < holdfast_raft::membership::LEARNERS_MAX;
        if let Some(id) = newcomers.next().filter(|_| room) {
            return Some(MembershipStep::Change(ConfChange::one(ConfStep::AddLearner(*id))));
        }
        // NB: a short log is no reason to trust a learner that was never heard: it may not even know that it was taken in, and
        // with its vote counted nobody could be elected who would tell it. And one that answers no more would only add to the majority
        // that is needed.
        let ready = self.peers.iter().find(|peer| {
            conf.learners.contains(&peer.id)
                && leaving != Some(peer.id)
                && peer.follows
                && peer.matched > 0
                && peer.matched + CAUGHT_UP_ENTRIES >= self.last_index
        });
        ready.map(|peer| MembershipStep::Change(ConfChange::one(ConfStep::AddVoter(peer.id))))
    }

    fn follows(&self, id: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.id == id && peer.follows)
    }

    /// The voter that is furthest, among those that answer.
    fn successor(&self) -> Option<NodeId> {
        let may_lead =
            |peer: &&Peer| peer.follows && self.conf.voters.contains(&peer.id) && self.members.leaving != Some(peer.id);
        self.peers.iter().filter(may_lead).max_by_key(|peer| peer.matched).map(|peer| peer.id)
    }

    fn can_lose(&self, id: NodeId) -> Result<(), CannotLose> {
        if !self.conf.is_voter(id) {
            return Ok(());
        }
        let stay: Vec<NodeId> = self.conf.voters.iter().copied().filter(|voter| *voter != id).collect();
        if stay.is_empty() {
            return Err(CannotLose::OnlyVoter);
        }
        let silent: Vec<NodeId> =
            stay.iter().copied().filter(|voter| *voter != self.id && !self.follows(*voter)).collect();
        if stay.len() - silent.len() > stay.len() / 2 {
            Ok(())
        } else {
            Err(CannotLose::NoQuorum { voters: stay.len(), silent })
        }
    }
}

impl Replica {
    /// What this replica sees if it leads.
    fn leader(&self) -> Option<Leader<'_>> {
        if !self.raft.is_leader() {
            return None;
        }
        let status = self.raft.status();
        let peer = |peer: &holdfast_raft::PeerStatus| Peer {
            id: peer.id,
            matched: peer.matched,
            follows: peer.answers && !peer.awaits_snapshot,
            awaits_snapshot: peer.awaits_snapshot,
        };
        Some(Leader {
            id: self.raft.id(),
            members: &self.members,
            conf: self.raft.conf_state(),
            last_index: status.last,
            peers: status.peers.iter().map(peer).collect(),
        })
    }

    /// What the leader should do about the membership, if anything.
    pub(crate) fn membership_step(&self) -> Option<MembershipStep> {
        let conf = self.raft.conf_state();
        let settled = conf.learners.is_empty() && self.members.nodes.keys().all(|id| conf.contains(*id));
        // Most of the time, and this is asked fifty times a second.
        if self.members.leaving.is_none() && settled {
            return None;
        }
        self.leader()?.next_step()
    }

    /// Whether the group goes on without a node. For the leader; others refuse nothing.
    ///
    /// # Errors
    /// Why it would not.
    pub(crate) fn can_lose(&self, id: NodeId) -> Result<(), CannotLose> {
        self.leader().map_or(Ok(()), |leader| leader.can_lose(id))
    }

    /// The voter that would take leadership over best; none if this replica doesn't lead, or no other voter answers.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        self.leader()?.successor()
    }

    /// Whether a node answers this leader and gets the log by entries.
    pub(crate) fn is_followed_by(&self, id: NodeId) -> bool {
        self.leader().is_some_and(|leader| leader.follows(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Address, Member};

    /// A list of nodes 1 to `count`.
    fn members(count: u64) -> Members {
        let member = |id: u64| Member {
            folder: u128::from(id),
            client: Address::new("h", id as u16),
            peer: Address::new("h", 100 + id as u16),
        };
        Members { nodes: (1..=count).map(|id| (id, member(id))).collect(), last_id: count, ..Members::default() }
    }

    /// Node 1 leads; who answers, and how far each is.
    fn step(members: &Members, conf: &ConfState, answering: &[(NodeId, u64)]) -> Option<MembershipStep> {
        leader(members, conf, answering).next_step()
    }

    fn leader<'a>(members: &'a Members, conf: &'a ConfState, answering: &[(NodeId, u64)]) -> Leader<'a> {
        let peer = |id: NodeId| {
            let matched = answering.iter().find(|(known, _)| *known == id).map(|(_, matched)| *matched);
            Peer { id, matched: matched.unwrap_or(0), follows: matched.is_some(), awaits_snapshot: false }
        };
        let peers = conf.members().into_iter().filter(|id| *id != 1).map(peer).collect();
        Leader { id: 1, members, conf, last_index: 5000, peers }
    }

    fn change(step: ConfStep) -> Option<MembershipStep> {
        Some(MembershipStep::Change(ConfChange::one(step)))
    }

    const ALL: &[(NodeId, u64)] = &[(2, 5000), (3, 4999), (4, 5000)];

    #[test]
    fn newcomer_becomes_learner_then_voter() {
        let members = members(4);
        let mut conf = ConfState::of_voters([1, 2, 3]);
        assert_eq!(step(&members, &conf, ALL), change(ConfStep::AddLearner(4)));
        conf.learners = vec![4];
        assert_eq!(step(&members, &conf, &[(2, 5000), (3, 5000), (4, 3999)]), None, "it lags");
        assert_eq!(step(&members, &conf, ALL), change(ConfStep::AddVoter(4)));
        assert_eq!(step(&members, &ConfState::of_voters([1, 2, 3, 4]), ALL), None);
    }

    /// The simulator's find: a learner died after it had caught up, was promoted all the same, and with the next loss the group was
    /// without a majority.
    #[test]
    fn learner_that_answers_no_more_is_not_promoted() {
        let members = members(4);
        let conf = ConfState { learners: vec![4], ..ConfState::of_voters([1, 2, 3]) };
        let mut leader = leader(&members, &conf, ALL);
        assert_eq!(leader.next_step(), change(ConfStep::AddVoter(4)));
        leader.peers.iter_mut().filter(|peer| peer.id == 4).for_each(|peer| peer.follows = false);
        assert_eq!(leader.next_step(), None);
    }

    #[test]
    fn leaving_node_is_taken_out_whatever_it_is() {
        let members = Members { leaving: Some(3), ..members(3) };
        assert_eq!(step(&members, &ConfState::of_voters([1, 2, 3]), ALL), change(ConfStep::Remove(3)));
        let learner = ConfState { learners: vec![3], ..ConfState::of_voters([1, 2]) };
        assert_eq!(step(&members, &learner, ALL), change(ConfStep::Remove(3)), "not made a voter");
        assert_eq!(step(&members, &ConfState::of_voters([1, 2]), ALL), change(ConfStep::Remove(3)), "nor a learner");
    }

    #[test]
    fn removal_waits_until_those_that_stay_answer_and_lets_newcomers_in_meanwhile() {
        let members = Members { leaving: Some(3), ..members(4) };
        let mut conf = ConfState::of_voters([1, 2, 3]);
        // Without 3 it would be 1 and 2, and 2 doesn't answer.
        let answering = &[(3, 5000), (4, 5000)];
        assert_eq!(step(&members, &conf, answering), change(ConfStep::AddLearner(4)));
        conf.learners = vec![4];
        assert_eq!(step(&members, &conf, answering), change(ConfStep::AddVoter(4)));
        assert_eq!(step(&members, &ConfState::of_voters([1, 2, 3, 4]), answering), change(ConfStep::Remove(3)));
        let without = self::members(3);
        let members = Members { leaving: Some(3), ..without };
        assert_eq!(step(&members, &ConfState::of_voters([1, 2, 3]), &[(3, 5000)]), None);
    }

    #[test]
    fn leader_that_is_leaving_hands_over_to_the_furthest_that_answers() {
        let members = Members { leaving: Some(1), ..members(3) };
        let conf = ConfState::of_voters([1, 2, 3]);
        assert_eq!(step(&members, &conf, ALL), Some(MembershipStep::HandOver(2)));
        assert_eq!(step(&members, &conf, &[(3, 7)]), Some(MembershipStep::HandOver(3)));
        assert_eq!(step(&members, &conf, &[]), None);
    }

    #[test]
    fn quorum_of_those_that_stay_is_counted() {
        let members = members(4);
        let conf = ConfState::of_voters([1, 2, 3]);
        assert_eq!(leader(&members, &conf, &[(2, 1)]).can_lose(3), Ok(()), "a dead node is what one removes");
        let refusal = CannotLose::NoQuorum { voters: 2, silent: vec![3] };
        assert_eq!(leader(&members, &conf, &[(2, 1)]).can_lose(2), Err(refusal));
        assert_eq!(leader(&members, &ConfState::of_voters([1, 2]), ALL).can_lose(2), Ok(()), "one voter decides alone");
        assert_eq!(leader(&members, &ConfState::of_voters([1]), ALL).can_lose(1), Err(CannotLose::OnlyVoter));
        let four = ConfState::of_voters([1, 2, 3, 4]);
        assert!(leader(&members, &four, &[(2, 1)]).can_lose(4).is_ok(), "two of three");
        assert!(leader(&members, &four, &[]).can_lose(4).is_err(), "one of three");
        let learner = ConfState { learners: vec![4], ..ConfState::of_voters([1, 2]) };
        assert_eq!(leader(&members, &learner, &[]).can_lose(4), Ok(()), "it has no vote to miss");
    }
}
