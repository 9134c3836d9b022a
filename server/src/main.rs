//! The `holdfast` binary.

use holdfast_server::{logging, server, settings};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let settings = match settings::load(std::env::args_os(), std::env::vars_os()) {
        Ok(settings) => settings,
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    let log = match logging::start(&settings) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("holdfast: cannot write the log file {}: {error}", settings.log_file.display());
            return ExitCode::FAILURE;
        }
    };
    match server::run(settings, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error}");
            ExitCode::FAILURE
        }
    }
}
