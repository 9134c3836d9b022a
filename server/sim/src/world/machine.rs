//! One machine: what outlives its node. A disk, a store, clocks.

use holdfast_engine::folder::DataFolder;
use holdfast_engine::store::MemStore;
use holdfast_engine::store::StoreKind;
use holdfast_engine::vfs::{CrashPlan, SimVfs, Survival};
use holdfast_server::cluster::{Address, Member};
use holdfast_server::host::Host;
use holdfast_server::replica::DATA_GROUP;
use std::path::{Path, PathBuf};

use super::Event;
use super::held::Held;
use super::invariants::check_disk;
use super::marks::Marks;
use super::node::Node;
use super::settings::{DATA_DIR, Settings};
use crate::plan::Crash;
use crate::random::Random;
use crate::time::{Micros, NodeClock, SECOND};

/// The cluster that the first machine founds.
const CLUSTER: u128 = 0x5eed_c1a5_7e12;
/// Starts that may be cut short one after another.
const STILLBORN_MAX: u32 = 5;
/// Changes to the disk, about, that a start makes.
const START_CHANGES: u64 = 40;

/// The longest that a disk takes which does not stall.
const DISK_SPAN_MAX: Micros = 3 * SECOND;

/// What the reason for not starting ends with when rot took the last batch and nothing else.
pub(super) const LAST_BATCH: &str = "(the last batch)";

/// How the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskMood {
    /// Takes this many times as long as it should.
    Slow(u32),
    /// Finishes nothing.
    Stalled,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) number: u32,
    pub(super) clock: NodeClock,
    /// The node, while it is up and belongs to the cluster.
    pub(super) node: Option<Node>,
    /// Counts starts: what was meant for an earlier one is dropped.
    pub(super) boot: u64,
    pub(super) is_up: bool,
    /// What comes while it is paused.
    pub(super) stopped: Option<Vec<Event>>,
    pub(super) disk: DiskMood,
    /// A write would be done if the disk were not stalled.
    pub(super) write_due: bool,
    /// The disk was told to return errors, or is full: it may do so until it is mended.
    pub(super) has_bad_disk: bool,
    /// Bits of its files are not what they were.
    pub(super) is_rotten: bool,
    /// Suspended since.
    pub(super) suspended_at: Option<Micros>,
    /// It had a place in the cluster before: an empty disk makes it no founder again.
    was_member: bool,
    /// What the disk surely holds of the log.
    pub(super) synced: Held,
    /// The same without the last write, of which it can't be known whether it was ever acknowledged.
    synced_before: Held,
    /// What was sealed to be written when the machine went down last.
    sealed: Held,
    /// The folder of a machine that waits for a place in the cluster.
    folder: Option<DataFolder>,
    vfs: SimVfs,
    store: MemStore,
    random: Random,
}

impl Machine {
    pub(super) fn new(number: u32, random: &Random) -> Machine {
        let mut random = random.fork_numbered("machine", u64::from(number));
        Machine {
            number,
            clock: NodeClock::new(0, random.range(0..=1000 * SECOND)),
            node: None,
            boot: 0,
            is_up: false,
            stopped: None,
            disk: DiskMood::Slow(1),
            write_due: false,
            has_bad_disk: false,
            is_rotten: false,
            suspended_at: None,
            was_member: false,
            synced: Held::default(),
            synced_before: Held::default(),
            sealed: Held::default(),
            folder: None,
            vfs: SimVfs::new(),
            store: MemStore::persistent(),
            random,
        }
    }

    /// What the list of members is to say of this machine.
    pub(super) fn member(&self, folder: u128) -> Member {
        let address = |port: u32| Address::new("127.0.0.1", (port + self.number) as u16);
        Member { folder, client: address(7000), peer: address(17_000) }
    }

    /// The identity of the folder that waits for a place in the cluster.
    pub(super) fn waiting_folder(&self) -> Option<u128> {
        self.folder.as_ref().map(|folder| folder.identity().folder)
    }

    /// What the clocks show: monotonic and wall, in milliseconds.
    pub(super) fn clocks(&self, now: Micros) -> (u64, u64) {
        (self.clock.monotonic(now) / 1000, self.clock.wall(now) / 1000)
    }

    /// How long the disk takes for a write; `None` while it stalls.
    pub(super) fn disk_span(&mut self, settings: &Settings) -> Option<Micros> {
        let span = self.random.range(settings.disk_us.clone());
        match self.disk {
            DiskMood::Slow(factor) => Some((span * u64::from(factor)).min(DISK_SPAN_MAX)),
            DiskMood::Stalled => None,
        }
    }

    // ---- up and down -----------------------------------------------------------------------------------------------

    /// Starts on what the disk holds. Now and then the power fails while it does, once or several times.
    ///
    /// # Errors
    /// When what the disk holds can't be opened.
    pub(super) fn start(&mut self, now: Micros, settings: &Settings, marks: &mut Marks) -> Result<(), String> {
        self.boot += 1;
        self.is_up = true;
        for _ in 0..STILLBORN_MAX {
            let stillborn = self.random.chance(settings.stillborn_per_mille);
            if stillborn {
                self.vfs.halt_after(self.random.below(START_CHANGES));
            }
            match self.try_start(now, settings, marks) {
                // NB: also where nothing failed: what can't be done yet is no failure everywhere.
                _ if self.vfs.halted() => {
                    marks.hit("starts cut short");
                    self.node = None;
                    self.folder = None;
                    let plan = self.power_cut();
                    self.vfs = self.vfs.crash(plan);
                }
                outcome => {
                    if stillborn {
                        // It came through; nothing shall stop it later.
                        self.vfs.halt_after(u64::MAX);
                    }
                    return outcome;
                }
            }
        }
        self.try_start(now, settings, marks)
    }

    fn try_start(&mut self, now: Micros, settings: &Settings, marks: &mut Marks) -> Result<(), String> {
        let fresh_id = u128::from(self.number) << 64 | u128::from(self.random.next_u64());
        let mut folder = DataFolder::open(self.vfs.shared(), Path::new(DATA_DIR), fresh_id, StoreKind::Fjall)
            .map_err(|error| error.to_string())?;
        if self.number == 1 && folder.identity().cluster == 0 && !self.was_member {
            folder.join_cluster(CLUSTER, 1).map_err(|error| error.to_string())?;
        }
        if folder.identity().cluster == 0 {
            self.folder = Some(folder);
            return Ok(());
        }
        self.open(now, folder, settings, marks)
    }

    /// The cluster has a place for the folder that waits.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn welcome(
        &mut self,
        now: Micros,
        (cluster, node): (u128, u64),
        settings: &Settings,
        marks: &mut Marks,
    ) -> Result<(), String> {
        let Some(mut folder) = self.folder.take() else { return Ok(()) };
        folder.join_cluster(cluster, node as u32).map_err(|error| error.to_string())?;
        self.open(now, folder, settings, marks)
    }

    fn open(&mut self, now: Micros, folder: DataFolder, settings: &Settings, marks: &mut Marks) -> Result<(), String> {
        let clocks = self.clocks(now);
        let identity = *folder.identity();
        let options = settings.host(self.vfs.shared(), Box::new(self.store.clone()), &identity, &mut self.random);
        let opened = Host::open(folder, options, clocks.0).map_err(|error| error.to_string())?;
        if opened.report.torn_bytes > 0 {
            marks.hit("torn tails cut");
        }
        if let Some(log) = opened.host.log().group(DATA_GROUP) {
            let found = Held::of(log);
            if let Err(reason) = check_disk(self.number, &found, &self.synced, &self.sealed) {
                // What damaged the very last batch can't be told from a crash in the middle of it.
                let last_batch =
                    self.is_rotten && check_disk(self.number, &found, &self.synced_before, &self.sealed).is_ok();
                return Err(if last_batch { format!("{reason} {LAST_BATCH}") } else { reason });
            }
            self.synced_before = found.clone();
            self.synced = found;
        }
        let random = self.random.fork_numbered("node", self.boot);
        let node = Node::start(opened, self.member(identity.folder), settings.clone(), random, clocks)?;
        self.synced.follow_held(&node.sealed);
        self.node = Some(node);
        self.was_member = true;
        Ok(())
    }

    /// The disk is done with the batch that was sealed last.
    ///
    /// Returns whether there was one.
    pub(super) fn write(&mut self, now: Micros) -> bool {
        let clocks = self.clocks(now);
        let Some(node) = self.node.as_mut().filter(|node| node.writing.is_some()) else { return false };
        node.set_clocks(clocks);
        node.disk_write();
        if node.host.fault().is_none() {
            self.synced_before.clone_from(&self.synced);
            self.synced.follow_held(&node.sealed);
        }
        true
    }

    /// Goes down.
    pub(super) fn crash(&mut self, crash: Crash, settings: &Settings, marks: &mut Marks) {
        if let Some(mut node) = self.node.take() {
            self.sealed = node.sealed.clone();
            let data = node.host.data();
            if data.applied().index > node.host.log().group(DATA_GROUP).map_or(0, |log| log.compacted().0) {
                marks.hit("crashes with unflushed memtables");
            }
            if node.writing.is_some() && self.random.chance(settings.torn_per_mille) {
                // The crash comes in the middle of the write, or after it and before anybody heard of it.
                self.vfs.halt_after(self.random.below(4));
                node.disk_write();
                marks.hit("crashes during a write");
            }
        }
        self.folder = None;
        self.is_up = false;
        self.stopped = None;
        self.suspended_at = None;
        self.write_due = false;
        self.vfs = match crash {
            Crash::Kill => self.vfs.kill(),
            Crash::PowerCut => {
                let plan = self.power_cut();
                self.vfs.crash(plan)
            }
        };
    }

    // ---- what disks do ---------------------------------------------------------------------------------------------

    /// The next write or sync fails.
    pub(super) fn fail_next(&mut self, sync: bool) {
        self.has_bad_disk = true;
        let others = self.random.below(3);
        if sync { self.vfs.fail_sync_after(others) } else { self.vfs.fail_write_after(others) }
    }

    /// There is room for so many bytes, and no more.
    pub(super) fn fill(&mut self, bytes: u64) {
        self.has_bad_disk = true;
        self.vfs.set_space(Some(bytes));
    }

    /// The disk works again, and has room.
    pub(super) fn mend(&mut self) {
        self.has_bad_disk = false;
        // NB: never, that is. A fault that has not come by now shall not come any more.
        self.vfs.fail_write_after(u64::MAX);
        self.vfs.fail_sync_after(u64::MAX);
        self.vfs.set_space(None);
        self.disk = DiskMood::Slow(1);
    }

    /// Flips a bit of a file. Says whether there is a file.
    pub(super) fn rot(&mut self) -> bool {
        let wal = Path::new(DATA_DIR).join("wal");
        let folder = if self.random.chance(900) { wal.as_path() } else { Path::new(DATA_DIR) };
        let vfs = self.vfs.shared();
        let mut paths: Vec<PathBuf> =
            vfs.list(folder).unwrap_or_default().into_iter().map(|name| folder.join(name)).collect();
        paths.retain(|path| vfs.open_read(path).is_ok());
        if paths.is_empty() {
            return false;
        }
        let path = &paths[self.random.index(paths.len())];
        // Most of a segment was never written: what lies there harms nobody.
        let contents = self.vfs.contents(path);
        let Some(last) = contents.iter().rposition(|byte| *byte != 0) else { return false };
        let offset = self.random.below(last as u64 + 1);
        let bit = self.random.below(8) as u8;
        self.vfs.flip_bit(path, offset, bit);
        self.is_rotten = true;
        true
    }

    /// The disk is lost, and another takes its place.
    pub(super) fn lose_disk(&mut self) {
        self.vfs = SimVfs::new();
        self.store = MemStore::persistent();
        (self.synced, self.synced_before, self.sealed) = (Held::default(), Held::default(), Held::default());
        (self.has_bad_disk, self.is_rotten) = (false, false);
    }

    fn power_cut(&mut self) -> CrashPlan {
        let survival = [Survival::Nothing, Survival::Chance(10), Survival::Chance(50), Survival::Chance(90)];
        let data = survival[self.random.index(survival.len())];
        let names = survival[self.random.index(survival.len())];
        CrashPlan { seed: self.random.next_u64(), data, names }
    }
}
