//! A line to words, with the quoting that users of Redis's shell know.
//!
//! Words are parted by white space. In "double quotes" `\n \r \t \b \a \xHH` are escapes and any other character after a
//! backslash stands for itself; in 'single quotes' only `\'` is special. A closing quote ends the word, so white space or
//! the end must follow it.

use bytes::Bytes;

use crate::text::hex_digit;

/// Why a line can't be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitError {
    /// A quote is open: more lines may close it.
    Open,
    /// Something follows a closing quote.
    Attached,
}

pub(crate) fn split(line: &[u8]) -> Result<Vec<Bytes>, SplitError> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        rest = &rest[blanks..];
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, after) = take_word(rest)?;
        words.push(word.into());
        rest = after;
    }
}

fn take_word(line: &[u8]) -> Result<(Vec<u8>, &[u8]), SplitError> {
    let mut word = Vec::new();
    let mut position = 0;
    while let Some(&byte) = line.get(position) {
        if byte.is_ascii_whitespace() {
            break;
        }
        if byte != b'"' && byte != b'\'' {
            word.push(byte);
            position += 1;
            continue;
        }
        position += 1 + take_quoted(&line[position + 1..], byte, &mut word)?;
        if line.get(position).is_some_and(|next| !next.is_ascii_whitespace()) {
            return Err(SplitError::Attached);
        }
    }
    Ok((word, &line[position..]))
}

/// Appends what is quoted to the word; gives the number of bytes up to and with the closing quote.
fn take_quoted(line: &[u8], quote: u8, word: &mut Vec<u8>) -> Result<usize, SplitError> {
    let mut position = 0;
    loop {
        let byte = *line.get(position).ok_or(SplitError::Open)?;
        position += 1;
        if byte == quote {
            return Ok(position);
        }
        if byte != b'\\' || (quote == b'\'' && line.get(position) != Some(&b'\'')) {
            word.push(byte);
            continue;
        }
        let escaped = *line.get(position).ok_or(SplitError::Open)?;
        position += 1;
        let digits =
            line.get(position).copied().and_then(hex_digit).zip(line.get(position + 1).copied().and_then(hex_digit));
        word.push(match (escaped, digits) {
            (b'x', Some((high, low))) => {
                position += 2;
                high << 4 | low
            }
            (b'n', _) => b'\n',
            (b'r', _) => b'\r',
            (b't', _) => b'\t',
            (b'b', _) => 8,
            (b'a', _) => 7,
            (other, _) => other,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, SplitError> {
        Ok(split(line.as_bytes())?.into_iter().map(|word| word.to_vec()).collect())
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(words("  SET  k\tv \n").unwrap(), [b"SET".to_vec(), b"k".to_vec(), b"v".to_vec()]);
        assert_eq!(words(r#""a b" 'c "d' "" "#).unwrap(), [b"a b".to_vec(), b"c \"d".to_vec(), b"".to_vec()]);
        assert_eq!(
            words(r#""\x00\xff\n\"\\\q" 'it\'s \n'"#).unwrap(),
            [b"\x00\xff\n\"\\q".to_vec(), b"it's \\n".to_vec()]
        );
        assert_eq!(words(r#""\xg1""#).unwrap(), [b"xg1".to_vec()]);
        assert_eq!(words("pre\"fix\"").unwrap(), [b"prefix".to_vec()]);
        assert!(words("").unwrap().is_empty());
    }

    #[test]
    fn open_quote_may_continue_but_an_attached_word_may_not() {
        for line in ["\"a", "'a", "\"a\\", "set k \"line\nline"] {
            assert_eq!(words(line), Err(SplitError::Open), "{line}");
        }
        assert_eq!(words("\"line\nline\"").unwrap(), [b"line\nline".to_vec()]);
        assert_eq!(words("\"a\"b"), Err(SplitError::Attached));
    }
}
