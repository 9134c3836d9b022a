//! CLUSTER, READONLY, READWRITE, ASKING: the cluster as Redis's clients and tools ask about it.
//!
//! Everything is told from the published [`Topology`], so a reply is what this node believes, as in Redis. Three shapes of
//! the same map:
//!
//! ```text
//!   SLOTS    ranges → master first, then replicas that can be read from   (most clients)
//!   NODES    a line for each node                                        (lettuce, redis-cli, redis-benchmark)
//!   SHARDS   groups → ranges and nodes                                    (Redis 7's)
//! ```
//!
//! What a node of Redis is told to do with slots and replicas is refused: groups decide about those by themselves.
//! COUNTKEYSINSLOT and GETKEYSINSLOT need the table and are run by the shard.

use super::{CLUSTER_DISABLED, ConnContext, shown};
use crate::cluster::{GroupView, NodeId, NodeView, SlotRange, Topology};
use crate::node::Published;
use crate::resp::{Proto, Reply};
use crate::slot::{SLOT_COUNT, slot_of};
use bytes::Bytes;
use std::fmt::Write;
use std::sync::Arc;

/// What is known of the cluster, or none and the error for the client.
fn published(context: &mut ConnContext<'_>) -> Option<Arc<Published>> {
    let published = context.node.published();
    if published.is_none() {
        context.reply.error(CLUSTER_DISABLED);
    }
    published
}

fn topology(context: &mut ConnContext<'_>) -> Option<Arc<Topology>> {
    published(context).map(|published| Arc::clone(&published.topology))
}

pub(super) fn readonly(context: &mut ConnContext<'_>) {
    if topology(context).is_some() {
        context.session.set_read_only(true);
        context.reply.ok();
    }
}

pub(super) fn readwrite(context: &mut ConnContext<'_>) {
    if topology(context).is_some() {
        context.session.set_read_only(false);
        context.reply.ok();
    }
}

/// NB: nothing follows from it. Slots are handed over at once, so no node ever answers ASK.
pub(super) fn asking(context: &mut ConnContext<'_>) {
    if topology(context).is_some() {
        context.reply.ok();
    }
}

pub(super) fn keyslot(context: &mut ConnContext<'_>) {
    if topology(context).is_some() {
        context.reply.int(i64::from(slot_of(context.arg(2))));
    }
}

pub(super) fn myid(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    context.reply.bulk(topology.name_of(topology.me).as_bytes());
}

pub(super) fn myshardid(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    match topology.groups.iter().find(|group| group.has_replica_on(topology.me)) {
        Some(group) => context.reply.bulk(topology.shard_name_of(group).as_bytes()),
        None => context.reply.error("ERR This node has no replica of any shard yet"),
    }
}

pub(super) fn info(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    let (assigned, served) = topology.slot_counts();
    let ranges = topology.slot_ranges();
    let mut owners: Vec<NodeId> = ranges.iter().map(|range| range.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    let mut text = String::new();
    let mut line = |name: &str, value: u64| {
        // Writing to a string can't fail.
        let _ = write!(text, "{name}:{value}\r\n");
    };
    line("cluster_slots_assigned", assigned as u64);
    line("cluster_slots_ok", served as u64);
    line("cluster_slots_pfail", (assigned - served) as u64);
    line("cluster_slots_fail", 0);
    line("cluster_known_nodes", topology.nodes.len() as u64);
    line("cluster_size", owners.len() as u64);
    line("cluster_current_epoch", topology.epoch());
    line("cluster_my_epoch", epoch_of(&topology, topology.me));
    let traffic = context.node.traffic();
    line("cluster_stats_messages_sent", traffic.sent_messages);
    line("cluster_stats_messages_received", traffic.received_messages);
    line("cluster_stats_messages_dropped", traffic.dropped_messages);
    line("total_cluster_links_buffer_limit_exceeded", 0);
    let state = if served == usize::from(SLOT_COUNT) { "ok" } else { "fail" };
    context.reply.verbatim("txt", &format!("cluster_enabled:1\r\ncluster_state:{state}\r\n{text}"));
}

/// The term in which a node leads, or in which the one that it follows does.
fn epoch_of(topology: &Topology, node: NodeId) -> u64 {
    let groups = topology.groups.iter().filter(|group| group.has_replica_on(node));
    let owned = groups.clone().filter(|group| topology.owner_of(group) == Some(node));
    owned.map(|group| group.term).max().or_else(|| groups.map(|group| group.term).next()).unwrap_or(0)
}

pub(super) fn nodes(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    let ranges = topology.slot_ranges();
    let mut text = String::new();
    for node in &topology.nodes {
        text.push_str(&node_line(&topology, &ranges, node));
        text.push('\n');
    }
    context.reply.verbatim("txt", &text);
}

/// `id ip:port@bus flags master ping-sent pong-received epoch link-state slot...`
fn node_line(topology: &Topology, ranges: &[SlotRange<'_>], node: &NodeView) -> String {
    let connected = topology.is_connected(node.id);
    let master = topology.master_of(node.id);
    let mut line = format!(
        // NB: without brackets around an IPv6 address, as Redis writes it: clients look for the last colon.
        "{} {}:{}@{} {}{}{} {} 0 0 {} {}",
        topology.name_of(node.id),
        node.client.host,
        node.client.port,
        node.peer.port,
        if node.id == topology.me { "myself," } else { "" },
        if master.is_some() { "slave" } else { "master" },
        // With the question mark it is the opinion of this node alone, and here it is no more than that.
        if connected { "" } else { ",fail?" },
        master.map_or_else(|| "-".to_owned(), |master| topology.name_of(master)),
        epoch_of(topology, node.id),
        if connected { "connected" } else { "disconnected" },
    );
    for range in ranges.iter().filter(|range| range.owner == node.id) {
        // Writing to a string can't fail.
        let _ = match range.first == range.last {
            true => write!(line, " {}", range.first),
            false => write!(line, " {}-{}", range.first, range.last),
        };
    }
    line
}

/// The node that a client names, by its 40 digits; none and the error if there is no such node.
fn named<'t>(context: &mut ConnContext<'_>, topology: &'t Topology) -> Option<&'t NodeView> {
    let name = context.arg(2);
    let found = topology.nodes.iter().find(|node| name.eq_ignore_ascii_case(topology.name_of(node.id).as_bytes()));
    if found.is_none() {
        context.reply.error(&format!("ERR Unknown node {}", shown(name)));
    }
    found
}

pub(super) fn replicas(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    let Some(master) = named(context, &topology) else { return };
    if topology.master_of(master.id).is_some() {
        return context.reply.error("ERR The specified node is not a master");
    }
    let ranges = topology.slot_ranges();
    let replicas: Vec<&NodeView> =
        topology.nodes.iter().filter(|node| topology.master_of(node.id) == Some(master.id)).collect();
    context.reply.array(replicas.len());
    for node in replicas {
        context.reply.bulk(node_line(&topology, &ranges, node).as_bytes());
    }
}

pub(super) fn count_failure_reports(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    if named(context, &topology).is_some() {
        context.reply.int(0);
    }
}

/// The list of nodes is in the log: it is always saved.
pub(super) fn saveconfig(context: &mut ConnContext<'_>) {
    if topology(context).is_some() {
        context.reply.ok();
    }
}

pub(super) fn slots(context: &mut ConnContext<'_>) {
    let Some(published) = published(context) else { return };
    let proto = context.reply.proto();
    let encoded = published.slots(proto, |topology| encode_slots(topology, proto));
    context.reply.output_mut().extend_shared(encoded);
}

/// Replicas that can be read from are listed: not learners, whose copy may be of any age, and not who isn't heard.
fn encode_slots(topology: &Topology, proto: Proto) -> Bytes {
    let mut reply = Reply::new(proto);
    let ranges = topology.slot_ranges();
    reply.array(ranges.len());
    for range in &ranges {
        let owner = topology.nodes.iter().filter(|node| node.id == range.owner);
        let readable = |node: &&NodeView| topology.is_connected(node.id) && range.group.voters.contains(&node.id);
        let nodes: Vec<&NodeView> = owner.chain(topology.replicas_of(range.group).filter(readable)).collect();
        reply.array(2 + nodes.len());
        reply.int(i64::from(range.first));
        reply.int(i64::from(range.last));
        for node in nodes {
            reply.array(4);
            reply.bulk(node.client.host.as_bytes());
            reply.int(i64::from(node.client.port));
            reply.bulk(topology.name_of(node.id).as_bytes());
            reply.map(0);
        }
    }
    reply.output().to_vec().into()
}

pub(super) fn shards(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    let ranges = topology.slot_ranges();
    let reply = &mut *context.reply;
    reply.array(topology.groups.len());
    for group in &topology.groups {
        reply.map(2);
        reply.bulk(b"slots");
        let owned: Vec<_> = ranges.iter().filter(|range| range.group.id == group.id).collect();
        reply.array(owned.len() * 2);
        for range in owned {
            reply.int(i64::from(range.first));
            reply.int(i64::from(range.last));
        }
        reply.bulk(b"nodes");
        let owner = topology.owner_of(group);
        let master = topology.nodes.iter().filter(|node| Some(node.id) == owner);
        let nodes: Vec<_> = master.chain(topology.replicas_of(group)).collect();
        reply.array(nodes.len());
        for node in nodes {
            write_shard_node(reply, &topology, group, node);
        }
    }
}

fn write_shard_node(reply: &mut Reply, topology: &Topology, group: &GroupView, node: &NodeView) {
    let role = if topology.owner_of(group) == Some(node.id) { "master" } else { "replica" };
    let health = if !topology.is_connected(node.id) {
        "fail"
    } else if group.learners.contains(&node.id) {
        "loading"
    } else {
        "online"
    };
    reply.map(7);
    reply.bulk(b"id");
    reply.bulk(topology.name_of(node.id).as_bytes());
    reply.bulk(b"port");
    reply.int(i64::from(node.client.port));
    reply.bulk(b"ip");
    reply.bulk(node.client.host.as_bytes());
    reply.bulk(b"endpoint");
    reply.bulk(node.client.host.as_bytes());
    reply.bulk(b"role");
    reply.bulk(role.as_bytes());
    reply.bulk(b"replication-offset");
    reply.int(group.offset_of(node.id, topology.me) as i64);
    reply.bulk(b"health");
    reply.bulk(health.as_bytes());
}

/// The connections between this node and others: as in Redis, but that each pair of nodes has two in each direction, one for
/// what is urgent and one for what is large. What waits to be sent is all the memory that a connection holds.
pub(super) fn links(context: &mut ConnContext<'_>) {
    let Some(topology) = topology(context) else { return };
    let traffic = context.node.traffic();
    let reply = &mut *context.reply;
    reply.array(traffic.links.len());
    for link in &traffic.links {
        reply.map(6);
        reply.bulk(b"direction");
        reply.bulk(if link.outgoing { b"to" } else { b"from" });
        reply.bulk(b"node");
        reply.bulk(topology.name_of(link.node).as_bytes());
        reply.bulk(b"create-time");
        reply.int(link.since_ms as i64);
        reply.bulk(b"events");
        // Who dialed sends, and who was dialed reads; a writer waits for the socket only while something is queued.
        let events: &[u8] = if !link.outgoing || link.queued_bytes == 0 { b"r" } else { b"rw" };
        reply.bulk(events);
        reply.bulk(b"send-buffer-allocated");
        reply.int(link.queued_bytes as i64);
        reply.bulk(b"send-buffer-used");
        reply.int(link.queued_bytes as i64);
    }
}

/// Says who does it instead.
pub(super) fn managed(context: &mut ConnContext<'_>) {
    if topology(context).is_none() {
        return;
    }
    let name = shown(context.arg(1)).to_ascii_uppercase();
    let instead = match name.as_str() {
        "MEET" | "FORGET" | "RESET" => "; nodes are added and removed with kvctl node add and kvctl node remove",
        "FAILOVER" => "; leadership is handed over with kvctl leader transfer",
        _ => "",
    };
    context.reply.error(&format!("ERR Holdfast places slots and replicas itself, CLUSTER {name} is refused{instead}"));
}

pub(super) fn help(context: &mut ConnContext<'_>) {
    if topology(context).is_none() {
        return;
    }
    context.reply.help(&[
        "CLUSTER <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "COUNTKEYSINSLOT <slot>",
        "    How many keys of <slot> this node has.",
        "GETKEYSINSLOT <slot> <count>",
        "    At most <count> keys of <slot> that this node has.",
        "INFO",
        "    The state of the cluster as this node sees it.",
        "KEYSLOT <key>",
        "    The slot of <key>.",
        "LINKS",
        "    The connections between this node and the others.",
        "MYID",
        "    The id of this node.",
        "MYSHARDID",
        "    The id of the shard that this node belongs to.",
        "NODES",
        "    A line for each node: id, address, flags, master, epoch, link, slots.",
        "REPLICAS <node-id>",
        "    The replicas of a node, as lines of NODES.",
        "SHARDS",
        "    Shards with their slots and nodes.",
        "SLOTS",
        "    Ranges of slots with their nodes, the master first.",
        "HELP",
        "    This text.",
        "Holdfast places slots and replicas itself: what changes them is refused.",
    ]);
}

pub(super) fn holdfast_help(context: &mut ConnContext<'_>) {
    context.reply.help(&[
        "HOLDFAST <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ONCE <session> <number> <low-water> <command> [<arg> ...]",
        "    Executes a command that writes keys of one slot at most once, and answers what it answered the first time.",
        "SESSION NEW",
        "    Begins a session for numbered writes. Answers its id.",
        "NODES",
        "    The nodes of the cluster: a map for each, as the leader sees them.",
        "REMOVE-NODE <node>",
        "    Removes a node, by its number. Answers when it is gone: 1, or 0 if it was gone before.",
        "TRANSFER-LEADER [<node>]",
        "    Hands leadership to <node>, or to the one that is furthest. Answers the number of the new leader.",
        "VERIFY",
        "    Has all replicas hash what they hold at one index, and compares. One that differs from the majority is rebuilt.",
        "HELP",
        "    This text.",
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_slots_is_an_empty_list() {
        let topology = Topology { cluster: 1, me: 1, nodes: Vec::new(), groups: Vec::new() };
        assert_eq!(encode_slots(&topology, Proto::Resp2), b"*0\r\n".as_slice());
    }
}
