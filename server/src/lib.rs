//! The Holdfast server: from a Redis client's socket to the disk and back.
//!
//! ```text
//!  resp ──▶ command ──▶ shard ──▶ entry ──▶ replica: raft, engine::wal, engine::table ──▶ shard ──▶ resp
//! ```
//!
//! [`resp`] turns bytes into commands and replies into bytes. One command table drives parsing, routing, COMMAND and
//! help. A shard thread owns connections and groups; each turn it commits what all ready sockets asked as one log
//! [`entry`].

pub mod cluster;
pub mod command;
pub mod connection;
pub mod defects;
pub mod entry;
pub mod host;
pub mod logging;
pub mod membership;
pub mod node;
pub mod once;
pub mod peer;
pub mod recover;
pub mod replica;
pub mod resp;
pub mod server;
pub mod session;
pub mod settings;
mod shard;
pub mod slot;
mod storage;
pub mod supervisor;
