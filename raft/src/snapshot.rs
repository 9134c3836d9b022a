//! Snapshots: for a replica whose next entries are compacted away, and for one that lost its applied state.
//!
//! # Flow
//! ```text
//!   leader core        leader host              follower host            follower core
//!   Ready.snapshots ─▶ makes or finds one,
//!                      streams its data ──────▶ receives and checks it
//!                      send_snapshot(meta) ───▶ Message::Snapshot ─────▶ step
//!                                               puts it in place  ◀───── Ready.write.snapshot
//!                                               persisted(sequence) ───▶ SnapshotReply ─▶ leader
//! ```
//! The core never sees the data. The message that announces a snapshot is stepped only when its data is complete at the
//! follower; how it went, the leader's host says with [`Raft::report_snapshot`], and after a failure the leader tries anew.
//!
//! # On request
//! A replica whose applied state is lost or damaged, but whose log and vote are whole, says so
//! ([`Raft::request_snapshot`]) and goes on storing entries and voting; it neither applies nor campaigns until a snapshot
//! came. Its log stays, because majorities count on it.

use crate::{
    entry::{ReplicaId, SnapshotMeta},
    error::StepError,
    message::MessageBody,
    progress::Mode,
    raft::Raft,
    ready::{Role, SnapshotInstall, SnapshotNeed},
};

impl Raft {
    // ---- leader ------------------------------------------------------------------------------------------------

    /// Announces a snapshot whose data the host sends to `to`. No effect if this replica doesn't lead, or `to` needs none
    /// any more.
    pub fn send_snapshot(&mut self, to: ReplicaId, meta: SnapshotMeta) {
        if self.role != Role::Leader {
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == to) else {
            return;
        };
        match &mut peer.mode {
            Mode::Snapshot { index } => *index = Some(meta.index),
            _ if peer.snapshot_requested => {}
            _ => return,
        }
        self.send(to, MessageBody::Snapshot { meta });
    }

    /// How sending a snapshot to `to` ended: `delivered` says whether its data and its announcement arrived. The host
    /// reports every one, for the replica's own answer may get lost. After a failure the leader looks again what `to`
    /// needs.
    pub fn report_snapshot(&mut self, to: ReplicaId, delivered: bool) {
        if self.role != Role::Leader {
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == to) else {
            return;
        };
        // If the replica still wants one, it asks again with the next heartbeat.
        peer.snapshot_requested = false;
        if let Mode::Snapshot { index } = peer.mode
            && (!delivered || index.is_some())
        {
            peer.probe();
            if let Some(index) = index
                && delivered
            {
                peer.next = peer.next.max(index + 1);
            }
            // Not before it answers a heartbeat: it may be gone, or busy.
            peer.mode = Mode::Probe { sent: true };
        }
    }

    pub(crate) fn on_snapshot_reply(&mut self, from: ReplicaId, index: u64) {
        if self.role == Role::Leader
            && let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from)
        {
            peer.snapshot_requested = false;
        }
        self.on_accepted(from, index);
    }

    pub(crate) fn on_snapshot_wanted(&mut self, from: ReplicaId, index_min: u64) {
        // A leader that hasn't applied as much itself has nothing of use yet.
        if self.role != Role::Leader || index_min > self.log.applied() {
            return;
        }
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from) else {
            return;
        };
        // Asked again with every heartbeat; the host is asked once.
        if !peer.snapshot_requested && !matches!(peer.mode, Mode::Snapshot { .. }) {
            peer.snapshot_requested = true;
            self.snapshots_needed.push(SnapshotNeed { to: from, index_min });
        }
    }

    // ---- follower ----------------------------------------------------------------------------------------------

    /// The applied state here is lost or damaged, the log is not: asks the leader for a snapshot, now and with every
    /// heartbeat until one came. A leader resigns. Entries handed out and not applied count as lost with the state.
    pub fn request_snapshot(&mut self) {
        if self.role == Role::Leader {
            self.become_follower(self.term, None);
        }
        // NB: asleep it would hear no heartbeat with which to ask again.
        self.wake();
        self.snapshot_requested = Some(self.log.delivered());
        if let Some(leader) = self.leader {
            self.repeat_snapshot_request(leader);
        }
    }

    /// Takes back [`Raft::request_snapshot`], for a host whose applied state is there all the same: what is committed is handed out again,
    /// from where that state ends, and this replica may lead. `false`: a snapshot is being put in place, or none was asked for.
    pub fn withdraw_snapshot_request(&mut self) -> bool {
        if self.is_installing() || self.snapshot_requested.is_none() {
            return false;
        }
        self.snapshot_requested = None;
        self.snapshot_postponed = None;
        true
    }

    /// The index of an announced snapshot that waits until the log is on disk up to it.
    pub fn postponed_snapshot(&self) -> Option<u64> {
        self.snapshot_postponed.as_ref().map(|(_, meta)| meta.index)
    }

    pub(crate) fn repeat_snapshot_request(&mut self, leader: ReplicaId) {
        if let Some(index_min) = self.snapshot_requested
            && !self.is_installing()
        {
            self.send(leader, MessageBody::SnapshotWanted { index_min });
        }
    }

    pub(crate) fn on_snapshot(&mut self, from: ReplicaId, meta: SnapshotMeta) -> Result<(), StepError> {
        let (index, term) = (meta.index, meta.term);
        let wanted = self.snapshot_requested.is_some_and(|index_min| index >= index_min);
        let fits = self.log.base() <= index && self.log.matches(index, term);
        if index <= self.log.commit() && index >= self.log.base() && !fits {
            let ours = self.log.term(index).unwrap_or(0);
            return Err(StepError::Diverged { from, index, ours, theirs: term });
        }
        if self.is_installing() {
            // One at a time; the leader hears of the one under way when it is in place.
            return Ok(());
        }
        if fits && wanted && index > self.log.persisted() {
            // The log is to stay, so it has to be whole on disk up to the snapshot first.
            self.snapshot_postponed = Some((from, meta));
            return Ok(());
        }
        if fits && wanted {
            self.install(meta, true);
        } else if fits {
            // The log itself leads there.
            self.log.commit_to(index);
        } else if index > self.log.commit() {
            self.install(meta, false);
        }
        let index = self.log.commit();
        self.send_durable(from, MessageBody::SnapshotReply { index });
        Ok(())
    }

    /// Takes up a snapshot that waited for the log, once it is there.
    pub(crate) fn resume_snapshot(&mut self) {
        if self.snapshot_postponed.as_ref().is_some_and(|(_, meta)| meta.index <= self.log.persisted())
            && let Some((from, meta)) = self.snapshot_postponed.take()
            && self.log.matches(meta.index, meta.term)
        {
            // NB: that the entry is still there rules out the one error of this call.
            let _ = self.on_snapshot(from, meta);
        }
    }

    fn install(&mut self, meta: SnapshotMeta, keep_log_after: bool) {
        if keep_log_after {
            self.log.restore_state(meta.index, meta.term);
        } else {
            self.log.restore(meta.index, meta.term);
            self.disown_writes(None);
        }
        self.forget_unapplied();
        self.conf = meta.conf_state.clone();
        self.snapshot_requested = None;
        self.snapshot_postponed = None;
        self.snapshot_pending = Some(SnapshotInstall { meta, keep_log_after });
    }
}
