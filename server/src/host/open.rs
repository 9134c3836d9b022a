//! Bringing a host up: the log's recovery, the tables' bases, and each group's Raft over both.

use super::Host;
use super::alive::Alive;
use super::differs::DifferenceNote;
use super::starts::StartBook;
use crate::cluster::{Members, NodeId, Pace};
use crate::replica::{DATA_GROUP, Replica};
use holdfast_engine::GroupId;
use holdfast_engine::folder::DataFolder;
use holdfast_engine::ledger::Ledger;
use holdfast_engine::log::{HardState, LogEntry, LogStore};
use holdfast_engine::store::CheckpointStore;
use holdfast_engine::table::{Applied, Tables, TablesOptions};
use holdfast_engine::vfs::SharedVfs;
use holdfast_engine::wal::{RecoveryReport, WalOptions, WalWriter};
use holdfast_raft::{ConfState, Config, Entry, EntryKind, InitialState, LogError, Raft};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// The first node of a cluster, and the only voter of a node that is alone.
const FIRST_NODE: NodeId = 1;
/// A new group's log begins after this entry, which nobody ever wrote: a replica that joins later can only start from a
/// snapshot, which brings it the membership.
const BASE: (u64, u64) = (1, 1);

/// Append messages on their way to one follower. Few: what arrives meanwhile joins the next, so that each carries more.
const INFLIGHT_APPENDS_MAX: usize = 2;

/// A node's place in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterIdentity {
    /// The cluster.
    pub cluster: u128,
    /// The node in it.
    pub node: NodeId,
}

/// What a host is opened with.
#[derive(Debug)]
pub struct HostOptions {
    /// Where files are.
    pub vfs: SharedVfs,
    /// The log's layout.
    pub wal: WalOptions,
    /// The tables' layout.
    pub tables: TablesOptions,
    /// A store to use instead of opening one: for simulations.
    pub store: Option<Box<dyn CheckpointStore>>,
    /// The memory budget in bytes.
    pub memory_bytes_max: u64,
    /// How long a follower waits for its leader before it stands for election, at least, in milliseconds.
    pub election_timeout_ms: u64,
    /// How often a leader shows that it lives, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// After how long without anything to do a group goes to sleep, in milliseconds; never for none.
    pub sleep_after_ms: Option<u64>,
    /// Serve reads from a lease where one is held, else by a round of the quorum.
    pub lease_reads: bool,
    /// Bytes of entries in one append message; `None`: as Raft's defaults say.
    pub append_bytes_max: Option<usize>,
    /// How often a leader has the replicas' states compared, in milliseconds; 0: only when asked.
    pub state_check_interval_ms: u64,
    /// Take all that the log holds for committed, be it agreed on or not: for the last node of a cluster that is lost.
    pub commit_all: bool,
    /// Where random numbers start.
    pub seed: u64,
}

/// A host that is ready, once the log above its tables is applied.
#[derive(Debug)]
pub struct Opened {
    /// The host.
    pub host: Host,
    /// The log's only writer.
    pub writer: WalWriter,
    /// What recovery found.
    pub report: RecoveryReport,
}

/// Why a host can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder can't be used.
    #[error(transparent)]
    Engine(#[from] holdfast_engine::Error),
    /// Its parts do not belong together.
    #[error("{0}")]
    Inconsistent(String),
}

impl Host {
    /// Opens the log and the tables in a data folder, or makes them. `now_ms` is the driver's monotonic clock.
    ///
    /// # Errors
    /// When something is damaged or foreign, or the disk refuses.
    pub fn open(mut folder: DataFolder, options: HostOptions, now_ms: u64) -> Result<Opened, OpenError> {
        let HostOptions { vfs, mut wal, tables, store, .. } = options;
        let ledger = Arc::new(Ledger::new(options.memory_bytes_max));
        let dir = folder.path().to_path_buf();
        let identity = match (folder.identity().cluster, folder.identity().node) {
            (0, _) | (_, 0) => None,
            (cluster, node) => Some(ClusterIdentity { cluster, node: NodeId::from(node) }),
        };
        let id = identity.map_or(FIRST_NODE, |identity| identity.node);
        wal.expect_existing = folder.identity().initialised;
        let log_bytes_max = wal.log_bytes_max;
        let (mut log, mut writer, report) = LogStore::open(Arc::clone(&vfs), &dir.join("wal"), wal)?;
        // Only the first node founds the group. Another starts with nothing, and is sent a snapshot by the group's leader.
        if log.group(DATA_GROUP).is_none() {
            log.create_group(DATA_GROUP);
            if id == FIRST_NODE {
                log.reset(DATA_GROUP, BASE.0, BASE.1);
                log.set_hard_state(DATA_GROUP, HardState { term: BASE.1, vote: 0, commit: BASE.0 });
            }
            if let Some(batch) = log.seal() {
                log.written(writer.write(batch, now_ms)?);
            }
        }
        let tables = match store {
            Some(store) => Tables::with_store(Arc::clone(&vfs), tables, Arc::clone(&ledger), store)?,
            None => Tables::open(Arc::clone(&vfs), tables, Arc::clone(&ledger))?,
        };
        folder.set_initialised()?;
        remove_incoming(&vfs, &dir)?;

        let mut config = Config::new(id);
        config.seed = options.seed ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        config.election_timeout_ms = options.election_timeout_ms;
        config.heartbeat_interval_ms = options.heartbeat_interval_ms;
        config.sleep_after_ms = options.sleep_after_ms;
        config.lease = options.lease_reads;
        config.append_bytes_max = options.append_bytes_max.unwrap_or(config.append_bytes_max);
        config.inflight_appends_max = INFLIGHT_APPENDS_MAX;
        // What is proposed is bounded by the connections' limits, and the driver holds writes back before followers lag by too
        // much; refusing an entry here would fail a whole turn.
        config.uncommitted_bytes_max = usize::MAX;
        let pace = Pace {
            election_timeout_ms: config.election_timeout_ms,
            lease_ms: if config.lease { config.lease_ms() } else { 0 },
            clock_drift_percent: config.clock_drift_percent,
        };
        let starts = StartBook::open(Arc::clone(&vfs), &folder)?;
        let differences = DifferenceNote::open(Arc::clone(&vfs), &folder)?;
        let mut replicas = Vec::new();
        let groups: Vec<GroupId> = log.groups().collect();
        for group in groups {
            let founder = id == FIRST_NODE;
            if options.commit_all
                && let Some(view) = log.group(group)
            {
                let state = HardState { commit: view.last_index(), ..view.hard_state() };
                log.set_hard_state(group, state);
                if let Some(batch) = log.seal() {
                    log.written(writer.write(batch, now_ms)?);
                }
            }
            let replica = open_replica(&mut log, &mut writer, &tables, group, config.clone(), founder, now_ms)
                .map_err(|error| located(error, &dir))?;
            replicas.push(replica);
        }
        let mut host = Host {
            vfs,
            dir,
            log,
            replicas,
            tables,
            ledger,
            alive: Alive::new(options.heartbeat_interval_ms, options.election_timeout_ms),
            folder,
            identity,
            log_bytes_max,
            sealed_bytes: 0,
            flush_asked_bytes: 0,
            staged: Vec::new(),
            in_flight: VecDeque::new(),
            received: Vec::new(),
            installing: Vec::new(),
            sending: Vec::new(),
            fault: None,
            retired: false,
            starts,
            differences,
            pace,
        };
        for replica in &mut host.replicas {
            // Who is alone has nobody to be compared with.
            replica.set_check_interval(identity.map_or(0, |_| options.state_check_interval_ms));
            // NB: who is left alone has nobody to be rebuilt from.
            if host.differences.has(replica.group()) && !options.commit_all {
                replica.still_differs();
            }
            // Alone, a replica needs nobody's leave to lead; what its log holds beyond the table commits with its first entry.
            if replica.raft.conf_state().is_sole_voter(id) {
                replica.raft.campaign();
            }
        }
        Ok(Opened { host, writer, report })
    }
}

fn located(error: OpenError, dir: &Path) -> OpenError {
    match error {
        OpenError::Inconsistent(what) => OpenError::Inconsistent(format!(
            "the log in {} and the table in {} do not belong together: {what}; restore a backup of the whole folder",
            dir.join("wal").display(),
            dir.join("table").display()
        )),
        error => error,
    }
}

/// What snapshots left behind that were on their way in: whoever sent them starts over.
fn remove_incoming(vfs: &SharedVfs, dir: &Path) -> holdfast_engine::Result<()> {
    let incoming = dir.join("incoming");
    vfs.remove_dir_all(&incoming).map_err(|error| holdfast_engine::Error::io("remove", &incoming, error))
}

fn open_replica(
    log: &mut LogStore,
    writer: &mut WalWriter,
    tables: &Tables,
    group: GroupId,
    config: Config,
    founder: bool,
    now_ms: u64,
) -> Result<Replica, OpenError> {
    let inconsistent = |what: String| OpenError::Inconsistent(what);
    let lost = || inconsistent(format!("the log has lost group {group}"));
    let mut table = tables.table(group)?;
    let view = log.group(group).ok_or_else(lost)?;
    if table.applied().index == 0 && view.compacted() == BASE && founder {
        table.set_applied(Applied { index: BASE.0, term: BASE.1, stamp_ms: 0 });
    }
    table.check_meets_log(view.first_index())?;
    let applied = table.applied();
    // A snapshot was put into the store, and the node stopped before its log was cut for it: what the log holds is older, or
    // was never committed.
    let other =
        applied.index >= view.compacted().0 && view.term(applied.index).is_some_and(|term| term != applied.term);
    if (applied.index > view.last_index() || other) && applied.index > BASE.0 {
        tracing::info!(group, index = applied.index, "the log starts anew after the snapshot that was installed last");
        let state = view.hard_state();
        let term = state.term.max(applied.term);
        let vote = if term == state.term { state.vote } else { 0 };
        log.reset(group, applied.index, applied.term);
        log.set_hard_state(group, HardState { term, vote, commit: state.commit.max(applied.index) });
        if let Some(batch) = log.seal() {
            log.written(writer.write(batch, now_ms)?);
        }
    }
    let view = log.group(group).ok_or_else(lost)?;
    let members = match table.attachment() {
        blob if !blob.is_empty() => Members::decode(blob).map_err(|error| inconsistent(error.to_string()))?,
        _ if founder => Members { conf: ConfState::of_voters([FIRST_NODE]), ..Members::default() },
        _ => Members::default(),
    };
    let state = view.hard_state();
    let initial = InitialState {
        hard_state: holdfast_raft::HardState { term: state.term, vote: state.vote, commit: state.commit },
        conf_state: members.conf.clone(),
        applied: applied.index,
    };
    let last_index = view.last_index();
    let raft = Raft::new(config, initial, now_ms, &super::LogView(log, group))
        .map_err(|error| inconsistent(error.to_string()))?;
    Ok(Replica::new(group, raft, table, members, last_index))
}

pub(super) fn entry_from_disk(entry: LogEntry) -> Result<Entry, LogError> {
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
