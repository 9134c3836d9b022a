//! The `sim` binary.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use holdfast_sim::args::Arguments;
use holdfast_sim::campaign::{note_panics, run_all};
use holdfast_sim::defects::{Defect, hunt_all, hunt_one};
use holdfast_sim::results::Results;
use holdfast_sim::world::simulate;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("sim: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<u8> {
    let mut output = io::stdout();
    if let Some(path) = &arguments.report {
        print!("{}", Results::load(path)?);
        return Ok(0);
    }
    if !arguments.trace {
        note_panics();
    }
    if arguments.defect.is_none() && !arguments.defects {
        return Ok(run_all(arguments, &simulate, &mut output)?.exit_code());
    }
    if !Defect::are_built_in() {
        eprintln!("sim: this build has no defects; build it with --features defects, in the profile dev or hunt");
        return Ok(2);
    }
    if arguments.trace {
        return Ok(1 - run_all(arguments, &simulate, &mut output)?.exit_code());
    }
    let found = match arguments.defect {
        Some(defect) => hunt_one(arguments, defect, &simulate, &mut output)?,
        None => hunt_all(arguments, &simulate, &mut output)?,
    };
    Ok(u8::from(!found))
}
