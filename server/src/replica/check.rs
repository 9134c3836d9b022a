//! Checks that the replicas of a group hold the same state: a hash of everything at one index, compared by the leader.
//!
//! ```text
//!   leader                    every replica, at the index of CHECK                    leader                    every replica
//!   CHECK ─▶ log ─▶ apply ─▶ view ─▶ hash (elsewhere, throttled) ─▶ StateHash ─▶ a majority agrees ─▶ VERDICT ─▶ log ─▶ apply
//!                                                                                                                  │
//!        hand leadership over, if it leads; ask for a snapshot; rebuilt  ◀── its own differs ──────────────────────┘
//! ```
//!
//! # Motive
//! Replicas that apply the same log hold the same state, unless a bug, a bad memory module or a disk that the checksums did not
//! catch says otherwise. Nobody would notice until that replica leads. So their states are compared in the background, and the one
//! that differs from a majority is not argued with but made anew.
//!
//! # What is hashed
//! All keys in the order (slot, hash, key), each with its kind, deadline and data; then the records of sessions; the list of members;
//! index, term and time. Nothing
//! of how it is stored: neither what is in memory and what in the store, nor names of incarnations.
//!
//! # Caveats
//! - Without a majority of equal hashes (two nodes that differ) nobody knows who is right: it is reported, and nothing is rebuilt.
//! - A replica that differs and restarts before it was rebuilt still differs: the host keeps a note of it.
//! - A replica that waits for a snapshot stands for no election. If nobody leads, its log may be what the others lack: it gives the wait up,
//!   leads if it must, which commits what its log holds, and hands leadership over. It serves nobody meanwhile.
//! - A check is not begun before the last one is over: where hashing takes longer than the interval, none would ever end.
//! - The hash covers the list of members as it is encoded. Whoever gives that encoding a new version has to hash its fields instead: during
//!   an upgrade replicas encode it differently.
//! - The decisions are made here, from events; the driver runs [`HashJob`]s and carries [`StateHash`]es.

use super::{Replica, internal};
use crate::cluster::NodeId;
use crate::entry::EntryBuilder;
use holdfast_engine::table::View;
use holdfast_engine::{GroupId, Result};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::Xxh3;

/// The last slot.
const SLOT_LAST: u16 = crate::slot::SLOT_COUNT - 1;
/// After this time an entry, a hash or a snapshot that didn't come is asked for again, in milliseconds.
const REPEAT_MS: u64 = 2000;
/// A replica that says nothing is waited for at least so long: it may be busy, or just be coming back.
const SILENCE_MS: u64 = 5000;
/// How often a leader is told that there is nothing to compare: it may get lost, and matters to a leader that waits only.
const TELLINGS_MAX: u32 = 5;
/// After so many election timeouts without a leader, a replica that waits for a snapshot may be the one that is missing.
const LEADERLESS_TIMEOUTS: u64 = 6;
/// The largest value that the commands of a check's entry may make: they make none.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// The hash of a group's state at an index, as one replica found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateHash {
    /// The index.
    pub index: u64,
    /// The hash. None: this replica has none for this index or any before: it was started or rebuilt since, or can't read its store.
    pub hash: Option<u128>,
}

/// What is to be hashed. Run it anywhere, then hand the result to [`Host::finish_hash`](crate::host::Host::finish_hash).
#[derive(Debug)]
pub struct HashJob {
    view: View,
}

impl HashJob {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.view.group()
    }

    /// The index that is shown.
    pub fn index(&self) -> u64 {
        self.view.applied().index
    }

    /// Hashes everything. `pause` is told after each row how many bytes it took, and may take its time.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn run(&self, mut pause: impl FnMut(u64)) -> Result<u128> {
        let mut hasher = Xxh3::new();
        let header = self.view.header();
        let applied = header.applied;
        for number in [applied.index, applied.term, applied.stamp_ms, header.conf_state.len() as u64] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&header.conf_state);
        for row in self.view.rows(0, SLOT_LAST) {
            let row = row?;
            let object = &row.object;
            hasher.update(&[row.space as u8]);
            hasher.update(&row.slot.to_le_bytes());
            for number in [row.key.len() as u64, object.kind as u64, object.deadline_ms, object.data.len() as u64] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&row.key);
            hasher.update(&object.data);
            pause((row.key.len() + object.data.len()) as u64 + 34);
        }
        Ok(hasher.digest128())
    }
}

/// What became of a check at one replica, as the leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It has what the majority has.
    Equal,
    /// It has something else, and rebuilds itself.
    Differs,
    /// It has no hash for that index, or doesn't answer.
    Silent,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// The index that was checked.
    pub index: u64,
    /// What a majority has; none if no majority has the same.
    pub hash: Option<u128>,
    /// What was found out about each replica.
    pub nodes: Vec<(NodeId, Finding)>,
}

/// How the checks stand at a replica, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckStanding {
    /// The index that was checked last, once a majority agreed.
    pub index: u64,
    /// How many replicas differed then.
    pub differing: u64,
    /// Whether this one does, and is not rebuilt yet.
    pub differs: bool,
    /// How often this one was rebuilt since its start.
    pub rebuilt: u64,
}

/// A check under way, or the last one.
#[derive(Debug)]
struct Run {
    index: u64,
    /// Until the driver takes it.
    job: Option<HashJob>,
    own: Option<u128>,
    /// The leader that was told, and when.
    told: Option<(NodeId, u64)>,
    /// What replicas told this one, itself included.
    hashes: BTreeMap<NodeId, u128>,
    /// Who can't say.
    silent: BTreeSet<NodeId>,
    /// What a majority has, and who is known to differ, as the log says.
    verdict: Option<(u128, Vec<NodeId>)>,
    /// When this leader last proposed a verdict.
    proposed_ms: Option<u64>,
    /// When it began here, and when this replica was done with it.
    begun_ms: u64,
    ended_ms: Option<u64>,
}

impl Run {
    /// Whether the next check may begin: this one came to something, or the others have had as long again as this replica took.
    fn is_over(&self, now: u64) -> bool {
        let patience = |ended: u64| ended.saturating_sub(self.begun_ms).max(SILENCE_MS);
        self.verdict.is_some() || self.ended_ms.is_some_and(|ended| now.saturating_sub(ended) >= patience(ended))
    }

    /// What more than half of the voters have.
    fn majority(&self, voters: &[NodeId]) -> Option<u128> {
        let of = |hash: u128| voters.iter().filter(|voter| self.hashes.get(voter) == Some(&hash)).count();
        self.hashes.values().copied().find(|hash| of(*hash) > voters.len() / 2)
    }

    /// Who is known to have something else.
    fn differing(&self, hash: u128) -> Vec<NodeId> {
        self.hashes.iter().filter(|(_, other)| **other != hash).map(|(id, _)| *id).collect()
    }
}

/// That there is nothing to compare, on its way to the leader.
#[derive(Debug, Clone, Copy)]
struct Nothing {
    index: u64,
    told: Option<(NodeId, u64)>,
    tellings: u32,
}

/// The checks of one replica.
#[derive(Debug, Default)]
pub(crate) struct StateCheck {
    /// How often the leader begins one; 0: only when asked.
    interval_ms: u64,
    now_ms: u64,
    /// When the last one began, as far as this replica knows.
    last_ms: Option<u64>,
    /// An operator wants one, of an index above this.
    wanted: Option<u64>,
    /// When this leader last proposed one.
    proposed_ms: Option<u64>,
    /// The entry that is being applied begins one.
    begins: bool,
    run: Option<Run>,
    /// Up to this index, and not in the run, this replica has nothing to compare. The leader is told a few times: it may wait for it.
    nothing: Option<Nothing>,
    /// This replica differs from a majority, and must be rebuilt.
    differs: bool,
    /// When it asked for a snapshot.
    asked_ms: Option<u64>,
    standing: CheckStanding,
    /// Hashes for the leader.
    pub(crate) outbox: Vec<(NodeId, StateHash)>,
}

impl StateCheck {
    /// The replica was put into another state as a whole.
    pub(super) fn state_replaced(&mut self, index: u64) {
        self.run = None;
        self.has_nothing(index);
        if std::mem::take(&mut self.differs) {
            self.standing.rebuilt += 1;
            tracing::info!("this replica was rebuilt from the leader's snapshot");
        }
        self.asked_ms = None;
    }

    /// A check of this index, or of one before, can't be answered.
    pub(super) fn has_nothing(&mut self, index: u64) {
        self.nothing = Some(Nothing { index, told: None, tellings: 0 });
    }
}

impl Replica {
    // ---- what the log says -----------------------------------------------------------------------------------------

    pub(super) fn apply_check(&mut self) {
        self.check.begins = true;
    }

    /// The entry is applied: if it began a check, what is to be hashed is what there is now.
    pub(super) fn begin_check(&mut self, index: u64) {
        if !std::mem::take(&mut self.check.begins) {
            return;
        }
        self.check.wanted.take_if(|after| *after < index);
        self.check.last_ms = Some(self.check.now_ms);
        let job = match self.table.view() {
            Ok(view) => Some(HashJob { view }),
            Err(error) => {
                // It says nothing then; the others may still agree.
                tracing::warn!(%error, index, "the state can't be checked");
                None
            }
        };
        if job.is_none() {
            self.check.has_nothing(index);
        }
        let (hashes, silent) = (BTreeMap::new(), BTreeSet::new());
        let (own, told, verdict, proposed_ms) = (None, None, None, None);
        let begun_ms = self.check.now_ms;
        let ended_ms = job.is_none().then_some(begun_ms);
        self.check.run = Some(Run { index, job, own, told, hashes, silent, verdict, proposed_ms, begun_ms, ended_ms });
    }

    pub(super) fn apply_verdict(&mut self, args: &[&[u8]]) {
        let [index, hash, differing] = args else { return };
        let (Ok(index), Ok(hash)) = ((*index).try_into(), (*hash).try_into()) else { return };
        let (index, hash) = (u64::from_le_bytes(index), u128::from_le_bytes(hash));
        let (ids, []) = differing.as_chunks::<8>() else { return };
        let differing: Vec<NodeId> = ids.iter().map(|id| u64::from_le_bytes(*id)).collect();
        if !differing.is_empty() {
            tracing::error!(index, ?differing, "nodes hold another state than the majority; they are rebuilt");
        }
        let standing = &mut self.check.standing;
        (standing.index, standing.differing) = (index, differing.len() as u64);
        if let Some(run) = self.check.run.as_mut().filter(|run| run.index == index) {
            run.verdict = Some((hash, differing));
        }
        self.compare();
    }

    /// Compares what this replica has with what the majority has, once both are known.
    fn compare(&mut self) {
        let Some(Run { index, own: Some(own), verdict: Some((hash, _)), .. }) = &self.check.run else { return };
        if own != hash && !self.check.differs {
            tracing::error!(
                index,
                own = format_args!("{own:032x}"),
                majority = format_args!("{hash:032x}"),
                "the state of this replica differs from the majority's: it serves nobody until it is rebuilt"
            );
            self.check.differs = true;
        }
    }

    // ---- events ----------------------------------------------------------------------------------------------------

    /// How often the leader begins a check, in milliseconds; 0: only when asked.
    pub(crate) fn set_check_interval(&mut self, interval_ms: u64) {
        self.check.interval_ms = interval_ms;
    }

    /// What is to be hashed, once.
    pub(crate) fn take_hash_job(&mut self) -> Option<HashJob> {
        self.check.run.as_mut()?.job.take()
    }

    /// A job is done. One that failed says nothing.
    pub(crate) fn finish_hash(&mut self, index: u64, done: Result<u128>) {
        let id = self.raft.id();
        let now = self.check.now_ms;
        let Some(run) = self.check.run.as_mut().filter(|run| run.index == index) else { return };
        run.ended_ms = Some(now);
        match done {
            Ok(hash) => {
                run.own = Some(hash);
                run.hashes.insert(id, hash);
            }
            Err(error) => {
                tracing::warn!(%error, index, "the state can't be checked");
                run.silent.insert(id);
                self.check.has_nothing(index);
            }
        }
        self.compare();
    }

    /// A replica says what it has.
    pub(crate) fn learn_hash(&mut self, from: NodeId, found: StateHash) {
        let known = self.raft.conf_state().contains(from);
        let Some(run) = self.check.run.as_mut().filter(|_| known) else { return };
        match found.hash {
            Some(hash) if run.index == found.index => drop(run.hashes.insert(from, hash)),
            None if run.index <= found.index => drop(run.silent.insert(from)),
            _ => {}
        }
    }

    /// An operator wants a check of an index above `after`. What it comes to shows in [`Replica::check_report`].
    pub fn want_check(&mut self, after: u64) {
        self.check.wanted = self.check.wanted.max(Some(after));
    }

    /// This replica is known to differ, from before it was started.
    pub(crate) fn still_differs(&mut self) {
        tracing::error!("the state of this replica differs from the majority's: it serves nobody until it is rebuilt");
        self.check.differs = true;
    }

    /// Lets the checks get on: proposes, tells, hands over, asks for a snapshot.
    pub(crate) fn tick_checks(&mut self, now: u64) {
        self.check.now_ms = self.check.now_ms.max(now);
        let now = self.check.now_ms;
        // NB: counted from the start, or from the first time that somebody looks.
        let begun_ms = *self.check.last_ms.get_or_insert(now);
        let last_ms =
            self.check.run.as_ref().and_then(|run| run.ended_ms).map_or(begun_ms, |ended| ended.max(begun_ms));
        if !self.raft.is_leader() {
            // NB: one that differs tells, too: the verdict may be older than its hash, and the leader is to name it.
            self.tell_leader(now);
        }
        if self.check.differs {
            return self.get_rebuilt(now);
        }
        if !self.raft.is_leader() {
            return;
        }
        let is_free = self.check.run.as_ref().is_none_or(|run| run.is_over(now));
        let is_due = self.check.interval_ms > 0 && now.saturating_sub(last_ms) >= self.check.interval_ms;
        let asked = self.check.proposed_ms.is_some_and(|asked| now.saturating_sub(asked) < REPEAT_MS);
        if (is_due || self.check.wanted.is_some()) && is_free && !asked {
            self.check.proposed_ms = Some(now);
            self.propose_internal(internal::CHECK, &[]);
        }
        self.judge(now);
    }

    fn tell_leader(&mut self, now: u64) {
        let Some(leader) = self.raft.role_state().leader else { return };
        if let Some(nothing) = &mut self.check.nothing {
            let is_told = nothing.told.is_some_and(|(told, at)| told == leader && now.saturating_sub(at) < REPEAT_MS);
            if !is_told && nothing.tellings < TELLINGS_MAX {
                nothing.told = Some((leader, now));
                nothing.tellings += 1;
                self.check.outbox.push((leader, StateHash { index: nothing.index, hash: None }));
            }
        }
        let Some(run) = &mut self.check.run else { return };
        let Some(hash) = run.own.filter(|_| {
            run.told.is_none_or(|(told, at)| {
                // Once decided there is nothing to be repeated for.
                let is_open = run.verdict.is_none() || self.check.differs;
                told != leader || (is_open && now.saturating_sub(at) >= REPEAT_MS)
            })
        }) else {
            return;
        };
        run.told = Some((leader, now));
        let index = run.index;
        self.check.outbox.push((leader, StateHash { index, hash: Some(hash) }));
    }

    /// The leader looks whether a majority agrees, and whether somebody more is known to differ.
    fn judge(&mut self, now: u64) {
        let voters = &self.raft.conf_state().voters;
        let Some(run) = &mut self.check.run else { return };
        let Some(hash) = run.majority(voters) else { return };
        let differing = run.differing(hash);
        let is_said = run
            .verdict
            .as_ref()
            .is_some_and(|(said, names)| *said == hash && differing.iter().all(|id| names.contains(id)));
        if is_said || run.proposed_ms.is_some_and(|at| now.saturating_sub(at) < REPEAT_MS) {
            return;
        }
        run.proposed_ms = Some(now);
        let names: Vec<u8> = differing.iter().flat_map(|id| id.to_le_bytes()).collect();
        let index = run.index;
        self.propose_internal(internal::VERDICT, &[&index.to_le_bytes(), &hash.to_le_bytes(), &names]);
    }

    /// A replica that differs leads nobody, and has its state replaced.
    fn get_rebuilt(&mut self, now: u64) {
        if self.raft.is_leader() {
            if !self.raft.is_transferring()
                && let Some(successor) = self.successor()
            {
                // NB: refused while another change is under way; the next tick asks again.
                let _ = self.raft.transfer_leader(successor);
            }
            return;
        }
        // NB: not whether a leader is known: a replica that waits for a snapshot remembers one that is gone.
        let heard = self.raft.leader_heard_at().max(self.check.asked_ms).unwrap_or(0);
        let patience = self.raft.election_timeout_ms().saturating_mul(LEADERLESS_TIMEOUTS);
        let is_led =
            self.raft.role_state().leader.is_some() && (self.raft.is_asleep() || now.saturating_sub(heard) < patience);
        if self.check.asked_ms.is_none() {
            // NB: what was handed out and not applied counts as lost with the state: it must not be applied to the new one.
            let is_level = self.raft.status().delivered == self.table.applied().index;
            if is_level && is_led {
                self.check.asked_ms = Some(now);
                self.raft.request_snapshot();
            }
        } else if !is_led && now.saturating_sub(heard) >= patience && self.raft.withdraw_snapshot_request() {
            tracing::warn!(
                "nobody leads: this replica stands for election, though it differs, and hands leadership over"
            );
            self.check.asked_ms = None;
        }
    }

    fn propose_internal(&mut self, command: u16, args: &[&[u8]]) {
        let mut builder = EntryBuilder::default();
        let args: Vec<&[u8]> = [&b""[..]].into_iter().chain(args.iter().copied()).collect();
        builder.push(command, &args);
        let stamp_ms = self.next_stamp_ms(0);
        // NB: refused while leadership is handed over, for instance; it is proposed again.
        let _ = self.propose(builder.finish(stamp_ms, VALUE_BYTES_MAX));
    }

    // ---- reports ---------------------------------------------------------------------------------------------------

    /// Whether this replica is known to hold another state than the majority: it must serve nobody.
    pub fn differs(&self) -> bool {
        self.check.differs
    }

    /// How the checks stand.
    pub fn check_standing(&self) -> CheckStanding {
        CheckStanding { differs: self.check.differs, ..self.check.standing }
    }

    /// What a check of an index above `after` came to, once all replicas that answer have said what they have. For the leader.
    pub fn check_report(&self, after: u64) -> Option<CheckReport> {
        let run = self.check.run.as_ref().filter(|run| run.index > after)?;
        let (me, conf) = (self.raft.id(), self.raft.conf_state());
        let peers = self.raft.status().peers;
        let members = conf.members();
        let silent = |id: &NodeId| !run.hashes.contains_key(id) && !run.silent.contains(id);
        let answers = |id: &NodeId| *id == me || peers.iter().any(|peer| peer.id == *id && peer.answers);
        let is_early = self.check.now_ms < self.check.last_ms.unwrap_or(0) + SILENCE_MS;
        if members.iter().any(|id| silent(id) && (is_early || answers(id))) {
            return None;
        }
        let hash = run.majority(&conf.voters);
        let finding = |id: NodeId| match (run.hashes.get(&id), hash) {
            (None, _) => Finding::Silent,
            (Some(found), Some(hash)) if *found == hash => Finding::Equal,
            (Some(_), _) => Finding::Differs,
        };
        let nodes = members.into_iter().map(|id| (id, finding(id))).collect();
        Some(CheckReport { index: run.index, hash, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hashes: &[(NodeId, u128)]) -> Run {
        let hashes = hashes.iter().copied().collect();
        let silent = BTreeSet::new();
        let (own, told, verdict, proposed_ms) = (None, None, None, None);
        Run { index: 7, job: None, own, told, hashes, silent, verdict, proposed_ms, begun_ms: 1000, ended_ms: None }
    }

    #[test]
    fn check_is_over_when_it_came_to_something_or_when_the_others_had_time() {
        let mut run = run(&[(1, 0xa)]);
        assert!(!run.is_over(1_000_000), "it is still being hashed here");
        run.ended_ms = Some(61_000);
        assert!(!run.is_over(120_999), "the others may take as long");
        assert!(run.is_over(121_000));
        run.ended_ms = Some(1001);
        assert!(!run.is_over(6000));
        assert!(run.is_over(6001));
        run.ended_ms = None;
        run.verdict = Some((0xa, Vec::new()));
        assert!(run.is_over(1001));
    }

    #[test]
    fn majority_of_the_voters_decides() {
        let all = run(&[(1, 0xa), (2, 0xa), (3, 0xb)]);
        assert_eq!(all.majority(&[1, 2, 3]), Some(0xa));
        assert_eq!(all.differing(0xa), [3]);
        assert_eq!(
            run(&[(1, 0xa), (2, 0xb), (3, 0xb)]).majority(&[1, 2, 3]),
            Some(0xb),
            "the leader may be the odd one"
        );
        assert_eq!(run(&[(1, 0xa), (2, 0xb)]).majority(&[1, 2]), None, "nobody knows who is right");
        assert_eq!(run(&[(1, 0xa), (4, 0xa), (5, 0xa)]).majority(&[1, 2, 3]), None, "learners don't count");
        assert_eq!(run(&[(1, 0xa), (2, 0xa)]).majority(&[1, 2, 3, 4]), None, "half is no majority");
        assert_eq!(run(&[(1, 0xa)]).majority(&[1]), Some(0xa));
    }
}
