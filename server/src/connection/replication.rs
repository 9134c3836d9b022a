//! What INFO and ROLE say of replication and of the cluster.
//!
//! The names are Redis's where tools read them: a leader is a `master`, the others are its `slave`s, an offset is an applied
//! index of the log. Lines that begin with `cluster_node` and `cluster_group` are ours; `kvctl status` reads them.

use super::ConnContext;
use crate::cluster::{Address, GroupView, NodeId, NodeView, Topology};
use crate::node::InfoText;

/// What a replica is doing, in the words of Redis: it has the log, or it is still being filled.
fn state_of(group: &GroupView, node: NodeId) -> &'static str {
    if group.learners.contains(&node) { "send_bulk" } else { "online" }
}

/// The group that this node leads, and those of its replicas that this node hears from.
fn led_by_me(topology: &Topology) -> Option<(&GroupView, Vec<&NodeView>)> {
    let group = topology.groups.iter().find(|group| group.leader == Some(topology.me))?;
    Some((group, topology.replicas_of(group).filter(|node| node.connected).collect()))
}

/// Whom this node follows, and whether that one leads now and is heard. Nobody, if it can't be said.
fn followed(topology: &Topology) -> Option<(&Address, bool)> {
    let group = topology.groups.iter().find(|group| group.has_replica_on(topology.me))?;
    // Who led last may be this node itself, and then it follows nobody.
    let master = topology.owner_of(group).filter(|master| *master != topology.me)?;
    let up = group.leader == Some(master) && topology.is_connected(master);
    topology.node(master).map(|node| (&node.client, up))
}

pub(super) fn role(context: &mut ConnContext<'_>) {
    let applied = context.node.shard_figures().applied_index as i64;
    let topology = context.node.topology();
    let reply = &mut *context.reply;
    let Some(topology) = topology else {
        reply.array(3);
        reply.bulk(b"master");
        reply.int(applied);
        reply.array(0);
        return;
    };
    if let Some((group, replicas)) = led_by_me(&topology) {
        reply.array(3);
        reply.bulk(b"master");
        reply.int(applied);
        reply.array(replicas.len());
        for node in replicas {
            reply.array(3);
            reply.bulk(node.client.host.as_bytes());
            reply.bulk(node.client.port.to_string().as_bytes());
            reply.bulk(group.offset_of(node.id, topology.me).to_string().as_bytes());
        }
        return;
    }
    let (host, port, up) = match followed(&topology) {
        Some((address, up)) => (address.host.as_str(), address.port, up),
        None => ("", 0, false),
    };
    reply.array(5);
    reply.bulk(b"slave");
    reply.bulk(host.as_bytes());
    reply.int(i64::from(port));
    reply.bulk(if up { b"connected".as_slice() } else { b"connect" });
    reply.int(applied);
}

/// The section `replication`.
pub(super) fn replication(context: &ConnContext<'_>, text: &mut InfoText) {
    let applied = context.node.shard_figures().applied_index;
    let topology = context.node.topology();
    text.section("Replication");
    match topology.as_deref() {
        None => {
            text.line("role", "master");
            text.line("connected_slaves", 0);
        }
        Some(topology) => match led_by_me(topology) {
            Some((group, replicas)) => leader(topology, group, &replicas, text),
            None => follower(topology, applied, text),
        },
    }
    text.line("master_failover_state", "no-failover");
    match topology.as_deref() {
        None => text.line("master_replid", context.node.run_id()),
        // All nodes of a cluster write one history.
        Some(topology) => text.line("master_replid", format_args!("{:032x}{:08x}", topology.cluster, 0)),
    }
    text.line("master_replid2", "0000000000000000000000000000000000000000");
    text.line("master_repl_offset", applied);
    text.line("second_repl_offset", -1);
    text.line("repl_backlog_active", 0);
    text.line("repl_backlog_size", 0);
    text.line("repl_backlog_first_byte_offset", 0);
    text.line("repl_backlog_histlen", 0);
}

fn leader(topology: &Topology, group: &GroupView, replicas: &[&NodeView], text: &mut InfoText) {
    text.line("role", "master");
    text.line("connected_slaves", replicas.len());
    for (number, node) in replicas.iter().enumerate() {
        let Address { host, port } = &node.client;
        let (state, offset) = (state_of(group, node.id), group.offset_of(node.id, topology.me));
        // NB: Redis's lag is the seconds since a replica was last heard; those listed here are heard all the time.
        let line = format_args!("ip={host},port={port},state={state},offset={offset},lag=0");
        text.line(&format!("slave{number}"), line);
    }
}

fn follower(topology: &Topology, applied: u64, text: &mut InfoText) {
    text.line("role", "slave");
    let followed = followed(topology);
    text.line("master_host", followed.map_or("", |(address, _)| address.host.as_str()));
    text.line("master_port", followed.map_or(0, |(address, _)| address.port));
    text.line("master_link_status", if followed.is_some_and(|(_, up)| up) { "up" } else { "down" });
    text.line("master_last_io_seconds_ago", if followed.is_some_and(|(_, up)| up) { 0 } else { -1 });
    text.line("master_sync_in_progress", 0);
    text.line("slave_read_repl_offset", applied);
    text.line("slave_repl_offset", applied);
    text.line("slave_priority", 100);
    text.line("slave_read_only", 1);
    text.line("replica_announced", 1);
    text.line("connected_slaves", 0);
}

/// The section `cluster`.
pub(super) fn cluster(context: &ConnContext<'_>, text: &mut InfoText) {
    text.section("Cluster");
    let Some(topology) = context.node.topology() else { return text.line("cluster_enabled", 0) };
    text.line("cluster_enabled", 1);
    text.line("cluster_id", format_args!("{:032x}", topology.cluster));
    text.line("cluster_me", topology.me);
    text.line("cluster_state", if topology.is_healthy() { "ok" } else { "fail" });
    for node in &topology.nodes {
        let connected = u8::from(topology.is_connected(node.id));
        let line = format_args!("client={},peer={},connected={connected}", node.client, node.peer);
        text.line(&format!("cluster_node{}", node.id), line);
    }
    for group in &topology.groups {
        let role = role_in(group, topology.me);
        let GroupView { term, commit, applied, .. } = group;
        let leader = group.leader.unwrap_or(0);
        let (voters, learners) = (numbers(&group.voters), numbers(&group.learners));
        let line = format_args!(
            "role={role},term={term},leader={leader},commit={commit},applied={applied},voters={voters},learners={learners}"
        );
        text.line(&format!("cluster_group{}", group.id), line);
    }
}

/// What a node is to a group, in our own words.
fn role_in(group: &GroupView, node: NodeId) -> &'static str {
    if group.leader == Some(node) {
        "leader"
    } else if group.voters.contains(&node) {
        "follower"
    } else if group.learners.contains(&node) {
        "learner"
    } else {
        "none"
    }
}

/// Numbers of nodes, joined so that they fit between commas.
fn numbers(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join("+")
}
