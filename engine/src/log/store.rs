//! The owner of all groups' logs: staging, sealing, bookkeeping.

use super::group::{ENTRY_OVERHEAD_BYTES, GroupLog, Location, Segments};
use super::replay::Replay;
use super::{ENTRY_BYTES_MAX, HardState, KIND_SYNCED, LogEntry, LogPin};
use crate::GroupId;
use crate::error::Result;
use crate::vfs::SharedVfs;
use crate::wal::format::{self, EntryMeta};
use crate::wal::segment::Pool;
use crate::wal::writer::Stage;
use crate::wal::{RecoveryReport, SealedBatch, WalOptions, WalWriter, Written, recovery};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// What a cached entry costs in memory besides its payload, in bytes.
const CACHED_OVERHEAD_BYTES: usize = 96;

/// The node-wide budget of cached payloads: a queue of what was cached, oldest first.
#[derive(Debug)]
struct Cache {
    bytes: usize,
    count: usize,
    bytes_max: usize,
    /// What was cached, in the order of arrival. An entry that was dropped since stays here until its turn comes.
    order: VecDeque<(GroupId, u64)>,
}

impl Cache {
    fn dropped(&mut self, (bytes, count): (usize, usize)) {
        self.bytes -= bytes + count * CACHED_OVERHEAD_BYTES;
        self.count -= count;
    }
}

/// All groups' logs on a node.
///
/// Changes are staged in memory and visible at once; they are durable when the batch that [`LogStore::seal`] made of them
/// was written and synced.
#[derive(Debug)]
pub struct LogStore {
    groups: BTreeMap<GroupId, GroupLog>,
    segments: Arc<Segments>,
    pool: Arc<Pool>,
    stage: Stage,
    /// Groups whose state goes into the next batch.
    unstated: BTreeSet<GroupId>,
    /// Where the next batch will be.
    position: u64,
    /// The next batch's number.
    sequence: u64,
    /// Everything below is in the files.
    written: u64,
    written_sequence: u64,
    /// The oldest segment needed.
    oldest: u64,
    /// Something changed that may let the oldest segment go.
    check_oldest: bool,
    /// The same, for what [`LogStore::maintain`] could do.
    check_maintain: bool,
    /// Copies that are staged or in flight. Until they are written the entries are read from where they were.
    moves: VecDeque<Move>,
    live_bytes: u64,
    log_bytes_max: u64,
    cache: Cache,
}

/// An entry that was copied forward.
#[derive(Debug)]
struct Move {
    group: GroupId,
    index: u64,
    source: Location,
    target: Location,
}

impl LogStore {
    /// Opens the log in `dir`, or creates it: reads all of it, cuts a torn tail, and gives the store, the only writer, and
    /// what was found.
    ///
    /// # Errors
    /// [`Error::Damaged`](crate::Error::Damaged) when something that was synced cannot be read (never cut silently),
    /// [`Error::Foreign`](crate::Error::Foreign) for another node's or a newer release's segments,
    /// [`Error::Io`](crate::Error::Io) when the disk refuses.
    pub fn open(vfs: SharedVfs, dir: &Path, options: WalOptions) -> Result<(LogStore, WalWriter, RecoveryReport)> {
        let mut replay = Replay::default();
        let recovered = recovery::recover(&vfs, dir, &options, &mut |batch| replay.apply(batch))?;
        let active = &recovered.placed[recovered.placed.len() - 1];
        let (path, offset) = (active.segment.path.clone(), active.offset_of(recovered.end));
        let segments = Segments::new(recovered.placed);
        let groups = replay.finish(&segments, &path, offset)?;
        let mut store = LogStore {
            live_bytes: groups.values().map(|group| group.live_bytes).sum(),
            groups,
            segments,
            pool: recovered.pool,
            stage: Stage::new(Vec::new()),
            unstated: BTreeSet::new(),
            position: recovered.end,
            sequence: recovered.sequence,
            written: recovered.end,
            written_sequence: recovered.sequence - 1,
            oldest: recovered.oldest,
            check_oldest: true,
            check_maintain: true,
            moves: VecDeque::new(),
            log_bytes_max: options.log_bytes_max,
            cache: Cache { bytes: 0, count: 0, bytes_max: options.cache_bytes_max, order: VecDeque::new() },
        };
        store.give_up_segments(recovered.oldest);
        let mut report = recovered.report;
        report.entries = store.groups.values().map(|group| group.locations.len() as u64).sum();
        report.log_bytes = store.log_bytes();
        Ok((store, recovered.writer, report))
    }

    /// The groups, in the order of their numbers.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// A group's log.
    pub fn group(&self, group: GroupId) -> Option<&GroupLog> {
        self.groups.get(&group)
    }

    /// Adds a group with an empty log; nothing happens if it is there.
    pub fn create_group(&mut self, group: GroupId) {
        if !self.groups.contains_key(&group) {
            self.groups.insert(group, GroupLog::new(group, Arc::clone(&self.segments)));
            self.unstated.insert(group);
            self.stage.must_sync = true;
        }
    }

    /// Forgets a group and its log; always synced.
    pub fn remove_group(&mut self, group: GroupId) {
        if let Some(removed) = self.groups.remove(&group) {
            let cached = removed.cached.iter().map(Bytes::len).sum();
            self.cache.dropped((cached, removed.cached.len()));
            self.live_bytes -= removed.live_bytes;
            self.unstated.remove(&group);
            format::put_remove(&mut self.stage.meta, group);
            self.stage.must_sync = true;
            self.changed();
        }
    }

    /// Appends entries, replacing everything from the first one's index on.
    ///
    /// # Panics
    /// When the group is unknown; when the entries leave a gap, are not contiguous, replace what is compacted or
    /// committed, or their terms fall; when a payload is larger than [`ENTRY_BYTES_MAX`]. All of these would be defects of
    /// the caller that destroy a log.
    pub fn append(&mut self, group: GroupId, entries: &[LogEntry]) {
        let Some(first) = entries.first() else { return };
        let log = self.groups.get_mut(&group).unwrap_or_else(|| panic!("group {group} has no log"));
        assert!(
            first.index >= log.first_index() && first.index <= log.last_index() + 1,
            "entry {} does not follow group {group}'s log {}..={}",
            first.index,
            log.first_index(),
            log.last_index()
        );
        if first.index <= log.last_index() {
            assert!(first.index > log.hard_state.commit, "entry {} of group {group} is committed", first.index);
            let before = log.live_bytes;
            self.cache.dropped(log.truncate(first.index));
            self.live_bytes -= before - log.live_bytes;
            self.check_oldest = true;
            self.check_maintain = true;
        }
        let mut rest = entries;
        while let Some(head) = rest.first() {
            let count = rest.iter().take_while(|entry| entry.term == head.term).count();
            let (run, others) = rest.split_at(count);
            rest = others;
            format::put_entries(&mut self.stage.meta, group, head.index, head.term, count as u32, false);
            for entry in run {
                assert_eq!(entry.index, log.last_index() + 1, "entries of group {group} follow one another");
                assert!(entry.payload.len() <= ENTRY_BYTES_MAX, "an entry holds at most 1 GiB");
                let location = put(&mut self.stage, self.position, entry.kind, &entry.payload);
                self.live_bytes += location.live_bytes();
                log.push(entry.term, location, Some(entry.payload.clone()));
                self.stage.must_sync |= entry.kind & KIND_SYNCED != 0;
                self.cache.bytes += entry.payload.len() + CACHED_OVERHEAD_BYTES;
                self.cache.count += 1;
                self.cache.order.push_back((group, entry.index));
            }
        }
    }

    /// Sets term, vote and commit. A change of term or vote is synced whatever the durability.
    ///
    /// # Panics
    /// When the group is unknown, or the term or commit falls, or a vote changes within its term.
    pub fn set_hard_state(&mut self, group: GroupId, hard_state: HardState) {
        let log = self.groups.get_mut(&group).unwrap_or_else(|| panic!("group {group} has no log"));
        let old = log.hard_state;
        if old == hard_state {
            return;
        }
        assert!(
            hard_state.term >= old.term && hard_state.commit >= old.commit,
            "the hard state of group {group} went back from {old:?} to {hard_state:?}"
        );
        assert!(
            hard_state.term > old.term || old.vote == 0 || hard_state.vote == old.vote,
            "group {group} voted twice in term {}: {} and {}",
            old.term,
            old.vote,
            hard_state.vote
        );
        self.stage.must_sync |= (hard_state.term, hard_state.vote) != (old.term, old.vote);
        log.hard_state = hard_state;
        self.unstated.insert(group);
    }

    /// Gives up the entries up to `index`: their effect is durable elsewhere. Below what is compacted already: nothing.
    ///
    /// # Panics
    /// When the group is unknown, or has no entry at `index`.
    pub fn compact(&mut self, group: GroupId, index: u64) {
        let log = self.groups.get_mut(&group).unwrap_or_else(|| panic!("group {group} has no log"));
        assert!(index <= log.last_index(), "group {group} ends at {}, before {index}", log.last_index());
        if index <= log.compacted.0 {
            return;
        }
        let before = log.live_bytes;
        self.cache.dropped(log.compact(index));
        self.live_bytes -= before - log.live_bytes;
        self.unstated.insert(group);
        self.changed();
    }

    /// Starts a group's log anew after `index`, where a snapshot was installed; always synced.
    ///
    /// # Panics
    /// When the group is unknown.
    pub fn reset(&mut self, group: GroupId, index: u64, term: u64) {
        let log = self.groups.get_mut(&group).unwrap_or_else(|| panic!("group {group} has no log"));
        self.live_bytes -= log.live_bytes;
        let first = log.first_index();
        self.cache.dropped(log.truncate(first));
        log.compacted = (index, term);
        log.rewritten_up_to = 0;
        log.hard_state.commit = log.hard_state.commit.max(index);
        format::put_reset(&mut self.stage.meta, group, index, term);
        self.unstated.insert(group);
        self.stage.must_sync = true;
        self.changed();
    }

    /// Has the next batch synced whatever the durability.
    pub fn require_sync(&mut self) {
        self.stage.must_sync = true;
    }

    /// Whether there is something to seal.
    pub fn has_staged(&self) -> bool {
        !self.stage.is_empty() || !self.unstated.is_empty()
    }

    /// Payload bytes staged for the next batch. Seal before this passes 4 GiB.
    pub fn staged_bytes(&self) -> u64 {
        self.stage.data_len
    }

    /// Makes one batch of everything staged for all groups; `None` if there is nothing. Batches must be written in the
    /// order in which they were sealed.
    pub fn seal(&mut self) -> Option<SealedBatch> {
        if !self.has_staged() {
            return None;
        }
        for group in std::mem::take(&mut self.unstated) {
            if let Some(log) = self.groups.get_mut(&group) {
                format::put_state(&mut self.stage.meta, group, log.hard_state, log.compacted);
                log.state_position = self.position;
            }
        }
        if std::mem::take(&mut self.check_oldest) {
            self.oldest = self.oldest.max(self.oldest_needed());
        }
        let batch = self.stage.seal(self.position, self.sequence, self.oldest);
        self.position += batch.bytes();
        self.sequence += 1;
        Some(batch)
    }

    /// Learns what the writer did: entries may now leave the cache, segments may now go.
    pub fn written(&mut self, mut written: Written) {
        assert!(written.end >= self.written && written.end <= self.position, "the writer writes what was sealed");
        self.written = written.end;
        self.written_sequence = written.sequence;
        self.stage.reuse(std::mem::take(&mut written.buffer));
        if !written.placed.is_empty() {
            self.segments.change(|placed| placed.extend(written.placed.drain(..)));
            self.changed();
        }
        self.apply_moves();
        self.give_up_segments(written.synced_oldest);
        self.shrink_cache();
    }

    /// Lets copies that are in the files by now stand for the entries that they were taken from.
    fn apply_moves(&mut self) {
        while self.moves.front().is_some_and(|moved| moved.target.position() < self.written) {
            let Some(moved) = self.moves.pop_front() else { break };
            if let Some(log) = self.groups.get_mut(&moved.group)
                && (log.first_index()..=log.last_index()).contains(&moved.index)
                // The entry may have been replaced meanwhile.
                && log.location(moved.index) == moved.source
            {
                let at = (moved.index - log.first_index()) as usize;
                log.locations[at] = moved.target;
                log.rewritten_up_to = log.rewritten_up_to.max(moved.index);
            }
            self.check_oldest = true;
            self.check_maintain = true;
        }
    }

    /// Copies forward what keeps the oldest segment from going, up to about `bytes_max` of payload: idle groups' states, and
    /// live entries when the log is over its limit and at least half of it is not needed. Call it before
    /// [`LogStore::seal`]; it costs nothing when there is nothing to do. Returns whether it staged something.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) and [`Error::Damaged`](crate::Error::Damaged) when an entry cannot be read back.
    pub fn maintain(&mut self, bytes_max: usize) -> Result<bool> {
        // One round at a time: what is being copied must be in place before the rest is looked at.
        if !self.moves.is_empty() || !std::mem::take(&mut self.check_maintain) {
            return Ok(false);
        }
        let oldest = self.oldest;
        let Some(limit) =
            self.segments.with(|placed| placed.iter().find(|s| s.segment.number > oldest).map(|s| s.base))
        else {
            return Ok(false);
        };
        let pinned: Vec<GroupId> = self
            .groups
            .values()
            .filter(|log| log.oldest_entry().is_some_and(|(position, _)| position < limit))
            .map(GroupLog::id)
            .collect();
        let log_bytes = self.log_bytes();
        if !pinned.is_empty() && (log_bytes <= self.log_bytes_max || self.live_bytes.saturating_mul(2) > log_bytes) {
            return Ok(false);
        }
        let stale: Vec<GroupId> =
            self.groups.values().filter(|log| log.state_position < limit).map(GroupLog::id).collect();
        let mut staged = !stale.is_empty();
        self.unstated.extend(stale);
        let mut budget = bytes_max.max(1);
        for group in pinned {
            if budget == 0 {
                break;
            }
            staged = true;
            budget = self.rewrite(group, limit, budget)?;
        }
        self.check_oldest = true;
        // There may be more to do, in this segment or the next.
        self.check_maintain = staged;
        Ok(staged)
    }

    /// Stages copies of a group's entries that lie below `limit`; returns what is left of the budget.
    fn rewrite(&mut self, group: GroupId, limit: u64, mut budget: usize) -> Result<usize> {
        let Some(log) = self.groups.get_mut(&group) else { return Ok(budget) };
        let mut index = log.first_index();
        while index <= log.last_index() && budget > 0 {
            if log.location(index).position() >= limit {
                index += 1;
                continue;
            }
            let term = log.term(index).unwrap_or_default();
            let mut end = index + 1;
            let mut bytes = log.location(index).live_bytes() as usize;
            while end <= log.last_index()
                && log.location(end).position() < limit
                && log.term(end) == Some(term)
                && bytes < budget.min(1 << 20)
            {
                bytes += log.location(end).live_bytes() as usize;
                end += 1;
            }
            let entries = log.entries(index, end, usize::MAX)?;
            format::put_entries(&mut self.stage.meta, group, index, term, entries.len() as u32, true);
            for entry in &entries {
                let target = put(&mut self.stage, self.position, entry.kind, &entry.payload);
                let source = log.location(entry.index);
                self.moves.push_back(Move { group, index: entry.index, source, target });
            }
            budget = budget.saturating_sub(bytes);
            index = end;
        }
        Ok(budget)
    }

    /// The log's length on disk in bytes, from the oldest segment needed; what is staged is not counted.
    pub fn log_bytes(&self) -> u64 {
        let oldest = self.oldest;
        let base = self.segments.with(|placed| placed.iter().find(|s| s.segment.number >= oldest).map(|s| s.base));
        self.position - base.unwrap_or(self.position)
    }

    /// Bytes that live entries take on disk, about.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Memory held, in bytes: cached payloads, what is staged, and 16 B for each live entry.
    pub fn memory_bytes(&self) -> usize {
        let entries: usize = self.groups.values().map(|group| group.locations.capacity()).sum();
        self.cache.bytes
            + self.cache.order.capacity() * size_of::<(GroupId, u64)>()
            + self.stage.data_len as usize
            + self.stage.meta.capacity()
            + entries * size_of::<Location>()
    }

    /// The group whose entries pin the most log: what to flush first.
    pub fn oldest_pin(&self) -> Option<LogPin> {
        let oldest = |log: &GroupLog| log.oldest_entry().map(|(position, index)| (position, log.group, index));
        let (position, group, index) = self.groups.values().filter_map(oldest).min()?;
        Some(LogPin { group, index, bytes: self.position - position })
    }

    /// The number of the last batch sealed.
    pub fn sealed_sequence(&self) -> u64 {
        self.sequence - 1
    }

    /// The number of the last batch that the writer reported.
    pub fn written_sequence(&self) -> u64 {
        self.written_sequence
    }

    fn changed(&mut self) {
        self.check_oldest = true;
        self.check_maintain = true;
    }

    /// The oldest segment that recovery needs, given what is staged.
    fn oldest_needed(&self) -> u64 {
        let needed = self
            .groups
            .values()
            .map(|log| log.oldest_entry().map_or(log.state_position, |(position, _)| position.min(log.state_position)))
            .min()
            .unwrap_or(self.position);
        self.segments.holding(needed).map_or(self.oldest, |placed| placed.segment.number)
    }

    /// Gives up the segments below the oldest that the synced log needs.
    fn give_up_segments(&mut self, synced_oldest: u64) {
        let front = self.segments.with(|placed| placed.front().map(|s| s.segment.number));
        if front.is_none_or(|front| front >= synced_oldest) {
            return;
        }
        let freed = self.segments.change(|placed| {
            let keep = placed.partition_point(|s| s.segment.number < synced_oldest);
            placed.drain(..keep).map(|s| s.segment.number).collect::<Vec<_>>()
        });
        self.pool.free(freed);
    }

    /// Lets the oldest cached payloads go until the budget holds; those not yet in a file stay.
    fn shrink_cache(&mut self) {
        while self.cache.bytes > self.cache.bytes_max {
            let Some(&(group, index)) = self.cache.order.front() else { break };
            if let Some(log) = self.groups.get_mut(&group) {
                let mut blocked = false;
                while log.cached_first() <= index.min(log.last_index()) {
                    if log.location(log.cached_first()).position() >= self.written {
                        blocked = true;
                        break;
                    }
                    if let Some(payload) = log.cached.pop_front() {
                        self.cache.dropped((payload.len(), 1));
                    }
                }
                if blocked {
                    break;
                }
            }
            self.cache.order.pop_front();
        }
        // Entries that were compacted or replaced leave their places in the queue behind: sweep when they are the most.
        if self.cache.order.len() > 2 * self.cache.count + 1024 {
            let groups = &self.groups;
            self.cache.order.retain(|(group, index)| {
                groups.get(group).is_some_and(|log| *index >= log.cached_first() && *index <= log.last_index())
            });
        }
    }
}

/// Stages one entry's payload and line; returns where it will be.
fn put(stage: &mut Stage, position: u64, kind: u8, payload: &Bytes) -> Location {
    const _: () = assert!(ENTRY_OVERHEAD_BYTES >= format::BATCH_HEADER_BYTES as u64);
    let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
    let at = position + format::BATCH_HEADER_BYTES as u64 + stage.put_payload(payload);
    format::put_entry(&mut stage.meta, EntryMeta { kind, len, crc });
    Location::new(at, kind, len, crc)
}
