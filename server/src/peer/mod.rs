//! How the nodes of a cluster talk to each other.

pub mod format;
mod input;
mod message;

pub use input::FrameBuffer;
pub use message::{JoinReply, JoinRequest, Lane, PeerMessage, SnapshotChunk, SnapshotStatus};
