//! TIME, LASTSAVE, SLOWLOG, LATENCY, and the little of FUNCTION that there is.

use super::{ConnContext, shown};
use crate::command::parse_i64;

pub(super) fn time(context: &mut ConnContext<'_>) {
    context.reply.array(2);
    context.reply.bulk_int((context.now_us / 1_000_000) as i64);
    context.reply.bulk_int((context.now_us % 1_000_000) as i64);
}

/// When recent writes were last moved to the store. Durability does not depend on it: the log has them all.
pub(super) fn lastsave(context: &mut ConnContext<'_>) {
    context.reply.int((last_save_ms(context) / 1000) as i64);
}

/// The last checkpoint, or the start, which recovered everything.
pub(super) fn last_save_ms(context: &ConnContext<'_>) -> u64 {
    context.node.shard_figures().checkpoint_last_ms.max(context.node.started_ms)
}

pub(super) fn slowlog_get(context: &mut ConnContext<'_>) {
    let count = match context.args {
        [_, _] => 10,
        [_, _, count] => match parse_i64(count).filter(|count| *count >= -1) {
            Some(-1) => i64::MAX,
            Some(count) => count,
            None => return context.reply.error("ERR count should be greater than or equal to -1"),
        },
        _ => return context.reply.error("ERR wrong number of arguments for 'slowlog|get' command"),
    };
    let entries = context.node.slowlog.newest(usize::try_from(count).unwrap_or(usize::MAX));
    let reply = &mut *context.reply;
    reply.array(entries.len());
    for entry in entries {
        reply.array(6);
        reply.int(entry.id as i64);
        reply.int(entry.time_seconds as i64);
        reply.int(entry.duration_us as i64);
        reply.array(entry.args.len());
        for arg in &entry.args {
            reply.bulk(arg);
        }
        reply.bulk(entry.address.as_bytes());
        reply.bulk(entry.name.as_bytes());
    }
}

pub(super) fn slowlog_len(context: &mut ConnContext<'_>) {
    context.reply.int(context.node.slowlog.len() as i64);
}

pub(super) fn slowlog_reset(context: &mut ConnContext<'_>) {
    context.node.slowlog.reset();
    context.reply.ok();
}

pub(super) fn slowlog_help(context: &mut ConnContext<'_>) {
    context.reply.help(&[
        "SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "GET [<count>]",
        "    The newest <count> entries (default: 10, -1 for all). An entry has",
        "    an id, the time in seconds, microseconds taken, the arguments,",
        "    the client's address and its name.",
        "LEN",
        "    How many entries there are.",
        "RESET",
        "    Forget them.",
        "HELP",
        "    This text.",
    ]);
}

/// No events are monitored: there are none to list, as in a Redis whose monitor is off.
pub(super) fn latency_latest(context: &mut ConnContext<'_>) {
    context.reply.array(0);
}

pub(super) fn latency_history(context: &mut ConnContext<'_>) {
    context.reply.array(0);
}

pub(super) fn latency_reset(context: &mut ConnContext<'_>) {
    context.reply.int(0);
}

pub(super) fn latency_doctor(context: &mut ConnContext<'_>) {
    context.reply.verbatim(
        "txt",
        "Holdfast does not monitor latency events. SLOWLOG GET lists slow commands, INFO commandstats has the mean time \
         of each command, and INFO engine the time that the disk takes to sync.\n",
    );
}

pub(super) fn latency_graph(context: &mut ConnContext<'_>) {
    context.reply.error(&format!("ERR No samples available for event '{}'", shown(context.arg(2))));
}

pub(super) fn latency_histogram(context: &mut ConnContext<'_>) {
    context.reply.map(0);
}

pub(super) fn latency_help(context: &mut ConnContext<'_>) {
    context.reply.help(&[
        "LATENCY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "DOCTOR",
        "    Where to look for what takes long.",
        "GRAPH <event>",
        "    Refused: no events are monitored.",
        "HISTOGRAM [COMMAND ...]",
        "    Empty: no histograms are kept.",
        "HISTORY <event>",
        "    Empty: no events are monitored.",
        "LATEST",
        "    Empty: no events are monitored.",
        "RESET [<event> ...]",
        "    How many events were forgotten: always 0.",
        "HELP",
        "    This text.",
    ]);
}

/// There are no functions, so there are none left afterwards: test tools send this between runs.
pub(super) fn function_flush(context: &mut ConnContext<'_>) {
    match context.args {
        [_, _] => context.reply.ok(),
        [_, _, mode] if mode.eq_ignore_ascii_case(b"sync") || mode.eq_ignore_ascii_case(b"async") => context.reply.ok(),
        _ => context.reply.error("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"),
    }
}

pub(super) fn function_list(context: &mut ConnContext<'_>) {
    context.reply.array(0);
}
