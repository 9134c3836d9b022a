//! The cluster: refused on a node that is none, as a Redis refuses it.

use super::super::spec::flag::{FAST, LOADING, STALE};
use super::super::{CommandSpec, Connection, Group, Handler, category};

const DISABLED: Handler = Handler::Connection(Connection::ClusterDisabled);
const VARYING: &[&str] = &["nondeterministic_output"];

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(220, "readonly", 1, Group::Cluster, DISABLED)
        .flags(LOADING | STALE | FAST)
        .also(category::CONNECTION)
        .docs("3.0.0", "O(1)", "", "Allows reads from a replica."),
    CommandSpec::new(221, "readwrite", 1, Group::Cluster, DISABLED)
        .flags(LOADING | STALE | FAST)
        .also(category::CONNECTION)
        .docs("3.0.0", "O(1)", "", "Ends READONLY."),
    CommandSpec::new(222, "asking", 1, Group::Cluster, DISABLED).flags(FAST).also(category::CONNECTION).docs(
        "3.0.0",
        "O(1)",
        "",
        "Announces a command that follows a redirection.",
    ),
    CommandSpec::new(223, "cluster", -2, Group::Cluster, Handler::Container)
        .docs("3.0.0", "Depends on the subcommand.", "", "Describes the cluster.")
        .subcommands(&[
            CommandSpec::new(224, "cluster|info", 2, Group::Cluster, DISABLED).flags(STALE).tips(VARYING).docs(
                "3.0.0",
                "O(1)",
                "",
                "Reports on the state of the cluster.",
            ),
            CommandSpec::new(225, "cluster|nodes", 2, Group::Cluster, DISABLED).flags(STALE).tips(VARYING).docs(
                "3.0.0",
                "O(1)",
                "",
                "Lists the nodes, a line each.",
            ),
            CommandSpec::new(226, "cluster|slots", 2, Group::Cluster, DISABLED)
                .flags(STALE)
                .tips(VARYING)
                .deprecated("7.0.0", "CLUSTER SHARDS")
                .docs("3.0.0", "O(1)", "", "Maps ranges of slots to nodes."),
            CommandSpec::new(227, "cluster|shards", 2, Group::Cluster, DISABLED).flags(STALE).tips(VARYING).docs(
                "7.0.0",
                "O(1)",
                "",
                "Maps shards to slots and nodes.",
            ),
            CommandSpec::new(228, "cluster|myid", 2, Group::Cluster, DISABLED).flags(STALE).docs(
                "3.0.0",
                "O(1)",
                "",
                "Tells the id of this node.",
            ),
            CommandSpec::new(229, "cluster|keyslot", 3, Group::Cluster, DISABLED).flags(STALE).docs(
                "3.0.0",
                "O(1)",
                "key:string",
                "Tells the slot of a key.",
            ),
            CommandSpec::new(230, "cluster|countkeysinslot", 3, Group::Cluster, DISABLED).flags(STALE).docs(
                "3.0.0",
                "O(1)",
                "slot:integer",
                "Counts the keys of a slot.",
            ),
            CommandSpec::new(231, "cluster|getkeysinslot", 4, Group::Cluster, DISABLED)
                .flags(STALE)
                .tips(VARYING)
                .docs("3.0.0", "O(1)", "slot:integer count:integer", "Lists keys of a slot."),
            CommandSpec::new(232, "cluster|help", 2, Group::Cluster, DISABLED).flags(LOADING | STALE).docs(
                "5.0.0",
                "O(1)",
                "",
                "Lists the subcommands of CLUSTER.",
            ),
        ]),
];
