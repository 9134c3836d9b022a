//! MEMORY STATS, DOCTOR, PURGE and MALLOC-STATS. (MEMORY USAGE is about a key, and is a data command.)

use super::{ConnContext, process};
use crate::settings::format_bytes;

/// The names are Redis's; what has no counterpart here is 0.
pub(super) fn stats(context: &mut ConnContext<'_>) {
    let figures = context.node.shard_figures();
    let used = figures.memory_bytes;
    let resident = process::resident_bytes();
    let peak = context.node.stats.memory_peak(used);
    let overhead = used.saturating_sub(figures.dataset_bytes);
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 };
    let ratio = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    enum Figure {
        Whole(u64),
        Real(f64),
    }
    use Figure::{Real, Whole};
    let lines = [
        ("peak.allocated", Whole(peak)),
        ("total.allocated", Whole(used)),
        ("startup.allocated", Whole(0)),
        ("replication.backlog", Whole(0)),
        ("clients.slaves", Whole(0)),
        ("clients.normal", Whole(figures.client_bytes)),
        ("cluster.links", Whole(0)),
        ("aof.buffer", Whole(0)),
        ("lua.caches", Whole(0)),
        ("functions.caches", Whole(0)),
        ("overhead.total", Whole(overhead)),
        ("keys.count", Whole(figures.keys)),
        ("keys.bytes-per-key", Whole(figures.dataset_bytes.checked_div(figures.keys).unwrap_or(0))),
        ("dataset.bytes", Whole(figures.dataset_bytes)),
        ("dataset.percentage", Real(share(figures.dataset_bytes, used))),
        ("peak.percentage", Real(share(used, peak))),
        ("budget.bytes", Whole(context.node.settings.memory_budget_bytes)),
        ("allocator.resident", Whole(resident)),
        ("fragmentation", Real(ratio(resident, used))),
        ("fragmentation.bytes", Whole(resident.saturating_sub(used))),
    ];
    context.reply.map(lines.len());
    for (name, figure) in lines {
        context.reply.bulk(name.as_bytes());
        match figure {
            Whole(value) => context.reply.int(value as i64),
            Real(value) => context.reply.double(value),
        }
    }
}

pub(super) fn doctor(context: &mut ConnContext<'_>) {
    let figures = context.node.shard_figures();
    let budget = context.node.settings.memory_budget_bytes;
    let resident = process::resident_bytes();
    let clients = figures.client_bytes;
    let mut text = String::new();
    if figures.memory_bytes > budget {
        text.push_str(&format!(
            "The memory on account ({}) is over the budget ({}): writes wait until recent ones are on disk. If this \
             lasts, the disk is too slow for the load, or memory-budget too small.\n",
            format_bytes(figures.memory_bytes),
            format_bytes(budget),
        ));
    }
    if resident > budget.saturating_add(budget / 2) && resident > figures.memory_bytes.saturating_mul(2) {
        text.push_str(&format!(
            "The process holds {} of memory, much more than what is on account ({}): the allocator has not given back \
             what a peak took, or the store keeps its own.\n",
            format_bytes(resident),
            format_bytes(figures.memory_bytes),
        ));
    }
    if clients > budget / 4 {
        text.push_str(&format!(
            "Buffers of clients take {}: CLIENT LIST shows in tot-mem which of them do not read their replies.\n",
            format_bytes(clients),
        ));
    }
    if text.is_empty() {
        text.push_str("Memory is within its budget, and nothing looks wrong.\n");
    }
    context.reply.verbatim("txt", &text);
}

/// The allocator gives memory back by itself.
pub(super) fn purge(context: &mut ConnContext<'_>) {
    context.reply.ok();
}

pub(super) fn malloc_stats(context: &mut ConnContext<'_>) {
    let text = format!(
        "allocator: mimalloc\nresident: {}\nIts own statistics are printed at exit if MIMALLOC_SHOW_STATS=1 is set.\n",
        process::resident_bytes()
    );
    context.reply.verbatim("txt", &text);
}
