//! What a client may do to the wire, from the ordinary to the hostile: the server answers in order, or refuses in Redis's
//! words, and goes on serving the others.

mod common;

use common::resp::{Client, Value, encode};
use common::{Server, eventually, folder, resident_bytes};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// The server still serves.
fn assert_serves(server: &Server) {
    assert_eq!(Client::connect(server.address).run("PING"), Value::Simple("PONG".into()));
}

/// How many clients the server counts beside the one that asks.
fn others(client: &mut Client) -> i64 {
    let info = client.run("INFO clients").text();
    let line = info.lines().find_map(|line| line.strip_prefix("connected_clients:")).expect("connected_clients");
    line.parse::<i64>().expect("a number") - 1
}

#[test]
fn pipeline_of_100k_is_answered_in_order() {
    const COMMANDS: i64 = 100_000;
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let mut sender = client.socket().try_clone().expect("socket");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let batch = encode(&[b"INCR", b"n"]).repeat(COMMANDS as usize);
            sender.write_all(&batch).expect("send");
        });
        for wanted in 1..=COMMANDS {
            assert_eq!(client.reply(), Value::Int(wanted));
        }
    });
}

#[test]
fn pipeline_sent_whole_before_a_reply_is_read() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    // Small enough for the sockets' buffers, far more than the server takes from a connection at once.
    client.send(&b"INCR n\r\n".repeat(100_000));
    for wanted in 1..=100_000 {
        assert_eq!(client.reply(), Value::Int(wanted));
    }
}

#[test]
fn mixed_pipeline_keeps_its_order() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let script: &[(&[&[u8]], &str)] = &[
        (&[b"SET", b"a", b"1"], "+OK"),
        (&[b"GET", b"a"], "\"1\""),
        (&[b"NOSUCH"], "-ERR unknown command 'NOSUCH', with args beginning with: "),
        (&[b"INCR", b"a"], ":2"),
        (&[b"PING"], "+PONG"),
        (&[b"GET"], "-ERR wrong number of arguments for 'get' command"),
        (&[b"APPEND", b"a", b"x"], ":2"),
        (&[b"INCR", b"a"], "-ERR value is not an integer or out of range"),
        (&[b"CLIENT", b"SETNAME", b"me"], "+OK"),
        (&[b"STRLEN", b"a"], ":2"),
        (&[b"DEL", b"a", b"missing"], ":1"),
        (&[b"CLIENT", b"GETNAME"], "\"me\""),
        (&[b"GET", b"a"], "nil"),
        (&[b"DBSIZE"], ":0"),
        (&[b"SET", b"a", b"3"], "+OK"),
        (&[b"DBSIZE"], ":1"),
        (&[b"SCAN", b"0"], "[\"0\", [\"a\"]]"),
        (&[b"FLUSHALL"], "+OK"),
        (&[b"KEYS", b"*"], "[]"),
        (&[b"SET", b"a", b"4", b"GET"], "nil"),
        (&[b"HELLO", b"3", b"nonsense"], "-ERR Syntax error in HELLO option 'nonsense'"),
        (&[b"ECHO", b"end"], "\"end\""),
    ];
    let rounds = 20;
    let once: Vec<u8> = script.iter().flat_map(|(args, _)| encode(args)).chain(encode(&[b"DEL", b"a"])).collect();
    client.send(&once.repeat(rounds));
    for _ in 0..rounds {
        for (args, wanted) in script {
            assert_eq!(&client.reply().to_string(), wanted, "{}", args[0].escape_ascii());
        }
        assert_eq!(client.reply(), Value::Int(1));
    }
}

#[test]
fn inline_commands_are_understood() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    client.send(
        b"PING\r\nSET k \"a b\\x00\\n\"\nGET k\r\n\r\n   \r\nset 'single \\' quote' v\r\nget \"single ' quote\"\r\n",
    );
    assert_eq!(client.reply(), Value::Simple("PONG".into()));
    assert!(client.reply().is_ok());
    assert_eq!(client.reply().bytes(), b"a b\0\n");
    assert!(client.reply().is_ok());
    assert_eq!(client.reply().bytes(), b"v");
    // Inline and framed commands may follow each other.
    client.send(b"GET k\r\n*1\r\n$4\r\nPING\r\nPING inline\r\n");
    assert_eq!(client.reply().bytes(), b"a b\0\n");
    assert_eq!(client.reply(), Value::Simple("PONG".into()));
    assert_eq!(client.reply().bytes(), b"inline");
}

#[test]
fn keys_and_values_are_bytes() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let every: Vec<u8> = (0..=255).collect();
    let samples: &[&[u8]] = &[b"", b"\0", b"\r\n", b"*3\r\n$3\r\nSET\r\n", b"$-1\r\n", &every, "ключ 🔑".as_bytes()];
    for key in samples {
        for value in samples {
            assert!(client.call(&[b"SET", key, value]).is_ok());
            assert_eq!(client.call(&[b"GET", key]).bytes(), *value, "under {}", key.escape_ascii());
            assert_eq!(client.call(&[b"STRLEN", key]).int(), value.len() as i64);
        }
    }
    let mut found: Vec<Vec<u8>> = client.run("KEYS *").items().iter().map(|key| key.bytes().to_vec()).collect();
    let mut wanted: Vec<Vec<u8>> = samples.iter().map(|key| key.to_vec()).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}

#[test]
fn frames_may_come_byte_by_byte() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let mut bytes = encode(&[b"SET", b"key", b"a\r\nb"]);
    bytes.extend(encode(&[b"GET", b"key"]));
    bytes.extend(b"*0\r\n\r\nGET key\r\n");
    bytes.extend(encode(&[b"DEL", b"key"]));
    for byte in bytes {
        client.send(&[byte]);
    }
    assert!(client.reply().is_ok());
    assert_eq!(client.reply().bytes(), b"a\r\nb");
    assert_eq!(client.reply().bytes(), b"a\r\nb");
    assert_eq!(client.reply(), Value::Int(1));
}

#[test]
fn protocol_errors_are_redis_s_and_close_the_connection() {
    let dir = folder();
    let server = Server::start(dir.path());
    let long = vec![b'1'; 100_000];
    let with = |prefix: &[u8]| [prefix, &long].concat();
    let rows: Vec<(Vec<u8>, &str)> = vec![
        (b"*abc\r\n".to_vec(), "invalid multibulk length"),
        (b"*9999999999\r\n".to_vec(), "invalid multibulk length"),
        (b"*99999999999999999999\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\r\n!foo\r\n".to_vec(), "expected '$', got '!'"),
        (b"*1\r\n*1\r\n$1\r\na\r\n".to_vec(), "expected '$', got '*'"),
        (b"*1\r\n:1\r\n".to_vec(), "expected '$', got ':'"),
        (b"*2\r\n$3\r\nGET\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$abc\r\n".to_vec(), "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n".to_vec(), "invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999999999999\r\n".to_vec(), "invalid bulk length"),
        (b"GET \"unclosed\r\n".to_vec(), "unbalanced quotes in request"),
        (b"GET \"a\"b\r\n".to_vec(), "unbalanced quotes in request"),
        (with(b"GET "), "too big inline request"),
        (with(b"*"), "too big mbulk count string"),
        (with(b"*1\r\n$"), "too big bulk count string"),
    ];
    for (bytes, wanted) in rows {
        let mut client = Client::connect(server.address);
        // What was asked before is answered first.
        client.send(&encode(&[b"ECHO", b"before"]));
        assert_eq!(client.reply().bytes(), b"before");
        // The server may close before it has read all.
        let _ = client.socket().write_all(&bytes);
        let shown = bytes[..bytes.len().min(40)].escape_ascii().to_string();
        assert_eq!(client.reply(), Value::Error(format!("ERR Protocol error: {wanted}")), "{shown}");
        assert_eq!(client.rest(), b"", "{shown}");
    }
    assert_serves(&server);
}

#[test]
fn nested_arrays_and_garbage_leave_the_server_alive() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as u8
    };
    let mut samples: Vec<Vec<u8>> =
        vec![b"*1\r\n".repeat(50_000), b"*2147483647\r\n".to_vec(), b"$5\r\nhello\r\n".to_vec()];
    samples.push(b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n\r\n".to_vec());
    samples.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    for _ in 0..40 {
        samples.push((0..2000).map(|_| next()).collect());
    }
    // Almost right: one byte of a valid pipeline is another.
    let valid =
        [encode(&[b"SET", b"k", b"v"]), encode(&[b"GET", b"k"]), encode(&[b"MSET", b"a", b"1", b"b", b"2"])].concat();
    for at in 0..valid.len() {
        let mut bytes = valid.clone();
        bytes[at] = next();
        samples.push(bytes);
    }
    for bytes in samples {
        let mut socket = server.socket();
        // The server may close before it has read all.
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(Shutdown::Write);
        let mut reply = Vec::new();
        match socket.read_to_end(&mut reply) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection stays open: {error}, after {}", bytes.escape_ascii()),
        }
    }
    assert_serves(&server);
    let mut client = Client::connect(server.address);
    eventually("all of them are forgotten", || others(&mut client) == 0);
}

#[test]
fn announced_lengths_cost_no_memory() {
    let dir = folder();
    let server = Server::start(dir.path());
    assert_serves(&server);
    let before = resident_bytes(server.pid());
    let mut open = Vec::new();
    for _ in 0..50 {
        let mut value = server.socket();
        value.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\nabc").expect("send");
        let mut array = server.socket();
        array.write_all(b"*1000000\r\n$3\r\nDEL\r\n$1\r\n").expect("send");
        open.extend([value, array]);
    }
    // Each of them was read once these are answered, since they came later.
    for socket in &mut open {
        assert_serves(&server);
        socket.write_all(b"x").expect("send");
    }
    assert_serves(&server);
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 32 * MIB, "100 announcements took {grown} bytes");
    drop(open);
    let mut client = Client::connect(server.address);
    eventually("they are forgotten", || others(&mut client) == 0);
    assert_eq!(client.run("GET k"), Value::NullBulk, "half a command is no command");
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut watcher = Client::connect(server.address);
    for round in 0..100 {
        let mut socket = server.socket();
        match round % 4 {
            // Between a write and its reply.
            0 => socket.write_all(&encode(&[b"SET", b"vanished", b"v"])).expect("send"),
            // In the middle of a command.
            1 => socket.write_all(b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$100000\r\nabc").expect("send"),
            // With replies unread, so that the system resets the connection.
            2 => socket.write_all(&encode(&[b"PING"]).repeat(1000)).expect("send"),
            _ => {}
        }
    }
    eventually("all clients are forgotten", || others(&mut watcher) == 0);
    assert_eq!(watcher.run("CLIENT LIST").text().lines().count(), 1);
    assert_eq!(watcher.run("GET half"), Value::NullBulk);
    eventually("a write was taken though its client left", || watcher.run("GET vanished") != Value::NullBulk);
}

#[test]
fn closing_half_of_a_connection_still_gets_the_replies() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    client.send(&encode(&[b"INCR", b"n"]).repeat(1000));
    client.socket().shutdown(Shutdown::Write).expect("shutdown");
    for wanted in 1..=1000 {
        assert_eq!(client.reply(), Value::Int(wanted));
    }
    assert_eq!(client.rest(), b"");
}

#[test]
fn reader_that_does_not_read_is_held_back() {
    const REPLIES: usize = 200;
    let dir = folder();
    let server = Server::start(dir.path());
    let mut other = Client::connect(server.address);
    let value = vec![b'v'; MIB];
    assert!(other.call(&[b"SET", b"large", &value]).is_ok());
    let before = resident_bytes(server.pid());
    let mut slow = Client::connect(server.address);
    slow.send(&encode(&[b"GET", b"large"]).repeat(REPLIES));
    for round in 0..500 {
        assert!(other.run(&format!("SET k {round}")).is_ok());
        assert_eq!(other.run("GET k").text(), round.to_string());
    }
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 64 * MIB, "{REPLIES} MiB of replies that nobody reads took {grown} bytes");
    // Held back, not dropped: all of it comes once it is read.
    for _ in 0..REPLIES {
        assert_eq!(slow.reply().bytes().len(), MIB);
    }
    assert_eq!(slow.run("PING"), Value::Simple("PONG".into()));
}

#[test]
fn writer_that_does_not_read_is_held_back() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut other = Client::connect(server.address);
    assert!(other.run("SET k v").is_ok());
    let before = resident_bytes(server.pid());
    let slow = TcpStream::connect(server.address).expect("connect");
    slow.set_nonblocking(true).expect("nonblocking");
    let batch = encode(&[b"SET", b"key", &[b'v'; 100]]).repeat(100);
    let mut sent = 0;
    // Until the server takes no more: its side of the connection is full and ours too.
    let mut refused = 0;
    while refused < 200 && sent < 512 * MIB {
        match (&slow).write(&batch[sent % batch.len()..]) {
            Ok(count) => {
                sent += count;
                refused = 0;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                // Gives the server time to read on, and shows that others are served.
                assert_eq!(other.run("GET k").text(), "v");
            }
            // Dropped at a limit: allowed too.
            Err(_) => break,
        }
    }
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown < 128 * MIB, "{sent} bytes of commands whose replies nobody reads took {grown} bytes");
    assert!(sent < 512 * MIB, "the client was never held back");
    drop(slow);
    eventually("it is forgotten", || others(&mut other) == 0);
}

#[test]
fn thousands_of_idle_connections_cost_little() {
    let dir = folder();
    let allowed = common::raise_open_files(11_000);
    // With a budget of open files of our own and of the server, which inherits it.
    let count = if allowed >= 11_000 { 9_990 } else { (allowed as usize).saturating_sub(600).min(2000) };
    assert!(count >= 300, "the system allows {allowed} open files, too few for this test");
    let server = Server::start(dir.path());
    let mut first = Client::connect(server.address);
    first.run("SET k v");
    let before = resident_bytes(server.pid());
    let idle: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(server.address).expect("connect")).collect();
    eventually("all are connected", || others(&mut first) == count as i64);
    // Each has been used once.
    for socket in &idle {
        (&mut &*socket).write_all(b"PING\r\n").expect("send");
    }
    for socket in &idle {
        let mut reply = [0; 7];
        (&mut &*socket).read_exact(&mut reply).expect("reply");
        assert_eq!(&reply, b"+PONG\r\n");
    }
    let grown = resident_bytes(server.pid()).saturating_sub(before);
    assert!(grown / count < 16 * 1024, "{count} idle connections take {grown} bytes");
    assert_eq!(first.run("GET k").text(), "v");
    drop(idle);
    eventually("all are forgotten", || others(&mut first) == 0);
}

#[test]
fn client_above_maxclients_is_told_so() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--maxclients", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.run("PING"), Value::Simple("PONG".into()));
    }
    let mut refused = Client::connect(server.address);
    assert_eq!(refused.rest(), b"-ERR max number of clients reached\r\n");
    clients.pop();
    eventually("the place is free again", || {
        let mut socket = server.socket();
        let _ = socket.write_all(b"PING\r\n");
        let mut reply = [0; 7];
        socket.read_exact(&mut reply).is_ok() && &reply == b"+PONG\r\n"
    });
    assert!(clients[0].run("CONFIG SET maxclients 10").is_ok());
    let mut more: Vec<Client> = (0..5).map(|_| Client::connect(server.address)).collect();
    for client in &mut more {
        assert_eq!(client.run("PING"), Value::Simple("PONG".into()));
    }
}

#[test]
fn hello_switches_the_protocol() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    assert_eq!(client.run("GET missing"), Value::NullBulk);
    let Value::Map(pairs) = client.run("HELLO 3 SETNAME tester") else { panic!("a map") };
    let names: Vec<String> = pairs.iter().map(|(name, _)| name.text()).collect();
    assert_eq!(names, ["server", "version", "proto", "id", "mode", "role", "modules"]);
    assert_eq!(pairs[2].1, Value::Int(3));
    assert_eq!(pairs[4].1.text(), "standalone");
    assert_eq!(pairs[5].1.text(), "master");
    assert_eq!(client.run("CLIENT ID"), pairs[3].1);
    assert_eq!(client.run("CLIENT GETNAME").text(), "tester");
    assert_eq!(client.run("GET missing"), Value::Null);
    assert!(matches!(client.run("CONFIG GET port"), Value::Map(_)));
    assert!(matches!(client.run("INFO server"), Value::Verbatim(_)));
    // HELLO alone changes nothing.
    assert!(matches!(client.run("HELLO"), Value::Map(_)));
    assert!(matches!(client.run("HELLO 2"), Value::Array(fields) if fields.len() == 14));
    assert_eq!(client.run("GET missing"), Value::NullBulk);
    assert!(client.run("HELLO 4").is_error("NOPROTO unsupported protocol version"));
    // A switch in the middle of a pipeline is for what follows.
    client.send(b"GET missing\r\nHELLO 3\r\nGET missing\r\nHELLO 2\r\nGET missing\r\n");
    assert_eq!(client.reply(), Value::NullBulk);
    assert!(matches!(client.reply(), Value::Map(_)));
    assert_eq!(client.reply(), Value::Null);
    assert!(matches!(client.reply(), Value::Array(_)));
    assert_eq!(client.reply(), Value::NullBulk);
}

#[test]
fn password_is_asked_for_and_checked() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--requirepass", "s3cret"]);
    let mut client = Client::connect(server.address);
    for line in ["GET k", "SET k v", "PING", "DBSIZE", "CONFIG GET *", "CLIENT LIST"] {
        assert_eq!(client.run(line), Value::Error("NOAUTH Authentication required.".into()), "{line}");
    }
    assert!(client.run("HELLO 3").is_error("NOAUTH HELLO must be called with the client already authenticated"));
    let wrong = Value::Error("WRONGPASS invalid username-password pair or user is disabled.".into());
    for line in ["AUTH wrong", "AUTH default wrong", "AUTH nobody s3cret", "HELLO 3 AUTH default wrong"] {
        assert_eq!(client.run(line), wrong, "{line}");
    }
    assert!(client.run("GET k").is_error("NOAUTH"));
    assert!(client.run("AUTH s3cret").is_ok());
    assert!(client.run("SET k v").is_ok());
    assert_eq!(client.run("RESET"), Value::Simple("RESET".into()));
    assert!(client.run("GET k").is_error("NOAUTH"));
    assert!(client.run("AUTH default s3cret").is_ok());
    let mut other = Client::connect(server.address);
    assert!(matches!(other.run("HELLO 3 AUTH default s3cret"), Value::Map(_)));
    assert_eq!(other.run("GET k").text(), "v");
    // In one pipeline: what follows AUTH may run, what precedes it may not.
    let mut other = Client::connect(server.address);
    other.send(b"GET k\r\nAUTH s3cret\r\nGET k\r\n");
    assert!(other.reply().is_error("NOAUTH"));
    assert!(other.reply().is_ok());
    assert_eq!(other.reply().text(), "v");
}

#[test]
fn strangers_may_send_little_before_they_authenticate() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--requirepass", "s3cret"]);
    for (bytes, wanted) in [
        (&b"*11\r\n"[..], "unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "unauthenticated bulk length"),
    ] {
        let mut client = Client::connect(server.address);
        client.send(bytes);
        assert_eq!(client.reply(), Value::Error(format!("ERR Protocol error: {wanted}")));
        assert_eq!(client.rest(), b"");
    }
    let mut client = Client::connect(server.address);
    assert!(client.run("AUTH s3cret").is_ok());
    assert!(client.call(&[b"SET", b"k", &vec![b'v'; 20_000]]).is_ok());
    assert_eq!(client.run("EXISTS k k k k k k k k k k k"), Value::Int(11));
}

/// Strangers come by the hundred and guess passwords as fast as they can: who belongs here is served all the while, and nothing of them stays.
#[test]
fn storm_of_wrong_passwords_keeps_nobody_waiting() {
    const GUESSES: usize = 200;
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--requirepass", "s3cret"]);
    let mut client = Client::connect(server.address);
    assert!(client.run("AUTH s3cret").is_ok());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storms: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..25 {
                        let mut stranger = Client::connect(server.address);
                        let guess =
                            format!("AUTH guess-{round}\r\nAUTH default guess\r\nHELLO 3 AUTH default guess\r\n");
                        stranger.send(guess.repeat(GUESSES).as_bytes());
                        for _ in 0..3 * GUESSES {
                            assert!(stranger.reply().is_error("WRONGPASS"));
                        }
                        assert!(stranger.run("GET k").is_error("NOAUTH"));
                    }
                })
            })
            .collect();
        let served = scope.spawn(|| {
            let (mut served, mut longest) = (0u32, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                assert!(client.run(&format!("SET k {served}")).is_ok());
                longest = longest.max(asked.elapsed());
                served += 1;
            }
            (served, longest)
        });
        storms.into_iter().for_each(|storm| storm.join().expect("a stranger"));
        over.store(true, Ordering::Relaxed);
        let (served, longest) = served.join().expect("the client");
        assert!(served > 20 && longest < Duration::from_secs(5), "{served} served, the slowest in {longest:?}");
    });
    eventually("the strangers are gone", || client.run("INFO clients").text().contains("connected_clients:1\r\n"));
}

#[test]
fn replies_can_be_switched_off() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    client.send(b"CLIENT REPLY OFF\r\nSET a 1\r\nGET a\r\nNOSUCH\r\nPING\r\nINCR a\r\nCLIENT REPLY ON\r\nGET a\r\n");
    assert!(client.reply().is_ok());
    assert_eq!(client.reply().text(), "2");
    client.send(b"CLIENT REPLY SKIP\r\nINCR a\r\nGET a\r\nCLIENT REPLY SKIP\r\nGET a\r\nINCR a\r\n");
    assert_eq!(client.reply().text(), "3");
    assert_eq!(client.reply(), Value::Int(4));
    client.send(b"INCR a\r\nCLIENT REPLY OFF\r\nINCR a\r\nCLIENT REPLY SKIP\r\nGET a\r\nCLIENT REPLY ON\r\nGET a\r\n");
    assert_eq!(client.reply(), Value::Int(5));
    assert!(client.reply().is_ok());
    assert_eq!(client.reply().text(), "6");
}

#[test]
fn clients_can_be_closed_by_others() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut keeper = Client::connect(server.address);
    let mut victim = Client::connect(server.address);
    let id = victim.run("CLIENT ID").int();
    assert_eq!(keeper.run(&format!("CLIENT KILL ID {id}")), Value::Int(1));
    assert_eq!(victim.rest(), b"");
    assert_eq!(keeper.run(&format!("CLIENT KILL ID {id}")), Value::Int(0));

    let mut victim = Client::connect(server.address);
    victim.run("PING");
    let address = victim.socket().local_addr().expect("address");
    assert!(keeper.run(&format!("CLIENT KILL {address}")).is_ok());
    assert_eq!(victim.rest(), b"");

    let mut victims: Vec<Client> = (0..3).map(|_| Client::connect(server.address)).collect();
    for victim in &mut victims {
        victim.run("PING");
    }
    assert_eq!(keeper.run("CLIENT KILL TYPE normal"), Value::Int(3));
    for victim in &mut victims {
        assert_eq!(victim.rest(), b"");
    }
    // SKIPME no: the one that asks goes too, once it has its answer.
    assert_eq!(keeper.run("CLIENT KILL TYPE normal SKIPME no"), Value::Int(1));
    assert_eq!(keeper.rest(), b"");
    assert_serves(&server);
}

#[test]
fn pause_holds_writes_until_it_ends() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut keeper = Client::connect(server.address);
    let mut writer = Client::connect(server.address);
    let mut reader = Client::connect(server.address);
    writer.run("PING");
    assert!(keeper.run("CLIENT PAUSE 100000000 WRITE").is_ok());
    writer.send(b"GET k\r\nSET k v\r\nGET k\r\n");
    assert_eq!(writer.reply(), Value::NullBulk);
    for _ in 0..50 {
        assert_eq!(reader.run("GET k"), Value::NullBulk, "a write ran during the pause");
    }
    assert!(keeper.run("CLIENT UNPAUSE").is_ok());
    assert!(writer.reply().is_ok());
    assert_eq!(writer.reply().text(), "v");
    assert_eq!(reader.run("GET k").text(), "v");
    // A pause ends by itself, and holds everything if asked to.
    assert!(keeper.run("CLIENT PAUSE 50 ALL").is_ok());
    assert_eq!(reader.run("GET k").text(), "v");
    // A client that leaves during a pause is forgotten.
    assert!(keeper.run("CLIENT PAUSE 100000000 WRITE").is_ok());
    writer.send(b"SET k never\r\n");
    drop(writer);
    drop(reader);
    eventually("both are forgotten", || others(&mut keeper) == 0);
    assert!(keeper.run("CLIENT UNPAUSE").is_ok());
}

#[test]
fn quit_answers_and_closes() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    client.send(b"SET k v\r\nQUIT\r\nSET k later\r\n");
    assert!(client.reply().is_ok());
    assert!(client.reply().is_ok());
    assert_eq!(client.rest(), b"");
    assert_eq!(Client::connect(server.address).run("GET k").text(), "v", "what follows QUIT is not run");
}

#[test]
fn reset_brings_a_connection_back_to_its_beginning() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    client.run("HELLO 3 SETNAME me");
    let id = client.run("CLIENT ID");
    assert_eq!(client.run("RESET"), Value::Simple("RESET".into()));
    assert_eq!(client.run("CLIENT GETNAME"), Value::NullBulk);
    assert_eq!(client.run("CLIENT ID"), id);
}

#[test]
fn client_list_describes_each_connection() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let mut other = Client::connect(server.address);
    assert!(other.run("CLIENT SETNAME the-other").is_ok());
    assert!(other.run("CLIENT SETINFO LIB-NAME tests").is_ok());
    let list = client.run("CLIENT LIST").text();
    assert_eq!(list.lines().count(), 2);
    let line = list.lines().find(|line| line.contains(" name=the-other ")).expect("the other");
    for field in [
        "id=",
        "addr=127.0.0.1:",
        "laddr=",
        "fd=",
        "age=",
        "idle=",
        "flags=N",
        "db=0",
        "cmd=",
        "user=default",
        "resp=2",
    ] {
        assert!(line.split(' ').any(|word| word.starts_with(field)), "no {field} in {line}");
    }
    assert!(line.contains(" lib-name=tests"), "{line}");
    let id = other.run("CLIENT ID").int();
    let one = client.run(&format!("CLIENT LIST ID {id}")).text();
    assert!(one.lines().count() == 1 && one.starts_with(&format!("id={id} ")), "{one}");
    assert!(client.run("CLIENT INFO").text().contains("cmd=client|info"));
}

#[test]
fn longest_key_is_512_kib() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let longest = vec![b'k'; 512 * 1024];
    assert!(client.call(&[b"SET", &longest, b"v"]).is_ok());
    assert_eq!(client.call(&[b"GET", &longest]).text(), "v");
    let longer = vec![b'k'; 512 * 1024 + 1];
    for args in [
        &[b"SET".as_slice(), &longer, b"v"][..],
        &[b"GET", &longer],
        &[b"MSET", b"fine", b"v", &longer, b"v"],
        &[b"RENAME", &longest, &longer],
    ] {
        let reply = client.call(args);
        assert!(reply.is_error("ERR ") && reply.to_string().contains("key"), "{reply}");
    }
    assert_eq!(client.run("DBSIZE"), Value::Int(1), "nothing of a refused command is done");
    assert!(client.call(&[b"SET", b"", b"under the empty key"]).is_ok());
    assert_eq!(client.call(&[b"GET", b""]).text(), "under the empty key");
}

#[test]
fn value_above_the_limit_is_refused() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--value-bytes-max", "1MiB"]);
    let mut client = Client::connect(server.address);
    let largest = vec![b'v'; MIB];
    assert!(client.call(&[b"SET", b"k", &largest]).is_ok());
    assert_eq!(client.run("STRLEN k"), Value::Int(MIB as i64));
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert!(client.run("APPEND k x").is_error(too_long));
    assert!(client.run("SETRANGE k 1048576 x").is_error(too_long));
    assert!(client.run("SETBIT k 8388608 1").is_error("ERR bit offset is not an integer or out of range"));
    assert_eq!(client.run("STRLEN k"), Value::Int(MIB as i64));
    client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n");
    assert!(client.reply().is_error("ERR Protocol error: invalid bulk length"));
    assert_eq!(client.rest(), b"");
    assert_serves(&server);
}

#[test]
fn idle_clients_are_closed_after_the_timeout() {
    let dir = folder();
    let server = Server::start_with(dir.path(), &["--timeout", "1"]);
    let mut idle = Client::connect(server.address);
    assert_eq!(idle.run("PING"), Value::Simple("PONG".into()));
    assert_eq!(idle.rest(), b"");
    assert_serves(&server);
}
