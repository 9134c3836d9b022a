//! A node's part in its cluster: messages from and to peers, who leads, who belongs, and reads that need a quorum's word.
//!
//! ```text
//!   peer::Peers ─▶ message ─▶ Host::step ┐
//!   tick (20 ms) ─▶ Host::tick ──────────┴─▶ pump ─▶ messages ─▶ peer::Peers
//!                                             ├───▶ roles, members ─▶ Topology ─▶ MOVED, CLUSTER SLOTS, INFO
//!                                             └───▶ reads confirmed ─▶ held connections go on
//! ```
//!
//! Leadership decides what a connection gets: the leader serves, everybody else points at it. When leadership is lost, commands
//! that were proposed have an unknown outcome, and their connections close; commands that were not are refused, which is a definite
//! answer.

use super::conn::{ConnKey, Hold};
use super::transfer::Transfers;
use super::{AbortOnPanic, Shard};
use crate::cluster::{Address, GroupView, Member, NodeId, NodeView, Pace, PromiseLost, Start, Starts, Topology};
use crate::entry::ENTRY_BYTES_MAX;
use crate::host::{ClusterIdentity, Outputs};
use crate::membership::Parting;
use crate::peer::{JoinReply, JoinRequest, PeerMessage, PeerSink, Peers, Refusal, request_join};
use crate::replica::{DATA_GROUP, ReadGate, Replica, internal};
use crate::slot::SLOT_COUNT;
use holdfast_engine::GroupId;
use holdfast_raft::{MessageBody, ReadError, Role, RoleState};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the groups' timers are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Nodes that may wait for a place in the cluster at a time.
const JOINS_MAX: usize = 64;
/// How long after one attempt to correct this node's entry in the list of members the next is made, in milliseconds.
const MEMBER_RETRY_MS: u64 = 2000;
/// How long a request to change this node's addresses may take.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads that one round of the quorum shall confirm, and the connections that wait for them.
#[derive(Debug)]
struct Asked {
    context: u64,
    /// Once confirmed: serve when this is applied.
    index: Option<u64>,
    conns: Vec<ConnKey>,
}

/// The shard's state as a member of a cluster.
#[derive(Debug)]
pub(super) struct Cluster {
    identity: ClusterIdentity,
    /// What the list of members should say of this node.
    me: Member,
    pub(super) peers: Peers,
    /// Who the other nodes were when this one joined: until the log says so.
    hints: Vec<(NodeId, Address)>,
    leader_last: Option<NodeId>,
    led: bool,
    /// This node stops, and gives leadership to another before.
    handing_over: bool,
    /// Leadership is handed over on an operator's word; given up by then, on the shard's own clock.
    hand_over_until_ms: u64,
    /// Nodes that wait to be taken in.
    joins: Vec<(u128, oneshot::Sender<JoinReply>)>,
    member_asked_ms: u64,
    /// Connections whose reads wait for the next round.
    readers: Vec<ConnKey>,
    asked: VecDeque<Asked>,
    next_context: u64,
    /// Jobs that wait for followers to get further: WAIT.
    watchers: Vec<Waker>,
    pub(super) transfers: Transfers,
    /// What clients were told last.
    topology: Option<Arc<Topology>>,
    /// Why this node takes part in nothing any more.
    parting: Option<Parting>,
    starts_asked_ms: u64,
}

/// What a node needs to take part.
#[derive(Debug)]
pub(crate) struct ClusterStart {
    pub(crate) identity: ClusterIdentity,
    pub(crate) me: Member,
    pub(crate) peers: Peers,
    pub(crate) hints: Vec<(NodeId, Address)>,
    pub(crate) seed: u64,
    /// Why the node takes part no more, as its folder says.
    pub(crate) parting: Option<Parting>,
}

/// Brings what peers say to the shard.
#[derive(Debug, Default)]
pub(crate) struct ShardSink {
    shard: RefCell<Weak<RefCell<Shard>>>,
}

impl ShardSink {
    /// From now on it is this shard that hears.
    pub(crate) fn attach(&self, shard: &Rc<RefCell<Shard>>) {
        *self.shard.borrow_mut() = Rc::downgrade(shard);
    }

    fn with(&self, act: impl FnOnce(&mut Shard)) {
        let shard = self.shard.borrow().upgrade();
        if let Some(shard) = shard {
            let _guard = AbortOnPanic;
            act(&mut shard.borrow_mut());
        }
    }
}

impl PeerSink for ShardSink {
    fn message(&self, from: NodeId, message: PeerMessage) {
        self.with(|shard| shard.peer_message(from, message));
    }

    fn turn_end(&self) {
        self.with(|shard| {
            shard.read_clock();
            shard.pump();
        });
    }

    fn link(&self, peer: NodeId, up: bool) {
        self.with(|shard| shard.peer_link(peer, up));
    }

    fn removed(&self, by: NodeId) {
        self.with(|shard| {
            tracing::warn!(by, "another node says that this one was removed from the cluster");
            shard.leave_cluster(Parting::Removed);
        });
    }

    fn vet(&self, from: NodeId, starts: &Starts, pace: &Pace) -> Result<(), Refusal> {
        let mut judged = Err(Refusal::Settings("the node is stopping".to_owned()));
        self.with(|shard| judged = shard.host.vet(from, starts, pace));
        if let Err(Refusal::PromiseLost(reason)) = &judged {
            tracing::error!(node = from, reason, "a node with an older copy of its data folder was turned away");
        }
        judged
    }

    fn promise_lost(&self, by: NodeId, reason: &str) {
        self.with(|shard| {
            tracing::warn!(by, "another node says that this one's folder is not the one that made its promises");
            shard.leave_cluster(Parting::PromiseLost(reason.to_owned()));
        });
    }

    fn join(&self, request: JoinRequest, reply: oneshot::Sender<JoinReply>) {
        self.with(|shard| shard.join_requested(request, reply));
    }
}

impl Shard {
    /// Makes the shard a member of its cluster and starts the tasks for that. The log's writer moves to a thread of its own.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(crate) fn start_cluster(shard: &Rc<RefCell<Shard>>, start: ClusterStart) -> std::io::Result<()> {
        let reports = shard.borrow_mut().move_writer()?;
        let (transfers, mut events) = Transfers::new(start.seed);
        {
            let mut this = shard.borrow_mut();
            // NB: a founder leads since its host was opened; its first change of role is the loss of that.
            let role = this.host.data().raft().role_state();
            this.cluster = Some(Cluster {
                identity: start.identity,
                me: start.me,
                peers: start.peers,
                hints: start.hints,
                leader_last: role.leader,
                led: role.role == Role::Leader,
                handing_over: false,
                hand_over_until_ms: 0,
                joins: Vec::new(),
                member_asked_ms: 0,
                readers: Vec::new(),
                asked: VecDeque::new(),
                next_context: 1,
                watchers: Vec::new(),
                transfers,
                topology: None,
                parting: None,
                starts_asked_ms: 0,
            });
            if let Some(parting) = start.parting {
                this.leave_cluster(parting);
            }
            this.members_changed = true;
            this.after_members();
            this.publish_topology();
        }
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            let mut reports = reports;
            while let Some(report) = reports.recv().await {
                let mut shard = me.borrow_mut();
                shard.read_clock();
                if let Err(reason) = shard.learn(report) {
                    shard.fail_turn(&reason);
                }
                shard.pump();
            }
        });
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            while let Some(event) = events.recv().await {
                let mut shard = me.borrow_mut();
                shard.read_clock();
                shard.transfer_event(event);
                shard.pump();
            }
        });
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let mut shard = me.borrow_mut();
                shard.read_clock();
                let now = shard.mono_ms();
                shard.host.tick(now);
                shard.pump();
            }
        });
        Ok(())
    }

    // ---- peers -----------------------------------------------------------------------------------------------------

    fn peer_message(&mut self, from: NodeId, message: PeerMessage) {
        match message {
            PeerMessage::Raft { group, message } => {
                if message.from != from {
                    tracing::warn!(
                        peer = from,
                        claims = message.from,
                        "a peer spoke in another's name; it is not heard"
                    );
                    return;
                }
                let now = self.mono_ms();
                if let Err(error) = self.host.step(now, group, message) {
                    tracing::warn!(peer = from, group, %error, "a message of a peer was refused");
                }
            }
            PeerMessage::Beat => {
                let now = self.mono_ms();
                self.host.beat(now, from);
            }
            PeerMessage::StateHash { group, found } => self.host.learn_hash(from, group, found),
            PeerMessage::SnapshotChunk(chunk) => self.receive_chunk(from, chunk),
            PeerMessage::SnapshotStatus { group, transfer, status } => {
                self.snapshot_status(from, group, transfer, status);
            }
        }
    }

    fn peer_link(&mut self, peer: NodeId, up: bool) {
        tracing::debug!(peer, up, "the link to a peer changed");
        self.topology_changed = true;
        if !up {
            // What was on its way may be lost.
            self.host.data_mut().unreachable(peer);
            self.transfers_lost_link(peer);
        }
    }

    /// Does what the host wants done in the cluster: messages, confirmed reads, roles, snapshots.
    pub(super) fn carry_out_cluster(&mut self, outputs: &mut Outputs) {
        for (group, message) in outputs.messages.drain(..) {
            let Some(cluster) = &self.cluster else { continue };
            let to = message.to;
            let appends = matches!(message.body, MessageBody::Append { .. });
            let announces = matches!(message.body, MessageBody::Snapshot { .. });
            if cluster.peers.send(to, PeerMessage::Raft { group, message }) {
                continue;
            }
            // For want of a link or of room.
            if announces {
                self.announcement_lost(group, to);
            } else if appends && let Some(replica) = self.host.replica_mut(group) {
                // Don't let the pipeline run ahead.
                replica.unreachable(to);
            }
        }
        for node in outputs.beats.drain(..) {
            if let Some(cluster) = &self.cluster {
                // One that gets lost is followed by another.
                cluster.peers.send(node, PeerMessage::Beat);
            }
        }
        let answered = !outputs.reads.is_empty() || !outputs.reads_dropped.is_empty();
        for (_, read) in outputs.reads.drain(..) {
            if let Some(cluster) = &mut self.cluster
                && let Some(asked) = cluster.asked.iter_mut().find(|asked| asked.context == read.context)
            {
                asked.index = Some(read.index);
            }
        }
        for (_, context) in outputs.reads_dropped.drain(..) {
            let Some(cluster) = &mut self.cluster else { continue };
            if let Some(at) = cluster.asked.iter().position(|asked| asked.context == context)
                && let Some(asked) = cluster.asked.remove(at)
            {
                // They are dispatched again, and told who leads.
                asked.conns.into_iter().for_each(|key| self.release(key));
            }
        }
        if answered && self.cluster.as_ref().is_some_and(|cluster| !cluster.readers.is_empty()) {
            // Those that found too many waiting.
            self.wake_turn();
        }
        for (group, to, found) in outputs.state_hashes.drain(..) {
            // One that gets lost is told again.
            if let Some(cluster) = &self.cluster {
                cluster.peers.send(to, PeerMessage::StateHash { group, found });
            }
        }
        for (group, id) in outputs.promises_lost.drain(..) {
            self.promise_was_lost(group, id);
        }
        for (group, role) in outputs.roles.drain(..) {
            self.role_changed(group, role);
        }
        for (group, need) in outputs.snapshots.drain(..) {
            self.start_sending(group, need);
        }
        for group in outputs.installs.drain(..) {
            self.start_install(group);
        }
        self.serve_confirmed();
    }

    fn role_changed(&mut self, group: GroupId, role: RoleState) {
        self.topology_changed = true;
        let Some(cluster) = &mut self.cluster else { return };
        if role.leader.is_some() {
            cluster.leader_last = role.leader;
        }
        let leads = role.role == Role::Leader;
        let led = std::mem::replace(&mut cluster.led, leads);
        if leads != led {
            tracing::info!(group, term = role.term, leads, "leadership of this node changed");
        }
        if led && !leads {
            for (_, reply) in cluster.joins.drain(..) {
                let _ = reply.send(JoinReply::Retry { reason: "the leader changed".to_owned() });
            }
            self.lose_under_way();
        }
        if !leads {
            // NB: also those whose index is known: what this replica lacks may not come before long.
            self.release_readers();
        }
        if leads && !led {
            self.begin_hand_over_for(0);
            self.correct_own_entry();
        }
    }

    // ---- reads -----------------------------------------------------------------------------------------------------

    /// Whether a linearizable read of the connection may run now. `false`: the connection is held until it may.
    pub(super) fn may_read(&mut self, place: usize) -> bool {
        if self.cluster.is_none() || self.conns[place].granted > 0 {
            return true;
        }
        let now = self.mono_ms();
        match self.host.data_mut().read_gate(now) {
            ReadGate::Open => true,
            // Without leadership, the leader is asked, or the question refused, and the command dispatched again: it is told who leads.
            ReadGate::Ask | ReadGate::NotLeader => {
                let key = self.key_of(place);
                if let Some(cluster) = &mut self.cluster {
                    cluster.readers.push(key);
                }
                self.hold(place, Hold::Quorum);
                self.wake_turn();
                false
            }
        }
    }

    /// Has the reads that came together confirmed by one round of the quorum.
    pub(super) fn ask_quorum(&mut self) {
        let now = self.mono_ms();
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.readers.is_empty() {
            return;
        }
        let context = cluster.next_context;
        cluster.next_context += 1;
        let conns = std::mem::take(&mut cluster.readers);
        match self.host.data_mut().read_index(now, context) {
            Ok(()) => cluster.asked.push_back(Asked { context, index: None, conns }),
            // They ask again in the turn that the answer to an earlier question begins.
            Err(ReadError::TooManyReads) => cluster.readers = conns,
            Err(ReadError::NotLeader { .. }) => conns.into_iter().for_each(|key| self.release(key)),
        }
    }

    /// Whether reads wait for the quorum's word.
    pub(super) fn has_readers(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| !cluster.readers.is_empty() || !cluster.asked.is_empty())
    }

    /// Lets all reads go that wait for the quorum's word, without it: they are dispatched again, and told who leads.
    pub(super) fn release_readers(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut keys = std::mem::take(&mut cluster.readers);
        keys.extend(std::mem::take(&mut cluster.asked).into_iter().flat_map(|asked| asked.conns));
        keys.into_iter().for_each(|key| self.release(key));
    }

    /// Lets reads go on that are confirmed and whose index is applied.
    pub(super) fn serve_confirmed(&mut self) {
        let applied = self.host.data().applied().index;
        loop {
            let Some(cluster) = &mut self.cluster else { return };
            let ready = |asked: &Asked| asked.index.is_some_and(|index| index <= applied);
            let Some(at) = cluster.asked.iter().position(ready) else { return };
            let Some(asked) = cluster.asked.remove(at) else { return };
            for key in asked.conns {
                if let Some(conn) = self.conn_mut(key) {
                    conn.granted = conn.asked_bytes;
                }
                self.release(key);
            }
        }
    }

    // ---- replicas --------------------------------------------------------------------------------------------------

    /// How many other replicas are known to have the log up to `index` on their disks. `None`: this node doesn't lead, and
    /// can't know. A node that is alone has no others.
    pub(super) fn replicas_with(&self, index: u64) -> Option<usize> {
        if self.cluster.is_none() {
            return Some(0);
        }
        let replica = self.host.data();
        self.leads().then(|| replica.matched().iter().filter(|(_, matched)| *matched >= index).count())
    }

    /// Wakes a job once, when followers may have got further or leadership may have changed. NB: one that asks twice is woken
    /// twice; the list is emptied with every tick.
    pub(super) fn wake_when_replicated(&mut self, waker: &Waker) {
        if let Some(cluster) = &mut self.cluster {
            cluster.watchers.push(waker.clone());
        }
    }

    /// Lets the jobs look that wait for followers.
    pub(super) fn wake_watchers(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.watchers.drain(..).for_each(Waker::wake);
        }
    }

    // ---- members ---------------------------------------------------------------------------------------------------

    fn join_requested(&mut self, request: JoinRequest, reply: oneshot::Sender<JoinReply>) {
        let answer = |text: &str| JoinReply::Retry { reason: text.to_owned() };
        let folder = request.folder;
        let member = Member { folder, client: request.client, peer: request.peer };
        let replica = self.host.data();
        let leader = replica.raft().role_state().leader;
        let known = replica.members().by_folder(folder).and_then(|id| replica.member(id)).is_some_and(|m| *m == member);
        let is_new = replica.members().by_folder(folder).is_none();
        let others = replica.members().nodes.iter().filter(|(_, other)| other.folder != folder);
        let taken = others.map(|(id, other)| (*id, other)).find_map(|(id, other)| match () {
            () if other.peer == member.peer => Some((id, "peer", &other.peer)),
            // Two nodes would send a client to each other without end. NB: those that are in the list may be about to change places.
            () if other.client == member.client && is_new => Some((id, "client", &other.client)),
            () => None,
        });
        let Some(cluster) = &mut self.cluster else { return };
        let listed = replica.member(cluster.identity.node).is_some();
        let early = if self.host.fault().is_some() {
            // It hears of no leader any more. The others may have one.
            Some(answer("that node takes no more writes; name another of the cluster, or restart it"))
        } else if !replica.raft().is_leader() {
            let address = leader.and_then(|id| replica.member(id)).map(|member| member.peer.clone());
            Some(address.map_or_else(|| answer("no leader is known"), |leader| JoinReply::Redirect { leader }))
        } else if !listed {
            // The founder's first: a newcomer must be told of it.
            Some(answer("the list of members is not ready"))
        } else if let Some((other, what, address)) = taken {
            let reason = format!(
                "node {other} has the {what} address {address}; if it is gone for good, remove it first: kvctl node remove {other}"
            );
            Some(JoinReply::Refused { reason })
        } else if cluster.joins.iter().filter(|(_, reply)| !reply.is_closed()).count() >= JOINS_MAX {
            Some(answer("too many nodes are joining"))
        } else {
            None
        };
        if let Some(early) = early {
            let _ = reply.send(early);
            return;
        }
        cluster.joins.retain(|(_, reply)| !reply.is_closed());
        cluster.joins.push((folder, reply));
        if known {
            self.answer_joins();
        } else {
            self.propose_member(0, &member);
        }
    }

    fn propose_member(&mut self, id: NodeId, member: &Member) {
        let args = Replica::member_args(id, member);
        let args: Vec<&[u8]> = [&b""[..]].into_iter().chain(args.iter().map(Vec::as_slice)).collect();
        self.push_internal(internal::MEMBER, &args);
    }

    fn answer_joins(&mut self) {
        let members = self.host.data().members();
        let Some(cluster) = &mut self.cluster else { return };
        for (folder, reply) in std::mem::take(&mut cluster.joins) {
            match members.by_folder(folder) {
                Some(node) => {
                    let peers = members.nodes.iter().map(|(id, member)| (*id, member.peer.clone())).collect();
                    let _ = reply.send(JoinReply::Welcome { cluster: cluster.identity.cluster, node, peers });
                }
                None => cluster.joins.push((folder, reply)),
            }
        }
    }

    /// Takes note of a change of the members: links to them, nodes that wait for it, the topology.
    pub(super) fn after_members(&mut self) {
        if !std::mem::take(&mut self.members_changed) {
            return;
        }
        self.answer_joins();
        let Some(cluster) = &self.cluster else { return };
        let me = cluster.identity.node;
        let members = self.host.data().members();
        if members.has_lost(me) {
            return self.leave_cluster(Parting::Removed);
        }
        if let Some(lost) = self.host.own_promise_lost() {
            return self.leave_cluster(Parting::PromiseLost(lost.explain(me)));
        }
        let nodes = &members.nodes;
        let last_id = if nodes.is_empty() { 0 } else { members.last_id };
        let known: Vec<(NodeId, Address)> = if nodes.is_empty() {
            cluster.hints.clone()
        } else {
            nodes.iter().map(|(id, member)| (*id, member.peer.clone())).collect()
        };
        let others: Vec<_> = known.into_iter().filter(|(id, _)| *id != me).collect();
        cluster.peers.set_members(&others, last_id);
        self.topology_changed = true;
    }

    /// Learns that this node is to take part no more: it serves nobody, stands for no election, and its folder keeps that in mind.
    /// What it has proposed has an unknown outcome.
    pub(super) fn leave_cluster(&mut self, parting: Parting) {
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.parting.is_some() {
            return;
        }
        let node = cluster.identity.node;
        match &parting {
            Parting::Removed => tracing::error!(
                node,
                "this node was removed from its cluster and serves nobody any more: stop it; to bring the machine back, let it \
                 join with an empty data folder"
            ),
            Parting::PromiseLost(reason) => {
                tracing::error!(node, "this node takes part in its cluster no more: {reason}");
            }
        }
        cluster.peers.close();
        for (_, reply) in cluster.joins.drain(..) {
            let _ = reply.send(JoinReply::Retry { reason: "this node takes part no more".to_owned() });
        }
        // NB: without the mark it would find out again after a restart. That is so for a removed node; an older copy might have been
        // started so often by then that nobody can tell it from the folder that was lost.
        let marked = match &parting {
            Parting::Removed => crate::membership::mark_removed(self.host.folder()),
            Parting::PromiseLost(reason) => crate::membership::mark_promise_lost(self.host.folder(), reason),
        };
        if let Err(error) = marked {
            tracing::warn!(%error, "the folder can't be marked as that of a node that takes part no more");
        }
        cluster.parting = Some(parting);
        self.host.retire();
        self.lose_under_way();
        self.release_readers();
        self.topology_changed = true;
    }

    /// What clients are told if this node takes part no more, or serves nobody until it is rebuilt.
    pub(super) fn parted(&self) -> Option<&'static str> {
        let cluster = self.cluster.as_ref()?;
        match cluster.parting {
            Some(Parting::Removed) => Some(super::membership::REMOVED),
            Some(Parting::PromiseLost(_)) => Some(super::membership::PROMISE_LOST),
            None => self.host.data().differs().then_some(super::membership::DIFFERS),
        }
    }

    /// What other nodes know this one by.
    pub(crate) fn standing(&self) -> (Starts, Pace) {
        (self.host.starts().clone(), self.host.pace())
    }

    /// The leader has the starts registered that it knows of, so that all nodes learn of them.
    fn register_starts(&mut self) {
        let now_ms = self.mono_ms();
        let leads = self.leads();
        let Some(cluster) = &mut self.cluster else { return };
        if !leads || now_ms.saturating_sub(cluster.starts_asked_ms) < MEMBER_RETRY_MS {
            return;
        }
        let news = self.host.unregistered_starts();
        if !news.is_empty() {
            cluster.starts_asked_ms = now_ms;
        }
        for (id, start) in news {
            self.propose_start(id, start);
        }
    }

    fn propose_start(&mut self, id: NodeId, start: Start) {
        let args = Replica::start_args(id, start);
        let args: Vec<&[u8]> = [&b""[..]].into_iter().chain(args.iter().map(Vec::as_slice)).collect();
        self.push_internal(internal::START, &args);
    }

    /// A disk has lost entries that were acknowledged.
    fn promise_was_lost(&mut self, group: GroupId, id: NodeId) {
        let reason = PromiseLost::Void.explain(id);
        if id == self.host.data().raft().id() {
            // What it owes the leader is that it says so, and that is queued.
            if let Some(cluster) = &self.cluster {
                cluster.peers.flush();
            }
            return self.leave_cluster(Parting::PromiseLost(reason));
        }
        tracing::error!(
            node = id,
            group,
            reason,
            "a node has lost entries that it had acknowledged; it counts for nothing any more"
        );
        let void = self.host.void_start(id);
        self.propose_start(id, void);
    }

    /// Sees to it that the list of members says of this node what is true.
    fn correct_own_entry(&mut self) {
        let now_ms = self.mono_ms();
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.parting.is_none()) else { return };
        let replica = self.host.data();
        let said = replica.member(cluster.identity.node);
        if said == Some(&cluster.me) || now_ms.saturating_sub(cluster.member_asked_ms) < MEMBER_RETRY_MS {
            return;
        }
        let me = cluster.me.clone();
        if replica.raft().is_leader() {
            cluster.member_asked_ms = now_ms;
            let id = cluster.identity.node;
            self.propose_member(id, &me);
        } else if said.is_some()
            && let Some(leader) = replica.raft().role_state().leader.and_then(|id| replica.member(id))
        {
            cluster.member_asked_ms = now_ms;
            let leader = leader.peer.clone();
            let request = JoinRequest { folder: me.folder, client: me.client, peer: me.peer };
            tokio::task::spawn_local(async move {
                match request_join(&leader, request, MEMBER_TIMEOUT).await {
                    Ok(JoinReply::Refused { reason }) => {
                        tracing::warn!(%leader, reason, "the leader does not take this node's new addresses; trying again");
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%leader, %error, "cannot tell the leader of this node's new addresses; trying again");
                    }
                }
            });
        }
    }

    // ---- upkeep ----------------------------------------------------------------------------------------------------

    /// What a member of a cluster looks after ten times a second.
    pub(super) fn keep_cluster(&mut self) {
        if self.cluster.is_none() {
            return;
        }
        self.correct_own_entry();
        self.register_starts();
        self.hash_state();
        self.watch_transfers();
        self.publish_topology();
        if let Some(cluster) = &self.cluster {
            self.node.publish_traffic(cluster.peers.traffic(self.clock_ms()));
        }
    }

    /// Tells clients what is known of the cluster.
    pub(super) fn publish_topology(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        self.topology_changed = false;
        let replica = self.host.data();
        let me = cluster.identity.node;
        let node = |(id, member): (&NodeId, &Member)| NodeView {
            id: *id,
            client: member.client.clone(),
            peer: member.peer.clone(),
            connected: *id == me || cluster.peers.is_connected(*id),
        };
        let status = replica.raft().status();
        let conf = replica.raft().conf_state();
        // One that takes part no more knows nothing of the present but that it isn't in it.
        let present =
            |ids: &[NodeId]| ids.iter().copied().filter(|id| !(cluster.parting.is_some() && *id == me)).collect();
        let group = GroupView {
            id: DATA_GROUP,
            term: status.role.term,
            // One that is halted leads no more, whatever its Raft still says.
            leader: status.role.leader.filter(|id| (*id != me || self.leads()) && cluster.parting.is_none()),
            leader_last: cluster.leader_last,
            voters: present(&conf.voters),
            learners: present(&conf.learners),
            slots: vec![(0, SLOT_COUNT - 1)],
            commit: status.commit,
            applied: replica.applied().index,
            matched: status.peers.iter().map(|peer| (peer.id, peer.matched)).collect(),
        };
        let topology = Arc::new(Topology {
            cluster: cluster.identity.cluster,
            me,
            nodes: replica.members().nodes.iter().map(node).collect(),
            groups: vec![group],
        });
        self.node.publish_topology(Arc::clone(&topology));
        if let Some(cluster) = &mut self.cluster {
            cluster.topology = Some(topology);
        }
    }

    /// The cluster as clients were told of it last; none on a node that is alone.
    #[inline]
    pub(super) fn topology(&self) -> Option<&Topology> {
        self.cluster.as_ref().and_then(|cluster| cluster.topology.as_deref())
    }

    /// Whether writes must wait because a turn is full and what is under way is not applied yet.
    pub(super) fn is_turn_full(&self) -> bool {
        self.cluster.is_some() && self.turn.is_full()
    }

    /// From now on nothing is proposed, if there is somebody to hand leadership to; clients wait until that one leads.
    pub(super) fn begin_hand_over(&mut self) -> bool {
        let begun = self.host.data().successor().is_some();
        if let Some(cluster) = &mut self.cluster {
            cluster.handing_over = begun;
        }
        begun
    }

    /// Hands leadership over. Call it when nothing is under way any more: what is could neither be answered nor refused.
    pub(super) fn hand_over(&mut self) {
        let successor = self.host.data().successor();
        let asked = successor.is_some_and(|target| self.host.data_mut().transfer_leader(target));
        if !asked && self.leads() {
            self.end_hand_over();
        }
    }

    /// Clients wait for another to lead, for so long at most; 0 ends that.
    pub(super) fn begin_hand_over_for(&mut self, ms: u64) {
        let until_ms = self.mono_ms() + ms;
        if let Some(cluster) = &mut self.cluster {
            cluster.hand_over_until_ms = until_ms;
        }
    }

    /// Nobody took over.
    pub(super) fn end_hand_over(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.handing_over = false;
        }
    }

    /// Whether this node gives leadership away, and who has it next is about to be known. Clients are made to wait for that
    /// moment, and then told where to go.
    pub(super) fn awaits_successor(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            let leader = self.host.data().raft().role_state().leader;
            (cluster.handing_over || self.mono_ms() < cluster.hand_over_until_ms)
                && leader.is_none_or(|leader| leader == cluster.identity.node)
                && self.host.fault().is_none()
        })
    }

    /// Whether this node leads.
    pub(super) fn leads(&self) -> bool {
        self.host.fault().is_none() && self.host.data().raft().is_leader() && self.parted().is_none()
    }
}

const _: () = assert!(ENTRY_BYTES_MAX <= 1 << 20, "a turn's entry fits into one append");
