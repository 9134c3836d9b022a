//! Who leads, and who doesn't.

use holdfast_raft::{Config, Message, MessageBody, Raft, Role};

use super::vote_reply;
use crate::network::{Faults, Simulation, disk::Disk, node::Node};

#[test]
fn initial_election() {
    let mut simulation = Simulation::new(3, 1);
    let leader = simulation.elect();
    let term = simulation.node(leader).raft().term();
    simulation.run_for(2000);
    for id in 1..=3 {
        let state = simulation.node(id).raft().role_state();
        assert_eq!((state.term, state.leader), (term, Some(leader)));
    }
}

#[test]
fn re_election() {
    let mut simulation = Simulation::new(3, 2);
    let first = simulation.elect();
    simulation.isolate(first);
    simulation.run_until("new leader", 10_000, |simulation| simulation.leader().is_some_and(|id| id != first));
    let second = simulation.leader().expect("just seen");
    let term = simulation.node(second).raft().term();
    simulation.run_for(5000);
    assert!(!simulation.node(first).is_leader(), "a leader without a quorum resigns");

    // The old leader comes back and disturbs nobody.
    simulation.reconnect(first);
    simulation.run_for(5000);
    assert_eq!(simulation.leader(), Some(second));
    assert_eq!(simulation.node(second).raft().term(), term);

    // Without a quorum nobody leads.
    simulation.isolate(second);
    simulation.isolate(first);
    simulation.run_for(5000);
    assert!((1..=3).all(|id| !simulation.node(id).is_leader()));

    simulation.cut.clear();
    simulation.elect();
}

#[test]
fn many_elections() {
    let mut simulation = Simulation::new(7, 3);
    simulation.elect();
    for round in 0..9 {
        let cut: Vec<u64> = (0..3).map(|place| (round * 3 + place * 2) % 7 + 1).collect();
        cut.iter().for_each(|id| simulation.isolate(*id));
        simulation.run_for(3000);
        let leader = simulation.elect();
        assert!(!cut.contains(&leader));
        cut.iter().for_each(|id| simulation.reconnect(*id));
    }
    simulation.agree("end", 7);
}

#[test]
fn election_and_idle_stay_within_the_message_counts() {
    let mut simulation = Simulation::new(3, 4);
    simulation.elect();
    assert!(simulation.sent_count <= 30, "{} messages to elect", simulation.sent_count);
    simulation.run_for(1000);
    let before = simulation.sent_count;
    simulation.run_for(1000);
    let idle = simulation.sent_count - before;
    assert!((20..=60).contains(&idle), "{idle} messages in an idle second");
}

#[test]
fn one_way_partition_does_not_disturb() {
    let mut simulation = Simulation::new(3, 5);
    let leader = simulation.elect();
    let term = simulation.node(leader).raft().term();
    // A follower that hears nobody but can speak.
    let deaf = leader % 3 + 1;
    for from in 1..=3 {
        simulation.cut.insert((from, deaf));
    }
    simulation.run_for(10_000);
    assert_eq!((simulation.leader(), simulation.node(leader).raft().term()), (Some(leader), term));
}

#[test]
fn leader_that_hears_nobody_resigns() {
    let mut simulation = Simulation::new(3, 6);
    let leader = simulation.elect();
    for from in 1..=3 {
        simulation.cut.insert((from, leader));
    }
    simulation.run_for(2500);
    assert!(!simulation.node(leader).is_leader(), "its own heartbeats must not keep it in office");
    simulation.run_until("another leader", 10_000, |simulation| {
        simulation.nodes.values().any(|node| node.id != leader && node.is_leader())
    });
}

/// With some replicas that ask before they campaign and some that don't, the group is never without a leader for good.
#[test]
fn pre_vote_rolling_enable() {
    for seed in 10..20 {
        let mut simulation = Simulation::with(5, seed, Faults::NONE, |config| {
            let pre_vote = config.id % 2 == 0;
            Config { pre_vote, ..config }
        });
        simulation.elect();
        for round in 0..5 {
            let id = round % 5 + 1;
            simulation.isolate(id);
            simulation.run_for(4000);
            simulation.agree("apart", 4);
            simulation.reconnect(id);
            simulation.agree("together", 5);
            // This one is upgraded.
            simulation.crash(id);
            simulation.node(id).config.pre_vote = true;
            simulation.restart(id);
        }
    }
}

/// A replica with a longer log of an older term and one with a shorter log of a newer term: one of them gets to lead.
#[test]
fn longer_old_log_against_shorter_new_one() {
    let mut simulation = Simulation::new(3, 21);
    let first = simulation.elect();
    simulation.agree("base", 3);
    simulation.isolate(first);
    for doomed in 0..20 {
        simulation.propose(first, &format!("doomed {doomed}"));
    }
    let second = {
        simulation.run_until("new leader", 10_000, |simulation| simulation.leader().is_some_and(|id| id != first));
        simulation.leader().expect("just seen")
    };
    simulation.agree("newer", 2);
    let third = 6 - first - second;
    simulation.reconnect(first);
    simulation.isolate(second);
    let leader = {
        simulation.run_until("leader", 10_000, |simulation| simulation.leader().is_some());
        simulation.leader().expect("just seen")
    };
    assert_eq!(leader, third, "only the replica with the committed entry can lead");
}

fn hand_made(id: u64) -> Node {
    let mut node = Node::new(Config { pre_vote: false, ..Config::new(id) }, Disk::founder(&[1, 2, 3]));
    node.start(0);
    node
}

fn vote_request(from: u64, to: u64, term: u64) -> Message {
    let body = MessageBody::Vote { last_index: 9, last_term: 1, transfer: false };
    Message { from, to, term, body }
}

fn outputs(node: &mut Node) -> Vec<Message> {
    let mut ready = Vec::new();
    while node.raft().has_ready() {
        let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
        let next = raft.ready(log).expect("the log can be read");
        node.writes.extend(next.write);
        ready.extend(next.messages);
    }
    ready
}

/// A vote that was not stored was not given: after a crash before the sync, the vote may go to somebody else, because
/// nobody was told of the first.
#[test]
fn vote_then_crash() {
    let mut node = hand_made(1);
    node.raft().step(5000, vote_request(2, 1, 2)).expect("in order");
    assert_eq!(outputs(&mut node), [], "nothing is said before it is stored");
    node.crash(0);
    node.start(10_000);
    node.raft().step(20_000, vote_request(3, 1, 2)).expect("in order");
    assert_eq!(outputs(&mut node), []);
    node.persist(u64::MAX, |_| {});
    let said = outputs(&mut node);
    assert_eq!((said.len(), said[0].to, &said[0].body), (1, 3, &vote_reply(true)));

    // Now it is stored: nobody else gets the vote of this term, not even after a crash.
    node.crash(0);
    node.start(30_000);
    node.raft().step(40_000, vote_request(2, 1, 2)).expect("in order");
    let said = outputs(&mut node);
    assert_eq!((said.len(), &said[0].body), (1, &vote_reply(false)));
}

#[test]
fn own_vote_counts_once_stored() {
    let mut node = hand_made(1);
    node.raft().tick(5000);
    assert_eq!(node.raft().role_state().role, Role::Candidate);
    assert_eq!(outputs(&mut node), [], "asking for votes waits for the disk");
    let granted = Message { from: 2, to: 1, term: 2, body: vote_reply(true) };
    node.raft().step(5001, granted).expect("in order");
    assert_eq!(node.raft().role_state().role, Role::Candidate, "one stored vote of three is no majority");
    outputs(&mut node);
    node.persist(u64::MAX, |_| {});
    assert_eq!(node.raft().role_state().role, Role::Leader);
}

/// A replica that was restarted may have confirmed a leader's lease just before: it gives no vote for a while.
#[test]
fn restarted_replica_holds_back_its_vote() {
    let mut node = hand_made(1);
    node.raft().step(999, vote_request(2, 1, 2)).expect("in order");
    assert_eq!((outputs(&mut node), node.writes.len()), (vec![], 0));
    node.raft().step(1000, vote_request(2, 1, 2)).expect("in order");
    outputs(&mut node);
    assert_eq!(node.writes.len(), 1);
}

#[test]
fn sole_voter_leads_at_once() {
    let mut node = Node::new(Config::new(1), Disk::founder(&[1]));
    node.start(0);
    assert!(node.raft().campaign());
    outputs(&mut node);
    node.persist(u64::MAX, |_| {});
    assert!(node.is_leader());
    assert!(node.raft().next_deadline().is_none(), "an idle group of one costs nothing");
    outputs(&mut node);
    assert_eq!(node.raft().lease_read(0), None, "nothing of this term is committed yet");
    node.persist(u64::MAX, |_| {});
    assert_eq!(node.raft().lease_read(0), Some(2));
}

#[test]
fn hostile_messages_are_refused() {
    let mut node = hand_made(1);
    let mut refused = |message: Message| {
        let status = node.raft().status();
        node.raft().step(2000, message.clone()).expect_err("no correct replica sends this");
        assert_eq!(node.raft().status(), status, "{message:?} left a trace");
    };
    let body = MessageBody::TimeoutNow;
    refused(Message { from: 2, to: 3, term: 2, body: body.clone() });
    refused(Message { from: 1, to: 1, term: 2, body: body.clone() });
    refused(Message { from: 0, to: 1, term: 2, body: body.clone() });
    refused(Message { from: 2, to: 1, term: 0, body: body.clone() });
    refused(Message { from: 2, to: 1, term: u64::MAX, body });
    let entry = |index, term| holdfast_raft::Entry {
        index,
        term,
        kind: holdfast_raft::EntryKind::Normal,
        payload: bytes::Bytes::new(),
    };
    let append = |previous_index, entries| Message {
        from: 2,
        to: 1,
        term: 2,
        body: MessageBody::Append { previous_index, previous_term: 1, commit: u64::MAX, entries },
    };
    refused(append(1, vec![entry(3, 2)]));
    refused(append(1, vec![entry(2, 2), entry(3, 1)]));
    refused(append(1, vec![entry(2, 3)]));
    refused(append(u64::MAX, vec![]));
    let bad = holdfast_raft::Entry { kind: holdfast_raft::EntryKind::ConfChange, ..entry(2, 2) };
    refused(append(1, vec![bad]));

    // A second leader of one term, and a log that contradicts what is committed.
    let raft: &mut Raft = node.raft();
    raft.step(2000, append(1, vec![entry(2, 2)])).expect("in order");
    assert_eq!(raft.commit_index(), 2);
    let other = Message { from: 3, ..append(1, vec![]) };
    assert!(matches!(raft.step(2000, other), Err(holdfast_raft::StepError::TwoLeaders { .. })));
    let forged = Message {
        term: 3,
        body: MessageBody::Append { previous_index: 1, previous_term: 1, commit: 0, entries: vec![entry(2, 3)] },
        ..append(1, vec![])
    };
    assert!(matches!(raft.step(2000, forged), Err(holdfast_raft::StepError::Diverged { index: 2, .. })));
}
