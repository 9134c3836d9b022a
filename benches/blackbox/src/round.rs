//! One round: clients begin, things break one after the other and together, everything is mended, and the clients' history
//! is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use holdfast_bench::connection::Connection;
use holdfast_bench::crash::Reader;
use holdfast_sim::check::{self, Answer, History, Operation, Outcome, Text, Verdict};
use holdfast_sim::random::Random;
use holdfast_sim::workload::{KeyKind, WorkloadSettings};

use crate::fault::{Fault, Step};
use crate::ledger::Ledger;
use crate::load::{Heard, Load};
use crate::results::{Effect, Row};
use crate::stage::{Stage, WHOLE_PATIENCE};

/// A cluster that takes no write by then is taken for hung.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);
/// How long reading all keys of a round may take.
const READ_PATIENCE: Duration = Duration::from_secs(60);
/// Keys that are asked for at once.
const KEYS_PER_READ: usize = 128;
/// How long a question to a node may take.
const ASK_PATIENCE: Duration = Duration::from_secs(10);

/// What a round does.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its number, from 1.
    pub number: u64,
    /// What goes wrong, one after the other; steps of one list at the same time.
    pub steps: Vec<Vec<Step>>,
}

impl Plan {
    /// Draws a round of these kinds.
    pub fn draw(random: &mut Random, number: u64, kinds: &[Fault]) -> Plan {
        let mut steps = Vec::new();
        for _ in 0..random.range(2..=4) {
            let mut together = vec![Step::draw(random, kinds)];
            if random.chance(250) {
                let other = Step::draw(random, kinds);
                // One mending of the network mends all of it, and a node has one process.
                if other.fault.is_network() != together[0].fault.is_network() {
                    together.push(other);
                }
            }
            steps.push(together);
        }
        Plan { number, steps }
    }
}

/// What the clients of a round do.
pub fn settings(random: &mut Random, number: u64, nodes: usize) -> WorkloadSettings {
    let mut settings = WorkloadSettings::new(nodes as u32);
    settings.clients = random.range(4..=12) as u32;
    settings.key_prefix = format!("round-{number}:");
    settings.keys = [(KeyKind::Register, 4), (KeyKind::Counter, 2), (KeyKind::Log, 2)].into();
    settings.operations_per_key_max = 400;
    settings.unknown_per_key_max = 8;
    settings.pipeline_max = random.range(1..=3) as u32;
    settings.think_us = 0..=random.range(5_000..=40_000);
    settings.timeout_us = random.range(500_000..=3_000_000);
    settings
}

/// A fault as it happened: when it began and when it was mended, in microseconds of the history.
struct Happened {
    name: String,
    victims: String,
    is_alone: bool,
    began_us: u64,
    mended_us: u64,
}

/// Does a round. The row says how it went, also if it failed.
pub fn run(stage: &mut Stage, plan: &Plan, random: &Random, ledger: &mut Ledger) -> Row {
    let mut row = Row { round: plan.number, ..Row::default() };
    let mut drawn = random.fork("round");
    let nodes = stage.cluster().len();
    let settings = settings(&mut drawn, plan.number, nodes);
    let load = Load::start(random.fork("load"), settings, stage.addresses(nodes));
    let mut happened = Vec::new();
    let broken = break_and_mend(stage, plan, &mut drawn, &load, &mut happened);
    row.millis = load.now_us() / 1000;
    let heard =
        if broken.is_ok() { load.finish(READ_PATIENCE) } else { Err((broken.err().unwrap_or_default(), load.stop())) };
    let (story, mut heard) = match heard {
        Ok(heard) => (None, heard),
        Err((story, heard)) => (Some(story), heard),
    };
    row.count(&heard.counts);
    row.effects = happened.iter().map(|happened| effect(happened, &heard.history)).collect();
    row.verdict = match story {
        Some(story) => story,
        None => match conclude(stage, &mut heard, ledger, &mut row) {
            Ok(()) => "linearizable".to_owned(),
            Err(story) => story,
        },
    };
    row.keys = ledger.len() as u64;
    row
}

fn break_and_mend(
    stage: &mut Stage,
    plan: &Plan,
    random: &mut Random,
    load: &Load,
    happened: &mut Vec<Happened>,
) -> Result<(), String> {
    load.wait_success(SERVE_PATIENCE)?;
    for together in &plan.steps {
        // NB: a campaign is not a test; it breaks things at moments that the seed chooses.
        std::thread::sleep(Duration::from_millis(random.range(200..=1200)));
        let mut under_way = Vec::new();
        let mut taken = BTreeSet::new();
        let leader = stage.cluster().wait_leader(SERVE_PATIENCE)? + 1;
        for step in together {
            let mut victims = step.victims(random, stage.cluster().len(), leader);
            if !step.fault.is_network() {
                victims.retain(|node| taken.insert(*node));
            }
            if victims.is_empty() {
                continue;
            }
            let mut began_us = load.now_us();
            let list = victims.iter().map(usize::to_string).collect::<Vec<_>>().join("+");
            stage.begin(step.fault, &victims).map_err(|story| format!("{} of {list}: {story}", step.name()))?;
            if step.fault.is_network() {
                // Rules take a moment to be in place, and break nothing before.
                began_us = load.now_us();
            }
            under_way.push((step, victims, began_us, list));
        }
        let hold = together.iter().map(|step| step.hold_ms).max().unwrap_or_default();
        std::thread::sleep(Duration::from_millis(hold));
        // In the order in which they began; what is mended first may meet what is still broken.
        let is_alone = under_way.len() == 1;
        for (step, victims, began_us, list) in under_way {
            stage.mend(step.fault, &victims).map_err(|story| format!("{} of {list}: {story}", step.name()))?;
            happened.push(Happened { name: step.name(), victims: list, is_alone, began_us, mended_us: load.now_us() });
        }
        load.wait_success(SERVE_PATIENCE).map_err(|story| {
            let names: Vec<String> = together.iter().map(Step::name).collect();
            format!("after {}: {story}\n{}", names.join(" and "), stage.cluster().describe())
        })?;
    }
    Ok(())
}

/// Waits until all is well, reads every key once more, and judges; then compares every node with what all rounds have left.
fn conclude(stage: &mut Stage, heard: &mut Heard, ledger: &mut Ledger, row: &mut Row) -> Result<(), String> {
    let settled = stage.settle();
    let read = settled.and_then(|()| read_again(stage, &mut heard.history));
    // A history that is wrong says more than whatever came after it.
    judge(heard)?;
    read?;
    ledger.enter(&heard.history);
    compare(stage, ledger, row)
}

/// What is wrong with what the clients heard?
///
/// # Errors
/// The story.
pub fn judge(heard: &Heard) -> Result<(), String> {
    if let Some(anomaly) = heard.anomalies.first() {
        return Err(format!("a reply that should never be: {anomaly}"));
    }
    match check::check(&heard.history, check::STEPS_MAX) {
        Verdict::Linearizable => Ok(()),
        verdict => Err(verdict.to_string()),
    }
}

/// Reads every key of a history once more, and adds that to it. The clients read them all at their end, but while the last
/// writes were still under way; these reads come after everything.
///
/// # Errors
/// If a key can't be read.
pub fn read_again(stage: &mut Stage, history: &mut History) -> Result<(), String> {
    let keys: BTreeSet<Vec<u8>> = history.calls().map(|(key, _)| key.to_vec()).collect();
    let keys: Vec<Vec<u8>> = keys.into_iter().collect();
    let end_us = history.calls().map(|(_, call)| call.returned_us.unwrap_or(call.called_us)).max().unwrap_or_default();
    for keys in keys.chunks(KEYS_PER_READ) {
        // Noted before they are asked: a late write may come in between.
        let calls: Vec<_> = keys.iter().map(|key| history.call(end_us, 0, key, Operation::Get)).collect();
        let leader = stage.cluster().wait_leader(SERVE_PATIENCE)?;
        let mut connection = Connection::open(stage.cluster().address(leader), ASK_PATIENCE)?;
        for (call, value) in calls.into_iter().zip(connection.read(keys)?) {
            history.finish(end_us, call, Outcome::Answered(Answer::Value(value.map(Text::from))));
        }
    }
    Ok(())
}

/// Compares every node with the ledger.
fn compare(stage: &mut Stage, ledger: &mut Ledger, row: &mut Row) -> Result<(), String> {
    stage.cluster().wait_equal(WHOLE_PATIENCE)?;
    for place in stage.cluster().members() {
        let checked =
            Connection::open(stage.cluster().address(place), ASK_PATIENCE).and_then(|mut connection| match connection
                .ask(&[b"READONLY"])?
                .as_str()
            {
                "OK" => ledger.check(&mut connection),
                other => Err(format!("READONLY was answered with {other}")),
            });
        row.late += checked.map_err(|story| format!("node {}: {story}", place + 1))?;
    }
    Ok(())
}

/// How long after a fault began, and after it was mended, a write succeeded that was asked for later.
fn effect(happened: &Happened, history: &History) -> Effect {
    let first_success = |since: u64| {
        let writes = history.calls().filter(|(_, call)| {
            call.operation != Operation::Get && call.called_us >= since && matches!(call.outcome, Outcome::Answered(_))
        });
        writes.filter_map(|(_, call)| call.returned_us).min().map(|returned| (returned - since) / 1000)
    };
    Effect {
        fault: happened.name.clone(),
        victims: happened.victims.clone(),
        is_alone: happened.is_alone,
        held_ms: (happened.mended_us - happened.began_us) / 1000,
        after_begin_ms: first_success(happened.began_us),
        after_mend_ms: first_success(happened.mended_us),
    }
}
