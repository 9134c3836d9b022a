//! The yardstick: a server that reads commands and answers `+OK`, on the runtime that Holdfast's shard threads use.
//!
//! One thread, one tokio current-thread runtime, Holdfast's own decoder, one write per readable event; nothing is executed or
//! stored. What it does per second is what the machine's network stack and the protocol allow: the distance between it
//! and Holdfast is what durability and execution cost.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use clap::Parser;
use holdfast_server::resp::{Decoder, Limits, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers +OK to every command of the Redis protocol, and stores nothing.
#[derive(Debug, Parser)]
#[command(name = "holdfast-echo", version)]
struct Arguments {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    bind: std::net::IpAddr,
    /// The port; 0 picks a free one and prints it
    #[arg(long, default_value_t = 0)]
    port: u16,
}

const READ_BYTES: usize = 16 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(SocketAddr::new(arguments.bind, arguments.port)).await?;
    println!("  address     {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            // A client that goes away takes only its own connection with it.
            let _ = serve(stream).await;
        });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let limits = Limits::default();
    let mut decoder = Decoder::new();
    let mut received = BytesMut::with_capacity(READ_BYTES);
    let mut replies = Vec::new();
    loop {
        received.reserve(READ_BYTES);
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        replies.clear();
        let mut failed = false;
        loop {
            match decoder.decode(&received, &limits) {
                Ok(Step::Command { consumed }) => {
                    replies.extend_from_slice(b"+OK\r\n");
                    received.advance(consumed);
                }
                Ok(Step::Empty { consumed }) => received.advance(consumed),
                Ok(Step::Incomplete { .. }) => break,
                Err(error) => {
                    replies.extend_from_slice(format!("-{error}\r\n").as_bytes());
                    failed = true;
                    break;
                }
            }
        }
        if !replies.is_empty() {
            stream.write_all(&replies).await?;
        }
        if failed {
            return Ok(());
        }
    }
}
