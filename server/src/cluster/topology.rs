//! What a node believes of its cluster, for clients and reports.

use super::{Address, NodeId};
use holdfast_engine::GroupId;

/// One node as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub id: NodeId,
    /// Where its clients connect.
    pub client: Address,
    /// Where its peers connect.
    pub peer: Address,
    /// Whether messages of it arrive; always so for the node itself.
    pub connected: bool,
}

/// One group as this node's replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its number.
    pub id: GroupId,
    /// The replica's term.
    pub term: u64,
    /// Who leads, if that is known.
    pub leader: Option<NodeId>,
    /// Who led last, kept while nobody is known to lead: clients want every slot to have an owner.
    pub leader_last: Option<NodeId>,
    /// Nodes with a vote.
    pub voters: Vec<NodeId>,
    /// Nodes that get the log but have no vote.
    pub learners: Vec<NodeId>,
    /// The slots that the group owns, as ascending ranges with both ends included.
    pub slots: Vec<(u16, u16)>,
    /// The replica's commit index.
    pub commit: u64,
    /// The replica's applied index.
    pub applied: u64,
    /// For each peer, if this node leads: up to where its log is known to equal the leader's, on its disk.
    pub matched: Vec<(NodeId, u64)>,
}

/// One connection between this node and another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkView {
    /// The other node.
    pub node: NodeId,
    /// Whether this node made it and sends on it; otherwise the other one did.
    pub outgoing: bool,
    /// Since when it is there, in milliseconds since the epoch.
    pub since_ms: u64,
    /// Bytes that wait to be sent on it.
    pub queued_bytes: u64,
}

/// What this node sends to the others and hears of them. Published a few times a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The connections that are there now, by ascending node, the outgoing ones first.
    pub links: Vec<LinkView>,
    /// Messages queued for peers since the start.
    pub sent_messages: u64,
    /// Messages that came from peers since the start.
    pub received_messages: u64,
    /// Messages for peers that were dropped since the start: no connection, a full queue, or too large.
    pub dropped_messages: u64,
}

/// The cluster as this node believes it to be. Published whole; readers keep what they got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The cluster's identity.
    pub cluster: u128,
    /// This node.
    pub me: NodeId,
    /// All nodes, by ascending number.
    pub nodes: Vec<NodeView>,
    /// The groups that this node has a replica of.
    pub groups: Vec<GroupView>,
}

impl Topology {
    /// A node by its number.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The group that owns a slot.
    pub fn group_of(&self, slot: u16) -> Option<&GroupView> {
        self.groups.iter().find(|group| group.slots.iter().any(|&(first, last)| (first..=last).contains(&slot)))
    }

    /// A node's name as Redis's clients want it: 40 hexadecimal digits, the same on all nodes and after restarts.
    pub fn name_of(&self, id: NodeId) -> String {
        let cluster = self.cluster as u64 ^ (self.cluster >> 64) as u64;
        format!("{id:08x}{cluster:016x}{:016x}", xxhash_rust::xxh3::xxh3_64_with_seed(&id.to_le_bytes(), cluster))
    }

    /// The highest term of any group: an epoch that grows with every fail-over.
    pub fn epoch(&self) -> u64 {
        self.groups.iter().map(|group| group.term).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_forty_digits_and_differ() {
        let topology = Topology { cluster: 7, me: 1, nodes: Vec::new(), groups: Vec::new() };
        let (one, two) = (topology.name_of(1), topology.name_of(2));
        assert_eq!((one.len(), two.len()), (40, 40));
        assert_ne!(one, two);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
