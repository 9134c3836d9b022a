//! What the table says of a command.

use super::exec::Outcome;
use super::keyspec::KeySpec;
use super::needs::NeedsRule;
use super::{Exec, Failure};
use crate::resp::Reply;

/// The flags that `COMMAND INFO` reports, one bit each.
pub mod flag {
    /// Changes the keyspace: it is logged, and executes when its entry is applied.
    pub const WRITE: u32 = 1 << 0;
    /// Reads the keyspace.
    pub const READONLY: u32 = 1 << 1;
    /// May need more memory: refused when the budget is spent.
    pub const DENYOOM: u32 = 1 << 2;
    /// For operators.
    pub const ADMIN: u32 = 1 << 3;
    /// Not from scripts.
    pub const NOSCRIPT: u32 = 1 << 4;
    /// Allowed while the node is still loading its data.
    pub const LOADING: u32 = 1 << 5;
    /// Allowed on a replica that has lost its leader.
    pub const STALE: u32 = 1 << 6;
    /// Constant or logarithmic time.
    pub const FAST: u32 = 1 << 7;
    /// Allowed before authentication.
    pub const NO_AUTH: u32 = 1 << 8;
    /// Not inside a transaction.
    pub const NO_MULTI: u32 = 1 << 9;
    /// Key positions depend on the arguments beyond what first, last and step can say.
    pub const MOVABLEKEYS: u32 = 1 << 10;
    /// Allowed while the node is busy with a script.
    pub const ALLOW_BUSY: u32 = 1 << 11;
    /// Not while a replica is loading its data in the background.
    pub const NO_ASYNC_LOADING: u32 = 1 << 12;

    /// Names, in the order in which they are reported.
    pub(crate) const NAMES: &[(u32, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (NOSCRIPT, "noscript"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (NO_MULTI, "no_multi"),
        (MOVABLEKEYS, "movablekeys"),
        (ALLOW_BUSY, "allow_busy"),
        (NO_ASYNC_LOADING, "no_async_loading"),
    ];
}

/// The categories of access control lists, one bit each.
pub mod category {
    /// Keys whatever their type.
    pub const KEYSPACE: u32 = 1 << 0;
    /// Reads keys.
    pub const READ: u32 = 1 << 1;
    /// Writes keys.
    pub const WRITE: u32 = 1 << 2;
    /// Strings.
    pub const STRING: u32 = 1 << 7;
    /// Strings as arrays of bits.
    pub const BITMAP: u32 = 1 << 8;
    /// For operators.
    pub const ADMIN: u32 = 1 << 13;
    /// Constant or logarithmic time.
    pub const FAST: u32 = 1 << 14;
    /// What isn't fast.
    pub const SLOW: u32 = 1 << 15;
    /// Can harm, by load or by what it does.
    pub const DANGEROUS: u32 = 1 << 17;
    /// About the connection.
    pub const CONNECTION: u32 = 1 << 18;
    /// Scripts and functions.
    pub const SCRIPTING: u32 = 1 << 20;

    /// Every name that Redis 7 knows, in the order in which they are reported. Those without a command of ours are
    /// known nevertheless: `COMMAND LIST FILTERBY ACLCAT set` is an empty list, not an error.
    pub(crate) const NAMES: &[&str] = &[
        "keyspace",
        "read",
        "write",
        "set",
        "sortedset",
        "list",
        "hash",
        "string",
        "bitmap",
        "hyperloglog",
        "geo",
        "stream",
        "pubsub",
        "admin",
        "fast",
        "slow",
        "blocking",
        "dangerous",
        "connection",
        "transaction",
        "scripting",
    ];
}

/// The family that documentation lists a command under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Keys whatever their type.
    Generic,
    /// Strings.
    String,
    /// Strings as arrays of bits.
    Bitmap,
    /// About the connection.
    Connection,
    /// About the server.
    Server,
    /// About the cluster.
    Cluster,
    /// Scripts and functions, of which there are none.
    Scripting,
}

impl Group {
    /// The name that `COMMAND DOCS` reports.
    pub fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Cluster => "cluster",
            Group::Scripting => "scripting",
        }
    }
}

/// Commands about the connection or the server, which the session answers without touching keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // Each is the command of its name.
pub enum Connection {
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Quit,
    Reset,
    ClientId,
    ClientGetname,
    ClientSetname,
    ClientSetinfo,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientReply,
    ClientPause,
    ClientUnpause,
    ClientUnblock,
    ClientNoEvict,
    ClientNoTouch,
    ClientGetredir,
    ClientTrackinginfo,
    ClientTracking,
    ClientCaching,
    ClientHelp,
    Info,
    ConfigGet,
    ConfigSet,
    ConfigResetstat,
    ConfigRewrite,
    ConfigHelp,
    Time,
    Lastsave,
    Role,
    SlowlogGet,
    SlowlogLen,
    SlowlogReset,
    SlowlogHelp,
    LatencyLatest,
    LatencyHistory,
    LatencyReset,
    LatencyDoctor,
    LatencyGraph,
    LatencyHistogram,
    LatencyHelp,
    MemoryDoctor,
    MemoryStats,
    MemoryPurge,
    MemoryMallocStats,
    FunctionFlush,
    FunctionList,
    Readonly,
    Readwrite,
    Asking,
    ClusterInfo,
    ClusterNodes,
    ClusterSlots,
    ClusterShards,
    ClusterMyid,
    ClusterMyshardid,
    ClusterKeyslot,
    ClusterLinks,
    ClusterReplicas,
    ClusterCountFailureReports,
    ClusterSaveconfig,
    ClusterHelp,
    HoldfastHelp,
    /// Redis's commands that put nodes, slots or roles where the operator wants them.
    ClusterManaged,
}

/// Commands about all keys or about the node, which the shard runs itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Special {
    /// A walk over the keys in steps: see [`super::ScanOptions`].
    Scan,
    /// All keys that match a pattern.
    Keys,
    /// Any key.
    RandomKey,
    /// How many keys there are.
    DbSize,
    /// Waits for replicas: see [`super::WaitOptions`].
    Wait,
    /// Stops the node: see [`super::ShutdownOptions`].
    Shutdown,
    /// How many keys a slot has here: see [`super::SlotOptions`].
    CountKeysInSlot,
    /// Some of the keys of a slot: see [`super::SlotOptions`].
    GetKeysInSlot,
    /// The cluster's nodes as the leader sees them.
    Nodes,
    /// Removes a node from the cluster: see [`super::parse_node`].
    RemoveNode,
    /// Hands leadership over, to a node or to whoever is furthest: see [`super::parse_node`].
    TransferLeader,
    /// HOLDFAST VERIFY.
    Verify,
}

/// Who executes a command.
#[derive(Clone, Copy)]
pub enum Handler {
    /// A read or a write of the keys that the arguments name (FLUSHALL: of all). Call [`CommandSpec::execute`].
    Data(fn(&mut Exec<'_>) -> Result<(), Failure>),
    /// Answered from the command table and the arguments alone. Call [`CommandSpec::answer`].
    Table(fn(&[&[u8]], &mut Reply) -> Result<(), Failure>),
    /// Answered by the session.
    Connection(Connection),
    /// Run by the shard.
    Special(Special),
    /// HOLDFAST ONCE: runs the command among its arguments, see [`crate::once`].
    Once,
    /// HOLDFAST SESSION NEW: issues a session's id.
    NewSession,
    /// Only a name for its subcommands: `resolve` never gives it out.
    Container,
}

/// A row of the table.
pub struct CommandSpec {
    /// The name in lower case; `client|list` for a subcommand.
    pub name: &'static str,
    /// The number in the log. It is there for ever: never change one, never give it to another command.
    pub id: u16,
    /// How many words a request has, the name included; at least so many if negative.
    pub arity: i16,
    /// Bits of [`flag`].
    pub flags: u32,
    /// Bits of [`category`], those that follow from the flags included.
    pub categories: u32,
    /// Where keys are among the arguments.
    pub key_specs: &'static [KeySpec],
    /// Hints for proxies and cluster clients.
    pub tips: &'static [&'static str],
    /// The family in the documentation.
    pub group: Group,
    /// The version of Redis that introduced it, or of Holdfast for our own.
    pub since: &'static str,
    /// Its cost.
    pub complexity: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Its arguments in the notation of `syntax.rs`.
    pub syntax: &'static str,
    /// The version that deprecated it and what replaces it.
    pub deprecated: Option<(&'static str, &'static str)>,
    /// Rows of their own.
    pub subcommands: &'static [CommandSpec],
    /// Who executes it.
    pub handler: Handler,
    /// What of the old values decides what it does.
    pub(crate) needs_rule: NeedsRule,
}

impl CommandSpec {
    /// A row; the other columns follow by the methods below.
    pub(crate) const fn new(id: u16, name: &'static str, arity: i16, group: Group, handler: Handler) -> Self {
        let categories = match group {
            Group::Generic => 0,
            Group::String => category::STRING,
            Group::Bitmap => category::BITMAP,
            Group::Connection => category::CONNECTION,
            Group::Server | Group::Cluster => 0,
            Group::Scripting => category::SCRIPTING,
        };
        let needs_rule = match handler {
            Handler::Data(_) => NeedsRule::Values,
            _ => NeedsRule::Nothing,
        };
        CommandSpec {
            name,
            id,
            arity,
            flags: 0,
            categories,
            key_specs: &[],
            tips: &[],
            group,
            since: "1.0.0",
            complexity: "O(1)",
            summary: "",
            syntax: "",
            deprecated: None,
            subcommands: &[],
            handler,
            needs_rule,
        }
    }

    /// Sets the flags, and the categories that follow from them.
    pub(crate) const fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        if flags & flag::WRITE != 0 {
            self.categories |= category::WRITE;
        }
        if flags & flag::READONLY != 0 {
            self.categories |= category::READ;
        }
        if flags & flag::ADMIN != 0 {
            self.categories |= category::ADMIN | category::DANGEROUS;
        }
        self
    }

    /// Adds categories.
    pub(crate) const fn also(mut self, categories: u32) -> Self {
        self.categories |= categories;
        self
    }

    /// Takes categories away.
    pub(crate) const fn without(mut self, categories: u32) -> Self {
        self.categories &= !categories;
        self
    }

    /// Says where the keys are.
    pub(crate) const fn keys(mut self, key_specs: &'static [KeySpec]) -> Self {
        self.key_specs = key_specs;
        self
    }

    /// Sets the hints.
    pub(crate) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    /// Describes the command, and completes the row.
    pub(crate) const fn docs(
        mut self,
        since: &'static str,
        complexity: &'static str,
        syntax: &'static str,
        summary: &'static str,
    ) -> Self {
        self.since = since;
        self.complexity = complexity;
        self.syntax = syntax;
        self.summary = summary;
        self.categories |= if self.flags & flag::FAST != 0 { category::FAST } else { category::SLOW };
        self
    }

    /// Says that there is something better.
    pub(crate) const fn deprecated(mut self, since: &'static str, replacement: &'static str) -> Self {
        self.deprecated = Some((since, replacement));
        self
    }

    /// Says what of the old values it looks at, if that is not the values themselves.
    pub(crate) const fn needing(mut self, rule: NeedsRule) -> Self {
        self.needs_rule = rule;
        self
    }

    /// Adds the subcommands.
    pub(crate) const fn subcommands(mut self, subcommands: &'static [CommandSpec]) -> Self {
        self.subcommands = subcommands;
        self
    }

    /// Whether it changes the keyspace, and so is logged.
    pub fn is_write(&self) -> bool {
        self.flags & flag::WRITE != 0
    }

    /// Whether it reads the keyspace without changing it.
    pub fn is_read(&self) -> bool {
        self.flags & flag::READONLY != 0
    }

    /// Whether a request of `count` words, the name included, has as many as it must.
    pub fn accepts_count(&self, count: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { count == wanted } else { count >= wanted }
    }

    /// Runs a [`Handler::Data`] command: exactly one value is written to the reply, an error if it was refused.
    ///
    /// The count of arguments is checked again, since an entry of the log came from outside.
    pub fn execute(&self, exec: &mut Exec<'_>) {
        let outcome: Outcome = match self.handler {
            Handler::Data(_) if !self.accepts_count(exec.args.len()) => Err(Failure::wrong_arity(self.name)),
            Handler::Data(run) => run(exec),
            _ => Err(Failure::new(format!("ERR '{}' does not act on keys", self.name))),
        };
        if let Err(failure) = outcome {
            exec.reply.error(failure.text());
        }
    }

    /// Runs a [`Handler::Table`] command: exactly one value is written to the reply.
    pub fn answer(&self, args: &[&[u8]], reply: &mut Reply) {
        let outcome = match self.handler {
            Handler::Table(_) if !self.accepts_count(args.len()) => Err(Failure::wrong_arity(self.name)),
            Handler::Table(run) => run(args, reply),
            _ => Err(Failure::new(format!("ERR '{}' is not answered by the command table", self.name))),
        };
        if let Err(failure) = outcome {
            reply.error(failure.text());
        }
    }
}

impl std::fmt::Debug for CommandSpec {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CommandSpec({})", self.name)
    }
}
