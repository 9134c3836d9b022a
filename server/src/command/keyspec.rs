//! Where the keys are among a command's arguments.
//!
//! A command has one or more *specs*. Each begins somewhere (a position) and finds keys from there (a range with a
//! step, or a count that says how many follow). [`keys_of`] walks all of them without allocating. Hostile requests are
//! expected: positions are clipped to the arguments that are there.

use super::{CommandSpec, Handler};
use crate::once::COMMAND_AT;

/// How a spec finds keys from where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindKeys {
    /// Every `step`-th argument up to `last`: relative to the beginning, or, if negative, to the end of the request
    /// (-1 is the last argument).
    Range {
        /// The last position.
        last: i16,
        /// From one key to the next.
        step: u8,
    },
    /// An argument says how many keys there are; these are the *movable* ones.
    KeyNum {
        /// Where the count is, relative to the beginning.
        count_at: u8,
        /// Where the first key is, relative to the beginning.
        first: u8,
        /// From one key to the next.
        step: u8,
    },
}

/// One rule that finds keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySpec {
    /// What happens to these keys: `RO`, `RW`, `OW` or `RM`, then `access`, `update`, `insert`, `delete`…
    pub flags: &'static [&'static str],
    /// The position at which to begin, the command's name being 0.
    pub index: u8,
    /// How to go on from there.
    pub find: FindKeys,
    /// A remark for readers of `COMMAND INFO`; empty for none.
    pub notes: &'static str,
}

/// What a command does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyAccess(pub &'static [&'static str]);

pub(crate) const RO: &[&str] = &["RO"];
pub(crate) const RO_ACCESS: &[&str] = &["RO", "access"];
pub(crate) const RW_UPDATE: &[&str] = &["RW", "update"];
pub(crate) const RW_INSERT: &[&str] = &["RW", "insert"];
pub(crate) const RW_ACCESS_UPDATE: &[&str] = &["RW", "access", "update"];
pub(crate) const RW_ACCESS_DELETE: &[&str] = &["RW", "access", "delete"];
pub(crate) const RW_VARIABLE: &[&str] = &["RW", "access", "update", "variable_flags"];
/// Of a command that another one carries: what happens depends on that, and there may be more keys.
pub(crate) const RW_ONCE: &[&str] = &["RW", "access", "update", "incomplete"];
pub(crate) const OW_UPDATE: &[&str] = &["OW", "update"];
pub(crate) const OW_INSERT: &[&str] = &["OW", "insert"];
pub(crate) const RM_DELETE: &[&str] = &["RM", "delete"];

/// The single key at `index`.
pub(crate) const fn at(index: u8, flags: &'static [&'static str]) -> KeySpec {
    range(index, 0, 1, flags)
}

/// Keys from `index` to `last` (see [`FindKeys::Range`]).
pub(crate) const fn range(index: u8, last: i16, step: u8, flags: &'static [&'static str]) -> KeySpec {
    KeySpec { flags, index, find: FindKeys::Range { last, step }, notes: "" }
}

impl KeySpec {
    /// The same with a remark.
    pub(crate) const fn notes(mut self, notes: &'static str) -> Self {
        self.notes = notes;
        self
    }

    /// First position, last position (inclusive) and step among `args`; none if there is no key.
    fn resolve(&self, args: &[&[u8]]) -> Option<(usize, usize, usize)> {
        let begin = usize::from(self.index);
        let (first, last, step) = match self.find {
            FindKeys::Range { last, step } => {
                let distance = usize::from(last.unsigned_abs());
                let last = if last >= 0 { begin + distance } else { args.len().checked_sub(distance)? };
                (begin, last, step)
            }
            FindKeys::KeyNum { count_at, first, step } => {
                let count = super::parse_i64(args.get(begin + usize::from(count_at))?)?;
                let count = usize::try_from(count).ok()?.min(args.len());
                let first = begin + usize::from(first);
                (first, (first + count * usize::from(step)).checked_sub(usize::from(step))?, step)
            }
        };
        let last = last.min(args.len().checked_sub(1)?);
        (first <= last).then_some((first, last, usize::from(step.max(1))))
    }
}

/// The positions of the keys among `args`, the command's name being position 0.
///
/// # Errors
/// None: where arguments are missing, keys are.
pub fn keys_of<'a>(spec: &'static CommandSpec, args: &'a [&'a [u8]]) -> KeyPositions<'a> {
    KeyPositions { specs: spec.key_specs.iter(), args, next: 1, last: 0, step: 1 }
}

/// Iterates over key positions; made by [`keys_of`].
#[derive(Debug, Clone)]
pub struct KeyPositions<'a> {
    specs: std::slice::Iter<'static, KeySpec>,
    args: &'a [&'a [u8]],
    next: usize,
    last: usize,
    step: usize,
}

impl Iterator for KeyPositions<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.next > self.last {
            let spec = self.specs.next()?;
            if let Some((first, last, step)) = spec.resolve(self.args) {
                (self.next, self.last, self.step) = (first, last, step);
            }
        }
        let position = self.next;
        self.next += self.step;
        Some(position)
    }
}

impl CommandSpec {
    /// First key, last key (negative: from the end) and step, as the older part of `COMMAND INFO` has it; all 0 without
    /// keys.
    pub fn key_range(&self) -> (i64, i64, i64) {
        let (mut first, mut last, mut step) = (i64::MAX, 0, 0);
        for spec in self.key_specs {
            let FindKeys::Range { last: spec_last, step: spec_step } = spec.find else { continue };
            let index = i64::from(spec.index);
            if index < first {
                (first, step) = (index, i64::from(spec_step));
            }
            let spec_last = if spec_last < 0 { i64::from(spec_last) } else { index + i64::from(spec_last) };
            last = if spec_last < 0 || last < 0 { spec_last.min(last) } else { last.max(spec_last) };
        }
        if first == i64::MAX { (0, 0, 0) } else { (first, last, step) }
    }

    /// The keys among `args` with what this request does to each: where a spec says `variable_flags`, the options
    /// decide.
    pub(crate) fn keys_with_access(&'static self, args: &[&[u8]]) -> Vec<(usize, KeyAccess)> {
        if let Handler::Once = self.handler {
            let Some(carried) = args.get(COMMAND_AT..) else { return Vec::new() };
            return match super::resolve(carried) {
                // One level: what it carries can't carry another.
                Ok(spec) if !matches!(spec.handler, Handler::Once) => {
                    let keys = spec.keys_with_access(carried).into_iter();
                    keys.map(|(position, access)| (position + COMMAND_AT, access)).collect()
                }
                _ => Vec::new(),
            };
        }
        let mut keys = Vec::new();
        for spec in self.key_specs {
            let Some((first, last, step)) = spec.resolve(args) else { continue };
            let access = if spec.flags == RW_VARIABLE { self.variable_access(args) } else { spec.flags };
            keys.extend((first..=last).step_by(step).map(|position| (position, KeyAccess(access))));
        }
        keys
    }

    fn variable_access(&self, args: &[&[u8]]) -> &'static [&'static str] {
        let has = |word: &str| args.iter().skip(3).any(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
        match self.name {
            "set" if !has("get") && !has("ifeq") => OW_UPDATE,
            "bitfield" if super::bitfield::reads_only(args) => RO_ACCESS,
            _ => RW_ACCESS_UPDATE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{keys_of, lookup};
    use super::*;

    fn positions(request: &str) -> Vec<usize> {
        let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        keys_of(lookup(args[0]).expect("a command"), &args).collect()
    }

    #[test]
    fn keys_are_where_the_table_says() {
        assert_eq!(positions("get a"), [1]);
        assert_eq!(positions("mget a b c"), [1, 2, 3]);
        assert_eq!(positions("mset a 1 b 2"), [1, 3]);
        assert_eq!(positions("rename a b"), [1, 2]);
        assert_eq!(positions("bitop and d a b"), [2, 3, 4]);
        assert_eq!(positions("lcs a b idx"), [1, 2]);
        assert_eq!(positions("ping"), [0; 0]);
    }

    #[test]
    fn missing_arguments_are_missing_keys() {
        assert_eq!(positions("get"), [0; 0]);
        assert_eq!(positions("rename a"), [1]);
        assert_eq!(positions("bitop and"), [0; 0]);
    }

    #[test]
    fn counted_keys_stop_at_the_count_and_at_the_end() {
        let spec =
            KeySpec { flags: RO, index: 2, find: FindKeys::KeyNum { count_at: 0, first: 1, step: 1 }, notes: "" };
        let args = |request: &'static str| request.split(' ').map(str::as_bytes).collect::<Vec<_>>();
        assert_eq!(spec.resolve(&args("eval x 2 a b c")), Some((3, 4, 1)));
        assert_eq!(spec.resolve(&args("eval x 9223372036854775807 a b")), Some((3, 4, 1)));
        assert_eq!(spec.resolve(&args("eval x 0 a b")), None);
        assert_eq!(spec.resolve(&args("eval x -1 a b")), None);
        assert_eq!(spec.resolve(&args("eval x")), None);
    }
}
