//! Small files that change as a whole: an identity, a manifest.
//!
//! A change must leave either the old contents or the new, whenever the power goes: the new contents are written under a
//! temporary name, synced, renamed over the old, and the folder is synced.
//!
//! ```text
//!   ┌─────────┬────────────┬────────────┬────────┬───────────┬─────────┐
//!   │ magic 8 │ version u32│ length u32 │ crc u32│ zero u32  │ payload │   little-endian; the checksum covers all but itself
//!   └─────────┴────────────┴────────────┴────────┴───────────┴─────────┘
//! ```

use crate::error::{Error, Result};
use crate::vfs::{Vfs, read_exact_at};
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

const HEADER_BYTES: usize = 24;

/// The largest payload, in bytes.
pub const STATE_FILE_BYTES_MAX: usize = 1 << 20;

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn checksum(header: &[u8; HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..16]);
    hasher.update(&header[20..]);
    hasher.update(payload);
    hasher.finalize()
}

/// Replaces the file's contents, durably and as a whole.
///
/// # Errors
/// [`Error::Io`] when the disk refuses: the file then has its old contents or the new ones.
///
/// # Panics
/// When the payload is larger than [`STATE_FILE_BYTES_MAX`].
pub fn write(vfs: &dyn Vfs, path: &Path, magic: [u8; 8], version: u32, payload: &[u8]) -> Result<()> {
    assert!(payload.len() <= STATE_FILE_BYTES_MAX, "a state file is small");
    let mut header = [0; HEADER_BYTES];
    header[0..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = checksum(&header, payload);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let temporary = temporary(path);
    let file = vfs.open(&temporary, true).map_err(|e| Error::io("create", &temporary, e))?;
    file.set_len(0).map_err(|e| Error::io("truncate", &temporary, e))?;
    file.write_all_at(&[IoSlice::new(&header), IoSlice::new(payload)], 0)
        .map_err(|e| Error::io("write", &temporary, e))?;
    file.sync_all().map_err(|e| Error::io("sync", &temporary, e))?;
    vfs.rename(&temporary, path).map_err(|e| Error::io("rename", &temporary, e))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}

/// Removes the file, durably, if there is one.
///
/// # Errors
/// [`Error::Io`] when the disk refuses.
pub fn remove(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::io("remove", path, error)),
        _ => {}
    }
    // NB: also one that was not there: its removal may have been cut short before.
    let dir = path.parent().unwrap_or(Path::new("."));
    vfs.sync_dir(dir).map_err(|e| Error::io("sync", dir, e))
}

/// Reads the file's version and payload; `None` if there is no such file.
///
/// # Errors
/// [`Error::Foreign`] for a version above `version_max`, [`Error::Damaged`] for anything that [`write()`] did not write,
/// [`Error::Io`] when the disk refuses.
pub fn read(vfs: &dyn Vfs, path: &Path, magic: [u8; 8], version_max: u32) -> Result<Option<(u32, Vec<u8>)>> {
    let file = match vfs.open_read(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let damaged = |offset, detail: &str| Error::Damaged { path: path.into(), offset, detail: detail.to_owned() };
    let len = file.len().map_err(|e| Error::io("measure", path, e))?;
    if len < HEADER_BYTES as u64 {
        return Err(damaged(len, "the file ends within its header"));
    }
    if len > (HEADER_BYTES + STATE_FILE_BYTES_MAX) as u64 {
        return Err(damaged(0, "the file is far too long to be what its name says"));
    }
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, &mut bytes, 0).map_err(|e| Error::io("read", path, e))?;
    let payload = bytes.split_off(HEADER_BYTES);
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&bytes);
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[0..8] != magic {
        return Err(damaged(0, "the file does not begin as it should"));
    }
    if number(12) as usize != payload.len() || checksum(&header, &payload) != number(16) {
        return Err(damaged(12, "length or checksum are wrong"));
    }
    let version = number(8);
    if version > version_max {
        let detail = format!(
            "was written by a newer release (format {version}; this release reads up to {version_max}); start that release, \
             or a later one"
        );
        return Err(Error::Foreign { path: path.into(), detail });
    }
    Ok(Some((version, payload)))
}
