//! One question at a time, over one connection: for tools that look at a server, not for load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wire::{Reply, put_command, read_reply};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any answer to these questions; a server that goes on talking is not believed.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// A connection that waits for each answer.
#[derive(Debug)]
pub struct Asker {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Asker {
    /// Connects.
    ///
    /// # Errors
    /// If nobody takes the connection.
    pub fn connect(address: SocketAddr) -> Result<Self, String> {
        let failed = |error| format!("cannot connect to {address}: {error}");
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Asker { stream, bytes: Vec::new() })
    }

    /// Sends a command and lets `read` look at its reply.
    ///
    /// # Errors
    /// If the connection fails, the answer is late or no reply, or it is an error.
    pub fn ask<T>(&mut self, words: &[&str], read: impl FnOnce(&Reply<'_>) -> T) -> Result<T, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", words.join(" "));
        let mut out = Vec::new();
        let words_bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        put_command(&mut out, &words_bytes);
        self.stream.write_all(&out).map_err(failed)?;
        self.bytes.clear();
        let mut chunk = [0; 16 << 10];
        loop {
            match read_reply(&self.bytes)? {
                Some((Reply::Error(text), _)) => {
                    return Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(text)));
                }
                Some((reply, _)) => return Ok(read(&reply)),
                None if self.bytes.len() > REPLY_BYTES_MAX => return Err("a reply without end".into()),
                None => {}
            }
            match self.stream.read(&mut chunk).map_err(failed)? {
                0 => return Err("the server closed the connection".into()),
                length => self.bytes.extend_from_slice(&chunk[..length]),
            }
        }
    }

    /// Sections of `INFO`, as text.
    ///
    /// # Errors
    /// As [`Asker::ask`], or if the reply is no text.
    pub fn info(&mut self, section: &str) -> Result<String, String> {
        let text = self.ask(&["INFO", section], |reply| match reply {
            Reply::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        })?;
        text.ok_or_else(|| format!("INFO {section} gave no text"))
    }
}

/// The value of a line `name:value` of `INFO`'s text.
pub fn figure<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_is_found_by_its_whole_name() {
        let text = "# Raft\r\nlog_last_index:9\r\nlast_index:7\r\n";
        assert_eq!(figure(text, "last_index"), Some("7"));
        assert_eq!(figure(text, "index"), None);
    }
}
