//! What a shard counts and publishes.

use super::Shard;
use crate::command::CommandSpec;
use crate::node::{ClientInfo, GaugeSet, Node, ShardFigures, ShardGauges, StatsBatch};
use crate::replica::SessionEffect;
use crate::resp::ErrorCode;
use std::sync::Arc;
use std::time::Duration;

/// Names of the figures of the checks of the state in INFO.
const CHECK_FIGURES: &[&str] = &["state_checked_index", "state_check_differing", "state_differs", "state_rebuilds"];

/// Names of the log's figures in INFO, in the order in which [`Shard::publish`] sets them.
const ENGINE_FIGURES: &[&str] = &[
    "log_bytes",
    "log_live_bytes",
    "log_batches",
    "log_syncs",
    "log_bytes_written",
    "log_idle_statements",
    "log_segments_unprepared",
    "sync_p50_us",
    "sync_p99_us",
    "sync_max_us",
    "memtable_bytes",
    "frozen_bytes",
    "cache_bytes",
    "store_disk_bytes",
    "store_blocking_reads",
    "store_fetched_bytes",
    "pinned_bytes",
];
const RAFT_FIGURES: &[&str] =
    &["term", "commit_index", "applied_index", "log_first_index", "log_last_index", "leader", "asleep"];

/// The first two are what there is now, the others are counted since the start, on every replica.
const SESSION_FIGURES: &[&str] = &[
    "session_records",
    "session_bytes",
    "sessions_issued",
    "session_writes_run",
    "session_writes_replayed",
    "session_writes_refused",
    "session_records_forgotten",
];

/// What entries about sessions did.
#[derive(Debug, Default)]
pub(super) struct SessionCounts {
    issued: u64,
    run: u64,
    replayed: u64,
    refused: u64,
    forgotten: u64,
}

impl SessionCounts {
    pub(super) fn count(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Issued => self.issued += 1,
            SessionEffect::Ran(_) => self.run += 1,
            SessionEffect::Replayed => self.replayed += 1,
            SessionEffect::Refused => self.refused += 1,
            SessionEffect::Swept(count) => self.forgotten += count,
        }
    }
}

/// A histogram of durations in powers of two of microseconds, with four steps to each.
#[derive(Debug)]
struct Durations {
    counts: [u64; 128],
    max_us: u64,
}

impl Durations {
    fn record(&mut self, duration: Duration) {
        let us = duration.as_micros() as u64;
        self.max_us = self.max_us.max(us);
        self.counts[Self::step(us)] += 1;
    }

    fn step(us: u64) -> usize {
        let us = us.max(4);
        let power = us.ilog2();
        ((power as usize - 2) * 4 + ((us >> (power - 2)) & 3) as usize).min(127)
    }

    /// The upper end of the step in which the quantile lies, in microseconds.
    fn quantile_us(&self, permille: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut left = (total * permille).div_ceil(1000);
        for (step, count) in self.counts.iter().enumerate() {
            if left <= *count && *count > 0 {
                let (power, quarter) = (step / 4 + 2, step as u64 % 4);
                return ((4 + quarter + 1) << (power - 2)).min(self.max_us);
            }
            left -= left.min(*count);
        }
        0
    }
}

/// A command for the slow log, its arguments cut.
#[derive(Debug)]
struct SlowCommand {
    words: Vec<Vec<u8>>,
    duration: Duration,
    client: Option<Arc<ClientInfo>>,
}

/// A shard's figures between two publications, and where they go.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) batch: StatsBatch,
    slower_than_us: i64,
    /// Commands that took long enough for the slow log.
    slow: Vec<SlowCommand>,
    syncs: Durations,
    gauges: Arc<ShardGauges>,
    engine: Arc<GaugeSet>,
    checks: Arc<GaugeSet>,
    raft: Arc<GaugeSet>,
    pub(super) blocked_clients: u64,
    pub(super) sessions: SessionCounts,
    session_gauges: Arc<GaugeSet>,
}

impl Metrics {
    pub(super) fn new(node: &Node) -> Self {
        Metrics {
            batch: StatsBatch::default(),
            slower_than_us: node.live.slowlog_log_slower_than_us(),
            slow: Vec::new(),
            syncs: Durations { counts: [0; 128], max_us: 0 },
            gauges: node.register_shard(),
            engine: node.register_gauges("Engine", ENGINE_FIGURES),
            checks: node.register_gauges("State", CHECK_FIGURES),
            raft: node.register_gauges("Raft", RAFT_FIGURES),
            blocked_clients: 0,
            sessions: SessionCounts::default(),
            session_gauges: node.register_gauges("Sessions", SESSION_FIGURES),
        }
    }

    /// Counts a write-and-sync of the log.
    pub(super) fn record_sync(&mut self, duration: Duration) {
        self.syncs.record(duration);
    }

    /// Counts a command that ran.
    #[inline]
    pub(super) fn record_command(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        duration: Duration,
        error: Option<ErrorCode>,
        client: Option<&Arc<ClientInfo>>,
    ) {
        self.batch.ran(spec.id, duration.as_nanos() as u64, error);
        if self.slower_than_us >= 0 && duration.as_micros() as i64 >= self.slower_than_us {
            self.keep_slow(spec, args, duration, client);
        }
    }

    #[cold]
    fn keep_slow(
        &mut self,
        spec: &'static CommandSpec,
        args: &[&[u8]],
        duration: Duration,
        client: Option<&Arc<ClientInfo>>,
    ) {
        /// More than the slow log takes between two publications is not kept.
        const SLOW_MAX: usize = 128;
        if self.slow.len() < SLOW_MAX {
            let mut words: Vec<Vec<u8>> = spec.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
            let named = words.len();
            words.extend(args.iter().skip(named).take(32).map(|arg| arg[..arg.len().min(128)].to_vec()));
            self.slow.push(SlowCommand { words, duration, client: client.cloned() });
        }
    }
}

impl Shard {
    /// Publishes what was counted since the last time.
    pub(super) fn publish(&mut self) {
        let (hits, misses) = self.host.data_mut().take_lookups();
        self.metrics.batch.counters.keyspace_hits += hits;
        self.metrics.batch.counters.keyspace_misses += misses;
        self.node.stats.add(&mut self.metrics.batch);
        self.metrics.slower_than_us = self.node.live.slowlog_log_slower_than_us();
        for SlowCommand { words, duration, client } in self.metrics.slow.drain(..) {
            let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let us = duration.as_micros() as u64;
            self.node.slowlog.record(self.node.live.slowlog_max_len(), self.clock_ms, us, &args, client.as_deref());
        }
    }

    /// Publishes figures that cost a little to gather.
    pub(super) fn publish_figures(&mut self) {
        self.publish();
        self.node.stats.sample(self.clock_ms);
        let mut client_bytes = 0;
        for (_, conn) in &self.conns {
            client_bytes += conn.buffer_bytes() as u64;
            conn.info.set_buffers(conn.input_bytes(), conn.reply.output().len_bytes(), conn.buffer_bytes());
        }
        self.host.post_memory(client_bytes);
        let (replica, tables, log) = (self.host.data(), self.host.tables(), self.host.log());
        let table = &replica.table;
        let stats = table.stats();
        let (applied, durable) = (table.applied().index, table.durable().index);
        self.metrics.gauges.publish(&ShardFigures {
            keys: table.len_about(),
            memory_bytes: self.host.ledger().total(),
            dataset_bytes: stats.active_bytes + stats.frozen_bytes + tables.cache_bytes(),
            client_bytes,
            blocked_clients: self.metrics.blocked_clients,
            writes_since_checkpoint: applied.saturating_sub(durable),
            log_bytes: log.log_bytes(),
            checkpoints: replica.checkpoints,
            checkpoint_running: u64::from(stats.frozen_bytes > 0),
            checkpoint_last_ms: replica.checkpoint_last_ms,
            writes_stopped: u64::from(self.host.fault().is_some()),
            applied_index: applied,
            ..ShardFigures::default()
        });
        let standing = replica.check_standing();
        let checks = [standing.index, standing.differing, u64::from(standing.differs), standing.rebuilt];
        checks.into_iter().enumerate().for_each(|(at, value)| self.metrics.checks.set(at, value));
        let syncs = &self.metrics.syncs;
        let wal = self.wal.metrics();
        let engine = [
            log.log_bytes(),
            log.live_bytes(),
            wal.batches,
            wal.syncs,
            wal.bytes,
            wal.idle_statements,
            wal.segments_unprepared,
            syncs.quantile_us(500),
            syncs.quantile_us(990),
            syncs.max_us,
            stats.active_bytes,
            stats.frozen_bytes,
            tables.cache_bytes(),
            tables.disk_bytes(),
            stats.blocking_reads,
            stats.fetched_bytes,
            stats.pinned_bytes,
        ];
        let status = replica.raft().status();
        let leader = status.role.leader.unwrap_or(0);
        // Raft counts a snapshot as applied before it is in place; those who watch a node want to know what it holds.
        let applied = replica.applied().index;
        let asleep = u64::from(replica.raft().is_asleep());
        let raft = [status.role.term, status.commit, applied, status.first, status.last, leader, asleep];
        for (at, value) in engine.into_iter().enumerate() {
            self.metrics.engine.set(at, value);
        }
        for (at, value) in raft.into_iter().enumerate() {
            self.metrics.raft.set(at, value);
        }
        let (records, bytes) = self.host.data().session_figures();
        let SessionCounts { issued, run, replayed, refused, forgotten } = self.metrics.sessions;
        for (at, value) in [records, bytes, issued, run, replayed, refused, forgotten].into_iter().enumerate() {
            self.metrics.session_gauges.set(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_at_the_upper_end_of_their_step() {
        let mut durations = Durations { counts: [0; 128], max_us: 0 };
        assert_eq!(durations.quantile_us(990), 0);
        for us in 1..=1000 {
            durations.record(Duration::from_micros(us));
        }
        let median = durations.quantile_us(500);
        assert!((500..=640).contains(&median), "{median}");
        assert_eq!(durations.quantile_us(1000), 1000);
        durations.record(Duration::from_secs(5000));
        assert_eq!(durations.max_us, 5_000_000_000);
    }
}
