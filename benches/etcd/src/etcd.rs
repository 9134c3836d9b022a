//! A cluster of etcd on this machine, and load on it.
//!
//! etcd runs as it comes: it syncs each batch of its log before it answers, and nothing here changes that.
//!
//! The load is the same closed loop that Holdfast gets, in gRPC's words. A *client* here is a counter and a source of
//! requests; its outstanding requests are tasks that share them. Each task asks again as soon as its own answer came, while a client of
//! Holdfast waits for its whole batch: that is in etcd's favour.
//!
//! Clients share a few channels (TCP connections), as etcd's clients do: a channel carries many requests at once, and one for each
//! client costs both sides more processor time. They talk to the leader, as Holdfast's do: another node would pass the
//! requests on. `--etcd-channels`, `--etcd-threads` and `--etcd-to` try other ways.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Client, KvClient};
use holdfast_bench::load::{Costs, Mix, Report, Request, Requests, Tally};
use holdfast_bench::process::Server;

/// How long a node may take to start, and the cluster to have a leader.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Writes or reads.
    pub mix: Mix,
    /// Clients.
    pub clients: usize,
    /// Requests of each that are on their way.
    pub outstanding: usize,
    /// Bytes in a value.
    pub value_bytes: usize,
    /// Distinct keys.
    pub keys: u64,
    /// How long to measure.
    pub time: Duration,
    /// How long to run before that, unmeasured.
    pub warmup: Duration,
    /// Write every key once instead.
    pub fill: bool,
}

/// How the load reaches etcd.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    /// TCP connections to each endpoint that is used.
    pub channels: usize,
    /// Threads that make the load.
    pub threads: usize,
    /// Use all nodes, not the leader only.
    pub all_nodes: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Etcd {
    servers: Vec<Server>,
    endpoints: Vec<String>,
}

impl Etcd {
    /// Starts three nodes, with folders in `dir` and ports from `base_port` on.
    pub fn start(program: &Path, dir: &Path, base_port: u16) -> Result<Self, String> {
        let client_url = |number: u16| format!("http://127.0.0.1:{}", base_port + number);
        let peer_url = |number: u16| format!("http://127.0.0.1:{}", base_port + 10 + number);
        let members: Vec<String> = (0..3).map(|number| format!("n{number}={}", peer_url(number))).collect();
        let mut servers = Vec::new();
        for number in 0..3 {
            let mut command = Command::new(program);
            command.args(["--name", &format!("n{number}"), "--data-dir"]).arg(dir.join(format!("n{number}")));
            command.args(["--listen-client-urls", &client_url(number), "--advertise-client-urls", &client_url(number)]);
            command.args(["--listen-peer-urls", &peer_url(number), "--initial-advertise-peer-urls", &peer_url(number)]);
            command.args(["--initial-cluster", &members.join(","), "--initial-cluster-state", "new"]);
            command.args(["--logger", "zap", "--log-level", "error"]);
            servers.push(Server::start_on_port(&mut command, base_port + number, PATIENCE)?);
        }
        let cluster = Etcd { servers, endpoints: (0..3).map(client_url).collect() };
        runtime(1)?.block_on(async {
            let deadline = Instant::now() + PATIENCE;
            while let Err(error) = cluster.leader().await {
                if Instant::now() > deadline {
                    return Err(format!("etcd's cluster has no leader within {PATIENCE:?}: {error}"));
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        })?;
        Ok(cluster)
    }

    /// The processes of its nodes.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Server::pid).collect()
    }

    /// The endpoint of the node that leads.
    async fn leader(&self) -> Result<&String, String> {
        for endpoint in &self.endpoints {
            let text = |error: etcd_client::Error| format!("{endpoint}: {error}");
            let mut client = Client::connect([endpoint], None).await.map_err(text)?;
            let status = tokio::time::timeout(PATIENCE, client.status()).await;
            let status = status.map_err(|_| format!("{endpoint} is silent"))?.map_err(text)?;
            let me = status.header().map(|header| header.member_id());
            if status.leader() != 0 && me == Some(status.leader()) {
                return Ok(endpoint);
            }
        }
        Err("no node leads".into())
    }

    /// Runs the load.
    ///
    /// # Errors
    /// If etcd can't be reached. Requests that fail are counted.
    pub fn load(&self, ask: &Ask, ways: &Ways) -> Result<Report, String> {
        runtime(ways.threads)?.block_on(async {
            let endpoints: Vec<&String> =
                if ways.all_nodes { self.endpoints.iter().collect() } else { vec![self.leader().await?] };
            let mut channels = Vec::new();
            // In turns, so that clients spread over the nodes evenly.
            for _ in 0..ways.channels.max(1) {
                for endpoint in &endpoints {
                    let client = Client::connect([endpoint], None).await;
                    channels.push(client.map_err(|error| format!("{endpoint}: {error}"))?.kv_client());
                }
            }
            run(ask, &channels, &self.pids()).await
        })
    }
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads.max(1)).enable_all().build();
    runtime.map_err(|error| format!("cannot start: {error}"))
}

/// What the tasks of one client share.
struct Shared {
    state: Mutex<(Requests, Tally)>,
}

struct Schedule {
    measure_from: Instant,
    end: Instant,
    next_key: AtomicU64,
}

async fn run(ask: &Ask, channels: &[KvClient], pids: &[u32]) -> Result<Report, String> {
    let start = Instant::now();
    let measure_from = if ask.fill { start } else { start + ask.warmup };
    let schedule = Arc::new(Schedule { measure_from, end: measure_from + ask.time, next_key: AtomicU64::new(0) });
    let mut clients = Vec::new();
    let mut tasks = Vec::new();
    for number in 0..ask.clients.max(1) {
        let requests = Requests::new(1_000_003 + number as u64, ask.mix, ask.keys, ask.value_bytes);
        let shared = Arc::new(Shared { state: Mutex::new((requests, Tally::new())) });
        for _ in 0..ask.outstanding.max(1) {
            let channel = channels[number % channels.len()].clone();
            tasks.push(tokio::spawn(client(channel, Arc::clone(&shared), Arc::clone(&schedule), *ask)));
        }
        clients.push(shared);
    }
    tokio::time::sleep_until(measure_from.into()).await;
    let before = Costs::now(pids);
    for task in tasks {
        task.await.map_err(|error| format!("a client failed: {error}"))?;
    }
    let elapsed = measure_from.elapsed();
    let costs = Costs::now(pids).since(before);
    let tallies = clients
        .into_iter()
        .filter_map(Arc::into_inner)
        .map(|shared| shared.state.into_inner().unwrap_or_else(PoisonError::into_inner).1);
    Report::new(tallies.collect(), elapsed, costs)
}

/// One outstanding request of a client, again and again.
async fn client(mut kv: KvClient, shared: Arc<Shared>, schedule: Arc<Schedule>, ask: Ask) {
    let lock = || shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        // The key, and the value of a write.
        let drawn = if ask.fill {
            let number = schedule.next_key.fetch_add(1, Ordering::Relaxed);
            (number < ask.keys).then(|| owned(lock().0.set(number)))
        } else {
            (Instant::now() < schedule.end).then(|| owned(lock().0.draw()))
        };
        let Some((key, value)) = drawn else { return };
        let sent = Instant::now();
        let outcome = match value {
            Some(value) => kv.put(key, value, None).await.map(|_| ()),
            // Without options a read is linearizable.
            None => kv.get(key, None).await.map(|_| ()),
        };
        if sent >= schedule.measure_from {
            let error = outcome.err().map(|error| error.to_string());
            lock().1.count(sent.elapsed(), error.as_deref().map(str::as_bytes));
        }
    }
}

fn owned(request: Request<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    match request {
        Request::Set(key, value) => (key.to_vec(), Some(value.to_vec())),
        Request::Get(key) => (key.to_vec(), None),
    }
}
