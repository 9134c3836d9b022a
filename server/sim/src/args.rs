//! The command line of `sim`.

use std::ops::Range;
use std::path::PathBuf;

use clap::Parser;

use crate::defects::Defect;
use crate::time::{MINUTE, Micros};

const AFTER_HELP: &str = "\
Each seed decides everything about its run: the number of nodes, the network, the faults, the clients. The same seed of \
the same build gives the same run, event for event; its trace hash is printed at the end of its line.

Exit codes:
  0  every run was clean; with --defect or --defects: everything was found
  1  at least one run violated something, panicked, did not converge or could not be checked; or a defect was not found
  2  the command line is wrong

Examples:
  sim --seeds 1..1000
  sim --seed 4711 --trace
  sim --seeds 1..20 --twice --sim-minutes 2 --nodes 5
  sim --minutes 60 --results simulated.jsonl
  sim --report simulated.jsonl
  sim --defects --seeds 0..5000 --rounds 5";

/// Runs clusters in virtual time, with everything going wrong that a seed decides, and checks what their clients saw.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "sim", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Arguments {
    /// Run this seed
    #[arg(long, value_name = "N", conflicts_with = "seeds", required_unless_present_any = ["seeds", "minutes", "report"])]
    pub seed: Option<u64>,
    /// Run these seeds, the last one not included
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    pub seeds: Option<Range<u64>>,
    /// Begin no further seed after so many real minutes; without --seeds, the seeds are those that --results has not seen yet
    #[arg(long, value_name = "M", value_parser = parse_minutes, conflicts_with_all = ["seed", "defect", "defects"])]
    pub minutes: Option<Micros>,
    /// Simulated minutes of each run; fractions are allowed
    #[arg(long, value_name = "M", default_value = "2", value_parser = parse_minutes)]
    pub sim_minutes: Micros,
    /// Nodes of the cluster [default: as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub nodes: Option<u32>,
    /// Print what happens in the run of --seed, line by line
    #[arg(long, conflicts_with_all = ["seeds", "jobs", "minutes", "defects"])]
    pub trace: bool,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    pub twice: bool,
    /// Seeds to run at the same time [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
    /// Add what came of the seeds to this file, which has a line for each commit; print only seeds with violations
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "defect", "defects"])]
    pub results: Option<PathBuf>,
    /// The commit that this build is of, for --results [default: as git says]
    #[arg(long, value_name = "HASH", requires = "results")]
    pub commit: Option<String>,
    /// Print what is in a file of results, and run nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "minutes", "results"])]
    pub report: Option<PathBuf>,
    /// Switch this deliberate defect on, and stop at the first seed that finds it; needs a build with `--features defects`
    #[arg(long, value_name = "NAME", value_parser = Defect::parse)]
    pub defect: Option<Defect>,
    /// Look for each deliberate defect in turn, and print a table; needs a build with `--features defects`
    #[arg(long, requires = "seeds", conflicts_with_all = ["defect", "seed"])]
    pub defects: bool,
    /// For --defects: split the seeds into so many ranges, and look for each defect in each of them
    #[arg(long, value_name = "K", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

impl Arguments {
    /// The seeds that the command line names.
    pub fn seed_range(&self) -> Range<u64> {
        match (&self.seeds, self.seed) {
            (Some(seeds), _) => seeds.clone(),
            (None, Some(seed)) => seed..seed.saturating_add(1),
            (None, None) => 0..u64::MAX,
        }
    }
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let numbers = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match numbers {
        Some((from, to)) if from < to => Ok(from..to),
        Some(_) => Err("there is no seed in this range".to_owned()),
        None => Err("two numbers are needed, as in 1..100".to_owned()),
    }
}

fn parse_minutes(text: &str) -> Result<Micros, String> {
    let minutes: f64 = text.parse().map_err(|_| "this is no number".to_owned())?;
    let longest = 60.0 * 24.0 * 365.0;
    if !(minutes > 0.0 && minutes <= longest) {
        return Err(format!("it must be above 0 and at most {longest}"));
    }
    Ok((minutes * MINUTE as f64).round() as Micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("sim").chain(words.iter().copied()))
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn seeds_minutes_and_nodes_are_read() {
        let arguments = parse(&["--seeds", "3..7", "--sim-minutes", "0.5", "--nodes", "5", "--jobs", "2"]).unwrap();
        assert_eq!(arguments.seed_range(), 3..7);
        assert_eq!(arguments.sim_minutes, 30 * SECOND);
        assert_eq!((arguments.nodes, arguments.jobs, arguments.trace), (Some(5), Some(2), false));
        assert_eq!(parse(&["--seed", "9", "--trace"]).unwrap().seed_range(), 9..10);
        let arguments = parse(&["--minutes", "1.5", "--results", "file", "--commit", "abc"]).unwrap();
        assert_eq!((arguments.minutes, arguments.seed_range()), (Some(90 * SECOND), 0..u64::MAX));
        let arguments = parse(&["--defects", "--seeds", "0..50", "--rounds", "5"]).unwrap();
        assert_eq!((arguments.defects, arguments.rounds), (true, 5));
        assert_eq!(parse(&["--defect", "vote-twice", "--seed", "1"]).unwrap().defect.unwrap().name(), "vote-twice");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_exit_code_2() {
        for words in [
            &[][..],
            &["--seed", "x"],
            &["--seeds", "5"],
            &["--seeds", "5..5"],
            &["--seed", "1", "--seeds", "1..2"],
            &["--seed", "1", "--sim-minutes", "0"],
            &["--seed", "1", "--sim-minutes", "nan"],
            &["--seed", "1", "--minutes", "1"],
            &["--seed", "1", "--nodes", "0"],
            &["--seeds", "1..2", "--trace"],
            &["--seed", "1", "--jobs", "0"],
            &["--seed", "1", "--defect", "none"],
            &["--seed", "1", "--defects"],
            &["--seed", "1", "--commit", "abc"],
            &["--report", "file", "--seeds", "1..2"],
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
