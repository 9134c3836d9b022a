//! Who belongs to the group, and how that changes.
//!
//! # Picture
//! ```text
//!   {1,2,3} ──one voter at a time──▶ {1,2,3,4}
//!   {1,2,3} ──enter joint──▶ incoming {3,4,5} & outgoing {1,2,3} ──leave joint──▶ {3,4,5}
//! ```
//! A change is an entry of the log. One that touches at most one voter is applied at once, because old and new
//! majorities then overlap. Any other goes through a *joint* membership in which every decision needs a majority of
//! both sets; the leader leaves it by a second entry, by itself if the change says so.
//!
//! # Flow
//! A change takes effect on each replica when its committed entry is handed out in a
//! [`Ready`](crate::Ready), which names the resulting [`ConfState`] beside the entry. The host stores that state with
//! its applied index and gives it back at the next start.
//!
//! # Caveats
//! - Because the effect comes at commit and not at append, a replica doesn't campaign while it knows of committed
//!   entries that were not handed out yet: one of them could be a change.
//! - At most one change is under way: a leader proposes the next only after the last was handed out. An entry is
//!   never stored without the commit index of that moment, so a restarted replica is behind by at most one change,
//!   and neighbouring memberships have overlapping majorities.
//! - An entry that isn't allowed in the state it meets changes nothing, on all replicas alike.

use bytes::Bytes;

use crate::{
    entry::ReplicaId,
    quorum::{VOTERS_MAX, VoteOutcome, majority_value, vote_outcome},
};

/// The most learners of a group.
pub const LEARNERS_MAX: usize = 64;
/// The most steps in one change.
pub const CONF_CHANGE_STEPS_MAX: usize = 64;

/// Who belongs to a group. All lists are sorted and without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfState {
    /// The voters; during a joint membership, those of the incoming half.
    pub voters: Vec<ReplicaId>,
    /// Replicas that get the log but have no vote.
    pub learners: Vec<ReplicaId>,
    /// The outgoing half of a joint membership; empty otherwise.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Outgoing voters that become learners when the joint membership ends.
    pub learners_next: Vec<ReplicaId>,
    /// The leader ends the joint membership by itself.
    pub auto_leave: bool,
}

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfStep {
    /// Make this replica a voter, whether it was a learner or new.
    AddVoter(ReplicaId),
    /// Make this replica a learner, whether it was a voter or new.
    AddLearner(ReplicaId),
    /// Take this replica out.
    Remove(ReplicaId),
}

/// How a change that touches several voters passes through its joint membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfTransition {
    /// At once if at most one voter changes, else jointly, left automatically.
    Auto,
    /// Jointly, left automatically.
    JointAuto,
    /// Jointly, until a change with [`ConfTransition::Leave`].
    JointExplicit,
    /// End the joint membership; such a change has no steps.
    Leave,
}

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfChange {
    /// How it comes about.
    pub transition: ConfTransition,
    /// The steps, taken in order.
    pub steps: Vec<ConfStep>,
}

/// The first byte of an encoded change.
const CONF_CHANGE_VERSION: u8 = 1;

impl ConfChange {
    /// A change of one replica.
    pub fn one(step: ConfStep) -> ConfChange {
        ConfChange { transition: ConfTransition::Auto, steps: vec![step] }
    }

    /// The end of a joint membership.
    pub fn leave() -> ConfChange {
        ConfChange { transition: ConfTransition::Leave, steps: Vec::new() }
    }

    /// The change as the payload of an entry: a version, the transition, the number of steps, then for each step its
    /// kind and the replica id in 8 bytes, little end first.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(3 + 9 * self.steps.len());
        bytes.push(CONF_CHANGE_VERSION);
        bytes.push(match self.transition {
            ConfTransition::Auto => 0,
            ConfTransition::JointAuto => 1,
            ConfTransition::JointExplicit => 2,
            ConfTransition::Leave => 3,
        });
        debug_assert!(self.steps.len() <= CONF_CHANGE_STEPS_MAX);
        bytes.push(self.steps.len() as u8);
        for step in &self.steps {
            let (kind, id) = match step {
                ConfStep::AddVoter(id) => (0u8, id),
                ConfStep::AddLearner(id) => (1, id),
                ConfStep::Remove(id) => (2, id),
            };
            bytes.push(kind);
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        Bytes::from(bytes)
    }

    /// Reads what [`ConfChange::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<ConfChange, &'static str> {
        let [version, transition, count, rest @ ..] = bytes else {
            return Err("a membership change of fewer than three bytes");
        };
        if *version != CONF_CHANGE_VERSION {
            return Err("a membership change of an unknown version");
        }
        let transition = match transition {
            0 => ConfTransition::Auto,
            1 => ConfTransition::JointAuto,
            2 => ConfTransition::JointExplicit,
            3 => ConfTransition::Leave,
            _ => return Err("a membership change with an unknown transition"),
        };
        let count = usize::from(*count);
        if count > CONF_CHANGE_STEPS_MAX || rest.len() != count * 9 {
            return Err("a membership change whose length doesn't fit its steps");
        }
        let mut steps = Vec::with_capacity(count);
        for step in rest.chunks_exact(9) {
            let mut id = [0; 8];
            id.copy_from_slice(&step[1..]);
            let id = u64::from_le_bytes(id);
            steps.push(match step[0] {
                0 => ConfStep::AddVoter(id),
                1 => ConfStep::AddLearner(id),
                2 => ConfStep::Remove(id),
                _ => return Err("a membership change with an unknown step"),
            });
        }
        Ok(ConfChange { transition, steps })
    }
}

impl ConfState {
    /// A group of these voters.
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> ConfState {
        let mut voters: Vec<ReplicaId> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        ConfState { voters, ..ConfState::default() }
    }

    /// Whether two sets of voters decide.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Whether `id` has a vote, in either half.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.binary_search(&id).is_ok() || self.voters_outgoing.binary_search(&id).is_ok()
    }

    /// Whether `id` belongs to the group in any role.
    pub fn contains(&self, id: ReplicaId) -> bool {
        self.is_voter(id) || self.learners.binary_search(&id).is_ok() || self.learners_next.binary_search(&id).is_ok()
    }

    /// Everyone who belongs to the group, each once, sorted.
    pub fn members(&self) -> Vec<ReplicaId> {
        let mut members: Vec<ReplicaId> = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next]
            .into_iter()
            .flatten()
            .copied()
            .collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether `id` decides alone.
    pub fn is_sole_voter(&self, id: ReplicaId) -> bool {
        self.voters == [id] && self.voters_outgoing.is_empty()
    }

    /// The largest value reached by a majority (of each half).
    pub(crate) fn majority_value(&self, mut value: impl FnMut(ReplicaId) -> u64) -> u64 {
        majority_value(&self.voters, &mut value).min(majority_value(&self.voters_outgoing, &mut value))
    }

    /// How an election stands.
    pub(crate) fn vote_outcome(&self, vote: impl Fn(ReplicaId) -> Option<bool>) -> VoteOutcome {
        match (vote_outcome(&self.voters, &vote), vote_outcome(&self.voters_outgoing, &vote)) {
            (VoteOutcome::Won, VoteOutcome::Won) => VoteOutcome::Won,
            (VoteOutcome::Lost, _) | (_, VoteOutcome::Lost) => VoteOutcome::Lost,
            _ => VoteOutcome::Open,
        }
    }

    /// Checks what holds for every state: sorted lists, limits, at least one voter, nobody in two roles.
    ///
    /// # Errors
    /// Names the broken rule.
    pub fn validate(&self) -> Result<(), &'static str> {
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        if lists.iter().any(|list| list.windows(2).any(|pair| pair[0] >= pair[1]) || list.first() == Some(&0)) {
            return Err("a list of members is unsorted, repeats a replica or names replica 0");
        }
        if self.voters.is_empty() {
            return Err("a group needs a voter");
        }
        if self.voters.len() > VOTERS_MAX || self.voters_outgoing.len() > VOTERS_MAX {
            return Err("too many voters");
        }
        if self.learners.len() + self.learners_next.len() > LEARNERS_MAX {
            return Err("too many learners");
        }
        if self.learners.iter().any(|id| self.is_voter(*id)) {
            return Err("a learner is a voter at the same time");
        }
        if self.learners_next.iter().any(|id| self.voters_outgoing.binary_search(id).is_err()) {
            return Err("only an outgoing voter can become a learner later");
        }
        if self.learners_next.iter().any(|id| self.voters.binary_search(id).is_ok()) {
            return Err("an incoming voter can't become a learner later");
        }
        if self.auto_leave && !self.is_joint() {
            return Err("only a joint membership can be left");
        }
        Ok(())
    }

    /// The state after `change`.
    ///
    /// # Errors
    /// Says why the change is not allowed in this state.
    pub fn changed(&self, change: &ConfChange) -> Result<ConfState, &'static str> {
        let mut next = self.clone();
        if change.transition == ConfTransition::Leave {
            if !self.is_joint() {
                return Err("there is no joint membership to leave");
            }
            if !change.steps.is_empty() {
                return Err("leaving a joint membership takes no steps");
            }
            for id in std::mem::take(&mut next.learners_next) {
                insert(&mut next.learners, id);
            }
            next.voters_outgoing.clear();
            next.auto_leave = false;
            next.validate()?;
            return Ok(next);
        }
        if self.is_joint() {
            return Err("a joint membership must be left before the next change");
        }
        if change.steps.is_empty() || change.steps.len() > CONF_CHANGE_STEPS_MAX {
            return Err("a change needs between one and 64 steps");
        }
        for step in &change.steps {
            match *step {
                ConfStep::AddVoter(id) => {
                    remove(&mut next.learners, id);
                    insert(&mut next.voters, id);
                }
                ConfStep::AddLearner(id) => {
                    remove(&mut next.voters, id);
                    insert(&mut next.learners, id);
                }
                ConfStep::Remove(id) => {
                    remove(&mut next.voters, id);
                    remove(&mut next.learners, id);
                }
            }
        }
        let gone = self.voters.iter().filter(|id| next.voters.binary_search(id).is_err()).count();
        let come = next.voters.iter().filter(|id| self.voters.binary_search(id).is_err()).count();
        if change.transition != ConfTransition::Auto || gone + come > 1 {
            next.voters_outgoing = self.voters.clone();
            next.auto_leave = change.transition != ConfTransition::JointExplicit;
            // An outgoing voter still votes: it becomes a learner only when the joint membership ends.
            let demoted: Vec<ReplicaId> =
                next.learners.iter().filter(|id| self.voters.binary_search(id).is_ok()).copied().collect();
            for id in demoted {
                remove(&mut next.learners, id);
                insert(&mut next.learners_next, id);
            }
        }
        next.validate()?;
        Ok(next)
    }
}

fn insert(list: &mut Vec<ReplicaId>, id: ReplicaId) {
    if let Err(place) = list.binary_search(&id) {
        list.insert(place, id);
    }
}

fn remove(list: &mut Vec<ReplicaId>, id: ReplicaId) {
    if let Ok(place) = list.binary_search(&id) {
        list.remove(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_voter_changes_at_once() {
        let state = ConfState::of_voters([1, 2, 3]);
        let next = state.changed(&ConfChange::one(ConfStep::AddVoter(4))).unwrap();
        assert_eq!(next, ConfState::of_voters([1, 2, 3, 4]));
        let next = next.changed(&ConfChange::one(ConfStep::AddLearner(1))).unwrap();
        assert_eq!((next.voters, next.learners), (vec![2, 3, 4], vec![1]));
    }

    #[test]
    fn two_voters_change_jointly() {
        let state = ConfState { learners: vec![9], ..ConfState::of_voters([1, 2, 3]) };
        let change = ConfChange {
            transition: ConfTransition::Auto,
            steps: vec![ConfStep::AddVoter(9), ConfStep::AddLearner(1), ConfStep::Remove(2)],
        };
        let joint = state.changed(&change).unwrap();
        assert!(joint.is_joint() && joint.auto_leave);
        assert_eq!(joint.voters, [3, 9]);
        assert_eq!(joint.voters_outgoing, [1, 2, 3]);
        assert_eq!(joint.learners_next, [1]);
        assert!(joint.learners.is_empty());
        assert_eq!(joint.changed(&change), Err("a joint membership must be left before the next change"));
        let left = joint.changed(&ConfChange::leave()).unwrap();
        assert_eq!(left, ConfState { learners: vec![1], ..ConfState::of_voters([3, 9]) });
    }

    #[test]
    fn joint_decisions_need_both_majorities() {
        let joint = ConfState { voters_outgoing: vec![1, 2, 3], ..ConfState::of_voters([3, 4, 5]) };
        assert_eq!(joint.majority_value(|id| if id >= 3 { 7 } else { 0 }), 0);
        assert_eq!(joint.majority_value(|id| if id == 1 || id >= 3 { 7 } else { 0 }), 7);
        assert_eq!(joint.vote_outcome(|id| Some(id >= 3)), VoteOutcome::Lost);
        assert_eq!(joint.vote_outcome(|id| (id >= 3).then_some(true)), VoteOutcome::Open);
        assert_eq!(joint.vote_outcome(|id| Some(id != 1 && id != 5)), VoteOutcome::Won);
    }

    /// The end of a joint membership must be allowed wherever the joint membership is, or nobody could ever leave it.
    #[test]
    fn learners_to_come_count_as_learners() {
        let learners: Vec<ReplicaId> = (10..10 + LEARNERS_MAX as u64).collect();
        let state = ConfState { learners, ..ConfState::of_voters([1, 2, 3]) };
        let demote = ConfChange { transition: ConfTransition::JointAuto, steps: vec![ConfStep::AddLearner(3)] };
        assert_eq!(state.changed(&demote), Err("too many learners"));
    }

    #[test]
    fn last_voter_stays() {
        let state = ConfState::of_voters([1]);
        assert!(state.changed(&ConfChange::one(ConfStep::Remove(1))).is_err());
        assert!(state.changed(&ConfChange::one(ConfStep::AddVoter(0))).is_err());
    }

    #[test]
    fn encoded_change_reads_back_and_damage_is_refused() {
        let change = ConfChange {
            transition: ConfTransition::JointExplicit,
            steps: vec![ConfStep::AddVoter(u64::MAX), ConfStep::AddLearner(7), ConfStep::Remove(1)],
        };
        let bytes = change.encode();
        assert_eq!(ConfChange::decode(&bytes), Ok(change));
        for length in 0..bytes.len() {
            assert!(ConfChange::decode(&bytes[..length]).is_err());
        }
        assert!(ConfChange::decode(&[1, 0, 255]).is_err());
        assert!(ConfChange::decode(&[2, 0, 0]).is_err());
    }
}
