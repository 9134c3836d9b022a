//! Bit operations compared with a model that holds every bit by itself.

use holdfast_server::command::mem::MemKeyspace;
use holdfast_server::resp::{Proto, Value};
use proptest::prelude::*;

fn run(keys: &mut MemKeyspace, request: &[&[u8]]) -> Value {
    let reply = keys.run(Proto::Resp3, request);
    Value::parse(&reply).expect("a reply").expect("a whole reply").0
}

fn ask(keys: &mut MemKeyspace, request: &str) -> Value {
    run(keys, &request.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn with(data: &[u8]) -> MemKeyspace {
    let mut keys = MemKeyspace::new(1);
    run(&mut keys, &[b"set", b"k", data]);
    keys
}

fn value(keys: &mut MemKeyspace, key: &str) -> Vec<u8> {
    match ask(keys, &format!("get {key}")) {
        Value::Bulk(bytes) => bytes,
        Value::Null => Vec::new(),
        other => panic!("no string: {other:?}"),
    }
}

fn to_bits(data: &[u8]) -> Vec<bool> {
    data.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0)).collect()
}

fn to_bytes(bits: &[bool]) -> Vec<u8> {
    bits.chunks(8).map(|bits| bits.iter().enumerate().map(|(at, bit)| u8::from(*bit) << (7 - at)).sum()).collect()
}

/// Redis's inclusive range in units of `unit` bits, as the positions of bits.
fn range(total_bits: usize, start: i64, end: i64, unit: i64) -> std::ops::Range<usize> {
    let total = total_bits as i64 / unit;
    let from_end = |position: i64| if position < 0 { (total + position).max(0) } else { position };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end { 0..0 } else { (start * unit) as usize..((end + 1) * unit) as usize }
}

/// Strings with long runs of equal bytes, so that whole words are skipped.
fn data() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec((prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1usize..30), 0..6)
        .prop_map(|runs| runs.into_iter().flat_map(|(byte, len)| std::iter::repeat_n(byte, len)).collect())
}

proptest! {
    #[test]
    fn bitcount_and_bitpos_agree_with_the_model(
        data in data(),
        start in -200i64..200,
        end in -200i64..200,
        in_bits: bool,
        wanted: bool,
    ) {
        let mut keys = with(&data);
        let bits = to_bits(&data);
        let (unit, name) = if in_bits { (1, "bit") } else { (8, "byte") };
        let within = range(bits.len(), start, end, unit);
        // For BITCOUNT alone, two negative positions in the wrong order are empty even before the beginning.
        let counted = if start < 0 && end < 0 && start > end { 0..0 } else { within.clone() };
        let count = bits[counted].iter().filter(|bit| **bit).count();
        prop_assert_eq!(ask(&mut keys, &format!("bitcount k {start} {end} {name}")), Value::Int(count as i64));
        let found = bits[within.clone()].iter().position(|bit| *bit == wanted);
        let position = found.map_or(-1, |at| (within.start + at) as i64);
        let wanted = i32::from(wanted);
        prop_assert_eq!(ask(&mut keys, &format!("bitpos k {wanted} {start} {end} {name}")), Value::Int(position));
        // Without an end, the zeros beyond the string count.
        let within = range(bits.len(), start, -1, 8);
        let found = bits[within.clone()].iter().position(|bit| i32::from(*bit) == wanted);
        let position = match found {
            Some(at) => (within.start + at) as i64,
            None if wanted == 0 && !within.is_empty() => bits.len() as i64,
            None => -1,
        };
        prop_assert_eq!(ask(&mut keys, &format!("bitpos k {wanted} {start}")), Value::Int(position));
    }

    #[test]
    fn setbit_and_getbit_agree_with_the_model(data in data(), steps in proptest::collection::vec((0usize..2000, any::<bool>()), 1..30)) {
        let mut keys = with(&data);
        let mut bits = to_bits(&data);
        for (offset, on) in steps {
            let was = bits.get(offset).copied().unwrap_or(false);
            prop_assert_eq!(ask(&mut keys, &format!("getbit k {offset}")), Value::Int(i64::from(was)));
            prop_assert_eq!(ask(&mut keys, &format!("setbit k {offset} {}", i32::from(on))), Value::Int(i64::from(was)));
            let len = bits.len().max((offset / 8 + 1) * 8);
            bits.resize(len, false);
            bits[offset] = on;
            prop_assert_eq!(value(&mut keys, "k"), to_bytes(&bits));
        }
    }

    #[test]
    fn bitop_agrees_with_the_model(sources in proptest::collection::vec(data(), 1..4), which in 0usize..4) {
        let mut keys = MemKeyspace::new(1);
        let names: Vec<String> = (0..sources.len()).map(|at| format!("s{at}")).collect();
        for (name, data) in names.iter().zip(&sources) {
            run(&mut keys, &[b"set", name.as_bytes(), data]);
        }
        let used = if which == 3 { 1 } else { sources.len() };
        let longest = sources[..used].iter().map(Vec::len).max().unwrap_or(0);
        let expected: Vec<u8> = (0..longest)
            .map(|at| {
                let mut column = sources[..used].iter().map(|data| data.get(at).copied().unwrap_or(0));
                let first = column.next().expect("a source");
                match which {
                    0 => column.fold(first, |a, b| a & b),
                    1 => column.fold(first, |a, b| a | b),
                    2 => column.fold(first, |a, b| a ^ b),
                    _ => !first,
                }
            })
            .collect();
        let request = format!("bitop {} d {}", ["and", "or", "xor", "not"][which], names[..used].join(" "));
        prop_assert_eq!(ask(&mut keys, &request), Value::Int(longest as i64));
        prop_assert_eq!(value(&mut keys, "d"), expected);
    }

    #[test]
    fn bitfield_agrees_with_the_model(
        data in data(),
        steps in proptest::collection::vec((any::<bool>(), 1u32..=64, 0usize..300, any::<i64>(), 0usize..3, 0usize..3), 1..12),
    ) {
        let mut keys = with(&data);
        let mut bits = to_bits(&data);
        for (signed, width, offset, number, action, overflow) in steps {
            let width = if signed { width } else { width.min(63) };
            // Numbers near the edges of the width overflow more often than any number would.
            let number = if number % 2 == 0 { number } else { number >> (64 - width) };
            let encoding = format!("{}{width}", if signed { 'i' } else { 'u' });
            let end = offset + width as usize;
            let low = (offset..end).fold(0i128, |low, at| low << 1 | i128::from(bits.get(at).copied().unwrap_or(false)));
            let modulus = 1i128 << width;
            let (min, max) = if signed { (-modulus / 2, modulus / 2 - 1) } else { (0, modulus - 1) };
            let old = if low > max { low - modulus } else { low };
            let wrap = |number: i128| {
                let low = number.rem_euclid(modulus);
                if low > max { low - modulus } else { low }
            };
            let how = ["wrap", "sat", "fail"][overflow];
            let action = ["get", "set", "incrby"][action];
            let wanted = match action {
                "get" => old,
                "set" if !signed => i128::from(number as u64),
                "set" => i128::from(number),
                _ => old + i128::from(number),
            };
            let new = match how {
                _ if (min..=max).contains(&wanted) => Some(wanted),
                "wrap" => Some(wrap(wanted)),
                "sat" => Some(if wanted > max { max } else { min }),
                _ => None,
            };
            let operand = if action == "get" { String::new() } else { format!(" {number}") };
            let reply = ask(&mut keys, &format!("bitfield k overflow {how} {action} {encoding} {offset}{operand}"));
            let answer = new.map(|new| if action == "incrby" { new } else { old });
            let answer = answer.map_or(Value::Null, |answer| Value::Int(answer as i64));
            prop_assert_eq!(reply, Value::Array(vec![answer]));
            if action != "get" {
                let len = bits.len().max(end.div_ceil(8) * 8);
                bits.resize(len, false);
            }
            if let Some(new) = new.filter(|_| action != "get") {
                for at in 0..width as usize {
                    bits[offset + at] = new >> (width as usize - 1 - at) & 1 == 1;
                }
            }
            prop_assert_eq!(value(&mut keys, "k"), to_bytes(&bits));
        }
    }
}
