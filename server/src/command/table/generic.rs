//! Keys whatever they hold.

use super::super::keyspec::{OW_INSERT, OW_UPDATE, RM_DELETE, RO, RO_ACCESS, RW_ACCESS_DELETE, RW_UPDATE, at, range};
use super::super::needs::NeedsRule;
use super::super::spec::flag::{DENYOOM, FAST, LOADING, NOSCRIPT, READONLY, STALE, WRITE};
use super::super::{CommandSpec, Group, Handler, Special, category, dump, expire, keys, object};

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(60, "del", -2, Group::Generic, Handler::Data(keys::del))
        .flags(WRITE)
        .also(category::KEYSPACE)
        .keys(&[range(1, -1, 1, RM_DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .needing(NeedsRule::Heads)
        .docs("1.0.0", "O(N) in the number of keys", "key [key ...]", "Removes keys."),
    CommandSpec::new(61, "unlink", -2, Group::Generic, Handler::Data(keys::del))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[range(1, -1, 1, RM_DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .needing(NeedsRule::Heads)
        .docs("4.0.0", "O(N) in the number of keys", "key [key ...]", "Removes keys; here the same as DEL."),
    CommandSpec::new(62, "exists", -2, Group::Generic, Handler::Data(keys::exists))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[range(1, -1, 1, RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .needing(NeedsRule::Heads)
        .docs("1.0.0", "O(N) in the number of keys", "key [key ...]", "Counts which of the keys are there."),
    CommandSpec::new(63, "type", 2, Group::Generic, Handler::Data(keys::type_of))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO)])
        .needing(NeedsRule::Heads)
        .docs("1.0.0", "O(1)", "key", "Tells what kind of value a key holds."),
    CommandSpec::new(64, "touch", -2, Group::Generic, Handler::Data(keys::touch))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[range(1, -1, 1, RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .needing(NeedsRule::Heads)
        .docs(
            "3.2.1",
            "O(N) in the number of keys",
            "key [key ...]",
            "Counts which of the keys are there, and marks them as used.",
        ),
    CommandSpec::new(65, "rename", 3, Group::Generic, Handler::Data(keys::rename))
        .flags(WRITE)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_ACCESS_DELETE), at(2, OW_UPDATE)])
        .docs("1.0.0", "O(1)", "key newkey:key", "Gives a key another name, whatever was there before."),
    CommandSpec::new(66, "renamenx", 3, Group::Generic, Handler::Data(keys::renamenx))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_ACCESS_DELETE), at(2, OW_INSERT)])
        .docs("1.0.0", "O(1)", "key newkey:key", "Gives a key another name if nothing has it yet."),
    CommandSpec::new(67, "copy", -3, Group::Generic, Handler::Data(keys::copy))
        .flags(WRITE | DENYOOM)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS), at(2, OW_UPDATE)])
        .docs(
            "6.2.0",
            "O(1)",
            "source:key destination:key [DB destination-db] [REPLACE]",
            "Stores the value of one key under another as well.",
        ),
    CommandSpec::new(68, "expire", -3, Group::Generic, Handler::Data(expire::expire))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_UPDATE)])
        .docs("1.0.0", "O(1)", "key seconds [NX | XX | GT | LT]", "Lets a key expire after some seconds."),
    CommandSpec::new(69, "pexpire", -3, Group::Generic, Handler::Data(expire::pexpire))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_UPDATE)])
        .docs("2.6.0", "O(1)", "key milliseconds [NX | XX | GT | LT]", "Lets a key expire after some milliseconds."),
    CommandSpec::new(70, "expireat", -3, Group::Generic, Handler::Data(expire::expireat))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_UPDATE)])
        .docs(
            "1.2.0",
            "O(1)",
            "key unix-time-seconds [NX | XX | GT | LT]",
            "Lets a key expire at a time given in seconds.",
        ),
    CommandSpec::new(71, "pexpireat", -3, Group::Generic, Handler::Data(expire::pexpireat))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_UPDATE)])
        .docs(
            "2.6.0",
            "O(1)",
            "key unix-time-milliseconds [NX | XX | GT | LT]",
            "Lets a key expire at a time given in milliseconds.",
        ),
    CommandSpec::new(72, "ttl", 2, Group::Generic, Handler::Data(expire::ttl))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS)])
        .tips(&["nondeterministic_output"])
        .needing(NeedsRule::Heads)
        .docs("1.0.0", "O(1)", "key", "Tells in how many seconds a key expires."),
    CommandSpec::new(73, "pttl", 2, Group::Generic, Handler::Data(expire::pttl))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS)])
        .tips(&["nondeterministic_output"])
        .needing(NeedsRule::Heads)
        .docs("2.6.0", "O(1)", "key", "Tells in how many milliseconds a key expires."),
    CommandSpec::new(74, "expiretime", 2, Group::Generic, Handler::Data(expire::expiretime))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS)])
        .needing(NeedsRule::Heads)
        .docs("7.0.0", "O(1)", "key", "Tells when a key expires, in seconds."),
    CommandSpec::new(75, "pexpiretime", 2, Group::Generic, Handler::Data(expire::pexpiretime))
        .flags(READONLY | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS)])
        .needing(NeedsRule::Heads)
        .docs("7.0.0", "O(1)", "key", "Tells when a key expires, in milliseconds."),
    CommandSpec::new(76, "persist", 2, Group::Generic, Handler::Data(expire::persist))
        .flags(WRITE | FAST)
        .also(category::KEYSPACE)
        .keys(&[at(1, RW_UPDATE)])
        .docs("2.2.0", "O(1)", "key", "Takes away the deadline of a key."),
    CommandSpec::new(77, "dump", 2, Group::Generic, Handler::Data(dump::dump))
        .flags(READONLY)
        .also(category::KEYSPACE)
        .keys(&[at(1, RO_ACCESS)])
        .tips(&["nondeterministic_output"])
        .docs(
            "2.6.0",
            "O(N) in the length of the value",
            "key",
            "Answers the value of a key as bytes that RESTORE takes.",
        ),
    CommandSpec::new(78, "restore", -4, Group::Generic, Handler::Data(dump::restore))
        .flags(WRITE | DENYOOM)
        .also(category::KEYSPACE | category::DANGEROUS)
        .keys(&[at(1, OW_UPDATE)])
        .needing(NeedsRule::Heads)
        .docs(
            "2.6.0",
            "O(N) in the length of the value",
            "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
            "Stores a value that DUMP answered.",
        ),
    CommandSpec::new(79, "object", -2, Group::Generic, Handler::Container)
        .docs("2.2.3", "Depends on the subcommand.", "", "Tells how a value is kept.")
        .subcommands(&[
            CommandSpec::new(80, "object|encoding", 3, Group::Generic, Handler::Data(object::encoding))
                .flags(READONLY)
                .also(category::KEYSPACE)
                .keys(&[at(2, RO)])
                .tips(&["nondeterministic_output"])
                .docs("2.2.3", "O(1)", "key", "Tells how Redis would encode the value."),
            CommandSpec::new(81, "object|idletime", 3, Group::Generic, Handler::Data(object::idletime))
                .flags(READONLY)
                .also(category::KEYSPACE)
                .keys(&[at(2, RO)])
                .tips(&["nondeterministic_output"])
                .needing(NeedsRule::Heads)
                .docs("2.2.3", "O(1)", "key", "Tells for how many seconds the key was not used."),
            CommandSpec::new(82, "object|freq", 3, Group::Generic, Handler::Data(object::freq))
                .flags(READONLY)
                .also(category::KEYSPACE)
                .keys(&[at(2, RO)])
                .tips(&["nondeterministic_output"])
                .needing(NeedsRule::Heads)
                .docs("4.0.0", "O(1)", "key", "Would tell how often the key is used; no such count is kept."),
            CommandSpec::new(83, "object|refcount", 3, Group::Generic, Handler::Data(object::refcount))
                .flags(READONLY)
                .also(category::KEYSPACE)
                .keys(&[at(2, RO)])
                .tips(&["nondeterministic_output"])
                .needing(NeedsRule::Heads)
                .docs("2.2.3", "O(1)", "key", "Tells how many references the value has; always one."),
            CommandSpec::new(84, "object|help", 2, Group::Generic, Handler::Table(object::help))
                .flags(LOADING | STALE)
                .also(category::KEYSPACE)
                .docs("6.2.0", "O(1)", "", "Lists the subcommands of OBJECT."),
        ]),
    CommandSpec::new(85, "scan", -2, Group::Generic, Handler::Special(Special::Scan))
        .flags(READONLY)
        .also(category::KEYSPACE)
        .tips(&["nondeterministic_output", "request_policy:special"])
        .docs(
            "2.8.0",
            "O(1) for each call, O(N) for a whole walk",
            "cursor [MATCH pattern] [COUNT count] [TYPE type]",
            "Walks over the keys in steps.",
        ),
    CommandSpec::new(86, "keys", 2, Group::Generic, Handler::Special(Special::Keys))
        .flags(READONLY)
        .also(category::KEYSPACE | category::DANGEROUS)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .docs("1.0.0", "O(N) in the number of all keys", "pattern", "Lists the keys that match a pattern."),
    CommandSpec::new(87, "randomkey", 1, Group::Generic, Handler::Special(Special::RandomKey))
        .flags(READONLY)
        .also(category::KEYSPACE)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .docs("1.0.0", "O(1)", "", "Answers any key."),
    CommandSpec::new(88, "wait", 3, Group::Generic, Handler::Special(Special::Wait))
        .flags(NOSCRIPT)
        .also(category::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs("3.0.0", "O(1)", "numreplicas timeout", "Waits until replicas have the writes of this connection."),
];
