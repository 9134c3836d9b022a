//! Commands that stood back behind a large output are run once it is gone.

mod common;

use common::{Server, exchange, folder};

#[test]
fn commands_behind_a_large_reply_are_answered() {
    let dir = folder();
    let server = Server::start(dir.path());
    let mut socket = server.socket();
    let value = vec![b'v'; 1_500_000];
    let mut request = format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n", value.len()).into_bytes();
    request.extend_from_slice(&value);
    request.extend_from_slice(b"\r\n");
    assert_eq!(exchange(&mut socket, &request, 5), b"+OK\r\n");

    // The whole pipeline arrives at once: each GET's reply is over the limit behind which the next command stands back.
    let pipeline = b"GET big\r\nGET big\r\nPING\r\nGET big\r\nPING\r\n";
    let reply_bytes = format!("${}\r\n", value.len()).len() + value.len() + 2;
    let reply = exchange(&mut socket, pipeline, 3 * reply_bytes + 2 * 7);
    assert_eq!(reply.len(), 3 * reply_bytes + 2 * 7);
    assert!(reply.ends_with(b"+PONG\r\n"));
}
