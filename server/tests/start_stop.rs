//! How a server starts, refuses to start, and stops.

mod common;

use common::resp::{Client, Value};
use common::{Server, command, crc32, folder, refused, refused_command, wait};
use redis::Commands;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

/// It was refused with this exit code, in words that hold all of these.
#[track_caller]
fn assert_refused((code, text): (i32, String), wanted_code: i32, wanted: &[&str]) {
    assert_eq!(code, wanted_code, "{text}");
    for words in wanted {
        assert!(text.contains(words), "no \"{words}\" in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("a path in UTF-8")
}

#[test]
fn banner_says_where_it_listens_and_what_it_promises() {
    let dir = folder();
    let server = Server::start(dir.path());
    assert_ne!(server.address.port(), 0);
    assert!(server.address.ip().is_loopback());
    let banner = &server.banner;
    assert!(banner.starts_with(&format!("holdfast {}: ", env!("CARGO_PKG_VERSION"))), "{banner}");
    assert!(banner.contains(&format!("data        {} (store: fjall)", path(dir.path()))), "{banner}");
    assert!(banner.contains("durability  always: "), "{banner}");
    assert!(banner.contains(&format!("connect     redis-cli -p {}", server.address.port())), "{banner}");
    assert_eq!(Client::connect(server.address).run("PING"), Value::Simple("PONG".into()));
}

#[test]
fn taken_port_is_refused() {
    let dirs = [folder(), folder()];
    let server = Server::start(dirs[0].path());
    let port = server.address.port().to_string();
    let refusal = refused(dirs[1].path(), &["--port", &port]);
    assert_refused(refusal, 1, &["cannot listen on 127.0.0.1", &port, "--port"]);
}

#[test]
fn folder_in_use_is_refused_and_left_alone() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    assert!(client.run("SET k v").is_ok());
    assert_refused(refused(dir.path(), &[]), 1, &[path(dir.path()), "in use by another process", "--dir"]);
    assert_eq!(client.run("GET k").text(), "v");
    assert!(client.run("SET k w").is_ok());
    server.kill();
    // The lock goes with its process, however that ended.
    let server = Server::start(dir.path());
    assert_eq!(Client::connect(server.address).run("GET k").text(), "w");
}

#[test]
fn folder_that_cannot_be_one_is_refused() {
    let dir = folder();
    let file = dir.path().join("file");
    std::fs::write(&file, b"not a folder").expect("file");
    assert_refused(refused(&file, &[]), 1, &[path(&file)]);
    assert_eq!(std::fs::read(&file).expect("file"), b"not a folder");
    assert_refused(refused(&file.join("below"), &[]), 1, &[path(&file)]);
    // Not even a privileged user can write here.
    assert_refused(refused(Path::new("/proc/holdfast"), &[]), 1, &["/proc/holdfast"]);
}

#[test]
fn folder_with_somebody_elses_files_is_refused_and_left_alone() {
    let dir = folder();
    std::fs::write(dir.path().join("diary.txt"), b"dear diary").expect("file");
    assert_refused(refused(dir.path(), &[]), 1, &[path(dir.path()), "diary.txt", "--dir"]);
    assert_eq!(std::fs::read(dir.path().join("diary.txt")).expect("file"), b"dear diary");
}

#[test]
fn folders_above_are_made() {
    let dir = folder();
    let below = dir.path().join("a/b/c");
    let server = Server::start(&below);
    assert!(Client::connect(server.address).run("SET k v").is_ok());
    server.kill();
    assert_eq!(Client::connect(Server::start(&below).address).run("GET k").text(), "v");
}

#[test]
fn folder_of_a_newer_format_is_refused_and_left_alone() {
    let dir = folder();
    Server::start(dir.path()).terminate();
    let identity = dir.path().join("IDENTITY");
    let mut bytes = std::fs::read(&identity).expect("identity");
    bytes[8] += 1;
    let crc = crc32(&[&bytes[..16], &bytes[20..]].concat());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&identity, &bytes).expect("identity");
    assert_refused(refused(dir.path(), &[]), 1, &["IDENTITY", "newer release", "format 3"]);
    assert_eq!(std::fs::read(&identity).expect("identity"), bytes);
    // The checksum was computed as the format says: with the version of today the folder opens.
    bytes[8] -= 1;
    let crc = crc32(&[&bytes[..16], &bytes[20..]].concat());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&identity, &bytes).expect("identity");
    assert!(Server::start(dir.path()).terminate().success());
}

#[test]
fn damaged_identity_is_refused() {
    let dir = folder();
    Server::start(dir.path()).terminate();
    let identity = dir.path().join("IDENTITY");
    let whole = std::fs::read(&identity).expect("identity");
    for at in [0, 12, 16, 24, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&identity, &bytes).expect("identity");
        assert_refused(refused(dir.path(), &[]), 1, &[path(&identity), "damaged at offset"]);
    }
    for len in [0, 10, whole.len() - 1] {
        std::fs::write(&identity, &whole[..len]).expect("identity");
        assert_refused(refused(dir.path(), &[]), 1, &[path(&identity), "damaged at offset"]);
    }
    // Without its identity the folder is not taken for a fresh one.
    std::fs::remove_file(&identity).expect("remove");
    assert_refused(refused(dir.path(), &[]), 1, &[path(dir.path()), "no IDENTITY file"]);
    std::fs::write(&identity, &whole).expect("identity");
    assert!(Server::start(dir.path()).terminate().success());
}

#[test]
fn folder_of_another_store_is_refused() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--store", "sled"]);
    assert!(server.banner.contains("(store: sled)"), "{}", server.banner);
    assert!(Client::connect(server.address).run("SET k v").is_ok());
    server.terminate();
    assert_refused(refused(dir.path(), &[]), 1, &[path(dir.path()), "\"sled\"", "\"fjall\""]);
    let server = Server::start_with(dir.path(), &["--store", "sled"]);
    assert_eq!(Client::connect(server.address).run("GET k").text(), "v");
}

#[test]
fn unknown_settings_are_refused_with_their_place() {
    let dir = folder();
    assert_refused(refused(dir.path(), &["--prot", "1"]), 2, &["--prot"]);
    assert_refused(refused(dir.path(), &["leftover"]), 2, &["leftover"]);
    let mut with_variable = command(dir.path());
    with_variable.env("HOLDFAST_PROT", "1");
    assert_refused(refused_command(with_variable), 2, &["HOLDFAST_PROT", "HOLDFAST_PORT"]);
    let file = dir.path().join("holdfast.toml");
    std::fs::write(&file, "# the port\nmaxclients = 10\nprot = 1\n").expect("file");
    let refusal = refused(dir.path(), &["--config", path(&file)]);
    assert_refused(refusal, 2, &[&format!("{}:3: there is no setting 'prot'", path(&file))]);
    std::fs::write(&file, "maxclients = 10\nport = = 1\n").expect("file");
    let refusal = refused(dir.path(), &["--config", path(&file)]);
    assert_refused(refusal, 2, &[&format!("{}:2: ", path(&file))]);
    let missing = dir.path().join("missing.toml");
    assert_refused(refused(dir.path(), &["--config", path(&missing)]), 2, &[path(&missing)]);
}

#[test]
fn wrong_and_contradictory_values_are_refused_with_their_place() {
    let dir = folder();
    assert_refused(refused(dir.path(), &["--maxclients", "many"]), 2, &["--maxclients", "'many'"]);
    assert_refused(refused(dir.path(), &["--durability", "maybe"]), 2, &["always, everysec, no"]);
    let file = dir.path().join("holdfast.toml");
    std::fs::write(&file, "maxclients = 10\n\nmemory-budget = \"a lot\"\n").expect("file");
    let refusal = refused(dir.path(), &["--config", path(&file)]);
    assert_refused(refusal, 2, &[&format!("{}:3: memory-budget: 'a lot'", path(&file))]);
    let refusal = refused(dir.path(), &["--memory-budget", "64MiB", "--value-bytes-max", "48MiB"]);
    assert_refused(refusal, 2, &["--memory-budget is 64MiB", "--value-bytes-max"]);
    std::fs::write(&file, "log-segment-bytes = \"1GiB\"\n").expect("file");
    let refusal = refused(dir.path(), &["--config", path(&file), "--log-bytes-max", "2GiB"]);
    assert_refused(refusal, 2, &["--log-bytes-max is 2GiB", &format!("{}:1: log-segment-bytes", path(&file))]);
}

#[test]
fn flag_wins_over_environment_and_environment_over_file() {
    let dir = folder();
    let file = dir.path().join("holdfast.toml");
    std::fs::write(&file, "maxclients = 11\ntimeout = 11\ntcp-keepalive = 11\n").expect("file");
    let mut child = command(&dir.path().join("data"));
    child.args(["--config", path(&file), "--maxclients", "13"]);
    child.env("HOLDFAST_MAXCLIENTS", "12").env("HOLDFAST_TIMEOUT", "12");
    let server = Server::start_command(child);
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("CONFIG GET maxclients").items()[1].text(), "13");
    assert_eq!(client.run("CONFIG GET timeout").items()[1].text(), "12");
    assert_eq!(client.run("CONFIG GET tcp-keepalive").items()[1].text(), "11");
}

#[test]
fn help_explains_every_setting() {
    let output = command(Path::new("unused")).arg("--help").output().expect("run");
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for flag in "bind port dir config durability store memory-budget log-segment-bytes log-bytes-max value-bytes-max \
                 request-bytes-max output-bytes-max maxclients timeout tcp-backlog tcp-keepalive protected-mode requirepass \
                 reader-threads slowlog-log-slower-than slowlog-max-len log-level log-file"
        .split_whitespace()
    {
        assert!(help.contains(&format!("--{flag} <")), "--help lacks --{flag}");
        let variable = format!("HOLDFAST_{}", flag.to_uppercase().replace('-', "_"));
        assert!(help.contains(&variable), "--help lacks {variable}");
        if flag != "config" {
            assert_eq!(client.run(&format!("CONFIG GET {flag}")).items().len(), 2, "CONFIG GET {flag}");
        }
    }
    let output = command(Path::new("unused")).arg("--version").output().expect("run");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("holdfast {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn graceful_stop_keeps_what_was_acknowledged() {
    for signal in ["TERM", "INT"] {
        let dir = folder();
        let mut server = Server::start(dir.path());
        let acknowledged = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Until the server goes away.
                    let mut redis = server.connect();
                    while redis.incr::<_, _, u64>("n", 1).is_ok() {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while acknowledged.load(Ordering::SeqCst) < 200 {
                std::thread::yield_now();
            }
            server.signal(signal);
        });
        assert_eq!(server.wait().code(), Some(0), "SIG{signal}");
        let count: u64 = Server::start(dir.path()).connect().get("n").expect("get");
        let least = acknowledged.into_inner();
        // The last of each client may have been written without its reply having come.
        assert!((least..=least + 4).contains(&count), "{count} after {least} acknowledged");
    }
}

#[test]
fn second_signal_ends_a_stop_at_once() {
    let dir = folder();
    let mut server = Server::start(dir.path());
    assert!(Client::connect(server.address).run("SET k v").is_ok());
    // Both are there when the process runs on: it either has stopped before it sees the second, or is ended by it.
    server.signal("STOP");
    server.signal("TERM");
    server.signal("INT");
    server.signal("CONT");
    let code = server.wait().code();
    assert!(matches!(code, Some(0 | 130 | 143)), "{code:?}");
    assert_eq!(Client::connect(Server::start(dir.path()).address).run("GET k").text(), "v");
}

#[test]
fn shutdown_stops_the_server_and_keeps_everything() {
    for line in ["SHUTDOWN", "SHUTDOWN NOSAVE", "SHUTDOWN SAVE NOW FORCE"] {
        let dir = folder();
        let mut server = Server::start(dir.path());
        let mut client = Client::connect(server.address);
        assert!(client.run("SET k v").is_ok());
        client.send(format!("{line}\r\n").as_bytes());
        assert_eq!(client.rest(), b"", "{line} has no reply");
        assert_eq!(server.wait().code(), Some(0), "{line}");
        assert_eq!(Client::connect(Server::start(dir.path()).address).run("GET k").text(), "v", "{line}");
    }
}

#[test]
fn stop_without_a_client_or_a_write_leaves_a_folder_that_opens() {
    let dir = folder();
    for _ in 0..3 {
        assert!(Server::start(dir.path()).terminate().success());
    }
}

#[test]
fn settings_of_the_log_may_change_between_starts() {
    let dir = folder();
    let mut redis_count = 0;
    for segment in ["1MiB", "4MiB", "2MiB"] {
        let server = Server::start_with(dir.path(), &["--log-segment-bytes", segment, "--log-bytes-max", "16MiB"]);
        let mut redis = server.connect();
        for _ in 0..3 {
            redis_count += 1;
            let _: () = redis.set(redis_count, vec![1; 600_000]).expect("set");
        }
        for key in 1..=redis_count {
            assert_eq!(redis.get::<_, Vec<u8>>(key).expect("get").len(), 600_000);
        }
        server.kill();
    }
}

#[test]
fn closed_standard_output_is_no_reason_to_stop() {
    let dir = folder();
    let mut child = command(dir.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("spawn");
    let log = dir.path().join("IDENTITY");
    common::eventually("the folder is made", || log.exists());
    assert!(child.try_wait().expect("wait").is_none(), "it ended by itself");
    child.kill().expect("kill");
    wait(&mut child);
}
