//! Handing leadership over.
//!
//! The leader stops taking proposals, waits until its whole log is committed and the target has it, and asks the target to
//! campaign at once, without a pre-vote and without others' loyalty in the way. What was proposed before is thus known to be
//! committed when leadership is lost, also where leader and target alone are no majority. If nothing came of it within an election timeout, the leader goes
//! on as before, except for leases: the request to campaign may still arrive, so there are none in this term any more.

use crate::{
    entry::{Millis, ReplicaId},
    error::TransferError,
    message::MessageBody,
    raft::Raft,
    ready::Role,
};

/// A hand-over under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) target: ReplicaId,
    pub(crate) deadline: Millis,
    /// The target was asked to campaign. Nothing is appended to it from then on: it would answer from its new term, and depose this
    /// leader before anybody can lead in its place.
    pub(crate) asked: bool,
}

impl Raft {
    /// Hands leadership to `target`. Proposals are refused with [`ProposeError::Transferring`](crate::ProposeError) until
    /// it is done or given up, after one election timeout.
    ///
    /// # Errors
    /// If this replica doesn't lead, the target is not another voter, or a transfer is under way.
    pub fn transfer_leader(&mut self, target: ReplicaId) -> Result<(), TransferError> {
        if self.role != Role::Leader {
            return Err(TransferError::NotLeader { hint: self.leader });
        }
        if self.transfer.is_some() {
            return Err(TransferError::Transferring);
        }
        // The incoming half of a joint membership lasts; the outgoing doesn't.
        if target == self.config.id || !self.conf.voters.contains(&target) {
            return Err(TransferError::NotAVoter);
        }
        self.note_activity();
        self.transfer = Some(Transfer { target, deadline: self.now + self.config.election_timeout_ms, asked: false });
        self.replicate = true;
        self.continue_transfer();
        Ok(())
    }

    /// Asks the target to campaign once it has the whole log, all of that is committed, and no change of membership is under way.
    pub(crate) fn continue_transfer(&mut self) {
        let Some(transfer) = self.transfer.filter(|transfer| !transfer.asked) else {
            return;
        };
        let last = self.log.last();
        // NB: once a change of membership is handed out, another entry follows it.
        if self.log.commit() < last || self.conf_barrier > self.log.delivered() {
            return;
        }
        if self.peers.iter().any(|peer| peer.id == transfer.target && peer.matched == last) {
            self.reads.bar_lease();
            self.transfer = Some(Transfer { asked: true, ..transfer });
            self.send(transfer.target, MessageBody::TimeoutNow);
        }
    }

    pub(crate) fn tick_transfer(&mut self) {
        if self.transfer.is_some_and(|transfer| transfer.deadline <= self.now) {
            self.transfer = None;
            self.replicate = true;
        }
    }

    pub(crate) fn on_timeout_now(&mut self) {
        if self.may_campaign() {
            self.reset_election_deadline();
            self.start_campaign(true);
        }
    }
}
