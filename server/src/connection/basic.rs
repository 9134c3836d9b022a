//! PING, ECHO, HELLO, AUTH, SELECT, QUIT, RESET.

use super::{ConnContext, NOT_AN_INTEGER, Outcome, SYNTAX_ERROR, client, shown};
use crate::command::parse_i64;
use crate::node::REDIS_VERSION;
use crate::resp::Proto;

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// The only user there is.
const DEFAULT_USER: &[u8] = b"default";

pub(super) fn ping(context: &mut ConnContext<'_>) {
    match context.args {
        [_] => context.reply.simple("PONG"),
        [_, message] => context.reply.bulk(message),
        _ => context.reply.error("ERR wrong number of arguments for 'ping' command"),
    }
}

pub(super) fn echo(context: &mut ConnContext<'_>) {
    context.reply.bulk(context.arg(1));
}

/// Whether these are the credentials of a user. Without a password any is right, as in Redis.
fn may_log_in(context: &ConnContext<'_>, user: &[u8], password: &[u8]) -> bool {
    let live = &context.node.live;
    user == DEFAULT_USER && (!live.has_password() || live.password_is(password))
}

pub(super) fn auth(context: &mut ConnContext<'_>) {
    let (user, password) = match context.args {
        [_, password] => {
            if !context.node.live.has_password() {
                return context.reply.error(
                    "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                     your configuration is correct?",
                );
            }
            (DEFAULT_USER, *password)
        }
        [_, user, password] => (*user, *password),
        _ => return context.reply.error(SYNTAX_ERROR),
    };
    if may_log_in(context, user, password) {
        context.session.authenticated = true;
        context.reply.ok();
    } else {
        context.reply.error(WRONG_PASSWORD);
    }
}

pub(super) fn hello(context: &mut ConnContext<'_>) {
    let mut proto = None;
    if context.args.len() > 1 {
        proto = match parse_i64(context.arg(1)) {
            Some(2) => Some(Proto::Resp2),
            Some(3) => Some(Proto::Resp3),
            Some(_) => return context.reply.error("NOPROTO unsupported protocol version"),
            None => return context.reply.error("ERR Protocol version is not an integer or out of range"),
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut rest = context.args.get(2..).unwrap_or_default();
    while let [option, after @ ..] = rest {
        rest = match after {
            [user, password, after @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((*user, *password));
                after
            }
            [wanted, after @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                match client::checked_name(wanted) {
                    Ok(wanted) => name = Some(wanted),
                    Err(error) => return context.reply.error(error),
                }
                after
            }
            _ => return context.reply.error(&format!("ERR Syntax error in HELLO option '{}'", shown(option))),
        };
    }
    if let Some((user, password)) = credentials {
        if !may_log_in(context, user, password) {
            return context.reply.error(WRONG_PASSWORD);
        }
        context.session.authenticated = true;
    }
    if !context.session.authenticated {
        return context.reply.error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = name {
        context.session.info().set_name(name);
    }
    if let Some(proto) = proto {
        context.session.set_proto(proto);
        context.reply.set_proto(proto);
    }
    let id = context.session.id as i64;
    let topology = context.node.topology();
    let mode = if topology.is_some() { "cluster" } else { "standalone" };
    let leads = topology.is_none_or(|topology| topology.leads(topology.me));
    let reply = &mut *context.reply;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.int(i64::from(reply.proto().number()));
    reply.bulk(b"id");
    reply.int(id);
    reply.bulk(b"mode");
    reply.bulk(mode.as_bytes());
    reply.bulk(b"role");
    reply.bulk(if leads { b"master".as_slice() } else { b"replica" });
    reply.bulk(b"modules");
    reply.array(0);
}

/// There is one database: number 0.
pub(super) fn select(context: &mut ConnContext<'_>) {
    match context.integer(1, NOT_AN_INTEGER) {
        Some(0) => context.reply.ok(),
        Some(_) if context.node.is_clustered() => {
            context.reply.error("ERR SELECT is not allowed in cluster mode");
        }
        Some(_) => context.reply.error("ERR DB index is out of range"),
        None => {}
    }
}

pub(super) fn quit(context: &mut ConnContext<'_>) {
    context.reply.ok();
    context.outcome = Outcome::Close;
}

pub(super) fn reset(context: &mut ConnContext<'_>) {
    context.session.reset(!context.node.live.has_password());
    context.reply.set_proto(context.session.proto);
    context.reply.simple("RESET");
}
