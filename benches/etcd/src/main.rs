//! Three nodes of Holdfast beside three of etcd, measured in turns on one machine.
//!
//! Both clusters run all the time; one is measured while the other is idle. Each round measures every step on both, beginning with another
//! one each time, and ratios are formed within a round: a figure says as much about the machine and the hour as about the server.
//!
//! Both are durable: an answer to a write means that a majority synced it. Reads are linearizable on both. How they are made so differs:
//! Holdfast's leader trusts its lease, etcd's asks a majority. With `-- --reads quorum` Holdfast does that too.

mod etcd;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use etcd::{Ask, Etcd, Ways};
use holdfast_bench::cluster::Cluster;
use holdfast_bench::load::{Mix, Options, Report, run};
use holdfast_bench::process::machine_load;
use holdfast_bench::stats::{median, range};
use serde_json::json;

/// Measures three nodes of Holdfast and three of etcd in turns; prints ratios.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-compare-etcd",
    version,
    after_help = "Examples:\n  holdfast-compare-etcd --holdfast target/release/holdfast --dir ~/bench\n  \
    holdfast-compare-etcd --operations get -- --reads quorum\n  \
    holdfast-compare-etcd --contenders etcd --etcd-channels 1 --rounds 3"
)]
struct Arguments {
    /// The `holdfast` binary
    #[arg(long, default_value = "target/release/holdfast", value_name = "PATH")]
    holdfast: PathBuf,
    /// The etcd server
    #[arg(long, default_value = "etcd", value_name = "PATH")]
    etcd: PathBuf,
    /// Who takes part
    #[arg(long, value_delimiter = ',', default_value = "etcd,holdfast")]
    contenders: Vec<Contender>,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "set,get")]
    operations: Vec<Operation>,
    /// Clients that write
    #[arg(long, value_delimiter = ',', default_value = "50,256")]
    clients: Vec<usize>,
    /// Requests of a writing client that are on their way
    #[arg(long, value_delimiter = ',', default_value = "1,16")]
    outstanding: Vec<usize>,
    /// Clients that read, one request at a time each
    #[arg(long, default_value_t = 50)]
    read_clients: usize,
    /// Bytes in a value
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Distinct keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Rounds; medians over them are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// TCP connections to each node of etcd that is used, shared by the clients
    #[arg(long, default_value_t = 4)]
    etcd_channels: usize,
    /// Threads that make etcd's load
    #[arg(long, default_value_t = 2)]
    etcd_threads: usize,
    /// The nodes of etcd that clients talk to. Holdfast's talk to the leader
    #[arg(long, value_enum, default_value_t = To::Leader)]
    etcd_to: To,
    /// Where data folders go [default: the system's temporary folder]: put it on the disk that is meant
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// The first port; Holdfast uses three and three 10,000 above, etcd the six after the next ten
    #[arg(long, default_value_t = 7300)]
    base_port: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Further flags for Holdfast's nodes
    #[arg(last = true)]
    holdfast_flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Contender {
    Etcd,
    Holdfast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    Set,
    Get,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// The one that leads
    Leader,
    /// All, in turns
    All,
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy)]
struct Step {
    operation: Operation,
    clients: usize,
    outstanding: usize,
}

enum Running {
    Etcd(Etcd),
    Holdfast(Cluster),
}

/// What one measurement found.
#[derive(Debug, Clone, Copy)]
struct Sample {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    server_micros: f64,
    generator_micros: f64,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-compare-etcd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), String> {
    let time = Duration::try_from_secs_f64(arguments.seconds).map_err(|error| format!("--seconds: {error}"))?;
    let folder = match &arguments.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(|error| format!("cannot make a folder for the data: {error}"))?;
    let mut contenders = Vec::new();
    for contender in &arguments.contenders {
        contenders.push((*contender, start(arguments, *contender, folder.path())?));
    }
    let steps = steps(arguments);
    for (_, running) in &contenders {
        // Every key is there from the start, so that no write is a first one and no read finds nothing.
        let fill = Step { operation: Operation::Set, clients: 50, outstanding: 16 };
        measure(arguments, running, fill, time, true)?;
    }
    let mut samples = vec![vec![Vec::new(); contenders.len()]; steps.len()];
    let mut loads = Vec::new();
    for round in 0..arguments.rounds.max(1) {
        for (number, step) in steps.iter().enumerate() {
            loads.extend(machine_load());
            for turn in 0..contenders.len() {
                let place = (turn + round) % contenders.len();
                let (contender, running) = &contenders[place];
                let sample = measure(arguments, running, *step, time, false)?;
                eprintln!(
                    "round {}/{} {} {:>3} clients x {:<2} {:<8} {:>8.0}/s  p50 {:>7.3}  p99 {:>7.3} ms  \
                     CPU {:>6.1} us, generator {:>5.1} us",
                    round + 1,
                    arguments.rounds.max(1),
                    step.operation.name(),
                    step.clients,
                    step.outstanding,
                    contender.name(),
                    sample.rate,
                    sample.p50,
                    sample.p99,
                    sample.server_micros,
                    sample.generator_micros
                );
                samples[number][place].push(sample);
            }
        }
    }
    print(arguments, &steps, &samples, &loads);
    Ok(())
}

fn steps(arguments: &Arguments) -> Vec<Step> {
    let mut steps = Vec::new();
    for operation in &arguments.operations {
        match operation {
            Operation::Set => {
                for clients in &arguments.clients {
                    let of = |outstanding: &usize| Step {
                        operation: *operation,
                        clients: *clients,
                        outstanding: *outstanding,
                    };
                    steps.extend(arguments.outstanding.iter().map(of));
                }
            }
            Operation::Get => {
                steps.push(Step { operation: *operation, clients: arguments.read_clients, outstanding: 1 })
            }
        }
    }
    steps
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Contender::Etcd => "etcd",
            Contender::Holdfast => "holdfast",
        }
    }
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Set => "SET",
            Operation::Get => "GET",
        }
    }
}

fn start(arguments: &Arguments, contender: Contender, folder: &Path) -> Result<Running, String> {
    let dir = folder.join(contender.name());
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let (program, flags) = (&arguments.holdfast, &arguments.holdfast_flags);
    Ok(match contender {
        Contender::Etcd => Running::Etcd(Etcd::start(&arguments.etcd, &dir, arguments.base_port.saturating_add(10))?),
        Contender::Holdfast => Running::Holdfast(Cluster::start(program, &dir, arguments.base_port, 3, flags)?),
    })
}

fn measure(arguments: &Arguments, running: &Running, step: Step, time: Duration, fill: bool) -> Result<Sample, String> {
    let mix = if step.operation == Operation::Set { Mix::SETS } else { Mix::GETS };
    let warmup = Duration::from_millis(500);
    let Step { clients, outstanding, .. } = step;
    let (value_bytes, keys) = (arguments.value_bytes, arguments.keys);
    let (name, report) = match running {
        Running::Etcd(etcd) => {
            let all_nodes = arguments.etcd_to == To::All;
            let ways = Ways { channels: arguments.etcd_channels, threads: arguments.etcd_threads, all_nodes };
            ("etcd", etcd.load(&Ask { mix, clients, outstanding, value_bytes, keys, time, warmup, fill }, &ways)?)
        }
        Running::Holdfast(cluster) => {
            let options = Options {
                address: cluster.address(cluster.leader()?),
                clients,
                pipeline: outstanding,
                value_bytes,
                keys,
                mix,
                rate: None,
                time,
                warmup,
                fill,
                requests: None,
                stop: None,
                seed: 1,
                pids: cluster.pids(),
            };
            ("holdfast", run(&options)?)
        }
    };
    if let Some(error) = report.first_error {
        return Err(format!("{name} refused requests ({} of {}): {error}", report.errors, report.replies));
    }
    Ok(sample(&report))
}

fn sample(report: &Report) -> Sample {
    Sample {
        rate: report.rate(),
        p50: report.millis(0.5),
        p99: report.millis(0.99),
        p999: report.millis(0.999),
        server_micros: report.server_micros().unwrap_or(f64::NAN),
        generator_micros: report.generator_micros().unwrap_or(f64::NAN),
    }
}

fn print(arguments: &Arguments, steps: &[Step], samples: &[Vec<Vec<Sample>>], loads: &[f64]) {
    let mut rows = Vec::new();
    let base = arguments.contenders.iter().position(|contender| *contender == Contender::Etcd);
    for (step, by_contender) in steps.iter().zip(samples) {
        for (contender, all) in arguments.contenders.iter().zip(by_contender) {
            let ratios: Vec<f64> = match base {
                Some(base) => all.iter().zip(&by_contender[base]).map(|(one, other)| one.rate / other.rate).collect(),
                None => Vec::new(),
            };
            let rates = range(all.iter().map(|sample| sample.rate));
            let to_etcd = range(ratios.iter().copied());
            rows.push(json!({
                "operation": step.operation.name(),
                "clients": step.clients,
                "outstanding": step.outstanding,
                "contender": contender.name(),
                "per_second": median(all.iter().map(|sample| sample.rate)),
                "lowest": rates.0,
                "highest": rates.1,
                "to_etcd": median(ratios.iter().copied()),
                "to_etcd_lowest": to_etcd.0,
                "to_etcd_highest": to_etcd.1,
                "to_etcd_by_round": ratios,
                "p50_ms": median(all.iter().map(|sample| sample.p50)),
                "p99_ms": median(all.iter().map(|sample| sample.p99)),
                "p999_ms": median(all.iter().map(|sample| sample.p999)),
                "cpu_us": median(all.iter().map(|sample| sample.server_micros)),
                "generator_cpu_us": median(all.iter().map(|sample| sample.generator_micros)),
            }));
        }
    }
    let (rounds, bytes, load) = (arguments.rounds.max(1), arguments.value_bytes, range(loads.iter().copied()));
    if arguments.json {
        let all = json!({ "value_bytes": bytes, "rounds": rounds, "machine_load": loads, "results": rows });
        println!("{all}");
        return;
    }
    println!(
        "3 nodes each, {bytes} B values, {} keys, medians of {rounds} interleaved rounds; machine's load {:.1}-{:.1}\n",
        arguments.keys, load.0, load.1
    );
    println!(
        "| | clients | outstanding | server | k/s (lowest-highest) | to etcd (lowest-highest) | p50 ms | p99 ms | p99.9 ms | CPU us | generator us |"
    );
    println!("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in rows {
        let shown = |field: &str, divisor: f64, digits: usize| {
            row[field].as_f64().map_or("-".to_owned(), |number| format!("{:.digits$}", number / divisor))
        };
        println!(
            "| {} | {} | {} | {} | {} ({}-{}) | {} ({}-{}) | {} | {} | {} | {} | {} |",
            row["operation"].as_str().unwrap_or_default(),
            row["clients"],
            row["outstanding"],
            row["contender"].as_str().unwrap_or_default(),
            shown("per_second", 1000.0, 1),
            shown("lowest", 1000.0, 1),
            shown("highest", 1000.0, 1),
            shown("to_etcd", 1.0, 1),
            shown("to_etcd_lowest", 1.0, 1),
            shown("to_etcd_highest", 1.0, 1),
            shown("p50_ms", 1.0, 2),
            shown("p99_ms", 1.0, 2),
            shown("p999_ms", 1.0, 2),
            shown("cpu_us", 1.0, 1),
            shown("generator_cpu_us", 1.0, 1),
        );
    }
}
