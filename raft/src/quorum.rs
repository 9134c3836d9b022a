//! Majorities.
//!
//! A group that changes its membership has two sets of voters for a while, and whatever needs a majority then needs
//! one of each. The question is always the same: which value is reached by a majority of these voters? The answer
//! serves the commit index (values are matched indexes), ReadIndex (rounds answered), leases and CheckQuorum (times).

use crate::entry::ReplicaId;

/// The most voters in one set. A bound, so that majorities are found without allocating.
pub const VOTERS_MAX: usize = 31;

/// The largest value that a majority of `voters` reaches. An empty set reaches everything, so that the absent half of
/// a joint membership never stands in the way.
///
/// # Panics
/// If there are more than [`VOTERS_MAX`] voters.
pub(crate) fn majority_value(voters: &[ReplicaId], mut value: impl FnMut(ReplicaId) -> u64) -> u64 {
    match voters {
        [] => u64::MAX,
        [only] => value(*only),
        _ => {
            assert!(voters.len() <= VOTERS_MAX, "{} voters are more than {VOTERS_MAX}", voters.len());
            let mut values = [0u64; VOTERS_MAX];
            let values = &mut values[..voters.len()];
            for (slot, voter) in values.iter_mut().zip(voters) {
                *slot = value(*voter);
            }
            values.sort_unstable();
            // With n values in ascending order, the one at (n - 1) / 2 has n / 2 + 1 values at or above it.
            values[(voters.len() - 1) / 2]
        }
    }
}

/// How an election stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteOutcome {
    /// A majority is for it.
    Won,
    /// A majority for it is out of reach.
    Lost,
    /// Neither yet.
    Open,
}

/// How an election among `voters` stands; `vote` gives each voter's answer, if there is one.
pub(crate) fn vote_outcome(voters: &[ReplicaId], vote: impl Fn(ReplicaId) -> Option<bool>) -> VoteOutcome {
    let (mut granted, mut refused) = (0, 0);
    for voter in voters {
        match vote(*voter) {
            Some(true) => granted += 1,
            Some(false) => refused += 1,
            None => {}
        }
    }
    let needed = voters.len() / 2 + 1;
    if voters.is_empty() || granted >= needed {
        VoteOutcome::Won
    } else if voters.len() - refused < needed {
        VoteOutcome::Lost
    } else {
        VoteOutcome::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_of(values: &[u64]) -> u64 {
        let voters: Vec<u64> = (0..values.len() as u64).collect();
        majority_value(&voters, |voter| values[voter as usize])
    }

    #[test]
    fn majority_value_is_reached_by_more_than_half() {
        assert_eq!(value_of(&[5]), 5);
        assert_eq!(value_of(&[5, 9]), 5);
        assert_eq!(value_of(&[1, 5, 9]), 5);
        assert_eq!(value_of(&[9, 1, 5, 7]), 5);
        assert_eq!(value_of(&[0, 0, 9, 9, 4]), 4);
        assert_eq!(value_of(&[]), u64::MAX);
    }

    #[test]
    fn votes_are_won_lost_or_open() {
        let outcome = |votes: &[Option<bool>]| {
            let voters: Vec<u64> = (0..votes.len() as u64).collect();
            vote_outcome(&voters, |voter| votes[voter as usize])
        };
        assert_eq!(outcome(&[Some(true)]), VoteOutcome::Won);
        assert_eq!(outcome(&[Some(true), None]), VoteOutcome::Open);
        assert_eq!(outcome(&[Some(true), Some(false)]), VoteOutcome::Lost);
        assert_eq!(outcome(&[Some(true), Some(false), None]), VoteOutcome::Open);
        assert_eq!(outcome(&[Some(true), None, Some(true)]), VoteOutcome::Won);
        assert_eq!(outcome(&[None, Some(false), Some(false)]), VoteOutcome::Lost);
    }
}
