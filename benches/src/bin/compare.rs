//! Contenders measured in turns on one machine, and how they compare.
//!
//! A single figure says as much about the machine and the hour as about the server. So each round measures every contender
//! once, in an order that rotates, and what is printed is the median over the rounds together with ratios: to the echo
//! (what this machine's network stack allows on one thread) and to Redis with `appendfsync always` (the same promise).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use holdfast_bench::load::{Mix, Options, run};
use holdfast_bench::process::{Server, cpu_time, free_port};
use serde_json::json;

/// Measures SET on the echo yardstick, Redis (appendfsync always) and Holdfast in turns; prints ratios.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-compare",
    version,
    after_help = "Examples:\n  holdfast-compare\n  \
    holdfast-compare --rounds 9 --seconds 5 --dir /mnt/disk\n  holdfast-compare --contenders echo,holdfast --pipelines 1 --tool load"
)]
struct Arguments {
    /// The `holdfast` binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    holdfast: Option<PathBuf>,
    /// The echo [default: `holdfast-echo` beside this one]
    #[arg(long, value_name = "PATH")]
    echo: Option<PathBuf>,
    /// The Redis server
    #[arg(long, default_value = "redis-server", value_name = "PATH")]
    redis: PathBuf,
    /// Who takes part
    #[arg(long, value_delimiter = ',', default_value = "echo,redis,holdfast")]
    contenders: Vec<Contender>,
    /// Requests that a client sends before it waits
    #[arg(long, value_delimiter = ',', default_value = "1,16,64")]
    pipelines: Vec<usize>,
    /// Connections
    #[arg(long, default_value_t = 50)]
    clients: usize,
    /// Bytes in a value
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
    /// Distinct keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Rounds; the median over them is shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement, about
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// What makes the load
    #[arg(long, value_enum, default_value_t = Tool::Auto)]
    tool: Tool,
    /// Where data folders go [default: the system's temporary folder]: put it on the disk that is meant
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Further flags for holdfast
    #[arg(last = true)]
    holdfast_flags: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Contender {
    Echo,
    Redis,
    Holdfast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// redis-benchmark if it is installed, otherwise load
    Auto,
    /// Redis's own tool
    RedisBenchmark,
    /// The closed loop of holdfast-load
    Load,
}

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Sample {
    rate: f64,
    cpu_micros: f64,
    p50_millis: f64,
    p99_millis: f64,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<(), String> {
    let tool = match arguments.tool {
        Tool::Auto if Command::new("redis-benchmark").arg("--version").output().is_ok() => Tool::RedisBenchmark,
        Tool::Auto => Tool::Load,
        chosen => chosen,
    };
    let folder = match &arguments.dir {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| tempfile::tempdir_in(dir)),
        None => tempfile::tempdir(),
    };
    let folder = folder.map_err(|error| format!("cannot make a folder for the data: {error}"))?;
    let mut servers = Vec::new();
    for contender in &arguments.contenders {
        servers.push((*contender, start(arguments, *contender, folder.path())?));
    }
    let mut samples = vec![vec![Vec::new(); servers.len()]; arguments.pipelines.len()];
    for round in 0..arguments.rounds.max(1) {
        for (step, pipeline) in arguments.pipelines.iter().enumerate() {
            for turn in 0..servers.len() {
                // Another one begins each time: what comes first finds a quieter disk.
                let place = (turn + round) % servers.len();
                let (contender, server) = &servers[place];
                let sample = measure(arguments, tool, server, *pipeline)?;
                eprintln!(
                    "round {}/{} pipeline {pipeline:<3} {:<9} {:>9.0} SET/s  {:>6.2} us CPU",
                    round + 1,
                    arguments.rounds.max(1),
                    name(*contender),
                    sample.rate,
                    sample.cpu_micros
                );
                samples[step][place].push(sample);
            }
        }
    }
    let contenders: Vec<Contender> = servers.iter().map(|(contender, _)| *contender).collect();
    print(arguments, tool, &contenders, &samples);
    Ok(())
}

fn name(contender: Contender) -> &'static str {
    match contender {
        Contender::Echo => "echo",
        Contender::Redis => "redis",
        Contender::Holdfast => "holdfast",
    }
}

fn start(arguments: &Arguments, contender: Contender, folder: &Path) -> Result<Server, String> {
    let beside = |given: &Option<PathBuf>, name: &str| match given {
        Some(path) => Ok(path.clone()),
        None => {
            let here = std::env::current_exe().map_err(|error| error.to_string())?;
            Ok::<_, String>(here.with_file_name(name))
        }
    };
    let data = folder.join(name(contender));
    std::fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let stderr = folder.join(format!("{}.stderr", name(contender)));
    match contender {
        Contender::Echo => {
            Server::start(&mut Command::new(beside(&arguments.echo, "holdfast-echo")?), &stderr, PATIENCE)
        }
        Contender::Holdfast => {
            let mut command = Command::new(beside(&arguments.holdfast, "holdfast")?);
            command.args(["--port", "0", "--dir"]).arg(&data).args(&arguments.holdfast_flags);
            Server::start(&mut command, &stderr, PATIENCE)
        }
        Contender::Redis => {
            let port = free_port().map_err(|error| error.to_string())?;
            let mut command = Command::new(&arguments.redis);
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(&data);
            command.args(["--appendonly", "yes", "--appendfsync", "always"]);
            // A rewrite in the middle of a measurement would be a cost of the past.
            command.args(["--auto-aof-rewrite-percentage", "0"]);
            Server::start_on_port(&mut command, port, PATIENCE)
        }
    }
}

fn measure(arguments: &Arguments, tool: Tool, server: &Server, pipeline: usize) -> Result<Sample, String> {
    match tool {
        Tool::Load => {
            let options = Options {
                address: server.address(),
                clients: arguments.clients,
                pipeline,
                value_bytes: arguments.value_bytes,
                keys: arguments.keys.max(1),
                mix: Mix::SETS,
                rate: None,
                time: Duration::try_from_secs_f64(arguments.seconds).map_err(|error| error.to_string())?,
                warmup: Duration::from_millis(300),
                fill: false,
                requests: None,
                stop: None,
                seed: 1,
                pids: vec![server.pid()],
            };
            let report = run(&options)?;
            if let Some(error) = report.first_error {
                return Err(format!("{} refused writes: {error}", server.address()));
            }
            Ok(Sample {
                rate: report.rate(),
                cpu_micros: report.server_micros().unwrap_or(f64::NAN),
                p50_millis: report.millis(0.5),
                p99_millis: report.millis(0.99),
            })
        }
        Tool::Auto | Tool::RedisBenchmark => {
            // A short run finds how many requests fill the time.
            let probe = benchmark(arguments, server.address(), pipeline, 10_000 * pipeline.min(10) as u64)?;
            let requests = (probe.rate * arguments.seconds).max(1000.0) as u64;
            let before = cpu_time(server.pid());
            let mut sample = benchmark(arguments, server.address(), pipeline, requests)?;
            let used = cpu_time(server.pid()).zip(before).map(|(after, before)| after.saturating_sub(before));
            sample.cpu_micros = used.map_or(f64::NAN, |used| used.as_secs_f64() * 1e6 / requests as f64);
            Ok(sample)
        }
    }
}

/// One run of redis-benchmark; its CSV line holds rate and latencies.
fn benchmark(arguments: &Arguments, address: SocketAddr, pipeline: usize, requests: u64) -> Result<Sample, String> {
    let mut command = Command::new("redis-benchmark");
    command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-t", "set", "--csv"]);
    command.args(["-c", &arguments.clients.to_string(), "-P", &pipeline.to_string(), "-n", &requests.to_string()]);
    command.args(["-d", &arguments.value_bytes.to_string(), "-r", &arguments.keys.to_string()]);
    let output = command.output().map_err(|error| format!("cannot run redis-benchmark: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().find(|line| line.starts_with("\"SET\"")).map(|line| {
        line.split(',').skip(1).map(|cell| cell.trim_matches('"').parse().unwrap_or(f64::NAN)).collect::<Vec<f64>>()
    });
    // rps, average, min, p50, p95, p99, max
    match figures.as_deref() {
        Some([rate, _, _, p50, _, p99, ..]) if rate.is_finite() && output.status.success() => {
            Ok(Sample { rate: *rate, cpu_micros: f64::NAN, p50_millis: *p50, p99_millis: *p99 })
        }
        _ => Err(format!(
            "redis-benchmark against {address} failed ({}): {}{}",
            output.status,
            text.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

fn median(samples: &[Sample], field: impl Fn(&Sample) -> f64) -> f64 {
    holdfast_bench::stats::median(samples.iter().map(field))
}

fn print(arguments: &Arguments, tool: Tool, contenders: &[Contender], samples: &[Vec<Vec<Sample>>]) {
    let mut rows = Vec::new();
    for (pipeline, by_contender) in arguments.pipelines.iter().zip(samples) {
        // Ratios are formed within a round, where both ran under the same conditions, and the median taken over rounds.
        let ratio = |place: usize, to: Contender| {
            let base = contenders.iter().position(|contender| *contender == to)?;
            let pairs = by_contender[place].iter().zip(&by_contender[base]);
            let ratios: Vec<Sample> =
                pairs.map(|(one, other)| Sample { rate: one.rate / other.rate, ..*one }).collect();
            Some(median(&ratios, |sample| sample.rate))
        };
        for (place, contender) in contenders.iter().enumerate() {
            let all = &by_contender[place];
            let rates = all.iter().map(|sample| sample.rate);
            rows.push(json!({
                "pipeline": pipeline,
                "contender": name(*contender),
                "sets_per_second": median(all, |sample| sample.rate),
                "lowest": rates.clone().fold(f64::INFINITY, f64::min),
                "highest": rates.fold(0.0, f64::max),
                "to_echo": ratio(place, Contender::Echo),
                "to_redis": ratio(place, Contender::Redis),
                "cpu_us_per_set": median(all, |sample| sample.cpu_micros),
                "p50_ms": median(all, |sample| sample.p50_millis),
                "p99_ms": median(all, |sample| sample.p99_millis),
            }));
        }
    }
    let tool = if tool == Tool::Load { "holdfast-load" } else { "redis-benchmark" };
    let (clients, bytes, rounds) = (arguments.clients, arguments.value_bytes, arguments.rounds.max(1));
    if arguments.json {
        let all = json!({ "tool": tool, "clients": clients, "value_bytes": bytes, "rounds": rounds, "results": rows });
        println!("{all}");
        return;
    }
    println!("SET, {clients} clients, {bytes} B values, {tool}, medians of {rounds} interleaved rounds\n");
    println!("| pipeline | server | kSET/s (lowest-highest) | to echo | to redis | CPU us/SET | p50 ms | p99 ms |");
    println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for row in rows {
        let number = |field: &str| row[field].as_f64();
        let shown = |field: &str, digits: usize, suffix: &str| {
            number(field).map_or("-".to_owned(), |number| format!("{number:.digits$}{suffix}"))
        };
        let thousands = |field: &str| number(field).map_or("-".to_owned(), |number| format!("{:.1}", number / 1000.0));
        println!(
            "| {} | {} | {} ({}-{}) | {} | {} | {} | {} | {} |",
            row["pipeline"],
            row["contender"].as_str().unwrap_or_default(),
            thousands("sets_per_second"),
            thousands("lowest"),
            thousands("highest"),
            shown("to_echo", 2, ""),
            shown("to_redis", 2, ""),
            shown("cpu_us_per_set", 2, ""),
            shown("p50_ms", 3, ""),
            shown("p99_ms", 3, ""),
        );
    }
}
