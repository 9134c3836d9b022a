//! Bringing a replica up: the folder's lock, the log's recovery, the table's base, and the log above it applied again.

use super::{DATA_GROUP, Lookups, Replica};
use crate::server::StartError;
use crate::settings::{Durability, Settings};
use holdfast_engine::folder::DataFolder;
use holdfast_engine::ledger::Ledger;
use holdfast_engine::log::{HardState, LogEntry, LogStore};
use holdfast_engine::table::{Applied, Tables, TablesOptions};
use holdfast_engine::vfs::OsVfs;
use holdfast_engine::wal::{self, Preparer, RecoveryReport, WalOptions};

use holdfast_raft::{ConfState, Config, Entry, EntryKind, InitialState, LogError, LogReader, Raft, ReplicaId};
use std::sync::{Arc, mpsc};

/// The only voter of a single node's group.
const SOLE_VOTER: ReplicaId = 1;
/// A new group's log begins after this entry, which nobody ever wrote: a replica that joins later can only start from a
/// snapshot, which brings it the membership.
const BASE: (u64, u64) = (1, 1);
/// An entry that waited this long in memory is moved to the store even if memory is plentiful.
const FLUSH_AGE_MS: u64 = 30_000;
/// On a store that does not reach the platters, a snapshot is sealed whenever this much was moved to it.
const SEAL_BYTES: u64 = 256 << 20;

/// A replica that is ready to serve once the log above its table is applied.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) replica: Replica,
    /// What the operator should know, or nothing.
    pub(crate) summary: String,
}

impl Replica {
    /// Opens the data folder, or makes it.
    ///
    /// # Errors
    /// When the folder can't be used, is damaged, or another process has it.
    pub(crate) fn open(settings: &Settings, now_ms: u64, random: u128) -> Result<Recovered, StartError> {
        let vfs = OsVfs::shared();
        let mut folder = DataFolder::open(Arc::clone(&vfs), &settings.dir, random, settings.store)?;
        let budget = Budget::of(settings.memory_budget_bytes);
        let ledger = Arc::new(Ledger::new(settings.memory_budget_bytes));

        let mut options = WalOptions::new(folder.identity().folder, folder.identity().boot ^ (random as u64));
        options.segment_bytes = settings.log_segment_bytes;
        options.log_bytes_max = settings.log_bytes_max;
        options.cache_bytes_max = usize::try_from(budget.log).unwrap_or(usize::MAX);
        options.expect_existing = folder.identity().initialised;
        options.durability = match settings.durability {
            Durability::Always => wal::Durability::Always,
            Durability::Everysec => wal::Durability::Everysec,
            Durability::No => wal::Durability::No,
        };
        let (mut log, mut wal, report) = LogStore::open(Arc::clone(&vfs), &settings.dir.join("wal"), options)?;
        if log.group(DATA_GROUP).is_none() {
            log.create_group(DATA_GROUP);
            log.reset(DATA_GROUP, BASE.0, BASE.1);
            log.set_hard_state(DATA_GROUP, HardState { term: BASE.1, vote: 0, commit: BASE.0 });
            if let Some(batch) = log.seal() {
                log.written(wal.write(batch, now_ms)?);
            }
        }

        let mut options = TablesOptions::new(settings.dir.join("table"));
        options.store = settings.store;
        options.memtable_bytes_max = budget.memtables;
        options.cache_bytes_max = budget.cache;
        options.store_cache_bytes_max = budget.store;
        options.flush_age_ms = FLUSH_AGE_MS;
        options.seal_bytes = SEAL_BYTES;
        options.boot_id = boot_id();
        options.hash_seed = (random >> 64) as u64;
        let tables = Tables::open(vfs, options, Arc::clone(&ledger))?;
        let mut table = tables.table(DATA_GROUP)?;
        folder.set_initialised()?;

        let (prepare, wanted) = mpsc::sync_channel(1);
        spawn_preparer(wal.preparer(), wanted).map_err(StartError::Runtime)?;
        // The active segment may be the last one made ready.
        let _ = prepare.try_send(());

        let group = log.group(DATA_GROUP).ok_or_else(|| StartError::Recovery("the log has lost its group".into()))?;
        if table.applied().index == 0 && group.compacted() == BASE {
            table.set_applied(Applied { index: BASE.0, term: BASE.1, stamp_ms: 0 });
        }
        table.check_meets_log(group.first_index())?;
        let state = group.hard_state();
        let initial = InitialState {
            hard_state: holdfast_raft::HardState { term: state.term, vote: state.vote, commit: state.commit },
            conf_state: ConfState { voters: vec![SOLE_VOTER], ..ConfState::default() },
            applied: table.applied().index,
        };
        let mut config = Config::new(SOLE_VOTER);
        config.seed = random as u64;
        // A turn's entries are bounded by the connections' limits already, and refusing one here would fail the turn.
        config.uncommitted_bytes_max = usize::MAX;
        let raft = Raft::new(config, initial, 0, &View(&log)).map_err(|error| {
            StartError::Recovery(format!(
                "the log in {} and the table in {} do not belong together: {error}; restore a backup of the whole folder",
                settings.dir.join("wal").display(),
                settings.dir.join("table").display()
            ))
        })?;
        let summary = summarize(&report);
        let time_ms = table.applied().stamp_ms;
        let mut replica = Replica {
            raft,
            synced_index: log.group(DATA_GROUP).map_or(0, |group| group.last_index()),
            log,
            wal,
            table,
            tables,
            ledger,
            lookups: Lookups::default(),
            checkpoints: 0,
            checkpoint_last_ms: 0,
            time_ms,
            stamp_ms: time_ms,
            applying: 0,
            everysec_ms: 0,
            log_bytes_max: settings.log_bytes_max,
            flush_asked_bytes: 0,
            fault: None,
            prepare,
            _folder: folder,
        };
        // Alone, a replica needs nobody's leave to lead; what its log holds beyond the table commits with its first entry.
        replica.raft.campaign();
        Ok(Recovered { replica, summary })
    }
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

/// What recovery found, for people.
fn summarize(report: &RecoveryReport) -> String {
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

fn spawn_preparer(mut preparer: Preparer, wanted: mpsc::Receiver<()>) -> std::io::Result<()> {
    std::thread::Builder::new().name("holdfast-segments".into()).spawn(move || {
        while wanted.recv().is_ok() {
            loop {
                match preparer.step() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        tracing::error!(%error, "cannot make the next log segment ready");
                        break;
                    }
                }
            }
        }
    })?;
    Ok(())
}

/// Tells one run of the operating system from the next: with the same one, what a killed process wrote is still in
/// the page cache.
#[allow(clippy::disallowed_methods, reason = "not a file of the data folder")]
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The group's log as the Raft core reads it.
#[derive(Debug)]
pub(super) struct View<'a>(pub(super) &'a LogStore);

impl LogReader for View<'_> {
    fn first_index(&self) -> u64 {
        self.0.group(DATA_GROUP).map_or(1, |log| log.first_index())
    }

    fn last_index(&self) -> u64 {
        self.0.group(DATA_GROUP).map_or(0, |log| log.last_index())
    }

    fn term(&self, index: u64) -> Result<u64, LogError> {
        self.0.group(DATA_GROUP).and_then(|log| log.term(index)).ok_or(LogError::Compacted)
    }

    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let log = self.0.group(DATA_GROUP).ok_or(LogError::Compacted)?;
        if low < log.first_index() {
            return Err(LogError::Compacted);
        }
        let entries = log.entries(low, high, bytes_max).map_err(|error| LogError::Damaged(error.to_string()))?;
        entries.into_iter().map(raft_entry).collect()
    }
}

fn raft_entry(entry: LogEntry) -> Result<Entry, LogError> {
    let kind = kind_from_disk(entry.kind)
        .ok_or_else(|| LogError::Damaged(format!("entry {} is of unknown kind {}", entry.index, entry.kind)))?;
    Ok(Entry { term: entry.term, index: entry.index, kind, payload: entry.payload })
}

/// The kinds of entry as the log has them. They are on disk: never reuse a number.
pub(super) fn kind_to_disk(kind: EntryKind) -> u8 {
    match kind {
        EntryKind::Normal => 0,
        EntryKind::Noop => 1,
        EntryKind::ConfChange => 2 | holdfast_engine::log::KIND_SYNCED,
    }
}

fn kind_from_disk(number: u8) -> Option<EntryKind> {
    [EntryKind::Normal, EntryKind::Noop, EntryKind::ConfChange].into_iter().find(|kind| kind_to_disk(*kind) == number)
}
