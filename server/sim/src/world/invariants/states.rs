//! Replicas that applied the same entries hold the same data, the same members and the same time.

use std::collections::HashMap;

use super::Broken;

/// States by the index that they belong to.
#[derive(Debug, Default)]
pub(in crate::world) struct States {
    hashes: HashMap<u64, (u64, u32)>,
    stamps: HashMap<u64, u64>,
}

impl States {
    /// A machine's state after an entry.
    pub(in crate::world) fn state_is(&mut self, machine: u32, index: u64, hash: u64) -> Result<(), Broken> {
        let (first, other) = *self.hashes.entry(index).or_insert((hash, machine));
        if first == hash {
            return Ok(());
        }
        Err(format!("nodes {other} and {machine} hold different data, members or time after entry {index}"))
    }

    /// A machine's group time after an entry.
    pub(in crate::world) fn time_is(&mut self, machine: u32, index: u64, stamp_ms: u64) -> Result<(), Broken> {
        let first = *self.stamps.entry(index).or_insert(stamp_ms);
        if first == stamp_ms {
            return Ok(());
        }
        Err(format!("after entry {index}, the group's time on node {machine} is {stamp_ms}, elsewhere {first}"))
    }
}
