//! Replicas on a network under virtual time: named scenarios, random ones, and scripts.
//!
//! Every step of every test is watched by `network::checker`. Each test prints its seed; a failure repeats exactly.

mod network;
mod scenarios;
