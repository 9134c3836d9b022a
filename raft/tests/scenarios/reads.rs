//! Reads show what was committed when they were asked, and leadership changes hands without losing anything.

use holdfast_raft::{Config, ProposeError, TransferError};

use crate::network::{Faults, Simulation};

fn no_lease(config: Config) -> Config {
    Config { lease: false, ..config }
}

/// One round serves all reads of a turn.
#[test]
fn reads_share_a_round() {
    let mut simulation = Simulation::with(3, 60, Faults::NONE, no_lease);
    let leader = simulation.elect();
    simulation.agree("value", 3);
    simulation.run_for(50);
    let before = simulation.sent_count;
    simulation.with_node(leader, |node, clock| {
        for context in 0..100 {
            node.raft().read_index(clock, context).expect("it leads");
        }
        let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
        let ready = raft.ready(log).expect("readable");
        assert_eq!((ready.reads.len(), ready.messages.len()), (0, 2), "one question to each follower");
    });
    assert_eq!(simulation.sent_count, before);
}

#[test]
fn reads_are_served_after_a_quorum_round() {
    let mut simulation = Simulation::with(3, 61, Faults::NONE, no_lease);
    let leader = simulation.elect();
    simulation.agree("value", 3);
    assert!(simulation.read(leader));
    assert_eq!(simulation.reads_served, 0);
    simulation.run_until("read", 50, |simulation| simulation.reads_served == 1);
}

/// A replica that follows asks its leader, whose lease or round answers for it; a learner does as well.
#[test]
fn follower_reads_what_its_leader_says() {
    for lease in [false, true] {
        let mut simulation = Simulation::with(3, 68, Faults::NONE, |config| Config { lease, ..config });
        let leader = simulation.elect();
        simulation.agree("value", 3);
        simulation.run_for(300);
        for (served, follower) in simulation.ids().into_iter().filter(|id| *id != leader).enumerate() {
            assert!(simulation.read(follower));
            assert_eq!(simulation.reads_served, served as u64, "not without the leader");
            simulation.run_until("read", 50, |simulation| simulation.reads_served == served as u64 + 1);
        }
    }
}

/// Where the leader is replaced, or doesn't answer, the read is given back; it never shows what the old leader knew.
#[test]
fn follower_gives_reads_up_when_its_leader_is_gone() {
    let mut simulation = Simulation::new(5, 69);
    let leader = simulation.elect();
    simulation.agree("old", 5);
    simulation.run_for(300);
    // The leader and one follower are cut off from the others, which elect another leader and go on.
    let follower = leader % 5 + 1;
    simulation.partition(&[leader, follower]);
    simulation.run_for(950);
    assert!(simulation.read(follower), "neither of the two knows yet");
    simulation.agree("new", 3);
    simulation.run_for(3000);
    assert_eq!(simulation.reads_served, 0);
    assert_eq!(simulation.reads_open(), 0, "it was given back");
    // A question that gets lost is given up after an election timeout, though leader and term stay.
    simulation.partition(&[]);
    simulation.agree("healed", 5);
    let leader = simulation.elect();
    let follower = leader % 5 + 1;
    simulation.run_for(500);
    simulation.cut.insert((follower, leader));
    assert!(simulation.read(follower));
    simulation.run_for(900);
    assert_eq!(simulation.reads_open(), 1);
    simulation.run_for(150);
    assert_eq!((simulation.reads_open(), simulation.reads_served), (0, 0));
}

/// A leader that was cut off doesn't know that it was replaced: its reads get no answer.
#[test]
fn cut_off_leader_serves_no_reads() {
    for lease in [false, true] {
        let mut simulation = Simulation::with(3, 62, Faults::NONE, |config| Config { lease, ..config });
        let leader = simulation.elect();
        simulation.agree("old", 3);
        simulation.run_for(300);
        simulation.isolate(leader);
        simulation.run_for(950);
        assert!(simulation.node(leader).is_leader(), "it doesn't know yet");
        assert!(simulation.read(leader));
        simulation.agree("new", 2);
        simulation.run_for(3000);
        assert_eq!(simulation.reads_served, 0);
        // The positive control.
        let leader = simulation.elect();
        assert!(simulation.read(leader));
        simulation.run_until("read", 100, |simulation| simulation.reads_served == 1);
    }
}

/// A new leader has a current commit index only after committing in its own term.
#[test]
fn new_leader_reads_after_its_own_commit() {
    let mut simulation = Simulation::with(3, 63, Faults::NONE, no_lease);
    simulation.agree("value", 3);
    let old = simulation.elect();
    simulation.crash(old);
    simulation.run_until("new leader", 10_000, |simulation| simulation.leader().is_some());
    let leader = simulation.leader().expect("just seen");
    // It got in just now: its first entry is on its way at best, and answers to heartbeats overtake its commit.
    for disk in 1..=3 {
        simulation.stalled.insert(disk);
    }
    assert!(simulation.read(leader));
    simulation.run_for(500);
    assert!(simulation.node(leader).is_leader());
    assert_eq!(simulation.reads_served, 0);
    for disk in 1..=3 {
        if simulation.is_up(disk) {
            simulation.unstall(disk);
        }
    }
    simulation.run_until("read", 500, |simulation| simulation.reads_served == 1);
}

#[test]
fn lease_serves_at_once_and_ends_in_time() {
    let mut simulation = Simulation::new(3, 64);
    let leader = simulation.elect();
    simulation.agree("value", 3);
    simulation.run_for(300);
    assert!(simulation.read(leader));
    assert_eq!(simulation.reads_served, 1, "no round was needed");
    let lease_ms = simulation.node(leader).config.lease_ms();
    simulation.isolate(leader);
    let cut_at = simulation.now;
    simulation.run_for(lease_ms - 150);
    assert!(simulation.read(leader));
    assert_eq!(simulation.reads_served, 2, "the lease still runs");
    simulation.run_for(160);
    let clock = simulation.now;
    assert!(simulation.now <= cut_at + 1000, "before anybody else could vote");
    assert!(simulation.with_node(leader, |node, _| node.raft().lease_read(clock)).is_none());
}

/// Clocks that run at different speeds, within the stated bound, and leaders that come and go: no lease outlives its
/// leader's term. The checker looks after every step.
#[test]
fn leases_hold_with_drifting_clocks() {
    let mut simulation = Simulation::new(3, 65);
    for (id, clock) in [(1, (95, 500)), (2, (100, 7)), (3, (104, 100_000))] {
        simulation.crash(id);
        simulation.node(id).clock = clock;
        simulation.restart(id);
    }
    for round in 0..30u64 {
        let leader = simulation.elect();
        simulation.agree(&format!("{round}"), 2);
        simulation.run_for(150);
        simulation.isolate(leader);
        for step in 0..30 {
            simulation.read(leader);
            if let Some(other) = simulation.leader() {
                simulation.propose(other, &format!("{round} {step}"));
            }
            simulation.run_for(50);
        }
        simulation.reconnect(leader);
    }
    assert!(simulation.reads_served > 100, "{} reads served", simulation.reads_served);
}

#[test]
fn transfer_under_load() {
    let mut simulation = Simulation::new(3, 66);
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.run_for(200);
    let target = leader % 3 + 1;
    let mut taken = Vec::new();
    for number in 0..20 {
        taken.extend(simulation.propose(leader, &format!("{number}")));
    }
    let clock = simulation.now;
    simulation.with_node(leader, |node, _| node.raft().transfer_leader(target)).expect("the target is a voter");
    assert!(
        simulation.with_node(leader, |node, _| node.raft().lease_read(clock)).is_none(),
        "the lease ends before the target is asked"
    );
    let refused = simulation.with_node(leader, |node, _| node.raft().propose("late".into()));
    assert_eq!(refused, Err(ProposeError::Transferring));
    simulation.run_until("the target leads", 1000, |simulation| simulation.leader() == Some(target));
    simulation.agree("after", 3);
    for (term, index) in taken {
        assert_eq!(simulation.checker.committed[&index].term, term, "a proposal taken before the transfer was lost");
    }
}

#[test]
fn transfer_refused() {
    let mut simulation = Simulation::new(3, 67);
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.run_for(200);
    let target = leader % 3 + 1;
    simulation.isolate(target);
    simulation.with_node(leader, |node, _| {
        assert_eq!(node.raft().transfer_leader(leader), Err(TransferError::NotAVoter));
        assert_eq!(node.raft().transfer_leader(9), Err(TransferError::NotAVoter));
        node.raft().transfer_leader(target).expect("a voter");
        assert_eq!(node.raft().transfer_leader(target), Err(TransferError::Transferring));
    });
    let from = simulation.now;
    simulation.run_until("service again", 1200, |simulation| simulation.propose(leader, "again").is_some());
    assert!(simulation.now >= from + 900, "given up after an election timeout");
    // The request to campaign may still be on its way: reads ask the others from now on.
    simulation.run_for(500);
    let clock = simulation.now;
    assert!(simulation.with_node(leader, |node, _| node.raft().lease_read(clock)).is_none());
    assert!(simulation.read(leader));
    simulation.run_until("read", 100, |simulation| simulation.reads_served == 1);
}
