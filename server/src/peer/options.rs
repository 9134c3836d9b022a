//! What the transport is told at its start.

use super::Lane;
use crate::cluster::{Address, NodeId, Pace, Starts};
use std::time::Duration;

/// Who this node is, and the limits of its connections to others.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// The cluster's identity; not 0.
    pub cluster: u128,
    /// This node's number; not 0.
    pub me: NodeId,
    /// Where this node's clients connect.
    pub client: Address,
    /// Where this node's peers connect.
    pub peer: Address,
    /// This node's starts.
    pub starts: Starts,
    /// What this node's timing rests on.
    pub pace: Pace,
    /// The largest body of a frame, in bytes, sent or taken. The same on all nodes.
    pub frame_bytes_max: usize,
    /// What may wait to be sent to one node as control messages, in bytes.
    pub control_queue_bytes_max: usize,
    /// What may wait to be sent to one node as bulk, in bytes. A single larger message is taken when nothing else waits.
    pub bulk_queue_bytes_max: usize,
    /// After how many milliseconds a connection is given up that takes nothing of what waits, or sends nothing of a begun frame.
    pub stall_ms: u64,
    /// How many milliseconds connecting and the handshake may take.
    pub handshake_ms: u64,
    /// The shortest pause before dialing again, in milliseconds.
    pub redial_ms_min: u64,
    /// The longest pause before dialing again, in milliseconds.
    pub redial_ms_max: u64,
    /// How many connections from others there may be, half-made ones included.
    pub inbound_max: usize,
    /// Where the random part of the pauses comes from.
    pub seed: u64,
}

impl PeerOptions {
    /// The usual limits for a node, which says nothing of its starts and its timing yet.
    pub fn new(cluster: u128, me: NodeId, client: Address, peer: Address, seed: u64) -> Self {
        PeerOptions {
            cluster,
            me,
            client,
            peer,
            starts: Starts::default(),
            pace: Pace::default(),
            // A command's arguments may be as large as the largest value, 512 MiB; they are one entry.
            frame_bytes_max: 1 << 30,
            control_queue_bytes_max: 8 << 20,
            bulk_queue_bytes_max: 64 << 20,
            stall_ms: 10_000,
            handshake_ms: 5_000,
            redial_ms_min: 50,
            redial_ms_max: 2_000,
            inbound_max: 1024,
            seed,
        }
    }

    pub(super) fn queue_bytes_max(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control_queue_bytes_max,
            Lane::Bulk => self.bulk_queue_bytes_max,
        }
    }

    pub(super) fn stall(&self) -> Duration {
        Duration::from_millis(self.stall_ms)
    }

    pub(super) fn handshake(&self) -> Duration {
        Duration::from_millis(self.handshake_ms)
    }
}
