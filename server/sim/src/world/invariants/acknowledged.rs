//! A write is in the synced log of a majority, of both majorities while the membership changes, before its client hears of it.

use holdfast_raft::ConfState;

use super::Broken;
use crate::world::held::Held;

/// An entry's clients are about to be answered. `disk` says what a node's disk surely holds.
pub(in crate::world) fn check_acknowledged<'a>(
    (index, term): (u64, u64),
    conf: &ConfState,
    disk: impl Fn(u64) -> Option<&'a Held>,
) -> Result<(), Broken> {
    for voters in [&conf.voters, &conf.voters_outgoing].into_iter().filter(|voters| !voters.is_empty()) {
        let holders: Vec<u64> =
            voters.iter().copied().filter(|id| disk(*id).is_some_and(|held| held.has(index, term))).collect();
        if holders.len() <= voters.len() / 2 {
            return Err(format!(
                "entry {index} of term {term} is answered, but of the voters {voters:?} only {holders:?} surely hold it"
            ));
        }
    }
    Ok(())
}
