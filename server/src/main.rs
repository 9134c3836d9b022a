//! The `holdfast` binary.

use holdfast_server::{logging, server, settings};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Below this memory budget the allocator gets no huge pages: they make lookups in large tables faster, and leave up to 2 MiB
/// resident where a few kilobytes are in use.
const SMALL_BUDGET_BYTES: u64 = 256 << 20;

fn main() -> ExitCode {
    let settings = match settings::load(std::env::args_os(), std::env::vars_os()) {
        Ok(settings) => settings,
        Err(error) => {
            error.print();
            return ExitCode::from(error.exit_code());
        }
    };
    if settings.memory_budget_bytes < SMALL_BUDGET_BYTES {
        // Best effort: a system without huge pages has nothing to disable.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
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
