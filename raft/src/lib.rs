//! Raft consensus as a pure state machine: no I/O, no clock, no threads, no randomness of its own.
//!
//! # Motive
//! Everything that makes consensus hard to trust is in the order of events. So the core is a value: events go in as
//! method calls, what to do comes out as plain data, and the same events always give the same result. Production
//! drives it with sockets and disks, a simulator with a seed.
//!
//! # Picture
//! ```text
//!        tick(now)   step(now, message)   propose(payload)   read_index(now, context)
//!            │              │                    │                   │
//!            ▼              ▼                    ▼                   ▼
//!   ┌──────────────────────────────── Raft ────────────────────────────────────┐
//!   │ election ── replication ── commit ── reads ── membership ── snapshots    │──── reads the host's log
//!   └───────────────────────────────────────────────────────────────────────────┘     (LogReader)
//!            │ ready()
//!            ▼
//!        messages · a write · committed entries · reads · a change of role
//!            │
//!            ▼
//!        persisted(sequence), applied(index) come back in
//! ```
//!
//! # Flow
//! The host reads its clock *after* taking messages off the network and *before* sending any, passes it with the
//! events, then takes [`Raft::ready`] until [`Raft::has_ready`] says no. See [`Ready`] for what to do with it.
//!
//! # Invariants
//! 1. One leader per term: a vote is on disk before it is told, and a candidate's own vote counts only once on disk.
//! 2. A leader never changes or removes entries of its own log.
//! 3. Logs that agree on an entry's index and term agree on all before it: an append is taken only after its
//!    predecessor matched.
//! 4. A committed entry is in the log of every later leader: votes go only to logs at least as complete, and only
//!    entries of the leader's own term are committed by counting.
//! 5. The commit index never falls, and the ladder `compacted ≤ applied ≤ delivered ≤ committed ≤ last` holds.
//! 6. Whatever is acknowledged is on the acknowledger's disk. A leader counts itself only for what is on its own.
//! 7. A read is served only by a leader that has committed in its own term and was confirmed by a majority after the
//!    read arrived, or holds a lease.
//!
//! # Caveats
//! - A host that reports a write before it is durable breaks all of the above.
//! - Leases assume that clocks run at rates within [`Config::clock_drift_percent`] of each other. Nothing else does.

mod config;
pub mod defects;
mod election;
mod entry;
mod error;
mod log;
pub mod membership;
mod message;
mod progress;
mod quorum;
mod raft;
mod random;
mod read;
pub mod ready;
mod replication;
mod sleep;
mod snapshot;
mod terms;
mod transfer;

pub use config::{Config, ConfigError};
pub use entry::{Entry, EntryKind, HardState, Millis, ReplicaId, SnapshotMeta};
pub use error::{ConfChangeError, InitError, LogError, ProposeError, ReadError, StepError, TransferError};
pub use log::LogReader;
pub use membership::{ConfChange, ConfState, ConfStep, ConfTransition};
pub use message::{Message, MessageBody, Position};
pub use quorum::VOTERS_MAX;
pub use raft::{InitialState, PeerStatus, Raft, Status};
pub use ready::{ReadState, Ready, Role, RoleState, SnapshotInstall, SnapshotNeed, WriteBatch};
