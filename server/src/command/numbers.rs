//! Strings as numbers: INCR and its relatives, and how numbers are read and written.
//!
//! Integers are read strictly, as Redis does: no sign but a minus, no leading zero, no space. What is stored is the
//! decimal text.
//!
//! INCRBYFLOAT computes in decimal, not in binary: both numbers become multiples of 10⁻¹⁷ in 128 bits, so that 0.1 + 0.2
//! is 0.3 on every machine. (Redis computes in C's `long double`, whose width and so whose result differs between
//! processors: replicas must not differ.) Numbers that are too large or too fine for that, beyond about 10²¹, are added
//! as 64-bit floating point.

use bytes::Bytes;

use super::exec::{Exec, Outcome, own};
use super::{Failure, parse_i64};

/// INCR key
pub(crate) fn incr(exec: &mut Exec<'_>) -> Outcome {
    add(exec, 1)
}

/// DECR key
pub(crate) fn decr(exec: &mut Exec<'_>) -> Outcome {
    add(exec, -1)
}

/// INCRBY key increment
pub(crate) fn incrby(exec: &mut Exec<'_>) -> Outcome {
    let increment = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    add(exec, increment)
}

/// DECRBY key decrement
pub(crate) fn decrby(exec: &mut Exec<'_>) -> Outcome {
    let decrement = parse_i64(exec.args[2]).ok_or(Failure::NOT_INTEGER)?;
    let increment = decrement.checked_neg().ok_or(Failure::fixed("ERR decrement would overflow"))?;
    add(exec, increment)
}

fn add(exec: &mut Exec<'_>, increment: i64) -> Outcome {
    let key = exec.args[1];
    let (value, deadline_ms) = match exec.string(key)? {
        Some(object) => (parse_i64(&object.data).ok_or(Failure::NOT_INTEGER)?, object.deadline_ms),
        None => (0, 0),
    };
    let sum = value.checked_add(increment).ok_or(Failure::OVERFLOW)?;
    exec.put_string(key, own(itoa::Buffer::new().format(sum).as_bytes()), deadline_ms);
    exec.reply.int(sum);
    Ok(())
}

/// INCRBYFLOAT key increment
pub(crate) fn incrbyfloat(exec: &mut Exec<'_>) -> Outcome {
    let key = exec.args[1];
    let old = exec.string(key)?;
    let deadline_ms = old.as_ref().map_or(0, |object| object.deadline_ms);
    let value = match &old {
        Some(object) => parse_decimal(&object.data).ok_or(Failure::NOT_FLOAT)?,
        None => Decimal::Exact(0),
    };
    let increment = parse_decimal(exec.args[2]).ok_or(Failure::NOT_FLOAT)?;
    let sum = value.plus(increment).ok_or(Failure::fixed("ERR increment would produce NaN or Infinity"))?;
    let text = Bytes::from(sum.to_text().into_bytes().into_boxed_slice());
    exec.reply.bulk(&text);
    exec.put_string(key, text, deadline_ms);
    Ok(())
}

/// Digits after the point that are kept.
const FRACTION_DIGITS: i64 = 17;
/// 10 to the power of [`FRACTION_DIGITS`].
const UNIT: i128 = 100_000_000_000_000_000;
/// The longest text that is read as a number, in bytes: Redis's buffer.
const NUMBER_BYTES_MAX: usize = 5 * 1024;

/// A number as INCRBYFLOAT computes with it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Decimal {
    /// A multiple of 10⁻¹⁷.
    Exact(i128),
    /// Too large or too fine for that.
    Binary(f64),
}

impl Decimal {
    /// The sum; none if it is not finite.
    fn plus(self, other: Decimal) -> Option<Decimal> {
        if let (Decimal::Exact(a), Decimal::Exact(b)) = (self, other)
            && let Some(sum) = a.checked_add(b)
        {
            return Some(Decimal::Exact(sum));
        }
        let sum = self.to_f64() + other.to_f64();
        sum.is_finite().then_some(Decimal::Binary(sum))
    }

    fn to_f64(self) -> f64 {
        match self {
            Decimal::Exact(scaled) => scaled as f64 / UNIT as f64,
            Decimal::Binary(value) => value,
        }
    }

    /// Plain decimal notation without needless zeros.
    fn to_text(self) -> String {
        let text = match self {
            Decimal::Exact(scaled) => {
                let sign = if scaled < 0 { "-" } else { "" };
                let (whole, fraction) = (scaled.unsigned_abs() / UNIT as u128, scaled.unsigned_abs() % UNIT as u128);
                format!("{sign}{whole}.{fraction:017}")
            }
            Decimal::Binary(value) => format!("{value:.17}"),
        };
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if text == "-0" { "0".to_string() } else { text.to_string() }
    }
}

/// Reads a number as INCRBYFLOAT takes it: decimal, with a point and an exponent if need be; `inf` and `infinity` too.
/// Not a number, spaces, or C's hexadecimal notation: none.
fn parse_decimal(text: &[u8]) -> Option<Decimal> {
    if text.is_empty() || text.len() > NUMBER_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    // The standard parser decides what is a number; its value is kept where decimal arithmetic can't hold it.
    let value: f64 = text.parse().ok()?;
    if value.is_nan() {
        return None;
    }
    Some(exact(text).map_or(Decimal::Binary(value), Decimal::Exact))
}

/// The value of well-formed decimal text as a multiple of 10⁻¹⁷, if it is one and fits.
fn exact(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa.as_bytes() {
        [b'-', ..] => (true, &mantissa[1..]),
        [b'+', ..] => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut digits: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        digits = digits.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    if digits == 0 {
        return Some(0);
    }
    let fraction_len = i64::try_from(fraction.len()).ok()?;
    let mut shift = exponent.checked_sub(fraction_len)?.checked_add(FRACTION_DIGITS)?;
    while shift < 0 && digits % 10 == 0 {
        digits /= 10;
        shift += 1;
    }
    let power = 10i128.checked_pow(u32::try_from(shift).ok()?)?;
    let scaled = digits.checked_mul(power)?;
    Some(if negative { -scaled } else { scaled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_strictly() {
        for (text, value) in
            [("0", 0), ("-1", -1), ("42", 42), ("9223372036854775807", i64::MAX), ("-9223372036854775808", i64::MIN)]
        {
            assert_eq!(parse_i64(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "-0",
            "+1",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "a",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999",
            "1\0",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn decimal_sums_are_exact() {
        let sum = |a: &str, b: &str| {
            let (a, b) = (parse_decimal(a.as_bytes()).expect("a"), parse_decimal(b.as_bytes()).expect("b"));
            a.plus(b).map(Decimal::to_text)
        };
        for (a, b, text) in [
            ("0.1", "0.2", "0.3"),
            ("3", "-3", "0"),
            ("-1.5", "0.25", "-1.25"),
            ("1000.1", "0.1", "1000.2"),
            ("5.0e3", "2.0e2", "5200"),
            ("1e-3", "0", "0.001"),
            ("1e1000", "0", "none"),
            ("+1.", ".5", "1.5"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
            ("123456789012345678901", "0.5", "123456789012345678901.5"),
            ("0e999999999999999999999", "1", "1"),
        ] {
            assert_eq!(sum(a, b).as_deref().unwrap_or("none"), text, "{a} + {b}");
        }
        assert_eq!(sum("1e30", "1e30").expect("finite").len(), 31);
        assert_eq!(sum("inf", "-inf"), None);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " 1", "1 ", "nan", "-nan", "0x10", "1e", "e1", ".", "1.2.3", "--1"] {
            assert_eq!(parse_decimal(text.as_bytes()), None, "{text:?}");
        }
    }
}
