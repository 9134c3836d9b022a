//! A cluster replaced node by node under load, until none of the first nodes is left.

use std::fmt;
use std::time::{Duration, Instant};

use holdfast_bench::connection::Connection;
use holdfast_bench::load;
use holdfast_sim::check::{History, Operation, Outcome};
use holdfast_sim::random::Random;

use crate::ledger::Ledger;
use crate::round;
use crate::stage::{Stage, WHOLE_PATIENCE};

/// How long a removal may take.
const REMOVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long reading all keys may take.
const READ_PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Nodes, each of which is replaced.
    pub nodes: usize,
    /// Keys that are there before.
    pub keys: u64,
    /// How long clients are at work before each replacement.
    pub load: Duration,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Report {
    nodes: usize,
    joined: Vec<Duration>,
    removed: Vec<Duration>,
    answered: u64,
    failed: u64,
    unknown: u64,
    writes: u64,
    longest_gap_ms: u64,
    took: Duration,
    filled: u64,
    keys: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |times: &[Duration]| {
            let all: Vec<String> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
            all.join(", ")
        };
        let took = self.took.as_secs_f64();
        writeln!(formatter, "{} nodes replaced in {took:.0} s under load, none of the first is left", self.nodes)?;
        writeln!(formatter, "  from start to vote, s        {}", seconds(&self.joined))?;
        writeln!(formatter, "  from request to removal, s   {}", seconds(&self.removed))?;
        writeln!(formatter, "  operations answered          {}, {} of them writes", self.answered, self.writes)?;
        writeln!(formatter, "  refused, asked elsewhere     {}", self.failed)?;
        writeln!(formatter, "  of unknown outcome           {}", self.unknown)?;
        writeln!(formatter, "  longest time without a write {} ms", self.longest_gap_ms)?;
        writeln!(formatter, "  keys from before, all there  {}", self.filled)?;
        write!(formatter, "  keys, equal on every node    {}; linearizable", self.keys)
    }
}

/// Replaces every node.
///
/// # Errors
/// The story, if a node can't be added or removed, or something is lost.
pub fn run(stage: &mut Stage, plan: &Plan, random: &Random) -> Result<Report, String> {
    let Plan { nodes, keys, load: load_time } = *plan;
    fill(stage, keys)?;
    let started = Instant::now();
    let mut drawn = random.fork("replace");
    let mut settings = round::settings(&mut drawn, 1, 2 * nodes);
    settings.clients = 10;
    settings.timeout_us = 3_000_000;
    let load = crate::load::Load::start(random.fork("load"), settings, stage.addresses(2 * nodes));
    let mut report = Report { nodes, filled: keys, ..Report::default() };
    let replaced = (0..nodes).try_for_each(|old| {
        load.wait_success(WHOLE_PATIENCE)?;
        // NB: a campaign is not a test; clients shall have some time with each membership.
        std::thread::sleep(load_time);
        let began = Instant::now();
        let new = stage.add()?;
        stage.cluster().wait_whole(WHOLE_PATIENCE)?;
        report.joined.push(began.elapsed());
        let began = Instant::now();
        remove(stage, old)?;
        report.removed.push(began.elapsed());
        eprintln!("node {} is replaced by node {}", old + 1, new + 1);
        load.wait_success(WHOLE_PATIENCE)
    });
    report.took = started.elapsed();
    let mut heard = match (replaced, load.finish(READ_PATIENCE)) {
        (Ok(()), Ok(heard)) => heard,
        (Err(story), _) | (Ok(()), Err((story, _))) => return Err(story),
    };
    stage.settle()?;
    round::read_again(stage, &mut heard.history)?;
    round::judge(&heard)?;
    (report.answered, report.failed, report.unknown) =
        (heard.counts.answered, heard.counts.failed, heard.counts.unknown);
    (report.writes, report.longest_gap_ms) = writes(&heard.history);
    let mut ledger = Ledger::default();
    ledger.enter(&heard.history);
    report.keys = ledger.len();
    for place in stage.cluster().members() {
        let mut connection = Connection::open(stage.cluster().address(place), Duration::from_secs(10))?;
        connection.ask(&[b"READONLY"])?;
        ledger.check(&mut connection).map_err(|story| format!("node {}: {story}", place + 1))?;
        let size: u64 = connection.ask(&[b"DBSIZE"])?.parse().map_err(|_| "DBSIZE gave no number")?;
        // Keys of the load are deleted now and then; one more shows that all nodes are level.
        if !(keys..=keys + report.keys as u64 + 1).contains(&size) {
            return Err(format!(
                "node {} has {size} keys; {keys} were there before the load's {}",
                place + 1,
                report.keys
            ));
        }
    }
    Ok(report)
}

/// Writes keys that are there before anything happens, so that newcomers have something to get.
fn fill(stage: &mut Stage, keys: u64) -> Result<(), String> {
    if keys == 0 {
        return Ok(());
    }
    let leader = stage.cluster().wait_leader(WHOLE_PATIENCE)?;
    let options = load::Options {
        address: stage.cluster().address(leader),
        clients: 10,
        pipeline: 50,
        value_bytes: 100,
        keys,
        mix: load::Mix { sets: 1, gets: 0 },
        rate: None,
        time: Duration::from_secs(600),
        warmup: Duration::ZERO,
        fill: true,
        requests: None,
        stop: None,
        seed: 1,
        pids: Vec::new(),
    };
    let report = load::run(&options)?;
    if report.errors > 0 || report.replies < keys {
        return Err(format!("{} of {keys} keys could be written, {} failed", report.replies, report.errors));
    }
    Ok(())
}

/// Removes a node with the cluster's own command, at whatever node leads, and ends its process.
fn remove(stage: &mut Stage, place: usize) -> Result<(), String> {
    let id = (place + 1).to_string();
    let deadline = Instant::now() + REMOVE_PATIENCE;
    let mut last = String::new();
    loop {
        if Instant::now() > deadline {
            return Err(format!("node {id} is not removed within {REMOVE_PATIENCE:?}: {last}"));
        }
        let leader = stage.cluster().wait_leader(REMOVE_PATIENCE)?;
        let asked = Connection::open(stage.cluster().address(leader), REMOVE_PATIENCE)
            .and_then(|mut connection| connection.ask(&[b"HOLDFAST", b"REMOVE-NODE", id.as_bytes()]));
        match asked {
            // 0: it was gone already, by an earlier request whose reply was lost.
            Ok(reply) if reply == "1" || reply == "0" => break,
            // A leader that is asked to remove itself hands over first; who leads then is asked again.
            Ok(reply) | Err(reply) => last = reply,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    stage.cluster().leave_out(place);
    stage.cluster().kill(place);
    Ok(())
}

/// How many writes were answered, and the longest time in which none was, in milliseconds.
fn writes(history: &History) -> (u64, u64) {
    let mut returned: Vec<u64> = history
        .calls()
        .filter(|(_, call)| call.operation != Operation::Get && matches!(call.outcome, Outcome::Answered(_)))
        .filter_map(|(_, call)| call.returned_us)
        .collect();
    returned.sort_unstable();
    let gap = returned.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
    (returned.len() as u64, gap / 1000)
}
