//! The one table of commands, a file for each family.
//!
//! The rows of Redis's commands state the facts that Redis 7.0.15 reports for them; a test compares. The numbers are in
//! the log for ever: a new command takes a new one, and one that goes leaves a gap. By convention 1-39 are strings,
//! 40-59 bitmaps, 60-119 keys, 120-159 the server, 160-199 the connection, 200-219 operations, 220-255 the cluster.
//!
//! [`lookup`] is on the path of every request: it hashes the length and three bytes of the name into an index that is
//! built at compile time, compares once as a rule, and allocates nothing.

mod bitmaps;
mod cluster;
mod connection;
mod generic;
mod operations;
mod server;
mod strings;

use super::CommandSpec;

static FAMILIES: [&[CommandSpec]; 7] = [
    strings::COMMANDS,
    bitmaps::COMMANDS,
    generic::COMMANDS,
    server::COMMANDS,
    connection::COMMANDS,
    operations::COMMANDS,
    cluster::COMMANDS,
];

/// Slots of the index; a power of two, several times the number of commands so that few of them collide.
const SLOTS: usize = 1024;
/// Numbers are below this.
const IDS: usize = 256;

static BY_NAME: [Option<&CommandSpec>; SLOTS] = index_by_name();
static BY_ID: [Option<&CommandSpec>; IDS] = index_by_id();

/// The first slot to look at for a name, whatever its case.
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    // Setting bit 5 makes letters lower case. It also makes other bytes alike, which costs a comparison, no more.
    let (first, middle, last) = (name[0] | 0x20, name[len / 2] | 0x20, name[len - 1] | 0x20);
    let hash = (first as u32) | (middle as u32) << 8 | (last as u32) << 16 | (len as u32) << 24;
    (hash.wrapping_mul(0x9E37_79B1) >> (32 - SLOTS.trailing_zeros())) as usize
}

const fn index_by_name() -> [Option<&'static CommandSpec>; SLOTS] {
    let mut index: [Option<&CommandSpec>; SLOTS] = [None; SLOTS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let spec = &FAMILIES[family][row];
            let mut at = slot(spec.name.as_bytes());
            while index[at].is_some() {
                at = (at + 1) % SLOTS;
            }
            index[at] = Some(spec);
            row += 1;
        }
        family += 1;
    }
    index
}

const fn index_by_id() -> [Option<&'static CommandSpec>; IDS] {
    let mut index: [Option<&CommandSpec>; IDS] = [None; IDS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let spec = &FAMILIES[family][row];
            assert!(index[spec.id as usize].is_none(), "two commands have the same number");
            index[spec.id as usize] = Some(spec);
            let mut sub = 0;
            while sub < spec.subcommands.len() {
                let spec = &spec.subcommands[sub];
                assert!(index[spec.id as usize].is_none(), "two commands have the same number");
                index[spec.id as usize] = Some(spec);
                sub += 1;
            }
            row += 1;
        }
        family += 1;
    }
    index
}

/// The command of this name, in any case; a subcommand is found through its command.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    let mut at = slot(name);
    while let Some(spec) = BY_NAME[at] {
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        at = (at + 1) % SLOTS;
    }
    None
}

/// The command or subcommand with this number in the log.
#[inline]
pub fn by_id(id: u16) -> Option<&'static CommandSpec> {
    BY_ID.get(usize::from(id)).copied().flatten()
}

/// All top-level commands, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static CommandSpec> + Clone {
    FAMILIES.iter().flat_map(|family| family.iter())
}

#[cfg(test)]
mod tests {
    use super::super::{Handler, keys_of};
    use super::*;

    #[test]
    fn every_name_and_every_number_is_found() {
        for spec in all() {
            assert!(std::ptr::eq(lookup(spec.name.as_bytes()).expect(spec.name), spec));
            assert!(std::ptr::eq(lookup(spec.name.to_uppercase().as_bytes()).expect(spec.name), spec));
            for spec in std::iter::once(spec).chain(spec.subcommands) {
                assert!(std::ptr::eq(by_id(spec.id).expect(spec.name), spec));
            }
        }
        for name in ["", "gett", "ge", "g\u{5}t", "client|list", "@@@", "\0\0\0"] {
            assert!(lookup(name.as_bytes()).is_none(), "{name:?}");
        }
        assert!(by_id(0).is_none() && by_id(u16::MAX).is_none());
    }

    #[test]
    fn numbers_of_logged_commands_never_change() {
        // These numbers are in the logs of running clusters. A failure here is a mistake in the table, not in the test.
        let logged: Vec<String> = all()
            .flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
            .filter(|spec| spec.is_write() && matches!(spec.handler, Handler::Data(_)))
            .map(|spec| format!("{} {}", spec.id, spec.name))
            .collect();
        assert_eq!(logged, LOGGED.lines().collect::<Vec<_>>());
    }

    const LOGGED: &str = "\
2 set
3 setnx
4 setex
5 psetex
6 getset
7 getdel
8 getex
10 mset
11 msetnx
12 append
16 setrange
17 incr
18 decr
19 incrby
20 decrby
21 incrbyfloat
23 cas
24 cad
25 delifeq
40 setbit
44 bitop
45 bitfield
60 del
61 unlink
65 rename
66 renamenx
67 copy
68 expire
69 pexpire
70 expireat
71 pexpireat
76 persist
78 restore
120 flushdb
121 flushall";

    #[test]
    fn rows_agree_with_themselves() {
        for spec in all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            assert_eq!(spec.name, spec.name.to_lowercase());
            assert!(!spec.summary.is_empty() && !spec.complexity.is_empty(), "{}", spec.name);
            assert!(!(spec.is_write() && spec.is_read()), "{}", spec.name);
            let acts_on_keys = spec.is_write() || spec.is_read();
            match spec.handler {
                Handler::Data(_) => assert!(acts_on_keys, "{}", spec.name),
                Handler::Special(_) => assert!(!spec.is_write(), "{}", spec.name),
                // Logged under numbers of the server's own, with what they carry.
                Handler::Once | Handler::NewSession => assert!(spec.is_write(), "{}", spec.name),
                Handler::Table(_) | Handler::Connection(_) | Handler::Container => {
                    assert!(!acts_on_keys && spec.key_specs.is_empty(), "{}", spec.name);
                }
            }
            assert_eq!(
                spec.subcommands.is_empty(),
                !spec.name.contains('|') && spec.subcommands.is_empty() || spec.name.contains('|')
            );
            // The least request that the arity accepts names at least one key, if the command has keys at all.
            let args = vec![b"1".as_slice(); usize::from(spec.arity.unsigned_abs())];
            assert_eq!(keys_of(spec, &args).next().is_some(), !spec.key_specs.is_empty(), "{}", spec.name);
        }
    }
}
