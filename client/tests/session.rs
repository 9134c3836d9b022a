//! Numbered writes against a server that loses answers on purpose: what is sent again, and under which number?

#![allow(clippy::unwrap_used)]

mod fake;

use std::process::{Command as Process, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use fake::{Action, FakeServer, Words, line};
use holdfast_client::{Client, Command, Config, Error, Outcome, Retry, Value};

/// Ids of sessions that live a minute, and one second.
const MINUTE: &str = "00000000000a0000003c0000000000000000000000000001";
const SECOND: &str = "00000000000a000000010000000000000000000000000002";

fn client(server: &FakeServer, timeout: Duration) -> Client {
    let mut config = Config::new(server.address.to_string().parse().unwrap());
    config.retry = Retry { attempts_max: 3, backoff_min: Duration::from_millis(1), ..Retry::default() };
    config.timeout = timeout;
    Client::new(config).exactly_once()
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn reply(text: impl Into<String>) -> Option<Action> {
    Some(Action::Reply(text.into().into_bytes()))
}

fn bulk(text: &str) -> Option<Action> {
    reply(format!("${}\r\n{text}\r\n", text.len()))
}

/// Answers sessions with these ids in turn, the last one again and again, and leaves numbered writes to `serve`.
fn sessions(
    ids: &'static [&'static str],
    serve: impl Fn(usize, &Words) -> Option<Action> + Send + Sync + 'static,
) -> FakeServer {
    let begun = AtomicUsize::new(0);
    FakeServer::start(move |connection, words| match line(words).as_str() {
        "HOLDFAST SESSION NEW" => bulk(ids[begun.fetch_add(1, SeqCst).min(ids.len() - 1)]),
        _ => serve(connection, words),
    })
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

#[test]
fn write_of_unknown_outcome_is_sent_again_under_its_number() {
    let tries = AtomicUsize::new(0);
    let server = sessions(&[MINUTE], move |_, words| match words[0].as_slice() {
        b"HELLO" | b"CLUSTER" => None,
        _ => match tries.fetch_add(1, SeqCst) {
            0 | 2 => Some(Action::Close),
            1 => reply("-CLUSTERDOWN The cluster is down\r\n"),
            _ => reply(":7\r\n"),
        },
    });
    run(async {
        let client = client(&server, LONG);
        assert_eq!(client.increment("n", 7).await.unwrap(), 7);
        assert_eq!(client.increment("n", 0).await.unwrap(), 7);
    });
    let lines = server.lines();
    let writes: Vec<_> = lines.iter().filter(|line| line.contains("ONCE")).collect();
    let first = format!("HOLDFAST ONCE {MINUTE} 1 1 INCRBY n 7");
    assert_eq!(writes, [&first, &first, &first, &first, &format!("HOLDFAST ONCE {MINUTE} 2 2 INCRBY n 0")]);
    assert_eq!(lines.iter().filter(|line| line.contains("SESSION")).count(), 1, "one session for both");
}

#[test]
fn reads_have_no_number_and_errors_are_answers() {
    let server = sessions(&[MINUTE], |_, words| match line(words) {
        line if line.starts_with("GET") => bulk("v"),
        line if line.contains("ONCE") => reply("-WRONGTYPE Operation against a key\r\n"),
        _ => None,
    });
    run(async {
        let client = client(&server, LONG);
        assert_eq!(client.get("k").await.unwrap().unwrap(), "v");
        let error = client.increment("k", 1).await.unwrap_err();
        assert!(matches!(&error, Error::Server(error) if error.code() == "WRONGTYPE"), "{error}");
        let pipeline = client.pipeline(&[Command::write("INCR").key("k")]).await.unwrap_err();
        assert!(matches!(pipeline, Error::Invalid(_)));
    });
    assert_eq!(server.lines().len(), 3, "{:?}", server.lines());
}

#[test]
fn time_that_is_over_leaves_the_outcome_unknown_until_it_is_sent_again() {
    let tries = AtomicUsize::new(0);
    let server = sessions(&[MINUTE], move |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ if tries.fetch_add(1, SeqCst) == 0 => Some(Action::Silence),
        _ => reply(":1\r\n"),
    });
    run(async {
        let client = client(&server, SHORT);
        let mut write = client.number(Command::write("INCR").key("n")).await.unwrap();
        assert_eq!((write.number(), write.session()), (1, MINUTE));
        let error = write.send().await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert!(matches!(error, Error::Unsettled { .. }), "{error}");
        assert_eq!(tokio::time::timeout(LONG, again(&mut write)).await.unwrap(), Value::Integer(1));
    });
}

/// Sends until there is an answer.
async fn again(write: &mut holdfast_client::NumberedWrite) -> Value {
    loop {
        if let Ok(value) = write.send().await {
            return value;
        }
    }
}

#[test]
fn session_that_is_over_is_renewed_only_if_the_write_did_nothing() {
    let lost_first = |words: &Words| words[3] == b"2";
    let tried = AtomicUsize::new(0);
    let server = sessions(&[MINUTE, SECOND], move |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ if lost_first(words) && tried.fetch_add(1, SeqCst) == 0 => Some(Action::Close),
        _ if words[2] == MINUTE.as_bytes() || lost_first(words) => reply("-SESSIONEXPIRED The session is over\r\n"),
        _ => reply(":1\r\n"),
    });
    run(async {
        let client = client(&server, LONG);
        assert_eq!(client.increment("n", 1).await.unwrap(), 1, "in the second session");
        // The second write is lost at first: whether it was executed before the session was over, nobody knows.
        let error = client.increment("n", 1).await.unwrap_err();
        assert!(matches!(&error, Error::Unsettled { last } if last.to_string().contains("SESSIONEXPIRED")), "{error}");
    });
}

#[test]
fn lost_answer_that_was_not_kept_is_no_unknown_write() {
    let server = sessions(&[MINUTE], |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ => reply("-SESSIONAPPLIED The command was executed\r\n"),
    });
    let error = run(client(&server, LONG).increment("n", 1)).unwrap_err();
    assert!(matches!(error, Error::ReplyNotKept), "{error}");
}

#[test]
fn several_writes_are_under_way_at_once_and_the_mark_waits_for_the_first() {
    let server = sessions(&[MINUTE], |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ => reply(":1\r\n"),
    });
    run(async {
        let client = client(&server, LONG);
        let mut first = client.number(Command::write("INCR").key("n")).await.unwrap();
        let mut second = client.number(Command::write("INCR").key("n")).await.unwrap();
        second.send().await.unwrap();
        drop(second);
        client.increment("n", 1).await.unwrap();
        first.send().await.unwrap();
        drop(first);
        client.increment("n", 1).await.unwrap();
    });
    let numbers: Vec<String> = server
        .received()
        .iter()
        .filter(|words| words[1] == b"ONCE")
        .map(|words| format!("{}/{}", words[3].escape_ascii(), words[4].escape_ascii()))
        .collect();
    assert_eq!(numbers, ["2/1", "3/1", "1/1", "4/4"]);
}

#[test]
fn kvctl_repeats_writes_when_it_is_told_to() {
    let tries = AtomicUsize::new(0);
    let server = sessions(&[MINUTE], move |_, words| match words[0].as_slice() {
        b"HELLO" => None,
        _ if tries.fetch_add(1, SeqCst) == 0 => Some(Action::Close),
        _ => reply(":5\r\n"),
    });
    let kvctl = |arguments: &[&str]| {
        let mut process = Process::new(env!("CARGO_BIN_EXE_kvctl"));
        process.args(["--addr", &server.address.to_string()]).args(arguments).stdin(Stdio::null());
        for name in ["KVCTL_ADDR", "HOLDFAST_ADDR", "KVCTL_PASSWORD", "HOLDFAST_PASSWORD", "KVCTL_USER"] {
            process.env_remove(name);
        }
        process.output().unwrap()
    };
    let output = kvctl(&["--exactly-once", "incr", "n", "--by", "5"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"5\n".as_slice()));
    let writes = server.lines().iter().filter(|line| line.ends_with("1 1 INCRBY n 5")).count();
    assert_eq!(writes, 2, "{:?}", server.lines());
    assert_eq!(kvctl(&["--exactly-once", "shell"]).status.code(), Some(2));
}
