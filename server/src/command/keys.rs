//! Keys whatever they hold: deleting, counting, renaming, copying.

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};

/// DEL key [key ...], and UNLINK: freeing memory is cheap either way.
pub(crate) fn del(exec: &mut Exec<'_>) -> Outcome {
    let deleted = exec.args[1..].iter().filter(|key| exec.keys.delete(key)).count();
    exec.reply.int(deleted as i64);
    Ok(())
}

/// EXISTS key [key ...], and TOUCH: a key named twice counts twice.
pub(crate) fn exists(exec: &mut Exec<'_>) -> Outcome {
    let found = exec.args[1..].iter().filter(|key| exec.keys.exists(key)).count();
    exec.reply.int(found as i64);
    Ok(())
}

/// TOUCH key [key ...]: looking at a key is what makes it recently used.
pub(crate) fn touch(exec: &mut Exec<'_>) -> Outcome {
    let found = exec.args[1..].iter().filter(|key| exec.keys.head(key).is_some()).count();
    exec.reply.int(found as i64);
    Ok(())
}

/// TYPE key
pub(crate) fn type_of(exec: &mut Exec<'_>) -> Outcome {
    let name = exec.keys.head(exec.args[1]).map_or("none", |head| super::object::type_name(head.kind));
    exec.reply.simple(name);
    Ok(())
}

/// RENAME key newkey: the deadline moves along.
pub(crate) fn rename(exec: &mut Exec<'_>) -> Outcome {
    let (source, target) = (exec.args[1], exec.args[2]);
    let object = exec.keys.get(source).ok_or(Failure::NO_SUCH_KEY)?;
    if source != target {
        exec.keys.delete(source);
        exec.keys.put(target, object);
    }
    exec.reply.ok();
    Ok(())
}

/// RENAMENX key newkey
pub(crate) fn renamenx(exec: &mut Exec<'_>) -> Outcome {
    let (source, target) = (exec.args[1], exec.args[2]);
    let object = exec.keys.get(source).ok_or(Failure::NO_SUCH_KEY)?;
    let renames = !exec.keys.exists(target);
    if renames {
        exec.keys.delete(source);
        exec.keys.put(target, object);
    }
    exec.reply.int(i64::from(renames));
    Ok(())
}

/// COPY source destination [DB 0] [REPLACE]: the copy shares the bytes until one of the two changes.
pub(crate) fn copy(exec: &mut Exec<'_>) -> Outcome {
    let (source, target) = (exec.args[1], exec.args[2]);
    let mut replace = false;
    let mut words = exec.args[3..].iter();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if word.eq_ignore_ascii_case(b"db") {
            let number = parse_i64(words.next().ok_or(Failure::SYNTAX)?).ok_or(Failure::NOT_INTEGER)?;
            let number = i32::try_from(number).map_err(|_| Failure::NOT_INTEGER)?;
            if number != 0 {
                return Err(Failure::fixed("ERR DB index is out of range"));
            }
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    if source == target {
        return Err(Failure::SAME_OBJECT);
    }
    let object = exec.keys.get(source);
    let copies = object.is_some() && (replace || !exec.keys.exists(target));
    if let Some(object) = object.filter(|_| copies) {
        exec.keys.put(target, object);
    }
    exec.reply.int(i64::from(copies));
    Ok(())
}

/// FLUSHDB [ASYNC | SYNC], and FLUSHALL: there is one database. Takes constant time either way.
pub(crate) fn flush(exec: &mut Exec<'_>) -> Outcome {
    match &exec.args[1..] {
        [] => {}
        [word] if word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async") => {}
        _ => return Err(Failure::SYNTAX),
    }
    exec.keys.flush_all();
    exec.reply.ok();
    Ok(())
}
