//! Deadlines: what EX, PX, EXAT, PXAT and the EXPIRE family say, and what TTL and its relatives answer.
//!
//! A deadline is kept as milliseconds since the epoch. What a client says relative to now becomes absolute by the
//! entry's stamp, so that every replica, and every replay, computes the same. A deadline in the past deletes the key.

use holdfast_engine::table::Object;

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};

/// How a number tells a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// EX: seconds from now.
    Seconds,
    /// PX: milliseconds from now.
    Milliseconds,
    /// EXAT: seconds since the epoch.
    UnixSeconds,
    /// PXAT: milliseconds since the epoch.
    UnixMilliseconds,
}

impl Deadline {
    /// The option's name, in any case.
    pub(crate) fn from_word(word: &[u8]) -> Option<Self> {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        match word.len() {
            2 if is("ex") => Some(Deadline::Seconds),
            2 if is("px") => Some(Deadline::Milliseconds),
            4 if is("exat") => Some(Deadline::UnixSeconds),
            4 if is("pxat") => Some(Deadline::UnixMilliseconds),
            _ => None,
        }
    }

    fn unit_ms(self) -> i64 {
        match self {
            Deadline::Seconds | Deadline::UnixSeconds => 1000,
            Deadline::Milliseconds | Deadline::UnixMilliseconds => 1,
        }
    }

    /// The time that the number is counted from.
    fn base_ms(self, now_ms: i64) -> i64 {
        match self {
            Deadline::Seconds | Deadline::Milliseconds => now_ms,
            Deadline::UnixSeconds | Deadline::UnixMilliseconds => 0,
        }
    }

    /// Milliseconds since the epoch; none if 64 bits can't hold them.
    fn absolute(self, number: i64, now_ms: i64) -> Option<i64> {
        number.checked_mul(self.unit_ms())?.checked_add(self.base_ms(now_ms))
    }
}

/// The deadline, in milliseconds since the epoch, that an option of SET or GETEX gives. It is positive, but may be past.
///
/// # Errors
/// The number is no integer, is not positive, or is too large.
pub(crate) fn parse_deadline(kind: Deadline, number: &[u8], now_ms: i64, name: &str) -> Result<i64, Failure> {
    let number = parse_i64(number).ok_or(Failure::NOT_INTEGER)?;
    if number <= 0 {
        return Err(Failure::invalid_expire(name));
    }
    kind.absolute(number, now_ms).ok_or_else(|| Failure::invalid_expire(name))
}

/// EXPIRE key seconds [NX | XX | GT | LT]
pub(crate) fn expire(exec: &mut Exec<'_>) -> Outcome {
    expire_generic(exec, Deadline::Seconds, "expire")
}

/// PEXPIRE key milliseconds [NX | XX | GT | LT]
pub(crate) fn pexpire(exec: &mut Exec<'_>) -> Outcome {
    expire_generic(exec, Deadline::Milliseconds, "pexpire")
}

/// EXPIREAT key unix-time-seconds [NX | XX | GT | LT]
pub(crate) fn expireat(exec: &mut Exec<'_>) -> Outcome {
    expire_generic(exec, Deadline::UnixSeconds, "expireat")
}

/// PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]
pub(crate) fn pexpireat(exec: &mut Exec<'_>) -> Outcome {
    expire_generic(exec, Deadline::UnixMilliseconds, "pexpireat")
}

/// Which deadlines may be replaced.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    /// NX: only if there is none.
    absent: bool,
    /// XX: only if there is one.
    present: bool,
    /// GT: only by a later one; none counts as the latest of all.
    later: bool,
    /// LT: only by an earlier one.
    earlier: bool,
}

impl Conditions {
    fn parse(words: &[&[u8]]) -> Result<Self, Failure> {
        let mut conditions = Conditions::default();
        for word in words {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("nx") {
                conditions.absent = true;
            } else if is("xx") {
                conditions.present = true;
            } else if is("gt") {
                conditions.later = true;
            } else if is("lt") {
                conditions.earlier = true;
            } else {
                return Err(Failure::new(format!("ERR Unsupported option {}", String::from_utf8_lossy(word))));
            }
        }
        if conditions.absent && (conditions.present || conditions.later || conditions.earlier) {
            return Err(Failure::fixed("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if conditions.later && conditions.earlier {
            return Err(Failure::fixed("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    fn allow(&self, old: &Object, deadline: i64) -> bool {
        let current = i64::try_from(old.deadline_ms).unwrap_or(i64::MAX);
        let dated = current != 0;
        !(self.absent && dated
            || self.present && !dated
            || self.later && (!dated || deadline <= current)
            || self.earlier && dated && deadline >= current)
    }
}

fn expire_generic(exec: &mut Exec<'_>, kind: Deadline, name: &str) -> Outcome {
    let key = exec.args[1];
    let conditions = Conditions::parse(&exec.args[3..])?;
    let number = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    let deadline = kind.absolute(number, exec.now_signed()).ok_or_else(|| Failure::invalid_expire(name))?;
    let Some(old) = exec.keys.get(key).filter(|old| conditions.allow(old, deadline)) else {
        exec.reply.int(0);
        return Ok(());
    };
    if exec.is_past(deadline) {
        exec.keys.delete(key);
    } else {
        exec.keys.put(key, Object { deadline_ms: deadline.unsigned_abs(), ..old });
    }
    exec.reply.int(1);
    Ok(())
}

/// PERSIST key
pub(crate) fn persist(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[1];
    let dated = exec.keys.get(key).filter(|object| object.deadline_ms != 0);
    exec.reply.int(i64::from(dated.is_some()));
    if let Some(object) = dated {
        exec.keys.put(key, Object { deadline_ms: 0, ..object });
    }
    Ok(())
}

/// TTL key: seconds, rounded to the nearest
pub(crate) fn ttl(exec: &mut Exec<'_>) -> Outcome {
    reply_deadline(exec, |deadline, now| (deadline - now + 500) / 1000)
}

/// PTTL key
pub(crate) fn pttl(exec: &mut Exec<'_>) -> Outcome {
    reply_deadline(exec, |deadline, now| deadline - now)
}

/// EXPIRETIME key
pub(crate) fn expiretime(exec: &mut Exec<'_>) -> Outcome {
    reply_deadline(exec, |deadline, _| (deadline + 500) / 1000)
}

/// PEXPIRETIME key
pub(crate) fn pexpiretime(exec: &mut Exec<'_>) -> Outcome {
    reply_deadline(exec, |deadline, _| deadline)
}

/// -2 without the key, -1 without a deadline, else what `tell` makes of deadline and now.
fn reply_deadline(exec: &mut Exec<'_>, tell: fn(i128, i128) -> i128) -> Outcome {
    let answer = match exec.keys.head(exec.args[1]) {
        None => -2,
        Some(head) if head.deadline_ms == 0 => -1,
        Some(head) => {
            let told = tell(i128::from(head.deadline_ms), i128::from(exec.now_ms));
            i64::try_from(told.max(0)).unwrap_or(i64::MAX)
        }
    };
    exec.reply.int(answer);
    Ok(())
}
