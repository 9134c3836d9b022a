//! What clients and tools see of a cluster, in the shapes of Redis 7.0.

use super::tests::Client;
use crate::cluster::{LinkView, Topology, Traffic, three_nodes};
use crate::node::{ShardFigures, test_node};
use crate::resp::Value;
use crate::settings::Settings;
use std::sync::Arc;

/// A client of a node that has published this.
fn client(topology: &Topology) -> Client {
    let node = test_node(Settings::default());
    node.publish_topology(Arc::new(topology.clone()));
    node.register_shard().publish(&ShardFigures { applied_index: 99, ..ShardFigures::default() });
    Client::of(&node)
}

/// As node 2 sees it, which follows.
fn follower() -> Topology {
    let mut topology = Topology { me: 2, ..three_nodes() };
    topology.groups[0].matched.clear();
    topology
}

fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => panic!("an array, not {other:?}"),
    }
}

/// A reply to CLUSTER SLOTS as text: `first-last host:port,...`.
fn slots(client: &mut Client) -> String {
    let ranges = elements(client.value("CLUSTER SLOTS")).into_iter().map(|range| {
        let parts = elements(range);
        let nodes = parts[2..].iter().map(|node| {
            let node = elements(node.clone());
            assert_eq!(node.len(), 4);
            assert_eq!(node[2].as_text().unwrap().len(), 40);
            format!("{}:{}", node[0].as_text().unwrap(), number(&node[1]))
        });
        format!("{}-{} {}", number(&parts[0]), number(&parts[1]), nodes.collect::<Vec<_>>().join(","))
    });
    ranges.collect::<Vec<_>>().join(" ")
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("a number, not {other:?}"),
    }
}

#[test]
fn slots_name_the_leader_first_and_no_learner() {
    let mut client = client(&three_nodes());
    assert_eq!(slots(&mut client), "0-16383 127.0.0.1:6379,127.0.0.1:6380,127.0.0.1:6381");
    let name = client.text("CLUSTER MYID");
    let expected =
        format!("*1\r\n*5\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:6379\r\n$40\r\n{name}\r\n*0\r\n*4\r\n");
    assert!(client.send("CLUSTER SLOTS").starts_with(&expected));
    client.send("HELLO 3");
    assert!(client.send("CLUSTER SLOTS").contains(&format!("{name}\r\n%0\r\n")), "the last element is a map");
}

#[test]
fn slots_are_covered_during_an_election() {
    let mut topology = follower();
    topology.groups[0].leader = None;
    assert_eq!(slots(&mut client(&topology)), "0-16383 127.0.0.1:6379,127.0.0.1:6380,127.0.0.1:6381");
    topology.groups[0].leader_last = Some(3);
    assert_eq!(slots(&mut client(&topology)), "0-16383 127.0.0.1:6381,127.0.0.1:6379,127.0.0.1:6380");
    topology.groups[0].leader_last = None;
    topology.nodes[0].connected = false;
    assert_eq!(slots(&mut client(&topology)), "0-16383 127.0.0.1:6379,127.0.0.1:6380,127.0.0.1:6381");
    topology.groups[0].leader = Some(3);
    assert_eq!(slots(&mut client(&topology)), "0-16383 127.0.0.1:6381,127.0.0.1:6380", "who isn't heard is no replica");
}

#[test]
fn slots_are_encoded_once_until_they_change() {
    let mut client = client(&three_nodes());
    let encoded = |client: &Client| {
        let published = client.node.published().unwrap();
        published.slots(crate::resp::Proto::Resp2, |_| panic!("it was asked for before")).as_ptr()
    };
    let before = slots(&mut client);
    let first = encoded(&client);
    let mut topology = three_nodes();
    topology.groups[0].applied += 1;
    client.node.publish_topology(Arc::new(topology.clone()));
    assert_eq!(encoded(&client), first);
    topology.groups[0].leader = Some(2);
    client.node.publish_topology(Arc::new(topology));
    assert_ne!(slots(&mut client), before);
}

#[test]
fn nodes_have_a_line_each() {
    let mut topology = follower();
    topology.nodes[2].connected = false;
    let mut client = client(&topology);
    let name = |id| topology.name_of(id);
    let expected = format!(
        "{} 127.0.0.1:6379@16379 master - 0 0 5 connected 0-16383\n\
         {} 127.0.0.1:6380@16380 myself,slave {leader} 0 0 5 connected\n\
         {} 127.0.0.1:6381@16381 slave,fail? {leader} 0 0 5 disconnected\n\
         {} 127.0.0.1:6382@16382 slave {leader} 0 0 5 connected\n",
        name(1),
        name(2),
        name(3),
        name(4),
        leader = name(1),
    );
    assert_eq!(client.text("CLUSTER NODES"), expected);
    let replicas = elements(client.value(&format!("CLUSTER REPLICAS {}", name(1))));
    let lines: Vec<_> = expected.lines().skip(1).collect();
    assert_eq!(replicas.iter().map(|line| line.as_text().unwrap()).collect::<Vec<_>>(), lines);
    client.check(&[
        (&format!("CLUSTER SLAVES {}", name(2)), "-ERR The specified node is not a master\r\n"),
        ("CLUSTER REPLICAS abc", "-ERR Unknown node abc\r\n"),
        (&format!("CLUSTER COUNT-FAILURE-REPORTS {}", name(2)), ":0\r\n"),
    ]);
}

#[test]
fn info_counts_slots_and_nodes() {
    let text = client(&three_nodes()).text("CLUSTER INFO");
    for line in [
        "cluster_enabled:1",
        "cluster_state:ok",
        "cluster_slots_assigned:16384",
        "cluster_slots_ok:16384",
        "cluster_slots_pfail:0",
        "cluster_slots_fail:0",
        "cluster_known_nodes:4",
        "cluster_size:1",
        "cluster_current_epoch:5",
        "cluster_my_epoch:5",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    let mut topology = follower();
    topology.groups[0].leader = None;
    let text = client(&topology).text("CLUSTER INFO");
    for line in ["cluster_state:fail", "cluster_slots_ok:0", "cluster_slots_pfail:16384", "cluster_size:1"] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
}

#[test]
fn shards_tell_role_offset_and_health() {
    let mut topology = three_nodes();
    topology.nodes[2].connected = false;
    let mut client = client(&topology);
    client.send("HELLO 3");
    let text = client.send("CLUSTER SHARDS");
    assert!(
        text.starts_with("*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n*4\r\n%7\r\n$2\r\nid\r\n")
    );
    let node = |port: u16, role: &str, offset: u64, health: &str| {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        format!(
            "$4\r\nport\r\n:{port}\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$8\r\nendpoint\r\n$9\r\n127.0.0.1\r\n$4\r\nrole\r\n{}\
             $18\r\nreplication-offset\r\n:{offset}\r\n$6\r\nhealth\r\n{}",
            bulk(role),
            bulk(health),
        )
    };
    let places: Vec<_> = [
        node(6379, "master", 99, "online"),
        node(6380, "replica", 98, "online"),
        node(6381, "replica", 90, "fail"),
        node(6382, "replica", 7, "loading"),
    ]
    .iter()
    .map(|node| text.find(node.as_str()).unwrap_or_else(|| panic!("{node}\nis not in\n{text}")))
    .collect();
    assert!(places.is_sorted());
}

#[test]
fn identities_are_those_of_the_list() {
    let topology = follower();
    let mut client = client(&topology);
    assert_eq!(client.text("CLUSTER MYID"), topology.name_of(2));
    assert_eq!(client.text("CLUSTER MYSHARDID"), topology.shard_name_of(&topology.groups[0]));
    assert!(elements(client.value("CLUSTER LINKS")).is_empty(), "nobody is connected");
    client.check(&[("CLUSTER KEYSLOT foo", ":12182\r\n"), ("CLUSTER SAVECONFIG", "+OK\r\n")]);
}

#[test]
fn links_are_listed_with_their_age_and_queue() {
    let (topology, node) = (follower(), test_node(Settings::default()));
    node.publish_topology(Arc::new(topology.clone()));
    let link = |outgoing, queued_bytes| LinkView { node: 3, outgoing, since_ms: 5000, queued_bytes };
    let links = vec![link(true, 70), link(false, 0)];
    node.publish_traffic(Traffic { links, sent_messages: 7, received_messages: 8, dropped_messages: 9 });
    let mut client = Client::of(&node);
    let line = |direction: &str, events: &str, queued: u64| {
        let name = topology.name_of(3);
        format!(
            "*12\r\n$9\r\ndirection\r\n${}\r\n{direction}\r\n$4\r\nnode\r\n$40\r\n{name}\r\n$11\r\ncreate-time\r\n:5000\r\n\
             $6\r\nevents\r\n${}\r\n{events}\r\n$21\r\nsend-buffer-allocated\r\n:{queued}\r\n\
             $16\r\nsend-buffer-used\r\n:{queued}\r\n",
            direction.len(),
            events.len(),
        )
    };
    assert_eq!(client.send("CLUSTER LINKS"), format!("*2\r\n{}{}", line("to", "rw", 70), line("from", "r", 0)));
    let info = client.text("CLUSTER INFO");
    for (figure, count) in [("sent", 7), ("received", 8), ("dropped", 9)] {
        assert!(info.contains(&format!("cluster_stats_messages_{figure}:{count}\r\n")), "{info}");
    }
}

#[test]
fn connection_says_what_it_accepts() {
    let mut client = client(&follower());
    client.check(&[("ASKING", "+OK\r\n"), ("READONLY", "+OK\r\n")]);
    assert!(client.session.read_only && client.text("CLIENT INFO").contains(" flags=r "));
    client.check(&[("READWRITE", "+OK\r\n")]);
    assert!(!client.session.read_only);
    client.check(&[("READONLY", "+OK\r\n"), ("RESET", "+RESET\r\n")]);
    assert!(!client.session.read_only);
    client.check(&[
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR SELECT is not allowed in cluster mode\r\n"),
        ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
    ]);
    assert_eq!(client.config("cluster-enabled"), "cluster-enabled=yes");
}

#[test]
fn placement_is_not_the_operator_s() {
    let mut client = client(&three_nodes());
    for request in ["ADDSLOTS 1", "DELSLOTS 1", "SETSLOT 1 STABLE", "REPLICATE x", "FLUSHSLOTS", "BUMPEPOCH"] {
        let text = client.send(&format!("CLUSTER {request}"));
        assert!(text.starts_with("-ERR Holdfast places slots and replicas itself, CLUSTER "), "{text}");
    }
    assert!(client.send("CLUSTER MEET 127.0.0.1 7000").contains("kvctl node add"));
    assert!(client.send("CLUSTER FORGET x").contains("kvctl node remove"));
    assert!(client.send("CLUSTER FAILOVER").contains("kvctl leader transfer"));
    assert!(client.send("CLUSTER HELP").contains("SHARDS"));
}

#[test]
fn single_node_refuses_all_of_it() {
    let mut client = Client::new();
    for request in
        ["CLUSTER MEET 127.0.0.1 7000", "CLUSTER MYSHARDID", "CLUSTER HELP", "CLUSTER SLOTS", "CLUSTER LINKS"]
    {
        assert_eq!(client.send(request), "-ERR This instance has cluster support disabled\r\n", "{request}");
    }
    assert_eq!(client.config("cluster-enabled"), "cluster-enabled=no");
}

#[test]
fn leader_lists_its_replicas() {
    let mut topology = three_nodes();
    topology.nodes[2].connected = false;
    let mut client = client(&topology);
    client.check(&[(
        "ROLE",
        "*3\r\n$6\r\nmaster\r\n:99\r\n*2\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n6380\r\n$2\r\n98\r\n*3\r\n$9\r\n127.0.0.1\r\n\
         $4\r\n6382\r\n$1\r\n7\r\n",
    )]);
    let text = client.text("INFO replication");
    for line in [
        "role:master",
        "connected_slaves:2",
        "slave0:ip=127.0.0.1,port=6380,state=online,offset=98,lag=0",
        "slave1:ip=127.0.0.1,port=6382,state=send_bulk,offset=7,lag=0",
        "master_replid:0000000000000007000000000000000900000000",
        "master_repl_offset:99",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    assert!(client.text("INFO server").contains("redis_mode:cluster\r\n"));
    let hello = client.send("HELLO");
    assert!(hello.contains("$7\r\ncluster\r\n") && hello.contains("$6\r\nmaster\r\n"));
}

#[test]
fn follower_names_its_master() {
    let mut client = client(&follower());
    client.check(&[("ROLE", "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:99\r\n")]);
    let text = client.text("INFO replication");
    for line in [
        "role:slave",
        "master_host:127.0.0.1",
        "master_port:6379",
        "master_link_status:up",
        "slave_repl_offset:99",
        "connected_slaves:0",
        "master_repl_offset:99",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    assert!(client.send("HELLO").contains("$7\r\nreplica\r\n"));
}

#[test]
fn follower_of_nobody_says_so() {
    let mut topology = follower();
    topology.groups[0].leader = None;
    let mut lost = client(&topology);
    lost.check(&[("ROLE", "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$7\r\nconnect\r\n:99\r\n")]);
    assert!(lost.text("INFO replication").contains("master_link_status:down\r\n"));
    // It led last itself: still the slots' owner to clients, and nobody's master.
    topology.groups[0].leader_last = Some(2);
    let mut deposed = client(&topology);
    deposed.check(&[("ROLE", "*5\r\n$5\r\nslave\r\n$0\r\n\r\n:0\r\n$7\r\nconnect\r\n:99\r\n")]);
    assert!(deposed.text("CLUSTER NODES").contains("myself,master - "));
}

#[test]
fn info_tells_nodes_and_groups_for_kvctl() {
    let text = client(&follower()).text("INFO cluster");
    for line in [
        "cluster_enabled:1",
        "cluster_id:00000000000000070000000000000009",
        "cluster_me:2",
        "cluster_state:ok",
        "cluster_node1:client=127.0.0.1:6379,peer=127.0.0.1:16379,connected=1",
        "cluster_group1:role=follower,term=5,leader=1,commit=100,applied=99,voters=1+2+3,learners=4",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
}
