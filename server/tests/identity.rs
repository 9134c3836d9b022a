//! Nodes that are not what they were: folders that were rolled back or copied, settings that don't go together. Built servers, real
//! processes.

mod common;

use common::cluster::{Cluster, until};
use common::resp::{Client, Value};
use common::{PATIENCE, Server, command};
use std::path::Path;

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
    for part in ["its data folder is a copy", "remove its data folder", "holdfast join", "kvctl node replace"] {
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
