//! How the nodes of a cluster talk to each other.
//!
//! ```text
//!   PeerMessage ──▶ format ──▶ wire: queue, socket ═════════▶ accept, input ──▶ format ──▶ PeerSink
//!   (message.rs)               ▲                                  ▲
//!                              └ dial ── handshake ───────────────┘
//! ```
//!
//! [`Peers`] is the whole of it for the shard; [`request_join`] serves a node that has no cluster yet. What goes over the wire is
//! in [`mod@format`], and on the page `docs/src/formats/peer.md`.

mod accept;
mod dial;
pub mod format;
mod handshake;
mod input;
mod join;
mod link;
mod message;
mod options;
mod said;
mod transport;
mod wire;

pub use handshake::DialError;
pub use input::FrameBuffer;
pub use join::request_join;
pub use link::PeerCounters;
pub use message::{JoinReply, JoinRequest, Lane, PeerMessage, SnapshotChunk, SnapshotStatus};
pub use options::PeerOptions;
pub use transport::{PeerSink, Peers, Refusal};
