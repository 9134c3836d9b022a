//! Three built servers as one cluster: what clients see while nodes crash, freeze, lag, stop and move.
//!
//! The scenarios are at the level of processes: `kill -9` is a crash, SIGSTOP a node that is cut off and doesn't know it.

mod common;

use common::cluster::{Cluster, NODES, is_elsewhere, until, until_within};
use common::resp::{Client, Value};
use common::{PATIENCE, Server, command, folder, refused_command};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a leader may at most take to notice that it is alone, with the default election timeout, on a busy machine.
const NOTICED: Duration = Duration::from_secs(10);

fn write_numbered(client: &mut Client, range: std::ops::Range<u32>) {
    for number in range {
        assert!(client.run(&format!("SET key:{number} value-{number}")).is_ok(), "{number}");
    }
}

fn read_numbered(client: &mut Client, range: std::ops::Range<u32>) {
    for number in range {
        assert_eq!(client.run(&format!("GET key:{number}")).text(), format!("value-{number}"));
    }
}

/// The text of a MOVED: slot and address.
fn moved(reply: &Value) -> (u16, String) {
    let Value::Error(text) = reply else { panic!("no redirection: {reply}") };
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!((words.len(), words[0]), (3, "MOVED"), "{text}");
    (words[1].parse().expect("a slot"), words[2].to_owned())
}

#[test]
fn acknowledged_writes_survive_one_leader_after_another() {
    let mut cluster = Cluster::start();
    let first = cluster.leader();
    write_numbered(&mut cluster.client(first), 0..200);
    cluster.kill(first);
    let second = cluster.leader();
    assert_ne!(second, first);
    // At once: a leader that just came to be knows what was acknowledged before it.
    let mut client = cluster.client(second);
    read_numbered(&mut client, 0..200);
    write_numbered(&mut client, 200..400);
    cluster.restart(first);
    cluster.wait_whole();
    cluster.kill(second);
    let third = cluster.leader();
    let mut client = cluster.client(third);
    read_numbered(&mut client, 0..400);
    assert_eq!(client.run("DBSIZE"), Value::Int(400));
    write_numbered(&mut client, 400..401);
}

#[test]
fn followers_read_what_is_true_now_if_asked_to() {
    let mut cluster = Cluster::start_with(&["--replica-reads", "linearizable"]);
    let leader = cluster.leader();
    let mut writer = cluster.client(leader);
    let mut readers: Vec<Client> = cluster.others(leader).into_iter().map(|place| cluster.client(place)).collect();
    for reader in &mut readers {
        assert!(is_elsewhere(&reader.run("GET counter")), "not without READONLY");
        assert!(reader.run("READONLY").is_ok());
    }
    // Whatever was acknowledged is seen by whoever asks afterwards, also in the last of many commands at once.
    for number in 1..=200 {
        assert_eq!(writer.run("INCR counter"), Value::Int(number));
        for reader in &mut readers {
            assert_eq!(reader.run("GET counter").text(), number.to_string());
        }
    }
    for reader in &mut readers {
        (0..100).for_each(|_| reader.send(b"GET counter\r\n"));
        assert!((0..100).all(|_| reader.reply().text() == "200"));
        assert_eq!(reader.run("DBSIZE"), Value::Int(1));
        assert!(is_elsewhere(&reader.run("INCR counter")), "a follower takes no writes");
    }
    // A deadline that has passed: the leader must be told first.
    assert!(writer.run("SET brief x PX 1").is_ok());
    until("the deadline has passed", || {
        let reply = readers[0].run("GET brief");
        reply == Value::NullBulk || is_elsewhere(&reply)
    });
    // Cut off from its leader, it can't know: neither an old value nor nil is an answer.
    cluster.freeze(leader);
    let asked = Instant::now();
    let reply = readers[0].run("GET counter");
    assert!(is_elsewhere(&reply) || reply.text() == "200", "{reply}");
    assert!(asked.elapsed() < NOTICED, "it waited for {:?}", asked.elapsed());
    cluster.thaw(leader);
    let next = cluster.leader();
    assert!(cluster.client(next).run("SET counter new").is_ok());
    for place in cluster.others(next) {
        let mut reader = cluster.client(place);
        reader.run("READONLY");
        until("it serves", || !is_elsewhere(&reader.run("GET counter")));
        assert_eq!(reader.run("GET counter").text(), "new");
    }
}

#[test]
fn idle_cluster_sleeps_and_wakes_for_whatever_comes() {
    let mut cluster = Cluster::start_with(&["--sleep-after", "300"]);
    let info = |cluster: &Cluster, place: usize, field: &str| -> u64 {
        let text = cluster.client(place).run("INFO Raft").text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.expect("a line of INFO").parse().expect("a number")
    };
    let asleep = |cluster: &Cluster| cluster.places().into_iter().all(|place| info(cluster, place, "asleep") == 1);
    let leader = cluster.leader();
    write_numbered(&mut cluster.client(leader), 0..10);
    until("all of it sleeps", || asleep(&cluster));
    // Many election timeouts later nothing has changed: the nodes hear of each other in another way. A machine that is too busy to
    // let them may wake it, and even move the leadership; then it is looked at again.
    let term = |cluster: &Cluster| info(cluster, leader, "term");
    let (mut since, mut seen) = (Instant::now(), term(&cluster));
    until("two seconds of sleep", || {
        if !asleep(&cluster) || term(&cluster) != seen {
            (since, seen) = (Instant::now(), term(&cluster));
        }
        since.elapsed() > Duration::from_secs(2)
    });
    let leader = cluster.leader();
    read_numbered(&mut cluster.client(leader), 0..10);
    until("it sleeps again", || asleep(&cluster));
    // Who leads dies, or is cut off without anybody being told, while the group sleeps.
    cluster.freeze(leader);
    let next = cluster.leader();
    assert_ne!(next, leader);
    write_numbered(&mut cluster.client(next), 10..20);
    cluster.thaw(leader);
    until("the one that was frozen follows, and all sleep", || asleep(&cluster));
    cluster.kill(next);
    read_numbered(&mut cluster.client(cluster.leader()), 0..20);
    cluster.restart(next);
    cluster.wait_whole();
    until("it sleeps when it is whole", || asleep(&cluster));
}

#[test]
fn all_nodes_killed_at_once_come_back_with_everything() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    write_numbered(&mut cluster.client(leader), 0..300);
    (0..NODES).for_each(|place| cluster.kill(place));
    (0..NODES).for_each(|place| cluster.restart(place));
    read_numbered(&mut cluster.client(cluster.leader()), 0..300);
    // Once more, and only one of them comes back: it must not answer from what it has.
    (0..NODES).for_each(|place| cluster.kill(place));
    cluster.restart(1);
    let mut alone = cluster.client(1);
    let asked = Instant::now();
    while asked.elapsed() < Duration::from_millis(1500) {
        let reply = alone.run("GET key:1");
        assert!(reply.is_error("CLUSTERDOWN"), "{reply}");
        let reply = alone.run("SET key:1 other");
        assert!(reply.is_error("CLUSTERDOWN"), "{reply}");
        std::thread::sleep(Duration::from_millis(10));
    }
    cluster.restart(0);
    read_numbered(&mut cluster.client(cluster.leader()), 0..300);
    cluster.restart(2);
    cluster.wait_whole();
    read_numbered(&mut cluster.client(cluster.leader()), 0..300);
}

#[test]
fn followers_name_the_leader_and_serve_whoever_said_readonly() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let mut writer = cluster.client(leader);
    write_numbered(&mut writer, 0..20);
    cluster.wait_whole();
    for place in cluster.others(leader) {
        let mut client = cluster.client(place);
        for line in ["GET foo", "SET foo 1", "DEL foo"] {
            assert_eq!(moved(&client.run(line)), (12182, cluster.address(leader).to_string()), "{line}");
        }
        assert!(client.run("READONLY").is_ok());
        read_numbered(&mut client, 0..20);
        assert_eq!(client.run("DBSIZE"), Value::Int(20));
        moved(&client.run("SET foo 1"));
        assert!(client.run("FLUSHALL").is_error("READONLY"));
        assert!(client.run("READWRITE").is_ok());
        moved(&client.run("GET foo"));
        assert!(client.run("WAIT 0 10").is_error("ERR WAIT cannot be used with replica instances"));
    }
    // Across slots there is no atomic command.
    assert!(writer.run("MSET key:1 a key:2 b").is_error("CROSSSLOT"));
    assert!(writer.run("MSET {a}1 a {a}2 b").is_ok());
}

/// Ends the threads of a scope when its body fails: a failure must not become a hang.
struct EndsOnDrop<'a>(&'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn no_node_ever_points_at_itself() {
    let mut cluster = Cluster::start();
    let ended = AtomicBool::new(false);
    let seen: Vec<AtomicU64> = (0..NODES).map(|_| AtomicU64::new(0)).collect();
    let addresses: Vec<_> = (0..NODES).map(|place| cluster.address(place)).collect();
    std::thread::scope(|scope| {
        let _end = EndsOnDrop(&ended);
        for (address, seen) in addresses.iter().zip(&seen) {
            let ended = &ended;
            scope.spawn(move || {
                let mut client = None;
                while !ended.load(Ordering::SeqCst) {
                    if client.is_none() {
                        client = Client::try_connect(*address, PATIENCE).ok();
                    }
                    match client.as_mut().map(|client| client.try_run("SET k v")) {
                        Some(Ok(reply)) if reply.is_error("MOVED") => {
                            assert_ne!(moved(&reply).1, address.to_string());
                            seen.fetch_add(1, Ordering::SeqCst);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => client = None,
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for _ in 0..2 {
            let leader = cluster.leader();
            cluster.kill(leader);
            cluster.leader();
            // NB: writes go on, so that the nodes are hardly ever level: it only has to be back.
            cluster.restart(leader);
        }
        until("every node that follows has redirected", || {
            cluster.others(cluster.leader()).iter().all(|place| seen[*place].load(Ordering::SeqCst) > 0)
        });
        ended.store(true, Ordering::SeqCst);
    });
}

#[test]
fn write_without_a_quorum_is_not_acknowledged() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    write_numbered(&mut client, 0..10);
    let others = cluster.others(leader);
    others.iter().for_each(|place| cluster.kill(*place));
    let asked = Instant::now();
    // Either it was proposed, and nobody knows what became of it; or the leader had resigned already.
    match client.try_run("SET key:0 lost") {
        Ok(reply) => assert!(reply.is_error("CLUSTERDOWN"), "{reply}"),
        Err(_) => assert!(asked.elapsed() < NOTICED, "{:?}", asked.elapsed()),
    }
    // From now on it says so at once, for reads too.
    until_within("the leader resigns", NOTICED, || cluster.leader_now().is_none());
    let mut client = cluster.client(leader);
    assert!(client.run("SET key:0 lost").is_error("CLUSTERDOWN"));
    assert!(client.run("GET key:0").is_error("CLUSTERDOWN"));
    others.iter().for_each(|place| cluster.restart(*place));
    let mut client = cluster.client(cluster.leader());
    read_numbered(&mut client, 1..10);
    let first = client.run("GET key:0").text();
    assert!(["value-0", "lost"].contains(&first.as_str()), "{first}");
    write_numbered(&mut client, 0..20);
    // One may be missing.
    cluster.wait_whole();
    let leader = cluster.leader();
    let other = cluster.others(leader)[0];
    cluster.kill(other);
    write_numbered(&mut cluster.client(leader), 20..40);
    cluster.restart(other);
    cluster.wait_whole();
    let mut client = cluster.client(other);
    assert!(client.run("READONLY").is_ok());
    read_numbered(&mut client, 0..40);
}

#[test]
fn writes_to_a_leader_without_followers_end_and_none_of_them_is_acknowledged() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let mut clients: Vec<Client> = (0..100).map(|_| cluster.client(leader)).collect();
    others.iter().for_each(|place| cluster.freeze(*place));
    let asked = Instant::now();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("SET doomed:{number} x\r\n").as_bytes());
    }
    for client in &mut clients {
        match client.try_reply() {
            Ok(reply) => assert!(is_elsewhere(&reply), "{reply}"),
            Err(error) => assert!(error.kind() != std::io::ErrorKind::WouldBlock, "it hangs"),
        }
    }
    assert!(asked.elapsed() < NOTICED, "{:?}", asked.elapsed());
    others.iter().for_each(|place| cluster.thaw(*place));
    // Served again soon after the heal, and every one of the writes is either there or not, for good.
    cluster.wait_whole();
    let mut client = cluster.client(cluster.leader());
    let there = |client: &mut Client| -> BTreeSet<usize> {
        let is_there = |number: &usize| {
            let reply = client.run(&format!("GET doomed:{number}"));
            assert!(reply == Value::NullBulk || reply.text() == "x", "{reply}");
            reply != Value::NullBulk
        };
        (0..100).filter(is_there).collect()
    };
    let first = there(&mut client);
    write_numbered(&mut client, 0..50);
    assert_eq!(there(&mut client), first);
}

#[test]
fn leader_that_was_stopped_answers_nothing_from_its_old_state() {
    let mut cluster = Cluster::start();
    let old = cluster.leader();
    assert!(cluster.client(old).run("SET k old").is_ok());
    let mut readers: Vec<Client> = (0..20).map(|_| cluster.client(old)).collect();
    let mut writers: Vec<Client> = (0..20).map(|_| cluster.client(old)).collect();
    cluster.freeze(old);
    // What waits in its sockets is the first that it sees when it goes on.
    for (number, (reader, writer)) in readers.iter_mut().zip(&mut writers).enumerate() {
        reader.send(b"GET k\r\nEXISTS k\r\nDBSIZE\r\n");
        writer.send(format!("SET pending:{number} x\r\nGET k\r\n").as_bytes());
    }
    let new = cluster.leader();
    assert_ne!(new, old);
    let mut client = cluster.client(new);
    assert!(client.run("SET k new").is_ok());
    cluster.thaw(old);
    let refused = |client: &mut Client, replies: usize| {
        for _ in 0..replies {
            // An end, or a definite refusal; never a value, never an OK.
            match client.try_reply() {
                Ok(reply) => assert!(is_elsewhere(&reply), "{reply}"),
                Err(error) => {
                    assert!(error.kind() != std::io::ErrorKind::WouldBlock, "it hangs");
                    break;
                }
            }
        }
    };
    readers.iter_mut().for_each(|client| refused(client, 3));
    writers.iter_mut().for_each(|client| refused(client, 2));
    cluster.wait_whole();
    let mut client = cluster.client(cluster.leader());
    assert_eq!(client.run("GET k").text(), "new");
    for number in 0..20 {
        assert_eq!(client.run(&format!("EXISTS pending:{number}")), Value::Int(0), "refused or lost, so not there");
    }
    let mut follower = cluster.client(old);
    assert!(follower.run("READONLY").is_ok());
    // In its own time: what a leader tells of its commit index may be a moment old.
    until("the old leader follows", || follower.run("GET k").text() == "new");
}

#[test]
fn follower_that_missed_the_log_catches_up_by_snapshot_while_writes_go_on() {
    let mut cluster = Cluster::start_with(&["--log-bytes-max", "4MiB", "--log-segment-bytes", "1MiB"]);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let mut client = cluster.client(leader);
    write_numbered(&mut client, 0..50);
    cluster.kill(follower);
    // Far more than the log may hold.
    let big = "x".repeat(100_000);
    for number in 0..120 {
        assert!(client.run(&format!("SET big:{} {number}-{big}", number % 40)).is_ok());
    }
    let ended = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let address = cluster.address(leader);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(address);
            while !ended.load(Ordering::SeqCst) {
                let number = written.load(Ordering::SeqCst);
                assert!(client.run(&format!("SET meanwhile:{number} {number}")).is_ok());
                written.fetch_add(1, Ordering::SeqCst);
            }
        });
        cluster.restart(follower);
        let before = written.load(Ordering::SeqCst);
        until("the follower has caught up under load", || {
            let commit = cluster.standing(leader).map_or(u64::MAX, |standing| standing.commit);
            written.load(Ordering::SeqCst) > before + 100
                && cluster.standing(follower).is_some_and(|standing| standing.applied + 50 >= commit)
        });
        ended.store(true, Ordering::SeqCst);
    });
    cluster.wait_whole();
    // It has no log that reaches back to where it was, so it can only have come by a snapshot; and all of it is there.
    let said = std::fs::read_to_string(cluster.log(follower)).expect("what it logged");
    assert!(said.contains("a snapshot was put in place"), "{said}");
    let mut client = cluster.client(follower);
    assert!(client.run("READONLY").is_ok());
    read_numbered(&mut client, 0..50);
    for number in 80..120 {
        assert_eq!(client.run(&format!("GET big:{}", number % 40)).text(), format!("{number}-{big}"));
    }
    for number in 0..written.load(Ordering::SeqCst) {
        assert_eq!(client.run(&format!("GET meanwhile:{number}")).text(), number.to_string());
    }
    // It votes and leads like any other.
    cluster.kill(leader);
    let next = cluster.leader();
    read_numbered(&mut cluster.client(next), 0..50);
    assert_eq!(cluster.client(next).run("DBSIZE"), Value::Int(50 + 40 + written.load(Ordering::SeqCst) as i64));
}

#[test]
fn snapshot_goes_on_over_new_links_when_the_old_ones_break() {
    // Some 12 MB, of which so much is sent in a second that there is time to break the links.
    let limits = ["--log-bytes-max", "4MiB", "--log-segment-bytes", "1MiB", "--snapshot-rate", "3MiB"];
    // And nobody else is to lead on a busy machine.
    let mut cluster = Cluster::start_behind_relays(&[&limits[..], &["--election-timeout", "3000"]].concat());
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let mut client = cluster.client(leader);
    cluster.kill(follower);
    let value = |number: u64| -> String {
        let mut bits = number + 1;
        let mut letter = || {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            char::from(b'a' + (bits % 26) as u8)
        };
        (0..100_000).map(|_| letter()).collect()
    };
    for number in 0..120 {
        assert!(client.run(&format!("SET big:{number} {}", value(number))).is_ok());
    }
    let logs: Vec<_> = (0..NODES).map(|place| cluster.log(place)).collect();
    let said =
        |place: usize, what: &str| std::fs::read_to_string(&logs[place]).expect("what it logged").matches(what).count();
    let (before, placed) = (said(leader, "sending a snapshot"), said(follower, "a snapshot was put in place"));
    cluster.restart(follower);
    until("a snapshot is under way", || said(leader, "sending a snapshot") > before);
    for links in 1..=3 {
        cluster.cut_links_to(follower);
        until("the snapshot goes on", || said(leader, "a snapshot goes on over a new link") >= links);
    }
    cluster.wait_whole();
    assert_eq!(said(leader, "sending a snapshot"), before + 1, "it was sent once");
    assert_eq!(said(leader, "was given up"), 0);
    assert_eq!(said(follower, "a snapshot was put in place"), placed + 1);
    let mut client = cluster.client(follower);
    assert!(client.run("READONLY").is_ok());
    for number in 0..120 {
        assert_eq!(client.run(&format!("GET big:{number}")).text(), value(number));
    }
}

#[test]
fn wait_counts_the_replicas_that_have_a_write() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let others = cluster.others(leader);
    let mut client = cluster.client(leader);
    assert!(client.run("SET k 1").is_ok());
    assert_eq!(client.run("WAIT 2 0"), Value::Int(2), "no timeout is needed: they come");
    assert_eq!(client.run("WAIT 0 0"), Value::Int(2), "what is known, at once");
    cluster.freeze(others[0]);
    assert!(client.run("SET k 2").is_ok());
    assert_eq!(client.run("WAIT 1 0"), Value::Int(1), "the one that made the majority");
    let asked = Instant::now();
    assert_eq!(client.run("WAIT 2 200"), Value::Int(1));
    assert!(asked.elapsed() >= Duration::from_millis(200));
    // More replicas than there are: the timeout decides.
    assert_eq!(client.run("WAIT 9 50"), Value::Int(1));
    client.send(b"WAIT 2 0\r\n");
    cluster.thaw(others[0]);
    assert_eq!(client.reply(), Value::Int(2), "the other has caught up");
    // Whoever waits on a leader that is deposed is told so.
    others.iter().for_each(|place| cluster.freeze(*place));
    client.send(b"WAIT 9 0\r\n");
    assert!(client.reply().is_error("UNBLOCKED"));
    others.iter().for_each(|place| cluster.thaw(*place));
    cluster.wait_whole();
}

#[test]
fn leader_that_is_asked_to_stop_hands_over_first() {
    // An election without a hand-over would take at least ten seconds.
    let mut cluster = Cluster::start_with(&["--election-timeout", "10000"]);
    let leader = cluster.leader();
    let addresses: Vec<_> = (0..NODES).map(|place| cluster.address(place)).collect();
    let ended = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let longest = Mutex::new(Duration::ZERO);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (addresses, ended, written, longest) = (&addresses, &ended, &written, &longest);
            scope.spawn(move || {
                let mut address = addresses[leader];
                let mut client = Client::connect(address);
                let mut last = Instant::now();
                let mut number = 0;
                while !ended.load(Ordering::SeqCst) {
                    let reply = client.try_run(&format!("APPEND list:{writer} {number},"));
                    match reply.expect("a reply to every write") {
                        Value::Int(_) => {
                            number += 1;
                            written.fetch_add(1, Ordering::SeqCst);
                            let mut longest = longest.lock().expect("lock");
                            *longest = last.elapsed().max(*longest);
                            last = Instant::now();
                        }
                        redirection => {
                            address = moved(&redirection).1.parse().expect("an address");
                            client = Client::connect(address);
                        }
                    }
                }
                let list = client.run(&format!("GET list:{writer}")).text();
                let expected: String = (0..number).map(|number| format!("{number},")).collect();
                assert!(list == expected, "writer {writer}: something was lost or done twice");
            });
        }
        until("the load runs", || written.load(Ordering::SeqCst) > 100);
        assert_eq!(cluster.terminate(leader).code(), Some(0));
        let before = written.load(Ordering::SeqCst);
        until("the load runs on", || written.load(Ordering::SeqCst) > before + 100);
        ended.store(true, Ordering::SeqCst);
    });
    let longest = longest.into_inner().expect("lock");
    assert!(longest < Duration::from_secs(8), "nobody served for {longest:?}");
    cluster.restart(leader);
    cluster.wait_whole();
}

#[test]
fn cluster_commands_describe_the_real_nodes() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let mut client = cluster.client(leader);
    let names: Vec<String> = (0..NODES).map(|place| cluster.client(place).run("CLUSTER MYID").text()).collect();
    for place in 0..NODES {
        let mut client = cluster.client(place);
        let slots = client.run("CLUSTER SLOTS");
        let [range] = slots.items() else { panic!("one range: {slots}") };
        let range = range.items();
        assert_eq!((range[0].int(), range[1].int()), (0, 16383));
        let nodes: Vec<(i64, String)> =
            range[2..].iter().map(|node| (node.items()[1].int(), node.items()[2].text())).collect();
        let named = |place: usize| (i64::from(cluster.address(place).port()), names[place].clone());
        assert_eq!(nodes[0], named(leader), "the master first");
        let mut others: Vec<_> = cluster.others(leader).into_iter().map(named).collect();
        let mut replicas = nodes[1..].to_vec();
        others.sort();
        replicas.sort();
        assert_eq!(replicas, others);
        let lines = client.run("CLUSTER NODES").text();
        for (other, name) in names.iter().enumerate() {
            let line = lines.lines().find(|line| line.starts_with(name.as_str())).expect("a line for each node");
            let role = if other == leader { "master" } else { "slave" };
            let myself = if other == place { "myself," } else { "" };
            assert!(line.contains(&format!(" {myself}{role} ")), "{line}");
            assert!(line.contains(&format!(" {}@", cluster.address(other))), "{line}");
            assert_eq!(line.ends_with(" 0-16383"), other == leader, "{line}");
        }
        let shards = client.run("CLUSTER SHARDS").to_string();
        assert_eq!(shards.matches("\"online\"").count(), NODES, "{shards}");
        assert!(client.run("CLUSTER INFO").text().contains("cluster_state:ok"));
        assert!(client.run("CLUSTER INFO").text().contains("cluster_known_nodes:3"));
        until("two connections to and from each of the others", || {
            let links = client.run("CLUSTER LINKS").to_string();
            let toward = |direction: &str| links.matches(&format!("\"{direction}\"")).count();
            let named = |name: &String| links.matches(name.as_str()).count();
            let others: Vec<usize> =
                (0..NODES).filter(|other| *other != place).map(|other| named(&names[other])).collect();
            (toward("to"), toward("from")) == (4, 4) && others == [4, 4] && named(&names[place]) == 0
        });
        let info = client.run("CLUSTER INFO").text();
        for figure in ["messages_sent", "messages_received"] {
            assert!(!info.contains(&format!("cluster_stats_{figure}:0\r")), "{info}");
        }
    }
    for key in ["{tag}1", "{tag}2", "{tag}3", "other"] {
        assert!(client.run(&format!("SET {key} v")).is_ok());
    }
    let slot = client.run("CLUSTER KEYSLOT tag").int();
    assert_eq!(client.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), Value::Int(3));
    let keys = client.run(&format!("CLUSTER GETKEYSINSLOT {slot} 2"));
    assert!(keys.items().len() == 2 && keys.items().iter().all(|key| key.text().starts_with("{tag}")), "{keys}");
    cluster.wait_whole();
    let follower = cluster.others(leader)[0];
    let mut client = cluster.client(follower);
    // What the node has, whoever leads.
    until("the follower has applied all of it", || {
        client.run(&format!("CLUSTER COUNTKEYSINSLOT {slot}")) == Value::Int(3)
    });
    // A node that is gone is shown as that, and the map names the new leader.
    cluster.kill(leader);
    let next = cluster.leader();
    let mut client = cluster.client(next);
    until("the map names the new leader alone as master", || {
        let slots = client.run("CLUSTER SLOTS");
        let range = slots.items()[0].items();
        range[2].items()[1].int() == i64::from(cluster.address(next).port()) && range.len() == 4
    });
    let lines = client.run("CLUSTER NODES").text();
    let line = lines.lines().find(|line| line.starts_with(names[leader].as_str())).expect("a line");
    assert!(line.contains("fail") && line.contains("disconnected"), "{line}");
}

#[test]
fn node_with_new_ports_is_found_by_the_others() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    for place in [cluster.others(leader)[0], leader] {
        write_numbered(&mut cluster.client(cluster.leader()), 0..20);
        cluster.kill(place);
        cluster.leader();
        cluster.move_ports(place);
        cluster.restart(place);
        cluster.wait_whole();
        let (client, peer) = (cluster.address(place).to_string(), cluster.peer_address(place));
        until("everybody knows the new addresses", || {
            (0..NODES).all(|other| {
                let info = cluster.client(other).run("INFO cluster").text();
                info.contains(&format!("client={client},peer={peer},connected=1"))
            })
        });
        read_numbered(&mut cluster.client(cluster.leader()), 0..20);
    }
    // The new addresses are in the log: they hold when everybody starts anew.
    (0..NODES).for_each(|place| cluster.kill(place));
    (0..NODES).for_each(|place| cluster.restart(place));
    cluster.wait_whole();
    read_numbered(&mut cluster.client(cluster.leader()), 0..20);
}

#[test]
fn folder_with_data_does_not_join_and_weak_durability_is_no_cluster() {
    let dir = folder();
    let server = Server::start(dir.path());
    assert!(Client::connect(server.address).run("SET k v").is_ok());
    assert!(server.terminate().success());
    let with = |entry: &[&str], dir: &std::path::Path, flags: &[&str]| {
        let plain = command(dir);
        let mut whole = Command::new(plain.get_program());
        whole.env("HOLDFAST_PORT", "0").args(entry).args(plain.get_args()).args(flags);
        refused_command(whole)
    };
    let (code, text) = with(&["join", "127.0.0.1:1"], dir.path(), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("holds the data of a node that is alone"), "{text}");
    assert_eq!(Client::connect(Server::start(dir.path()).address).run("GET k").text(), "v", "nothing was touched");
    for durability in ["everysec", "no"] {
        let dir = folder();
        let (code, text) = with(&["init"], dir.path(), &["--durability", durability]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(durability) && text.contains("needs 'always'"), "{text}");
        // It is refused before the folder belongs to a cluster.
        assert!(Server::start(dir.path()).banner.lines().all(|line| !line.trim().starts_with("cluster")));
    }
}

#[test]
fn node_alone_becomes_the_first_of_a_cluster_with_its_data() {
    let dir = folder();
    let server = Server::start(dir.path());
    write_numbered(&mut Client::connect(server.address), 0..50);
    assert!(server.terminate().success());
    let with = |entry: &[&str], dir: &std::path::Path| {
        let plain = command(dir);
        let mut whole = Command::new(plain.get_program());
        whole.env("HOLDFAST_PORT", "0").args(entry).args(plain.get_args());
        Server::start_command(whole)
    };
    let first = with(&["init"], dir.path());
    read_numbered(&mut Client::connect(first.address), 0..50);
    let line = first.banner.lines().find(|line| line.trim().starts_with("cluster")).expect("a line").to_owned();
    let peer = line.rsplit(' ').next().expect("an address").to_owned();
    let dirs = [folder(), folder()];
    let others: Vec<Server> = dirs.iter().map(|dir| with(&["join", &peer], dir.path())).collect();
    for server in &others {
        let mut client = Client::connect(server.address);
        assert!(client.run("READONLY").is_ok());
        until("the newcomer has the data", || client.run("GET key:49") == Value::Bulk(b"value-49".to_vec()));
        read_numbered(&mut client, 0..50);
    }
}

#[test]
fn one_command_runs_three_nodes_and_starts_a_killed_one_again() {
    let dir = folder();
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Where no other test's nodes are, with the peers' ports 10,000 above.
    let base = (0..300)
        .map(|attempt: u32| 11_000 + (std::process::id() * 3 + attempt * 3) as u16 % 900)
        .find(|base| (0..NODES as u16).all(|place| free(base + place) && free(base + place + 10_000)));
    let base = base.expect("free ports");
    let plain = command(dir.path());
    let mut whole = Command::new(plain.get_program());
    whole.args(["cluster", "--nodes", "3", "--base-port", &base.to_string()]).args(plain.get_args());
    let mut child = whole.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("spawn");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let pids = Mutex::new(Vec::<(usize, String)>::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for line in lines.map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                if let ["[cluster]", "node", number, "is", "process", pid] = words[..] {
                    let place = number.parse::<usize>().expect("a number") - 1;
                    pids.lock().expect("lock").push((place, pid.to_owned()));
                }
            }
        });
        let address = |place: usize| std::net::SocketAddr::from(([127, 0, 0, 1], base + place as u16));
        let info = |place: usize| {
            let mut client = Client::try_connect(address(place), Duration::from_secs(1)).ok()?;
            Some(client.try_run("INFO cluster").ok()?.text())
        };
        let whole = |place: usize| {
            info(place).is_some_and(|info| info.contains("voters=1+2+3") && info.matches("connected=1").count() == 3)
        };
        until("three nodes are a cluster", || (0..NODES).all(whole));
        let leader = (0..NODES).find(|place| info(*place).is_some_and(|info| info.contains("role=leader")));
        let leader = leader.expect("a leader");
        assert!(Client::connect(address(leader)).run("SET k v").is_ok());
        let pid = pids.lock().expect("lock").iter().find(|(place, _)| *place == leader).expect("its line").1.clone();
        assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
        until("the killed node is started again", || {
            pids.lock().expect("lock").iter().filter(|(place, _)| *place == leader).count() == 2
        });
        until("three nodes are a cluster again", || (0..NODES).all(whole));
        let leader = (0..NODES).find(|place| info(*place).is_some_and(|info| info.contains("role=leader")));
        assert_eq!(Client::connect(address(leader.expect("a leader"))).run("GET k").text(), "v");
        let own = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &own]).status().expect("kill").success());
        assert!(common::wait(&mut child).success());
    });
}
