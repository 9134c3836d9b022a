//! A server in this process that answers what a test tells it to.
//!
//! Each connection has a thread; the test's function sees every command and says what happens next. Nothing of the crate
//! under test is used here, so a mistake in its encoder can't hide behind the same mistake on this side.

#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does upon a command.
pub(crate) enum Action {
    /// Sends these bytes.
    Reply(Vec<u8>),
    /// Sends these bytes and closes the connection.
    ReplyThenClose(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Answers nothing and reads on.
    Silence,
}

pub(crate) type Words = Vec<Vec<u8>>;

/// A listening server; its threads end with the test's process.
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<Words>>>,
}

impl FakeServer {
    /// Serves with a function of the connection's number (from 0) and the command's words. `HELLO 3` is answered here
    /// unless the function answers it.
    pub(crate) fn start(serve: impl Fn(usize, &Words) -> Option<Action> + Send + Sync + 'static) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    /// The same on a listener of the test's choice.
    pub(crate) fn serve(
        listener: TcpListener,
        serve: impl Fn(usize, &Words) -> Option<Action> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = received.clone();
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (log, serve) = (log.clone(), serve.clone());
                std::thread::spawn(move || connection(stream.unwrap(), number, &log, &*serve));
            }
        });
        FakeServer { address, received }
    }

    /// Serves fixed replies by command line (words joined by spaces), on every connection.
    pub(crate) fn answering(replies: &[(&str, &str)]) -> Self {
        let replies: Vec<(String, String)> = replies.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        FakeServer::start(move |_, words| {
            let line = line(words);
            let found = replies.iter().find(|(command, _)| *command == line);
            found.map(|(_, reply)| Action::Reply(reply.clone().into_bytes()))
        })
    }

    /// The commands that came, in order, greetings excepted.
    pub(crate) fn received(&self) -> Vec<Words> {
        let all = self.received.lock().unwrap();
        all.iter().filter(|words| words[0] != b"HELLO").cloned().collect()
    }

    /// The same as text, for commands that are text.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.received().iter().map(line).collect()
    }
}

pub(crate) fn line(words: &Words) -> String {
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
}

fn connection(
    stream: TcpStream,
    number: usize,
    log: &Mutex<Vec<Words>>,
    serve: &(impl Fn(usize, &Words) -> Option<Action> + ?Sized),
) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some(words) = read_command(&mut reader) {
        log.lock().unwrap().push(words.clone());
        let action = serve(number, &words).unwrap_or_else(|| match words[0].as_slice() {
            b"HELLO" => Action::Reply(b"%1\r\n$6\r\nserver\r\n$4\r\nfake\r\n".to_vec()),
            other => Action::Reply(format!("-ERR unknown command '{}'\r\n", other.escape_ascii()).into_bytes()),
        });
        let close = matches!(action, Action::Close | Action::ReplyThenClose(_));
        if let Action::Reply(bytes) | Action::ReplyThenClose(bytes) = action
            && writer.write_all(&bytes).is_err()
        {
            return;
        }
        if close {
            return;
        }
    }
}

fn read_command(reader: &mut impl BufRead) -> Option<Words> {
    let count = header(reader, b'*')?;
    (0..count)
        .map(|_| {
            let length = header(reader, b'$')?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word).ok()?;
            assert_eq!(word.split_off(length), b"\r\n");
            Some(word)
        })
        .collect()
}

fn header(reader: &mut impl BufRead, kind: u8) -> Option<usize> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    if line.is_empty() {
        return None;
    }
    assert_eq!(line[0], kind, "{}", line.escape_ascii());
    let digits = line[1..].strip_suffix(b"\r\n").expect("a header ends with CR LF");
    Some(std::str::from_utf8(digits).unwrap().parse().unwrap())
}
