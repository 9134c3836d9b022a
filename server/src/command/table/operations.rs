//! Latency and functions, which tools ask of every Redis, though a Holdfast has little to say; and the commands by which
//! operators change a cluster.

use super::super::keyspec::{RW_ONCE, at};
use super::super::spec::flag::{ADMIN, DENYOOM, FAST, LOADING, MOVABLEKEYS, NOSCRIPT, STALE, WRITE};
use super::super::{CommandSpec, Connection, Group, Handler, Special, category};

const ALL_NODES: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(200, "latency", -2, Group::Server, Handler::Container)
        .docs("2.8.13", "Depends on the subcommand.", "", "Reports on events that took long.")
        .subcommands(&[
            CommandSpec::new(201, "latency|latest", 2, Group::Server, Handler::Connection(Connection::LatencyLatest))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(ALL_NODES)
                .docs("2.8.13", "O(1)", "", "Lists the latest event of each kind: none."),
            CommandSpec::new(202, "latency|history", 3, Group::Server, Handler::Connection(Connection::LatencyHistory))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(ALL_NODES)
                .docs("2.8.13", "O(1)", "event", "Lists the events of a kind: none."),
            CommandSpec::new(203, "latency|reset", -2, Group::Server, Handler::Connection(Connection::LatencyReset))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.8.13", "O(1)", "[event ...]", "Forgets events: none."),
            CommandSpec::new(204, "latency|doctor", 2, Group::Server, Handler::Connection(Connection::LatencyDoctor))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(ALL_NODES)
                .docs("2.8.13", "O(1)", "", "Says where to look for what takes long."),
            CommandSpec::new(205, "latency|graph", 3, Group::Server, Handler::Connection(Connection::LatencyGraph))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(ALL_NODES)
                .docs("2.8.13", "O(1)", "event", "Draws the events of a kind: refused, there are none."),
            CommandSpec::new(
                206,
                "latency|histogram",
                -2,
                Group::Server,
                Handler::Connection(Connection::LatencyHistogram),
            )
            .flags(ADMIN | NOSCRIPT | LOADING | STALE)
            .tips(ALL_NODES)
            .docs("7.0.0", "O(1)", "[command ...]", "Reports how long commands took: nothing."),
            CommandSpec::new(207, "latency|help", 2, Group::Server, Handler::Connection(Connection::LatencyHelp))
                .flags(LOADING | STALE)
                .docs("2.8.13", "O(1)", "", "Lists the subcommands of LATENCY."),
        ]),
    CommandSpec::new(210, "function", -2, Group::Scripting, Handler::Container)
        .without(category::SCRIPTING)
        .docs("7.0.0", "Depends on the subcommand.", "", "Manages functions, of which there are none.")
        .subcommands(&[
            // NB: no write: there is nothing to remove, and so nothing to log.
            CommandSpec::new(
                211,
                "function|flush",
                -2,
                Group::Scripting,
                Handler::Connection(Connection::FunctionFlush),
            )
            .flags(NOSCRIPT)
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .docs("7.0.0", "O(1)", "[ASYNC | SYNC]", "Removes all functions: there are none."),
            CommandSpec::new(212, "function|list", -2, Group::Scripting, Handler::Connection(Connection::FunctionList))
                .flags(NOSCRIPT)
                .tips(&["nondeterministic_output_order"])
                .docs(
                    "7.0.0",
                    "O(1)",
                    "[LIBRARYNAME library-name-pattern] [WITHCODE]",
                    "Lists the functions: there are none.",
                ),
        ]),
    CommandSpec::new(213, "holdfast", -2, Group::Cluster, Handler::Container)
        .docs(
            "0.1.0",
            "Depends on the subcommand.",
            "",
            "Changes the cluster, tells about its nodes, and executes commands exactly once.",
        )
        .subcommands(&[
            CommandSpec::new(214, "holdfast|nodes", 2, Group::Cluster, Handler::Special(Special::Nodes))
                .flags(ADMIN | NOSCRIPT | STALE)
                .tips(&["nondeterministic_output"])
                .docs("0.1.0", "O(N) in the number of nodes", "", "Lists the nodes as the leader sees them."),
            CommandSpec::new(215, "holdfast|remove-node", 3, Group::Cluster, Handler::Special(Special::RemoveNode))
                .flags(ADMIN | NOSCRIPT | STALE)
                .docs("0.1.0", "O(1)", "node:integer", "Removes a node from the cluster."),
            CommandSpec::new(
                216,
                "holdfast|transfer-leader",
                -2,
                Group::Cluster,
                Handler::Special(Special::TransferLeader),
            )
            .flags(ADMIN | NOSCRIPT | STALE)
            .docs("0.1.0", "O(1)", "[node:integer]", "Hands leadership over to another node."),
            CommandSpec::new(208, "holdfast|verify", 2, Group::Cluster, Handler::Special(Special::Verify))
                .flags(ADMIN | NOSCRIPT | STALE)
                .tips(&["nondeterministic_output"])
                .docs("0.1.0", "O(N) in the number of keys, in the background", "", "Compares what the replicas hold."),
            CommandSpec::new(218, "holdfast|once", -7, Group::Cluster, Handler::Once)
                .flags(WRITE | DENYOOM | NOSCRIPT | MOVABLEKEYS)
                .keys(&[at(6, RW_ONCE).notes("The keys are those of the command among the arguments")])
                .docs(
                    "0.1.0",
                    "That of the command",
                    "session number:integer low-water:integer command key:key [arg ...]",
                    "Executes a command at most once, and answers what it answered the first time.",
                ),
            CommandSpec::new(219, "holdfast|session", 3, Group::Cluster, Handler::NewSession)
                .flags(WRITE | NOSCRIPT | FAST)
                .docs("0.1.0", "O(1)", "NEW", "Begins a session for numbered writes."),
            CommandSpec::new(217, "holdfast|help", 2, Group::Cluster, Handler::Connection(Connection::HoldfastHelp))
                .flags(LOADING | STALE)
                .docs("0.1.0", "O(1)", "", "Lists the subcommands of HOLDFAST."),
        ]),
];
