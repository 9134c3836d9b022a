//! A simulated file system: files in memory, and everything that a disk may do to them.
//!
//! What the model grants: a sector of 512 B is written whole or not at all; what was synced stays (unless a test flips its
//! bits); a rename is atomic. What it takes: at a crash each sector and each folder entry that was not synced survives or
//! not on its own, whatever the order in which they were written, in any combination of files. A failed sync leaves the
//! pages looking clean: they read back as written, a later sync "succeeds", and the crash shows that they never reached the
//! disk.
//!
//! ```text
//!   write ─▶ contents (what reads see) ── sync ok ──▶ durable
//!                │                      └─ sync fails ─▶ lost: reads see it, a crash reverts it
//!                └─ crash: each unsynced sector is kept or reverted by the plan's dice
//! ```
//!
//! The same seed and the same calls give the same outcome. A handle belongs to one boot of the machine: after
//! [`SimVfs::crash`] every file, lock and handle of the boot before answers with an error, as a dead process would.

use super::{SharedVfs, Vfs, VfsFile, VfsLock};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Error, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is written whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;
type Sector = [u8; SECTOR_BYTES];

/// How much of what was not synced survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing: the machine lost power before any of it was written back.
    Nothing,
    /// Everything: the process died, the machine did not.
    Everything,
    /// Each sector (or folder entry) with this chance, in percent.
    Chance(u8),
}

/// How a crash goes.
#[derive(Debug, Clone, Copy)]
pub struct CrashPlan {
    /// What the dice start from.
    pub seed: u64,
    /// What becomes of unsynced sectors and lengths.
    pub data: Survival,
    /// What becomes of unsynced folder entries.
    pub names: Survival,
}

impl CrashPlan {
    /// A power cut: half of everything unsynced survives, at random.
    pub fn power_cut(seed: u64) -> Self {
        Self { seed, data: Survival::Chance(50), names: Survival::Chance(50) }
    }

    /// Only what was synced survives.
    pub fn synced_only() -> Self {
        Self { seed: 0, data: Survival::Nothing, names: Survival::Nothing }
    }

    /// The process was killed; the operating system keeps what it was given.
    pub fn killed() -> Self {
        Self { seed: 0, data: Survival::Everything, names: Survival::Everything }
    }
}

/// SplitMix64: small, and good enough for dice.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn survives(&mut self, survival: Survival) -> bool {
        match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Chance(percent) => self.next() % 100 < u64::from(percent),
        }
    }
}

#[derive(Debug, Default)]
struct SimFile {
    /// What reads see.
    contents: Vec<u8>,
    durable_len: usize,
    /// The durable contents of sectors that were written since the last sync.
    unsynced: BTreeMap<usize, Sector>,
    /// The durable contents of sectors of which a sync failed: they look clean.
    lost: BTreeMap<usize, Sector>,
}

impl SimFile {
    fn sector(&self, at: usize) -> Sector {
        let mut sector = [0; SECTOR_BYTES];
        let start = (at * SECTOR_BYTES).min(self.contents.len());
        let end = (start + SECTOR_BYTES).min(self.contents.len());
        sector[..end - start].copy_from_slice(&self.contents[start..end]);
        sector
    }

    /// Remembers what is durable of the sectors from byte `start` to byte `end`, before they change.
    fn touch(&mut self, start: usize, end: usize) {
        if start < end {
            for at in start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
                let durable = self.lost.remove(&at).unwrap_or_else(|| self.sector(at));
                self.unsynced.entry(at).or_insert(durable);
            }
        }
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.touch(offset, end);
        if self.contents.len() < end {
            self.contents.resize(end, 0);
        }
        self.contents[offset..end].copy_from_slice(bytes);
    }

    fn set_len(&mut self, len: usize) {
        self.touch(len, self.contents.len());
        self.contents.resize(len, 0);
    }

    fn synced(&mut self) {
        self.unsynced.clear();
        self.durable_len = self.contents.len();
    }

    fn sync_failed(&mut self) {
        self.lost.append(&mut self.unsynced);
    }

    fn crash(&mut self, survival: Survival, dice: &mut Dice) {
        let len = if dice.survives(survival) { self.contents.len() } else { self.durable_len };
        self.contents.resize(self.contents.len().max(len).next_multiple_of(SECTOR_BYTES), 0);
        let mut reverted = std::mem::take(&mut self.lost);
        for (at, durable) in std::mem::take(&mut self.unsynced) {
            if !dice.survives(survival) {
                reverted.insert(at, durable);
            }
        }
        for (at, durable) in reverted {
            let start = at * SECTOR_BYTES;
            if start < self.contents.len() {
                self.contents[start..start + SECTOR_BYTES].copy_from_slice(&durable);
            }
        }
        self.contents.resize(len, 0);
        self.durable_len = len;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// A change of folder entries that no folder sync has covered yet.
#[derive(Debug, Clone)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            NameChange::Put(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(source, target, _) => source.parent() == Some(dir) || target.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Put(path, node) => {
                names.insert(path.clone(), *node);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
            NameChange::Rename(source, target, node) => {
                names.remove(source);
                names.insert(target.clone(), *node);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Faults {
    /// Fails when it reaches zero.
    writes_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    /// After so many changes the machine stands still.
    changes_until_halt: Option<u64>,
    halted: bool,
    read_only: bool,
    /// How many more bytes files may grow by.
    space: Option<u64>,
}

#[derive(Debug, Default)]
struct Disk {
    boot: u64,
    files: Vec<SimFile>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    changes: u64,
    syncs: u64,
}

fn input_output_error() -> Error {
    Error::from_raw_os_error(libc::EIO)
}

fn count_down(counter: &mut Option<u64>) -> bool {
    match counter {
        Some(0) => {
            *counter = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

impl Disk {
    /// To be called before each change: counts it, and refuses if the machine stands still.
    fn change(&mut self) -> io::Result<()> {
        if count_down(&mut self.faults.changes_until_halt) {
            self.faults.halted = true;
        }
        self.alive()?;
        if self.faults.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        self.changes += 1;
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.faults.halted { Err(Error::other("the simulated machine stands still")) } else { Ok(()) }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn dir_exists(&self, dir: &Path) -> bool {
        dir.parent().is_none() || dir.as_os_str().is_empty() || self.names.get(dir) == Some(&Node::Dir)
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// Charges for growth; refuses if there is no room for it.
    fn grow(&mut self, file: usize, len: usize) -> io::Result<()> {
        let growth = len.saturating_sub(self.files[file].contents.len()) as u64;
        if let Some(space) = &mut self.faults.space {
            *space = space.checked_sub(growth).ok_or(ErrorKind::StorageFull)?;
        }
        Ok(())
    }
}

/// A handle to a simulated machine's files, for one of its boots. Cloning gives another handle for the same boot.
#[derive(Debug, Clone)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
    boot: u64,
}

impl Default for SimVfs {
    fn default() -> Self {
        Self::new()
    }
}

impl SimVfs {
    /// An empty, healthy disk.
    pub fn new() -> Self {
        Self { disk: Arc::default(), boot: 0 }
    }

    /// This handle, as engine code takes it.
    pub fn shared(&self) -> SharedVfs {
        Arc::new(self.clone())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, for an operation of this boot.
    fn live(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if disk.boot != self.boot {
            return Err(Error::other("the simulated machine crashed"));
        }
        disk.alive()?;
        Ok(disk)
    }

    /// Crashes the machine; faults are healed. The new handle is for the boot after it, the old ones are dead.
    pub fn crash(&self, plan: CrashPlan) -> SimVfs {
        let mut disk = self.disk();
        let mut dice = Dice(plan.seed);
        let pending = std::mem::take(&mut disk.pending);
        for change in pending {
            if dice.survives(plan.names) {
                change.apply(&mut disk.durable_names);
            }
        }
        // What lies in a folder that never became durable is gone with it.
        let names = disk.durable_names.clone();
        disk.durable_names.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .all(|dir| dir.parent().is_none() || dir.as_os_str().is_empty() || names.get(dir) == Some(&Node::Dir))
        });
        disk.names = disk.durable_names.clone();
        for file in &mut disk.files {
            file.crash(plan.data, &mut dice);
        }
        disk.locks.clear();
        disk.faults = Faults { space: disk.faults.space, ..Faults::default() };
        disk.boot += 1;
        SimVfs { disk: Arc::clone(&self.disk), boot: disk.boot }
    }

    /// Ends the process and leaves the machine running: what reads see stays, synced or not, also what a failed sync lost.
    /// Faults are healed. The new handle is the next process's, the old ones are dead.
    pub fn kill(&self) -> SimVfs {
        let mut disk = self.disk();
        disk.locks.clear();
        disk.faults = Faults { space: disk.faults.space, ..Faults::default() };
        disk.boot += 1;
        SimVfs { disk: Arc::clone(&self.disk), boot: disk.boot }
    }

    /// Makes the write after `others` more writes fail with EIO, having written some of its sectors.
    pub fn fail_write_after(&self, others: u64) {
        self.disk().faults.writes_until_failure = Some(others);
    }

    /// Makes the sync (of a file or folder) after `others` more syncs fail with EIO.
    pub fn fail_sync_after(&self, others: u64) {
        self.disk().faults.syncs_until_failure = Some(others);
    }

    /// Stops the machine after `changes` more changes (writes, syncs, renames ...): everything fails until the crash.
    pub fn halt_after(&self, changes: u64) {
        self.disk().faults.changes_until_halt = Some(changes);
    }

    /// Whether [`SimVfs::halt_after`] has come to pass.
    pub fn halted(&self) -> bool {
        self.disk().faults.halted
    }

    /// Lets files grow by so many bytes in all, and no more; `None` lifts the limit. Lasts beyond a crash.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.disk().faults.space = bytes;
    }

    /// Refuses every change, as a file system does that was remounted after an error.
    pub fn set_read_only(&self, read_only: bool) {
        self.disk().faults.read_only = read_only;
    }

    /// How many changes were made so far, over all boots.
    pub fn changes(&self) -> u64 {
        self.disk().changes
    }

    /// How many syncs succeeded so far, over all boots.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    /// Flips one bit of a file, in what reads see and on the disk.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut bytes = self.contents(path);
        bytes[offset as usize] ^= 1 << bit;
        self.replace(path, &bytes);
    }

    /// What is in a file.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let disk = self.disk();
        let file = disk.file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        disk.files[file].contents.clone()
    }

    /// Replaces a file's contents behind everyone's back, durably; makes the file if it is absent.
    pub fn replace(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk();
        let file = match disk.file(path) {
            Ok(file) => file,
            Err(_) => {
                disk.files.push(SimFile::default());
                let file = disk.files.len() - 1;
                disk.names.insert(path.to_path_buf(), Node::File(file));
                disk.durable_names.insert(path.to_path_buf(), Node::File(file));
                file
            }
        };
        let durable_len = bytes.len();
        disk.files[file] = SimFile { contents: bytes.to_vec(), durable_len, ..SimFile::default() };
    }

    /// Removes a file behind everyone's back, durably.
    pub fn vanish(&self, path: &Path) {
        let mut disk = self.disk();
        disk.names.remove(path);
        disk.durable_names.remove(path);
    }
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn VfsFile>> {
        let mut disk = self.live()?;
        let file = match disk.file(path) {
            Err(e) if e.kind() == ErrorKind::NotFound && create => {
                if !path.parent().is_some_and(|dir| disk.dir_exists(dir)) {
                    return Err(e);
                }
                disk.change()?;
                disk.files.push(SimFile::default());
                let file = disk.files.len() - 1;
                disk.rename(NameChange::Put(path.to_path_buf(), Node::File(file)));
                file
            }
            found => found?,
        };
        Ok(Box::new(SimHandle { vfs: self.clone(), file, writable: true }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let file = self.live()?.file(path)?;
        Ok(Box::new(SimHandle { vfs: self.clone(), file, writable: false }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.live()?;
        let mut missing: Vec<&Path> = path.ancestors().take_while(|dir| !disk.dir_exists(dir)).collect();
        missing.reverse();
        for dir in missing {
            if disk.names.contains_key(dir) {
                return Err(ErrorKind::NotADirectory.into());
            }
            disk.change()?;
            disk.rename(NameChange::Put(dir.to_path_buf(), Node::Dir));
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.live()?;
        if !disk.dir_exists(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name().map(PathBuf::from)).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let disk = self.live()?;
        Ok(disk.dir_exists(path) || disk.names.contains_key(path))
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        let mut disk = self.live()?;
        let file = disk.file(source)?;
        disk.change()?;
        disk.rename(NameChange::Rename(source.to_path_buf(), target.to_path_buf(), Node::File(file)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.live()?;
        disk.file(path)?;
        disk.change()?;
        disk.rename(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.live()?;
        let inside: Vec<PathBuf> = disk.names.keys().filter(|name| name.starts_with(path)).rev().cloned().collect();
        for name in inside {
            disk.change()?;
            disk.rename(NameChange::Remove(name));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.live()?;
        if !disk.dir_exists(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        disk.change()?;
        if count_down(&mut disk.faults.syncs_until_failure) {
            return Err(input_output_error());
        }
        let (synced, pending): (Vec<_>, Vec<_>) =
            std::mem::take(&mut disk.pending).into_iter().partition(|change| change.touches(dir));
        disk.pending = pending;
        synced.iter().for_each(|change| change.apply(&mut disk.durable_names));
        disk.syncs += 1;
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        drop(Vfs::open(self, path, true)?);
        if !self.live()?.locks.insert(path.to_path_buf()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { vfs: self.clone(), path: path.to_path_buf() }))
    }
}

#[derive(Debug)]
struct SimLock {
    vfs: SimVfs,
    path: PathBuf,
}

impl VfsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.vfs.disk();
        // A lock of an earlier boot is gone already; the one held now may be another's.
        if disk.boot == self.vfs.boot {
            disk.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimHandle {
    vfs: SimVfs,
    file: usize,
    writable: bool,
}

impl SimHandle {
    fn for_writing(&self) -> io::Result<MutexGuard<'_, Disk>> {
        if self.writable { self.vfs.live() } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl VfsFile for SimHandle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let disk = self.vfs.live()?;
        let contents = &disk.files[self.file].contents;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        let n = buf.len().min(contents.len() - start);
        buf[..n].copy_from_slice(&contents[start..start + n]);
        Ok(n)
    }

    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut disk = self.for_writing()?;
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let offset = usize::try_from(offset).map_err(|_| Error::from(ErrorKind::FileTooLarge))?;
        disk.change()?;
        if count_down(&mut disk.faults.writes_until_failure) {
            let some = bytes.len() / 2;
            disk.files[self.file].write(&bytes[..some], offset);
            return Err(input_output_error());
        }
        disk.grow(self.file, offset + bytes.len())?;
        disk.files[self.file].write(&bytes, offset);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.vfs.live()?;
        disk.change()?;
        if count_down(&mut disk.faults.syncs_until_failure) {
            disk.files[self.file].sync_failed();
            return Err(input_output_error());
        }
        disk.files[self.file].synced();
        disk.syncs += 1;
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.vfs.live()?.files[self.file].contents.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.for_writing()?;
        disk.change()?;
        let len = usize::try_from(len).map_err(|_| Error::from(ErrorKind::FileTooLarge))?;
        disk.grow(self.file, len)?;
        disk.files[self.file].set_len(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(vfs: &SimVfs, path: &str, bytes: &[u8], offset: u64) -> Box<dyn VfsFile> {
        let file = vfs.open(Path::new(path), true).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], offset).unwrap();
        file
    }

    #[test]
    fn only_what_was_synced_is_sure_to_survive() {
        let vfs = SimVfs::new();
        let file = write(&vfs, "/f", &[1; 1024], 0);
        file.sync_data().unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[IoSlice::new(&[2; 1024])], 512).unwrap();
        let after = vfs.crash(CrashPlan::synced_only());
        assert_eq!(after.contents(Path::new("/f")), [1; 1024]);
        let killed = after.crash(CrashPlan::killed());
        write(&killed, "/f", &[3; 10], 0);
        assert_eq!(
            killed.crash(CrashPlan::killed()).contents(Path::new("/f"))[..11],
            [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 1]
        );
    }

    #[test]
    fn a_power_cut_tears_between_sectors_and_repeats_from_its_seed() {
        let run = |seed| {
            let vfs = SimVfs::new();
            let file = write(&vfs, "/f", &[0; 512 * 64], 0);
            file.sync_all().unwrap();
            vfs.sync_dir(Path::new("/")).unwrap();
            file.write_all_at(&[IoSlice::new(&[9; 512 * 64])], 0).unwrap();
            vfs.crash(CrashPlan::power_cut(seed)).contents(Path::new("/f"))
        };
        let torn = run(1);
        assert!(torn.contains(&0) && torn.contains(&9));
        assert!(torn.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        assert_eq!(torn, run(1));
        assert_ne!(torn, run(2));
    }

    #[test]
    fn names_survive_only_with_their_folder_synced() {
        let vfs = SimVfs::new();
        vfs.create_dir_all(Path::new("/d")).unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        write(&vfs, "/d/old", b"x", 0).sync_all().unwrap();
        vfs.sync_dir(Path::new("/d")).unwrap();
        vfs.rename(Path::new("/d/old"), Path::new("/d/new")).unwrap();
        write(&vfs, "/d/other", b"y", 0).sync_all().unwrap();
        let after = vfs.crash(CrashPlan::synced_only());
        assert_eq!(after.list(Path::new("/d")).unwrap(), [PathBuf::from("old")]);
        after.rename(Path::new("/d/old"), Path::new("/d/new")).unwrap();
        after.sync_dir(Path::new("/d")).unwrap();
        assert_eq!(after.crash(CrashPlan::synced_only()).list(Path::new("/d")).unwrap(), [PathBuf::from("new")]);
    }

    #[test]
    fn a_failed_sync_looks_clean_and_is_lost() {
        let vfs = SimVfs::new();
        let file = write(&vfs, "/f", &[1; 512], 0);
        file.sync_all().unwrap();
        vfs.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(&[IoSlice::new(&[2; 512])], 0).unwrap();
        vfs.fail_sync_after(0);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(vfs.contents(Path::new("/f")), [2; 512]);
        assert_eq!(vfs.crash(CrashPlan::killed()).contents(Path::new("/f")), [1; 512]);
    }

    #[test]
    fn faults_come_when_planned_and_space_runs_out() {
        let vfs = SimVfs::new();
        let file = write(&vfs, "/f", &[1; 100], 0);
        vfs.fail_write_after(1);
        file.write_all_at(&[IoSlice::new(b"a")], 0).unwrap();
        assert!(file.write_all_at(&[IoSlice::new(b"b")], 0).is_err());
        vfs.set_space(Some(10));
        file.write_all_at(&[IoSlice::new(&[7; 100])], 10).unwrap();
        let full = file.write_all_at(&[IoSlice::new(b"c")], 110).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        file.write_all_at(&[IoSlice::new(b"d")], 0).unwrap();
        vfs.set_read_only(true);
        assert!(file.write_all_at(&[IoSlice::new(b"e")], 0).is_err());
    }

    #[test]
    fn a_dead_boot_touches_nothing_and_its_locks_are_gone() {
        let vfs = SimVfs::new();
        let file = write(&vfs, "/f", b"x", 0);
        let lock = vfs.lock(Path::new("/LOCK")).unwrap();
        assert_eq!(vfs.lock(Path::new("/LOCK")).unwrap_err().kind(), ErrorKind::WouldBlock);
        let after = vfs.crash(CrashPlan::killed());
        assert!(file.read_at(&mut [0], 0).is_err() && vfs.exists(Path::new("/f")).is_err());
        let held = after.lock(Path::new("/LOCK")).unwrap();
        drop(lock);
        assert!(after.lock(Path::new("/LOCK")).is_err(), "the dead boot's lock released the living one's");
        drop(held);
        after.lock(Path::new("/LOCK")).unwrap();
    }
}
