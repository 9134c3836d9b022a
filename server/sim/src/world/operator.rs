//! Who runs the cluster: replaces what is lost, removes and adds nodes, restarts what gave up.
//!
//! ```text
//!   a disk is lost, rotten or wiped ─▶ an empty one ─▶ the machine asks for a place ─▶ another member
//!                                                                                          the old member is removed
//!   a node is to go ─▶ it is removed ─▶ once it is out: an empty disk ─▶ …
//! ```
//!
//! # What the fault model grants
//! Of a membership's voters, only so many may be lost for good at a time that the others are a majority: what would go beyond that
//! is put off. That goes for the newest membership and for each that a running node still takes for valid: a change may be committed, and
//! known to nobody but the node that is about to be lost. And only a node whose disk was made to fail, or rotted, may give up or refuse to start.

use holdfast_raft::ConfState;
use holdfast_server::cluster::NodeId;
use std::collections::{BTreeMap, BTreeSet};

use super::held::Held;
use super::machine::LAST_BATCH;
use super::{Event, World};
use crate::plan::{Crash, Fault};
use crate::time::{MILLISECOND, Micros, SECOND};

/// How often the operator looks.
const LOOK_EVERY: Micros = 500 * MILLISECOND;

/// What the operator has in mind.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Members that are to be removed, and whether their machines still run as them.
    leaving: BTreeMap<NodeId, bool>,
    /// Members whose disk is lost or may be of no use.
    lost: BTreeSet<NodeId>,
    /// What lost disks held: what was on a majority when it was committed may be on fewer by when its client hears of it.
    held: BTreeMap<NodeId, Held>,
    is_looking: bool,
}

impl Operator {
    /// What a member's disk held when it was lost.
    pub(super) fn held(&self, id: NodeId) -> Option<&Held> {
        self.held.get(&id)
    }
}

impl World<'_> {
    // ---- losses ----------------------------------------------------------------------------------------------------

    /// Whether the cluster bears that this machine's disk is lost. If so, it counts as lost.
    fn may_lose(&mut self, number: u32) -> bool {
        let Some(id) = self.id_of(number) else { return false };
        let bears = self.bears(Some(id), None, number);
        if bears {
            self.operator.lost.insert(id);
        }
        bears
    }

    /// Whether those that are not lost are a majority in every membership that may count: the newest, those that running nodes other
    /// than `but` take for valid, and what becomes of these while those leave that are to, and once all have. One more may be lost, and one more leave.
    fn bears(&mut self, lost: Option<NodeId>, leaves: Option<NodeId>, but: u32) -> bool {
        let Some(newest) = self.memberships.newest() else { return false };
        let others = self.machines.iter().filter(|machine| machine.number != but);
        let believed =
            others.filter_map(|machine| machine.node.as_ref()).map(|node| node.host.data().raft().conf_state());
        let operator = &self.operator;
        let has_majority = |voters: &[NodeId]| {
            let is_lost = |voter: &&NodeId| operator.lost.contains(voter) || lost == Some(**voter);
            voters.iter().filter(is_lost).count() <= voters.len().saturating_sub(1) / 2
        };
        // NB: a learner's promotion may be in a log already, and be committed when it is gone.
        let with_learners = |conf: &ConfState| -> Vec<NodeId> { [&conf.voters[..], &conf.learners[..]].concat() };
        let bears = std::iter::once(newest)
            .chain(believed)
            .flat_map(|conf| [conf.voters.clone(), conf.voters_outgoing.clone(), with_learners(conf)])
            .filter(|voters| !voters.is_empty())
            .all(|voters| {
                let is_to_go = |voter: &NodeId| operator.leaving.contains_key(voter) || leaves == Some(*voter);
                let stay: Vec<NodeId> = voters.iter().copied().filter(|voter| !is_to_go(voter)).collect();
                // NB: they go one by one, and those that run may go before those that are lost.
                let is_lost = |voter: &NodeId| operator.lost.contains(voter) || lost == Some(*voter);
                let between: Vec<NodeId> =
                    voters.iter().copied().filter(|voter| is_lost(voter) || !is_to_go(voter)).collect();
                has_majority(&voters) && has_majority(&between) && !stay.is_empty() && has_majority(&stay)
            });
        if !bears {
            self.marks.hit("losses put off");
        }
        bears
    }

    /// A bit flips.
    pub(super) fn rot(&mut self, number: u32, down: bool) {
        if !self.may_lose(number) {
            return;
        }
        if down {
            self.crash(number, Crash::PowerCut);
        }
        let has_rotten = self.machine(number).rot();
        if has_rotten {
            self.summary.faults += 1;
            self.marks.hit("disks that rotted");
        }
        if down {
            let at = self.events.now() + self.random.range(10 * MILLISECOND..=5 * SECOND);
            self.events.push(at, Event::Fault(Fault::Restart { node: number }));
        }
    }

    /// A machine's disk is lost.
    pub(super) fn wipe(&mut self, number: u32) {
        if self.may_lose(number) {
            self.summary.faults += 1;
            self.marks.hit("disks lost");
            self.replace(number);
        }
    }

    /// A machine gets an empty disk, and starts. What it was is removed.
    pub(super) fn replace(&mut self, number: u32) {
        let now = self.events.now();
        self.trace.event(now, "replace", &[number.into()]);
        self.trace.say(now, || format!("machine {number} gets an empty disk"));
        self.crash(number, Crash::PowerCut);
        if let Some(id) = self.id_of(number) {
            let held = self.machine(number).synced.clone();
            self.operator.held.insert(id, held);
            self.operator.lost.insert(id);
            self.operator.leaving.insert(id, false);
            self.machine_of.remove(&id);
            self.look_soon();
        }
        self.machine(number).lose_disk();
        let at = now + self.random.range(10 * MILLISECOND..=3 * SECOND);
        self.events.push(at, Event::Fault(Fault::Restart { node: number }));
    }

    // ---- what nodes say --------------------------------------------------------------------------------------------

    /// A node did not start.
    pub(super) fn cannot_start(&mut self, number: u32, reason: &str) {
        let now = self.events.now();
        let machine = self.machine(number);
        let lost_acknowledged = reason.contains("lost what was synced") && !reason.ends_with(LAST_BATCH);
        if machine.is_rotten && !lost_acknowledged {
            self.trace.say(now, || format!("node {number} can't start on a rotten disk: {reason}"));
            self.marks.hit("starts refused for damage");
            return self.replace(number);
        }
        if machine.has_bad_disk && is_disk_error(reason) {
            self.trace.say(now, || format!("node {number} can't start on a bad disk: {reason}"));
            self.marks.hit("starts refused for disk errors");
            self.crash(number, Crash::Kill);
            self.events.push(now + 2 * SECOND, Event::Fault(Fault::Restart { node: number }));
            return;
        }
        self.expect(Err(format!("node {number} can't start: {reason}")));
    }

    /// A node takes no part any more.
    pub(super) fn gave_up(&mut self, number: u32, reason: &str) {
        let now = self.events.now();
        let machine = self.machine(number);
        if machine.has_bad_disk && is_disk_error(reason) {
            self.trace.say(now, || format!("node {number} gave up for its disk: {reason}"));
            self.marks.hit(if reason.contains("sync") {
                "nodes halted by a failed sync"
            } else {
                "nodes halted by a failed write"
            });
            let at = now + self.random.range(100 * MILLISECOND..=10 * SECOND);
            self.events.push(at, Event::Fault(Fault::Restart { node: number }));
        } else if machine.is_rotten {
            self.trace.say(now, || format!("node {number} gave up for its rotten disk: {reason}"));
            self.marks.hit("nodes halted by damage");
            let id = self.id_of(number);
            self.events.push(now, Event::Replace { machine: number, id });
        } else {
            self.expect(Err(format!("node {number} gave up: {reason}")));
        }
    }

    // ---- members ---------------------------------------------------------------------------------------------------

    /// The operator wants a node out of the cluster.
    pub(super) fn remove(&mut self, number: u32) {
        let voters = self.memberships.newest().map_or(0, |conf| conf.voters.len());
        let Some(id) = self.id_of(number).filter(|_| voters > 2) else { return };
        // NB: who goes for good is lost to the others, too, but not before they have agreed to it.
        if !self.bears(None, Some(id), number) {
            return;
        }
        self.summary.faults += 1;
        self.operator.leaving.insert(id, true);
        self.look_soon();
    }

    fn look_soon(&mut self) {
        if !std::mem::replace(&mut self.operator.is_looking, true) {
            self.events.push_after(LOOK_EVERY, Event::Operate);
        }
    }

    /// The machine that leads, as far as anybody can tell.
    pub(super) fn leading(&self) -> Option<u32> {
        let leads = self.machines.iter().filter(|machine| machine.stopped.is_none());
        let led =
            leads.filter_map(|machine| Some((machine.node.as_ref().filter(|node| node.leads())?, machine.number)));
        led.max_by_key(|(node, _)| node.host.data().raft().term()).map(|(_, number)| number)
    }

    /// Removes one after the other who is to go, and looks who is gone.
    pub(super) fn operate(&mut self) {
        self.operator.is_looking = false;
        let now = self.events.now();
        self.trace.event(now, "operate", &[]);
        let leaving = self.operator.leaving.clone();
        let Some(leader) = self.leading().filter(|_| !leaving.is_empty()) else {
            if !leaving.is_empty() {
                self.look_soon();
            }
            return;
        };
        for (id, runs) in leaving {
            let Some(node) = &self.machine(leader).node else { break };
            let members = node.host.data().members();
            if !members.conf.contains(id) && !members.nodes.contains_key(&id) {
                self.operator.leaving.remove(&id);
                self.operator.lost.remove(&id);
                if let Some(machine) = self.machine_of.get(&id).copied().filter(|_| runs) {
                    // It goes on for a while as one who was taken out.
                    let span = self.random.range(100 * MILLISECOND..=10 * SECOND);
                    self.events.push(now + span, Event::Replace { machine, id: Some(id) });
                }
            } else if members.leaving.is_none() {
                self.with_node(leader, |node| node.forget(id));
                break;
            }
        }
        if !self.operator.leaving.is_empty() {
            self.look_soon();
        }
    }

    /// The operator asks for this node to lead.
    pub(super) fn hand_over(&mut self, number: u32) {
        if let (Some(leader), Some(target)) = (self.leading(), self.id_of(number)) {
            self.with_node(leader, |node| node.hand_over_to(target));
        }
    }
}

/// Whether a reason is one that a bad disk gives.
fn is_disk_error(reason: &str) -> bool {
    reason.contains("os error 5") || reason.contains("storage space") || reason.contains("no space")
}
