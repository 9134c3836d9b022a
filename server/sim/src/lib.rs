//! Holdfast's deterministic simulator: the real core under virtual time, with disks that crash.

pub mod check;
pub mod events;
pub mod network;
pub mod plan;
pub mod random;
pub mod time;
