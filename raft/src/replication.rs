//! Replication: entries go out, acknowledgements come in, the commit index moves.
//!
//! # Flow
//! Inputs only note that something may be sent; the appends themselves are made once a turn, in
//! [`Raft::ready`](crate::Raft::ready). So whatever was proposed or acknowledged within a turn travels together, and a
//! leader's appends leave in the same turn in which its own write starts.
//!
//! # Finding where two logs part
//! A refusal names the last entry that could still be equal *by its term*: the follower skips whole terms that the
//! leader's previous entry rules out, the leader then skips those that its own log rules out. So a probe costs a round
//! trip per term that differs, not per entry.
//!
//! # Lost messages
//! An append that was lost shows when the next one doesn't fit, or, if none follows, when a heartbeat's answer comes
//! from a replica that lacks entries: it is then sent an append that it must accept or refuse.
//!
//! # Disks that forget
//! A refusal of what was acknowledged proves nothing: it may be older than the acknowledgement, and come late. But a heartbeat
//! names a commit index up to which the leader has the follower's *acknowledgement*, in this term. A follower whose log ends
//! before that has lost entries that it had synced: no entry below what it acknowledged is ever cut while the term lasts. It
//! says so, both hosts are told ([`Ready::promises_lost`](crate::Ready::promises_lost)), and the leader hears it no more. Its host must
//! stop it.

use crate::{
    defects::{self, Defect},
    entry::{Entry, ReplicaId},
    error::{LogError, StepError},
    log::{Appended, LogReader},
    message::{Message, MessageBody},
    progress::Mode,
    raft::Raft,
    ready::{Role, SnapshotNeed},
};

impl Raft {
    // ---- follower ----------------------------------------------------------------------------------------------

    pub(crate) fn on_append(
        &mut self,
        from: ReplicaId,
        previous_index: u64,
        previous_term: u64,
        commit: u64,
        entries: Vec<Entry>,
    ) -> Result<(), StepError> {
        if !self.log.matches(previous_index, previous_term) {
            if previous_index <= self.log.commit() {
                let ours = self.log.term(previous_index).unwrap_or(0);
                return Err(StepError::Diverged { from, index: previous_index, ours, theirs: previous_term });
            }
            let (hint_index, hint_term) = self.log.last_at_most(previous_index.min(self.log.last()), previous_term);
            self.send(from, MessageBody::AppendRejected { previous_index, hint_index, hint_term });
            return Ok(());
        }
        let last = previous_index + entries.len() as u64;
        match self.log.append(entries) {
            Ok(Appended::Replaced { from }) => self.disown_writes(Some(from - 1)),
            Ok(_) => {}
            Err((index, ours, theirs)) => return Err(StepError::Diverged { from, index, ours, theirs }),
        }
        if defects::has(Defect::TruncateBelowCommit) && self.log.last() > last.max(self.log.commit()) {
            let end = last.max(self.log.commit());
            self.log.truncate(end);
            self.disown_writes(Some(end));
        }
        let known_equal = if defects::has(Defect::CommitUnmatched) { self.log.last() } else { last };
        self.log.commit_to(commit.min(known_equal));
        // What is committed is in every later leader's log, so more than was asked may be confirmed.
        let index = last.max(self.log.commit());
        self.send_durable(from, MessageBody::AppendAccepted { index });
        Ok(())
    }

    pub(crate) fn on_heartbeat(&mut self, from: ReplicaId, round: u64, commit: u64, sleep: bool) {
        // The leader names only what this log acknowledged to it. NB: a snapshot that is being put in place counts as held already.
        if commit > self.log.last() {
            return self.lose_promise(from);
        }
        self.log.commit_to(commit);
        // NB: one that sleeps already stays asleep, and says so again: the first answer may have been lost.
        let asleep = sleep && commit == self.log.last() && self.fall_asleep();
        self.send(from, MessageBody::HeartbeatReply { round, asleep });
        self.repeat_snapshot_request(from);
    }

    /// The leader counts on entries that this log acknowledged and doesn't hold: the disk has lost what was synced.
    fn lose_promise(&mut self, leader: ReplicaId) {
        let last_index = self.log.last();
        self.send(leader, MessageBody::PromiseLost { last_index });
        if !std::mem::replace(&mut self.own_promise_lost, true) {
            self.promises_lost.push(self.config.id);
        }
    }

    // ---- leader ------------------------------------------------------------------------------------------------

    /// A replica found that its log ends before what it had acknowledged. Whatever it says from now on rests on a disk
    /// that forgets, so that neither its acknowledgements nor its answers to heartbeats count in this term.
    pub(crate) fn on_promise_lost(&mut self, from: ReplicaId, last_index: u64) {
        if self.role != Role::Leader {
            return;
        }
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from)
            && last_index < peer.matched
        {
            peer.promise_lost = true;
            peer.round = 0;
            self.promises_lost.push(from);
            self.forget_lease();
        }
    }

    pub(crate) fn on_accepted(&mut self, from: ReplicaId, index: u64) {
        let first = self.log.base() + 1;
        if self.role != Role::Leader {
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else {
            return;
        };
        self.replicate = true;
        if peer.accepted(index, first) {
            self.maybe_commit();
            self.continue_transfer();
        }
    }

    pub(crate) fn on_rejected(&mut self, from: ReplicaId, previous_index: u64, hint_index: u64, hint_term: u64) {
        if self.role != Role::Leader {
            return;
        }
        let (hint_index, _) = self.log.last_at_most(hint_index, hint_term);
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) {
            self.replicate |= peer.rejected(previous_index, hint_index);
        }
    }

    /// Commits what a majority has on disk, if it is of the leader's own term.
    pub(crate) fn maybe_commit(&mut self) {
        assert_eq!(self.role, Role::Leader, "only a leader counts");
        let id = self.config.id;
        let index = self.conf.majority_value(|voter| {
            if voter == id {
                // Like everybody else, the leader has only what is on its disk.
                let unwritten = defects::has(Defect::OwnEntriesNotSynced);
                return if unwritten { self.log.last() } else { self.log.persisted() };
            }
            let heard = self.peers.iter().find(|peer| peer.id == voter && !peer.promise_lost);
            heard.map_or(0, |peer| peer.matched)
        });
        let before = self.log.commit();
        // An entry of an earlier term may be on a majority and still be overwritten by a leader that has a later one;
        // it is committed only together with one of this term (Raft's figure 8).
        let own_term = self.log.term(index) == Some(self.term) || defects::has(Defect::OldTermCommitted);
        if index <= before || !own_term {
            return;
        }
        self.log.commit_to(index);
        let committed = self.log.bytes_between(before + 1, index);
        self.uncommitted_bytes =
            if index == self.log.last() { 0 } else { self.uncommitted_bytes.saturating_sub(committed) };
        self.replicate = true;
    }

    /// Makes the appends of this turn.
    pub(crate) fn send_appends(&mut self, reader: &dyn LogReader) -> Result<(), LogError> {
        if self.role != Role::Leader || !std::mem::take(&mut self.replicate) {
            return Ok(());
        }
        for place in 0..self.peers.len() {
            while let Some(message) = self.next_append(place, reader)? {
                self.messages.push(message);
            }
        }
        Ok(())
    }

    /// The next append for a peer, if it needs and may have one.
    fn next_append(&mut self, place: usize, reader: &dyn LogReader) -> Result<Option<Message>, LogError> {
        let (log, config) = (&self.log, &self.config);
        let peer = &mut self.peers[place];
        let leads_next = self.transfer.is_some_and(|transfer| transfer.asked && transfer.target == peer.id);
        if leads_next
            || peer.stalled
            || peer.promise_lost
            || matches!(peer.mode, Mode::Snapshot { .. } | Mode::Probe { sent: true })
        {
            return Ok(None);
        }
        let has_entries = peer.next <= log.last();
        let sends_entries = has_entries && peer.window_open(config.inflight_appends_max, config.inflight_bytes_max);
        let previous_index = peer.next - 1;
        let news = peer.commit_told < log.commit().min(previous_index) && !has_entries;
        let probes = matches!(peer.mode, Mode::Probe { .. });
        if !(sends_entries || peer.nudge || news || probes) {
            return Ok(None);
        }
        let mut entries = Vec::new();
        let previous_term = log.term(previous_index);
        if previous_term.is_some() && sends_entries {
            match log.entries(reader, peer.next, config.append_bytes_max) {
                Ok(found) => entries = found,
                Err(LogError::Unavailable) => {
                    peer.stalled = true;
                    return Ok(None);
                }
                // The host compacted since; the same as if it had before.
                Err(LogError::Compacted) => {}
                Err(damaged) => return Err(damaged),
            }
        }
        let Some(previous_term) = previous_term.filter(|_| !(sends_entries && entries.is_empty())) else {
            peer.await_snapshot();
            let need = SnapshotNeed { to: peer.id, index_min: log.base() };
            self.snapshots_needed.push(need);
            return Ok(None);
        };
        let last = previous_index + entries.len() as u64;
        peer.commit_told = peer.commit_told.max(log.commit().min(last));
        peer.sent(last, entries.iter().map(Entry::size_bytes).sum());
        let body = MessageBody::Append { previous_index, previous_term, commit: log.commit(), entries };
        Ok(Some(Message { from: config.id, to: peer.id, term: self.term, body }))
    }

    /// A message to this replica could not be delivered: don't let the pipeline run ahead.
    pub fn report_unreachable(&mut self, id: ReplicaId) {
        if self.role == Role::Leader {
            self.wake();
        }
        if self.role == Role::Leader
            && let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id)
        {
            peer.lost = true;
            if peer.mode == Mode::Replicate {
                peer.probe();
                // The probe waits for the next answer to a heartbeat: until then there is nobody to talk to.
                peer.mode = Mode::Probe { sent: true };
            }
        }
    }
}
