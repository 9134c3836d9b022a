//! Words of an inline command, with the quoting that redis-cli and configuration files share.
//!
//! ```text
//!   SET greeting "hello\r\n\x00" 'it''s'   ✗ a closing quote must be followed by a space
//!   SET greeting "hello\r\n\x00" 'it\'s'   ✓ four words
//! ```

/// Splits `line` into words, appends their bytes to `words` and reports each as a range of `words`. False if a quote is
/// not closed, or a closing quote is followed by something other than a space. A zero byte ends the line.
pub(crate) fn split_words(line: &[u8], words: &mut Vec<u8>, mut word: impl FnMut(usize, usize)) -> bool {
    let line = &line[..memchr::memchr(0, line).unwrap_or(line.len())];
    let mut rest = line;
    loop {
        while let [first, after @ ..] = rest
            && is_space(*first)
        {
            rest = after;
        }
        if rest.is_empty() {
            return true;
        }
        let start = words.len();
        match one_word(rest, words) {
            Some(after) => rest = after,
            None => return false,
        }
        word(start, words.len());
    }
}

/// The words of a line, each on its own; false if quotes don't close. For tests and tools.
pub fn split_line(line: &[u8], words: &mut Vec<Vec<u8>>) -> bool {
    let mut bytes = Vec::new();
    let mut spans = Vec::new();
    let fine = split_words(line, &mut bytes, |start, end| spans.push((start, end)));
    words.extend(spans.into_iter().map(|(start, end)| bytes[start..end].to_vec()));
    fine
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// Takes one word off the front of `rest`, which does not begin with a space, and returns what follows it.
fn one_word<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b'"', after @ ..] => return closed(double_quoted(after, word)?),
            [b'\'', after @ ..] => return closed(single_quoted(after, word)?),
            [byte, ..] if is_space(*byte) => return Some(rest),
            [byte, after @ ..] => {
                word.push(*byte);
                rest = after;
            }
        }
    }
}

/// What follows a closing quote must be a space or the end.
fn closed(after: &[u8]) -> Option<&[u8]> {
    match after {
        [byte, ..] if !is_space(*byte) => None,
        _ => Some(after),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\'', after @ ..] => return Some(after),
            [b'\\', b'\'', after @ ..] => {
                word.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                word.push(*byte);
                after
            }
        };
    }
}

fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut words = Vec::new();
        split_line(line, &mut words).then_some(words)
    }

    #[test]
    fn quotes_and_escapes_are_those_of_redis() {
        let owned = |words: &[&[u8]]| Some(words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
        assert_eq!(split(b"  a \t bc  "), owned(&[b"a", b"bc"]));
        assert_eq!(split(b""), owned(&[]));
        assert_eq!(split(br#"SET "a b" 'c\'d'"#), owned(&[b"SET", b"a b", b"c'd"]));
        assert_eq!(split(br#""\x00\xfF\n\r\t\b\a\"\\\q""#), owned(&[b"\x00\xff\n\r\t\x08\x07\"\\q"]));
        assert_eq!(split(br#""\xzz""#), owned(&[b"xzz"]));
        assert_eq!(split(br#"pre"quoted""#), owned(&[b"prequoted"]));
        assert_eq!(split(br#""" ''"#), owned(&[b"", b""]));
        assert_eq!(split(b"a\0b c"), owned(&[b"a"]));
        assert_eq!(split(br#""open"#), None);
        assert_eq!(split(br#"'open"#), None);
        assert_eq!(split(br#""a"b"#), None);
        assert_eq!(split(br#"'a'b"#), None);
        assert_eq!(split(br#""trailing\"#), None);
    }
}
