//! The black-box campaign's command.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use holdfast_blackbox::fault::{Fault, Step, Victims};
use holdfast_blackbox::ledger::Ledger;
use holdfast_blackbox::results::{Results, Row};
use holdfast_blackbox::round::{self, Plan};
use holdfast_blackbox::stage::{SMALL_LIMITS, Stage};
use holdfast_blackbox::{replace, stage};
use holdfast_sim::random::Random;

/// Breaks clusters of built servers, on networks and disks of our own, and judges what their clients saw.
///
/// Needs root, iproute2, iptables and /dev/fuse. Exit code 0: all is well. 1: something is not; the story is printed and the nodes' logs are kept. 2: it could
/// not begin.
#[derive(Debug, Parser)]
#[command(name = "holdfast-blackbox", version)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Rounds of faults under load, drawn from a seed, until the time is over
    Run(Run),
    /// One short round: a kill, a partition, a power cut of all nodes
    Short(Short),
    /// Replaces every node of a cluster under load
    Replace(Replace),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The `holdfast` binary
    #[arg(long, value_name = "PATH")]
    server: PathBuf,
    /// Where logs and results go; the data is in memory
    #[arg(long, value_name = "FOLDER")]
    dir: PathBuf,
    /// What is drawn, as far as a machine repeats itself
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Further flags for every node; they come after the small limits that the campaign sets
    #[arg(last = true)]
    server_flags: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    common: Common,
    /// Nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// How long
    #[arg(long, default_value_t = 5)]
    minutes: u64,
    /// Let syncs succeed and do nothing, once the cluster runs: the campaign must find that out
    #[arg(long)]
    lying_disks: bool,
    /// Go on with the results that are in the folder
    #[arg(long)]
    resume: bool,
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
}

#[derive(Debug, clap::Args)]
struct Short {
    #[command(flatten)]
    common: Common,
    /// Say so and succeed if this machine can't do it
    #[arg(long)]
    skip_if_unable: bool,
}

#[derive(Debug, clap::Args)]
struct Replace {
    #[command(flatten)]
    common: Common,
    /// Nodes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// Keys that are there before, and must be there at the end on every node
    #[arg(long, default_value_t = 200_000)]
    keys: u64,
    /// Seconds of load before each replacement
    #[arg(long, default_value_t = 5)]
    load_seconds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.command {
        Action::Run(options) => run(options),
        Action::Short(options) => short(options),
        Action::Replace(options) => run_replace(options),
    };
    result.unwrap_or_else(|story| {
        eprintln!("holdfast-blackbox: {story}");
        ExitCode::from(2)
    })
}

fn start(common: &Common, nodes: u64, salt: u64) -> Result<Stage, String> {
    if let Some(missing) = stage::missing() {
        return Err(format!("this machine can't do it: {missing}"));
    }
    let flags: Vec<String> =
        SMALL_LIMITS.iter().map(|flag| (*flag).to_owned()).chain(common.server_flags.iter().cloned()).collect();
    let flags = [vec!["--protected-mode".to_owned(), "no".to_owned()], flags].concat();
    let random = Random::new(common.seed).fork_numbered("stage", salt);
    Stage::start(&common.server, &common.dir, nodes as usize, &flags, random)
}

fn run(options: &Run) -> Result<ExitCode, String> {
    let common = &options.common;
    std::fs::create_dir_all(&common.dir).map_err(|error| format!("{}: {error}", common.dir.display()))?;
    let path = common.dir.join("results.jsonl");
    let mut results = Results::open(&path, options.resume, common.seed, options.nodes as usize)?;
    let kinds = if options.faults.is_empty() { Fault::value_variants() } else { &options.faults[..] };
    let interrupted = interruptions()?;
    let mut stage = start(common, options.nodes, results.next())?;
    if options.lying_disks {
        stage.let_disks_lie();
    }
    let (began, time) = (Instant::now(), Duration::from_secs(options.minutes * 60));
    let mut ledger = Ledger::default();
    let mut is_well = true;
    while is_well && began.elapsed() < time && !interrupted.load(Ordering::Relaxed) {
        let number = results.next();
        let random = Random::new(common.seed).fork_numbered("round", number);
        let plan = Plan::draw(&mut random.fork("plan"), number, kinds);
        let row = round::run(&mut stage, &plan, &random, &mut ledger);
        print_row(&row);
        is_well = row.is_pass();
        results.add(row)?;
    }
    println!("\n{}", results.table());
    let figures = stage.figures();
    println!(
        "since the start: {} power cuts of nodes, {} syncs, {} of them stalled, {} requests failed by faults, {} nodes ended by \
         themselves",
        figures.cuts, figures.syncs, figures.stalls, figures.disk_errors, figures.ended
    );
    if is_well {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nholdfast-blackbox: FAILED; logs are in {}\n{}", common.dir.display(), stage.last_words());
    Ok(ExitCode::FAILURE)
}

fn print_row(row: &Row) {
    let faults: Vec<String> = row
        .effects
        .iter()
        .map(|effect| {
            let shown = |time: Option<u64>| time.map_or("-".to_owned(), |time| time.to_string());
            let (begin, mend) = (shown(effect.after_begin_ms), shown(effect.after_mend_ms));
            format!("{} ({}) {begin}/{mend} ms", effect.fault, effect.victims)
        })
        .collect();
    println!(
        "round {}: {:.1} s, {} answered, {} refused, {} unknown, {} keys; {}; {}",
        row.round,
        row.millis as f64 / 1000.0,
        row.answered,
        row.failed,
        row.unknown,
        row.keys,
        faults.join(", "),
        row.verdict
    );
}

fn short(options: &Short) -> Result<ExitCode, String> {
    if let (true, Some(missing)) = (options.skip_if_unable, stage::missing()) {
        println!("SKIPPED: the black-box round was NOT run on this machine: {missing}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut stage = start(&options.common, 3, 0)?;
    let step = |fault, victims, hold_ms| vec![Step { fault, victims, hold_ms }];
    let steps = vec![
        step(Fault::Kill, Victims::Leader, 1500),
        step(Fault::Split, Victims::Leader, 2000),
        step(Fault::Power, Victims::All, 300),
    ];
    let plan = Plan { number: 1, steps };
    let row = round::run(&mut stage, &plan, &Random::new(options.common.seed), &mut Ledger::default());
    print_row(&row);
    if row.is_pass() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nholdfast-blackbox: FAILED\n{}", stage.last_words());
    Ok(ExitCode::FAILURE)
}

fn run_replace(options: &Replace) -> Result<ExitCode, String> {
    let common = &options.common;
    let mut stage = start(common, options.nodes, 0)?;
    let load = Duration::from_secs(options.load_seconds);
    let plan = replace::Plan { nodes: options.nodes as usize, keys: options.keys, load };
    match replace::run(&mut stage, &plan, &Random::new(common.seed)) {
        Ok(report) => {
            println!("{report}");
            Ok(ExitCode::SUCCESS)
        }
        Err(story) => {
            eprintln!("\nholdfast-blackbox: FAILED: {story}\n{}", stage.last_words());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Set when the campaign is asked to end: it ends after the round.
fn interruptions() -> Result<Arc<AtomicBool>, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            while tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("this round is the last; --resume goes on");
                flag.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(interrupted)
}
