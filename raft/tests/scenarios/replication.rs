//! Entries reach everybody, once, in order, and only what a majority has is committed.

use holdfast_raft::{Config, EntryKind, Message, MessageBody, ProposeError};

use super::vote_reply;
use crate::network::{Faults, Simulation, disk::Disk, node::Node};

#[test]
fn basic_agree() {
    let mut simulation = Simulation::new(3, 30);
    simulation.elect();
    simulation.run_for(100);
    let first = simulation.checker.committed_last() + 1;
    for number in 0..3 {
        assert_eq!(simulation.agree(&format!("{number}"), 3), first + number, "indexes are exact");
    }
    assert_eq!(simulation.checker.values(), ["0", "1", "2"]);
}

#[test]
fn concurrent_proposals_get_distinct_indexes() {
    let mut simulation = Simulation::new(3, 31);
    let leader = simulation.elect();
    let places: Vec<(u64, u64)> =
        (0..5).map(|number| simulation.propose(leader, &format!("{number}")).expect("it leads")).collect();
    for (number, (term, index)) in places.iter().enumerate() {
        simulation.run_until("commit", 2000, |simulation| simulation.applied_count(*index) == 3);
        let entry = &simulation.checker.committed[index];
        assert_eq!((entry.term, &entry.payload[..]), (*term, number.to_string().as_bytes()));
    }
}

/// Each peer gets each command once.
#[test]
fn rpc_bytes() {
    let mut simulation = Simulation::new(3, 32);
    simulation.elect();
    simulation.agree("first", 3);
    let before = simulation.sent_bytes;
    let value = "x".repeat(5000);
    for _ in 0..10 {
        simulation.agree(&value, 3);
    }
    let sent = simulation.sent_bytes - before;
    assert!(sent >= 2 * 50_000, "both peers got everything");
    assert!(sent <= 3 * 50_000 + 50_000, "{sent} bytes");
}

#[test]
fn ten_entries_stay_within_the_message_count() {
    let mut simulation = Simulation::new(3, 33);
    let leader = simulation.elect();
    simulation.agree("first", 3);
    let before = simulation.sent_count;
    let mut last = 0;
    for number in 0..10 {
        last = simulation.propose(leader, &format!("{number}")).expect("it leads").1;
    }
    simulation.run_until("commit", 1000, |simulation| simulation.applied_count(last) == 3);
    let sent = simulation.sent_count - before;
    assert!(sent <= 60, "{sent} messages for 10 entries, each proposed in a turn of its own");
}

#[test]
fn fail_agree() {
    let mut simulation = Simulation::new(3, 34);
    let leader = simulation.elect();
    simulation.agree("101", 3);
    let cut = leader % 3 + 1;
    simulation.isolate(cut);
    for value in ["102", "103", "104", "105"] {
        simulation.agree(value, 2);
    }
    simulation.reconnect(cut);
    simulation.agree("106", 3);
    assert_eq!(simulation.checker.values(), ["101", "102", "103", "104", "105", "106"]);
}

#[test]
fn fail_no_agree() {
    let mut simulation = Simulation::new(5, 35);
    let leader = simulation.elect();
    simulation.agree("10", 5);
    let cut: Vec<u64> = (1..=3).map(|step| (leader - 1 + step) % 5 + 1).collect();
    cut.iter().for_each(|id| simulation.isolate(*id));
    let (term, index) = simulation.propose(leader, "20").expect("it leads still");
    simulation.run_for(3000);
    assert!(!simulation.checker.committed.contains_key(&index), "committed without a majority");
    simulation.cut.clear();
    simulation.agree("30", 5);
    // The positive control: with its majority back the group goes on, whether 20 survived or not.
    let entry = &simulation.checker.committed[&index];
    assert!(entry.term != term || &entry.payload[..] == b"20");
}

#[test]
fn followers_then_leader_fail() {
    let mut simulation = Simulation::new(3, 36);
    for round in 0..2 {
        let leader = simulation.elect();
        simulation.agree(&format!("{round}"), 3);
        simulation.isolate(leader);
        simulation.agree(&format!("{round} without {leader}"), 2);
        simulation.reconnect(leader);
    }
    simulation.agree("end", 3);
}

#[test]
fn rejoin_of_a_partitioned_leader() {
    let mut simulation = Simulation::new(3, 37);
    let first = simulation.elect();
    simulation.agree("101", 3);
    simulation.isolate(first);
    for doomed in ["102", "103", "104"] {
        simulation.propose(first, doomed).expect("it still leads");
    }
    simulation.agree("203", 2);
    let second = simulation.leader().expect("agreed");
    simulation.isolate(second);
    simulation.reconnect(first);
    simulation.cut.retain(|(from, to)| *from == second || *to == second);
    simulation.agree("304", 2);
    simulation.reconnect(second);
    simulation.agree("405", 3);
    assert_eq!(simulation.checker.values(), ["101", "203", "304", "405"]);
}

/// Old leaders return with fifty doomed entries each: those go, and it takes few messages to find where the logs part.
#[test]
fn backup_over_doomed_entries() {
    let mut simulation = Simulation::new(5, 38);
    simulation.agree("first", 5);
    let first = simulation.elect();
    let others: Vec<u64> = (1..=5).filter(|id| *id != first).collect();
    // The leader with one follower: nothing it takes is committed.
    simulation.partition(&[first, others[0]]);
    for doomed in 0..50 {
        simulation.propose(first, &format!("doomed {doomed}"));
    }
    simulation.run_until("leader of the rest", 10_000, |simulation| {
        others[1..].iter().any(|id| simulation.node(*id).is_leader())
    });
    for number in 0..50 {
        let leader = *others[1..].iter().find(|id| simulation.nodes[id].is_leader()).expect("just seen");
        simulation.propose(leader, &format!("kept {number}"));
    }
    simulation.run_for(500);
    simulation.cut.clear();
    let before = simulation.sent_count;
    simulation.agree("last", 5);
    assert!(simulation.sent_count - before < 200, "{} messages to converge", simulation.sent_count - before);
    let values = simulation.checker.values();
    assert_eq!((values.len(), values.last().map(String::as_str)), (52, Some("last")));
    assert!(values.iter().all(|value| !value.starts_with("doomed")));
}

/// A message of an old term that acknowledges an entry which was since overwritten isn't counted.
#[test]
fn append_ack_aba() {
    let mut node = Node::new(Config { pre_vote: false, ..Config::new(1) }, Disk::founder(&[1, 2, 3]));
    node.start(0);
    let drain = |node: &mut Node| {
        while node.raft().has_ready() {
            let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
            node.writes.extend(raft.ready(log).expect("readable").write);
        }
    };
    let lead = |node: &mut Node, now: u64| {
        node.raft().tick(now);
        drain(node);
        node.persist(u64::MAX, |_| {});
        let term = node.raft().term();
        let granted = Message { from: 2, to: 1, term, body: vote_reply(true) };
        node.raft().step(now, granted).expect("in order");
        assert!(node.is_leader());
        term
    };
    let old_term = lead(&mut node, 5000);
    // The write of this term's first entry hangs; another leader overwrites the entry, then this one leads again.
    drain(&mut node);
    let append = Message {
        from: 3,
        to: 1,
        term: old_term + 1,
        body: MessageBody::Append {
            previous_index: 1,
            previous_term: 1,
            commit: 1,
            entries: vec![holdfast_raft::Entry {
                term: old_term + 1,
                index: 2,
                kind: EntryKind::Noop,
                payload: bytes::Bytes::new(),
            }],
        },
    };
    node.raft().step(5001, append).expect("in order");
    drain(&mut node);
    assert_eq!(node.raft().status().persisted, 1);
    // The late report of the first write says nothing about the entry that took its entry's place.
    node.persist(node.writes[0].sequence, |_| {});
    assert_eq!(node.raft().status().persisted, 1);
    node.persist(u64::MAX, |_| {});
    assert_eq!(node.raft().status().persisted, 2);

    let new_term = lead(&mut node, 20_000);
    let late = Message { from: 2, to: 1, term: old_term, body: MessageBody::AppendAccepted { index: 2 } };
    node.raft().step(20_001, late).expect("late, not wrong");
    drain(&mut node);
    node.persist(u64::MAX, |_| {});
    assert_eq!(node.raft().commit_index(), 1);
    // The positive control: an acknowledgement of this term counts.
    let ack = Message { from: 2, to: 1, term: new_term, body: MessageBody::AppendAccepted { index: 3 } };
    node.raft().step(20_002, ack).expect("in order");
    assert_eq!(node.raft().commit_index(), 3);
}

/// The scene of figure 8 of the Raft paper: an old term's entry on a majority is not committed by that.
#[test]
fn earlier_terms_are_not_committed_by_counting() {
    let mut disk = Disk::founder(&[1, 2, 3, 4, 5]);
    disk.hard_state.term = 2;
    disk.log.write(&[holdfast_raft::Entry { term: 2, index: 2, kind: EntryKind::Normal, payload: "old".into() }]);
    let mut node = Node::new(Config { pre_vote: false, ..Config::new(1) }, disk);
    node.start(0);
    let drain = |node: &mut Node| {
        while node.raft().has_ready() {
            let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
            node.writes.extend(raft.ready(log).expect("readable").write);
        }
        node.persist(u64::MAX, |_| {});
    };
    node.raft().tick(5000);
    drain(&mut node);
    let from = |from, body| Message { from, to: 1, term: 3, body };
    for voter in [2, 3] {
        node.raft().step(5000, from(voter, vote_reply(true))).expect("in order");
    }
    assert!(node.is_leader());
    drain(&mut node);
    for voter in [2, 3] {
        node.raft().step(5000, from(voter, MessageBody::AppendAccepted { index: 2 })).expect("in order");
    }
    assert_eq!(node.raft().commit_index(), 1, "three of five have entry 2, but it is of term 2");
    for voter in [2, 3] {
        node.raft().step(5000, from(voter, MessageBody::AppendAccepted { index: 3 })).expect("in order");
    }
    assert_eq!(node.raft().commit_index(), 3);
}

#[test]
fn figure8() {
    figure8_with(39, Faults::NONE, 1000);
}

#[test]
fn figure8_unreliable() {
    figure8_with(40, Faults::REORDERING, 1000);
}

fn figure8_with(seed: u64, faults: Faults, iterations: u64) {
    let mut simulation = Simulation::with(5, seed, faults, |config| config);
    let mut up = 5;
    for iteration in 0..iterations {
        for id in 1..=5 {
            simulation.propose(id, &format!("{iteration}"));
        }
        let wait = if simulation.draw(10) == 0 { simulation.draw(500) } else { simulation.draw(13) };
        simulation.run_for(wait);
        let leader = (1..=5).find(|id| simulation.nodes[id].is_leader());
        if let Some(leader) = leader
            && (faults.late_percent == 0 || simulation.draw(4) == 0)
        {
            simulation.crash(leader);
            up -= 1;
        }
        if up < 3 {
            let down: Vec<u64> = (1..=5).filter(|id| !simulation.is_up(*id)).collect();
            let id = down[simulation.draw(down.len() as u64) as usize];
            simulation.restart(id);
            up += 1;
        }
    }
    for id in 1..=5 {
        if !simulation.is_up(id) {
            simulation.restart(id);
        }
    }
    simulation.faults = Faults::NONE;
    simulation.agree("end", 5);
}

/// Clients while servers are cut, crashed and restarted: what a client saw commit is in the final log.
#[test]
fn reliable_churn() {
    churn(41, Faults::NONE);
}

#[test]
fn unreliable_churn() {
    churn(42, Faults::UNRELIABLE);
}

fn churn(seed: u64, faults: Faults) {
    let mut simulation = Simulation::with(5, seed, faults, |config| config);
    let mut waiting: Vec<(u64, u64, String)> = Vec::new();
    let mut seen = Vec::new();
    for step in 0..600u64 {
        for id in 1..=5 {
            let value = format!("{step} at {id}");
            if let Some((term, index)) = simulation.propose(id, &value) {
                waiting.push((term, index, value));
            }
        }
        let id = simulation.draw(5) + 1;
        let down = (1..=5).filter(|id| !simulation.is_up(*id) || simulation.is_isolated(*id)).count();
        match simulation.draw(60) {
            0 if down < 2 => simulation.isolate(id),
            1 | 2 => simulation.reconnect(id),
            3 if simulation.is_up(id) && down < 2 => simulation.crash(id),
            4 | 5 if !simulation.is_up(id) => simulation.restart(id),
            _ => {}
        }
        simulation.run_for(70);
        waiting.retain(|(term, index, value)| match simulation.checker.committed.get(index) {
            Some(entry) if entry.term == *term => {
                seen.push(value.clone());
                false
            }
            Some(_) => false,
            None => true,
        });
    }
    simulation.cut.clear();
    for id in 1..=5 {
        if !simulation.is_up(id) {
            simulation.restart(id);
        }
    }
    simulation.agree("end", 5);
    let values: std::collections::HashSet<String> = simulation.checker.values().into_iter().collect();
    assert!(seen.len() > 30, "only {} values were committed", seen.len());
    assert!(seen.iter().all(|value| values.contains(value)));
}

/// A leader whose disk hangs resigns, though its heartbeats flow, and doesn't come back while the disk hangs.
#[test]
fn leader_disk_stall() {
    let mut simulation = Simulation::new(3, 43);
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.stalled.insert(leader);
    simulation.propose(leader, "during").expect("it still leads");
    simulation.run_for(4000);
    assert!(simulation.node(leader).is_leader(), "a short stall is nothing");
    simulation.run_until("another leader", 12_000, |simulation| simulation.leader().is_some_and(|id| id != leader));
    simulation.agree("after", 2);
    simulation.run_for(20_000);
    assert_ne!(simulation.leader(), Some(leader));
    simulation.unstall(leader);
    simulation.agree("healed", 3);
}

/// The leader's write and its followers' run side by side: a slow leader disk doesn't hold back the commit.
#[test]
fn followers_commit_without_the_leaders_disk() {
    let mut simulation = Simulation::new(3, 44);
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.stalled.insert(leader);
    let (_, index) = simulation.propose(leader, "during").expect("it leads");
    simulation.run_until("commit by the followers", 100, |simulation| simulation.applied_count(index) == 2);
    assert!(simulation.node(leader).applied < index, "a replica applies only what is on its own disk");
    simulation.unstall(leader);
    simulation.run_until("apply at the leader", 200, |simulation| simulation.applied_count(index) == 3);
}

/// A follower at a hundredth of the speed: what is in flight to it stays bounded, the others don't wait, it gets there.
#[test]
fn slow_follower() {
    let mut simulation = Simulation::with(3, 45, Faults::NONE, |config| Config {
        inflight_appends_max: 8,
        inflight_bytes_max: 32 << 10,
        tail_bytes_max: 64 << 10,
        append_bytes_max: 8 << 10,
        ..config
    });
    let leader = simulation.elect();
    simulation.agree("before", 3);
    let slow = leader % 3 + 1;
    simulation.slow.insert(slow, 100);
    let value = "x".repeat(1000);
    let mut last = 0;
    for round in 0..500 {
        last = simulation.propose(leader, &value).expect("it leads").1;
        simulation.run_for(3);
        if round % 50 == 49 {
            simulation.node(leader).checkpoint(10);
        }
        let status = simulation.node(leader).raft().status();
        for peer in &status.peers {
            assert!(peer.inflight_appends <= 8 && peer.inflight_bytes <= 40 << 10, "{peer:?}");
        }
        assert!(status.tail_bytes <= 80 << 10, "{} bytes of tail", status.tail_bytes);
    }
    simulation.run_until("the others", 300, |simulation| simulation.applied_count(last) >= 2);
    simulation.run_until("the slow one", 120_000, |simulation| simulation.applied_count(last) == 3);
}

#[test]
fn uncommitted_bytes_are_bounded() {
    let mut simulation =
        Simulation::with(3, 46, Faults::NONE, |config| Config { uncommitted_bytes_max: 10_000, ..config });
    let leader = simulation.elect();
    simulation.agree("before", 3);
    simulation.isolate(leader);
    let payload = bytes::Bytes::from(vec![0; 4000]);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        let payload = payload.clone();
        outcomes.push(simulation.with_node(leader, |node, _| node.raft().propose(payload)).err());
    }
    let full = Some(ProposeError::TooMuchUncommitted);
    assert_eq!(outcomes, [None, None, full, full]);
    simulation.reconnect(leader);
    simulation.run_until("room", 1000, |simulation| {
        let payload = payload.clone();
        simulation.with_node(leader, |node, _| node.raft().propose(payload)).is_ok()
    });
}

/// A host that is slow to apply isn't given more and more.
#[test]
fn unapplied_bytes_are_bounded() {
    let mut node =
        Node::new(Config { unapplied_bytes_max: 3000, tail_bytes_max: 0, ..Config::new(1) }, Disk::founder(&[1]));
    node.apply_held = true;
    node.start(0);
    let mut checker = crate::network::checker::Checker::default();
    node.raft().campaign();
    node.pump(&mut checker, |_| {});
    node.persist(u64::MAX, |_| {});
    for _ in 0..20 {
        node.raft().propose(vec![0; 1000].into()).expect("it leads");
    }
    node.pump(&mut checker, |_| {});
    node.persist(u64::MAX, |_| {});
    node.pump(&mut checker, |_| {});
    assert_eq!(node.raft().commit_index(), 22);
    assert!((3..=6).contains(&node.applied), "{} handed out", node.applied);
    // What isn't handed out needn't stay in memory either: it is read back.
    assert_eq!(node.raft().status().tail_bytes, 0);
    while node.applied < 22 {
        let applied = node.applied;
        node.raft().applied(applied);
        node.pump(&mut checker, |_| {});
        assert!(node.applied > applied);
    }
}

/// A group of one: proposed, stored, committed, in three calls.
#[test]
fn sole_voter_commits_what_is_stored() {
    let mut node = Node::new(Config::new(1), Disk::founder(&[1]));
    node.start(0);
    let mut checker = crate::network::checker::Checker::default();
    node.raft().campaign();
    node.pump(&mut checker, |_| {});
    node.persist(u64::MAX, |_| {});
    node.pump(&mut checker, |_| {});
    node.persist(u64::MAX, |_| {});
    node.pump(&mut checker, |_| {});
    let (term, index) = node.raft().propose("value".into()).expect("it leads");
    let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
    let ready = raft.ready(log).expect("readable");
    let write = ready.write.expect("the entry is to be stored");
    assert_eq!((write.entries.len(), write.must_sync, ready.committed.len()), (1, false, 0));
    assert!(!raft.has_ready());
    node.disk.write(&write);
    let (raft, log) = (node.raft.as_mut().expect("runs"), &node.disk.log);
    raft.persisted(write.sequence);
    let ready = raft.ready(log).expect("readable");
    assert_eq!((ready.committed[0].term, ready.committed[0].index), (term, index));
    assert_eq!((ready.write, ready.messages.len()), (None, 0), "a new commit index alone is not written");
    assert!(!raft.has_ready());
}
