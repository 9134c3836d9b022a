//! From the batches found on disk to the groups' logs.
//!
//! Batches are applied strictly in order. The log may begin in the middle of a group's history: entries then come without
//! those before them, which were copied forward and follow later. So a group is built in two pieces, the entries in order
//! and those found below them, and is checked to be whole at the end.

use super::HardState;
use super::group::{GroupLog, Location, Segments};
use crate::GroupId;
use crate::error::Result;
use crate::wal::format::{BATCH_HEADER_BYTES, Record};
use crate::wal::recovery::{ReplayedBatch, damaged};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct Replay {
    groups: BTreeMap<GroupId, ReplayGroup>,
}

#[derive(Default)]
struct ReplayGroup {
    /// `None` until a state record was seen.
    state: Option<(HardState, (u64, u64))>,
    state_position: u64,
    /// Contiguous entries from `first` on.
    entries: VecDeque<(u64, Location)>,
    first: u64,
    /// Entries below `first`, copied forward.
    below: BTreeMap<u64, (u64, Location)>,
    rewritten_up_to: u64,
}

impl ReplayGroup {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn append(&mut self, index: u64, term: u64, location: Location) -> Result<(), &'static str> {
        if index < self.end() && index >= self.first {
            self.entries.truncate((index - self.first) as usize);
        } else if index != self.end() {
            if index > self.end() && !self.entries.is_empty() {
                return Err("an entry leaves a gap in its group's log");
            }
            self.entries.clear();
        }
        if self.entries.is_empty() {
            self.below.split_off(&index);
            self.first = index;
        }
        self.rewritten_up_to = self.rewritten_up_to.min(index - 1);
        self.entries.push_back((term, location));
        Ok(())
    }

    fn rewrite(&mut self, index: u64, term: u64, location: Location) -> Result<(), &'static str> {
        let present = if index >= self.first && index < self.end() {
            Some(&mut self.entries[(index - self.first) as usize])
        } else if !self.entries.is_empty() && index >= self.end() {
            return Err("a copied entry lies beyond its group's log");
        } else {
            self.below.get_mut(&index)
        };
        match present {
            Some(present) if present.0 != term || present.1.crc != location.crc => {
                return Err("a copied entry is not the entry that it is a copy of");
            }
            Some(present) => present.1 = location,
            None => {
                self.below.insert(index, (term, location));
            }
        }
        self.rewritten_up_to = self.rewritten_up_to.max(index);
        Ok(())
    }

    fn compact(&mut self, index: u64) {
        self.below = self.below.split_off(&(index + 1));
        if index >= self.first {
            let gone = (index + 1 - self.first).min(self.entries.len() as u64);
            self.entries.drain(..gone as usize);
            self.first += gone;
        }
    }

    fn finish(self, group: GroupId, segments: &Arc<Segments>) -> Result<GroupLog, String> {
        let Some((hard_state, compacted)) = self.state else {
            return Err(format!("group {group} has entries but no state"));
        };
        let mut log = GroupLog::new(group, Arc::clone(segments));
        log.hard_state = hard_state;
        log.compacted = compacted;
        log.state_position = self.state_position;
        log.rewritten_up_to = self.rewritten_up_to;
        let first = self.first;
        let above = self.entries.into_iter().enumerate().map(|(at, entry)| (first + at as u64, entry));
        for (index, (term, location)) in self.below.into_iter().chain(above) {
            if index != log.last_index() + 1 || term < log.last_term() {
                return Err(format!(
                    "group {group} goes on with entry {index} of term {term} after entry {} of term {}",
                    log.last_index(),
                    log.last_term()
                ));
            }
            log.push(term, location, None);
        }
        Ok(log)
    }
}

impl Replay {
    /// Applies one batch.
    pub(crate) fn apply(&mut self, batch: ReplayedBatch<'_>) -> Result<()> {
        let mut at = batch.position + BATCH_HEADER_BYTES as u64;
        for record in batch.records {
            self.record(record, batch.position, &mut at).map_err(|e| damaged(batch.path, batch.offset, e))?;
        }
        Ok(())
    }

    fn record(&mut self, record: Record, position: u64, at: &mut u64) -> Result<(), &'static str> {
        match record {
            Record::Entries { group, first, term, rewrite, entries } => {
                let group = self.groups.entry(group).or_default();
                for (index, entry) in (first..).zip(entries) {
                    if *at + u64::from(entry.len) >= 1 << 56 {
                        return Err("a log position is out of range");
                    }
                    let location = Location::new(*at, entry.kind, entry.len, entry.crc);
                    *at += u64::from(entry.len);
                    match rewrite {
                        true => group.rewrite(index, term, location)?,
                        false => group.append(index, term, location)?,
                    }
                }
            }
            Record::State { group, hard_state, compacted } => {
                let group = self.groups.entry(group).or_default();
                if let Some((old, old_compacted)) = group.state {
                    if hard_state.term < old.term || hard_state.commit < old.commit {
                        return Err("a group's hard state goes back");
                    }
                    if compacted.0 < old_compacted.0 && old_compacted != compacted {
                        return Err("a group's compacted index goes back");
                    }
                }
                if compacted.0 == u64::MAX {
                    return Err("a compacted index is out of range");
                }
                group.state = Some((hard_state, compacted));
                group.state_position = position;
                group.compact(compacted.0);
            }
            Record::Reset { group, index, term } => {
                if index == u64::MAX {
                    return Err("a snapshot's index is out of range");
                }
                let group = self.groups.entry(group).or_default();
                *group = ReplayGroup { state: group.state, state_position: group.state_position, ..Default::default() };
                if let Some((_, compacted)) = &mut group.state {
                    *compacted = (index, term);
                }
            }
            Record::Remove { group } => {
                self.groups.remove(&group);
            }
        }
        Ok(())
    }

    /// The groups, each checked to be whole. `path` and `offset` name the log's end, for the error.
    pub(crate) fn finish(
        self,
        segments: &Arc<Segments>,
        path: &Path,
        offset: u64,
    ) -> Result<BTreeMap<GroupId, GroupLog>> {
        self.groups
            .into_iter()
            .map(|(id, group)| Ok((id, group.finish(id, segments).map_err(|e| damaged(path, offset, &e))?)))
            .collect()
    }
}
