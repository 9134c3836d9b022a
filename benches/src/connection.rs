//! A plain blocking connection that sends commands and reads replies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::crash::Reader;
use crate::wire::{Reply, put_command, read_reply};

/// A connection, without any retry: what goes wrong is the caller's to judge.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Connects; neither that nor any read or write takes longer than `patience`.
    ///
    /// # Errors
    /// If nobody answers there.
    pub fn open(address: SocketAddr, patience: Duration) -> Result<Self, String> {
        let stream = TcpStream::connect_timeout(&address, patience)
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(patience)).map_err(|error| error.to_string())?;
        stream.set_write_timeout(Some(patience)).map_err(|error| error.to_string())?;
        Ok(Connection { stream, received: Vec::new(), start: 0 })
    }

    /// Sends bytes that [`put_command`] made.
    ///
    /// # Errors
    /// If the connection failed; how much was sent is unknown then.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("the connection failed: {error}"))
    }

    /// Waits for the next reply and looks at it.
    ///
    /// # Errors
    /// If none comes, or none that can be read.
    pub fn next<R>(&mut self, look: impl FnOnce(&Reply<'_>) -> R) -> Result<R, String> {
        loop {
            if let Some((reply, length)) = read_reply(&self.received[self.start..])? {
                let result = look(&reply);
                self.start += length;
                return Ok(result);
            }
            self.received.drain(..self.start);
            self.start = 0;
            let end = self.received.len();
            // Doubling: a large reply is not parsed from its beginning more often than its size has doubled.
            self.received.resize((end * 2).max(64 << 10), 0);
            let read = self.stream.read(&mut self.received[end..]);
            self.received.truncate(end + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(_) => {}
                Err(error) => return Err(format!("the connection failed: {error}")),
            }
        }
    }

    /// Sends one command and gives its reply as text: an error's with its code, a number's digits, nothing for null.
    ///
    /// # Errors
    /// If there is no reply, or a list.
    pub fn ask(&mut self, words: &[&[u8]]) -> Result<String, String> {
        let mut out = Vec::new();
        put_command(&mut out, words);
        self.send(&out)?;
        self.next(|reply| match reply {
            Reply::Simple(text) | Reply::Error(text) | Reply::Bulk(Some(text)) => {
                Ok(String::from_utf8_lossy(text).into_owned())
            }
            Reply::Integer(number) => Ok(number.to_string()),
            Reply::Bulk(None) => Ok(String::new()),
            Reply::Array(_) => Err("a list where none was expected".to_owned()),
        })?
    }
}

impl Reader for Connection {
    fn read(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, String> {
        let mut out = Vec::new();
        for key in keys {
            put_command(&mut out, &[b"GET", key]);
        }
        self.send(&out)?;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.next(|reply| match reply {
                Reply::Bulk(value) => Ok(value.map(<[u8]>::to_vec)),
                other => Err(format!("GET {} was answered with {other:?}", key.escape_ascii())),
            })??);
        }
        Ok(values)
    }
}
