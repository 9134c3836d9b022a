//! What came of all runs so far, in a file: a line of JSON for each commit.
//!
//! A night of simulation is many runs of `sim`, stopped and begun again. Each adds its seeds to the line of its commit, so that
//! the file says what a commit has been through, and the next run goes on with seeds that the commit has not seen yet.
//!
//! ```text
//! {"commit":"182db32…","seeds":[[0,500]],"failures":[17],"simulated_s":75211,"real_s":130.2, … "marks":{"log cuts":81,…}}
//! ```
//!
//! The file is written anew beside the old one and renamed over it: who stops a run in the middle loses at most what came since
//! the last write.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::campaign::{Summary, Totals};
use crate::time::SECOND;

/// What a commit went through.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The commit, or `unknown`.
    pub commit: String,
    /// The seeds, as ranges whose ends are not included: sorted, without overlap, not touching.
    pub seeds: Vec<(u64, u64)>,
    /// Seeds with violations, sorted.
    pub failures: Vec<u64>,
    /// Seeds with at least 60 simulated seconds, 500 answers and three faults that took effect.
    #[serde(default)]
    pub full_seeds: u64,
    /// Simulated time in seconds.
    pub simulated_s: u64,
    /// Real time in seconds.
    pub real_s: f64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations without an answer.
    pub unknown: u64,
    /// Operations that were refused.
    pub failed: u64,
    /// Leaders that were elected.
    pub elections: u64,
    /// Nodes that went down.
    pub crashes: u64,
    /// Faults of all kinds that took effect.
    pub faults: u64,
    /// Places that the runs came by, snapshots, membership changes and faults by kind among them.
    pub marks: BTreeMap<String, u64>,
}

impl Line {
    /// Whether a seed was run.
    pub fn has(&self, seed: u64) -> bool {
        self.seeds.iter().any(|(from, to)| (*from..*to).contains(&seed))
    }

    /// Adds a seed that was run.
    pub fn add(&mut self, seed: u64, summary: &Summary) {
        self.add_range(seed, seed + 1);
        if !summary.violations.is_empty()
            && let Err(place) = self.failures.binary_search(&seed)
        {
            self.failures.insert(place, seed);
        }
        let is_full = summary.simulated >= 60 * SECOND && summary.operations.answered >= 500 && summary.faults >= 3;
        self.full_seeds += u64::from(is_full);
        self.simulated_s += summary.simulated / SECOND;
        self.answered += summary.operations.answered;
        self.unknown += summary.operations.unknown;
        self.failed += summary.operations.failed;
        self.elections += summary.elections;
        self.crashes += summary.crashes;
        self.faults += summary.faults;
        for (name, count) in summary.marks.iter() {
            *self.marks.entry(name.to_owned()).or_default() += count;
        }
    }

    fn add_range(&mut self, from: u64, to: u64) {
        let (mut from, mut to) = (from, to);
        self.seeds.retain(|(other_from, other_to)| {
            let touches = *other_from <= to && from <= *other_to;
            if touches {
                (from, to) = (from.min(*other_from), to.max(*other_to));
            }
            !touches
        });
        let place = self.seeds.partition_point(|(other, _)| *other < from);
        self.seeds.insert(place, (from, to));
    }

    fn seed_count(&self) -> u64 {
        self.seeds.iter().map(|(from, to)| to - from).sum()
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Results {
    lines: Vec<Line>,
}

impl Results {
    /// What is in the file; nothing if there is none.
    ///
    /// # Errors
    /// If it can't be read, or is not of this form.
    pub fn load(path: &Path) -> io::Result<Results> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
        Ok(Results { lines: lines.collect::<Result<_, _>>().map_err(io::Error::from)? })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If that is not possible; the old one stays then.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(line).map_err(io::Error::from)?);
            text.push('\n');
        }
        let beside = path.with_extension("new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, path)
    }

    /// The line of a commit, which is made if need be.
    pub fn line(&mut self, commit: &str) -> &mut Line {
        let place = self.lines.iter().position(|line| line.commit == commit).unwrap_or_else(|| {
            self.lines.push(Line { commit: commit.to_owned(), ..Line::default() });
            self.lines.len() - 1
        });
        &mut self.lines[place]
    }

    /// Takes up what came of a run of this commit.
    pub fn add_real_time(&mut self, commit: &str, totals: &Totals) {
        self.line(commit).real_s += totals.real.as_secs_f64();
    }
}

impl fmt::Display for Results {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<12} {:>8} {:>8} {:>6} {:>11} {:>9} {:>6} {:>12} {:>9} {:>9} {:>9} {:>9}",
            "commit",
            "seeds",
            "full",
            "failed",
            "simulated",
            "real",
            "x",
            "answered",
            "unknown",
            "elections",
            "crashes",
            "faults"
        )?;
        let mut all = Line { commit: "all".to_owned(), ..Line::default() };
        let mut count = 0;
        for line in &self.lines {
            write_row(formatter, line, line.seed_count())?;
            count += line.seed_count();
            all.failures.extend(&line.failures);
            all.full_seeds += line.full_seeds;
            all.simulated_s += line.simulated_s;
            all.real_s += line.real_s;
            all.answered += line.answered;
            all.unknown += line.unknown;
            all.elections += line.elections;
            all.crashes += line.crashes;
            all.faults += line.faults;
            for (name, count) in &line.marks {
                *all.marks.entry(name.clone()).or_default() += count;
            }
        }
        write_row(formatter, &all, count)?;
        for line in self.lines.iter().filter(|line| !line.failures.is_empty()) {
            writeln!(formatter, "{}: seeds with violations: {:?}", line.commit, line.failures)?;
        }
        writeln!(formatter, "places and faults that were met:")?;
        all.marks.iter().try_for_each(|(name, count)| writeln!(formatter, "  {count:>12}  {name}"))
    }
}

fn write_row(formatter: &mut fmt::Formatter<'_>, line: &Line, seeds: u64) -> fmt::Result {
    let mut commit = String::new();
    write!(commit, "{:.12}", line.commit)?;
    let factor = line.simulated_s as f64 / line.real_s.max(1e-9);
    writeln!(
        formatter,
        "{commit:<12} {seeds:>8} {:>8} {:>6} {:>9} s {:>7.0} s {factor:>6.0} {:>12} {:>9} {:>9} {:>9} {:>9}",
        line.full_seeds,
        line.failures.len(),
        line.simulated_s,
        line.real_s,
        line.answered,
        line.unknown,
        line.elections,
        line.crashes,
        line.faults
    )
}

/// The commit of the working copy that the command runs in, if git says; `unknown` otherwise. With changes that are not committed, a
/// `+` follows: what was run is no commit.
pub fn commit_of_working_copy() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").args(words).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if dirty { format!("{hash}+") } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_become_ranges_whatever_their_order() {
        let mut line = Line::default();
        for seed in [3, 1, 5, 4, 9, 2, 10] {
            line.add(seed, &Summary { simulated: 120 * SECOND, elections: 2, ..Summary::default() });
        }
        assert_eq!(line.seeds, [(1, 6), (9, 11)]);
        assert!(line.has(5) && !line.has(6) && !line.has(0));
        assert_eq!((line.simulated_s, line.elections, line.seed_count()), (840, 14, 7));
    }

    #[test]
    fn results_of_commits_add_up_in_the_file() {
        let folder = std::env::temp_dir().join(format!("holdfast-sim-results-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("results.jsonl");
        for (commit, seed) in [("one", 1), ("two", 1), ("one", 2)] {
            let mut results = Results::load(&path).unwrap();
            let mut summary = Summary { violations: vec!["wrong".to_owned()], ..Summary::default() };
            summary.marks.hit("log cuts");
            results.line(commit).add(seed, &summary);
            results.save(&path).unwrap();
        }
        let results = Results::load(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(results.lines.len(), 2);
        assert_eq!((&results.lines[0].seeds, &results.lines[0].failures), (&vec![(1, 3)], &vec![1, 2]));
        let text = results.to_string();
        assert!(text.contains("one: seeds with violations: [1, 2]"), "{text}");
        assert!(text.contains("           3  log cuts"), "{text}");
    }
}
