//! MEMORY: what a key costs.

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};
use crate::resp::Reply;

/// What a key costs in memory beyond its own bytes and its value's: the table's node, two allocations and their rounding.
const OVERHEAD_BYTES: usize = 96;

/// MEMORY USAGE key [SAMPLES count]: an estimate from the lengths, so that every replica says the same. The count is
/// checked and otherwise without meaning, since values have no parts to sample.
pub(crate) fn usage(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[2];
    let mut words = exec.args[3..].iter();
    while let Some(word) = words.next() {
        if !word.eq_ignore_ascii_case(b"samples") {
            return Err(Failure::SYNTAX);
        }
        let count = parse_i64(words.next().ok_or(Failure::SYNTAX)?).ok_or(Failure::NOT_INTEGER)?;
        if count < 0 {
            return Err(Failure::SYNTAX);
        }
    }
    match exec.keys.head(key) {
        Some(head) => exec.reply.int((key.len() + OVERHEAD_BYTES) as i64 + head.data_bytes as i64),
        None => exec.reply.null(),
    }
    Ok(())
}

/// MEMORY HELP
pub(crate) fn help(_args: &[&[u8]], reply: &mut Reply) -> Outcome {
    reply.help(&[
        "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "USAGE <key> [SAMPLES <count>]",
        "    An estimate of the bytes that the key and its value take.",
        "HELP",
        "    This text.",
    ]);
    Ok(())
}
