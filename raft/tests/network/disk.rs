//! What a replica's host keeps: a disk that survives a crash.

use holdfast_raft::{ConfState, Entry, HardState, LogError, LogReader, WriteBatch};

/// A log in memory that plays the part of one on disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryLog {
    pub(crate) base_index: u64,
    pub(crate) base_term: u64,
    pub(crate) entries: Vec<Entry>,
}

impl MemoryLog {
    pub(crate) fn last(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return Some(self.base_term);
        }
        index
            .checked_sub(self.base_index + 1)
            .and_then(|place| self.entries.get(place as usize))
            .map(|entry| entry.term)
    }

    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        index.checked_sub(self.base_index + 1).and_then(|place| self.entries.get(place as usize))
    }

    /// Puts entries in place of whatever follows their predecessor.
    pub(crate) fn write(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.base_index && first.index <= self.last() + 1, "a gap before entry {}", first.index);
        self.entries.truncate((first.index - self.base_index - 1) as usize);
        self.entries.extend_from_slice(entries);
    }

    pub(crate) fn reset(&mut self, index: u64, term: u64) {
        *self = MemoryLog { base_index: index, base_term: term, entries: Vec::new() };
    }

    pub(crate) fn compact(&mut self, index: u64) {
        if index > self.base_index {
            self.base_term = self.term_at(index).expect("compaction stays within the log");
            self.entries.drain(..(index - self.base_index) as usize);
            self.base_index = index;
        }
    }
}

impl LogReader for MemoryLog {
    fn first_index(&self) -> u64 {
        self.base_index + 1
    }

    fn last_index(&self) -> u64 {
        self.last()
    }

    fn term(&self, index: u64) -> Result<u64, LogError> {
        self.term_at(index).ok_or(LogError::Compacted)
    }

    fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        if low <= self.base_index {
            return Err(LogError::Compacted);
        }
        assert!(
            low < high && high <= self.last() + 1,
            "entries {low}..{high} asked of a log that ends at {}",
            self.last()
        );
        let mut bytes = 0;
        let mut entries = Vec::new();
        for index in low..high {
            let entry = self.entry(index).expect("within the log");
            bytes += entry.size_bytes();
            if !entries.is_empty() && bytes > bytes_max {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }
}

/// Everything of a replica that survives a crash.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) log: MemoryLog,
    /// The applied state, as of its last checkpoint.
    pub(crate) applied: u64,
    pub(crate) conf_state: ConfState,
}

impl Disk {
    /// A member of a new group: its log begins after entry 1, so that whoever joins later needs a snapshot.
    pub(crate) fn founder(voters: &[u64]) -> Disk {
        Disk {
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            log: MemoryLog { base_index: 1, base_term: 1, entries: Vec::new() },
            applied: 1,
            conf_state: ConfState::of_voters(voters.iter().copied()),
        }
    }

    /// A replica that knows nothing yet.
    pub(crate) fn empty() -> Disk {
        Disk {
            hard_state: HardState::default(),
            log: MemoryLog::default(),
            applied: 0,
            conf_state: ConfState::default(),
        }
    }

    pub(crate) fn write(&mut self, write: &WriteBatch) {
        if let Some(hard_state) = write.hard_state {
            assert!(hard_state.term >= self.hard_state.term, "the stored term never falls");
            self.hard_state = hard_state;
        }
        if let Some(install) = &write.snapshot {
            let meta = &install.meta;
            if install.keep_log_after {
                assert_eq!(self.log.term_at(meta.index), Some(meta.term), "the log kept belongs to the snapshot");
                self.log.compact(meta.index);
            } else {
                self.log.reset(meta.index, meta.term);
            }
            self.applied = meta.index;
            self.conf_state = meta.conf_state.clone();
        }
        self.log.write(&write.entries);
    }
}
