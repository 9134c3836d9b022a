//! The topology in Redis's terms: masters, replicas, ranges of slots.
//!
//! Redis has nodes that own slots and nodes that copy one of those; here groups own slots and nodes lead or follow groups.
//! For clients, whoever leads a group is the master of its slots and the group's other nodes are its replicas. Clients give up
//! on a map with holes in it, so a group keeps an [owner](Topology::owner_of) while nobody leads it: a client that asks
//! the owner then gets a refusal which it repeats a little later, and that is what it should do.

use super::{GroupView, NodeId, NodeView, Topology};
use crate::slot::SLOT_COUNT;

/// Slots next to each other that have the same owner and the same replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRange<'t> {
    /// The first slot.
    pub first: u16,
    /// The last slot, included.
    pub last: u16,
    /// The group that owns them.
    pub group: &'t GroupView,
    /// Who is named as their master.
    pub owner: NodeId,
}

impl GroupView {
    /// Whether the node has a replica of the group, with a vote or without.
    pub fn has_replica_on(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// How far a node's replica is known to be: the applied index of this node's own, what the leader knows of the others,
    /// the commit index for the leader. 0 for what this node can't know.
    pub fn offset_of(&self, node: NodeId, me: NodeId) -> u64 {
        if node == me {
            return self.applied;
        }
        if let Some((_, matched)) = self.matched.iter().find(|(peer, _)| *peer == node) {
            return *matched;
        }
        if self.leader == Some(node) { self.commit } else { 0 }
    }
}

impl Topology {
    /// Who is named as the master of a group's slots: the leader, else who led last, else the first voter. Only a group
    /// without any node that is in the list has none.
    pub fn owner_of(&self, group: &GroupView) -> Option<NodeId> {
        let known = |id: &NodeId| self.node(*id).is_some();
        let led = [group.leader, group.leader_last].into_iter().flatten().find(known);
        led.or_else(|| group.voters.iter().copied().filter(known).min())
    }

    /// Whether the node is known to lead a group now.
    pub fn leads(&self, node: NodeId) -> bool {
        self.groups.iter().any(|group| group.leader == Some(node))
    }

    /// The node whose replica this one is. None for the owner of any group, and for a node that has no replica.
    pub fn master_of(&self, node: NodeId) -> Option<NodeId> {
        if self.groups.iter().any(|group| self.owner_of(group) == Some(node)) {
            return None;
        }
        self.groups.iter().find(|group| group.has_replica_on(node)).and_then(|group| self.owner_of(group))
    }

    /// The nodes with a replica of the group, its owner excepted, by ascending number.
    pub fn replicas_of<'t>(&'t self, group: &'t GroupView) -> impl Iterator<Item = &'t NodeView> {
        let owner = self.owner_of(group);
        self.nodes.iter().filter(move |node| Some(node.id) != owner && group.has_replica_on(node.id))
    }

    /// Whether messages of the node arrive; false for one that is not in the list.
    pub fn is_connected(&self, node: NodeId) -> bool {
        node == self.me || self.node(node).is_some_and(|node| node.connected)
    }

    /// All slots whose owner can be named, as ascending ranges that don't overlap, as few as possible.
    pub fn slot_ranges(&self) -> Vec<SlotRange<'_>> {
        let mut ranges: Vec<SlotRange<'_>> = Vec::new();
        for group in &self.groups {
            let Some(owner) = self.owner_of(group) else { continue };
            ranges.extend(group.slots.iter().map(|&(first, last)| SlotRange { first, last, group, owner }));
        }
        ranges.sort_by_key(|range| range.first);
        let mut merged: Vec<SlotRange<'_>> = Vec::with_capacity(ranges.len());
        for mut range in ranges {
            range.last = range.last.min(SLOT_COUNT - 1);
            if let Some(previous) = merged.last_mut() {
                // NB: two groups never own a slot at the same epoch, but what this node heard of each may be of another time.
                range.first = range.first.max(previous.last + 1);
                let same = previous.owner == range.owner && same_nodes(previous.group, range.group);
                if range.first <= range.last && same && range.first == previous.last + 1 {
                    previous.last = range.last;
                    continue;
                }
            }
            if range.first <= range.last {
                merged.push(range);
            }
        }
        merged
    }

    /// How many slots have a group, and how many of these have a leader that this node hears from.
    pub fn slot_counts(&self) -> (usize, usize) {
        let (mut assigned, mut served) = (0, 0);
        for range in self.slot_ranges() {
            let count = usize::from(range.last - range.first) + 1;
            assigned += count;
            if range.group.leader.is_some_and(|leader| self.is_connected(leader)) {
                served += count;
            }
        }
        (assigned, served)
    }

    /// Whether every slot has a leader that this node hears from.
    pub fn is_healthy(&self) -> bool {
        self.slot_counts().1 == usize::from(SLOT_COUNT)
    }

    /// The name of a group as Redis's clients want a shard's: 40 hexadecimal digits, the same on all nodes.
    pub fn shard_name_of(&self, group: &GroupView) -> String {
        let cluster = self.cluster as u64 ^ (self.cluster >> 64) as u64;
        // Another seed than that of the nodes' names, so that no shard has a node's name.
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&group.id.to_le_bytes(), !cluster);
        format!("{hash:016x}{cluster:016x}{:08x}", group.id as u32)
    }

    /// Whether `CLUSTER SLOTS` reads the same for both: indexes, which change all the time, don't count.
    pub(crate) fn has_same_slots(&self, other: &Topology) -> bool {
        let same_node =
            |(a, b): (&NodeView, &NodeView)| (a.id, &a.client, a.connected) == (b.id, &b.client, b.connected);
        let same_group = |(a, b): (&GroupView, &GroupView)| {
            (a.id, a.leader, a.leader_last, &a.slots) == (b.id, b.leader, b.leader_last, &b.slots) && same_nodes(a, b)
        };
        self.cluster == other.cluster
            && self.me == other.me
            && self.nodes.len() == other.nodes.len()
            && self.groups.len() == other.groups.len()
            && self.nodes.iter().zip(&other.nodes).all(same_node)
            && self.groups.iter().zip(&other.groups).all(same_group)
    }
}

fn same_nodes(a: &GroupView, b: &GroupView) -> bool {
    a.voters == b.voters && a.learners == b.learners
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Address;
    use super::*;

    /// Three voters, 1 leads and is this node, 4 is learning; one group owns all slots.
    pub(crate) fn three_nodes() -> Topology {
        let node = |id: NodeId| NodeView {
            id,
            client: Address::new("127.0.0.1", 6378 + id as u16),
            peer: Address::new("127.0.0.1", 16378 + id as u16),
            connected: true,
        };
        let group = GroupView {
            id: 1,
            term: 5,
            leader: Some(1),
            leader_last: Some(1),
            voters: vec![1, 2, 3],
            learners: vec![4],
            slots: vec![(0, 16383)],
            commit: 100,
            applied: 99,
            matched: vec![(2, 98), (3, 90), (4, 7)],
        };
        Topology { cluster: 7 << 64 | 9, me: 1, nodes: (1..=4).map(node).collect(), groups: vec![group] }
    }

    #[test]
    fn slots_keep_an_owner_while_nobody_leads() {
        let mut topology = three_nodes();
        let owner = |topology: &Topology| topology.owner_of(&topology.groups[0]);
        topology.groups[0].leader_last = Some(2);
        topology.groups[0].leader = None;
        assert_eq!(owner(&topology), Some(2));
        topology.groups[0].leader_last = None;
        assert_eq!(owner(&topology), Some(1), "nobody ever led: the first voter");
        topology.groups[0].leader_last = Some(9);
        assert_eq!(owner(&topology), Some(1), "a node that is gone owns nothing");
        assert_eq!(topology.slot_ranges().len(), 1);
        assert!(!topology.is_healthy());
    }

    #[test]
    fn ranges_are_merged_and_cover_each_slot_once() {
        let mut topology = three_nodes();
        let mut second = topology.groups[0].clone();
        topology.groups[0].slots = vec![(0, 99), (200, 16383)];
        (second.id, second.slots) = (2, vec![(100, 250)]);
        topology.groups.push(second);
        let ranges: Vec<_> = topology.slot_ranges().iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(ranges, [(0, 16383)], "the same nodes, so the same range");
        topology.groups[1].leader = Some(2);
        let ranges: Vec<_> =
            topology.slot_ranges().iter().map(|range| (range.first, range.last, range.owner)).collect();
        assert_eq!(ranges, [(0, 99, 1), (100, 250, 2), (251, 16383, 1)], "overlaps are cut");
        assert_eq!((topology.master_of(2), topology.master_of(3)), (None, Some(1)));
    }

    #[test]
    fn healthy_means_that_every_leader_is_heard() {
        let mut topology = three_nodes();
        assert_eq!((topology.slot_counts(), topology.is_healthy()), ((16384, 16384), true));
        topology.groups[0].leader = Some(2);
        assert!(topology.is_healthy());
        topology.nodes[1].connected = false;
        assert_eq!((topology.slot_counts(), topology.is_healthy()), ((16384, 0), false));
    }

    #[test]
    fn moving_indexes_don_t_change_the_slots() {
        let (mut old, mut new) = (three_nodes(), three_nodes());
        (new.groups[0].applied, new.groups[0].term) = (1000, 6);
        assert!(old.has_same_slots(&new));
        old.nodes[2].client.port = 1;
        assert!(!old.has_same_slots(&new));
    }

    #[test]
    fn shard_names_have_forty_digits_and_are_no_node_s() {
        let topology = three_nodes();
        let name = topology.shard_name_of(&topology.groups[0]);
        assert_eq!(name.len(), 40);
        assert_ne!(name, topology.name_of(1));
    }
}
