//! CLIENT and its subcommands.

use super::{ConnContext, NOT_AN_INTEGER, Outcome, SYNTAX_ERROR, shown};
use crate::command::parse_i64;
use crate::node::{ClientFilter, ClientInfo, PauseMode, UnblockReason};

/// The longest name that a client may give itself or its library, in bytes: it is kept for the connection's life.
const NAME_BYTES_MAX: usize = 4096;

/// The characters of a name: printable ASCII without the space, so that a line of CLIENT LIST stays a line.
fn is_printable(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// A client's name, if it may be one.
pub(super) fn checked_name(name: &[u8]) -> Result<&str, &'static str> {
    if !is_printable(name) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("ERR Client names cannot be longer than 4096 bytes.");
    }
    std::str::from_utf8(name).map_err(|_| "ERR Client names cannot contain special characters.")
}

pub(super) fn id(context: &mut ConnContext<'_>) {
    context.reply.int(context.session.id as i64);
}

pub(super) fn getname(context: &mut ConnContext<'_>) {
    match context.session.info().name() {
        name if name.is_empty() => context.reply.null(),
        name => context.reply.bulk(name.as_bytes()),
    }
}

pub(super) fn setname(context: &mut ConnContext<'_>) {
    match checked_name(context.arg(2)) {
        Ok(name) => {
            context.session.info().set_name(name);
            context.reply.ok();
        }
        Err(error) => context.reply.error(error),
    }
}

pub(super) fn setinfo(context: &mut ConnContext<'_>) {
    let info = context.session.info();
    let (what, set): (&str, fn(&ClientInfo, &str)) = if context.is(2, "lib-name") {
        ("lib-name", ClientInfo::set_library_name)
    } else if context.is(2, "lib-ver") {
        ("lib-ver", ClientInfo::set_library_version)
    } else {
        return context.reply.error(&format!("ERR Unrecognized option '{}'", shown(context.arg(2))));
    };
    let value = context.arg(3);
    match std::str::from_utf8(value) {
        Ok(text) if is_printable(value) && value.len() <= NAME_BYTES_MAX => {
            set(info, text);
            context.reply.ok();
        }
        _ => context.reply.error(&format!("ERR {what} cannot contain spaces, newlines or special characters.")),
    }
}

pub(super) fn info(context: &mut ConnContext<'_>) {
    let line = context.session.info().describe(context.now_ms);
    context.reply.verbatim("txt", &line);
}

/// Whether a client of ours can be of the type that is asked for: all are normal.
fn is_normal(kind: &[u8]) -> Result<bool, String> {
    let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
    if is("normal") {
        Ok(true)
    } else if is("slave") || is("replica") || is("master") || is("pubsub") {
        Ok(false)
    } else {
        Err(format!("ERR Unknown client type '{}'", shown(kind)))
    }
}

pub(super) fn list(context: &mut ConnContext<'_>) {
    let clients = &context.node.clients;
    let chosen = match context.args {
        [_, _] => clients.list(),
        [_, _, word, kind] if word.eq_ignore_ascii_case(b"TYPE") => match is_normal(kind) {
            Ok(true) => clients.list(),
            Ok(false) => Vec::new(),
            Err(error) => return context.reply.error(&error),
        },
        [_, _, word, ids @ ..] if word.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let mut chosen = Vec::new();
            for id in ids {
                match parse_i64(id).filter(|id| *id >= 0) {
                    Some(id) => chosen.extend(clients.get(id as u64)),
                    None => return context.reply.error("ERR Invalid client ID"),
                }
            }
            chosen
        }
        _ => return context.reply.error(SYNTAX_ERROR),
    };
    let text: String = chosen.iter().map(|client| client.describe(context.now_ms)).collect();
    context.reply.verbatim("txt", &text);
}

/// Closes those that the filter means; this connection only after its reply.
fn kill_matching(context: &mut ConnContext<'_>, filter: &ClientFilter<'_>) -> usize {
    let matching = context.node.clients.matching(filter);
    for client in &matching {
        if client.id == context.session.id {
            context.outcome = Outcome::Close;
        } else {
            client.kill();
        }
    }
    matching.len()
}

pub(super) fn kill(context: &mut ConnContext<'_>) {
    if let [_, _, address] = context.args {
        let Ok(address) = std::str::from_utf8(address) else { return context.reply.error("ERR No such client") };
        let filter = ClientFilter { address: Some(address), ..ClientFilter::default() };
        return match kill_matching(context, &filter) {
            0 => context.reply.error("ERR No such client"),
            _ => context.reply.ok(),
        };
    }
    let mut filter = ClientFilter { except: Some(context.session.id), ..ClientFilter::default() };
    let mut nobody = false;
    let mut rest = context.args.get(2..).unwrap_or_default();
    while let [option, after @ ..] = rest {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        let [value, after @ ..] = after else { return context.reply.error(SYNTAX_ERROR) };
        rest = after;
        // An address that is no text is nobody's.
        let text = std::str::from_utf8(value).unwrap_or("-");
        if is("ID") {
            match parse_i64(value).filter(|id| *id > 0) {
                Some(id) => filter.id = Some(id as u64),
                None => return context.reply.error("ERR client-id should be greater than 0"),
            }
        } else if is("TYPE") {
            match is_normal(value) {
                Ok(normal) => nobody |= !normal,
                Err(error) => return context.reply.error(&error),
            }
        } else if is("ADDR") {
            filter.address = Some(text);
        } else if is("LADDR") {
            filter.local_address = Some(text);
        } else if is("USER") {
            if *value != b"default" {
                return context.reply.error(&format!("ERR No such user '{}'", shown(value)));
            }
        } else if is("SKIPME") {
            filter.except = if value.eq_ignore_ascii_case(b"yes") {
                Some(context.session.id)
            } else if value.eq_ignore_ascii_case(b"no") {
                None
            } else {
                return context.reply.error(SYNTAX_ERROR);
            };
        } else {
            return context.reply.error(SYNTAX_ERROR);
        }
    }
    let killed = if nobody { 0 } else { kill_matching(context, &filter) };
    context.reply.int(killed as i64);
}

/// NB: OFF and SKIP write no reply at all.
pub(super) fn reply(context: &mut ConnContext<'_>) {
    if context.is(2, "on") {
        context.session.replies_on();
        context.reply.ok();
    } else if context.is(2, "off") {
        context.session.replies_off();
    } else if context.is(2, "skip") {
        context.session.reply_skip_next();
    } else {
        context.reply.error(SYNTAX_ERROR);
    }
}

pub(super) fn pause(context: &mut ConnContext<'_>) {
    let mode = match context.args {
        [_, _, _] => PauseMode::All,
        [_, _, _, mode] if mode.eq_ignore_ascii_case(b"all") => PauseMode::All,
        [_, _, _, mode] if mode.eq_ignore_ascii_case(b"write") => PauseMode::Write,
        [_, _, _, _] => return context.reply.error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return context.reply.error("ERR wrong number of arguments for 'client|pause' command"),
    };
    let Some(timeout) = context.integer(2, "ERR timeout is not an integer or out of range") else { return };
    let Ok(timeout_ms) = u64::try_from(timeout) else { return context.reply.error("ERR timeout is negative") };
    let Some(until_ms) = context.now_ms.checked_add(timeout_ms) else {
        return context.reply.error("ERR timeout is out of range");
    };
    context.node.pause.start(mode, until_ms, context.now_ms);
    context.reply.ok();
}

pub(super) fn unpause(context: &mut ConnContext<'_>) {
    context.node.pause.end();
    context.reply.ok();
}

pub(super) fn unblock(context: &mut ConnContext<'_>) {
    let reason = match context.args {
        [_, _, _] => UnblockReason::Timeout,
        [_, _, _, reason] if reason.eq_ignore_ascii_case(b"timeout") => UnblockReason::Timeout,
        [_, _, _, reason] if reason.eq_ignore_ascii_case(b"error") => UnblockReason::Error,
        [_, _, _, _] => return context.reply.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
        _ => return context.reply.error("ERR wrong number of arguments for 'client|unblock' command"),
    };
    let Some(id) = context.integer(2, NOT_AN_INTEGER) else { return };
    let client = u64::try_from(id).ok().and_then(|id| context.node.clients.get(id));
    context.reply.int(i64::from(client.is_some_and(|client| client.request_unblock(reason))));
}

/// No client is closed to save memory in Holdfast; the wish is remembered and shown.
pub(super) fn no_evict(context: &mut ConnContext<'_>) {
    if let Some(on) = context.either(2, "on", "off") {
        context.session.info().set_no_evict(on);
        context.reply.ok();
    }
}

pub(super) fn no_touch(context: &mut ConnContext<'_>) {
    if let Some(on) = context.either(2, "on", "off") {
        context.session.set_no_touch(on);
        context.reply.ok();
    }
}

pub(super) fn getredir(context: &mut ConnContext<'_>) {
    context.reply.int(-1);
}

pub(super) fn trackinginfo(context: &mut ConnContext<'_>) {
    let reply = &mut *context.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.bulk(b"off");
    reply.bulk(b"redirect");
    reply.int(-1);
    reply.bulk(b"prefixes");
    reply.array(0);
}

/// A client that believes in invalidations which never come would serve stale values: so this is refused, not ignored.
pub(super) fn tracking(context: &mut ConnContext<'_>) {
    match context.either(2, "on", "off") {
        Some(true) => context.reply.error(
            "ERR Holdfast does not support CLIENT TRACKING: it sends no invalidation messages, so don't cache values on \
             the client side",
        ),
        Some(false) => context.reply.ok(),
        None => {}
    }
}

pub(super) fn caching(context: &mut ConnContext<'_>) {
    context.reply.error(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    );
}

pub(super) fn help(context: &mut ConnContext<'_>) {
    context.reply.help(&[
        "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CACHING (YES|NO)",
        "    Refused: client tracking is not supported.",
        "GETREDIR",
        "    The client that invalidations are redirected to: always -1.",
        "GETNAME",
        "    The name of this connection.",
        "ID",
        "    The id of this connection.",
        "INFO",
        "    A line about this connection, as in LIST.",
        "KILL <ip:port>",
        "    Close the connection from that address.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Close the connections that meet all of:",
        "    * ID <id>",
        "    * ADDR <ip:port>, the client's end",
        "    * LADDR <ip:port>, the server's end",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "    * USER <username>",
        "    * SKIPME (YES|NO), whether to spare this connection (default: yes)",
        "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <id> [<id> ...]]",
        "    A line about each connection.",
        "NO-EVICT (ON|OFF)",
        "    Accepted: no connection is closed to save memory.",
        "NO-TOUCH (ON|OFF)",
        "    Whether reads of this connection leave the idle time of keys alone.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Hold back all commands, or writes, for so many milliseconds.",
        "UNPAUSE",
        "    End a pause.",
        "REPLY (ON|OFF|SKIP)",
        "    Whether this connection gets replies; SKIP is for the next command.",
        "SETINFO (LIB-NAME|LIB-VER) <value>",
        "    Name the client library.",
        "SETNAME <name>",
        "    Name this connection.",
        "TRACKING (ON|OFF)",
        "    ON is refused: client tracking is not supported.",
        "TRACKINGINFO",
        "    The state of tracking: always off.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Let a client go on that waits in a blocking command.",
        "HELP",
        "    This text.",
    ]);
}
