//! The `sim` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!(
        "sim: whole nodes are not simulated yet; see docs/src/testing.md for what is, and the commands to run it"
    );
    ExitCode::from(2)
}
