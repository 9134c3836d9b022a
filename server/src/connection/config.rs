//! CONFIG GET, SET, RESETSTAT and REWRITE.
//!
//! Four kinds of names are known: settings of our own, other names of Redis for some of them (`proto-max-bulk-len`,
//! `loglevel`), names whose value tells the truth about Holdfast whatever is set (`appendfsync`, `appendonly`,
//! `cluster-enabled`), and those of [`config_stored`](super::config_stored) that mean nothing here.

use super::config_stored::{FIXED, FSYNC_MODES, Kind, LOG_LEVELS, STORED};
use super::{ConnContext, shown};
use crate::command::glob;
use crate::node::Node;
use crate::settings::{Change, LogLevel, Setting, all};

/// Other names of settings of our own, with ours.
const ALIASES: &[(&str, &str)] = &[("logfile", "log-file"), ("proto-max-bulk-len", "value-bytes-max")];

/// Names that report what is, and can be set to anything without changing it.
const TRUTHS: &[(&str, Kind)] = &[
    // The log is always written.
    ("appendonly", Kind::YesNo),
    ("appendfsync", Kind::OneOf(FSYNC_MODES)),
];

/// What a name stands for.
#[derive(Clone, Copy)]
enum Entry {
    Own(&'static Setting),
    LogLevel,
    Truth(&'static str, Kind),
    Stored(&'static str, &'static str, Kind),
    Fixed(&'static str),
    ClusterEnabled,
}

fn own(name: &str) -> Option<&'static Setting> {
    all().iter().find(|setting| setting.name == name)
}

/// Every name with what it stands for.
fn entries() -> impl Iterator<Item = (&'static str, Entry)> {
    let own_names = all().iter().map(|setting| (setting.name, Entry::Own(setting)));
    let aliases = ALIASES.iter().filter_map(|(name, ours)| Some((*name, Entry::Own(own(ours)?))));
    let truths = TRUTHS.iter().map(|(name, kind)| (*name, Entry::Truth(name, *kind)));
    let stored = STORED.iter().map(|(name, value, kind)| (*name, Entry::Stored(name, value, *kind)));
    let fixed = FIXED.iter().map(|(name, value)| (*name, Entry::Fixed(value)));
    let others = [("loglevel", Entry::LogLevel), ("cluster-enabled", Entry::ClusterEnabled)];
    own_names.chain(aliases).chain(others).chain(truths).chain(stored).chain(fixed)
}

#[cfg(test)]
pub(super) fn names() -> Vec<&'static str> {
    entries().map(|(name, _)| name).collect()
}

impl Entry {
    fn value(self, node: &Node) -> String {
        let live = &node.live;
        match self {
            Entry::Own(setting) => match setting.name {
                "maxclients" => live.maxclients().to_string(),
                "timeout" => live.timeout_seconds().to_string(),
                "tcp-keepalive" => live.tcp_keepalive_seconds().to_string(),
                "protected-mode" => if live.protected_mode() { "yes" } else { "no" }.to_owned(),
                "requirepass" => String::from_utf8_lossy(&live.password()).into_owned(),
                "slowlog-log-slower-than" => live.slowlog_log_slower_than_us().to_string(),
                "slowlog-max-len" => live.slowlog_max_len().to_string(),
                "log-level" => live.log_level().to_string(),
                // What was picked, where free choice was given.
                "port" => node.address.port().to_string(),
                _ => setting.get(&node.settings),
            },
            Entry::LogLevel => match live.log_level() {
                LogLevel::Trace | LogLevel::Debug => "debug",
                LogLevel::Info => "notice",
                LogLevel::Warn | LogLevel::Error => "warning",
            }
            .to_owned(),
            Entry::Truth("appendfsync", _) => node.settings.durability.to_string(),
            Entry::Truth(..) => "yes".to_owned(),
            Entry::Stored(name, value, _) => live.stored(name).unwrap_or_else(|| value.to_owned()),
            Entry::Fixed(value) => value.to_owned(),
            Entry::ClusterEnabled => if node.is_clustered() { "yes" } else { "no" }.to_owned(),
        }
    }
}

pub(super) fn get(context: &mut ConnContext<'_>) {
    let patterns: Vec<Vec<u8>> = context.args.iter().skip(2).map(|pattern| pattern.to_ascii_lowercase()).collect();
    let wanted = |name: &str| patterns.iter().any(|pattern| pattern == b"*" || glob::matches(pattern, name.as_bytes()));
    let found: Vec<(&str, Entry)> = entries().filter(|(name, _)| wanted(name)).collect();
    context.reply.map(found.len());
    for (name, entry) in found {
        context.reply.bulk(name.as_bytes());
        context.reply.bulk(entry.value(context.node).as_bytes());
    }
}

/// A change that has been checked and can't fail any more.
enum Action {
    Maxclients(u32),
    Timeout(u32),
    TcpKeepalive(u32),
    ProtectedMode(bool),
    Password(Vec<u8>),
    SlowlogThreshold(i64),
    SlowlogLength(usize),
    LogLevel(LogLevel),
    /// Accepted, without effect: name and value.
    Nothing(&'static str, String),
    Store(&'static str, String),
}

fn integer(value: &[u8], min: i64, max: i64) -> Result<i64, String> {
    let text = Kind::Integer(min, max).check(value)?;
    text.parse().map_err(|_| "argument couldn't be parsed into an integer".to_owned())
}

/// What setting `entry` to `value` would do.
fn plan(entry: Entry, value: &[u8]) -> Result<Action, String> {
    let setting = match entry {
        Entry::Own(setting) => setting,
        Entry::LogLevel => {
            return Ok(Action::LogLevel(match Kind::OneOf(LOG_LEVELS).check(value)?.as_str() {
                "debug" => LogLevel::Debug,
                "warning" => LogLevel::Warn,
                _ => LogLevel::Info,
            }));
        }
        Entry::Truth(name, kind) => return Ok(Action::Nothing(name, kind.check(value)?)),
        Entry::Stored(name, _, kind) => return Ok(Action::Store(name, kind.check(value)?)),
        Entry::Fixed(_) | Entry::ClusterEnabled => return Err("can't set immutable config".to_owned()),
    };
    if setting.change == Change::AtStart {
        // Redis lets nobody move its folder over the network, and says so in these words.
        let what = if setting.name == "dir" { "protected" } else { "immutable" };
        return Err(format!("can't set {what} config"));
    }
    Ok(match setting.name {
        "maxclients" => Action::Maxclients(integer(value, 1, i64::from(u32::MAX))? as u32),
        "timeout" => Action::Timeout(integer(value, 0, i64::from(i32::MAX))? as u32),
        "tcp-keepalive" => Action::TcpKeepalive(integer(value, 0, i64::from(i32::MAX))? as u32),
        "protected-mode" => Action::ProtectedMode(Kind::YesNo.check(value)? == "yes"),
        "requirepass" if value.len() > 512 => return Err("a password has at most 512 bytes".to_owned()),
        "requirepass" => Action::Password(value.to_vec()),
        "slowlog-log-slower-than" => Action::SlowlogThreshold(integer(value, -1, i64::MAX)?),
        "slowlog-max-len" => Action::SlowlogLength(integer(value, 0, 100_000)? as usize),
        "log-level" => {
            let mut settings = crate::settings::Settings::default();
            setting.set(&mut settings, &String::from_utf8_lossy(value))?;
            Action::LogLevel(settings.log_level)
        }
        // A live setting that nobody applies would be a lie; a test asks for each of them.
        _ => return Err("can't set immutable config".to_owned()),
    })
}

fn apply(action: Action, node: &Node) {
    let live = &node.live;
    match action {
        Action::Maxclients(count) => live.set_maxclients(count),
        Action::Timeout(seconds) => live.set_timeout_seconds(seconds),
        Action::TcpKeepalive(seconds) => live.set_tcp_keepalive_seconds(seconds),
        Action::ProtectedMode(on) => live.set_protected_mode(on),
        Action::Password(password) => live.set_password(password),
        Action::SlowlogThreshold(us) => live.set_slowlog_log_slower_than_us(us),
        Action::SlowlogLength(len) => live.set_slowlog_max_len(len),
        Action::LogLevel(level) => node.set_log_level(level),
        Action::Nothing(name, value) => {
            let durability = node.settings.durability;
            tracing::warn!(name, value, %durability, "CONFIG SET was accepted but changes nothing: durability is set at the start");
        }
        Action::Store(name, value) => {
            tracing::info!(name, value, "CONFIG SET was accepted: the setting is kept, and has no effect in Holdfast");
            live.store(name, value);
        }
    }
}

/// All are set, or none.
pub(super) fn set(context: &mut ConnContext<'_>) {
    let pairs = context.args.get(2..).unwrap_or_default();
    if !pairs.len().is_multiple_of(2) {
        return context.reply.error(super::SYNTAX_ERROR);
    }
    let mut actions = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let Some((name, entry)) = entries().find(|(name, _)| pair[0].eq_ignore_ascii_case(name.as_bytes())) else {
            let name = shown(pair[0]);
            let text = format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
            return context.reply.error(&text);
        };
        let planned = match seen.contains(&name) {
            true => Err("duplicate parameter".to_owned()),
            false => plan(entry, pair[1]),
        };
        seen.push(name);
        match planned {
            Ok(action) => actions.push(action),
            Err(reason) => {
                let argument = shown(pair[0]);
                return context
                    .reply
                    .error(&format!("ERR CONFIG SET failed (possibly related to argument '{argument}') - {reason}"));
            }
        }
    }
    for action in actions {
        apply(action, context.node);
    }
    context.reply.ok();
}

pub(super) fn resetstat(context: &mut ConnContext<'_>) {
    context.node.stats.reset();
    context.reply.ok();
}

/// The file is its author's, comments and all: we don't write it.
pub(super) fn rewrite(context: &mut ConnContext<'_>) {
    match &context.node.settings.config_file {
        None => context.reply.error("ERR The server is running without a config file"),
        Some(file) => context.reply.error(&format!(
            "ERR Rewriting config file: Holdfast does not write its settings file, edit {} by hand",
            file.display()
        )),
    }
}

pub(super) fn help(context: &mut ConnContext<'_>) {
    context.reply.help(&[
        "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET <pattern> [<pattern> ...]",
        "    The settings whose names match, with their values.",
        "SET <directive> <value> [<directive> <value> ...]",
        "    Change settings until the next start: all of them or, if one is wrong, none.",
        "RESETSTAT",
        "    Set the counters that INFO reports back to zero.",
        "REWRITE",
        "    Refused: the settings file is edited by hand.",
        "HELP",
        "    This text.",
    ]);
}
