//! The door to files: one small seam, injected at open, so that every file operation of ours can run on a real disk
//! ([`OsVfs`]) or on a simulated one that crashes ([`SimVfs`]).

mod os;
mod sim;

use crate::error::{Error, Result};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use os::OsVfs;
pub use sim::{CrashPlan, SimVfs, Survival};

/// A shared handle to a file system.
pub type SharedVfs = Arc<dyn Vfs>;

/// A file system.
pub trait Vfs: fmt::Debug + Send + Sync + 'static {
    /// Opens a file for reading and writing. With `create`, makes it if it is absent; the new folder entry is durable only
    /// after [`Vfs::sync_dir`].
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn VfsFile>>;
    /// Opens an existing file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Creates a folder and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Whether a file or folder exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Renames a file, replacing the target. Durable only after [`Vfs::sync_dir`] of the folders.
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it; absent is fine.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the folder's entries durable (creations, renames and removals in it).
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the exclusive lock on a file, which is created if absent; held until the value is dropped.
    /// Fails with [`io::ErrorKind::WouldBlock`] when another holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>>;
}

/// An exclusive lock, released when dropped.
pub trait VfsLock: fmt::Debug + Send + Sync {}

/// An open file. Positions are explicit: there is no cursor.
#[allow(clippy::len_without_is_empty, reason = "a fallible length, not a collection")]
pub trait VfsFile: fmt::Debug + Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `parts`, one after another, from `offset`.
    fn write_all_at(&self, parts: &[io::IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes the file's data durable, and as much metadata as reading it back needs (fdatasync).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes data and metadata durable (fsync).
    fn sync_all(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Reads exactly `buf.len()` bytes at `offset`.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the file ends before.
pub fn read_exact_at(file: &dyn VfsFile, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buf = &mut buf[n..];
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Creates a folder and its missing parents so that they survive a crash. One that exists is synced into its parent all the
/// same: a process that died just after creating it may not have come so far.
///
/// # Errors
/// [`Error::Io`] when the system refuses.
pub fn create_dir_durably(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let mut missing = Vec::new();
    for at in dir.ancestors().take_while(|at| !at.as_os_str().is_empty()) {
        if vfs.exists(at).map_err(|e| Error::io("look for", at, e))? {
            break;
        }
        missing.push(at);
    }
    let existed = missing.is_empty();
    if existed {
        missing.push(dir);
    } else {
        vfs.create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    }
    for made in missing.iter().rev() {
        let Some(above) = made.parent() else { continue };
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match vfs.sync_dir(above) {
            // Who made this folder for us in a place that we may not touch has to have synced it.
            Err(e)
                if existed
                    && [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem].contains(&e.kind()) => {}
            outcome => outcome.map_err(|e| Error::io("sync", above, e))?,
        }
    }
    Ok(())
}
