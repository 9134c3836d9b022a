//! Replicas come and go.

use holdfast_raft::{ConfChange, ConfChangeError, ConfState, ConfStep, ConfTransition, Config};

use crate::network::{Simulation, disk::Disk};

fn change(simulation: &mut Simulation, change: &ConfChange) {
    simulation.run_until("membership change taken", 20_000, |simulation| {
        let Some(leader) = simulation.leader() else { return false };
        match simulation.with_node(leader, |node, _| node.raft().propose_conf_change(change)) {
            Ok(_) => true,
            Err(ConfChangeError::Invalid(what)) => panic!("{what}"),
            Err(_) => false,
        }
    });
}

fn settled(simulation: &mut Simulation, state: &ConfState) {
    simulation.run_until("new membership", 20_000, |simulation| {
        let members = state.members();
        simulation.nodes.values().filter(|node| members.contains(&node.id)).all(|node| node.conf_state == *state)
    });
}

fn join(simulation: &mut Simulation, id: u64) {
    simulation.add(Config::new(id), Disk::empty());
}

#[test]
fn learner_promoted() {
    let mut simulation = Simulation::new(3, 80);
    simulation.agree("before", 3);
    join(&mut simulation, 4);
    change(&mut simulation, &ConfChange::one(ConfStep::AddLearner(4)));
    settled(&mut simulation, &ConfState { learners: vec![4], ..ConfState::of_voters([1, 2, 3]) });
    simulation.agree("with learner", 4);

    // A learner doesn't count: two of three voters and the learner are a majority of nothing.
    let leader = simulation.elect();
    let cut: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cut.iter().for_each(|id| simulation.isolate(*id));
    let (_, index) = simulation.propose(leader, "doomed").expect("it leads");
    simulation.run_for(900);
    assert!(simulation.node(4).disk.log.last() >= index, "the learner has it");
    assert!(!simulation.checker.committed.contains_key(&index), "and yet it isn't committed");
    cut.iter().for_each(|id| simulation.reconnect(*id));

    change(&mut simulation, &ConfChange::one(ConfStep::AddVoter(4)));
    settled(&mut simulation, &ConfState::of_voters([1, 2, 3, 4]));
    let leader = simulation.elect();
    let cut = (1..=3).find(|id| *id != leader).expect("three");
    simulation.isolate(cut);
    simulation.agree("four of whom one is away", 3);
}

#[test]
fn joint_change_replaces_everybody() {
    let mut simulation = Simulation::new(3, 81);
    simulation.agree("before", 3);
    (4..=6).for_each(|id| join(&mut simulation, id));
    let replace = ConfChange {
        transition: ConfTransition::Auto,
        steps: (1..=3).map(ConfStep::Remove).chain((4..=6).map(ConfStep::AddVoter)).collect(),
    };
    change(&mut simulation, &replace);
    settled(&mut simulation, &ConfState::of_voters([4, 5, 6]));
    (1..=3).for_each(|id| simulation.crash(id));
    simulation.agree("without the old ones", 3);
}

/// In a joint membership neither half decides alone.
#[test]
fn joint_change_needs_both_halves() {
    let mut simulation = Simulation::new(3, 82);
    simulation.agree("before", 3);
    (4..=6).for_each(|id| join(&mut simulation, id));
    let replace = ConfChange {
        transition: ConfTransition::JointExplicit,
        steps: (1..=3).map(ConfStep::AddLearner).chain((4..=6).map(ConfStep::AddVoter)).collect(),
    };
    change(&mut simulation, &replace);
    let joint =
        ConfState { voters_outgoing: vec![1, 2, 3], learners_next: vec![1, 2, 3], ..ConfState::of_voters([4, 5, 6]) };
    settled(&mut simulation, &joint);
    simulation.agree("joint", 6);
    let leader = simulation.elect();
    let half: Vec<u64> = if leader <= 3 { vec![1, 2, 3] } else { vec![4, 5, 6] };
    simulation.partition(&half);
    let (_, index) = simulation.propose(leader, "half").expect("it leads");
    simulation.run_for(10_000);
    assert!(!simulation.checker.committed.contains_key(&index), "one half committed alone");
    assert!(simulation.nodes.values().all(|node| !node.is_leader()), "one half elected alone");
    simulation.cut.clear();
    simulation.agree("whole", 6);
    change(&mut simulation, &ConfChange::leave());
    settled(&mut simulation, &ConfState { learners: vec![1, 2, 3], ..ConfState::of_voters([4, 5, 6]) });
    simulation.agree("left", 6);
}

#[test]
fn two_to_one() {
    for remove_leader in [false, true] {
        let mut simulation = Simulation::new(2, 83);
        simulation.agree("before", 2);
        let leader = simulation.elect();
        let gone = if remove_leader { leader } else { 3 - leader };
        change(&mut simulation, &ConfChange::one(ConfStep::Remove(gone)));
        settled(&mut simulation, &ConfState::of_voters([3 - gone]));
        simulation.crash(gone);
        simulation.agree("alone", 1);
        assert_eq!(simulation.leader(), Some(3 - gone));
    }
}

#[test]
fn one_to_two_and_three() {
    let mut simulation = Simulation::new(1, 84);
    simulation.agree("alone", 1);
    for id in 2..=3 {
        join(&mut simulation, id);
        change(&mut simulation, &ConfChange::one(ConfStep::AddLearner(id)));
        simulation.agree("learning", id as usize);
        change(&mut simulation, &ConfChange::one(ConfStep::AddVoter(id)));
        simulation.agree("grown", id as usize);
    }
    simulation.crash(1);
    simulation.agree("without the first", 2);
}

/// Demoted first, then removed; the removed replica goes on asking, and disturbs nobody.
#[test]
fn demote_then_remove() {
    let mut simulation = Simulation::new(3, 85);
    simulation.agree("before", 3);
    let leader = simulation.elect();
    let gone = leader % 3 + 1;
    change(&mut simulation, &ConfChange::one(ConfStep::AddLearner(gone)));
    simulation.agree("demoted", 3);
    // It misses its removal.
    simulation.isolate(gone);
    change(&mut simulation, &ConfChange::one(ConfStep::Remove(gone)));
    simulation.agree("removed", 2);
    let term = simulation.node(leader).raft().term();
    simulation.reconnect(gone);
    simulation.run_for(20_000);
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
}

/// A voter that missed its removal campaigns for ever; the others stay with their leader.
#[test]
fn removed_voter_is_harmless() {
    let mut simulation = Simulation::new(4, 86);
    simulation.agree("before", 4);
    let leader = simulation.elect();
    let gone = leader % 4 + 1;
    simulation.isolate(gone);
    change(&mut simulation, &ConfChange::one(ConfStep::Remove(gone)));
    simulation.agree("removed", 3);
    let term = simulation.node(leader).raft().term();
    simulation.reconnect(gone);
    simulation.run_for(20_000);
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
}

/// Once the leader says that a removal is settled, the removed replica and the leader itself may both be lost: those that stay know.
#[test]
fn settled_removal_outlives_its_leader() {
    for seed in 0..40 {
        let mut simulation = Simulation::new(4, 8600 + seed);
        simulation.agree("before", 4);
        let leader = simulation.elect();
        let gone = leader % 4 + 1;
        simulation.isolate(gone);
        change(&mut simulation, &ConfChange::one(ConfStep::Remove(gone)));
        simulation.run_until("settled", 20_000, |simulation| {
            assert_eq!(simulation.leader(), Some(leader), "seed {seed}: nothing disturbs it");
            let raft = simulation.node(leader).raft();
            raft.is_membership_settled() && !raft.conf_state().contains(gone)
        });
        // What it said last is lost with it.
        simulation.isolate(leader);
        simulation.crash(leader);
        simulation.crash(gone);
        simulation.agree("two of three", 2);
    }
}

/// What follows a change goes to the others, not to the target that was told to campaign: it would lose against their longer logs.
#[test]
fn transfer_waits_for_a_change_of_membership() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(3, 8700 + seed);
        simulation.agree("before", 3);
        join(&mut simulation, 4);
        change(&mut simulation, &ConfChange::one(ConfStep::AddLearner(4)));
        simulation.agree("learning", 4);
        let leader = simulation.elect();
        let term = simulation.node(leader).raft().term();
        let target = leader % 3 + 1;
        simulation.with_node(leader, |node, _| {
            node.raft().propose_conf_change(&ConfChange::one(ConfStep::AddVoter(4))).expect("it leads");
            node.raft().transfer_leader(target).expect("the target has a vote");
        });
        simulation.run_until("handed over", 1000, |simulation| simulation.node(target).is_leader());
        assert_eq!(simulation.node(target).raft().term(), term + 1, "seed {seed}: at the first attempt");
        simulation.agree("after", 4);
    }
}

#[test]
fn one_change_at_a_time() {
    let mut simulation = Simulation::new(3, 87);
    simulation.agree("before", 3);
    let leader = simulation.elect();
    let first = simulation.with_node(leader, |node, _| {
        node.raft().propose_conf_change(&ConfChange::one(ConfStep::AddLearner(8))).expect("nothing is under way");
        node.raft().propose_conf_change(&ConfChange::one(ConfStep::AddLearner(9)))
    });
    assert_eq!(first, Err(ConfChangeError::Pending));
    simulation.run_for(500);
    change(&mut simulation, &ConfChange::one(ConfStep::AddLearner(9)));
    let refused = simulation.with_node(leader, |node, _| node.raft().propose_conf_change(&ConfChange::leave()));
    assert!(matches!(refused, Err(ConfChangeError::Invalid(_) | ConfChangeError::Pending)));
}

/// The only voter took in others and crashed before it noted so in its applied state: it must not go on alone.
#[test]
fn restarted_sole_voter_remembers_its_last_change_but_one() {
    let mut simulation = Simulation::new(1, 88);
    simulation.agree("alone", 1);
    (2..=3).for_each(|id| join(&mut simulation, id));
    let grow =
        ConfChange { transition: ConfTransition::Auto, steps: vec![ConfStep::AddVoter(2), ConfStep::AddVoter(3)] };
    change(&mut simulation, &grow);
    settled(&mut simulation, &ConfState::of_voters([1, 2, 3]));
    simulation.crash(1);

    simulation.agree("two of three", 2);
    simulation.partition(&[1]);
    simulation.restart(1);
    simulation.with_node(1, |node, _| node.raft().campaign());
    simulation.run_for(20_000);
    assert!(!simulation.node(1).is_leader(), "it went on alone");
    simulation.cut.clear();
    simulation.agree("together", 3);
}
