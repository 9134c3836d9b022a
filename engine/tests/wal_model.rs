//! Random histories against a model: crash anywhere, tear anything that was not synced, open again, compare.
//!
//! What must hold after each crash: everything acknowledged by a sync is there; nothing is there that was not written;
//! the state is the one after some batch, not a mixture; the hard state never goes back.

#![allow(clippy::unwrap_used, reason = "a failed expectation of a test's helper is a failed test")]

mod common;

use common::{Node, entry, options};
use holdfast_engine::log::{Durability, HardState, LogEntry, WalOptions};
use holdfast_engine::vfs::{CrashPlan, SimVfs, Survival};
use std::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// A group as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    hard_state: HardState,
    compacted: (u64, u64),
    entries: Vec<LogEntry>,
}

impl Group {
    fn last_index(&self) -> u64 {
        self.compacted.0 + self.entries.len() as u64
    }

    fn last_term(&self) -> u64 {
        self.entries.last().map_or(self.compacted.1, |entry| entry.term)
    }
}

type Model = BTreeMap<u64, Group>;

fn observe(node: &Node) -> Model {
    let group = |id| {
        let log = node.store.group(id).unwrap();
        (id, Group { hard_state: log.hard_state(), compacted: log.compacted(), entries: node.entries(id) })
    };
    node.store.groups().map(group).collect()
}

/// Stages something random, in the log and in the model.
fn step(node: &mut Node, model: &mut Model, dice: &mut Dice) {
    let id = 1 + dice.below(4);
    let group = model.entry(id).or_default();
    node.store.create_group(id);
    match dice.below(20) {
        0..=10 => {
            let term = group.last_term().max(group.hard_state.term).max(1);
            let count = 1 + dice.below(4);
            let first = group.last_index() + 1;
            let len = if dice.below(20) == 0 { 6000 } else { dice.below(400) as usize };
            let entries: Vec<_> = (first..first + count).map(|index| entry(term, index, len)).collect();
            node.store.append(id, &entries);
            group.entries.extend(entries);
        }
        11..=12 => {
            // A new leader replaces what was not committed.
            let floor = group.hard_state.commit.max(group.compacted.0) + 1;
            let first = floor + dice.below(group.last_index() + 2 - floor.min(group.last_index() + 1));
            let first = first.min(group.last_index() + 1);
            let term = group.last_term().max(group.hard_state.term) + 1;
            let new = entry(term, first, dice.below(100) as usize);
            node.store.append(id, std::slice::from_ref(&new));
            group.entries.truncate((first - group.compacted.0 - 1) as usize);
            group.entries.push(new);
        }
        13..=14 => {
            let mut hard_state = group.hard_state;
            if dice.below(2) == 0 {
                hard_state.term = hard_state.term.max(group.last_term()) + dice.below(2);
                hard_state.vote = if hard_state.term > group.hard_state.term { dice.below(4) } else { hard_state.vote };
            }
            let ahead = group.last_index().saturating_sub(hard_state.commit);
            hard_state.commit += dice.below(ahead + 1);
            node.store.set_hard_state(id, hard_state);
            group.hard_state = hard_state;
        }
        15..=18 => {
            // Groups 3 and 4 rarely compact: they are the ones that would pin the log.
            if id <= 2 || dice.below(40) == 0 {
                let count = dice.below(group.entries.len() as u64 + 1) as usize;
                if count > 0 {
                    let last = &group.entries[count - 1];
                    group.compacted = (last.index, last.term);
                    node.store.compact(id, group.compacted.0);
                    group.entries.drain(..count);
                }
            }
        }
        _ => {
            if dice.below(10) == 0 {
                let index = group.last_index() + 1 + dice.below(100);
                let term = group.last_term().max(group.hard_state.term);
                node.store.reset(id, index, term);
                group.compacted = (index, term);
                group.hard_state.commit = group.hard_state.commit.max(index);
                group.entries.clear();
            }
        }
    }
}

fn run(seed: u64, durability: Durability) {
    let mut dice = Dice(seed * 0x9e37_79b9 + 1);
    let mut vfs = SimVfs::new();
    // The model after each batch since the last one known synced; the last is what the log should show now.
    let mut history: Vec<Model> = vec![Model::new()];
    // Cleaning is spread over turns, so the log follows what is live with a delay.
    let mut live_max = 0;
    for round in 0..12 {
        let about = format!("seed {seed} round {round} {durability:?}");
        let recovering = dice.below(4) == 0;
        if recovering {
            // The machine stops again while it recovers.
            vfs.halt_after(dice.below(12));
            let _ = Node::open(&vfs);
            vfs = crash(&vfs, &mut dice);
        }
        let options = WalOptions { durability, segment_bytes: 12 << 10, ..options(vfs.changes()) };
        let mut node = Node::open_with(&vfs, options).unwrap_or_else(|e| panic!("{about}: {e}"));
        let found = observe(&node);
        assert!(history.contains(&found), "{about}: the log shows something that never was:\n{found:#?}");
        history = vec![found];
        vfs.halt_after(20 + dice.below(400));
        'turns: for _ in 0..200 {
            let mut model = history[history.len() - 1].clone();
            for _ in 0..1 + dice.below(4) {
                step(&mut node, &mut model, &mut dice);
            }
            if node.store.maintain(16 << 10).is_err() {
                break;
            }
            live_max = live_max.max(node.store.live_bytes());
            let staged = node.store.has_staged();
            assert_eq!(observe_unless_halted(&node), Some(model.clone()).filter(|_| !vfs.halted()), "{about}");
            // From here on the batch may survive a crash, acknowledged or not.
            history.push(model);
            if staged {
                match node.commit() {
                    Ok(true) => drop(history.drain(..history.len() - 1)),
                    Ok(false) => {}
                    Err(_) => break,
                }
            }
            match dice.below(12) {
                0 => match node.writer.idle_statement() {
                    Ok(_) => {}
                    Err(_) => break,
                },
                1 => match node.writer.sync(node.now_ms) {
                    Ok(written) => {
                        node.took(written);
                        history.drain(..history.len() - 1);
                    }
                    Err(_) => break,
                },
                2..=6 => {
                    while let Ok(true) = node.writer.prepare_next() {}
                    if vfs.halted() {
                        break 'turns;
                    }
                }
                _ => {}
            }
        }
        let (log, limit) = (node.store.log_bytes(), (64 << 10).max(2 * live_max) + (96 << 10));
        assert!(log < limit, "{about}: {log} bytes of log, at most {live_max} were live");
        vfs = crash(&vfs, &mut dice);
    }
}

fn observe_unless_halted(node: &Node) -> Option<Model> {
    (!node.vfs.halted()).then(|| observe(node))
}

fn crash(vfs: &SimVfs, dice: &mut Dice) -> SimVfs {
    let survival = |dice: &mut Dice| match dice.below(4) {
        0 => Survival::Nothing,
        1 => Survival::Everything,
        _ => Survival::Chance(dice.below(101) as u8),
    };
    let (data, names) = (survival(dice), survival(dice));
    vfs.crash(CrashPlan { seed: dice.below(u64::MAX), data, names })
}

#[test]
fn random_histories_survive_crashes_under_always() {
    (1..=60).for_each(|seed| run(seed, Durability::Always));
}

#[test]
fn random_histories_survive_crashes_under_everysec() {
    (101..=140).for_each(|seed| run(seed, Durability::Everysec));
}

#[test]
fn random_histories_survive_crashes_under_no() {
    (201..=240).for_each(|seed| run(seed, Durability::No));
}
