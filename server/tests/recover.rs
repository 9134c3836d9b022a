//! `holdfast recover`: a cluster that lost its majority for good goes on with one that is left. Built servers, real processes.

mod common;

use common::cluster::{Cluster, until};
use common::resp::{Client, Value};
use common::{PATIENCE, command, refused_command, wait};
use holdfast_engine::folder::DataFolder;
use holdfast_engine::store::StoreKind;
use holdfast_engine::vfs::OsVfs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `holdfast recover` on a folder and answers its question; the exit code and what it said.
fn recover(dir: &Path, flags: &[&str], answer: &str) -> (i32, String) {
    let plain = command(dir);
    let mut whole = Command::new(plain.get_program());
    whole.arg("recover").args(plain.get_args()).args(flags);
    let mut child = whole.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    // It may have ended without asking.
    let _ = child.stdin.take().expect("stdin").write_all(answer.as_bytes());
    let status = wait(&mut child);
    let mut text = String::new();
    child.stdout.take().expect("stdout").read_to_string(&mut text).expect("text");
    child.stderr.take().expect("stderr").read_to_string(&mut text).expect("text");
    (status.code().unwrap_or(-1), text)
}

fn said(cluster: &Cluster, place: usize) -> String {
    std::fs::read_to_string(cluster.log(place)).expect("what it logged")
}

/// The identity of the cluster that a node says it belongs to.
fn cluster_id(cluster: &Cluster, place: usize) -> String {
    let info = cluster.client(place).run("INFO cluster").text();
    info.lines().find_map(|line| line.strip_prefix("cluster_id:")).expect("a line").to_owned()
}

#[test]
fn survivor_goes_on_as_a_cluster_of_its_own_with_its_data() {
    let mut cluster = Cluster::start();
    for number in 0..100 {
        assert!(cluster.run(&format!("SET key:{number} {number}")).is_ok());
    }
    let old = cluster_id(&cluster, 0);
    let survivor = cluster.others(cluster.leader())[0];
    let lost = cluster.others(survivor);
    lost.iter().for_each(|place| cluster.kill(*place));
    // While it runs nothing is touched.
    let dir = cluster.dir(survivor);
    let (code, text) = recover(&dir, &["--yes"], "");
    assert!(code == 1 && text.contains("another process"), "{text}");
    cluster.terminate(survivor);

    let (code, text) = recover(&dir, &["--inspect"], "");
    assert_eq!(code, 0, "{text}");
    let node = survivor + 1;
    for part in
        [format!("cluster     {old}"), format!("node        {node}"), "term ".into(), "committed   up to".into()]
    {
        assert!(text.contains(&part), "{part}: {text}");
    }
    // Also what only the log says, not the store yet.
    for node in 1..=3 {
        let line = text.lines().find(|line| line.starts_with(&format!("member      {node} at")));
        assert!(line.is_some_and(|line| line.contains("has a vote")), "{text}");
    }
    assert!(text.contains("the highest term"), "{text}");
    for answer in ["", "yes\n", "00000000\n"] {
        let (code, text) = recover(&dir, &[], answer);
        assert!(code == 1 && text.contains("nothing was changed"), "{text}");
        for part in ["LOST is every acknowledged write", "only member of a new cluster", "may still run"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let (code, text) = recover(&dir, &[], &format!("{}\n", &old[..8]));
    assert_eq!(code, 0, "{text}");

    lost.iter().for_each(|place| cluster.forget(*place));
    cluster.restart(survivor);
    cluster.wait_whole();
    assert_ne!(cluster_id(&cluster, survivor), old);
    for number in 0..100 {
        assert_eq!(cluster.run(&format!("GET key:{number}")).text(), number.to_string());
    }
    assert!(cluster.run("SET after recovery").is_ok());

    // An old node turns up again: it is a stranger, and changes nothing.
    cluster.restart(lost[0]);
    until("the old node is refused", || {
        said(&cluster, lost[0]).contains(&format!("of cluster {old} dialed node {node} of cluster"))
    });
    // A new one joins, and gets a number that nobody had.
    let newcomer = cluster.add(survivor);
    cluster.wait_whole();
    let mut client = cluster.client(newcomer);
    assert!(client.run("READONLY").is_ok());
    until("the newcomer has the data", || client.run("GET after") == Value::Bulk(b"recovery".to_vec()));
    let nodes = cluster.run("HOLDFAST NODES");
    let numbers: Vec<i64> = nodes.items().iter().map(|node| node.items()[1].int()).collect();
    assert_eq!(numbers, [node as i64, 4]);
    // All of it holds when everybody starts anew.
    for place in [survivor, newcomer] {
        cluster.kill(place);
    }
    for place in [survivor, newcomer] {
        cluster.restart(place);
    }
    cluster.wait_whole();
    assert_eq!(cluster.run("GET key:99").text(), "99");
}

#[test]
fn recovery_that_was_cut_short_must_be_ended() {
    let mut cluster = Cluster::start();
    assert!(cluster.run("SET k v").is_ok());
    let survivor = 2;
    (0..3).for_each(|place| cluster.kill(place));
    let dir = cluster.dir(survivor);
    {
        let mut folder = DataFolder::open(OsVfs::shared(), &dir, 77, StoreKind::Fjall).expect("the folder");
        folder.begin_recovery(0xabcdef).expect("marked");
    }
    let (code, text) = refused_command(command(&dir));
    assert!(code == 1 && text.contains("begun and not finished"), "{text}");
    let (code, text) = recover(&dir, &["--yes"], "");
    assert_eq!(code, 0, "{text}");
    [0, 1].iter().for_each(|place| cluster.forget(*place));
    cluster.restart(survivor);
    cluster.wait_whole();
    assert_eq!(cluster_id(&cluster, survivor), format!("{:032x}", 0xabcdef), "the same as begun");
    assert_eq!(cluster.run("GET k").text(), "v");
}

#[test]
fn folder_without_a_cluster_or_without_data_is_refused() {
    let dir = common::folder();
    let (code, text) = recover(&dir.path().join("nothing"), &["--yes"], "");
    assert!(code == 1 && text.contains("is no data folder"), "{text}");
    assert!(!dir.path().join("nothing").exists(), "it is not made");
    let alone = dir.path().join("alone");
    let server = common::Server::start(&alone);
    assert!(Client::try_connect(server.address, PATIENCE).expect("it runs").run("SET k v").is_ok());
    server.terminate();
    let (code, text) = recover(&alone, &["--yes"], "");
    assert!(code == 1 && text.contains("belongs to no cluster"), "{text}");
}
