//! At most one change of the membership is under way. Each membership shares its majorities with the one before. Who was taken out
//! leads no more once it knows.

use holdfast_raft::{ConfState, EntryKind, Message, MessageBody};
use std::collections::BTreeMap;

use super::Broken;
use crate::world::marks::Marks;

/// Every membership there was, and every change that was sent.
#[derive(Debug, Default)]
pub(in crate::world) struct Memberships {
    /// By the entry that it begins with.
    memberships: BTreeMap<u64, ConfState>,
    /// Entries that change the membership: the terms of those sent, by index.
    changes: BTreeMap<u64, Vec<u64>>,
    /// What was committed already by whoever applied the change at this entry: a leader counted for that by the membership before.
    counted_before: BTreeMap<u64, u64>,
    /// Members that were taken out, and the entry that did it.
    gone: BTreeMap<u64, u64>,
}

impl Memberships {
    /// The newest that anybody has applied.
    pub(in crate::world) fn newest(&self) -> Option<&ConfState> {
        self.memberships.last_key_value().map(|(_, conf)| conf)
    }

    /// The membership before the newest, if an entry may have been committed by its majority although it follows the change.
    pub(in crate::world) fn before(&self, index: u64) -> Option<&ConfState> {
        let (change, commit) = self.counted_before.last_key_value()?;
        let counts = *change < index && index <= *commit;
        self.memberships.range(..change).next_back().filter(|_| counts).map(|(_, conf)| conf)
    }

    /// A machine that knows this commit index applied an entry that changed the membership.
    pub(in crate::world) fn changed(
        &mut self,
        machine: u32,
        (index, commit): (u64, u64),
        conf: &ConfState,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let counted = self.counted_before.entry(index).or_default();
        *counted = commit.max(*counted);
        if let Some(known) = self.memberships.get(&index) {
            if known == conf {
                return Ok(());
            }
            return Err(format!("node {machine} has another membership after entry {index}: {conf:?}, not {known:?}"));
        }
        marks.hit("membership changes");
        let before = self.memberships.range(..index).next_back().map(|(_, before)| before.clone());
        self.memberships.insert(index, conf.clone());
        let Some(before) = before else { return Ok(()) };
        for member in before.members().into_iter().filter(|member| !conf.contains(*member)) {
            marks.hit("members taken out");
            self.gone.insert(member, index);
        }
        let differing = before.voters.iter().filter(|voter| !conf.voters.contains(voter)).count()
            + conf.voters.iter().filter(|voter| !before.voters.contains(voter)).count();
        // A joint membership decides with the old majority as well; whoever leaves one has the new majority behind it.
        let overlaps = differing <= 1
            || (conf.is_joint() && conf.voters_outgoing == before.voters)
            || (before.is_joint() && conf.voters == before.voters);
        if overlaps {
            return Ok(());
        }
        Err(format!("after entry {index} two membership changes came at once: from {before:?} to {conf:?}"))
    }

    /// A leader sends entries. `term_of` says what its log holds.
    pub(in crate::world) fn proposed(
        &mut self,
        message: &Message,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), Broken> {
        let MessageBody::Append { commit, entries, .. } = &message.body else { return Ok(()) };
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange) {
            let terms = self.changes.entry(entry.index).or_default();
            if !terms.contains(&entry.term) {
                terms.push(entry.term);
            }
            if entry.term != message.term {
                continue;
            }
            // NB: what was committed when it was proposed is committed still.
            let earlier = self
                .changes
                .range(commit.saturating_add(1).min(entry.index)..entry.index)
                .find(|(index, terms)| term_of(**index).is_some_and(|term| terms.contains(&term)));
            if let Some((earlier, _)) = earlier {
                return Err(format!(
                    "node {} proposed a membership change at entry {} while that at {earlier} was under way",
                    message.from, entry.index
                ));
            }
        }
        Ok(())
    }

    /// A member became leader, with everything up to `applied` in its state.
    pub(in crate::world) fn elected(&self, member: u64, applied: u64) -> Result<(), Broken> {
        match self.gone.get(&member) {
            Some(index) if *index <= applied => {
                Err(format!("member {member} leads after the membership change at entry {index}, which took it out"))
            }
            _ => Ok(()),
        }
    }
}
