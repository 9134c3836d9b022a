//! Sessions against a replica's table, through the log's bytes: answers, restarts, snapshots, and a model.

use super::*;
use crate::cluster::Members;
use crate::command::{Exec, VALUE_BYTES_MAX_DEFAULT};
use crate::entry::{EntryBuilder, EntryReader};
use crate::replica::{GroupKeyspace, Replica, SessionEffect};
use crate::resp::{Proto, Reply, Value};
use crate::slot::slot_of;
use bytes::Bytes;
use holdfast_engine::ledger::Ledger;
use holdfast_engine::store::MemStore;
use holdfast_engine::table::{FlusherMode, Tables, TablesOptions, ViewRow};
use holdfast_engine::vfs::OsVfs;
use holdfast_raft::{ConfState, Config, Entry, EntryKind, InitialState, LogError, LogReader, Raft};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: u64 = 1;
/// When the tests begin, by the group's time.
const START_MS: u64 = 1_700_000_000_000;
const LIMITS: SessionLimits = SessionLimits { retention_seconds: 10, bytes_max: 1 << 20 };

/// Raft is only there because a replica has one.
#[derive(Debug)]
struct NoLog;

impl LogReader for NoLog {
    fn first_index(&self) -> u64 {
        1
    }

    fn last_index(&self) -> u64 {
        0
    }

    fn term(&self, index: u64) -> Result<u64, LogError> {
        if index == 0 { Ok(0) } else { Err(LogError::Compacted) }
    }

    fn entries(&self, _: u64, _: u64, _: usize) -> Result<Vec<Entry>, LogError> {
        Err(LogError::Compacted)
    }
}

/// A replica, its store, and the log that it was made from.
struct World {
    store: MemStore,
    tables: Tables,
    replica: Replica,
    log: Vec<Bytes>,
    now_ms: u64,
    effects: Vec<SessionEffect>,
}

fn open(store: &MemStore) -> (Tables, Replica) {
    let options = TablesOptions { flusher: FlusherMode::Inline, ..TablesOptions::new("/nowhere") };
    let ledger = Arc::new(Ledger::new(64 << 20));
    let tables = Tables::with_store(OsVfs::shared(), options, ledger, Box::new(store.clone())).unwrap();
    let table = tables.table(GROUP).unwrap();
    let conf_state = ConfState::of_voters([1]);
    let initial = InitialState { hard_state: holdfast_raft::HardState::default(), conf_state, applied: 0 };
    let raft = Raft::new(Config::new(1), initial, 0, &NoLog).unwrap();
    (tables, Replica::new(GROUP, raft, table, Members::default(), 0))
}

impl World {
    fn new() -> Self {
        let store = MemStore::persistent();
        let (tables, replica) = open(&store);
        World { store, tables, replica, log: Vec::new(), now_ms: START_MS, effects: Vec::new() }
    }

    /// Appends an entry of these requests, and applies it. Requests that are refused before they are logged answer so.
    fn entry(&mut self, requests: &[&str], limits: SessionLimits) -> Vec<Value> {
        let mut builder = EntryBuilder::default();
        let mut refused = Vec::new();
        for (at, request) in requests.iter().enumerate() {
            let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            let spec = command::resolve(&args).unwrap();
            match spec.handler {
                Handler::NewSession => builder.push(internal::SESSION_NEW, &[b"", &limits.encode()]),
                Handler::Once => match OnceCall::parse(&args, limits) {
                    Ok(call) => builder.push(internal::SESSION_ONCE, &call.logged()),
                    Err(failure) => refused.push((at, Value::Error(failure.text().to_owned()))),
                },
                _ => builder.push(spec.id, &args),
            }
        }
        let payload = builder.finish(self.now_ms, VALUE_BYTES_MAX_DEFAULT);
        self.log.push(payload.clone());
        let mut values = self.apply(self.log.len() as u64, &payload);
        for (at, value) in refused {
            values.insert(at, value);
        }
        values
    }

    fn ask(&mut self, request: &str) -> Value {
        self.entry(&[request], LIMITS).remove(0)
    }

    fn session(&mut self) -> String {
        self.ask("HOLDFAST SESSION NEW").as_text().unwrap().into_owned()
    }

    fn apply(&mut self, index: u64, payload: &Bytes) -> Vec<Value> {
        let mut reader = EntryReader::new(payload).unwrap();
        self.replica.begin_apply(index, reader.stamp_ms());
        let mut values = Vec::new();
        let mut args = Vec::new();
        let mut op = 0;
        while let Some(number) = reader.next(&mut args).unwrap() {
            op += 1;
            let mut reply = Reply::new(Proto::Resp3);
            if Replica::is_session(number) {
                let value_bytes_max = reader.value_bytes_max();
                let effect = self.replica.apply_session(number, &args, op, value_bytes_max, true, &mut reply).unwrap();
                self.effects.push(effect);
            } else {
                let now_ms = self.replica.time_ms();
                let mut keys = GroupKeyspace::new(&mut self.replica, false, true, op);
                let value_bytes_max = VALUE_BYTES_MAX_DEFAULT;
                let mut exec = Exec { keys: &mut keys, args: &args, reply: &mut reply, now_ms, value_bytes_max };
                command::by_id(number).unwrap().execute(&mut exec);
            }
            values.extend(Value::parse_all(&reply.output().to_vec()).unwrap());
        }
        let entry = Entry { term: 1, index, kind: EntryKind::Normal, payload: payload.clone() };
        self.replica.finish_entry(&entry, None);
        values
    }

    fn flush(&mut self) {
        self.replica.table.request_flush();
        self.replica.table.maintain(1_000, u64::MAX).unwrap();
    }

    /// The node is killed and started: the store, and the log above it.
    fn restart(&mut self) {
        let (tables, replica) = open(&self.store);
        (self.tables, self.replica) = (tables, replica);
        self.catch_up();
    }

    /// Another node takes over, which has a snapshot, and of the log only what is above it.
    fn replace(&mut self) {
        let view = self.replica.table.view().unwrap();
        let store = MemStore::persistent();
        let (tables, mut replica) = open(&store);
        let incarnation = view.applied().index << 20;
        let job = replica.table.install(&view.header(), incarnation.max(1)).unwrap();
        let installed = job.run(&mut view.rows(0, u16::MAX)).unwrap();
        replica.table.finish_install(installed);
        replica.adopt_snapshot(Members::default());
        drop(view);
        (self.store, self.tables, self.replica) = (store, tables, replica);
        self.catch_up();
    }

    fn catch_up(&mut self) {
        for index in self.replica.applied().index + 1..=self.log.len() as u64 {
            let payload = self.log[index as usize - 1].clone();
            self.apply(index, &payload);
        }
    }

    /// Everything that replicas must agree on, but for incarnations.
    fn rows(&mut self) -> Vec<ViewRow> {
        self.replica.table.view().unwrap().rows(0, u16::MAX).map(Result::unwrap).collect()
    }

    fn get(&mut self, key: &str) -> String {
        self.ask(&format!("GET {key}")).as_text().unwrap_or_default().into_owned()
    }
}

fn error_code(value: &Value) -> &str {
    match value {
        Value::Error(text) => text.split(' ').next().unwrap_or_default(),
        _ => "",
    }
}

#[test]
fn retry_gets_the_first_answer_and_changes_nothing() {
    let mut world = World::new();
    let id = world.session();
    let append = format!("HOLDFAST ONCE {id} 1 1 APPEND log a");
    assert_eq!(world.ask(&append), Value::Int(1));
    assert_eq!(world.ask("APPEND log b"), Value::Int(2));
    for _ in 0..3 {
        assert_eq!(world.ask(&append), Value::Int(1));
    }
    assert_eq!(world.get("log"), "ab");
    // Twice in one entry: the second finds what the first left.
    let twice = format!("HOLDFAST ONCE {id} 2 1 INCR n");
    assert_eq!(world.entry(&[&twice, "INCR n", &twice], LIMITS), [Value::Int(1), Value::Int(2), Value::Int(1)]);
    assert_eq!(world.effects.iter().filter(|effect| matches!(effect, SessionEffect::Replayed)).count(), 4);
}

#[test]
fn errors_and_nulls_are_answers_too() {
    let mut world = World::new();
    let id = world.session();
    world.ask("SET text letters");
    let fails = format!("HOLDFAST ONCE {id} 0 0 INCR text");
    assert_eq!(error_code(&world.ask(&fails)), "ERR");
    world.ask("SET text 5");
    assert_eq!(error_code(&world.ask(&fails)), "ERR", "as the first time, although it would succeed now");
    let null = format!("HOLDFAST ONCE {id} 1 0 SET text x NX");
    assert_eq!(world.ask(&null), Value::Null);
    world.ask("DEL text");
    assert_eq!(world.ask(&null), Value::Null);
    let mut reply = Reply::new(Proto::Resp2);
    write_reply(b"_\r\n", &mut reply);
    write_reply(b"*2\r\n:1\r\n_\r\n", &mut reply);
    write_reply(b"$2\r\nhi\r\n", &mut reply);
    write_reply(b"-ERR no\r\n", &mut reply);
    assert_eq!(reply.output().to_vec(), b"$-1\r\n*2\r\n:1\r\n$-1\r\n$2\r\nhi\r\n-ERR no\r\n");
}

#[test]
fn numbers_are_refused_below_the_mark_beyond_the_window_and_for_another_command() {
    let mut world = World::new();
    let id = world.session();
    let mut once =
        |number: u64, low: u64, command: &str| world.ask(&format!("HOLDFAST ONCE {id} {number} {low} {command}"));
    assert_eq!(once(5, 3, "INCR {s}n"), Value::Int(1));
    assert_eq!(error_code(&once(5, 3, "INCR {s}m")), "SESSIONMISMATCH");
    assert_eq!(error_code(&once(5, 3, "INCRBY {s}n 1")), "SESSIONMISMATCH");
    assert_eq!(error_code(&once(2, 3, "INCR {s}n")), "SESSIONACKED");
    assert_eq!(once(6, 6, "INCR {s}n"), Value::Int(2));
    // A late copy of a request that was acknowledged since: its own mark is old.
    assert_eq!(error_code(&once(5, 3, "INCR {s}n")), "SESSIONACKED");
    assert_eq!(error_code(&once(4, 3, "INCR {s}n")), "SESSIONACKED", "never sent before, but below the mark");
    assert_eq!(error_code(&once(6 + WINDOW, 6, "INCR {s}n")), "SESSIONWINDOW");
    assert_eq!(once(5 + WINDOW, 6, "INCR {s}n"), Value::Int(3));
    assert_eq!(once(7, 3, "INCR {s}n"), Value::Int(4), "order is the client's affair");
    assert_eq!(once(7, 3, "INCR elsewhere"), Value::Int(1), "another slot knows nothing of it");
}

#[test]
fn long_replies_are_remembered_without_their_text() {
    let mut world = World::new();
    let id = world.session();
    let long = "x".repeat(REPLY_BYTES_MAX + 1);
    world.ask(&format!("SET k {long}"));
    let swap = format!("HOLDFAST ONCE {id} 1 0 GETSET k short");
    assert_eq!(world.ask(&swap), Value::Bulk(long.into_bytes()));
    assert_eq!(error_code(&world.ask(&swap)), "SESSIONAPPLIED");
    assert_eq!(world.get("k"), "short");
}

#[test]
fn session_is_over_a_retention_after_its_last_use() {
    let mut world = World::new();
    let (used, unused) = (world.session(), world.session());
    let once = |id: &str, number: u64| format!("HOLDFAST ONCE {id} {number} 1 APPEND log {number}");
    world.now_ms += 9_999;
    assert_eq!(world.ask(&once(&used, 1)), Value::Int(1));
    world.now_ms += 1;
    assert_eq!(error_code(&world.ask(&once(&unused, 1))), "SESSIONEXPIRED");
    world.now_ms += 9_998;
    assert_eq!(world.ask(&once(&used, 1)), Value::Int(1), "a retry is a use");
    world.now_ms += 9_999;
    assert_eq!(world.ask(&once(&used, 2)), Value::Int(2));
    world.now_ms += 10_000;
    for number in 1..4 {
        assert_eq!(error_code(&world.ask(&once(&used, number))), "SESSIONEXPIRED", "{number}");
    }
    assert_eq!(world.get("log"), "12");
    // Another slot has no record of it, and its age is enough to refuse it.
    assert_eq!(error_code(&world.ask(&format!("HOLDFAST ONCE {used} 9 1 SET elsewhere 1"))), "SESSIONEXPIRED");
}

#[test]
fn forgotten_session_stays_over_whatever_the_setting_says_later() {
    let mut world = World::new();
    let id = world.session();
    let once = format!("HOLDFAST ONCE {id} 1 1 INCR n");
    assert_eq!(world.ask(&once), Value::Int(1));
    world.now_ms += 10_000;
    let (after, old) = world.replica.old_sessions(None, 1, world.now_ms);
    assert_eq!((after.is_some(), old.len()), (true, 1));
    assert_eq!(world.replica.old_sessions(after, 1, world.now_ms), (None, Vec::new()), "it begins anew");
    let mut builder = EntryBuilder::default();
    builder.push(internal::SESSION_SWEEP, &[b"", &old[0], b"nonsense"]);
    let payload = builder.finish(world.now_ms, 0);
    world.log.push(payload.clone());
    world.apply(world.log.len() as u64, &payload);
    assert_eq!(world.replica.session_figures(), (0, 0));
    let longer = SessionLimits { retention_seconds: 1000, ..LIMITS };
    assert_eq!(error_code(&world.entry(&[&once], longer)[0]), "SESSIONEXPIRED");
}

#[test]
fn sweep_spares_sessions_that_were_used_meanwhile() {
    let mut world = World::new();
    let id = world.session();
    assert_eq!(world.ask(&format!("HOLDFAST ONCE {id} 1 1 INCR n")), Value::Int(1));
    let (_, old) = world.replica.old_sessions(None, 9, world.now_ms + 10_000);
    world.now_ms += 5_000;
    world.ask(&format!("HOLDFAST ONCE {id} 2 1 INCR n"));
    let mut builder = EntryBuilder::default();
    builder.push(internal::SESSION_SWEEP, &[b"", &old[0]]);
    let payload = builder.finish(world.now_ms, 0);
    world.log.push(payload.clone());
    world.apply(world.log.len() as u64, &payload);
    assert_eq!(world.replica.session_figures().0, 1);
}

#[test]
fn flushall_lets_no_write_take_effect_again() {
    let mut world = World::new();
    let id = world.session();
    let append = format!("HOLDFAST ONCE {id} 1 1 APPEND log a");
    assert_eq!(world.ask(&append), Value::Int(1));
    world.ask("FLUSHALL");
    world.flush();
    world.restart();
    assert_eq!(world.ask(&append), Value::Int(1));
    assert_eq!(world.get("log"), "");
}

#[test]
fn new_sessions_are_refused_when_there_is_no_room_and_live_ones_go_on() {
    let mut world = World::new();
    let limits = SessionLimits { bytes_max: 2_000, ..LIMITS };
    let sessions: Vec<String> = (0..20).map(|_| world.session()).collect();
    let call = |id: &str, number: u64| format!("HOLDFAST ONCE {id} {number} 1 INCR n");
    let answers: Vec<Value> = sessions.iter().map(|id| world.entry(&[&call(id, 1)], limits).remove(0)).collect();
    let live = answers.iter().take_while(|answer| **answer != Value::Error(FULL.to_owned())).count();
    assert!((8..20).contains(&live), "{live}");
    assert!(answers[live..].iter().all(|answer| error_code(answer) == "SESSIONFULL"));
    assert_eq!(world.entry(&["HOLDFAST SESSION NEW"], limits), [Value::Error(FULL.to_owned())]);
    assert_eq!(world.entry(&[&call(&sessions[0], 1)], limits), [Value::Int(1)], "what lives is not forgotten");
    let mut taken = live as i64;
    for number in 2..=WINDOW {
        let answer = world.entry(&[&call(&sessions[0], number)], limits).remove(0);
        if error_code(&answer) == "SESSIONFULL" {
            break;
        }
        taken += 1;
        assert_eq!(answer, Value::Int(taken));
    }
    assert!(world.replica.session_figures().1 < 3_100, "half as much more, and the last reply");
    // Acknowledging makes room again.
    let answer = world.entry(&[&format!("HOLDFAST ONCE {} 128 128 INCR n", sessions[0])], limits).remove(0);
    assert!(matches!(answer, Value::Int(_)), "{answer:?}");
}

#[test]
fn requests_that_are_no_writes_of_one_slot_are_refused() {
    let mut world = World::new();
    let id = world.session();
    let mut refused = |rest: &str| match world.ask(&format!("HOLDFAST ONCE {rest}")) {
        Value::Error(text) => text,
        other => panic!("{rest}: {other:?}"),
    };
    let once = |command: &str| format!("{id} 1 1 {command}");
    assert!(refused(&once("GET k")).contains("'get' does not"));
    assert!(refused(&once("FLUSHALL ASYNC")).contains("names none"));
    assert!(refused(&once("CLIENT ID")).contains("'client|id' does not"));
    assert!(refused(&once(&format!("HOLDFAST ONCE {id} 1 1 INCR k"))).contains("does not"));
    assert!(refused(&once("NOSUCH k")).starts_with("ERR unknown command"));
    assert!(refused(&once("SET k")).starts_with("ERR wrong number of arguments"));
    assert!(refused(&once("MSET a 1 b 2")).starts_with("CROSSSLOT"));
    assert!(refused("short 1 1 INCR k").starts_with("ERR invalid session id"));
    let mut typo = id.clone().into_bytes();
    typo[7] = if typo[7] == b'0' { b'1' } else { b'0' };
    assert!(refused(&format!("{} 1 1 INCR k", String::from_utf8(typo).unwrap())).starts_with("ERR invalid session id"));
    assert!(refused(&format!("{id} x 1 INCR k")).contains("not an integer"));
    assert!(refused(&format!("{id} 1 -1 INCR k")).contains("not an integer"));
    let future = SessionId::issue(START_MS + ISSUE_SKEW_MS + 1, 10, GROUP, 1);
    assert!(refused(&format!("{future} 1 1 INCR k")).starts_with("ERR invalid session id"));
    assert_eq!(world.ask(&format!("HOLDFAST ONCE {id} 1 1 MSET {{a}}1 1 {{a}}2 2")), Value::Simple("OK".to_owned()));
    assert_eq!(world.get("n"), "");
}

#[test]
fn ids_say_what_they_are_and_are_never_given_twice() {
    let mut world = World::new();
    let ids = world.entry(&["HOLDFAST SESSION NEW"; 50], LIMITS);
    let mut ids: Vec<_> = ids.iter().map(|id| id.as_text().unwrap().into_owned()).collect();
    ids.push(world.session());
    let parsed = SessionId::parse(ids[3].to_uppercase().as_bytes()).unwrap();
    assert_eq!((parsed.issued_ms(), parsed.deadline_ms(0)), (START_MS, START_MS + 10_000));
    assert_eq!(parsed.to_string(), ids[3]);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 51);
}

#[test]
fn client_library_keeps_to_the_window() {
    assert_eq!(holdfast_client::session::WINDOW, WINDOW);
}

#[test]
fn record_bytes_are_as_documented() {
    let mut record = Record::default();
    record.advance(START_MS, 300);
    assert_eq!(record.encode().len(), 10, "an idle session");
    record.keep(302, 0x0403_0201, Some(b"+OK\r\n"));
    record.keep(300, 7, None);
    let bytes = record.encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "0180d095ffbc31ac0202000700000000020102030406 2b4f4b0d0a".replace(' ', ""));
    assert_eq!(Record::decode(&bytes), Some(record));
    for cut in 0..bytes.len() {
        assert_eq!(Record::decode(&bytes[..cut]), None, "{cut}");
    }
    let id = SessionId::issue(0x0102_0304_0506, 0x0708, 9, 0x0a0b);
    assert_eq!(id.to_string(), "0102030405060000070800000009000000000000 0a0b4525".replace(' ', ""));
}

#[derive(Debug, Clone)]
enum Event {
    /// Session, number above the mark, slot, and which command.
    Call {
        session: usize,
        number: u64,
        lag: u64,
        slot: u8,
        kind: u8,
    },
    Acknowledge {
        session: usize,
        by: u64,
    },
    Begin,
    Pass(u64),
    FlushAll,
    Flush,
    Restart,
    Replace,
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => (0..4usize, 0..6u64, 0..3u64, 0..2u8, 0..4u8)
            .prop_map(|(session, number, lag, slot, kind)| Event::Call { session, number, lag, slot, kind }),
        4 => (0..4usize, 0..3u64).prop_map(|(session, by)| Event::Acknowledge { session, by }),
        2 => Just(Event::Begin),
        3 => (0..8_000u64).prop_map(Event::Pass),
        1 => Just(Event::FlushAll),
        2 => Just(Event::Flush),
        1 => Just(Event::Restart),
        1 => Just(Event::Replace),
        1 => Just(Event::Sweep),
    ]
}

/// What a slot must remember of a session.
#[derive(Debug, Default)]
struct Remembered {
    used_ms: u64,
    mark: u64,
    answers: BTreeMap<u64, (String, Value)>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Retries, late copies with old marks, expiry, flushes, restarts from the store and the log, and replicas made from
    /// snapshots: each answer is what the model says, and each write is in the data at most once.
    #[test]
    fn sessions_agree_with_a_model(events in proptest::collection::vec(event(), 1..120)) {
        let mut world = World::new();
        let mut sessions = vec![(world.session(), START_MS, 1u64)];
        let mut model: BTreeMap<(u16, String), Remembered> = BTreeMap::new();
        let mut logs = [String::new(), String::new()];
        for event in events {
            match event {
                Event::Call { session, number, lag, slot, kind } => {
                    let (id, issued_ms, mark) = sessions[session % sessions.len()].clone();
                    let (number, low) = (mark + number, mark.saturating_sub(lag));
                    let token = format!("{}.{number};", session % sessions.len());
                    let key = ["{a}log", "{b}log"][usize::from(slot)];
                    let command = match kind {
                        0 | 1 => format!("APPEND {key} {token}"),
                        2 => format!("SET {key}.{number} x NX"),
                        _ => format!("INCR {key}.text"),
                    };
                    let answer = world.ask(&format!("HOLDFAST ONCE {id} {number} {low} {command}"));
                    let remembered = model.entry((slot_of(key.as_bytes()), id)).or_default();
                    let deadline = remembered.used_ms.max(issued_ms) + 10_000;
                    if deadline <= world.now_ms {
                        prop_assert_eq!(error_code(&answer), "SESSIONEXPIRED");
                        continue;
                    }
                    remembered.used_ms = world.now_ms;
                    remembered.mark = remembered.mark.max(low);
                    let mark = remembered.mark;
                    remembered.answers.retain(|number, _| *number >= mark);
                    match remembered.answers.get(&number) {
                        _ if number < mark => prop_assert_eq!(error_code(&answer), "SESSIONACKED"),
                        Some((before, _)) if *before != command => {
                            prop_assert_eq!(error_code(&answer), "SESSIONMISMATCH");
                        }
                        Some((_, before)) => prop_assert_eq!(&answer, before),
                        None => {
                            if command.starts_with("APPEND") {
                                let log = &mut logs[usize::from(slot)];
                                log.push_str(&token);
                                prop_assert_eq!(&answer, &Value::Int(log.len() as i64));
                            }
                            remembered.answers.insert(number, (command, answer));
                        }
                    }
                }
                Event::Acknowledge { session, by } => {
                    let session = session % sessions.len();
                    sessions[session].2 += by;
                }
                Event::Begin if sessions.len() < 4 => {
                    let id = world.session();
                    sessions.push((id, world.now_ms, 1));
                }
                Event::Begin => {
                    let id = world.session();
                    sessions[0] = (id, world.now_ms, 1);
                }
                Event::Pass(ms) => world.now_ms += ms,
                Event::FlushAll => {
                    world.ask("FLUSHALL");
                    logs = Default::default();
                }
                Event::Flush => world.flush(),
                Event::Restart => world.restart(),
                Event::Replace => world.replace(),
                Event::Sweep => {
                    let (_, old) = world.replica.old_sessions(None, 100, world.now_ms);
                    let mut builder = EntryBuilder::default();
                    let mut args: Vec<&[u8]> = vec![b""];
                    args.extend(old.iter().map(Vec::as_slice));
                    builder.push(internal::SESSION_SWEEP, &args);
                    let payload = builder.finish(world.now_ms, 0);
                    world.log.push(payload.clone());
                    world.apply(world.log.len() as u64, &payload);
                }
            }
        }
        for (key, log) in ["{a}log", "{b}log"].iter().zip(&logs) {
            prop_assert_eq!(&world.get(key), log);
        }
        // A replica that has only the log comes to the same rows.
        let rows = world.rows();
        world.store = MemStore::persistent();
        world.restart();
        prop_assert_eq!(world.rows(), rows);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() { *first = 1; }
        if let Some(record) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }
        let _ = Record::used_ms_of(&bytes);
        let _ = OnceHead::decode(&bytes);
        let _ = SessionLimits::decode(&bytes);
        let _ = SessionId::parse(&bytes);
    }
}
