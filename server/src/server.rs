//! Brings a node up and takes it down: folder, recovery, listener, signals.

use crate::cluster::{self, Address, NodeId};
use crate::host::ClusterIdentity;
use crate::logging::LevelHandle;
use crate::membership::{self, Entry, Parting};
use crate::node::{MAX_CLIENTS_REFUSAL, Node};
use crate::peer::{JoinRequest, PeerOptions, PeerSink, Peers};
use crate::settings::{Durability, PEER_PORT_OFFSET, Settings};
use crate::shard::{ClusterStart, Shard, ShardSink, wall_clock_ms};
use crate::storage;
use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// File handles wanted beside one per client: segments, the store's tables, the listener.
const SPARE_FILES: u64 = 512;
/// How long accepting rests after the system refused, for want of file handles for instance.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why a node can't start. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {source}{hint}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The data folder can't be used.
    #[error(transparent)]
    Engine(#[from] holdfast_engine::Error),
    /// The log or the table can't be brought to a state that may serve.
    #[error("{0}")]
    Recovery(String),
    /// The runtime can't be built.
    #[error("cannot start the event loop: {0}")]
    Runtime(io::Error),
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// When it can't start, or can't stop cleanly.
pub fn run(settings: Settings, entry: Entry, log: LevelHandle) -> Result<(), StartError> {
    let settings = Arc::new(settings);
    raise_file_limit(u64::from(settings.maxclients) + SPARE_FILES);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(settings.reader_threads)
        .thread_name("holdfast-reader")
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(StartError::Runtime)?;
    runtime.block_on(async move {
        // The port first: a taken one is the commonest refusal, and costs nothing to find out.
        let listener = listen(SocketAddr::new(settings.bind, settings.port), settings.tcp_backlog)?;
        let address = listener.local_addr().map_err(StartError::Runtime)?;
        let (stop, mut stopped) = watch::channel(false);
        watch_signals(stop.clone());
        let mut folder = storage::open_folder(&settings, random_u128())?;
        if folder.identity().recovering {
            return Err(StartError::Recovery(format!(
                "a recovery of {} was begun and not finished: run 'holdfast recover' on it again",
                settings.dir.display()
            )));
        }
        let clustered = entry != Entry::Start || folder.identity().cluster != 0;
        let member = match clustered {
            true => Some(Member::prepare(&settings, address, folder.identity().folder)?),
            false => None,
        };
        match (&entry, &member) {
            (Entry::Init, _) => membership::found(&mut folder)?,
            (Entry::Join(ask), Some(member)) => {
                // NB: a signal ends the wait; nothing was started that needs an orderly stop.
                tokio::select! {
                    joined = membership::join(&mut folder, ask, member.request()) => joined?,
                    _ = stopped.wait_for(|stop| *stop) => return Ok(()),
                }
            }
            _ => {}
        }
        let hints = membership::stored_peers(&folder);
        let parting = membership::parting(&folder)?;
        let opened = storage::open_host(&settings, folder, random_u128(), false)?;
        let summary = storage::summarize(&opened.report);
        let identity = opened.host.identity();
        let node = Node::new(Arc::clone(&settings), address, wall_clock_ms(), random_u128(), stop);
        node.on_log_level(move |level| log.set(level));
        if !summary.is_empty() {
            tracing::info!("{summary}");
        }
        let shard = Shard::new(Arc::clone(&node), opened.host, opened.writer).map_err(StartError::Runtime)?;
        shard.borrow_mut().catch_up().map_err(StartError::Recovery)?;
        Shard::start(&shard);
        let sink = Rc::new(ShardSink::default());
        sink.attach(&shard);
        if let (Some(member), Some(identity)) = (&member, identity) {
            member.take_part(&shard, &sink, identity, hints, parting)?;
        }
        print_banner(&settings, address, &summary, member.as_ref().zip(identity));
        if let Some(member) = member
            && let Some(peers) = shard.borrow().peers()
        {
            tokio::task::spawn_local(peers.serve(member.listener));
        }
        tokio::task::spawn_local(accept(listener, Rc::clone(&shard), Arc::clone(&node)));
        // An error means that the sender is gone: there is nobody left who could ask for a stop.
        let _ = stopped.wait_for(|stop| *stop).await;
        tracing::info!("stopping");
        Shard::stop(&shard).await.map_err(StartError::Recovery)?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// What a node of a cluster has beside a node that is alone.
struct Member {
    listener: TcpListener,
    folder: u128,
    client: Address,
    peer: Address,
}

impl Member {
    /// Listens for peers, and works out what others are told of this node.
    fn prepare(settings: &Settings, client: SocketAddr, folder: u128) -> Result<Self, StartError> {
        if settings.durability != Durability::Always {
            return Err(StartError::Recovery(format!(
                "durability is '{}', but a node of a cluster needs 'always': a vote or an entry that it has promised to keep must \
                 survive a power cut",
                settings.durability
            )));
        }
        let host = settings.announced_host();
        if settings.announce_host.is_empty() && settings.bind.is_unspecified() {
            return Err(StartError::Recovery(format!(
                "bind is {}, which is no address that others could connect to: say with --announce-host how they reach this \
                 node",
                settings.bind
            )));
        }
        // Client port 0 picks a free one, and then so does the peer port.
        let port = match (settings.peer_port, settings.port) {
            (0, 0) => 0,
            (0, port) => port.checked_add(PEER_PORT_OFFSET).ok_or_else(|| {
                StartError::Recovery(format!("there is no port {port} + {PEER_PORT_OFFSET} for peers: set --peer-port"))
            })?,
            (port, _) => port,
        };
        let listener = listen(SocketAddr::new(settings.bind, port), settings.tcp_backlog)?;
        let port = listener.local_addr().map_err(StartError::Runtime)?.port();
        let (client, peer) = (Address::new(host.clone(), client.port()), Address::new(host, port));
        Ok(Member { listener, folder, client, peer })
    }

    fn request(&self) -> JoinRequest {
        JoinRequest { folder: self.folder, client: self.client.clone(), peer: self.peer.clone() }
    }

    /// Connects the shard to its peers.
    fn take_part(
        &self,
        shard: &Rc<RefCell<Shard>>,
        sink: &Rc<ShardSink>,
        identity: ClusterIdentity,
        hints: Vec<(NodeId, Address)>,
        parting: Option<Parting>,
    ) -> Result<(), StartError> {
        let seed = random_u128() as u64;
        let ClusterIdentity { cluster, node } = identity;
        let mut options = PeerOptions::new(cluster, node, self.client.clone(), self.peer.clone(), seed);
        (options.starts, options.pace) = shard.borrow().standing();
        let sink: Rc<dyn PeerSink> = Rc::clone(sink) as _;
        let peers = Peers::new(options, Rc::downgrade(&sink));
        let me = cluster::Member { folder: self.folder, client: self.client.clone(), peer: self.peer.clone() };
        Shard::start_cluster(shard, ClusterStart { identity, me, peers, hints, seed, parting })
            .map_err(StartError::Runtime)
    }
}

fn listen(address: SocketAddr, backlog: u32) -> Result<TcpListener, StartError> {
    let bind = || -> io::Result<TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "; another server has the port: stop it, or choose another with --port (0 picks a free one)"
            }
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: choose another with --port",
            io::ErrorKind::AddrNotAvailable => "; this machine has no such address: choose another with --bind",
            _ => "",
        };
        StartError::Listen { address, source, hint }
    })
}

async fn accept(listener: TcpListener, shard: Rc<RefCell<Shard>>, node: Arc<Node>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => take_in(stream, remote, &shard, &node),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn take_in(stream: TcpStream, remote: SocketAddr, shard: &Rc<RefCell<Shard>>, node: &Node) {
    let Ok(local) = stream.local_addr() else { return };
    let refusal = if shard.borrow().conn_count() >= node.maxclients() {
        Some(MAX_CLIENTS_REFUSAL)
    } else {
        node.protected_mode_refusal(remote.ip())
    };
    if let Some(text) = refusal {
        node.stats.rejected_connection();
        // The socket's buffer is empty: this goes out at once or not at all, and then the client just sees the end.
        if let Ok(stream) = stream.into_std() {
            let _ = (&stream).write_all(text.as_bytes());
        }
        return;
    }
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch Nagle's algorithm off");
    }
    let keepalive_seconds = node.live.tcp_keepalive_seconds();
    if keepalive_seconds > 0 {
        // The kernel gives up on a silent peer after this time, then three probes a third of it apart, as with Redis.
        let time = Duration::from_secs(u64::from(keepalive_seconds));
        let probes = socket2::TcpKeepalive::new().with_time(time).with_interval((time / 3).max(Duration::from_secs(1)));
        if let Err(error) = socket2::SockRef::from(&stream).set_tcp_keepalive(&probes) {
            tracing::debug!(%error, "cannot ask for TCP keepalives");
        }
    }
    node.stats.accepted_connection();
    Shard::add_conn(shard, stream, remote, local);
}

/// The first SIGTERM or SIGINT asks for a stop, the second ends the process at once.
///
/// A thread of its own listens, so that a stop that hangs on a disk can still be cut short.
fn watch_signals(stop: watch::Sender<bool>) {
    let listen = move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            for asked_before in [false, true] {
                let code = tokio::select! {
                    _ = terminate.recv() => 143,
                    _ = interrupt.recv() => 130,
                };
                if asked_before {
                    std::process::exit(code);
                }
                let _ = stop.send(true);
            }
            Ok(())
        })
    };
    let spawned = std::thread::Builder::new().name("holdfast-signals".into()).spawn(move || {
        if let Err(error) = listen() {
            tracing::error!(%error, "cannot listen for signals: SIGTERM will not stop the server gracefully");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "cannot listen for signals: SIGTERM will not stop the server gracefully");
    }
}

fn print_banner(settings: &Settings, address: SocketAddr, summary: &str, member: Option<(&Member, ClusterIdentity)>) {
    let host = if address.ip().is_loopback() { String::new() } else { format!(" -h {}", address.ip()) };
    let mut text = format!(
        "holdfast {}: a durable key-value database that speaks the Redis protocol\n  address     {address}\n  data        {} (store: {})\n  durability  {}\n",
        env!("CARGO_PKG_VERSION"),
        settings.dir.display(),
        settings.store,
        settings.durability.promise(),
    );
    if !summary.is_empty() {
        text.push_str(&format!("  recovery    {summary}\n"));
    }
    if let Some((member, ClusterIdentity { cluster, node })) = member {
        text.push_str(&format!("  cluster     node {node} of {cluster:032x}, peers on {}\n", member.peer));
    }
    let cluster = if member.is_some() { " -c" } else { "" };
    text.push_str(&format!("  connect     redis-cli{cluster}{host} -p {}\n", address.port()));
    let mut out = io::stdout().lock();
    // A closed standard output is no reason not to serve.
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Allows as many open files as the settings ask for, as far as the system lets us.
fn raise_file_limit(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return;
    }
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let result = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    if result.is_err() || raised < wanted {
        tracing::warn!(
            allowed = raised.max(current),
            wanted,
            "the system allows fewer open files than maxclients needs; raise it with ulimit -n"
        );
    }
}

/// 128 random bits from the system.
pub(crate) fn random_u128() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // RandomState is keyed from the system's randomness once a thread; two of them give 128 bits for identities, where
    // being distinct is all that is asked.
    let high = RandomState::new().hash_one(wall_clock_ms());
    let low = RandomState::new().hash_one(std::process::id());
    (u128::from(high) << 64) | u128::from(low)
}
