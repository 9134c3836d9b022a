//! What can be refused, and why.

use crate::{config::ConfigError, entry::ReplicaId};

/// Why the host's log could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The entries were compacted away: only a snapshot holds their effect.
    #[error("the entries were compacted away")]
    Compacted,
    /// The entries exist but can't be had at once; asked again at a later turn.
    #[error("the entries are not at hand yet")]
    Unavailable,
    /// The log is damaged. The replica must stop.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

/// Why a replica could not start from the state that it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// The settings contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log could not be read.
    #[error("reading the log while starting: {0}")]
    Log(#[from] LogError),
    /// Log, hard state and applied index don't fit together.
    #[error("the stored state contradicts itself: {0}")]
    Inconsistent(String),
}

/// Why a message was refused. What it says was not taken over (a higher term that it named may have been).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The message breaks a rule that every correct sender keeps.
    #[error("message from replica {from} is malformed: {what}")]
    Malformed {
        /// Who sent it.
        from: ReplicaId,
        /// The broken rule.
        what: &'static str,
    },
    /// The sender's log contradicts what is committed here. One of the two replicas lost or forged data: this replica
    /// must stop and be looked at (or rebuilt) rather than carry on.
    #[error("replica {from} says entry {index} has term {theirs}, but a committed entry here has term {ours}")]
    Diverged {
        /// Who sent it.
        from: ReplicaId,
        /// The entry in question.
        index: u64,
        /// The term of the committed entry here.
        ours: u64,
        /// The term that the sender gives it.
        theirs: u64,
    },
    /// Two replicas claim to lead the same term.
    #[error("replica {from} claims to lead term {term}, which replica {leader} leads")]
    TwoLeaders {
        /// Who claims it now.
        from: ReplicaId,
        /// The leader known here.
        leader: ReplicaId,
        /// The term.
        term: u64,
    },
}

/// Why a proposal was refused. Nothing was appended: the outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// The leader, if one is known.
        hint: Option<ReplicaId>,
    },
    /// [`Config::uncommitted_bytes_max`](crate::Config::uncommitted_bytes_max) is reached; try when entries commit.
    #[error("too many bytes wait to be committed")]
    TooMuchUncommitted,
    /// Leadership is being handed over; hold the proposal until that ends (at most one election timeout).
    #[error("leadership is being transferred")]
    Transferring,
}

/// Why a membership change was refused. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeError {
    /// As for any proposal.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// An earlier change is not applied yet; try again after it.
    #[error("an earlier membership change is still under way")]
    Pending,
    /// The group would end in a state that is not allowed.
    #[error("the membership change is not allowed: {0}")]
    Invalid(&'static str),
}

/// Why a read was refused. Nothing was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// The leader, if one is known.
        hint: Option<ReplicaId>,
    },
    /// [`Config::reads_waiting_max`](crate::Config::reads_waiting_max) is reached.
    #[error("too many reads wait for a quorum")]
    TooManyReads,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Another replica leads, or none does.
    #[error("this replica does not lead the group")]
    NotLeader {
        /// The leader, if one is known.
        hint: Option<ReplicaId>,
    },
    /// The target is not a voter of the group, or is this replica.
    #[error("the target is not another voter of the group")]
    NotAVoter,
    /// A hand-over is already under way.
    #[error("leadership is already being transferred")]
    Transferring,
}
