//! The built `kvctl` against several servers in this process that play a cluster: whom does it ask, and how long does it try?

#![allow(clippy::unwrap_used)]

mod fake;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fake::{Action, FakeServer, line};
use serde_json::{Value as Json, json};

fn kvctl(seeds: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    command.args(["--addr", seeds]).args(arguments).stdin(Stdio::null());
    for name in ["KVCTL_ADDR", "HOLDFAST_ADDR", "KVCTL_PASSWORD", "HOLDFAST_PASSWORD", "KVCTL_USER"] {
        command.env_remove(name);
    }
    command
}

fn texts(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run(seeds: impl ToString, arguments: &[&str]) -> (i32, String, String) {
    texts(kvctl(&seeds.to_string(), arguments).output().unwrap())
}

fn reply(text: impl Into<String>) -> Option<Action> {
    Some(Action::Reply(text.into().into_bytes()))
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A node that sends everybody to another one, whose address may be set later.
fn follower_of(leader: Arc<OnceLock<SocketAddr>>) -> FakeServer {
    FakeServer::start(move |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ => reply(format!("-MOVED 12182 {}\r\n", leader.get()?)),
    })
}

fn known(address: SocketAddr) -> Arc<OnceLock<SocketAddr>> {
    Arc::new(OnceLock::from(address))
}

#[test]
fn leader_is_found_from_any_node_and_remembered() {
    let leader = FakeServer::answering(&[
        ("SCAN 0 COUNT 1000", "*2\r\n$1\r\n7\r\n*1\r\n$1\r\na\r\n"),
        ("SCAN 7 COUNT 1000", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n"),
    ]);
    let follower = follower_of(known(leader.address));
    assert_eq!(run(follower.address, &["scan"]), (0, "a\nb\n".into(), "".into()));
    assert_eq!(follower.lines().len(), 1, "once it is known, the leader is asked at once");
}

#[test]
fn chain_of_redirections_is_followed() {
    let leader = FakeServer::answering(&[("SET foo bar", "+OK\r\n")]);
    let second = follower_of(known(leader.address));
    let first = follower_of(known(second.address));
    assert_eq!(run(first.address, &["set", "foo", "bar"]), (0, "OK\n".into(), "".into()));
    assert_eq!(leader.lines(), ["SET foo bar"]);
}

#[test]
fn nodes_that_point_at_each_other_are_given_up() {
    let other = Arc::new(OnceLock::new());
    let first = follower_of(other.clone());
    let second = follower_of(known(first.address));
    other.set(second.address).unwrap();
    let (code, _, error) = run(first.address, &["--json", "set", "foo", "bar"]);
    assert_eq!(code, 4, "{error}");
    let error: Json = serde_json::from_str(&error).unwrap();
    assert_eq!((&error["error"]["kind"], &error["error"]["outcome"]), (&json!("redirected"), &json!("not executed")));
    assert!(first.lines().len() + second.lines().len() < 20);
}

#[test]
fn node_that_is_down_is_passed_over() {
    let leader = FakeServer::answering(&[("GET k", "$1\r\nv\r\n")]);
    let seeds = format!("{},{}", nobody(), leader.address);
    assert_eq!(run(&seeds, &["get", "k"]), (0, "v".into(), "".into()));
    // Given one by one, and by the other name.
    let repeated = ["--server", &leader.address.to_string(), "get", "k"];
    assert_eq!(run(nobody(), &repeated), (0, "v".into(), "".into()));
    let mut command = kvctl("", &[]);
    command = Command::new(command.get_program());
    command.args(["get", "k"]).env_remove("KVCTL_ADDR").env("HOLDFAST_ADDR", &seeds);
    assert_eq!(texts(command.output().unwrap()), (0, "v".into(), "".into()));
    assert_eq!(run(format!("{},", leader.address), &["get", "k"]).0, 2, "an empty address is a mistake");
}

#[test]
fn leader_that_is_not_up_yet_is_tried_again() {
    let leader = nobody();
    let asked = AtomicUsize::new(0);
    let follower = FakeServer::start(move |_, words| {
        if words[0] == b"HELLO" {
            return None;
        }
        // Later than any number of redirections that would be a loop.
        if asked.fetch_add(1, SeqCst) == 9 {
            let listener = TcpListener::bind(leader).unwrap();
            FakeServer::serve(listener, |_, words| {
                (line(words) == "SET k v").then(|| Action::Reply(b"+OK\r\n".to_vec()))
            });
        }
        reply(format!("-MOVED 1 {leader}\r\n"))
    });
    assert_eq!(run(follower.address, &["set", "k", "v"]), (0, "OK\n".into(), "".into()));
    assert!(follower.lines().len() >= 10);
}

#[test]
fn election_is_waited_for() {
    let asked = AtomicUsize::new(0);
    let server = FakeServer::start(move |_, words| match words[0].as_slice() {
        b"SET" if asked.fetch_add(1, SeqCst) < 3 => reply("-CLUSTERDOWN The cluster is down\r\n"),
        b"SET" => reply("+OK\r\n"),
        _ => None,
    });
    assert_eq!(run(server.address, &["set", "k", "v"]), (0, "OK\n".into(), "".into()));
}

#[test]
fn node_that_is_cut_off_leads_to_the_others() {
    let leader = FakeServer::answering(&[("SET k v", "+OK\r\n")]);
    let port = leader.address.port();
    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$1\r\nx\r\n*0\r\n");
    let cut_off = FakeServer::start(move |_, words| match words[0].as_slice() {
        b"SET" => reply("-CLUSTERDOWN The cluster is down\r\n"),
        b"CLUSTER" => reply(slots.clone()),
        _ => None,
    });
    assert_eq!(run(cut_off.address, &["set", "k", "v"]), (0, "OK\n".into(), "".into()));
    assert_eq!(cut_off.lines(), ["SET k v", "CLUSTER SLOTS"]);
}

#[test]
fn patience_ends_with_the_timeout() {
    let server =
        FakeServer::start(|_, words| (words[0] == b"GET").then(|| Action::Reply(b"-CLUSTERDOWN x\r\n".to_vec())));
    let start = Instant::now();
    let (code, _, error) = run(server.address, &["--timeout", "300ms", "get", "k"]);
    assert_eq!((code, error.as_str()), (1, "kvctl: CLUSTERDOWN x\n"));
    assert!(start.elapsed() < Duration::from_secs(5));
    let (code, _, error) = run(format!("{},{}", nobody(), nobody()), &["--timeout", "300ms", "get", "k"]);
    assert_eq!(code, 4, "{error}");
}

#[test]
fn write_of_unknown_outcome_is_sent_to_nobody_else() {
    let leader = FakeServer::start(|_, words| (words[0] == b"INCRBY").then_some(Action::Close));
    let other = FakeServer::answering(&[("INCRBY k 1", ":1\r\n")]);
    let (code, _, error) = run(format!("{},{}", leader.address, other.address), &["incr", "k"]);
    assert_eq!(code, 5, "{error}");
    assert!(error.contains("whether the command was executed is unknown"), "{error}");
    assert_eq!((leader.lines(), other.lines()), (vec!["INCRBY k 1".to_owned()], vec![]));
}

#[test]
fn read_whose_connection_was_lost_goes_to_another_node() {
    let first = FakeServer::start(|_, words| (words[0] == b"GET").then_some(Action::Close));
    let second = FakeServer::answering(&[("GET k", "$1\r\nv\r\n")]);
    let seeds = format!("{},{}", first.address, second.address);
    assert_eq!(run(&seeds, &["get", "k"]), (0, "v".into(), "".into()));
    assert_eq!(first.lines(), ["GET k"]);
}

#[test]
fn write_without_keys_finds_the_leader() {
    let leader = FakeServer::answering(&[("FLUSHALL", "+OK\r\n")]);
    let port = leader.address.port();
    let slots = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$1\r\nx\r\n*0\r\n");
    let follower = FakeServer::start(move |_, words| match words[0].as_slice() {
        b"FLUSHALL" => reply("-READONLY You can't write against a read only replica.\r\n"),
        b"CLUSTER" => reply(slots.clone()),
        _ => None,
    });
    assert_eq!(run(follower.address, &["raw", "FLUSHALL"]), (0, "OK\n".into(), "".into()));
    let alone = FakeServer::answering(&[("FLUSHALL", "-READONLY You can't write against a read only replica.\r\n")]);
    assert_eq!(run(alone.address, &["raw", "FLUSHALL"]).0, 1);
}

#[test]
fn shell_follows_a_redirection() {
    let leader = FakeServer::answering(&[("SET k v", "+OK\r\n"), ("GET k", "$1\r\nv\r\n")]);
    let follower = follower_of(known(leader.address));
    let seeds = format!("{},{}", nobody(), follower.address);
    let mut command = kvctl(&seeds, &["shell"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SET k v\nGET k\n").unwrap();
    assert_eq!(texts(child.wait_with_output().unwrap()), (0, "OK\nv\n".into(), "".into()));
    assert_eq!(follower.lines(), ["SET k v"]);
}

#[test]
fn status_shows_every_node_and_who_is_not_there() {
    let addresses = Arc::new(OnceLock::<Vec<SocketAddr>>::new());
    let node = |id: usize, group: &'static str| {
        let addresses = addresses.clone();
        FakeServer::start(move |_, words| match words[0].as_slice() {
            b"INFO" => {
                let nodes = addresses.get()?.iter().enumerate().map(|(place, address)| {
                    format!("cluster_node{}:client={address},peer={address},connected=1\r\n", place + 1)
                });
                let text = format!(
                    "# Cluster\r\ncluster_enabled:1\r\ncluster_id:cafe\r\ncluster_me:{id}\r\ncluster_state:ok\r\n{}\
                     cluster_group1:{group}\r\n# Keyspace\r\ndb0:keys=12,expires=0,avg_ttl=0\r\nlog_bytes:1048576\r\n",
                    nodes.collect::<String>()
                );
                reply(format!("${}\r\n{text}\r\n", text.len()))
            }
            b"DBSIZE" => reply("-MOVED 0 127.0.0.1:1\r\n"),
            _ => None,
        })
    };
    let leader = node(1, "role=leader,term=3,leader=1,commit=2000,applied=2000,voters=1+2+3,learners=4");
    let follower = node(2, "role=follower,term=3,leader=1,commit=1990,applied=1985,voters=1+2+3,learners=4");
    let (dead, gone) = (nobody(), nobody());
    addresses.set(vec![leader.address, follower.address, dead, gone]).unwrap();

    let (code, out, error) = run(follower.address, &["status"]);
    assert_eq!(code, 0, "{error}");
    let row = |id: &str| {
        let line = out.lines().find(|line| line.starts_with(&format!("{id}\t"))).unwrap_or_else(|| panic!("{out}"));
        line.split('\t').map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("node")[2..], ["role", "term", "commit", "applied", "lag", "log size", "reachable"]);
    assert_eq!(row("1")[2..], ["leader", "3", "2,000", "2,000", "0", "1.0 MiB", "yes"]);
    assert_eq!(row("2")[2..], ["follower", "3", "1,990", "1,985", "15", "1.0 MiB", "yes"]);
    assert_eq!(row("3")[1..8], [&dead.to_string(), "follower", "-", "-", "-", "-", "-"]);
    assert!(row("3")[8].starts_with("no: cannot connect"), "{out}");
    assert_eq!(row("4")[2], "learner");
    assert!(out.contains("keys\t12\n"), "{out}");

    let status: Json = serde_json::from_str(&run(leader.address, &["--json", "status"]).1).unwrap();
    assert_eq!((&status["cluster_id"], &status["cluster_state"]), (&json!("cafe"), &json!("ok")));
    let nodes = status["nodes"].as_array().unwrap();
    let reachable: Vec<_> = nodes.iter().map(|node| node["reachable"].as_bool().unwrap()).collect();
    assert_eq!(reachable, [true, true, false, false]);
    assert_eq!((&nodes[1]["lag"], &nodes[1]["role"], &nodes[2]["lag"]), (&json!(15), &json!("follower"), &Json::Null));
}
