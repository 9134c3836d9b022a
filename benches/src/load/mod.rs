//! Load on a server, and what its clients feel.
//!
//! **Closed loop**: each connection sends a batch of requests, waits for all replies, sends the next. It finds the
//! highest throughput, but a server that stalls is simply asked less, so its latencies flatter.
//!
//! **Open loop**: requests fall due at a fixed rate whatever the server does, and a latency counts from the moment the
//! request was *due*, not from when it could be sent ("coordinated omission" is counted in). This is how users arrive.
//!
//! ```text
//!   pacer thread ── due times ──▶ lane of a connection ──▶ writer task ──▶ socket
//!                                        in flight ◀── due times ──┘        │
//!                                            └──── reader task ◀────────────┘   latency = now - due
//! ```
//!
//! The pacer can't be exact: it wakes up every 50 microseconds or so, later on a busy machine. How late it was is
//! measured and reported, so that a reader can tell the generator's delay from the server's.

mod closed;
mod lanes;
mod open;
mod report;
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use report::{Report, Tally};
pub use requests::{Mix, Request, Requests};

use crate::process::cpu_time;

/// What to do to the server.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub address: SocketAddr,
    /// Connections.
    pub clients: usize,
    /// Closed loop: requests per batch. Open loop: the most that are in flight on a connection.
    pub pipeline: usize,
    /// Bytes in a value.
    pub value_bytes: usize,
    /// Distinct keys.
    pub keys: u64,
    /// Shares of writes and reads.
    pub mix: Mix,
    /// Requests per second in all; `None` is the closed loop.
    pub rate: Option<u64>,
    /// How long to measure.
    pub time: Duration,
    /// How long to run before that, unmeasured.
    pub warmup: Duration,
    /// Write every key once, in order, instead of running for a time.
    pub fill: bool,
    /// Closed loop: stop after so many requests, even if time is left.
    pub requests: Option<u64>,
    /// Closed loop: stop when somebody sets this, even if time is left.
    pub stop: Option<Arc<AtomicBool>>,
    /// Repeats the same keys and values.
    pub seed: u64,
    /// The server's processes, to count their processor time.
    pub pids: Vec<u32>,
}

/// Runs the load on this thread (and a pacer, if the loop is open).
///
/// # Errors
/// A text, if the server can't be reached, hangs up, or answers nonsense. Error replies are counted, not errors.
pub fn run(options: &Options) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    match options.rate {
        Some(rate) if rate > 0 && !options.fill => runtime.block_on(open::run(options, rate)),
        Some(_) if !options.fill => Err("a rate of 0 asks nothing".into()),
        _ => runtime.block_on(closed::run(options)),
    }
}

/// Processor time of the server and of this process: up to one moment, or between two.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    server: Option<Duration>,
    generator: Option<Duration>,
}

impl Costs {
    /// What the server's processes and this one have used up to now. Without processes, or when one of them is gone, the
    /// server's is not known.
    pub fn now(pids: &[u32]) -> Self {
        let server = if pids.is_empty() { None } else { pids.iter().map(|pid| cpu_time(*pid)).sum() };
        Costs { server, generator: cpu_time(std::process::id()) }
    }

    /// What was used between `earlier` and this.
    pub fn since(self, earlier: Costs) -> Costs {
        let difference = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        Costs {
            server: difference(self.server, earlier.server),
            generator: difference(self.generator, earlier.generator),
        }
    }
}
