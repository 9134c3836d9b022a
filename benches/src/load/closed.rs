//! The closed loop: a batch, its replies, the next batch.

use std::cell::Cell;
use std::rc::Rc;
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
    /// `fill`: the next key to write, and how many there are.
    next_key: Cell<u64>,
    keys: u64,
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
        next_key: Cell::new(0),
        keys: options.keys,
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
            let before = Costs::now(options);
            let mut tallies = Vec::new();
            for client in clients {
                tallies.push(client.await.map_err(|error| format!("a client failed: {error}"))??);
            }
            let elapsed = measure_from.elapsed();
            Report::new(tallies, elapsed, Costs::now(options).since(before))
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
        if options.fill {
            while waiting < options.pipeline.max(1) && schedule.next_key.get() < schedule.keys {
                requests.put_set(schedule.next_key.replace(schedule.next_key.get() + 1), &mut out);
                waiting += 1;
            }
        } else if Instant::now() < schedule.end {
            waiting = options.pipeline.max(1);
            (0..waiting).for_each(|_| requests.put(&mut out));
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
