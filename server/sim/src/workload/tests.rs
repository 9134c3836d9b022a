//! What clients do with replies, silence and refusals.

use super::*;
use crate::check::{Answer, STEPS_MAX, check};

/// One client without pauses that sends one command at a time, on counters only.
fn settings() -> WorkloadSettings {
    WorkloadSettings {
        clients: 1,
        keys: BTreeMap::from([(KeyKind::Counter, 1)]),
        pipeline_max: 1,
        think_us: 0..=0,
        retry_us: 1000..=1000,
        ..WorkloadSettings::new(3)
    }
}

fn workload(settings: WorkloadSettings) -> Workload {
    Workload::new(&Random::new(1), settings, 0, |address| address.port.checked_sub(7000).map(u32::from))
}

fn sends(actions: &[Action]) -> Vec<(u32, u32, u32)> {
    let send = |action: &Action| match action {
        Action::Send { client, connection, node, .. } => Some((*client, *connection, *node)),
        Action::Close { .. } => None,
    };
    actions.iter().filter_map(send).collect()
}

fn outcomes(workload: &Workload) -> Vec<Outcome> {
    workload.history().calls().map(|(_, call)| call.outcome.clone()).collect()
}

#[test]
fn answered_operation_has_its_answer_and_its_times() {
    let mut workload = workload(settings());
    assert_eq!(workload.next_time(), 0);
    let (_, connection, _) = sends(&workload.tick(0))[0];
    // Every command on a counter but GET takes a number.
    let reply: &[u8] = match workload.history().calls().next().unwrap().1.operation {
        Operation::Get => b"$1\r\n7\r\n",
        _ => b":7\r\n",
    };
    assert!(workload.receive(40, 1, connection, &reply[..2]).is_empty());
    workload.receive(50, 1, connection, &reply[2..]);
    let (_, call) = workload.history().calls().next().unwrap();
    assert_eq!((call.called_us, call.returned_us), (0, Some(50)));
    assert!(matches!(&call.outcome, Outcome::Answered(Answer::Number(7) | Answer::Value(Some(_)))));
    assert_eq!(workload.next_time(), 50, "it asks again at once");
    assert_eq!(sends(&workload.tick(50))[0].1, connection, "on the same connection");
}

#[test]
fn silence_leaves_an_unknown_outcome_and_the_connection_is_given_up() {
    let mut workload = workload(settings());
    let (client, connection, node) = sends(&workload.tick(0))[0];
    let gives_up_at = workload.next_time();
    assert_eq!(gives_up_at, 2 * SECOND);
    assert_eq!(workload.tick(gives_up_at), [Action::Close { client, connection, node }]);
    assert_eq!(outcomes(&workload), [Outcome::Unknown]);
    // The late reply is not taken for that of the next command.
    let (_, next, _) = sends(&workload.tick(gives_up_at + 1000))[0];
    assert_ne!(next, connection);
    assert!(workload.receive(gives_up_at + 1001, client, connection, b":1\r\n").is_empty());
    assert_eq!(outcomes(&workload), [Outcome::Unknown, Outcome::Unknown]);
    assert_eq!(workload.counts(), WorkloadCounts { answered: 0, unknown: 1, failed: 0 });
}

#[test]
fn moved_is_a_certain_failure_and_is_followed() {
    let mut workload = workload(settings());
    let (_, connection, node) = sends(&workload.tick(0))[0];
    let target = node % 3 + 1;
    let moved = format!("-MOVED 7 127.0.0.1:{}\r\n", 7000 + target);
    workload.receive(10, 1, connection, moved.as_bytes());
    assert_eq!(outcomes(&workload), [Outcome::Failed]);
    let (_, next_connection, next_node) = sends(&workload.tick(1010))[0];
    assert_eq!(next_node, target);
    assert_ne!(next_connection, connection);
}

#[test]
fn broken_connection_leaves_the_outcome_open_and_a_refused_one_does_not() {
    for (loss, outcome) in [(Loss::Broken, Outcome::Unknown), (Loss::Refused, Outcome::Failed)] {
        let mut workload = workload(settings());
        let (_, connection, _) = sends(&workload.tick(0))[0];
        assert!(workload.lost(5, 1, connection, loss).is_empty(), "there is nothing left to close");
        assert_eq!(outcomes(&workload), [outcome]);
        assert!(workload.lost(6, 1, connection, loss).is_empty());
    }
}

#[test]
fn replies_that_make_no_sense_are_anomalies() {
    for (reply, text) in [
        (&b"-ERR value is not an integer or out of range\r\n"[..], "was answered with"),
        (b"+QUEUED\r\n", "was answered with"),
        (b"HTTP/1.1 200 OK\r\n", "got what is no reply"),
        (b":1\r\n:2\r\n$1\r\n1\r\n$1\r\n1\r\n", ""),
    ] {
        let mut workload = workload(settings());
        let (_, connection, _) = sends(&workload.tick(0))[0];
        workload.receive(5, 1, connection, reply);
        assert!(workload.anomalies().first().is_some_and(|anomaly| anomaly.contains(text)), "{reply:?}");
        assert!(workload.client_is_idle());
    }
}

#[test]
fn pipelined_commands_are_answered_in_their_order() {
    let mut workload = workload(WorkloadSettings { pipeline_max: 8, ..settings() });
    let mut counter = 0;
    let mut now = 0;
    let mut rounds_of_several = 0;
    while workload.history().len() < 100 {
        now = workload.next_time().max(now);
        let first = workload.history().len();
        let (_, connection, _) = sends(&workload.tick(now))[0];
        let operations: Vec<Operation> =
            workload.history().calls().skip(first).map(|(_, call)| call.operation.clone()).collect();
        rounds_of_several += u32::from(operations.len() > 1);
        let mut replies = String::new();
        for operation in operations {
            match operation {
                Operation::Increment(by) => {
                    counter += by;
                    replies.push_str(&format!(":{counter}\r\n"));
                }
                _ if first == 0 && counter == 0 => replies.push_str("$-1\r\n"),
                _ => replies.push_str(&format!("${}\r\n{counter}\r\n", counter.to_string().len())),
            }
        }
        now += 10;
        workload.receive(now, 1, connection, replies.as_bytes());
    }
    assert!(rounds_of_several > 5);
    assert_eq!(workload.anomalies(), [] as [String; 0]);
    let verdict = check(workload.history(), STEPS_MAX);
    assert!(verdict.is_pass(), "{verdict}");
}

#[test]
fn keys_are_retired_and_all_of_them_are_read_at_the_end() {
    let mut workload = workload(WorkloadSettings { operations_per_key_max: 3, ..settings() });
    let mut now = 0;
    while workload.history().len() < 10 {
        now = workload.next_time();
        workload.tick(now);
    }
    workload.read_everything(now);
    let mut read = Vec::new();
    for _ in 0..20 {
        if workload.is_done() {
            break;
        }
        now = workload.next_time();
        let first = workload.history().len();
        let actions = workload.tick(now);
        let Some((_, connection, _)) = sends(&actions).first().copied() else { continue };
        let (key, call) = workload.history().calls().nth(first).unwrap();
        assert_eq!(call.operation, Operation::Get);
        read.push(String::from_utf8(key.to_vec()).unwrap());
        // The second read is refused, and asked again.
        let reply: &[u8] = if read.len() == 2 { b"-TRYAGAIN later\r\n" } else { b"$-1\r\n" };
        workload.receive(now, 1, connection, reply);
    }
    assert!(workload.is_done());
    let refused = read.remove(1);
    assert!(read.contains(&refused));
    read.sort();
    assert_eq!(read, ["counter-0.0", "counter-0.1", "counter-0.2", "counter-0.3"]);
}

#[test]
fn key_with_many_unknown_outcomes_is_retired() {
    let mut workload = workload(WorkloadSettings { unknown_per_key_max: 2, ..settings() });
    while workload.history().len() < 20 {
        let now = workload.next_time();
        workload.tick(now);
    }
    let mut writes: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for (key, call) in workload.history().calls() {
        *writes.entry(key.to_vec()).or_default() += u32::from(call.operation != Operation::Get);
    }
    assert!(writes.len() > 4 && writes.values().all(|count| *count <= 2), "{writes:?}");
}

#[test]
fn same_seed_asks_the_same() {
    let run = |seed| {
        let random = Random::new(seed);
        let mut workload = Workload::new(&random, WorkloadSettings::draw(&random, 3), 0, |_| None);
        let mut actions = Vec::new();
        for _ in 0..50 {
            let now = workload.next_time();
            actions.extend(workload.tick(now));
        }
        actions
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

impl Workload {
    fn client_is_idle(&self) -> bool {
        self.clients.iter().all(Client::is_idle)
    }
}

/// What the client that numbers its writes (the second one) sends next, and when.
fn next_numbered(workload: &mut Workload, mut now: u64) -> (u64, u32, Vec<String>) {
    loop {
        now = workload.next_time().max(now);
        for action in workload.tick(now) {
            if let Action::Send { client: 2, connection, bytes, .. } = action {
                let text = String::from_utf8(bytes).unwrap();
                let words = text.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
                return (now, connection, words.map(str::to_owned).collect());
            }
        }
    }
}

#[test]
fn numbered_write_is_one_operation_until_it_is_answered() {
    let mut workload = workload(WorkloadSettings { session_clients: 1, ..settings() });
    let (mut now, mut connection, words) = next_numbered(&mut workload, 0);
    assert_eq!(words[..3], ["HOLDFAST", "SESSION", "NEW"]);
    workload.receive(now, 2, connection, b"$2\r\nid\r\n");
    let mut asked;
    loop {
        (now, connection, asked) = next_numbered(&mut workload, now);
        if asked[0] == "HOLDFAST" {
            break;
        }
        workload.receive(now, 2, connection, b"$1\r\n0\r\n");
    }
    assert_eq!(asked[1..5], ["ONCE", "id", "1", "1"]);
    let operations = |workload: &Workload| workload.history().calls().filter(|(_, call)| call.client == 2).count();
    let before = operations(&workload);
    // Lost, then refused: it may have been executed, so a refusal is no end to it.
    workload.lost(now, 2, connection, Loss::Broken);
    let (now, connection, again) = next_numbered(&mut workload, now);
    assert_eq!(again, asked);
    workload.receive(now, 2, connection, b"-CLUSTERDOWN The cluster is down\r\n");
    let (now, connection, again) = next_numbered(&mut workload, now);
    assert_eq!(again, asked);
    assert_eq!(operations(&workload), before);
    workload.receive(now, 2, connection, b":1\r\n");
    let open = workload.history().calls().filter(|(_, call)| call.client == 2 && call.returned_us.is_none()).count();
    assert_eq!((open, workload.anomalies().len()), (0, 0));
}
