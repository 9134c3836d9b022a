//! Deliberate defects, to show that what looks for defects finds them.
//!
//! Without the feature `defects` every question is answered with a constant `false`, and the compiler leaves the mistakes out. With it
//! the crate doesn't compile unless debug assertions are on, so that no release can have them. The switch is one for each thread: a
//! simulation runs on one thread from its beginning to its end.

/// A mistake in the storage engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// A batch is reported synced, and was only written.
    SyncForgotten,
    /// A batch that holds no entries, such as a vote, is reported synced, and was only written.
    VoteSyncForgotten,
    /// A sync that failed is tried again, and the second answer believed.
    SyncRetried,
    /// Recovery takes a torn last batch for damage.
    TornTailIsDamage,
    /// Recovery takes damage for a torn last batch, and cuts it.
    DamageIsTornTail,
    /// What recovery cuts is not overwritten, and may come back with a later recovery.
    CutNotOverwritten,
    /// What a start accepts of the log is not written again, though perhaps only the page cache has it.
    AcceptedNotWrittenAgain,
    /// A generation is written with an applied index that is ahead of its data.
    AppliedAheadOfData,
    /// A snapshot is put in place without some of its rows.
    SnapshotWithoutRows,
    /// A snapshot is put in place without what sessions remember.
    SnapshotWithoutSessions,
    /// A snapshot is put in place without what the host keeps beside the rows.
    SnapshotWithoutAttachment,
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
