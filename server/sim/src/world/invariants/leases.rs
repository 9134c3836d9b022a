//! Who holds a lease knows all that is committed: nobody else leads while it lasts.

use super::Broken;
use crate::time::Micros;
use crate::world::machine::Machine;

/// The newest entry that anybody knows to be committed.
#[derive(Debug, Default)]
pub(in crate::world) struct Leases {
    committed: u64,
}

impl Leases {
    /// A machine did something; its commit index is now `commit`. If that is news, all leases are looked at, else its own.
    pub(in crate::world) fn look(
        &mut self,
        machines: &[Machine],
        number: u32,
        commit: u64,
        now: Micros,
    ) -> Result<(), Broken> {
        let is_news = commit > self.committed;
        self.committed = self.committed.max(commit);
        // Who is paused serves nothing, and reads its clock before it does.
        for machine in machines.iter().filter(|machine| machine.stopped.is_none()) {
            if !is_news && machine.number != number {
                continue;
            }
            let Some(node) = &machine.node else { continue };
            let raft = node.host.data().raft();
            let (mono_ms, _) = machine.clocks(now);
            if let Some(index) = raft.lease_read(mono_ms).filter(|index| *index < self.committed) {
                return Err(format!(
                    "the lease of node {} in term {} would show entry {index}, but {} is committed",
                    machine.number,
                    raft.term(),
                    self.committed
                ));
            }
        }
        Ok(())
    }
}
