//! How the nodes of a run are set up: drawn from the seed, small enough that rare things happen often.

use holdfast_engine::folder::FolderIdentity;
use holdfast_engine::store::CheckpointStore;
use holdfast_engine::table::{FlusherMode, TablesOptions};
use holdfast_engine::vfs::SharedVfs;
use holdfast_engine::wal::WalOptions;
use holdfast_server::host::HostOptions;
use std::ops::RangeInclusive;

use crate::random::Random;
use crate::time::{MILLISECOND, Micros, SECOND};

/// Where every simulated machine keeps its data.
pub(super) const DATA_DIR: &str = "/data";

/// Chosen so that the seeds that tests name do without readers, and run as they did when they found something.
const SEED_KEEPER: u64 = 15;

/// How often leaders have the replicas' states compared.
const STATE_CHECK_INTERVAL_MS: u64 = 10_000;

/// What the nodes that don't lead answer to who says READONLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaReads {
    /// Nobody says so.
    Unused,
    /// What they know.
    Stale,
    /// What is true, once they know all that the leader says they must.
    Linearizable,
}

/// The same for all nodes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a follower waits for its leader, at least, in milliseconds.
    pub election_timeout_ms: u64,
    /// Whether reads are served from leases.
    pub lease_reads: bool,
    /// See [`HostOptions::sleep_after_ms`]; short, since the clients hardly ever pause for long.
    pub sleep_after_ms: Option<u64>,
    /// The length of a log segment in bytes.
    pub segment_bytes: u64,
    /// Above this much log, memtables are flushed so that it can be cut, in bytes.
    pub log_bytes_max: u64,
    /// Log entries kept in memory, in bytes.
    pub log_cache_bytes_max: usize,
    /// The budget for memtables in bytes.
    pub memtable_bytes_max: u64,
    /// When what waits in memory is flushed, in milliseconds.
    pub flush_age_ms: u64,
    /// How long a write and its sync take.
    pub disk_us: RangeInclusive<Micros>,
    /// How long a turn gathers commands.
    pub turn_us: RangeInclusive<Micros>,
    /// How long each half of putting a snapshot in place takes.
    pub install_us: RangeInclusive<Micros>,
    /// Bytes of a snapshot that travel together.
    pub chunk_bytes: usize,
    /// A snapshot transfer that got no further for so long is given up.
    pub transfer_stall: Micros,
    /// Every how many entries the states of replicas are compared.
    pub compare_every: u64,
    /// How likely a leader hands its office over, ten times a second, of a thousand.
    pub hand_over_per_mille: u32,
    /// How likely a crash leaves the disk with a part of what was being written, of a thousand.
    pub torn_per_mille: u32,
    /// Bytes of entries in one append message.
    pub append_bytes_max: usize,
    /// How likely a node goes down right after it was elected, of a thousand.
    pub fall_per_mille: u32,
    /// How long an unused session is remembered, in seconds.
    pub session_retention_seconds: u32,
    /// What replicas answer.
    pub replica_reads: ReplicaReads,
    /// How likely a start is cut short by another crash, of a thousand.
    pub stillborn_per_mille: u32,
}

impl Settings {
    /// What the seed says.
    pub fn draw(random: &Random) -> Settings {
        let mut sleep = random.fork("sleep");
        let mut sessions = random.fork("sessions");
        let mut replicas = random.fork_numbered("replica reads", SEED_KEEPER);
        let mut random = random.fork("settings");
        let kib = |size: u64| size << 10;
        Settings {
            election_timeout_ms: [300, 500, 1000, 1000][random.index(4)],
            sleep_after_ms: [None, Some(1), Some(20), Some(200)][sleep.index(4)],
            session_retention_seconds: [2, 10, 86_400][sessions.index(3)],
            replica_reads: [ReplicaReads::Unused, ReplicaReads::Stale, ReplicaReads::Linearizable]
                [replicas.weighted(&[500, 200, 300])],
            lease_reads: random.chance(700),
            segment_bytes: kib([16, 32, 128, 512][random.index(4)]),
            log_bytes_max: kib([64, 128, 512, 4096][random.index(4)]),
            log_cache_bytes_max: [0, 4 << 10, 1 << 20][random.index(3)],
            memtable_bytes_max: kib([4, 32, 1024][random.index(3)]),
            flush_age_ms: [200, 1000, 10_000, 60_000][random.index(4)],
            disk_us: 50..=[500, 2 * MILLISECOND, 20 * MILLISECOND, 150 * MILLISECOND][random.index(4)],
            turn_us: 1..=[50, 500, 2 * MILLISECOND][random.index(3)],
            install_us: MILLISECOND..=[2 * MILLISECOND, 50 * MILLISECOND, SECOND][random.index(3)],
            transfer_stall: [2 * SECOND, 5 * SECOND][random.index(2)],
            compare_every: [16, 64, 256][random.index(3)],
            hand_over_per_mille: [0, 0, 2, 20][random.index(4)],
            torn_per_mille: [0, 500, 1000][random.index(3)],
            stillborn_per_mille: [0, 0, 100, 400][random.index(4)],
            chunk_bytes: [2 << 10, 16 << 10, 256 << 10][random.index(3)],
            append_bytes_max: [1, 4 << 10, 1 << 20, 1 << 20][random.index(4)],
            fall_per_mille: [0, 0, 0, 0, 100, 400][random.index(6)],
        }
    }

    /// Those of a script: nothing is drawn, nothing is small, nothing happens by itself.
    pub fn mild() -> Settings {
        Settings {
            election_timeout_ms: 500,
            lease_reads: true,
            sleep_after_ms: None,
            segment_bytes: 512 << 10,
            log_bytes_max: 4 << 20,
            log_cache_bytes_max: 1 << 20,
            memtable_bytes_max: 1 << 20,
            flush_age_ms: 60_000,
            disk_us: 50..=500,
            turn_us: 1..=50,
            install_us: MILLISECOND..=20 * MILLISECOND,
            chunk_bytes: 16 << 10,
            transfer_stall: 2 * SECOND,
            compare_every: 256,
            hand_over_per_mille: 0,
            torn_per_mille: 500,
            append_bytes_max: 1 << 20,
            fall_per_mille: 0,
            session_retention_seconds: 86_400,
            replica_reads: ReplicaReads::Unused,
            stillborn_per_mille: 0,
        }
    }

    /// How a host is opened, as the server would.
    pub(super) fn host(
        &self,
        vfs: SharedVfs,
        store: Box<dyn CheckpointStore>,
        identity: &FolderIdentity,
        random: &mut Random,
    ) -> HostOptions {
        let mut wal = WalOptions::new(identity.folder, identity.boot ^ random.next_u64());
        wal.segment_bytes = self.segment_bytes;
        wal.log_bytes_max = self.log_bytes_max;
        wal.cache_bytes_max = self.log_cache_bytes_max;
        let mut tables = TablesOptions::new(format!("{DATA_DIR}/table"));
        tables.memtable_bytes_max = self.memtable_bytes_max;
        tables.cache_bytes_max = 64 << 10;
        tables.flush_age_ms = self.flush_age_ms;
        tables.flusher = FlusherMode::Inline;
        tables.hash_seed = random.next_u64();
        HostOptions {
            vfs,
            wal,
            tables,
            store: Some(store),
            memory_bytes_max: 64 << 20,
            election_timeout_ms: self.election_timeout_ms,
            heartbeat_interval_ms: self.election_timeout_ms / 10,
            sleep_after_ms: self.sleep_after_ms,
            lease_reads: self.lease_reads,
            append_bytes_max: Some(self.append_bytes_max),
            commit_all: false,
            state_check_interval_ms: STATE_CHECK_INTERVAL_MS,
            seed: random.next_u64(),
        }
    }
}
