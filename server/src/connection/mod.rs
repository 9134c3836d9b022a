//! Commands about the connection or the node, which touch no key: PING, HELLO, CLIENT, CONFIG, INFO, SLOWLOG and others.
//!
//! They run on the shard thread at once, between the connection's other commands, and are never logged. What they
//! change is either the connection's own [`Session`] or the shared [`Node`]; what they ask of other connections (to
//! close, to go on) is left in those clients' [`ClientInfo`](crate::node::ClientInfo) for their own threads to find.
//!
//! Names, arguments, errors and the shape of replies are those of Redis 7.0.15, which clients and tools rely on to the
//! letter. Where Holdfast differs in substance (settings that mean nothing here, client tracking, functions) it says so
//! in an error or in the documentation rather than pretend.

mod basic;
mod client;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod config;
mod config_stored;
mod info;
mod memory;
mod process;
mod replication;
mod server;
#[cfg(test)]
mod tests;

use crate::command::{Connection, parse_i64};
use crate::node::Node;
use crate::resp::Reply;
use crate::session::Session;

/// What is answered before a client has authenticated.
pub const NOAUTH: &str = "NOAUTH Authentication required.";

pub(crate) const SYNTAX_ERROR: &str = "ERR syntax error";
pub(crate) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";

/// What the shard does with the connection after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Outcome {
    /// Goes on.
    #[default]
    Continue,
    /// Closes it when the replies so far are sent.
    Close,
}

/// What a connection command works with.
#[derive(Debug)]
pub struct ConnContext<'a> {
    /// The connection's own state.
    pub session: &'a mut Session,
    /// The node.
    pub node: &'a Node,
    /// The request, from the command's name on. The shard has checked their number against the command table.
    pub args: &'a [&'a [u8]],
    /// Receives exactly one value (none for CLIENT REPLY OFF and SKIP).
    pub reply: &'a mut Reply,
    /// The wall clock, in milliseconds since the epoch.
    pub now_ms: u64,
    /// The wall clock in microseconds, for TIME.
    pub now_us: u64,
    /// What the shard does next.
    pub outcome: Outcome,
}

impl<'a> ConnContext<'a> {
    /// A context for one command.
    pub fn new(
        session: &'a mut Session,
        node: &'a Node,
        args: &'a [&'a [u8]],
        reply: &'a mut Reply,
        now_ms: u64,
    ) -> Self {
        ConnContext { session, node, args, reply, now_ms, now_us: now_ms * 1000, outcome: Outcome::Continue }
    }

    /// The argument at `index`, empty if there is none.
    fn arg(&self, index: usize) -> &'a [u8] {
        self.args.get(index).copied().unwrap_or_default()
    }

    /// Whether the argument at `index` is `word`, in any case.
    fn is(&self, index: usize, word: &str) -> bool {
        self.args.get(index).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The argument at `index` as an integer, or the error for the client.
    fn integer(&mut self, index: usize, error: &str) -> Option<i64> {
        let value = parse_i64(self.arg(index));
        if value.is_none() {
            self.reply.error(error);
        }
        value
    }

    /// `yes` or `no` (or whichever two words) at `index`, or a syntax error for the client.
    fn either(&mut self, index: usize, yes: &str, no: &str) -> Option<bool> {
        let choice = if self.is(index, yes) {
            Some(true)
        } else if self.is(index, no) {
            Some(false)
        } else {
            None
        };
        if choice.is_none() {
            self.reply.error(SYNTAX_ERROR);
        }
        choice
    }
}

/// Whether a request is the line of an HTTP request. A browser can be made to send one to a server on its own machine,
/// with commands in the body; as Redis does, the shard closes such a connection before it reads on.
pub fn is_http(args: &[&[u8]]) -> bool {
    args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
}

/// Bytes of a client's as text for an error or a log line: cut, and never more than one line.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned()
}

/// Every name that CONFIG knows.
#[cfg(test)]
pub(crate) fn config_names() -> Vec<&'static str> {
    config::names()
}

/// What CLUSTER and its like answer on a node that is in no cluster.
pub(crate) const CLUSTER_DISABLED: &str = "ERR This instance has cluster support disabled";

/// Runs a connection command. Exactly one value is written to the reply, except by CLIENT REPLY OFF and SKIP.
pub fn run(command: Connection, context: &mut ConnContext<'_>) {
    let handler: fn(&mut ConnContext<'_>) = match command {
        Connection::Ping => basic::ping,
        Connection::Echo => basic::echo,
        Connection::Hello => basic::hello,
        Connection::Auth => basic::auth,
        Connection::Select => basic::select,
        Connection::Quit => basic::quit,
        Connection::Reset => basic::reset,
        Connection::ClientId => client::id,
        Connection::ClientGetname => client::getname,
        Connection::ClientSetname => client::setname,
        Connection::ClientSetinfo => client::setinfo,
        Connection::ClientInfo => client::info,
        Connection::ClientList => client::list,
        Connection::ClientKill => client::kill,
        Connection::ClientReply => client::reply,
        Connection::ClientPause => client::pause,
        Connection::ClientUnpause => client::unpause,
        Connection::ClientUnblock => client::unblock,
        Connection::ClientNoEvict => client::no_evict,
        Connection::ClientNoTouch => client::no_touch,
        Connection::ClientGetredir => client::getredir,
        Connection::ClientTrackinginfo => client::trackinginfo,
        Connection::ClientTracking => client::tracking,
        Connection::ClientCaching => client::caching,
        Connection::ClientHelp => client::help,
        Connection::Info => info::info,
        Connection::ConfigGet => config::get,
        Connection::ConfigSet => config::set,
        Connection::ConfigResetstat => config::resetstat,
        Connection::ConfigRewrite => config::rewrite,
        Connection::ConfigHelp => config::help,
        Connection::Time => server::time,
        Connection::Lastsave => server::lastsave,
        Connection::Role => replication::role,
        Connection::SlowlogGet => server::slowlog_get,
        Connection::SlowlogLen => server::slowlog_len,
        Connection::SlowlogReset => server::slowlog_reset,
        Connection::SlowlogHelp => server::slowlog_help,
        Connection::LatencyLatest => server::latency_latest,
        Connection::LatencyHistory => server::latency_history,
        Connection::LatencyReset => server::latency_reset,
        Connection::LatencyDoctor => server::latency_doctor,
        Connection::LatencyGraph => server::latency_graph,
        Connection::LatencyHistogram => server::latency_histogram,
        Connection::LatencyHelp => server::latency_help,
        Connection::MemoryDoctor => memory::doctor,
        Connection::MemoryStats => memory::stats,
        Connection::MemoryPurge => memory::purge,
        Connection::MemoryMallocStats => memory::malloc_stats,
        Connection::FunctionFlush => server::function_flush,
        Connection::FunctionList => server::function_list,
        Connection::Readonly => cluster::readonly,
        Connection::Readwrite => cluster::readwrite,
        Connection::Asking => cluster::asking,
        Connection::ClusterInfo => cluster::info,
        Connection::ClusterNodes => cluster::nodes,
        Connection::ClusterSlots => cluster::slots,
        Connection::ClusterShards => cluster::shards,
        Connection::ClusterMyid => cluster::myid,
        Connection::ClusterMyshardid => cluster::myshardid,
        Connection::ClusterKeyslot => cluster::keyslot,
        Connection::ClusterLinks => cluster::links,
        Connection::ClusterReplicas => cluster::replicas,
        Connection::ClusterCountFailureReports => cluster::count_failure_reports,
        Connection::ClusterSaveconfig => cluster::saveconfig,
        Connection::ClusterHelp => cluster::help,
        Connection::HoldfastHelp => cluster::holdfast_help,
        Connection::ClusterManaged => cluster::managed,
    };
    handler(context);
}
