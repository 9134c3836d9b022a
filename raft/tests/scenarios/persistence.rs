//! Crashes: what was promised is still true afterwards.

use crate::network::{Faults, Simulation};

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
