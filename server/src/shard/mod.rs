//! A shard thread: a set of connections and groups on one thread, without a lock or a channel between them.
//!
//! ```text
//!   ready sockets ─▶ conn: bytes ─▶ dispatch: commands ─▶ turn: one log entry ─▶ replica: one write, one fdatasync
//!        ▲                                                                              │
//!        └───────────── conn: output ◀── turn: replies, in order ◀── apply ◀────────────┘
//! ```
//!
//! The thread runs a tokio current_thread runtime. Every connection is a task; the runtime polls the tasks of all ready
//! sockets in the order in which they became ready, and each that has a write wakes the turn task, which therefore runs
//! after them all: that is the group commit. While the disk syncs, the next turn's requests gather in the sockets.
//!
//! With one voter the sync runs on this thread: in prototypes, a hop to a thread of its own cost more than it gave, since
//! there is nothing else that this thread could rightly do meanwhile but read.

mod cluster;
mod conn;
mod dispatch;
mod jobs;
mod membership;
mod metrics;
mod prefetch;
mod pump;
mod recover;
mod transfer;
mod turn;
mod wal;

use crate::host::{Committed, Host, Outputs};
use crate::node::Node;
use crate::resp::{Limits, Proto, Reply};
use cluster::Cluster;
pub(crate) use cluster::{ClusterStart, ShardSink};
use conn::{Conn, ConnKey, ConnTask, Hold};
use holdfast_engine::table::RecordKey;
use holdfast_engine::wal::WalWriter;
use metrics::Metrics;
use prefetch::Prefetch;
use slab::Slab;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use turn::Turn;
use wal::{Progress, Wal};

/// How often the shard looks after its group: flushes, expired keys, paused connections, published figures.
const HOUSEKEEPING_MS: u64 = 100;
/// How often it looks whether connections that wait for the flusher, or for the end of a pause, may go on.
const STALL_LOOK_MS: u64 = 5;
/// How long a stop waits for another node to take leadership over.
const HAND_OVER_MAX: Duration = Duration::from_secs(3);
/// How long a node that has handed leadership over goes on telling clients so before it closes their connections.
const REDIRECTING: Duration = Duration::from_millis(100);
/// How long a stop waits for entries under way, and for the log to be closed.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(2);
/// Expired keys given to one log entry.
const RECLAIM_KEYS_MAX: usize = 500;
/// Records of sessions looked at in one step for those that are over.
const SESSIONS_LOOKED_AT: usize = 2048;

/// The state of a shard thread.
#[derive(Debug)]
pub(crate) struct Shard {
    me: Weak<RefCell<Shard>>,
    node: Arc<Node>,
    conns: Slab<Conn>,
    host: Host,
    wal: Wal,
    /// Asks the helper thread to make the next segment ready.
    prepare: SyncSender<()>,
    /// When the log was last synced because a second had passed.
    everysec_ms: u64,
    outputs: Outputs,
    /// Committed entries that are not applied yet.
    backlog: VecDeque<Committed>,
    prefetch: Prefetch,
    /// The list of members changed since it was last looked at.
    members_changed: bool,
    /// The log's writer is closed, or about to be: nothing is done any more.
    closed: bool,
    /// Something that clients are told of the cluster changed.
    topology_changed: bool,
    /// The node's part in a cluster, if it is in one.
    cluster: Option<Cluster>,
    turn: Turn,
    turn_notify: Rc<Notify>,
    /// Wakes the idle-statement task after a turn wrote the log.
    wrote_notify: Rc<Notify>,
    /// Connections that this turn's replies go to.
    touched: Vec<ConnKey>,
    /// Connections that wait for the end of a pause or of a stall.
    paused: Vec<ConnKey>,
    /// The read buffer that all connections share.
    scratch: Vec<u8>,
    /// The vector that arguments are gathered in, empty between commands.
    args: Vec<&'static [u8]>,
    /// Takes replies that nobody waits for.
    sink: Reply,
    limits: Limits,
    metrics: Metrics,
    /// The wall clock, read once a poll.
    clock_ms: u64,
    wrote_log: bool,
    looking_for_expired: bool,
    /// The record after which the search for sessions that are over goes on.
    sessions_after: Option<RecordKey>,
    /// Where the shard's own clock began: Raft's timers must not jump with the wall clock.
    started_ms: u64,
}

impl Shard {
    /// A shard over a recovered replica.
    pub(crate) fn new(node: Arc<Node>, host: Host, writer: WalWriter) -> io::Result<Rc<RefCell<Shard>>> {
        let limits = node.settings.limits();
        let prepare = wal::spawn_preparer(writer.preparer())?;
        Ok(Rc::new_cyclic(|me| {
            RefCell::new(Shard {
                me: me.clone(),
                conns: Slab::new(),
                host,
                wal: Wal::inline(writer),
                prepare,
                everysec_ms: 0,
                outputs: Outputs::default(),
                backlog: VecDeque::new(),
                prefetch: Prefetch::default(),
                members_changed: false,
                closed: false,
                topology_changed: false,
                cluster: None,
                turn: Turn::default(),
                turn_notify: Rc::default(),
                wrote_notify: Rc::default(),
                touched: Vec::new(),
                paused: Vec::new(),
                scratch: vec![0; conn::READ_BYTES],
                args: Vec::new(),
                sink: Reply::new(Proto::Resp2),
                limits,
                metrics: Metrics::new(&node),
                looking_for_expired: false,
                sessions_after: None,
                node,
                clock_ms: wall_clock_ms(),
                wrote_log: false,
                started_ms: boot_clock_ms(),
            })
        }))
    }

    /// Starts the shard's own tasks on the current runtime.
    pub(crate) fn start(shard: &Rc<RefCell<Shard>>) {
        let notify = Rc::clone(&shard.borrow().turn_notify);
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            loop {
                notify.notified().await;
                let mut shard = me.borrow_mut();
                shard.read_clock();
                shard.commit_turn();
            }
        });
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            let mut due = Instant::now();
            loop {
                {
                    let mut shard = me.borrow_mut();
                    shard.read_clock();
                    if due <= Instant::now() {
                        due = Instant::now() + Duration::from_millis(HOUSEKEEPING_MS);
                        shard.keep_house();
                    }
                    shard.let_go_on();
                }
                // Whoever waits for the flusher should not wait for the housekeeping as well.
                let pause_ms = if me.borrow().paused.is_empty() { HOUSEKEEPING_MS } else { STALL_LOOK_MS };
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
        });
        let notify = Rc::clone(&shard.borrow().wrote_notify);
        let me = Rc::clone(shard);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            loop {
                notify.notified().await;
                // The log rests once nothing was written for the whole interval.
                while std::mem::take(&mut me.borrow_mut().wrote_log) {
                    tokio::time::sleep(wal::IDLE_STATEMENT).await;
                }
                me.borrow_mut().idle_statement();
            }
        });
    }

    /// Takes a connection in.
    pub(crate) fn add_conn(shard: &Rc<RefCell<Shard>>, stream: TcpStream, remote: SocketAddr, local: SocketAddr) {
        let key = {
            let mut this = shard.borrow_mut();
            this.read_clock();
            let now_ms = this.clock_ms;
            let (session, info) = this.node.clients.register(remote, local, now_ms, &this.node);
            let serial = session.id;
            let place = this.conns.insert(Conn::new(serial, stream, session, info));
            ConnKey { place, serial }
        };
        tokio::task::spawn_local(ConnTask { shard: Rc::clone(shard), key });
    }

    /// How many connections the shard has.
    pub(crate) fn conn_count(&self) -> usize {
        self.conns.len()
    }

    /// Hands leadership over, answers what was asked, then stops: nothing is taken any more, and the log says that it was
    /// stopped cleanly.
    ///
    /// # Errors
    /// When the log can't be closed: the next start then finds an unclean stop, which loses nothing.
    pub(crate) async fn stop(shard: &Rc<RefCell<Shard>>) -> Result<(), String> {
        let handing = {
            let mut this = shard.borrow_mut();
            this.read_clock();
            this.commit_turn();
            this.begin_hand_over()
        };
        if handing {
            Shard::wait_for(shard, LAST_ANSWERS_MAX, |this| this.turn.under_way() == 0).await;
            {
                let mut this = shard.borrow_mut();
                this.hand_over();
                this.pump();
            }
            if Shard::wait_for(shard, HAND_OVER_MAX, |this| !this.awaits_successor()).await && !shard.borrow().leads() {
                // Whoever asks in this moment hears where to go, rather than to find the connection closed.
                tokio::time::sleep(REDIRECTING).await;
            } else {
                tracing::warn!("no other node took over in time; the others elect a leader by themselves");
                let mut this = shard.borrow_mut();
                this.end_hand_over();
                this.pump();
            }
        }
        // What is under way is answered; what a lost majority will never commit is not waited for.
        Shard::wait_for(shard, LAST_ANSWERS_MAX, |this| !this.turn.has_work() && !this.wal.is_busy()).await;
        {
            let mut this = shard.borrow_mut();
            for (_, conn) in &mut this.conns {
                conn.flush();
                conn.dead = true;
                conn.wake();
            }
            if let Some(peers) = this.peers() {
                peers.close();
            }
            this.host.close().map_err(|error| error.to_string())?;
            if this.host.fault().is_some() || this.wal.is_busy() {
                return Ok(());
            }
            this.closed = true;
            if let Progress::Done(report) = this.wal.close() {
                this.learn(report)?;
            }
        }
        Shard::wait_for(shard, LAST_ANSWERS_MAX, |this| !this.wal.is_busy()).await;
        shard.borrow().host.fault().map_or(Ok(()), |fault| Err(fault.to_owned()))
    }

    /// Waits until something holds, for so long at most; whether it does comes back.
    async fn wait_for(shard: &Rc<RefCell<Shard>>, limit: Duration, holds: impl Fn(&Shard) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if holds(&shard.borrow()) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(STALL_LOOK_MS)).await;
        }
    }

    /// The connections to other nodes, in a cluster.
    pub(crate) fn peers(&self) -> Option<crate::peer::Peers> {
        self.cluster.as_ref().map(|cluster| cluster.peers.clone())
    }

    /// Moves the log's writer to a thread of its own; its reports come through the receiver.
    fn move_writer(&mut self) -> io::Result<UnboundedReceiver<wal::Report>> {
        let (wal, reports) = self.wal.move_to_thread()?;
        self.wal = wal;
        Ok(reports)
    }

    fn idle_statement(&mut self) {
        if self.host.fault().is_some() {
            return;
        }
        match self.wal.idle_statement() {
            Ok(true) => self.host.all_synced(),
            Ok(false) => {}
            Err(reason) => self.fail_turn(&reason),
        }
    }

    fn remove_conn(&mut self, key: ConnKey) {
        if self.conns.get(key.place).is_some_and(|conn| conn.serial == key.serial) {
            let mut conn = self.conns.remove(key.place);
            if let Some(waker) = conn.job_waker.take() {
                waker.wake();
            }
            for pinned in &conn.pinned {
                self.host.data_mut().unpin(pinned);
            }
            self.node.clients.unregister(conn.serial);
        }
    }

    fn conn_mut(&mut self, key: ConnKey) -> Option<&mut Conn> {
        self.conns.get_mut(key.place).filter(|conn| conn.serial == key.serial)
    }

    fn key_of(&self, place: usize) -> ConnKey {
        ConnKey { place, serial: self.conns[place].serial }
    }

    fn read_clock(&mut self) {
        self.clock_ms = wall_clock_ms();
    }

    /// The wall clock as of this poll, in milliseconds since the epoch.
    fn clock_ms(&self) -> u64 {
        self.clock_ms
    }

    /// Milliseconds of a clock that never jumps, and that goes on while the machine is suspended: a lease that ran out meanwhile
    /// has run out.
    fn mono_ms(&self) -> u64 {
        boot_clock_ms().saturating_sub(self.started_ms)
    }

    /// What a read takes for now: never before the group's time.
    fn read_time_ms(&self) -> u64 {
        self.clock_ms.max(self.host.data().time_ms())
    }

    /// Sends replies that are ready and lets connections go on that waited for them.
    fn flush_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for key in touched.drain(..) {
            self.check_output_limit(key.place);
            let Some(conn) = self.conn_mut(key) else { continue };
            conn.touched = false;
            if conn.pending == 0 {
                conn.pending_read_bytes = 0;
                if conn.hold == Hold::Barrier {
                    conn.hold = Hold::None;
                }
            }
            let sent = conn.flush();
            if conn.input_bytes() > 0 || conn.dead {
                conn.wake();
            }
            self.metrics.batch.counters.output_bytes += sent;
        }
        self.touched = touched;
    }

    /// Drops a connection that does not read what it asked for.
    fn check_output_limit(&mut self, place: usize) {
        let limit = self.node.settings.output_bytes_max;
        if let Some(conn) = self.conns.get_mut(place)
            && conn.reply.output().len_bytes() > limit
        {
            conn.flush();
            if conn.reply.output().len_bytes() > limit && !conn.dead {
                tracing::warn!(
                    client = conn.serial,
                    bytes = conn.reply.output().len_bytes(),
                    limit,
                    "client dropped: it does not read its replies"
                );
                conn.dead = true;
                conn.wake();
                self.metrics.batch.counters.output_limit_disconnections += 1;
            }
        }
    }

    /// What is done ten times a second.
    fn keep_house(&mut self) {
        self.host.tick(self.mono_ms());
        let stalled = self.maintain();
        self.pump();
        if !stalled && self.leads() {
            jobs::look_for_expired(self, RECLAIM_KEYS_MAX);
            self.look_for_old_sessions();
        }
        self.keep_cluster();
        self.close_idle();
        self.publish_figures();
    }

    /// Releases connections that waited for the flusher or for the end of a pause.
    fn let_go_on(&mut self) {
        if !self.paused.is_empty()
            && !self.awaits_successor()
            && !self.maintain()
            && !self.is_turn_full()
            && self.node.pause_ended(self.clock_ms)
        {
            for key in std::mem::take(&mut self.paused) {
                self.release(key);
            }
        }
    }

    /// Closes connections that asked for nothing for longer than the setting `timeout`.
    fn close_idle(&mut self) {
        let timeout_ms = u64::from(self.node.live.timeout_seconds()) * 1000;
        if timeout_ms == 0 {
            return;
        }
        for (_, conn) in &self.conns {
            let idle_ms = self.clock_ms.saturating_sub(conn.info.last_seen_ms());
            if idle_ms > timeout_ms && conn.pending == 0 && conn.hold == Hold::None {
                conn.info.kill();
            }
        }
    }

    /// Proposes to forget sessions that are over: looks at a part of the records each time.
    fn look_for_old_sessions(&mut self) {
        if self.turn.is_full() || self.host.fault().is_some() {
            return;
        }
        let (after, found) =
            self.host.data().old_sessions(self.sessions_after, SESSIONS_LOOKED_AT, self.read_time_ms());
        self.sessions_after = after;
        if !found.is_empty() {
            let mut args: Vec<&[u8]> = vec![b""];
            args.extend(found.iter().map(Vec::as_slice));
            self.push_internal(crate::replica::internal::SESSION_SWEEP, &args);
        }
    }

    /// Proposes to delete expired keys.
    fn propose_reclaim(&mut self, keys: &[Vec<u8>]) {
        if !keys.is_empty() && self.leads() {
            let mut args: Vec<&[u8]> = vec![b""];
            args.extend(keys.iter().map(Vec::as_slice));
            self.push_internal(crate::replica::internal::RECLAIM, &args);
        }
    }
}

/// Ends the process when a task of the shard panics: without its turns, or with half of one, it would only seem to serve.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a task of the shard panicked; the process ends, and a restart recovers from the log");
            std::process::abort();
        }
    }
}

/// Milliseconds since the machine was started, suspensions included.
fn boot_clock_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

/// The wall clock in milliseconds since the epoch.
pub(crate) fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

/// The wall clock in microseconds since the epoch.
fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as u64)
}
