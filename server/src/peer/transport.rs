//! Messages between nodes, over TCP, on the shard's own thread.
//!
//! ```text
//!   shard ── send ──▶ queue of the lane ── flush ──▶ socket ═══▶ socket ──▶ FrameBuffer ──▶ PeerSink::message …
//!                     (wire.rs)                                   (accept.rs)               PeerSink::turn_end
//!                         ▲
//!                    dial.rs keeps two connections to each member: control and bulk
//! ```
//!
//! # Flow
//! The shard tells who the members are ([`Peers::set_members`]); a task for each member and lane dials, says hello and dials again
//! when the connection is lost. In a turn the shard queues messages ([`Peers::send`]) and writes them at its end
//! ([`Peers::flush`]); what the socket doesn't take then is written by the task later. What others send arrives over
//! connections that *they* made ([`Peers::serve`]), is handed over one by one, and after each batch off one socket the
//! sink is told to commit and flush.
//!
//! # Who is let in
//! A node of the same cluster that this node doesn't know *yet* is let in and dialed back at the address in its hello: a
//! replica that was cut off while the membership changed can learn of the change only from a node that it never heard of. Numbers are
//! given in ascending order and never again, so one that is no member although it was given already was removed, is refused, and
//! is told why ([`PeerSink::removed`]). A member that says it has another address than the list is tried at both, in turn.
//!
//! A node whose folder is an older copy of itself, or whose timing doesn't go with this node's, is not heard either
//! ([`PeerSink::vet`]). Votes and acknowledgements travel over connections that were let in, so that is all it takes to keep such
//! a node from voting.
//!
//! # Caveats
//! - Nothing is retried: a message is lost with its connection, when its queue is full, and when there is no connection. Messages of one
//!   lane arrive in order; there is no order between lanes.
//! - Nodes don't prove who they are. The peer port belongs on a network of the nodes' own.
//! - All of this lives in one thread: a task calls the sink only while nothing here is borrowed, and nothing that the shard
//!   calls here calls the sink back.

use super::format::HEAD_BYTES;
use super::handshake::DialError;
use super::link::Link;
use super::said::Said;
use super::wire::NotQueued;
use super::{JoinReply, JoinRequest, Lane, PeerCounters, PeerMessage, PeerOptions, accept, dial};
use crate::cluster::{Address, LinkView, NodeId, Pace, Starts, Traffic};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::{Rc, Weak};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// Both lanes.
const LANES: [Lane; 2] = [Lane::Control, Lane::Bulk];
/// How many nodes may be let in that are not members yet.
const GUESTS_MAX: usize = 64;

/// Why a node of the cluster is not heard. The texts are for the operators of both nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Its settings don't go with this node's.
    Settings(String),
    /// Its folder is not the one that made its promises.
    PromiseLost(String),
}

/// Takes what others send. Called on the thread of the [`Peers`], from tasks of their own: never from within a call to [`Peers`].
pub trait PeerSink {
    /// A message has come. More may follow before [`PeerSink::turn_end`].
    fn message(&self, from: NodeId, message: PeerMessage);
    /// A batch of calls to the other methods is over: commit and flush.
    fn turn_end(&self);
    /// The outgoing control connection to a node came up or went down. The bulk connection comes up about then, not at once.
    fn link(&self, peer: NodeId, up: bool);
    /// A node says that the cluster has removed this one. It is told with every attempt to connect.
    fn removed(&self, by: NodeId);
    /// Whether a node of the cluster is heard: its folder must be the one that made its promises, and its settings must go with this
    /// node's. What is accepted here is remembered, durably, before this returns.
    ///
    /// # Errors
    /// Why it is not.
    fn vet(&self, from: NodeId, starts: &Starts, pace: &Pace) -> Result<(), Refusal>;
    /// A node says that this one's folder is not the one that made its promises. It is told with every attempt to connect.
    fn promise_lost(&self, by: NodeId, reason: &str);
    /// A node asks for a place in the cluster. A reply that is dropped tells it to ask again.
    fn join(&self, request: JoinRequest, reply: oneshot::Sender<JoinReply>);
}

/// The connections to and from all other nodes. A handle; clones share everything.
#[derive(Clone)]
pub struct Peers(pub(super) Rc<Inner>);

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("me", &self.0.options.me).finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    pub(super) options: PeerOptions,
    pub(super) said: Said,
    sink: Weak<dyn PeerSink>,
    links: RefCell<BTreeMap<NodeId, Rc<Link>>>,
    /// What was queued since the last flush.
    dirty: RefCell<Vec<(Rc<Link>, Lane)>>,
    /// The highest number that was ever given, as of the list of members. A replica that reads the log from its beginning passes
    /// through old lists, and may be told of the next entry by a node that is in none of them yet: its number is higher.
    highest: Cell<NodeId>,
    /// Connections from others, half-made ones included.
    pub(super) inbound: Cell<usize>,
    serial: Cell<u64>,
    closed: Cell<bool>,
    closing: Notify,
}

impl Peers {
    /// A transport without connections. The sink is held weakly, since it holds this; when it is gone, connections end.
    pub fn new(options: PeerOptions, sink: Weak<dyn PeerSink>) -> Self {
        Peers(Rc::new(Inner {
            highest: Cell::new(0),
            options,
            said: Said::default(),
            sink,
            links: RefCell::default(),
            dirty: RefCell::default(),
            inbound: Cell::new(0),
            serial: Cell::new(0),
            closed: Cell::new(false),
            closing: Notify::new(),
        }))
    }

    /// Says who the cluster's nodes are and where their peers connect; this node may be among them. Dialing starts and stops
    /// accordingly, and connections from nodes that are no members any more end. `last_id` is the highest number that was ever
    /// given; a member's is at most that.
    ///
    /// # Panics
    /// Outside of a local tokio runtime: tasks are spawned.
    pub fn set_members(&self, members: &[(NodeId, Address)], last_id: NodeId) {
        let inner = &self.0;
        if inner.closed.get() {
            return;
        }
        let highest = members.iter().map(|(id, _)| *id).max().unwrap_or(0).max(last_id);
        inner.highest.set(highest);
        for (id, address) in members.iter().filter(|(id, _)| *id != inner.options.me && *id != 0) {
            let link = inner.links.borrow().get(id).cloned();
            link.unwrap_or_else(|| inner.add_link(*id)).set_member(Some(address));
        }
        let links: Vec<Rc<Link>> = inner.links.borrow().values().cloned().collect();
        for link in links.iter().filter(|link| !members.iter().any(|(id, _)| *id == link.id)) {
            link.set_member(None);
            // One above all numbers known is a guest from now on, if it is connected.
            if link.id <= highest || !link.has_inbound() {
                inner.remove_link(link);
            }
        }
    }

    /// Queues a message on its lane; [`Peers::flush`] sends it. `false`: it was dropped, for want of a connection or of room in the queue.
    ///
    /// # Panics
    /// If it is an append whose entries are not consecutive.
    pub fn send(&self, to: NodeId, message: PeerMessage) -> bool {
        let inner = &self.0;
        let Some(link) = inner.links.borrow().get(&to).cloned() else { return false };
        let lane = message.lane();
        let wire = link.wire(lane);
        match wire.queue(lane, &message, &inner.options) {
            Ok(_) => {
                link.count(|counters| counters.sent_messages += 1);
                if !wire.dirty.replace(true) {
                    inner.dirty.borrow_mut().push((link, lane));
                }
                true
            }
            Err(reason) => {
                link.count(|counters| counters.dropped_messages += 1);
                if reason == NotQueued::TooLarge {
                    let limit = inner.options.frame_bytes_max + HEAD_BYTES;
                    inner.said.warn(&format!(
                        "a message for node {to} is larger than a frame may be ({limit} bytes); it was dropped"
                    ));
                }
                false
            }
        }
    }

    /// Writes what is queued, as far as the sockets take it now: control first. The rest follows by itself.
    pub fn flush(&self) {
        let mut dirty = self.0.dirty.take();
        for lane in LANES {
            for (link, _) in dirty.iter().filter(|(_, dirty)| *dirty == lane) {
                let wire = link.wire(lane);
                wire.dirty.set(false);
                let bytes = wire.flush();
                link.count(|counters| counters.sent_bytes += bytes as u64);
            }
        }
        dirty.clear();
        // The vector's memory is used again.
        self.0.dirty.replace(dirty);
    }

    /// What waits to be sent to a node on a lane, in bytes.
    pub fn queued_bytes(&self, to: NodeId, lane: Lane) -> usize {
        self.0.links.borrow().get(&to).map_or(0, |link| link.wire(lane).queued_bytes())
    }

    /// Whether control messages to a node have a connection.
    pub fn is_connected(&self, to: NodeId) -> bool {
        self.0.links.borrow().get(&to).is_some_and(|link| link.wire(Lane::Control).is_open())
    }

    /// Figures of the traffic with each node, by ascending number.
    pub fn counters(&self) -> Vec<(NodeId, PeerCounters)> {
        self.0.links.borrow().iter().map(|(id, link)| (*id, link.counters.get())).collect()
    }

    /// The connections to and from all nodes, and figures over all of them. `now_ms` is the present time, in milliseconds since
    /// the epoch.
    pub fn traffic(&self, now_ms: u64) -> Traffic {
        let mut traffic = Traffic::default();
        for (node, link) in self.0.links.borrow().iter() {
            let counters = link.counters.get();
            traffic.sent_messages += counters.sent_messages;
            traffic.received_messages += counters.received_messages;
            traffic.dropped_messages += counters.dropped_messages;
            traffic.links.extend(link.connections().into_iter().map(|(outgoing, since, queued_bytes)| LinkView {
                node: *node,
                outgoing,
                since_ms: now_ms.saturating_sub(since.elapsed().as_millis() as u64),
                queued_bytes: queued_bytes as u64,
            }));
        }
        traffic
    }

    /// The client and peer address that a node gave when it last connected to this one.
    pub fn announced(&self, node: NodeId) -> Option<(Address, Address)> {
        self.0.links.borrow().get(&node).and_then(|link| link.announced())
    }

    /// Accepts connections from other nodes until [`Peers::close`].
    ///
    /// # Panics
    /// Outside of a local tokio runtime: tasks are spawned.
    pub async fn serve(self, listener: TcpListener) {
        tokio::select! {
            () = accept::serve(&self.0, &listener) => {}
            () = self.0.closing.notified() => {}
        }
    }

    /// Ends all connections and tasks, for good.
    pub fn close(&self) {
        self.0.closed.set(true);
        self.0.closing.notify_one();
        for link in std::mem::take(&mut *self.0.links.borrow_mut()).into_values() {
            link.stop();
        }
    }
}

impl Inner {
    /// The sink, while there is one.
    pub(super) fn sink(&self) -> Option<Rc<dyn PeerSink>> {
        self.sink.upgrade()
    }

    /// Numbers connections.
    pub(super) fn next_serial(&self) -> u64 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// Starts dialing a node.
    fn add_link(self: &Rc<Self>, id: NodeId) -> Rc<Link> {
        let link = Rc::new(Link::new(id));
        self.links.borrow_mut().insert(id, Rc::clone(&link));
        for lane in LANES {
            tokio::task::spawn_local(dial::keep_connected(Rc::clone(self), Rc::clone(&link), lane));
        }
        link
    }

    fn remove_link(&self, link: &Rc<Link>) {
        link.stop();
        self.links.borrow_mut().remove(&link.id);
    }

    /// The link for a node that connected.
    ///
    /// # Errors
    /// As [`Inner::check`].
    pub(super) fn admit(self: &Rc<Self>, from: NodeId) -> Result<Rc<Link>, DialError> {
        self.check(from)?;
        let link = self.links.borrow().get(&from).cloned();
        Ok(link.unwrap_or_else(|| self.add_link(from)))
    }

    /// Whether a node of the cluster is let in.
    ///
    /// # Errors
    /// Why it is not, for its operator.
    pub(super) fn check(&self, from: NodeId) -> Result<(), DialError> {
        if self.closed.get() {
            return Err(DialError::Refused("the node is stopping".into()));
        }
        if self.links.borrow().contains_key(&from) {
            return Ok(());
        }
        if from <= self.highest.get() {
            return Err(DialError::Removed(format!(
                "node {from} is not a member of the cluster any more: stop it; to bring it back, let it join with an empty data folder"
            )));
        }
        if self.links.borrow().values().filter(|link| !link.is_member()).count() >= GUESTS_MAX {
            return Err(DialError::Refused(format!(
                "node {from} is not known here, and {GUESTS_MAX} others that aren't are connected already"
            )));
        }
        Ok(())
    }

    /// A connection from a node has ended: one that is no member is forgotten with its last connection.
    pub(super) fn dismiss(&self, link: &Rc<Link>, lane: Lane, serial: u64) {
        link.remove_inbound(lane, serial);
        let is_current = self.links.borrow().get(&link.id).is_some_and(|current| Rc::ptr_eq(current, link));
        if !link.has_inbound() && !link.is_member() && is_current {
            self.remove_link(link);
        }
    }
}
