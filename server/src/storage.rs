//! From settings to an open host: the folder's lock, the memory budget's shares, the log's recovery.

use crate::host::{Host, HostOptions, OpenError, Opened};
use crate::server::StartError;
use crate::settings::{Durability, Settings};
use holdfast_engine::folder::DataFolder;
use holdfast_engine::table::TablesOptions;
use holdfast_engine::vfs::OsVfs;
use holdfast_engine::wal::{self, RecoveryReport, WalOptions};

/// An entry that waited this long in memory is moved to the store even if memory is plentiful.
const FLUSH_AGE_MS: u64 = 30_000;
/// On a store that does not reach the platters, a snapshot is sealed whenever this much was moved to it.
const SEAL_BYTES: u64 = 256 << 20;
/// Heartbeats in an election timeout: one that is lost or late must not cost a leader its office.
const HEARTBEATS_PER_TIMEOUT: u64 = 10;

/// Takes the data folder, or makes it.
///
/// # Errors
/// When it can't be used, is damaged, or another process has it.
pub(crate) fn open_folder(settings: &Settings, random: u128) -> Result<DataFolder, StartError> {
    Ok(DataFolder::open(OsVfs::shared(), &settings.dir, random, settings.store)?)
}

/// Opens the host in its folder. `commit_all`: see [`HostOptions::commit_all`].
///
/// # Errors
/// When what the folder holds can't be brought to a state that may serve.
pub(crate) fn open_host(
    settings: &Settings,
    folder: DataFolder,
    random: u128,
    commit_all: bool,
) -> Result<Opened, StartError> {
    let budget = Budget::of(settings.memory_budget_bytes);
    let identity = *folder.identity();

    let mut wal = WalOptions::new(identity.folder, identity.boot ^ (random as u64));
    wal.segment_bytes = settings.log_segment_bytes;
    wal.log_bytes_max = settings.log_bytes_max;
    wal.cache_bytes_max = usize::try_from(budget.log).unwrap_or(usize::MAX);
    wal.durability = match settings.durability {
        Durability::Always => wal::Durability::Always,
        Durability::Everysec => wal::Durability::Everysec,
        Durability::No => wal::Durability::No,
    };

    let mut tables = TablesOptions::new(settings.dir.join("table"));
    tables.folder = identity.folder;
    tables.store = settings.store;
    tables.memtable_bytes_max = budget.memtables;
    tables.cache_bytes_max = budget.cache;
    tables.store_cache_bytes_max = budget.store;
    tables.flush_age_ms = FLUSH_AGE_MS;
    tables.seal_bytes = SEAL_BYTES;
    tables.boot_id = boot_id();
    tables.hash_seed = (random >> 64) as u64;

    let options = HostOptions {
        vfs: OsVfs::shared(),
        wal,
        tables,
        store: None,
        memory_bytes_max: settings.memory_budget_bytes,
        election_timeout_ms: settings.election_timeout_ms,
        heartbeat_interval_ms: (settings.election_timeout_ms / HEARTBEATS_PER_TIMEOUT).max(1),
        sleep_after_ms: (settings.sleep_after_ms > 0).then_some(settings.sleep_after_ms),
        lease_reads: settings.lease_reads,
        append_bytes_max: None,
        state_check_interval_ms: settings.state_check_interval_seconds.saturating_mul(1000),
        commit_all,
        seed: random as u64,
    };
    Host::open(folder, options, 0).map_err(|error| match error {
        OpenError::Engine(error) => StartError::Engine(error),
        OpenError::Inconsistent(what) => StartError::Recovery(what),
    })
}

/// How the memory budget is shared out, in bytes. What is left is for connections, queues and the allocator.
#[derive(Debug, Clone, Copy)]
struct Budget {
    memtables: u64,
    cache: u64,
    store: u64,
    log: u64,
}

impl Budget {
    fn of(total: u64) -> Self {
        Budget { memtables: total * 3 / 8, cache: total / 4, store: total / 8, log: total / 32 }
    }
}

/// What recovery found, for people; empty when there is nothing to say.
pub(crate) fn summarize(report: &RecoveryReport) -> String {
    let mut text = String::new();
    if report.torn_bytes > 0 {
        let place = report
            .torn_at
            .as_ref()
            .map_or_else(String::new, |(path, offset)| format!(" at offset {offset} of {}", path.display()));
        text = format!("cut {} bytes of an unfinished last write{place}", report.torn_bytes);
    }
    if report.promise_lost() {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(
            "the last stop was unclean and durability was not 'always': the last acknowledged writes may be lost",
        );
    }
    text
}

/// Tells one run of the operating system from the next: with the same one, what a killed process wrote is still in
/// the page cache.
#[allow(clippy::disallowed_methods, reason = "not a file of the data folder")]
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
