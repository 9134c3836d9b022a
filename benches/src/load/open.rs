//! The open loop: requests fall due whatever the server does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::lanes::{Inbox, connect};
use super::report::{Report, Tally, histogram};
use super::requests::Requests;
use super::{Costs, Options};

/// The pacer's nap. Shorter ones cost processor time that the server may need.
const PACER_NAP: Duration = Duration::from_micros(50);

/// How long unanswered requests are waited for at the end.
const LAST_REPLIES_PATIENCE: Duration = Duration::from_secs(5);

/// A connection's requests: due and unsent, sent and unanswered.
#[derive(Debug, Default)]
struct Lane {
    queues: Mutex<Queues>,
    /// Something became due, or room in flight became free.
    work: Notify,
    /// Nothing more will become due: a reader that waits for nothing may go.
    closing: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    due: VecDeque<Instant>,
    inflight: VecDeque<Instant>,
    finished: bool,
}

impl Lane {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn run(options: &Options, rate: u64) -> Result<Report, String> {
    let mut lanes = Vec::new();
    let mut readers = Vec::new();
    let mut writers = Vec::new();
    // Far enough away that every connection is made before the first request is due.
    let mut halves = Vec::new();
    for _ in 0..options.clients.max(1) {
        halves.push(connect(options.address).await?.into_split());
    }
    let start = Instant::now() + Duration::from_millis(10);
    let measure_from = start + options.warmup;
    let end = measure_from + options.time;
    for (number, (reader, writer)) in halves.into_iter().enumerate() {
        let lane = Arc::new(Lane::default());
        lanes.push(lane.clone());
        let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let requests = Requests::new(seed, options.mix, options.keys, options.value_bytes);
        writers.push(tokio::spawn(write(writer, requests, lane.clone(), options.pipeline.max(1))));
        readers.push(tokio::spawn(read(reader, lane, measure_from)));
    }
    let pacer = {
        let lanes = lanes.clone();
        std::thread::spawn(move || pace(&lanes, rate, start, measure_from, end))
    };
    tokio::time::sleep_until(measure_from.into()).await;
    let before = Costs::now(&options.pids);
    tokio::time::sleep_until(end.into()).await;
    let costs = Costs::now(&options.pids).since(before);
    let lag = pacer.join().map_err(|_| "the pacer failed".to_owned())?;

    let deadline = tokio::time::Instant::now() + LAST_REPLIES_PATIENCE;
    let mut tallies = Vec::new();
    for mut reader in readers {
        match tokio::time::timeout_at(deadline, &mut reader).await {
            Ok(result) => tallies.push(result.map_err(|error| format!("a reader failed: {error}"))??),
            Err(_) => {
                // Its latencies so far are lost with it; the count of what is unanswered says that something was wrong.
                reader.abort();
            }
        }
    }
    let unanswered =
        lanes.iter().map(|lane| lane.queues()).map(|lane| lane.due.len() + lane.inflight.len()).sum::<usize>();
    for writer in writers {
        writer.abort();
    }
    let mut report = Report::new(tallies, options.time, costs)?;
    report.lag = Some(lag);
    report.unanswered = unanswered as u64;
    Ok(report)
}

/// Hands out requests as they fall due, to the lanes in turn. Gives how late it was each time.
fn pace(lanes: &[Arc<Lane>], rate: u64, start: Instant, measure_from: Instant, end: Instant) -> Histogram<u64> {
    let mut lag = histogram();
    let mut number = 0_u64;
    let due_at =
        |number: u64| start + Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(rate)) as u64);
    let mut due = due_at(0);
    while due < end {
        let now = Instant::now();
        while due <= now && due < end {
            let lane = &lanes[(number % lanes.len() as u64) as usize];
            lane.queues().due.push_back(due);
            lane.work.notify_one();
            if due >= measure_from {
                lag.saturating_record((now - due).as_nanos() as u64);
            }
            number += 1;
            due = due_at(number);
        }
        std::thread::sleep(PACER_NAP.min(due.saturating_duration_since(now)));
    }
    for lane in lanes {
        lane.queues().finished = true;
        lane.work.notify_one();
        lane.closing.notify_one();
    }
    lag
}

async fn write(mut writer: OwnedWriteHalf, mut requests: Requests, lane: Arc<Lane>, inflight_max: usize) {
    let mut out = Vec::new();
    loop {
        out.clear();
        {
            let mut queues = lane.queues();
            while queues.inflight.len() < inflight_max
                && let Some(due) = queues.due.pop_front()
            {
                queues.inflight.push_back(due);
                requests.draw().put(&mut out);
            }
            if out.is_empty() && queues.finished && queues.due.is_empty() {
                break;
            }
        }
        if out.is_empty() {
            lane.work.notified().await;
        } else if writer.write_all(&out).await.is_err() {
            // The reader sees the same failure and reports it.
            break;
        }
    }
    // Not dropped here: that would close the sending side while replies are still due.
    std::future::pending::<()>().await;
}

async fn read(mut reader: OwnedReadHalf, lane: Arc<Lane>, measure_from: Instant) -> Result<Tally, String> {
    let mut tally = Tally::new();
    let mut inbox = Inbox::new();
    loop {
        let idle = {
            let queues = lane.queues();
            queues.finished && queues.due.is_empty() && queues.inflight.is_empty()
        };
        if idle {
            return Ok(tally);
        }
        let mut unasked = false;
        let reading = inbox.replies(&mut reader, |error| {
            let now = Instant::now();
            match lane.queues().inflight.pop_front() {
                Some(due) if due >= measure_from => tally.count(now.saturating_duration_since(due), error),
                Some(_) => {}
                None => unasked = true,
            }
        });
        tokio::select! {
            result = reading => result?,
            // An idle lane would wait for a reply for ever.
            () = lane.closing.notified() => continue,
        }
        if unasked {
            return Err("the server sent more replies than it was asked for".into());
        }
        lane.work.notify_one();
    }
}
