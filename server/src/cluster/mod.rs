//! Who belongs to the cluster, where they are, and who leads: the words that the parts of a node share.
//!
//! ```text
//!   log entries ──▶ Members (replicated, rides with the table's generations and with snapshots)
//!                      │
//!   Raft's role ───────┴──▶ Topology (published by the shard on every change) ──▶ MOVED, CLUSTER SLOTS, INFO, kvctl
//! ```
//!
//! [`Members`] is replicated state: the same on every replica at the same index. [`Topology`] is what this node believes at
//! the moment, for clients; nothing that must be right is decided by it.

mod address;
mod members;
mod pace;
pub mod route;
mod starts;
mod topology;
mod view;

pub use address::Address;
pub use members::{Member, Members, MembersError, NODES_MAX};
pub use pace::Pace;
pub use starts::{PromiseLost, Start, Starts};
pub use topology::{GroupView, LinkView, NodeView, Topology, Traffic};
pub use view::SlotRange;

#[cfg(test)]
pub(crate) use view::tests::three_nodes;

/// The number of a node in its cluster, from 1. Given once by the cluster and never reused, so that it serves as the id of
/// the node's replicas too: a node that lost its folder comes back as another one.
pub type NodeId = u64;
