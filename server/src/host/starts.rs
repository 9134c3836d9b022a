//! The book of starts: which start of each other node was seen last, so that an older copy of its folder is not heard.
//!
//! ```text
//!   hello ─▶ Host::vet ─▶ refused: older than what the book or the list of members remembers
//!                  │
//!                  └────▶ into the book, synced ─▶ let in ─▶ (the leader) ─▶ entry ─▶ list of members, on every node
//! ```
//!
//! A node is remembered here before anything that it says is heard. So whoever got a vote or an acknowledgement of a start knows the
//! start, and survives its own crash with that; the list of members brings it to those that were not connected.
//!
//! ```text
//!   STARTS   a state file: per node │ id u64 │ boot u64 │ random number u64 │
//! ```

use super::Host;
use crate::cluster::{NodeId, Pace, PromiseLost, Start, Starts};
use crate::peer::Refusal;
use holdfast_engine::folder::DataFolder;
use holdfast_engine::state_file;
use holdfast_engine::vfs::SharedVfs;
use holdfast_engine::{Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = crate::membership::STARTS_FILE;
const MAGIC: [u8; 8] = *b"HFSTARTS";
const VERSION: u32 = 1;
/// The most nodes in the book. Only members, and a few guests that are about to be, get into it.
const NODES_MAX: usize = 4096;
const ROW_BYTES: usize = 24;

/// The newest starts that are known.
#[derive(Debug)]
pub(super) struct StartBook {
    vfs: SharedVfs,
    path: PathBuf,
    own: Starts,
    seen: BTreeMap<NodeId, Start>,
}

impl StartBook {
    /// Reads the book of a folder; an absent one is empty.
    ///
    /// # Errors
    /// When it is damaged, or the disk refuses.
    pub(super) fn open(vfs: SharedVfs, folder: &DataFolder) -> Result<Self> {
        let path = folder.path().join(FILE);
        let mut seen = BTreeMap::new();
        if let Some((_, payload)) = state_file::read(&*vfs, &path, MAGIC, VERSION)? {
            let (rows, rest) = payload.as_chunks::<ROW_BYTES>();
            if !rest.is_empty() || rows.len() > NODES_MAX {
                let detail = "the book of starts makes no sense".to_owned();
                return Err(Error::Damaged { path, offset: 24, detail });
            }
            for row in rows {
                let number = |at: usize| row[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                seen.insert(number(0), Start { boot: number(8), run: number(16) });
            }
        }
        let identity = folder.identity();
        let runs = identity.starts.iter().copied().take_while(|run| *run != Start::VOID).collect();
        Ok(StartBook { vfs, path, own: Starts { boot: identity.boot, runs }, seen })
    }

    /// Writes a start down, durably, if it is news.
    fn remember(&mut self, id: NodeId, start: Start) -> Result<()> {
        let known = self.seen.get(&id).copied();
        if !start.supersedes(known) {
            return Ok(());
        }
        self.seen.insert(id, start);
        let mut payload = Vec::with_capacity(self.seen.len() * ROW_BYTES);
        for (id, Start { boot, run }) in &self.seen {
            [id, boot, run].into_iter().for_each(|number| payload.extend_from_slice(&number.to_le_bytes()));
        }
        // NB: on the calling thread, once for each start of another node: it must be there before that node is heard.
        state_file::write(&*self.vfs, &self.path, MAGIC, VERSION, &payload)
    }
}

impl Host {
    /// This node's starts, for others to know it by.
    pub fn starts(&self) -> &Starts {
        &self.starts.own
    }

    /// What this node's timing rests on.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Decides whether another node of the cluster is heard, and remembers its start before it is.
    ///
    /// # Errors
    /// Why it is not.
    pub fn vet(&mut self, from: NodeId, starts: &Starts, pace: &Pace) -> std::result::Result<(), Refusal> {
        let me = self.data().raft().id();
        let Some(present) = starts.present().filter(|_| starts.runs.len() as u64 <= starts.boot) else {
            return Err(Refusal::Settings(format!("node {from} doesn't say how often it was started")));
        };
        let registered = self.data().members().starts.get(&from).copied();
        for known in self.starts.seen.get(&from).copied().into_iter().chain(registered) {
            starts.check(known).map_err(|lost| Refusal::PromiseLost(lost.explain(from)))?;
        }
        self.pace.check(me, from, pace).map_err(Refusal::Settings)?;
        if !self.starts.seen.contains_key(&from) && self.starts.seen.len() >= NODES_MAX {
            return Err(Refusal::Settings(format!("node {me} remembers {NODES_MAX} other nodes already")));
        }
        if let Err(error) = self.starts.remember(from, present) {
            let reason = format!("node {from} has started, and that can't be remembered: {error}");
            self.halt(&reason);
            return Err(Refusal::Settings(format!("node {me} takes part in nothing any more")));
        }
        Ok(())
    }

    /// Starts that are known here and not in the list of members: the leader has them registered.
    pub fn unregistered_starts(&self) -> Vec<(NodeId, Start)> {
        let members = self.data().members();
        let own = self.identity.zip(self.starts.own.present()).map(|(identity, start)| (identity.node, start));
        let known = self.starts.seen.iter().map(|(id, start)| (*id, *start)).chain(own);
        let is_news = |(id, start): &(NodeId, Start)| {
            members.nodes.contains_key(id) && start.supersedes(members.starts.get(id).copied())
        };
        known.filter(is_news).collect()
    }

    /// The end of a node that was caught having lost what it acknowledged, to be registered.
    pub fn void_start(&self, id: NodeId) -> Start {
        let known = self.starts.seen.get(&id).copied().or(self.data().members().starts.get(&id).copied());
        Start { boot: known.map_or(0, |start| start.boot), run: Start::VOID }
    }

    /// Whether the list of members remembers a start of this node that its folder does not: the folder is an older copy.
    pub fn own_promise_lost(&self) -> Option<PromiseLost> {
        let identity = self.identity?;
        let known = self.data().members().starts.get(&identity.node)?;
        self.starts.own.check(*known).err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_engine::store::StoreKind;
    use holdfast_engine::vfs::{CrashPlan, SimVfs, Vfs};
    use std::path::Path;

    const DIR: &str = "/data";

    fn book(vfs: &SimVfs) -> Result<StartBook> {
        let folder = DataFolder::open(vfs.shared(), Path::new(DIR), 0xabc, StoreKind::Fjall)?;
        StartBook::open(vfs.shared(), &folder)
    }

    #[test]
    fn what_was_remembered_is_there_after_a_crash() {
        let vfs = SimVfs::new();
        let mut first = book(&vfs).unwrap();
        assert_eq!(first.own.boot, 1);
        for (id, start) in
            [(2, Start { boot: 3, run: 7 }), (9, Start { boot: 1, run: 8 }), (2, Start { boot: 4, run: 9 })]
        {
            first.remember(id, start).unwrap();
        }
        // No news, and no write: the disk would refuse it.
        vfs.set_read_only(true);
        first.remember(2, Start { boot: 4, run: 9 }).unwrap();
        first.remember(2, Start { boot: 3, run: 7 }).unwrap();
        assert!(first.remember(3, Start { boot: 1, run: 1 }).is_err());
        vfs.set_read_only(false);
        drop(first);
        let vfs = vfs.crash(CrashPlan::synced_only());
        let again = book(&vfs).unwrap();
        let expected = [(2, Start { boot: 4, run: 9 }), (9, Start { boot: 1, run: 8 })];
        assert_eq!(again.seen.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!((again.own.boot, again.own.runs.len()), (2, 2));
    }

    #[test]
    fn damaged_book_is_refused() {
        let vfs = SimVfs::new();
        book(&vfs).unwrap().remember(2, Start { boot: 3, run: 7 }).unwrap();
        let path = Path::new(DIR).join(FILE);
        vfs.flip_bit(&path, 30, 1);
        assert!(matches!(book(&vfs), Err(Error::Damaged { .. })));
        vfs.remove(&path).unwrap();
        state_file::write(&*vfs.shared(), &path, MAGIC, VERSION, &[1; 25]).unwrap();
        assert!(matches!(book(&vfs), Err(Error::Damaged { .. })), "half a row");
    }
}
