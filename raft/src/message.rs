//! What replicas say to each other.
//!
//! A message is plain data; the host carries it. It may be lost, delayed, repeated or overtaken by a later one, but
//! not altered: whoever sends it is a replica of the group (the transport authenticates peers), yet a message that no
//! correct replica would send is refused, not believed ([`StepError`](crate::StepError)).

use crate::entry::{Entry, ReplicaId, SnapshotMeta};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who sends it.
    pub from: ReplicaId,
    /// Who shall get it.
    pub to: ReplicaId,
    /// The sender's term; in [`MessageBody::PreVote`] and its grant, the term that the asker would campaign in.
    pub term: u64,
    /// What is said.
    pub body: MessageBody,
}

/// A place in a log: an entry's index and term, which together name it and all before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The entry's index.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageBody {
    /// Would you vote for me in this term? Binds nobody.
    PreVote {
        /// The last entry of the asker's log.
        last_index: u64,
        /// Its term.
        last_term: u64,
        /// What the asker knows to be committed.
        commit: Position,
    },
    /// The answer to [`MessageBody::PreVote`].
    PreVoteReply {
        /// Whether the answer is yes.
        granted: bool,
        /// What the answering replica knows to be committed.
        commit: Position,
    },
    /// Vote for me in this term.
    Vote {
        /// The last entry of the candidate's log.
        last_index: u64,
        /// Its term.
        last_term: u64,
        /// The leader of the term before asked for this election: voters needn't wait until they miss that leader.
        transfer: bool,
    },
    /// The answer to [`MessageBody::Vote`].
    VoteReply {
        /// Whether the vote is given.
        granted: bool,
        /// What the answering replica knows to be committed.
        commit: Position,
    },
    /// Entries from the leader; without any, a probe or news of the commit index.
    Append {
        /// The entry right before the first of `entries`.
        previous_index: u64,
        /// Its term.
        previous_term: u64,
        /// The leader's commit index.
        commit: u64,
        /// Consecutive entries from `previous_index + 1`.
        entries: Vec<Entry>,
    },
    /// My log equals yours up to `index`, durably.
    AppendAccepted {
        /// The last entry known to be equal.
        index: u64,
    },
    /// My log doesn't hold your previous entry.
    AppendRejected {
        /// The `previous_index` that was refused.
        previous_index: u64,
        /// No entry after this one can be equal.
        hint_index: u64,
        /// The term of the entry at `hint_index` in the refusing log.
        hint_term: u64,
    },
    /// The leader lives, and asks to be told so.
    Heartbeat {
        /// Numbers the rounds of one leader's term.
        round: u64,
        /// The leader's commit index as far as the receiver is known to have the entries.
        commit: u64,
        /// There is nothing to do: expect no more heartbeats until something happens.
        sleep: bool,
    },
    /// The answer to [`MessageBody::Heartbeat`].
    HeartbeatReply {
        /// The round that is answered.
        round: u64,
        /// The replica was asked to sleep, and does.
        asleep: bool,
    },
    /// A replica that follows asks its leader: what must be applied for a read that came in just now?
    ReadIndex {
        /// Tells this question from all others of the asker, those of its earlier runs included.
        request: u64,
    },
    /// The answer to [`MessageBody::ReadIndex`].
    ReadIndexReply {
        /// The question that is answered.
        request: u64,
        /// What must be applied; none if the leader can't say, and the read must be asked again.
        index: Option<u64>,
    },
    /// Take this snapshot. The host sends the data before or with it.
    Snapshot {
        /// What the snapshot stands for.
        meta: SnapshotMeta,
    },
    /// A snapshot was dealt with: this log now equals the leader's up to `index`, durably.
    SnapshotReply {
        /// The last entry known to be equal.
        index: u64,
    },
    /// The applied state here is lost, the log is not: send a snapshot.
    SnapshotWanted {
        /// The oldest index of use.
        index_min: u64,
    },
    /// My log ends before what you count as acknowledged by it: my disk has lost what it promised.
    PromiseLost {
        /// The last entry of that log.
        last_index: u64,
    },
    /// Campaign now; the leader steps aside for you.
    TimeoutNow,
    /// A leader's message of an older term arrived; this message's term says what is current.
    StaleTerm,
}

impl MessageBody {
    /// Whether only the leader of the message's term sends this.
    pub(crate) fn is_from_leader(&self) -> bool {
        matches!(
            self,
            MessageBody::Append { .. }
                | MessageBody::Heartbeat { .. }
                | MessageBody::Snapshot { .. }
                | MessageBody::TimeoutNow
        )
    }
}
