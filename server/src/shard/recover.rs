//! What `holdfast recover` needs of a shard that serves nobody.

use super::Shard;
use crate::cluster::{Member, NodeId};
use crate::server::StartError;

impl Shard {
    /// Makes this node the only member of its group, durably; see [`crate::host::Host::become_alone`]. `unlisted` is its entry if the
    /// list of members has none.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) fn become_alone(&mut self, me: NodeId, unlisted: impl FnOnce() -> Member) -> Result<(), StartError> {
        let me = self.host.data().member(me).cloned().unwrap_or_else(unlisted);
        Ok(self.host.become_alone(me)?)
    }

    /// How far the log is applied.
    pub(crate) fn applied_index(&self) -> u64 {
        self.host.data().applied().index
    }

    /// What the folder holds is the new cluster's from now on.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn finish_recovery(&mut self) -> Result<(), StartError> {
        Ok(self.host.folder_mut().finish_recovery()?)
    }
}
