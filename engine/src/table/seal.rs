//! Sealed snapshots: the durable base on a store whose own word does not reach the platters, and what a store that was lost
//! is rebuilt from.
//!
//! ```text
//!   flush ─▶ sled (process crash only) ─▶ enough flushed, or the log too long? ─▶ snapshots/g<group>-<index>.snapshot
//!                                                                               sealed, synced ─▶ the log may go
//! ```
//!
//! The flusher writes them itself, right after a generation: at that moment the store is exactly the state at the
//! generation's index. The previous file stays until the next is sealed.

use super::flush::{Frozen, GroupBase, lock};
use super::node::Shared;
use super::rows;
use super::view::View;
use super::{Applied, SLOTS, install};
use crate::snapshot::{SnapshotFile, write_snapshot};
use crate::store::Durability;
use crate::vfs::SharedVfs;
use crate::{Error, GroupId, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The folder of sealed snapshots, in the tables' folder.
const FOLDER: &str = "snapshots";

/// Writes and finds sealed snapshots.
#[derive(Debug)]
pub(crate) struct Sealer {
    vfs: SharedVfs,
    dir: PathBuf,
    /// Where the store went that could not be opened.
    set_aside: Option<PathBuf>,
    groups: Mutex<BTreeMap<GroupId, Sealed>>,
}

#[derive(Debug, Default)]
struct Sealed {
    /// The newest sealed state.
    applied: Applied,
    /// Bytes flushed since.
    flushed_bytes: u64,
}

impl Sealer {
    pub(crate) fn new(vfs: SharedVfs, dir: &Path, set_aside: Option<PathBuf>) -> Self {
        Sealer { vfs, dir: dir.join(FOLDER), set_aside, groups: Mutex::default() }
    }

    pub(crate) fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    /// How far the log of a group may be cut when the store has it at `applied`.
    pub(crate) fn durable(&self, durability: Durability, group: GroupId, applied: Applied) -> Applied {
        match durability {
            Durability::PowerCut => applied,
            Durability::ProcessCrash => {
                lock(&self.groups).get(&group).map_or(Applied::default(), |group| group.applied)
            }
            Durability::None => Applied::default(),
        }
    }

    /// A generation went into a store that a power cut may take: seals a snapshot if it is time. The caller has the write
    /// turn.
    pub(crate) fn after_flush(&self, shared: &Arc<Shared>, frozen: &Frozen) -> Result<Option<Applied>> {
        let due = {
            let mut groups = lock(&self.groups);
            let sealed = groups.entry(frozen.group).or_default();
            sealed.flushed_bytes += frozen.memtable.bytes();
            let ahead = frozen.applied.index > sealed.applied.index;
            ahead && (frozen.seal || sealed.flushed_bytes >= shared.options.seal_bytes)
        };
        if due { self.seal(shared, frozen.group, &frozen.base).map(Some) } else { Ok(None) }
    }

    /// Seals what the store holds of a group. The caller has the write turn.
    pub(crate) fn seal(&self, shared: &Arc<Shared>, group: GroupId, base: &Mutex<GroupBase>) -> Result<Applied> {
        let view = View::of_store(shared, group, &lock(base))?;
        let applied = view.applied();
        self.vfs.create_dir_all(&self.dir).map_err(|error| Error::io("create", &self.dir, error))?;
        let path = self.dir.join(file_name(group, applied.index));
        let header = view.header();
        write_snapshot(&self.vfs, &path, &header, &mut view.rows(0, SLOTS as u16 - 1))?;
        lock(&self.groups).insert(group, Sealed { applied, flushed_bytes: 0 });
        for (older, index) in self.files(group)? {
            if index < applied.index {
                // NB: no sync of the folder: a removed file that comes back does no harm.
                self.vfs.remove(&older).map_err(|error| Error::io("remove", &older, error))?;
            }
        }
        Ok(applied)
    }

    /// The group's snapshot files and their indexes, newest first.
    fn files(&self, group: GroupId) -> Result<Vec<(PathBuf, u64)>> {
        let listing = |error| Error::io("list", &self.dir, error);
        if !self.vfs.exists(&self.dir).map_err(listing)? {
            return Ok(Vec::new());
        }
        let names = self.vfs.list(&self.dir).map_err(listing)?;
        let mut files: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let name = Path::new(name.file_name()?).to_str()?;
                let (of, index) = name.strip_prefix('g')?.strip_suffix(".snapshot")?.split_once('-')?;
                (of.parse() == Ok(group)).then_some((self.dir.join(name), index.parse().ok()?))
            })
            .collect();
        files.sort_by_key(|(_, index)| std::cmp::Reverse(*index));
        Ok(files)
    }

    /// Fills a store that has nothing of a group from its newest sound snapshot, if there is one, and remembers how far
    /// sealed state reaches.
    pub(crate) fn restore(&self, shared: &Arc<Shared>, group: GroupId) -> Result<()> {
        if shared.store.durability() != Durability::ProcessCrash && self.set_aside.is_none() {
            return Ok(());
        }
        let empty = shared.store.get(&rows::meta_key(group))?.is_none();
        for (path, _) in self.files(group)? {
            let restored = SnapshotFile::open(&self.vfs, &path).and_then(|file| {
                let header = file.header().clone();
                let applied = header.applied;
                if header.group != group {
                    let detail = format!("it is of group {}", header.group);
                    return Err(Error::Foreign { path: path.clone(), detail });
                }
                if empty {
                    // Sound to its last byte first: a store filled by half would be worse than an empty one.
                    SnapshotFile::verify(&self.vfs, &path)?;
                    install::write_rows(shared, &header, header.incarnation, None, &mut { file })?;
                    tracing::warn!(path = %path.display(), group, index = applied.index, "the group's state was rebuilt");
                }
                Ok(applied)
            });
            match restored {
                Ok(applied) => {
                    lock(&self.groups).insert(group, Sealed { applied, flushed_bytes: 0 });
                    return Ok(());
                }
                Err(error @ (Error::Damaged { .. } | Error::Foreign { .. })) => {
                    tracing::error!(path = %path.display(), %error, "a sealed snapshot can't be used");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn file_name(group: GroupId, index: u64) -> String {
    format!("g{group}-{index:020}.snapshot")
}
