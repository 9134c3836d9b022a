//! Deliberate defects, to show that what looks for defects finds them.
//!
//! Without the feature `defects` every question is answered with a constant `false`, and the compiler leaves the mistakes out. With it
//! the crate doesn't compile unless debug assertions are on, so that no release can have them. The switch is one for each thread: a
//! simulation runs on one thread from its beginning to its end.

/// A mistake in the core of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A chunk of another transfer, or of another place in it, is taken for the next one.
    StaleSnapshotChunk,
    /// The log is cut up to what is applied, not only up to what the store holds.
    LogCutAheadOfStore,
    /// The log is cut for a snapshot before its rows are in the store.
    LogCutBeforeSnapshot,
    /// A snapshot that was announced is put in place without having arrived: an older one that did is taken for it.
    SnapshotOfAnotherIndex,
    /// Reads are served from the table although what is committed is not applied yet.
    ReadBehindCommit,
    /// A replica's time follows the node's own clock, not only the log's.
    TimeByOwnClock,
    /// A read that finds a deadline passed moves the replica's time by itself, not through the log.
    TimeMovedByReads,
    /// A read that finds a deadline passed says so before the log does.
    ReadAheadOfTime,
    /// Reads don't notice that a deadline has passed since the group's time last moved.
    EndingOverlooked,
    /// Keys that were found expired are deleted without a look at whether they still are.
    ReclaimUnchecked,
    /// What a session's earlier writes answered is forgotten: a repeated one takes effect again.
    SessionForgotten,
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
