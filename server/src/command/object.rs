//! OBJECT: how a value is kept.

use holdfast_engine::table::ObjectKind;

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};
use crate::resp::Reply;

/// The name that TYPE answers.
pub(crate) fn type_name(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::String => "string",
    }
}

/// Redis embeds strings up to this long in their object, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;

/// OBJECT ENCODING key: what Redis would choose for a value that was set whole. Here all strings are kept alike, but
/// tools compare.
pub(crate) fn encoding(exec: &mut Exec<'_>) -> Outcome {
    match exec.keys.get(exec.args[2]) {
        None => exec.reply.null(),
        Some(object) => exec.reply.bulk(match object.kind {
            ObjectKind::String if parse_i64(&object.data).is_some() => b"int",
            ObjectKind::String if object.data.len() <= EMBEDDED_BYTES_MAX => b"embstr",
            ObjectKind::String => b"raw",
        }),
    }
    Ok(())
}

/// OBJECT IDLETIME key
pub(crate) fn idletime(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[2];
    if exec.keys.exists(key) {
        let seconds = exec.keys.idle_seconds(key);
        exec.reply.int(i64::try_from(seconds).unwrap_or(i64::MAX));
    } else {
        exec.reply.null();
    }
    Ok(())
}

/// OBJECT FREQ key: nothing counts uses, which Redis answers with an error, too.
pub(crate) fn freq(exec: &mut Exec<'_>) -> Outcome {
    if !exec.keys.exists(exec.args[2]) {
        exec.reply.null();
        return Ok(());
    }
    Err(Failure::fixed(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust.",
    ))
}

/// OBJECT REFCOUNT key
pub(crate) fn refcount(exec: &mut Exec<'_>) -> Outcome {
    if exec.keys.exists(exec.args[2]) {
        exec.reply.int(1);
    } else {
        exec.reply.null();
    }
    Ok(())
}

/// OBJECT HELP
pub(crate) fn help(_args: &[&[u8]], reply: &mut Reply) -> Outcome {
    reply.help(&[
        "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "ENCODING <key>",
        "    The encoding that Redis would choose for the value.",
        "FREQ <key>",
        "    Always an error: uses are not counted.",
        "IDLETIME <key>",
        "    Seconds since the key was last used.",
        "REFCOUNT <key>",
        "    References to the value: always 1.",
        "HELP",
        "    This text.",
    ]);
    Ok(())
}
