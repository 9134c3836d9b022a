//! Holdfast's deterministic simulator: the real core under virtual time, with disks that crash.
//!
//! The pieces that it will drive are deterministic already and are tested so in their own crates: the Raft core on a network of
//! nodes under virtual time (`raft/tests`), and the log on a simulated disk that loses, tears and flips what was not synced
//! (`engine/tests`). The world that runs whole nodes comes with replication.
