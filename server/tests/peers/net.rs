//! Nodes over loopback sockets in one thread, a sink that remembers, and a peer by hand.

use bytes::Bytes;
use holdfast_raft::{Entry, EntryKind, Message, MessageBody};
use holdfast_server::cluster::{Address, NodeId, Pace, Starts};
use holdfast_server::peer::format::{self, Frame, Hello, PREFACE, Purpose};
use holdfast_server::peer::{
    FrameBuffer, JoinReply, JoinRequest, PeerMessage, PeerOptions, PeerSink, Peers, Refusal, SnapshotChunk,
};
use holdfast_server::resp::Output;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

pub(crate) const CLUSTER: u128 = 0xc0ffee;
/// A test that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test as the shard thread would.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("the test hangs") });
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Message(NodeId, PeerMessage),
    TurnEnd,
    Link(NodeId, bool),
    Removed(NodeId),
    PromiseLost(NodeId, String),
    Join(JoinRequest),
}

/// Remembers what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) events: RefCell<Vec<Event>>,
    changed: Notify,
    /// What requests to join are answered with; nothing: not at all.
    pub(crate) join_reply: RefCell<Option<JoinReply>>,
    /// Why nobody is let in.
    pub(crate) refusal: RefCell<Option<Refusal>>,
    /// Sends each heartbeat's round back, plus one, up to this number.
    pub(crate) echo: RefCell<Option<(Peers, u64)>>,
    in_call: Cell<bool>,
}

impl Recorder {
    fn note(&self, event: Event) {
        assert!(!self.in_call.replace(true), "the sink is called from within a call to it");
        let echo = self.echo.borrow().clone();
        if let (Some((peers, last)), Event::Message(from, message)) = (&echo, &event)
            && round_of(message) < *last
        {
            let PeerMessage::Raft { message: Message { to: me, .. }, .. } = message else { panic!("no heartbeat") };
            assert!(peers.send(*from, heartbeat(*me, *from, round_of(message) + 1)));
        }
        if let (Some((peers, _)), Event::TurnEnd) = (&echo, &event) {
            peers.flush();
        }
        self.events.borrow_mut().push(event);
        self.in_call.set(false);
        self.changed.notify_one();
    }

    /// Waits until the events satisfy a condition.
    pub(crate) async fn until(&self, condition: impl Fn(&[Event]) -> bool) {
        while !condition(&self.events.borrow()) {
            self.changed.notified().await;
        }
    }

    pub(crate) async fn until_seen(&self, event: &Event) {
        self.until(|events| events.contains(event)).await;
    }

    /// The messages that came from a node, in order.
    pub(crate) fn messages(&self, from: NodeId) -> Vec<PeerMessage> {
        let of = |event: &Event| match event {
            Event::Message(sender, message) if *sender == from => Some(message.clone()),
            _ => None,
        };
        self.events.borrow().iter().filter_map(of).collect()
    }
}

impl PeerSink for Recorder {
    fn message(&self, from: NodeId, message: PeerMessage) {
        self.note(Event::Message(from, message));
    }

    fn turn_end(&self) {
        self.note(Event::TurnEnd);
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.note(Event::Link(peer, up));
    }

    fn removed(&self, by: NodeId) {
        self.note(Event::Removed(by));
    }

    fn vet(&self, _: NodeId, _: &Starts, _: &Pace) -> Result<(), Refusal> {
        self.refusal.borrow().clone().map_or(Ok(()), Err)
    }

    fn promise_lost(&self, by: NodeId, reason: &str) {
        self.note(Event::PromiseLost(by, reason.to_owned()));
    }

    fn join(&self, request: JoinRequest, reply: oneshot::Sender<JoinReply>) {
        if let Some(answer) = self.join_reply.borrow().clone() {
            reply.send(answer).expect("the connection waits for it");
        }
        self.note(Event::Join(request));
    }
}

/// A node with its transport only.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) address: Address,
    pub(crate) peers: Peers,
    pub(crate) sink: Rc<Recorder>,
    serving: tokio::task::JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(id: NodeId) -> Node {
        Node::start_with(id, 0, |_| {}).await
    }

    /// Starts a node at a port (0: any), with options changed.
    pub(crate) async fn start_with(id: NodeId, port: u16, change: impl FnOnce(&mut PeerOptions)) -> Node {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let address = Address::new("127.0.0.1", listener.local_addr().expect("an address").port());
        let mut options = PeerOptions::new(CLUSTER, id, Address::new("127.0.0.1", 1), address.clone(), id);
        options.redial_ms_max = 100;
        change(&mut options);
        let sink = Rc::new(Recorder::default());
        let weak: Weak<dyn PeerSink> = Rc::<Recorder>::downgrade(&sink);
        let peers = Peers::new(options, weak);
        let serving = tokio::task::spawn_local(peers.clone().serve(listener));
        Node { id, address, peers, sink, serving }
    }

    /// Ends all connections and gives the port back.
    pub(crate) async fn stop(self) {
        self.peers.close();
        self.serving.await.expect("serving ends");
    }

    pub(crate) fn member(&self) -> (NodeId, Address) {
        (self.id, self.address.clone())
    }

    /// Sends and flushes; the message must be taken.
    pub(crate) fn send(&self, to: NodeId, message: PeerMessage) {
        assert!(self.peers.send(to, message), "the message is taken");
        self.peers.flush();
    }
}

/// Makes all nodes members and waits until all are connected.
pub(crate) async fn connect(nodes: &[&Node]) {
    let members: Vec<_> = nodes.iter().map(|node| node.member()).collect();
    nodes.iter().for_each(|node| node.peers.set_members(&members, 0));
    for node in nodes {
        for (peer, _) in members.iter().filter(|(peer, _)| *peer != node.id) {
            node.sink.until_seen(&Event::Link(*peer, true)).await;
            until(|| counters(node, *peer).connects >= 2).await;
        }
    }
}

pub(crate) fn counters(node: &Node, peer: NodeId) -> holdfast_server::peer::PeerCounters {
    node.peers.counters().into_iter().find(|(id, _)| *id == peer).map(|(_, counters)| counters).unwrap_or_default()
}

/// Lets the other tasks run until a condition holds that has no event.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn raft(from: NodeId, to: NodeId, body: MessageBody) -> PeerMessage {
    PeerMessage::Raft { group: 1, message: Message { from, to, term: 1, body } }
}

/// A message of the control lane.
pub(crate) fn heartbeat(from: NodeId, to: NodeId, round: u64) -> PeerMessage {
    raft(from, to, MessageBody::Heartbeat { round, commit: 0, sleep: false })
}

pub(crate) fn round_of(message: &PeerMessage) -> u64 {
    match message {
        PeerMessage::Raft { message: Message { body: MessageBody::Heartbeat { round, .. }, .. }, .. } => *round,
        other => panic!("{other:?} is no heartbeat"),
    }
}

/// A message of the bulk lane.
pub(crate) fn append(from: NodeId, to: NodeId, index: u64, payload: Vec<u8>) -> PeerMessage {
    let entries = vec![Entry { term: 1, index, kind: EntryKind::Normal, payload: payload.into() }];
    raft(from, to, MessageBody::Append { previous_index: index - 1, previous_term: 1, commit: 0, entries })
}

/// A message of the bulk lane.
pub(crate) fn chunk(offset: u64, bytes: Vec<u8>) -> PeerMessage {
    PeerMessage::SnapshotChunk(SnapshotChunk {
        group: 1,
        transfer: 1,
        term: 1,
        offset,
        bytes: Bytes::from(bytes),
        last: false,
    })
}

pub(crate) fn hello(purpose: Purpose, from: NodeId, to: NodeId) -> Hello {
    let address = || Address::new("127.0.0.1", 1);
    let starts = Starts { boot: 1, runs: vec![from] };
    Hello { purpose, cluster: CLUSTER, from, to, client: address(), peer: address(), starts, pace: Pace::default() }
}

pub(crate) fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut out = Output::new();
    format::encode(frame, usize::MAX, &mut out).expect("it fits");
    out.to_vec()
}

/// A connection by hand, from either side.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    buffer: FrameBuffer,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Wire {
        Wire { stream, buffer: FrameBuffer::new(1 << 24) }
    }

    /// Dials a node and says hello; gives the answer too.
    pub(crate) async fn dial(node: &Node, hello: Hello) -> (Wire, Frame) {
        let stream = TcpStream::connect(("127.0.0.1", node.address.port)).await.expect("it listens");
        let mut wire = Wire::new(stream);
        wire.send(&PREFACE).await;
        wire.send(&bytes_of(&Frame::Hello(hello))).await;
        wire.preface().await;
        let answer = wire.frame().await.expect("an answer");
        (wire, answer)
    }

    /// Accepts a connection of a node and lets it in as node `me`; says what it is for.
    pub(crate) async fn accept(listener: &TcpListener, me: NodeId) -> (Wire, Purpose) {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut wire = Wire::new(stream);
        wire.preface().await;
        let Some(Frame::Hello(hello)) = wire.frame().await else { panic!("a hello is first") };
        wire.send(&PREFACE).await;
        wire.send(&bytes_of(&Frame::Accept(me))).await;
        (wire, hello.purpose)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is taken");
    }

    pub(crate) async fn preface(&mut self) {
        let mut preface = [0; 8];
        self.stream.read_exact(&mut preface).await.expect("a preface");
        assert_eq!(preface, PREFACE);
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.buffer.next_frame().expect("frames are right") {
                return Some(frame);
            }
            match self.stream.read_buf(self.buffer.room()).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}
