//! Snapshots on their way between nodes. Follows `shard/transfer.rs`; what threads do there are steps with time between them
//! here.

use bytes::Bytes;
use holdfast_engine::snapshot::SnapshotFile;
use holdfast_engine::table::{InstallJob, Installed};
use holdfast_raft::{SnapshotMeta, SnapshotNeed};
use holdfast_server::cluster::NodeId;
use holdfast_server::host::{ChunkPlace, Incoming, SnapshotChunks, Unacknowledged};
use holdfast_server::peer::{PeerMessage, SnapshotChunk, SnapshotStatus};
use holdfast_server::replica::DATA_GROUP;
use std::path::PathBuf;

use super::{Effect, Node, Timer};
use crate::time::{MILLISECOND, SECOND};

/// How long a receiver may take to put a snapshot in place before the leader looks again what it needs, in milliseconds.
const INSTALL_MS_MAX: u64 = 10_000;

/// A snapshot that is being sent.
#[derive(Debug)]
struct Outgoing {
    to: NodeId,
    transfer: u64,
    meta: SnapshotMeta,
    progress_ms: u64,
    unacknowledged: Unacknowledged,
    /// Since its last progress it was sent again.
    repeated: bool,
    /// When the follower had all of it.
    complete_ms: Option<u64>,
}

/// A snapshot that is being received.
#[derive(Debug)]
struct Arriving {
    from: NodeId,
    theirs: u64,
    incoming: Incoming,
}

/// The steps of putting a snapshot in place.
#[derive(Debug)]
pub(in crate::world) enum Install {
    /// The rows go into the store.
    Run(Box<InstallJob>, PathBuf),
    /// The log starts anew.
    Finish(Box<Result<Installed, holdfast_engine::Error>>),
}

/// All transfers of a node.
#[derive(Debug)]
pub(super) struct Transfers {
    outgoing: Vec<Outgoing>,
    arriving: Option<Arriving>,
    /// The last that was complete: sender and its number.
    completed: Option<(NodeId, u64)>,
    next: u64,
}

impl Transfers {
    pub(super) fn new(seed: u64) -> Transfers {
        Transfers { outgoing: Vec::new(), arriving: None, completed: None, next: seed }
    }

    fn number(&mut self) -> u64 {
        self.next = self.next.wrapping_add(1);
        self.next
    }
}

impl Node {
    // ---- sending ---------------------------------------------------------------------------------------------------

    pub(super) fn start_sending(&mut self, need: SnapshotNeed) {
        if let Some(sent) = self.transfers.outgoing.iter().find(|sent| sent.to == need.to) {
            if sent.complete_ms.is_none() {
                return;
            }
            let transfer = sent.transfer;
            self.mark("snapshots cut off by the log");
            self.forget_outgoing(transfer);
        }
        if self.host.data().differs() {
            return self.report_later(need.to);
        }
        let begun = match self.host.begin_sending(DATA_GROUP) {
            Ok(Some((_, meta))) if meta.index < need.index_min => {
                self.host.finish_sending(DATA_GROUP, meta.index);
                None
            }
            Ok(begun) => begun,
            Err(error) => return self.fail(&error.to_string()),
        };
        let Some((view, meta)) = begun else { return self.report_later(need.to) };
        self.mark("snapshots sent");
        let transfer = self.transfers.number();
        let term = self.host.data().raft().term();
        let mut chunks: Vec<(Bytes, bool)> = Vec::new();
        let read = SnapshotChunks::send_all(&view, |bytes, last| {
            chunks.push((Bytes::from(bytes), last));
            true
        });
        if let Err(error) = read {
            return self.fail(&error.to_string());
        }
        let mut unacknowledged = Unacknowledged::default();
        let (mut offset, chunk_bytes) = (0, self.settings.chunk_bytes);
        for (mut rest, last) in chunks {
            // Smaller than the server's, so that there are several.
            loop {
                let bytes = rest.split_to(chunk_bytes.min(rest.len()));
                let length = bytes.len() as u64;
                let last = last && rest.is_empty();
                let chunk = SnapshotChunk { group: DATA_GROUP, transfer, term, offset, bytes, last };
                unacknowledged.push(chunk.clone());
                self.effects.push(Effect::Send { to: need.to, message: PeerMessage::SnapshotChunk(chunk) });
                offset += length;
                if rest.is_empty() {
                    break;
                }
            }
        }
        let progress_ms = self.mono_ms;
        let (to, repeated, complete_ms) = (need.to, false, None);
        self.transfers.outgoing.push(Outgoing {
            to,
            transfer,
            meta,
            progress_ms,
            unacknowledged,
            repeated,
            complete_ms,
        });
    }

    fn forget_outgoing(&mut self, transfer: u64) {
        if let Some(at) = self.transfers.outgoing.iter().position(|sent| sent.transfer == transfer) {
            let sent = self.transfers.outgoing.swap_remove(at);
            self.host.finish_sending(DATA_GROUP, sent.meta.index);
        }
    }

    fn report_later(&mut self, to: NodeId) {
        self.after(SECOND, Timer::ReportLater(to));
    }

    fn give_up_outgoing(&mut self, transfer: u64, to: NodeId) {
        self.mark("snapshots given up");
        self.forget_outgoing(transfer);
        self.report_later(to);
    }

    /// The link to a peer broke: the announcement of a snapshot may be lost with it.
    pub(super) fn transfers_lost_link(&mut self, peer: NodeId) {
        let complete = |sent: &&Outgoing| sent.to == peer && sent.complete_ms.is_some();
        let over: Vec<u64> = self.transfers.outgoing.iter().filter(complete).map(|sent| sent.transfer).collect();
        for transfer in over {
            self.forget_outgoing(transfer);
            self.host.data_mut().report_snapshot(peer, true);
        }
    }

    /// Lets go of snapshots that followers have put in place, or should have, or that got stuck.
    pub(super) fn watch_transfers(&mut self) {
        for path in self.host.outdated() {
            self.mark("snapshots outdated before they were announced");
            self.remove(&path);
        }
        let mut stuck = Vec::new();
        let mut over = Vec::new();
        let mut resumed = 0;
        let (term, leads) = (self.host.data().raft().term(), self.host.data().raft().is_leader());
        for sent in &mut self.transfers.outgoing {
            match sent.complete_ms {
                None => {
                    let idle_ms = self.mono_ms.saturating_sub(sent.progress_ms);
                    let stall_ms = self.settings.transfer_stall / MILLISECOND;
                    if idle_ms > stall_ms {
                        stuck.push((sent.transfer, sent.to));
                    } else if idle_ms > stall_ms / 2 && leads && !std::mem::replace(&mut sent.repeated, true) {
                        // As the server does over a new link.
                        resumed += 1;
                        for chunk in sent.unacknowledged.iter() {
                            let message = PeerMessage::SnapshotChunk(SnapshotChunk { term, ..chunk.clone() });
                            self.effects.push(Effect::Send { to: sent.to, message });
                        }
                    }
                }
                Some(complete_ms) => {
                    let waits = self.host.data().awaits_snapshot(sent.to);
                    let late = self.mono_ms.saturating_sub(complete_ms) > INSTALL_MS_MAX;
                    if !waits || late || self.unlinked.contains(&sent.to) {
                        over.push((sent.transfer, sent.to));
                    }
                }
            }
        }
        (0..resumed).for_each(|_| self.mark("snapshots resumed"));
        for (transfer, to) in stuck {
            self.give_up_outgoing(transfer, to);
        }
        for (transfer, to) in over {
            self.forget_outgoing(transfer);
            self.host.data_mut().report_snapshot(to, true);
        }
    }

    pub(super) fn snapshot_status(&mut self, from: NodeId, transfer: u64, status: SnapshotStatus) {
        let now_ms = self.mono_ms;
        let of = |sent: &&mut Outgoing| (sent.to, sent.transfer) == (from, transfer);
        let Some(sent) = self.transfers.outgoing.iter_mut().find(of) else { return };
        match status {
            SnapshotStatus::Received(offset) => {
                sent.progress_ms = now_ms;
                sent.repeated = false;
                sent.unacknowledged.acknowledge(offset);
            }
            SnapshotStatus::Complete if sent.complete_ms.is_some() => {}
            SnapshotStatus::Complete => {
                sent.complete_ms = Some(now_ms);
                let meta = sent.meta.clone();
                self.host.data_mut().send_snapshot(from, meta);
            }
            SnapshotStatus::Refused => self.give_up_outgoing(transfer, from),
        }
    }

    // ---- receiving -------------------------------------------------------------------------------------------------

    pub(super) fn receive_chunk(&mut self, from: NodeId, chunk: &SnapshotChunk) {
        if chunk.term < self.host.data().raft().term() {
            return self.tell_sender(from, chunk.transfer, SnapshotStatus::Refused);
        }
        if self.transfers.completed == Some((from, chunk.transfer)) {
            return self.tell_sender(from, chunk.transfer, SnapshotStatus::Complete);
        }
        let place = self.transfers.arriving.as_ref().map_or(ChunkPlace::Foreign, |arriving| {
            ChunkPlace::of((arriving.from, arriving.theirs, arriving.incoming.offset()), from, chunk)
        });
        if matches!(place, ChunkPlace::Known | ChunkPlace::Ahead) {
            let offset = self.transfers.arriving.as_ref().map_or(0, |arriving| arriving.incoming.offset());
            return self.tell_sender(from, chunk.transfer, SnapshotStatus::Received(offset));
        }
        if chunk.offset == 0 {
            // One at a time: the newest sender is the leader.
            let name = format!("g{DATA_GROUP}-{from}-{:016x}.snapshot", self.transfers.number());
            match Incoming::create(self.host.vfs(), &self.host.incoming_dir(), &name) {
                Ok(incoming) => self.transfers.arriving = Some(Arriving { from, theirs: chunk.transfer, incoming }),
                Err(error) => return self.fail(&error.to_string()),
            }
        }
        let expected = self.transfers.arriving.take().filter(|arriving| {
            ChunkPlace::of((arriving.from, arriving.theirs, arriving.incoming.offset()), from, chunk)
                == ChunkPlace::Next
        });
        let Some(mut arriving) = expected else {
            return self.tell_sender(from, chunk.transfer, SnapshotStatus::Refused);
        };
        if let Err(error) = arriving.incoming.push(&chunk.bytes) {
            return self.fail(&error.to_string());
        }
        if !chunk.last {
            let offset = arriving.incoming.offset();
            self.transfers.arriving = Some(arriving);
            return self.tell_sender(from, chunk.transfer, SnapshotStatus::Received(offset));
        }
        match arriving.incoming.finish() {
            Ok((path, header)) => {
                match self.host.received(DATA_GROUP, path, header) {
                    Ok(old) => old.iter().for_each(|old| self.remove(old)),
                    Err(path) => {
                        self.mark("snapshots refused for newer ones");
                        self.remove(&path);
                        return self.tell_sender(from, chunk.transfer, SnapshotStatus::Refused);
                    }
                }
                self.mark("snapshots received");
                self.transfers.completed = Some((from, chunk.transfer));
                self.tell_sender(from, chunk.transfer, SnapshotStatus::Complete);
            }
            Err(error) => self.fail(&format!("a snapshot that was sent whole: {error}")),
        }
    }

    fn tell_sender(&mut self, to: NodeId, transfer: u64, status: SnapshotStatus) {
        let message = PeerMessage::SnapshotStatus { group: DATA_GROUP, transfer, status };
        self.effects.push(Effect::Send { to, message });
    }

    fn remove(&mut self, path: &std::path::Path) {
        // What stays behind is removed with the next start.
        let _ = self.host.vfs().remove(path);
    }

    // ---- putting in place ------------------------------------------------------------------------------------------

    pub(super) fn start_install(&mut self) {
        // What waited to be applied is in the snapshot.
        self.backlog.clear();
        match self.host.begin_install(DATA_GROUP) {
            Ok((job, path)) => self.install_later(Install::Run(Box::new(job), path)),
            Err(reason) => self.fail(&reason),
        }
    }

    fn install_later(&mut self, step: Install) {
        let span = self.random.range(self.settings.install_us.clone());
        self.after(span, Timer::Install(step));
    }

    pub(super) fn install_step(&mut self, step: Install) {
        match step {
            Install::Run(job, path) => {
                let vfs = self.host.vfs().clone();
                let outcome = SnapshotFile::open(&vfs, &path).and_then(|mut file| job.run(&mut file));
                self.install_later(Install::Finish(Box::new(outcome)));
            }
            Install::Finish(outcome) => match self.host.finish_install(DATA_GROUP, *outcome) {
                Ok(path) => {
                    self.mark("snapshots put in place");
                    if let Some(path) = path {
                        self.remove(&path);
                    }
                    self.topology_changed = true;
                    if self.host.wants_install(DATA_GROUP) {
                        self.mark("snapshots behind snapshots");
                        self.start_install();
                    }
                }
                Err(reason) => self.fail(&reason),
            },
        }
    }
}
