//! The cluster. A node that is in none refuses all of these, as such a Redis does.

use super::super::spec::flag::{ADMIN, FAST, LOADING, NO_ASYNC_LOADING, NOSCRIPT, STALE};
use super::super::{CommandSpec, Connection, Group, Handler, Special, category};

const VARYING: &[&str] = &["nondeterministic_output"];

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(220, "readonly", 1, Group::Cluster, Handler::Connection(Connection::Readonly))
        .flags(LOADING | STALE | FAST)
        .also(category::CONNECTION)
        .docs("3.0.0", "O(1)", "", "Allows reads from a replica."),
    CommandSpec::new(221, "readwrite", 1, Group::Cluster, Handler::Connection(Connection::Readwrite))
        .flags(LOADING | STALE | FAST)
        .also(category::CONNECTION)
        .docs("3.0.0", "O(1)", "", "Ends READONLY."),
    CommandSpec::new(222, "asking", 1, Group::Cluster, Handler::Connection(Connection::Asking))
        .flags(FAST)
        .also(category::CONNECTION)
        .docs("3.0.0", "O(1)", "", "Announces a command that follows a redirection."),
    CommandSpec::new(223, "cluster", -2, Group::Cluster, Handler::Container)
        .docs("3.0.0", "Depends on the subcommand.", "", "Describes the cluster.")
        .subcommands(&[
            CommandSpec::new(224, "cluster|info", 2, Group::Cluster, Handler::Connection(Connection::ClusterInfo))
                .flags(STALE)
                .tips(VARYING)
                .docs("3.0.0", "O(1)", "", "Reports on the state of the cluster."),
            CommandSpec::new(225, "cluster|nodes", 2, Group::Cluster, Handler::Connection(Connection::ClusterNodes))
                .flags(STALE)
                .tips(VARYING)
                .docs("3.0.0", "O(N) in the number of nodes", "", "Lists the nodes, a line each."),
            CommandSpec::new(226, "cluster|slots", 2, Group::Cluster, Handler::Connection(Connection::ClusterSlots))
                .flags(STALE)
                .tips(VARYING)
                .deprecated("7.0.0", "CLUSTER SHARDS")
                .docs("3.0.0", "O(N) in the number of nodes", "", "Maps ranges of slots to nodes."),
            CommandSpec::new(227, "cluster|shards", 2, Group::Cluster, Handler::Connection(Connection::ClusterShards))
                .flags(STALE)
                .tips(VARYING)
                .docs("7.0.0", "O(N) in the number of nodes", "", "Maps shards to slots and nodes."),
            CommandSpec::new(228, "cluster|myid", 2, Group::Cluster, Handler::Connection(Connection::ClusterMyid))
                .flags(STALE)
                .docs("3.0.0", "O(1)", "", "Tells the id of this node."),
            CommandSpec::new(
                233,
                "cluster|myshardid",
                2,
                Group::Cluster,
                Handler::Connection(Connection::ClusterMyshardid),
            )
            .flags(STALE)
            .tips(VARYING)
            .docs("7.2.0", "O(1)", "", "Tells the id of the shard that this node belongs to."),
            CommandSpec::new(
                229,
                "cluster|keyslot",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterKeyslot),
            )
            .flags(STALE)
            .docs("3.0.0", "O(N) in the length of the key", "key:string", "Tells the slot of a key."),
            CommandSpec::new(
                230,
                "cluster|countkeysinslot",
                3,
                Group::Cluster,
                Handler::Special(Special::CountKeysInSlot),
            )
            .flags(STALE)
            .docs(
                "3.0.0",
                "O(N) in the number of the slot's keys",
                "slot:integer",
                "Counts the keys of a slot.",
            ),
            CommandSpec::new(231, "cluster|getkeysinslot", 4, Group::Cluster, Handler::Special(Special::GetKeysInSlot))
                .flags(STALE)
                .tips(VARYING)
                .docs(
                    "3.0.0",
                    "O(N) in the number of keys asked for",
                    "slot:integer count:integer",
                    "Lists keys of a slot.",
                ),
            CommandSpec::new(234, "cluster|links", 2, Group::Cluster, Handler::Connection(Connection::ClusterLinks))
                .flags(STALE)
                .tips(VARYING)
                .docs("7.0.0", "O(N) in the number of nodes", "", "Lists the connections to other nodes."),
            CommandSpec::new(
                235,
                "cluster|replicas",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterReplicas),
            )
            .flags(ADMIN | STALE)
            .tips(VARYING)
            .docs(
                "5.0.0",
                "O(N) in the number of nodes",
                "node-id:string",
                "Lists the replicas of a node.",
            ),
            CommandSpec::new(
                236,
                "cluster|slaves",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterReplicas),
            )
            .flags(ADMIN | STALE)
            .tips(VARYING)
            .deprecated("5.0.0", "CLUSTER REPLICAS")
            .docs(
                "3.0.0",
                "O(N) in the number of nodes",
                "node-id:string",
                "Lists the replicas of a node.",
            ),
            CommandSpec::new(
                237,
                "cluster|count-failure-reports",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterCountFailureReports),
            )
            .flags(ADMIN | STALE)
            .tips(VARYING)
            .docs("3.0.0", "O(1)", "node-id:string", "Always 0: nodes don't report each other's failures."),
            CommandSpec::new(
                238,
                "cluster|saveconfig",
                2,
                Group::Cluster,
                Handler::Connection(Connection::ClusterSaveconfig),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs("3.0.0", "O(1)", "", "Does nothing: the list of nodes is always on disk."),
            CommandSpec::new(
                239,
                "cluster|addslots",
                -3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "3.0.0",
                "O(1)",
                "slot:integer [slot:integer ...]",
                "Refused: Holdfast places slots itself.",
            ),
            CommandSpec::new(
                240,
                "cluster|addslotsrange",
                -4,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "7.0.0",
                "O(1)",
                "<start-slot:integer end-slot:integer> [<start-slot:integer end-slot:integer> ...]",
                "Refused: Holdfast places slots itself.",
            ),
            CommandSpec::new(
                241,
                "cluster|delslots",
                -3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "3.0.0",
                "O(1)",
                "slot:integer [slot:integer ...]",
                "Refused: Holdfast places slots itself.",
            ),
            CommandSpec::new(
                242,
                "cluster|delslotsrange",
                -4,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "7.0.0",
                "O(1)",
                "<start-slot:integer end-slot:integer> [<start-slot:integer end-slot:integer> ...]",
                "Refused: Holdfast places slots itself.",
            ),
            CommandSpec::new(
                243,
                "cluster|flushslots",
                2,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs("3.0.0", "O(1)", "", "Refused: Holdfast places slots itself."),
            CommandSpec::new(
                244,
                "cluster|setslot",
                -4,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "3.0.0",
                "O(1)",
                "slot:integer <IMPORTING node-id | MIGRATING node-id | NODE node-id | STABLE>",
                "Refused: Holdfast places slots itself.",
            ),
            CommandSpec::new(
                245,
                "cluster|bumpepoch",
                2,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .tips(VARYING)
            .docs("3.0.0", "O(1)", "", "Refused: the epoch is the term of the elections."),
            CommandSpec::new(
                246,
                "cluster|set-config-epoch",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs(
                "3.0.0",
                "O(1)",
                "config-epoch:integer",
                "Refused: the epoch is the term of the elections.",
            ),
            CommandSpec::new(247, "cluster|meet", -4, Group::Cluster, Handler::Connection(Connection::ClusterManaged))
                .flags(ADMIN | STALE | NO_ASYNC_LOADING)
                .docs(
                    "3.0.0",
                    "O(1)",
                    "ip:string port:integer [cluster-bus-port:integer]",
                    "Refused: nodes join with kvctl.",
                ),
            CommandSpec::new(248, "cluster|forget", 3, Group::Cluster, Handler::Connection(Connection::ClusterManaged))
                .flags(ADMIN | STALE | NO_ASYNC_LOADING)
                .docs("3.0.0", "O(1)", "node-id:string", "Refused: nodes are removed with kvctl."),
            CommandSpec::new(
                249,
                "cluster|replicate",
                3,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs("3.0.0", "O(1)", "node-id:string", "Refused: Holdfast places replicas itself."),
            CommandSpec::new(
                250,
                "cluster|failover",
                -2,
                Group::Cluster,
                Handler::Connection(Connection::ClusterManaged),
            )
            .flags(ADMIN | STALE | NO_ASYNC_LOADING)
            .docs("3.0.0", "O(1)", "[FORCE | TAKEOVER]", "Refused: leadership is handed over with kvctl."),
            CommandSpec::new(251, "cluster|reset", -2, Group::Cluster, Handler::Connection(Connection::ClusterManaged))
                .flags(ADMIN | NOSCRIPT | STALE)
                .docs("3.0.0", "O(1)", "[HARD | SOFT]", "Refused: nodes are removed with kvctl."),
            CommandSpec::new(232, "cluster|help", 2, Group::Cluster, Handler::Connection(Connection::ClusterHelp))
                .flags(LOADING | STALE)
                .docs("5.0.0", "O(1)", "", "Lists the subcommands of CLUSTER."),
        ]),
];
