//! BITFIELD: integers of 1 to 64 bits at any place within a string.

use bytes::Bytes;

use super::bits::{BAD_OFFSET, check_offset};
use super::exec::{Exec, Outcome, editable};
use super::{Failure, parse_i64};

/// How many bits an integer has, and whether the first is its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Encoding {
    signed: bool,
    bits: u32,
}

impl Encoding {
    /// `i1` to `i64`, `u1` to `u63`.
    fn parse(text: &[u8]) -> Result<Self, Failure> {
        const INVALID: Failure = Failure::fixed(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        );
        let (letter, width) = text.split_first().ok_or(INVALID)?;
        let (signed, bits_max) = match letter {
            b'i' => (true, 64),
            b'u' => (false, 63),
            _ => return Err(INVALID),
        };
        let bits = parse_i64(width).filter(|bits| (1..=bits_max).contains(bits)).ok_or(INVALID)?;
        Ok(Encoding { signed, bits: bits as u32 })
    }

    fn min(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    fn max(self) -> i128 {
        if self.signed { (1 << (self.bits - 1)) - 1 } else { (1 << self.bits) - 1 }
    }

    /// The integer whose lowest bits these are.
    fn wrapped(self, low: u64) -> i128 {
        let low = i128::from(low) & ((1 << self.bits) - 1);
        if low > self.max() { low - (1 << self.bits) } else { low }
    }
}

/// What happens to a result that doesn't fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    /// The lowest bits stay.
    Wrap,
    /// The nearest number that fits.
    Saturate,
    /// Nothing is written, null is answered.
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Increment(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    action: Action,
    encoding: Encoding,
    offset: u64,
    overflow: Overflow,
}

impl Operation {
    /// The position after the last bit.
    fn end(&self) -> u64 {
        self.offset + u64::from(self.encoding.bits)
    }
}

fn parse(words: &[&[u8]], value_bytes_max: usize) -> Result<Vec<Operation>, Failure> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = words;
    while let [word, arguments @ ..] = rest {
        let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let taken = match arguments {
            [_, _, ..] if is("get") => 2,
            [_, _, _, ..] if is("set") || is("incrby") => 3,
            [how, ..] if is("overflow") => {
                overflow = parse_overflow(how)?;
                rest = &arguments[1..];
                continue;
            }
            _ => return Err(Failure::SYNTAX),
        };
        let encoding = Encoding::parse(arguments[0])?;
        let offset = parse_place(arguments[1], encoding, value_bytes_max)?;
        let action = if taken == 2 {
            Action::Get
        } else {
            let number = parse_i64(arguments[2]).ok_or(Failure::NOT_INTEGER)?;
            if is("set") { Action::Set(number) } else { Action::Increment(number) }
        };
        operations.push(Operation { action, encoding, offset, overflow });
        rest = &arguments[taken..];
    }
    Ok(operations)
}

fn parse_overflow(word: &[u8]) -> Result<Overflow, Failure> {
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("wrap") {
        Ok(Overflow::Wrap)
    } else if is("sat") {
        Ok(Overflow::Saturate)
    } else if is("fail") {
        Ok(Overflow::Fail)
    } else {
        Err(Failure::fixed("ERR Invalid OVERFLOW type specified"))
    }
}

/// A position in bits, or, after `#`, in integers of this width.
fn parse_place(text: &[u8], encoding: Encoding, value_bytes_max: usize) -> Result<u64, Failure> {
    let (number, unit) = match text {
        [b'#', number @ ..] => (number, i64::from(encoding.bits)),
        number => (number, 1),
    };
    parse_i64(number)
        .and_then(|number| number.checked_mul(unit))
        .and_then(|offset| check_offset(offset, value_bytes_max))
        .ok_or(BAD_OFFSET)
}

/// Whether a request has no operation that writes.
pub(super) fn reads_only(args: &[&[u8]]) -> bool {
    let words = args.get(2..).unwrap_or_default();
    parse(words, usize::MAX).is_ok_and(|operations| operations.iter().all(|operation| operation.action == Action::Get))
}

/// BITFIELD key [GET encoding offset | [OVERFLOW how] SET encoding offset value | INCRBY encoding offset increment ...]
pub(crate) fn bitfield(exec: &mut Exec<'_>) -> Outcome {
    run(exec, false)
}

/// BITFIELD_RO key [GET encoding offset ...]
pub(crate) fn bitfield_ro(exec: &mut Exec<'_>) -> Outcome {
    run(exec, true)
}

fn run(exec: &mut Exec<'_>, read_only: bool) -> Outcome {
    let key = exec.args[1];
    let operations = parse(&exec.args[2..], exec.value_bytes_max)?;
    let written = operations.iter().filter(|operation| operation.action != Action::Get).map(Operation::end).max();
    let Some(written) = written else {
        let value = exec.string(key)?;
        let data = value.as_ref().map_or([].as_slice(), |object| &object.data);
        exec.reply.array(operations.len());
        for operation in &operations {
            let low = read_bits(data, operation.offset, operation.encoding.bits);
            exec.reply.int(operation.encoding.wrapped(low) as i64);
        }
        return Ok(());
    };
    if read_only {
        return Err(Failure::fixed("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    // The string grows to the last bit that any operation may write, even if that one fails.
    let bytes_wanted = usize::try_from(written.div_ceil(8)).map_err(|_| Failure::VALUE_TOO_LONG)?;
    let old = exec.take_string(key)?;
    if bytes_wanted > exec.value_bytes_max {
        if let Some(object) = old {
            exec.keys.put(key, object);
        }
        return Err(Failure::VALUE_TOO_LONG);
    }
    let (data, deadline_ms) = old.map_or((Bytes::new(), 0), |object| (object.data, object.deadline_ms));
    let mut bytes = editable(data, bytes_wanted);
    if bytes.len() < bytes_wanted {
        bytes.resize(bytes_wanted, 0);
    }
    exec.reply.array(operations.len());
    for operation in &operations {
        match apply(&mut bytes, operation) {
            Some(answer) => exec.reply.int(answer),
            None => exec.reply.null(),
        }
    }
    exec.put_string(key, Bytes::from(bytes), deadline_ms);
    Ok(())
}

/// Runs one operation; none if its result doesn't fit and mustn't be bent.
fn apply(bytes: &mut [u8], operation: &Operation) -> Option<i64> {
    let Operation { action, encoding, offset, overflow } = *operation;
    let old = encoding.wrapped(read_bits(bytes, offset, encoding.bits));
    let wanted = match action {
        Action::Get => return Some(old as i64),
        // A negative number for an unsigned integer is a very large one, as in C.
        Action::Set(value) if !encoding.signed => i128::from(value.cast_unsigned()),
        Action::Set(value) => i128::from(value),
        Action::Increment(increment) => old + i128::from(increment),
    };
    let fits = (encoding.min()..=encoding.max()).contains(&wanted);
    let new = match overflow {
        _ if fits => wanted,
        Overflow::Wrap => encoding.wrapped(wanted as u64),
        Overflow::Saturate => wanted.clamp(encoding.min(), encoding.max()),
        Overflow::Fail => return None,
    };
    write_bits(bytes, offset, encoding.bits, new as u64);
    let answer = if matches!(action, Action::Set(_)) { old } else { new };
    Some(answer as i64)
}

/// The bits from `offset` on as the low bits of a number; beyond the data they are 0.
fn read_bits(data: &[u8], offset: u64, bits: u32) -> u64 {
    // Any 64 bits lie within 9 bytes.
    let mut window = [0; 16];
    let first = usize::try_from(offset / 8).unwrap_or(usize::MAX);
    for (index, byte) in window.iter_mut().take(9).enumerate() {
        *byte = first.checked_add(index).and_then(|at| data.get(at)).copied().unwrap_or(0);
    }
    let shift = 128 - (offset % 8) as u32 - bits;
    (u128::from_be_bytes(window) >> shift) as u64 & low_mask(bits)
}

/// Requires that all of the bits lie within `data`.
fn write_bits(data: &mut [u8], offset: u64, bits: u32, value: u64) {
    let first = (offset / 8) as usize;
    let shift = 128 - (offset % 8) as u32 - bits;
    let mask = (u128::from(low_mask(bits)) << shift).to_be_bytes();
    let value = (u128::from(value & low_mask(bits)) << shift).to_be_bytes();
    for (index, (mask, value)) in mask.iter().zip(value).enumerate() {
        if *mask != 0 {
            data[first + index] = data[first + index] & !mask | value;
        }
    }
}

fn low_mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}
