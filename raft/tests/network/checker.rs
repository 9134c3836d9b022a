//! Watches all replicas at once, and fails the test at the first event that breaks a promise of Raft.

use std::collections::BTreeMap;

use holdfast_raft::{ConfState, Entry, EntryKind, Message, MessageBody};

use super::{disk::Disk, node::Node};

/// What was seen so far in the whole group.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    /// Who led each term.
    leaders: BTreeMap<u64, u64>,
    /// Every entry ever written: (index, term) → (term of its predecessor, the entry).
    written: BTreeMap<(u64, u64), (u64, Entry)>,
    /// What was handed out as committed, by index.
    pub(crate) committed: BTreeMap<u64, Entry>,
}

impl Checker {
    pub(crate) fn committed_last(&self) -> u64 {
        self.committed.last_key_value().map_or(1, |(index, _)| *index)
    }

    /// Log matching: an entry's index and term name its content and its predecessor, everywhere and for ever.
    pub(crate) fn on_write(&mut self, id: u64, previous_term: Option<u64>, entries: &[Entry]) {
        let mut previous = previous_term;
        for entry in entries {
            if let Some(previous) = previous {
                let (seen_previous, seen) =
                    self.written.entry((entry.index, entry.term)).or_insert_with(|| (previous, entry.clone()));
                assert_eq!(*seen_previous, previous, "log matching: predecessor of {} on {id}", entry.index);
                assert_eq!(seen, entry, "log matching: entry {} on {id}", entry.index);
            }
            previous = Some(entry.term);
        }
    }

    /// State machine safety: no two replicas apply different entries at one index.
    pub(crate) fn on_committed(&mut self, id: u64, entry: &Entry) {
        let seen = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(seen, entry, "state machine safety: replica {id} applies another entry {}", entry.index);
    }

    /// Whatever a message promises is on the sender's disk when it leaves.
    pub(crate) fn on_send(&self, message: &Message, disk: &Disk) {
        let stored = disk.hard_state;
        match &message.body {
            MessageBody::AppendAccepted { index } | MessageBody::SnapshotReply { index } => {
                assert!(stored.term >= message.term, "acknowledged in a term that is not stored: {message:?}");
                assert!(disk.log.last() >= *index || stored.term > message.term, "ack before sync: {message:?}");
            }
            MessageBody::VoteReply { granted: true, .. } => {
                let kept = stored.term > message.term || (stored.term, stored.vote) == (message.term, message.to);
                assert!(kept, "vote told before it is stored: {message:?}, stored {stored:?}");
            }
            MessageBody::Vote { last_index, .. } => {
                let kept = stored.term > message.term || (stored.term, stored.vote) == (message.term, message.from);
                assert!(kept, "candidacy told before it is stored: {message:?}, stored {stored:?}");
                assert!(disk.log.last() >= *last_index || stored.term > message.term, "{message:?}");
            }
            _ => {}
        }
    }

    /// Election safety, leader completeness, and commitment only by a majority of disks and of the own term.
    pub(crate) fn on_step(
        &mut self,
        nodes: &BTreeMap<u64, Node>,
        id: u64,
        commit_before: u64,
        led_before: Option<(u64, ConfState)>,
    ) {
        let node = &nodes[&id];
        let Some(raft) = &node.raft else { return };
        if !raft.is_leader() {
            return;
        }
        let term = raft.term();
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "election safety: two leaders in term {term}");
        let (led_term, conf_before) = led_before.unzip();
        if led_term != Some(term) {
            for (index, entry) in self.committed.range(node.disk.log.base_index + 1..) {
                assert_eq!(
                    node.view.term_at(*index),
                    Some(entry.term),
                    "leader completeness: {id} leads term {term} without committed entry {index}"
                );
            }
        }
        let commit = raft.commit_index();
        if commit > commit_before && led_term == Some(term) {
            let own_term = node.view.term_at(commit);
            assert_eq!(own_term, Some(term), "entry {commit} of an earlier term was committed by counting");
            // A membership change may take effect in the same step, before or after the commit.
            let has = |voter: &u64| {
                nodes.get(voter).is_some_and(|node| {
                    let log = &node.disk.log;
                    log.base_index > commit || log.term_at(commit) == own_term
                })
            };
            let majority = |voters: &[u64]| {
                voters.is_empty() || voters.iter().filter(|voter| has(voter)).count() * 2 > voters.len()
            };
            let decided = |conf: &ConfState| majority(&conf.voters) && majority(&conf.voters_outgoing);
            let confs = [Some(raft.conf_state()), conf_before.as_ref()];
            assert!(
                confs.into_iter().flatten().any(decided),
                "entry {commit} of term {term} is committed, but not on a majority of disks: {confs:?}"
            );
        }
    }

    /// The payloads of committed normal entries, in order.
    pub(crate) fn values(&self) -> Vec<String> {
        self.committed
            .values()
            .filter(|entry| entry.kind == EntryKind::Normal)
            .map(|entry| String::from_utf8_lossy(&entry.payload).into_owned())
            .collect()
    }
}
