//! The fail-over campaign: a cluster under load, its leader killed or frozen, over and over.
//!
//! What is written and how it is judged is in [`holdfast_bench::failover`]; here are the rounds.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use holdfast_bench::cluster::Cluster;
use holdfast_bench::connection::Connection;
use holdfast_bench::failover::book::{Book, Checked};
use holdfast_bench::failover::load::{self, Board};
use holdfast_bench::process::tail;
use holdfast_bench::random::Random;

/// Breaks a cluster's leader under load and checks that no acknowledged write is lost and no read is stale.
///
/// Exit code 0: all is well. 1: something was lost, there too often, or stale, or the cluster did not come back; the story
/// is printed and the data folders are kept.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-failover",
    version,
    after_help = "Examples:\n  holdfast-failover --server target/release/holdfast --rounds 10\n  \
    holdfast-failover --server target/release/holdfast --mode stop --stop-seconds 10 --rounds 3\n  \
    holdfast-failover --server target/release/holdfast --mode all -- --election-timeout 300"
)]
struct Arguments {
    /// The `holdfast` binary
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// How often to break something
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// What is done to the cluster in each round
    #[arg(long, value_enum, default_value_t = Mode::Kill)]
    mode: Mode,
    /// How long the leader is frozen, in seconds
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    stop_seconds: u64,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// Threads that write, each with a client of its own
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    writers: u64,
    /// Threads that read what the writers count
    #[arg(long, default_value_t = 4)]
    readers: u64,
    /// Milliseconds of load before each fault
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    load: u64,
    /// Repeats the moments, as far as a machine repeats itself
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the data folders go [default: a temporary folder]; it must be on a disk, not in memory, to mean much
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Keep the data folders in any case
    #[arg(long)]
    keep: bool,
    /// Further flags for every node
    #[arg(last = true)]
    server_flags: Vec<String>,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// kill -9 of the leader; it is started again once another serves
    Kill,
    /// SIGSTOP of the leader, and SIGCONT some seconds later
    Stop,
    /// kill -9 of all nodes at once; they are started again at once
    All,
}

/// A cluster that takes no write by then is taken for hung.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
const CHECK_PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let folder = match &arguments.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("holdfast-failover: cannot make a folder for the data: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    let result = run(&arguments, folder.path(), &mut report);
    report.print(&arguments);
    let kept = if arguments.keep || result.is_err() { Some(folder.keep()) } else { None };
    if let Some(path) = &kept {
        println!("the data is in {}", path.display());
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(story) => {
            eprintln!("\nholdfast-failover: FAILED after {} rounds\n{story}", report.served.len());
            if let Some(path) = kept {
                for number in 1..=arguments.nodes {
                    let log = path.join(format!("node-{number}.log"));
                    eprintln!("--- node {number} wrote last:\n{}", tail(&log));
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
struct Report {
    /// For each round: how long nobody took a write, by a prober that asks all nodes all the time.
    served: Vec<Duration>,
    /// And how long no client's write succeeded that began after the fault.
    succeeded: Vec<Duration>,
    checked: Checked,
    refused: u64,
    reads: u64,
    took: Duration,
}

impl Report {
    fn print(&self, arguments: &Arguments) {
        let row = |name: &str, value: String| println!("  {name:<34} {value}");
        println!(
            "fail-over campaign, mode {:?}, {} writers, {} readers",
            arguments.mode, arguments.writers, arguments.readers
        );
        row("rounds", format!("{} in {:.0} s", self.served.len(), self.took.as_secs_f64()));
        row("writes acknowledged", self.checked.acknowledged.to_string());
        row(
            "attempts of unknown outcome",
            format!("{}, of which {} had happened", self.checked.unknown, self.checked.happened),
        );
        row("attempts refused", self.refused.to_string());
        row("reads checked", self.reads.to_string());
        row("no node takes a write, ms", spread(&self.served));
        row("no client's write succeeds, ms", spread(&self.succeeded));
    }
}

/// Median, 99th percentile and maximum.
fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |percent: usize| {
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).map_or(0, Duration::as_millis)
    };
    format!("median {}, p99 {}, max {}", at(50), at(99), at(100))
}

fn run(arguments: &Arguments, dir: &std::path::Path, report: &mut Report) -> Result<(), String> {
    let started = Instant::now();
    let mut nodes =
        Cluster::start_on_free_ports(&arguments.server, dir, arguments.nodes as usize, &arguments.server_flags)?;
    let addresses = nodes.addresses();
    let board = Arc::new(Board::new(arguments.writers));
    let mut writers = Vec::new();
    for writer in 0..arguments.writers {
        let (addresses, board) = (addresses.clone(), Arc::clone(&board));
        writers.push(std::thread::spawn(move || load::write(&addresses, writer, &board)));
    }
    let mut readers = Vec::new();
    for reader in 0..arguments.readers {
        let (addresses, board) = (addresses.clone(), Arc::clone(&board));
        readers.push(std::thread::spawn(move || load::read(&addresses, reader as usize, &board)));
    }
    let broken = break_repeatedly(arguments, &mut nodes, &board, report);
    board.stop.store(true, Ordering::Relaxed);
    report.refused = board.refused.load(Ordering::Relaxed);
    report.reads = board.reads.load(Ordering::Relaxed);
    let mut books = Vec::new();
    for writer in writers {
        books.push(writer.join().map_err(|_| "a writer failed".to_owned())??);
    }
    for reader in readers {
        reader.join().map_err(|_| "a reader failed".to_owned())??;
    }
    report.took = started.elapsed();
    broken?;
    check(&nodes, &books, report)?;
    let stories = board.stories();
    if stories.is_empty() { Ok(()) } else { Err(stories.join("\n")) }
}

fn break_repeatedly(
    arguments: &Arguments,
    nodes: &mut Cluster,
    board: &Board,
    report: &mut Report,
) -> Result<(), String> {
    let mut random = Random::new(arguments.seed);
    for round in 1..=arguments.rounds {
        let before = board.acknowledged.load(Ordering::Relaxed);
        // NB: a campaign is not a test; it breaks things at moments that the seed chooses.
        std::thread::sleep(Duration::from_millis(arguments.load / 2 + random.below(arguments.load + 1)));
        if board.acknowledged.load(Ordering::Relaxed) == before {
            return Err("the load does not run".to_owned());
        }
        let leader = nodes.wait_leader(SERVE_PATIENCE)?;
        let at = Instant::now();
        let victim = match arguments.mode {
            Mode::Kill => {
                nodes.kill(leader);
                Some(leader)
            }
            Mode::Stop => {
                nodes.freeze(leader)?;
                Some(leader)
            }
            Mode::All => {
                (0..nodes.len()).for_each(|place| nodes.kill(place));
                None
            }
        };
        board.broken_at(Instant::now());
        if arguments.mode == Mode::All {
            (0..nodes.len()).try_for_each(|place| nodes.restart(place))?;
        }
        let served = nodes.wait_served(victim, at, SERVE_PATIENCE)?;
        let deadline = Instant::now() + SERVE_PATIENCE;
        let succeeded = loop {
            match board.first_success() {
                Some(time) => break time,
                None if Instant::now() > deadline => return Err("no client's write succeeds".to_owned()),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        match arguments.mode {
            Mode::Kill => {
                std::thread::sleep(Duration::from_millis(random.below(arguments.load + 1)));
                nodes.restart(leader)?;
            }
            Mode::Stop => {
                std::thread::sleep(Duration::from_secs(arguments.stop_seconds).saturating_sub(at.elapsed()));
                nodes.thaw(leader)?;
            }
            Mode::All => {}
        }
        nodes.wait_whole(SERVE_PATIENCE)?;
        report.served.push(served);
        report.succeeded.push(succeeded);
        eprintln!(
            "round {round}/{}: {}; a node takes writes after {} ms, a client's write succeeds after {} ms",
            arguments.rounds,
            victim.map_or("all nodes killed".to_owned(), |place| format!("node {} was the victim", place + 1)),
            served.as_millis(),
            succeeded.as_millis()
        );
        let stories = board.stories();
        if !stories.is_empty() {
            return Err(stories.join("\n"));
        }
    }
    Ok(())
}

/// Compares every node with the books: they must agree not only with these, but with each other.
fn check(nodes: &Cluster, books: &[Book], report: &mut Report) -> Result<(), String> {
    nodes.wait_whole(CHECK_PATIENCE)?;
    nodes.wait_equal(CHECK_PATIENCE)?;
    let mut first: Option<Checked> = None;
    for place in 0..nodes.len() {
        let mut connection = Connection::open(nodes.address(place), CHECK_PATIENCE)?;
        let reply = connection.ask(&[b"READONLY"])?;
        if reply != "OK" {
            return Err(format!("READONLY was answered with {reply}"));
        }
        let mut all = Checked::default();
        for book in books {
            let checked = book.check(&mut connection).map_err(|story| format!("node {}: {story}", place + 1))?;
            all.acknowledged += checked.acknowledged;
            all.unknown += checked.unknown;
            all.happened += checked.happened;
        }
        if first.is_some_and(|first| first != all) {
            return Err(format!("node {} differs from node 1: {all:?} and {first:?}", place + 1));
        }
        first = Some(all);
    }
    report.checked = first.unwrap_or_default();
    Ok(())
}
