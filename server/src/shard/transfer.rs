//! Snapshots on their way between this node and its peers.
//!
//! ```text
//!   leader                                              follower
//!   SnapshotNeed ─▶ view ─▶ encoder thread              writer thread ─▶ file, synced, verified
//!                     └─▶ chunks, a window at a time ─▶ ─┘                 │
//!   Snapshot{meta} through Raft  ◀── SnapshotStatus::Complete ◀────────────┘
//!        └──────────────▶ Raft: install ─▶ install thread ─▶ store ─▶ the log starts anew ─▶ SnapshotReply
//! ```
//!
//! All that blocks (reading the view, writing and checking the file, filling the store) runs on threads of its own, one for each
//! transfer; they tell the shard by events. When the link breaks, the sender goes on over the next one, with what the receiver did
//! not acknowledge. A transfer that doesn't get on is given up, and Raft looks again what the follower needs. The log is kept from the snapshot's index on while it is sent, unless it grows to several times its limit. If the log
//! was cut all the same, Raft asks for a newer snapshot as soon as the follower has put this one in place.

use super::{AbortOnPanic, Shard};
use crate::cluster::NodeId;
use crate::host::{ChunkPlace, Incoming, SnapshotChunks, Unacknowledged};
use crate::peer::{PeerMessage, SnapshotChunk, SnapshotStatus};
use crate::replica::Replica;
use bytes::Bytes;
use holdfast_engine::GroupId;
use holdfast_engine::snapshot::{SnapshotFile, SnapshotHeader};
use holdfast_engine::table::{Installed, View};
use holdfast_engine::vfs::SharedVfs;
use holdfast_raft::{SnapshotMeta, SnapshotNeed};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of a snapshot that may be on their way, not yet on the receiver's disk.
const WINDOW_BYTES: u64 = 4 << 20;
/// Bytes that are sent at once at most.
const PIECE_BYTES_MAX: usize = 512 << 10;
/// How often a broken link is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// When a receiver says nothing for so long, what it did not acknowledge is sent again: its word may be lost.
const REPEAT: Duration = Duration::from_secs(5);
/// Transfers that a receiver remembers to have completed, should its word for it be lost.
const COMPLETED_MAX: usize = 8;
/// Chunks that may wait for the receiver's disk: more than a window of them.
const CHUNKS_WAITING_MAX: usize = 64;
/// A transfer that got no further for so long is given up.
const STALL: Duration = Duration::from_secs(20);
/// A snapshot of which nothing came for so long, in milliseconds, is not waited for: its sender has given it up before.
const ARRIVAL_MS_MAX: u64 = 60_000;
/// How long a receiver may take to check a snapshot of which it has all: it says nothing meanwhile, and reads every byte of it.
const CHECK_MAX: Duration = Duration::from_secs(1800);
/// How fast a state is hashed at most: clients come first.
const HASHED_BYTES_PER_SECOND: u64 = 64 << 20;
/// The shortest pause that is worth it.
const HASH_PAUSE: Duration = Duration::from_millis(5);
/// How long after a failure another snapshot is begun for the same peer.
const REST: Duration = Duration::from_secs(1);
/// How long a receiver may take to put a snapshot in place before the leader looks again what it needs, in milliseconds.
const INSTALL_MS_MAX: u64 = 300_000;

/// What a thread has to tell.
#[derive(Debug)]
pub(super) enum TransferEvent {
    /// Chunks up to this offset are in the file.
    Written { transfer: u64, offset: u64 },
    /// The snapshot is whole, or can't be.
    Finished { transfer: u64, outcome: Result<(PathBuf, SnapshotHeader), String> },
    /// The state was hashed, or can't be.
    Hashed { group: GroupId, index: u64, outcome: Result<u128, holdfast_engine::Error> },
    /// The rows are in the store, or can't be.
    Installed { group: GroupId, outcome: Result<Installed, holdfast_engine::Error> },
}

/// A snapshot that is being sent.
#[derive(Debug)]
struct Outgoing {
    group: GroupId,
    to: NodeId,
    transfer: u64,
    index: u64,
    state: Rc<OutgoingState>,
    /// When the follower had all of it.
    complete_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct OutgoingState {
    sent: Cell<u64>,
    acked: Cell<u64>,
    complete: Cell<bool>,
    refused: Cell<bool>,
    /// The link broke: what was on its way is lost.
    broken: Cell<bool>,
    changed: Notify,
}

/// A snapshot that is being received.
#[derive(Debug)]
struct Arriving {
    group: GroupId,
    from: NodeId,
    /// The sender's number, and ours.
    theirs: u64,
    transfer: u64,
    offset: u64,
    /// Up to where it is in the file.
    written: u64,
    /// The last chunk has come.
    whole: bool,
    /// When a chunk came last.
    heard_ms: u64,
    chunks: SyncSender<(Bytes, bool)>,
}

/// How far a snapshot for a peer is.
#[derive(Debug, PartialEq, Eq)]
enum UnderWay {
    Nothing,
    /// Its data is on the way.
    Sending,
    /// The peer has the data and was told what to do with it: the transfer of this number.
    Announced(u64),
}

/// All transfers of a node.
#[derive(Debug)]
pub(super) struct Transfers {
    outgoing: Vec<Outgoing>,
    arriving: Vec<Arriving>,
    /// The last that are complete: sender and its number.
    completed: VecDeque<(NodeId, u64)>,
    next: u64,
    /// A state is being hashed.
    hashing: bool,
    events: UnboundedSender<TransferEvent>,
}

impl Transfers {
    /// No transfers yet; events come through the receiver. Numbers start at `seed`, so that two runs of a node differ.
    pub(super) fn new(seed: u64) -> (Self, UnboundedReceiver<TransferEvent>) {
        // NB: bounded by the windows of the transfers under way.
        let (events, received) = unbounded_channel();
        let (outgoing, arriving, completed) = (Vec::new(), Vec::new(), VecDeque::new());
        (Transfers { outgoing, arriving, completed, next: seed, hashing: false, events }, received)
    }

    /// What becomes of a peer's need for a snapshot of a group, as far as one was begun for it.
    fn under_way(&self, group: GroupId, to: NodeId) -> UnderWay {
        match self.outgoing.iter().find(|sent| (sent.group, sent.to) == (group, to)) {
            None => UnderWay::Nothing,
            Some(Outgoing { complete_ms: None, .. }) => UnderWay::Sending,
            Some(sent) => UnderWay::Announced(sent.transfer),
        }
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

impl Shard {
    // ---- sending ---------------------------------------------------------------------------------------------------

    pub(super) fn start_sending(&mut self, group: GroupId, need: SnapshotNeed) {
        let Some(cluster) = &self.cluster else { return };
        match cluster.transfers.under_way(group, need.to) {
            UnderWay::Nothing => {}
            // It is announced when it is there, and Raft looks then what is still missing.
            UnderWay::Sending => return,
            // Raft would wait for ever for what nobody sends, if the need were taken for the one that was met.
            UnderWay::Announced(transfer) => self.forget_outgoing(transfer),
        }
        // What is known to be wrong must not spread: somebody else is to lead.
        if self.host.replica(group).is_some_and(Replica::differs) {
            tracing::warn!(to = need.to, "no snapshot is sent from a state that differs from the majority's");
            return self.report_later(group, need.to);
        }
        let begun = match self.host.begin_sending(group) {
            Ok(Some((view, meta))) if meta.index >= need.index_min => Ok((view, meta)),
            Ok(Some((_, meta))) => {
                self.host.finish_sending(group, meta.index);
                Err("nothing newer is applied here".to_owned())
            }
            Ok(None) => Err("the group is not here".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (view, meta) = match begun {
            Ok(begun) => begun,
            Err(reason) => {
                tracing::warn!(to = need.to, reason, "cannot make a snapshot for a peer");
                return self.report_later(group, need.to);
            }
        };
        let Some(cluster) = &mut self.cluster else { return };
        let transfer = cluster.transfers.number();
        let state = Rc::new(OutgoingState::default());
        tracing::info!(to = need.to, group, index = meta.index, "sending a snapshot to a peer that lags");
        cluster.transfers.outgoing.push(Outgoing {
            group,
            to: need.to,
            transfer,
            index: meta.index,
            state: Rc::clone(&state),
            complete_ms: None,
        });
        let Some(shard) = self.me.upgrade() else { return };
        let to = need.to;
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            let sent = send(&shard, group, to, transfer, view, &state).await;
            let mut this = shard.borrow_mut();
            this.read_clock();
            match sent {
                Ok(()) => this.announce(group, to, transfer, meta),
                Err(reason) => {
                    tracing::warn!(to, group, reason, "a snapshot for a peer was given up");
                    this.forget_outgoing(transfer);
                    this.report_later(group, to);
                }
            }
            this.pump();
        });
    }

    /// The follower has the data: Raft says what to do with it.
    fn announce(&mut self, group: GroupId, to: NodeId, transfer: u64, meta: SnapshotMeta) {
        let now_ms = self.mono_ms();
        let Some(cluster) = &mut self.cluster else { return };
        if let Some(sent) = cluster.transfers.outgoing.iter_mut().find(|sent| sent.transfer == transfer) {
            sent.complete_ms = Some(now_ms);
        }
        if let Some(replica) = self.host.replica_mut(group) {
            replica.send_snapshot(to, meta);
        }
    }

    fn forget_outgoing(&mut self, transfer: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let outgoing = &mut cluster.transfers.outgoing;
        if let Some(at) = outgoing.iter().position(|sent| sent.transfer == transfer) {
            let sent = outgoing.swap_remove(at);
            self.host.finish_sending(sent.group, sent.index);
        }
    }

    /// Tells Raft of a failure, after a rest.
    fn report_later(&mut self, group: GroupId, to: NodeId) {
        let Some(shard) = self.me.upgrade() else { return };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(REST).await;
            let mut this = shard.borrow_mut();
            if let Some(replica) = this.host.replica_mut(group) {
                replica.report_snapshot(to, false);
            }
            this.pump();
        });
    }

    /// The link to a peer broke: the announcement of a snapshot may be lost with it.
    pub(super) fn transfers_lost_link(&mut self, peer: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        let to_peer = || cluster.transfers.outgoing.iter().filter(|sent| sent.to == peer);
        for sent in to_peer().filter(|sent| sent.complete_ms.is_none()) {
            // Chunks may be lost, and what it says of them.
            sent.state.broken.set(true);
            sent.state.changed.notify_one();
        }
        let over: Vec<_> = to_peer().filter(|sent| sent.complete_ms.is_some()).map(|s| (s.transfer, s.group)).collect();
        for (transfer, group) in over {
            self.forget_outgoing(transfer);
            if let Some(replica) = self.host.replica_mut(group) {
                replica.report_snapshot(peer, true);
            }
        }
    }

    /// The announcement of a snapshot could not be sent: the peer needs another.
    pub(super) fn announcement_lost(&mut self, group: GroupId, to: NodeId) {
        let Some(cluster) = &self.cluster else { return };
        let of = |sent: &&Outgoing| (sent.group, sent.to) == (group, to);
        if let Some(transfer) = cluster.transfers.outgoing.iter().find(of).map(|sent| sent.transfer) {
            self.forget_outgoing(transfer);
        }
        if let Some(replica) = self.host.replica_mut(group) {
            replica.report_snapshot(to, false);
        }
    }

    /// Lets go of snapshots that followers have put in place, or should have, and of those that are not going to arrive.
    pub(super) fn watch_transfers(&mut self) {
        let now_ms = self.mono_ms();
        for path in self.host.outdated() {
            remove_later(self.host.vfs().clone(), path);
        }
        let Some(cluster) = &mut self.cluster else { return };
        // NB: the thread that writes it finds that nobody hands it anything any more, and removes the file.
        cluster
            .transfers
            .arriving
            .retain(|arriving| arriving.whole || now_ms.saturating_sub(arriving.heard_ms) < ARRIVAL_MS_MAX);
        let Some(cluster) = &self.cluster else { return };
        let mut over = Vec::new();
        for sent in &cluster.transfers.outgoing {
            let Some(complete_ms) = sent.complete_ms else { continue };
            let waits = self.host.replica(sent.group).is_some_and(|replica| replica.awaits_snapshot(sent.to));
            if !waits || now_ms.saturating_sub(complete_ms) > INSTALL_MS_MAX || !cluster.peers.is_connected(sent.to) {
                over.push((sent.transfer, sent.group, sent.to));
            }
        }
        for (transfer, group, to) in over {
            self.forget_outgoing(transfer);
            if let Some(replica) = self.host.replica_mut(group) {
                replica.report_snapshot(to, true);
            }
        }
    }

    pub(super) fn snapshot_status(&mut self, from: NodeId, group: GroupId, transfer: u64, status: SnapshotStatus) {
        let Some(cluster) = &self.cluster else { return };
        let of = |sent: &&Outgoing| (sent.group, sent.to, sent.transfer) == (group, from, transfer);
        let Some(sent) = cluster.transfers.outgoing.iter().find(of) else { return };
        match status {
            // NB: what was not sent can't have been received.
            SnapshotStatus::Received(offset) if offset > sent.state.sent.get() => {}
            SnapshotStatus::Received(offset) => sent.state.acked.set(sent.state.acked.get().max(offset)),
            SnapshotStatus::Complete => sent.state.complete.set(true),
            SnapshotStatus::Refused => sent.state.refused.set(true),
        }
        sent.state.changed.notify_one();
    }

    // ---- receiving -------------------------------------------------------------------------------------------------

    pub(super) fn receive_chunk(&mut self, from: NodeId, chunk: SnapshotChunk) {
        let now_ms = self.mono_ms();
        let term = self.host.replica(chunk.group).map(|replica| replica.raft().term());
        if term.is_none_or(|term| chunk.term < term) {
            return self.refuse_chunk(from, &chunk);
        }
        let Some(cluster) = &self.cluster else { return };
        if cluster.transfers.completed.contains(&(from, chunk.transfer)) {
            return self.answer_chunk(from, &chunk, SnapshotStatus::Complete);
        }
        let of = |arriving: &Arriving| (arriving.from, arriving.theirs) == (from, chunk.transfer);
        if chunk.offset == 0 && !cluster.transfers.arriving.iter().any(of) {
            self.begin_arriving(from, &chunk);
        }
        let Some(cluster) = &mut self.cluster else { return };
        let Some(at) = cluster.transfers.arriving.iter().position(of) else {
            return self.refuse_chunk(from, &chunk);
        };
        let arriving = &mut cluster.transfers.arriving[at];
        let place = ChunkPlace::of((arriving.from, arriving.theirs, arriving.offset), from, &chunk);
        arriving.heard_ms = now_ms;
        if matches!(place, ChunkPlace::Known | ChunkPlace::Ahead) {
            let written = arriving.written;
            return self.answer_chunk(from, &chunk, SnapshotStatus::Received(written));
        }
        let expected = place == ChunkPlace::Next && arriving.group == chunk.group;
        arriving.offset += chunk.bytes.len() as u64;
        arriving.whole = chunk.last;
        let taken = match arriving.chunks.try_send((chunk.bytes.clone(), chunk.last)) {
            Ok(()) => true,
            // Full: the sender ignores its window.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        };
        if !expected || !taken {
            cluster.transfers.arriving.swap_remove(at);
            self.refuse_chunk(from, &chunk);
        }
    }

    fn begin_arriving(&mut self, from: NodeId, chunk: &SnapshotChunk) {
        let (vfs, dir, heard_ms) = (self.host.vfs().clone(), self.host.incoming_dir(), self.mono_ms());
        let Some(cluster) = &mut self.cluster else { return };
        // One at a time for a group: the newest sender is the leader.
        cluster.transfers.arriving.retain(|arriving| arriving.group != chunk.group);
        let transfer = cluster.transfers.number();
        let (offset, written, whole) = (0, 0, false);
        let (chunks, queue) = sync_channel(CHUNKS_WAITING_MAX);
        let events = cluster.transfers.events.clone();
        let name = format!("g{}-{from}-{transfer:016x}.snapshot", chunk.group);
        let spawned = std::thread::Builder::new()
            .name("holdfast-incoming".into())
            .spawn(move || write_chunks(&vfs, &dir, &name, transfer, &queue, &events));
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a thread to receive a snapshot");
            return;
        }
        let (group, theirs) = (chunk.group, chunk.transfer);
        cluster.transfers.arriving.push(Arriving {
            group,
            from,
            theirs,
            transfer,
            offset,
            written,
            whole,
            heard_ms,
            chunks,
        });
    }

    fn refuse_chunk(&mut self, to: NodeId, chunk: &SnapshotChunk) {
        self.answer_chunk(to, chunk, SnapshotStatus::Refused);
    }

    fn answer_chunk(&mut self, to: NodeId, chunk: &SnapshotChunk, status: SnapshotStatus) {
        let Some(cluster) = &self.cluster else { return };
        let (group, transfer) = (chunk.group, chunk.transfer);
        cluster.peers.send(to, PeerMessage::SnapshotStatus { group, transfer, status });
    }

    /// A thread got further.
    pub(super) fn transfer_event(&mut self, event: TransferEvent) {
        match event {
            TransferEvent::Written { transfer, offset } => {
                if let Some(cluster) = &mut self.cluster
                    && let Some(arriving) = cluster.transfers.arriving.iter_mut().find(|a| a.transfer == transfer)
                {
                    arriving.written = offset;
                }
                self.tell_sender(transfer, SnapshotStatus::Received(offset));
            }
            TransferEvent::Finished { transfer, outcome } => {
                let wanted = self
                    .cluster
                    .as_ref()
                    .is_some_and(|cluster| cluster.transfers.arriving.iter().any(|a| a.transfer == transfer));
                let status = match outcome {
                    Ok((path, _)) if !wanted => {
                        // A newer one took its place while it was checked.
                        return remove_later(self.host.vfs().clone(), path);
                    }
                    Ok((path, header)) => {
                        let group = header.group;
                        let (gone, status) = match self.host.received(group, path, header) {
                            Ok(old) => (old, SnapshotStatus::Complete),
                            // The sender would wait for it to be put in place.
                            Err(path) => (Some(path), SnapshotStatus::Refused),
                        };
                        gone.into_iter().for_each(|path| remove_later(self.host.vfs().clone(), path));
                        status
                    }
                    Err(reason) => {
                        tracing::error!(reason, "a snapshot could not be received");
                        SnapshotStatus::Refused
                    }
                };
                self.tell_sender(transfer, status);
                if let Some(cluster) = &mut self.cluster {
                    let Transfers { arriving, completed, .. } = &mut cluster.transfers;
                    if status == SnapshotStatus::Complete
                        && let Some(whole) = arriving.iter().find(|arriving| arriving.transfer == transfer)
                    {
                        completed.truncate(COMPLETED_MAX - 1);
                        completed.push_front((whole.from, whole.theirs));
                    }
                    arriving.retain(|arriving| arriving.transfer != transfer);
                }
            }
            TransferEvent::Hashed { group, index, outcome } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.transfers.hashing = false;
                }
                self.host.finish_hash(group, index, outcome);
            }
            TransferEvent::Installed { group, outcome } => match self.host.finish_install(group, outcome) {
                Ok(path) => {
                    let index = self.host.replica(group).map_or(0, |replica| replica.applied().index);
                    tracing::info!(group, index, "a snapshot was put in place");
                    if let Some(path) = path {
                        remove_later(self.host.vfs().clone(), path);
                    }
                    self.members_changed = true;
                    if self.host.wants_install(group) {
                        self.start_install(group);
                    }
                }
                Err(reason) => self.fail_turn(&reason),
            },
        }
    }

    /// Has the state hashed that a check asks for, on a thread, one after the other.
    pub(super) fn hash_state(&mut self) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| !cluster.transfers.hashing) else { return };
        let Some(job) = self.host.take_hash_job() else { return };
        let events = cluster.transfers.events.clone();
        let (group, index) = (job.group(), job.index());
        let spawned = std::thread::Builder::new().name("holdfast-check".into()).spawn(move || {
            let _guard = AbortOnPanic;
            let (started, mut bytes) = (Instant::now(), 0);
            let outcome = job.run(|more| {
                bytes += more;
                let due = Duration::from_nanos(bytes.saturating_mul(1_000_000_000 / HASHED_BYTES_PER_SECOND));
                // NB: pauses of some length, not one for each row.
                if let Some(ahead) = due.checked_sub(started.elapsed()).filter(|ahead| *ahead > HASH_PAUSE) {
                    std::thread::sleep(ahead);
                }
            });
            // Nobody is there to hear of it when the shard is gone.
            let _ = events.send(TransferEvent::Hashed { group, index, outcome });
        });
        match spawned {
            Ok(_) => cluster.transfers.hashing = true,
            Err(error) => {
                tracing::error!(%error, "cannot start a thread to check the state");
                let said = holdfast_engine::Error::io("start a thread for", Path::new("a check of the state"), error);
                self.host.finish_hash(group, index, Err(said));
            }
        }
    }

    fn tell_sender(&mut self, transfer: u64, status: SnapshotStatus) {
        let Some(cluster) = &self.cluster else { return };
        let Some(arriving) = cluster.transfers.arriving.iter().find(|arriving| arriving.transfer == transfer) else {
            return;
        };
        let message = PeerMessage::SnapshotStatus { group: arriving.group, transfer: arriving.theirs, status };
        cluster.peers.send(arriving.from, message);
    }

    /// Puts the group's received snapshot in place, on a thread.
    pub(super) fn start_install(&mut self, group: GroupId) {
        // What waited to be applied is in the snapshot, and the table is not to be touched until it is in place.
        self.backlog.clear();
        self.give_up_prefetch();
        let vfs = self.host.vfs().clone();
        let begun = self.host.begin_install(group);
        let Some(cluster) = &self.cluster else { return };
        let events = cluster.transfers.events.clone();
        let (job, path) = match begun {
            Ok(begun) => begun,
            Err(reason) => return self.fail_turn(&reason),
        };
        let spawned = std::thread::Builder::new().name("holdfast-install".into()).spawn(move || {
            let _guard = AbortOnPanic;
            let outcome = SnapshotFile::open(&vfs, &path).and_then(|mut file| job.run(&mut file));
            // Nobody is there to hear of it when the shard is gone.
            let _ = events.send(TransferEvent::Installed { group, outcome });
        });
        if let Err(error) = spawned {
            self.fail_turn(&format!("cannot start a thread to put a snapshot in place: {error}"));
        }
    }
}

/// Sends a view as a snapshot, and waits until the receiver has all of it.
async fn send(
    shard: &Rc<RefCell<Shard>>,
    group: GroupId,
    to: NodeId,
    transfer: u64,
    view: View,
    state: &OutgoingState,
) -> Result<(), String> {
    let (chunks, mut encoded) = tokio::sync::mpsc::channel::<Result<(Bytes, bool), String>>(4);
    std::thread::Builder::new()
        .name("holdfast-snapshot".into())
        .spawn(move || {
            let mut send = |bytes: Vec<u8>, last| chunks.blocking_send(Ok((Bytes::from(bytes), last))).is_ok();
            let read = SnapshotChunks::send_all(&view, &mut send);
            if let Err(error) = read {
                let _ = chunks.blocking_send(Err(error.to_string()));
            }
        })
        .map_err(|error| format!("cannot start a thread to read it: {error}"))?;
    let mut sending = Sending { shard, group, to, transfer, state, unacknowledged: Unacknowledged::default() };
    let (started, rate) = (Instant::now(), shard.borrow().node.settings.snapshot_bytes_per_second);
    let mut offset = 0_u64;
    let mut whole = false;
    while let Some(chunk) = encoded.recv().await {
        let (mut bytes, last) = chunk?;
        // NB: also a large value goes in pieces, or the receiver would hear nothing for long where the rate is low.
        while !bytes.is_empty() || (last && !whole) {
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES_MAX));
            sending.wait_until(STALL, || offset.saturating_sub(state.acked.get()) < WINDOW_BYTES).await?;
            let length = piece.len() as u64;
            whole = last && bytes.is_empty();
            state.sent.set(offset + length);
            sending.send(offset, piece, whole)?;
            offset += length;
            if rate > 0 {
                // What clients send comes first.
                tokio::time::sleep_until((started + span_at(offset, rate)).into()).await;
            }
        }
    }
    if !whole {
        return Err("the view ended early".to_owned());
    }
    sending.wait_until(CHECK_MAX, || state.complete.get()).await
}

/// How long so many bytes take at a rate, in bytes per second.
fn span_at(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs(bytes / rate)
        + Duration::from_nanos((u128::from(bytes % rate) * 1_000_000_000 / u128::from(rate)) as u64)
}

/// The sending side of a transfer.
struct Sending<'a> {
    shard: &'a Rc<RefCell<Shard>>,
    group: GroupId,
    to: NodeId,
    transfer: u64,
    state: &'a OutgoingState,
    unacknowledged: Unacknowledged,
}

impl Sending<'_> {
    /// Sends a chunk, or keeps it in mind for when there is a link again.
    fn send(&mut self, offset: u64, bytes: Bytes, last: bool) -> Result<(), String> {
        let this = self.shard.borrow();
        let replica = this.host.replica(self.group).filter(|replica| replica.raft().is_leader());
        let term = replica.ok_or("this node no longer leads")?.raft().term();
        let Some(cluster) = &this.cluster else { return Err("the cluster is gone".to_owned()) };
        let chunk = SnapshotChunk { group: self.group, transfer: self.transfer, term, offset, bytes, last };
        if !self.state.broken.get() && !cluster.peers.send(self.to, PeerMessage::SnapshotChunk(chunk.clone())) {
            self.state.broken.set(true);
        }
        cluster.peers.flush();
        self.unacknowledged.push(chunk);
        Ok(())
    }

    /// Sends again what the receiver may not have. `false`: there is no link yet, or no room.
    fn send_again(&self) -> Result<bool, String> {
        let this = self.shard.borrow();
        let replica = this.host.replica(self.group).filter(|replica| replica.raft().is_leader());
        let term = replica.ok_or("this node no longer leads")?.raft().term();
        let Some(cluster) = &this.cluster else { return Err("the cluster is gone".to_owned()) };
        let mut chunks = self.unacknowledged.iter();
        let sent = chunks.all(|chunk| {
            cluster.peers.send(self.to, PeerMessage::SnapshotChunk(SnapshotChunk { term, ..chunk.clone() }))
        });
        cluster.peers.flush();
        Ok(sent)
    }

    /// Waits for the receiver, as long as it gets on, over as many links as it takes.
    async fn wait_until(&mut self, limit: Duration, done: impl Fn() -> bool) -> Result<(), String> {
        let mut progress = (self.state.acked.get(), Instant::now());
        let mut repeated = Instant::now();
        // NB: a link may break while the receiver checks what it has, which takes its time.
        let mut broken_since = None;
        loop {
            let acked = self.state.acked.get();
            self.unacknowledged.acknowledge(acked);
            if self.state.refused.get() {
                return Err("the peer refused it".to_owned());
            }
            if self.state.broken.get() && self.send_again()? {
                tracing::info!(to = self.to, from = acked, "a snapshot goes on over a new link");
                self.state.broken.set(false);
                progress.1 = Instant::now();
                repeated = progress.1;
            }
            let broken = self.state.broken.get();
            broken_since = if broken { broken_since.or(Some(Instant::now())) } else { None };
            if !broken && done() {
                return Ok(());
            }
            if acked > progress.0 {
                progress = (acked, Instant::now());
                repeated = progress.1;
            }
            if !broken && repeated.elapsed() >= REPEAT {
                repeated = Instant::now();
                self.send_again()?;
            }
            let (limit, since) = broken_since.map_or((limit, progress.1), |since| (STALL, since));
            let Some(left) = limit.checked_sub(since.elapsed()) else {
                return Err(match broken {
                    true => format!("the peer could not be reached for {} seconds", limit.as_secs()),
                    false => format!("the peer got no further for {} seconds", limit.as_secs()),
                });
            };
            let wait = left.min(if broken { RETRY } else { REPEAT });
            // Whether it was told or time has passed, it is looked at again.
            let _ = tokio::time::timeout(wait, self.state.changed.notified()).await;
        }
    }
}

/// The thread that writes an arriving snapshot. It ends when the snapshot is whole, or given up.
fn write_chunks(
    vfs: &SharedVfs,
    dir: &Path,
    name: &str,
    transfer: u64,
    chunks: &Receiver<(Bytes, bool)>,
    events: &UnboundedSender<TransferEvent>,
) {
    let receive = || -> Result<Option<(PathBuf, SnapshotHeader)>, String> {
        let text = |error: holdfast_engine::Error| error.to_string();
        let mut incoming = Incoming::create(vfs, dir, name).map_err(text)?;
        loop {
            let Ok((bytes, last)) = chunks.recv() else { return Ok(None) };
            incoming.push(&bytes).map_err(text)?;
            if last {
                return incoming.finish().map(Some).map_err(text);
            }
            // Nobody is there to hear of it when the shard is gone.
            let _ = events.send(TransferEvent::Written { transfer, offset: incoming.offset() });
        }
    };
    let outcome = match receive() {
        Ok(Some(whole)) => Ok(whole),
        given_up => {
            let _ = vfs.remove(&dir.join(name));
            match given_up {
                Err(reason) => Err(reason),
                Ok(_) => return,
            }
        }
    };
    let _ = events.send(TransferEvent::Finished { transfer, outcome });
}

/// Removes a file that is no longer needed, where nobody waits for it.
fn remove_later(vfs: SharedVfs, path: PathBuf) {
    let removal = move || {
        if let Err(error) = vfs.remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a received snapshot could not be removed");
        }
    };
    // What stays behind is removed with the next start.
    let _ = std::thread::Builder::new().name("holdfast-remove".into()).spawn(removal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_holds_for_snapshots_of_any_size() {
        assert_eq!(span_at(3 << 20, 2 << 20), Duration::from_millis(1500));
        assert_eq!(span_at(1 << 40, 128 << 20), Duration::from_secs(8192));
        assert_eq!(span_at(u64::MAX, 1), Duration::from_secs(u64::MAX));
    }

    /// A leader's log was cut while a snapshot was on its way. The follower put it in place and needed another at once, before the
    /// leader had looked through its transfers: the need was taken for a repetition and forgotten, and the follower stayed behind
    /// for ever.
    #[test]
    fn need_after_an_announced_snapshot_is_a_new_need() {
        let (mut transfers, _events) = Transfers::new(0);
        assert_eq!(transfers.under_way(1, 2), UnderWay::Nothing);
        let state = Rc::default();
        transfers.outgoing.push(Outgoing { group: 1, to: 2, transfer: 7, index: 5, state, complete_ms: None });
        assert_eq!(transfers.under_way(1, 2), UnderWay::Sending);
        assert_eq!(transfers.under_way(1, 3), UnderWay::Nothing);
        transfers.outgoing[0].complete_ms = Some(1);
        assert_eq!(transfers.under_way(1, 2), UnderWay::Announced(7));
    }
}
