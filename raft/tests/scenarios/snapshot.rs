//! Replicas that can't catch up by the log alone.

use holdfast_raft::{Message, MessageBody, Role};

use crate::network::{Faults, Simulation};

const LOG_ENTRIES_MAX: usize = 80;

fn install(seed: u64, faults: Faults, crash: bool) {
    let mut simulation = Simulation::with(3, seed, faults, |config| config);
    simulation.agree("first", 3);
    for round in 0..30u64 {
        let leader = simulation.elect();
        let victim = if round % 3 == 1 { leader } else { leader % 3 + 1 };
        if crash {
            simulation.crash(victim);
        } else {
            simulation.isolate(victim);
        }
        for number in 0..5 {
            let mut last = 0;
            for part in 0..8 {
                let leader = simulation.elect();
                if let Some((_, index)) = simulation.propose(leader, &format!("{round} {number} {part}")) {
                    last = index;
                }
            }
            let _ = last;
            simulation.agree(&format!("{round} {number}"), 2);
            for id in 1..=3 {
                if simulation.is_up(id) {
                    simulation.node(id).checkpoint(5);
                }
            }
        }
        for id in (1..=3).filter(|id| *id != victim) {
            let entries = simulation.node(id).disk.log.entries.len();
            assert!(entries <= LOG_ENTRIES_MAX, "{entries} entries in the log of {id}");
        }
        if crash {
            simulation.restart(victim);
        } else {
            simulation.reconnect(victim);
        }
        simulation.agree(&format!("{round} together"), 3);
    }
}

#[test]
fn snapshot_install() {
    install(70, Faults::NONE, false);
}

#[test]
fn snapshot_install_unreliable() {
    install(71, Faults::UNRELIABLE, false);
}

#[test]
fn snapshot_install_crash() {
    install(72, Faults::NONE, true);
}

#[test]
fn snapshot_install_unreliable_crash() {
    install(73, Faults::UNRELIABLE, true);
}

#[test]
fn snapshot_all_crash() {
    let mut simulation = Simulation::new(3, 74);
    for round in 0..5 {
        for number in 0..20 {
            simulation.agree(&format!("{round} {number}"), 3);
        }
        let before: Vec<u64> = (1..=3)
            .map(|id| {
                simulation.node(id).checkpoint(3);
                simulation.node(id).disk.applied
            })
            .collect();
        for id in 1..=3 {
            simulation.crash(id);
        }
        for id in 1..=3 {
            simulation.restart(id);
            assert!(simulation.node(id).applied >= before[id as usize - 1], "applied went back");
        }
        simulation.agree(&format!("{round}"), 3);
    }
}

/// Restarts with hardly anything between them: what was loaded from a snapshot is there again, though the log holds none of it.
#[test]
fn snapshot_init() {
    let mut simulation = Simulation::new(3, 78);
    let mut least = 0;
    for number in 0..20 {
        least = simulation.agree(&format!("{number}"), 3);
    }
    for id in 1..=3 {
        simulation.node(id).checkpoint(0);
        let disk = &simulation.node(id).disk;
        assert!(disk.applied >= least && disk.log.entries.is_empty(), "everything is in the snapshot");
    }
    for round in 0..5 {
        for _ in 0..2 {
            for id in 1..=3 {
                simulation.crash(id);
            }
            for id in 1..=3 {
                simulation.restart(id);
                assert!(simulation.node(id).applied >= least, "round {round}: applied went back");
            }
        }
        // NB: no snapshot of this one is made: the next start has the old snapshot, and this in the log.
        simulation.agree(&format!("after round {round}"), 3);
    }
}

/// A replica that lost its applied state asks for a snapshot; its log stays, its votes count, it doesn't campaign.
#[test]
fn snapshot_on_request() {
    let mut simulation = Simulation::new(3, 75);
    let leader = simulation.elect();
    for number in 0..10 {
        simulation.agree(&format!("{number}"), 3);
    }
    let victim = leader % 3 + 1;
    let other = (leader + 1) % 3 + 1;
    // Its snapshots get lost for now: the leader hears nothing of it but what the log needs.
    simulation.with_node(victim, |node, _| node.raft().request_snapshot());
    simulation.isolate(other);
    let index = simulation.agree("needs the victim's log", 1);
    assert!(simulation.node(victim).disk.log.last() >= index, "its log still counts");
    simulation.reconnect(other);
    simulation.run_until("the victim", 2000, |simulation| simulation.node(victim).applied >= index);
    simulation.agree("after", 3);
}

#[test]
fn replica_without_state_does_not_campaign() {
    let mut simulation = Simulation::new(3, 76);
    let leader = simulation.elect();
    simulation.agree("value", 3);
    let victim = leader % 3 + 1;
    simulation.isolate(leader);
    simulation.with_node(victim, |node, _| node.raft().request_snapshot());
    simulation.run_until("leader", 10_000, |simulation| simulation.leader().is_some());
    assert_ne!(simulation.leader(), Some(victim));
    simulation.agree("after", 2);
}

/// An old snapshot, late: it changes nothing, and the sender learns how far the replica is.
#[test]
fn stale_snapshot_is_ignored() {
    let mut simulation = Simulation::new(3, 77);
    let leader = simulation.elect();
    for number in 0..5 {
        simulation.agree(&format!("{number}"), 3);
    }
    let follower = leader % 3 + 1;
    let term = simulation.node(leader).raft().term();
    let meta = holdfast_raft::SnapshotMeta {
        index: 3,
        term: simulation.checker.committed[&3].term,
        conf_state: simulation.node(leader).conf_state.clone(),
    };
    let before = simulation.node(follower).raft().status();
    let message = Message { from: leader, to: follower, term, body: MessageBody::Snapshot { meta } };
    simulation.with_node(follower, |node, clock| node.raft().step(clock, message)).expect("late, not wrong");
    let after = simulation.node(follower).raft().status();
    assert_eq!((after.commit, after.last, after.applied), (before.commit, before.last, before.applied));
    assert_eq!(after.role.role, Role::Follower);
}

/// A replica that asked for a snapshot has an entry that the other lacks, and the leader is gone: neither can be elected, until the request
/// is taken back.
#[test]
fn withdrawn_request_lets_the_longest_log_lead() {
    let mut simulation = Simulation::new(3, 90);
    simulation.agree("before", 3);
    let leader = simulation.elect();
    let (asking, short) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    simulation.isolate(short);
    simulation.agree("without the short one", 2);
    simulation.isolate(leader);
    simulation.with_node(asking, |node, _| node.raft().request_snapshot());
    simulation.crash(leader);
    simulation.reconnect(short);
    simulation.run_for(20_000);
    assert_eq!(simulation.leader(), None, "the one may not, the other can't");
    let (now, raft) = (simulation.now, simulation.node(asking).raft());
    assert_eq!(raft.role_state().leader, Some(leader), "it may not even look for another");
    assert!(raft.leader_heard_at().is_some_and(|heard| heard + 10_000 < now), "but hosts can tell");
    assert!(simulation.with_node(asking, |node, _| node.raft().withdraw_snapshot_request()));
    simulation.agree("after", 2);
    assert_eq!(simulation.leader(), Some(asking));
}
