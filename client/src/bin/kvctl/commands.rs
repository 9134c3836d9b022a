//! The one-shot commands.

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_client::{Client, Command, Expiry, ScanOptions, SetCondition, SetOptions, TimeToLive, Value};
use serde_json::json;

use crate::args::{ExpireArguments, ScanArguments, SetArguments, Subcommands};
use crate::failure::{Answer, Failure};
use crate::output::{Output, bytes_to_json};
use crate::text::{show_count, unescape};

/// A scan that takes longer than this tells how far it is.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Turns an argument into the bytes that are meant.
#[derive(Clone, Copy)]
struct Arguments {
    escapes: bool,
}

impl Arguments {
    fn bytes(self, argument: OsString) -> Result<Bytes, Failure> {
        if self.escapes {
            unescape(argument.as_bytes()).map(Bytes::from).map_err(Failure::Usage)
        } else {
            Ok(argument.into_vec().into())
        }
    }

    fn all(self, arguments: Vec<OsString>) -> Result<Vec<Bytes>, Failure> {
        arguments.into_iter().map(|argument| self.bytes(argument)).collect()
    }

    /// A value, or all of standard input for `-`.
    fn value(self, argument: OsString) -> Result<Bytes, Failure> {
        if argument != OsStr::new("-") {
            return self.bytes(argument);
        }
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        read.map_err(|error| Failure::Local("cannot read the value from standard input".into(), error))?;
        Ok(bytes.into())
    }
}

pub(crate) async fn run(
    client: &Client,
    command: Subcommands,
    escapes: bool,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let arguments = Arguments { escapes };
    match command {
        Subcommands::Get { key } => get(client, arguments.bytes(key)?, output).await,
        Subcommands::Set(set_arguments) => set(client, arguments, set_arguments, output).await,
        Subcommands::Del { keys } => {
            let keys = arguments.all(keys)?;
            let deleted = client.delete(&keys).await?;
            count(output, "deleted", deleted)?;
            Ok(Answer::from(deleted > 0))
        }
        Subcommands::Exists { keys } => {
            let keys = arguments.all(keys)?;
            let existing = client.exists(&keys).await?;
            count(output, "existing", existing)?;
            Ok(Answer::from(existing == keys.len() as i64))
        }
        Subcommands::Scan(scan_arguments) => scan(client, arguments, scan_arguments, output).await,
        Subcommands::Ttl { key } => ttl(client, arguments.bytes(key)?, output).await,
        Subcommands::Expire(expire_arguments) => expire(client, arguments, expire_arguments, output).await,
        Subcommands::Persist { key } => {
            let key = arguments.bytes(key)?;
            let changed = client.integer(Command::write("PERSIST").key(&key)).await? > 0;
            condition(output, &key, "changed", changed, "there is no such key, or it has no deadline")
        }
        Subcommands::Incr { key, by } => increment(client, arguments.bytes(key)?, by, output).await,
        Subcommands::Cas { key, old, new } => {
            let (key, old, new) = (arguments.bytes(key)?, arguments.bytes(old)?, arguments.value(new)?);
            let changed = client.compare_and_set(&key, old, new).await?;
            condition(output, &key, "changed", changed, "the key is absent or holds another value")
        }
        Subcommands::Cad { key, old } => {
            let (key, old) = (arguments.bytes(key)?, arguments.bytes(old)?);
            let changed = client.compare_and_delete(&key, old).await?;
            condition(output, &key, "changed", changed, "the key is absent or holds another value")
        }
        Subcommands::Raw { words } => {
            let words = arguments.all(words)?;
            refuse_streams(&words)?;
            let command = Command::from_words(words).ok_or_else(|| Failure::Usage("no command was given".into()))?;
            output.reply(&client.call(command).await?)?;
            Ok(Answer::Yes)
        }
        Subcommands::Ping { count } => ping(client, count, output).await,
        Subcommands::Status { .. }
        | Subcommands::Node { .. }
        | Subcommands::Leader { .. }
        | Subcommands::Verify { .. }
        | Subcommands::Shell => Err(Failure::Usage("this command runs elsewhere".into())),
    }
}

/// Commands after which replies no longer pair with requests; this tool would wait for ever or mix them up.
pub(crate) fn refuse_streams(words: &[Bytes]) -> Result<(), Failure> {
    let is = |position: usize, name: &str| {
        words.get(position).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    let streams = ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "SYNC", "PSYNC"];
    if streams.iter().any(|name| is(0, name)) || (is(0, "CLIENT") && is(1, "REPLY")) {
        let name = String::from_utf8_lossy(&words[0]).to_uppercase();
        return Err(Failure::Usage(format!(
            "{name} changes what the server sends on the connection; kvctl sends one command and prints one reply"
        )));
    }
    Ok(())
}

async fn get(client: &Client, key: Bytes, output: &mut Output) -> Result<Answer, Failure> {
    let value = client.get(&key).await?;
    if output.json {
        output.json(&json!({ "key": bytes_to_json(&key), "value": value.as_deref().map(bytes_to_json) }))?;
    } else if let Some(value) = &value {
        output.bytes(value)?;
    } else if output.terminal {
        output.line("(nil)")?;
    }
    Ok(Answer::from(value.is_some()))
}

async fn set(client: &Client, arguments: Arguments, set: SetArguments, output: &mut Output) -> Result<Answer, Failure> {
    if set.ttl.is_some_and(|ttl| ttl.is_zero()) {
        return Err(Failure::Usage("--ttl must be more than 0; `kvctl del` deletes a key".into()));
    }
    let (condition_held, why_not) = if set.nx {
        (Some(SetCondition::Absent), "the key exists")
    } else if set.xx {
        (Some(SetCondition::Present), "there is no such key")
    } else if let Some(old) = set.if_equals {
        (Some(SetCondition::Equals(arguments.bytes(old)?)), "the key is absent or holds another value")
    } else {
        (None, "the server did not set it")
    };
    let expiry = match set.ttl {
        Some(ttl) => Expiry::After(ttl),
        None if set.keep_ttl => Expiry::Keep,
        None => Expiry::Never,
    };
    let (key, value) = (arguments.bytes(set.key)?, arguments.value(set.value)?);
    let changed = client.set_with(&key, value, &SetOptions { condition: condition_held, expiry }).await?;
    condition(output, &key, "set", changed, why_not)
}

async fn ttl(client: &Client, key: Bytes, output: &mut Output) -> Result<Answer, Failure> {
    let ttl = client.time_to_live(&key).await?;
    if output.json {
        let milliseconds = match ttl {
            TimeToLive::Remaining(time) => Some(time.as_millis() as u64),
            _ => None,
        };
        let exists = ttl != TimeToLive::Absent;
        output.json(&json!({ "key": bytes_to_json(&key), "exists": exists, "ttl_ms": milliseconds }))?;
    } else {
        match ttl {
            TimeToLive::Absent => note("there is no such key"),
            TimeToLive::Forever => output.line("forever")?,
            TimeToLive::Remaining(time) => output.line(&format!("{}.{:03}", time.as_secs(), time.subsec_millis()))?,
        }
    }
    Ok(Answer::from(ttl != TimeToLive::Absent))
}

async fn expire(
    client: &Client,
    arguments: Arguments,
    expire: ExpireArguments,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let key = arguments.bytes(expire.key)?;
    let mut command = Command::write("PEXPIRE").key(&key).arg(expire.time.as_millis().to_string());
    for (wanted, word) in [(expire.nx, "NX"), (expire.xx, "XX"), (expire.gt, "GT"), (expire.lt, "LT")] {
        if wanted {
            command = command.arg(word);
        }
    }
    let changed = client.integer(command).await? > 0;
    condition(output, &key, "changed", changed, "there is no such key, or the condition does not hold")
}

async fn increment(client: &Client, key: Bytes, by: String, output: &mut Output) -> Result<Answer, Failure> {
    if let Ok(whole) = by.parse::<i64>() {
        let sum = client.increment(&key, whole).await?;
        if output.json {
            output.json(&json!({ "key": bytes_to_json(&key), "value": sum }))?;
        } else {
            output.line(&sum.to_string())?;
        }
        return Ok(Answer::Yes);
    }
    if !by.parse::<f64>().is_ok_and(f64::is_finite) {
        return Err(Failure::Usage(format!("--by `{by}` is not a number (whole ones have at most 64 bits)")));
    }
    let reply = client.call(Command::write("INCRBYFLOAT").key(&key).arg(&by)).await?;
    let sum = reply.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
    if output.json {
        // As text: a JSON number would be read back with less precision than the server keeps.
        output.json(&json!({ "key": bytes_to_json(&key), "value": sum }))?;
    } else {
        output.line(&sum)?;
    }
    Ok(Answer::Yes)
}

async fn ping(client: &Client, count: u32, output: &mut Output) -> Result<Answer, Failure> {
    // The first one pays for the connection; measured apart, it doesn't spoil the figure.
    client.call(Command::read("PING")).await?;
    let address = client.address().await;
    for _ in 0..count {
        let start = Instant::now();
        let reply = client.call(Command::read("PING")).await?;
        let taken = start.elapsed();
        if !matches!(&reply, Value::Simple(text) if text.as_ref() == b"PONG") {
            output.reply(&reply)?;
            continue;
        }
        if output.json {
            output.json(&json!({ "address": address.to_string(), "microseconds": taken.as_micros() as u64 }))?;
        } else {
            output.line(&format!("PONG from {address} in {:.3} ms", taken.as_secs_f64() * 1000.0))?;
        }
        output.flush()?;
    }
    Ok(Answer::Yes)
}

async fn scan(
    client: &Client,
    arguments: Arguments,
    scan: ScanArguments,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let pattern = scan.pattern.map(|pattern| arguments.bytes(pattern)).transpose()?;
    let mut walk = client.scan(ScanOptions { pattern, type_name: scan.type_name, count: Some(scan.count) });
    let limit = scan.limit.unwrap_or(u64::MAX);
    let end = if scan.null { 0 } else { b'\n' };
    let mut progress = Progress::new();
    let mut printed = 0;
    while printed < limit {
        let Some(page) = walk.next_page().await? else { break };
        let wanted = (limit - printed).min(page.len() as u64);
        if wanted > 0 && output.terminal {
            progress.clear();
        }
        for key in page.iter().take(wanted as usize) {
            if output.json {
                output.json(&bytes_to_json(key))?;
            } else {
                output.item(key, end)?;
            }
        }
        printed += wanted;
        if wanted > 0 {
            // Streaming: whoever reads the pipe sees keys as they come, not at the end.
            output.flush()?;
        }
        progress.show(printed, scan.count);
    }
    progress.clear();
    Ok(Answer::Yes)
}

/// A line on standard error that says how far a long scan is, if a person is looking there.
struct Progress {
    active: bool,
    start: Instant,
    last: Option<Instant>,
    pages: u64,
}

impl Progress {
    fn new() -> Self {
        Progress { active: std::io::stderr().is_terminal(), start: Instant::now(), last: None, pages: 0 }
    }

    fn show(&mut self, found: u64, per_page: u64) {
        self.pages += 1;
        let due = self.last.map_or(self.start.elapsed() >= PROGRESS_AFTER, |last| last.elapsed() >= PROGRESS_EVERY);
        if self.active && due {
            let looked_at = show_count(self.pages.saturating_mul(per_page));
            eprint!("\r\x1b[K{} keys found, about {looked_at} looked at", show_count(found));
            let _ = std::io::stderr().flush();
            self.last = Some(Instant::now());
        }
    }

    fn clear(&mut self) {
        if self.active && self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// The outcome of something conditional: `OK`, or the reason on standard error.
fn condition(output: &mut Output, key: &[u8], field: &str, held: bool, why_not: &str) -> Result<Answer, Failure> {
    if output.json {
        output.json(&json!({ "key": bytes_to_json(key), field: held }))?;
    } else if held {
        output.line("OK")?;
    } else {
        note(&format!("nothing was changed: {why_not}"));
    }
    Ok(Answer::from(held))
}

fn count(output: &mut Output, field: &str, number: i64) -> Result<(), Failure> {
    if output.json {
        output.json(&json!({ field: number }))?;
    } else {
        output.line(&number.to_string())?;
    }
    Ok(())
}

fn note(text: &str) {
    eprintln!("kvctl: {text}");
}
