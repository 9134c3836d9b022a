//! A follower that was away, and what its return costs those who stayed.
//!
//! ```text
//!   before            away                        meanwhile                              after
//!   3 nodes, load     follower killed, N writes   follower started, load goes on         3 nodes, load
//!                                                 ├ serves ├ snapshot ├ within 1,000 ├ level
//! ```
//!
//! With the default flags the nodes keep so little log that it no longer holds what the follower missed: it needs a snapshot, then the log
//! from there, while the leader takes writes as fast as its clients send them. Whether it was a snapshot is read from what the
//! follower logged.
//!
//! *Level* means that the follower had applied all that the leader had applied when it was asked just before. At last the load ends,
//! and both must hold the same number of keys at the same index.
//!
//! The loop is closed and as fast as it goes, on a machine that all nodes share: the follower's work takes processor time from the leader as
//! well as from the load. On machines of their own the leader would keep more of its rate.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_bench::cluster::{Cluster, LogFigures, log_figures};
use holdfast_bench::load::{Mix, Options, Report, run};
use holdfast_bench::process::{machine_load, resident_bytes};
use holdfast_bench::stats::{median, range};
use holdfast_bench::wire::Reply;
use serde_json::{Value as Json, json};

/// Kills a follower, writes without it, calls it back under load, and measures how it catches up.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-lag",
    version,
    after_help = "Examples:\n  holdfast-lag --dir ~/bench\n  holdfast-lag --rounds 5 --writes 5000000 --pipeline 1\n  \
    holdfast-lag -- --log-bytes-max 4GiB     (the log holds all: no snapshot is needed)"
)]
struct Arguments {
    /// The `holdfast` binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    holdfast: Option<PathBuf>,
    /// Writes that the follower misses
    #[arg(long, default_value_t = 1_000_000)]
    writes: u64,
    /// Distinct keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes in a value
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Connections
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Requests that a client sends before it waits
    #[arg(long, default_value_t = 16)]
    pipeline: usize,
    /// Rounds; another follower is killed each time
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured before and after
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds that the follower may take
    #[arg(long, default_value_t = 120.0)]
    patience: f64,
    /// Where data folders go [default: the system's temporary folder]: put it on the disk that is meant
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The first of three ports for clients; those for peers are 10,000 above
    #[arg(long, default_value_t = 7400)]
    base_port: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Flags for the nodes, instead of those that keep the log short
    #[arg(last = true, default_values = ["--log-segment-bytes", "4MiB", "--log-bytes-max", "16MiB"])]
    flags: Vec<String>,
}

/// How near the follower must come to count as near.
const NEAR_ENTRIES: u64 = 1000;
/// How often the nodes are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// For a load that ends otherwise.
const UNTIMED: Duration = Duration::from_secs(24 * 3600);
/// What a follower logs when it has installed a snapshot.
const SNAPSHOT_PLACED: &str = "a snapshot was put in place";
/// How long the cluster may take to become whole again.
const WHOLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long followers may take to be level once nobody writes.
const LEVEL_PATIENCE: Duration = Duration::from_secs(30);

/// One round.
#[derive(Debug)]
struct Round {
    before: Report,
    away: Report,
    meanwhile: Report,
    after: Report,
    return_: Return,
    /// Entries of the log that the follower missed.
    missed: u64,
    machine_load: f64,
}

/// How the follower came back; times count from its start.
#[derive(Debug, Default)]
struct Return {
    serves: Duration,
    snapshot: Option<Duration>,
    near: Option<Duration>,
    level: Option<Duration>,
    snapshots: usize,
    leader_bytes_before: u64,
    leader_bytes_max: u64,
    follower_bytes_max: u64,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-lag: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    let program = match &arguments.holdfast {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("holdfast"),
    };
    let folder = match &arguments.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(|error| format!("cannot make a folder for the data: {error}"))?;
    let outcome = rounds(arguments, &program, folder.path());
    if outcome.is_err() {
        let kept = folder.keep();
        eprintln!("holdfast-lag: the nodes' folders and logs are in {}", kept.display());
    }
    print(arguments, &outcome?);
    Ok(())
}

fn rounds(arguments: &Arguments, program: &Path, folder: &Path) -> Result<Vec<Round>, String> {
    let mut cluster = Cluster::start(program, folder, arguments.base_port, 3, &arguments.flags)?;
    let leader = cluster.leader()?;
    load(arguments, &cluster, leader, |options| options.fill = true)?;
    let followers: Vec<usize> = (0..cluster.len()).filter(|place| *place != leader).collect();
    let mut rounds = Vec::new();
    for number in 0..arguments.rounds.max(1) {
        let follower = followers[number % followers.len()];
        let round = round(arguments, &mut cluster, leader, follower)?;
        eprintln!("round {}/{}\n{}", number + 1, arguments.rounds.max(1), round.text());
        rounds.push(round);
    }
    Ok(rounds)
}

fn round(arguments: &Arguments, cluster: &mut Cluster, leader: usize, follower: usize) -> Result<Round, String> {
    let machine_load = machine_load().unwrap_or(f64::NAN);
    let before = load(arguments, cluster, leader, |_| {})?;
    let had = log_figures(&mut cluster.asker(follower)?)?;
    cluster.kill(follower);
    let away = load(arguments, cluster, leader, |options| {
        options.requests = Some(arguments.writes);
        options.time = UNTIMED;
        options.warmup = Duration::ZERO;
    })?;
    let has = log_figures(&mut cluster.asker(leader)?)?;

    let stop = Arc::new(AtomicBool::new(false));
    let (meanwhile, return_) = std::thread::scope(|scope| {
        let options = {
            let mut options = options(arguments, cluster, leader);
            options.stop = Some(Arc::clone(&stop));
            options.time = UNTIMED;
            options.warmup = Duration::ZERO;
            options
        };
        let loading = scope.spawn(move || checked(run(&options)?));
        let outcome = call_back(arguments, cluster, leader, follower);
        stop.store(true, Ordering::Relaxed);
        let meanwhile = loading.join().map_err(|_| "the load failed".to_owned())?;
        // What ended the load says more than what was seen of the nodes then.
        Ok::<_, String>((meanwhile?, outcome?))
    })?;
    wait_until_equal(cluster, leader, follower)?;
    cluster.wait_whole(WHOLE_PATIENCE)?;
    let after = load(arguments, cluster, leader, |_| {})?;
    let missed = has.applied.saturating_sub(had.applied);
    Ok(Round { before, away, meanwhile, after, return_, missed, machine_load })
}

fn options(arguments: &Arguments, cluster: &Cluster, leader: usize) -> Options {
    Options {
        address: cluster.address(leader),
        clients: arguments.clients,
        pipeline: arguments.pipeline,
        value_bytes: arguments.value_bytes,
        keys: arguments.keys,
        mix: Mix::SETS,
        rate: None,
        time: Duration::try_from_secs_f64(arguments.seconds).unwrap_or_default(),
        warmup: Duration::from_millis(500),
        fill: false,
        requests: None,
        stop: None,
        seed: 1,
        pids: cluster.pids(),
    }
}

fn load(
    arguments: &Arguments,
    cluster: &Cluster,
    leader: usize,
    change: impl FnOnce(&mut Options),
) -> Result<Report, String> {
    let mut options = options(arguments, cluster, leader);
    change(&mut options);
    checked(run(&options)?)
}

/// A report without errors: a write that was refused, as by a leader that was deposed, is no write.
fn checked(report: Report) -> Result<Report, String> {
    match &report.first_error {
        Some(error) => Err(format!("{} of {} writes were refused: {error}", report.errors, report.replies)),
        None => Ok(report),
    }
}

/// Starts the follower and watches it until it is level.
fn call_back(arguments: &Arguments, cluster: &mut Cluster, leader: usize, follower: usize) -> Result<Return, String> {
    let patience = Duration::try_from_secs_f64(arguments.patience).map_err(|error| format!("--patience: {error}"))?;
    let resident = |cluster: &Cluster, place: usize| cluster.pid(place).and_then(resident_bytes).unwrap_or(0);
    let placed_before = placed(cluster, follower);
    let bytes = resident(cluster, leader);
    let mut back = Return { leader_bytes_before: bytes, leader_bytes_max: bytes, ..Return::default() };
    let start = Instant::now();
    cluster.restart(follower)?;
    back.serves = start.elapsed();
    let (mut leads, mut follows) = (cluster.asker(leader)?, cluster.asker(follower)?);
    let mut seen: Option<(LogFigures, LogFigures)> = None;
    while back.level.is_none() {
        if start.elapsed() > patience {
            return Err(format!("the follower did not catch up within {patience:?}; leader and follower: {seen:?}"));
        }
        // The leader first: what it has now, the follower must have in a moment.
        let pair = (log_figures(&mut leads)?, log_figures(&mut follows)?);
        let now = start.elapsed();
        let behind = pair.0.applied.saturating_sub(pair.1.applied);
        if behind <= NEAR_ENTRIES {
            back.near.get_or_insert(now);
        }
        if behind == 0 {
            back.level = Some(now);
        }
        back.snapshots = placed(cluster, follower).saturating_sub(placed_before);
        if back.snapshots > 0 {
            back.snapshot.get_or_insert(now);
        }
        back.leader_bytes_max = back.leader_bytes_max.max(resident(cluster, leader));
        back.follower_bytes_max = back.follower_bytes_max.max(resident(cluster, follower));
        seen = Some(pair);
        std::thread::sleep(LOOK);
    }
    Ok(back)
}

/// How many snapshots a node has installed, over all its starts.
fn placed(cluster: &Cluster, place: usize) -> usize {
    let text = std::fs::read(cluster.log(place)).unwrap_or_default();
    String::from_utf8_lossy(&text).matches(SNAPSHOT_PLACED).count()
}

/// Without load, both must come to the same index and hold the same number of keys.
fn wait_until_equal(cluster: &Cluster, leader: usize, follower: usize) -> Result<(), String> {
    let (mut leads, mut follows) = (cluster.asker(leader)?, cluster.asker(follower)?);
    follows.ask(&["READONLY"], |_| ())?;
    let deadline = Instant::now() + LEVEL_PATIENCE;
    loop {
        let (one, other) = (log_figures(&mut leads)?, log_figures(&mut follows)?);
        if one.applied == other.applied && one.applied == one.commit {
            break;
        }
        if Instant::now() > deadline {
            return Err(format!("without load the follower is still not level: {one:?} and {other:?}"));
        }
        std::thread::sleep(LOOK);
    }
    let number = |reply: &Reply<'_>| if let Reply::Integer(number) = reply { Some(*number) } else { None };
    let (ours, theirs) = (leads.ask(&["DBSIZE"], number)?, follows.ask(&["DBSIZE"], number)?);
    if ours != theirs || ours.is_none() {
        return Err(format!("the leader holds {ours:?} keys, the follower {theirs:?}"));
    }
    Ok(())
}

/// A figure of a round by its name in the JSON.
type Figure = (&'static str, fn(&Round) -> f64);

/// Seconds; not a number for what did not happen.
fn seconds(time: Option<Duration>) -> f64 {
    time.map_or(f64::NAN, |time| time.as_secs_f64())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Round {
    /// Before and after, where all three nodes were level.
    fn level_rate(&self) -> f64 {
        f64::midpoint(self.before.rate(), self.after.rate())
    }

    fn level_p99(&self) -> f64 {
        f64::midpoint(self.before.millis(0.99), self.after.millis(0.99))
    }

    const FIGURES: &[Figure] = &[
        ("entries_missed", |round| round.missed as f64),
        ("snapshots", |round| round.return_.snapshots as f64),
        ("serves_s", |round| seconds(Some(round.return_.serves))),
        ("snapshot_s", |round| seconds(round.return_.snapshot)),
        ("near_s", |round| seconds(round.return_.near)),
        ("level_s", |round| seconds(round.return_.level)),
        ("before_per_second", |round| round.before.rate()),
        ("before_p99_ms", |round| round.before.millis(0.99)),
        ("away_per_second", |round| round.away.rate()),
        ("away_p99_ms", |round| round.away.millis(0.99)),
        ("meanwhile_per_second", |round| round.meanwhile.rate()),
        ("meanwhile_p99_ms", |round| round.meanwhile.millis(0.99)),
        ("meanwhile_max_ms", |round| round.meanwhile.millis(1.0)),
        ("after_per_second", |round| round.after.rate()),
        ("after_p99_ms", |round| round.after.millis(0.99)),
        ("rate_meanwhile_to_level", |round| round.meanwhile.rate() / round.level_rate()),
        ("p99_meanwhile_to_level", |round| round.meanwhile.millis(0.99) / round.level_p99()),
        ("rate_away_to_level", |round| round.away.rate() / round.level_rate()),
        ("leader_mib_before", |round| mebibytes(round.return_.leader_bytes_before)),
        ("leader_mib_max", |round| mebibytes(round.return_.leader_bytes_max)),
        ("follower_mib_max", |round| mebibytes(round.return_.follower_bytes_max)),
        ("machine_load", |round| round.machine_load),
    ];

    fn json(&self) -> Json {
        let figures = Self::FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure(self))));
        Json::Object(figures.collect())
    }

    fn text(&self) -> String {
        let figures = Self::FIGURES.iter().map(|(name, figure)| format!("  {name:<24} {:>12.3}\n", figure(self)));
        figures.collect()
    }
}

fn print(arguments: &Arguments, rounds: &[Round]) {
    if arguments.json {
        let all: Vec<Json> = rounds.iter().map(Round::json).collect();
        let medians =
            Round::FIGURES.iter().map(|(name, figure)| ((*name).to_owned(), json!(median(rounds.iter().map(figure)))));
        let medians = Json::Object(medians.collect());
        println!(
            "{}",
            json!({
                "writes": arguments.writes, "keys": arguments.keys, "value_bytes": arguments.value_bytes,
                "clients": arguments.clients, "pipeline": arguments.pipeline, "flags": arguments.flags,
                "medians": medians, "rounds": all,
            })
        );
        return;
    }
    println!(
        "{} writes missed, {} keys, {} B values, {} clients x {}, medians of {} rounds\n",
        arguments.writes,
        arguments.keys,
        arguments.value_bytes,
        arguments.clients,
        arguments.pipeline,
        rounds.len()
    );
    println!("| figure | median | lowest | highest |\n| --- | ---: | ---: | ---: |");
    // What happened in no round, such as a snapshot, has no figure.
    let shown = |figure: f64| if figure.is_finite() { format!("{figure:.3}") } else { "-".to_owned() };
    for (name, figure) in Round::FIGURES {
        let (low, high) = range(rounds.iter().map(figure));
        let middle = median(rounds.iter().map(figure).filter(|figure| figure.is_finite()));
        println!("| {} | {} | {} | {} |", name.replace('_', " "), shown(middle), shown(low), shown(high));
    }
}
