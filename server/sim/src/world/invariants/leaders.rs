//! A term has one leader. A leader's log holds every entry that was committed in a term before its own. It commits by counting only what is
//! of its own term (Raft, section 5.4.2).

use holdfast_engine::log::GroupLog;
use std::collections::BTreeMap;

use super::Broken;

/// Who led which term, and the last entry known to be committed in each.
#[derive(Debug, Default)]
pub(in crate::world) struct Leaders {
    by_term: BTreeMap<u64, u32>,
    /// The last committed entry's index, by its term.
    committed: BTreeMap<u64, u64>,
    /// The machines that led when they were last looked at: their term and commit index then.
    leading: BTreeMap<u32, (u64, u64)>,
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

    /// Where a machine stands: the term that it leads, if it leads, and its commit index with that entry's term, if it is known.
    pub(in crate::world) fn stands(
        &mut self,
        machine: u32,
        term: Option<u64>,
        commit: u64,
        commit_term: Option<u64>,
    ) -> Result<(), Broken> {
        let Some(term) = term else {
            self.leading.remove(&machine);
            return Ok(());
        };
        let before = self.leading.insert(machine, (term, commit));
        let has_counted = before.is_some_and(|(led, committed)| led == term && committed < commit);
        match commit_term.filter(|commit_term| has_counted && *commit_term != term) {
            Some(other) => Err(format!("node {machine} leads term {term} and commits entry {commit} of term {other}")),
            None => Ok(()),
        }
    }

    /// An entry is committed.
    pub(in crate::world) fn committed(&mut self, index: u64, term: u64) {
        let last = self.committed.entry(term).or_default();
        *last = (*last).max(index);
    }
}
