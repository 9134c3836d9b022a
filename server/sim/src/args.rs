//! The command line of `sim`.

use std::ops::Range;

use clap::Parser;

use crate::time::{MINUTE, Micros};

const AFTER_HELP: &str = "\
Each seed decides everything about its run: the number of nodes, the network, the faults, the clients. The same seed of \
the same build gives the same run, event for event; its trace hash is printed at the end of its line.

Exit codes:
  0  every run was clean
  1  at least one run violated something, panicked, did not converge or could not be checked
  2  the command line is wrong

Examples:
  sim --seeds 1..1000
  sim --seed 4711 --trace
  sim --seeds 1..20 --twice --minutes 2 --nodes 5";

/// Runs clusters in virtual time, with everything going wrong that a seed decides, and checks what their clients saw.
#[derive(Debug, Clone, PartialEq, Parser)]
#[command(name = "sim", version, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Arguments {
    /// Run this seed
    #[arg(long, value_name = "N", conflicts_with = "seeds", required_unless_present = "seeds")]
    pub seed: Option<u64>,
    /// Run these seeds, the last one not included
    #[arg(long, value_name = "A..B", value_parser = parse_seeds)]
    pub seeds: Option<Range<u64>>,
    /// Simulated minutes of each run; fractions are allowed
    #[arg(long, value_name = "M", default_value = "2", value_parser = parse_minutes)]
    pub minutes: Micros,
    /// Nodes of the cluster [default: as the seed says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    pub nodes: Option<u32>,
    /// Print what happens in the run of --seed, line by line
    #[arg(long, conflicts_with_all = ["seeds", "jobs"])]
    pub trace: bool,
    /// Run every seed twice and compare the traces
    #[arg(long)]
    pub twice: bool,
    /// Seeds to run at the same time [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub jobs: Option<u32>,
}

impl Arguments {
    /// The seeds to run.
    pub fn seed_range(&self) -> Range<u64> {
        match (&self.seeds, self.seed) {
            (Some(seeds), _) => seeds.clone(),
            (None, Some(seed)) => seed..seed.saturating_add(1),
            // Not reached from a command line, which must name seeds.
            (None, None) => 0..0,
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
        let arguments = parse(&["--seeds", "3..7", "--minutes", "0.5", "--nodes", "5", "--jobs", "2"]).unwrap();
        assert_eq!(arguments.seed_range(), 3..7);
        assert_eq!(arguments.minutes, 30 * SECOND);
        assert_eq!((arguments.nodes, arguments.jobs, arguments.trace), (Some(5), Some(2), false));
        assert_eq!(parse(&["--seed", "9", "--trace"]).unwrap().seed_range(), 9..10);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_exit_code_2() {
        for words in [
            &[][..],
            &["--seed", "x"],
            &["--seeds", "5"],
            &["--seeds", "5..5"],
            &["--seed", "1", "--seeds", "1..2"],
            &["--seed", "1", "--minutes", "0"],
            &["--seed", "1", "--minutes", "nan"],
            &["--seed", "1", "--nodes", "0"],
            &["--seeds", "1..2", "--trace"],
            &["--seed", "1", "--jobs", "0"],
        ] {
            assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
        }
    }
}
