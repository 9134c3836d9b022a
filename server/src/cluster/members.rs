//! The replicated list of the cluster's nodes, and the membership of the group that keeps it.
//!
//! It changes by log entries alone and travels as one blob with the applied index: in the store's generations and in the
//! header of snapshots. The encoding is deterministic, since replicas are compared by it.
//!
//! ```text
//!   version u8 │ next_id u64 │ 4 lists of replica ids (count u16, ids u64), auto_leave u8
//!              │ count u16 │ per node: id u64, folder u128, client address, peer address (length u16, text)
//!              │ leaving u64 (0: nobody)                                                   from version 2 on
//!              │ count u16 │ per start: id u64, boot u64, run u64                          from version 3 on
//! ```
//!
//! A node that is to go is first marked as *leaving*; the same entry that takes it out of the group's membership takes it off
//! the list. So whoever leads finds in the list what is still to be done, and a node is never in one of the two alone for good.

use super::{Address, NodeId, Start};
use crate::entry::EntryReader;
use crate::replica::internal;
use holdfast_raft::{ConfChange, ConfState, Entry, EntryKind};
use std::collections::BTreeMap;

const VERSION: u8 = 3;
/// The oldest version that is still read.
const VERSION_MIN: u8 = 1;
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
    /// The node that is being removed: one of the list, and one at a time.
    pub leaving: Option<NodeId>,
    /// The newest start of each node that the leaders have heard of: an older copy of its folder is not heard any more.
    pub starts: BTreeMap<NodeId, Start>,
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

    /// Applies a command of the log that is about the list, with its arguments after the key. `false`: nothing changed. What can't be read,
    /// or may not be, changes nothing, on every replica alike.
    pub fn apply(&mut self, command: u16, args: &[&[u8]]) -> bool {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_le_bytes);
        match (command, args) {
            (internal::MEMBER, [id, folder, client, peer]) => {
                let address =
                    |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.parse::<Address>().ok());
                let (Some(id), Ok(folder)) = (number(id), (*folder).try_into()) else { return false };
                let (Some(client), Some(peer)) = (address(client), address(peer)) else { return false };
                self.enter(id, Member { folder: u128::from_le_bytes(folder), client, peer })
            }
            (internal::FORGET, [id]) => number(id).is_some_and(|id| self.mark_leaving(id)),
            (internal::START, [id, boot, run]) => match (number(id), number(boot), number(run)) {
                (Some(id), Some(boot), Some(run)) => self.register(id, Start { boot, run }),
                _ => false,
            },
            _ => false,
        }
    }

    /// Takes over what a committed entry says of the members, and nothing else of it.
    pub fn follow(&mut self, entry: &Entry) {
        match entry.kind {
            EntryKind::ConfChange => {
                let next = ConfChange::decode(&entry.payload).and_then(|change| self.conf.changed(&change));
                // What isn't allowed changes nothing, as when it is applied.
                if let Ok(next) = next {
                    self.set_conf(next);
                }
            }
            EntryKind::Normal => {
                let Ok(mut commands) = EntryReader::new(&entry.payload) else { return };
                let mut args = Vec::new();
                while let Ok(Some(command)) = commands.next(&mut args) {
                    self.apply(command, args.get(1..).unwrap_or_default());
                }
            }
            EntryKind::Noop => {}
        }
    }

    /// Takes a node into the list, or changes the addresses of one; number 0 for the next that is free.
    fn enter(&mut self, id: NodeId, member: Member) -> bool {
        let id = match (id, self.by_folder(member.folder)) {
            (0, Some(id)) => id,
            // NB: above every number that the group knows of, too: its founder votes before it is in the list.
            (0, None) => self.conf.members().into_iter().chain([self.last_id]).max().unwrap_or(0) + 1,
            (id, Some(known)) if id == known => id,
            (id, None) if self.conf.contains(id) && !self.nodes.contains_key(&id) => id,
            _ => return false,
        };
        if !self.nodes.contains_key(&id) && self.nodes.len() >= NODES_MAX {
            return false;
        }
        self.last_id = self.last_id.max(id);
        self.nodes.insert(id, member);
        true
    }

    /// Marks a node as leaving. `false`: nothing changed, since it isn't in the list, another is leaving, or nobody would be
    /// left to vote.
    pub fn mark_leaving(&mut self, id: NodeId) -> bool {
        let another = self.leaving.is_some_and(|leaving| leaving != id);
        if another || !self.nodes.contains_key(&id) || self.conf.voters == [id] {
            return false;
        }
        self.leaving = Some(id);
        true
    }

    /// Takes over a changed membership of the group, and forgets the leaving node once it is in it no more.
    pub fn set_conf(&mut self, conf: ConfState) {
        self.conf = conf;
        if let Some(id) = self.leaving.filter(|id| !self.conf.contains(*id)) {
            self.nodes.remove(&id);
            self.starts.remove(&id);
            self.leaving = None;
        }
    }

    /// Takes note of a node's start. `false`: nothing changed, since it isn't in the list, or a newer start is known.
    pub fn register(&mut self, id: NodeId, start: Start) -> bool {
        let news = self.nodes.contains_key(&id) && start.supersedes(self.starts.get(&id).copied());
        if news {
            self.starts.insert(id, start);
        }
        news
    }

    /// Whether this node was one, and is no more. Numbers are given in ascending order and never again.
    pub fn has_lost(&self, id: NodeId) -> bool {
        id != 0 && id <= self.last_id && !self.nodes.contains_key(&id) && !self.conf.contains(id)
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
        out.extend_from_slice(&self.leaving.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&(self.starts.len() as u16).to_le_bytes());
        for (id, Start { boot, run }) in &self.starts {
            [id, boot, run].into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
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
        if !(VERSION_MIN..=VERSION).contains(&version) {
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
        let leaving = if version >= 2 { u64::from_le_bytes(reader.take()?) } else { 0 };
        let leaving = (leaving != 0).then_some(leaving);
        if leaving.is_some_and(|id| !nodes.contains_key(&id)) {
            return Err(MembersError("a node is leaving that is not in it"));
        }
        let mut starts = BTreeMap::new();
        for _ in 0..if version >= 3 { reader.count()? } else { 0 } {
            let id = u64::from_le_bytes(reader.take()?);
            let (boot, run) = (u64::from_le_bytes(reader.take()?), u64::from_le_bytes(reader.take()?));
            if !nodes.contains_key(&id) || starts.insert(id, Start { boot, run }).is_some() {
                return Err(MembersError("a node has started that is not in it, or twice"));
            }
        }
        if !reader.0.is_empty() {
            return Err(MembersError("bytes are left over"));
        }
        Ok(Members { conf, nodes, last_id, leaving, starts })
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
            leaving: None,
            starts: BTreeMap::from([(2, Start { boot: 4, run: 77 }), (7, Start { boot: 1, run: 78 })]),
        }
    }

    #[test]
    fn members_survive_the_encoding() {
        for members in [sample(), Members { leaving: Some(7), ..sample() }, Members::default()] {
            assert_eq!(Members::decode(&members.encode()), Ok(members));
        }
        assert_eq!(sample().by_folder(7 << 77), Some(7));
    }

    #[test]
    fn older_version_is_read() {
        let sample = Members { starts: BTreeMap::new(), ..sample() };
        let mut bytes = sample.encode();
        for (version, left_out) in [(2, 2), (1, 8)] {
            bytes[0] = version;
            bytes.truncate(bytes.len() - left_out);
            assert_eq!(Members::decode(&bytes).as_ref(), Ok(&sample));
        }
    }

    #[test]
    fn starts_of_members_are_registered_until_they_leave() {
        let mut members = sample();
        let start = |boot| Start { boot, run: boot + 100 };
        assert!(!members.register(8, start(1)), "there is no such node");
        assert!(members.register(1, start(3)) && !members.register(1, start(3)) && !members.register(1, start(2)));
        assert!(members.register(1, start(9)) && members.starts[&1] == start(9));
        assert!(
            members.register(1, Start { boot: 9, run: Start::VOID }) && !members.register(1, start(10)),
            "for good"
        );
        assert!(members.mark_leaving(7));
        members.set_conf(ConfState::of_voters([1, 2]));
        assert!(!members.starts.contains_key(&7));
        assert_eq!(Members::decode(&members.encode()), Ok(members));
    }

    #[test]
    fn leaving_node_is_forgotten_with_its_place_in_the_group() {
        let mut members = sample();
        assert!(!members.mark_leaving(8), "there is no such node");
        assert!(members.mark_leaving(7) && members.mark_leaving(7), "a second time changes nothing");
        assert!(!members.mark_leaving(1), "one at a time");
        // Another change of the group leaves the mark alone.
        members.set_conf(ConfState { learners: vec![7], ..ConfState::of_voters([1]) });
        assert_eq!((members.leaving, members.has_lost(7)), (Some(7), false));
        members.set_conf(ConfState::of_voters([1]));
        assert_eq!((members.leaving, members.nodes.contains_key(&7)), (None, false));
        assert!(members.has_lost(7) && !members.has_lost(1) && !members.has_lost(10) && !members.has_lost(0));
        assert!(!members.mark_leaving(1), "nobody would be left to vote");
        assert_eq!(Members::decode(&members.encode()), Ok(members));
    }

    #[test]
    fn stranger_can_not_be_leaving() {
        let bytes = Members { leaving: Some(8), ..sample() }.encode();
        assert!(Members::decode(&bytes).is_err());
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
            if let Some(first) = bytes.first_mut() { *first = VERSION_MIN + *first % 3; }
            let _ = Members::decode(&bytes);
        }
    }
}
