//! Reading replies off a socket.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::wire::{Reply, read_reply};

const READ_BYTES: usize = 64 << 10;

pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("cannot connect to {address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Bytes that were read and not yet understood.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Inbox { bytes: Vec::with_capacity(READ_BYTES), start: 0 }
    }

    /// Waits for more bytes, then hands over each whole reply: `Some(text)` for an error, `None` otherwise.
    pub(crate) async fn replies(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<(), String> {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.reserve(READ_BYTES);
        match reader.read_buf(&mut self.bytes).await {
            Ok(0) => return Err("the server closed a connection".into()),
            Ok(_) => {}
            Err(error) => return Err(format!("a connection failed: {error}")),
        }
        while let Some((reply, length)) = read_reply(&self.bytes[self.start..])? {
            take(if let Reply::Error(text) = reply { Some(text) } else { None });
            self.start += length;
        }
        Ok(())
    }
}
