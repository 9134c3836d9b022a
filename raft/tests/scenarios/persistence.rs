//! Crashes: what was promised is still true afterwards.

use holdfast_raft::{Message, MessageBody};

use crate::network::{Faults, Simulation};

/// Takes a replica down and its disk back to what it held when its log ended at `last`, as a disk does that forgets.
fn roll_back(simulation: &mut Simulation, id: u64, last: u64) {
    simulation.crash(id);
    let disk = &mut simulation.node(id).disk;
    let entries = usize::try_from(last - disk.log.base_index).expect("few");
    disk.log.entries.truncate(entries);
    disk.hard_state.commit = disk.hard_state.commit.min(last);
    disk.applied = disk.applied.min(last);
}

/// Whether the leader knows that a replica's disk forgets.
fn is_found_out(simulation: &mut Simulation, leader: u64, id: u64) -> bool {
    simulation.node(leader).raft().status().peers.iter().any(|peer| peer.id == id && peer.promise_lost)
}

/// A replica's disk loses entries that it acknowledged in the term of the present leader: both find out, and it counts no more.
#[test]
fn follower_that_lost_what_it_acknowledged_is_found_out_and_counts_no_more() {
    let mut simulation = Simulation::new(3, 56);
    let leader = simulation.elect();
    let last = simulation.agree("kept", 3);
    for number in 0..5 {
        simulation.agree(&format!("{number}"), 3);
    }
    let (victim, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    roll_back(&mut simulation, victim, last);
    simulation.restart(victim);
    simulation.run_until("it is found out", 2000, |simulation| is_found_out(simulation, leader, victim));
    assert_eq!(simulation.node(victim).promises_lost, [victim], "it knows, once");
    assert_eq!(simulation.node(leader).promises_lost, [victim]);
    // With it alone there is no majority: it is as good as dead.
    simulation.isolate(other);
    let committed = simulation.checker.committed_last();
    simulation.propose(leader, "nobody else has it");
    simulation.run_for(300);
    assert_eq!(simulation.checker.committed_last(), committed);
    assert!(!simulation.read(leader) || simulation.node(leader).reads.is_empty());
    // Its host stops it; with the third the group goes on.
    simulation.crash(victim);
    simulation.reconnect(other);
    simulation.agree("with the other", 2);
}

/// A refusal that comes late, after what it refused was acknowledged, is no lost promise; nor is any crash.
#[test]
fn late_refusals_and_crashes_are_no_lost_promises() {
    let mut simulation = Simulation::with(3, 57, Faults::REORDERING, |config| config);
    for round in 0..20 {
        let leader = simulation.elect();
        let index = simulation.agree(&format!("{round}"), 2);
        let follower = leader % 3 + 1;
        let term = simulation.node(leader).raft().term();
        for previous_index in [index, index - 1, 1] {
            let body = MessageBody::AppendRejected { previous_index, hint_index: 0, hint_term: 0 };
            let late = Message { from: follower, to: leader, term, body };
            simulation.with_node(leader, |node, clock| node.raft().step(clock, late)).expect("late, not wrong");
        }
        simulation.crash(follower);
        simulation.run_for(200);
        simulation.restart(follower);
        simulation.run_for(500);
        for id in 1..=3 {
            assert!(simulation.node(id).promises_lost.is_empty(), "round {round}, replica {id}");
        }
    }
}

#[test]
fn persist_all_crash() {
    let mut simulation = Simulation::new(3, 50);
    simulation.agree("11", 3);
    for round in 0..3 {
        for id in 1..=3 {
            simulation.crash(id);
        }
        for id in 1..=3 {
            simulation.restart(id);
        }
        simulation.agree(&format!("{round}"), 3);
    }
    assert_eq!(simulation.checker.values(), ["11", "0", "1", "2"]);
}

#[test]
fn persist_rolling_majorities() {
    let mut simulation = Simulation::new(5, 51);
    for round in 0..5u64 {
        simulation.agree(&format!("{round} all"), 5);
        let at = |step: u64| (round + step) % 5 + 1;
        simulation.crash(at(1));
        simulation.crash(at(2));
        simulation.agree(&format!("{round} three"), 3);
        for step in [0, 3, 4] {
            simulation.crash(at(step));
        }
        simulation.restart(at(1));
        simulation.restart(at(2));
        simulation.run_for(3000);
        simulation.restart(at(3));
        simulation.agree(&format!("{round} rolled"), 3);
        simulation.restart(at(4));
        simulation.restart(at(0));
    }
    simulation.agree("end", 5);
    assert_eq!(simulation.checker.values().len(), 16);
}

#[test]
fn persist_partitioned_leader_and_one_follower_crash() {
    let mut simulation = Simulation::new(3, 52);
    simulation.agree("101", 3);
    let leader = simulation.elect();
    let (second, third) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    simulation.isolate(third);
    simulation.agree("102", 2);
    simulation.crash(leader);
    simulation.crash(second);
    simulation.reconnect(third);
    simulation.restart(leader);
    simulation.agree("103", 2);
    simulation.restart(second);
    simulation.agree("104", 3);
    assert_eq!(simulation.checker.values(), ["101", "102", "103", "104"]);
}

/// A crash at any moment between a write's start and its end, some hundred times, on all replicas at once.
#[test]
fn crash_of_all_with_writes_under_way() {
    let faults = Faults { disk_ms: 40, ..Faults::NONE };
    let mut simulation = Simulation::with(3, 53, faults, |config| config);
    for round in 0..60 {
        let leader = simulation.elect();
        for number in 0..5 {
            simulation.propose(leader, &format!("{round} {number}"));
            let wait = simulation.draw(15);
            simulation.run_for(wait);
        }
        for id in 1..=3 {
            simulation.crash(id);
        }
        for id in 1..=3 {
            simulation.restart(id);
        }
    }
    simulation.agree("end", 3);
}

#[test]
fn same_seed_gives_same_trace() {
    let run = |seed| {
        let mut simulation = Simulation::with(3, seed, Faults::REORDERING, |config| config);
        for round in 0..20 {
            for id in 1..=3 {
                simulation.propose(id, &format!("{round}"));
            }
            simulation.run_for(200);
        }
        (simulation.trace, simulation.checker.committed_last())
    };
    assert_eq!(run(54), run(54));
    assert_ne!(run(54).0, run(55).0);
}
