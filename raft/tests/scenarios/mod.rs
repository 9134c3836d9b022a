mod election;
mod membership;
mod persistence;
mod random;
mod reads;
mod replication;
mod script;
mod sleep;
mod snapshot;

/// An answer to a vote request from a replica that knows nothing but the group's beginning to be committed.
fn vote_reply(granted: bool) -> holdfast_raft::MessageBody {
    holdfast_raft::MessageBody::VoteReply { granted, commit: holdfast_raft::Position { index: 1, term: 1 } }
}
