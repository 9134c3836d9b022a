//! One replica with its host: does what a [`Ready`] asks for, and lets the test decide when the disk is done.

use std::collections::VecDeque;

use holdfast_raft::{
    ConfState, Config, EntryKind, InitialState, Message, MessageBody, Raft, ReadState, Ready, SnapshotMeta, WriteBatch,
};

use super::{checker::Checker, disk::Disk};

/// A replica and its host.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) config: Config,
    /// `None` while crashed.
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    /// The log as it will be once all writes under way are done.
    pub(crate) view: super::disk::MemoryLog,
    /// Writes under way, in order.
    pub(crate) writes: VecDeque<WriteBatch>,
    pub(crate) applied: u64,
    pub(crate) conf_state: ConfState,
    pub(crate) reads: Vec<ReadState>,
    pub(crate) reads_dropped: Vec<u64>,
    /// Whose disks are known to have forgotten.
    pub(crate) promises_lost: Vec<u64>,
    /// The node's clock: runs at this percentage of true time, from this offset.
    pub(crate) clock: (u64, u64),
    /// Don't hand the applied index back, as a host would that is slow to apply.
    pub(crate) apply_held: bool,
}

/// What happened in a turn, for scripts.
pub(crate) enum Event<'a> {
    Ready(&'a Ready),
    Written(&'a WriteBatch),
}

impl Node {
    pub(crate) fn new(config: Config, disk: Disk) -> Node {
        Node {
            id: config.id,
            view: disk.log.clone(),
            applied: disk.applied,
            conf_state: disk.conf_state.clone(),
            disk,
            config,
            raft: None,
            writes: VecDeque::new(),
            reads: Vec::new(),
            reads_dropped: Vec::new(),
            promises_lost: Vec::new(),
            clock: (100, 0),
            apply_held: false,
        }
    }

    pub(crate) fn clock_at(&self, now: u64) -> u64 {
        now * self.clock.0 / 100 + self.clock.1
    }

    /// The true time at which the node's clock shows `shown`.
    pub(crate) fn time_of(&self, shown: u64) -> u64 {
        (shown.saturating_sub(self.clock.1) * 100).div_ceil(self.clock.0)
    }

    pub(crate) fn start(&mut self, now: u64) {
        assert!(self.raft.is_none(), "replica {} runs already", self.id);
        self.view = self.disk.log.clone();
        self.applied = self.disk.applied;
        self.conf_state = self.disk.conf_state.clone();
        let state = InitialState {
            hard_state: self.disk.hard_state,
            conf_state: self.disk.conf_state.clone(),
            applied: self.disk.applied,
        };
        let now = self.clock_at(now);
        self.raft = Some(Raft::new(self.config.clone(), state, now, &self.disk.log).expect("the disk is in order"));
        self.config.seed = self.config.seed.wrapping_add(1000);
    }

    /// Stops at once. The disk finished the first `done` of the writes under way, though nobody heard of it.
    pub(crate) fn crash(&mut self, done: usize) {
        for write in self.writes.drain(..).take(done) {
            self.disk.write(&write);
        }
        self.raft = None;
        self.reads.clear();
    }

    pub(crate) fn raft(&mut self) -> &mut Raft {
        self.raft.as_mut().expect("the replica runs")
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raft.as_ref().is_some_and(Raft::is_leader)
    }

    /// Does what the core asks for, except for finishing writes. Returns what is to be sent.
    pub(crate) fn pump(&mut self, checker: &mut Checker, mut seen: impl FnMut(Event)) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.raft.as_ref().is_some_and(Raft::has_ready) {
            let raft = self.raft.as_mut().expect("checked");
            let ready = raft.ready(&self.disk.log).expect("the log can be read");
            seen(Event::Ready(&ready));
            for message in &ready.messages {
                checker.on_send(message, &self.disk);
            }
            messages.extend(ready.messages);
            self.reads.extend(ready.reads);
            self.reads_dropped.extend(ready.reads_dropped);
            self.promises_lost.extend(ready.promises_lost);
            let mut conf_states = ready.conf_states.into_iter().peekable();
            for entry in &ready.committed {
                assert_eq!(entry.index, self.applied + 1, "entries are handed out in order, once");
                checker.on_committed(self.id, entry);
                self.applied = entry.index;
                if entry.kind == EntryKind::ConfChange
                    && let Some((_, conf_state)) = conf_states.next_if(|(index, _)| *index == entry.index)
                {
                    self.conf_state = conf_state;
                }
            }
            if let Some(write) = ready.write {
                if let Some(install) = &write.snapshot {
                    if install.keep_log_after {
                        self.view.compact(install.meta.index);
                    } else {
                        self.view.reset(install.meta.index, install.meta.term);
                    }
                }
                if let Some(first) = write.entries.first() {
                    checker.on_write(self.id, self.view.term_at(first.index - 1), &write.entries);
                }
                self.view.write(&write.entries);
                self.writes.push_back(write);
            }
            let raft = self.raft.as_mut().expect("checked");
            if !self.apply_held && !ready.committed.is_empty() {
                raft.applied(self.applied);
            }
            for need in ready.snapshots {
                let meta = SnapshotMeta {
                    index: self.applied,
                    term: self.view.term_at(self.applied).expect("the applied entry's term is known"),
                    conf_state: self.conf_state.clone(),
                };
                assert!(meta.index >= need.index_min, "a snapshot at {} is of no use: {need:?}", meta.index);
                raft.send_snapshot(need.to, meta);
            }
        }
        messages
    }

    /// The disk finishes all writes up to this one.
    pub(crate) fn persist(&mut self, sequence: u64, mut seen: impl FnMut(Event)) {
        while self.writes.front().is_some_and(|write| write.sequence <= sequence) {
            let write = self.writes.pop_front().expect("checked");
            self.disk.write(&write);
            if let Some(install) = &write.snapshot {
                self.applied = install.meta.index;
                self.conf_state = install.meta.conf_state.clone();
            }
            seen(Event::Written(&write));
            self.raft().persisted(write.sequence);
        }
    }

    /// Makes the applied state durable and cuts the log up to `keep` entries before it.
    pub(crate) fn checkpoint(&mut self, keep: u64) {
        let applied = self.raft.as_ref().map_or(0, |raft| raft.status().applied);
        if applied != self.applied {
            return;
        }
        self.disk.applied = applied;
        self.disk.conf_state = self.conf_state.clone();
        let base = applied.saturating_sub(keep);
        if base > self.disk.log.base_index && base <= self.disk.log.last() {
            self.disk.log.compact(base);
            self.view.compact(base);
        }
    }
}

/// The size of a message as it would travel, in bytes.
pub(crate) fn message_bytes(message: &Message) -> usize {
    let entries = match &message.body {
        MessageBody::Append { entries, .. } => entries.iter().map(|entry| entry.size_bytes()).sum(),
        _ => 0,
    };
    48 + entries
}
