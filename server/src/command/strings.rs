//! Strings: whole values, and parts of them.

use bytes::Bytes;
use holdfast_engine::table::{Head, Object, ObjectKind};

use super::exec::{Exec, Outcome, editable, own};
use super::expire::{Deadline, parse_deadline};
use super::{Failure, Needs, parse_i64};

/// GET key
pub(crate) fn get(exec: &mut Exec<'_>) -> Outcome {
    let value = exec.string(exec.args[1])?;
    exec.reply_string(value.as_ref());
    Ok(())
}

/// MGET key [key ...]: what isn't a string is null, as what isn't there.
pub(crate) fn mget(exec: &mut Exec<'_>) -> Outcome {
    let keys = &exec.args[1..];
    exec.reply.array(keys.len());
    for key in keys {
        let value = exec.string(key).ok().flatten();
        exec.reply_string(value.as_ref());
    }
    Ok(())
}

/// STRLEN key
pub(crate) fn strlen(exec: &mut Exec<'_>) -> Outcome {
    let head = exec.keys.head(exec.args[1]);
    if head.is_some_and(|head| head.kind != ObjectKind::String) {
        return Err(Failure::WRONG_TYPE);
    }
    exec.reply.int(head.map_or(0, |head| head.data_bytes as i64));
    Ok(())
}

/// When SET writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Condition<'a> {
    #[default]
    Always,
    /// NX
    Absent,
    /// XX
    Present,
    /// IFEQ
    Equal(&'a [u8]),
}

/// What becomes of the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Expiry<'a> {
    /// The key never expires.
    #[default]
    None,
    /// KEEPTTL
    Keep,
    /// EX, PX, EXAT, PXAT and the number
    At(Deadline, &'a [u8]),
}

#[derive(Debug, Clone, Copy, Default)]
struct SetOptions<'a> {
    condition: Condition<'a>,
    expiry: Expiry<'a>,
    get: bool,
}

impl Expiry<'_> {
    fn may_become(&self, kind: Deadline) -> bool {
        match self {
            Expiry::None => true,
            Expiry::Keep => false,
            Expiry::At(already, _) => *already == kind,
        }
    }
}

/// Reads the options of SET. As in Redis, an option may be repeated and the last one counts; those that exclude each
/// other don't come together.
fn parse_set<'a>(words: &[&'a [u8]]) -> Result<SetOptions<'a>, Failure> {
    let mut options = SetOptions::default();
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let unconditional = options.condition == Condition::Always;
        if is("nx") && (unconditional || options.condition == Condition::Absent) {
            options.condition = Condition::Absent;
        } else if is("xx") && (unconditional || options.condition == Condition::Present) {
            options.condition = Condition::Present;
        } else if is("ifeq") && unconditional {
            options.condition = Condition::Equal(words.next().ok_or(Failure::SYNTAX)?);
        } else if is("get") {
            options.get = true;
        } else if is("keepttl") && matches!(options.expiry, Expiry::None | Expiry::Keep) {
            options.expiry = Expiry::Keep;
        } else if let Some(kind) = Deadline::from_word(word)
            && options.expiry.may_become(kind)
        {
            options.expiry = Expiry::At(kind, words.next().ok_or(Failure::SYNTAX)?);
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    Ok(options)
}

impl SetOptions<'_> {
    /// What the options make SET look at.
    fn needs(&self) -> Needs {
        if self.get || matches!(self.condition, Condition::Equal(_)) {
            Needs::Values
        } else if self.expiry == Expiry::Keep || self.condition != Condition::Always {
            Needs::Heads
        } else {
            Needs::Nothing
        }
    }
}

/// What a SET with options needs to know of its key. Options that don't parse write nothing.
pub(crate) fn set_needs(args: &[&[u8]]) -> Needs {
    parse_set(args.get(3..).unwrap_or_default()).map_or(Needs::Nothing, |options| options.needs())
}

/// SET key value [NX | XX | IFEQ comparison] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
pub(crate) fn set(exec: &mut Exec<'_>) -> Outcome {
    let (key, value) = (exec.args[1], exec.args[2]);
    if exec.args.len() == 3 {
        // By far the most frequent of all writes: nothing to look at, nothing to parse.
        exec.put_string(key, own(value), 0);
        exec.reply.ok();
        return Ok(());
    }
    let options = parse_set(&exec.args[3..])?;
    let deadline = match options.expiry {
        Expiry::At(kind, number) => Some(parse_deadline(kind, number, exec.now_signed(), "set")?),
        Expiry::None | Expiry::Keep => None,
    };
    let old = match options.needs() {
        Needs::Values => exec.string(key)?,
        Needs::Heads | Needs::Nothing => None,
    };
    let head = match options.needs() {
        Needs::Heads => exec.keys.head(key),
        Needs::Values | Needs::Nothing => old.as_ref().map(Head::from),
    };
    let writes = match options.condition {
        Condition::Always => true,
        Condition::Absent => head.is_none(),
        Condition::Present => head.is_some(),
        Condition::Equal(wanted) => old.as_ref().is_some_and(|object| object.data == wanted),
    };
    if writes {
        let kept = head.map_or(0, |head| head.deadline_ms);
        match deadline {
            Some(deadline) if exec.is_past(deadline) => {
                exec.keys.delete(key);
            }
            Some(deadline) => exec.put_string(key, own(value), deadline.unsigned_abs()),
            None if options.expiry == Expiry::Keep => exec.put_string(key, own(value), kept),
            None => exec.put_string(key, own(value), 0),
        }
    }
    match (options.get, writes) {
        (true, _) => exec.reply_string(old.as_ref()),
        (false, true) => exec.reply.ok(),
        (false, false) => exec.reply.null(),
    }
    Ok(())
}

/// SETNX key value
pub(crate) fn setnx(exec: &mut Exec<'_>) -> Outcome {
    let absent = !exec.keys.exists(exec.args[1]);
    if absent {
        exec.put_string(exec.args[1], own(exec.args[2]), 0);
    }
    exec.reply.int(i64::from(absent));
    Ok(())
}

/// SETEX key seconds value
pub(crate) fn setex(exec: &mut Exec<'_>) -> Outcome {
    set_for(exec, Deadline::Seconds, "setex")
}

/// PSETEX key milliseconds value
pub(crate) fn psetex(exec: &mut Exec<'_>) -> Outcome {
    set_for(exec, Deadline::Milliseconds, "psetex")
}

fn set_for(exec: &mut Exec<'_>, kind: Deadline, name: &str) -> Outcome {
    // A positive time from now is in the future, so it is a deadline that a key can have.
    let deadline = parse_deadline(kind, exec.args[2], exec.now_signed(), name)?;
    exec.put_string(exec.args[1], own(exec.args[3]), deadline.unsigned_abs());
    exec.reply.ok();
    Ok(())
}

/// GETSET key value
pub(crate) fn getset(exec: &mut Exec<'_>) -> Outcome {
    let old = exec.string(exec.args[1])?;
    exec.put_string(exec.args[1], own(exec.args[2]), 0);
    exec.reply_string(old.as_ref());
    Ok(())
}

/// GETDEL key
pub(crate) fn getdel(exec: &mut Exec<'_>) -> Outcome {
    let old = exec.string(exec.args[1])?;
    if old.is_some() {
        exec.keys.delete(exec.args[1]);
    }
    exec.reply_string(old.as_ref());
    Ok(())
}

/// GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]
pub(crate) fn getex(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[1];
    let mut at = None;
    let mut persist = false;
    let mut words = exec.args[2..].iter().copied();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"persist") && at.is_none() {
            persist = true;
        } else if let Some(kind) = Deadline::from_word(word)
            && at.is_none_or(|(already, _)| already == kind)
            && !persist
        {
            at = Some((kind, words.next().ok_or(Failure::SYNTAX)?));
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    let Some(old) = exec.string(key)? else {
        exec.reply.null();
        return Ok(());
    };
    let deadline = match at {
        Some((kind, number)) => Some(parse_deadline(kind, number, exec.now_signed(), "getex")?),
        None => None,
    };
    match deadline {
        Some(deadline) if exec.is_past(deadline) => {
            exec.keys.delete(key);
        }
        Some(deadline) => exec.keys.put(key, Object { deadline_ms: deadline.unsigned_abs(), ..old.clone() }),
        None if persist && old.deadline_ms != 0 => exec.keys.put(key, Object { deadline_ms: 0, ..old.clone() }),
        None => {}
    }
    exec.reply_string(Some(&old));
    Ok(())
}

/// MSET key value [key value ...]
pub(crate) fn mset(exec: &mut Exec<'_>) -> Outcome {
    let pairs = pairs(exec, "mset")?;
    for pair in pairs.chunks_exact(2) {
        exec.put_string(pair[0], own(pair[1]), 0);
    }
    exec.reply.ok();
    Ok(())
}

/// MSETNX key value [key value ...]: all or none.
pub(crate) fn msetnx(exec: &mut Exec<'_>) -> Outcome {
    let pairs = pairs(exec, "msetnx")?;
    let none_exists = !pairs.chunks_exact(2).any(|pair| exec.keys.exists(pair[0]));
    if none_exists {
        for pair in pairs.chunks_exact(2) {
            exec.put_string(pair[0], own(pair[1]), 0);
        }
    }
    exec.reply.int(i64::from(none_exists));
    Ok(())
}

fn pairs<'a>(exec: &Exec<'a>, name: &str) -> Result<&'a [&'a [u8]], Failure> {
    let pairs = &exec.args[1..];
    if pairs.len().is_multiple_of(2) { Ok(pairs) } else { Err(Failure::wrong_arity(name)) }
}

/// APPEND key value
pub(crate) fn append(exec: &mut Exec<'_>) -> Outcome {
    let (key, tail) = (exec.args[1], exec.args[2]);
    let Some(object) = exec.take_string(key)? else {
        exec.put_string(key, own(tail), 0);
        exec.reply.int(tail.len() as i64);
        return Ok(());
    };
    let total = object.data.len() + tail.len();
    if total > exec.value_bytes_max {
        exec.keys.put(key, object);
        return Err(Failure::VALUE_TOO_LONG);
    }
    let mut bytes = editable(object.data, total);
    bytes.extend_from_slice(tail);
    exec.put_string(key, Bytes::from(bytes), object.deadline_ms);
    exec.reply.int(total as i64);
    Ok(())
}

/// SETRANGE key offset value
pub(crate) fn setrange(exec: &mut Exec<'_>) -> Outcome {
    let (key, patch) = (exec.args[1], exec.args[3]);
    let offset = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    let offset = u64::try_from(offset).map_err(|_| Failure::fixed("ERR offset is out of range"))?;
    if patch.is_empty() {
        // Nothing is written, not even the zeros before the offset.
        let old = exec.string(key)?;
        exec.reply.int(old.map_or(0, |object| object.data.len() as i64));
        return Ok(());
    }
    let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(patch.len()));
    let end = end.filter(|&end| end <= exec.value_bytes_max);
    let old = exec.take_string(key)?;
    let Some(end) = end else {
        if let Some(object) = old {
            exec.keys.put(key, object);
        }
        return Err(Failure::VALUE_TOO_LONG);
    };
    let (data, deadline_ms) = old.map_or((Bytes::new(), 0), |object| (object.data, object.deadline_ms));
    let mut bytes = editable(data, end);
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[end - patch.len()..end].copy_from_slice(patch);
    exec.reply.int(bytes.len() as i64);
    exec.put_string(key, Bytes::from(bytes), deadline_ms);
    Ok(())
}

/// GETRANGE key start end, and SUBSTR, its old name.
pub(crate) fn getrange(exec: &mut Exec<'_>) -> Outcome {
    let start = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    let end = parse_i64(exec.args[3]).ok_or(Failure::NOT_INTEGER)?;
    let data = exec.string(exec.args[1])?.map_or(Bytes::new(), |object| object.data);
    match inclusive_range(start, end, data.len()) {
        Some((first, last)) => exec.reply.bulk_shared(&data.slice(first..=last)),
        None => exec.reply.bulk(b""),
    }
    Ok(())
}

/// Turns inclusive positions, of which negative ones count from the end, into a range within `len`; none if it is empty.
/// Two negative ones in the wrong order are an empty range, even where both lie before the beginning.
pub(crate) fn inclusive_range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && start > end { None } else { clipped_range(start, end, len) }
}

/// Like [`inclusive_range`], but positions before the beginning are the beginning, whatever their order.
pub(crate) fn clipped_range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let clip = |position: i64| if position < 0 { position.saturating_add(len).max(0) } else { position };
    let (start, end) = (clip(start), clip(end).min(len - 1));
    if start > end { None } else { Some((usize::try_from(start).ok()?, usize::try_from(end).ok()?)) }
}
