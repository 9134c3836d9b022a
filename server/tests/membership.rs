//! Who belongs to the cluster and who leads it, changed from the outside while clients go on: built servers, real processes.

mod common;

use common::cluster::{Cluster, is_elsewhere, until};
use common::resp::{Client, Value};
use common::{PATIENCE, Server, folder};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a node that could disturb is given for it: several election timeouts.
const DISTURBANCE: Duration = Duration::from_secs(4);

/// The number of the node at a place.
fn number(place: usize) -> u64 {
    place as u64 + 1
}

fn remove(cluster: &Cluster, place: usize) -> Value {
    cluster.run(&format!("HOLDFAST REMOVE-NODE {}", number(place)))
}

/// What HOLDFAST NODES says: for each node its fields by name.
fn nodes(cluster: &Cluster) -> Vec<Vec<(String, Value)>> {
    let reply = cluster.run("HOLDFAST NODES");
    let pairs = |node: &Value| {
        node.items().chunks(2).map(|pair| (pair[0].text(), pair[1].clone())).collect::<Vec<(String, Value)>>()
    };
    reply.items().iter().map(pairs).collect()
}

fn field(node: &[(String, Value)], name: &str) -> Value {
    node.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect(name)
}

fn numbers(cluster: &Cluster) -> Vec<i64> {
    nodes(cluster).iter().map(|node| field(node, "id").int()).collect()
}

/// Waits until a removed node knows that it was, and serves nobody.
fn until_retired(cluster: &Cluster, place: usize) {
    until("the removed node knows it", || {
        let Ok(mut client) = Client::try_connect(cluster.address(place), PATIENCE) else { return false };
        client.try_run("GET k").is_ok_and(|reply| reply.is_error("CLUSTERDOWN This node was removed"))
    });
    let mut client = cluster.client(place);
    for line in ["SET k v", "DBSIZE", "FLUSHALL", "HOLDFAST NODES", "HOLDFAST TRANSFER-LEADER"] {
        assert!(client.run(line).is_error("CLUSTERDOWN This node was removed"), "{line}");
    }
    assert!(client.run("READONLY").is_ok());
    assert!(client.run("GET k").is_error("CLUSTERDOWN"), "what it has is of no use any more");
    assert!(client.run("PING") == Value::Simple("PONG".into()));
    let said = std::fs::read_to_string(cluster.log(place)).expect("what it logged");
    assert!(said.contains("was removed from its cluster"), "{said}");
}

/// Clients that append to lists of their own, and go where they are told; each list must hold what was acknowledged, once.
struct Load {
    addresses: Mutex<Vec<SocketAddr>>,
    ended: AtomicBool,
    written: AtomicU64,
    /// Connections that ended with an answer outstanding.
    lost: AtomicU64,
}

impl Load {
    fn new(cluster: &Cluster) -> Load {
        let addresses = cluster.places().into_iter().map(|place| cluster.address(place)).collect();
        Load {
            addresses: Mutex::new(addresses),
            ended: AtomicBool::new(false),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    fn any_address(&self, turn: usize) -> SocketAddr {
        let addresses = self.addresses.lock().expect("lock");
        addresses[turn % addresses.len()]
    }

    /// Waits until so many more are written.
    fn goes_on(&self, more: u64) {
        let before = self.written.load(Ordering::SeqCst);
        until("the load goes on", || self.written.load(Ordering::SeqCst) >= before + more);
    }

    fn write(&self, writer: usize) {
        let mut turn = writer;
        let mut client: Option<Client> = None;
        let mut number = 0;
        let mut uncertain = false;
        let check = |client: &mut Client, number: u64| {
            let list = client.try_run(&format!("GET list:{writer}")).ok()?;
            let expected: String = (0..number).map(|number| format!("{number},")).collect();
            match list {
                Value::Bulk(bytes) => Some(String::from_utf8(bytes).expect("text") == expected),
                Value::NullBulk => Some(expected.is_empty()),
                _ => None,
            }
        };
        loop {
            turn += 1;
            let Some(open) = &mut client else {
                client = Client::try_connect(self.any_address(turn), PATIENCE).ok();
                continue;
            };
            if uncertain {
                // Look whether the last one was done before going on.
                match (check(open, number), check(open, number + 1)) {
                    (Some(true), _) => uncertain = false,
                    (_, Some(true)) => (uncertain, number) = (false, number + 1),
                    (Some(false), Some(false)) => panic!("writer {writer}: something was lost or done twice"),
                    _ => client = None,
                }
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            if self.ended.load(Ordering::SeqCst) {
                match check(open, number) {
                    Some(right) => break assert!(right, "writer {writer}: something was lost or done twice"),
                    None => client = None,
                }
                continue;
            }
            match open.try_run(&format!("APPEND list:{writer} {number},")) {
                Ok(Value::Int(_)) => {
                    number += 1;
                    self.written.fetch_add(1, Ordering::SeqCst);
                    // Light: the processor is for the servers.
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(Value::Error(text)) if text.starts_with("MOVED") => {
                    let address = text.rsplit(' ').next().and_then(|address| address.parse().ok());
                    client = Client::try_connect(address.expect("an address"), PATIENCE).ok();
                }
                Ok(reply) => {
                    assert!(is_elsewhere(&reply), "{reply}");
                    client = None;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(_) => {
                    self.lost.fetch_add(1, Ordering::SeqCst);
                    uncertain = true;
                    client = None;
                }
            }
        }
    }
}

/// Ends the writers when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// For what must lose no write: elections that come of a busy machine alone would cost some.
const PATIENT: &[&str] = &["--election-timeout", "3000"];

/// Runs a load beside something.
fn under_load(cluster: &mut Cluster, act: impl FnOnce(&mut Cluster, &Load)) {
    let load = Load::new(cluster);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let load = &load;
            scope.spawn(move || load.write(writer));
        }
        // Whatever happens here, the writers end.
        let _end = End(&load.ended);
        load.goes_on(30);
        act(cluster, &load);
        load.goes_on(30);
    });
    assert_eq!(load.lost.load(Ordering::SeqCst), 0, "every write got an answer");
}

#[test]
fn removed_follower_is_gone_and_does_not_disturb_when_it_comes_back() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let mut client = cluster.client(leader);
    assert!(client.run("SET k v").is_ok());
    assert_eq!(client.run(&format!("HOLDFAST REMOVE-NODE {}", number(follower))), Value::Int(1));
    cluster.forget(follower);
    assert_eq!(client.run(&format!("HOLDFAST REMOVE-NODE {}", number(follower))), Value::Int(0), "it was gone");
    assert_eq!(numbers(&cluster), cluster.places().iter().map(|place| number(*place) as i64).collect::<Vec<_>>());
    cluster.wait_whole();
    until_retired(&cluster, follower);
    let term = cluster.standing(leader).expect("it runs").term;
    for crash in [false, true] {
        // Once as it is, once started anew.
        if crash {
            cluster.kill(follower);
            cluster.restart(follower);
            until_retired(&cluster, follower);
        }
        let since = Instant::now();
        while since.elapsed() < DISTURBANCE / 2 {
            assert!(client.run("SET k v").is_ok());
            assert_eq!(client.run("GET k").text(), "v");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(cluster.standing(leader).expect("it runs").term, term, "nobody stood for election");
    // Of the two that are left, both are needed.
    let other = cluster.others(leader)[0];
    cluster.freeze(other);
    until("the leader notices that it is alone", || cluster.leader_now().is_none());
    cluster.thaw(other);
    cluster.wait_whole();
    assert_eq!(cluster.run("GET k").text(), "v");
}

#[test]
fn node_that_was_down_while_it_was_removed_finds_out() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    // The newest number, which none is above.
    let place = if leader == 2 { 1 } else { 2 };
    cluster.kill(place);
    assert_eq!(remove(&cluster, place), Value::Int(1));
    cluster.forget(place);
    cluster.wait_whole();
    let term = cluster.standing(leader).expect("it runs").term;
    cluster.restart(place);
    until_retired(&cluster, place);
    assert_eq!(cluster.standing(leader).expect("it runs").term, term);
    // With an empty folder the machine comes back, as another node.
    let added = cluster.add(leader);
    cluster.wait_whole();
    assert_eq!(numbers(&cluster).last(), Some(&(number(added) as i64)));
}

#[test]
fn leader_hands_over_before_it_is_removed() {
    let mut cluster = Cluster::start_with(PATIENT);
    let leader = cluster.leader();
    under_load(&mut cluster, |cluster, _| {
        let reply = cluster.client(leader).run(&format!("HOLDFAST REMOVE-NODE {}", number(leader)));
        assert!(reply.is_error("MOVED 0 127.0.0.1:"), "{reply}");
        assert_eq!(remove(cluster, leader), Value::Int(1));
        cluster.forget(leader);
    });
    cluster.wait_whole();
    until_retired(&cluster, leader);
    assert_ne!(cluster.leader(), leader);
}

#[test]
fn all_nodes_are_replaced_one_after_the_other_under_load() {
    let mut cluster = Cluster::start_with(PATIENT);
    under_load(&mut cluster, |cluster, load| {
        for old in 0..3 {
            let new = cluster.add(cluster.leader());
            until("the newcomer has a vote", || {
                let votes = |node: &Vec<(String, Value)>| {
                    field(node, "id").int() == number(new) as i64 && field(node, "votes") == Value::Int(1)
                };
                nodes(cluster).iter().any(votes)
            });
            load.addresses.lock().expect("lock").push(cluster.address(new));
            assert!(matches!(remove(cluster, old), Value::Int(0 | 1)));
            cluster.forget(old);
            load.addresses.lock().expect("lock").remove(0);
            load.goes_on(30);
            until_retired(cluster, old);
            cluster.kill(old);
        }
    });
    cluster.wait_whole();
    assert_eq!(numbers(&cluster), [4, 5, 6]);
    // They have all of it by themselves.
    (3..6).for_each(|place| cluster.kill(place));
    (3..6).for_each(|place| cluster.restart(place));
    cluster.wait_whole();
    assert_eq!(cluster.run("DBSIZE"), Value::Int(3));
}

#[test]
fn removal_that_its_leader_did_not_live_to_see_is_completed_when_asked_again() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    let mut client = cluster.client(leader);
    client.send(format!("HOLDFAST REMOVE-NODE {}\r\n", number(follower)).as_bytes());
    cluster.kill(leader);
    cluster.restart(leader);
    assert!(matches!(remove(&cluster, follower), Value::Int(0 | 1)));
    cluster.forget(follower);
    cluster.wait_whole();
    until_retired(&cluster, follower);
}

#[test]
fn removals_that_would_cost_the_quorum_are_refused() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let (dead, alive) = (cluster.others(leader)[0], cluster.others(leader)[1]);
    let mut client = cluster.client(leader);
    assert!(client.run("HOLDFAST REMOVE-NODE 9").is_error("ERR there is no node 9"));
    assert!(client.run("HOLDFAST REMOVE-NODE 0").is_error("ERR there is no node 0"));
    assert!(client.run("HOLDFAST REMOVE-NODE x").is_error("ERR value is not an integer"));
    assert!(client.run("HOLDFAST TRANSFER-LEADER 9").is_error("ERR there is no node 9"));
    assert!(client.run("HOLDFAST TRANSFER-LEADER 1 2").is_error("ERR syntax error"));
    cluster.kill(dead);
    until("the leader misses the dead node", || {
        let list = nodes(&cluster);
        let node = list.iter().find(|node| field(node, "id").int() == number(dead) as i64).expect("it is listed");
        field(node, "reachable") == Value::Int(0)
    });
    let reply = client.run(&format!("HOLDFAST REMOVE-NODE {}", number(alive)));
    assert!(reply.is_error(&format!("ERR without node {} no majority", number(alive))), "{reply}");
    let reply = client.run(&format!("HOLDFAST REMOVE-NODE {}", number(leader)));
    assert!(reply.is_error(&format!("ERR without node {} no majority", number(leader))), "{reply}");
    let reply = client.run(&format!("HOLDFAST TRANSFER-LEADER {}", number(dead)));
    assert!(reply.is_error(&format!("ERR node {} does not answer", number(dead))), "{reply}");
    assert_eq!(numbers(&cluster).len(), 3, "nothing was changed");
    // The dead one is what can go; and then, one by one, all but the last.
    assert_eq!(client.run(&format!("HOLDFAST REMOVE-NODE {}", number(dead))), Value::Int(1));
    cluster.forget(dead);
    assert_eq!(client.run(&format!("HOLDFAST REMOVE-NODE {}", number(alive))), Value::Int(1));
    cluster.forget(alive);
    assert!(client.run("SET k v").is_ok(), "it decides alone");
    let reply = client.run(&format!("HOLDFAST REMOVE-NODE {}", number(leader)));
    assert!(reply.is_error(&format!("ERR node {} is the only one with a vote", number(leader))), "{reply}");
    let reply = client.run("HOLDFAST TRANSFER-LEADER");
    assert!(reply.is_error("ERR no other node with a vote answers"), "{reply}");
    cluster.add(leader);
    cluster.wait_whole();
}

#[test]
fn leadership_goes_where_it_is_sent_and_no_write_is_lost() {
    let mut cluster = Cluster::start_with(PATIENT);
    under_load(&mut cluster, |cluster, load| {
        for round in 0..3 {
            let leader = cluster.leader();
            let target = cluster.others(leader)[round % 2];
            let reply = cluster.client(leader).run(&format!("HOLDFAST TRANSFER-LEADER {}", number(target)));
            assert_eq!(reply, Value::Int(number(target) as i64));
            load.goes_on(20);
        }
        let leader = cluster.leader();
        let reply = cluster.client(leader).run("HOLDFAST TRANSFER-LEADER");
        assert!(cluster.others(leader).iter().any(|place| reply == Value::Int(number(*place) as i64)), "{reply}");
        // Whom it is sent to, leads already.
        let leader = cluster.leader();
        let reply = cluster.client(leader).run(&format!("HOLDFAST TRANSFER-LEADER {}", number(leader)));
        assert_eq!(reply, Value::Int(number(leader) as i64));
    });
    let follower = cluster.others(cluster.leader())[0];
    let mut client = cluster.client(follower);
    assert!(client.run("HOLDFAST NODES").is_error("MOVED"));
    assert!(client.run("READONLY").is_ok());
    assert_eq!(client.run("HOLDFAST NODES").items().len(), 3, "what a follower knows");
}

#[test]
fn node_alone_has_no_nodes_to_change() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for line in ["HOLDFAST NODES", "HOLDFAST REMOVE-NODE 1", "HOLDFAST TRANSFER-LEADER"] {
        assert!(client.run(line).is_error("ERR This instance has cluster support disabled"), "{line}");
    }
    assert!(client.run("HOLDFAST HELP").to_string().contains("REMOVE-NODE"));
}

#[test]
fn node_with_another_name_is_found_under_it() {
    let mut cluster = Cluster::start();
    let place = cluster.others(cluster.leader())[0];
    assert!(cluster.terminate(place).success());
    cluster.restart_with(place, &["--announce-host", "localhost"]);
    cluster.wait_whole();
    let port = cluster.address(place).port();
    let address = |place: usize| {
        let nodes = nodes(&cluster);
        let node = nodes.iter().find(|node| field(node, "id").int() == number(place) as i64).expect("listed");
        (field(node, "client").text(), field(node, "peer").text())
    };
    until("the list has the new name", || address(place).0 == format!("localhost:{port}"));
    assert!(address(place).1.starts_with("localhost:"));
    // The list is one for all, and clients are sent there.
    for other in cluster.others(place) {
        let info = || cluster.client(other).run("INFO cluster").text();
        until("every node knows it", || info().contains(&format!("client=localhost:{port}")));
    }
    // A busy machine may need more than one attempt.
    let transfer = format!("HOLDFAST TRANSFER-LEADER {}", number(place));
    until("it leads", || cluster.run(&transfer) == Value::Int(number(place) as i64));
    let follower = cluster.others(place)[0];
    until("clients are sent to the new name", || {
        let Value::Error(text) = cluster.client(follower).run("SET k v") else { return false };
        text.ends_with(&format!(" localhost:{port}"))
    });
}
