//! Random weather: faults first, with everything checked after every step; then they heal, and the group must converge.

use holdfast_raft::{ConfChange, ConfStep, Config};

use crate::network::{Faults, Simulation, disk::Disk};

/// Entries committed, reads served, and steps after which somebody slept.
fn weather(seed: u64) -> [u64; 3] {
    let voters = [3, 3, 5, 1, 2][seed as usize % 5];
    let faults = [Faults::NONE, Faults::UNRELIABLE, Faults::REORDERING, Faults { disk_ms: 150, ..Faults::UNRELIABLE }]
        [(seed / 5) as usize % 4];
    let mut simulation = Simulation::with(voters, seed, faults, |config| Config {
        lease: !seed.is_multiple_of(3),
        pre_vote: !seed.is_multiple_of(7),
        inflight_appends_max: 4,
        append_bytes_max: 200,
        tail_bytes_max: if seed.is_multiple_of(2) { 0 } else { 1000 },
        unapplied_bytes_max: 500,
        write_stall_ms: 1500,
        sleep_after_ms: seed.is_multiple_of(2).then_some(150),
        ..config
    });
    let mut next_id = voters + 1;
    let mut slept = 0;
    let mut stateless = Vec::new();
    for id in simulation.ids() {
        let clock = (96 + simulation.draw(8), simulation.draw(10_000));
        simulation.crash(id);
        simulation.node(id).clock = clock;
        simulation.restart(id);
    }
    for step in 0..150u64 {
        let ids = simulation.ids();
        let id = ids[simulation.draw(ids.len() as u64) as usize];
        let quiet = simulation.draw(8) == 0;
        match simulation.draw(40) {
            0 if simulation.is_up(id) => simulation.crash(id),
            1..=3 if !simulation.is_up(id) => simulation.restart(id),
            4 => simulation.isolate(id),
            5..=6 => simulation.reconnect(id),
            7 => {
                let side: Vec<u64> = ids.iter().copied().filter(|_| simulation.draw(2) == 0).collect();
                simulation.partition(&side);
            }
            8 => simulation.cut.clear(),
            9 => {
                let to = ids[simulation.draw(ids.len() as u64) as usize];
                simulation.cut.insert((id, to));
            }
            10..=12 if simulation.is_up(id) => {
                let keep = simulation.draw(5);
                simulation.node(id).checkpoint(keep);
            }
            13 if simulation.is_up(id) => {
                let to = ids[simulation.draw(ids.len() as u64) as usize];
                let _ = simulation.with_node(id, |node, _| node.raft().transfer_leader(to));
            }
            14 if simulation.is_up(id) => {
                simulation.with_node(id, |node, _| node.raft().campaign());
            }
            15 if simulation.is_up(id) && voters > 1 => {
                simulation.with_node(id, |node, _| node.raft().request_snapshot());
                stateless.push(id);
            }
            16 => {
                simulation.stalled.insert(id);
            }
            17..=18 if simulation.stalled.contains(&id) => simulation.unstall(id),
            19 if ids.len() < 7 => {
                simulation.add(Config::new(next_id), Disk::empty());
                next_id += 1;
            }
            20..=23 => {
                let other = ids[simulation.draw(ids.len() as u64) as usize];
                let one = [ConfStep::AddVoter(other), ConfStep::AddLearner(other), ConfStep::Remove(other)]
                    [simulation.draw(3) as usize];
                let mut change = ConfChange::one(one);
                if simulation.draw(2) == 0 {
                    change.steps.push(ConfStep::AddVoter(ids[simulation.draw(ids.len() as u64) as usize]));
                }
                for id in ids {
                    if simulation.is_up(id) {
                        let _ = simulation.with_node(id, |node, _| node.raft().propose_conf_change(&change));
                    }
                }
            }
            _ => {}
        }
        for id in simulation.ids() {
            if !simulation.is_up(id) || quiet {
                continue;
            }
            if simulation.nodes[&id].is_leader() {
                for part in 0..simulation.draw(4) {
                    simulation.propose(id, &format!("{step} {part}"));
                }
            }
            simulation.read(id);
        }
        let wait = if quiet { 600 } else { simulation.draw(120) };
        simulation.run_for(wait);
        slept +=
            u64::from(simulation.nodes.values().any(|node| node.raft.as_ref().is_some_and(|raft| raft.is_asleep())));
        if simulation.draw(3) == 0 {
            simulation.watch_sleepers(2);
        }
    }
    // The weather clears.
    simulation.cut.clear();
    simulation.faults = Faults::NONE;
    for id in simulation.ids() {
        // Replicas that found their state again: with too many that lost it for good, nobody could lead.
        if stateless.contains(&id) && simulation.is_up(id) {
            simulation.crash(id);
        }
        if !simulation.is_up(id) {
            simulation.restart(id);
        }
        simulation.unstall(id);
    }
    for _ in 0..30 {
        simulation.run_for(100);
        simulation.watch_sleepers(0);
    }
    simulation.agree("end", 1);
    let last = simulation.checker.committed_last();
    simulation.run_until("convergence", 30_000, |simulation| {
        // NB: a change may be under way to the end.
        let Some(leader) = simulation.leader() else { return false };
        let members = simulation.node(leader).conf_state.members();
        members.iter().all(|id| simulation.nodes[id].applied >= last)
    });
    [simulation.checker.committed_last(), simulation.reads_served, slept]
}

#[test]
fn random_weather() {
    let only = std::env::var("RAFT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(
        0..std::env::var("RAFT_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000),
        |seed: u64| seed..seed + 1,
    );
    let mut sums = [0; 3];
    for seed in seeds.clone() {
        for (sum, part) in sums.iter_mut().zip(weather(seed)) {
            *sum += part;
        }
    }
    let [committed, reads, slept] = sums;
    println!("{committed} entries committed, {reads} reads served, {slept} steps with somebody asleep");
    if seeds.end - seeds.start > 1 {
        assert!(committed > 10_000 && reads > 1_000 && slept > 50, "the weather left nothing to check");
    }
}
