//! Compare-and-set and compare-and-delete: what optimistic clients need, and Redis lacks.
//!
//! The names are the field's. CAS and CAD are Tair's: 1 if the value was as expected, 0 if it was another, -1 if there
//! was none. DELIFEQ is Valkey's: 1 or 0. (Valkey's `SET … IFEQ …` is in `strings.rs`.) All compare whole values, byte by
//! byte. CAS gives the key the deadline that its options say, and none without any, as SET does.

use super::Failure;
use super::exec::{Exec, Outcome, own};
use super::expire::{Deadline, parse_deadline};

/// What a comparison found.
enum Found {
    Equal { deadline_ms: u64 },
    Different,
    Nothing,
}

fn compare(exec: &mut Exec<'_>, key: &[u8], expected: &[u8]) -> Result<Found, Failure> {
    Ok(match exec.string(key)? {
        None => Found::Nothing,
        Some(object) if object.data == expected => Found::Equal { deadline_ms: object.deadline_ms },
        Some(_) => Found::Different,
    })
}

/// CAS key old new [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
pub(crate) fn cas(exec: &mut Exec<'_>) -> Outcome {
    let (key, expected, value) = (exec.args[1], exec.args[2], exec.args[3]);
    let deadline = match &exec.args[4..] {
        [] => Some(None),
        [word] if word.eq_ignore_ascii_case(b"keepttl") => None,
        [word, number] => {
            let kind = Deadline::from_word(word).ok_or(Failure::SYNTAX)?;
            Some(Some(parse_deadline(kind, number, exec.now_signed(), "cas")?))
        }
        _ => return Err(Failure::SYNTAX),
    };
    let answer = match compare(exec, key, expected)? {
        Found::Nothing => -1,
        Found::Different => 0,
        Found::Equal { deadline_ms: kept } => {
            match deadline {
                Some(Some(deadline)) if exec.is_past(deadline) => {
                    exec.keys.delete(key);
                }
                Some(deadline) => exec.put_string(key, own(value), deadline.map_or(0, i64::unsigned_abs)),
                None => exec.put_string(key, own(value), kept),
            }
            1
        }
    };
    exec.reply.int(answer);
    Ok(())
}

/// CAD key old
pub(crate) fn cad(exec: &mut Exec<'_>) -> Outcome {
    let answer = match compare(exec, exec.args[1], exec.args[2])? {
        Found::Nothing => -1,
        Found::Different => 0,
        Found::Equal { .. } => i64::from(exec.keys.delete(exec.args[1])),
    };
    exec.reply.int(answer);
    Ok(())
}

/// DELIFEQ key old
pub(crate) fn delifeq(exec: &mut Exec<'_>) -> Outcome {
    let deleted = match compare(exec, exec.args[1], exec.args[2])? {
        Found::Equal { .. } => exec.keys.delete(exec.args[1]),
        Found::Different | Found::Nothing => false,
    };
    exec.reply.int(i64::from(deleted));
    Ok(())
}
