//! The glue between the kernel and the model: a [`Disk`] mounted on a folder, with faults that come and go.
//!
//! One thread serves a mount, so the model sees one request at a time. A sync that stalls waits in a thread of its own: the
//! rest of the disk goes on.
//!
//! **At a power cut nothing is answered any more.** A real machine does not hear an error before it goes dark, so from
//! [`Mount::power_off`] on, requests are kept without a reply. The process is killed then; only a process that can't run
//! another instruction gets its replies (errors, which nobody reads), since the kernel would wait for them
//! otherwise.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{Disk, Kind, PAGE_BYTES, Refusal};

/// How long the kernel may remember names and sizes. Nobody else changes them.
const REMEMBERED: Duration = Duration::from_secs(60);
/// What is said to be free: more than anybody will ask for.
const FREE_PAGES: u64 = 1 << 24;

/// What is wrong with a disk right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// Syncs of files fail, and lose what they should have written.
    pub sync_errors: bool,
    /// Writes fail.
    pub write_errors: bool,
    /// Reads fail.
    pub read_errors: bool,
    /// No space is left.
    pub full: bool,
    /// Every sync takes that long.
    pub sync_stall: Option<Duration>,
}

/// Errors that processes were given, and syncs that were served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Requests that failed by a fault.
    pub errors: u64,
    /// Syncs that stalled.
    pub stalls: u64,
}

struct State {
    /// None once it was taken out.
    disk: Option<Disk>,
    faults: Faults,
    counts: Counts,
    /// Syncs succeed and do nothing.
    is_lying: bool,
    is_off: bool,
    /// The process was killed: it can't hear anything any more, but its end waits for replies.
    is_dead: bool,
    /// Requests that get no reply as long as the process could hear it.
    unanswered: Vec<Box<dyn Any + Send>>,
    /// What an open folder listed when it was opened.
    listings: BTreeMap<u64, Vec<(OsString, u64, FileType)>>,
    next_listing: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if the power is on; otherwise the reply is kept.
    fn powered<R: Send + 'static>(&self, reply: R) -> Option<(MutexGuard<'_, State>, R)> {
        let mut state = self.lock();
        if state.is_off {
            state.keep(reply);
            return None;
        }
        Some((state, reply))
    }
}

/// A mounted disk. It is unmounted when this is dropped.
pub struct Mount {
    shared: Arc<Shared>,
    folder: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mount {
    /// Mounts a disk on a folder.
    ///
    /// # Errors
    /// If the kernel or our rights don't allow it.
    pub fn new(disk: Disk, folder: &Path) -> Result<Mount, String> {
        let state = State {
            disk: Some(disk),
            faults: Faults::default(),
            counts: Counts::default(),
            is_lying: false,
            is_off: false,
            is_dead: false,
            unanswered: Vec::new(),
            listings: BTreeMap::new(),
            next_listing: 1,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("holdfast-blackbox".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Served { shared: Arc::clone(&shared) }, folder, &config)
            .map_err(|error| format!("cannot mount a disk on {}: {error}", folder.display()))?;
        Ok(Mount { shared, folder: folder.to_owned(), session: Some(session) })
    }

    /// What is wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.shared.lock();
        if let Some(disk) = &mut state.disk {
            disk.set_full(faults.full);
        }
        state.faults = faults;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// From now on syncs succeed and do nothing: a disk that is not to be trusted, for campaigns that must find that out.
    pub fn set_lying(&self) {
        self.shared.lock().is_lying = true;
    }

    /// What was counted since it was mounted.
    pub fn counts(&self) -> Counts {
        self.shared.lock().counts
    }

    /// From now on nothing changes any more, and nothing is answered.
    pub fn power_off(&self) {
        self.shared.lock().is_off = true;
        self.shared.changed.notify_all();
    }

    /// Lets go of the requests that were kept. Only when the process was killed.
    pub fn release_the_dead(&self) {
        let mut state = self.shared.lock();
        state.is_dead = true;
        state.unanswered.clear();
    }

    /// Unmounts it, and gives the disk back.
    pub fn take(mut self) -> Option<Disk> {
        self.unmount();
        self.shared.lock().disk.take()
    }

    fn unmount(&mut self) {
        {
            let mut state = self.shared.lock();
            state.faults = Faults::default();
            state.is_off = true;
        }
        self.shared.changed.notify_all();
        // Detached: whoever still has a file open does not stand in the way.
        let _ = rustix::mount::unmount(&self.folder, rustix::mount::UnmountFlags::DETACH);
        self.release_the_dead();
        // NB: its thread ends by itself when the last file is closed; nobody waits for it.
        drop(self.session.take());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// What the kernel calls.
struct Served {
    shared: Arc<Shared>,
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::NotFound => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::NotFolder => Errno::ENOTDIR,
        Refusal::IsFolder => Errno::EISDIR,
        Refusal::NoSpace => Errno::ENOSPC,
        Refusal::Unsupported => Errno::EOPNOTSUPP,
    }
}

fn attributes(number: u64, kind: Kind) -> FileAttr {
    let (file_type, size, allocated, perm) = match kind {
        Kind::File { size, allocated } => (FileType::RegularFile, size, allocated, 0o644),
        Kind::Folder => (FileType::Directory, PAGE_BYTES as u64, 0, 0o755),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: allocated / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PAGE_BYTES as u32,
        flags: 0,
    }
}

impl State {
    /// Keeps a reply, or lets it go: then it is an error.
    fn keep<R: Send + 'static>(&mut self, reply: R) {
        if !self.is_dead {
            self.unanswered.push(Box::new(reply));
        }
    }

    fn disk(&mut self) -> Result<&mut Disk, Errno> {
        self.disk.as_mut().ok_or(Errno::EIO)
    }

    /// Counts a refusal if it is a fault's doing.
    fn refused(&mut self, refusal: Refusal) -> Errno {
        self.counts.errors += u64::from(refusal == Refusal::NoSpace);
        errno(refusal)
    }

    fn faulty(&mut self, is_faulty: bool) -> Result<(), Errno> {
        if is_faulty {
            self.counts.errors += 1;
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// Does something that gives a number, which the kernel holds from then on.
    fn entry(&mut self, act: impl FnOnce(&mut Disk) -> Result<u64, Refusal>) -> Result<FileAttr, Errno> {
        let disk = self.disk()?;
        let result = act(disk).and_then(|number| {
            disk.hold(number);
            Ok(attributes(number, disk.kind(number)?))
        });
        result.map_err(|refusal| self.refused(refusal))
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Disk) -> Result<T, Refusal>) -> Result<T, Errno> {
        let result = act(self.disk()?);
        result.map_err(|refusal| self.refused(refusal))
    }

    fn sync(&mut self, file: u64) -> Result<(), Errno> {
        if self.faults.sync_errors {
            self.act(|disk| disk.fail_sync(file))?;
            return self.faulty(true);
        }
        self.counts.syncs += 1;
        let is_lying = self.is_lying;
        self.act(|disk| if is_lying { Ok(()) } else { disk.sync(file) })
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn answer_attributes(reply: ReplyAttr, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        answer_entry(reply, state.entry(|disk| disk.lookup(parent.0, name)));
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        let mut state = self.shared.lock();
        if let (false, Some(disk)) = (state.is_off, &mut state.disk) {
            disk.release(number.0, times);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        answer_attributes(reply, state.act(|disk| Ok(attributes(number.0, disk.kind(number.0)?))));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let is_faulty = state.faults.write_errors && size.is_some();
        let result = state.faulty(is_faulty).and_then(|()| {
            state.act(|disk| {
                if let Some(size) = size {
                    disk.set_size(number.0, size)?;
                }
                Ok(attributes(number.0, disk.kind(number.0)?))
            })
        });
        answer_attributes(reply, result);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        answer_entry(reply, state.entry(|disk| disk.create_folder(parent.0, name)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        answer(reply, state.act(|disk| disk.remove(parent.0, name)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        answer(reply, state.act(|disk| disk.remove_folder(parent.0, name)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let result = state.act(|disk| {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && disk.lookup(new_parent.0, new_name).is_ok() {
                return Err(Refusal::Exists);
            }
            if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
                return Err(Refusal::Unsupported);
            }
            disk.rename((parent.0, name), (new_parent.0, new_name))
        });
        answer(reply, result);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some((state, reply)) = self.shared.powered(reply) else { return };
        drop(state);
        // Past the kernel's cache, so that a read that should fail does.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let is_faulty = state.faults.read_errors;
        let result =
            state.faulty(is_faulty).and_then(|()| state.act(|disk| disk.read(number.0, offset, size as usize)));
        match result {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let is_faulty = state.faults.write_errors;
        let result = state.faulty(is_faulty).and_then(|()| state.act(|disk| disk.write(number.0, offset, bytes)));
        match result {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let Some((state, reply)) = self.shared.powered(reply) else { return };
        drop(state);
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let Some(stall) = state.faults.sync_stall else {
            return answer(reply, state.sync(number.0));
        };
        state.counts.stalls += 1;
        drop(state);
        let (shared, deadline) = (Arc::clone(&self.shared), Instant::now() + stall);
        std::thread::spawn(move || {
            let mut state = shared.lock();
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || state.is_off || state.faults.sync_stall.is_none() {
                    break;
                }
                state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.is_off {
                state.keep(reply);
            } else {
                let result = state.sync(number.0);
                drop(state);
                answer(reply, result);
            }
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let listing = state.act(|disk| {
            let kind_of = |number| match disk.kind(number) {
                Ok(Kind::File { .. }) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            Ok(disk.list(number.0)?.into_iter().map(|(name, number)| (name, number, kind_of(number))).collect())
        });
        match listing {
            Ok(listing) => {
                let handle = state.next_listing;
                state.next_listing += 1;
                state.listings.insert(handle, listing);
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        {
            let state = self.shared.lock();
            let own = [(OsString::from("."), number.0, FileType::Directory)];
            let parent = [(OsString::from(".."), super::ROOT, FileType::Directory)];
            let listing = state.listings.get(&handle.0).map_or(&[][..], Vec::as_slice);
            let all = own.iter().chain(&parent).chain(listing);
            for ((name, number, kind), next) in all.zip(1..).skip(offset as usize) {
                if reply.add(INodeNo(*number), next, *kind, name) {
                    break;
                }
            }
        }
        let Some((_state, reply)) = self.shared.powered(reply) else { return };
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.shared.lock().listings.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let (is_faulty, is_lying) = (state.faults.sync_errors, state.is_lying);
        let result = state
            .faulty(is_faulty)
            .and_then(|()| state.act(|disk| if is_lying { Ok(()) } else { disk.sync_folder(number.0) }));
        answer(reply, result);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let Some((state, reply)) = self.shared.powered(reply) else { return };
        let free = if state.faults.full { 0 } else { FREE_PAGES };
        let page = PAGE_BYTES as u32;
        reply.statfs(FREE_PAGES, free, free, 1 << 20, 1 << 20, page, 255, page);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        match state.entry(|disk| disk.create(parent.0, name)) {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&REMEMBERED, &attributes, Generation(0), FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // FALLOC_FL_KEEP_SIZE; holes and the like are not for this disk.
        const KEEP_SIZE: i32 = 1;
        let Some((mut state, reply)) = self.shared.powered(reply) else { return };
        let result = state.act(|disk| match mode {
            0 | KEEP_SIZE => disk.reserve(number.0, offset, length, mode == KEEP_SIZE),
            _ => Err(Refusal::Unsupported),
        });
        answer(reply, result);
    }
}
