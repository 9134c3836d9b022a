//! Connections from other nodes: who is let in, and what comes over them.
//!
//! Each has a task. It reads at most some 64 KiB (or twice what it holds of a begun frame), hands over all complete messages,
//! ends the turn, and lets others run before it reads more. There is no queue on this side: what the shard has not read
//! waits in the kernel, and then in the sender's bounded queue.

use super::format::{Frame, Hello, Purpose, VERSION};
use super::handshake::{self, DialError, HANDSHAKE_BYTES_MAX};
use super::link::Link;
use super::transport::Inner;
use super::{FrameBuffer, JoinReply, Lane, PeerMessage, PeerSink, Refusal, dial, join};
use crate::cluster::{Address, NodeId};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

/// How long accepting rests after the system refused, for want of file handles for instance.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// A read of at least this size may have left more in the socket.
const READ_BYTES_LARGE: usize = 64 * 1024;
/// How long a node that asks to join waits at most for a reply from here. It asks again.
const JOIN_TIME_MAX: Duration = Duration::from_secs(60);

/// Accepts connections, for ever.
pub(super) async fn serve(inner: &Rc<Inner>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Some(place) = Place::take(inner) else {
                    inner.said.warn(&format!(
                        "more than {} connections at the peer port: new ones are closed; only nodes should reach that port",
                        inner.options.inbound_max
                    ));
                    continue;
                };
                tokio::task::spawn_local(receive(place, stream, remote));
            }
            Err(error) => {
                inner.said.warn(&format!("cannot accept a connection at the peer port: {error}"));
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

/// One of the limited places for connections from others.
struct Place(Rc<Inner>);

impl Place {
    fn take(inner: &Rc<Inner>) -> Option<Self> {
        let count = inner.inbound.get();
        (count < inner.options.inbound_max).then(|| {
            inner.inbound.set(count + 1);
            Place(Rc::clone(inner))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inbound.set(self.0.inbound.get() - 1);
    }
}

/// What a hello leads to.
enum Guest {
    Node { lane: Lane, id: NodeId, client: Address, peer: Address },
    Join,
}

async fn receive(place: Place, mut stream: TcpStream, remote: SocketAddr) {
    let inner = &place.0;
    handshake::prepare(&stream);
    let guest = match tokio::time::timeout(inner.options.handshake(), welcome(inner, &mut stream)).await {
        Ok(Ok(guest)) => guest,
        Ok(Err(error)) => {
            inner.said.warn(&format!("a connection to the peer port from {} was closed: {error}", remote.ip()));
            return;
        }
        Err(_) => {
            inner.said.warn(&format!("a connection to the peer port from {} said nothing of use", remote.ip()));
            return;
        }
    };
    match guest {
        Guest::Join => serve_join(inner, stream).await,
        Guest::Node { lane, id, client, peer } => {
            // Looked at once more: it took a moment to send the answer.
            let Ok(link) = inner.admit(id) else { return };
            link.set_announced(client, peer);
            link.hurry();
            let serial = inner.next_serial();
            let end = link.add_inbound(lane, serial);
            link.count(|counters| counters.accepts += 1);
            let result = read_messages(inner, &link, &end, &mut stream).await;
            if let Err(error) = result {
                inner.said.warn(&format!(
                    "the {} connection from node {} at {} was closed: {error}",
                    dial::name(lane),
                    link.id,
                    remote.ip()
                ));
            }
            inner.dismiss(&link, lane, serial);
        }
    }
}

/// The accepting side of the handshake.
async fn welcome(inner: &Rc<Inner>, stream: &mut TcpStream) -> Result<Guest, DialError> {
    let judged = match handshake::receive_hello(stream).await {
        Ok(hello) => judge(inner, hello),
        Err(DialError::Version(version)) => Err(DialError::Refused(format!(
            "this node speaks version {VERSION} of the peer protocol, not {version}: bring all nodes to releases that have one in common"
        ))),
        Err(error) => return Err(error),
    };
    let answer = match &judged {
        Ok(_) => Frame::Accept(inner.options.me),
        Err(DialError::Removed(reason)) => Frame::Removed(reason.clone()),
        Err(DialError::PromiseLost(reason)) => Frame::PromiseLost(reason.clone()),
        Err(refusal) => Frame::Refuse(reason_of(refusal)),
    };
    let sent = handshake::write_frame(stream, true, &answer, HANDSHAKE_BYTES_MAX).await;
    let guest = judged?;
    sent.map(|()| guest)
}

fn reason_of(refusal: &DialError) -> String {
    match refusal {
        DialError::Refused(reason) => reason.clone(),
        other => other.to_string(),
    }
}

/// Decides whether a node is let in. The text of a refusal is for the operators of both nodes.
fn judge(inner: &Rc<Inner>, hello: Hello) -> Result<Guest, DialError> {
    let refused = |reason: String| Err(DialError::Refused(reason));
    let me = inner.options.me;
    let ours = inner.options.cluster;
    let Hello { purpose, cluster, from, to, client, peer, starts, pace } = hello;
    let lane = match purpose {
        Purpose::Control => Lane::Control,
        Purpose::Bulk => Lane::Bulk,
        Purpose::Join if cluster == 0 || cluster == ours => return Ok(Guest::Join),
        Purpose::Join => {
            return refused(format!(
                "the node belongs to cluster {cluster:032x} already and can't join cluster {ours:032x}: let it join with an empty data folder"
            ));
        }
    };
    if cluster != ours {
        return refused(format!(
            "node {from} of cluster {cluster:032x} dialed node {me} of cluster {ours:032x}: correct the address, or the data folder that one of them was started with"
        ));
    }
    if from == me {
        return refused(format!(
            "node {me} dialed itself, or a second process runs as node {me}: correct the address of node {to}, or stop one of the two"
        ));
    }
    if to != me {
        return refused(format!(
            "node {from} wanted node {to}, but this is node {me}: the address of node {to} is out of date"
        ));
    }
    if from == 0 {
        return refused("node 0 is nobody".into());
    }
    inner.check(from)?;
    let sink = inner.sink().ok_or_else(|| DialError::Refused("the node is stopping".into()))?;
    sink.vet(from, &starts, &pace).map_err(|refusal| match refusal {
        Refusal::Settings(reason) => DialError::Refused(reason),
        Refusal::PromiseLost(reason) => DialError::PromiseLost(reason),
    })?;
    Ok(Guest::Node { lane, id: from, client, peer })
}

/// Why a connection from a node was closed by this side.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Format(#[from] super::format::FormatError),
    #[error("it sent a frame that doesn't belong there")]
    Misplaced,
    #[error("it sent a message from replica {from} to replica {to}")]
    Forged { from: NodeId, to: NodeId },
    #[error("it began a frame and sent nothing more for {} ms", .0.as_millis())]
    Stalled(Duration),
}

/// Hands over what comes until the connection ends, or is ended for a newer one.
async fn read_messages(inner: &Inner, link: &Link, end: &Notify, stream: &mut TcpStream) -> Result<(), ReadError> {
    let mut buffer = FrameBuffer::new(inner.options.frame_bytes_max);
    let stall = inner.options.stall();
    loop {
        let partial = buffer.is_partial();
        let read = tokio::select! {
            biased;
            () = end.notified() => return Ok(()),
            read = stream.read_buf(buffer.room()) => read,
            () = tokio::time::sleep(stall), if partial => return Err(ReadError::Stalled(stall)),
        };
        let bytes = match read {
            Ok(0) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, node = link.id, "a connection from a node broke");
                return Ok(());
            }
        };
        let Some(sink) = inner.sink() else { return Ok(()) };
        link.count(|counters| counters.received_bytes += bytes as u64);
        let (count, result) = deliver(inner.options.me, link.id, &mut buffer, &*sink);
        if count > 0 {
            link.count(|counters| counters.received_messages += count);
            sink.turn_end();
        }
        result?;
        if bytes >= READ_BYTES_LARGE {
            tokio::task::yield_now().await;
        }
    }
}

/// Hands over all complete messages, and says how many there were before anything that is none.
fn deliver(me: NodeId, from: NodeId, buffer: &mut FrameBuffer, sink: &dyn PeerSink) -> (u64, Result<(), ReadError>) {
    let mut count = 0;
    loop {
        let message = match buffer.next_frame() {
            Ok(Some(Frame::Message(message))) => message,
            Ok(Some(_)) => return (count, Err(ReadError::Misplaced)),
            Ok(None) => return (count, Ok(())),
            Err(error) => return (count, Err(error.into())),
        };
        if let PeerMessage::Raft { message, .. } = &message
            && (message.from, message.to) != (from, me)
        {
            return (count, Err(ReadError::Forged { from: message.from, to: message.to }));
        }
        sink.message(from, message);
        count += 1;
    }
}

/// Takes one request to join and sends one reply.
async fn serve_join(inner: &Inner, mut stream: TcpStream) {
    let read = handshake::read_frame(&mut stream, HANDSHAKE_BYTES_MAX);
    let Ok(Ok(Frame::JoinRequest(request))) = tokio::time::timeout(inner.options.handshake(), read).await else {
        return;
    };
    let Some(sink) = inner.sink() else { return };
    let (sender, receiver) = oneshot::channel();
    sink.join(request, sender);
    sink.turn_end();
    drop(sink);
    let mut probe = [0];
    let reply = tokio::select! {
        reply = receiver => reply.ok(),
        // The node went away, or talks out of turn.
        _ = stream.read(&mut probe) => return,
        () = tokio::time::sleep(JOIN_TIME_MAX) => None,
    };
    let reply = reply.unwrap_or_else(|| JoinReply::Retry { reason: "no decision was reached in time".into() });
    let reply = Frame::JoinReply(reply);
    let write = handshake::write_frame(&mut stream, false, &reply, join::REPLY_BYTES_MAX);
    let failure = match tokio::time::timeout(inner.options.handshake(), write).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
    };
    tracing::debug!(error = %failure, "a reply to a join could not be sent");
}
