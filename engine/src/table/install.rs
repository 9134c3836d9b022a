//! Replacing a group's state by a snapshot.
//!
//! The rows go into the store under an incarnation that nobody reads yet, a bounded part at a time; one last generation
//! carries counts and applied index and makes it the present one. A crash before that leaves rows that the next sweep
//! removes.

use super::flush::{GroupBase, lock, store_error};
use super::node::Shared;
use super::records::{RecordKey, Records};
use super::rows::{self, Meta};
use super::state::Table;
use super::view::{RowPlace, RowSpace, ViewRow};
use super::{Applied, SLOTS};
use crate::defects::{self, Defect};
use crate::snapshot::SnapshotHeader;
use crate::store::{Durability, RowSink};
use crate::{Error, GroupId, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Bytes of rows in one part.
const PART_BYTES: usize = 16 << 20;

/// Rows by their key in the store; only long keys ever share one.
type Part = BTreeMap<Vec<u8>, Vec<rows::Member>>;

/// A snapshot being installed. [`InstallJob::run`] it anywhere, then [`Table::finish_install`].
#[derive(Debug)]
pub struct InstallJob {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    header: SnapshotHeader,
    base: Arc<Mutex<GroupBase>>,
}

/// A snapshot that is in the store.
#[derive(Debug)]
pub struct Installed {
    header: SnapshotHeader,
    durable: Option<Applied>,
    records: Records,
}

impl InstallJob {
    /// Writes the rows, which must ascend as a view's do, to the store, and makes them the group's state.
    ///
    /// # Errors
    /// What `rows` returned, rows out of order, or the store's failure; the group's state is then as before.
    pub fn run(self, rows: &mut dyn Iterator<Item = Result<ViewRow>>) -> Result<Installed> {
        let present = lock(&self.base).meta.incarnation;
        {
            // What an install that was cut short left behind must not mix with what comes.
            let _turn = lock(&self.shared.write_turn);
            while self.shared.sweep_rows(self.group, present, None)? {}
            lock(&self.base).installing = Some(self.incarnation);
        }
        let written = write_rows(&self.shared, &self.header, self.incarnation, Some(&self.base), rows);
        lock(&self.base).installing = None;
        let records = written.map_err(|error| self.shared.locate(error))?;
        let durable = match self.shared.store.durability() {
            Durability::ProcessCrash => {
                let _turn = lock(&self.shared.write_turn);
                // The state is installed either way; without a sealed copy the log just may not rely on it.
                let sealed = self.shared.sealer.seal(&self.shared, self.group, &self.base);
                sealed.inspect_err(|error| tracing::error!(%error, "an installed snapshot could not be sealed")).ok()
            }
            Durability::PowerCut => Some(self.header.applied),
            Durability::None => None,
        };
        Ok(Installed { header: self.header, durable, records })
    }
}

/// Writes rows and the generation that makes them current; `base`, if there is one already, learns of it. The records among
/// them come back.
pub(super) fn write_rows(
    shared: &Shared,
    header: &SnapshotHeader,
    incarnation: u64,
    base: Option<&Mutex<GroupBase>>,
    source: &mut dyn Iterator<Item = Result<ViewRow>>,
) -> Result<Records> {
    let SnapshotHeader { group, applied, .. } = *header;
    let mut counts = vec![0u32; SLOTS];
    let mut records = Records::default();
    let mut last: Option<RowPlace> = None;
    let mut source = source.peekable();
    while source.peek().is_some() {
        // Rows of one hash stay in one part: long keys that share a row must meet.
        let mut part = Part::new();
        let mut bytes = 0;
        while let Some(row) = source.next_if(|next| match (next, &last) {
            (Ok(row), Some(last)) => bytes < PART_BYTES || (row.space, row.slot, row.hash) == (last.0, last.1, last.2),
            _ => bytes < PART_BYTES,
        }) {
            let row = row?;
            let at = row.place();
            let ViewRow { space, slot, hash, object, .. } = row;
            if usize::from(slot) >= SLOTS {
                return Err(store_error(format!("a row to install is of slot {slot}, beyond the last")));
            }
            if last.as_ref().is_some_and(|last| *last >= at) {
                return Err(store_error(format!("rows to install are out of order at slot {slot}, hash {hash:016x}")));
            }
            let left_out = match space {
                RowSpace::Keys => defects::has(Defect::SnapshotWithoutRows) && hash.is_multiple_of(8),
                RowSpace::Records => defects::has(Defect::SnapshotWithoutSessions),
            };
            if left_out {
                last = Some(at);
                continue;
            }
            let mut row = Vec::new();
            match space {
                RowSpace::Keys => {
                    rows::data_key(&mut row, group, slot, incarnation, hash, &at.3);
                    counts[usize::from(slot)] += 1;
                }
                RowSpace::Records => {
                    let name = at.3.as_ref().try_into();
                    let name =
                        name.map_err(|_| store_error(format!("a record of slot {slot} has a name cut short")))?;
                    let key = RecordKey { slot, name };
                    row = rows::record_key(group, incarnation, &key);
                    records.insert(key, &object.data)?;
                }
            }
            bytes += row.len() + object.data.len() + 64;
            part.entry(row).or_default().push((at.3.clone(), object));
            last = Some(at);
        }
        let _turn = lock(&shared.write_turn);
        shared.store.ingest(&mut |sink| push_part(sink, &part))?;
    }
    records.pack();
    let count = counts.iter().map(|&count| u64::from(count)).sum();
    let attachment = header.conf_state.clone();
    let meta =
        Meta { index: applied.index, term: applied.term, stamp_ms: applied.stamp_ms, incarnation, count, attachment };
    let _turn = lock(&shared.write_turn);
    shared.store.ingest(&mut |sink| {
        for (slot, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            sink.put(&rows::count_key(group, slot as u16), &rows::encode_count(incarnation, count), &[])?;
        }
        sink.put(&rows::meta_key(group), &meta.encode(), &[])
    })?;
    // NB: within the same turn. A flush of the old incarnation that came in between would still take itself for current, and
    // put its own state over this one's.
    if let Some(base) = base {
        let mut base = lock(base);
        base.meta = meta;
        base.counts = counts;
    }
    Ok(records)
}

fn push_part(sink: &mut dyn RowSink, part: &Part) -> Result<()> {
    let mut index = BTreeSet::new();
    let mut head = Vec::new();
    for (row, members) in part {
        if rows::is_record(row) {
            members.iter().try_for_each(|(_, object)| sink.put(row, &[], &object.data))?;
            continue;
        }
        for (_, object) in members.iter().filter(|(_, object)| object.deadline_ms != 0) {
            index.insert(rows::index_key(row, object.deadline_ms));
        }
        match members.as_slice() {
            [(key, object)] if key.len() <= rows::LONG_KEY_BYTES => {
                rows::value_head(&mut head, object);
                sink.put(row, &head, &object.data)?;
            }
            members => sink.put(row, &rows::encode_bucket(members), &[])?,
        }
    }
    index.iter().try_for_each(|row| sink.put(row, &[], &[]))
}

impl Table {
    /// Begins to replace the group's state by a snapshot with this header. Until [`Table::finish_install`] the table must not be
    /// written; reads see the old state. A snapshot of the index that is applied replaces a state that can't be trusted.
    ///
    /// # Errors
    /// When the snapshot is behind what is applied, or the incarnation not above the present one.
    pub fn install(&mut self, header: &SnapshotHeader, incarnation: u64) -> Result<InstallJob> {
        let applied = header.applied;
        if applied.index < self.applied().index || incarnation <= self.incarnation {
            return Err(Error::Store {
                path: self.shared.options.dir.clone(),
                detail: format!(
                    "a snapshot of group {} at index {} (incarnation {incarnation}) is behind index {} \
                     (incarnation {})",
                    self.group,
                    applied.index,
                    self.applied().index,
                    self.incarnation
                ),
            });
        }
        // NB: what waits to be flushed stays: should the install fail, it is still wanted; should it succeed, its incarnation
        // is over and it is skipped.
        Ok(InstallJob {
            shared: self.shared.clone(),
            group: self.group,
            incarnation,
            header: SnapshotHeader { group: self.group, ..header.clone() },
            base: self.base.clone(),
        })
    }

    /// Makes an installed snapshot the table's state.
    pub fn finish_install(&mut self, installed: Installed) {
        self.adopt(installed.header.applied, installed.durable.unwrap_or(self.durable()), installed.records);
        if !defects::has(Defect::SnapshotWithoutAttachment) {
            self.set_attachment(installed.header.conf_state);
        }
    }
}
