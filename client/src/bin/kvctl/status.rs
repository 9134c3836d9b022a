//! `kvctl status`: what the server says about itself, in a table, and the nodes of its cluster (`nodes`) in another.
//!
//! The source is `INFO`, `DBSIZE` and `CONFIG GET appendfsync`. Fields are looked up under the name that Holdfast gives
//! them and then under Redis's, so that the table also works beside a Redis server; what a server doesn't tell is left
//! out.

use std::time::Duration;

use comfy_table::{Table, presets};
use holdfast_client::{Client, Command, Error, Value};
use serde_json::{Map, Value as Json, json};

use crate::failure::{Answer, Failure};
use crate::nodes::Nodes;
use crate::output::Output;
use crate::text::{escape, show_bytes, show_count, show_duration};

/// The fields of `INFO` in their order, with the section that each stands in.
pub(crate) struct Info {
    fields: Vec<(String, String, String)>,
}

impl Info {
    pub(crate) fn parse(text: &str) -> Self {
        let mut section = String::new();
        let mut fields = Vec::new();
        for line in text.lines() {
            if let Some(title) = line.strip_prefix('#') {
                section = title.trim().to_owned();
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((section.clone(), name.to_owned(), value.trim_end().to_owned()));
            }
        }
        Info { fields }
    }

    /// A reply to `INFO`.
    pub(crate) fn of_reply(reply: &Value) -> Self {
        Info::parse(&reply.as_bytes().map(|bytes| String::from_utf8_lossy(bytes)).unwrap_or_default())
    }

    /// The fields whose names are this and a number.
    pub(crate) fn numbered(&self, prefix: &str) -> Vec<(u64, &str)> {
        let fields = self.fields.iter().map(|(_, name, value)| (name.strip_prefix(prefix), value));
        fields.filter_map(|(digits, value)| Some((digits?.parse().ok()?, value.as_str()))).collect()
    }

    /// The first of these names that the server tells.
    pub(crate) fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|wanted| {
            let found = self.fields.iter().find(|(_, name, _)| name == wanted);
            found.map(|(_, _, value)| value.as_str())
        })
    }

    pub(crate) fn number(&self, names: &[&str]) -> Option<u64> {
        self.text(names)?.parse().ok()
    }
}

pub(crate) async fn run(client: &Client, all: bool, output: &mut Output) -> Result<Answer, Failure> {
    let commands =
        [Command::read("INFO"), Command::read("DBSIZE"), Command::read("CONFIG").arg("GET").arg("appendfsync")];
    let mut replies = client.pipeline(&commands).await?.into_iter();
    let info = match replies.next() {
        Some(Value::Error(error)) => return Err(Error::Server(error).into()),
        Some(reply) => reply,
        None => Value::Null,
    };
    let info = Info::of_reply(&info);
    let keys = replies.next().as_ref().and_then(Value::as_integer).and_then(|keys| u64::try_from(keys).ok());
    // A follower doesn't answer for all keys; it says how many it has.
    let keys = keys.or_else(|| info.text(&["db0"])?.split([',', '=']).nth(1)?.parse().ok());
    let fsync = replies.next().and_then(Value::into_pairs).and_then(|pairs| pairs.into_iter().next());
    let fsync =
        fsync.and_then(|(_, value)| value.into_bytes()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());

    let address = client.address().await.to_string();
    let nodes = Nodes::ask(client.config(), &info).await;
    if output.json {
        let mut status = as_json(&address, &info, keys, fsync.as_deref(), all);
        if let Some(nodes) = &nodes {
            status["cluster_id"] = info.text(&["cluster_id"]).into();
            status["cluster_state"] = info.text(&["cluster_state"]).into();
            status["nodes"] = nodes.as_json();
        }
        output.json(&status)?;
        return Ok(Answer::Yes);
    }
    let rows: Vec<Vec<String>> = if all {
        let row =
            |(section, name, value): &(String, String, String)| vec![section.clone(), name.clone(), value.clone()];
        info.fields.iter().map(row).collect()
    } else {
        let rows = rows(&address, &info, keys, fsync.as_deref());
        rows.into_iter().map(|(label, value)| vec![label.to_owned(), value]).collect()
    };
    let rows = rows.into_iter().map(|row| row.iter().map(|cell| escape(cell.as_bytes(), false)).collect::<Vec<_>>());
    if !output.terminal {
        // Into a pipe: columns for `cut` and `awk`.
        for row in rows {
            output.line(&row.join("\t"))?;
        }
    } else {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        if all {
            table.set_header(["section", "field", "value"]);
        }
        table.add_rows(rows);
        output.line(&table.trim_fmt())?;
    }
    if let Some(nodes) = nodes.filter(|_| !all) {
        nodes.print(output)?;
    }
    Ok(Answer::Yes)
}

fn rows(address: &str, info: &Info, keys: Option<u64>, fsync: Option<&str>) -> Vec<(&'static str, String)> {
    let mut rows = vec![("address", address.to_owned())];
    let mut add = |label: &'static str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((label, value));
        }
    };
    add("version", version(info));
    let uptime = info.number(&["uptime_in_seconds"]);
    add("uptime", uptime.map(|seconds| show_duration(Duration::from_secs(seconds))));
    let role = info.text(&["role"]).map(|role| match info.text(&["redis_mode"]) {
        Some(mode) => format!("{role} ({mode})"),
        None => role.to_owned(),
    });
    add("role", role);
    add("durability", durability(info, fsync).map(explain_durability));
    add("keys", keys.map(show_count));
    // Only if there is something to say.
    let differs = info.number(&["state_differs"]).filter(|differs| *differs > 0);
    add("state", differs.map(|_| "differs from the other nodes': it is being rebuilt".to_owned()));
    add("memory", used_of(info.number(MEMORY_USED), info.number(MEMORY_BUDGET), show_bytes));
    add("resident", info.number(&["used_memory_rss"]).map(show_bytes));
    add("log size", info.number(LOG_BYTES).map(show_bytes));
    add("store size", info.number(STORE_BYTES).map(show_bytes));
    add("clients", used_of(info.number(&["connected_clients"]), info.number(&["maxclients"]), show_count));
    add("commands/s", info.number(&["instantaneous_ops_per_sec"]).map(show_count));
    add("commands", info.number(&["total_commands_processed"]).map(show_count));
    let (hits, misses) = (info.number(&["keyspace_hits"]), info.number(&["keyspace_misses"]));
    add(
        "hit rate",
        hits.zip(misses)
            .filter(|(hits, misses)| hits + misses > 0)
            .map(|(hits, misses)| format!("{:.1} %", 100.0 * hits as f64 / (hits + misses) as f64)),
    );
    add("data folder", info.text(&["data_dir", "data_folder", "dir"]).map(str::to_owned));
    rows
}

const MEMORY_USED: &[&str] = &["used_memory"];
const MEMORY_BUDGET: &[&str] = &["memory_budget", "maxmemory"];
pub(crate) const LOG_BYTES: &[&str] = &["log_bytes", "wal_bytes", "aof_current_size"];
const STORE_BYTES: &[&str] = &["store_bytes", "checkpoint_bytes"];

fn version(info: &Info) -> Option<String> {
    match info.text(&["holdfast_version"]) {
        Some(version) => Some(format!("Holdfast {version}")),
        None => info.text(&["redis_version"]).map(|version| format!("Redis {version}")),
    }
}

/// How durable an acknowledged write is. A Redis without its append-only file syncs nothing, whatever the setting says.
fn durability<'a>(info: &'a Info, fsync: Option<&'a str>) -> Option<&'a str> {
    if let Some(durability) = info.text(&["durability"]) {
        return Some(durability);
    }
    if info.text(&["holdfast_version"]).is_none() && info.text(&["aof_enabled"]) == Some("0") {
        return Some("none");
    }
    fsync
}

fn explain_durability(mode: &str) -> String {
    let meaning = match mode {
        "always" => "a write is on disk before it is acknowledged",
        "everysec" => "a power cut may lose the last second",
        "no" => "the operating system decides when to write",
        "none" => "no log is kept",
        _ => return mode.to_owned(),
    };
    format!("{mode}: {meaning}")
}

fn used_of(used: Option<u64>, limit: Option<u64>, show: fn(u64) -> String) -> Option<String> {
    let used = used?;
    Some(match limit.filter(|limit| *limit > 0) {
        Some(limit) => format!("{} of {} ({:.0} %)", show(used), show(limit), 100.0 * used as f64 / limit as f64),
        None => show(used),
    })
}

fn as_json(address: &str, info: &Info, keys: Option<u64>, fsync: Option<&str>, all: bool) -> Json {
    let mut status = json!({
        "address": address,
        "version": info.text(&["holdfast_version", "redis_version"]),
        "server": if info.text(&["holdfast_version"]).is_some() { "holdfast" } else { "redis" },
        "uptime_seconds": info.number(&["uptime_in_seconds"]),
        "role": info.text(&["role"]),
        "durability": durability(info, fsync),
        "keys": keys,
        "memory_bytes": info.number(MEMORY_USED),
        "memory_budget_bytes": info.number(MEMORY_BUDGET),
        "resident_bytes": info.number(&["used_memory_rss"]),
        "log_bytes": info.number(LOG_BYTES),
        "store_bytes": info.number(STORE_BYTES),
        "clients": info.number(&["connected_clients"]),
        "commands_per_second": info.number(&["instantaneous_ops_per_sec"]),
        "commands": info.number(&["total_commands_processed"]),
    });
    if all {
        let mut sections = Map::new();
        for (section, name, value) in &info.fields {
            let entry = sections.entry(section.to_lowercase()).or_insert_with(|| json!({}));
            entry[name.as_str()] = value.as_str().into();
        }
        status["info"] = Json::Object(sections);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Server\r\nredis_version:7.0.15\r\n\r\n# Persistence\r\naof_enabled:0\r\nodd:a:b\r\n";

    #[test]
    fn info_is_read_by_section() {
        let info = Info::parse(TEXT);
        assert_eq!(info.text(&["missing", "redis_version"]), Some("7.0.15"));
        assert_eq!(info.text(&["odd"]), Some("a:b"));
        assert_eq!(info.fields[2].0, "Persistence");
    }

    #[test]
    fn redis_without_a_log_is_not_called_durable() {
        let info = Info::parse(TEXT);
        assert_eq!(durability(&info, Some("always")), Some("none"));
        let ours = Info::parse("holdfast_version:0.1.0\r\n");
        assert_eq!(durability(&ours, Some("always")), Some("always"));
    }

    #[test]
    fn budget_is_shown_only_if_there_is_one() {
        assert_eq!(used_of(Some(512), Some(0), show_bytes).unwrap(), "512 B");
        assert_eq!(used_of(Some(512), Some(1024), show_bytes).unwrap(), "512 B of 1.0 KiB (50 %)");
    }
}
