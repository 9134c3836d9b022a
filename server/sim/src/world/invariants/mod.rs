//! What must be true of a run, whatever goes wrong: one file for each invariant.
//!
//! | file | what |
//! | --- | --- |
//! | `leaders.rs` | a term has one leader, a leader's log holds everything that was committed before its term, and it commits by counting what is of its own term |
//! | `leases.rs` | who holds a lease knows all that is committed |
//! | `logs.rs` | an index and a term name one entry and all before it; what is applied at an index is the same everywhere; the commit index does not fall |
//! | `promises.rs` | a vote, a candidacy and an acknowledgement leave only when the disk holds what they say |
//! | `acknowledged.rs` | a write is on the synced disks of a majority before its client hears of it |
//! | `disks.rs` | what was synced is there after a crash |
//! | `memberships.rs` | at most one change of the membership is under way, each shares its majorities with the one before, and who was taken out does not lead |
//! | `states.rs` | replicas that applied the same entries hold the same data, members and time |
//! | `convergence.rs` | once nothing goes wrong any more: one leader, everybody applied everything, logs are bounded |
//!
//! That no read is older than one that was already answered is judged at the end, from what clients saw: [`crate::check`].

mod acknowledged;
mod convergence;
mod disks;
mod leaders;
mod leases;
mod logs;
mod memberships;
mod promises;
mod states;

pub(super) use acknowledged::check_acknowledged;
pub(super) use convergence::{has_converged, standing, what_is_not_converged};
pub(super) use disks::check_disk;
pub(super) use leaders::Leaders;
pub(super) use leases::Leases;
pub(super) use logs::Logs;
pub(super) use memberships::Memberships;
pub(super) use promises::check_promise;
pub(super) use states::States;

/// What is wrong, in words.
pub(super) type Broken = String;
