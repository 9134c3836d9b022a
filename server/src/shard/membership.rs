//! HOLDFAST: who belongs to the cluster and who leads it, asked for by its operators.
//!
//! ```text
//!   REMOVE-NODE 3 ─▶ would the others still be a quorum? ─▶ entry: 3 is leaving ─▶ the leader takes it out ─▶ it is gone: 1
//!                          │ no: refused                     (whoever leads completes it: replica/membership.rs)
//!   REMOVE-NODE of the leader itself ─▶ hand over ─▶ MOVED to the new leader, which is asked again
//! ```
//!
//! The leader does all of it; others say who that is, as for data, so that every cluster client finds its way. A job looks after each
//! turn whether what it waits for has happened. When this node stops leading while a removal is under way, nobody here knows what
//! becomes of it, and the connection is closed. Asking again is always right: a removed node is not removed twice.

use super::Shard;
use super::conn::ConnKey;
use super::jobs::{Answer, Shared};
use crate::cluster::{Address, NodeId};
use crate::command::Failure;
use crate::connection::CLUSTER_DISABLED;
use crate::replica::{CannotLose, CheckReport, Finding, Replica, internal};
use crate::resp::Reply;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// What a node that was removed answers to everything about data or the cluster.
pub(super) const REMOVED: &str = "CLUSTERDOWN This node was removed from the cluster";
/// What a node answers whose folder is not the one that made its promises.
pub(super) const PROMISE_LOST: &str =
    "CLUSTERDOWN This node lost what it had promised and takes part no more; its log says what to do";
/// What a replica answers whose state differs from the others'.
pub(super) const DIFFERS: &str = "CLUSTERDOWN This node's state differs from the others' and is being rebuilt";
/// As for data: nobody is known to lead.
const NO_LEADER: &str = "CLUSTERDOWN The cluster is down";
/// How long an entry that asks for a removal may take before it is proposed again.
const PROPOSE_AGAIN: Duration = Duration::from_secs(1);
/// How long a removal is waited for: what it waits for itself may never come, and the list remembers it.
const REMOVAL_MAX: Duration = Duration::from_secs(60);
/// The slot that a redirection without keys names.
const SLOT: u16 = 0;

/// What has been done about a removal.
struct Removal {
    node: NodeId,
    asked: Instant,
    /// When the entry was last proposed, by whichever connection.
    proposed: Option<Instant>,
    /// Leadership is handed over first.
    hand_over: Option<HandOver>,
}

/// What has been done about a transfer of leadership.
struct Transfer {
    to: Option<NodeId>,
    asked: Instant,
    hand_over: Option<HandOver>,
}

/// Leadership on its way to another node. Clients are made to wait, what is under way is answered, then that node is asked.
struct HandOver {
    target: NodeId,
    asked: bool,
}

/// What a look at the state of things comes to.
enum Seen {
    /// Nothing yet: look again.
    Wait,
    Done(i64),
    Refused(Failure),
    /// The answer would be a guess: the connection is closed.
    Unknown,
}

fn refused(text: String) -> Seen {
    Seen::Refused(Failure::new(text))
}

/// Looks again after every turn until there is an answer.
async fn settle(shard: &Shared, conn: ConnKey, mut look: impl FnMut(&mut Shard) -> Seen) -> Answer {
    poll_fn(|context| {
        let mut this = shard.borrow_mut();
        let gone = || Poll::Ready(Err(Failure::fixed("ERR nobody waits for the answer")));
        if this.conn_mut(conn).is_none_or(|state| state.dead) {
            return gone();
        }
        match look(&mut this) {
            Seen::Wait => {
                this.wake_when_replicated(context.waker());
                Poll::Pending
            }
            Seen::Done(number) => Poll::Ready(Ok(Box::new(move |reply: &mut Reply| reply.int(number)) as _)),
            Seen::Refused(failure) => Poll::Ready(Err(failure)),
            Seen::Unknown => {
                if let Some(state) = this.conn_mut(conn) {
                    state.dead = true;
                    state.wake();
                }
                gone()
            }
        }
    })
    .await
}

/// Removes a node. Answers 1 once it is gone, 0 if it was gone before.
pub(super) async fn remove_node(shard: Shared, conn: ConnKey, node: NodeId) -> Answer {
    let mut removal = Removal { node, asked: Instant::now(), proposed: None, hand_over: None };
    settle(&shard, conn, |this| this.look_at_removal(&mut removal)).await
}

/// Hands leadership over. Answers the number of the new leader.
pub(super) async fn transfer_leader(shard: Shared, conn: ConnKey, to: Option<NodeId>) -> Answer {
    let mut transfer = Transfer { to, asked: Instant::now(), hand_over: None };
    settle(&shard, conn, |this| this.look_at_transfer(&mut transfer)).await
}

/// Has all replicas hash their states, and answers what came of it.
pub(super) async fn verify(shard: Shared, conn: ConnKey) -> Answer {
    let (mut after, mut report) = (None, None);
    // NB: it answers a number; what counts is the report.
    let _answer = settle(&shard, conn, |this| this.look_at_check(&mut after, &mut report)).await?;
    let report = report.ok_or(Failure::fixed("ERR nobody waits for the answer"))?;
    Ok(Box::new(move |reply| write_report(&report, reply)))
}

fn write_report(report: &CheckReport, reply: &mut Reply) {
    reply.map(3);
    reply.bulk(b"index");
    reply.int(i64::try_from(report.index).unwrap_or(i64::MAX));
    reply.bulk(b"hash");
    match report.hash {
        Some(hash) => reply.bulk(format!("{hash:032x}").as_bytes()),
        None => reply.null(),
    }
    reply.bulk(b"nodes");
    reply.map(report.nodes.len());
    for (id, finding) in &report.nodes {
        reply.int(i64::try_from(*id).unwrap_or(i64::MAX));
        reply.bulk(match finding {
            Finding::Equal => b"equal",
            Finding::Differs => b"differs",
            Finding::Silent => b"silent",
        });
    }
}

impl Shard {
    /// Where to ask about the cluster, if not here.
    fn elsewhere(&self) -> Option<Failure> {
        if !self.node.is_clustered() {
            return Some(Failure::fixed(CLUSTER_DISABLED));
        }
        if let Some(text) = self.parted() {
            return Some(Failure::fixed(text));
        }
        if let Some(text) = self.halted() {
            return Some(Failure::new(text));
        }
        if self.leads() {
            return None;
        }
        let address = self.leader_elsewhere().and_then(|id| self.host.data().member(id)).map(|member| &member.client);
        Some(address.map_or(Failure::fixed(NO_LEADER), |Address { host, port }| {
            Failure::new(format!("MOVED {SLOT} {host}:{port}"))
        }))
    }

    /// Who leads, if it is another node.
    fn leader_elsewhere(&self) -> Option<NodeId> {
        let raft = self.host.data().raft();
        raft.role_state().leader.filter(|leader| *leader != raft.id())
    }

    /// How long after a question the answer may rest on what a leader learns in its first moments.
    fn first_moments(&self) -> Duration {
        Duration::from_millis(self.node.settings.election_timeout_ms.saturating_mul(2))
    }

    fn look_at_removal(&mut self, removal: &mut Removal) -> Seen {
        let Removal { node, asked, .. } = *removal;
        if let Some(failure) = self.elsewhere() {
            return match removal.proposed {
                Some(_) => Seen::Unknown,
                None if removal.hand_over.is_some() && self.awaits_successor() => Seen::Wait,
                None => Seen::Refused(failure),
            };
        }
        let replica = self.host.data();
        let (me, members) = (replica.raft().id(), replica.members());
        if members.has_lost(node) {
            // Whoever hears of it may destroy the node. So those that stay must be able to go on without this leader, too.
            return match replica.raft().is_membership_settled() {
                true => Seen::Done(i64::from(removal.proposed.is_some())),
                false => Seen::Wait,
            };
        }
        if !members.nodes.contains_key(&node) {
            return refused(format!("ERR there is no node {node} in the cluster"));
        }
        if asked.elapsed() >= REMOVAL_MAX {
            return Seen::Unknown;
        }
        match members.leaving {
            Some(leaving) if leaving == node => {
                // Another connection may have asked for it.
                removal.proposed.get_or_insert_with(Instant::now);
                return Seen::Wait;
            }
            Some(other) => {
                return refused(format!("TRYAGAIN node {other} is being removed; one node is removed after the other"));
            }
            None if removal.proposed.is_some_and(|at| at.elapsed() < PROPOSE_AGAIN) => return Seen::Wait,
            None => {}
        }
        match replica.can_lose(node) {
            Ok(()) => {}
            // A new leader hasn't heard from everybody yet.
            Err(CannotLose::NoQuorum { .. }) if asked.elapsed() < self.first_moments() => return Seen::Wait,
            Err(reason) => return refused(explain(node, &reason)),
        }
        if node == me {
            return self.hand_over_before_removal(removal);
        }
        removal.proposed = Some(Instant::now());
        let args = Replica::forget_args(node);
        self.push_internal(internal::FORGET, &[b"", &args[0]]);
        Seen::Wait
    }

    /// The leader can't take itself out and see it through: another is to lead, and is then asked again.
    fn hand_over_before_removal(&mut self, removal: &mut Removal) -> Seen {
        if let Some(hand_over) = &mut removal.hand_over {
            return match self.go_on_handing_over(hand_over) {
                true => Seen::Wait,
                false => refused("TRYAGAIN no other node has taken leadership over; nothing was removed".to_owned()),
            };
        }
        let replica = self.host.data();
        if replica.raft().is_transferring() || self.awaits_successor() {
            return refused("TRYAGAIN leadership is being handed over already".to_owned());
        }
        match replica.successor() {
            Some(target) => removal.hand_over = Some(self.hand_over_to(target)),
            None => return refused("TRYAGAIN no other node with a vote answers; nothing was removed".to_owned()),
        }
        Seen::Wait
    }

    fn look_at_transfer(&mut self, transfer: &mut Transfer) -> Seen {
        if let Some(failure) = self.elsewhere() {
            return match (&transfer.hand_over, self.leader_elsewhere()) {
                (Some(_), Some(leader)) => {
                    self.begin_hand_over_for(0);
                    Seen::Done(leader as i64)
                }
                (Some(_), None) if self.awaits_successor() => Seen::Wait,
                _ => Seen::Refused(failure),
            };
        }
        let replica = self.host.data();
        let me = replica.raft().id();
        if let Some(hand_over) = &mut transfer.hand_over {
            let target = hand_over.target;
            return match self.go_on_handing_over(hand_over) {
                true => Seen::Wait,
                false => {
                    refused(format!("ERR node {target} has not taken leadership over in time; node {me} leads on"))
                }
            };
        }
        let members = replica.members();
        let next = match transfer.to {
            Some(id) if id == me => return Seen::Done(me as i64),
            Some(id) if !members.nodes.contains_key(&id) => {
                return refused(format!("ERR there is no node {id} in the cluster"));
            }
            Some(id) if !replica.raft().conf_state().voters.contains(&id) => {
                return refused(format!("ERR node {id} has no vote yet"));
            }
            Some(id) if members.leaving == Some(id) => {
                return refused(format!("ERR node {id} is being removed"));
            }
            Some(id) => Some(id).filter(|id| replica.is_followed_by(*id)),
            None => replica.successor(),
        };
        if replica.raft().is_transferring() || self.awaits_successor() {
            return refused("TRYAGAIN leadership is being handed over already".to_owned());
        }
        match (next, transfer.to) {
            (Some(next), _) => transfer.hand_over = Some(self.hand_over_to(next)),
            (None, _) if transfer.asked.elapsed() < self.first_moments() => {}
            (None, Some(id)) => return refused(format!("ERR node {id} does not answer; node {me} leads on")),
            (None, None) => return refused(format!("ERR no other node with a vote answers; node {me} leads on")),
        }
        Seen::Wait
    }

    /// Begins to hand leadership over: from now on nothing is proposed.
    fn hand_over_to(&mut self, target: NodeId) -> HandOver {
        self.begin_hand_over_for(self.first_moments().as_millis() as u64);
        let mut hand_over = HandOver { target, asked: false };
        self.go_on_handing_over(&mut hand_over);
        // Whether that was taken shows with the next look, which comes with the next tick.
        hand_over
    }

    /// Does what is next, while this node leads. `false`: nobody took over, and this node leads on.
    fn go_on_handing_over(&mut self, hand_over: &mut HandOver) -> bool {
        if hand_over.asked && self.host.data().raft().is_transferring() {
            return true;
        }
        if !hand_over.asked && self.awaits_successor() {
            if self.turn.under_way() == 0 {
                hand_over.asked = self.host.data_mut().transfer_leader(hand_over.target);
                self.pump();
            }
            return true;
        }
        self.begin_hand_over_for(0);
        self.wake_turn();
        false
    }

    /// Looks whether a check of an index above `after` came to something.
    fn look_at_check(&mut self, after: &mut Option<u64>, report: &mut Option<CheckReport>) -> Seen {
        if let Some(failure) = self.elsewhere() {
            return match after {
                Some(_) => refused("TRYAGAIN the leader changed while the states were compared".to_owned()),
                None => Seen::Refused(failure),
            };
        }
        let replica = self.host.data_mut();
        let Some(after) = *after else {
            // NB: a check that is under way may have begun before the last write that the client knows of.
            let last = replica.raft().last_index();
            *after = Some(last);
            replica.want_check(last);
            return Seen::Wait;
        };
        match replica.check_report(after) {
            Some(found) => {
                *report = Some(found);
                Seen::Done(0)
            }
            None => Seen::Wait,
        }
    }

    /// HOLDFAST NODES. A connection that has sent READONLY gets what a follower knows.
    pub(super) fn list_nodes(&self, read_only: bool) -> Answer {
        if let Some(failure) = self.elsewhere()
            && !(read_only && self.node.is_clustered() && self.parted().is_none())
        {
            return Err(failure);
        }
        let replica = self.host.data();
        let (raft, members) = (replica.raft(), replica.members());
        let (conf, status) = (raft.conf_state(), raft.status());
        let leads = self.leads();
        let connected = |id: NodeId| self.peers().is_some_and(|peers| peers.is_connected(id));
        let rows: Vec<Row> = members
            .nodes
            .iter()
            .map(|(id, member)| {
                let peer = status.peers.iter().find(|peer| peer.id == *id);
                Row {
                    id: *id,
                    client: member.client.to_string(),
                    peer: member.peer.to_string(),
                    role: match () {
                        () if status.role.leader == Some(*id) => "leader",
                        () if conf.is_voter(*id) => "follower",
                        () if conf.contains(*id) => "learner",
                        () => "joining",
                    },
                    votes: raft.surely_votes(*id),
                    lag: match peer {
                        Some(peer) if leads => Some(status.last.saturating_sub(peer.matched)),
                        _ => (leads && *id == raft.id()).then_some(0),
                    },
                    reachable: *id == raft.id()
                        || (connected(*id) && (!leads || peer.is_some_and(|peer| peer.answers))),
                    leaving: members.leaving == Some(*id),
                    boot: members.starts.get(id).map(|start| start.boot),
                }
            })
            .collect();
        Ok(Box::new(move |reply| {
            reply.array(rows.len());
            rows.iter().for_each(|row| row.write(reply));
        }))
    }
}

/// A node in HOLDFAST NODES.
struct Row {
    id: NodeId,
    client: String,
    peer: String,
    role: &'static str,
    votes: bool,
    /// Entries of the leader's log that it lacks on its disk; none where this node doesn't lead.
    lag: Option<u64>,
    reachable: bool,
    leaving: bool,
    /// The number of its newest start that is registered.
    boot: Option<u64>,
}

impl Row {
    fn write(&self, reply: &mut Reply) {
        reply.map(9);
        reply.bulk(b"id");
        reply.int(self.id as i64);
        for (name, text) in [("client", self.client.as_str()), ("peer", &self.peer), ("role", self.role)] {
            reply.bulk(name.as_bytes());
            reply.bulk(text.as_bytes());
        }
        for (name, truth) in [("votes", self.votes), ("reachable", self.reachable), ("leaving", self.leaving)] {
            reply.bulk(name.as_bytes());
            reply.int(i64::from(truth));
        }
        for (name, number) in [("lag", self.lag), ("boot", self.boot)] {
            reply.bulk(name.as_bytes());
            match number {
                Some(number) => reply.int(i64::try_from(number).unwrap_or(i64::MAX)),
                None => reply.null(),
            }
        }
    }
}

/// Why a node is not removed.
fn explain(node: NodeId, reason: &CannotLose) -> String {
    match reason {
        CannotLose::OnlyVoter => {
            format!("ERR node {node} is the only one with a vote: without it there would be no cluster")
        }
        CannotLose::NoQuorum { voters, silent } => {
            let silent: Vec<String> = silent.iter().map(NodeId::to_string).collect();
            format!(
                "ERR without node {node} no majority of the other {voters} voters would answer (silent: {}); remove or mend those \
                 first, or add a node",
                silent.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_why_and_what_to_do() {
        assert!(explain(1, &CannotLose::OnlyVoter).contains("node 1 is the only one with a vote"));
        let text = explain(2, &CannotLose::NoQuorum { voters: 2, silent: vec![3] });
        assert!(text.contains("the other 2 voters") && text.contains("(silent: 3)"), "{text}");
    }
}
