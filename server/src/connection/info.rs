//! INFO: sections of `name:value` lines.
//!
//! The names are Redis's where tools read them, with true values or, for what Holdfast does not have (a replication
//! backlog, forks), the value of an idle Redis. Sections of our own follow: `holdfast`, and one for each part that has
//! registered figures with the node (raft, engine, shards).

use super::replication::{cluster, replication};
use super::server::last_save_ms;
use super::{ConnContext, process};
use crate::command::by_id;
use crate::node::{COMMAND_IDS_MAX, InfoText, REDIS_VERSION};
use crate::settings::Durability;

type Section = fn(&ConnContext<'_>, &mut InfoText);

/// Sections in the order of the reply; true for those that a plain INFO includes.
const SECTIONS: &[(&str, bool, Section)] = &[
    ("server", true, server),
    ("clients", true, clients),
    ("memory", true, memory),
    ("persistence", true, persistence),
    ("stats", true, stats),
    ("replication", true, replication),
    ("cpu", true, cpu),
    ("modules", true, modules),
    ("commandstats", false, commandstats),
    ("errorstats", true, errorstats),
    ("latencystats", false, latencystats),
    ("cluster", true, cluster),
    ("keyspace", true, keyspace),
    ("holdfast", true, holdfast),
];

pub(super) fn info(context: &mut ConnContext<'_>) {
    let wanted: Vec<String> =
        context.args.iter().skip(1).map(|name| String::from_utf8_lossy(name).to_ascii_lowercase()).collect();
    let has = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let defaults = wanted.is_empty() || has("default");
    let all = has("all") || has("everything");
    let mut text = InfoText::default();
    for (name, by_default, write) in SECTIONS {
        if all || has(name) || (defaults && *by_default) {
            write(context, &mut text);
        }
    }
    for source in context.node.info_sources() {
        if all || defaults || has(&source.section().to_ascii_lowercase()) {
            text.section(&capitalised(source.section()));
            source.lines(&mut text);
        }
    }
    context.reply.verbatim("txt", &text.into_string());
}

fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// Bytes as Redis shows them to people: `1.50M`.
fn human(bytes: u64) -> String {
    for (name, unit) in [("T", 1u64 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)] {
        if bytes >= unit {
            return format!("{:.2}{name}", bytes as f64 / unit as f64);
        }
    }
    format!("{bytes}B")
}

fn uptime_seconds(context: &ConnContext<'_>) -> u64 {
    context.now_ms.saturating_sub(context.node.started_ms) / 1000
}

fn server(context: &ConnContext<'_>, text: &mut InfoText) {
    let node = context.node;
    text.section("Server");
    text.line("redis_version", REDIS_VERSION);
    text.line("redis_git_sha1", "00000000");
    text.line("redis_git_dirty", 0);
    text.line("redis_build_id", "0");
    text.line("redis_mode", if node.is_clustered() { "cluster" } else { "standalone" });
    text.line("os", process::operating_system());
    text.line("arch_bits", usize::BITS);
    text.line("multiplexing_api", "epoll");
    text.line("process_id", std::process::id());
    text.line("process_supervised", "no");
    text.line("run_id", node.run_id());
    text.line("tcp_port", node.address.port());
    text.line("server_time_usec", context.now_us);
    text.line("uptime_in_seconds", uptime_seconds(context));
    text.line("uptime_in_days", uptime_seconds(context) / 86400);
    text.line("hz", 10);
    text.line("configured_hz", 10);
    text.line("lru_clock", (context.now_ms / 1000) & 0xff_ffff);
    text.line("executable", std::env::current_exe().unwrap_or_default().display());
    text.line("config_file", node.settings.config_file.clone().unwrap_or_default().display());
    text.line("io_threads_active", 0);
}

fn clients(context: &ConnContext<'_>, text: &mut InfoText) {
    let clients = context.node.clients.list();
    text.section("Clients");
    text.line("connected_clients", clients.len());
    text.line("cluster_connections", 0);
    text.line("maxclients", context.node.maxclients());
    text.line("client_recent_max_input_buffer", 0);
    text.line("client_recent_max_output_buffer", 0);
    text.line("blocked_clients", clients.iter().filter(|client| client.is_blocked()).count());
    text.line("tracking_clients", 0);
    text.line("clients_in_timeout_table", 0);
}

fn memory(context: &ConnContext<'_>, text: &mut InfoText) {
    let figures = context.node.shard_figures();
    let used = figures.memory_bytes;
    let peak = context.node.stats.memory_peak(used);
    let resident = process::resident_bytes();
    let total = process::total_memory_bytes();
    let budget = context.node.settings.memory_budget_bytes;
    let overhead = used.saturating_sub(figures.dataset_bytes);
    let percent = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 };
    text.section("Memory");
    text.line("used_memory", used);
    text.line("used_memory_human", human(used));
    text.line("used_memory_rss", resident);
    text.line("used_memory_rss_human", human(resident));
    text.line("used_memory_peak", peak);
    text.line("used_memory_peak_human", human(peak));
    text.line("used_memory_peak_perc", format_args!("{:.2}%", percent(used, peak)));
    text.line("used_memory_overhead", overhead);
    text.line("used_memory_startup", 0);
    text.line("used_memory_dataset", figures.dataset_bytes);
    text.line("used_memory_dataset_perc", format_args!("{:.2}%", percent(figures.dataset_bytes, used)));
    text.line("total_system_memory", total);
    text.line("total_system_memory_human", human(total));
    text.line("used_memory_lua", 0);
    text.line("used_memory_scripts", 0);
    text.line("number_of_cached_scripts", 0);
    text.line("number_of_functions", 0);
    text.line("maxmemory", 0);
    text.line("maxmemory_human", "0B");
    text.line("maxmemory_policy", "noeviction");
    text.line("memory_budget", budget);
    text.line("memory_budget_human", human(budget));
    let ratio = if used == 0 { 0.0 } else { resident as f64 / used as f64 };
    text.line("mem_fragmentation_ratio", format_args!("{ratio:.2}"));
    text.line("mem_fragmentation_bytes", resident.saturating_sub(used));
    text.line("mem_not_counted_for_evict", 0);
    text.line("mem_replication_backlog", 0);
    text.line("mem_clients_slaves", 0);
    text.line("mem_clients_normal", figures.client_bytes);
    text.line("mem_aof_buffer", 0);
    text.line("mem_allocator", "mimalloc");
    text.line("active_defrag_running", 0);
    text.line("lazyfree_pending_objects", 0);
}

fn persistence(context: &ConnContext<'_>, text: &mut InfoText) {
    let figures = context.node.shard_figures();
    let status = if figures.writes_stopped > 0 { "err" } else { "ok" };
    text.section("Persistence");
    text.line("loading", 0);
    text.line("async_loading", 0);
    text.line("rdb_changes_since_last_save", figures.writes_since_checkpoint);
    text.line("rdb_bgsave_in_progress", u64::from(figures.checkpoint_running > 0));
    text.line("rdb_last_save_time", last_save_ms(context) / 1000);
    text.line("rdb_last_bgsave_status", status);
    text.line("rdb_last_bgsave_time_sec", -1);
    text.line("rdb_current_bgsave_time_sec", -1);
    text.line("rdb_saves", figures.checkpoints);
    text.line("aof_enabled", 1);
    text.line("aof_rewrite_in_progress", 0);
    text.line("aof_rewrite_scheduled", 0);
    text.line("aof_last_rewrite_time_sec", -1);
    text.line("aof_current_rewrite_time_sec", -1);
    text.line("aof_last_bgrewrite_status", "ok");
    text.line("aof_last_write_status", status);
    text.line("aof_current_size", figures.log_bytes);
}

fn stats(context: &ConnContext<'_>, text: &mut InfoText) {
    let counters = context.node.stats.counters();
    let rates = context.node.stats.rates();
    text.section("Stats");
    text.line("total_connections_received", counters.connections_received);
    text.line("total_commands_processed", counters.commands_processed);
    text.line("instantaneous_ops_per_sec", rates.commands);
    text.line("total_net_input_bytes", counters.input_bytes);
    text.line("total_net_output_bytes", counters.output_bytes);
    text.line("instantaneous_input_kbps", format_args!("{:.2}", rates.input_bytes as f64 / 1024.0));
    text.line("instantaneous_output_kbps", format_args!("{:.2}", rates.output_bytes as f64 / 1024.0));
    text.line("rejected_connections", counters.connections_rejected);
    text.line("sync_full", 0);
    text.line("sync_partial_ok", 0);
    text.line("sync_partial_err", 0);
    text.line("expired_keys", counters.expired_keys);
    text.line("evicted_keys", 0);
    text.line("evicted_clients", 0);
    text.line("keyspace_hits", counters.keyspace_hits);
    text.line("keyspace_misses", counters.keyspace_misses);
    text.line("pubsub_channels", 0);
    text.line("pubsub_patterns", 0);
    text.line("latest_fork_usec", 0);
    text.line("total_forks", 0);
    text.line("tracking_total_keys", 0);
    text.line("total_error_replies", counters.error_replies);
    text.line("total_reads_processed", counters.reads_processed);
    text.line("total_writes_processed", counters.writes_processed);
    text.line("client_output_buffer_limit_disconnections", counters.output_limit_disconnections);
}

fn cpu(_context: &ConnContext<'_>, text: &mut InfoText) {
    let (system, user) = process::processor_seconds();
    text.section("CPU");
    text.line("used_cpu_sys", format_args!("{system:.6}"));
    text.line("used_cpu_user", format_args!("{user:.6}"));
    text.line("used_cpu_sys_children", "0.000000");
    text.line("used_cpu_user_children", "0.000000");
}

fn modules(_context: &ConnContext<'_>, text: &mut InfoText) {
    text.section("Modules");
}

fn commandstats(context: &ConnContext<'_>, text: &mut InfoText) {
    text.section("Commandstats");
    for id in 0..COMMAND_IDS_MAX as u16 {
        let counts = context.node.stats.command(id);
        let Some(spec) = by_id(id).filter(|_| counts.calls + counts.rejected + counts.failed > 0) else { continue };
        let usec = counts.nanos as f64 / 1000.0;
        let mean = if counts.calls == 0 { 0.0 } else { usec / counts.calls as f64 };
        text.line(
            &format!("cmdstat_{}", spec.name),
            format_args!(
                "calls={},usec={usec:.0},usec_per_call={mean:.2},rejected_calls={},failed_calls={}",
                counts.calls, counts.rejected, counts.failed
            ),
        );
    }
}

fn errorstats(context: &ConnContext<'_>, text: &mut InfoText) {
    text.section("Errorstats");
    for (code, count) in context.node.stats.errors() {
        text.line(&format!("errorstat_{}", code.as_str()), format_args!("count={count}"));
    }
}

fn latencystats(_context: &ConnContext<'_>, text: &mut InfoText) {
    text.section("Latencystats");
}

fn keyspace(context: &ConnContext<'_>, text: &mut InfoText) {
    let figures = context.node.shard_figures();
    text.section("Keyspace");
    if figures.keys > 0 {
        let average_ms = figures.ttl_sum_ms.checked_div(figures.keys_expiring).unwrap_or(0);
        text.line("db0", format_args!("keys={},expires={},avg_ttl={average_ms}", figures.keys, figures.keys_expiring));
    }
}

fn holdfast(context: &ConnContext<'_>, text: &mut InfoText) {
    let settings = &context.node.settings;
    text.section("Holdfast");
    text.line("holdfast_version", env!("CARGO_PKG_VERSION"));
    text.line("durability", settings.durability);
    text.line("acknowledged_writes_survive_power_loss", u8::from(settings.durability == Durability::Always));
    text.line("store", settings.store);
    text.line("dir", std::path::absolute(&settings.dir).unwrap_or_else(|_| settings.dir.clone()).display());
    text.line("shard_threads", context.node.shard_count());
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_shown_as_redis_shows_them() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1024), "1.00K");
        assert_eq!(human(941_032), "918.98K");
        assert_eq!(human(25_276_502_016), "23.54G");
    }
}
