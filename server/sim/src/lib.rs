//! Holdfast's deterministic simulator: the real core under virtual time, with disks that crash.
//!
//! One seed decides everything. The world asks the parts what happens next, carries messages and faults between them, and
//! at the end asks the checker what the clients saw:
//!
//! ```text
//!               seed
//!                │ random: one stream per concern
//!     ┌──────────┼──────────────┬──────────────┐
//!   plan      network        workload        nodes (the real core)
//!   faults    when it        what clients
//!   by time   arrives        ask and heard
//!     └──────────┴──── events ──┴──────────────┘      time: virtual, and each node's wrong clocks
//!                        │             │
//!                      trace         check            campaign: many seeds, one line each
//!                  (same seed,    (linearizable?)
//!                   same hash)
//! ```
//!
//! The pieces that the world will drive are tested so in their own crates as well: the Raft core on a network of nodes under
//! virtual time (`raft/tests`), and the log on a simulated disk that loses, tears and flips what was not synced
//! (`engine/tests`). Here they run together: [`world`].

pub mod args;
pub mod campaign;
pub mod check;
pub mod defects;
pub mod events;
pub mod network;
pub mod plan;
pub mod random;
pub mod results;
pub mod script;
pub mod time;
pub mod trace;
pub mod workload;
pub mod world;
