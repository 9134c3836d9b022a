//! Commands as clients send them, and the bytes that come back. Unless a test says otherwise the expected bytes are what
//! Redis 7.0.15 answers to the same.

use super::{ConnContext, NOAUTH, Outcome, run};
use crate::command::{Handler, flag, resolve};
use crate::node::{ClientInfo, InfoSource, InfoText, Node, ShardFigures, StatsBatch, UnblockReason, test_node};
use crate::resp::{ErrorCode, Proto, Reply, Value};
use crate::session::Session;
use crate::settings::{Change, Durability, LogLevel, Settings, all};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

const NOW_MS: u64 = 1_700_000_005_678;

/// A connection that runs commands as the shard does.
pub(super) struct Client {
    pub(super) node: Arc<Node>,
    pub(super) session: Session,
    info: Arc<ClientInfo>,
    reply: Reply,
    outcome: Outcome,
    now_ms: u64,
}

static PORT: AtomicU16 = AtomicU16::new(10_000);

impl Client {
    pub(super) fn of(node: &Arc<Node>) -> Client {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT.fetch_add(1, Relaxed)));
        let (session, info) = node.clients.register(address, node.address, NOW_MS, node);
        let reply = Reply::new(Proto::Resp2);
        Client { node: Arc::clone(node), session, info, reply, outcome: Outcome::Continue, now_ms: NOW_MS }
    }

    pub(super) fn new() -> Client {
        Client::of(&test_node(Settings::default()))
    }

    fn send_args(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.session.saw_command(self.now_ms);
        match resolve(args) {
            Err(rejection) => self.reply.error(rejection.failure(args).text()),
            Ok(spec) if !self.session.authenticated && spec.flags & flag::NO_AUTH == 0 => self.reply.error(NOAUTH),
            Ok(spec) => {
                let Handler::Connection(command) = spec.handler else {
                    panic!("{} is no connection command", spec.name)
                };
                let was_silent = self.session.is_silent();
                let mut context = ConnContext::new(&mut self.session, &self.node, args, &mut self.reply, self.now_ms);
                run(command, &mut context);
                self.outcome = context.outcome;
                let silent = (was_silent && self.session.is_silent()) || self.session.is_off();
                self.session.ran_command(spec);
                if silent {
                    self.reply.output_mut().clear();
                }
            }
        }
        let bytes = self.reply.output().to_vec();
        self.reply.output_mut().clear();
        bytes
    }

    /// Sends the words of `line`; `''` is an empty one.
    pub(super) fn send(&mut self, line: &str) -> String {
        let mut words = Vec::new();
        assert!(crate::resp::split_line(line.as_bytes(), &mut words), "{line}");
        let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        String::from_utf8(self.send_args(&args)).unwrap()
    }

    pub(super) fn value(&mut self, line: &str) -> Value {
        let bytes = self.send(line);
        let mut values = Value::parse_all(bytes.as_bytes()).unwrap();
        assert_eq!(values.len(), 1, "{line}: {bytes:?}");
        values.remove(0)
    }

    pub(super) fn text(&mut self, line: &str) -> String {
        self.value(line).as_text().unwrap_or_else(|| panic!("{line} answers a text")).into_owned()
    }

    /// Runs a transcript: pairs of a command and its reply.
    pub(super) fn check(&mut self, transcript: &[(&str, &str)]) {
        for (line, expected) in transcript {
            assert_eq!(self.send(line), *expected, "{line}");
        }
    }

    /// The values that CONFIG GET finds, as `name=value` words.
    pub(super) fn config(&mut self, patterns: &str) -> String {
        let Value::Array(words) = self.value(&format!("CONFIG GET {patterns}")) else { panic!("an array") };
        let words: Vec<String> = words.iter().map(|word| word.as_text().unwrap().into_owned()).collect();
        words.chunks(2).map(|pair| pair.join("=")).collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn basic_commands_answer_as_redis_does() {
    let mut client = Client::new();
    client.check(&[
        ("PING", "+PONG\r\n"),
        ("PING hello", "$5\r\nhello\r\n"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
        ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
        ("ECHO ''", "$0\r\n\r\n"),
        ("SELECT 0", "+OK\r\n"),
        // One database, as in a Redis with `databases 1`.
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        ("SELECT -1", "-ERR DB index is out of range\r\n"),
        ("SELECT abc", "-ERR value is not an integer or out of range\r\n"),
        ("READONLY", "-ERR This instance has cluster support disabled\r\n"),
        ("READWRITE", "-ERR This instance has cluster support disabled\r\n"),
        ("ASKING", "-ERR This instance has cluster support disabled\r\n"),
        ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command\r\n"),
        ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
        ("CLUSTER KEYSLOT foo", "-ERR This instance has cluster support disabled\r\n"),
        ("CLUSTER FOO", "-ERR unknown subcommand 'FOO'. Try CLUSTER HELP.\r\n"),
        ("FUNCTION FLUSH", "+OK\r\n"),
        ("FUNCTION FLUSH SYNC", "+OK\r\n"),
        ("FUNCTION FLUSH FOO", "-ERR FUNCTION FLUSH only supports SYNC|ASYNC option\r\n"),
        ("FUNCTION LIST", "*0\r\n"),
        ("TIME x", "-ERR wrong number of arguments for 'time' command\r\n"),
        ("TIME", "*2\r\n$10\r\n1700000005\r\n$6\r\n678000\r\n"),
        ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        ("LASTSAVE", ":1700000000\r\n"),
    ]);
    assert_eq!(client.outcome, Outcome::Continue);
    client.check(&[("QUIT", "+OK\r\n")]);
    assert_eq!(client.outcome, Outcome::Close);
}

#[test]
fn hello_chooses_the_protocol() {
    let mut client = Client::new();
    let id = client.info.id;
    let rest = format!(
        "$2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    );
    let in_resp2 =
        format!("*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:2\r\n{rest}");
    let in_resp3 =
        format!("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n{rest}");
    client.check(&[
        ("HELLO", &in_resp2),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 1", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO abc", "-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 2 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
        ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
        ("HELLO 2 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'\r\n"),
        ("HELLO 2 AUTH a b", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("HELLO 3 SETNAME 'a b'", "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("HELLO 3 SETNAME me", &in_resp3),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("HELLO", &in_resp3),
        (
            "CLIENT TRACKINGINFO",
            "%3\r\n$5\r\nflags\r\n~1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
        ("INFO cluster", "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n"),
        ("CONFIG GET databases", "%1\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"),
        ("HELLO 2", &in_resp2),
        ("INFO cluster", "$30\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n"),
        ("HELLO 3", &in_resp3),
        ("RESET", "+RESET\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
    ]);
    assert_eq!(client.session.proto, Proto::Resp2);
}

#[test]
fn nothing_is_answered_before_the_password() {
    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    const HELLO_FIRST: &str = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
        AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
        same time\r\n";
    let node = test_node(Settings { requirepass: "foo".to_owned(), ..Settings::default() });
    let mut client = Client::of(&node);
    client.check(&[
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("HELLO", HELLO_FIRST),
        ("HELLO 3", HELLO_FIRST),
        ("AUTH x", WRONG),
        ("AUTH x foo", WRONG),
        ("AUTH default bar", WRONG),
        ("HELLO 3 AUTH default bar", WRONG),
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
        ("AUTH foo", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("RESET", "+RESET\r\n"),
        ("PING", "-NOAUTH Authentication required.\r\n"),
        ("AUTH default foo", "+OK\r\n"),
        ("AUTH bar", WRONG),
        // A failed attempt takes nothing away.
        ("PING", "+PONG\r\n"),
        ("AUTH a b c", "-ERR syntax error\r\n"),
    ]);
    assert!(Client::of(&node).send("HELLO 3 AUTH default foo SETNAME a").starts_with("%7\r\n"));

    let mut open = Client::new();
    open.check(&[
        (
            "AUTH foo",
            "-ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?\r\n",
        ),
        ("AUTH default anything", "+OK\r\n"),
        ("AUTH other anything", WRONG),
        ("CONFIG SET requirepass new", "+OK\r\n"),
        // Who is in stays in.
        ("PING", "+PONG\r\n"),
    ]);
    let mut late = Client::of(&open.node);
    late.check(&[("PING", "-NOAUTH Authentication required.\r\n"), ("AUTH new", "+OK\r\n")]);
}

#[test]
fn client_subcommands_answer_as_redis_does() {
    let mut client = Client::new();
    client.check(&[
        ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT ID x", "-ERR wrong number of arguments for 'client|id' command\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME 'a b'", "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
        ("CLIENT SETNAME worker", "+OK\r\n"),
        ("CLIENT GETNAME", "$6\r\nworker\r\n"),
        ("CLIENT SETNAME ''", "+OK\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT LIST TYPE replica", "$0\r\n\r\n"),
        ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
        ("CLIENT LIST TYPE", "-ERR syntax error\r\n"),
        ("CLIENT LIST ID", "-ERR syntax error\r\n"),
        ("CLIENT LIST ID a", "-ERR Invalid client ID\r\n"),
        ("CLIENT LIST ID 77", "$0\r\n\r\n"),
        ("CLIENT LIST FOO", "-ERR syntax error\r\n"),
        ("CLIENT LIST TYPE normal ID 2", "-ERR syntax error\r\n"),
        ("CLIENT NO-EVICT foo", "-ERR syntax error\r\n"),
        ("CLIENT NO-EVICT on", "+OK\r\n"),
        ("CLIENT NO-EVICT off", "+OK\r\n"),
        ("CLIENT NO-TOUCH maybe", "-ERR syntax error\r\n"),
        ("CLIENT NO-TOUCH on", "+OK\r\n"),
        ("CLIENT GETREDIR", ":-1\r\n"),
        ("CLIENT TRACKING foo", "-ERR syntax error\r\n"),
        ("CLIENT TRACKING off", "+OK\r\n"),
        (
            "CLIENT CACHING yes",
            "-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled\r\n",
        ),
        ("CLIENT UNBLOCK 99", ":0\r\n"),
        ("CLIENT UNBLOCK abc", "-ERR value is not an integer or out of range\r\n"),
        ("CLIENT UNBLOCK 99 FOO", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"),
        // From 7.2 on.
        ("CLIENT SETINFO lib-name redis-py", "+OK\r\n"),
        ("CLIENT SETINFO LIB-VER 8.0.0", "+OK\r\n"),
        ("CLIENT SETINFO lib-ver 'a b'", "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"),
        ("CLIENT SETINFO foo bar", "-ERR Unrecognized option 'foo'\r\n"),
    ]);
    assert!(client.session.is_no_touch());
    let line = client.text("CLIENT INFO");
    assert!(line.contains(" flags=T ") && line.contains(" cmd=client|setinfo "), "{line}");
    assert!(line.ends_with(" resp=2 lib-name=redis-py lib-ver=8.0.0\n"), "{line}");
    assert!(client.send("CLIENT TRACKING on").starts_with("-ERR Holdfast does not support CLIENT TRACKING"));
}

#[test]
fn client_list_has_a_line_for_each_connection() {
    let mut client = Client::new();
    let other = Client::of(&client.node);
    assert_eq!(client.text("CLIENT LIST").lines().count(), 2);
    assert_eq!(client.text("CLIENT LIST TYPE normal").lines().count(), 2);
    let only = client.text(&format!("CLIENT LIST ID {} 99", other.info.id));
    assert!(only.starts_with(&format!("id={} addr={}", other.info.id, other.info.address)), "{only}");
    assert_eq!(only.lines().count(), 1);
    client.now_ms += 7_000;
    client.send("CLIENT ID");
    assert!(client.text("CLIENT INFO").contains(" age=7 idle=0 "));
    let id = other.info.id;
    assert!(client.text(&format!("CLIENT LIST ID {id}")).contains(" age=7 idle=7 "));
}

#[test]
fn client_kill_closes_whom_all_conditions_mean() {
    let mut client = Client::new();
    client.check(&[
        ("CLIENT KILL", "-ERR wrong number of arguments for 'client|kill' command\r\n"),
        ("CLIENT KILL 1.2.3.4:55", "-ERR No such client\r\n"),
        ("CLIENT KILL ID", "-ERR No such client\r\n"),
        ("CLIENT KILL ID abc", "-ERR client-id should be greater than 0\r\n"),
        ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
        ("CLIENT KILL ID 99999", ":0\r\n"),
        ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
        ("CLIENT KILL TYPE normal SKIPME maybe", "-ERR syntax error\r\n"),
        ("CLIENT KILL USER nosuch", "-ERR No such user 'nosuch'\r\n"),
        ("CLIENT KILL USER default SKIPME yes", ":0\r\n"),
        ("CLIENT KILL FOO bar", "-ERR syntax error\r\n"),
        ("CLIENT KILL ADDR 1.2.3.4:1 LADDR 1.1.1.1:3", ":0\r\n"),
        ("CLIENT KILL TYPE normal ID", "-ERR syntax error\r\n"),
    ]);
    let node = Arc::clone(&client.node);
    let (one, two, three) = (Client::of(&node), Client::of(&node), Client::of(&node));
    assert_eq!(client.send(&format!("CLIENT KILL {}", one.info.address)), "+OK\r\n");
    assert!(one.info.is_killed() && !two.info.is_killed());
    let by_id = format!("CLIENT KILL ID {} ADDR {}", two.info.id, three.info.address);
    assert_eq!(client.send(&by_id), ":0\r\n");
    assert_eq!(client.send(&format!("CLIENT KILL ID {}", two.info.id)), ":1\r\n");
    assert!(two.info.is_killed());
    assert_eq!(client.send("CLIENT KILL TYPE replica"), ":0\r\n");
    assert!(!three.info.is_killed() && client.outcome == Outcome::Continue);
    // The shard has not taken the two out yet: they match again.
    assert_eq!(client.send("CLIENT KILL TYPE normal SKIPME no"), ":4\r\n");
    assert!(three.info.is_killed());
    assert!(!client.info.is_killed(), "the connection itself closes after its reply");
    assert_eq!(client.outcome, Outcome::Close);
}

#[test]
fn client_reply_turns_replies_off_and_on() {
    let mut client = Client::new();
    client.check(&[
        ("CLIENT REPLY", "-ERR wrong number of arguments for 'client|reply' command\r\n"),
        ("CLIENT REPLY FOO", "-ERR syntax error\r\n"),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("CLIENT REPLY SKIP", ""),
        ("PING skipped", ""),
        ("PING shown", "$5\r\nshown\r\n"),
        ("CLIENT REPLY OFF", ""),
        ("PING", ""),
        ("CLIENT REPLY SKIP", ""),
        ("PING", ""),
        ("PING", ""),
        ("CLIENT REPLY ON", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("CLIENT REPLY SKIP", ""),
        ("CLIENT REPLY ON", "+OK\r\n"),
    ]);
}

#[test]
fn client_pause_holds_back_what_it_names() {
    let mut client = Client::new();
    client.check(&[
        ("CLIENT PAUSE", "-ERR wrong number of arguments for 'client|pause' command\r\n"),
        ("CLIENT PAUSE abc", "-ERR timeout is not an integer or out of range\r\n"),
        ("CLIENT PAUSE -1", "-ERR timeout is negative\r\n"),
        ("CLIENT PAUSE 1 FOO", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
        ("CLIENT PAUSE 100 WRITE", "+OK\r\n"),
    ]);
    let node = Arc::clone(&client.node);
    assert!(node.is_paused(true, NOW_MS + 99) && !node.is_paused(false, NOW_MS + 99));
    assert!(node.pause_ended(NOW_MS + 100));
    client.check(&[("CLIENT PAUSE 100", "+OK\r\n")]);
    assert!(node.is_paused(false, NOW_MS));
    client.check(&[("CLIENT UNPAUSE", "+OK\r\n")]);
    assert!(node.pause_ended(NOW_MS));
}

#[test]
fn client_unblock_lets_a_blocked_client_go_on() {
    let mut client = Client::new();
    let other = Client::of(&client.node);
    let line = format!("CLIENT UNBLOCK {} ERROR", other.info.id);
    assert_eq!(client.send(&line), ":0\r\n");
    other.info.set_blocked(true);
    assert_eq!(client.send(&line), ":1\r\n");
    assert_eq!(other.info.take_unblock(), Some(UnblockReason::Error));
    assert!(client.text("CLIENT LIST").contains(" flags=b "));
    assert!(client.text("INFO clients").contains("\r\nblocked_clients:1\r\n"));
}

#[test]
fn config_get_matches_patterns() {
    let mut client = Client::new();
    client.check(&[
        ("CONFIG", "-ERR wrong number of arguments for 'config' command\r\n"),
        ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"),
        ("CONFIG GET MAXCLIENTS", "*2\r\n$10\r\nmaxclients\r\n$5\r\n10000\r\n"),
        ("CONFIG GET nosuch", "*0\r\n"),
    ]);
    assert_eq!(client.config("maxc* save nosuch MAXCLIENTS"), "maxclients=10000 save=");
    assert_eq!(client.config("save appendonly appendfsync"), "appendonly=yes appendfsync=always save=");
    assert_eq!(client.config("proto-max-bulk-len"), "proto-max-bulk-len=67108864");
    assert_eq!(client.config("slowlog-*"), "slowlog-log-slower-than=10000 slowlog-max-len=128");
    assert_eq!(client.config("[ps]ort"), "port=6379");
    let everything = client.config("*");
    for setting in all() {
        assert!(everything.contains(&format!("{}=", setting.name)), "{}", setting.name);
    }
    let mut names: Vec<&str> = everything.split(' ').filter_map(|word| word.split_once('=')).map(|w| w.0).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "no name comes twice");
}

#[test]
fn config_set_errors_are_those_of_redis() {
    let failed = |argument: &str, reason: &str| {
        format!("-ERR CONFIG SET failed (possibly related to argument '{argument}') - {reason}\r\n")
    };
    let policies = "argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, \
                    allkeys-lru, allkeys-lfu, allkeys-random, noeviction";
    let mut client = Client::new();
    for (line, reply) in [
        ("CONFIG SET", "-ERR wrong number of arguments for 'config|set' command\r\n".to_owned()),
        ("CONFIG SET maxclients", "-ERR wrong number of arguments for 'config|set' command\r\n".to_owned()),
        ("CONFIG SET nosuch 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'\r\n".to_owned()),
        ("CONFIG SET maxclients 1 save", "-ERR syntax error\r\n".to_owned()),
        ("CONFIG SET maxclients abc", failed("maxclients", "argument couldn't be parsed into an integer")),
        ("CONFIG SET maxclients 0", failed("maxclients", "argument must be between 1 and 4294967295 inclusive")),
        ("CONFIG SET maxclients 1 maxclients 2", failed("maxclients", "duplicate parameter")),
        ("CONFIG SET daemonize yes", failed("daemonize", "can't set immutable config")),
        ("CONFIG SET databases 3", failed("databases", "can't set immutable config")),
        ("CONFIG SET dir /tmp", failed("dir", "can't set protected config")),
        // Redis can; the port of a Holdfast is chosen at the start.
        ("CONFIG SET port 7000", failed("port", "can't set immutable config")),
        (
            "CONFIG SET appendfsync foo",
            failed("appendfsync", "argument(s) must be one of the following: everysec, always, no"),
        ),
        ("CONFIG SET save foo", failed("save", "Invalid save parameters")),
        ("CONFIG SET appendonly maybe", failed("appendonly", "argument must be 'yes' or 'no'")),
        ("CONFIG SET maxmemory foo", failed("maxmemory", "argument must be a memory value")),
        ("CONFIG SET maxmemory-policy foo", failed("maxmemory-policy", policies)),
        (
            "CONFIG SET hash-max-listpack-entries foo",
            failed("hash-max-listpack-entries", "argument couldn't be parsed into an integer"),
        ),
        (
            "CONFIG SET slowlog-log-slower-than foo",
            failed("slowlog-log-slower-than", "argument couldn't be parsed into an integer"),
        ),
        ("CONFIG SET timeout -1", failed("timeout", "argument must be between 0 and 2147483647 inclusive")),
        (
            "CONFIG SET loglevel foo",
            failed("loglevel", "argument(s) must be one of the following: debug, verbose, notice, warning"),
        ),
        ("CONFIG RESETSTAT x", "-ERR wrong number of arguments for 'config|resetstat' command\r\n".to_owned()),
        ("CONFIG REWRITE", "-ERR The server is running without a config file\r\n".to_owned()),
    ] {
        assert_eq!(client.send(line), reply, "{line}");
    }
    assert_eq!(client.config("maxclients"), "maxclients=10000");
}

#[test]
fn config_set_changes_all_or_nothing() {
    let mut client = Client::new();
    assert!(client.send("CONFIG SET maxclients 5 timeout 7 nosuch 1").starts_with("-ERR Unknown option"));
    assert!(client.send("CONFIG SET maxclients 5 timeout x").starts_with("-ERR CONFIG SET failed"));
    assert_eq!(client.config("maxclients timeout"), "maxclients=10000 timeout=0");
    assert_eq!(client.send("CONFIG SET MaxClients 5 timeout 7"), "+OK\r\n");
    assert_eq!(client.config("maxclients timeout"), "maxclients=5 timeout=7");
    assert_eq!(client.node.maxclients(), 5);
    assert_eq!(client.node.live.timeout_seconds(), 7);
}

#[test]
fn every_live_setting_can_be_set() {
    for setting in all() {
        let value = match setting.name {
            "protected-mode" => "no",
            "log-level" => "debug",
            "requirepass" => "secret",
            _ => "17",
        };
        let mut client = Client::new();
        let reply = client.send(&format!("CONFIG SET {} {value}", setting.name));
        if setting.change == Change::Live {
            assert_eq!(reply, "+OK\r\n", "{}", setting.name);
            assert_eq!(client.config(setting.name), format!("{}={value}", setting.name));
        } else {
            assert!(reply.contains("can't set"), "{}: {reply}", setting.name);
        }
    }
}

#[test]
fn settings_without_a_meaning_are_kept_and_change_nothing() {
    let mut client = Client::new();
    for (set, reported) in [
        ("save '900 1'", "save=900 1"),
        ("save ''", "save="),
        ("maxmemory 100mb", "maxmemory=104857600"),
        ("maxmemory 1g", "maxmemory=1000000000"),
        ("hash-max-listpack-entries 1", "hash-max-listpack-entries=1"),
        ("list-max-listpack-size -1", "list-max-listpack-size=-1"),
        ("maxmemory-policy ALLKEYS-LRU", "maxmemory-policy=allkeys-lru"),
    ] {
        assert_eq!(client.send(&format!("CONFIG SET {set}")), "+OK\r\n", "{set}");
        assert_eq!(client.config(set.split(' ').next().unwrap()), reported);
    }
}

#[test]
fn appendfsync_tells_the_truth_whatever_is_set() {
    for durability in [Durability::Always, Durability::Everysec, Durability::No] {
        let mut client = Client::of(&test_node(Settings { durability, ..Settings::default() }));
        for set in ["appendfsync always", "appendfsync no", "appendonly no"] {
            assert_eq!(client.send(&format!("CONFIG SET {set}")), "+OK\r\n");
            assert_eq!(client.config("appendonly appendfsync"), format!("appendonly=yes appendfsync={durability}"));
        }
    }
}

#[test]
fn log_level_is_known_under_both_names() {
    let mut client = Client::new();
    let heard = Arc::new(std::sync::Mutex::new(String::new()));
    let ear = Arc::clone(&heard);
    client.node.on_log_level(move |level| ear.lock().unwrap().push_str(level));
    assert_eq!(client.config("loglevel log-level"), "log-level=info loglevel=notice");
    assert_eq!(client.send("CONFIG SET loglevel warning"), "+OK\r\n");
    assert_eq!(client.config("loglevel log-level"), "log-level=warn loglevel=warning");
    assert_eq!(client.node.live.log_level(), LogLevel::Warn);
    assert_eq!(*heard.lock().unwrap(), "warn");
}

#[test]
fn slow_log_answers_as_redis_does() {
    let mut client = Client::new();
    client.check(&[
        ("SLOWLOG", "-ERR wrong number of arguments for 'slowlog' command\r\n"),
        ("SLOWLOG GET", "*0\r\n"),
        ("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG GET abc", "-ERR count should be greater than or equal to -1\r\n"),
        ("SLOWLOG LEN", ":0\r\n"),
        ("SLOWLOG FOO", "-ERR unknown subcommand 'FOO'. Try SLOWLOG HELP.\r\n"),
        ("SLOWLOG LEN x", "-ERR wrong number of arguments for 'slowlog|len' command\r\n"),
    ]);
    client.info.set_name("me");
    for at in 0..12 {
        client.node.slowlog.record(128, NOW_MS, at, &[b"PING"], Some(&client.info));
    }
    let address = client.info.address.to_string();
    let entry = format!(
        "*6\r\n:11\r\n:1700000005\r\n:11\r\n*1\r\n$4\r\nPING\r\n${}\r\n{address}\r\n$2\r\nme\r\n",
        address.len()
    );
    assert_eq!(client.send("SLOWLOG GET 1"), format!("*1\r\n{entry}"));
    assert!(client.send("SLOWLOG GET").starts_with("*10\r\n"));
    assert!(client.send("SLOWLOG GET -1").starts_with("*12\r\n"));
    client.check(&[("SLOWLOG LEN", ":12\r\n"), ("SLOWLOG RESET", "+OK\r\n"), ("SLOWLOG LEN", ":0\r\n")]);
}

#[test]
fn latency_and_memory_answer_like_an_idle_redis() {
    let mut client = Client::new();
    client.check(&[
        ("LATENCY LATEST", "*0\r\n"),
        ("LATENCY RESET", ":0\r\n"),
        ("LATENCY RESET a", ":0\r\n"),
        ("LATENCY HISTORY foo", "*0\r\n"),
        ("LATENCY GRAPH foo", "-ERR No samples available for event 'foo'\r\n"),
        ("LATENCY HISTOGRAM ping", "*0\r\n"),
        ("LATENCY FOO", "-ERR unknown subcommand 'FOO'. Try LATENCY HELP.\r\n"),
        ("MEMORY PURGE", "+OK\r\n"),
        ("MEMORY FOO", "-ERR unknown subcommand 'FOO'. Try MEMORY HELP.\r\n"),
    ]);
    client.node.register_shard().publish(&ShardFigures {
        keys: 2,
        memory_bytes: 300,
        dataset_bytes: 200,
        ..Default::default()
    });
    let Value::Array(words) = client.value("MEMORY STATS") else { panic!("an array") };
    let at = words.iter().position(|word| word.as_text().as_deref() == Some("keys.bytes-per-key")).unwrap();
    assert_eq!(words[at + 1], Value::Int(100));
    assert!(client.text("MEMORY DOCTOR").contains("nothing looks wrong"));
    client.node.register_shard().publish(&ShardFigures { memory_bytes: 5 << 30, ..Default::default() });
    assert!(client.text("MEMORY DOCTOR").contains("over the budget"));
    assert!(client.text("MEMORY MALLOC-STATS").contains("mimalloc"));
}

#[test]
fn help_lists_the_subcommands() {
    let mut client = Client::new();
    for command in ["CLIENT", "CONFIG", "SLOWLOG", "LATENCY"] {
        let Value::Array(lines) = client.value(&format!("{command} HELP")) else { panic!("an array") };
        let text: Vec<String> = lines.iter().map(|line| line.as_text().unwrap().into_owned()).collect();
        assert!(text[0].starts_with(&format!("{command} <subcommand>")), "{}", text[0]);
        let container = crate::command::lookup(command.as_bytes()).unwrap();
        for subcommand in container.subcommands {
            let name = subcommand.name.rsplit('|').next().unwrap().to_uppercase();
            let listed = text.iter().any(|line| line.split(' ').next() == Some(&name));
            assert!(listed, "{command} HELP does not mention {name}");
        }
    }
}

/// The names of the sections in a reply of INFO.
fn sections(text: &str) -> Vec<&str> {
    text.split("\r\n").filter_map(|line| line.strip_prefix("# ")).collect()
}

#[test]
fn info_has_the_sections_that_are_asked_for() {
    let mut client = Client::new();
    let defaults = client.text("INFO");
    assert_eq!(
        sections(&defaults),
        [
            "Server",
            "Clients",
            "Memory",
            "Persistence",
            "Stats",
            "Replication",
            "CPU",
            "Modules",
            "Errorstats",
            "Cluster",
            "Keyspace",
            "Holdfast"
        ]
    );
    assert_eq!(sections(&client.text("INFO default")), sections(&defaults));
    for all in ["INFO all", "INFO everything"] {
        let text = client.text(all);
        assert_eq!(sections(&text).len(), sections(&defaults).len() + 2);
        assert!(sections(&text).contains(&"Commandstats"));
    }
    assert_eq!(client.send("INFO foo"), "$0\r\n\r\n");
    assert_eq!(client.send("INFO KEYSPACE cluster"), "$44\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n\r\n");
    assert_eq!(sections(&client.text("INFO commandstats default")).len(), sections(&defaults).len() + 1);
}

#[test]
fn info_has_the_lines_that_clients_read() {
    let mut client = Client::new();
    let text = client.text("INFO");
    for line in [
        "redis_version:7.0.15",
        "redis_mode:standalone",
        "arch_bits:64",
        &format!("process_id:{}", std::process::id()),
        "tcp_port:6379",
        "uptime_in_seconds:5",
        "connected_clients:1",
        "blocked_clients:0",
        "maxclients:10000",
        "maxmemory:0",
        "loading:0",
        "role:master",
        "connected_slaves:0",
        "master_repl_offset:0",
        "cluster_enabled:0",
        "durability:always",
        "store:fjall",
    ] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} is missing in {text}");
    }
    for line in text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.contains(':'), "{line:?}");
    }
}

#[test]
fn info_shows_what_shards_publish_and_what_was_counted() {
    let mut client = Client::new();
    let node = Arc::clone(&client.node);
    assert!(!client.text("INFO keyspace").contains("db0"));
    node.register_shard().publish(&ShardFigures {
        keys: 10,
        keys_expiring: 4,
        ttl_sum_ms: 8000,
        memory_bytes: 1 << 20,
        dataset_bytes: 1 << 19,
        checkpoint_last_ms: NOW_MS,
        applied_index: 42,
        ..ShardFigures::default()
    });
    assert_eq!(client.send("INFO keyspace"), "$48\r\n# Keyspace\r\ndb0:keys=10,expires=4,avg_ttl=2000\r\n\r\n");
    assert!(client.text("INFO memory").contains("\r\nused_memory_human:1.00M\r\n"));
    assert!(client.text("INFO replication").contains("\r\nmaster_repl_offset:42\r\n"));
    assert_eq!(client.send("LASTSAVE"), ":1700000005\r\n");

    let get = crate::command::lookup(b"get").unwrap().id;
    let config_get = crate::command::lookup(b"config").unwrap().subcommand(b"get").unwrap().id;
    let mut batch = StatsBatch::default();
    batch.ran(get, 1500, None);
    batch.ran(get, 2500, Some(ErrorCode::of("WRONGTYPE no")));
    batch.ran(config_get, 230_000, None);
    batch.counters.keyspace_hits = 3;
    node.stats.add(&mut batch);
    assert_eq!(
        client.text("INFO commandstats"),
        "# Commandstats\r\n\
         cmdstat_get:calls=2,usec=4,usec_per_call=2.00,rejected_calls=0,failed_calls=1\r\n\
         cmdstat_config|get:calls=1,usec=230,usec_per_call=230.00,rejected_calls=0,failed_calls=0\r\n"
    );
    assert_eq!(client.text("INFO errorstats"), "# Errorstats\r\nerrorstat_WRONGTYPE:count=1\r\n");
    assert!(client.text("INFO stats").contains("\r\nkeyspace_hits:3\r\n"));
    assert_eq!(client.send("CONFIG RESETSTAT"), "+OK\r\n");
    assert_eq!(client.text("INFO commandstats"), "# Commandstats\r\n");
    assert!(client.text("INFO stats").contains("\r\nkeyspace_hits:0\r\n"));
}

#[test]
fn info_has_sections_of_other_parts() {
    struct Raft;
    impl InfoSource for Raft {
        fn section(&self) -> &str {
            "raft"
        }
        fn lines(&self, text: &mut InfoText) {
            text.line("role", "leader");
        }
    }
    let mut client = Client::new();
    client.node.add_info_source(Arc::new(Raft));
    let engine = client.node.register_gauges("engine", &["log_syncs", "log_sync_p99_us"]);
    engine.set(1, 250);
    assert_eq!(client.text("INFO raft"), "# Raft\r\nrole:leader\r\n");
    assert!(client.text("INFO").ends_with("\r\n# Engine\r\nlog_syncs:0\r\nlog_sync_p99_us:250\r\n"));
}

#[test]
fn http_is_recognised() {
    assert!(super::is_http(&[b"POST", b"/", b"HTTP/1.1"]) && super::is_http(&[b"Host:", b"localhost:6379"]));
    assert!(!super::is_http(&[b"GET", b"/"]) && !super::is_http(&[]));
}

#[test]
fn hostile_arguments_get_an_error_and_one_line() {
    let mut client = Client::new();
    let long = vec![b'x'; 100_000];
    for args in [
        vec![b"CLIENT".as_slice(), b"SETNAME", &long],
        vec![b"CLIENT", b"SETINFO", b"lib-name", &long],
        vec![b"CLIENT", b"LIST", b"TYPE", b"\r\n+OK\r\n"],
        vec![b"CLIENT", b"KILL", b"ADDR", b"\xff\xfe"],
        vec![b"CLIENT", b"KILL", b"\xff\xfe"],
        vec![b"HELLO", b"2", &long],
        vec![b"HELLO", b"2", b"\r\n-ERR\r\n"],
        vec![b"CONFIG", b"SET", &long, &long],
        vec![b"CONFIG", b"SET", b"save", b"\xff"],
        vec![b"CONFIG", b"SET", b"notify-keyspace-events", &long],
        vec![b"CONFIG", b"SET", b"requirepass", &long],
        vec![b"CLIENT", b"PAUSE", b"9223372036854775807"],
        vec![b"INFO", &long],
        vec![b"CONFIG", b"GET", &long],
    ] {
        let reply = client.send_args(&args);
        assert!(reply.len() < 1000, "{:?}", args[0]);
        assert_eq!(Value::parse_all(&reply).unwrap().len(), 1, "{:?}", String::from_utf8_lossy(&reply));
    }
}
