//! The `sim` binary.

use std::process::ExitCode;

use clap::Parser;
use holdfast_sim::args::Arguments;

fn main() -> ExitCode {
    let _arguments = Arguments::parse();
    eprintln!(
        "sim: whole nodes are not simulated yet; see docs/src/testing.md for what is, and the commands to run it"
    );
    ExitCode::from(2)
}
