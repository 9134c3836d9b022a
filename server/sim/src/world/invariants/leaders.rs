//! A term has one leader. A leader's log holds every entry that was committed in a term before its own.

use holdfast_engine::log::GroupLog;
use std::collections::BTreeMap;

use super::Broken;

/// Who led which term, and the last entry known to be committed in each.
#[derive(Debug, Default)]
pub(in crate::world) struct Leaders {
    by_term: BTreeMap<u64, u32>,
    /// The last committed entry's index, by its term.
    committed: BTreeMap<u64, u64>,
}

impl Leaders {
    /// A machine became leader of a term.
    pub(in crate::world) fn elected(&mut self, term: u64, machine: u32, log: &GroupLog) -> Result<(), Broken> {
        let leader = *self.by_term.entry(term).or_insert(machine);
        if leader != machine {
            return Err(format!("term {term} has two leaders: nodes {leader} and {machine}"));
        }
        let Some((committed_in, index)) = self.committed.range(..term).next_back() else { return Ok(()) };
        let here = *index < log.first_index() || log.term(*index) == Some(*committed_in);
        if here {
            return Ok(());
        }
        Err(format!(
            "node {machine} leads term {term} without entry {index} of term {committed_in}, which was committed: \
             its log goes from {} to {}",
            log.first_index(),
            log.last_index()
        ))
    }

    /// An entry is committed.
    pub(in crate::world) fn committed(&mut self, index: u64, term: u64) {
        let last = self.committed.entry(term).or_default();
        *last = (*last).max(index);
    }
}
