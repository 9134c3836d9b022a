//! Sealed snapshots.
use super::Applied;
use super::flush::Frozen;
use super::node::Shared;
use crate::store::Durability;
use crate::vfs::SharedVfs;
use crate::{GroupId, Result};
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Sealer {
    set_aside: Option<PathBuf>,
}

impl Sealer {
    pub(crate) fn open(_vfs: SharedVfs, _dir: &Path, set_aside: Option<PathBuf>) -> Result<Self> {
        Ok(Sealer { set_aside })
    }

    pub(crate) fn set_aside(&self) -> Option<&Path> {
        self.set_aside.as_deref()
    }

    pub(crate) fn durable(&self, shared: &Shared, _group: GroupId, applied: Applied) -> Applied {
        match shared.store.durability() {
            Durability::PowerCut => applied,
            _ => Applied::default(),
        }
    }

    pub(crate) fn after_flush(&self, _shared: &Shared, _frozen: &Frozen) -> Result<Option<Applied>> {
        Ok(None)
    }

    pub(crate) fn seal_now(&self, _shared: &Shared, _group: GroupId) -> Result<Option<Applied>> {
        Ok(None)
    }
}

pub(crate) fn repair(_shared: &Shared, _group: GroupId) -> Result<()> {
    Ok(())
}

pub(crate) fn restore(_shared: &Shared, _group: GroupId) -> Result<()> {
    Ok(())
}
