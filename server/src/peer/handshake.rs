//! The first words on a connection, from both sides.
//!
//! ```text
//!   dialing side    preface, hello ──▶            ◀── preface, accept | refuse | removed | promise lost    accepting side
//! ```
//!
//! Nothing here waits for longer than its caller allows: the callers put a limit of time around these functions. Frames are read one
//! by one and exactly, so that what follows the handshake stays in the socket.

use super::format::{self, FormatError, Frame, HEAD_BYTES, Head, Hello, PREFACE, VERSION};
use crate::cluster::{Address, NodeId};
use crate::resp::Output;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest body of a handshake's frame, in bytes: a reason and two addresses at their longest.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 4096;
/// After this silence the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Why there is no connection to a node.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address can't be reached.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Something else listens there.
    #[error("what answers there is no peer port of a Holdfast node")]
    Stranger,
    /// No version in common.
    #[error("the other node speaks version {0} of the peer protocol, this release speaks {VERSION}")]
    Version(u8),
    /// The other side said something that can't be understood.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The other side said something that doesn't belong there.
    #[error("the other node answered something else than was asked")]
    Unexpected,
    /// Another node than expected answered.
    #[error("node {0} answered: the address is out of date")]
    OtherNode(NodeId),
    /// The other side refused.
    #[error("refused: {0}")]
    Refused(String),
    /// The other side says that the cluster has removed this node.
    #[error("refused: {0}")]
    Removed(String),
    /// The other side says that this node's folder is not the one that made its promises.
    #[error("refused: {0}")]
    PromiseLost(String),
}

/// Connects to a node and says hello; the stream is ready for what `hello` announces.
///
/// # Errors
/// If that doesn't succeed in time.
pub(super) async fn dial(address: &Address, hello: &Hello, within: Duration) -> Result<TcpStream, DialError> {
    let dialing = async {
        let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(DialError::Connect)?;
        prepare(&stream);
        greet(&mut stream, hello).await?;
        Ok(stream)
    };
    tokio::time::timeout(within, dialing).await.unwrap_or(Err(DialError::TimedOut(within)))
}

async fn greet(stream: &mut TcpStream, hello: &Hello) -> Result<(), DialError> {
    write_frame(stream, true, &Frame::Hello(hello.clone()), HANDSHAKE_BYTES_MAX).await?;
    let version = read_preface(stream).await?;
    let answer = read_frame(stream, HANDSHAKE_BYTES_MAX).await;
    match answer {
        // A refusal says more than that the versions differ.
        Ok(Frame::Refuse(reason)) => Err(DialError::Refused(reason)),
        Ok(Frame::Removed(reason)) => Err(DialError::Removed(reason)),
        Ok(Frame::PromiseLost(reason)) => Err(DialError::PromiseLost(reason)),
        _ if version != VERSION => Err(DialError::Version(version)),
        Ok(Frame::Accept(node)) if hello.to == 0 || node == hello.to => Ok(()),
        Ok(Frame::Accept(node)) => Err(DialError::OtherNode(node)),
        Ok(_) => Err(DialError::Unexpected),
        Err(error) => Err(error),
    }
}

/// Reads the dialing side's first words.
///
/// # Errors
/// If they are not understood. After [`DialError::Version`] the whole hello was read, and an answer reaches the other side.
pub(super) async fn receive_hello(stream: &mut TcpStream) -> Result<Hello, DialError> {
    let version = read_preface(stream).await?;
    let hello = read_frame(stream, HANDSHAKE_BYTES_MAX).await;
    match hello {
        _ if version != VERSION => Err(DialError::Version(version)),
        Ok(Frame::Hello(hello)) => Ok(hello),
        Ok(_) => Err(DialError::Unexpected),
        Err(error) => Err(error),
    }
}

async fn read_preface(stream: &mut TcpStream) -> Result<u8, DialError> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await?;
    let [magic @ .., version] = preface;
    if magic == PREFACE[..magic.len()] { Ok(version) } else { Err(DialError::Stranger) }
}

/// Reads exactly one frame. The buffer grows as bytes arrive.
pub(super) async fn read_frame(stream: &mut TcpStream, bytes_max: usize) -> Result<Frame, DialError> {
    let mut head = [0; HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let head = Head::decode(&head, bytes_max)?;
    let mut body = Vec::new();
    stream.take(head.length as u64).read_to_end(&mut body).await?;
    if body.len() < head.length {
        return Err(DialError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(format::decode_borrowed(head, &body)?)
}

/// Writes one frame, after the preface if it is the first.
pub(super) async fn write_frame(
    stream: &mut TcpStream,
    first: bool,
    frame: &Frame,
    bytes_max: usize,
) -> Result<(), DialError> {
    let mut out = Output::new();
    if first {
        out.extend(&PREFACE);
    }
    format::encode(frame, bytes_max + HEAD_BYTES, &mut out)?;
    stream.write_all(&out.to_vec()).await?;
    Ok(())
}

/// Asks the system for what every connection between nodes wants. None of it is needed for correctness.
pub(super) fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch Nagle's algorithm off");
    }
    let probes = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&probes) {
        tracing::debug!(%error, "cannot ask for TCP keepalives");
    }
}

/// Lets the system give up a connection whose other side acknowledges nothing for so long. Without it a machine that lost its
/// power is noticed only once the socket's buffer is full.
pub(super) fn give_up_after(stream: &TcpStream, stall: Duration) {
    #[cfg(target_os = "linux")]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(stall)) {
        tracing::debug!(%error, "cannot limit the time without acknowledgements");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, stall);
}
