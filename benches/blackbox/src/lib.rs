//! The black-box campaign: built servers as real processes, on a network and on disks that fail in every way we can make
//! them.
//!
//! ```text
//!                 seed ─▶ round: which faults, on whom, how long
//!                           │ stage: breaks and mends
//!    ┌──────────────────────┼───────────────────────────┐
//!  network                 cluster                     disk
//!  namespaces, veth,       processes: kill -9,         FUSE: power cuts that lose and tear
//!  iptables, tc            SIGSTOP, SIGTERM            what was not synced, EIO, ENOSPC, stalls
//!                           ▲
//!  load: clients over sockets, their minds the simulator's workload ─▶ history ─▶ the simulator's checker
//!                                                                         └─▶ ledger: what later rounds must find
//! ```
//!
//! The simulator tries far more histories and repeats each exactly; what it can't have under it is what is real here: the
//! binary, its threads and sockets, the third-party store and its files, the kernel.
//!
//! It needs root, Linux's network namespaces, FUSE, and some tools: [`stage::missing`] says what is not there.

pub mod delay;
pub mod disk;
pub mod fault;
pub mod ledger;
pub mod load;
pub mod network;
pub mod replace;
pub mod results;
pub mod round;
pub mod stage;
