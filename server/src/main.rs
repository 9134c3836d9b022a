//! The `holdfast` binary.

use holdfast_server::settings::{Launch, Settings};
use holdfast_server::{logging, membership::Entry, recover, server, settings, supervisor};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Below this memory budget the allocator gets no huge pages: they make lookups in large tables faster, and leave up to 2 MiB
/// resident where a few kilobytes are in use.
const SMALL_BUDGET_BYTES: u64 = 256 << 20;

fn main() -> ExitCode {
    match settings::load_launch(std::env::args_os(), std::env::vars_os()) {
        Ok(Launch::Node(settings, entry)) => run_node(*settings, entry),
        Ok(Launch::Recover(settings, plan)) => exit(recover::run(*settings, plan)),
        Ok(Launch::Cluster(plan)) => exit(supervisor::run(&plan)),
        Err(error) => {
            error.print();
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_node(settings: Settings, entry: Entry) -> ExitCode {
    if settings.memory_budget_bytes < SMALL_BUDGET_BYTES {
        // Best effort: a system without huge pages has nothing to disable.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
    match logging::start(&settings) {
        Ok(log) => exit(server::run(settings, entry, log)),
        Err(error) => {
            eprintln!("holdfast: cannot write the log file {}: {error}", settings.log_file.display());
            ExitCode::FAILURE
        }
    }
}

fn exit<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast: {error}");
            ExitCode::FAILURE
        }
    }
}
