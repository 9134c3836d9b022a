//! Tools that measure Holdfast from outside, and that try to make it lose data.
//!
//! | binary | what it does |
//! | --- | --- |
//! | `holdfast-echo` | the yardstick: a RESP server that answers `+OK` to everything and stores nothing |
//! | `holdfast-load` | load at a fixed rate or as fast as replies come, with honest latencies |
//! | `holdfast-compare` | the echo, Redis and Holdfast measured in turns; prints ratios |
//! | `holdfast-lag` | a follower away for many writes catches up while writes go on: how long, and what clients feel |
//! | `holdfast-compare-etcd` | three nodes beside three of etcd; a workspace of its own, in `benches/etcd` |
//! | `holdfast-crash` | kill -9 under load, restart, check every acknowledged write; over and over |
//! | `holdfast-failover` | three nodes under load, their leader killed or stopped; nothing lost, nothing stale |
//! | `holdfast-blackbox` | everything that a network, a disk and a power cut can do, to built servers; a crate of its own, in `benches/blackbox` |
//!
//! The tools share these modules. None of them uses Holdfast's own client: the bytes on the wire are written and read
//! here a second time, so that a mistake there isn't cancelled out by the same mistake here. `holdfast-failover` writes
//! through the cluster client of the `redis` crate, as its users would.

pub mod ask;
pub mod cluster;
pub mod connection;
pub mod crash;
#[cfg(feature = "inside")]
pub mod failover;
pub mod load;
pub mod process;
pub mod random;
pub mod stats;
pub mod wire;
