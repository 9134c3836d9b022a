//! Deliberate defects, to show that what looks for defects finds them.
//!
//! A simulator that never fails proves nothing: perhaps nothing is wrong, perhaps it can't see it. So each mistake below can be
//! switched on, and `sim --defects` says after how many seeds it is found and by which check.
//!
//! # Caveats
//! - Without the feature `defects` every question is answered with a constant `false`, and the compiler leaves the mistakes out.
//!   With it the crate doesn't compile unless debug assertions are on, so that no release can have them.
//! - The switch is one for each thread: a simulation runs on one thread from its beginning to its end.

/// A mistake in the consensus core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A vote is told before it is on disk.
    VoteNotSynced,
    /// Entries are acknowledged before they are on disk.
    AppendAckBeforeSync,
    /// The leader counts entries of its own as stored before they are on its disk.
    OwnEntriesNotSynced,
    /// An entry of an earlier term is committed because a majority has it.
    OldTermCommitted,
    /// A vote is given to a candidate whose log lacks what this one has.
    VoteWithoutLogCheck,
    /// A second candidate of a term is voted for, too.
    VoteTwice,
    /// A replica that hears its leader votes for others all the same, while leases rest on it.
    DisloyalVoter,
    /// A lease is judged by the clock's last tick: when time jumps over its end, it is kept.
    LeaseAfterClockJump,
    /// A lease counts from when the answers came, not from when they were asked for.
    LeaseFromAnswer,
    /// A lease outlives the request that another replica should lead at once.
    LeaseAfterTransfer,
    /// ReadIndex answers without asking the quorum.
    ReadIndexWithoutRound,
    /// Reads are served before the leader has committed in its own term.
    ReadBeforeFirstCommit,
    /// A replica that follows reads up to the commit index that it knows, without asking its leader.
    FollowerReadUnasked,
    /// A membership change is proposed while another is under way.
    TwoChangesAtOnce,
    /// An append cuts everything behind it off, also what is committed.
    TruncateBelowCommit,
    /// A follower takes the leader's commit index for its own log's, which may still differ there.
    CommitUnmatched,
}

#[cfg(all(feature = "defects", not(debug_assertions)))]
compile_error!("deliberate defects are for tests: the feature `defects` needs debug assertions");

#[cfg(feature = "defects")]
thread_local! {
    static ON: std::cell::Cell<Option<Defect>> = const { std::cell::Cell::new(None) };
}

/// Switches a defect on for this thread, and any other off.
#[cfg(feature = "defects")]
pub fn switch(defect: Option<Defect>) {
    ON.set(defect);
}

/// Whether a defect is on.
#[cfg(feature = "defects")]
pub(crate) fn has(defect: Defect) -> bool {
    ON.get() == Some(defect)
}

/// Whether a defect is on: never.
#[cfg(not(feature = "defects"))]
#[inline(always)]
pub(crate) const fn has(_: Defect) -> bool {
    false
}
