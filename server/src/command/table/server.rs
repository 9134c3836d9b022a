//! The server.

use super::super::keyspec::{RO, at};
use super::super::needs::NeedsRule;
use super::super::spec::flag::{ADMIN, ALLOW_BUSY, FAST, LOADING, NO_MULTI, NOSCRIPT, READONLY, STALE, WRITE};
use super::super::{CommandSpec, Connection, Group, Handler, Special, category, introspect, keys, memory};

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(120, "flushdb", -1, Group::Server, Handler::Data(keys::flush))
        .flags(WRITE)
        .also(category::KEYSPACE | category::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .needing(NeedsRule::Nothing)
        .docs("1.0.0", "O(1)", "[ASYNC | SYNC]", "Removes all keys of the database."),
    CommandSpec::new(121, "flushall", -1, Group::Server, Handler::Data(keys::flush))
        .flags(WRITE)
        .also(category::KEYSPACE | category::DANGEROUS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .needing(NeedsRule::Nothing)
        .docs("1.0.0", "O(1)", "[ASYNC | SYNC]", "Removes all keys."),
    CommandSpec::new(122, "dbsize", 1, Group::Server, Handler::Special(Special::DbSize))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .docs("1.0.0", "O(1)", "", "Counts the keys."),
    CommandSpec::new(123, "shutdown", -1, Group::Server, Handler::Special(Special::Shutdown))
        .flags(ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY)
        .docs("1.0.0", "O(1)", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", "Stops the node."),
    CommandSpec::new(124, "time", 1, Group::Server, Handler::Connection(Connection::Time))
        .flags(LOADING | STALE | FAST)
        .tips(&["nondeterministic_output"])
        .docs("2.6.0", "O(1)", "", "Tells the time of the node."),
    CommandSpec::new(125, "lastsave", 1, Group::Server, Handler::Connection(Connection::Lastsave))
        .flags(LOADING | STALE | FAST)
        .also(category::ADMIN | category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .docs("1.0.0", "O(1)", "", "Tells when data was last brought to the disk."),
    CommandSpec::new(153, "role", 1, Group::Server, Handler::Connection(Connection::Role))
        .flags(NOSCRIPT | LOADING | STALE | FAST)
        .also(category::ADMIN | category::DANGEROUS)
        .docs("2.8.12", "O(1)", "", "Tells the role of the node in replication."),
    CommandSpec::new(126, "info", -1, Group::Server, Handler::Connection(Connection::Info))
        .flags(LOADING | STALE)
        .also(category::DANGEROUS)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .docs("1.0.0", "O(1)", "[section ...]", "Reports on the node."),
    CommandSpec::new(127, "memory", -2, Group::Server, Handler::Container)
        .docs("4.0.0", "Depends on the subcommand.", "", "Reports on memory.")
        .subcommands(&[
            CommandSpec::new(128, "memory|usage", -3, Group::Server, Handler::Data(memory::usage))
                .flags(READONLY)
                .keys(&[at(2, RO)])
                .needing(NeedsRule::Heads)
                .docs("4.0.0", "O(1)", "key [SAMPLES count]", "Estimates the memory that a key and its value take."),
            CommandSpec::new(149, "memory|doctor", 2, Group::Server, Handler::Connection(Connection::MemoryDoctor))
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs("4.0.0", "O(1)", "", "Says what looks wrong with the use of memory."),
            CommandSpec::new(150, "memory|stats", 2, Group::Server, Handler::Connection(Connection::MemoryStats))
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
                .docs("4.0.0", "O(1)", "", "Reports what memory is used for."),
            CommandSpec::new(151, "memory|purge", 2, Group::Server, Handler::Connection(Connection::MemoryPurge))
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
                .docs("4.0.0", "O(1)", "", "Does nothing: the allocator gives memory back by itself."),
            CommandSpec::new(
                152,
                "memory|malloc-stats",
                2,
                Group::Server,
                Handler::Connection(Connection::MemoryMallocStats),
            )
            .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
            .docs("4.0.0", "O(1)", "", "Reports on the allocator."),
            CommandSpec::new(129, "memory|help", 2, Group::Server, Handler::Table(memory::help))
                .flags(LOADING | STALE)
                .docs("4.0.0", "O(1)", "", "Lists the subcommands of MEMORY."),
        ]),
    CommandSpec::new(130, "config", -2, Group::Server, Handler::Container)
        .docs("2.0.0", "Depends on the subcommand.", "", "Reads and changes settings.")
        .subcommands(&[
            CommandSpec::new(131, "config|get", -3, Group::Server, Handler::Connection(Connection::ConfigGet))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .docs("2.0.0", "O(N) in the number of patterns", "parameter [parameter ...]", "Reads settings."),
            CommandSpec::new(132, "config|set", -4, Group::Server, Handler::Connection(Connection::ConfigSet))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs(
                    "2.0.0",
                    "O(N) in the number of settings",
                    "<parameter value> [<parameter value> ...]",
                    "Changes settings of the running node.",
                ),
            CommandSpec::new(
                133,
                "config|resetstat",
                2,
                Group::Server,
                Handler::Connection(Connection::ConfigResetstat),
            )
            .flags(ADMIN | NOSCRIPT | LOADING | STALE)
            .docs("2.0.0", "O(1)", "", "Sets the counters that INFO reports back to zero."),
            CommandSpec::new(148, "config|rewrite", 2, Group::Server, Handler::Connection(Connection::ConfigRewrite))
                .flags(ADMIN | NOSCRIPT | LOADING | STALE)
                .docs("2.8.0", "O(1)", "", "Refused: the settings file is edited by hand."),
            CommandSpec::new(134, "config|help", 2, Group::Server, Handler::Connection(Connection::ConfigHelp))
                .flags(LOADING | STALE)
                .docs("5.0.0", "O(1)", "", "Lists the subcommands of CONFIG."),
        ]),
    CommandSpec::new(135, "slowlog", -2, Group::Server, Handler::Container)
        .docs("2.2.12", "Depends on the subcommand.", "", "Reports slow commands.")
        .subcommands(&[
            CommandSpec::new(136, "slowlog|get", -2, Group::Server, Handler::Connection(Connection::SlowlogGet))
                .flags(ADMIN | LOADING | STALE)
                .tips(&["request_policy:all_nodes", "nondeterministic_output"])
                .docs("2.2.12", "O(N) in the number of entries", "[count]", "Lists the latest slow commands."),
            CommandSpec::new(137, "slowlog|len", 2, Group::Server, Handler::Connection(Connection::SlowlogLen))
                .flags(ADMIN | LOADING | STALE)
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
                .docs("2.2.12", "O(1)", "", "Counts the remembered slow commands."),
            CommandSpec::new(138, "slowlog|reset", 2, Group::Server, Handler::Connection(Connection::SlowlogReset))
                .flags(ADMIN | LOADING | STALE)
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
                .docs("2.2.12", "O(N) in the number of entries", "", "Forgets the slow commands."),
            CommandSpec::new(139, "slowlog|help", 2, Group::Server, Handler::Connection(Connection::SlowlogHelp))
                .flags(LOADING | STALE)
                .docs("6.2.0", "O(1)", "", "Lists the subcommands of SLOWLOG."),
        ]),
    CommandSpec::new(140, "command", -1, Group::Server, Handler::Table(introspect::command))
        .flags(LOADING | STALE)
        .also(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .docs("2.8.13", "O(N) in the number of commands", "", "Describes all commands to client libraries.")
        .subcommands(&[
            CommandSpec::new(141, "command|count", 2, Group::Server, Handler::Table(introspect::count))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .docs("2.8.13", "O(1)", "", "Counts the commands."),
            CommandSpec::new(142, "command|info", -2, Group::Server, Handler::Table(introspect::info))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .tips(&["nondeterministic_output_order"])
                .docs(
                    "2.8.13",
                    "O(N) in the number of names",
                    "[command-name ...]",
                    "Describes commands to client libraries.",
                ),
            CommandSpec::new(143, "command|list", -2, Group::Server, Handler::Table(introspect::list))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .tips(&["nondeterministic_output_order"])
                .docs(
                    "7.0.0",
                    "O(N) in the number of commands",
                    "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
                    "Lists the names of the commands.",
                ),
            CommandSpec::new(144, "command|docs", -2, Group::Server, Handler::Table(introspect::docs))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .tips(&["nondeterministic_output_order"])
                .docs("7.0.0", "O(N) in the number of names", "[command-name ...]", "Documents commands."),
            CommandSpec::new(145, "command|getkeys", -4, Group::Server, Handler::Table(introspect::getkeys))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .docs("2.8.13", "O(N) in the number of arguments", "command [arg ...]", "Lists the keys in a request."),
            CommandSpec::new(
                146,
                "command|getkeysandflags",
                -4,
                Group::Server,
                Handler::Table(introspect::getkeysandflags),
            )
            .flags(LOADING | STALE)
            .also(category::CONNECTION)
            .docs(
                "7.0.0",
                "O(N) in the number of arguments",
                "command [arg ...]",
                "Lists the keys in a request and what happens to them.",
            ),
            CommandSpec::new(147, "command|help", 2, Group::Server, Handler::Table(introspect::help))
                .flags(LOADING | STALE)
                .also(category::CONNECTION)
                .docs("5.0.0", "O(1)", "", "Lists the subcommands of COMMAND."),
        ]),
];
