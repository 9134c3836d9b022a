//! A stored reply, in the protocol that a client speaks.

use crate::resp::{Proto, Reply, Value};

/// Writes a reply that was encoded in RESP3.
pub fn write_reply(stored: &[u8], reply: &mut Reply) {
    match stored.first() {
        Some(b'-') => {
            let text = String::from_utf8_lossy(&stored[1..]);
            reply.error(text.trim_end_matches(['\r', '\n']));
        }
        // The same in both versions; and most replies are one of these.
        Some(b'+' | b':' | b'$') => reply.output_mut().extend(stored),
        _ if reply.proto() == Proto::Resp3 => reply.output_mut().extend(stored),
        _ => match Value::parse(stored) {
            Ok(Some((value, _))) => write_value(&value, reply),
            // Handlers write whole replies: a program's mistake, and no reason to leave the client without an answer.
            Ok(None) | Err(_) => reply.error("ERR the stored reply can't be read"),
        },
    }
}

fn write_value(value: &Value, reply: &mut Reply) {
    match value {
        Value::Simple(text) => reply.simple(text),
        Value::Error(text) => reply.error(text),
        Value::Int(number) => reply.int(*number),
        Value::Bulk(bytes) => reply.bulk(bytes),
        Value::Null => reply.null(),
        Value::Double(number) => reply.double(*number),
        Value::Boolean(truth) => reply.boolean(*truth),
        Value::BigNumber(digits) => reply.big_number(digits),
        Value::Map(pairs) => {
            reply.map(pairs.len());
            for (key, value) in pairs {
                write_value(key, reply);
                write_value(value, reply);
            }
        }
        Value::Array(values) | Value::Set(values) | Value::Push(values) => {
            match value {
                Value::Set(_) => reply.set(values.len()),
                Value::Push(_) => reply.push(values.len()),
                _ => reply.array(values.len()),
            }
            values.iter().for_each(|value| write_value(value, reply));
        }
    }
}
