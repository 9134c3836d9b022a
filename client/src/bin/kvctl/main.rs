//! `kvctl`: Holdfast's command line.
//!
//! One run is one command (or one shell): the arguments are parsed (`args`), a [`holdfast_client::Client`] is made that finds
//! the leader and tries until `--timeout` what certainly was not executed (about anything else a person or script decides,
//! told by the exit code), the command runs (`commands`, `status`, `cluster`, `shell`), and the answer is printed for whoever looks (`output`).

mod args;
mod cluster;
mod commands;
mod failure;
mod nodes;
mod output;
mod shell;
mod status;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use holdfast_client::{Address, Client, Config, Retry};

use crate::args::{Arguments, Common, Subcommands};
use crate::failure::{Answer, Failure, finish};
use crate::output::Output;

/// What `--timeout 0` means: longer than anybody waits.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let Arguments { common, command } = Arguments::parse();
    let as_json = common.json;
    // One thread is plenty for one connection.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return finish(Err(Failure::Local("cannot start".into(), error)), as_json),
    };
    finish(runtime.block_on(run(common, command)), as_json)
}

async fn run(common: Common, command: Subcommands) -> Result<Answer, Failure> {
    let mut output = Output::new(common.json);
    let config = configuration(&common)?;
    let answer = match command {
        Subcommands::Shell if common.exactly_once => {
            return Err(Failure::Usage("--exactly-once is for single commands, the shell sends what is typed".into()));
        }
        Subcommands::Status { .. }
        | Subcommands::Node { .. }
        | Subcommands::Leader { .. }
        | Subcommands::Verify { .. }
            if common.exactly_once =>
        {
            return Err(Failure::Usage("--exactly-once is for commands that write keys".into()));
        }
        Subcommands::Shell => shell::run(config, &mut output).await?,
        Subcommands::Status { all } => status::run(&Client::new(config), all, &mut output).await?,
        Subcommands::Node { command } => cluster::run_node(&Client::new(config), command, &mut output).await?,
        Subcommands::Leader { command } => cluster::run_leader(&Client::new(config), command, &mut output).await?,
        Subcommands::Verify { wait } => {
            // One answer, which takes its time.
            let config = Config { timeout: wait, ..config };
            cluster::run_verify(&Client::new(config), &mut output).await?
        }
        other => {
            let client = Client::new(config);
            let client = if common.exactly_once { client.exactly_once() } else { client };
            commands::run(&client, other, common.escapes, &mut output).await?
        }
    };
    output.flush()?;
    Ok(answer)
}

fn configuration(common: &Common) -> Result<Config, Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let mut addresses = common.addr.clone();
    if addresses.is_empty()
        && let Some(text) = environment("HOLDFAST_ADDR")
    {
        let parsed: Result<Vec<Address>, _> = text.split(',').map(str::parse).collect();
        addresses = parsed.map_err(|error| Failure::Usage(format!("HOLDFAST_ADDR: {error}")))?;
    }
    let mut addresses = addresses.into_iter();
    let address = addresses.next().unwrap_or_else(|| Address::new("127.0.0.1", 6379));
    let timeout = if common.timeout.is_zero() { FOREVER } else { common.timeout };
    let mut config = Config::new(address);
    config.seeds = addresses.collect();
    config.user = common.user.clone();
    config.password = common.password.clone().or_else(|| environment("HOLDFAST_PASSWORD"));
    config.name = Some("kvctl".into());
    config.database = common.database;
    config.timeout = timeout;
    config.connect_timeout = timeout;
    // The time is the bound, not the number.
    config.retry = Retry { attempts_max: u32::MAX, backoff_max: BACKOFF_MAX, ..Retry::default() };
    Ok(config)
}
