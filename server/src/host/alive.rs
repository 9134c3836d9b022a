//! Which nodes live, where the groups themselves don't ask: they sleep.
//!
//! A group in which nothing happens sends no heartbeats ([`holdfast_raft`]'s sleep). In their place two nodes that share such a
//! group show each other that they live, with one *beat* for all of them, as often as a heartbeat. Who has shown nothing for an
//! election timeout is gone, and the groups that count on it are woken.

use crate::cluster::NodeId;
use crate::replica::Replica;
use std::collections::BTreeMap;

/// What is known of one other node.
#[derive(Debug, Clone, Copy)]
struct Watch {
    heard_at: u64,
    sent_at: Option<u64>,
}

/// The nodes with which this one shares a group that sleeps.
#[derive(Debug, Default)]
pub(super) struct Alive {
    interval_ms: u64,
    timeout_ms: u64,
    watched: BTreeMap<NodeId, Watch>,
    /// To whom a beat is due.
    due: Vec<NodeId>,
}

impl Alive {
    /// Beats every `interval_ms`; silence for `timeout_ms` means that a node is gone.
    pub(super) fn new(interval_ms: u64, timeout_ms: u64) -> Self {
        Alive { interval_ms, timeout_ms, ..Alive::default() }
    }

    /// A node has shown that it lives.
    pub(super) fn heard(&mut self, now: u64, from: NodeId) {
        if let Some(watch) = self.watched.get_mut(&from) {
            watch.heard_at = now;
        }
    }

    /// Time passes: beats fall due, and groups hear of nodes that are gone.
    pub(super) fn tick(&mut self, now: u64, replicas: &mut [Replica]) {
        let mut shared: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (place, replica) in replicas.iter().enumerate() {
            for node in replica.partners_asleep() {
                shared.entry(node).or_default().push(place);
            }
        }
        // Who falls asleep has just been heard.
        self.watched.retain(|node, _| shared.contains_key(node));
        for (node, places) in shared {
            let watch = self.watched.entry(node).or_insert(Watch { heard_at: now, sent_at: None });
            if watch.sent_at.is_none_or(|sent_at| sent_at + self.interval_ms <= now) {
                watch.sent_at = Some(now);
                self.due.push(node);
            }
            if watch.heard_at + self.timeout_ms <= now {
                tracing::debug!(node, "a node has shown no life; the groups shared with it wake");
                places.into_iter().for_each(|place| replicas[place].peer_lost(now, node));
            }
        }
    }

    /// Whether a beat is due.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// To whom beats are due.
    pub(super) fn take_due(&mut self) -> std::vec::Drain<'_, NodeId> {
        self.due.drain(..)
    }
}
