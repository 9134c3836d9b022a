//! Between the host and the world: what Raft wants done is done, in the order that keeps its promises.
//!
//! Hops 3 and 4 of the data path. In: whatever the shard's inputs made of the host's state. Out: messages to peers, batches to
//! the log's writer, committed entries to [`super::turn`], reads that may be served, snapshots on their way.

use super::Shard;
use super::wal::{Progress, Report};
use crate::host::Outputs;
use crate::replica::DATA_GROUP;
use holdfast_engine::wal::Durability;

/// How often the log is synced under `everysec`, in milliseconds.
const EVERYSEC_MS: u64 = 1000;

impl Shard {
    /// Applies what the log holds beyond the table, before anybody is served. The log's writer is still on this thread.
    ///
    /// # Errors
    /// When the log or the store fails.
    pub(crate) fn catch_up(&mut self) -> Result<(), String> {
        let mut outputs = Outputs::default();
        loop {
            let progressed = self.host.process(&mut outputs)?;
            let applied = !outputs.committed.is_empty();
            for committed in outputs.committed.drain(..) {
                self.apply(&committed.entry, committed.conf).map_err(|error| error.to_string())?;
                while self.host.maintain(self.clock_ms).stalled {
                    // The flusher is behind; it has a thread of its own.
                    std::thread::yield_now();
                }
                if let Some(reason) = self.host.fault() {
                    return Err(reason.to_owned());
                }
            }
            if applied {
                self.host.data_mut().finished_apply();
            }
            let sealed = self.host.seal();
            let wrote = sealed.is_some();
            if let Some(batch) = sealed
                && let Progress::Done(report) = self.wal.write(batch, self.mono_ms())
            {
                self.learn(report)?;
            }
            if !progressed && !wrote {
                return Ok(());
            }
        }
    }

    /// Does all that is due: sends, writes, applies, answers.
    pub(super) fn pump(&mut self) {
        if self.closed {
            return;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        if let Err(reason) = self.pump_into(&mut outputs) {
            self.fail_turn(&reason);
        }
        if let Some(reason) = self.host.fault().map(str::to_owned)
            && (self.turn.has_work() || self.has_readers())
        {
            self.fail_turn(&reason);
        }
        self.outputs = outputs;
        if self.topology_changed {
            self.publish_topology();
        }
        if let Some(cluster) = &self.cluster {
            cluster.peers.flush();
        }
        self.wake_watchers();
        self.flush_touched();
        self.resume_turn();
    }

    fn pump_into(&mut self, outputs: &mut Outputs) -> Result<(), String> {
        // Some may have been left, for want of memory or of keys.
        self.apply_backlog()?;
        self.serve_confirmed();
        self.after_members();
        loop {
            let progressed = self.host.process(outputs)?;
            if progressed {
                self.carry_out(outputs)?;
            }
            let sealed = if self.wal.is_busy() { None } else { self.host.seal() };
            let wrote = sealed.is_some();
            if let Some(batch) = sealed {
                if !std::mem::replace(&mut self.wrote_log, true) {
                    self.wrote_notify.notify_one();
                }
                if let Progress::Done(report) = self.wal.write(batch, self.mono_ms()) {
                    self.learn(report)?;
                }
            }
            if !progressed && !wrote {
                return Ok(());
            }
        }
    }

    fn carry_out(&mut self, outputs: &mut Outputs) -> Result<(), String> {
        self.backlog.extend(outputs.committed.drain(..));
        self.apply_backlog()?;
        self.carry_out_cluster(outputs);
        self.after_members();
        Ok(())
    }

    /// Applies what is committed, in order.
    ///
    /// Nobody holds writes back on a follower's account: one whose flusher is behind leaves entries to its log until there is room
    /// in memory again. Raft hands out a bounded amount of them. NB: a leader always goes on, since clients wait for it, and holds back
    /// the writes themselves.
    fn apply_backlog(&mut self) -> Result<(), String> {
        let mut applied = false;
        while !self.backlog.is_empty() {
            if !self.leads() && self.host.write_stall() {
                break;
            }
            let Some(committed) = self.backlog.pop_front() else { break };
            if !self.is_prefetched(&committed.entry) {
                self.backlog.push_front(committed);
                break;
            }
            debug_assert_eq!(committed.group, DATA_GROUP);
            self.members_changed |= committed.conf.is_some();
            self.apply(&committed.entry, committed.conf).map_err(|error| error.to_string())?;
            self.forget_prefetched();
            applied = true;
        }
        if applied {
            self.host.data_mut().finished_apply();
        }
        Ok(())
    }

    /// Takes in what the log's writer did.
    pub(super) fn learn(&mut self, report: Report) -> Result<(), String> {
        self.wal.reported(&report);
        self.metrics.record_sync(report.took);
        let written = report.written?;
        if written.wants_prepare() {
            // A full queue means that the helper is about to look anyway.
            let _ = self.prepare.try_send(());
        }
        self.host.written(written);
        Ok(())
    }

    /// Upkeep of the host, and the periodic sync of the weaker durabilities. `true`: writes must wait for the flusher.
    pub(super) fn maintain(&mut self) -> bool {
        let upkeep = self.host.maintain(self.clock_ms);
        let now_ms = self.mono_ms();
        let due = match self.wal.durability() {
            Durability::Always => false,
            Durability::Everysec => now_ms.saturating_sub(self.everysec_ms) >= EVERYSEC_MS,
            // Nobody waits for this sync but the flusher, which may not move to the store what the log could still lose.
            Durability::No => upkeep.wants_sync,
        };
        if due
            && self.host.fault().is_none()
            && let Some(synced) = self.wal.sync(now_ms)
        {
            self.everysec_ms = now_ms;
            match synced {
                Ok(written) => self.host.written(written),
                Err(reason) => self.fail_turn(&reason),
            }
        }
        upkeep.stalled
    }
}
