//! Once nothing goes wrong any more, the cluster becomes whole: one leader, everybody a voter, everything committed is applied
//! everywhere, and no log is longer than its limit allows.

use super::Broken;
use crate::world::machine::Machine;
use crate::world::settings::Settings;

/// Whether the cluster is whole.
pub(in crate::world) fn has_converged(machines: &[Machine], settings: &Settings) -> bool {
    what_is_not_converged(machines, settings).is_none()
}

/// What is missing, if something is.
pub(in crate::world) fn what_is_not_converged(machines: &[Machine], settings: &Settings) -> Option<Broken> {
    let mut leaders = Vec::new();
    let mut applied = Vec::new();
    for machine in machines {
        let Some(node) = machine.node.as_ref() else {
            return Some(format!("machine {} runs no node", machine.number));
        };
        let raft = node.host.data().raft();
        if raft.is_leader() {
            leaders.push((machine.number, raft.commit_index()));
            let conf = raft.conf_state();
            if conf.voters.len() != machines.len() || conf.is_joint() {
                return Some(format!("not every node is a voter: {conf:?}"));
            }
        }
        applied.push(node.host.data().applied().index);
        let log = node.host.log();
        let bytes_max = settings.log_bytes_max.max(2 * log.live_bytes()) + 3 * settings.segment_bytes;
        if log.log_bytes() > bytes_max {
            return Some(format!(
                "the log of node {} takes {} bytes, {} of them live",
                machine.number,
                log.log_bytes(),
                log.live_bytes()
            ));
        }
    }
    match leaders[..] {
        [(_, commit)] if applied.iter().all(|index| *index == commit) => None,
        [(leader, commit)] => Some(format!("node {leader} leads and has committed {commit}; applied: {applied:?}")),
        _ => Some(format!("leaders: {leaders:?}")),
    }
}

/// How each node stands, for those who have to find out why.
pub(in crate::world) fn standing(machines: &[Machine]) -> String {
    let nodes = machines.iter().filter_map(|machine| machine.node.as_ref().map(|node| (machine.number, node)));
    nodes.map(|(number, node)| format!("node {number}: {}\n", node.standing())).collect()
}
