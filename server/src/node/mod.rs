//! What all threads of a node share: who is connected, what has been counted, what may be changed while it runs.
//!
//! ```text
//!   shard thread ──┬─ batches of counts ──▶ Stats ────┐
//!                  ├─ published figures ──▶ gauges ───┤
//!                  ├─ its connections ────▶ clients ──┼──▶ INFO, CLIENT LIST, SLOWLOG, CONFIG on any thread
//!                  └─ slow commands ──────▶ SlowLog ──┘
//! ```
//!
//! A shard thread owns its connections and data without locks; this is the place where another thread (a second shard,
//! the console) may look at them or ask something of them. So everything in here is either an atomic or behind a lock
//! that is held for a few instructions, never across I/O, and nothing in here decides what happens to data.
//!
//! Counts are relaxed atomics, added to in batches once a turn: figures of one moment may be a turn apart.

mod clients;
mod gauges;
mod live;
mod pause;
mod published;
mod slowlog;
mod stats;

pub use clients::{ClientFilter, ClientInfo, ClientRegistry, UnblockReason};
pub use gauges::{GaugeSet, InfoSource, InfoText, ShardFigures, ShardGauges};
pub use live::Live;
pub use pause::{Pause, PauseMode};
pub(crate) use published::Published;
pub use slowlog::{SlowLog, SlowLogEntry};
pub use stats::{COMMAND_IDS_MAX, CommandCounts, Counters, RateFigures, Stats, StatsBatch};

use crate::cluster::{Topology, Traffic};
use crate::settings::Settings;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::watch;

/// The version of Redis whose behaviour we match: clients compare it to decide what they may use.
pub const REDIS_VERSION: &str = "7.0.15";

/// What a client that may not come in is told. It goes out as it is: there is no connection to encode for yet.
const PROTECTED_MODE_REFUSAL: &str = "-DENIED Holdfast is running in protected mode: no password is set, so only \
    clients on the same machine are served. To connect from elsewhere, do one of these: 1) set a password, with \
    'CONFIG SET requirepass <password>' from the machine itself, or with the setting requirepass; 2) if the network is \
    trusted, switch the protection off with 'CONFIG SET protected-mode no' from the machine itself, or start the server \
    with --protected-mode no.\r\n";

/// What a client beyond `maxclients` is told, as it goes out.
pub const MAX_CLIENTS_REFUSAL: &str = "-ERR max number of clients reached\r\n";

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// The shared context of a node.
pub struct Node {
    /// What the node was started with.
    pub settings: Arc<Settings>,
    /// What may be changed while it runs.
    pub live: Live,
    /// Who is connected.
    pub clients: ClientRegistry,
    /// What has been counted.
    pub stats: Stats,
    /// The commands that took long.
    pub slowlog: SlowLog,
    /// Whether clients are held back.
    pub pause: Pause,
    /// The address that is listened on.
    pub address: SocketAddr,
    /// When the node was started, in milliseconds since the epoch.
    pub started_ms: u64,
    run_id: String,
    shards: Mutex<Vec<Arc<ShardGauges>>>,
    sources: RwLock<Vec<Arc<dyn InfoSource>>>,
    log_level_hook: RwLock<Option<Hook>>,
    published: RwLock<Option<Arc<Published>>>,
    traffic: RwLock<Arc<Traffic>>,
    stop: watch::Sender<bool>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("address", &self.address).field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that listens on `address`. `identity` is random: it makes the run's id, which tells one run from the next.
    /// `stop` is what SHUTDOWN uses to end the run.
    pub fn new(
        settings: Arc<Settings>,
        address: SocketAddr,
        now_ms: u64,
        identity: u128,
        stop: watch::Sender<bool>,
    ) -> Arc<Node> {
        // Redis's ids have 40 hexadecimal digits. The last eight only fill up.
        let filler = xxhash_rust::xxh3::xxh3_64(&identity.to_le_bytes()) as u32;
        Arc::new(Node {
            live: Live::new(&settings),
            slowlog: SlowLog::new(),
            settings,
            clients: ClientRegistry::default(),
            stats: Stats::new(now_ms),
            pause: Pause::default(),
            address,
            started_ms: now_ms,
            run_id: format!("{identity:032x}{filler:08x}"),
            shards: Mutex::default(),
            sources: RwLock::default(),
            log_level_hook: RwLock::default(),
            published: RwLock::default(),
            traffic: RwLock::default(),
            stop,
        })
    }

    /// The id of this run: 40 hexadecimal digits.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// The most clients at a time.
    pub fn maxclients(&self) -> usize {
        self.live.maxclients() as usize
    }

    /// Why a client from `peer` is not let in, in wire form: without a password only this machine's own are, unless
    /// protected mode is off.
    pub fn protected_mode_refusal(&self, peer: IpAddr) -> Option<&'static str> {
        let local = peer.to_canonical().is_loopback();
        (!local && self.live.protected_mode() && !self.live.has_password()).then_some(PROTECTED_MODE_REFUSAL)
    }

    /// Whether a command must wait because of CLIENT PAUSE.
    pub fn is_paused(&self, is_write: bool, now_ms: u64) -> bool {
        self.pause.holds(is_write, now_ms)
    }

    /// Whether no client is held back any more.
    pub fn pause_ended(&self, now_ms: u64) -> bool {
        !self.pause.holds(true, now_ms)
    }

    /// Ends the run gracefully.
    pub fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// A shard's place for figures; INFO adds up those of all shards.
    pub fn register_shard(&self) -> Arc<ShardGauges> {
        let gauges = Arc::new(ShardGauges::default());
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&gauges));
        gauges
    }

    /// The figures of all shards, added up.
    pub fn shard_figures(&self) -> ShardFigures {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = ShardFigures::default();
        for shard in shards.iter() {
            sum.add(&shard.read());
        }
        sum
    }

    /// How many shards publish figures.
    pub fn shard_count(&self) -> usize {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Adds a section to INFO.
    pub fn add_info_source(&self, source: Arc<dyn InfoSource>) {
        self.sources.write().unwrap_or_else(PoisonError::into_inner).push(source);
    }

    /// Adds a section to INFO that consists of numbers which a shard sets as it likes.
    pub fn register_gauges(&self, section: &'static str, names: &'static [&'static str]) -> Arc<GaugeSet> {
        let gauges = Arc::new(GaugeSet::new(section, names));
        self.add_info_source(Arc::clone(&gauges) as Arc<dyn InfoSource>);
        gauges
    }

    /// The sections of INFO beyond Redis's.
    pub fn info_sources(&self) -> Vec<Arc<dyn InfoSource>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cluster as this node believes it to be; none if it is no cluster (`cluster-enabled no`). Two reference counts and
    /// an uncontended lock: fit to be asked for once a turn.
    pub fn topology(&self) -> Option<Arc<Topology>> {
        self.published().map(|published| Arc::clone(&published.topology))
    }

    /// Whether the node answers as a cluster's.
    pub fn is_clustered(&self) -> bool {
        self.published.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Replaces what the node believes of the cluster. To be called on every change; from the first call on the node answers
    /// as a cluster's.
    pub fn publish_topology(&self, topology: Arc<Topology>) {
        let mut place = self.published.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::new(Published::new(topology, place.as_deref())));
    }

    /// Replaces what is known of the connections to peers.
    pub fn publish_traffic(&self, traffic: Traffic) {
        *self.traffic.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(traffic);
    }

    /// The connections to peers as they were a moment ago; empty on a node that is alone.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn published(&self) -> Option<Arc<Published>> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what to do when `CONFIG SET log-level` changes the level; the hook gets its name.
    pub fn on_log_level(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        *self.log_level_hook.write().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
    }

    pub(crate) fn set_log_level(&self, level: crate::settings::LogLevel) {
        self.live.set_log_level(level);
        if let Some(hook) = self.log_level_hook.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            hook(level.name());
        }
    }
}

#[cfg(test)]
pub(crate) fn test_node(settings: Settings) -> Arc<Node> {
    let (stop, _) = watch::channel(false);
    let address = SocketAddr::from(([127, 0, 0, 1], 6379));
    Node::new(Arc::new(settings), address, 1_700_000_000_000, 0x1234, stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protected_mode_refuses_strangers_until_there_is_a_password() {
        let node = test_node(Settings::default());
        let refused = |address: &str| node.protected_mode_refusal(address.parse().unwrap()).is_some();
        assert!(!refused("127.0.0.1") && !refused("127.8.8.8") && !refused("::1") && !refused("::ffff:127.0.0.1"));
        assert!(refused("10.0.0.1") && refused("::ffff:10.0.0.1") && refused("2001:db8::1"));
        node.live.set_password("secret");
        assert!(!refused("10.0.0.1"));
        node.live.set_password("");
        assert!(refused("10.0.0.1"));
        node.live.set_protected_mode(false);
        assert!(!refused("10.0.0.1"));
    }

    #[test]
    fn run_id_has_forty_hexadecimal_digits() {
        let node = test_node(Settings::default());
        assert_eq!(node.run_id().len(), 40);
        assert!(node.run_id().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn figures_of_all_shards_are_added_up() {
        let node = test_node(Settings::default());
        for _ in 0..2 {
            let shard = node.register_shard();
            shard.publish(&ShardFigures { keys: 3, memory_bytes: 10, ..ShardFigures::default() });
        }
        assert_eq!(node.shard_figures().keys, 6);
        assert_eq!(node.shard_figures().memory_bytes, 20);
    }
}
