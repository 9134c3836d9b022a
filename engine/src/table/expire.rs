//! Finding keys whose deadline has passed, so that they can be deleted through the log.
//!
//! Memory has a list of its own; rows in the store have an index by deadline, kept exact by the flusher. An [`ExpireJob`]
//! walks the index from where the last one stopped. What it finds was true of the store; finishing it drops the keys that
//! memory knows better.

use super::node::Shared;
use super::state::Table;
use super::{OwnedKey, rows};
use crate::{GroupId, Result};
use std::sync::Arc;

/// How soon the store is looked at again when keys that were found there may still be there, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1_000;

/// Expired keys being looked for. [`ExpireJob::run`] it anywhere, then [`Table::finish_expired`].
#[derive(Debug)]
pub struct ExpireJob {
    shared: Arc<Shared>,
    group: GroupId,
    incarnation: u64,
    now_ms: u64,
    after: Option<Vec<u8>>,
    limit: usize,
    look: bool,
    found: Vec<OwnedKey>,
}

/// What an [`ExpireJob`] found.
#[derive(Debug)]
pub struct ExpireOutcome {
    incarnation: u64,
    now_ms: u64,
    looked: bool,
    /// Found in memory, then in the store.
    memory: Vec<OwnedKey>,
    store: Vec<OwnedKey>,
    /// Where to go on, if there is more.
    after: Option<Vec<u8>>,
    /// The next deadline in the store.
    next_ms: Option<u64>,
}

impl ExpireJob {
    /// Whether running the job reads the store, and so may block on the disk.
    pub fn needs_store(&self) -> bool {
        self.look
    }

    /// Walks the store's deadlines.
    ///
    /// # Errors
    /// When the store fails or its bytes are damaged.
    pub fn run(self) -> Result<ExpireOutcome> {
        let ExpireJob { shared, group, incarnation, now_ms, after, limit, look, found } = self;
        let mut outcome = ExpireOutcome {
            incarnation,
            now_ms,
            looked: look,
            memory: found,
            store: Vec::new(),
            after: None,
            next_ms: None,
        };
        if !look {
            return Ok(outcome);
        }
        let (start, end) = rows::index_range(group);
        let start = after.map_or(start, |mut after| {
            after.push(0);
            after
        });
        let malformed = |detail| shared.locate(super::flush::store_error(detail));
        for row in shared.store.range(&start, &end) {
            let (row, _) = row.map_err(|error| shared.locate(error))?;
            let (deadline_ms, parsed) = rows::parse_index_key(&row).map_err(malformed)?;
            if deadline_ms > now_ms {
                outcome.after = None;
                outcome.next_ms = Some(deadline_ms);
                return Ok(outcome);
            }
            if outcome.store.len() >= limit {
                return Ok(outcome);
            }
            outcome.after = Some(row.to_vec());
            // Rows of an incarnation that is over wait to be swept up.
            if parsed.incarnation != incarnation {
                continue;
            }
            let key = |key: Box<[u8]>| OwnedKey { slot: parsed.slot, hash: parsed.hash, key };
            match parsed.key {
                Some(short) => outcome.store.push(key(short.into())),
                None => {
                    let value =
                        shared.store.get(&rows::data_row_of_index(&row)).map_err(|error| shared.locate(error))?;
                    let members =
                        value.map_or(Ok(Vec::new()), |value| rows::parse_bucket(&value)).map_err(malformed)?;
                    let due = members.into_iter().filter(|(_, object)| object.deadline_ms == deadline_ms);
                    outcome.store.extend(due.map(|(long, _)| key(long)));
                }
            }
        }
        outcome.after = None;
        Ok(outcome)
    }
}

impl Table {
    /// Begins to look for about `limit` keys whose deadline is at or before `now_ms`; `None` when there are surely none.
    pub fn expired(&mut self, now_ms: u64, limit: usize) -> Option<ExpireJob> {
        let found = self.active.expired(now_ms, limit);
        let found: Vec<_> = found.into_iter().map(|(slot, hash, key)| OwnedKey { slot, hash, key }).collect();
        let look = self.expire_look_ms <= now_ms && found.len() < limit && self.count > 0;
        if found.is_empty() && !look {
            return None;
        }
        Some(ExpireJob {
            shared: self.shared.clone(),
            group: self.group,
            incarnation: self.incarnation,
            now_ms,
            after: self.expire_after.take(),
            limit: limit - found.len(),
            look,
            found,
        })
    }

    /// The expired keys that a job found and that memory doesn't know to be written since. They are candidates: whether to
    /// delete is judged when the deletion is applied.
    pub fn finish_expired(&mut self, outcome: ExpireOutcome) -> Vec<OwnedKey> {
        let ExpireOutcome { incarnation, now_ms, looked, memory, store, after, next_ms } = outcome;
        if incarnation != self.incarnation {
            return Vec::new();
        }
        if looked {
            // A generation that came in between set its own time to look; the sooner one wins.
            let due = !store.is_empty();
            let look_ms = match (&after, next_ms) {
                (Some(_), _) => now_ms,
                (None, next_ms) if due => next_ms.unwrap_or(u64::MAX).min(now_ms + LOOK_AGAIN_MS),
                (None, next_ms) => next_ms.unwrap_or(u64::MAX),
            };
            self.expire_look_ms =
                if self.expire_look_ms <= now_ms { look_ms } else { self.expire_look_ms.min(look_ms) };
            self.expire_after = after;
        }
        let mut keys = memory;
        keys.extend(store.into_iter().filter(|key| self.in_memtables(key.as_ref()).is_none()));
        keys
    }
}
