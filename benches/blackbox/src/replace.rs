//! A cluster replaced node by node under load, until none of the first nodes is left.

use std::fmt;
use std::time::{Duration, Instant};

use holdfast_bench::connection::Connection;
use holdfast_sim::check::{History, Operation, Outcome};
use holdfast_sim::random::Random;

use crate::ledger::Ledger;
use crate::round;
use crate::stage::{Stage, WHOLE_PATIENCE};

/// How long a removal may take.
const REMOVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long reading all keys may take.
const READ_PATIENCE: Duration = Duration::from_secs(60);

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
    keys: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |times: &[Duration]| {
            let all: Vec<String> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
            all.join(", ")
        };
        writeln!(formatter, "{} nodes replaced, none of the first is left", self.nodes)?;
        writeln!(formatter, "  from start to vote, s        {}", seconds(&self.joined))?;
        writeln!(formatter, "  from request to removal, s   {}", seconds(&self.removed))?;
        writeln!(formatter, "  operations answered          {}, {} of them writes", self.answered, self.writes)?;
        writeln!(formatter, "  refused, asked elsewhere     {}", self.failed)?;
        writeln!(formatter, "  of unknown outcome           {}", self.unknown)?;
        writeln!(formatter, "  longest time without a write {} ms", self.longest_gap_ms)?;
        write!(formatter, "  keys, equal on every node    {}; linearizable", self.keys)
    }
}

/// Replaces every node.
///
/// # Errors
/// The story, if a node can't be added or removed, or something is lost.
pub fn run(stage: &mut Stage, nodes: usize, random: &Random) -> Result<Report, String> {
    let mut drawn = random.fork("replace");
    let mut settings = round::settings(&mut drawn, 1, 2 * nodes);
    settings.clients = 10;
    settings.timeout_us = 3_000_000;
    let load = crate::load::Load::start(random.fork("load"), settings, stage.addresses(2 * nodes));
    let mut report = Report { nodes, ..Report::default() };
    let replaced = (0..nodes).try_for_each(|old| {
        load.wait_success(WHOLE_PATIENCE)?;
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
    }
    Ok(report)
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
