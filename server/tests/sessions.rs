//! Sessions against built servers: numbered writes that are sent again and again while leaders die take effect once.

mod common;

use common::cluster::{Cluster, NODES, is_elsewhere, until};
use common::resp::{Client, Value, encode};
use common::{PATIENCE, Server, folder, resident_bytes};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long one request may take before it is sent again.
const REQUEST_PATIENCE: Duration = Duration::from_secs(2);

/// Sends a request to one node after another until somebody answers it: the same request, whatever became of it before.
struct Retrying<'a> {
    addresses: &'a [SocketAddr],
    place: usize,
    client: Option<Client>,
    /// How often the outcome was unknown: the connection ended after the request was sent.
    unknown: &'a AtomicU64,
}

impl Retrying<'_> {
    fn ask(&mut self, line: &str) -> Value {
        let mut answer = None;
        until(line, || {
            if self.client.is_none() {
                self.place = (self.place + 1) % self.addresses.len();
                self.client = Client::try_connect(self.addresses[self.place], REQUEST_PATIENCE).ok();
            }
            match self.client.as_mut().map(|client| client.try_run(line)) {
                Some(Ok(reply)) if is_elsewhere(&reply) => self.client = None,
                Some(Ok(reply)) => answer = Some(reply),
                Some(Err(_)) => {
                    self.unknown.fetch_add(1, Ordering::SeqCst);
                    self.client = None;
                }
                None => {}
            }
            answer.is_some()
        });
        answer.expect("an answer")
    }
}

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    (0..NODES).map(|place| cluster.address(place)).collect()
}

fn session(cluster: &Cluster) -> String {
    cluster.run("HOLDFAST SESSION NEW").text()
}

/// Ends the threads of a scope when its body fails: a failure must not become a hang.
struct EndsOnDrop<'a>(&'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Clients append unique integers, each again and again until it is answered, and each twice in any case; leaders are killed all
/// the while. Every integer is there once, in its client's order.
#[test]
fn appends_sent_again_while_leaders_are_killed_are_each_there_once() {
    const CLIENTS: usize = 4;
    const KILLS: usize = 5;
    let mut cluster = Cluster::start();
    let addresses = addresses(&cluster);
    let (ended, unknown) = (AtomicBool::new(false), AtomicU64::new(0));
    let done: Vec<AtomicU64> = (0..CLIENTS).map(|_| AtomicU64::new(0)).collect();
    let total = || done.iter().map(|done| done.load(Ordering::SeqCst)).sum::<u64>();
    std::thread::scope(|scope| {
        let _end = EndsOnDrop(&ended);
        for (number, done) in done.iter().enumerate() {
            let (addresses, ended, unknown) = (&addresses, &ended, &unknown);
            scope.spawn(move || {
                let mut client = Retrying { addresses, place: number, client: None, unknown };
                let id = client.ask("HOLDFAST SESSION NEW").text();
                let mut length = 0;
                for next in 1.. {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let text = format!("{next},");
                    length += text.len() as i64;
                    let append = format!("HOLDFAST ONCE {id} {next} {next} APPEND log:{number} {text}");
                    assert_eq!(client.ask(&append), Value::Int(length), "{append}");
                    if next % 3 == 0 {
                        assert_eq!(client.ask(&append), Value::Int(length), "again: {append}");
                    }
                    done.store(next, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..KILLS {
            let leader = cluster.leader();
            let before = total();
            until("writes go on", || total() >= before + 100);
            cluster.kill(leader);
            cluster.leader();
            cluster.restart(leader);
        }
        let before = total();
        until("writes go on after the last", || total() >= before + 100);
        ended.store(true, Ordering::SeqCst);
    });
    println!("{} appends, {} outcomes unknown", total(), unknown.load(Ordering::SeqCst));
    for (number, done) in done.iter().enumerate() {
        let wanted: String = (1..=done.load(Ordering::SeqCst)).map(|next| format!("{next},")).collect();
        assert_eq!(cluster.run(&format!("GET log:{number}")).text(), wanted, "client {number}");
    }
}

/// The client library, many writes at a time: each call is answered, and the sums are exact.
#[test]
fn native_client_counts_exactly_while_leaders_are_killed() {
    const WRITERS: usize = 32;
    const KILLS: usize = 3;
    let mut cluster = Cluster::start();
    let ended = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let addresses: Vec<holdfast_client::Address> =
        addresses(&cluster).iter().map(|address| address.to_string().parse().expect("an address")).collect();
    std::thread::scope(|scope| {
        let _end = EndsOnDrop(&ended);
        let (ended, done) = (&ended, &done);
        let clients = scope.spawn(move || {
            let mut config = holdfast_client::Config::new(addresses[0].clone());
            config.seeds = addresses[1..].to_vec();
            config.timeout = PATIENCE;
            let client = holdfast_client::Client::new(config).exactly_once();
            let writer = async |number: usize| {
                let mut sum = 0;
                while !ended.load(Ordering::SeqCst) {
                    sum += 1;
                    // An increment answers what it made of the number: one that came twice would show at once.
                    let answer = client.increment(format!("sum:{number}"), 1).await;
                    assert_eq!(answer.expect("an answer"), sum, "writer {number}");
                    done.fetch_add(1, Ordering::SeqCst);
                }
                sum
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut writers: Vec<_> = (0..WRITERS).map(|number| Box::pin(writer(number))).collect();
                let mut sums = vec![None; WRITERS];
                // All of them on one thread, whenever any of them can go on.
                std::future::poll_fn(|context| {
                    for (writer, sum) in writers.iter_mut().zip(&mut sums) {
                        if sum.is_none()
                            && let std::task::Poll::Ready(ready) = writer.as_mut().poll(context)
                        {
                            *sum = Some(ready);
                        }
                    }
                    if sums.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
                sums
            })
        });
        for _ in 0..KILLS {
            let leader = cluster.leader();
            let before = done.load(Ordering::SeqCst);
            until("writes go on", || done.load(Ordering::SeqCst) >= before + 300);
            cluster.kill(leader);
            cluster.leader();
            cluster.restart(leader);
        }
        let before = done.load(Ordering::SeqCst);
        until("writes go on after the last", || done.load(Ordering::SeqCst) >= before + 300);
        ended.store(true, Ordering::SeqCst);
        let sums = clients.join().expect("the clients");
        for (number, sum) in sums.into_iter().enumerate() {
            let sum: i64 = sum.expect("a sum");
            assert_eq!(cluster.run(&format!("GET sum:{number}")).text(), sum.to_string());
        }
    });
    println!("{} increments", done.load(Ordering::SeqCst));
}

#[test]
fn retry_after_all_nodes_were_killed_gets_the_first_answer() {
    let mut cluster = Cluster::start();
    let id = session(&cluster);
    let requests: Vec<String> = (0..50)
        .map(|number| format!("HOLDFAST ONCE {id} {number} 0 APPEND log:{} {number},", number % 7))
        .chain([format!("HOLDFAST ONCE {id} 50 0 SET log:0 other NX"), format!("HOLDFAST ONCE {id} 51 0 GETDEL log:1")])
        .collect();
    let first: Vec<Value> = requests.iter().map(|request| cluster.run(request)).collect();
    (0..NODES).for_each(|place| cluster.kill(place));
    (0..NODES).for_each(|place| cluster.restart(place));
    cluster.leader();
    let log = cluster.run("GET log:0");
    for (request, first) in requests.iter().zip(&first) {
        assert_eq!(cluster.run(request), *first, "{request}");
    }
    assert_eq!(cluster.run("GET log:0"), log);
    assert_eq!(cluster.run("EXISTS log:1"), Value::Int(0));
    // FLUSHALL takes the data; what was done was done.
    assert!(cluster.run("FLUSHALL").is_ok());
    for (request, first) in requests.iter().zip(&first) {
        assert_eq!(cluster.run(request), *first, "{request}");
    }
    assert_eq!(cluster.run("DBSIZE"), Value::Int(0));
}

#[test]
fn leader_that_was_made_from_a_snapshot_knows_what_was_done() {
    let mut cluster = Cluster::start_with(&["--log-bytes-max", "4MiB", "--log-segment-bytes", "1MiB"]);
    let leader = cluster.leader();
    let follower = cluster.others(leader)[0];
    cluster.kill(follower);
    let id = session(&cluster);
    let requests: Vec<String> =
        (0..100).map(|number| format!("HOLDFAST ONCE {id} {number} 0 APPEND log:{} {number},", number % 5)).collect();
    let first: Vec<Value> = requests.iter().map(|request| cluster.run(request)).collect();
    // Far more than the log may hold.
    let big = "x".repeat(100_000);
    let mut client = cluster.client(leader);
    for number in 0..120 {
        assert!(client.run(&format!("SET big:{} {number}-{big}", number % 40)).is_ok());
    }
    cluster.restart(follower);
    cluster.wait_whole();
    let said = std::fs::read_to_string(cluster.log(follower)).expect("what it logged");
    assert!(said.contains("a snapshot was put in place"), "{said}");
    until("the follower leads", || {
        cluster.run(&format!("HOLDFAST TRANSFER-LEADER {}", follower + 1)) == Value::Int(follower as i64 + 1)
    });
    for (request, first) in requests.iter().zip(&first) {
        assert_eq!(cluster.run(request), *first, "{request}");
    }
    assert_eq!(cluster.leader(), follower, "it was this one that answered");
    for log in 0..5 {
        let wanted: String = (0..100).filter(|number| number % 5 == log).map(|number| format!("{number},")).collect();
        assert_eq!(cluster.run(&format!("GET log:{log}")).text(), wanted);
    }
}

#[test]
fn session_that_is_over_is_told_so_and_forgotten() {
    let cluster = Cluster::start_with(&["--session-retention", "1"]);
    let id = session(&cluster);
    let append = format!("HOLDFAST ONCE {id} 1 1 APPEND log x");
    assert_eq!(cluster.run(&append), Value::Int(1));
    let records = |place: usize| info(&mut cluster.client(place), "session_records");
    until("all know of it", || (0..NODES).all(|place| records(place) == 1));
    // NB: nothing is asked of the session meanwhile: each use would prolong it.
    until("it is forgotten everywhere", || (0..NODES).all(|place| records(place) == 0));
    for number in [1, 2] {
        let reply = cluster.run(&format!("HOLDFAST ONCE {id} {number} 1 APPEND log x"));
        assert!(reply.is_error("SESSIONEXPIRED"), "{reply}");
    }
    assert_eq!(cluster.run("GET log").text(), "x");
    let id = session(&cluster);
    assert_eq!(cluster.run(&format!("HOLDFAST ONCE {id} 1 1 APPEND log y")), Value::Int(2));
}

/// A figure of the section on sessions.
fn info(client: &mut Client, name: &str) -> u64 {
    let text = client.run("INFO sessions").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn cluster_clients_are_told_where_numbered_writes_belong() {
    let cluster = Cluster::start();
    let leader = cluster.leader();
    let id = session(&cluster);
    for place in cluster.others(leader) {
        let mut client = cluster.client(place);
        let leader = cluster.address(leader);
        let reply = client.run(&format!("HOLDFAST ONCE {id} 1 1 SET foo bar"));
        assert_eq!(reply, Value::Error(format!("MOVED 12182 {leader}")));
        assert_eq!(client.run("HOLDFAST SESSION NEW"), Value::Error(format!("MOVED 0 {leader}")));
        assert!(client.run("HOLDFAST SESSION OLD").is_error("ERR syntax error"));
    }
    let mut client = cluster.client(leader);
    let once = format!("HOLDFAST ONCE {id} 1 1");
    let keys = client.run(&format!("COMMAND GETKEYS {once} MSET {{a}}1 x {{a}}2 y"));
    assert_eq!(keys.items().iter().map(Value::text).collect::<Vec<_>>(), ["{a}1", "{a}2"]);
    let keys = client.run(&format!("COMMAND GETKEYS {once} BITOP AND {{a}}d {{a}}1 {{a}}2"));
    assert_eq!(keys.items().len(), 3);
    assert!(client.run(&format!("COMMAND GETKEYS {once} {once} SET k v")).is_error("ERR Invalid arguments"));
    let flags = client.run(&format!("COMMAND GETKEYSANDFLAGS {once} DEL k"));
    assert_eq!(flags.items()[0].items()[0].text(), "k");
    let about = client.run("COMMAND INFO holdfast|once");
    let row: Vec<String> = about.items()[0].items()[3..6].iter().map(|number| number.int().to_string()).collect();
    assert_eq!(row, ["6", "6", "1"], "the first key, the last that is known, the step");
    let (run, replayed) = (info(&mut client, "session_writes_run"), info(&mut client, "session_writes_replayed"));
    for _ in 0..3 {
        assert_eq!(client.run(&format!("HOLDFAST ONCE {id} 1 1 BITOP AND {{a}}d {{a}}1 {{a}}2")), Value::Int(0));
    }
    until("what was run and answered again is counted", || {
        info(&mut client, "session_writes_run") == run + 1
            && info(&mut client, "session_writes_replayed") == replayed + 2
    });
}

#[test]
fn stored_answers_are_given_in_the_protocol_of_whoever_asks() {
    let dir = folder();
    let server = Server::start(dir.path());
    let (mut old, mut new) = (Client::connect(server.address), Client::connect(server.address));
    assert!(matches!(new.run("HELLO 3"), Value::Map(_)));
    let id = old.run("HOLDFAST SESSION NEW").text();
    let nx = format!("HOLDFAST ONCE {id} 2 1 SET k w NX");
    assert!(old.run(&format!("HOLDFAST ONCE {id} 1 1 SET k v")).is_ok());
    assert_eq!((old.run(&nx), new.run(&nx), old.run(&nx)), (Value::NullBulk, Value::Null, Value::NullBulk));
    let fields = format!("HOLDFAST ONCE {id} 3 1 BITFIELD k OVERFLOW FAIL INCRBY u2 0 3 SET u8 8 7");
    assert_eq!(new.run(&fields).items().len(), 2);
    assert_eq!(old.run(&fields).items().len(), 2);
    // In one pipeline, between other commands: replies in order.
    let lines = [nx.as_str(), "GET k", &format!("HOLDFAST ONCE {id} 4 1 APPEND log x"), "STRLEN log", &fields];
    let batch: Vec<u8> =
        lines.iter().flat_map(|line| encode(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>())).collect();
    old.send(&batch);
    assert_eq!(old.reply(), Value::NullBulk);
    assert_eq!(old.reply().bytes().len(), 2);
    assert_eq!((old.reply(), old.reply()), (Value::Int(1), Value::Int(1)));
    assert_eq!(old.reply().items().len(), 2);
    // A numbered write of a key that is only in the store.
    drop((old, new));
    assert!(server.terminate().success());
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    assert_eq!(client.run(&format!("HOLDFAST ONCE {id} 5 4 APPEND log y")), Value::Int(2));
    assert_eq!(client.run(&format!("HOLDFAST ONCE {id} 4 4 APPEND log x")), Value::Int(1));
    assert!(client.run(&format!("HOLDFAST ONCE {id} 3 3 APPEND log x")).is_error("SESSIONACKED"));
}

/// The memory that a server holds once its start has settled: it changes hardly any more for two hundred looks.
fn settled_bytes(pid: u32) -> usize {
    let (mut seen, mut looks) = (0_usize, 0);
    until("the start has settled", || {
        let now = resident_bytes(pid);
        looks += 1;
        if now.abs_diff(seen) > 128 << 10 {
            (seen, looks) = (now, 0);
        }
        looks >= 200
    });
    seen
}

/// The catalogue's MemManyClients. What they cost is the difference between a server that knows them and one that doesn't yet, both
/// just started: while it runs, buffers and the log's tail hide it.
#[test]
fn hundred_thousand_idle_sessions_cost_at_most_200_bytes_each() {
    const SESSIONS: usize = 100_000;
    const BATCH: usize = 2_000;
    let dir = folder();
    let restarted = |server: Server| {
        assert!(server.terminate().success());
        // So small that memory comes in small pages: with huge ones, 2 MiB more or less are resident from one start to the next.
        // And with a log so short that hardly any of it is to be read again.
        let limits = ["--memory-budget", "32MiB", "--value-bytes-max", "1MiB", "--log-bytes-max", "4MiB"];
        let server = Server::start_with(dir.path(), &[&limits[..], &["--log-segment-bytes", "1MiB"]].concat());
        let client = Client::connect(server.address);
        (server, client)
    };
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    let mut ids = Vec::new();
    for _ in 0..SESSIONS / BATCH {
        client.socket().write_all(&encode(&[b"HOLDFAST", b"SESSION", b"NEW"]).repeat(BATCH)).expect("send");
        ids.extend((0..BATCH).map(|_| client.reply().text()));
    }
    // Starts differ by a megabyte or two, so several are measured.
    let measured = |mut server: Server, records: u64| {
        let mut found = Vec::new();
        for _ in 0..3 {
            let (next, mut client) = restarted(server);
            assert_eq!(info(&mut client, "session_records"), records);
            found.push(settled_bytes(next.pid()));
            server = next;
        }
        (server, found)
    };
    // A session that wrote nothing costs nothing.
    let (server, before) = measured(server, 0);
    let mut client = Client::connect(server.address);
    let mut counter = 0;
    for batch in ids.chunks(BATCH) {
        let once = |id: &String| encode(&[b"HOLDFAST", b"ONCE", id.as_bytes(), b"1", b"1", b"INCR", b"counter"]);
        client.socket().write_all(&batch.iter().flat_map(once).collect::<Vec<u8>>()).expect("send");
        for _ in batch {
            counter += 1;
            assert_eq!(client.reply(), Value::Int(counter));
        }
    }
    until("all are counted", || info(&mut client, "session_records") == SESSIONS as u64);
    let counted = info(&mut client, "session_bytes") as usize / SESSIONS;
    let (server, after) = measured(server, SESSIONS as u64);
    let least = |found: &[usize]| found.iter().copied().min().unwrap_or(0);
    let resident = least(&after).saturating_sub(least(&before)) / SESSIONS;
    println!("a session costs {counted} bytes by the account, {resident} resident");
    assert!(counted <= 200 && resident <= 200, "{counted} by the account, {resident} resident");
    // They are all remembered, and a kill changes nothing.
    server.kill();
    let server = Server::start(dir.path());
    let mut client = Client::connect(server.address);
    for (at, id) in ids.iter().enumerate().step_by(9_999) {
        assert_eq!(client.run(&format!("HOLDFAST ONCE {id} 1 1 INCR counter")), Value::Int(at as i64 + 1));
    }
    assert_eq!(client.run("GET counter").text(), SESSIONS.to_string());
}
