//! The state machine itself: its state, its inputs, and [`Raft::ready`].
//!
//! The rules live by topic in the neighbouring files, each an `impl Raft`: `election`, `replication`, `read`,
//! `snapshot`, `transfer`. This file holds what they share: terms and roles, what waits for the disk, and the order in
//! which a turn's outputs are gathered.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    config::Config,
    defects::{self, Defect},
    entry::{Entry, EntryKind, HardState, Millis, ReplicaId, SnapshotMeta},
    error::{ConfChangeError, InitError, LogError, ProposeError, StepError},
    log::{Log, LogReader},
    membership::{ConfChange, ConfState},
    message::{Message, MessageBody},
    progress::{Mode, Progress},
    random::Random,
    read::Reads,
    ready::{Ready, Role, RoleState, SnapshotInstall, SnapshotNeed, WriteBatch},
    sleep::Sleep,
    terms::Terms,
    transfer::Transfer,
};

/// Terms and indexes above this are impossible: a group that took a step every nanosecond would need a century to get
/// there. Refusing them from peers keeps sums from overflowing.
const NUMBER_MAX: u64 = 1 << 62;

/// What a replica starts from: what it stored, or for a new group the initial members and nothing else.
///
/// A replica that joins a running group starts with the empty membership and gets the real one with its first snapshot.
/// For that, the log of a new group should not begin at index 1 but after a *base* that only a snapshot can stand for:
/// let the host's log be empty after (index 1, term 1), and start with `applied` 1 and a hard state of term 1. A log that
/// does begin at index 1 suits groups whose members never change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitialState {
    /// The newest stored hard state.
    pub hard_state: HardState,
    /// The membership as of `applied`.
    pub conf_state: ConfState,
    /// The last entry whose effect is in the host's durable state.
    pub applied: u64,
}

/// A write that was handed out and not yet reported.
#[derive(Debug)]
struct Outstanding {
    sequence: u64,
    /// The last entry of the write that still belongs to the log: lowered when the log is cut meanwhile, so that a late
    /// report can't vouch for an entry that took the place of the one written.
    last_entry: Option<u64>,
    issued_at: Millis,
}

/// One replica of one group.
///
/// # Invariants
/// See the [crate]. Inputs assert them; so a host that breaks the contract (reports a write that it never got) panics
/// at once instead of losing data later. Nothing that a *peer* sends panics.
#[derive(Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) random: Random,
    /// The newest time seen.
    pub(crate) now: Millis,

    pub(crate) term: u64,
    pub(crate) vote: ReplicaId,
    pub(crate) role: Role,
    pub(crate) leader: Option<ReplicaId>,
    pub(crate) log: Log,
    pub(crate) conf: ConfState,

    // Elections.
    /// When a leader was last heard. Survives changes of term: it is what other replicas' leases rest on.
    pub(crate) leader_heard_at: Option<Millis>,
    pub(crate) election_deadline: Millis,
    pub(crate) votes: Vec<(ReplicaId, bool)>,
    /// The write that makes the own vote count.
    pub(crate) own_vote_sequence: Option<u64>,
    /// The host asked for a campaign that had to wait for committed entries.
    pub(crate) campaign_wanted: bool,

    // Leading.
    pub(crate) peers: Vec<Progress>,
    pub(crate) heartbeat_due: Millis,
    pub(crate) uncommitted_bytes: usize,
    /// No further membership change before this entry, the last change's seal, was handed out.
    pub(crate) conf_barrier: u64,
    /// The membership before the change whose seal is under way.
    pub(crate) conf_sealed: ConfState,
    pub(crate) transfer: Option<Transfer>,
    pub(crate) reads: Reads,
    pub(crate) sleep: Sleep,
    /// Something happened that may allow appends to be sent.
    pub(crate) replicate: bool,

    // Disk.
    outstanding: VecDeque<Outstanding>,
    last_sequence: u64,
    persisted_sequence: u64,
    staged: HardState,
    /// Messages that promise what is not on disk yet, with the write that they wait for.
    held: VecDeque<(u64, Message)>,

    // Snapshots.
    /// A snapshot that the next write shall put in place.
    pub(crate) snapshot_pending: Option<SnapshotInstall>,
    /// The write under way that puts one in place.
    pub(crate) snapshot_sequence: Option<u64>,
    /// The applied state here is lost; a snapshot from this index on would mend it.
    pub(crate) snapshot_requested: Option<u64>,
    /// A snapshot that came on request, and waits until the log is on disk up to it.
    pub(crate) snapshot_postponed: Option<(ReplicaId, SnapshotMeta)>,
    pub(crate) snapshots_needed: Vec<SnapshotNeed>,

    // Replicas that forgot.
    /// Found and not told yet.
    pub(crate) promises_lost: Vec<ReplicaId>,
    /// This replica's own log lacks what it had acknowledged.
    pub(crate) own_promise_lost: bool,

    // Outputs.
    pub(crate) messages: Vec<Message>,
    told: RoleState,
    /// Handed out and not reported applied: (last entry, bytes).
    unapplied: VecDeque<(u64, usize)>,
    unapplied_bytes: usize,
    deliver_stalled: bool,
}

/// What a leader knows of a peer, for display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub id: ReplicaId,
    /// Its log durably equals the leader's up to here.
    pub matched: u64,
    /// The next entry to send.
    pub next: u64,
    /// Append messages on their way.
    pub inflight_appends: usize,
    /// Bytes on their way.
    pub inflight_bytes: usize,
    /// Whether it waits for a snapshot, on the leader's word or its own.
    pub awaits_snapshot: bool,
    /// It was caught lacking entries that it had acknowledged; nothing that it says counts.
    pub promise_lost: bool,
    /// When it was last heard.
    pub heard_at: Millis,
    /// Whether it answered this leader in this term, within the last election timeout, and could be reached since. In a
    /// group that sleeps: whether it is not known to be gone.
    pub answers: bool,
}

/// The state of a replica, for display and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Term, role and leader.
    pub role: RoleState,
    /// The vote in this term; 0 for none.
    pub vote: ReplicaId,
    /// The first entry that can be had.
    pub first: u64,
    /// The last entry.
    pub last: u64,
    /// The last entry on this replica's disk.
    pub persisted: u64,
    /// The commit index.
    pub commit: u64,
    /// The last entry handed out for apply.
    pub delivered: u64,
    /// The last entry reported applied.
    pub applied: u64,
    /// Bytes proposed here and not committed.
    pub uncommitted_bytes: usize,
    /// Bytes of entries in memory.
    pub tail_bytes: usize,
    /// A leader's peers; empty on others.
    pub peers: Vec<PeerStatus>,
}

impl Raft {
    /// A replica that goes on from what was stored. `now` is the host's clock.
    ///
    /// # Errors
    /// If the settings or the stored state contradict themselves, or the log can't be read.
    pub fn new(config: Config, state: InitialState, now: Millis, reader: &dyn LogReader) -> Result<Raft, InitError> {
        config.validate()?;
        let inconsistent = |what: String| Err(InitError::Inconsistent(what));
        let terms = Terms::read(reader)?;
        let InitialState { hard_state, conf_state, applied } = state;
        if conf_state != ConfState::default()
            && let Err(what) = conf_state.validate()
        {
            return inconsistent(format!("membership: {what}"));
        }
        let (base, last) = (terms.base(), terms.last());
        if applied < base {
            return inconsistent(format!("entries up to {applied} are applied, but the log starts after {base}"));
        }
        if applied > last || hard_state.commit > last {
            return inconsistent(format!(
                "the log ends at {last}, but {} is committed and {applied} applied",
                hard_state.commit
            ));
        }
        if terms.last_term() > hard_state.term {
            return inconsistent(format!(
                "the log ends in term {}, but the newest term known is {}",
                terms.last_term(),
                hard_state.term
            ));
        }
        let commit = hard_state.commit.max(applied);
        let random = Random::new(config.seed);
        // A replica that ran before may have confirmed a leader just before it stopped: it holds back its vote for one
        // election timeout, or that leader's lease would not be safe. NB: it confirms leaders before its first term is on disk.
        let ran_before = hard_state.term > 0 || !conf_state.is_sole_voter(config.id);
        let told = RoleState { term: hard_state.term, role: Role::Follower, leader: None };
        let mut raft = Raft {
            config,
            random,
            now,
            term: hard_state.term,
            vote: hard_state.vote,
            role: Role::Follower,
            leader: None,
            log: Log::new(terms, commit, applied),
            conf: conf_state,
            leader_heard_at: ran_before.then_some(now),
            election_deadline: 0,
            votes: Vec::new(),
            own_vote_sequence: None,
            campaign_wanted: false,
            peers: Vec::new(),
            heartbeat_due: Millis::MAX,
            uncommitted_bytes: 0,
            conf_barrier: 0,
            conf_sealed: ConfState::default(),
            transfer: None,
            reads: Reads::default(),
            sleep: Sleep::default(),
            replicate: false,
            outstanding: VecDeque::new(),
            last_sequence: 0,
            persisted_sequence: 0,
            staged: hard_state,
            held: VecDeque::new(),
            snapshot_pending: None,
            snapshot_sequence: None,
            snapshot_requested: None,
            snapshot_postponed: None,
            snapshots_needed: Vec::new(),
            promises_lost: Vec::new(),
            own_promise_lost: false,
            messages: Vec::new(),
            told,
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            deliver_stalled: false,
        };
        raft.reset_election_deadline();
        Ok(raft)
    }

    // ---- inputs: time and messages -----------------------------------------------------------------------------

    /// Time has come to `now`. Call it once a turn, or at the latest at [`Raft::next_deadline`].
    pub fn tick(&mut self, now: Millis) {
        self.advance(now);
        self.deliver_stalled = false;
        for peer in &mut self.peers {
            self.replicate |= std::mem::take(&mut peer.stalled);
        }
        if self.role == Role::Leader { self.tick_leader() } else { self.tick_follower() }
    }

    /// When [`Raft::tick`] next has something to do; `None` if time alone changes nothing.
    pub fn next_deadline(&self) -> Option<Millis> {
        let deadline = if self.role == Role::Leader {
            self.heartbeat_due
        } else {
            let answer_due = self.reads.forwarded_since().map(|since| since + self.config.election_timeout_ms);
            self.election_deadline.min(answer_due.unwrap_or(Millis::MAX))
        };
        (deadline != Millis::MAX).then_some(deadline)
    }

    /// A message arrived. Read the clock for `now` *after* the message was received: the safety of leases rests on it.
    ///
    /// # Errors
    /// If the message breaks the protocol; what it says is not taken over then. After [`StepError::Diverged`] the replica should be
    /// stopped.
    pub fn step(&mut self, now: Millis, message: Message) -> Result<(), StepError> {
        self.advance(now);
        self.check_message(&message)?;
        self.wake_by(&message);
        let Message { from, term, body, .. } = message;
        if term > self.term {
            match body {
                // Whoever has heard a leader lately neither votes nor forgets its term for others.
                MessageBody::PreVote { .. } | MessageBody::Vote { transfer: false, .. } if self.is_loyal() => {
                    return Ok(());
                }
                MessageBody::PreVote { .. } | MessageBody::PreVoteReply { granted: true, .. } => {}
                _ => self.become_follower(term, None),
            }
        } else if term < self.term {
            match body {
                // Otherwise a leader of an older term could go on for ever with a replica that it can't win back.
                body if body.is_from_leader() => self.send(from, MessageBody::StaleTerm),
                MessageBody::PreVote { commit, .. } => {
                    self.learn_commit(commit);
                    self.refuse_pre_vote(from);
                }
                MessageBody::Vote { .. } => self.refuse_vote(from),
                _ => {}
            }
            return Ok(());
        }
        if body.is_from_leader() {
            self.hear_leader(from)?;
        } else if self.role == Role::Leader
            && let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == from)
        {
            if peer.promise_lost {
                return Ok(());
            }
            peer.heard_at = self.now;
            peer.lost = false;
        }
        match body {
            MessageBody::PreVote { last_index, last_term, commit } => {
                self.learn_commit(commit);
                self.on_pre_vote(from, term, last_index, last_term);
            }
            MessageBody::PreVoteReply { granted, commit } => {
                self.learn_commit(commit);
                self.on_pre_vote_reply(from, term, granted);
            }
            MessageBody::Vote { last_index, last_term, transfer } => {
                self.on_vote(from, last_index, last_term, transfer);
            }
            MessageBody::VoteReply { granted, commit } => {
                self.learn_commit(commit);
                self.on_vote_reply(from, granted);
            }
            MessageBody::Append { previous_index, previous_term, commit, entries } => {
                self.on_append(from, previous_index, previous_term, commit, entries)?;
            }
            MessageBody::AppendAccepted { index } => self.on_accepted(from, index),
            MessageBody::AppendRejected { previous_index, hint_index, hint_term } => {
                self.on_rejected(from, previous_index, hint_index, hint_term);
            }
            MessageBody::Heartbeat { round, commit, sleep } => self.on_heartbeat(from, round, commit, sleep),
            MessageBody::HeartbeatReply { round, asleep } => self.on_heartbeat_reply(from, round, asleep),
            MessageBody::ReadIndex { request } => self.on_read_index(from, request),
            MessageBody::ReadIndexReply { request, index } => self.on_read_index_reply(from, request, index),
            MessageBody::Snapshot { meta } => self.on_snapshot(from, meta)?,
            MessageBody::SnapshotReply { index } => self.on_snapshot_reply(from, index),
            MessageBody::SnapshotWanted { index_min } => self.on_snapshot_wanted(from, index_min),
            MessageBody::PromiseLost { last_index } => self.on_promise_lost(from, last_index),
            MessageBody::TimeoutNow => self.on_timeout_now(),
            MessageBody::StaleTerm => {}
        }
        self.log.assert_ladder();
        Ok(())
    }

    /// Checks what every correct sender keeps, so that the rules below may rely on it.
    fn check_message(&self, message: &Message) -> Result<(), StepError> {
        let from = message.from;
        let malformed = |what| Err(StepError::Malformed { from, what });
        if message.to != self.config.id {
            return malformed("it is for another replica");
        }
        if from == 0 || from == self.config.id {
            return malformed("it doesn't come from another replica");
        }
        if message.term == 0 || message.term > NUMBER_MAX {
            return malformed("its term is impossible");
        }
        let leads = self.role == Role::Leader && message.term == self.term;
        match &message.body {
            MessageBody::Append { previous_index, previous_term, entries, .. } => {
                if *previous_index > NUMBER_MAX {
                    return malformed("its entries have impossible indexes");
                }
                let mut last = (*previous_index, *previous_term);
                for entry in entries {
                    if last.0.checked_add(1) != Some(entry.index) {
                        return malformed("its entries aren't consecutive");
                    }
                    if entry.term < last.1 {
                        return malformed("the terms of its entries fall");
                    }
                    if entry.kind == EntryKind::ConfChange && ConfChange::decode(&entry.payload).is_err() {
                        return malformed("it holds a membership change that can't be read");
                    }
                    last = (entry.index, entry.term);
                }
                if last.1 > message.term {
                    return malformed("an entry's term is above its own");
                }
            }
            MessageBody::AppendAccepted { index } | MessageBody::SnapshotReply { index }
                if leads && *index > self.log.last() =>
            {
                return malformed("it acknowledges entries that don't exist");
            }
            MessageBody::HeartbeatReply { round, .. } if leads && *round > self.reads.round => {
                return malformed("it answers a heartbeat that wasn't sent");
            }
            MessageBody::ReadIndexReply { index: Some(index), .. } if *index > NUMBER_MAX => {
                return malformed("it names an impossible index");
            }
            MessageBody::Snapshot { meta } => {
                if meta.index == 0 || meta.index > NUMBER_MAX || meta.term == 0 || meta.term > message.term {
                    return malformed("its snapshot has an impossible index or term");
                }
                if let Err(what) = meta.conf_state.validate() {
                    return malformed(what);
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn advance(&mut self, now: Millis) {
        self.now = self.now.max(now);
    }

    // ---- inputs: proposals -------------------------------------------------------------------------------------

    /// Appends an entry. Returns its term and index; it is done when *that* entry of *that* term is handed out as
    /// committed. If another term's entry is handed out at this index, the proposal is lost and had no effect.
    ///
    /// # Errors
    /// If this replica doesn't lead, is handing leadership over, or too much waits to be committed.
    pub fn propose(&mut self, payload: Bytes) -> Result<(u64, u64), ProposeError> {
        self.check_proposal(payload.len())?;
        Ok((self.term, self.append_own(EntryKind::Normal, payload)))
    }

    /// Appends a membership change. Returns its term and index.
    ///
    /// # Errors
    /// As [`Raft::propose`], and if an earlier change is under way or this one isn't allowed.
    pub fn propose_conf_change(&mut self, change: &ConfChange) -> Result<(u64, u64), ConfChangeError> {
        self.check_proposal(0)?;
        if self.conf_barrier > self.log.delivered() && !defects::has(Defect::TwoChangesAtOnce) {
            return Err(ConfChangeError::Pending);
        }
        self.conf.changed(change).map_err(ConfChangeError::Invalid)?;
        let index = self.append_own(EntryKind::ConfChange, change.encode());
        self.conf_barrier = index;
        Ok((self.term, index))
    }

    fn check_proposal(&self, bytes: usize) -> Result<(), ProposeError> {
        if self.role != Role::Leader {
            return Err(ProposeError::NotLeader { hint: self.leader });
        }
        if self.transfer.is_some() {
            return Err(ProposeError::Transferring);
        }
        if self.uncommitted_bytes > 0
            && self.uncommitted_bytes.saturating_add(bytes) > self.config.uncommitted_bytes_max
        {
            return Err(ProposeError::TooMuchUncommitted);
        }
        Ok(())
    }

    /// A leader adds to its own log. Nothing else of a leader ever changes it.
    pub(crate) fn append_own(&mut self, kind: EntryKind, payload: Bytes) -> u64 {
        assert_eq!(self.role, Role::Leader, "only a leader appends of its own");
        self.note_activity();
        let index = self.log.last() + 1;
        let entry = Entry { term: self.term, index, kind, payload };
        self.uncommitted_bytes += entry.size_bytes();
        self.log.push(entry);
        self.replicate = true;
        index
    }

    // ---- inputs: the host's progress ---------------------------------------------------------------------------

    /// All writes up to this sequence number are durable.
    ///
    /// # Panics
    /// If no such write was handed out.
    pub fn persisted(&mut self, sequence: u64) {
        assert!(sequence <= self.last_sequence, "write {sequence} is reported, but only {} exist", self.last_sequence);
        while self.outstanding.front().is_some_and(|write| write.sequence <= sequence) {
            if let Some(write) = self.outstanding.pop_front()
                && let Some(last) = write.last_entry
            {
                self.log.set_persisted(last);
            }
        }
        self.persisted_sequence = self.persisted_sequence.max(sequence);
        if self.snapshot_sequence.is_some_and(|write| write <= sequence) {
            self.snapshot_sequence = None;
        }
        while self.held.front().is_some_and(|(barrier, _)| *barrier <= sequence) {
            self.messages.extend(self.held.pop_front().map(|(_, message)| message));
        }
        if self.own_vote_sequence.is_some_and(|write| write <= sequence) {
            self.own_vote_sequence = None;
            self.record_vote(self.config.id, true);
        }
        if self.role == Role::Leader {
            let before = self.log.commit();
            self.maybe_commit();
            if self.log.commit() > before {
                self.continue_transfer();
            }
        }
        self.resume_snapshot();
        self.log.assert_ladder();
    }

    /// Everything up to this entry is applied, and the log may be compacted up to there.
    ///
    /// # Panics
    /// If it was not handed out.
    pub fn applied(&mut self, index: u64) {
        self.log.set_applied(index);
        while self.unapplied.front().is_some_and(|batch| batch.0 <= index) {
            if let Some((_, bytes)) = self.unapplied.pop_front() {
                self.unapplied_bytes -= bytes;
            }
        }
    }

    /// A snapshot replaced the applied state: what was handed out before it will never be reported.
    pub(crate) fn forget_unapplied(&mut self) {
        self.unapplied.clear();
        self.unapplied_bytes = 0;
    }

    // ---- outputs -----------------------------------------------------------------------------------------------

    /// Whether [`Raft::ready`] would give anything.
    pub fn has_ready(&self) -> bool {
        self.is_dirty()
            || !self.messages.is_empty()
            || self.can_deliver()
            || self.reads.has_output()
            || self.can_ask_reads()
            || !self.snapshots_needed.is_empty()
            || !self.promises_lost.is_empty()
            || (self.replicate && self.role == Role::Leader)
            || self.role_state() != self.told
    }

    /// Takes what is to be done. See [`Ready`].
    ///
    /// # Errors
    /// [`LogError::Damaged`] if the host's log answers nonsense: the replica must be stopped.
    pub fn ready(&mut self, reader: &dyn LogReader) -> Result<Ready, LogError> {
        let mut ready = Ready::default();
        if !self.is_installing() {
            self.log.follow_compaction(reader.first_index());
        }
        self.ask_reads();
        if self.can_deliver() {
            self.deliver(reader, &mut ready)?;
        }
        if self.campaign_wanted {
            self.campaign();
        }
        self.send_appends(reader)?;
        ready.write = self.stage_write();
        self.log.shrink_tail(self.config.tail_bytes_max);
        ready.messages = std::mem::take(&mut self.messages);
        ready.snapshots = std::mem::take(&mut self.snapshots_needed);
        ready.promises_lost = std::mem::take(&mut self.promises_lost);
        (ready.reads, ready.reads_dropped) = self.reads.take_output();
        let role = self.role_state();
        if role != self.told {
            self.told = role;
            ready.role = Some(role);
        }
        self.log.assert_ladder();
        Ok(ready)
    }

    fn can_deliver(&self) -> bool {
        self.log.has_deliverable()
            && !self.deliver_stalled
            && !self.is_installing()
            && self.snapshot_requested.is_none()
            && (self.unapplied.is_empty() || self.unapplied_bytes < self.config.unapplied_bytes_max)
    }

    /// Hands out committed entries; membership changes among them take effect.
    fn deliver(&mut self, reader: &dyn LogReader, ready: &mut Ready) -> Result<(), LogError> {
        let budget = self.config.unapplied_bytes_max.saturating_sub(self.unapplied_bytes);
        let entries = match self.log.deliver(reader, budget, !self.peers.is_empty()) {
            Ok(entries) => entries,
            Err(LogError::Unavailable) => {
                self.deliver_stalled = true;
                return Ok(());
            }
            Err(LogError::Compacted) => {
                let what = format!("entry {} is compacted, but was never applied", self.log.delivered() + 1);
                return Err(LogError::Damaged(what));
            }
            Err(damaged) => return Err(damaged),
        };
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        self.unapplied.push_back((self.log.delivered(), bytes));
        self.unapplied_bytes += bytes;
        let mut took_effect = false;
        for entry in &entries {
            if entry.kind != EntryKind::ConfChange {
                continue;
            }
            // What can't be read or isn't allowed changes nothing, on every replica alike.
            let next = ConfChange::decode(&entry.payload).and_then(|change| self.conf.changed(&change));
            if let Ok(next) = next {
                ready.conf_states.push((entry.index, next.clone()));
                if self.is_membership_settled() {
                    self.conf_sealed = self.conf.clone();
                }
                if self.role == Role::Leader && !next.is_voter(self.config.id) {
                    // Going, the leader tells the others what is committed, so that they needn't find out alone.
                    self.replicate = true;
                    self.send_appends(reader)?;
                }
                self.set_conf(next);
                took_effect = true;
            }
        }
        self.follow_up_changes(took_effect);
        self.continue_transfer();
        ready.committed = entries;
        Ok(())
    }

    /// A new membership takes effect.
    pub(crate) fn set_conf(&mut self, next: ConfState) {
        self.conf = next;
        let id = self.config.id;
        if self.role != Role::Follower && !self.conf.is_voter(id) {
            // Also a candidate, which may have learnt of it from the answers to its questions.
            self.become_follower(self.term, None);
        }
        if self.role != Role::Leader {
            return;
        }
        self.peers.retain(|peer| self.conf.contains(peer.id));
        for member in self.conf.members() {
            if member != id && !self.peers.iter().any(|peer| peer.id == member) {
                self.peers.push(Progress::new(member, self.log.last() + 1, self.now));
            }
        }
        if self.heartbeat_due == Millis::MAX && !self.peers.is_empty() {
            self.heartbeat_due = self.now;
        }
        self.forget_lease();
        if self.transfer.as_ref().is_some_and(|transfer| !self.conf.is_voter(transfer.target)) {
            self.transfer = None;
        }
        // Fewer voters may make what is stored already a majority.
        self.maybe_commit();
        self.replicate = true;
    }

    /// A leader goes on once something was handed out: out of a joint membership that asked for it, or, after a change that took effect,
    /// with an empty entry, the change's *seal*. Entries are stored beside the commit index of their moment; so once the seal is
    /// committed, a majority of the new membership has on its disks that the change counts.
    fn follow_up_changes(&mut self, took_effect: bool) {
        if self.role != Role::Leader {
            return;
        }
        if self.conf.auto_leave {
            // NB: a predecessor's end of it may be in the log already.
            if self.conf_barrier <= self.log.delivered() {
                self.conf_barrier = self.append_own(EntryKind::ConfChange, ConfChange::leave().encode());
            }
        } else if took_effect {
            self.conf_barrier = self.append_own(EntryKind::Noop, Bytes::new());
        }
    }

    /// Whether every change of membership that this leader knows of is sealed: durably known to a majority of those that it left. Until
    /// then, who was taken out may be needed once more, if the leader is lost.
    pub fn is_membership_settled(&self) -> bool {
        self.conf_barrier <= self.log.delivered() && !self.conf.auto_leave
    }

    /// Whether `id` has a vote, and will have it even if this leader is lost for good right now.
    pub fn surely_votes(&self, id: ReplicaId) -> bool {
        self.conf.is_voter(id)
            && (self.role != Role::Leader || self.is_membership_settled() || self.conf_sealed.is_voter(id))
    }

    // ---- what waits for the disk -------------------------------------------------------------------------------

    fn is_dirty(&self) -> bool {
        (self.term, self.vote) != (self.staged.term, self.staged.vote)
            || self.log.has_unstaged()
            || self.snapshot_pending.is_some()
    }

    /// The write that will have stored everything true now.
    pub(crate) fn barrier(&self) -> u64 {
        self.last_sequence + u64::from(self.is_dirty())
    }

    fn stage_write(&mut self) -> Option<WriteBatch> {
        if !self.is_dirty() {
            return None;
        }
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let snapshot = self.snapshot_pending.take();
        if snapshot.is_some() {
            self.snapshot_sequence = Some(sequence);
        }
        let entries = self.log.stage();
        let promised = (self.term, self.vote) != (self.staged.term, self.staged.vote);
        let current = HardState { term: self.term, vote: self.vote, commit: self.log.commit() };
        let hard_state = (current != self.staged).then_some(current);
        self.staged = current;
        let must_sync =
            promised || snapshot.is_some() || entries.iter().any(|entry| entry.kind == EntryKind::ConfChange);
        self.outstanding.push_back(Outstanding {
            sequence,
            last_entry: entries.last().map(|entry| entry.index),
            issued_at: self.now,
        });
        Some(WriteBatch { sequence, hard_state, snapshot, entries, must_sync })
    }

    /// The log was cut after `last` (or replaced whole, for `None`): writes under way no longer vouch for more.
    pub(crate) fn disown_writes(&mut self, last: Option<u64>) {
        for write in &mut self.outstanding {
            write.last_entry = match (write.last_entry, last) {
                (Some(entry), Some(last)) => Some(entry.min(last)),
                _ => None,
            };
        }
    }

    /// Whether the disk has taken too long over a write.
    pub(crate) fn is_write_stalled(&self) -> bool {
        self.outstanding.front().is_some_and(|write| write.issued_at + self.config.write_stall_ms <= self.now)
    }

    /// Whether a snapshot is being put in place.
    pub(crate) fn is_installing(&self) -> bool {
        self.snapshot_pending.is_some() || self.snapshot_sequence.is_some()
    }

    /// Sends at once. Only for what promises nothing that could be forgotten.
    pub(crate) fn send(&mut self, to: ReplicaId, body: MessageBody) {
        let message = Message { from: self.config.id, to, term: self.term, body };
        self.messages.push(message);
    }

    /// Sends once everything true now is on disk.
    pub(crate) fn send_durable(&mut self, to: ReplicaId, body: MessageBody) {
        let barrier = self.barrier();
        let too_soon = match body {
            MessageBody::VoteReply { .. } => defects::has(Defect::VoteNotSynced),
            MessageBody::AppendAccepted { .. } => defects::has(Defect::AppendAckBeforeSync),
            _ => false,
        };
        if barrier <= self.persisted_sequence || too_soon {
            return self.send(to, body);
        }
        let message = Message { from: self.config.id, to, term: self.term, body };
        // Acknowledgements that wait for the same write say the same thing once: a stalled disk doesn't pile them up.
        if let Some((last_barrier, last)) = self.held.back_mut()
            && *last_barrier == barrier
            && (last.to, last.term) == (message.to, message.term)
            && let (MessageBody::AppendAccepted { index: old }, MessageBody::AppendAccepted { index: new }) =
                (&mut last.body, &message.body)
        {
            *old = (*old).max(*new);
            return;
        }
        self.held.push_back((barrier, message));
    }

    // ---- display -----------------------------------------------------------------------------------------------

    /// Term, role and leader.
    pub fn role_state(&self) -> RoleState {
        RoleState { term: self.term, role: self.role, leader: self.leader }
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether leadership is being handed over: proposals are refused until it is, or the attempt is given up.
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// When a leader was last heard, or this replica was started.
    pub fn leader_heard_at(&self) -> Option<Millis> {
        self.leader_heard_at
    }

    /// How long a follower waits for its leader, at least, in milliseconds.
    pub fn election_timeout_ms(&self) -> Millis {
        self.config.election_timeout_ms
    }

    /// Who this replica is.
    pub fn id(&self) -> ReplicaId {
        self.config.id
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The commit index.
    pub fn commit_index(&self) -> u64 {
        self.log.commit()
    }

    /// The last index of the log, stored or not.
    pub fn last_index(&self) -> u64 {
        self.log.last()
    }

    /// The membership in effect.
    pub fn conf_state(&self) -> &ConfState {
        &self.conf
    }

    /// The oldest entry that some replica in reach still has to get by append; the host does well not to compact beyond
    /// it without need. The last index if nobody lags, or on a replica that doesn't lead.
    pub fn slowest_matched(&self) -> u64 {
        self.peers
            .iter()
            .filter(|peer| !matches!(peer.mode, Mode::Snapshot { .. }))
            .map(|peer| peer.matched)
            .fold(self.log.last(), u64::min)
    }

    /// As [`Raft::slowest_matched`], but only of those replicas that take and answer appends right now: one that is on its
    /// way, such as after a snapshot, and not one that is gone.
    pub fn slowest_streamed(&self) -> u64 {
        let streamed = self.peers.iter().filter(|peer| peer.mode == Mode::Replicate);
        streamed.map(|peer| peer.matched).fold(self.log.last(), u64::min)
    }

    /// The whole state, for display and tests.
    pub fn status(&self) -> Status {
        Status {
            role: self.role_state(),
            vote: self.vote,
            first: self.log.base() + 1,
            last: self.log.last(),
            persisted: self.log.persisted(),
            commit: self.log.commit(),
            delivered: self.log.delivered(),
            applied: self.log.applied(),
            uncommitted_bytes: self.uncommitted_bytes,
            tail_bytes: self.log.tail_bytes(),
            peers: self
                .peers
                .iter()
                .map(|peer| PeerStatus {
                    id: peer.id,
                    matched: peer.matched,
                    next: peer.next,
                    inflight_appends: peer.inflight().0,
                    inflight_bytes: peer.inflight().1,
                    awaits_snapshot: matches!(peer.mode, Mode::Snapshot { .. }) || peer.snapshot_requested,
                    promise_lost: peer.promise_lost,
                    heard_at: peer.heard_at,
                    answers: peer.round > 0
                        && !peer.lost
                        && !peer.promise_lost
                        && (self.sleep.asleep || self.now < peer.heard_at + self.config.election_timeout_ms),
                })
                .collect(),
        }
    }
}
