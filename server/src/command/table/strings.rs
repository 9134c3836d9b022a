//! Strings.

use super::super::keyspec::{
    OW_INSERT, OW_UPDATE, RO, RO_ACCESS, RW_ACCESS_DELETE, RW_ACCESS_UPDATE, RW_INSERT, RW_UPDATE, RW_VARIABLE, at,
    range,
};
use super::super::needs::NeedsRule;
use super::super::spec::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::super::{CommandSpec, Group, Handler, cas, lcs, numbers, strings};

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(1, "get", 2, Group::String, Handler::Data(strings::get))
        .flags(READONLY | FAST)
        .keys(&[at(1, RO_ACCESS)])
        .docs("1.0.0", "O(1)", "key", "Reads the string under a key."),
    CommandSpec::new(2, "set", -3, Group::String, Handler::Data(strings::set))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, RW_VARIABLE).notes("reads only with GET or IFEQ")])
        .needing(NeedsRule::SetOptions)
        .docs(
            "1.0.0",
            "O(1)",
            concat!(
                "key value [NX | XX | IFEQ comparison-value] [GET] [EX seconds | PX milliseconds ",
                "| EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]"
            ),
            "Stores a string under a key, if a condition holds, for a limited time if asked to.",
        ),
    CommandSpec::new(3, "setnx", 3, Group::String, Handler::Data(strings::setnx))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, OW_INSERT)])
        .needing(NeedsRule::Heads)
        .docs("1.0.0", "O(1)", "key value", "Stores a string under a key that is not there yet."),
    CommandSpec::new(4, "setex", 4, Group::String, Handler::Data(strings::setex))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, OW_UPDATE)])
        .needing(NeedsRule::Nothing)
        .docs("2.0.0", "O(1)", "key seconds value", "Stores a string that expires after some seconds."),
    CommandSpec::new(5, "psetex", 4, Group::String, Handler::Data(strings::psetex))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, OW_UPDATE)])
        .needing(NeedsRule::Nothing)
        .docs("2.6.0", "O(1)", "key milliseconds value", "Stores a string that expires after some milliseconds."),
    CommandSpec::new(6, "getset", 3, Group::String, Handler::Data(strings::getset))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .deprecated("6.2.0", "SET with the GET option")
        .docs("1.0.0", "O(1)", "key value", "Stores a string and answers what it replaced."),
    CommandSpec::new(7, "getdel", 2, Group::String, Handler::Data(strings::getdel))
        .flags(WRITE | FAST)
        .keys(&[at(1, RW_ACCESS_DELETE)])
        .docs("6.2.0", "O(1)", "key", "Removes a key and answers the string that it held."),
    CommandSpec::new(8, "getex", -2, Group::String, Handler::Data(strings::getex))
        .flags(WRITE | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE).notes("writes the deadline only")])
        .docs(
            "6.2.0",
            "O(1)",
            concat!(
                "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT ",
                "unix-time-milliseconds | PERSIST]"
            ),
            "Reads a string and sets or removes its deadline.",
        ),
    CommandSpec::new(9, "mget", -2, Group::String, Handler::Data(strings::mget))
        .flags(READONLY | FAST)
        .keys(&[range(1, -1, 1, RO_ACCESS)])
        .tips(&["request_policy:multi_shard"])
        .docs("1.0.0", "O(N) in the number of keys", "key [key ...]", "Reads the strings under several keys."),
    CommandSpec::new(10, "mset", -3, Group::String, Handler::Data(strings::mset))
        .flags(WRITE | DENYOOM)
        .keys(&[range(1, -1, 2, OW_UPDATE)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .needing(NeedsRule::Nothing)
        .docs(
            "1.0.1",
            "O(N) in the number of keys",
            "<key value> [<key value> ...]",
            "Stores several strings at once.",
        ),
    CommandSpec::new(11, "msetnx", -3, Group::String, Handler::Data(strings::msetnx))
        .flags(WRITE | DENYOOM)
        .keys(&[range(1, -1, 2, OW_INSERT)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_min"])
        .needing(NeedsRule::Heads)
        .docs(
            "1.0.1",
            "O(N) in the number of keys",
            "<key value> [<key value> ...]",
            "Stores several strings at once if none of the keys is there.",
        ),
    CommandSpec::new(12, "append", 3, Group::String, Handler::Data(strings::append))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_INSERT)])
        .docs(
            "2.0.0",
            "O(N) in the length of the appended part, amortised",
            "key value",
            "Adds to the end of a string.",
        ),
    CommandSpec::new(13, "strlen", 2, Group::String, Handler::Data(strings::strlen))
        .flags(READONLY | FAST)
        .keys(&[at(1, RO)])
        .needing(NeedsRule::Heads)
        .docs("2.2.0", "O(1)", "key", "Tells the length of a string in bytes."),
    CommandSpec::new(14, "getrange", 4, Group::String, Handler::Data(strings::getrange))
        .flags(READONLY)
        .keys(&[at(1, RO_ACCESS)])
        .docs("2.4.0", "O(N) in the length of the answer", "key start end", "Reads a part of a string."),
    CommandSpec::new(15, "substr", 4, Group::String, Handler::Data(strings::getrange))
        .flags(READONLY)
        .keys(&[at(1, RO_ACCESS)])
        .deprecated("2.0.0", "GETRANGE")
        .docs(
            "1.0.0",
            "O(N) in the length of the answer",
            "key start end",
            "Reads a part of a string, by the old name of GETRANGE.",
        ),
    CommandSpec::new(16, "setrange", 4, Group::String, Handler::Data(strings::setrange))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, RW_UPDATE)])
        .docs(
            "2.2.0",
            "O(N) in the length of the written part",
            "key offset value",
            "Overwrites a part of a string, which grows if need be.",
        ),
    CommandSpec::new(17, "incr", 2, Group::String, Handler::Data(numbers::incr))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("1.0.0", "O(1)", "key", "Adds one to an integer."),
    CommandSpec::new(18, "decr", 2, Group::String, Handler::Data(numbers::decr))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("1.0.0", "O(1)", "key", "Takes one from an integer."),
    CommandSpec::new(19, "incrby", 3, Group::String, Handler::Data(numbers::incrby))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("1.0.0", "O(1)", "key increment", "Adds to an integer."),
    CommandSpec::new(20, "decrby", 3, Group::String, Handler::Data(numbers::decrby))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("1.0.0", "O(1)", "key decrement", "Takes from an integer."),
    CommandSpec::new(21, "incrbyfloat", 3, Group::String, Handler::Data(numbers::incrbyfloat))
        .flags(WRITE | DENYOOM | FAST)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("2.6.0", "O(1)", "key increment:double", "Adds to a decimal number."),
    CommandSpec::new(22, "lcs", -3, Group::String, Handler::Data(lcs::lcs))
        .flags(READONLY)
        .keys(&[range(1, 1, 1, RO_ACCESS)])
        .docs(
            "7.0.0",
            "O(N*M) in the lengths of the two strings",
            "key1:key key2:key [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
            "Finds the longest common subsequence of two strings.",
        ),
    CommandSpec::new(23, "cas", -4, Group::String, Handler::Data(cas::cas))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs(
            "0.1.0",
            "O(N) in the length of the compared value",
            concat!(
                "key old-value new-value [EX seconds | PX milliseconds | EXAT unix-time-seconds ",
                "| PXAT unix-time-milliseconds | KEEPTTL]"
            ),
            "Replaces a string if it has the expected value.",
        ),
    CommandSpec::new(24, "cad", 3, Group::String, Handler::Data(cas::cad))
        .flags(WRITE | FAST)
        .keys(&[at(1, RW_ACCESS_DELETE)])
        .docs(
            "0.1.0",
            "O(N) in the length of the compared value",
            "key old-value",
            "Removes a key if its string has the expected value.",
        ),
    CommandSpec::new(25, "delifeq", 3, Group::String, Handler::Data(cas::delifeq))
        .flags(WRITE | FAST)
        .keys(&[at(1, RW_ACCESS_DELETE)])
        .docs(
            "0.1.0",
            "O(N) in the length of the compared value",
            "key old-value",
            "Removes a key if its string has the expected value.",
        ),
];
