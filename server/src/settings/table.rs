//! The table of settings.

use super::parse::{bytes_within, choice, number_within, switch};
use super::{Durability, LogLevel, MEMORY_BUDGET_BYTES_MIN, Settings};
use crate::once::LIFETIME_SECONDS_MAX;
use holdfast_engine::store::StoreKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// When a setting may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only by starting again.
    AtStart,
    /// Also by `CONFIG SET`, until the next start.
    Live,
}

/// A row of the table.
pub struct Setting {
    /// The name: key in the file, flag, and name in `CONFIG GET`.
    pub name: &'static str,
    /// What the value looks like, for the help.
    pub placeholder: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// When it may be changed.
    pub change: Change,
    /// What it means, with its unit.
    pub help: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
    get: fn(&Settings) -> String,
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Setting({})", self.name)
    }
}

impl Setting {
    /// Sets it from text.
    ///
    /// # Errors
    /// Why the text is no value for it.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        (self.set)(settings, text)
    }

    /// Its value as `CONFIG GET` reports it: sizes in bytes, switches as yes or no.
    pub fn get(&self, settings: &Settings) -> String {
        (self.get)(settings)
    }

    /// The flag.
    pub fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("HOLDFAST_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// All settings, in the order of the help.
pub fn all() -> &'static [Setting] {
    ALL
}

/// The least for `snapshot-rate`, in bytes per second.
const SNAPSHOT_RATE_MIN: u64 = 64 << 10;
const DURABILITIES: &[(&str, Durability)] =
    &[("always", Durability::Always), ("everysec", Durability::Everysec), ("no", Durability::No)];
const STORES: &[(&str, StoreKind)] = &[("fjall", StoreKind::Fjall), ("sled", StoreKind::Sled)];
const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

const ALL: &[Setting] = &[
    Setting {
        name: "bind",
        placeholder: "ADDRESS",
        default: "127.0.0.1",
        change: Change::AtStart,
        help: "The address to listen on. 0.0.0.0 is every IPv4 interface, :: every interface; then set a password too",
        set: |settings, text| {
            settings.bind = match text.trim() {
                "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
                text => text.parse().map_err(|_| format!("'{text}' is not an IP address"))?,
            };
            Ok(())
        },
        get: |settings| settings.bind.to_string(),
    },
    Setting {
        name: "port",
        placeholder: "PORT",
        default: "6379",
        change: Change::AtStart,
        help: "The TCP port to listen on. 0 picks a free one, which the banner names",
        set: |settings, text| {
            settings.port = number_within(text, 0, 65535)? as u16;
            Ok(())
        },
        get: |settings| settings.port.to_string(),
    },
    Setting {
        name: "dir",
        placeholder: "FOLDER",
        default: "./holdfast-data",
        change: Change::AtStart,
        help: "The folder that holds the data. It is made if it is not there; one server at a time may use it",
        set: |settings, text| {
            if text.is_empty() {
                return Err("a folder is needed".to_owned());
            }
            settings.dir = PathBuf::from(text);
            Ok(())
        },
        get: |settings| {
            std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone()).display().to_string()
        },
    },
    Setting {
        name: "durability",
        placeholder: "MODE",
        default: "always",
        change: Change::AtStart,
        help: "What an OK promises. always: the write is synced to disk; everysec: synced within a second; no: when the \
               operating system likes",
        set: |settings, text| {
            settings.durability = choice(text, DURABILITIES)?;
            Ok(())
        },
        get: |settings| settings.durability.to_string(),
    },
    Setting {
        name: "store",
        placeholder: "STORE",
        default: "fjall",
        change: Change::AtStart,
        help: "The store below the log: fjall or sled. A data folder remembers its store and refuses another",
        set: |settings, text| {
            settings.store = choice(text, STORES)?;
            Ok(())
        },
        get: |settings| settings.store.to_string(),
    },
    Setting {
        name: "memory-budget",
        placeholder: "SIZE",
        default: "1GiB",
        change: Change::AtStart,
        help: "Memory for recent writes, cached values and buffers, at least 32MiB. Data beyond it stays on disk and is \
               read from there",
        set: |settings, text| {
            settings.memory_budget_bytes = bytes_within(text, MEMORY_BUDGET_BYTES_MIN, 1 << 46)?;
            Ok(())
        },
        get: |settings| settings.memory_budget_bytes.to_string(),
    },
    Setting {
        name: "log-segment-bytes",
        placeholder: "SIZE",
        default: "64MiB",
        change: Change::AtStart,
        help: "The size of a file of the write-ahead log, 1MiB to 1GiB. Files are written once in advance and used again",
        set: |settings, text| {
            settings.log_segment_bytes = bytes_within(text, 1 << 20, 1 << 30)?;
            Ok(())
        },
        get: |settings| settings.log_segment_bytes.to_string(),
    },
    Setting {
        name: "log-bytes-max",
        placeholder: "SIZE",
        default: "1GiB",
        change: Change::AtStart,
        help: "The size of the write-ahead log on disk above which recent writes are moved to the store so that it can \
               be cut",
        set: |settings, text| {
            settings.log_bytes_max = bytes_within(text, 4 << 20, 1 << 46)?;
            Ok(())
        },
        get: |settings| settings.log_bytes_max.to_string(),
    },
    Setting {
        name: "value-bytes-max",
        placeholder: "SIZE",
        default: "64MiB",
        change: Change::AtStart,
        help: "The largest value, and the largest argument of a command, 1KiB to 512MiB. Redis's name for it is \
               proto-max-bulk-len",
        set: |settings, text| {
            settings.value_bytes_max = bytes_within(text, 1 << 10, 512 << 20)? as usize;
            Ok(())
        },
        get: |settings| settings.value_bytes_max.to_string(),
    },
    Setting {
        name: "request-bytes-max",
        placeholder: "SIZE",
        default: "256MiB",
        change: Change::AtStart,
        help: "The largest command with all its arguments. At least 1MiB more than value-bytes-max",
        set: |settings, text| {
            settings.request_bytes_max = bytes_within(text, 1 << 20, (1 << 30) - (2 << 20))? as usize;
            Ok(())
        },
        get: |settings| settings.request_bytes_max.to_string(),
    },
    Setting {
        name: "output-bytes-max",
        placeholder: "SIZE",
        default: "256MiB",
        change: Change::AtStart,
        help: "Replies that may wait for a client that does not read them; beyond it the client is dropped. At least \
               1MiB more than value-bytes-max",
        set: |settings, text| {
            settings.output_bytes_max = bytes_within(text, 1 << 20, 1 << 40)? as usize;
            Ok(())
        },
        get: |settings| settings.output_bytes_max.to_string(),
    },
    Setting {
        name: "maxclients",
        placeholder: "COUNT",
        default: "10000",
        change: Change::Live,
        help: "The most clients at a time; one more is refused with an error",
        set: |settings, text| {
            settings.maxclients = number_within(text, 1, 1_000_000)? as u32;
            Ok(())
        },
        get: |settings| settings.maxclients.to_string(),
    },
    Setting {
        name: "timeout",
        placeholder: "SECONDS",
        default: "0",
        change: Change::Live,
        help: "Seconds after which an idle client is closed; 0 for never",
        set: |settings, text| {
            settings.timeout_seconds = number_within(text, 0, i64::from(i32::MAX))? as u32;
            Ok(())
        },
        get: |settings| settings.timeout_seconds.to_string(),
    },
    Setting {
        name: "tcp-backlog",
        placeholder: "COUNT",
        default: "511",
        change: Change::AtStart,
        help: "Connections that the operating system holds until they are accepted",
        set: |settings, text| {
            settings.tcp_backlog = number_within(text, 1, 65535)? as u32;
            Ok(())
        },
        get: |settings| settings.tcp_backlog.to_string(),
    },
    Setting {
        name: "tcp-keepalive",
        placeholder: "SECONDS",
        default: "300",
        change: Change::Live,
        help: "Seconds of silence after which the operating system asks whether a client is still there; 0 for never. \
               A change is for new connections",
        set: |settings, text| {
            settings.tcp_keepalive_seconds = number_within(text, 0, i64::from(i16::MAX))? as u32;
            Ok(())
        },
        get: |settings| settings.tcp_keepalive_seconds.to_string(),
    },
    Setting {
        name: "protected-mode",
        placeholder: "YES/NO",
        default: "yes",
        change: Change::Live,
        help: "Without a password, refuse clients that are not on this machine",
        set: |settings, text| {
            settings.protected_mode = switch(text)?;
            Ok(())
        },
        get: |settings| yes_no(settings.protected_mode),
    },
    Setting {
        name: "requirepass",
        placeholder: "PASSWORD",
        default: "",
        change: Change::Live,
        help: "The password that clients must give with AUTH or HELLO; empty for none. Other users of the machine can \
               see flags: prefer the file or the environment",
        set: |settings, text| {
            if text.len() > 512 {
                return Err("a password has at most 512 bytes".to_owned());
            }
            settings.requirepass = text.to_owned();
            Ok(())
        },
        get: |settings| settings.requirepass.clone(),
    },
    Setting {
        name: "reader-threads",
        placeholder: "COUNT",
        default: "4",
        change: Change::AtStart,
        help: "Threads that read values from disk which are not in memory, 1 to 64",
        set: |settings, text| {
            settings.reader_threads = number_within(text, 1, 64)? as usize;
            Ok(())
        },
        get: |settings| settings.reader_threads.to_string(),
    },
    Setting {
        name: "peer-port",
        placeholder: "PORT",
        default: "0",
        change: Change::AtStart,
        help: "In a cluster, the TCP port on which the other nodes are listened to, on the address of bind. 0 is port + 10000",
        set: |settings, text| {
            settings.peer_port = number_within(text, 0, 65535)? as u16;
            Ok(())
        },
        get: |settings| settings.peer_port.to_string(),
    },
    Setting {
        name: "announce-host",
        placeholder: "HOST",
        default: "",
        change: Change::AtStart,
        help: "In a cluster, the name or address under which clients and the other nodes reach this one. Empty is the \
               address of bind",
        set: |settings, text| {
            if !text.is_empty() {
                format!("{text}:1").parse::<crate::cluster::Address>().or_else(|_| format!("[{text}]:1").parse())?;
            }
            settings.announce_host = text.to_owned();
            Ok(())
        },
        get: |settings| settings.announce_host.clone(),
    },
    Setting {
        name: "election-timeout",
        placeholder: "MILLISECONDS",
        default: "500",
        change: Change::AtStart,
        help: "In a cluster, how long a node waits for word of its leader before it stands for election, 50 to 60000; the same \
               on all nodes. The leader shows that it lives ten times as often",
        set: |settings, text| {
            settings.election_timeout_ms = number_within(text, 50, 60_000)? as u64;
            Ok(())
        },
        get: |settings| settings.election_timeout_ms.to_string(),
    },
    Setting {
        name: "sleep-after",
        placeholder: "MILLISECONDS",
        default: "30000",
        change: Change::AtStart,
        help: "In a cluster, after how long without reads and writes a group stops its heartbeats and leaves it to the nodes \
               to see that they live, up to an hour; 0 for never. The next read takes a round trip",
        set: |settings, text| {
            settings.sleep_after_ms = number_within(text, 0, 3_600_000)? as u64;
            Ok(())
        },
        get: |settings| settings.sleep_after_ms.to_string(),
    },
    Setting {
        name: "snapshot-rate",
        placeholder: "SIZE",
        default: "128MiB",
        change: Change::AtStart,
        help: "In a cluster, how much of a snapshot is sent to a follower in a second at most, 64KiB or more; 0 for no limit",
        set: |settings, text| {
            let rate = bytes_within(text, 0, 1 << 40)?;
            if (1..SNAPSHOT_RATE_MIN).contains(&rate) {
                return Err("less than 64KiB a second would take for ever; 0 is no limit".to_owned());
            }
            settings.snapshot_bytes_per_second = rate;
            Ok(())
        },
        get: |settings| settings.snapshot_bytes_per_second.to_string(),
    },
    Setting {
        name: "reads",
        placeholder: "MODE",
        default: "lease",
        change: Change::AtStart,
        help: "In a cluster, how a leader makes sure that its reads are up to date. lease: it counts on a majority not to \
               elect another within the election timeout, by clocks that run at rates within 10 % of each other; quorum: \
               it asks a majority each time",
        set: |settings, text| {
            settings.lease_reads = choice(text, &[("lease", true), ("quorum", false)])?;
            Ok(())
        },
        get: |settings| if settings.lease_reads { "lease" } else { "quorum" }.to_owned(),
    },
    Setting {
        name: "replica-reads",
        placeholder: "MODE",
        default: "stale",
        change: Change::AtStart,
        help: "In a cluster, what connections that have said READONLY read on a node that does not lead. stale: what it has, \
               which may be old, as in Redis; linearizable: what is true now, for a question to the leader",
        set: |settings, text| {
            settings.fresh_replica_reads = choice(text, &[("stale", false), ("linearizable", true)])?;
            Ok(())
        },
        get: |settings| if settings.fresh_replica_reads { "linearizable" } else { "stale" }.to_owned(),
    },
    Setting {
        name: "state-check-interval",
        placeholder: "SECONDS",
        default: "3600",
        change: Change::AtStart,
        help: "In a cluster, how often the leader has all replicas hash what they hold, in the background, and compares: one that \
               differs from the majority is reported and rebuilt. 0: only when asked (HOLDFAST VERIFY)",
        set: |settings, text| {
            settings.state_check_interval_seconds = number_within(text, 0, i64::from(i32::MAX))? as u64;
            Ok(())
        },
        get: |settings| settings.state_check_interval_seconds.to_string(),
    },
    Setting {
        name: "session-retention",
        placeholder: "SECONDS",
        default: "86400",
        change: Change::AtStart,
        help: "How long a session for numbered writes is remembered after its last write, 1 second to 30 days. A session \
               keeps the value that was set on the leader when it began",
        set: |settings, text| {
            settings.session_retention_seconds = number_within(text, 1, i64::from(LIFETIME_SECONDS_MAX))? as u32;
            Ok(())
        },
        get: |settings| settings.session_retention_seconds.to_string(),
    },
    Setting {
        name: "session-bytes-max",
        placeholder: "SIZE",
        default: "64MiB",
        change: Change::AtStart,
        help: "Memory for what sessions are remembered by, 64KiB to 1GiB; an idle one takes less than 200 bytes. When it is \
               used up, new sessions are refused and those that live go on, up to half as much more",
        set: |settings, text| {
            settings.session_bytes_max = bytes_within(text, 64 << 10, 1 << 30)?;
            Ok(())
        },
        get: |settings| settings.session_bytes_max.to_string(),
    },
    Setting {
        name: "slowlog-log-slower-than",
        placeholder: "MICROSECONDS",
        default: "10000",
        change: Change::Live,
        help: "Commands that execute for at least so many microseconds go to the slow log; negative for none, 0 for all",
        set: |settings, text| {
            settings.slowlog_log_slower_than_us = number_within(text, -1, i64::MAX)?;
            Ok(())
        },
        get: |settings| settings.slowlog_log_slower_than_us.to_string(),
    },
    Setting {
        name: "slowlog-max-len",
        placeholder: "COUNT",
        default: "128",
        change: Change::Live,
        help: "The most entries of the slow log, up to 100000; the oldest go first",
        set: |settings, text| {
            settings.slowlog_max_len = number_within(text, 0, 100_000)? as usize;
            Ok(())
        },
        get: |settings| settings.slowlog_max_len.to_string(),
    },
    Setting {
        name: "log-level",
        placeholder: "LEVEL",
        default: "info",
        change: Change::Live,
        help: "What is logged: error, warn, info, debug or trace",
        set: |settings, text| {
            settings.log_level = choice(text, LOG_LEVELS)?;
            Ok(())
        },
        get: |settings| settings.log_level.to_string(),
    },
    Setting {
        name: "log-file",
        placeholder: "FILE",
        default: "",
        change: Change::AtStart,
        help: "Where to log; empty for standard error",
        set: |settings, text| {
            settings.log_file = PathBuf::from(text);
            Ok(())
        },
        get: |settings| settings.log_file.display().to_string(),
    },
];
