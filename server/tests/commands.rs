//! Every command, as a client sees it: the type and the bytes of each reply over RESP2 and RESP3.
//!
//! `tests/scripts` holds the replies, a line a command: `SET a 1 => +OK`, and after ` || ` the reply over RESP3 where it is
//! another. All scripts but `own.txt` were written by Redis 7.0.15 itself; see [`replies_of_a_reference_server`].

mod common;

use common::resp::{Client, Value, words};
use common::{Server, eventually, folder};
use redis::Commands;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Scripts that hold for Redis as for us.
const SHARED: &[&str] = &["strings", "numbers", "bits", "keys", "expiry", "connection", "errors"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(format!("{name}.txt"))
}

/// Runs a script over both protocols and writes it down again with the replies that came.
fn play(name: &str, address: SocketAddr) -> String {
    let text = std::fs::read_to_string(script(name)).expect("script");
    let requests: Vec<&str> = text.lines().map(|line| line.split(" => ").next().unwrap_or(line)).collect();
    let replies = |protocol: &str| -> Vec<String> {
        let mut client = Client::connect(address);
        assert!(client.run("FLUSHALL").is_ok());
        let mut replies = Vec::new();
        for request in &requests {
            // Again before each command: RESET, for one, goes back to RESP2.
            client.run(protocol);
            let comment = request.starts_with('#') || request.is_empty();
            let args = words(request);
            let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
            replies.push(if comment { String::new() } else { client.call(&args).to_string() });
        }
        replies
    };
    let mut out = String::new();
    for ((request, two), three) in requests.iter().zip(replies("HELLO 2")).zip(replies("HELLO 3")) {
        out.push_str(request);
        if !two.is_empty() {
            out.push_str(&format!(" => {two}"));
            if two != three {
                out.push_str(&format!(" || {three}"));
            }
        }
        out.push('\n');
    }
    out
}

/// Lines that differ, so that a failure shows them and not two whole scripts.
fn differences(name: &str, address: SocketAddr) -> Vec<String> {
    let wanted = std::fs::read_to_string(script(name)).expect("script");
    let found = play(name, address);
    wanted
        .lines()
        .zip(found.lines())
        .filter(|(wanted, found)| wanted != found)
        .map(|(wanted, found)| format!("{name}: wanted {wanted}\n{name}: found  {found}"))
        .collect()
}

#[test]
fn replies_are_those_of_redis() {
    let dir = folder();
    let server = Server::start(dir.path());
    let differences: Vec<String> = SHARED.iter().flat_map(|name| differences(name, server.address)).collect();
    assert!(differences.is_empty(), "{} replies differ:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn replies_of_our_own_commands() {
    let dir = folder();
    let server = Server::start(dir.path());
    let differences = differences("own", server.address);
    assert!(differences.is_empty(), "{} replies differ:\n{}", differences.len(), differences.join("\n"));
}

/// Asks a Redis server itself, so that the scripts can be trusted: `REFERENCE_SERVER=127.0.0.1:7000`. With
/// `REWRITE_SCRIPTS=1` its replies are written into the scripts.
#[test]
#[ignore = "needs a redis-server 7.0; REFERENCE_SERVER says where"]
fn replies_of_a_reference_server() {
    let address = std::env::var("REFERENCE_SERVER").expect("REFERENCE_SERVER").parse().expect("an address");
    if std::env::var_os("REWRITE_SCRIPTS").is_some() {
        for name in SHARED {
            std::fs::write(script(name), play(name, address)).expect("script");
        }
    }
    let differences: Vec<String> = SHARED.iter().flat_map(|name| differences(name, address)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn redis_crate_reads_every_type_over_both_protocols() {
    let dir = folder();
    let server = Server::start(dir.path());
    for mut redis in [server.connect(), server.connect_resp3()] {
        let _: () = redis.flushall().expect("flushall");
        let _: () = redis.set("text", "value").expect("set");
        assert_eq!(redis.get::<_, String>("text").expect("get"), "value");
        assert_eq!(redis.get::<_, Option<String>>("none").expect("get"), None);
        assert_eq!(redis.get_del::<_, String>("text").expect("getdel"), "value");
        assert_eq!(redis.incr::<_, _, i64>("count", 5).expect("incr"), 5);
        assert_eq!(redis.decr::<_, _, i64>("count", 2).expect("decr"), 3);
        assert_eq!(redis.incr::<_, _, f64>("fraction", 2.5).expect("incrbyfloat"), 2.5);
        assert_eq!(redis.append::<_, _, usize>("text", "abc").expect("append"), 3);
        assert_eq!(redis.strlen::<_, usize>("text").expect("strlen"), 3);
        assert_eq!(redis.getrange::<_, String>("text", 1, -1).expect("getrange"), "bc");
        assert!(redis.set_nx::<_, _, bool>("once", 1).expect("setnx"));
        assert!(!redis.set_nx::<_, _, bool>("once", 2).expect("setnx"));
        assert!(redis.mset_nx::<_, _, bool>(&[("m1", "1"), ("m2", "2")]).expect("msetnx"));
        let values: Vec<Option<String>> = redis.mget(&["m1", "m2", "m3"]).expect("mget");
        assert_eq!(values, [Some("1".into()), Some("2".into()), None]);
        assert!(!redis.setbit::<_, bool>("bits", 9, true).expect("setbit"));
        assert!(redis.getbit::<_, bool>("bits", 9).expect("getbit"));
        assert_eq!(redis.bitcount::<_, u32>("bits").expect("bitcount"), 1);
        assert!(redis.exists::<_, bool>("once").expect("exists"));
        assert!(redis.rename_nx::<_, _, bool>("once", "twice").expect("renamenx"));
        assert!(redis.expire::<_, bool>("twice", 1000).expect("expire"));
        assert!((1..=1000).contains(&redis.ttl::<_, i64>("twice").expect("ttl")));
        assert!((1..=1_000_000).contains(&redis.pttl::<_, i64>("twice").expect("pttl")));
        assert!(redis.persist::<_, bool>("twice").expect("persist"));
        assert_eq!(redis.ttl::<_, i64>("twice").expect("ttl"), -1);
        let kind: String = redis::cmd("TYPE").arg("twice").query(&mut redis).expect("type");
        assert_eq!(kind, "string");
        let keys: BTreeSet<String> = redis.keys("m?").expect("keys");
        assert_eq!(keys, BTreeSet::from(["m1".to_owned(), "m2".to_owned()]));
        let scanned: BTreeSet<String> =
            redis.scan_match::<_, String>("m*").expect("scan").map(|k| k.expect("key")).collect();
        assert_eq!(scanned, keys);
        assert_eq!(redis.del::<_, usize>(&["m1", "m2", "m3"]).expect("del"), 2);
        let settings: HashMap<String, String> =
            redis::cmd("CONFIG").arg("GET").arg("port").arg("maxclients").query(&mut redis).expect("config get");
        assert_eq!(settings["maxclients"], "10000");
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut redis).expect("time");
        assert!(seconds > 1_700_000_000 && micros < 1_000_000);
        let (a, b): (i64, String) = redis::pipe().incr("count", 1).get("count").query(&mut redis).expect("pipeline");
        assert_eq!((a, b.as_str()), (4, "4"));
        let error = redis::cmd("INCR").arg("text").query::<i64>(&mut redis).expect_err("no number");
        assert_eq!(error.detail(), Some("value is not an integer or out of range"), "{error:?}");
    }
}

#[test]
fn dbsize_is_exact_through_overwrites_deletes_and_restarts() {
    let dir = folder();
    let args = ["--memory-budget", "32MiB", "--value-bytes-max", "1MiB"];
    let mut keys: HashSet<u32> = HashSet::new();
    let mut random = Random(7);
    let mut server = Server::start_with(dir.path(), &args);
    for _round in 0..3 {
        let mut redis = server.connect();
        for _batch in 0..12 {
            let mut pipe = redis::pipe();
            for _ in 0..100 {
                let key = random.below(1500);
                if random.below(4) == 0 {
                    pipe.del(key).ignore();
                    keys.remove(&key);
                } else {
                    // Large enough that older ones go to the store.
                    pipe.set(key, vec![key as u8; 16 * 1024]).ignore();
                    keys.insert(key);
                }
            }
            let _: () = pipe.query(&mut redis).expect("pipeline");
            let size: usize = redis::cmd("DBSIZE").query(&mut redis).expect("dbsize");
            assert_eq!(size, keys.len());
        }
        server.kill();
        server = Server::start_with(dir.path(), &args);
        let size: usize = redis::cmd("DBSIZE").query(&mut server.connect()).expect("dbsize");
        assert_eq!(size, keys.len(), "after a restart");
    }
    let mut redis = server.connect();
    let _: () = redis.flushall().expect("flushall");
    let size: usize = redis::cmd("DBSIZE").query(&mut redis).expect("dbsize");
    assert_eq!(size, 0);
    server.kill();
    let server = Server::start_with(dir.path(), &args);
    let size: usize = redis::cmd("DBSIZE").query(&mut server.connect()).expect("dbsize");
    assert_eq!(size, 0, "after FLUSHALL and a restart");
}

/// Walks with SCAN and these further words until the cursor is 0 again.
fn scan(client: &mut Client, options: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut cursor = b"0".to_vec();
    loop {
        let mut args: Vec<&[u8]> = vec![b"SCAN", &cursor];
        args.extend(options);
        let reply = client.call(&args);
        let [next, keys] = reply.items() else { panic!("a cursor and keys: {reply}") };
        found.extend(keys.items().iter().map(|key| key.bytes().to_vec()));
        if next.bytes() == b"0" {
            return found;
        }
        cursor = next.bytes().to_vec();
    }
}

#[test]
fn scan_finds_every_key_that_stays_while_others_come_and_go() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--memory-budget", "32MiB", "--value-bytes-max", "1MiB"]);
    let mut redis = server.connect();
    let stays: BTreeSet<Vec<u8>> = (0..2000).map(|at| format!("stays:{at}").into_bytes()).collect();
    for part in stays.iter().collect::<Vec<_>>().chunks(100) {
        let mut pipe = redis::pipe();
        for key in part {
            pipe.set(key.as_slice(), vec![1; 16 * 1024]).ignore();
        }
        let _: () = pipe.query(&mut redis).expect("set");
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut redis = server.connect();
                let mut at = 0;
                while !done.load(Ordering::Relaxed) {
                    at += 1;
                    let key = format!("passes:{writer}:{}", at % 300);
                    let again = format!("stays:{}", at % 2000);
                    let _: () = redis::pipe()
                        .set(&key, at)
                        .ignore()
                        .del(format!("passes:{writer}:{}", (at + 150) % 300))
                        .ignore()
                        .set(again, at)
                        .ignore()
                        .query(&mut redis)
                        .expect("write");
                }
            });
        }
        let mut client = Client::connect(server.address);
        for options in [
            &[][..],
            &[b"COUNT".as_slice(), b"250"],
            &[b"MATCH", b"stays:*"],
            &[b"MATCH", b"stays:*", b"COUNT", b"1000", b"TYPE", b"string"],
        ] {
            let found = scan(&mut client, options);
            let found: BTreeSet<Vec<u8>> = found.into_iter().collect();
            let missing: Vec<_> = stays.difference(&found).map(|key| String::from_utf8_lossy(key)).collect();
            assert!(missing.is_empty(), "{} keys not found: {:?}", missing.len(), &missing[..missing.len().min(5)]);
            for key in found.difference(&stays) {
                assert!(key.starts_with(b"passes:"), "never written: {}", key.escape_ascii());
                assert!(options.is_empty() || options[0] == b"COUNT", "MATCH let {} through", key.escape_ascii());
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut client = Client::connect(server.address);
    assert!(scan(&mut client, &[b"TYPE", b"hash", b"COUNT", b"1000"]).is_empty());
    // Nothing is written any more: each key comes once.
    let found = scan(&mut client, &[b"COUNT", b"100"]);
    let unique: BTreeSet<_> = found.iter().collect();
    assert_eq!(found.len(), unique.len());
    assert_eq!(client.run("DBSIZE").int(), found.len() as i64);
}

#[test]
fn keys_follow_patterns_and_randomkey_finds_them_all() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for key in ["hello", "hallo", "hxllo", "hllo", "heeeello", "h*llo", "other", "a[b"] {
        assert!(client.run(&format!("SET {key} 1")).is_ok());
    }
    for (pattern, wanted) in [
        ("h?llo", "h*llo hallo hello hxllo"),
        ("h*llo", "h*llo hallo heeeello hello hllo hxllo"),
        ("h[ae]llo", "hallo hello"),
        ("h[^e]llo", "h*llo hallo hxllo"),
        ("h[a-b]llo", "hallo"),
        ("h\\*llo", "h*llo"),
        ("a\\[b", "a[b"),
        ("nothing*", ""),
        ("*", "a[b h*llo hallo heeeello hello hllo hxllo other"),
    ] {
        let reply = client.call(&[b"KEYS", pattern.as_bytes()]);
        let mut found: Vec<String> = reply.items().iter().map(Value::text).collect();
        found.sort();
        assert_eq!(found.join(" "), wanted, "{pattern}");
    }
    let mut unseen: HashSet<String> = client.run("KEYS *").items().iter().map(Value::text).collect();
    let all = unseen.clone();
    eventually("RANDOMKEY gives each key", || {
        let key = client.run("RANDOMKEY").text();
        assert!(all.contains(&key), "no such key: {key}");
        unseen.remove(&key);
        unseen.is_empty()
    });
}

#[test]
fn expired_keys_stay_gone_and_are_reclaimed_unasked() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let mut other = Client::connect(server.address);
    for at in 0..300 {
        assert!(client.run(&format!("SET key:{at} v PX 1")).is_ok());
    }
    assert!(client.run("SET kept v").is_ok());
    eventually("key:0 expires", || client.run("GET key:0") == Value::NullBulk);
    for reader in [&mut client, &mut other] {
        assert_eq!(reader.run("GET key:0"), Value::NullBulk);
        assert_eq!(reader.run("EXISTS key:0"), Value::Int(0));
        assert_eq!(reader.run("TTL key:0"), Value::Int(-2));
        assert_eq!(reader.run("TYPE key:0"), Value::Simple("none".into()));
        assert_eq!(reader.run("STRLEN key:0"), Value::Int(0));
        assert_eq!(reader.run("DEL key:0"), Value::Int(0));
        assert_eq!(reader.run("PERSIST key:0"), Value::Int(0));
    }
    // The others were never asked about.
    eventually("expired keys are reclaimed", || other.run("DBSIZE") == Value::Int(1));
    assert_eq!(client.run("KEYS *").to_string(), "[\"kept\"]");
    assert_eq!(client.run("SETNX key:0 again"), Value::Int(1));
    assert_eq!(client.run("TTL key:0"), Value::Int(-1));
}

#[test]
fn ttl_counts_down_to_the_deadline() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for (set, key) in [("SET a v EX 100", "a"), ("SETEX b 100 v", "b"), ("PSETEX c 100000 v", "c")] {
        assert!(client.run(set).is_ok());
        let left = client.run(&format!("PTTL {key}")).int();
        assert!((1..=100_000).contains(&left), "{key}: {left}");
        let then = client.run(&format!("PEXPIRETIME {key}")).int();
        let now = client.run("TIME");
        let now = now.items()[0].text().parse::<i64>().expect("seconds") * 1000;
        assert!(then > now && then <= now + 101_000, "{key} expires at {then}, now is {now}");
    }
    assert!(client.run("SET d v PX 20").is_ok());
    let mut before = i64::MAX;
    eventually("d expires", || {
        let left = client.run("PTTL d").int();
        assert!(left <= before && left <= 20, "PTTL grew from {before} to {left}");
        before = left;
        left == -2
    });
}

#[test]
fn dump_is_restored_on_another_server() {
    let dirs = [folder(), folder()];
    let servers = [Server::start(dirs[0].path()), Server::start(dirs[1].path())];
    let mut source = Client::connect(servers[0].address);
    let mut target = Client::connect(servers[1].address);
    let large = vec![b'x'; 100_000];
    for (key, value) in [("number", b"42".as_slice()), ("binary", b"a\0\r\n\xff"), ("empty", b""), ("large", &large)] {
        let key = key.as_bytes();
        assert!(source.call(&[b"SET", key, value]).is_ok());
        let payload = source.call(&[b"DUMP", key]);
        let payload = payload.bytes();
        assert!(target.call(&[b"RESTORE", key, b"0", payload]).is_ok());
        assert_eq!(target.call(&[b"GET", key]).bytes(), value);
        assert_eq!(target.call(&[b"TTL", key]).int(), -1);
        assert!(target.call(&[b"RESTORE", key, b"0", payload]).is_error("BUSYKEY "));
        assert!(target.call(&[b"RESTORE", key, b"4102444800000", payload, b"REPLACE", b"ABSTTL"]).is_ok());
        assert_eq!(target.call(&[b"EXPIRETIME", key]).int(), 4_102_444_800);
        for at in [0, payload.len() / 2, payload.len() - 1] {
            let mut damaged = payload.to_vec();
            damaged[at] ^= 1;
            let reply = target.call(&[b"RESTORE", b"damaged", b"0", &damaged]);
            assert!(reply.is_error("ERR DUMP payload version or checksum are wrong"), "byte {at}: {reply}");
        }
        let reply = target.call(&[b"RESTORE", b"damaged", b"0", &payload[..payload.len() - 1]]);
        assert!(reply.is_error("ERR DUMP payload version or checksum are wrong"), "{reply}");
        assert_eq!(target.run("EXISTS damaged").int(), 0);
    }
}

#[test]
fn object_and_memory_tell_how_a_value_is_kept() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    assert!(client.run("SET k v").is_ok());
    assert_eq!(client.run("OBJECT IDLETIME k"), Value::Int(0));
    assert_eq!(client.run("OBJECT REFCOUNT k"), Value::Int(1));
    let small = client.run("MEMORY USAGE k").int();
    assert!(client.call(&[b"SET", b"k", &vec![b'v'; 10_000]]).is_ok());
    let large = client.run("MEMORY USAGE k").int();
    assert!(small > 0 && large >= small + 9_000 && large < 30_000, "{small} and {large} bytes");
    for container in ["OBJECT", "MEMORY", "CLIENT", "CONFIG", "COMMAND", "SLOWLOG"] {
        let help = client.run(&format!("{container} HELP"));
        let first = help.items()[0].text();
        assert!(first.starts_with(container), "{first}");
    }
}

#[test]
fn wait_counts_no_replicas_on_a_single_node() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    assert!(client.run("SET k v").is_ok());
    assert_eq!(client.run("WAIT 0 0"), Value::Int(0));
    assert_eq!(client.run("WAIT 1 10"), Value::Int(0));
}

/// Every command that the release promises.
const PROMISED: &str = "ping echo hello auth select quit reset client command info config dbsize time flushdb flushall \
    shutdown lastsave slowlog memory object wait get set setnx setex psetex getset getdel getex mget mset msetnx append \
    strlen getrange substr setrange incr decr incrby decrby incrbyfloat lcs setbit getbit bitcount bitpos bitop bitfield \
    bitfield_ro del unlink exists type touch randomkey scan keys rename renamenx copy expire pexpire expireat pexpireat \
    ttl pttl expiretime pexpiretime persist dump restore cas cad delifeq";

#[test]
fn command_describes_every_command() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let all = client.run("COMMAND");
    let names: BTreeSet<String> = all.items().iter().map(|entry| entry.items()[0].text()).collect();
    let promised: BTreeSet<String> = PROMISED.split_whitespace().map(str::to_owned).collect();
    let missing: Vec<_> = promised.difference(&names).collect();
    assert!(missing.is_empty(), "not in COMMAND: {missing:?}");
    assert_eq!(client.run("COMMAND COUNT").int(), names.len() as i64);
    let listed: BTreeSet<String> = client.run("COMMAND LIST").items().iter().map(Value::text).collect();
    assert!(names.is_subset(&listed), "COMMAND LIST lacks {:?}", names.difference(&listed).collect::<Vec<_>>());
    for entry in all.items() {
        assert_eq!(entry.items().len(), 10, "{entry}");
        let (name, arity) = (entry.items()[0].text(), entry.items()[1].int());
        // One word too few is refused in the words that go with the arity.
        let short = arity.unsigned_abs() as usize - 1;
        if short > 0 {
            let mut words = vec![name.as_bytes()];
            words.resize(short, b"x");
            let reply = client.call(&words);
            assert!(reply.is_error("ERR "), "{name} takes {short} words: {reply}");
        }
    }
    let docs = client.run("COMMAND DOCS");
    let documented: BTreeMap<String, &Value> = docs.items().chunks(2).map(|pair| (pair[0].text(), &pair[1])).collect();
    for name in &names {
        let fields = documented.get(name).unwrap_or_else(|| panic!("no documentation of {name}")).items();
        let field = |wanted: &str| fields.chunks(2).find(|pair| pair[0].text() == wanted).map(|pair| pair[1].clone());
        assert!(field("summary").is_some_and(|text| !text.text().is_empty()), "{name} lacks a summary");
        assert!(field("group").is_some() && field("since").is_some() && field("complexity").is_some(), "{name}");
    }
    let subcommands = client.run("COMMAND INFO client");
    let subcommands: Vec<String> =
        subcommands.items()[0].items()[9].items().iter().map(|entry| entry.items()[0].text()).collect();
    for wanted in "id getname setname setinfo info list kill reply pause unpause unblock no-evict no-touch".split(' ') {
        assert!(subcommands.contains(&format!("client|{wanted}")), "CLIENT {wanted}");
    }
}

/// The fields of INFO.
fn info(client: &mut Client, section: &str) -> BTreeMap<String, String> {
    let text = client.run(&format!("INFO {section}")).text();
    assert!(text.lines().all(|line| !line.contains('\n')));
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn info_has_what_clients_and_operators_read() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for at in 0..10 {
        client.run(&format!("SET k{at} v"));
    }
    client.run("NOSUCH");
    let fields = info(&mut client, "everything");
    for name in
        "redis_version redis_mode arch_bits process_id tcp_port uptime_in_seconds connected_clients blocked_clients \
                 used_memory maxmemory loading role connected_slaves master_repl_offset cluster_enabled"
            .split_whitespace()
    {
        assert!(fields.contains_key(name), "INFO lacks {name}");
    }
    assert!(fields["redis_version"].starts_with("7."), "{}", fields["redis_version"]);
    assert_eq!(fields["redis_mode"], "standalone");
    assert_eq!(fields["process_id"], server.pid().to_string());
    assert_eq!(fields["tcp_port"], server.address.port().to_string());
    assert_eq!(fields["connected_clients"], "1");
    assert_eq!(fields["loading"], "0");
    assert_eq!(fields["role"], "master");
    assert_eq!(fields["cluster_enabled"], "0");
    assert!(fields["db0"].starts_with("keys=10,"), "{}", fields["db0"]);
    assert!(fields["cmdstat_set"].starts_with("calls=10,"), "{}", fields["cmdstat_set"]);
    assert!(fields["errorstat_ERR"].starts_with("count="), "{}", fields["errorstat_ERR"]);
    let section = info(&mut client, "keyspace");
    assert!(section.contains_key("db0") && !section.contains_key("redis_version"));
}

#[test]
fn config_reports_and_changes_settings() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--durability", "everysec"]);
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("CONFIG GET maxclients").to_string(), r#"["maxclients", "10000"]"#);
    assert!(client.run("CONFIG SET maxclients 100").is_ok());
    assert_eq!(client.run("CONFIG GET maxclient?").to_string(), r#"["maxclients", "100"]"#);
    assert_eq!(client.run("CONFIG GET appendfsync").to_string(), r#"["appendfsync", "everysec"]"#);
    assert_eq!(client.run("CONFIG GET durability").to_string(), r#"["durability", "everysec"]"#);
    // Refused, since the promise to clients can't change under them; or accepted in name only. Never changed.
    client.run("CONFIG SET appendfsync no");
    assert_eq!(client.run("CONFIG GET appendfsync").to_string(), r#"["appendfsync", "everysec"]"#);
    assert!(client.run("CONFIG SET maxclients many").is_error("ERR CONFIG SET failed"));
    assert!(client.run("CONFIG SET port 1").is_error("ERR CONFIG SET failed"));
    // What test tools set and no one needs here.
    assert!(client.call(&[b"CONFIG", b"SET", b"save", b""]).is_ok());
    assert!(client.run("CONFIG SET hash-max-listpack-entries 10").is_ok());
    let everything = client.run("CONFIG GET *");
    assert!(everything.items().len() > 40, "{everything}");
    client.run("HELLO 3");
    assert_eq!(client.run("CONFIG GET timeout maxclients").to_string().matches(": ").count(), 2);
}

#[test]
fn slowlog_keeps_the_latest() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--slowlog-log-slower-than", "-1"]);
    let mut client = Client::connect(server.address);
    client.run("SET unseen v");
    assert_eq!(client.run("SLOWLOG LEN"), Value::Int(0));
    assert!(client.run("CONFIG SET slowlog-log-slower-than 0").is_ok());
    assert!(client.run("SLOWLOG RESET").is_ok());
    client.run("SET seen v");
    client.run("GET seen");
    let log = client.run("SLOWLOG GET 10");
    let commands: Vec<String> = log
        .items()
        .iter()
        .map(|entry| entry.items()[3].items().iter().map(Value::text).collect::<Vec<_>>().join(" "))
        .collect();
    assert!(commands.contains(&"set seen v".to_owned()) && commands.contains(&"get seen".to_owned()), "{commands:?}");
    for entry in log.items() {
        assert_eq!(entry.items().len(), 6, "{entry}");
        assert!(entry.items()[1].int() > 1_700_000_000 && entry.items()[2].int() >= 0, "{entry}");
    }
    assert!(client.run("CONFIG SET slowlog-max-len 1").is_ok());
    client.run("GET last");
    assert_eq!(client.run("SLOWLOG GET -1").items().len(), 1);
}

/// A small generator of numbers, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % end
    }
}
