//! What was synced is there after a crash. What was being written at the moment of the crash may be there or not, but whole.

use super::Broken;
use crate::world::held::Held;

/// A machine has read its log after a crash. `synced` is what it must have, `written` what it may have beside.
pub(in crate::world) fn check_disk(machine: u32, found: &Held, synced: &Held, written: &Held) -> Result<(), Broken> {
    // NB: what was being written may have cut entries that were synced, so the one or the other is enough. And a node that went
    // down between putting a snapshot in place and cutting its log does that when it starts.
    if found.covers(synced) || found.covers(written) || found.begins_anew(synced) {
        return Ok(());
    }
    Err(format!("node {machine} lost what was synced: it finds {found}; it had {synced}"))
}
