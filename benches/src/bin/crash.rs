//! The kill -9 campaign: writes under load, a sudden end, a restart, and every acknowledged write is looked for.
//!
//! What is written and how it is judged is in [`holdfast_bench::crash`]; here are the processes, connections and threads.
//! The server runs on a real disk, and the machine stays up: this shows that nothing acknowledged is kept in the process
//! only. It says nothing about a power cut, after which unsynced pages are gone too.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use holdfast_bench::connection::Connection;
use holdfast_bench::crash::ledger::parse_number;
use holdfast_bench::crash::plan::SHARED_COUNTER;
use holdfast_bench::crash::{Ledger, Plan, Reader, Settled};
use holdfast_bench::process::{Server, tail};
use holdfast_bench::random::Random;
use holdfast_bench::wire::Reply;

/// Kills a server under load and checks, after each restart, that every acknowledged write is there.
///
/// Exit code 0: nothing was lost. 1: something was, or the server misbehaved; the story is printed and the data folder
/// is kept.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-crash",
    version,
    after_help = "Examples:\n  holdfast-crash --server target/release/holdfast --rounds 200\n  \
    holdfast-crash --server target/release/holdfast --store sled --seed 7\n  holdfast-crash --server target/release/holdfast -- --memory-budget 64mb"
)]
struct Arguments {
    /// The `holdfast` binary
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// How often to crash
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Connections that write
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    writers: u64,
    /// The most commands in one batch of a writer
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    pipeline: u64,
    /// The longest ordinary value; now and then one is larger than a log entry all the same
    #[arg(long, default_value_t = 400)]
    value_bytes_max: u64,
    /// Milliseconds of load before the crash: at least
    #[arg(long, default_value_t = 20, value_name = "MS")]
    run_min: u64,
    /// Milliseconds of load before the crash: at most
    #[arg(long, default_value_t = 500, value_name = "MS")]
    run_max: u64,
    /// Rounds of a hundred that stop with SIGTERM instead
    #[arg(long, default_value_t = 10, value_name = "PERCENT")]
    graceful: u64,
    /// Rounds of a hundred that kill the server once more while it recovers
    #[arg(long, default_value_t = 20, value_name = "PERCENT")]
    kill_recovery: u64,
    /// Every so many rounds, read everything that was ever written again (it is at the end in any case)
    #[arg(long, default_value_t = 25, value_name = "ROUNDS")]
    full_every: u64,
    /// The checkpoint store of the server, `fjall` or `sled`
    #[arg(long)]
    store: Option<String>,
    /// Repeats the operations and, as far as a machine repeats itself, the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the data folder goes [default: a temporary folder]; it must be on a disk, not in memory, to mean much
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Keep the data folder in any case
    #[arg(long)]
    keep: bool,
    /// Further flags for the server
    #[arg(last = true)]
    server_flags: Vec<String>,
}

/// A server that hasn't recovered by then is taken for hung.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
const READ_PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let folder = match &arguments.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = match folder {
        Ok(folder) => folder,
        Err(error) => {
            eprintln!("holdfast-crash: cannot make a folder for the data: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut campaign = Campaign::new(&arguments, folder.path());
    let start = Instant::now();
    let result = campaign.run();
    let kept = if arguments.keep || result.is_err() { Some(folder.keep()) } else { None };
    match result {
        Ok(()) => {
            println!(
                "nothing lost: {} rounds in {:.0} s, {} writes acknowledged, {} in doubt of which {} had happened, {} reads \
                 of settled writes; slowest start {:.2} s",
                arguments.rounds,
                start.elapsed().as_secs_f64(),
                campaign.total.acknowledged,
                campaign.total.in_doubt,
                campaign.total.applied_in_doubt,
                campaign.rechecked,
                campaign.slowest_start.as_secs_f64()
            );
            if let Some(path) = kept {
                println!("the data is in {}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(story) => {
            eprintln!("\nholdfast-crash: FAILED in round {} (seed {})\n{story}", campaign.round, arguments.seed);
            eprintln!("before that: {}", campaign.last_end);
            if let Some(path) = kept {
                eprintln!("the data is in {}; the server wrote last:\n{}", path.display(), tail(&path.join("stderr")));
            }
            ExitCode::FAILURE
        }
    }
}

struct Campaign<'a> {
    arguments: &'a Arguments,
    folder: PathBuf,
    random: Random,
    ledgers: Vec<Ledger>,
    /// The value of the shared counter after the last restart.
    shared: u64,
    round: u64,
    total: Settled,
    rechecked: u64,
    slowest_start: Duration,
    /// How the server ended the last time, for the story.
    last_end: String,
}

/// How far a writer got in a round.
struct Reached {
    acked_end: u64,
    sent_end: u64,
    /// An error reply, which a write should not get.
    refused: Option<String>,
}

impl<'a> Campaign<'a> {
    fn new(arguments: &'a Arguments, folder: &Path) -> Self {
        let plan = |writer| Plan::new(arguments.seed, writer, arguments.value_bytes_max);
        Campaign {
            arguments,
            folder: folder.to_owned(),
            random: Random::new(arguments.seed),
            ledgers: (0..arguments.writers).map(plan).map(Ledger::new).collect(),
            shared: 0,
            round: 0,
            total: Settled::default(),
            rechecked: 0,
            slowest_start: Duration::ZERO,
            last_end: "nothing".into(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let terminal = std::io::stderr().is_terminal();
        let mut server = self.start()?;
        for round in 1..=self.arguments.rounds {
            self.round = round;
            let graceful = self.random.percent(self.arguments.graceful);
            let span = self.arguments.run_max.saturating_sub(self.arguments.run_min) + 1;
            let load = Duration::from_millis(self.arguments.run_min + self.random.below(span));
            let reached = self.load(server, load, graceful)?;
            if self.random.percent(self.arguments.kill_recovery) {
                self.kill_while_starting()?;
            }
            let start = Instant::now();
            server = self.start()?;
            let recovery = start.elapsed();
            self.slowest_start = self.slowest_start.max(recovery);
            let full = round == self.arguments.rounds || round % self.arguments.full_every.max(1) == 0;
            let settled = self.check(&server, &reached, full)?;
            let line = format!(
                "round {round}/{}: {} after {} ms; {} acknowledged, {} in doubt ({} had happened); up again in {:.2} s{}",
                self.arguments.rounds,
                if graceful { "SIGTERM" } else { "kill -9" },
                load.as_millis(),
                settled.acknowledged,
                settled.in_doubt,
                settled.applied_in_doubt,
                recovery.as_secs_f64(),
                if full { ", everything read again" } else { "" },
            );
            if terminal {
                eprint!("\r\x1b[K{line}");
                let _ = std::io::stderr().flush();
            } else if full || round % 10 == 0 {
                eprintln!("{line}");
            }
        }
        if terminal {
            eprintln!();
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.arguments.server);
        command.args(["--port", "0", "--dir"]).arg(self.folder.join("data"));
        if let Some(store) = &self.arguments.store {
            command.args(["--store", store]);
        }
        command.args(&self.arguments.server_flags);
        command
    }

    fn start(&self) -> Result<Server, String> {
        Server::start(&mut self.command(), &self.folder.join("stderr"), START_PATIENCE)
    }

    /// Starts the server and kills it before it can be ready, most likely in the middle of its recovery.
    fn kill_while_starting(&mut self) -> Result<(), String> {
        let wait = Duration::from_micros(self.random.below(60_000));
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("cannot start the server: {error}"))?;
        std::thread::sleep(wait);
        let _ = child.kill();
        child.wait().map_err(|error| format!("cannot wait for the server: {error}"))?;
        self.last_end.push_str(&format!(", then killed again {} ms into its start", wait.as_millis()));
        Ok(())
    }

    /// Lets the writers write until the server is gone.
    fn load(&mut self, server: Server, time: Duration, graceful: bool) -> Result<Vec<Reached>, String> {
        let address = server.address();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for ledger in &self.ledgers {
            let (plan, first, stop) = (ledger.plan().clone(), ledger.next(), stop.clone());
            let random = Random::new(self.arguments.seed ^ (self.round << 20) ^ plan.writer());
            let batch_max = self.arguments.pipeline;
            threads.push(std::thread::spawn(move || write(address, &plan, first, batch_max, random, &stop)));
        }
        std::thread::sleep(time);
        let stopped = if graceful {
            server.stop(STOP_PATIENCE)
        } else {
            server.kill();
            Ok(())
        };
        // Set after the end, so that the writers write right into it.
        stop.store(true, Ordering::Relaxed);
        self.last_end = format!("{} after {} ms", if graceful { "SIGTERM" } else { "kill -9" }, time.as_millis());
        let mut reached = Vec::new();
        for thread in threads {
            reached.push(thread.join().map_err(|_| "a writer failed".to_owned())??);
        }
        stopped?;
        // A server that is shutting down may say so.
        let refused = reached.iter().find_map(|reached| reached.refused.as_ref()).filter(|_| !graceful);
        match refused {
            Some(text) => Err(format!("the server refused a write: {text}")),
            None => Ok(reached),
        }
    }

    fn check(&mut self, server: &Server, reached: &[Reached], full: bool) -> Result<Settled, String> {
        let mut connection = Connection::open(server.address(), READ_PATIENCE)?;
        let (mut least, mut most) = (self.shared, self.shared);
        let mut round = Settled::default();
        for (ledger, reached) in self.ledgers.iter_mut().zip(reached) {
            let start = ledger.next();
            least += ledger.shared_increments(start, reached.acked_end);
            most += ledger.shared_increments(start, reached.sent_end);
            let settled = ledger.settle(reached.acked_end, reached.sent_end, &mut connection)?;
            round.acknowledged += settled.acknowledged;
            round.in_doubt += settled.in_doubt;
            round.applied_in_doubt += settled.applied_in_doubt;
            // The round before the last one, too: what a restart shows must also survive the next.
            let rounds = if full { usize::MAX } else { 3 };
            self.rechecked += ledger.recheck(rounds, &mut connection)?;
        }
        let found = connection.read(&[SHARED_COUNTER.to_vec()])?.pop().flatten();
        let found = match &found {
            None => 0,
            Some(text) => parse_number(text).ok_or_else(|| format!("c_shared holds `{}`", text.escape_ascii()))?,
        };
        if !(least..=most).contains(&found) {
            return Err(format!(
                "c_shared is {found}; acknowledged increments make it {least} at least, all sent ones {most}"
            ));
        }
        self.shared = found;
        self.total.acknowledged += round.acknowledged;
        self.total.in_doubt += round.in_doubt;
        self.total.applied_in_doubt += round.applied_in_doubt;
        Ok(round)
    }
}

/// One writer: batches of commands until the connection ends.
fn write(
    address: SocketAddr,
    plan: &Plan,
    first: u64,
    batch_max: u64,
    mut random: Random,
    stop: &AtomicBool,
) -> Result<Reached, String> {
    let mut reached = Reached { acked_end: first, sent_end: first, refused: None };
    let mut connection = match Connection::open(address, READ_PATIENCE) {
        Ok(connection) => connection,
        // A short round may end before its last writer has connected.
        Err(_) => return Ok(reached),
    };
    let mut out = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        out.clear();
        let count = 1 + random.below(batch_max);
        for _ in 0..count {
            plan.put(reached.sent_end, &mut out);
            reached.sent_end += 1;
        }
        // From here on they may have happened, whatever the socket says.
        if connection.send(&out).is_err() {
            break;
        }
        while reached.acked_end < reached.sent_end {
            let reply = connection.next(|reply| match reply {
                Reply::Error(text) => Err(String::from_utf8_lossy(text).into_owned()),
                _ => Ok(()),
            });
            match reply {
                Ok(Ok(())) => reached.acked_end += 1,
                Ok(Err(text)) => {
                    reached.refused = Some(text);
                    return Ok(reached);
                }
                Err(_) => return Ok(reached),
            }
        }
    }
    Ok(reached)
}
