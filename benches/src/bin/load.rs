//! The load generator's command line. What it does is described in [`holdfast_bench::load`].

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use holdfast_bench::load::{Mix, Options, run};
use holdfast_bench::wire::put_command;

/// Puts load on a Redis-protocol server and reports throughput and latency.
///
/// Without --rate each client sends a batch of --pipeline requests and waits for the replies (closed loop). With --rate
/// requests fall due at that rate whatever the server does, and latency counts from when they were due (open loop).
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-load",
    version,
    after_help = "Examples:\n  holdfast-load --addr 127.0.0.1:6379 --clients 50 --pipeline 16\n  \
    holdfast-load --rate 20000 --seconds 30 --mix 1:9\n  holdfast-load --fill --keys 1000000 --value-bytes 1024 --pipeline 64"
)]
struct Arguments {
    /// The server
    #[arg(long, default_value = "127.0.0.1:6379", value_name = "HOST:PORT")]
    addr: String,
    /// Connections
    #[arg(long, short, default_value_t = 50)]
    clients: usize,
    /// Requests per batch; with --rate, the most in flight on a connection [default: 1; with --rate 64]
    #[arg(long, short = 'P')]
    pipeline: Option<usize>,
    /// Bytes in a value
    #[arg(long, short = 'd', default_value_t = 64)]
    value_bytes: usize,
    /// Distinct keys
    #[arg(long, short = 'r', default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Parts of SET and GET
    #[arg(long, default_value = "1:0", value_name = "SETS:GETS")]
    mix: Mix,
    /// Requests per second in all
    #[arg(long, conflicts_with = "fill", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Seconds to measure
    #[arg(long, short, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds to run before that, unmeasured
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Write every key once, then stop
    #[arg(long)]
    fill: bool,
    /// Repeats the same keys and values
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The server's process id, to count its processor time [default: what INFO says, if it is on this machine]
    #[arg(long)]
    pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match measure(Arguments::parse()) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("holdfast-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: Arguments) -> Result<String, String> {
    let found = arguments.addr.to_socket_addrs().map_err(|error| format!("{}: {error}", arguments.addr))?.next();
    let address = found.ok_or_else(|| format!("{} has no address", arguments.addr))?;
    let time = |seconds: f64, name: &str| {
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("--{name} {seconds}: {error}"))
    };
    let options = Options {
        address,
        clients: arguments.clients.max(1),
        pipeline: arguments.pipeline.unwrap_or(if arguments.rate.is_some() { 64 } else { 1 }).max(1),
        value_bytes: arguments.value_bytes,
        keys: arguments.keys,
        mix: arguments.mix,
        rate: arguments.rate,
        time: time(arguments.seconds, "seconds")?,
        warmup: time(arguments.warmup, "warmup")?,
        fill: arguments.fill,
        requests: None,
        stop: None,
        seed: arguments.seed,
        pids: arguments.pid.or_else(|| local_pid(address)).into_iter().collect(),
    };
    let report = run(&options)?;
    Ok(if arguments.json { report.json().to_string() } else { report.text() })
}

/// The process id that the server tells, if the server is on this machine.
fn local_pid(address: SocketAddr) -> Option<u32> {
    if !address.ip().is_loopback() {
        return None;
    }
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let mut out = Vec::new();
    put_command(&mut out, &[b"INFO", b"server"]);
    put_command(&mut out, &[b"QUIT"]);
    stream.write_all(&out).ok()?;
    let mut text = Vec::new();
    // What came until the end or the timeout is enough: the line is searched, not parsed.
    let _ = stream.take(64 << 10).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| line.strip_prefix("process_id:"))?.trim().parse().ok()
}
