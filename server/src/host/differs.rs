//! The note that a replica's state is not the majority's: it outlives restarts, so that nobody is served from that state in the meantime.
//!
//! ```text
//!   a check says so ─▶ DIFFERS, synced ─▶ … a restart, any number of them … ─▶ a snapshot is in place ─▶ DIFFERS is gone
//!
//!   DIFFERS   a state file: the groups, u64 each
//! ```

use holdfast_engine::folder::DataFolder;
use holdfast_engine::state_file;
use holdfast_engine::vfs::SharedVfs;
use holdfast_engine::{Error, GroupId, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;

const FILE: &str = crate::membership::DIFFERS_FILE;
const MAGIC: [u8; 8] = *b"HFDIFFER";
const VERSION: u32 = 1;

/// Which groups' replicas are known to differ, as the folder says.
#[derive(Debug)]
pub(super) struct DifferenceNote {
    vfs: SharedVfs,
    path: PathBuf,
    groups: BTreeSet<GroupId>,
}

impl DifferenceNote {
    /// Reads the note of a folder; an absent one says that nothing differs.
    ///
    /// # Errors
    /// When it is damaged, or the disk refuses.
    pub(super) fn open(vfs: SharedVfs, folder: &DataFolder) -> Result<Self> {
        let path = folder.path().join(FILE);
        let mut groups = BTreeSet::new();
        if let Some((_, payload)) = state_file::read(&*vfs, &path, MAGIC, VERSION)? {
            let (rows, rest) = payload.as_chunks::<8>();
            if !rest.is_empty() {
                let detail = "the note of replicas that differ makes no sense".to_owned();
                return Err(Error::Damaged { path, offset: 24, detail });
            }
            groups.extend(rows.iter().map(|row| GroupId::from_le_bytes(*row)));
        }
        Ok(DifferenceNote { vfs, path, groups })
    }

    /// Whether a group's replica was found to differ, and not rebuilt since.
    pub(super) fn has(&self, group: GroupId) -> bool {
        self.groups.contains(&group)
    }

    /// Notes, durably, whether a group's replica differs, if that is news.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn keep(&mut self, group: GroupId, differs: bool) -> Result<()> {
        let is_news = if differs { self.groups.insert(group) } else { self.groups.remove(&group) };
        if !is_news {
            return Ok(());
        }
        if self.groups.is_empty() {
            return state_file::remove(&*self.vfs, &self.path);
        }
        let payload: Vec<u8> = self.groups.iter().flat_map(|group| group.to_le_bytes()).collect();
        state_file::write(&*self.vfs, &self.path, MAGIC, VERSION, &payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_engine::store::StoreKind;
    use holdfast_engine::vfs::{CrashPlan, SimVfs};
    use std::path::Path;

    fn note(vfs: &SimVfs) -> DifferenceNote {
        let folder = DataFolder::open(vfs.shared(), Path::new("/data"), 0xabc, StoreKind::Fjall).unwrap();
        DifferenceNote::open(vfs.shared(), &folder).unwrap()
    }

    #[test]
    fn note_outlives_a_crash_until_the_replica_is_rebuilt() {
        let vfs = SimVfs::new();
        let mut first = note(&vfs);
        assert!(!first.has(1));
        first.keep(1, true).unwrap();
        // No news, and no write: the disk would refuse it.
        vfs.set_read_only(true);
        first.keep(1, true).unwrap();
        assert!(first.keep(2, true).is_err());
        vfs.set_read_only(false);
        drop(first);
        let vfs = vfs.crash(CrashPlan::synced_only());
        let mut again = note(&vfs);
        assert!(again.has(1) && !again.has(2));
        again.keep(1, false).unwrap();
        drop(again);
        assert!(!note(&vfs.crash(CrashPlan::synced_only())).has(1));
    }
}
