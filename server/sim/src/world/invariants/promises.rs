//! Messages that promise something leave only once the disk holds what they say: a vote given, a candidacy (which is a vote for
//! oneself, and states where the log ends), an acknowledgement of entries or of a snapshot.

use holdfast_raft::{Message, MessageBody};

use super::Broken;
use crate::world::held::Held;

/// A message leaves a machine whose disk surely holds `disk`; `log` is what the machine believes of its log.
pub(in crate::world) fn check_promise(message: &Message, disk: &Held, log: &Held) -> Result<(), Broken> {
    let (kept, what) = match message.body {
        MessageBody::VoteReply { granted: true, .. } => (has_voted(message, message.to, disk), "a vote"),
        MessageBody::Vote { last_index, last_term, .. } => {
            // NB: what it says of the log may be old by the time the disk holds it, if another won meanwhile; but not too much.
            (has_voted(message, message.from, disk) && disk.end() >= (last_term, last_index), "a candidacy")
        }
        MessageBody::AppendAccepted { index } | MessageBody::SnapshotReply { index } => {
            // Where the log was cut since, the disk's own word must do.
            let same = log.term_at(index).is_none_or(|term| disk.has(index, term));
            (disk.term >= message.term && disk.last() >= index && same, "an acknowledgement")
        }
        _ => return Ok(()),
    };
    if kept {
        return Ok(());
    }
    Err(format!("node {} sends {what} that its disk does not hold: {message:?}; on disk: {disk}", message.from))
}

fn has_voted(message: &Message, candidate: u64, disk: &Held) -> bool {
    disk.term > message.term || (disk.term, disk.vote) == (message.term, candidate)
}
