//! Nodes that are not what they were: folders that were rolled back or copied, settings that don't go together. Built servers, real
//! processes.

mod common;

use bytes::Bytes;
use common::cluster::{Cluster, until};
use common::resp::{Client, Value};
use common::{PATIENCE, Server, command};
use holdfast_engine::ledger::Ledger;
use holdfast_engine::table::{Object, Tables, TablesOptions};
use holdfast_engine::vfs::OsVfs;
use holdfast_server::replica::DATA_GROUP;
use holdfast_server::slot::key_ref;
use std::path::Path;
use std::sync::Arc;

/// How long a node that could disturb is given for it: several election timeouts.
const DISTURBANCE: std::time::Duration = std::time::Duration::from_secs(3);

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in from.read_dir().expect("readable") {
        let entry = entry.expect("readable");
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied")),
        }
    }
}

fn said(cluster: &Cluster, place: usize) -> String {
    std::fs::read_to_string(cluster.log(place)).expect("what it logged")
}

/// Waits until a node knows that it takes part no more.
fn until_parted(cluster: &Cluster, place: usize) {
    until("the node takes part no more", || {
        let Ok(mut client) = Client::try_connect(cluster.address(place), PATIENCE) else { return false };
        client.try_run("GET k").is_ok_and(|reply| reply.is_error("CLUSTERDOWN This node lost what it had promised"))
    });
    let mut client = cluster.client(place);
    assert!(client.run("READONLY").is_ok());
    for line in ["GET k", "SET k v", "HOLDFAST NODES", "HOLDFAST TRANSFER-LEADER"] {
        assert!(client.run(line).is_error("CLUSTERDOWN This node lost"), "{line}");
    }
}

#[test]
fn rolled_back_folder_is_found_out_and_takes_part_no_more() {
    let mut cluster = Cluster::start();
    assert!(cluster.run("SET k before").is_ok());
    let victim = cluster.others(cluster.leader())[0];
    cluster.kill(victim);
    let backup = cluster.dir(victim).with_extension("backup");
    copy(&cluster.dir(victim), &backup);
    cluster.restart(victim);
    cluster.wait_whole();
    assert!(cluster.run("SET k after").is_ok());
    cluster.kill(victim);
    // The backup is put back. Its next start has the number of one that the others saw, and is another.
    std::fs::remove_dir_all(cluster.dir(victim)).expect("removed");
    copy(&backup, &cluster.dir(victim));
    cluster.restart(victim);
    until_parted(&cluster, victim);
    let text = said(&cluster, victim);
    for part in ["its data folder is a copy", "remove its data folder", "holdfast join", "kvctl node remove"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // The others go on, tell it of them, and a restart changes nothing.
    assert!(cluster.run("SET k later").is_ok());
    let term = cluster.standing(cluster.leader()).expect("it leads").term;
    for _ in 0..3 {
        cluster.terminate(victim);
        cluster.restart(victim);
        until_parted(&cluster, victim);
    }
    std::thread::sleep(DISTURBANCE);
    assert_eq!(cluster.standing(cluster.leader()).expect("it leads").term, term, "it disturbs nobody");
    assert!(cluster.others(victim).into_iter().any(|place| said(&cluster, place).contains("was turned away")));
    // Another takes its place.
    let newcomer = cluster.add(cluster.leader());
    assert_eq!(cluster.run(&format!("HOLDFAST REMOVE-NODE {}", victim + 1)).int(), 1);
    cluster.forget(victim);
    cluster.wait_whole();
    let mut client = cluster.client(newcomer);
    assert!(client.run("READONLY").is_ok());
    until("the newcomer has the data", || client.run("GET k").text() == "later");
}

#[test]
fn rolled_back_folder_is_found_out_by_nodes_that_never_met_the_start_that_it_lacks() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let (victim, other) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    cluster.kill(victim);
    let backup = cluster.dir(victim).with_extension("backup");
    copy(&cluster.dir(victim), &backup);
    // While it has its next start, one of the others is away; that one learns of it from the log.
    cluster.kill(other);
    cluster.restart(victim);
    until("the two lead on", || {
        cluster.leader_now().is_some_and(|place| cluster.standing(place).is_some_and(|s| s.connected >= 2))
    });
    assert!(cluster.run("SET k v").is_ok());
    let boot = || {
        let nodes = cluster.run("HOLDFAST NODES");
        let node =
            nodes.items().iter().find(|node| node.items()[1].int() == victim as i64 + 1).expect("listed").clone();
        let at = node.items().iter().position(|item| *item == Value::Bulk(b"boot".to_vec())).expect("a field");
        node.items()[at + 1].clone()
    };
    until("its second start is registered", || boot() == Value::Int(2));
    cluster.kill(victim);
    cluster.restart(other);
    until("the other has caught up", || {
        let leader = cluster.leader_now().and_then(|place| cluster.standing(place));
        leader.is_some_and(|leader| cluster.standing(other).is_some_and(|other| other.applied >= leader.commit))
    });
    // Whoever met that start is away now.
    let met = cluster.others(victim).into_iter().find(|place| *place != other).expect("a third");
    cluster.kill(met);
    std::fs::remove_dir_all(cluster.dir(victim)).expect("removed");
    copy(&backup, &cluster.dir(victim));
    cluster.restart(victim);
    until_parted(&cluster, victim);
    cluster.restart(met);
    assert_eq!(cluster.run("GET k").text(), "v");
}

#[test]
fn two_copies_of_a_folder_are_not_both_heard() {
    let mut cluster = Cluster::start();
    assert!(cluster.run("SET k v").is_ok());
    let twin = cluster.others(cluster.leader())[0];
    cluster.terminate(twin);
    let second = cluster.dir(twin).with_extension("second");
    copy(&cluster.dir(twin), &second);
    cluster.restart(twin);
    cluster.wait_whole();
    // The second, with the same number, elsewhere.
    let mut other = command(&second);
    other.env("HOLDFAST_PORT", "0");
    let other = Server::start_command(other);
    until("the second copy is turned away", || {
        let Ok(mut client) = Client::try_connect(other.address, PATIENCE) else { return false };
        client.try_run("GET k").is_ok_and(|reply| reply.is_error("CLUSTERDOWN This node lost what it had promised"))
    });
    cluster.wait_whole();
    assert!(cluster.run("SET k w").is_ok());
}

/// Puts a row into a node's store that no log knows of, as a bug or a bad memory module might.
fn put_row_of_nobody(cluster: &Cluster, place: usize, key: &[u8]) {
    let dir = cluster.dir(place).join("table");
    let tables =
        Tables::open(OsVfs::shared(), TablesOptions::new(dir), Arc::new(Ledger::new(1 << 28))).expect("the store");
    let mut table = tables.table(DATA_GROUP).expect("the table");
    let applied = table.applied().index;
    assert!(applied > 1, "what was applied is in the store");
    table.put(key_ref(key), Object::string(Bytes::from_static(b"nobody wrote this")));
    table.request_flush();
    table.maintain(1, applied).expect("flushed");
    tables.wait_idle().expect("flushed");
    table.maintain(1, applied).expect("flushed");
    tables.close().expect("closed");
}

/// What HOLDFAST VERIFY finds out about each node.
fn verify(cluster: &Cluster) -> Vec<String> {
    let report = cluster.run("HOLDFAST VERIFY");
    report.items()[5].items().chunks(2).map(|pair| pair[1].text()).collect()
}

fn figure(cluster: &Cluster, place: usize, name: &str) -> u64 {
    let Ok(mut client) = Client::try_connect(cluster.address(place), PATIENCE) else { return 0 };
    let info = client.try_run("INFO state").map(|reply| reply.text()).unwrap_or_default();
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.parse().ok()).unwrap_or(0)
}

/// What a node knows of a key, whoever leads.
fn known(cluster: &Cluster, place: usize, key: &str) -> Value {
    let mut client = cluster.client(place);
    assert!(client.run("READONLY").is_ok());
    client.run(&format!("GET {key}"))
}

#[test]
fn follower_whose_state_differs_is_reported_and_rebuilt_when_asked() {
    let mut cluster = Cluster::start_with(&["--state-check-interval", "0"]);
    for number in 0..200 {
        assert!(cluster.run(&format!("SET key:{number} {number} EX 1000")).is_ok());
    }
    assert_eq!(verify(&cluster), ["equal"; 3]);
    let victim = *cluster.others(cluster.leader()).last().expect("a follower");
    assert!(cluster.terminate(victim).success());
    put_row_of_nobody(&cluster, victim, b"odd");
    assert!(cluster.run("SET key:7 seven").is_ok());
    cluster.restart(victim);
    cluster.wait_whole();
    assert_eq!(known(&cluster, victim, "odd").text(), "nobody wrote this");
    let found = verify(&cluster);
    assert_eq!(found[victim], "differs", "{found:?}, victim {victim}\n{}", said(&cluster, victim));
    assert_eq!(found.iter().filter(|finding| *finding == "differs").count(), 1, "{found:?}");
    until("it is rebuilt", || figure(&cluster, victim, "state_rebuilds") == 1);
    cluster.wait_whole();
    for text in ["state of this replica differs", "was rebuilt"] {
        assert!(said(&cluster, victim).contains(text), "{text}");
    }
    // Whoever came late with its hash is named a moment later.
    for place in 0..3 {
        until("every node names it", || {
            said(&cluster, place).contains("nodes hold another state than the majority")
                && figure(&cluster, place, "state_check_differing") == 1
        });
    }
    until("the row is gone", || known(&cluster, victim, "odd") == Value::NullBulk);
    assert_eq!(known(&cluster, victim, "key:7").text(), "seven");
    assert_eq!(verify(&cluster), ["equal"; 3]);
}

#[test]
fn leader_whose_state_differs_hands_over_and_is_rebuilt_by_itself() {
    let mut cluster = Cluster::start();
    assert!(cluster.run("SET k v").is_ok());
    let victim = 2;
    assert!(cluster.terminate(victim).success());
    put_row_of_nobody(&cluster, victim, b"odd");
    cluster.restart(victim);
    cluster.wait_whole();
    // A busy machine may need more than one attempt.
    let transfer = format!("HOLDFAST TRANSFER-LEADER {}", victim + 1);
    until("it leads", || cluster.run(&transfer) == Value::Int(victim as i64 + 1));
    assert_eq!(cluster.run("GET odd").text(), "nobody wrote this");
    // Whoever asks is told that the leader changed, and asks the next.
    let mut found = Vec::new();
    until("all are equal again", || {
        found = verify(&cluster);
        found == ["equal"; 3]
    });
    assert_eq!(cluster.run("GET odd"), Value::NullBulk);
    assert_eq!(cluster.run("GET k").text(), "v");
    assert_eq!(figure(&cluster, victim, "state_rebuilds"), 1);
    // With an interval nobody needs to ask.
    assert!(cluster.terminate(victim).success());
    put_row_of_nobody(&cluster, victim, b"odd");
    for place in cluster.others(victim) {
        cluster.terminate(place);
    }
    (0..3).for_each(|place| cluster.restart_with(place, &["--state-check-interval", "1"]));
    until("it is rebuilt unasked", || figure(&cluster, victim, "state_rebuilds") == 1);
    assert_eq!(cluster.run("GET odd"), Value::NullBulk);
}

#[test]
fn node_whose_election_timeout_makes_leases_unsafe_is_refused_until_it_is_mended() {
    let mut cluster = Cluster::start();
    let odd = cluster.others(cluster.leader())[0];
    cluster.kill(odd);
    cluster.restart_with(odd, &["--election-timeout", "3000"]);
    until("it is told why", || said(&cluster, odd).contains("set election-timeout to the same on all nodes"));
    assert!(cluster.run("SET k v").is_ok(), "the others go on");
    cluster.kill(odd);
    cluster.restart(odd);
    cluster.wait_whole();
    // Where nobody counts on leases, they may differ.
    for place in 0..3 {
        cluster.kill(place);
    }
    for (place, timeout) in ["500", "700", "900"].iter().enumerate() {
        cluster.restart_with(place, &["--reads", "quorum", "--election-timeout", timeout]);
    }
    cluster.wait_whole();
    assert_eq!(cluster.run("GET k").text(), "v");
}
