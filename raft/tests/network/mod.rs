//! A network of replicas in one thread, for tests.
//!
//! [`node::Node`] is a replica with a host that obeys; [`disk::Disk`] what survives its crash; [`checker::Checker`] looks
//! at every step; [`simulation::Simulation`] moves messages and disks under virtual time with faults from a seed;
//! the scenario scripts move them by hand.

pub(crate) mod checker;
pub(crate) mod disk;
pub(crate) mod node;
pub(crate) mod simulation;

pub(crate) use simulation::{Faults, Simulation};
