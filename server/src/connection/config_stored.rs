//! Redis's settings that mean nothing to Holdfast, so that tools which read or set them go on working.
//!
//! A *stored* one is checked as Redis checks it, kept until the next start, and has no effect; setting one is logged. A
//! *fixed* one has a value that can't be changed here, as some can't in Redis. Anything else is refused as unknown.
//! `docs/src/reference/settings.md` lists them all.

/// What a value must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number within bounds.
    Integer(i64, i64),
    /// A size, `100mb`, reported in bytes.
    Bytes,
    /// A size or a number, `-2`.
    SizeOrInteger,
    /// `yes` or `no`.
    YesNo,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Pairs of seconds and changes.
    Save,
    /// Anything.
    Text,
}

use Kind::{Bytes, Integer, OneOf, Save, SizeOrInteger, Text, YesNo};

const INT_MAX: i64 = i32::MAX as i64;
const ANY_COUNT: Kind = Integer(0, i64::MAX);

/// The modes of `appendfsync`, in the order in which Redis lists them.
pub(super) const FSYNC_MODES: &[&str] = &["everysec", "always", "no"];
/// The levels of `loglevel`.
pub(super) const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning"];

const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];

/// Name, value until it is set, what it must look like.
pub(super) const STORED: &[(&str, &str, Kind)] = &[
    ("active-defrag-cycle-max", "25", Integer(1, 99)),
    ("active-defrag-cycle-min", "1", Integer(1, 99)),
    ("active-defrag-ignore-bytes", "104857600", Bytes),
    ("active-defrag-max-scan-fields", "1000", Integer(1, i64::MAX)),
    ("active-defrag-threshold-lower", "10", Integer(0, 1000)),
    ("active-defrag-threshold-upper", "100", Integer(0, 1000)),
    ("active-expire-effort", "1", Integer(1, 10)),
    ("activedefrag", "no", YesNo),
    ("activerehashing", "yes", YesNo),
    ("aof-load-truncated", "yes", YesNo),
    ("aof-rewrite-incremental-fsync", "yes", YesNo),
    ("aof-timestamp-enabled", "no", YesNo),
    ("aof-use-rdb-preamble", "yes", YesNo),
    ("auto-aof-rewrite-min-size", "67108864", Bytes),
    ("auto-aof-rewrite-percentage", "100", Integer(0, INT_MAX)),
    ("busy-reply-threshold", "5000", ANY_COUNT),
    ("client-output-buffer-limit", "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60", Text),
    ("client-query-buffer-limit", "1073741824", Bytes),
    ("cluster-allow-reads-when-down", "no", YesNo),
    ("cluster-migration-barrier", "1", Integer(0, INT_MAX)),
    ("cluster-node-timeout", "15000", ANY_COUNT),
    ("cluster-require-full-coverage", "yes", YesNo),
    ("dynamic-hz", "yes", YesNo),
    ("hash-max-listpack-entries", "512", ANY_COUNT),
    ("hash-max-listpack-value", "64", ANY_COUNT),
    ("hash-max-ziplist-entries", "512", ANY_COUNT),
    ("hash-max-ziplist-value", "64", ANY_COUNT),
    ("hll-sparse-max-bytes", "3000", ANY_COUNT),
    ("hz", "10", Integer(0, INT_MAX)),
    ("jemalloc-bg-thread", "yes", YesNo),
    ("key-load-delay", "0", Integer(-INT_MAX, INT_MAX)),
    ("latency-monitor-threshold", "0", ANY_COUNT),
    ("latency-tracking", "yes", YesNo),
    ("latency-tracking-info-percentiles", "50 99 99.9", Text),
    ("lazyfree-lazy-eviction", "no", YesNo),
    ("lazyfree-lazy-expire", "no", YesNo),
    ("lazyfree-lazy-server-del", "no", YesNo),
    ("lazyfree-lazy-user-del", "no", YesNo),
    ("lazyfree-lazy-user-flush", "no", YesNo),
    ("lfu-decay-time", "1", Integer(0, INT_MAX)),
    ("lfu-log-factor", "10", Integer(0, INT_MAX)),
    ("list-compress-depth", "0", Integer(0, INT_MAX)),
    ("list-max-listpack-size", "-2", SizeOrInteger),
    ("list-max-ziplist-size", "-2", SizeOrInteger),
    ("lua-time-limit", "5000", ANY_COUNT),
    ("maxmemory", "0", Bytes),
    ("maxmemory-clients", "0", Text),
    ("maxmemory-eviction-tenacity", "10", Integer(0, 100)),
    ("maxmemory-policy", "noeviction", OneOf(POLICIES)),
    ("maxmemory-samples", "5", Integer(1, INT_MAX)),
    ("min-replicas-max-lag", "10", Integer(0, INT_MAX)),
    ("min-replicas-to-write", "0", Integer(0, INT_MAX)),
    ("no-appendfsync-on-rewrite", "no", YesNo),
    ("notify-keyspace-events", "", Text),
    ("rdb-key-save-delay", "0", Integer(-INT_MAX, INT_MAX)),
    ("rdb-save-incremental-fsync", "yes", YesNo),
    ("rdbcompression", "yes", YesNo),
    ("repl-backlog-size", "1048576", Bytes),
    ("repl-backlog-ttl", "3600", ANY_COUNT),
    ("repl-disable-tcp-nodelay", "no", YesNo),
    ("repl-diskless-load", "disabled", OneOf(&["disabled", "on-empty-db", "swapdb"])),
    ("repl-diskless-sync", "yes", YesNo),
    ("repl-diskless-sync-delay", "5", Integer(0, INT_MAX)),
    ("repl-ping-replica-period", "10", Integer(1, INT_MAX)),
    ("repl-timeout", "60", Integer(1, INT_MAX)),
    ("replica-lazy-flush", "no", YesNo),
    ("replica-priority", "100", Integer(0, INT_MAX)),
    ("replica-read-only", "yes", YesNo),
    ("replica-serve-stale-data", "yes", YesNo),
    ("sanitize-dump-payload", "no", OneOf(&["no", "yes", "clients"])),
    ("save", "", Save),
    ("set-max-intset-entries", "512", ANY_COUNT),
    ("set-max-listpack-entries", "128", ANY_COUNT),
    ("set-max-listpack-value", "64", ANY_COUNT),
    ("slave-read-only", "yes", YesNo),
    ("slave-serve-stale-data", "yes", YesNo),
    ("stop-writes-on-bgsave-error", "yes", YesNo),
    ("stream-node-max-bytes", "4096", Bytes),
    ("stream-node-max-entries", "100", ANY_COUNT),
    ("tracking-table-max-keys", "1000000", ANY_COUNT),
    ("zset-max-listpack-entries", "128", ANY_COUNT),
    ("zset-max-listpack-value", "64", ANY_COUNT),
    ("zset-max-ziplist-entries", "128", ANY_COUNT),
    ("zset-max-ziplist-value", "64", ANY_COUNT),
];

/// Name and value of what can't be changed.
pub(super) const FIXED: &[(&str, &str)] = &[
    ("aclfile", ""),
    ("appenddirname", "appendonlydir"),
    ("appendfilename", "appendonly.aof"),
    ("daemonize", "no"),
    ("databases", "1"),
    ("dbfilename", "dump.rdb"),
    ("io-threads", "1"),
    ("io-threads-do-reads", "no"),
    ("pidfile", ""),
    ("rdbchecksum", "yes"),
    ("replicaof", ""),
    ("slaveof", ""),
    ("supervised", "no"),
    ("tls-port", "0"),
    ("unixsocket", ""),
];

impl Kind {
    /// The value as it will be reported, or Redis's words for what is wrong with it.
    pub(super) fn check(self, text: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(text).map_err(|_| "argument must be text".to_owned())?;
        let integer = || crate::command::parse_i64(text.as_bytes());
        match self {
            Integer(min, max) => match integer() {
                None => Err("argument couldn't be parsed into an integer".to_owned()),
                Some(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                Some(_) => Err(format!("argument must be between {min} and {max} inclusive")),
            },
            Bytes => match crate::settings::parse_bytes(text) {
                Ok(bytes) => Ok(bytes.to_string()),
                Err(_) => Err("argument must be a memory value".to_owned()),
            },
            SizeOrInteger => match (integer(), crate::settings::parse_bytes(text)) {
                (Some(number), _) => Ok(number.to_string()),
                (None, Ok(bytes)) => Ok(bytes.to_string()),
                (None, Err(_)) => Err("argument couldn't be parsed into an integer".to_owned()),
            },
            YesNo if text.eq_ignore_ascii_case("yes") => Ok("yes".to_owned()),
            YesNo if text.eq_ignore_ascii_case("no") => Ok("no".to_owned()),
            YesNo => Err("argument must be 'yes' or 'no'".to_owned()),
            OneOf(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(text)) {
                Some(word) => Ok((*word).to_owned()),
                None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
            },
            Save => {
                let words: Vec<&str> = text.split_whitespace().collect();
                let number = |word: &&str| word.parse::<i64>().is_ok_and(|number| number >= 0);
                if words.len().is_multiple_of(2) && words.iter().all(number) {
                    Ok(words.join(" "))
                } else {
                    Err("Invalid save parameters".to_owned())
                }
            }
            Text if text.len() <= 4096 => Ok(text.to_owned()),
            Text => Err("argument is longer than 4096 bytes".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_until_set_pass_their_own_check() {
        for (name, value, kind) in STORED {
            assert_eq!(kind.check(value.as_bytes()).as_deref(), Ok(*value), "{name}");
        }
    }

    #[test]
    fn names_are_sorted_and_distinct() {
        assert!(STORED.is_sorted_by(|one, next| one.0 < next.0));
        assert!(FIXED.is_sorted_by(|one, next| one.0 < next.0));
        assert!(FIXED.iter().all(|(fixed, _)| STORED.iter().all(|(stored, ..)| stored != fixed)));
    }
}
