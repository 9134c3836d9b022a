//! Strings as arrays of bits. Bit 0 is the most significant bit of the first byte; beyond the end all bits are 0.

use bytes::Bytes;

use super::exec::{Exec, Outcome, editable};
use super::{Failure, parse_i64};

/// A bit's position, checked against the limit for values so that nothing is allocated for an absurd one.
///
/// # Errors
/// No number, negative, or in a byte beyond `value_bytes_max`.
pub(super) fn parse_offset(text: &[u8], value_bytes_max: usize) -> Result<u64, Failure> {
    parse_i64(text).and_then(|offset| check_offset(offset, value_bytes_max)).ok_or(BAD_OFFSET)
}

pub(super) const BAD_OFFSET: Failure = Failure::fixed("ERR bit offset is not an integer or out of range");

pub(super) fn check_offset(offset: i64, value_bytes_max: usize) -> Option<u64> {
    u64::try_from(offset).ok().filter(|offset| offset / 8 < value_bytes_max as u64)
}

fn bit_at(data: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset / 8).ok().and_then(|index| data.get(index));
    byte.is_some_and(|byte| byte & mask(offset) != 0)
}

fn mask(offset: u64) -> u8 {
    0x80 >> (offset % 8)
}

/// SETBIT key offset value
pub(crate) fn setbit(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[1];
    let offset = parse_offset(exec.args[2], exec.value_bytes_max)?;
    let on = match exec.args[3] {
        b"0" => false,
        b"1" => true,
        _ => return Err(Failure::fixed("ERR bit is not an integer or out of range")),
    };
    let (data, deadline_ms) = match exec.take_string(key)? {
        Some(object) => (object.data, object.deadline_ms),
        None => (Bytes::new(), 0),
    };
    let index = (offset / 8) as usize; // Less than value_bytes_max, which is a usize.
    let was = bit_at(&data, offset);
    let mut bytes = editable(data, index + 1);
    if bytes.len() <= index {
        bytes.resize(index + 1, 0);
    }
    if on {
        bytes[index] |= mask(offset);
    } else {
        bytes[index] &= !mask(offset);
    }
    exec.put_string(key, Bytes::from(bytes), deadline_ms);
    exec.reply.int(i64::from(was));
    Ok(())
}

/// GETBIT key offset
pub(crate) fn getbit(exec: &mut Exec<'_>) -> Outcome {
    let offset = parse_offset(exec.args[2], exec.value_bytes_max)?;
    let value = exec.string(exec.args[1])?;
    exec.reply.int(i64::from(value.is_some_and(|object| bit_at(&object.data, offset))));
    Ok(())
}

/// A part of a string in bits: from the first up to, but not including, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BitRange {
    first: u64,
    end: u64,
}

/// What BITCOUNT and BITPOS say about a range, before the length of the string is known.
struct RangeWords {
    start: i64,
    end: i64,
    in_bits: bool,
}

impl RangeWords {
    /// The range within a string of `len` bytes; none if it is empty.
    fn clipped_to(&self, len: usize) -> Option<BitRange> {
        let unit = if self.in_bits { 1 } else { 8 };
        let total = if self.in_bits { len.checked_mul(8)? } else { len };
        let (first, last) = super::strings::clipped_range(self.start, self.end, total)?;
        Some(BitRange { first: first as u64 * unit, end: (last as u64 + 1) * unit })
    }
}

fn parse_unit(word: &[u8]) -> Result<bool, Failure> {
    if word.eq_ignore_ascii_case(b"bit") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"byte") {
        Ok(false)
    } else {
        Err(Failure::SYNTAX)
    }
}

/// BITCOUNT key [start end [BYTE | BIT]]
pub(crate) fn bitcount(exec: &mut Exec<'_>) -> Outcome {
    let Some(object) = exec.string(exec.args[1])? else {
        // Redis doesn't read further when there is nothing to count.
        exec.reply.int(0);
        return Ok(());
    };
    let words = match &exec.args[2..] {
        [] => RangeWords { start: 0, end: -1, in_bits: false },
        [start, end, unit @ ..] if unit.len() <= 1 => {
            let start = parse_i64(start).ok_or(Failure::NOT_INTEGER)?;
            let end = parse_i64(end).ok_or(Failure::NOT_INTEGER)?;
            if start < 0 && end < 0 && start > end {
                // Empty whatever the unit, which Redis doesn't read then. BITPOS has no such rule.
                exec.reply.int(0);
                return Ok(());
            }
            RangeWords { start, end, in_bits: unit.first().map_or(Ok(false), |unit| parse_unit(unit))? }
        }
        _ => return Err(Failure::SYNTAX),
    };
    let count = words.clipped_to(object.data.len()).map_or(0, |range| count_ones(&object.data, range));
    exec.reply.int(count as i64);
    Ok(())
}

/// The bits of `range` in the byte at `index`; the others are 0.
fn masked(data: &[u8], range: BitRange, index: u64) -> u8 {
    let mut byte = data[index as usize];
    if index == range.first / 8 {
        byte &= 0xff >> (range.first % 8);
    }
    if index == range.end / 8 {
        byte &= !(0xff >> (range.end % 8));
    }
    byte
}

/// Requires a range that isn't empty and lies within `data`.
fn count_ones(data: &[u8], range: BitRange) -> u64 {
    let (first, last) = (range.first / 8, (range.end - 1) / 8);
    let mut count = u64::from(masked(data, range, first).count_ones());
    if last > first {
        count += u64::from(masked(data, range, last).count_ones());
        let (words, rest) = data[first as usize + 1..last as usize].as_chunks::<8>();
        count += words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum::<u64>();
        count += rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    }
    count
}

/// The first bit of `range` that is as wanted. Requires a range that isn't empty and lies within `data`.
fn find_bit(data: &[u8], range: BitRange, wanted: bool) -> Option<u64> {
    let (first, last) = (range.first / 8, (range.end - 1) / 8);
    let none = if wanted { 0x00 } else { 0xff };
    let mut index = first;
    while index <= last {
        let byte = data[index as usize];
        if index > first && byte == none {
            // Whole bytes without such a bit: skip the run of them.
            let run = &data[index as usize..=last as usize];
            let (words, _) = run.as_chunks::<8>();
            let skipped = words.iter().take_while(|word| **word == [none; 8]).count() as u64 * 8;
            index += skipped.max(1);
            continue;
        }
        let candidates = if wanted { byte } else { !byte };
        let candidates = if index == first { candidates & (0xff >> (range.first % 8)) } else { candidates };
        if candidates != 0 {
            let found = index * 8 + u64::from(candidates.leading_zeros());
            return (found < range.end).then_some(found);
        }
        index += 1;
    }
    None
}

/// BITPOS key bit [start [end [BYTE | BIT]]]
pub(crate) fn bitpos(exec: &mut Exec<'_>) -> Outcome {
    let wanted = match parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)? {
        0 => false,
        1 => true,
        _ => return Err(Failure::fixed("ERR The bit argument must be 1 or 0.")),
    };
    let Some(object) = exec.string(exec.args[1])? else {
        // An absent string is endless zeros.
        exec.reply.int(if wanted { -1 } else { 0 });
        return Ok(());
    };
    let integer = |word: &[u8]| parse_i64(word).ok_or(Failure::NOT_INTEGER);
    let mut words = RangeWords { start: 0, end: -1, in_bits: false };
    let mut end_given = false;
    match &exec.args[3..] {
        [] => {}
        [start] => words.start = integer(start)?,
        [start, end, unit @ ..] if unit.len() <= 1 => {
            words.start = integer(start)?;
            if let Some(unit) = unit.first() {
                words.in_bits = parse_unit(unit)?;
            }
            words.end = integer(end)?;
            end_given = true;
        }
        _ => return Err(Failure::SYNTAX),
    }
    let position = match words.clipped_to(object.data.len()) {
        None => -1,
        Some(range) => match find_bit(&object.data, range, wanted) {
            Some(position) => position as i64,
            // The zeros beyond the string count, unless the range was said to end before them.
            None if !wanted && !end_given => range.end as i64,
            None => -1,
        },
    };
    exec.reply.int(position);
    Ok(())
}

/// BITOP AND | OR | XOR | NOT destination key [key ...]
pub(crate) fn bitop(exec: &mut Exec<'_>) -> Outcome {
    let is = |name: &str| exec.args[1].eq_ignore_ascii_case(name.as_bytes());
    let (inverts, combine): (bool, fn(u8, u8) -> u8) = if is("and") {
        (false, |a, b| a & b)
    } else if is("or") {
        (false, |a, b| a | b)
    } else if is("xor") {
        (false, |a, b| a ^ b)
    } else if is("not") {
        if exec.args.len() != 4 {
            return Err(Failure::fixed("ERR BITOP NOT must be called with a single source key."));
        }
        (true, |a, _| a)
    } else {
        return Err(Failure::SYNTAX);
    };
    let target = exec.args[2];
    let mut sources = Vec::with_capacity(exec.args.len() - 3);
    for key in &exec.args[3..] {
        sources.push(exec.string(key)?.map_or(Bytes::new(), |object| object.data));
    }
    let longest = sources.iter().map(Bytes::len).max().unwrap_or(0);
    if longest == 0 {
        exec.keys.delete(target);
        exec.reply.int(0);
        return Ok(());
    }
    let mut result = Vec::with_capacity(longest);
    result.extend_from_slice(&sources[0]);
    result.resize(longest, 0);
    if inverts {
        result.iter_mut().for_each(|byte| *byte = !*byte);
    }
    for source in &sources[1..] {
        let (covered, beyond) = result.split_at_mut(source.len());
        covered.iter_mut().zip(source).for_each(|(byte, other)| *byte = combine(*byte, *other));
        beyond.iter_mut().for_each(|byte| *byte = combine(*byte, 0));
    }
    exec.put_string(target, Bytes::from(result), 0);
    exec.reply.int(longest as i64);
    Ok(())
}
