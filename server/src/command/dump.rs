//! DUMP and RESTORE: a value as bytes that travel.
//!
//! The payload is our own, since a value's inner form is. `docs/src/formats/dump-payload.md` describes it:
//!
//! ```text
//! ┌───────────────┬────────┬───────────────┬─────────────────────────────┐
//! │ magic "HFDUMP"│ kind u8│ data …        │ version u16 │ xxh3-64 (u64)  │  little-endian
//! └───────────────┴────────┴───────────────┴─────────────────────────────┘
//! ```
//!
//! The checksum covers everything before it. The payload of another Redis, or of a later version, is refused with the
//! words that Redis has for it. The deadline is not in the payload: RESTORE is told one.

use bytes::Bytes;
use holdfast_engine::table::{Object, ObjectKind};
use xxhash_rust::xxh3::xxh3_64;

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};

const MAGIC: &[u8; 6] = b"HFDUMP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1;
const FOOTER_BYTES: usize = 2 + 8;

/// The payload for a value.
fn encode(kind: ObjectKind, data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(HEADER_BYTES + data.len() + FOOTER_BYTES);
    payload.extend_from_slice(MAGIC);
    payload.push(kind as u8);
    payload.extend_from_slice(data);
    payload.extend_from_slice(&VERSION.to_le_bytes());
    let checksum = xxh3_64(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

/// The value in a payload.
///
/// # Errors
/// What isn't a payload of a version that we know, or was damaged; then what holds a kind of value that we don't know.
fn decode(payload: &[u8]) -> Result<(ObjectKind, &[u8]), Failure> {
    const REFUSED: Failure = Failure::fixed("ERR DUMP payload version or checksum are wrong");
    let (body, checksum) = payload.split_last_chunk::<8>().ok_or(REFUSED)?;
    let (rest, version) = body.split_last_chunk::<2>().ok_or(REFUSED)?;
    let (magic, rest) = rest.split_first_chunk::<6>().ok_or(REFUSED)?;
    let version = u16::from_le_bytes(*version);
    if magic != MAGIC || version == 0 || version > VERSION || u64::from_le_bytes(*checksum) != xxh3_64(body) {
        return Err(REFUSED);
    }
    const BAD_DATA: Failure = Failure::fixed("ERR Bad data format");
    let (kind, data) = rest.split_first().ok_or(BAD_DATA)?;
    Ok((ObjectKind::from_u8(*kind).ok_or(BAD_DATA)?, data))
}

/// DUMP key
pub(crate) fn dump(exec: &mut Exec<'_>) -> Outcome {
    match exec.keys.get(exec.args[1]) {
        Some(object) => exec.reply.bulk_shared(&Bytes::from(encode(object.kind, &object.data))),
        None => exec.reply.null(),
    }
    Ok(())
}

/// RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]
pub(crate) fn restore(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[1];
    let (mut replace, mut absolute) = (false, false);
    let (mut has_idle, mut has_frequency) = (false, false);
    let mut words = exec.args[4..].iter();
    while let Some(word) = words.next() {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        if is("replace") {
            replace = true;
        } else if is("absttl") {
            absolute = true;
        } else if is("idletime") && !has_frequency {
            // Checked, as Redis does; how recently a key was used is each node's own affair, and not restored.
            let seconds = parse_i64(words.next().ok_or(Failure::SYNTAX)?).ok_or(Failure::NOT_INTEGER)?;
            if seconds < 0 {
                return Err(Failure::fixed("ERR Invalid IDLETIME value, must be >= 0"));
            }
            has_idle = true;
        } else if is("freq") && !has_idle {
            let frequency = parse_i64(words.next().ok_or(Failure::SYNTAX)?).ok_or(Failure::NOT_INTEGER)?;
            if !(0..=255).contains(&frequency) {
                return Err(Failure::fixed("ERR Invalid FREQ value, must be >= 0 and <= 255"));
            }
            has_frequency = true;
        } else {
            return Err(Failure::SYNTAX);
        }
    }
    if !replace && exec.keys.exists(key) {
        return Err(Failure::fixed("BUSYKEY Target key name already exists."));
    }
    let ttl = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    if ttl < 0 {
        return Err(Failure::fixed("ERR Invalid TTL value, must be >= 0"));
    }
    let (kind, data) = decode(exec.args[3])?;
    if data.len() > exec.value_bytes_max {
        return Err(Failure::VALUE_TOO_LONG);
    }
    let deadline = match ttl {
        0 => None,
        ttl if absolute => Some(ttl),
        // Redis would wrap around; a deadline that no number can hold is refused instead.
        ttl => Some(ttl.checked_add(exec.now_signed()).ok_or_else(|| Failure::invalid_expire("restore"))?),
    };
    match deadline {
        Some(deadline) if exec.is_past(deadline) => {
            exec.keys.delete(key);
        }
        deadline => {
            let deadline_ms = deadline.map_or(0, i64::unsigned_abs);
            exec.keys.put(key, Object { kind, deadline_ms, data: Bytes::copy_from_slice(data) });
        }
    }
    exec.reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_keeps_its_bytes_for_ever() {
        let golden = encode(ObjectKind::String, b"value");
        assert_eq!(hex(&golden), "484644554d500076616c756501002ed3a9a4c2c10bb9");
        assert_eq!(decode(&golden), Ok((ObjectKind::String, b"value".as_slice())));
    }

    #[test]
    fn every_damaged_payload_is_refused() {
        let payload = encode(ObjectKind::String, b"some value");
        for len in 0..payload.len() {
            assert!(decode(&payload[..len]).is_err(), "cut at {len}");
        }
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_refused_though_intact() {
        let seal = |mut body: Vec<u8>| {
            let checksum = xxh3_64(&body);
            body.extend_from_slice(&checksum.to_le_bytes());
            body
        };
        let refused = |payload: &[u8]| decode(payload).expect_err("refused").text().to_string();
        assert_eq!(refused(&seal(b"HFDUMP\xffdata\x01\x00".to_vec())), "ERR Bad data format");
        assert_eq!(refused(&seal(b"HFDUMP\x01\x00".to_vec())), "ERR Bad data format");
        let wrong = "ERR DUMP payload version or checksum are wrong";
        assert_eq!(refused(&seal(b"HFDUMP\x00data\x02\x00".to_vec())), wrong);
        assert_eq!(refused(&seal(b"HFDUMP\x00data\x00\x00".to_vec())), wrong);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
