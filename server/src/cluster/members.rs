//! The replicated list of the cluster's nodes, and the membership of the group that keeps it.
//!
//! It changes by log entries alone and travels as one blob with the applied index: in the store's generations and in the
//! header of snapshots. The encoding is deterministic, since replicas are compared by it.
//!
//! ```text
//!   version u8 │ next_id u64 │ 4 lists of replica ids (count u16, ids u64), auto_leave u8
//!              │ count u16 │ per node: id u64, folder u128, client address, peer address (length u16, text)
//! ```

use super::{Address, NodeId};
use holdfast_raft::ConfState;
use std::collections::BTreeMap;

const VERSION: u8 = 1;
/// The most nodes of a cluster.
pub const NODES_MAX: usize = 1024;

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The identity of its data folder: a node that asks to join twice is known by it.
    pub folder: u128,
    /// Where its clients connect.
    pub client: Address,
    /// Where its peers connect.
    pub peer: Address,
}

/// All nodes of the cluster and the group's membership.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// The membership of the group, as Raft keeps it.
    pub conf: ConfState,
    /// The nodes by their number.
    pub nodes: BTreeMap<NodeId, Member>,
    /// The highest number ever given.
    pub last_id: NodeId,
}

/// Why bytes are no list of members.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the list of the cluster's members can't be read: {0}")]
pub struct MembersError(&'static str);

impl Members {
    /// The node that has this folder.
    pub fn by_folder(&self, folder: u128) -> Option<NodeId> {
        self.nodes.iter().find(|(_, member)| member.folder == folder).map(|(id, _)| *id)
    }

    /// The blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.last_id.to_le_bytes());
        let conf = &self.conf;
        for list in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
            out.extend_from_slice(&(list.len() as u16).to_le_bytes());
            list.iter().for_each(|id| out.extend_from_slice(&id.to_le_bytes()));
        }
        out.push(u8::from(conf.auto_leave));
        out.extend_from_slice(&(self.nodes.len() as u16).to_le_bytes());
        for (id, member) in &self.nodes {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&member.folder.to_le_bytes());
            for address in [&member.client, &member.peer] {
                let text = address.to_string();
                out.extend_from_slice(&(text.len() as u16).to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        out
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        let mut reader = Reader(bytes);
        let [version] = reader.take()?;
        if version != VERSION {
            return Err(MembersError("it is of a version that this release does not know"));
        }
        let last_id = u64::from_le_bytes(reader.take()?);
        let mut conf = ConfState::default();
        for list in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
            for _ in 0..reader.count()? {
                list.push(u64::from_le_bytes(reader.take()?));
            }
        }
        let [auto_leave] = reader.take()?;
        conf.auto_leave = auto_leave == 1;
        if conf != ConfState::default() {
            conf.validate().map_err(MembersError)?;
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..reader.count()? {
            let id = u64::from_le_bytes(reader.take()?);
            let folder = u128::from_le_bytes(reader.take()?);
            let (client, peer) = (reader.address()?, reader.address()?);
            if id == 0 || id > last_id || nodes.insert(id, Member { folder, client, peer }).is_some() {
                return Err(MembersError("a node's number is impossible"));
            }
        }
        if !reader.0.is_empty() {
            return Err(MembersError("bytes are left over"));
        }
        Ok(Members { conf, nodes, last_id })
    }
}

/// Reads from the front of bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MembersError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(MembersError("it is cut short"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn count(&mut self) -> Result<usize, MembersError> {
        let count = usize::from(u16::from_le_bytes(self.take()?));
        if count > NODES_MAX { Err(MembersError("it names too many nodes")) } else { Ok(count) }
    }

    fn address(&mut self) -> Result<Address, MembersError> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length).ok_or(MembersError("it is cut short"))?;
        self.0 = rest;
        let text = std::str::from_utf8(text).map_err(|_| MembersError("an address is not text"))?;
        text.parse().map_err(|_| MembersError("an address is malformed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Members {
        let member = |n: u16| Member {
            folder: u128::from(n) << 77,
            client: Address::new("127.0.0.1", 7000 + n),
            peer: Address::new("::1", 17000 + n),
        };
        Members {
            conf: ConfState { learners: vec![7], ..ConfState::of_voters([1, 2]) },
            nodes: BTreeMap::from([(1, member(1)), (2, member(2)), (7, member(7))]),
            last_id: 9,
        }
    }

    #[test]
    fn members_survive_the_encoding() {
        for members in [sample(), Members::default()] {
            assert_eq!(Members::decode(&members.encode()), Ok(members));
        }
        assert_eq!(sample().by_folder(7 << 77), Some(7));
    }

    #[test]
    fn every_cut_is_noticed() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Members::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() { *first = VERSION; }
            let _ = Members::decode(&bytes);
        }
    }
}
