//! Whether a command's effect depends on what its keys hold now.
//!
//! The shard fetches keys that are not in memory before it proposes a write, so that apply never waits for the store.
//! A blind SET needs no such fetch: this is what makes loading data cost no reads.

use super::{CommandSpec, strings};

/// What must be in memory before a command is proposed or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: what the keys hold doesn't matter.
    Nothing,
    /// The values of all keys that [`super::keys_of`] names.
    Keys,
}

/// How the table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedsRule {
    /// Always [`Needs::Nothing`].
    Nothing,
    /// Always [`Needs::Keys`].
    Keys,
    /// SET: it depends on the options.
    SetOptions,
}

impl CommandSpec {
    /// What must be in memory before this request is proposed or run.
    #[inline]
    pub fn needs(&self, args: &[&[u8]]) -> Needs {
        match self.needs_rule {
            NeedsRule::Nothing => Needs::Nothing,
            NeedsRule::Keys => Needs::Keys,
            NeedsRule::SetOptions => {
                if args.len() <= 3 || strings::set_is_blind(args) {
                    Needs::Nothing
                } else {
                    Needs::Keys
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::*;

    #[test]
    fn only_blind_writes_need_nothing() {
        let needs = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            lookup(args[0]).expect("a command").needs(&args)
        };
        for blind in ["set k v", "set k v ex 10", "set k v PXAT 99", "setex k 1 v", "psetex k 1 v", "mset a 1 b 2"] {
            assert_eq!(needs(blind), Needs::Nothing, "{blind}");
        }
        for seeing in ["set k v nx", "set k v XX", "set k v ex 10 get", "set k v keepttl", "set k v ifeq o", "get k"] {
            assert_eq!(needs(seeing), Needs::Keys, "{seeing}");
        }
        for seeing in ["msetnx a 1", "incr a", "del a", "append a b", "cas k a b", "expire k 1", "rename a b"] {
            assert_eq!(needs(seeing), Needs::Keys, "{seeing}");
        }
        for elsewhere in ["flushall", "ping", "object help"] {
            assert_eq!(needs(elsewhere), Needs::Nothing, "{elsewhere}");
        }
    }
}
