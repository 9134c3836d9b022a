//! A group in which nothing happens sends nothing, and wakes whenever it should.

use holdfast_raft::Config;

use crate::network::{Faults, Simulation};

/// Three replicas that sleep after 400 ms; the leader of the group, which is asleep.
fn asleep(seed: u64) -> (Simulation, u64) {
    let sleepy = |config| Config { sleep_after_ms: Some(400), ..config };
    let mut simulation = Simulation::with(3, seed, Faults::NONE, sleepy);
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.run_until("sleep", 2000, all_sleep);
    (simulation, leader)
}

fn all_sleep(simulation: &mut Simulation) -> bool {
    simulation.nodes.values().all(|node| node.raft.as_ref().is_some_and(|raft| raft.is_asleep()))
}

#[test]
fn sleeping_group_sends_nothing_and_keeps_its_leader() {
    let (mut simulation, leader) = asleep(90);
    let (term, before) = (simulation.node(leader).raft().term(), simulation.sent_count);
    simulation.run_for(600_000);
    assert_eq!(simulation.sent_count, before, "messages in ten minutes of sleep");
    assert!(
        simulation.nodes.values().all(|node| node.raft.as_ref().is_some_and(|raft| raft.next_deadline().is_none()))
    );
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
    // It wakes for a write as if nothing had been, and goes to sleep again.
    let woken = simulation.now;
    simulation.agree("after", 3);
    assert!(simulation.now < woken + 100, "a sleeping leader takes a proposal at once: {}", simulation.now - woken);
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
    simulation.run_until("sleep", 2000, all_sleep);
}

/// A lease that was forgotten in sleep is no lease.
#[test]
fn read_wakes_the_group_and_waits_for_a_round() {
    let (mut simulation, leader) = asleep(91);
    simulation.run_for(5000);
    let clock = simulation.now;
    assert!(simulation.with_node(leader, |node, _| node.raft().lease_read(clock)).is_none());
    assert!(simulation.read(leader));
    assert_eq!(simulation.reads_served, 0);
    simulation.run_until("read", 100, |simulation| simulation.reads_served == 1);
    assert!(!simulation.node(leader).raft().is_asleep());
    // Reads under the lease that follow tell of nobody but the host.
    for _ in 0..20 {
        simulation.run_for(100);
        simulation.with_node(leader, |node, clock| node.raft().touch(clock));
        assert!(!simulation.node(leader).raft().is_asleep());
    }
    simulation.run_until("sleep", 2000, all_sleep);
    // One that a follower forwards does the same.
    let follower = leader % 3 + 1;
    assert!(simulation.read(follower));
    simulation.run_until("read", 100, |simulation| simulation.reads_served == 2);
}

#[test]
fn woken_from_sleep() {
    let (mut simulation, leader) = asleep(92);
    simulation.crash(leader);
    simulation.run_for(60_000);
    assert_eq!(simulation.leader(), None, "nobody has told the others");
    let told = simulation.now;
    simulation.watch_sleepers(0);
    simulation.run_until("new leader", 2500, |simulation| simulation.leader().is_some());
    simulation.agree("after", 2);
    println!("a leader {} ms after word of the loss", simulation.now - told);
    // With one of three gone the group stays awake: nobody would see it come back.
    simulation.run_for(5000);
    assert!(simulation.nodes.values().all(|node| node.raft.as_ref().is_none_or(|raft| !raft.is_asleep())));
    simulation.restart(leader);
    simulation.run_until("sleep", 10_000, all_sleep);
}

/// A replica that was started again, and hears nothing, wakes the others, but does not depose their leader.
#[test]
fn restarted_follower_does_not_depose_a_sleeping_leader() {
    let (mut simulation, leader) = asleep(93);
    let term = simulation.node(leader).raft().term();
    let follower = leader % 3 + 1;
    simulation.crash(follower);
    simulation.restart(follower);
    simulation.run_for(10_000);
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
    simulation.run_until("sleep", 2000, all_sleep);
}

/// A leader that sleeps on one side of a partition finds out as soon as its host does.
#[test]
fn partitioned_leader_wakes_and_resigns() {
    let (mut simulation, leader) = asleep(94);
    simulation.isolate(leader);
    simulation.run_for(5000);
    simulation.watch_sleepers(0);
    simulation.run_until("new leader", 3000, |simulation| simulation.leader().is_some());
    simulation.run_for(1500);
    assert!(!simulation.node(leader).is_leader(), "it can hear no majority");
    simulation.agree("elsewhere", 2);
    simulation.reconnect(leader);
    simulation.agree("healed", 3);
}

/// The request to sleep reaches one follower late, when the group has long been at work again.
#[test]
fn late_request_to_sleep_is_made_good_by_the_next_heartbeat() {
    let (mut simulation, leader) = asleep(95);
    simulation.agree("awake", 3);
    let follower = leader % 3 + 1;
    let (term, last) = (simulation.node(leader).raft().term(), simulation.node(leader).raft().last_index());
    simulation.with_node(follower, |node, clock| {
        let body = holdfast_raft::MessageBody::Heartbeat { round: 1, commit: last, sleep: true };
        let message = holdfast_raft::Message { from: leader, to: follower, term, body };
        node.raft().step(clock, message).expect("well formed");
        assert!(node.raft().is_asleep());
    });
    simulation.run_for(150);
    assert!(!simulation.node(follower).raft().is_asleep());
}

/// A replica that lacks something, or that its leader knows to lag, keeps the group awake.
#[test]
fn group_stays_awake_while_a_member_lags() {
    let sleepy = |config| Config { sleep_after_ms: Some(400), ..config };
    let mut simulation = Simulation::with(3, 96, Faults::NONE, sleepy);
    let leader = simulation.elect();
    let follower = leader % 3 + 1;
    simulation.isolate(follower);
    simulation.agree("without it", 2);
    simulation.run_for(5000);
    assert!(!simulation.node(leader).raft().is_asleep());
    simulation.reconnect(follower);
    simulation.run_until("sleep", 10_000, all_sleep);
    assert_eq!(simulation.applied_count(simulation.checker.committed_last()), 3);
}
