//! The command line: what there is to type, and its help.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_client::Address;

use crate::text::parse_duration;

const AFTER_HELP: &str = "\
Keys and values are bytes. What you type is sent as it is; with -e, \\n \\r \\t \\\\ \\xHH in it are escapes. A VALUE of `-` is
read from standard input, to its end. On a terminal, bytes that can't be shown are escaped; into a file or pipe they go
unchanged, and `get` adds no line end. With --json, bytes that are not UTF-8 become {\"base64\": \"...\"}.

Exit codes:
  0  done
  1  the server answered with an error
  2  the command line is wrong
  3  no: the key is absent, or the condition does not hold (nothing was changed)
  4  no connection, no leader to be found, or no answer and nothing was executed: safe to repeat
  5  no answer, outcome unknown: a write may or may not have been executed
  6  a local file, standard input or output failed

Examples:
  kvctl set greeting hello
  kvctl get greeting
  kvctl --addr 10.0.0.5:6379 status
  kvctl --addr node-1:6379,node-2:6379,node-3:6379 get greeting
  tar c photos | kvctl set photos.tar - --ttl 1d
  kvctl get photos.tar | tar t
  kvctl --json scan --match 'user:*' | jq -r .
  kvctl shell";

/// Talks to a Holdfast server, or to any server that speaks the Redis protocol.
#[derive(Debug, Parser)]
#[command(name = "kvctl", version, arg_required_else_help = true, after_help = AFTER_HELP, max_term_width = 120)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Subcommands,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The server, or nodes of a cluster, separated by commas or given one by one: the first that answers leads to the others;
    /// HOLDFAST_ADDR is looked at too [default: 127.0.0.1:6379]
    #[arg(
        long,
        short,
        alias = "server",
        global = true,
        env = "KVCTL_ADDR",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    pub(crate) addr: Vec<Address>,
    /// The user to authenticate as [default: default]
    #[arg(long, global = true, env = "KVCTL_USER")]
    pub(crate) user: Option<String>,
    /// The password; prefer the environment (HOLDFAST_PASSWORD is looked at too): other users can see command lines
    #[arg(long, global = true, env = "KVCTL_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,
    /// The database
    #[arg(long, short = 'n', global = true, default_value_t = 0, value_name = "NUMBER")]
    pub(crate) database: u32,
    /// How long to wait for each answer, a connection and a leader included: 500ms, 10s, 2m; 0 waits for ever
    #[arg(long, global = true, default_value = "5s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Print JSON, errors (on standard error) included
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Number the writes, and repeat those whose outcome is unknown until --timeout: they take effect once
    #[arg(long, global = true)]
    pub(crate) exactly_once: bool,
    /// Read \n \r \t \\ \xHH in keys, values and patterns as escapes
    #[arg(long, short = 'e', global = true)]
    pub(crate) escapes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Subcommands {
    /// Print the value of a key
    #[command(after_help = "Exit code 3 if there is no such key.\n\nExamples:\n  kvctl get greeting\n  \
                            kvctl get photo.jpg > photo.jpg\n  kvctl -e get 'bin\\x00key'")]
    Get { key: OsString },
    /// Set a key to a value
    #[command(after_help = "Exit code 3 if the condition does not hold.\n\nExamples:\n  kvctl set greeting hello\n  \
                            kvctl set session:17 token --ttl 30m\n  kvctl set lock me --nx --ttl 10s && echo mine\n  \
                            kvctl set config - < config.toml\n  kvctl set leader b --if-equals a")]
    Set(SetArguments),
    /// Delete keys; print how many there were
    #[command(after_help = "Exit code 3 if none of them existed.\n\nExamples:\n  kvctl del greeting\n  \
                            kvctl scan --match 'tmp:*' -0 | xargs -0 kvctl del")]
    Del {
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<OsString>,
    },
    /// Print how many of the keys exist
    #[command(after_help = "Exit code 3 unless all of them exist.\n\nExamples:\n  kvctl exists lock && echo taken")]
    Exists {
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<OsString>,
    },
    /// Print the keys, one per line
    #[command(
        after_help = "A key that is there from beginning to end is printed at least once; now and then one comes twice \
                            while the data\nchanges. With --json each line is one JSON string.\n\nExamples:\n  kvctl scan\n  \
                            kvctl scan --match 'user:*' --count 1000\n  kvctl scan --type string --limit 10\n  \
                            kvctl scan -0 | xargs -0 -n 100 kvctl exists"
    )]
    Scan(ScanArguments),
    /// Print how long a key will live
    #[command(
        after_help = "Prints seconds, or `forever`. Exit code 3 if there is no such key.\n\nExamples:\n  kvctl ttl session:17"
    )]
    Ttl { key: OsString },
    /// Give a key a lifetime
    #[command(after_help = "Exit code 3 if there is no such key or the condition does not hold.\n\nExamples:\n  \
                            kvctl expire session:17 30m\n  kvctl expire session:17 1h --gt")]
    Expire(ExpireArguments),
    /// Let a key live until it is deleted
    #[command(
        after_help = "Exit code 3 if there is no such key or it had no deadline.\n\nExamples:\n  kvctl persist session:17"
    )]
    Persist { key: OsString },
    /// Add to a number; print the sum
    #[command(
        after_help = "An absent key counts as 0. After exit code 5 the increment may or may not have happened.\n\n\
                            Examples:\n  kvctl incr visits\n  kvctl --exactly-once incr visits\n  kvctl incr stock --by -3\n  kvctl incr ratio --by 0.25"
    )]
    Incr {
        key: OsString,
        /// What to add; with a decimal point or exponent the number is floating-point
        #[arg(long, default_value = "1", allow_hyphen_values = true, value_name = "NUMBER")]
        by: String,
    },
    /// Compare and set: replace a value if it is exactly OLD
    #[command(
        after_help = "Exit code 3 if the key is absent or holds something else. The key's deadline is removed.\n\nExamples:\n  \
                            kvctl cas leader node-1 node-2\n  kvctl get doc > old && edit < old | kvctl cas doc \"$(cat old)\" -"
    )]
    Cas {
        key: OsString,
        old: OsString,
        /// The new value, or `-` to read it from standard input
        new: OsString,
    },
    /// Compare and delete: delete a key if its value is exactly OLD
    #[command(
        after_help = "Exit code 3 if the key is absent or holds something else.\n\nExamples:\n  kvctl cad lock my-token"
    )]
    Cad { key: OsString, old: OsString },
    /// Send any command and print the reply
    #[command(
        after_help = "On a terminal the reply is shown with its types; into a pipe, strings go unchanged and elements one per line.\n\n\
                            Examples:\n  kvctl raw MSET a 1 b 2\n  kvctl raw CLIENT LIST\n  kvctl --json raw COMMAND INFO get"
    )]
    Raw {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
        words: Vec<OsString>,
    },
    /// Show the state of the server, and of the nodes of its cluster
    #[command(
        after_help = "In a cluster, each node is asked; one that can't be reached is shown as such.\n\nExamples:\n  kvctl status\n  kvctl status --all\n  kvctl --json status | jq .keys\n  \
                            kvctl --json status | jq '.nodes[] | select(.reachable | not)'"
    )]
    Status {
        /// Every field that the server tells, by section
        #[arg(long)]
        all: bool,
    },
    /// List, add, remove and replace the nodes of the cluster
    #[command(after_help = "Examples:\n  kvctl node list\n  kvctl node remove 3\n  kvctl node replace 3 10.0.0.4:6379")]
    Node {
        #[command(subcommand)]
        command: NodeCommands,
    },
    /// Move leadership of the cluster
    #[command(after_help = "Examples:\n  kvctl leader transfer\n  kvctl leader transfer 2")]
    Leader {
        #[command(subcommand)]
        command: LeaderCommands,
    },
    /// Compare what the nodes of the cluster hold
    #[command(
        after_help = "Every node hashes all that it holds at one place of the log, in the background; clients go on meanwhile. A node that differs\n\
                            from the majority serves nobody until it is rebuilt, by itself. Exit code 3 if one differs, or no majority agrees.\n\n\
                            Examples:\n  kvctl verify\n  kvctl --json verify --wait 1h | jq .nodes"
    )]
    Verify {
        /// Wait so long for the nodes
        #[arg(long, value_parser = parse_duration, default_value = "10m", value_name = "TIME")]
        wait: Duration,
    },
    /// Ask whether the server answers, and how fast
    #[command(
        after_help = "Examples:\n  kvctl ping\n  kvctl ping --count 10\n  until kvctl ping --timeout 1s; do sleep 1; done"
    )]
    Ping {
        /// How many times
        #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
    /// Type commands interactively
    #[command(
        after_help = "Tab completes command names, `help NAME` explains a command, an open quote continues on the next line. History is\n\
                            kept in ~/.kvctl_history (KVCTL_HISTORY names another file; empty: none), passwords excepted. Without a\n\
                            terminal, commands are read line by line, and the exit code is that of the last failure.\n\nExamples:\n  \
                            kvctl shell\n  printf 'SET a 1\\nGET a\\n' | kvctl shell"
    )]
    Shell,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommands {
    /// Show the nodes as the leader sees them
    #[command(
        after_help = "The lag is how many entries of the leader's log a node lacks on its disk.\n\nExamples:\n  kvctl node list\n  \
                            kvctl --json node list | jq '.nodes[] | select(.reachable | not) | .id'"
    )]
    List,
    /// Say how a node is added, or wait until one that was started has a vote
    #[command(
        after_help = "Exit code 3 if the node has no vote when the time is over.\n\nExamples:\n  kvctl node add\n  \
                            kvctl node add 10.0.0.4:6379 --wait 10m"
    )]
    Add {
        /// Where the new node's clients or peers connect
        #[arg(value_name = "ADDRESS")]
        address: Option<Address>,
        /// Wait so long for it to have a vote
        #[arg(long, value_parser = parse_duration, value_name = "TIME", requires = "address")]
        wait: Option<Duration>,
    },
    /// Remove a node
    #[command(
        after_help = "It is gone when this returns; if it led, another node leads. Refused if the others would be no quorum. Its folder is of no\n\
                            more use: a node that shall come back joins with an empty one. May be repeated.\n\nExamples:\n  \
                            kvctl node remove 3"
    )]
    Remove {
        /// The node's number, as `kvctl node list` shows it
        node: u64,
    },
    /// Remove a node once another has a vote
    #[command(
        after_help = "Start the new node first, with `holdfast join`, or while this waits. Exit code 3 if it has no vote when the time is over;\n\
                            nothing is removed then.\n\nExamples:\n  kvctl node replace 3 10.0.0.4:6379"
    )]
    Replace {
        /// The number of the node to be removed
        dead: u64,
        /// Where the new node's clients or peers connect
        #[arg(value_name = "ADDRESS")]
        new: Address,
        /// Wait so long for the new node to have a vote
        #[arg(long, value_parser = parse_duration, default_value = "10m", value_name = "TIME")]
        wait: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeaderCommands {
    /// Hand leadership to a node, or to the one that is furthest
    #[command(
        after_help = "Prints who leads then. Clients notice a pause of about a round trip.\n\nExamples:\n  kvctl leader transfer\n  \
                            kvctl leader transfer 2"
    )]
    Transfer {
        /// The number of the node that shall lead
        to: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    pub(crate) key: OsString,
    /// The value, or `-` to read it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: OsString,
    /// The key is gone after this time: 250ms, 10s, 5m, 2h, 1d
    #[arg(long, value_parser = parse_duration, value_name = "TIME", conflicts_with = "keep_ttl")]
    pub(crate) ttl: Option<Duration>,
    /// Keep the deadline that the key has
    #[arg(long)]
    pub(crate) keep_ttl: bool,
    /// Only if the key does not exist
    #[arg(long, conflicts_with_all = ["xx", "if_equals"])]
    pub(crate) nx: bool,
    /// Only if the key exists
    #[arg(long, conflicts_with = "if_equals")]
    pub(crate) xx: bool,
    /// Only if the key holds exactly this value
    #[arg(long, value_name = "OLD", allow_hyphen_values = true)]
    pub(crate) if_equals: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct ScanArguments {
    /// Only keys that match this pattern: * ? [a-z] and \ before a special character
    #[arg(long = "match", short = 'm', value_name = "PATTERN")]
    pub(crate) pattern: Option<OsString>,
    /// Keys that the server looks at per step
    #[arg(long, short, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// Only keys that hold this type
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    pub(crate) type_name: Option<String>,
    /// Stop after this many keys
    #[arg(long, short, value_name = "KEYS")]
    pub(crate) limit: Option<u64>,
    /// End each key with a zero byte instead of a line end, and escape nothing
    #[arg(long, short = '0', conflicts_with = "json")]
    pub(crate) null: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExpireArguments {
    pub(crate) key: OsString,
    /// The lifetime from now: 250ms, 10s, 5m, 2h, 1d
    #[arg(value_parser = parse_duration)]
    pub(crate) time: Duration,
    /// Only if the key has no deadline
    #[arg(long, conflicts_with_all = ["xx", "gt", "lt"])]
    pub(crate) nx: bool,
    /// Only if the key has a deadline
    #[arg(long)]
    pub(crate) xx: bool,
    /// Only if that is later than the deadline that it has
    #[arg(long, conflicts_with = "lt")]
    pub(crate) gt: bool,
    /// Only if that is sooner than the deadline that it has
    #[arg(long)]
    pub(crate) lt: bool,
}
