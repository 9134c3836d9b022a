//! Values as people write them: sizes with a unit, switches, numbers within bounds.

/// Reads a number of bytes: digits with an optional unit. `KiB`, `MiB`, `GiB` and Redis's `kb`, `mb`, `gb` are powers
/// of 1024; Redis's `k`, `m`, `g` are powers of 1000. Upper and lower case are the same.
///
/// # Errors
/// What a size looks like.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size: write a number of bytes or 64KiB, 64MiB, 2GiB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "m" => 1000 * 1000,
        "g" => 1000 * 1000 * 1000,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// Writes a number of bytes with the largest unit that divides it.
pub fn format_bytes(bytes: u64) -> String {
    for (unit, name) in [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes} bytes")
}

pub(super) fn bytes_within(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    if (min..=max).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("{} is out of range: {} to {}", format_bytes(bytes), format_bytes(min), format_bytes(max)))
}

pub(super) fn number_within(text: &str, min: i64, max: i64) -> Result<i64, String> {
    match text.trim().parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        Ok(number) => Err(format!("{number} is out of range: {min} to {max}")),
        Err(_) => Err(format!("'{text}' is not a whole number from {min} to {max}")),
    }
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(format!("'{text}' is neither yes nor no")),
    }
}

pub(super) fn choice<T: Copy>(text: &str, choices: &[(&'static str, T)]) -> Result<T, String> {
    let text = text.trim();
    choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("'{text}' is not one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("0"), Ok(0));
        assert_eq!(parse_bytes("1024"), Ok(1024));
        assert_eq!(parse_bytes("64MiB"), Ok(64 << 20));
        assert_eq!(parse_bytes("64 mb"), Ok(64 << 20));
        assert_eq!(parse_bytes("2g"), Ok(2_000_000_000));
        for wrong in ["", "MiB", "-1", "1.5GiB", "64 parsecs", "99999999999TiB", "1e9"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_written_so_that_they_read_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 << 20, 3 << 30, 1 << 41] {
            assert_eq!(parse_bytes(format_bytes(bytes).trim_end_matches("ytes")), Ok(bytes), "{}", format_bytes(bytes));
        }
    }
}
