//! What can go wrong in the engine, said with the file it happened to.

use std::io;
use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An engine failure.
///
/// Every variant names the file or folder and says what the operator can do where there is something to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb ("open", "sync").
        operation: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// Bytes that were once known to be durable are not what was written: acknowledged data may be lost.
    #[error("{} is damaged at offset {offset}: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What was expected and what was found.
        detail: String,
    },
    /// A file or folder that does not belong here: another node's, another format's, or a newer release's.
    #[error("{}: {detail}", path.display())]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Why it is not ours.
        detail: String,
    },
    /// Another process holds the folder.
    #[error("{} is in use by another process; stop it, or choose another folder with --dir", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// An earlier write or sync failed: nothing may be acknowledged any more (see docs: "a failed sync is never retried").
    #[error("{} took no more writes after a failure: {detail}", path.display())]
    Poisoned {
        /// The file whose write or sync failed.
        path: PathBuf,
        /// The first failure.
        detail: String,
    },
    /// The checkpoint store failed.
    #[error("checkpoint store {}: {detail}", path.display())]
    Store {
        /// The store's folder.
        path: PathBuf,
        /// The store's own words.
        detail: String,
    },
}

impl Error {
    /// Wraps an [`io::Error`] with what was attempted and on which file.
    pub fn io(operation: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { operation, path: path.as_ref().to_path_buf(), source }
    }
}
