//! The library against a server that misbehaves on purpose: what does a caller learn?

#![allow(clippy::unwrap_used)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fake::{Action, FakeServer};
use holdfast_client::{Client, Command, Config, Connection, Error, Outcome, Protocol, Retry, Value};

/// Short, for tests that wait it out on purpose.
const SHORT: Duration = Duration::from_millis(100);

fn config(server: &FakeServer) -> Config {
    let mut config = Config::new(server.address.to_string().parse().unwrap());
    config.retry = Retry { attempts_max: 3, backoff_min: Duration::from_millis(1), ..Retry::default() };
    config
}

fn run<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn reply(text: &str) -> Option<Action> {
    Some(Action::Reply(text.as_bytes().to_vec()))
}

#[test]
fn server_without_hello_is_spoken_to_in_resp2() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"HELLO" => reply("-ERR unknown command 'HELLO'\r\n"),
        b"AUTH" => reply("+OK\r\n"),
        b"GET" => reply("$-1\r\n"),
        _ => None,
    });
    run(async {
        let mut config = config(&server);
        config.password = Some("sesame".into());
        let connection = Connection::open(Arc::new(config)).await.unwrap();
        assert_eq!(connection.protocol(), Protocol::Resp2);
        assert_eq!(connection.call(Command::read("GET").key("k")).await.unwrap(), Value::Null);
    });
    assert_eq!(server.lines(), ["AUTH sesame", "GET k"]);
}

#[test]
fn refusal_to_greet_is_the_servers_error() {
    for text in [
        "-NOAUTH HELLO must be called with the client already authenticated\r\n",
        "-ERR max number of clients reached\r\n",
    ] {
        let server = FakeServer::start(move |_, _| Some(Action::ReplyThenClose(text.as_bytes().to_vec())));
        let error = run(Connection::open(Arc::new(config(&server)))).unwrap_err();
        assert!(matches!(&error, Error::Server(error) if text.contains(error.text())), "{error}");
    }
}

#[test]
fn lost_connection_leaves_a_write_unknown_and_it_is_not_repeated() {
    let server = FakeServer::start(|_, words| (words[0] == b"INCRBY").then_some(Action::Close));
    let error = run(Client::new(config(&server)).increment("k", 1)).unwrap_err();
    assert!(matches!(error, Error::Lost { outcome: Outcome::Unknown, .. }), "{error}");
    assert_eq!(server.lines(), ["INCRBY k 1"]);
}

#[test]
fn lost_connection_makes_a_read_go_to_a_new_one() {
    let server = FakeServer::start(|connection, words| match words[0].as_slice() {
        b"GET" if connection == 0 => Some(Action::Close),
        b"GET" => reply("$1\r\nv\r\n"),
        _ => None,
    });
    let value = run(Client::new(config(&server)).get("k")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
    assert_eq!(server.lines(), ["GET k", "GET k"]);
}

#[test]
fn passing_refusal_is_tried_again_even_for_a_write() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"DEL" if words[1] == b"never" => reply("-CLUSTERDOWN no leader\r\n"),
        b"DEL" => reply(":1\r\n"),
        _ => None,
    });
    run(async {
        let client = Client::new(config(&server));
        assert_eq!(client.delete(&["k"]).await.unwrap(), 1);
        let error = client.delete(&["never"]).await.unwrap_err();
        assert!(matches!(&error, Error::Server(error) if error.code() == "CLUSTERDOWN"), "{error}");
        assert_eq!(error.outcome(), Outcome::NotExecuted);
    });
    let mut lines = server.lines();
    // Between the tries it asks for other nodes, and there are none.
    lines.retain(|line| line != "CLUSTER SLOTS");
    assert_eq!(lines, ["DEL k", "DEL never", "DEL never", "DEL never"]);
}

#[test]
fn silence_times_out_with_an_unknown_outcome_and_late_replies_go_to_nobody_else() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"SLOW" => Some(Action::Silence),
        // The late answer and this one's, in the order of the requests.
        b"NEXT" => reply("+late\r\n+mine\r\n"),
        _ => None,
    });
    run(async {
        let mut config = config(&server);
        config.timeout = SHORT;
        let connection = Connection::open(Arc::new(config)).await.unwrap();
        let error = connection.call(Command::write("SLOW")).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { outcome: Outcome::Unknown, .. }), "{error}");
        let value = connection.call(Command::write("NEXT")).await.unwrap();
        assert_eq!(value, Value::Simple(Bytes::from_static(b"mine")));
    });
}

#[test]
fn request_that_waits_in_the_queue_is_withdrawn_at_its_timeout() {
    let server = FakeServer::start(|_, words| (words[0] == b"SLOW").then_some(Action::Silence));
    run(async {
        let mut config = config(&server);
        config.timeout = SHORT;
        config.inflight_requests_max = 1;
        let connection = Connection::open(Arc::new(config)).await.unwrap();
        let (first, second) =
            tokio::join!(connection.call(Command::write("SLOW")), connection.call(Command::write("QUEUED")));
        assert_eq!(first.unwrap_err().outcome(), Outcome::Unknown);
        assert_eq!(second.unwrap_err().outcome(), Outcome::NotExecuted);
    });
    assert_eq!(server.lines(), ["SLOW"]);
}

#[test]
fn nobody_listening_is_a_definite_failure() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = Config::new(free.to_string().parse().unwrap());
    config.retry.attempts_max = 1;
    let error = run(Client::new(config).set("k", "v")).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::NotExecuted);
}

#[test]
fn bytes_that_are_no_reply_end_the_connection() {
    let server =
        FakeServer::start(|_, words| (words[0] == b"SET").then(|| Action::Reply(b"HTTP/1.1 200\r\n".to_vec())));
    run(async {
        let connection = Connection::open(Arc::new(config(&server))).await.unwrap();
        let error = connection.call(Command::write("SET").key("k").arg("v")).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { outcome: Outcome::Unknown, .. }), "{error}");
        let after = connection.call(Command::read("PING")).await.unwrap_err();
        assert_eq!(after.outcome(), Outcome::NotExecuted);
        assert!(connection.is_closed());
    });
}

#[test]
fn pipeline_keeps_order_and_shows_each_error() {
    let server = FakeServer::start(|_, words| match words[0].as_slice() {
        b"ECHO" => Some(Action::Reply([b"+", words[1].as_slice(), b"\r\n"].concat())),
        b"BAD" => reply("-ERR bad\r\n"),
        _ => None,
    });
    run(async {
        let connection = Connection::open(Arc::new(config(&server))).await.unwrap();
        let mut commands: Vec<Command> = (0..500).map(|n| Command::read("ECHO").number(n)).collect();
        commands.insert(250, Command::read("BAD"));
        let values = connection.pipeline(&commands).await.unwrap();
        assert_eq!(values.len(), 501);
        assert!(matches!(&values[250], Value::Error(error) if error.text() == "ERR bad"));
        assert_eq!(values[0], Value::Simple("0".into()));
        assert_eq!(values[500], Value::Simple("499".into()));
    });
}

#[test]
fn callers_on_one_connection_get_their_own_replies() {
    let server = FakeServer::start(|_, words| {
        (words[0] == b"ECHO").then(|| Action::Reply([b"+", words[1].as_slice(), b"\r\n"].concat()))
    });
    run(async {
        let client = Client::new(config(&server));
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move { client.call(Command::read("ECHO").number(number)).await.unwrap() })
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Value::Simple(number.to_string().into()));
        }
    });
}

#[test]
fn large_value_goes_there_and_back() {
    let server = FakeServer::start(|_, words| {
        let header = |value: &Vec<u8>| format!("${}\r\n", value.len()).into_bytes();
        (words[0] == b"SET").then(|| Action::Reply([header(&words[2]), words[2].clone(), b"\r\n".to_vec()].concat()))
    });
    let value: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let echoed = run(async {
        let client = Client::new(config(&server));
        client.call(Command::write("SET").key("k").arg_shared(value.clone())).await.unwrap()
    });
    assert_eq!(echoed, Value::Bulk(value));
}

#[test]
fn push_messages_are_not_taken_for_replies() {
    let server =
        FakeServer::start(
            |_, words| {
                if words[0] == b"GET" { reply(">2\r\n+invalidate\r\n*0\r\n$1\r\nv\r\n") } else { None }
            },
        );
    let value = run(Client::new(config(&server)).get("k")).unwrap();
    assert_eq!(value.as_deref(), Some(&b"v"[..]));
}
