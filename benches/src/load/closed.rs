//! The closed loop: a batch, its replies, the next batch.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use super::lanes::{Inbox, connect};
use super::report::{Report, Tally};
use super::requests::Requests;
use super::{Costs, Options};

/// When the clients measure and when they stop.
#[derive(Debug)]
struct Schedule {
    measure_from: Instant,
    end: Instant,
    /// `fill`: the next key to write. Otherwise the requests that were asked so far.
    next: Cell<u64>,
    /// Where that ends.
    requests_max: u64,
    stop: Option<Arc<AtomicBool>>,
}

impl Schedule {
    /// The number of the next request, if there is to be one. Those of one batch are taken one after the other, so `within`
    /// says whether a batch is under way: it isn't cut short by the time.
    fn take(&self, fill: bool, within: bool) -> Option<u64> {
        let number = self.next.get();
        let runs = || Instant::now() < self.end && !self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
        if number >= self.requests_max || !(fill || within || runs()) {
            return None;
        }
        self.next.set(number + 1);
        Some(number)
    }
}

pub(super) async fn run(options: &Options) -> Result<Report, String> {
    let mut streams = Vec::new();
    for _ in 0..options.clients.max(1) {
        streams.push(connect(options.address).await?);
    }
    let start = Instant::now();
    let measure_from = if options.fill { start } else { start + options.warmup };
    let schedule = Rc::new(Schedule {
        measure_from,
        end: measure_from + options.time,
        next: Cell::new(0),
        requests_max: if options.fill { options.keys } else { options.requests.unwrap_or(u64::MAX) },
        stop: options.stop.clone(),
    });
    let tasks = LocalSet::new();
    let clients: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| {
            let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
            let requests = Requests::new(seed, options.mix, options.keys, options.value_bytes);
            let (schedule, options) = (schedule.clone(), options.clone());
            tasks.spawn_local(async move { client(stream, requests, &schedule, &options).await })
        })
        .collect();
    tasks
        .run_until(async move {
            tokio::time::sleep_until(measure_from.into()).await;
            let before = Costs::now(&options.pids);
            let mut tallies = Vec::new();
            for client in clients {
                tallies.push(client.await.map_err(|error| format!("a client failed: {error}"))??);
            }
            let elapsed = measure_from.elapsed();
            Report::new(tallies, elapsed, Costs::now(&options.pids).since(before))
        })
        .await
}

async fn client(
    mut stream: TcpStream,
    mut requests: Requests,
    schedule: &Schedule,
    options: &Options,
) -> Result<Tally, String> {
    let mut tally = Tally::new();
    let mut inbox = Inbox::new();
    let mut out = Vec::new();
    loop {
        out.clear();
        let mut waiting = 0;
        while waiting < options.pipeline.max(1)
            && let Some(number) = schedule.take(options.fill, waiting > 0)
        {
            if options.fill { requests.set(number) } else { requests.draw() }.put(&mut out);
            waiting += 1;
        }
        if waiting == 0 {
            return Ok(tally);
        }
        let sent = Instant::now();
        stream.write_all(&out).await.map_err(|error| format!("a connection failed: {error}"))?;
        while waiting > 0 {
            let mut came = 0;
            let tally = &mut tally;
            inbox
                .replies(&mut stream, |error| {
                    came += 1;
                    let now = Instant::now();
                    if sent >= schedule.measure_from {
                        tally.count(now - sent, error);
                    }
                })
                .await?;
            if came > waiting {
                return Err("the server sent more replies than it was asked for".into());
            }
            waiting -= came;
        }
    }
}
