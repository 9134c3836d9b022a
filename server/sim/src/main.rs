//! The `sim` binary.

use std::process::ExitCode;

use clap::Parser;
use holdfast_sim::args::Arguments;
use holdfast_sim::campaign::run_all;
use holdfast_sim::world::simulate;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run_all(&arguments, &simulate, &mut std::io::stdout()) {
        Ok(totals) => ExitCode::from(totals.exit_code()),
        Err(error) => {
            eprintln!("sim: cannot print what came of the seeds: {error}");
            ExitCode::from(1)
        }
    }
}
