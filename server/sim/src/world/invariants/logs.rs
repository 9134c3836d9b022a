//! An index and a term name one entry, and all entries before it. What is applied at an index is the same on every node. A node's
//! commit index does not fall while it runs.

use holdfast_raft::Entry;
use std::collections::HashMap;

use super::Broken;
use crate::world::node::hash_payload;

/// Every entry that was ever sent or applied.
#[derive(Debug, Default)]
pub(in crate::world) struct Logs {
    /// By index and term: the payload's hash, and the term of the entry before.
    entries: HashMap<(u64, u64), (u64, u64)>,
    /// What was applied first at each index: term and hash.
    applied: HashMap<u64, (u64, u64)>,
    /// The last entry that each machine applied since it started, and its commit index.
    progress: HashMap<u32, (u64, u64)>,
}

impl Logs {
    /// A leader sends entries. By induction over the entries before, one comparison for each shows that logs match.
    pub(in crate::world) fn sent(&mut self, previous_term: u64, entries: &[Entry]) -> Result<(), Broken> {
        let mut before = previous_term;
        for entry in entries {
            let this = (hash_payload(&entry.payload), before);
            let known = *self.entries.entry((entry.index, entry.term)).or_insert(this);
            if known != this {
                return Err(format!("entry {} of term {} was sent with two contents", entry.index, entry.term));
            }
            before = entry.term;
        }
        Ok(())
    }

    /// A machine applied an entry.
    pub(in crate::world) fn applied(&mut self, machine: u32, index: u64, term: u64, hash: u64) -> Result<(), Broken> {
        let first = *self.applied.entry(index).or_insert((term, hash));
        if first != (term, hash) {
            let (other, _) = first;
            return Err(format!(
                "node {machine} applied another entry at {index} than the first to do so: of term {term}, not {other}"
            ));
        }
        let progress = self.progress.entry(machine).or_default();
        if index <= progress.0 {
            return Err(format!("node {machine} applied entry {index} after entry {}", progress.0));
        }
        progress.0 = index;
        Ok(())
    }

    /// What a machine's commit index is now.
    pub(in crate::world) fn commit_is(&mut self, machine: u32, commit: u64) -> Result<(), Broken> {
        let progress = self.progress.entry(machine).or_default();
        if commit < progress.1 {
            return Err(format!("the commit index of node {machine} fell from {} to {commit}", progress.1));
        }
        progress.1 = commit;
        Ok(())
    }

    /// The last entry that a machine is known to have applied since it started.
    pub(in crate::world) fn applied_by(&self, machine: u32) -> u64 {
        self.progress.get(&machine).map_or(0, |progress| progress.0)
    }

    /// A machine went down: what it had in memory counts no more.
    pub(in crate::world) fn crashed(&mut self, machine: u32) {
        self.progress.remove(&machine);
    }
}
