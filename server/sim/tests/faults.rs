//! What Jepsen found in systems like this one, one script each over whole nodes: classes of bugs by their letter in the catalogue (J).
//!
//! Those of them that are about clients, sockets and processes are tested elsewhere; `docs/src/testing.md` says where.

mod common;

use std::collections::BTreeMap;

use common::{assert_clean, own_appends_are_there_once_and_in_order, text};
use holdfast_client::Value;
use holdfast_sim::network::NetworkWeather;
use holdfast_sim::plan::{Crash, Fault};
use holdfast_sim::script::Script;
use holdfast_sim::time::{MILLISECOND, Micros, SECOND};
use holdfast_sim::workload::KeyKind;
use holdfast_sim::world::{Asked, Heard, Stage};

/// Logs so short that a few hundred entries need a snapshot.
const SHORT_LOG: u64 = 32 << 10;

/// Clients that share keys of all kinds.
fn shared(seed: u64, nodes: u32, clients: u32) -> Script {
    let keys = [(KeyKind::Register, 2), (KeyKind::Counter, 1), (KeyKind::Log, 1), (KeyKind::Pair, 1)];
    Script::new(seed, nodes).clients(clients).keys(keys).think(50 * MILLISECOND)
}

fn any_node(stage: &mut Stage<'_, '_>) -> u32 {
    let nodes = u64::from(stage.nodes());
    stage.random().range(1..=nodes) as u32
}

fn any_follower(stage: &mut Stage<'_, '_>) -> u32 {
    let leader = stage.wait_for_leader();
    let others = stage.others(leader);
    *stage.random().choose(&others).unwrap_or(&leader)
}

/// Time goes on until clients get answers again; says how long that took.
#[track_caller]
fn time_to_answers(stage: &mut Stage<'_, '_>, longest: Micros) -> Micros {
    let (begin, before) = (stage.now(), stage.counts().answered);
    stage.run_until(longest, "answers", |stage| stage.counts().answered >= before + 5) - begin
}

/// Appends of the script's own: unique pieces of more than a sector, sent once each, and what became of them.
#[derive(Debug, Default)]
struct Appends {
    asked: Vec<(u32, Asked)>,
}

/// How often what a client heard was so.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Outcomes {
    answered: usize,
    refused: usize,
    unknown: usize,
    /// Of unknown outcome, and there.
    unknown_there: usize,
}

impl Appends {
    fn ask(&mut self, stage: &mut Stage<'_, '_>, node: u32) {
        let number = self.asked.len() as u32 + 1;
        let asked = stage.ask(node, &["APPEND", "appended", &format!("{number:0600};")]);
        self.asked.push((number, asked));
    }

    /// What was answered is there once, what was refused is not, and what is unknown is there at most once.
    #[track_caller]
    fn judge(&self, stage: &mut Stage<'_, '_>) -> Outcomes {
        let read = match stage.call(&["GET", "appended"]) {
            Value::Null => String::new(),
            value => text(&value),
        };
        let mut times: BTreeMap<u32, usize> = BTreeMap::new();
        for piece in read.split_terminator(';') {
            *times.entry(piece.parse().expect("only numbers were appended")).or_default() += 1;
        }
        let mut outcomes = Outcomes::default();
        for (number, asked) in &self.asked {
            let times = times.get(number).copied().unwrap_or(0);
            match stage.heard(*asked).map(|(_, heard)| heard) {
                Some(heard) if heard.is_refusal() => {
                    assert_eq!(times, 0, "{number} was refused with {heard:?}, and is there");
                    outcomes.refused += 1;
                }
                Some(heard) if heard.success().is_some() => {
                    assert_eq!(times, 1, "{number} was answered with {heard:?}, and is there {times} times");
                    outcomes.answered += 1;
                }
                None | Some(Heard::Lost(_)) => {
                    assert!(times <= 1, "{number} is there {times} times");
                    outcomes.unknown += 1;
                    outcomes.unknown_there += times;
                }
                Some(heard) => panic!("{number} was answered with {heard:?}"),
            }
        }
        outcomes
    }
}

/// J5, J6: members are added, removed and replaced while nodes die, pause and lose sight of each other.
#[test]
fn members_come_and_go_while_the_cluster_falls_apart() {
    for seed in 0..3 {
        let report = shared(seed, 5, 5).log_bytes(SHORT_LOG).play(|stage| {
            for round in 0..16 {
                match round % 4 {
                    0 => stage.split_at_random(),
                    1 => {
                        let node = any_node(stage);
                        stage.inflict(Fault::Pause { node });
                        stage.run_for(SECOND);
                        stage.inflict(Fault::Resume { node });
                    }
                    2 => {
                        let node = any_node(stage);
                        stage.crash(node, if round % 8 == 2 { Crash::Kill } else { Crash::PowerCut });
                        stage.run_for(SECOND);
                        stage.restart(node);
                    }
                    _ => stage.heal(),
                }
                let node = any_node(stage);
                stage.inflict(if round % 2 == 0 { Fault::Remove { node } } else { Fault::Wipe { node } });
                stage.run_for(2 * SECOND);
            }
        });
        assert_clean(&report);
        let marks = &report.summary.marks;
        // Four joins at the beginning, and each later member's joining and being given a vote.
        assert!(marks.count("members taken out") >= 4 && marks.count("membership changes") > 16, "{marks}");
        assert!(report.summary.elections > 3, "{}", report.summary.elections);
    }
}

/// J6: a node that was down while it was removed comes back with its old disk, at each distance from the removal: it disturbs nobody, is no
/// member, and becomes one again only with an empty disk.
#[test]
fn removed_node_returns_with_old_data() {
    for (seed, wait) in [(1, 0), (2, 30), (3, 100), (4, 1000)] {
        let report = shared(seed, 5, 3).play(|stage| {
            let node = any_follower(stage);
            let old = stage.member(node).unwrap_or_default();
            stage.crash(node, Crash::Kill);
            stage.inflict(Fault::Remove { node });
            stage.run_until(10 * SECOND, "a membership without the node", |stage| !stage.members().contains(&old));
            stage.run_for(wait * MILLISECOND);
            let leader = stage.wait_for_leader();
            let term = stage.term(leader);
            stage.restart(node);
            let mut returned = 0;
            stage.run_until(15 * SECOND, "the node's new place", |stage| {
                returned += u64::from(stage.is_up(node) && stage.member(node) == Some(old));
                stage.member(node).is_some_and(|new| new != old) && stage.members().len() == 5
            });
            assert!(returned > 0 || wait > 0, "it never ran as what it was");
            assert!(!stage.members().contains(&old));
            assert_eq!((stage.leader(), stage.term(leader)), (Some(leader), term), "it disturbed the others");
            stage.wait_until_whole();
        });
        assert_clean(&report);
    }
}

/// J7, J8: snapshots every few hundred entries; a follower that needs one is killed a little later each time, and the leader now and then:
/// in the middle of receiving, of writing, of putting in place, of cutting the log, of starting.
#[test]
fn snapshots_are_put_in_place_by_nodes_that_die_at_every_step() {
    let mut script = shared(7, 3, 5).log_bytes(SHORT_LOG).think(10 * MILLISECOND);
    script.settings.chunk_bytes = 2 << 10;
    script.settings.install_us = 20 * MILLISECOND..=200 * MILLISECOND;
    script.settings.disk_us = MILLISECOND..=10 * MILLISECOND;
    script.settings.stillborn_per_mille = 300;
    let report = script.play(|stage| {
        for round in 0..30 {
            let laggard = any_follower(stage);
            let leader = stage.wait_for_leader();
            stage.split(&[laggard]);
            let behind = stage.last_in_log(laggard).unwrap_or(0);
            stage.run_until(60 * SECOND, "a log that begins after what the laggard has", |stage| {
                stage.first_in_log(leader).is_some_and(|first| first > behind + 1)
            });
            stage.heal();
            stage.run_for(round * 20 * MILLISECOND);
            let victim = if round % 5 == 4 { leader } else { laggard };
            stage.crash(victim, if round % 2 == 0 { Crash::Kill } else { Crash::PowerCut });
            stage.run_for(100 * MILLISECOND);
            stage.restart(victim);
            stage.wait_until_whole();
        }
    });
    assert_clean(&report);
    let marks = &report.summary.marks;
    for place in ["starts cut short", "crashes during a write"] {
        assert!(marks.count(place) > 0, "no run came by: {place}; {marks}");
    }
    let (sent, received) = (marks.count("snapshots sent"), marks.count("snapshots received"));
    let in_place = marks.count("snapshots put in place");
    // Some died with a snapshot that they had received and not put in place.
    assert!(sent >= received && received > in_place && in_place > 20, "{marks}");
}

/// A node dies when a snapshot's rows are in its store and its log is not cut yet: it starts with the snapshot, and its log anew behind it. In
/// the log are entries that never were committed.
#[test]
fn crash_between_a_snapshot_and_the_cut_of_the_log() {
    for (seed, crash) in [(81, Crash::Kill), (82, Crash::PowerCut), (83, Crash::PowerCut)] {
        let mut script = shared(seed, 3, 3).log_bytes(SHORT_LOG).think(10 * MILLISECOND);
        script.settings.install_us = 200 * MILLISECOND..=200 * MILLISECOND;
        let report = script.play(|stage| {
            let laggard = stage.wait_for_leader();
            stage.split(&[laggard]);
            for number in 0..20 {
                stage.ask(laggard, &["APPEND", "never committed", &format!("{number};")]);
            }
            let behind = stage.last_in_log(laggard).unwrap_or(0);
            stage.run_until(60 * SECOND, "a log that begins after what the laggard has", |stage| {
                let leader = stage.leader().filter(|leader| *leader != laggard);
                leader.and_then(|leader| stage.first_in_log(leader)).is_some_and(|first| first > behind + 50)
            });
            let received = stage.mark("snapshots received");
            stage.heal();
            stage.run_until(10 * SECOND, "a snapshot", |stage| stage.mark("snapshots received") > received);
            // The first half takes 200 ms, and so does the second.
            stage.run_for(300 * MILLISECOND);
            assert!(stage.first_in_log(laggard).is_some_and(|first| first <= behind + 50), "the log is cut already");
            stage.crash(laggard, crash);
            stage.split(&[laggard]);
            stage.restart(laggard);
            let (applied, first) = (stage.applied(laggard), stage.first_in_log(laggard));
            assert!(applied > Some(behind + 50) && first == applied.map(|index| index + 1), "{applied:?}, {first:?}");
            stage.heal();
            stage.wait_until_whole();
            assert_eq!(stage.call(&["GET", "never committed"]), Value::Null);
        });
        assert_clean(&report);
    }
}

/// Syncs that take seconds: a follower's keep nobody waiting. A leader's hold up what waits for them, and nothing is acknowledged before its time; nor
/// is anything lost when the power goes meanwhile.
#[test]
fn syncs_that_take_seconds_hold_up_only_what_waits_for_them() {
    let report = shared(19, 3, 5).play(|stage| {
        let mut appends = Appends::default();
        for round in 0..12 {
            let leader = stage.wait_for_leader();
            let victim = if round % 2 == 0 { leader } else { any_follower(stage) };
            stage.inflict(Fault::StallDisk { node: victim });
            for _ in 0..10 {
                appends.ask(stage, leader);
                stage.run_for(20 * MILLISECOND);
            }
            if victim == leader {
                stage.run_for(4 * SECOND);
            } else {
                for _ in 0..4 {
                    let span = time_to_answers(stage, 5 * SECOND);
                    assert!(span < SECOND, "a follower's disk kept everybody waiting for {span} us");
                    stage.run_for(SECOND);
                }
            }
            if round % 4 >= 2 {
                stage.crash(victim, Crash::PowerCut);
            }
            stage.inflict(Fault::MendDisk { node: victim });
            stage.restart(victim);
            time_to_answers(stage, 3 * SECOND);
            stage.wait_until_whole();
        }
        let outcomes = appends.judge(stage);
        assert!(outcomes.answered >= 60, "{outcomes:?}");
    });
    assert_clean(&report);
    assert_eq!(report.summary.crashes, 6);
}

/// J9: what was refused was never done, what was not answered may have been, and nothing else is said.
#[test]
fn errors_are_definite_or_the_outcome_is_unknown() {
    let mut total = Outcomes::default();
    for seed in 0..4 {
        let mut script = shared(seed, 5, 2);
        script.settings.disk_us = MILLISECOND..=20 * MILLISECOND;
        let report = script.play(|stage| {
            let mut appends = Appends::default();
            for round in 0..10 {
                for step in 0..40 {
                    let leader = stage.leader();
                    let node = if step % 10 == 0 { any_node(stage) } else { leader.unwrap_or(1) };
                    appends.ask(stage, node);
                    stage.run_for(7 * MILLISECOND);
                    if step == 20 {
                        let node = leader.unwrap_or(1);
                        match round % 3 {
                            0 => stage.split(&[node]),
                            1 => stage.crash(node, Crash::Kill),
                            _ => {
                                let node = any_node(stage);
                                stage.inflict(Fault::HandOver { node });
                            }
                        }
                    }
                }
                stage.run_for(500 * MILLISECOND);
                stage.heal();
                stage.restart_all();
                stage.wait_for_leader();
            }
            stage.wait_until_whole();
            let outcomes = appends.judge(stage);
            total.answered += outcomes.answered;
            total.refused += outcomes.refused;
            total.unknown += outcomes.unknown;
            total.unknown_there += outcomes.unknown_there;
        });
        assert_clean(&report);
    }
    // All of it happened, also that an unanswered one was done, and that it was not.
    let Outcomes { answered, refused, unknown, unknown_there } = total;
    assert!(answered > 500 && refused > 20 && unknown_there > 0 && unknown > unknown_there, "{total:?}");
}

/// J10: nothing that came from a log, a peer or an earlier leader is proposed again. Nobody sends anything twice here, and messages
/// between nodes are doubled, late and lost while the leadership goes round.
#[test]
fn nothing_is_proposed_again_on_its_way() {
    let mut weather = NetworkWeather::course_unreliable();
    weather.peers.doubled_per_mille = 300;
    weather.peers.late_per_mille = 100;
    weather.peers.late_us = 50 * MILLISECOND..=500 * MILLISECOND;
    let script = Script::new(10, 5).forgetful_clients(10).keys([(KeyKind::Log, 3), (KeyKind::Counter, 1)]);
    let report = script.weather(weather).play(|stage| {
        for _ in 0..15 {
            let node = any_node(stage);
            stage.inflict(Fault::HandOver { node });
            stage.run_for(2 * SECOND);
        }
    });
    assert_clean(&report);
    assert!(own_appends_are_there_once_and_in_order(&report) > 100);
    let marks = &report.summary.marks;
    assert!(report.network.doubled > 1000 && marks.count("leaderships handed over") > 3, "{marks}");
    assert!(report.summary.operations.unknown > 20, "{:?}", report.summary.operations);
}

/// J12: the leader dies, is cut off, stands still, is asked to go or is removed: soon there are answers again.
#[test]
fn cluster_without_its_leader_soon_answers_again() {
    let script = shared(12, 5, 5);
    // Who waits for a dead leader gives up after half a second, and an election takes one timeout, or two if votes split.
    let longest = 5 * script.settings.election_timeout_ms * MILLISECOND;
    let mut spans = BTreeMap::new();
    let report = script.play(|stage| {
        for round in 0..20 {
            let leader = stage.wait_for_leader();
            let old = stage.member(leader).unwrap_or_default();
            let what = ["killed", "power cut", "cut off", "paused", "removed"][round % 5];
            match what {
                "killed" => stage.crash(leader, Crash::Kill),
                "power cut" => stage.crash(leader, Crash::PowerCut),
                "cut off" => stage.split(&[leader]),
                "paused" => stage.inflict(Fault::Pause { node: leader }),
                _ => {
                    stage.inflict(Fault::Remove { node: leader });
                    stage.run_until(10 * SECOND, "a membership without the leader", |stage| {
                        !stage.members().contains(&old)
                    });
                }
            }
            stage.run_until(longest, "another leader", |stage| stage.leader().is_some_and(|new| new != leader));
            let span = time_to_answers(stage, longest);
            let worst: &mut Micros = spans.entry(what).or_default();
            *worst = span.max(*worst);
            stage.inflict(Fault::Resume { node: leader });
            stage.heal();
            stage.restart(leader);
            if what == "removed" {
                stage.run_until(20 * SECOND, "a new member in its place", |stage| {
                    stage.member(leader).is_some_and(|new| new != old) && stage.members().len() == 5
                });
            }
            stage.wait_until_whole();
        }
    });
    assert_clean(&report);
    assert!(report.summary.elections >= 20, "{} elections; {spans:?}", report.summary.elections);
}

/// J17: the power of all nodes is cut at the same moment, over and over: what was acknowledged is there, whatever of the rest was lost or torn.
#[test]
fn power_cut_of_all_nodes_at_once_loses_nothing_acknowledged() {
    let mut script = shared(17, 3, 5);
    script.settings.disk_us = 2 * MILLISECOND..=20 * MILLISECOND;
    script.settings.torn_per_mille = 1000;
    let report = script.play(|stage| {
        let mut appends = Appends::default();
        for _ in 0..20 {
            let leader = stage.wait_for_leader();
            for _ in 0..30 {
                appends.ask(stage, leader);
                let pause = stage.random().range(1..=5 * MILLISECOND);
                stage.run_for(pause);
            }
            stage.crash_all(Crash::PowerCut);
            stage.restart_all();
        }
        let outcomes = appends.judge(stage);
        assert!(outcomes.answered > 200 && outcomes.unknown > 20, "{outcomes:?}");
        // Some of what was never acknowledged survived the cut, and some did not.
        assert!(outcomes.unknown_there > 0 && outcomes.unknown_there < outcomes.unknown, "{outcomes:?}");
    });
    assert_clean(&report);
    let marks = &report.summary.marks;
    assert_eq!(report.summary.crashes, 60);
    assert!(marks.count("crashes during a write") > 5 && marks.count("torn tails cut") > 0, "{marks}");
}

/// J18: bits of one node's files flip, log with its votes and the folder's own, while it runs or is down. The node finds it out or is not
/// harmed, and the others go on all the while.
#[test]
fn rotten_disk_of_one_node_takes_nobody_else_down() {
    let report = shared(18, 3, 3).log_bytes(SHORT_LOG).play(|stage| {
        for round in 0..40 {
            let node = any_node(stage);
            let leads = stage.leader() == Some(node);
            stage.inflict(Fault::Rot { node, down: round % 2 == 0 });
            if round % 2 == 1 {
                // What rotted shows when it is read.
                stage.run_for(500 * MILLISECOND);
                stage.crash(node, Crash::Kill);
                stage.restart(node);
            }
            let span = time_to_answers(stage, 5 * SECOND);
            assert!(leads || span < SECOND, "a follower's disk kept everybody waiting for {span} us");
            stage.run_until(20 * SECOND, "the node, or another in its place", |stage| stage.is_up(node));
            stage.wait_until_whole();
        }
    });
    assert_clean(&report);
    let marks = &report.summary.marks;
    assert!(marks.count("disks that rotted") >= 10 && marks.count("starts refused for damage") > 2, "{marks}");
}

/// J22: pairs of keys are only ever written together: whoever reads both, or each by itself, sees an order of whole writes.
#[test]
fn pairs_of_keys_change_together() {
    for seed in 0..3 {
        let script = Script::new(2200 + seed, 5).clients(8).keys([(KeyKind::Pair, 2)]).think(30 * MILLISECOND);
        let report = script.weather(NetworkWeather::course_unreliable()).log_bytes(SHORT_LOG).play(|stage| {
            for round in 0..12 {
                stage.split_at_random();
                if round % 3 == 2 {
                    stage.crash_all(Crash::PowerCut);
                    stage.restart_all();
                }
                stage.run_for(SECOND);
                stage.heal();
                stage.run_for(SECOND);
            }
        });
        assert_clean(&report);
        assert!(report.summary.operations.answered > 200, "{:?}", report.summary.operations);
        assert!(report.summary.elections > 3 && report.summary.crashes == 20, "{:?}", report.summary.marks);
    }
}
