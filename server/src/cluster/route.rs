//! Whether this node answers a request, and if not, what it says.
//!
//! ```text
//!   keys ──▶ one slot? ──no──▶ CROSSSLOT
//!              │yes
//!              ▼
//!   slot ──▶ group ──none──▶ CLUSTERDOWN Hash slot not served
//!              │
//!              ├─ led here ─────────────────────▶ serve
//!              ├─ a read, READONLY, a vote here ▶ serve
//!              ├─ another node leads ───────────▶ MOVED
//!              └─ nobody is known to lead ──────▶ CLUSTERDOWN
//! ```
//!
//! Pure: the caller says what it knows better than the [`Topology`], namely whether its own replica leads and may serve.
//! The two can disagree for a moment (the topology is published after the fact), and then the caller is right: a node that
//! the topology names as leader but that does not lead answers CLUSTERDOWN. NB: a MOVED never points at the node that
//! answers it; clients would follow it for ever.
//!
//! It runs for every command of a cluster, so it hashes keys only, and allocates nothing until a refusal becomes text. A
//! node that leads the only group doesn't even hash a lone key: its slot can't matter.

use super::{Address, GroupView, Topology};
use crate::command::{CommandSpec, keys_of, parse_i64};
use crate::slot::{SLOT_COUNT, slot_of};
use std::borrow::Cow;
use std::fmt;

/// The number of COPY, which can name a database.
const COPY: u16 = 67;

/// What a node does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'t> {
    /// Answers it.
    Serve,
    /// Names the node that does.
    Moved {
        /// The slot of the keys; the group's first one if there are no keys.
        slot: u16,
        /// Where that node's clients connect.
        to: &'t Address,
    },
    /// Refuses: the keys are in different slots.
    CrossSlot,
    /// Refuses, for the moment: nobody is known to lead the slot's group. Nothing was proposed.
    ClusterDown,
    /// Refuses: no group owns the slot.
    SlotNotServed,
    /// Refuses a write without keys: this node leads nothing.
    ReadOnly,
    /// Refuses a COPY into another database: a cluster has one.
    CopyDatabase,
}

/// How the node and the connection stand to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The connection has said READONLY: it accepts what a replica knows.
    pub read_only: bool,
}

impl Route<'_> {
    /// Whether the node answers the request itself.
    #[inline]
    pub fn serves(&self) -> bool {
        *self == Route::Serve
    }

    /// The error to answer, code first; none if the request is served.
    pub fn error(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Route::Serve => return None,
            Route::Moved { .. } => self.to_string().into(),
            Route::CrossSlot => "CROSSSLOT Keys in request don't hash to the same slot".into(),
            Route::ClusterDown => "CLUSTERDOWN The cluster is down".into(),
            Route::SlotNotServed => "CLUSTERDOWN Hash slot not served".into(),
            Route::ReadOnly => "READONLY You can't write against a read only replica.".into(),
            Route::CopyDatabase => "ERR Copying to another database is not allowed in cluster mode".into(),
        })
    }
}

impl fmt::Display for Route<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Serve => formatter.write_str("served here"),
            // NB: without brackets around an IPv6 address, as Redis writes it: clients look for the last colon.
            Route::Moved { slot, to } => write!(formatter, "MOVED {slot} {}:{}", to.host, to.port),
            refusal => formatter.write_str(&refusal.error().unwrap_or_default()),
        }
    }
}

/// The slots of a request's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// It has no keys.
    None,
    /// All keys are in this one.
    One(u16),
    /// They are in several.
    Many,
}

/// The slots of the keys among `args`.
#[inline]
pub fn slots_of(spec: &'static CommandSpec, args: &[&[u8]]) -> Slots {
    let mut keys = keys_of(spec, args);
    let Some(first) = keys.next() else { return Slots::None };
    let slot = slot_of(args[first]);
    if keys.all(|key| slot_of(args[key]) == slot) { Slots::One(slot) } else { Slots::Many }
}

/// Decides what becomes of a request. `leads` says whether this node's replica of a group leads it now and may serve; it is
/// asked at most once for each group. What acts on no data (PING, INFO, CLUSTER and their like) is always served.
#[inline]
pub fn route<'t>(
    topology: &'t Topology,
    spec: &'static CommandSpec,
    args: &[&[u8]],
    standing: Standing,
    leads: impl Fn(&GroupView) -> bool,
) -> Route<'t> {
    if !spec.is_read() && !spec.is_write() {
        return Route::Serve;
    }
    let mut keys = keys_of(spec, args);
    let Some(first) = keys.next() else { return without_keys(topology, spec, standing, leads) };
    let second = keys.next();
    if second.is_none()
        && let [group] = topology.groups.as_slice()
        && group.slots == [(0, SLOT_COUNT - 1)]
        && leads(group)
    {
        return Route::Serve;
    }
    let slot = slot_of(args[first]);
    if second.into_iter().chain(keys).any(|key| slot_of(args[key]) != slot) {
        return Route::CrossSlot;
    }
    let Some(group) = topology.group_of(slot) else { return Route::SlotNotServed };
    match route_group(topology, group, slot, spec, standing, leads(group)) {
        Route::Serve if spec.id == COPY && names_another_database(args) => Route::CopyDatabase,
        route => route,
    }
}

/// The same for a slot whose group is known already.
fn route_group<'t>(
    topology: &'t Topology,
    group: &'t GroupView,
    slot: u16,
    spec: &'static CommandSpec,
    standing: Standing,
    leads: bool,
) -> Route<'t> {
    // A learner's copy may be of any age: it is no replica to read from.
    if leads || (standing.read_only && spec.is_read() && group.voters.contains(&topology.me)) {
        return Route::Serve;
    }
    moved(topology, group, slot)
}

/// A redirection to who leads a group that this node does not.
fn moved<'t>(topology: &'t Topology, group: &'t GroupView, slot: u16) -> Route<'t> {
    let Some(leader) = group.leader.filter(|leader| *leader != topology.me) else { return Route::ClusterDown };
    let Some(to) = topology.node(leader).map(|node| &node.client) else { return Route::ClusterDown };
    // Two nodes with one address are a mistake in the settings, and one more way to point at ourselves.
    if topology.node(topology.me).is_some_and(|me| me.client == *to) {
        return Route::ClusterDown;
    }
    Route::Moved { slot, to }
}

/// Decides what becomes of a write that any leader may take: HOLDFAST SESSION NEW.
pub fn route_to_any_leader<'t>(topology: &'t Topology, leads: impl Fn(&GroupView) -> bool) -> Route<'t> {
    if topology.groups.iter().any(leads) {
        return Route::Serve;
    }
    let Some(group) = topology.groups.first() else { return Route::ClusterDown };
    moved(topology, group, group.slots.first().map_or(0, |(first, _)| *first))
}

/// FLUSHALL, DBSIZE, KEYS, RANDOMKEY, SCAN: they are about the groups that this node leads. Where it leads none, a write is
/// refused, and a read goes to where it would be true, unless the connection accepts what a replica knows.
fn without_keys<'t>(
    topology: &'t Topology,
    spec: &'static CommandSpec,
    standing: Standing,
    leads: impl Fn(&GroupView) -> bool,
) -> Route<'t> {
    if topology.groups.iter().any(leads) {
        return Route::Serve;
    }
    if spec.is_write() {
        return Route::ReadOnly;
    }
    let votes = |group: &GroupView| group.voters.contains(&topology.me);
    if standing.read_only && topology.groups.iter().any(votes) {
        return Route::Serve;
    }
    let Some(group) = topology.groups.first() else { return Route::ClusterDown };
    moved(topology, group, group.slots.first().map_or(0, |(first, _)| *first))
}

/// Whether COPY's options name a database other than 0. What is no number is left to the command to refuse.
fn names_another_database(args: &[&[u8]]) -> bool {
    let mut words = args.iter().skip(3);
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"db") {
            let number = words.next().and_then(|number| parse_i64(number));
            if number.is_some_and(|number| number != 0 && i32::try_from(number).is_ok()) {
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::three_nodes;
    use super::*;
    use crate::command::resolve;

    /// A follower with a vote, as it sees node 1 lead.
    fn follower() -> Topology {
        Topology { me: 2, ..three_nodes() }
    }

    fn answer(topology: &Topology, request: &str, read_only: bool, leads: bool) -> String {
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        let spec = resolve(&args).expect("a command");
        let route = route(topology, spec, &args, Standing { read_only }, |_| leads);
        assert_eq!(route.error().is_none(), route.serves());
        route.to_string()
    }

    const SERVED: &str = "served here";

    #[test]
    fn leader_serves_keys_of_one_slot() {
        let topology = three_nodes();
        for request in ["GET foo", "SET foo 1", "MGET {a}1 {a}2", "FLUSHALL", "DBSIZE", "SCAN 0", "KEYS *", "PING"] {
            assert_eq!(answer(&topology, request, false, true), SERVED, "{request}");
        }
        let refusal = "CROSSSLOT Keys in request don't hash to the same slot";
        for request in ["MGET foo bar", "MSET foo 1 bar 2", "RENAME foo bar", "DEL foo foo bar"] {
            assert_eq!(answer(&topology, request, false, true), refusal, "{request}");
        }
    }

    #[test]
    fn follower_names_the_leader() {
        let topology = follower();
        assert_eq!(answer(&topology, "GET foo", false, false), "MOVED 12182 127.0.0.1:6379");
        assert_eq!(answer(&topology, "SET foo 1", true, false), "MOVED 12182 127.0.0.1:6379");
        assert_eq!(answer(&topology, "MGET foo bar", false, false).split(' ').next(), Some("CROSSSLOT"));
        assert_eq!(answer(&topology, "INFO", false, false), SERVED);
        assert_eq!(answer(&topology, "CLUSTER COUNTKEYSINSLOT 1", false, false), SERVED);
    }

    #[test]
    fn follower_reads_only_for_who_said_readonly() {
        let topology = follower();
        for request in ["GET foo", "MGET {a}1 {a}2", "DBSIZE", "SCAN 0"] {
            assert_eq!(answer(&topology, request, true, false), SERVED, "{request}");
        }
        assert_eq!(answer(&topology, "SCAN 0", false, false), "MOVED 0 127.0.0.1:6379");
        let learner = Topology { me: 4, ..three_nodes() };
        for request in ["GET foo", "DBSIZE"] {
            assert!(answer(&learner, request, true, false).starts_with("MOVED"), "a learner is behind: {request}");
        }
    }

    #[test]
    fn write_without_keys_is_refused_by_a_follower() {
        let refusal = "READONLY You can't write against a read only replica.";
        assert_eq!(answer(&follower(), "FLUSHALL", false, false), refusal);
        assert_eq!(answer(&follower(), "FLUSHDB ASYNC", true, false), refusal);
    }

    #[test]
    fn nobody_who_leads_is_a_definite_failure() {
        let mut topology = follower();
        topology.groups[0].leader = None;
        assert_eq!(answer(&topology, "GET foo", false, false), "CLUSTERDOWN The cluster is down");
        assert_eq!(answer(&topology, "DBSIZE", false, false), "CLUSTERDOWN The cluster is down");
        assert_eq!(answer(&topology, "GET foo", true, false), SERVED, "READONLY accepts what a replica knows");
        topology.groups[0].slots = vec![(0, 99)];
        assert_eq!(answer(&topology, "GET foo", false, false), "CLUSTERDOWN Hash slot not served");
        topology.groups.clear();
        assert_eq!(answer(&topology, "GET foo", false, false), "CLUSTERDOWN Hash slot not served");
        assert_eq!(answer(&topology, "DBSIZE", false, false), "CLUSTERDOWN The cluster is down");
    }

    #[test]
    fn redirection_never_points_at_ourselves() {
        // Every way in which a node that does not lead could come to name itself.
        let stale = three_nodes();
        let mut unlisted = follower();
        unlisted.groups[0].leader = Some(77);
        let mut twins = follower();
        twins.nodes[1].client = twins.nodes[0].client.clone();
        for topology in [&stale, &unlisted, &twins] {
            for request in ["GET foo", "SET foo 1", "SCAN 0"] {
                assert_eq!(answer(topology, request, false, false), "CLUSTERDOWN The cluster is down", "{request}");
            }
        }
    }

    #[test]
    fn caller_knows_better_than_the_topology_whether_it_leads() {
        assert_eq!(answer(&follower(), "SET foo 1", false, true), SERVED);
        assert_eq!(answer(&follower(), "FLUSHALL", false, true), SERVED);
    }

    #[test]
    fn address_is_written_as_redis_writes_it() {
        let mut topology = follower();
        topology.nodes[0].client = Address::new("::1", 7000);
        assert_eq!(answer(&topology, "GET foo", false, false), "MOVED 12182 ::1:7000");
    }

    #[test]
    fn copy_stays_in_the_only_database() {
        let topology = three_nodes();
        let refusal = "ERR Copying to another database is not allowed in cluster mode";
        assert_eq!(answer(&topology, "COPY {a}1 {a}2 DB 1", false, true), refusal);
        assert_eq!(answer(&topology, "COPY {a}1 {a}2 REPLACE db -1", false, true), refusal);
        for request in ["COPY {a}1 {a}2", "COPY {a}1 {a}2 DB 0", "COPY {a}1 {a}2 DB x", "COPY {a}1 {a}2 DB"] {
            assert_eq!(answer(&topology, request, false, true), SERVED, "{request}");
        }
        assert!(answer(&topology, "COPY foo bar DB 1", false, true).starts_with("CROSSSLOT"));
    }

    #[test]
    fn slots_of_a_request_are_those_of_its_keys() {
        let of = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            slots_of(resolve(&args).expect("a command"), &args)
        };
        assert_eq!(of("GET foo"), Slots::One(12182));
        assert_eq!(of("MSET {foo}1 a {foo}2 b"), Slots::One(12182));
        assert_eq!(of("MGET foo bar"), Slots::Many);
        assert_eq!(of("PING"), Slots::None);
    }
}
