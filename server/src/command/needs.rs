//! Whether a command's effect depends on what its keys hold now.
//!
//! The shard fetches keys that are not in memory before it proposes a write, so that apply never waits for the store.
//! A blind SET needs no such fetch: this is what makes loading data cost no reads.

use super::{CommandSpec, strings};

/// What must be in memory before a command is proposed or run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Needs {
    /// Nothing: what the keys hold doesn't matter.
    #[default]
    Nothing,
    /// Of all keys that [`super::keys_of`] names, all but their data: whether they are there, since when and how long.
    Heads,
    /// The values of all those keys.
    Values,
}

/// How the table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeedsRule {
    /// Always [`Needs::Nothing`].
    Nothing,
    /// Always [`Needs::Heads`]: the handler calls none of the methods of [`super::Keyspace`] that give data out.
    Heads,
    /// Always [`Needs::Values`].
    Values,
    /// SET: it depends on the options.
    SetOptions,
}

impl CommandSpec {
    /// What must be in memory before this request is proposed or run.
    #[inline]
    pub fn needs(&self, args: &[&[u8]]) -> Needs {
        match self.needs_rule {
            NeedsRule::Nothing => Needs::Nothing,
            NeedsRule::Heads => Needs::Heads,
            NeedsRule::Values => Needs::Values,
            NeedsRule::SetOptions if args.len() <= 3 => Needs::Nothing,
            NeedsRule::SetOptions => strings::set_needs(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mem::MemKeyspace;
    use super::super::{Exec, Keyspace, VALUE_BYTES_MAX_DEFAULT, all, lookup, resolve};
    use super::*;
    use crate::resp::{Proto, Reply};
    use holdfast_engine::table::{Head, Object};
    use std::collections::BTreeSet;

    #[test]
    fn only_blind_writes_need_nothing() {
        let needs = |request: &str| {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            lookup(args[0]).expect("a command").needs(&args)
        };
        for blind in ["set k v", "set k v ex 10", "set k v PXAT 99", "setex k 1 v", "psetex k 1 v", "mset a 1 b 2"] {
            assert_eq!(needs(blind), Needs::Nothing, "{blind}");
        }
        for looking in ["set k v nx", "set k v XX", "set k v keepttl", "setnx a 1", "msetnx a 1", "del a", "strlen a"] {
            assert_eq!(needs(looking), Needs::Heads, "{looking}");
        }
        for seeing in ["set k v ex 10 get", "set k v nx get", "set k v ifeq o", "get k", "incr a", "append a b"] {
            assert_eq!(needs(seeing), Needs::Values, "{seeing}");
        }
        for seeing in ["cas k a b", "expire k 1", "rename a b", "mget a b"] {
            assert_eq!(needs(seeing), Needs::Values, "{seeing}");
        }
        for elsewhere in ["flushall", "ping", "object help"] {
            assert_eq!(needs(elsewhere), Needs::Nothing, "{elsewhere}");
        }
    }

    /// Keys whose data nobody may ask for.
    struct HeadsOnly(MemKeyspace);

    impl Keyspace for HeadsOnly {
        fn get(&mut self, _key: &[u8]) -> Option<Object> {
            panic!("the data of a key are asked for")
        }

        fn take(&mut self, _key: &[u8]) -> Option<Object> {
            panic!("the data of a key are asked for")
        }

        fn head(&mut self, key: &[u8]) -> Option<Head> {
            self.0.head(key)
        }

        fn exists(&mut self, key: &[u8]) -> bool {
            self.0.exists(key)
        }

        fn put(&mut self, key: &[u8], object: Object) {
            self.0.put(key, object);
        }

        fn delete(&mut self, key: &[u8]) -> bool {
            self.0.delete(key)
        }

        fn idle_seconds(&mut self, key: &[u8]) -> u64 {
            self.0.idle_seconds(key)
        }

        fn flush_all(&mut self) {
            self.0.flush_all();
        }
    }

    #[test]
    fn commands_that_need_heads_never_ask_for_data() {
        // Each with a key that is there, one that is there for a while, and one that isn't.
        let requests = [
            "exists KEY KEY",
            "touch KEY",
            "type KEY",
            "ttl KEY",
            "pttl KEY",
            "expiretime KEY",
            "pexpiretime KEY",
            "strlen KEY",
            "object idletime KEY",
            "object freq KEY",
            "object refcount KEY",
            "memory usage KEY",
            "setnx KEY v",
            "msetnx KEY v other v",
            "restore KEY 0 x",
            "restore KEY 0 x replace",
            "set KEY v nx",
            "set KEY v xx px 5",
            "set KEY v keepttl",
            "set KEY v xx pxat 1",
            "set KEY v ex 5",
            "set KEY v",
            "del KEY KEY",
            "unlink KEY",
        ];
        let mut tried = BTreeSet::new();
        for key in ["lasting", "dated", "absent"] {
            for request in requests {
                let mut keys = HeadsOnly(MemKeyspace::new(1_000));
                keys.put(b"lasting", Object::string("value".into()));
                keys.put(b"dated", Object { deadline_ms: 9_000, ..Object::string("value".into()) });
                let request = request.replace("KEY", key);
                let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
                let spec = resolve(&args).expect("a command");
                assert_ne!(spec.needs(&args), Needs::Values, "{request}");
                let mut reply = Reply::new(Proto::Resp2);
                let value_bytes_max = VALUE_BYTES_MAX_DEFAULT;
                spec.execute(&mut Exec {
                    keys: &mut keys,
                    args: &args,
                    reply: &mut reply,
                    now_ms: 1_000,
                    value_bytes_max,
                });
                tried.insert(spec.name);
            }
        }
        let specs = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
        for spec in specs.filter(|spec| spec.needs_rule == NeedsRule::Heads) {
            assert!(tried.contains(spec.name), "{} is not among the requests", spec.name);
        }
    }
}
