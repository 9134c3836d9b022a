//! What nodes say to each other, as plain data.

use crate::cluster::{Address, NodeId};
use crate::replica::StateHash;
use bytes::Bytes;
use holdfast_engine::GroupId;
use holdfast_raft::{Message, MessageBody};

/// Which of a pair's two connections a message takes: short ones must not queue behind bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes, heartbeats, acknowledgements: what leadership hangs on.
    Control,
    /// Entries and snapshots.
    Bulk,
}

/// One message from node to node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// From one replica of a group to another.
    Raft {
        /// The group.
        group: GroupId,
        /// What is said.
        message: Message,
    },
    /// The sender lives. In place of the heartbeats of all groups that the two nodes share and that sleep.
    Beat,
    /// A piece of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// What became of a snapshot so far.
    SnapshotStatus {
        /// The group.
        group: GroupId,
        /// Which transfer.
        transfer: u64,
        /// How it stands.
        status: SnapshotStatus,
    },
    /// What a replica's state comes to, for the leader to compare.
    StateHash {
        /// The group.
        group: GroupId,
        /// What was found.
        found: StateHash,
    },
}

/// A piece of a snapshot on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The group.
    pub group: GroupId,
    /// The sender's number for this transfer; it differs between transfers of one sender.
    pub transfer: u64,
    /// The sender's term.
    pub term: u64,
    /// Where in the snapshot these bytes belong.
    pub offset: u64,
    /// The bytes, in the snapshot format.
    pub bytes: Bytes,
    /// Whether these are the last.
    pub last: bool,
}

/// How the receiver of a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStatus {
    /// It has everything up to this offset on its disk.
    Received(u64),
    /// It has all of it, and the snapshot is sound.
    Complete,
    /// It gives up.
    Refused,
}

/// A node without a cluster asks for a place in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Its data folder, by which a repeated request is known.
    pub folder: u128,
    /// Where its clients connect.
    pub client: Address,
    /// Where its peers connect.
    pub peer: Address,
}

/// The answer to a [`JoinRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinReply {
    /// It belongs to the cluster.
    Welcome {
        /// The cluster's identity.
        cluster: u128,
        /// The node's number in it.
        node: NodeId,
        /// Every node's number and peer address.
        peers: Vec<(NodeId, Address)>,
    },
    /// Ask the leader.
    Redirect {
        /// Its peer address.
        leader: Address,
    },
    /// Not now: there is no leader, or another change is under way. Ask again.
    Retry {
        /// Why.
        reason: String,
    },
    /// No.
    Refused {
        /// Why.
        reason: String,
    },
}

impl PeerMessage {
    /// The connection that a message takes. Appends keep to one lane, so that they stay in order.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Raft { message, .. } => match message.body {
                MessageBody::Append { .. } => Lane::Bulk,
                _ => Lane::Control,
            },
            PeerMessage::SnapshotChunk(_) => Lane::Bulk,
            PeerMessage::Beat | PeerMessage::SnapshotStatus { .. } | PeerMessage::StateHash { .. } => Lane::Control,
        }
    }
}
