//! Holdfast's storage engine.
//!
//! Files enter through [`vfs`]; every group's Raft log shares one write-ahead log ([`wal`]), of which [`log`] gives each
//! group its view; applied state lives in a [`table`] whose durable base is a checkpoint [`store`]; [`snapshot`] is the
//! one format for state that travels. [`ledger`] accounts for the memory of all of them.
//!
//! The crate knows nothing of consensus: the server carries plain structs between it and the Raft core.

pub mod defects;
pub mod error;
pub mod folder;
pub mod ledger;
pub mod log;
pub mod snapshot;
pub mod state_file;
pub mod store;
pub mod table;
pub mod vfs;
pub mod wal;

pub use error::{Error, Result};

/// The number of a Raft group, unique in a cluster and never reused.
pub type GroupId = u64;
