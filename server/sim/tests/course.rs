//! The key-value rows of MIT's course 6.5840, one test each, with the course's figures and under the names that they have there.
//!
//! The course's generic loop: clients append to a few keys and read them, while the network loses messages, falls apart every second,
//! and all servers crash and start again, whichever of it a row has. Afterwards: the history is linearizable, each client's
//! appends are there once and in its order, and logs stayed short. Beside what must hold stands that the row's
//! faults took effect at all.

mod common;

use common::{assert_clean, own_appends_are_there_once_and_in_order, text};
use holdfast_client::Value;
use holdfast_sim::check::Outcome;
use holdfast_sim::network::NetworkWeather;
use holdfast_sim::plan::Crash;
use holdfast_sim::script::Script;
use holdfast_sim::time::{MILLISECOND, SECOND};
use holdfast_sim::workload::KeyKind;
use holdfast_sim::world::{Asked, Heard, Stage};

/// The threshold of the rows with snapshots: a few hundred entries.
const SHORT_LOG: u64 = 32 << 10;
/// A log may be this many times as long as the threshold: the course allows 8. It is about 1 while nobody is far behind; four times the
/// threshold is kept for a follower that is.
const LOG_TIMES_MAX: u64 = 5;
/// Rounds of a row: in each, clients run for a while, then what the row has happens.
const ROUNDS: u32 = 3;

/// A row of the course: what it has beside clients and servers.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    clients: u32,
    servers: u32,
    unreliable: bool,
    reordering: bool,
    crash: bool,
    partitions: bool,
    snapshots: bool,
    /// Clients share a few keys of all kinds instead of a log each.
    shared: bool,
}

/// A row's clients and servers; the rest is calm.
fn row(clients: u32, servers: u32) -> Row {
    Row { clients, servers, ..Row::default() }
}

/// Each row is run so often, with other seeds.
const RUNS: u64 = 3;

fn script(seed: u64, row: Row) -> Script {
    let keys = if row.shared {
        vec![(KeyKind::Register, 3), (KeyKind::Counter, 1), (KeyKind::Log, 2), (KeyKind::Pair, 1)]
    } else {
        vec![(KeyKind::Log, row.clients.min(5))]
    };
    let mut script = Script::new(seed, row.servers).clients(row.clients).keys(keys);
    // However many clients there are, the cluster is asked about a hundred times a second.
    script = script.think(u64::from(row.clients) * 20 * MILLISECOND);
    if row.unreliable {
        script = script.weather(NetworkWeather::course_unreliable());
        script.workload.timeout_us = 250 * MILLISECOND;
    }
    if row.reordering {
        script = script.weather(NetworkWeather::course_reordering());
        script.workload.timeout_us = 4 * SECOND;
    }
    if row.snapshots { script.log_bytes(SHORT_LOG) } else { script }
}

/// The generic loop, and what all rows must hold.
#[track_caller]
fn generic(number: u64, row: Row) {
    let mut sum = Sum::default();
    for run in 0..RUNS {
        generic_once(100 * number + run, row, &mut sum);
    }
    if row.partitions {
        assert!(sum.leaderships_lost > 0, "no leader was ever cut off");
    }
    if row.partitions && row.snapshots {
        assert!(sum.snapshots > 0, "nobody was ever so far behind that it needed a snapshot");
    }
}

/// What need not happen in each run, but in one of a row's.
#[derive(Debug, Default)]
struct Sum {
    leaderships_lost: u64,
    snapshots: u64,
}

#[track_caller]
fn generic_once(seed: u64, row: Row, sum: &mut Sum) {
    let (mut joins, mut cuts) = (0, 0);
    // A client waits for its late answers, whatever else happens.
    let progress = u64::from(row.clients) * if row.reordering { 5 } else { 20 };
    let report = script(seed, row).play(|stage| {
        joins = stage.mark("snapshots put in place");
        cuts = stage.mark("log cuts");
        for round in 0..ROUNDS {
            let before = stage.counts().answered;
            for _ in 0..4 {
                if row.partitions {
                    stage.split_at_random();
                }
                stage.run_for(SECOND);
            }
            if row.crash {
                stage.crash_all(if round % 2 == 0 { Crash::Kill } else { Crash::PowerCut });
                stage.run_for(SECOND);
                stage.heal();
                stage.restart_all();
            }
            stage.heal();
            stage.run_until(20 * SECOND, "clients that get on", |stage| stage.counts().answered > before + progress);
        }
    });
    assert_clean(&report);
    assert!(own_appends_are_there_once_and_in_order(&report) > 0);
    let summary = &report.summary;
    if row.unreliable || row.reordering {
        assert!(report.network.lost > 500 && report.network.sent < 15 * report.network.lost, "{:?}", report.network);
    }
    assert_eq!(report.network.late > 500, row.reordering, "{:?}", report.network);
    assert_eq!(summary.crashes, if row.crash { u64::from(ROUNDS * row.servers) } else { 0 });
    if row.partitions {
        assert!(summary.faults >= u64::from(4 * ROUNDS) && report.network.lost > 100, "{summary:?}");
    }
    if row.snapshots {
        assert!(report.log_bytes_max <= LOG_TIMES_MAX * SHORT_LOG, "{} bytes of log", report.log_bytes_max);
        assert!(summary.marks.count("log cuts") > cuts + 3, "{summary:?}");
    }
    if !row.partitions && !row.crash && !row.unreliable && !row.reordering {
        assert_eq!((summary.faults, summary.elections), (0, 1), "nothing was to go wrong");
    }
    sum.leaderships_lost += summary.marks.count("leaderships lost");
    sum.snapshots += summary.marks.count("snapshots put in place") - joins;
}

#[test]
fn basic() {
    generic(1, row(1, 5));
}

/// A client alone asks one thing after the other, and waits for disks and network, never for a heartbeat.
#[test]
fn speed() {
    let script = Script::new(2, 3).think(MILLISECOND);
    let heartbeat = script.settings.election_timeout_ms * MILLISECOND / 10;
    let report = script.play(|stage| {
        stage.wait_for_leader();
        let before = stage.counts().answered;
        stage.run_until(20 * SECOND, "a thousand answers", |stage| stage.counts().answered >= before + 1000);
    });
    assert_clean(&report);
    let answered = report.history.calls().filter(|(_, call)| matches!(call.outcome, Outcome::Answered(_)));
    let spans: Vec<u64> = answered.filter_map(|(_, call)| Some(call.returned_us? - call.called_us)).collect();
    let mean = spans.iter().sum::<u64>() / spans.len() as u64;
    assert!(spans.len() > 1000 && mean < heartbeat / 10, "{} operations took {mean} us on average", spans.len());
}

#[test]
fn concurrent() {
    generic(3, row(5, 5));
}

#[test]
fn unreliable() {
    generic(4, Row { unreliable: true, ..row(5, 5) });
}

#[test]
fn unreliable_long_reordering() {
    generic(5, Row { reordering: true, ..row(5, 5) });
}

/// Five clients append to one key; each append is there exactly once.
#[test]
fn unreliable_one_key() {
    let row = Row { unreliable: true, ..row(5, 3) };
    let script = script(6, row).keys([(KeyKind::Log, 1)]);
    let report = script.play(|stage| {
        stage.wait_for_leader();
        stage.run_until(60 * SECOND, "ten appends of each", |stage| stage.counts().answered >= 150);
    });
    assert_clean(&report);
    let appends = own_appends_are_there_once_and_in_order(&report);
    assert!(appends >= 50 && report.network.lost > 100, "{appends} appends, {:?}", report.network);
    assert!(report.summary.marks.count("numbered writes answered again") > 0, "{:?}", report.summary.marks);
}

/// A side without a majority completes nothing; after the heal it completes everything or refuses it.
#[test]
fn one_partition() {
    let report = Script::new(7, 5).play(|stage| {
        stage.call(&["SET", "partitioned", "before"]);
        let leader = stage.wait_for_leader();
        let minority = [leader, stage.others(leader)[0]];
        let majority = stage.others(leader)[1..].to_vec();
        stage.split(&minority);
        let put = stage.ask(leader, &["SET", "partitioned", "minority"]);
        let get = stage.ask(minority[1], &["GET", "partitioned"]);
        stage.run_until(5 * SECOND, "a leader of the majority", |stage| {
            stage.leader().is_some_and(|leader| majority.contains(&leader))
        });
        // The majority goes on meanwhile.
        assert_eq!(text(&stage.call(&["SET", "partitioned", "majority"])), "OK");
        stage.run_for(2 * SECOND);
        let late = stage.ask(leader, &["GET", "partitioned"]);
        stage.run_for(2 * SECOND);
        for asked in [put, get, late] {
            assert!(!completed(stage, asked), "a minority answered {:?}", stage.heard(asked));
        }
        assert_eq!(text(&stage.call(&["GET", "partitioned"])), "majority");
        stage.heal();
        stage.run_until(SECOND, "an end of what the minority was asked", |stage| {
            [put, get, late].iter().all(|asked| stage.heard(*asked).is_some())
        });
        stage.wait_until_whole();
        assert_eq!(text(&stage.call(&["SET", "partitioned", "after"])), "OK");
        assert_eq!(text(&stage.call(&["GET", "partitioned"])), "after");
    });
    assert_clean(&report);
    assert!(report.summary.elections >= 2);
}

fn completed(stage: &mut Stage<'_, '_>, asked: Asked) -> bool {
    stage.heard(asked).is_some_and(|(_, heard)| heard.success().is_some())
}

#[test]
fn many_partitions_one_client() {
    generic(8, Row { partitions: true, ..row(1, 5) });
}

#[test]
fn many_partitions_many_clients() {
    generic(9, Row { partitions: true, ..row(5, 5) });
}

#[test]
fn persist_one_client() {
    generic(10, Row { crash: true, ..row(1, 5) });
}

#[test]
fn persist_concurrent() {
    generic(11, Row { crash: true, ..row(5, 5) });
}

#[test]
fn persist_concurrent_unreliable() {
    generic(12, Row { crash: true, unreliable: true, ..row(5, 5) });
}

#[test]
fn persist_partition() {
    generic(13, Row { crash: true, partitions: true, ..row(5, 5) });
}

#[test]
fn persist_partition_unreliable() {
    generic(14, Row { crash: true, partitions: true, unreliable: true, ..row(5, 5) });
}

#[test]
fn persist_partition_unreliable_linearizable() {
    generic(15, Row { crash: true, partitions: true, unreliable: true, shared: true, ..row(15, 7) });
}

/// Who was cut off until the log no longer reached back to where it was catches up by a snapshot, and serves then.
#[test]
fn snapshot_rpc() {
    let report = script(16, Row { snapshots: true, ..row(3, 3) }).play(|stage| {
        let joins = stage.mark("snapshots put in place");
        let leader = stage.wait_for_leader();
        let laggard = stage.others(leader)[0];
        stage.split(&[laggard]);
        let behind = stage.last_in_log(laggard);
        stage.run_until(60 * SECOND, "a log that begins after what the laggard has", |stage| {
            stage.first_in_log(leader).is_some_and(|first| Some(first) > behind.map(|index| index + 1))
        });
        assert_eq!(stage.mark("snapshots put in place"), joins);
        stage.heal();
        stage.run_until(10 * SECOND, "a snapshot", |stage| stage.mark("snapshots put in place") > joins);
        stage.wait_until_whole();
        // It counts from now on: with it and the leader alone there is a majority.
        let third = stage.others(leader).into_iter().find(|node| *node != laggard).unwrap_or_default();
        stage.split(&[third]);
        assert_eq!(text(&stage.call(&["SET", "counts", "again"])), "OK");
    });
    assert_clean(&report);
    assert!(report.log_bytes_max <= LOG_TIMES_MAX * SHORT_LOG, "{} bytes of log", report.log_bytes_max);
}

/// Few keys, written over and over: log and snapshot stay small.
#[test]
fn snapshot_size() {
    let script = Script::new(17, 3).log_bytes(SHORT_LOG).forgetful_clients(1).think(30 * SECOND);
    let report = script.play(|stage| {
        let joins = stage.mark("snapshots put in place");
        let leader = stage.wait_for_leader();
        let laggard = stage.others(leader)[0];
        stage.split(&[laggard]);
        let behind = stage.last_in_log(laggard).unwrap_or(0);
        for round in 0..200 {
            let value = format!("{round:01000}");
            stage.call(&["SET", ["x", "y"][round % 2], &value]);
        }
        stage.run_until(60 * SECOND, "a log that begins after what the laggard has", |stage| {
            stage.first_in_log(leader).is_some_and(|first| first > behind + 1)
        });
        let (sent, written) = (stage.network().bytes, 200 * 1000);
        stage.heal();
        stage.run_until(10 * SECOND, "a snapshot", |stage| stage.mark("snapshots put in place") > joins);
        stage.wait_until_whole();
        let sent = stage.network().bytes - sent;
        assert!(sent < written / 4, "{sent} bytes to catch up with {written} on two keys");
    });
    assert_clean(&report);
    assert!(report.log_bytes_max <= LOG_TIMES_MAX * SHORT_LOG, "{} bytes of log", report.log_bytes_max);
}

/// Two restarts with hardly anything between them: what came from the store the first time is there the second time.
#[test]
fn snapshot_init() {
    let report = script(17, Row { snapshots: true, ..row(1, 3) }).play(|stage| {
        for number in 0..300 {
            stage.call(&["APPEND", "loaded", &format!("{number:0200};")]);
        }
        let loaded = stage.call(&["GET", "loaded"]);
        assert!(
            (1..=3).all(|node| stage.first_in_log(node).is_some_and(|first| first > 100)),
            "the log holds everything"
        );
        for round in 0..6 {
            let before: Vec<_> = (1..=3).map(|node| stage.first_in_log(node)).collect();
            stage.crash_all(if round % 2 == 0 { Crash::Kill } else { Crash::PowerCut });
            stage.restart_all();
            let after: Vec<_> = (1..=3).map(|node| stage.applied(node).map(|index| index + 1)).collect();
            assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?}, then {after:?}");
            assert_eq!(text(&stage.call(&["SET", "once", "more"])), "OK");
            assert_eq!(stage.call(&["GET", "loaded"]), loaded);
        }
    });
    assert_clean(&report);
}

#[test]
fn snapshot_recover() {
    generic(18, Row { crash: true, snapshots: true, ..row(1, 5) });
}

#[test]
fn snapshot_recover_many_clients() {
    generic(19, Row { crash: true, snapshots: true, ..row(20, 5) });
}

#[test]
fn snapshot_unreliable() {
    generic(20, Row { unreliable: true, snapshots: true, ..row(5, 5) });
}

#[test]
fn snapshot_unreliable_recover() {
    generic(21, Row { unreliable: true, crash: true, snapshots: true, ..row(5, 5) });
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition() {
    generic(22, Row { unreliable: true, crash: true, partitions: true, snapshots: true, ..row(5, 5) });
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition_linearizable() {
    let row = Row { unreliable: true, crash: true, partitions: true, snapshots: true, shared: true, ..row(15, 7) };
    generic(23, row);
}

/// A hundred operations given to a leader without a majority: none succeeds, and all have ended a second after the heal.
#[test]
fn leader_partition() {
    let report = Script::new(24, 5).play(|stage| {
        let leader = stage.wait_for_leader();
        stage.call(&["SET", "numbers", "0;"]);
        stage.split(&[leader, stage.others(leader)[0]]);
        let asked: Vec<Asked> = (1..=100)
            .map(|number| {
                stage.run_for(MILLISECOND);
                stage.ask(leader, &["APPEND", "numbers", &format!("{number};")])
            })
            .collect();
        stage.run_for(3 * SECOND);
        assert_eq!(asked.iter().filter(|asked| completed(stage, **asked)).count(), 0);
        stage.heal();
        stage.run_until(SECOND, "an end of all hundred", |stage| {
            asked.iter().all(|asked| stage.heard(*asked).is_some())
        });
        stage.wait_until_whole();
        // What ended without an answer was not done later either, since another leader's log has won.
        assert_eq!(asked.iter().filter(|asked| completed(stage, **asked)).count(), 0);
        assert_eq!(text(&stage.call(&["GET", "numbers"])), "0;");
        // Beside it: the same hundred, given to a leader with its majority, are all done.
        let leader = stage.wait_for_leader();
        let asked: Vec<Asked> =
            (1..=100).map(|number| stage.ask(leader, &["APPEND", "numbers", &format!("{number};")])).collect();
        stage.run_until(SECOND, "an answer to all hundred", |stage| asked.iter().all(|asked| completed(stage, *asked)));
    });
    assert_clean(&report);
}

/// A replay of the log gives the state that was there before the crash; that of all nodes is compared at the end.
#[test]
fn restart_replay() {
    let mut script = script(25, Row { shared: true, ..row(5, 3) });
    // A comparison would flush the table.
    script.settings.compare_every = u64::MAX;
    let report = script.play(|stage| {
        stage.wait_for_leader();
        for number in 0..20 {
            stage.call(&["APPEND", "replayed", &format!("{number};")]);
        }
        stage.run_for(3 * SECOND);
        let before = stage.call(&["GET", "replayed"]);
        let cuts = stage.mark("log cuts");
        for crash in [Crash::Kill, Crash::PowerCut, Crash::Kill] {
            stage.crash_all(crash);
            assert!((1..=3).all(|node| !stage.is_up(node)));
            stage.restart_all();
            stage.wait_for_leader();
            assert_eq!(stage.call(&["GET", "replayed"]), before);
            stage.run_for(SECOND);
        }
        assert_eq!(stage.mark("log cuts"), cuts);
    });
    assert_clean(&report);
    // What was not on disk yet came from the log, which was never cut.
    assert!(report.summary.marks.count("crashes with unflushed memtables") >= 9, "{:?}", report.summary.marks);
}

/// Operations that wait when their server goes down end at once: their clients see that the connection is gone.
#[test]
fn shutdown() {
    let report = Script::new(26, 3).play(|stage| {
        let leader = stage.wait_for_leader();
        stage.call(&["SET", "stopped", "0;"]);
        stage.split(&[leader]);
        let asked: Vec<Asked> =
            (1..=20).map(|number| stage.ask(leader, &["APPEND", "stopped", &format!("{number};")])).collect();
        stage.run_for(20 * MILLISECOND);
        assert!(asked.iter().all(|asked| stage.heard(*asked).is_none()), "they should still wait");
        stage.crash(leader, Crash::Kill);
        stage.run_until(100 * MILLISECOND, "an end of all that waited", |stage| {
            asked.iter().all(|asked| matches!(stage.heard(*asked), Some((_, Heard::Lost(_)))))
        });
        stage.heal();
        stage.restart(leader);
        stage.wait_until_whole();
        let found = text(&stage.call(&["GET", "stopped"]));
        let numbers: Vec<&str> = found.split_terminator(';').collect();
        assert!(
            numbers.len() <= 21 && numbers.iter().collect::<std::collections::BTreeSet<_>>().len() == numbers.len()
        );
    });
    assert_clean(&report);
}

/// One who wants the lock: the key holds who has it, under a number that grows by one whenever somebody takes it.
#[derive(Debug)]
struct Contender {
    name: String,
    state: Lock,
    asked: Option<(Asked, u64)>,
    turns: u32,
    /// Turns of which the answer got lost.
    found: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lock {
    /// Looks who has it.
    Looking,
    /// Tries to take it from its last number on.
    Taking(u64),
    Held {
        token: u64,
        until: u64,
    },
    GivingBack(u64),
}

impl Contender {
    /// Does what is due at this moment; gives the token if it just got the lock.
    fn go_on(&mut self, stage: &mut Stage<'_, '_>) -> Option<u64> {
        let now = stage.now();
        if let Lock::Held { token, until } = self.state {
            if now >= until {
                self.state = Lock::GivingBack(token);
            }
            return None;
        }
        let Some((asked, since)) = self.asked else {
            let free = |token: u64| format!("{token} free");
            let mine = |token: u64| format!("{token} {}", self.name);
            let any = stage.others(0);
            let any = *stage.random().choose(&any).unwrap_or(&1);
            let node = stage.leader().unwrap_or(any);
            let asked = match self.state {
                Lock::Taking(token) => stage.ask(node, &["CAS", "lock", &free(token), &mine(token + 1)]),
                Lock::GivingBack(token) => stage.ask(node, &["CAS", "lock", &mine(token), &free(token)]),
                _ => stage.ask(node, &["GET", "lock"]),
            };
            self.asked = Some((asked, now));
            return None;
        };
        let heard = stage.heard(asked).map(|(_, heard)| heard);
        if heard.is_none() && now < since + 300 * MILLISECOND {
            return None;
        }
        self.asked = None;
        let answer = heard.as_ref().and_then(Heard::success);
        match (self.state.clone(), answer) {
            (Lock::Looking, Some(value)) => {
                let value = text(value);
                let (token, holder) = value.split_once(' ').unwrap_or_default();
                let token = token.parse().unwrap_or(0);
                if holder == self.name {
                    self.found += 1;
                    return Some(self.hold(stage, token));
                } else if holder == "free" {
                    self.state = Lock::Taking(token);
                }
            }
            (Lock::Taking(token), Some(Value::Integer(1))) => return Some(self.hold(stage, token + 1)),
            // Somebody was faster, or nobody knows: the key tells.
            (Lock::Taking(_), _) => self.state = Lock::Looking,
            // NB: 0 says that an earlier attempt to give it back took effect.
            (Lock::GivingBack(_), Some(_)) => self.state = Lock::Looking,
            _ => {}
        }
        None
    }

    fn hold(&mut self, stage: &mut Stage<'_, '_>, token: u64) -> u64 {
        self.turns += 1;
        self.state = Lock::Held { token, until: stage.now() + stage.random().range(0..=30 * MILLISECOND) };
        token
    }
}

/// Mutual exclusion by compare-and-set, many clients, on a network that loses what it can and falls apart. Each turn has a higher token
/// than all before: who lost the lock without knowing it can be told by that.
#[test]
fn lock() {
    let report = script(27, Row { unreliable: true, ..row(1, 5) }).play(|stage| {
        stage.call(&["SET", "lock", "0 free"]);
        let new = |number| Contender {
            name: format!("contender {number}"),
            state: Lock::Looking,
            asked: None,
            turns: 0,
            found: 0,
        };
        let mut contenders: Vec<Contender> = (1..=5).map(new).collect();
        let mut highest = 0;
        for round in 0..15_000 {
            match round % 1500 {
                700 => stage.split_at_random(),
                1200 => stage.heal(),
                _ => {}
            }
            for contender in &mut contenders {
                if let Some(token) = contender.go_on(stage) {
                    assert!(token > highest, "{} got the lock with {token} after {highest}", contender.name);
                    highest = token;
                }
            }
            let holders = contenders.iter().filter(|contender| matches!(contender.state, Lock::Held { .. })).count();
            assert!(holders <= 1, "{holders} hold the lock: {contenders:?}");
            stage.run_for(2 * MILLISECOND);
        }
        let turns: Vec<u32> = contenders.iter().map(|contender| contender.turns).collect();
        assert!(turns.iter().all(|turns| *turns > 10), "some hardly ever got the lock: {turns:?}");
        assert!(contenders.iter().any(|contender| contender.found > 0), "no attempt was of unknown outcome");
    });
    assert_clean(&report);
}
