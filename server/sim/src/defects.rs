//! Deliberate defects of the core by name, and how soon each is found.
//!
//! The defects are built into the crates by their feature `defects` (see `holdfast_raft::defects`), which this crate's feature of the
//! same name turns on. A hunt runs seeds with one defect switched on until a check sees it:
//!
//! ```text
//!   defect                     found   seeds: median   most   first   seen by
//!   vote-not-synced            3 of 3              1      1       0   promises
//! ```

use std::fmt;
use std::io::{self, Write};

use holdfast_engine::defects::Defect as Engine;
use holdfast_raft::defects::Defect as Raft;
use holdfast_server::defects::Defect as Server;

use crate::args::Arguments;
use crate::campaign::{Run, Task, run_once};

/// Where a defect is switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Raft(Raft),
    Engine(Engine),
    Server(Server),
}

/// All defects and their names.
const DEFECTS: &[(&str, Place)] = &[
    ("vote-not-synced", Place::Raft(Raft::VoteNotSynced)),
    ("append-ack-before-sync", Place::Raft(Raft::AppendAckBeforeSync)),
    ("own-entries-not-synced", Place::Raft(Raft::OwnEntriesNotSynced)),
    ("old-term-committed", Place::Raft(Raft::OldTermCommitted)),
    ("vote-without-log-check", Place::Raft(Raft::VoteWithoutLogCheck)),
    ("vote-twice", Place::Raft(Raft::VoteTwice)),
    ("disloyal-voter", Place::Raft(Raft::DisloyalVoter)),
    ("lease-after-clock-jump", Place::Raft(Raft::LeaseAfterClockJump)),
    ("lease-from-answer", Place::Raft(Raft::LeaseFromAnswer)),
    ("lease-after-transfer", Place::Raft(Raft::LeaseAfterTransfer)),
    ("read-index-without-round", Place::Raft(Raft::ReadIndexWithoutRound)),
    ("read-before-first-commit", Place::Raft(Raft::ReadBeforeFirstCommit)),
    ("follower-read-unasked", Place::Raft(Raft::FollowerReadUnasked)),
    ("two-changes-at-once", Place::Raft(Raft::TwoChangesAtOnce)),
    ("truncate-below-commit", Place::Raft(Raft::TruncateBelowCommit)),
    ("commit-unmatched", Place::Raft(Raft::CommitUnmatched)),
    ("sync-forgotten", Place::Engine(Engine::SyncForgotten)),
    ("vote-sync-forgotten", Place::Engine(Engine::VoteSyncForgotten)),
    ("sync-retried", Place::Engine(Engine::SyncRetried)),
    ("torn-tail-is-damage", Place::Engine(Engine::TornTailIsDamage)),
    ("damage-is-torn-tail", Place::Engine(Engine::DamageIsTornTail)),
    ("cut-not-overwritten", Place::Engine(Engine::CutNotOverwritten)),
    ("accepted-not-written-again", Place::Engine(Engine::AcceptedNotWrittenAgain)),
    ("applied-ahead-of-data", Place::Engine(Engine::AppliedAheadOfData)),
    ("snapshot-without-rows", Place::Engine(Engine::SnapshotWithoutRows)),
    ("snapshot-without-sessions", Place::Engine(Engine::SnapshotWithoutSessions)),
    ("snapshot-without-attachment", Place::Engine(Engine::SnapshotWithoutAttachment)),
    ("stale-snapshot-chunk", Place::Server(Server::StaleSnapshotChunk)),
    ("log-cut-ahead-of-store", Place::Server(Server::LogCutAheadOfStore)),
    ("log-cut-before-snapshot", Place::Server(Server::LogCutBeforeSnapshot)),
    ("snapshot-of-another-index", Place::Server(Server::SnapshotOfAnotherIndex)),
    ("time-by-own-clock", Place::Server(Server::TimeByOwnClock)),
    ("time-moved-by-reads", Place::Server(Server::TimeMovedByReads)),
    ("read-ahead-of-time", Place::Server(Server::ReadAheadOfTime)),
    ("ending-overlooked", Place::Server(Server::EndingOverlooked)),
    ("reclaim-unchecked", Place::Server(Server::ReclaimUnchecked)),
    ("session-forgotten", Place::Server(Server::SessionForgotten)),
    ("read-behind-commit", Place::Server(Server::ReadBehindCommit)),
];

/// A deliberate defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defect {
    name: &'static str,
    place: Place,
}

impl Defect {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Defect> {
        DEFECTS.iter().map(|(name, place)| Defect { name, place: *place })
    }

    /// The one of this name.
    ///
    /// # Errors
    /// If there is none; says which there are.
    pub fn parse(name: &str) -> Result<Defect, String> {
        Defect::all().find(|defect| defect.name == name).ok_or_else(|| {
            let names: Vec<&str> = DEFECTS.iter().map(|(name, _)| *name).collect();
            format!("there is no such defect; there are {}", names.join(", "))
        })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether this build has the switches.
    pub const fn are_built_in() -> bool {
        cfg!(feature = "defects")
    }

    /// Switches a defect on for this thread, and any other off. Without the switches built in, nothing happens.
    pub fn switch(defect: Option<Defect>) {
        let place = defect.map(|defect| defect.place);
        let raft = if let Some(Place::Raft(defect)) = place { Some(defect) } else { None };
        let engine = if let Some(Place::Engine(defect)) = place { Some(defect) } else { None };
        let server = if let Some(Place::Server(defect)) = place { Some(defect) } else { None };
        #[cfg(feature = "defects")]
        {
            holdfast_raft::defects::switch(raft);
            holdfast_engine::defects::switch(engine);
            holdfast_server::defects::switch(server);
        }
        #[cfg(not(feature = "defects"))]
        let _ = (raft, engine, server);
    }
}

/// Which check a violation comes from, by its words.
fn seen_by(violation: &str) -> &'static str {
    const WORDS: [(&str, &str); 23] = [
        ("panic: ", "an assertion"),
        ("not linearizable", "linearizability"),
        ("undecided", "linearizability, undecided"),
        ("outlived", "deadlines"),
        ("lost what was synced", "disks"),
        (" sends ", "promises"),
        ("is answered, but", "acknowledged"),
        ("has two leaders", "leaders"),
        (" leads term ", "leaders"),
        ("the lease of node", "leases"),
        ("applied another entry", "logs"),
        ("was sent with two contents", "logs"),
        ("the commit index of", "logs"),
        ("after entry ", "states"),
        ("the group's time", "states"),
        ("membership change", "membership"),
        ("can't start", "a node can't start"),
        ("gave up", "a node gives up"),
        ("goes on after", "faults"),
        ("can't join", "a node can't join"),
        ("could not read every key", "liveness"),
        ("did not become whole", "convergence"),
        ("client ", "a reply of the wrong kind"),
    ];
    WORDS.iter().find(|(words, _)| violation.contains(words)).map_or("something else", |(_, check)| check)
}

/// A seed that a defect was found by.
struct Finding {
    seed: u64,
    /// Seeds that were run for it.
    seeds: u64,
    violation: String,
}

/// Runs seeds until the defect is found.
fn hunt(arguments: &Arguments, defect: Defect, seeds: std::ops::Range<u64>, run: &dyn Run) -> Option<Finding> {
    let start = seeds.start;
    for seed in seeds {
        let duration = arguments.sim_minutes;
        let task = Task { seed, duration, nodes: arguments.nodes, defect: Some(defect) };
        let outcome = run_once(&task, run, false);
        if let Some(violation) = outcome.summary.violations.first() {
            return Some(Finding { seed, seeds: seed - start + 1, violation: violation.clone() });
        }
    }
    None
}

/// Looks for one defect in the seeds of the command line. Says whether it was found.
///
/// # Errors
/// If nothing can be printed any more.
pub fn hunt_one(arguments: &Arguments, defect: Defect, run: &dyn Run, output: &mut dyn Write) -> io::Result<bool> {
    let found = hunt(arguments, defect, arguments.seed_range(), run);
    match &found {
        Some(Finding { seed, seeds, violation }) => {
            writeln!(output, "{}: found by seed {seed}, after {seeds} seeds, by {}:", defect.name, seen_by(violation))?;
            violation.lines().try_for_each(|line| writeln!(output, "  {line}"))?;
        }
        None => writeln!(output, "{}: not found", defect.name)?,
    }
    output.flush()?;
    Ok(found.is_some())
}

/// How soon a defect was found, over several ranges of seeds.
struct Row {
    defect: Defect,
    rounds: u32,
    findings: Vec<Finding>,
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { defect, rounds, findings } = self;
        let found = format!("{} of {rounds}", findings.len());
        let mut counts: Vec<u64> = findings.iter().map(|finding| finding.seeds).collect();
        counts.sort_unstable();
        let (Some(most), Some(first)) = (counts.last(), findings.first()) else {
            return write!(formatter, "{:<28} {found:>8} {:>8} {:>6} {:>6}  ", defect.name, "-", "-", "-");
        };
        let mut checks: Vec<&str> = Vec::new();
        for finding in findings {
            let check = seen_by(&finding.violation);
            if !checks.contains(&check) {
                checks.push(check);
            }
        }
        let median = counts[(counts.len() - 1) / 2];
        let checks = checks.join(", ");
        write!(formatter, "{:<28} {found:>8} {median:>8} {most:>6} {:>6}  {checks}", defect.name, first.seed)
    }
}

/// Looks for every defect in disjoint ranges of the command line's seeds, and prints a table. Says whether all were found in all ranges.
///
/// # Errors
/// If nothing can be printed any more.
pub fn hunt_all(arguments: &Arguments, run: &dyn Run, output: &mut dyn Write) -> io::Result<bool> {
    let seeds = arguments.seed_range();
    let rounds = arguments.rounds;
    let length = (seeds.end - seeds.start) / u64::from(rounds);
    writeln!(output, "{:<28} {:>8} {:>8} {:>6} {:>6}  seen by", "defect", "found", "median", "most", "first")?;
    let mut all = true;
    for defect in Defect::all() {
        let range = |round: u64| seeds.start + round * length..seeds.start + (round + 1) * length;
        let findings: Vec<Finding> =
            (0..u64::from(rounds)).filter_map(|round| hunt(arguments, defect, range(round), run)).collect();
        all &= findings.len() == rounds as usize;
        writeln!(output, "{}", Row { defect, rounds, findings })?;
        output.flush()?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defects_have_names_of_their_own() {
        for defect in Defect::all() {
            assert_eq!(Defect::parse(defect.name()), Ok(defect));
        }
        assert!(Defect::parse("none").unwrap_err().contains("vote-not-synced, append-ack-before-sync"));
    }

    #[test]
    fn rows_of_the_table_say_median_most_and_who_saw_it() {
        let finding = |seed, seeds, violation: &str| Finding { seed, seeds, violation: violation.to_owned() };
        let findings = vec![
            finding(7, 8, "at 3 s: node 1 sends a vote that"),
            finding(100, 1, "panic: commit"),
            finding(204, 5, "panic: commit"),
        ];
        let defect = Defect::parse("vote-twice").unwrap();
        let row = Row { defect, rounds: 4, findings }.to_string();
        let words: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(words[..7], ["vote-twice", "3", "of", "4", "5", "8", "7"]);
        assert!(row.ends_with("promises, an assertion"));
    }
}
