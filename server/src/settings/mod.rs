//! What an operator can choose: flags, environment variables and a TOML file, in that order of precedence.
//!
//! ```text
//!   defaults ◀─ file (holdfast.toml) ◀─ environment (HOLDFAST_PORT) ◀─ flags (--port)      later ones win
//!      └────────────────────────── one table: [`all`] ──────────────────────────┘
//!                                        │
//!                  Settings  ·  --help  ·  CONFIG GET  ·  the page in the documentation
//! ```
//!
//! Every setting is a row of one table, from which its flag, its variable, its key in the file, its help and its name
//! in `CONFIG GET` follow, so that none of them can be forgotten or disagree. A value remembers where it came from: an
//! error names the flag, the variable, or the file and line. Nothing unknown is passed over: a misspelt setting that is
//! silently ignored is how people lose data.
//!
//! [`Settings`] never changes after the start. The few that `CONFIG SET` may change live in
//! [`node::Live`](crate::node::Live), which starts out with the values from here.

mod load;
#[cfg(test)]
mod page;
mod parse;
mod table;

pub use load::{ClusterPlan, Launch, RecoverPlan, SettingsError, load, load_launch};
pub use parse::{format_bytes, parse_bytes};
pub use table::{Change, Setting, all};

use holdfast_engine::store::StoreKind;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// The smallest memory budget with which the parts of the engine can work, in bytes.
pub const MEMORY_BUDGET_BYTES_MIN: u64 = 32 << 20;

/// Bytes of a request beside its largest value: names, keys, framing.
pub const REQUEST_SPARE_BYTES: usize = 1 << 20;

/// The peer port is so far above the client port, unless it is set: as with Redis's cluster bus.
pub const PEER_PORT_OFFSET: u16 = 10_000;

/// What an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// A reply leaves after the write is synced to disk.
    #[default]
    Always,
    /// The log is synced once a second: a power cut can lose the last second.
    Everysec,
    /// The operating system decides when.
    No,
}

impl Durability {
    /// The name in settings, the same as in Redis's `appendfsync`.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Always => "always",
            Durability::Everysec => "everysec",
            Durability::No => "no",
        }
    }

    /// What the setting means, for the banner.
    pub fn promise(self) -> &'static str {
        match self {
            Durability::Always => "always: every acknowledged write is on disk",
            Durability::Everysec => "everysec: a power cut can lose the last second of acknowledged writes",
            Durability::No => "no: a power cut can lose acknowledged writes",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum LogLevel {
    /// Only what stops the server from doing its work.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And what happens in the life of a server: starts, stops, flushes.
    #[default]
    Info,
    /// And what happens to connections.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// All settings of a node, checked. See the table's help, or `docs/src/reference/settings.md`, for what each means.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Each has its help in the table.
pub struct Settings {
    pub bind: IpAddr,
    pub port: u16,
    pub dir: PathBuf,
    pub durability: Durability,
    pub store: StoreKind,
    pub memory_budget_bytes: u64,
    pub log_segment_bytes: u64,
    pub log_bytes_max: u64,
    pub value_bytes_max: usize,
    pub request_bytes_max: usize,
    pub output_bytes_max: usize,
    pub maxclients: u32,
    pub timeout_seconds: u32,
    pub tcp_backlog: u32,
    pub tcp_keepalive_seconds: u32,
    pub protected_mode: bool,
    /// Empty for none.
    pub requirepass: String,
    pub reader_threads: usize,
    pub peer_port: u16,
    pub announce_host: String,
    pub election_timeout_ms: u64,
    /// 0 for never.
    pub sleep_after_ms: u64,
    /// 0 for no limit.
    pub snapshot_bytes_per_second: u64,
    pub lease_reads: bool,
    pub session_retention_seconds: u32,
    pub session_bytes_max: u64,
    /// Whether READONLY connections read what is true now, instead of what a replica happens to have.
    pub fresh_replica_reads: bool,
    pub state_check_interval_seconds: u64,
    pub slowlog_log_slower_than_us: i64,
    pub slowlog_max_len: usize,
    pub log_level: LogLevel,
    /// Empty for standard error.
    pub log_file: PathBuf,
    /// The file that settings were read from.
    pub config_file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Settings {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            dir: PathBuf::new(),
            durability: Durability::Always,
            store: StoreKind::Fjall,
            memory_budget_bytes: 0,
            log_segment_bytes: 0,
            log_bytes_max: 0,
            value_bytes_max: 0,
            request_bytes_max: 0,
            output_bytes_max: 0,
            maxclients: 0,
            timeout_seconds: 0,
            tcp_backlog: 0,
            tcp_keepalive_seconds: 0,
            protected_mode: true,
            requirepass: String::new(),
            reader_threads: 0,
            peer_port: 0,
            announce_host: String::new(),
            election_timeout_ms: 0,
            sleep_after_ms: 30_000,
            snapshot_bytes_per_second: 0,
            lease_reads: true,
            session_retention_seconds: 0,
            session_bytes_max: 0,
            fresh_replica_reads: false,
            state_check_interval_seconds: 0,
            slowlog_log_slower_than_us: 0,
            slowlog_max_len: 0,
            log_level: LogLevel::Info,
            log_file: PathBuf::new(),
            config_file: None,
        };
        for setting in all() {
            if let Err(reason) = setting.set(&mut settings, setting.default) {
                unreachable!("the default of {} is {}: {reason}", setting.name, setting.default);
            }
        }
        settings
    }
}

/// Everything but the password, which must not end up in a log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = f.debug_map();
        for setting in all() {
            match setting.name {
                "requirepass" => text.entry(&setting.name, &if self.requirepass.is_empty() { "" } else { "(set)" }),
                name => text.entry(&name, &setting.get(self)),
            };
        }
        text.finish()
    }
}

impl Settings {
    /// Looks for settings that can't both be. `origin` says where a setting came from, for the text.
    ///
    /// # Errors
    /// What contradicts what, where both were set, and what to do.
    pub(crate) fn check(&self, origin: impl Fn(&str) -> String) -> Result<(), String> {
        let budget = self.memory_budget_bytes;
        let bytes = |value: usize| format_bytes(value as u64);
        let value_bytes_max = self.value_bytes_max as u64;
        if budget < value_bytes_max.saturating_mul(2) {
            return Err(format!(
                "{} is {}, less than twice {}, which is {}: raise the first or lower the second",
                origin("memory-budget"),
                format_bytes(budget),
                origin("value-bytes-max"),
                format_bytes(value_bytes_max),
            ));
        }
        for (name, limit, what) in [
            ("request-bytes-max", self.request_bytes_max, "a SET of such a value would be refused"),
            ("output-bytes-max", self.output_bytes_max, "a client that gets such a value would be dropped"),
        ] {
            if limit < self.value_bytes_max.saturating_add(REQUEST_SPARE_BYTES) {
                return Err(format!(
                    "{} is {}, but {} is {} and needs {} more: {what}",
                    origin(name),
                    bytes(limit),
                    origin("value-bytes-max"),
                    bytes(self.value_bytes_max),
                    bytes(REQUEST_SPARE_BYTES),
                ));
            }
        }
        if self.log_bytes_max < self.log_segment_bytes.saturating_mul(4) {
            return Err(format!(
                "{} is {}, less than four times {}, which is {}: the log needs room for segments in use and in reserve",
                origin("log-bytes-max"),
                format_bytes(self.log_bytes_max),
                origin("log-segment-bytes"),
                format_bytes(self.log_segment_bytes),
            ));
        }
        Ok(())
    }

    /// The host that others are told.
    pub fn announced_host(&self) -> String {
        if self.announce_host.is_empty() { self.bind.to_string() } else { self.announce_host.clone() }
    }

    /// The limits for a client's commands, before it is known whether it must authenticate.
    pub fn limits(&self) -> crate::resp::Limits {
        crate::resp::Limits {
            bulk_bytes_max: self.value_bytes_max,
            command_bytes_max: self.request_bytes_max,
            ..crate::resp::Limits::default()
        }
    }
}
