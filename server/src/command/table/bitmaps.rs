//! Strings as arrays of bits.

use super::super::keyspec::{OW_UPDATE, RO_ACCESS, RW_ACCESS_UPDATE, RW_VARIABLE, at, range};
use super::super::spec::flag::{DENYOOM, FAST, READONLY, WRITE};
use super::super::{CommandSpec, Group, Handler, bitfield, bits};

pub(super) static COMMANDS: &[CommandSpec] = &[
    CommandSpec::new(40, "setbit", 4, Group::Bitmap, Handler::Data(bits::setbit))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, RW_ACCESS_UPDATE)])
        .docs("2.2.0", "O(1)", "key offset value", "Sets or clears one bit of a string."),
    CommandSpec::new(41, "getbit", 3, Group::Bitmap, Handler::Data(bits::getbit))
        .flags(READONLY | FAST)
        .keys(&[at(1, RO_ACCESS)])
        .docs("2.2.0", "O(1)", "key offset", "Reads one bit of a string."),
    CommandSpec::new(42, "bitcount", -2, Group::Bitmap, Handler::Data(bits::bitcount))
        .flags(READONLY)
        .keys(&[at(1, RO_ACCESS)])
        .docs(
            "2.6.0",
            "O(N) in the length of the range",
            "key [start end [BYTE | BIT]]",
            "Counts the bits that are set.",
        ),
    CommandSpec::new(43, "bitpos", -3, Group::Bitmap, Handler::Data(bits::bitpos))
        .flags(READONLY)
        .keys(&[at(1, RO_ACCESS)])
        .docs(
            "2.8.7",
            "O(N) in the length of the range",
            "key bit [start [end [BYTE | BIT]]]",
            "Finds the first bit that is set, or that is clear.",
        ),
    CommandSpec::new(44, "bitop", -4, Group::Bitmap, Handler::Data(bits::bitop))
        .flags(WRITE | DENYOOM)
        .keys(&[at(2, OW_UPDATE), range(3, -1, 1, RO_ACCESS)])
        .docs(
            "2.6.0",
            "O(N) in the length of all sources",
            "operation destkey:key key [key ...]",
            "Combines strings bit by bit and stores the result.",
        ),
    CommandSpec::new(45, "bitfield", -2, Group::Bitmap, Handler::Data(bitfield::bitfield))
        .flags(WRITE | DENYOOM)
        .keys(&[at(1, RW_VARIABLE).notes("writes only with SET or INCRBY")])
        .docs(
            "3.2.0",
            "O(1) for each operation",
            concat!(
                "key [GET encoding offset | [OVERFLOW WRAP | OVERFLOW SAT | OVERFLOW FAIL] <SET ",
                "encoding offset value | INCRBY encoding offset increment> ...]"
            ),
            "Reads and writes integers of any width within a string.",
        ),
    CommandSpec::new(46, "bitfield_ro", -2, Group::Bitmap, Handler::Data(bitfield::bitfield_ro))
        .flags(READONLY | FAST)
        .keys(&[at(1, RO_ACCESS)])
        .docs(
            "6.0.0",
            "O(1) for each operation",
            "key [GET encoding offset ...]",
            "Reads integers of any width within a string.",
        ),
];
