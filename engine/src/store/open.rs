//! Opening a checkpoint store, on the assumption that it may be damaged.
//!
//! ```text
//!   store/STORE          which kind of store the folder has, whose it is, and whether it stopped cleanly
//!   store/fjall/ …       the store's own files
//!   store/fjall.aside-1  a store that could not be trusted, kept for the operator
//! ```
//!
//! A store that errs or panics while it opens is set aside and an empty one takes its place. Whether the node may go on then
//! is not decided here: only the log and the sealed snapshots can tell. An error that says nothing about the files (another
//! process has them, no permission, no space) is returned as it is.

use super::{CheckpointStore, FjallStore, MemStore, SledStore};
use crate::vfs::{SharedVfs, create_dir_durably, read_exact_at};
use crate::{Error, Result};
use std::fmt;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

const STATE_FILE: &str = "STORE";
const MAGIC: &[u8; 8] = b"HFSTORE\x02";
/// Magic, kind, clean, the data folder's identity, length of the boot id.
const HEAD_BYTES: usize = 8 + 2 + 16 + 1;
const BOOT_ID_BYTES_MAX: usize = 64;
/// How long a store may take to open, unless its options say otherwise. Replaying what a crash left takes seconds; what takes
/// this long waits for something that will not come.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(120);

/// Which store a folder has, for life. The numbers are on disk: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum StoreKind {
    /// fjall: the default.
    #[default]
    Fjall = 1,
    /// sled: slower, and the log is cut only below sealed snapshots.
    Sled = 2,
    /// In memory: nothing outlives the process.
    Memory = 3,
}

impl StoreKind {
    /// The kind's name in settings and messages.
    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Fjall => "fjall",
            StoreKind::Sled => "sled",
            StoreKind::Memory => "memory",
        }
    }

    /// The kind that a stored number stands for.
    pub(crate) fn from_u8(number: u8) -> Option<Self> {
        [StoreKind::Fjall, StoreKind::Sled, StoreKind::Memory].into_iter().find(|kind| *kind as u8 == number)
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The folder of the store; created if absent.
    pub dir: PathBuf,
    /// The kind that a new folder gets, and that an old one must have.
    pub kind: StoreKind,
    /// The identity of the data folder that the store belongs to; 0 if nobody says: then it is not looked at.
    pub folder: u128,
    /// Memory for the store's own cache, in bytes.
    pub cache_bytes_max: u64,
    /// Distinguishes one run of the operating system from the next; empty if unknown, and then never the same.
    pub boot_id: String,
    /// How long the store's files may take to open before they count as damaged.
    pub open_patience: Duration,
}

/// An open store.
#[derive(Debug)]
pub struct OpenedStore {
    /// The store.
    pub store: Box<dyn CheckpointStore>,
    /// Where the store that was here before went, if it could not be trusted.
    pub set_aside: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    kind: StoreKind,
    clean: bool,
    folder: u128,
    boot_id: String,
}

impl State {
    fn encode(&self) -> Vec<u8> {
        let boot_id = &self.boot_id.as_bytes()[..self.boot_id.len().min(BOOT_ID_BYTES_MAX)];
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&[self.kind as u8, u8::from(self.clean)]);
        out.extend_from_slice(&self.folder.to_le_bytes());
        out.push(boot_id.len() as u8);
        out.extend_from_slice(boot_id);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < MAGIC.len() || bytes[..7] != MAGIC[..7] {
            return Err("not a checkpoint store's state file".into());
        }
        if bytes[7] != MAGIC[7] {
            return Err(format!("written in format {}; this release reads {}", bytes[7], MAGIC[7]));
        }
        if bytes.len() < HEAD_BYTES + 4 {
            return Err("it is too short: the file is damaged".into());
        }
        let (body, crc) = bytes.split_at(bytes.len() - 4);
        if crc32fast::hash(body).to_le_bytes() != crc || body.len() != HEAD_BYTES + usize::from(body[HEAD_BYTES - 1]) {
            return Err("its checksum does not match: the file is damaged".into());
        }
        let kind = StoreKind::from_u8(body[8]).ok_or_else(|| format!("store kind {} is unknown", body[8]))?;
        let folder = body[10..HEAD_BYTES - 1].iter().rev().fold(0, |folder, byte| folder << 8 | u128::from(*byte));
        let boot_id = String::from_utf8_lossy(&body[HEAD_BYTES..]).into_owned();
        Ok(State { kind, clean: body[9] == 1, folder, boot_id })
    }
}

/// Opens the store of a folder, creating it if the folder is new.
///
/// # Errors
/// When the store is another kind's, another data folder's, another format's, in use, or can't be read or written.
pub fn open_store(vfs: &SharedVfs, options: &StoreOptions) -> Result<OpenedStore> {
    let StoreOptions { dir, kind, boot_id, .. } = options;
    if *kind == StoreKind::Memory {
        return Ok(OpenedStore { store: Box::new(MemStore::new()), set_aside: None });
    }
    create_dir_durably(&**vfs, dir)?;
    let state_path = dir.join(STATE_FILE);
    let before = read_state(vfs, &state_path)?;
    if let Some(before) = &before
        && before.kind != *kind
    {
        return Err(Error::Foreign {
            path: dir.clone(),
            detail: format!(
                "the folder's checkpoint store is {}, but the settings ask for {}: set it back, or move the data by a \
                 backup and a restore",
                before.kind.name(),
                kind.name()
            ),
        });
    }
    let known = before.as_ref().map_or(0, |before| before.folder);
    if known != 0 && options.folder != 0 && known != options.folder {
        // NB: nothing else tells: its rows would be taken for what this folder's log has led to.
        return Err(Error::Foreign {
            path: dir.clone(),
            detail: format!(
                "this is the checkpoint store of another folder, {known:032x}, and not of {:032x}: restore a backup of the \
                 whole folder",
                options.folder
            ),
        });
    }
    let folder = if options.folder == 0 { known } else { options.folder };
    let path = dir.join(kind.name());
    let mut set_aside = None;
    // sled's files may be half-written after anything but a clean stop, unless the system that holds them never went down.
    let trusted = *kind != StoreKind::Sled
        || before.is_some_and(|before| before.clean || (!boot_id.is_empty() && before.boot_id == *boot_id));
    if !trusted && vfs.exists(&path).map_err(|error| Error::io("look at", &path, error))? {
        tracing::warn!(path = %path.display(), "sled did not stop cleanly before the machine went down: it is set aside");
        set_aside = Some(move_aside(vfs, &path)?);
    }
    write_state(vfs, &state_path, &State { kind: *kind, clean: false, folder, boot_id: boot_id.clone() })?;
    let store = match open_guarded(options, &path) {
        Ok(store) => store,
        Err(Refusal::Unusable(error)) => return Err(error),
        Err(Refusal::Damaged(detail)) => {
            tracing::error!(path = %path.display(), detail, "the checkpoint store can't be opened: it is set aside");
            set_aside = Some(move_aside(vfs, &path)?);
            match open_guarded(options, &path) {
                Ok(store) => store,
                Err(Refusal::Unusable(error)) => return Err(error),
                Err(Refusal::Damaged(detail)) => return Err(Error::Store { path, detail }),
            }
        }
    };
    let store = if store.interrupted() {
        // NB: not set aside. Nothing is wrong with it but that it holds half a generation, and the log holds that too.
        tracing::warn!(path = %path.display(), "the store stopped in the middle of a generation: it is rebuilt");
        drop(store);
        vfs.remove_dir_all(&path).map_err(|error| Error::io("remove", &path, error))?;
        vfs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        match open_guarded(options, &path) {
            Ok(store) => store,
            Err(Refusal::Unusable(error)) => return Err(error),
            Err(Refusal::Damaged(detail)) => return Err(Error::Store { path, detail }),
        }
    } else {
        store
    };
    // A store syncs what it writes, but not the name of its own folder.
    vfs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    let store: Box<dyn CheckpointStore> = match kind {
        StoreKind::Sled => {
            Box::new(MarkedClean { store, vfs: vfs.clone(), state_path, folder, boot_id: boot_id.clone() })
        }
        _ => store,
    };
    Ok(OpenedStore { store, set_aside })
}

enum Refusal {
    /// The files are bad.
    Damaged(String),
    /// The files may be good.
    Unusable(Error),
}

/// Opens a store on a thread of its own, where it may panic, or never come back.
///
/// sled was seen to wait for ever over damaged files. Such a thread is left behind, with its file handles, until the process
/// ends: there is no way to stop it, and what it holds is about to be set aside.
fn open_guarded(options: &StoreOptions, path: &Path) -> Result<Box<dyn CheckpointStore>, Refusal> {
    let StoreOptions { kind, cache_bytes_max, open_patience, .. } = *options;
    let (sender, receiver) = mpsc::channel();
    let place = path.to_path_buf();
    let opening = std::thread::Builder::new().name("holdfast-open".into()).spawn(move || {
        // The receiver is gone only when it has given up on us.
        let _ = sender.send(open_here(kind, &place, cache_bytes_max));
    });
    if let Err(error) = opening {
        return Err(Refusal::Unusable(Error::io("start a thread to open", path, error)));
    }
    match receiver.recv_timeout(open_patience) {
        Ok(opened) => opened,
        Err(_) => Err(Refusal::Damaged(format!("it did not open within {open_patience:?}"))),
    }
}

fn open_here(kind: StoreKind, path: &Path, cache_bytes_max: u64) -> Result<Box<dyn CheckpointStore>, Refusal> {
    let opened = catch_unwind(AssertUnwindSafe(|| match kind {
        StoreKind::Sled => match SledStore::open(path, cache_bytes_max) {
            Ok(store) => Ok(Box::new(store) as Box<dyn CheckpointStore>),
            Err(::sled::Error::Io(error)) => Err(refuse_io(path, error)),
            Err(error) => Err(Refusal::Damaged(error.to_string())),
        },
        _ => match FjallStore::open(path, cache_bytes_max) {
            Ok(store) => Ok(Box::new(store) as Box<dyn CheckpointStore>),
            Err(::fjall::Error::Locked) => Err(Refusal::Unusable(Error::Locked { path: path.to_path_buf() })),
            Err(::fjall::Error::Io(error)) => Err(refuse_io(path, error)),
            Err(::fjall::Error::Storage(::fjall::LsmError::Io(error))) => Err(refuse_io(path, error)),
            Err(::fjall::Error::InvalidVersion(Some(version))) => Err(Refusal::Unusable(Error::Foreign {
                path: path.to_path_buf(),
                detail: format!("fjall's files are of version {version:?}, which this release can't read"),
            })),
            Err(error) => Err(Refusal::Damaged(error.to_string())),
        },
    }));
    match opened {
        Ok(opened) => opened,
        Err(panic) => Err(Refusal::Damaged(format!("it panicked: {}", crate::table::panic_text(&*panic)))),
    }
}

/// Errors that a damaged or missing file causes, apart from those that the system or the operator does.
fn refuse_io(path: &Path, error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::InvalidData
        | io::ErrorKind::NotFound
        | io::ErrorKind::InvalidInput => Refusal::Damaged(error.to_string()),
        // sled says so when it can't lock its file.
        io::ErrorKind::WouldBlock => Refusal::Unusable(Error::Locked { path: path.to_path_buf() }),
        io::ErrorKind::Other if error.to_string().contains("could not acquire lock") => {
            Refusal::Unusable(Error::Locked { path: path.to_path_buf() })
        }
        _ => Refusal::Unusable(Error::io("open", path, error)),
    }
}

fn move_aside(vfs: &SharedVfs, path: &Path) -> Result<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new("."));
    for number in 1..10_000u32 {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".aside-{number}"));
        let aside = PathBuf::from(aside);
        if vfs.exists(&aside).map_err(|error| Error::io("look at", &aside, error))? {
            continue;
        }
        vfs.rename(path, &aside).map_err(|error| Error::io("set aside", path, error))?;
        vfs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        return Ok(aside);
    }
    Err(Error::Store { path: path.to_path_buf(), detail: "too many stores were set aside here; remove some".into() })
}

fn read_state(vfs: &SharedVfs, path: &Path) -> Result<Option<State>> {
    let file = match vfs.open_read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let len = file.len().map_err(|error| Error::io("read", path, error))?;
    let mut bytes = vec![0; len.min(256) as usize];
    read_exact_at(&*file, &mut bytes, 0).map_err(|error| Error::io("read", path, error))?;
    State::decode(&bytes).map(Some).map_err(|detail| Error::Foreign { path: path.to_path_buf(), detail })
}

fn write_state(vfs: &SharedVfs, path: &Path, state: &State) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let file = vfs.open(&temporary, true)?;
        file.set_len(0)?;
        file.write_all_at(&[IoSlice::new(&state.encode())], 0)?;
        file.sync_all()?;
        drop(file);
        vfs.rename(&temporary, path)?;
        vfs.sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(|error| Error::io("write", path, error))
}

/// Notes in the state file that sled stopped cleanly, once it has.
#[derive(Debug)]
struct MarkedClean {
    store: Box<dyn CheckpointStore>,
    vfs: SharedVfs,
    state_path: PathBuf,
    folder: u128,
    boot_id: String,
}

impl super::ReadRows for MarkedClean {
    fn get(&self, key: &[u8]) -> Result<Option<super::RowBytes>> {
        self.store.get(key)
    }

    fn range<'a>(&'a self, from: &[u8], to: &[u8]) -> super::Rows<'a> {
        self.store.range(from, to)
    }
}

impl CheckpointStore for MarkedClean {
    fn view(&self) -> Result<Box<dyn super::StoreView>> {
        self.store.view()
    }

    fn ingest(&self, produce: &mut dyn FnMut(&mut dyn super::RowSink) -> Result<()>) -> Result<()> {
        self.store.ingest(produce)
    }

    fn interrupted(&self) -> bool {
        self.store.interrupted()
    }

    fn durability(&self) -> super::Durability {
        self.store.durability()
    }

    fn backlog(&self) -> usize {
        self.store.backlog()
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    fn memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
    }

    fn close(&self) -> Result<()> {
        self.store.close()?;
        let state = State { kind: StoreKind::Sled, clean: true, folder: self.folder, boot_id: self.boot_id.clone() };
        write_state(&self.vfs, &self.state_path, &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::OsVfs;

    fn options(dir: &Path, kind: StoreKind, boot_id: &str) -> StoreOptions {
        StoreOptions {
            dir: dir.to_path_buf(),
            kind,
            folder: 0,
            cache_bytes_max: 1 << 20,
            boot_id: boot_id.into(),
            open_patience: OPEN_PATIENCE,
        }
    }

    fn put(store: &dyn CheckpointStore) {
        store.ingest(&mut |sink| sink.put(b"dkey", b"value", b"")).unwrap();
    }

    #[test]
    fn folder_remembers_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = OsVfs::shared();
        drop(open_store(&vfs, &options(dir.path(), StoreKind::Fjall, "a")).unwrap());
        let error = open_store(&vfs, &options(dir.path(), StoreKind::Sled, "a")).unwrap_err().to_string();
        assert!(error.contains("is fjall, but the settings ask for sled"), "{error}");
    }

    #[test]
    fn store_of_another_folder_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = OsVfs::shared();
        for kind in [StoreKind::Fjall, StoreKind::Sled] {
            let dir = dir.path().join(kind.name());
            let of = |folder| StoreOptions { folder, ..options(&dir, kind, "a") };
            let store = open_store(&vfs, &of(0xa)).unwrap().store;
            put(&*store);
            store.close().unwrap();
            drop(store);
            let state = read_state(&vfs, &dir.join(STATE_FILE)).unwrap();
            let error = open_store(&vfs, &of(0xb)).unwrap_err().to_string();
            assert!(error.contains("of another folder, 0000000000000000000000000000000a,"), "{error}");
            assert_eq!(read_state(&vfs, &dir.join(STATE_FILE)).unwrap(), state);
            // Who does not say whose it is may look at it, and does not make it its own.
            let store = open_store(&vfs, &of(0)).unwrap().store;
            store.close().unwrap();
            drop(store);
            assert!(open_store(&vfs, &of(0xb)).is_err());
            let opened = open_store(&vfs, &of(0xa)).unwrap();
            assert!(opened.set_aside.is_none() && opened.store.get(b"dkey").unwrap().is_some());
        }
    }

    #[test]
    fn every_flipped_bit_of_the_state_is_noticed() {
        let bytes = State { kind: StoreKind::Sled, clean: true, folder: 0xf01d, boot_id: "b007".into() }.encode();
        assert!(State::decode(&bytes).is_ok());
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert!(State::decode(&flipped).is_err(), "bit {at}");
        }
        for cut in 0..bytes.len() {
            assert!(State::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn damaged_fjall_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = OsVfs::shared();
        put(&*open_store(&vfs, &options(dir.path(), StoreKind::Fjall, "a")).unwrap().store);
        let mut spoilt = 0;
        let mut folders = vec![dir.path().join("fjall")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else if entry.file_name() == "current" {
                    vfs.open(&entry.path(), false).unwrap().set_len(5).unwrap();
                    spoilt += 1;
                }
            }
        }
        assert!(spoilt > 0);
        let opened = open_store(&vfs, &options(dir.path(), StoreKind::Fjall, "a")).unwrap();
        assert!(opened.set_aside.unwrap().ends_with("fjall.aside-1"));
        assert!(opened.store.get(b"dkey").unwrap().is_none());
    }

    #[test]
    fn sled_is_trusted_after_a_clean_stop_or_within_one_boot() {
        let dir = tempfile::tempdir().unwrap();
        let vfs = OsVfs::shared();
        put(&*open_store(&vfs, &options(dir.path(), StoreKind::Sled, "boot one")).unwrap().store);

        let killed = open_store(&vfs, &options(dir.path(), StoreKind::Sled, "boot one")).unwrap();
        assert!(killed.set_aside.is_none());
        assert!(killed.store.get(b"dkey").unwrap().is_some());
        killed.store.close().unwrap();
        drop(killed);

        let stopped = open_store(&vfs, &options(dir.path(), StoreKind::Sled, "boot two")).unwrap();
        assert!(stopped.set_aside.is_none());
        assert!(stopped.store.get(b"dkey").unwrap().is_some());
        drop(stopped);

        let crashed = open_store(&vfs, &options(dir.path(), StoreKind::Sled, "boot three")).unwrap();
        assert!(crashed.set_aside.unwrap().exists());
        assert!(crashed.store.get(b"dkey").unwrap().is_none());
    }

    #[test]
    fn store_that_does_not_open_in_time_counts_as_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let hasty =
            StoreOptions { open_patience: Duration::from_nanos(1), ..options(dir.path(), StoreKind::Fjall, "a") };
        match open_guarded(&hasty, &dir.path().join("fjall")) {
            Err(Refusal::Damaged(detail)) => assert!(detail.contains("did not open within 1ns"), "{detail}"),
            Err(Refusal::Unusable(error)) => panic!("{error}"),
            Ok(store) => panic!("{store:?} opened in no time"),
        }
    }
}
