//! How the nodes of a cluster talk to each other.

mod message;

pub use message::{JoinReply, JoinRequest, Lane, PeerMessage, SnapshotChunk, SnapshotStatus};
