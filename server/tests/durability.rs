//! What was acknowledged is there after a crash; what is on disk is right or refused, never quietly wrong.

mod common;

use common::resp::{Client, Value, encode};
use common::{Server, eventually, folder, refused};
use redis::Commands;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: usize = 1 << 20;

/// Small files for the log, so that it turns over and a folder is quickly copied.
const SMALL_LOG: [&str; 4] = ["--log-segment-bytes", "1MiB", "--log-bytes-max", "4MiB"];
/// The least memory.
const SMALL_MEMORY: [&str; 4] = ["--memory-budget", "32MiB", "--value-bytes-max", "1MiB"];

/// What one client knows about its own keys.
#[derive(Default)]
struct Known {
    /// Keys with the value that was acknowledged last.
    values: BTreeMap<String, String>,
    /// The commands whose replies never came: any prefix of them may have been done. A key may have any of these values,
    /// `None` for deleted.
    unsure: BTreeMap<String, Vec<Option<String>>>,
    /// The counter: what was acknowledged, and what was asked for beyond it.
    counted: i64,
    counting: i64,
}

impl Known {
    /// After a restart: what is there becomes what is known.
    fn check(&mut self, name: &str, redis: &mut redis::Connection) {
        let found: Option<i64> = redis.get(format!("{name}:count")).expect("get");
        let found = found.unwrap_or(0);
        let possible = self.counted..=self.counted + self.counting;
        assert!(possible.contains(&found), "{name}:count is {found}, not within {possible:?}");
        (self.counted, self.counting) = (found, 0);
        for (key, possible) in std::mem::take(&mut self.unsure) {
            let found: Option<String> = redis.get(&key).expect("get");
            let acknowledged = self.values.get(&key);
            assert!(
                found.as_ref() == acknowledged || possible.contains(&found),
                "{key} holds {found:?}, acknowledged was {acknowledged:?}, in flight {possible:?}"
            );
            match found {
                Some(value) => self.values.insert(key, value),
                None => self.values.remove(&key),
            };
        }
        let keys: Vec<&String> = self.values.keys().collect();
        for keys in keys.chunks(500) {
            let found: Vec<Option<String>> = redis.mget(keys).expect("mget");
            for (key, found) in keys.iter().zip(found) {
                assert_eq!(found.as_ref(), self.values.get(*key), "{key}: an acknowledged write is lost or changed");
            }
        }
    }

    /// Writes until the server goes away: unique values under new and old keys, deletes, and a counter.
    fn write_until_killed(&mut self, name: &str, round: u32, client: &mut Client, acknowledged: &AtomicU64) {
        let mut serial = 0;
        loop {
            // Batches of different sizes, so that the kill finds single commands and pipelines in flight.
            let depth = 1 + serial % 7;
            let mut batch = Vec::new();
            let mut plan: Vec<(String, Option<String>)> = Vec::new();
            for _ in 0..depth {
                serial += 1;
                let value = format!("{name}:{round}:{serial}:{}", "x".repeat(serial % 200));
                match serial % 5 {
                    0 => {
                        let key = format!("{name}:old:{}", serial % 40);
                        batch.extend(encode(&[b"DEL", key.as_bytes()]));
                        plan.push((key, None));
                    }
                    1 | 2 => {
                        let key = format!("{name}:old:{}", serial % 40);
                        batch.extend(encode(&[b"SET", key.as_bytes(), value.as_bytes()]));
                        plan.push((key, Some(value)));
                    }
                    _ => {
                        let key = format!("{name}:{round}:{serial}");
                        batch.extend(encode(&[b"SET", key.as_bytes(), value.as_bytes()]));
                        plan.push((key, Some(value)));
                    }
                }
            }
            batch.extend(encode(&[b"INCR", format!("{name}:count").as_bytes()]));
            for (key, value) in &plan {
                self.unsure.entry(key.clone()).or_default().push(value.clone());
            }
            self.counting += 1;
            if client.socket().write_all(&batch).is_err() {
                return;
            }
            for (key, value) in plan {
                match client.try_reply() {
                    Ok(reply) => assert!(!matches!(reply, Value::Error(_)), "{reply}"),
                    Err(_) => return,
                }
                // The first of the values in flight for this key is the acknowledged one now.
                if let Some(possible) = self.unsure.get_mut(&key) {
                    possible.remove(0);
                    if possible.is_empty() {
                        self.unsure.remove(&key);
                    }
                }
                match value {
                    Some(value) => self.values.insert(key, value),
                    None => self.values.remove(&key),
                };
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            match client.try_reply() {
                Ok(reply) => self.counted = reply.int(),
                Err(_) => return,
            }
            self.counting -= 1;
        }
    }
}

/// Kills the server in the middle of writing, again and again; after each restart every acknowledged write is there.
///
/// `KILL_ROUNDS` asks for more rounds than the few of an ordinary test run.
fn kill_loop(store: &str) {
    const WRITERS: usize = 6;
    let rounds = std::env::var("KILL_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"));
    let dir = folder();
    let mut args = vec!["--store", store];
    args.extend(SMALL_LOG);
    let mut known: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    let mut server = Server::start_with(dir.path(), &args);
    for round in 0..rounds {
        let acknowledged = AtomicU64::new(0);
        let enough = 400 + u64::from(round * 137 % 900);
        std::thread::scope(|scope| {
            for (at, known) in known.iter_mut().enumerate() {
                let mut client = Client::connect(server.address);
                let acknowledged = &acknowledged;
                scope.spawn(move || known.write_until_killed(&format!("w{at}"), round, &mut client, acknowledged));
            }
            while acknowledged.load(Ordering::SeqCst) < enough {
                std::thread::yield_now();
            }
            server.signal("KILL");
        });
        server.kill();
        server = Server::start_with(dir.path(), &args);
        let mut redis = server.connect();
        for (at, known) in known.iter_mut().enumerate() {
            known.check(&format!("w{at}"), &mut redis);
        }
        let size: usize = redis::cmd("DBSIZE").query(&mut redis).expect("dbsize");
        let counters = known.iter().filter(|known| known.counted > 0).count();
        assert_eq!(size, known.iter().map(|known| known.values.len()).sum::<usize>() + counters);
    }
}

#[test]
fn kill_under_load_loses_nothing_acknowledged_on_fjall() {
    kill_loop("fjall");
}

#[test]
fn kill_under_load_loses_nothing_acknowledged_on_sled() {
    kill_loop("sled");
}

#[test]
fn kill_during_recovery_loses_nothing() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    let mut redis = server.connect();
    for key in 0..3000 {
        let _: () = redis.set(key, format!("value of {key}")).expect("set");
    }
    server.kill();
    for _ in 0..10 {
        // The identity counts the starts: once it has changed the server is in its recovery, or just behind it.
        let identity = dir.path().join("IDENTITY");
        let before = fs::read(&identity).expect("identity");
        let mut command = common::command(dir.path());
        let mut child = command.args(SMALL_LOG).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
        eventually("the folder is taken", || fs::read(&identity).is_ok_and(|now| now != before));
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    let mut redis = server.connect();
    for key in 0..3000 {
        assert_eq!(redis.get::<_, String>(key).expect("get"), format!("value of {key}"));
    }
}

#[test]
fn deadlines_survive_and_what_expired_stays_gone() {
    for store in ["fjall", "sled"] {
        let dir = folder();
        let server = Server::start_with(dir.path(), &["--store", store]);
        let mut client = Client::connect(server.address);
        assert!(client.run("SET far v EXAT 4102444800").is_ok());
        assert!(client.run("SET near v PX 1").is_ok());
        assert!(client.run("SET unseen v PX 1").is_ok());
        assert!(client.run("SET kept v").is_ok());
        assert!(client.run("SET freed v EX 1000").is_ok());
        assert_eq!(client.run("PERSIST freed"), Value::Int(1));
        eventually("near expires", || client.run("GET near") == Value::NullBulk);
        server.kill();
        for _ in 0..2 {
            let server = Server::start_with(dir.path(), &["--store", store]);
            let mut client = Client::connect(server.address);
            assert_eq!(client.run("GET near"), Value::NullBulk, "{store}: it was reported gone");
            assert_eq!(client.run("EXISTS near unseen"), Value::Int(0));
            assert_eq!(client.run("EXPIRETIME far"), Value::Int(4_102_444_800));
            assert_eq!(client.run("TTL kept"), Value::Int(-1));
            assert_eq!(client.run("TTL freed"), Value::Int(-1));
            eventually("DBSIZE counts what is left", || client.run("DBSIZE") == Value::Int(3));
            server.terminate();
        }
    }
}

#[test]
fn flushall_survives() {
    for store in ["fjall", "sled"] {
        let dir = folder();
        let args = [&["--store", store][..], &SMALL_MEMORY, &SMALL_LOG].concat();
        let server = Server::start_with(dir.path(), &args);
        let mut redis = server.connect();
        // Enough that some of it is in the store already.
        for key in 0..1500 {
            let _: () = redis.set(key, vec![1; 16 * 1024]).expect("set");
        }
        let _: () = redis.flushall().expect("flushall");
        let _: () = redis.set("after", "v").expect("set");
        assert_eq!(redis.get::<_, Option<Vec<u8>>>(0).expect("get"), None);
        server.kill();
        let server = Server::start_with(dir.path(), &args);
        let mut client = Client::connect(server.address);
        assert_eq!(client.run("DBSIZE"), Value::Int(1), "{store}");
        assert_eq!(client.run("KEYS *").to_string(), "[\"after\"]");
        for key in (0..1500).step_by(50) {
            assert_eq!(client.run(&format!("GET {key}")), Value::NullBulk, "{store}: {key} came back");
        }
    }
}

#[test]
fn value_of_32_mib_survives() {
    for store in ["fjall", "sled"] {
        let dir = folder();
        let value: Vec<u8> = (0..32 * MIB).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
        let args = [&["--store", store][..], &SMALL_LOG].concat();
        let server = Server::start_with(dir.path(), &args);
        let mut client = Client::connect(server.address);
        assert!(client.call(&[b"SET", b"large", &value]).is_ok());
        assert!(client.run("SET small v").is_ok());
        assert!(client.call(&[b"GET", b"large"]).bytes() == value);
        server.kill();
        for _ in 0..2 {
            let server = Server::start_with(dir.path(), &args);
            let mut client = Client::connect(server.address);
            assert!(client.call(&[b"GET", b"large"]).bytes() == value, "{store}: the value has changed");
            assert_eq!(client.run("STRLEN large"), Value::Int(value.len() as i64));
            assert_eq!(client.run("GET small").text(), "v");
            server.terminate();
        }
    }
}

/// A value that tells which key and version it belongs to, all over.
fn filled(key: u32, version: u32, len: usize) -> Vec<u8> {
    format!("{key}/{version};").into_bytes().into_iter().cycle().take(len).collect()
}

#[test]
fn data_larger_than_memory_is_read_from_the_store() {
    const KEYS: u32 = 6000;
    const BYTES: usize = 16 * 1024;
    for store in ["fjall", "sled"] {
        let dir = folder();
        let args =
            [&["--store", store][..], &SMALL_MEMORY, &["--log-segment-bytes", "4MiB", "--log-bytes-max", "16MiB"]]
                .concat();
        let mut server = Server::start_with(dir.path(), &args);
        let mut redis = server.connect();
        for part in (0..KEYS).collect::<Vec<_>>().chunks(100) {
            let mut pipe = redis::pipe();
            for &key in part {
                pipe.set(key, filled(key, 0, BYTES)).ignore();
            }
            let _: () = pipe.query(&mut redis).expect("set");
        }
        // Overwritten, deleted, and changed in place: after they went to the store.
        for key in (0..KEYS).step_by(10) {
            let _: () = redis.set(key, filled(key, 1, BYTES)).expect("set");
            let _: () = redis.del(key + 1).expect("del");
            let length: usize = redis.append(key + 2, "appended").expect("append");
            assert_eq!(length, BYTES + 8);
        }
        let check = |server: &Server| {
            let mut redis = server.connect();
            for key in 0..KEYS {
                let found: Option<Vec<u8>> = redis.get(key).expect("get");
                let wanted = match key % 10 {
                    0 => Some(filled(key, 1, BYTES)),
                    1 => None,
                    2 => Some([filled(key, 0, BYTES), b"appended".to_vec()].concat()),
                    _ => Some(filled(key, 0, BYTES)),
                };
                assert!(found == wanted, "{store}: {key} is wrong or missing");
            }
            let size: u32 = redis::cmd("DBSIZE").query(&mut redis).expect("dbsize");
            assert_eq!(size, KEYS - KEYS / 10);
        };
        check(&server);
        for stop in ["kill", "terminate"] {
            match stop {
                "kill" => server.kill(),
                _ => assert!(server.terminate().success()),
            }
            server = Server::start_with(dir.path(), &args);
            check(&server);
        }
    }
}

/// All bytes of the files below a folder.
fn disk_bytes(dir: &Path) -> u64 {
    files(dir).iter().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).sum()
}

/// All files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn log_stays_bounded_under_overwrites() {
    let dir = folder();
    let args = [&SMALL_MEMORY[..], &SMALL_LOG].concat();
    let server = Server::start_with(dir.path(), &args);
    let mut redis = server.connect();
    let wal = dir.path().join("wal");
    let mut most = 0;
    for round in 0..60 {
        let mut pipe = redis::pipe();
        for key in 0..50 {
            pipe.set(key, filled(key, round, 20_000)).ignore();
        }
        let _: () = pipe.query(&mut redis).expect("set");
        most = most.max(disk_bytes(&wal));
    }
    // 60 MB were written. Above the limit of 4 MiB lie segments in reserve, and what came in while the store took the rest.
    assert!(most < 24 << 20, "the log reached {most} bytes");
    eventually("the log shrinks to its limit", || disk_bytes(&wal) <= 8 << 20);
    server.kill();
    let server = Server::start_with(dir.path(), &args);
    let mut redis = server.connect();
    for key in 0..50 {
        assert!(redis.get::<_, Vec<u8>>(key).expect("get") == filled(key, 59, 20_000));
    }
}

/// Where in the log's files some bytes are.
fn find_in_log(dir: &Path, wanted: &[u8]) -> (PathBuf, u64) {
    for path in files(&dir.join("wal")) {
        let bytes = fs::read(&path).expect("segment");
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            return (path, at as u64);
        }
    }
    panic!("not in the log: {}", wanted.escape_ascii());
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("read");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("write");
}

/// The first sectors of a segment, where it is stated how far the log is synced.
fn head(path: &Path) -> Vec<u8> {
    let mut head = vec![0; 4096];
    File::open(path).expect("open").read_exact(&mut head).expect("read");
    head
}

/// The offset in the file below which a segment's head says that the log is synced; see `docs/src/formats/wal.md`.
fn stated_synced(head: &[u8]) -> u64 {
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let slots = [512, 1024].into_iter().filter(|slot| &head[*slot..slot + 4] == b"HFST");
    slots.map(|slot| 4096 + number(slot + 24) - number(slot + 32)).max().unwrap_or(0)
}

/// Writes values that can be found again, kills the server, and puts the log into the state that a power cut in the middle
/// of the last write leaves: the last batch is not known to be synced. Returns where the last value is.
fn killed_in_the_last_write(dir: &Path) -> (PathBuf, u64) {
    let server = Server::start_with(dir, &SMALL_LOG);
    let mut client = Client::connect(server.address);
    assert!(client.run("SET first the-first-value").is_ok());
    assert!(client.run("SET second the-second-value").is_ok());
    let (path, at) = find_in_log(dir, b"the-second-value");
    // The log states how far it is synced once it rests.
    eventually("the log rests", || stated_synced(&head(&path)) > at);
    let stated = head(&path);
    assert!(client.run("SET last the-last-value").is_ok());
    server.kill();
    let (last, at) = find_in_log(dir, b"the-last-value");
    assert_eq!(last, path, "all of it fits into one segment");
    OpenOptions::new().write(true).open(&path).expect("open").write_all_at(&stated, 0).expect("head");
    (path, at)
}

#[test]
fn torn_tail_is_cut_and_reported() {
    let dir = folder();
    let (path, at) = killed_in_the_last_write(dir.path());
    flip(&path, at);
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    assert!(server.banner.contains("recovery    cut "), "the cut is not reported: {}", server.banner);
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("GET first").text(), "the-first-value");
    assert_eq!(client.run("GET second").text(), "the-second-value");
    assert_eq!(client.run("GET last"), Value::NullBulk);
    assert!(client.run("SET last another").is_ok());
    server.kill();
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    assert_eq!(Client::connect(server.address).run("GET last").text(), "another");
    assert_eq!(Client::connect(server.address).run("DBSIZE"), Value::Int(3));
}

#[test]
fn whole_tail_is_kept_though_nothing_states_that_it_is_synced() {
    let dir = folder();
    killed_in_the_last_write(dir.path());
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    assert_eq!(Client::connect(server.address).run("GET last").text(), "the-last-value");
}

#[test]
fn garbage_behind_the_log_is_ignored() {
    let dir = folder();
    let (path, at) = killed_in_the_last_write(dir.path());
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    let garbage: Vec<u8> = (0..5000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // Well behind the batch that the last value is in.
    file.write_all_at(&garbage, at + 4096).expect("write");
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("GET last").text(), "the-last-value");
    for at in 0..200 {
        assert!(client.run(&format!("SET key:{at} v")).is_ok());
    }
    server.kill();
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    assert_eq!(Client::connect(server.address).run("DBSIZE"), Value::Int(203));
}

#[test]
fn flipped_bit_in_the_acknowledged_log_is_refused_with_its_place() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    let mut client = Client::connect(server.address);
    for at in 0..100 {
        assert!(client.run(&format!("SET key:{at} value-number-{at}-")).is_ok());
    }
    server.kill();
    let (path, at) = find_in_log(dir.path(), b"value-number-50-");
    flip(&path, at);
    for _ in 0..2 {
        let (code, text) = refused(dir.path(), &SMALL_LOG);
        assert_eq!(code, 1, "{text}");
        let place = format!("{} is damaged at offset ", path.display());
        let offset = text.split(&place).nth(1).unwrap_or_else(|| panic!("no place in: {text}"));
        let offset: u64 = offset.split(':').next().expect("offset").parse().expect("a number");
        assert!(offset <= at && at - offset < 4096, "offset {offset}, the damage is at {at}");
        assert!(!text.contains("panicked"), "{text}");
    }
    // The refusal changed nothing: with the bit put back all of it is there.
    flip(&path, at);
    let server = Server::start_with(dir.path(), &SMALL_LOG);
    let mut client = Client::connect(server.address);
    for at in 0..100 {
        assert_eq!(client.run(&format!("GET key:{at}")).text(), format!("value-number-{at}-"));
    }
}

fn copy(source: &Path, target: &Path) {
    for path in files(source) {
        let to = target.join(path.strip_prefix(source).expect("below"));
        fs::create_dir_all(to.parent().expect("parent")).expect("folder");
        fs::copy(&path, &to).expect("copy");
    }
}

/// A folder with something in its log and something in its store, and what is in it.
fn full_folder(dir: &Path, args: &[&str], stop: fn(Server)) -> BTreeMap<String, Vec<u8>> {
    let server = Server::start_with(dir, args);
    let mut redis = server.connect();
    let mut wanted = BTreeMap::new();
    for at in 0..200u32 {
        let key = format!("key:{at}");
        let value = filled(at, 0, 30_000);
        let _: () = redis.set(&key, &value).expect("set");
        wanted.insert(key, value);
    }
    stop(server);
    wanted
}

/// The folder either is refused in clear words or has everything in it.
fn refused_or_right(dir: &Path, args: &[&str], wanted: &BTreeMap<String, Vec<u8>>, what: &str) {
    let mut command = common::command(dir);
    command.args(args);
    match common::started_or_refused(command) {
        Ok(server) => {
            let mut redis = server.connect();
            for (key, value) in wanted {
                match redis.get::<_, Option<Vec<u8>>>(key) {
                    Ok(found) => assert!(found.as_ref() == Some(value), "{what}: {key} is wrong or missing"),
                    // Found when it is read: an error, not a wrong value.
                    Err(error) => {
                        assert!(error.to_string().contains("store"), "{what}: {error}");
                        break;
                    }
                }
            }
        }
        Err((code, text)) => {
            assert_eq!(code, 1, "{what}: {text}");
            let last = text.lines().last().unwrap_or_default();
            assert!(last.starts_with("holdfast: "), "{what}: the last word is no refusal: {text}");
            assert!(last.contains(dir.to_str().expect("path")), "{what}: the refusal names no file: {text}");
        }
    }
}

#[test]
fn damaged_files_are_refused_or_harmless() {
    for store in ["fjall", "sled"] {
        for stop in [Server::kill as fn(Server), |server| assert!(server.terminate().success())] {
            let original = folder();
            let args = [&["--store", store][..], &SMALL_MEMORY, &SMALL_LOG].concat();
            let wanted = full_folder(original.path(), &args, stop);
            // Of sled's many files of one large value each, one.
            let blob = fs::read_dir(original.path().join("table/sled/blobs")).into_iter().flatten().flatten().next();
            let blob = blob.map_or_else(PathBuf::new, |entry| entry.file_name().into());
            for path in files(original.path()) {
                let name = path.strip_prefix(original.path()).expect("below").to_path_buf();
                let blobs = name.starts_with("table/sled/blobs");
                if name == Path::new("LOCK") || (blobs && name != Path::new("table/sled/blobs").join(&blob)) {
                    continue;
                }
                let len = fs::metadata(&path).expect("file").len();
                for damage in ["truncated to nothing", "truncated to a half", "filled with garbage", "missing"] {
                    let dir = folder();
                    copy(original.path(), dir.path());
                    let victim = dir.path().join(&name);
                    match damage {
                        "truncated to nothing" => File::create(&victim).map(drop),
                        "truncated to a half" => {
                            OpenOptions::new().write(true).open(&victim).and_then(|f| f.set_len(len / 2))
                        }
                        "filled with garbage" => fs::write(&victim, b"garbage!".repeat(len as usize / 8 + 1)),
                        _ => fs::remove_file(&victim),
                    }
                    .expect("damage");
                    refused_or_right(dir.path(), &args, &wanted, &format!("{store}: {} {damage}", name.display()));
                }
            }
        }
    }
}

#[test]
fn log_of_another_folder_is_refused() {
    let dirs = [folder(), folder()];
    let mut segments = Vec::new();
    for (at, dir) in dirs.iter().enumerate() {
        let server = Server::start_with(dir.path(), &SMALL_LOG);
        assert!(Client::connect(server.address).run(&format!("SET k the-value-in-{at}")).is_ok());
        server.kill();
        segments.push(find_in_log(dir.path(), format!("the-value-in-{at}").as_bytes()).0);
    }
    let own = fs::read(&segments[0]).expect("segment");
    fs::copy(&segments[1], &segments[0]).expect("copy");
    let (code, text) = refused(dirs[0].path(), &SMALL_LOG);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(segments[0].to_str().expect("path")), "{text}");
    fs::write(&segments[0], own).expect("segment");
    let server = Server::start_with(dirs[0].path(), &SMALL_LOG);
    assert_eq!(Client::connect(server.address).run("GET k").text(), "the-value-in-0");
}

#[test]
fn weaker_durability_survives_a_kill_and_says_what_it_promises() {
    for mode in ["everysec", "no"] {
        let dir = folder();
        let server = Server::start_with(dir.path(), &["--durability", mode]);
        assert!(server.banner.contains(&format!("durability  {mode}: ")), "{}", server.banner);
        let mut client = Client::connect(server.address);
        for at in 0..500 {
            assert!(client.run(&format!("SET key:{at} v")).is_ok());
        }
        // The process dies, the machine doesn't: what was written to the file is there.
        server.kill();
        let server = Server::start(dir.path());
        assert_eq!(Client::connect(server.address).run("DBSIZE"), Value::Int(500));
    }
}

#[test]
fn every_reply_follows_a_sync() {
    // One client that waits for each reply: as many syncs as writes. INFO counts them.
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let syncs = |client: &mut Client| -> u64 {
        let info = client.run("INFO engine").text();
        let line = info.lines().find_map(|line| line.strip_prefix("log_syncs:")).expect("log_syncs");
        line.parse().expect("a number")
    };
    let before = syncs(&mut client);
    for at in 0..50 {
        assert!(client.run(&format!("SET k {at}")).is_ok());
    }
    assert!(syncs(&mut client) >= before + 50);
}

/// The folder with another one's store.
fn with_store_of(log: &Path, store: &Path) -> tempfile::TempDir {
    let dir = folder();
    copy(log, dir.path());
    fs::remove_dir_all(dir.path().join("table")).expect("remove");
    copy(&store.join("table"), &dir.path().join("table"));
    dir
}

/// A folder's log with its own store of an earlier or a later time: all that both have is there, or it is refused. Keys are written one
/// after the other, round after round, so that any state there ever was has a key up to which they are of a round, and the rest of the one before.
#[test]
fn store_older_or_newer_than_its_log_is_right_or_refused() {
    const KEYS: u32 = 300;
    const ROUNDS: usize = 4;
    // A round is longer than the log may be, so that it is cut meanwhile.
    const BYTES: usize = 20_000;
    for store in ["fjall", "sled"] {
        let args = [&["--store", store][..], &SMALL_MEMORY, &SMALL_LOG].concat();
        let dir = folder();
        let states: Vec<_> = (0..ROUNDS)
            .map(|round| {
                let server = Server::start_with(dir.path(), &args);
                let mut redis = server.connect();
                for key in 0..KEYS {
                    let _: () = redis.set(key, filled(key, round as u32, BYTES)).expect("set");
                }
                if round % 2 == 0 {
                    server.kill()
                } else {
                    assert!(server.terminate().success())
                }
                let state = folder();
                copy(dir.path(), state.path());
                state
            })
            .collect();
        let mut refused = 0;
        for (log, table) in (0..ROUNDS).flat_map(|log| (0..ROUNDS).map(move |table| (log, table))) {
            let what = format!("{store}: the log of round {log}, the store of round {table}");
            let mixed = with_store_of(states[log].path(), states[table].path());
            let mut command = common::command(mixed.path());
            command.args(&args);
            let server = match common::started_or_refused(command) {
                Ok(server) => server,
                Err((code, text)) => {
                    assert!(code == 1 && log != table, "{what}: {text}");
                    refused += 1;
                    continue;
                }
            };
            let mut redis = server.connect();
            let mut rounds = (0..KEYS).map(|key| {
                let value: Vec<u8> = redis.get(key).unwrap_or_else(|error| panic!("{what}: {error}"));
                let round = (0..ROUNDS).find(|round| value == filled(key, *round as u32, BYTES));
                round.unwrap_or_else(|| panic!("{what}: nobody ever wrote what {key} holds"))
            });
            let first = rounds.next().expect("keys");
            assert!(first >= log && (table > log || first == log), "{what}: key 0 is of round {first}");
            let mut last = first;
            for round in rounds {
                assert!(round <= last && round >= log && round + 1 >= first, "{what}: rounds {last} and {round}");
                last = round;
            }
        }
        // Those of which the log was cut beyond the store, and none of the others.
        assert!(0 < refused && refused <= ROUNDS * (ROUNDS - 1) / 2, "{store}: {refused} refused");
    }
}

#[test]
fn store_of_another_folder_is_refused() {
    for store in ["fjall", "sled"] {
        let args = [&["--store", store][..], &SMALL_MEMORY, &SMALL_LOG].concat();
        let dirs = [folder(), folder()];
        for (version, dir) in dirs.iter().enumerate() {
            let server = Server::start_with(dir.path(), &args);
            let mut redis = server.connect();
            for key in 0..100 {
                let _: () = redis.set(key, filled(key, version as u32, 10_000)).expect("set");
            }
            assert!(server.terminate().success());
        }
        let mixed = with_store_of(dirs[0].path(), dirs[1].path());
        let (code, text) = refused(mixed.path(), &args);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("another folder"), "{text}");
    }
}
