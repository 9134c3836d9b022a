//! The data folder: whose it is, and that only one process uses it.
//!
//! ```text
//!   holdfast-data/
//!     LOCK        held exclusively while a node runs
//!     IDENTITY    format, folder id, cluster id, boot number and recent starts, store (a state file: replaced as a whole)
//!     wal/ ...    what the node keeps
//! ```
//!
//! The identity is what every segment of the log is bound to, so that a file from elsewhere is refused. The boot number
//! grows with each open, and each start has a random number of its own, of which the last few are kept. A folder that was restored
//! from an old backup shows a boot number that is behind, or, once it has been started often enough, another start under
//! the same number: whoever remembers a start of the folder can tell whether it is one of its past.

use crate::error::{Error, Result};
use crate::state_file;
use crate::store::StoreKind;
use crate::vfs::{SharedVfs, VfsLock, create_dir_durably};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"HFFOLDER";
/// The folder's format: raised when an older release could no longer make sense of what is in it.
const VERSION: u32 = 2;
const PAYLOAD_BYTES: usize = 48 + 8 * STARTS_KEPT;
/// So many starts of a folder are told apart by their random numbers: more than anybody will start a folder in vain.
pub const STARTS_KEPT: usize = 16;

/// Who a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FolderIdentity {
    /// Random, given once.
    pub folder: u128,
    /// The cluster that the folder belongs to; 0 until it joined one.
    pub cluster: u128,
    /// The node's number in that cluster; 0 until it joined one.
    pub node: u32,
    /// How often the folder was opened: 1 the first time.
    pub boot: u64,
    /// The random numbers of the last starts, this one first; 0 where there was none.
    pub starts: [u64; STARTS_KEPT],
    /// The checkpoint store it was made with.
    pub store: StoreKind,
    /// Whether everything that a folder holds from its first start on was made: from then on an absent log is damage.
    pub initialised: bool,
    /// Whether the folder's node is being made the only member of another cluster: its log may say more than was ever agreed on.
    pub recovering: bool,
}

impl FolderIdentity {
    fn encode(&self) -> [u8; PAYLOAD_BYTES] {
        let mut out = [0; PAYLOAD_BYTES];
        out[0..16].copy_from_slice(&self.folder.to_le_bytes());
        out[16..32].copy_from_slice(&self.cluster.to_le_bytes());
        out[32..40].copy_from_slice(&self.boot.to_le_bytes());
        out[40] = self.store as u8;
        out[41] = u8::from(self.initialised);
        out[42] = u8::from(self.recovering);
        out[44..48].copy_from_slice(&self.node.to_le_bytes());
        for (place, start) in out[48..].chunks_exact_mut(8).zip(self.starts) {
            place.copy_from_slice(&start.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (folder, rest) = bytes.split_first_chunk::<16>()?;
        let (cluster, rest) = rest.split_first_chunk::<16>()?;
        let (boot, rest) = rest.split_first_chunk::<8>()?;
        let (&[store, initialised, recovering, _], rest) = rest.split_first_chunk::<4>()?;
        let (node, rest) = rest.split_first_chunk::<4>()?;
        (bytes.len() == PAYLOAD_BYTES).then_some(())?;
        let mut starts = [0; STARTS_KEPT];
        for (start, bytes) in starts.iter_mut().zip(rest.as_chunks::<8>().0) {
            *start = u64::from_le_bytes(*bytes);
        }
        Some(Self {
            folder: u128::from_le_bytes(*folder),
            cluster: u128::from_le_bytes(*cluster),
            node: u32::from_le_bytes(*node),
            boot: u64::from_le_bytes(*boot),
            starts,
            store: StoreKind::from_u8(store)?,
            initialised: initialised == 1,
            recovering: recovering == 1,
        })
    }
}

/// An open data folder. The lock is held until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    vfs: SharedVfs,
    dir: PathBuf,
    identity: FolderIdentity,
    _lock: Box<dyn VfsLock>,
}

impl DataFolder {
    /// Opens a folder, or makes it: takes the lock, checks or writes the identity, and counts the boot. `fresh_id` is a
    /// random number: it tells this start from others, and names the folder if it is new. `store` is what the settings say.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process uses it; [`Error::Foreign`] when it was written by a newer release, was made
    /// with another store, or holds files but no identity; [`Error::Damaged`] when the identity cannot be read;
    /// [`Error::Io`] when it cannot be created or written.
    pub fn open(vfs: SharedVfs, dir: &Path, fresh_id: u128, store: StoreKind) -> Result<Self> {
        create_dir_durably(&*vfs, dir)?;
        let lock_path = dir.join("LOCK");
        let lock = vfs.lock(&lock_path).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => Error::Locked { path: dir.to_path_buf() },
            _ => Error::io("lock", &lock_path, e),
        })?;
        let path = dir.join("IDENTITY");
        // NB: 0 means that there was no start.
        let start = (((fresh_id >> 64) ^ fresh_id) as u64).max(1);
        let identity = match state_file::read(&*vfs, &path, MAGIC, VERSION)? {
            Some((_, payload)) => {
                let mut identity = FolderIdentity::decode(&payload).ok_or_else(|| Error::Damaged {
                    path: path.clone(),
                    offset: 24,
                    detail: "the identity makes no sense".to_owned(),
                })?;
                if identity.store != store {
                    let detail = format!(
                        "was made with the store \"{}\", the settings say \"{}\": set it back, or choose another folder with --dir",
                        identity.store.name(),
                        store.name()
                    );
                    return Err(Error::Foreign { path: dir.to_path_buf(), detail });
                }
                identity.boot += 1;
                identity.starts.rotate_right(1);
                identity.starts[0] = start;
                identity
            }
            None => {
                Self::check_empty(&vfs, dir)?;
                let mut starts = [0; STARTS_KEPT];
                starts[0] = start;
                FolderIdentity {
                    folder: fresh_id,
                    cluster: 0,
                    node: 0,
                    boot: 1,
                    starts,
                    store,
                    initialised: false,
                    recovering: false,
                }
            }
        };
        let folder = Self { vfs, dir: dir.to_path_buf(), identity, _lock: lock };
        folder.store_identity()?;
        Ok(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Who the folder is. Its boot number is this run's.
    pub fn identity(&self) -> &FolderIdentity {
        &self.identity
    }

    /// Records that everything a folder holds was made, durably.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses.
    pub fn set_initialised(&mut self) -> Result<()> {
        if self.identity.initialised {
            return Ok(());
        }
        self.identity.initialised = true;
        self.store_identity()
    }

    /// Binds the folder to a node of a cluster, durably.
    ///
    /// # Errors
    /// [`Error::Foreign`] when it belongs to another, [`Error::Io`] when the disk refuses.
    pub fn join_cluster(&mut self, cluster: u128, node: u32) -> Result<()> {
        match (self.identity.cluster, self.identity.node) {
            known if known == (cluster, node) => Ok(()),
            (0, _) => {
                self.identity.cluster = cluster;
                self.identity.node = node;
                self.store_identity()
            }
            (known, number) => Err(Error::Foreign {
                path: self.dir.clone(),
                detail: format!("is node {number} of cluster {known:032x}, not node {node} of {cluster:032x}"),
            }),
        }
    }

    /// Takes the folder out of its cluster and into another, in which its node keeps its number; durably. Until
    /// [`DataFolder::finish_recovery`] the identity says that this is under way.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses.
    pub fn begin_recovery(&mut self, cluster: u128) -> Result<()> {
        self.identity.cluster = cluster;
        self.identity.recovering = true;
        self.store_identity()
    }

    /// What the folder holds is that of the other cluster now.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk refuses.
    pub fn finish_recovery(&mut self) -> Result<()> {
        self.identity.recovering = false;
        self.store_identity()
    }

    fn store_identity(&self) -> Result<()> {
        state_file::write(&*self.vfs, &self.dir.join("IDENTITY"), MAGIC, VERSION, &self.identity.encode())
    }

    /// A folder without an identity must be empty: what is in it is not ours, or the identity was lost.
    fn check_empty(vfs: &SharedVfs, dir: &Path) -> Result<()> {
        let names = vfs.list(dir).map_err(|e| Error::io("list", dir, e))?;
        let ours = ["LOCK", "IDENTITY.tmp"];
        match names.iter().find(|name| !ours.iter().any(|known| name.as_os_str() == *known)) {
            None => Ok(()),
            Some(name) => Err(Error::Foreign {
                path: dir.to_path_buf(),
                detail: format!(
                    "holds \"{}\" but no IDENTITY file: it is not a data folder, or its identity was lost; choose an empty \
                     folder with --dir",
                    name.display()
                ),
            }),
        }
    }
}
