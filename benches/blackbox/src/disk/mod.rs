//! A disk that forgets, as a power cut makes it: a model of files and folders, and the glue that mounts it.
//!
//! What was synced stays; what was not is lost, kept, or torn. A process that runs on this disk, its third-party store
//! included, meets what it would meet on a machine that loses power, without losing a machine.
//!
//! ```text
//!   holdfast ── system calls ──▶ kernel ── FUSE ──▶ mount.rs ──▶ Disk (model.rs): folders, each in two versions
//!                                                  faults          └─ Contents (contents.rs): a file, page by page
//!                                                                        what readers see │ what the disk has
//! ```
//!
//! **What the model grants.** A sector of 512 bytes is whole or not there. What a successful `fsync` of a file covered (its
//! bytes and its size) is never lost. A rename is atomic: after a cut both of its halves are done, or neither. Changes of
//! one name become durable in their order.
//!
//! **What it takes.** At a cut, each page or sector that was not synced is the new one or the old one, whatever the order of
//! the writes. A file's own sync does not make its *name* durable: that takes a sync of the folder. Each change of a folder
//! that was not synced is there or not. In between, the system writes things back by itself, so what a cut
//! leaves may be older than the last write and newer than the last sync. A sync that fails loses what it should have
//! written, while readers go on seeing it and the next sync succeeds.

mod contents;
mod model;
mod mount;
#[cfg(test)]
mod tests;

pub use contents::{Contents, PAGE_BYTES, SECTOR_BYTES, Survival};
pub use model::{Disk, Kind, ROOT, Refusal};
pub use mount::{Faults, Mount};
