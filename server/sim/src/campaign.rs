//! Many seeds, and what came of them.
//!
//! A [`Run`] knows how to simulate one seed; the campaign hands out seeds to threads, catches panics (an assertion of the
//! core that fails is a finding like any other), prints one line per seed in the order of the seeds, and the totals.
//!
//! ```text
//! seed 1  ok         120 s  ops 8123 ok 14 unknown 230 failed  elections 6  crashes 3  faults 17  hash 09c0ffee09c0ffee
//! seed 2  VIOLATION  120 s  …
//!   not linearizable: key "register-0.0", …
//! 2 seeds, 1 with violations; 240 s simulated in 3.1 s (77 s per second)
//! again: sim --seed 2 --sim-minutes 2 --trace
//! ```
//!
//! With a time to keep, no seed begins after it; with a file of results, only seeds with violations are printed, and what came of
//! all is added to the file every now and then: [`crate::results`].

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::args::Arguments;
use crate::defects::Defect;
use crate::results::{Results, commit_of_working_copy};
use crate::time::{MINUTE, Micros, SECOND};
use crate::trace::Trace;
use crate::workload::WorkloadCounts;
use crate::world::Marks;

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Decides everything that the rest leaves open.
    pub seed: u64,
    /// How long, in virtual time.
    pub duration: Micros,
    /// Nodes of the cluster; `None`: as the seed says.
    pub nodes: Option<u32>,
    /// A deliberate defect to switch on.
    pub defect: Option<Defect>,
}

/// What came of one seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Virtual time that passed.
    pub simulated: Micros,
    /// The clients' operations.
    pub operations: WorkloadCounts,
    /// Leaders that were elected.
    pub elections: u64,
    /// Nodes that went down.
    pub crashes: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Places that the run came by.
    pub marks: Marks,
    /// What must not have happened, in words; empty if the run was clean.
    pub violations: Vec<String>,
    /// Printed below the line of a seed with violations: its plan, say.
    pub notes: String,
}

/// Simulates seeds.
pub trait Run: Sync {
    /// Simulates one. Everything that happens goes through the trace.
    fn run(&self, task: &Task, trace: &mut Trace) -> Summary;
}

impl<F: Fn(&Task, &mut Trace) -> Summary + Sync> Run for F {
    fn run(&self, task: &Task, trace: &mut Trace) -> Summary {
        self(task, trace)
    }
}

/// What came of all seeds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// Those with violations.
    pub failed_seeds: Vec<u64>,
    /// Virtual time that passed in all of them, runs for comparison included.
    pub simulated: Micros,
    /// The clients' operations.
    pub operations: WorkloadCounts,
    /// Leaders that were elected.
    pub elections: u64,
    /// Nodes that went down.
    pub crashes: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Places that the runs came by.
    pub marks: Marks,
    /// Real time that it took.
    pub real: Duration,
}

impl Totals {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        let summary = &outcome.summary;
        self.seeds += 1;
        if !summary.violations.is_empty() {
            self.failed_seeds.push(seed);
        }
        self.simulated += summary.simulated * outcome.runs;
        self.operations.answered += summary.operations.answered;
        self.operations.unknown += summary.operations.unknown;
        self.operations.failed += summary.operations.failed;
        self.elections += summary.elections;
        self.crashes += summary.crashes;
        self.faults += summary.faults;
        self.marks.add(&summary.marks);
    }

    /// The exit code that says whether all was clean: 0, or 1.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.failed_seeds.is_empty())
    }
}

/// A seed's summary and its trace's hash.
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    hash: u64,
    runs: u64,
}

/// After so many seeds the file of results is written.
const SEEDS_PER_SAVE: u64 = 100;

/// Runs the seeds of a command line and prints what came of them.
///
/// # Errors
/// If nothing can be printed any more, or the file of results can't be read or written; the seeds that were under way are finished
/// first.
pub fn run_all(arguments: &Arguments, run: &dyn Run, output: &mut (dyn Write + Send)) -> io::Result<Totals> {
    let started = Instant::now();
    let seeds = arguments.seed_range();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.map_or(processors, |jobs| jobs as usize);
    let jobs = if arguments.trace { 1 } else { jobs.min((seeds.end - seeds.start).try_into().unwrap_or(usize::MAX)) };
    let book = arguments.results.as_deref().map(|path| Book::open(path, arguments.commit.clone())).transpose()?;
    // Seeds that are named are run again; otherwise those that are new to the commit.
    let seen =
        book.as_ref().filter(|_| arguments.seeds.is_none()).map(|book| book.results.clone().line(&book.commit).clone());
    let next_seed = Mutex::new(seeds.filter(|seed| seen.as_ref().is_none_or(|line| !line.has(*seed))).enumerate());
    let until = arguments.minutes.map(|minutes| started + Duration::from_micros(minutes));
    let printer =
        Mutex::new(Printer { next: 0, ready: BTreeMap::new(), totals: Totals::default(), book, output, error: None });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let Some((place, seed)) = lock(&next_seed).next() else { return };
                    let outcome = run_seed(arguments, seed, run);
                    if !lock(&printer).take(place, seed, outcome) {
                        return;
                    }
                }
            });
        }
    });
    let Printer { mut totals, output, error, book, .. } =
        printer.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(error) = error {
        return Err(error);
    }
    totals.real = started.elapsed();
    if let Some(mut book) = book {
        book.results.add_real_time(&book.commit, &totals);
        book.results.save(&book.path)?;
    }
    writeln!(output, "{totals}")?;
    if let Some(seed) = totals.failed_seeds.first() {
        let minutes = arguments.sim_minutes as f64 / MINUTE as f64;
        let nodes = arguments.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        writeln!(output, "again: sim --seed {seed} --sim-minutes {minutes}{nodes} --trace")?;
    }
    output.flush()?;
    Ok(totals)
}

/// A panic of a run is caught before it could poison anything; what is behind a lock here is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn run_seed(arguments: &Arguments, seed: u64, run: &dyn Run) -> Outcome {
    let task = Task { seed, duration: arguments.sim_minutes, nodes: arguments.nodes, defect: arguments.defect };
    let mut outcome = run_once(&task, run, arguments.trace);
    if arguments.twice {
        let again = run_once(&task, run, false);
        outcome.runs += again.runs;
        if again.hash != outcome.hash || again.summary != outcome.summary {
            let text = format!("the same seed gave another run: hash {:016x}, then {:016x}", outcome.hash, again.hash);
            outcome.summary.violations.push(text);
        }
    }
    outcome
}

thread_local! {
    /// Where this thread panicked last.
    static PANICKED_AT: std::cell::Cell<Option<String>> = const { std::cell::Cell::new(None) };
}

/// Has panics of runs noted rather than printed: they are told as violations, with their place. For the binary; it concerns the
/// whole process.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| PANICKED_AT.set(info.location().map(|location| location.to_string()))));
}

pub(crate) fn run_once(task: &Task, run: &dyn Run, print: bool) -> Outcome {
    Defect::switch(task.defect);
    let mut trace = if print { Trace::with_lines(Box::new(|line| println!("{line}"))) } else { Trace::new() };
    // What a panic leaves behind is dropped: only the trace's hash is looked at, and it is whole after every fold.
    let summary = catch_unwind(AssertUnwindSafe(|| run.run(task, &mut trace))).unwrap_or_else(|payload| {
        let place = PANICKED_AT.take().map(|place| format!(" ({place})")).unwrap_or_default();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no text");
        Summary { violations: vec![format!("panic: {text}{place}")], ..Summary::default() }
    });
    Defect::switch(None);
    Outcome { summary, hash: trace.hash(), runs: 1 }
}

/// The file of results.
struct Book {
    path: PathBuf,
    commit: String,
    results: Results,
}

impl Book {
    fn open(path: &Path, commit: Option<String>) -> io::Result<Book> {
        let results = Results::load(path)?;
        Ok(Book { path: path.to_owned(), commit: commit.unwrap_or_else(commit_of_working_copy), results })
    }
}

/// Prints outcomes in the order of their seeds, as they become ready.
struct Printer<'output> {
    next: usize,
    ready: BTreeMap<usize, (u64, Outcome)>,
    totals: Totals,
    book: Option<Book>,
    output: &'output mut (dyn Write + Send),
    error: Option<io::Error>,
}

impl Printer<'_> {
    /// False if there is no use in going on.
    fn take(&mut self, place: usize, seed: u64, outcome: Outcome) -> bool {
        self.ready.insert(place, (seed, outcome));
        while let Some((seed, outcome)) = self.ready.remove(&self.next) {
            self.totals.add(seed, &outcome);
            let mut is_silent = false;
            if let Some(book) = &mut self.book {
                book.results.line(&book.commit).add(seed, &outcome.summary);
                is_silent = outcome.summary.violations.is_empty();
                if self.totals.seeds.is_multiple_of(SEEDS_PER_SAVE) && self.error.is_none() {
                    self.error = book.results.save(&book.path).err();
                }
            }
            if self.error.is_none() && !is_silent {
                self.error = print_outcome(self.output, seed, &outcome).err();
            }
            self.next += 1;
        }
        self.error.is_none()
    }
}

fn print_outcome(output: &mut dyn Write, seed: u64, outcome: &Outcome) -> io::Result<()> {
    let Outcome { summary, hash, .. } = outcome;
    let verdict = if summary.violations.is_empty() { "ok" } else { "VIOLATION" };
    writeln!(output, "seed {seed}  {verdict:<9}  {summary}  hash {hash:016x}")?;
    if summary.violations.is_empty() {
        return output.flush();
    }
    for text in summary.violations.iter().chain([&summary.notes]) {
        for line in text.lines() {
            writeln!(output, "  {line}")?;
        }
    }
    output.flush()
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.simulated / SECOND;
        let WorkloadCounts { answered, unknown, failed } = self.operations;
        write!(
            formatter,
            "{seconds} s  ops {answered} ok {unknown} unknown {failed} failed  elections {}  crashes {}  faults {}",
            self.elections, self.crashes, self.faults
        )
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, real) = (self.simulated / SECOND, self.real.as_secs_f64());
        let WorkloadCounts { answered, unknown, failed } = self.operations;
        writeln!(
            formatter,
            "ops {answered} ok {unknown} unknown {failed} failed  elections {}  crashes {}  faults {}",
            self.elections, self.crashes, self.faults
        )?;
        if !self.marks.is_empty() {
            writeln!(formatter, "marks: {}", self.marks)?;
        }
        write!(
            formatter,
            "{} seeds, {} with violations; {seconds} s simulated in {real:.1} s ({:.0} s per second)",
            self.seeds,
            self.failed_seeds.len(),
            seconds as f64 / real.max(1e-9)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use clap::Parser;

    use super::*;

    fn campaign(words: &[&str], run: &dyn Run) -> (Totals, String) {
        let arguments = Arguments::try_parse_from(std::iter::once("sim").chain(words.iter().copied())).unwrap();
        let mut output = Vec::new();
        let totals = run_all(&arguments, run, &mut output).unwrap();
        (totals, String::from_utf8(output).unwrap())
    }

    fn summary(task: &Task) -> Summary {
        let operations = WorkloadCounts { answered: 10 * task.seed, unknown: 1, failed: 2 };
        Summary { simulated: task.duration, operations, elections: 1, crashes: 2, faults: 3, ..Summary::default() }
    }

    #[test]
    fn lines_come_in_the_order_of_the_seeds_and_totals_add_up() {
        let run = |task: &Task, trace: &mut Trace| {
            trace.event(1, "seed", &[task.seed]);
            summary(task)
        };
        let (totals, output) = campaign(&["--seeds", "1..9", "--sim-minutes", "1", "--jobs", "4"], &run);
        let seeds: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix("seed ")).collect();
        assert_eq!(seeds.len(), 8);
        assert!(
            seeds[0].starts_with(
                "1  ok         60 s  ops 10 ok 1 unknown 2 failed  elections 1  crashes 2  faults 3  hash "
            )
        );
        assert!(seeds.is_sorted());
        assert_eq!((totals.seeds, totals.exit_code(), totals.operations.answered), (8, 0, 360));
        assert!(output.contains("8 seeds, 0 with violations; 480 s simulated in "));
    }

    #[test]
    fn violations_and_panics_are_findings_of_their_seeds() {
        let run = |task: &Task, _: &mut Trace| match task.seed {
            2 => Summary { violations: vec!["stale read".to_owned()], notes: "the plan".to_owned(), ..summary(task) },
            3 => panic!("commit went back on seed {}", task.seed),
            _ => summary(task),
        };
        let (totals, output) = campaign(&["--seeds", "1..5", "--nodes", "3"], &run);
        assert_eq!((totals.failed_seeds.clone(), totals.exit_code()), (vec![2, 3], 1));
        assert!(output.contains("\nseed 2  VIOLATION  120 s"));
        assert!(output.contains("\n  stale read\n  the plan\n"));
        assert!(output.contains("\n  panic: commit went back on seed 3\n"));
        assert!(output.ends_with("again: sim --seed 2 --sim-minutes 2 --nodes 3 --trace\n"));
    }

    #[test]
    fn run_that_is_not_repeatable_is_a_violation() {
        let runs = AtomicU64::new(0);
        let run = |task: &Task, trace: &mut Trace| {
            trace.event(0, "run", &[runs.fetch_add(1, Ordering::Relaxed)]);
            summary(task)
        };
        let (totals, output) = campaign(&["--seed", "7", "--twice"], &run);
        assert_eq!(totals.failed_seeds, [7]);
        assert!(output.contains("the same seed gave another run: hash "));
        let repeatable = |task: &Task, _: &mut Trace| summary(task);
        assert_eq!(campaign(&["--seed", "7", "--twice"], &repeatable).0.exit_code(), 0);
    }
}
