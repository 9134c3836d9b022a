//! The built `kvctl` against a server in this process: what it sends, prints, and exits with.

#![allow(clippy::unwrap_used)]

mod fake;

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};

use fake::{Action, FakeServer};
use serde_json::{Value as Json, json};

fn kvctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    command.args(arguments).stdin(Stdio::null());
    for name in ["KVCTL_ADDR", "HOLDFAST_ADDR", "KVCTL_PASSWORD", "HOLDFAST_PASSWORD", "KVCTL_USER"] {
        command.env_remove(name);
    }
    command
}

/// Runs against a server; gives its exit code, standard output and standard error.
fn run(server: &FakeServer, arguments: &[&str]) -> (i32, String, String) {
    let output = kvctl(arguments).env("KVCTL_ADDR", server.address.to_string()).output().unwrap();
    texts(output)
}

fn run_with_input(server: &FakeServer, arguments: &[&str], input: &[u8]) -> (i32, String, String) {
    let mut command = kvctl(arguments);
    command.env("KVCTL_ADDR", server.address.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    texts(child.wait_with_output().unwrap())
}

fn texts(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json_of(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn get_prints_the_exact_bytes() {
    let server =
        FakeServer::start(|_, words| (words[0] == b"GET").then(|| Action::Reply(b"$5\r\n\xff\0\r\n\x1b\r\n".to_vec())));
    let output = kvctl(&["get", "k"]).env("KVCTL_ADDR", server.address.to_string()).output().unwrap();
    assert_eq!(output.stdout, b"\xff\0\r\n\x1b");
    assert_eq!(output.status.code(), Some(0));
    let (_, out, _) = run(&server, &["--json", "get", "k"]);
    assert_eq!(json_of(&out), json!({ "key": "k", "value": { "base64": "/wANChs=" } }));
}

#[test]
fn absent_key_is_exit_code_3() {
    let server = FakeServer::answering(&[
        ("GET k", "_\r\n"),
        ("PTTL k", ":-2\r\n"),
        ("DEL k", ":0\r\n"),
        ("EXISTS k", ":0\r\n"),
    ]);
    assert_eq!(run(&server, &["get", "k"]), (3, "".into(), "".into()));
    let (code, out, _) = run(&server, &["get", "k", "--json"]);
    assert_eq!((code, json_of(&out)), (3, json!({ "key": "k", "value": null })));
    assert_eq!(run(&server, &["ttl", "k"]).0, 3);
    assert_eq!(run(&server, &["del", "k"]), (3, "0\n".into(), "".into()));
    assert_eq!(run(&server, &["exists", "k"]).0, 3);
}

#[test]
fn set_sends_its_options() {
    let server = FakeServer::start(|_, words| {
        let refuses = words.iter().any(|word| word == b"NX" || word == b"IFEQ");
        (words[0] == b"SET").then(|| Action::Reply(if refuses { b"_\r\n".to_vec() } else { b"+OK\r\n".to_vec() }))
    });
    assert_eq!(run(&server, &["set", "k", "v"]), (0, "OK\n".into(), "".into()));
    assert_eq!(run(&server, &["set", "k", "-5", "--ttl", "1m30s", "--xx"]).0, 0);
    assert_eq!(run(&server, &["set", "k", "v", "--keep-ttl"]).0, 0);
    let (code, out, error) = run(&server, &["set", "k", "v", "--nx"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(error.contains("the key exists"), "{error}");
    let (code, out, _) = run(&server, &["--json", "set", "k", "new", "--if-equals", "old"]);
    assert_eq!((code, json_of(&out)), (3, json!({ "key": "k", "set": false })));
    assert_eq!(run(&server, &["cas", "k", "old", "new"]).0, 3);
    assert_eq!(
        server.lines(),
        [
            "SET k v",
            "SET k -5 XX PX 90000",
            "SET k v KEEPTTL",
            "SET k v NX",
            "SET k new IFEQ old",
            "SET k new IFEQ old"
        ]
    );
}

#[test]
fn value_comes_from_standard_input_byte_for_byte() {
    let server = FakeServer::start(|_, words| (words[0] == b"SET").then(|| Action::Reply(b"+OK\r\n".to_vec())));
    let input: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    assert_eq!(run_with_input(&server, &["set", "k", "-"], &input).0, 0);
    assert_eq!(server.received()[0][2], input);
}

#[test]
fn escapes_are_read_only_when_asked_for() {
    let server = FakeServer::answering(&[("GET a\\x00", "$1\r\n1\r\n"), ("GET a\0\u{1}", "$1\r\n2\r\n")]);
    assert_eq!(run(&server, &["get", "a\\x00"]).1, "1");
    assert_eq!(run(&server, &["-e", "get", "a\\x00\\x01"]).1, "2");
    let (code, _, error) = run(&server, &["-e", "get", "a\\y"]);
    assert_eq!(code, 2, "{error}");
}

#[test]
fn conflicting_conditions_are_a_usage_error() {
    let server = FakeServer::answering(&[]);
    for arguments in [
        &["set", "k", "v", "--nx", "--xx"][..],
        &["set", "k", "v", "--ttl", "soon"],
        &["nonsense"],
        &["raw", "MONITOR"],
    ] {
        let (code, _, error) = run(&server, arguments);
        assert_eq!(code, 2, "{error}");
    }
    assert!(server.lines().is_empty());
}

#[test]
fn server_error_is_exit_code_1_with_its_text() {
    let server = FakeServer::answering(&[("INCRBY k 1", "-ERR value is not an integer or out of range\r\n")]);
    let (code, out, error) = run(&server, &["incr", "k"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(error, "kvctl: ERR value is not an integer or out of range\n");
    let (code, _, error) = run(&server, &["--json", "incr", "k"]);
    assert_eq!(code, 1);
    let error = &json_of(&error)["error"];
    assert_eq!(error["code"], "ERR");
    assert_eq!(error["kind"], "server");
    assert_eq!(error["outcome"], "not executed");
}

#[test]
fn nobody_listening_is_exit_code_4() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, error) =
        texts(kvctl(&["--addr", &free.to_string(), "--timeout", "200ms", "set", "k", "v"]).output().unwrap());
    assert_eq!(code, 4);
    assert!(error.contains(&free.to_string()), "{error}");
}

#[test]
fn unknown_outcome_is_exit_code_5() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"SET" => Some(Action::Close),
        b"INCRBY" => Some(Action::Silence),
        _ => None,
    });
    let (code, _, error) = run(&server, &["set", "k", "v"]);
    assert_eq!(code, 5, "{error}");
    assert!(error.contains("unknown"), "{error}");
    let (code, _, error) = run(&server, &["--json", "--timeout", "100ms", "incr", "k"]);
    assert_eq!(code, 5);
    assert_eq!(json_of(&error)["error"]["outcome"], "unknown");
}

#[test]
fn scan_follows_the_cursor_to_the_end() {
    let server = FakeServer::answering(&[
        ("SCAN 0 MATCH u* COUNT 1000 TYPE string", "*2\r\n$2\r\n17\r\n*2\r\n$2\r\nu1\r\n$2\r\nu2\r\n"),
        ("SCAN 17 MATCH u* COUNT 1000 TYPE string", "*2\r\n$19\r\n9223372036854775807\r\n*0\r\n"),
        ("SCAN 9223372036854775807 MATCH u* COUNT 1000 TYPE string", "*2\r\n$1\r\n0\r\n*1\r\n$3\r\nu\n3\r\n"),
    ]);
    let arguments = ["scan", "--match", "u*", "--type", "string"];
    assert_eq!(run(&server, &arguments), (0, "u1\nu2\nu\n3\n".into(), "".into()));
    assert_eq!(run(&server, &[&arguments[..], &["-0"]].concat()).1, "u1\0u2\0u\n3\0");
    assert_eq!(run(&server, &[&arguments[..], &["--json"]].concat()).1, "\"u1\"\n\"u2\"\n\"u\\n3\"\n");
    assert_eq!(run(&server, &[&arguments[..], &["--limit", "1"]].concat()).1, "u1\n");
}

#[test]
fn closed_pipe_ends_a_scan_quietly() {
    let server = FakeServer::start(|_, words| {
        // A walk that never ends on its own.
        (words[0] == b"SCAN").then(|| Action::Reply(b"*2\r\n$1\r\n1\r\n*1\r\n$3\r\nkey\r\n".to_vec()))
    });
    let mut command = kvctl(&["scan"]);
    command.env("KVCTL_ADDR", server.address.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(&first, b"key\n");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn lifetimes_are_shown_and_set() {
    let server = FakeServer::answering(&[
        ("PTTL a", ":61005\r\n"),
        ("PTTL b", ":-1\r\n"),
        ("PEXPIRE a 1800000 GT", ":1\r\n"),
        ("PERSIST a", ":0\r\n"),
    ]);
    assert_eq!(run(&server, &["ttl", "a"]), (0, "61.005\n".into(), "".into()));
    assert_eq!(run(&server, &["ttl", "b"]), (0, "forever\n".into(), "".into()));
    let (_, out, _) = run(&server, &["--json", "ttl", "a"]);
    assert_eq!(json_of(&out), json!({ "key": "a", "exists": true, "ttl_ms": 61005 }));
    assert_eq!(run(&server, &["expire", "a", "30m", "--gt"]).0, 0);
    assert_eq!(run(&server, &["persist", "a"]).0, 3);
}

#[test]
fn increments_whole_and_fractional() {
    let server = FakeServer::answering(&[("INCRBY k -3", ":39\r\n"), ("INCRBYFLOAT k 0.25", "$5\r\n39.25\r\n")]);
    assert_eq!(run(&server, &["incr", "k", "--by", "-3"]), (0, "39\n".into(), "".into()));
    assert_eq!(run(&server, &["incr", "k", "--by", "0.25"]), (0, "39.25\n".into(), "".into()));
    assert_eq!(run(&server, &["incr", "k", "--by", "many"]).0, 2);
}

#[test]
fn compare_and_delete_tells_whether_it_did() {
    let server = FakeServer::answering(&[("DELIFEQ k mine", ":1\r\n"), ("DELIFEQ k other", ":0\r\n")]);
    assert_eq!(run(&server, &["cad", "k", "mine"]), (0, "OK\n".into(), "".into()));
    assert_eq!(run(&server, &["cad", "k", "other"]).0, 3);
}

#[test]
fn raw_prints_any_reply() {
    let server = FakeServer::answering(&[
        ("LIST", "*3\r\n$1\r\na\r\n:2\r\n*1\r\n#t\r\n"),
        ("MAP", "%1\r\n$1\r\nk\r\n,1.5\r\n"),
        ("TEXT", "$2\r\nab\r\n"),
        ("BAD --flag", "-WRONGTYPE no\r\n"),
    ]);
    assert_eq!(run(&server, &["raw", "LIST"]), (0, "a\n2\ntrue\n".into(), "".into()));
    assert_eq!(run(&server, &["raw", "TEXT"]).1, "ab");
    assert_eq!(json_of(&run(&server, &["--json", "raw", "LIST"]).1), json!(["a", 2, [true]]));
    assert_eq!(json_of(&run(&server, &["--json", "raw", "MAP"]).1), json!({ "k": 1.5 }));
    assert_eq!(run(&server, &["raw", "BAD", "--flag"]).0, 1);
}

const INFO: &str = "# Server\r\nredis_version:7.2.0\r\nholdfast_version:0.1.0\r\nuptime_in_seconds:93784\r\nredis_mode:standalone\r\n\
    # Replication\r\nrole:master\r\n# Memory\r\nused_memory:1048576\r\nmaxmemory:4194304\r\n# Stats\r\n\
    instantaneous_ops_per_sec:1234\r\n# Engine\r\nwal_bytes:67108864\r\n";

#[test]
fn status_sums_up_what_the_server_says() {
    let info = format!("={}\r\ntxt:{INFO}\r\n", INFO.len() + 4);
    let fsync = "%1\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n";
    let server =
        FakeServer::answering(&[("INFO", &info), ("DBSIZE", ":1000000\r\n"), ("CONFIG GET appendfsync", fsync)]);
    let (code, out, _) = run(&server, &["status"]);
    assert_eq!(code, 0);
    for expected in ["Holdfast 0.1.0", "1d 2h", "always", "1,000,000", "1.0 MiB of 4.0 MiB (25 %)", "64.0 MiB", "1,234"]
    {
        assert!(out.contains(expected), "{expected} is missing in\n{out}");
    }
    let status = json_of(&run(&server, &["--json", "status"]).1);
    assert_eq!(status["keys"], 1_000_000);
    assert_eq!(status["durability"], "always");
    assert_eq!(status["log_bytes"], 67_108_864);
    assert_eq!(json_of(&run(&server, &["--json", "status", "--all"]).1)["info"]["engine"]["wal_bytes"], "67108864");
}

#[test]
fn password_is_sent_but_never_shown() {
    let server = FakeServer::start(|_, words| {
        let refused = words[0] == b"HELLO" && !words.iter().any(|word| word == b"sesame");
        (refused || words[0] == b"GET").then(|| {
            Action::Reply(if refused {
                b"-WRONGPASS invalid username-password pair\r\n".to_vec()
            } else {
                b"$1\r\nv\r\n".to_vec()
            })
        })
    });
    let with = |name: &str, password: &str| {
        let mut command = kvctl(&["get", "k"]);
        command.env("HOLDFAST_ADDR", server.address.to_string()).env(name, password);
        texts(command.output().unwrap())
    };
    assert_eq!(with("KVCTL_PASSWORD", "sesame"), (0, "v".into(), "".into()));
    assert_eq!(with("HOLDFAST_PASSWORD", "sesame"), (0, "v".into(), "".into()));
    let (code, _, error) = with("KVCTL_PASSWORD", "swordfish");
    assert_eq!(code, 1);
    assert!(error.contains("WRONGPASS") && !error.contains("swordfish"), "{error}");
    let help = kvctl(&["--help"]).env("KVCTL_PASSWORD", "swordfish").output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("swordfish"));
}

#[test]
fn shell_reads_commands_from_a_pipe() {
    let server = FakeServer::answering(&[
        ("SET a two\nlines", "+OK\r\n"),
        ("GET a", "$9\r\ntwo\nlines\r\n"),
        ("BAD", "-ERR no\r\n"),
        ("PING", "+PONG\r\n"),
    ]);
    let script = b"SET a \"two\nlines\"\n\nGET 'a'\nBAD\nPING\nexit\nPING\n";
    let (code, out, error) = run_with_input(&server, &["shell"], script);
    assert_eq!((code, out.as_str()), (1, "OK\ntwo\nlines\nPONG\n"));
    assert_eq!(error, "kvctl: ERR no\n");
    let (code, _, error) = run_with_input(&server, &["shell"], b"GET \"a");
    assert_eq!(code, 2, "{error}");
}

#[test]
fn shell_does_not_continue_a_transaction_on_a_new_connection() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"MULTI" => Some(Action::ReplyThenClose(b"+OK\r\n".to_vec())),
        b"SET" => Some(Action::Reply(b"+OK\r\n".to_vec())),
        _ => None,
    });
    let (code, out, _) = run_with_input(&server, &["shell"], b"MULTI\nSET a 1\nSET b 1\n");
    assert!(code == 4 || code == 5, "{code}");
    assert_eq!(out, "OK\n");
    // Only the connection that was in the transaction may have seen the command.
    assert!(server.lines().len() <= 2);
}

#[test]
fn ping_tells_the_time_it_took() {
    let server = FakeServer::answering(&[("PING", "+PONG\r\n")]);
    let (code, out, _) = run(&server, &["ping", "--count", "2"]);
    assert_eq!(code, 0);
    assert_eq!(out.lines().filter(|line| line.starts_with("PONG from 127.0.0.1:")).count(), 2);
}

#[test]
fn help_documents_the_exit_codes_and_gives_examples() {
    let text = |arguments: &[&str]| String::from_utf8(kvctl(arguments).output().unwrap().stdout).unwrap();
    assert!(text(&["--help"]).contains("outcome unknown"));
    for command in [
        "get", "set", "del", "exists", "scan", "ttl", "expire", "persist", "incr", "cas", "cad", "raw", "status",
        "node", "leader", "verify", "ping", "shell",
    ] {
        let help = text(&[command, "--help"]);
        assert!(help.contains("Examples:\n  kvctl "), "{help}");
    }
}

/// Three nodes, as HOLDFAST NODES tells of them in RESP3: 1 leads, 2 follows, 3 is a learner that can't be reached.
fn node_list() -> String {
    let node = |id: u16, role: &str, votes: u8, reachable: u8, lag: &str| {
        format!(
            "%8\r\n+id\r\n:{id}\r\n+client\r\n+h:{id}\r\n+peer\r\n+h:1{id}\r\n+role\r\n+{role}\r\n+votes\r\n:{votes}\r\n+reachable\r\n:{reachable}\r\n+leaving\r\n:0\r\n+lag\r\n{lag}"
        )
    };
    let nodes =
        [node(1, "leader", 1, 1, ":0\r\n"), node(2, "follower", 1, 1, ":1234\r\n"), node(3, "learner", 0, 0, "_\r\n")];
    format!("*3\r\n{}", nodes.concat())
}

#[test]
fn nodes_are_listed() {
    let list = node_list();
    let server = FakeServer::answering(&[("HOLDFAST NODES", &list)]);
    let (code, out, _) = run(&server, &["node", "list"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "node\tclients at\tpeers at\trole\tvote\tlag\treachable");
    assert_eq!(lines[2], "2\th:2\th:12\tfollower\tyes\t1,234\tyes");
    assert_eq!(lines[3], "3\th:3\th:13\tlearner\tno\t-\tno");
    let (_, out, _) = run(&server, &["--json", "node", "list"]);
    let nodes = json_of(&out);
    assert_eq!(nodes["nodes"][1]["lag"], 1234);
    assert_eq!(
        nodes["nodes"][2],
        json!({ "id": 3, "client": "h:3", "peer": "h:13", "role": "learner", "votes": false, "lag": null, "reachable": false, "leaving": false })
    );
}

#[test]
fn node_is_removed_and_leadership_handed_over() {
    let server = FakeServer::answering(&[
        ("HOLDFAST REMOVE-NODE 3", ":1\r\n"),
        ("HOLDFAST REMOVE-NODE 2", "-ERR without node 2 no majority\r\n"),
        ("HOLDFAST TRANSFER-LEADER", ":2\r\n"),
        ("HOLDFAST TRANSFER-LEADER 1", ":1\r\n"),
    ]);
    assert_eq!(run(&server, &["node", "remove", "3"]).1, "node 3 is removed\n");
    assert_eq!(json_of(&run(&server, &["--json", "node", "remove", "3"]).1), json!({ "node": 3, "removed": true }));
    let (code, _, error) = run(&server, &["node", "remove", "2"]);
    assert_eq!((code, error.as_str()), (1, "kvctl: ERR without node 2 no majority\n"));
    assert_eq!(run(&server, &["leader", "transfer"]).1, "node 2 leads\n");
    assert_eq!(json_of(&run(&server, &["--json", "leader", "transfer", "1"]).1), json!({ "leader": 1 }));
}

#[test]
fn states_are_compared() {
    let report = |hash: &str, second: &str| {
        format!("%3\r\n+index\r\n:77\r\n+hash\r\n{hash}\r\n+nodes\r\n%2\r\n:1\r\n+equal\r\n:2\r\n+{second}\r\n")
    };
    for (hash, second, code, line) in [
        ("+abc", "equal", 0, "at index 77 a majority holds abc"),
        ("+abc", "silent", 0, "at index 77 a majority holds abc"),
        ("+abc", "differs", 3, "at index 77 a majority holds abc"),
        ("_", "differs", 3, "at index 77 no majority holds the same"),
    ] {
        let report = report(hash, second);
        let server = FakeServer::answering(&[("HOLDFAST NODES", "*0\r\n"), ("HOLDFAST VERIFY", &report)]);
        let (exit, out, error) = run(&server, &["verify"]);
        assert_eq!(exit, code, "{error}");
        assert_eq!(out, format!("{line}\nnode\tstate\n1\tequal\n2\t{second}\n"));
        let found = json_of(&run(&server, &["--json", "verify"]).1);
        assert_eq!((&found["index"], &found["nodes"][1]), (&json!(77), &json!({ "id": 2, "state": second })));
    }
}

#[test]
fn lost_removal_is_asked_for_again_and_lost_transfer_is_not() {
    let server = FakeServer::start(|connection, words| {
        (words[0] == b"HOLDFAST")
            .then(|| if connection == 0 { Action::Close } else { Action::Reply(b":0\r\n".to_vec()) })
    });
    assert_eq!(run(&server, &["node", "remove", "3"]).1, "node 3 is removed\n");
    // What is lost first and refused then may have been begun: whoever leads completes it.
    let server = FakeServer::start(|connection, words| {
        let down = || Action::Reply(b"-CLUSTERDOWN The cluster is down\r\n".to_vec());
        (words[0] == b"HOLDFAST").then(|| if connection == 0 { Action::Close } else { down() })
    });
    let (code, _, error) = run(&server, &["--timeout", "500ms", "node", "remove", "3"]);
    assert!(code == 5 && error.contains("is unknown"), "{code}: {error}");
    let server = FakeServer::start(|_, words| (words[0] == b"HOLDFAST").then_some(Action::Close));
    assert_eq!(run(&server, &["leader", "transfer"]).0, 5);
    assert_eq!(server.lines(), ["HOLDFAST TRANSFER-LEADER"]);
}

#[test]
fn node_is_replaced_once_the_other_has_a_vote() {
    let list = node_list();
    let server = FakeServer::answering(&[("HOLDFAST NODES", &list), ("HOLDFAST REMOVE-NODE 1", ":1\r\n")]);
    let (code, out, _) = run(&server, &["node", "replace", "1", "h:2"]);
    assert_eq!((code, out.as_str()), (0, "node 1 is removed, node 2 has taken its place\n"));
    let (code, _, error) = run(&server, &["node", "replace", "1", "h:13", "--wait", "100ms"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("waiting: node 3 is a learner") && error.contains("nothing was changed"), "{error}");
    assert_eq!(run(&server, &["node", "replace", "1", "h:1"]).0, 2, "its own address");
    assert_eq!(server.lines().iter().filter(|line| line.contains("REMOVE-NODE")).count(), 1);
    // A typo that would only take a voter away.
    let three = list.replace("learner\r\n+votes\r\n:0", "follower\r\n+votes\r\n:1");
    let odd = FakeServer::answering(&[("HOLDFAST NODES", &three), ("HOLDFAST REMOVE-NODE 1", ":1\r\n")]);
    let (code, _, error) = run(&odd, &["node", "replace", "1", "h:2"]);
    assert!(code == 2 && error.contains("2 voters instead of 3"), "{code}: {error}");
    assert!(!odd.lines().iter().any(|line| line.contains("REMOVE-NODE")));
    // And without a removal.
    let (code, out, _) = run(&server, &["node", "add", "h:2", "--wait", "1s"]);
    assert_eq!((code, out.as_str()), (0, "node 2 at h:2 has a vote\n"));
    let (code, out, _) = run(&server, &["node", "add", "10.0.0.4:7000"]);
    assert!(code == 0 && out.contains("holdfast join h:11 --bind 10.0.0.4 --port 7000\n"), "{out}");
}
