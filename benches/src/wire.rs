//! As much of the Redis protocol as a load generator needs: commands out, RESP2 replies in.

/// Appends a command's frame.
pub fn put_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    put_header(out, b'*', words.len());
    for word in words {
        put_header(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn put_header(out: &mut Vec<u8>, kind: u8, count: usize) {
    out.push(kind);
    out.extend_from_slice(count.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A reply, borrowed from the buffer it was read into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+OK` and the like.
    Simple(&'a [u8]),
    /// An error's text.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// A string of bytes, or null.
    Bulk(Option<&'a [u8]>),
    /// A list; null counts as empty.
    Array(Vec<Reply<'a>>),
}

/// Arrays inside arrays that are followed; `MGET`, `SCAN` and `CONFIG GET` need two.
const DEPTH_MAX: usize = 4;

/// Reads the reply at the front of the buffer: it and its length, or `None` if it isn't all there.
///
/// # Errors
/// A text that says what is wrong, if this is no RESP2 reply.
pub fn read_reply(buffer: &[u8]) -> Result<Option<(Reply<'_>, usize)>, String> {
    read_nested(buffer, 0)
}

fn read_nested(buffer: &[u8], depth: usize) -> Result<Option<(Reply<'_>, usize)>, String> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return if buffer.len() > 64 << 10 { Err("a line without end".into()) } else { Ok(None) };
    };
    let malformed = || format!("not a reply: `{}`", buffer[..end.min(60)].escape_ascii());
    if end < 2 || buffer[end - 1] != b'\r' {
        return Err(malformed());
    }
    let (text, mut used) = (&buffer[1..end - 1], end + 1);
    let number = || std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(malformed);
    let reply = match buffer[0] {
        b'+' => Reply::Simple(text),
        b'-' => Reply::Error(text),
        b':' => Reply::Integer(number()?),
        b'$' => match number()? {
            -1 => Reply::Bulk(None),
            length => {
                let length = usize::try_from(length).map_err(|_| malformed())?;
                let Some(whole) = buffer.get(used..used.saturating_add(length).saturating_add(2)) else {
                    return Ok(None);
                };
                used += length + 2;
                Reply::Bulk(Some(&whole[..length]))
            }
        },
        b'*' if depth < DEPTH_MAX => {
            let mut items = Vec::new();
            for _ in 0..number()?.max(0) {
                let Some((item, length)) = read_nested(&buffer[used..], depth + 1)? else { return Ok(None) };
                items.push(item);
                used += length;
            }
            Reply::Array(items)
        }
        _ => return Err(malformed()),
    };
    Ok(Some((reply, used)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_framed() {
        let mut out = Vec::new();
        put_command(&mut out, &[b"SET", b"k", b"\r\n"]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n");
    }

    #[test]
    fn reply_is_read_only_when_it_is_whole() {
        let bytes = b"*3\r\n$2\r\nab\r\n$-1\r\n*1\r\n:-5\r\n+next\r\n";
        let whole = bytes.len() - 7;
        for end in 0..whole {
            assert_eq!(read_reply(&bytes[..end]), Ok(None), "{end}");
        }
        let inner = Reply::Array(vec![Reply::Integer(-5)]);
        let expected = Reply::Array(vec![Reply::Bulk(Some(b"ab")), Reply::Bulk(None), inner]);
        assert_eq!(read_reply(bytes), Ok(Some((expected, whole))));
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&b"HTTP\r\n"[..], b":x\r\n", b"$-2\r\n", b"\n"] {
            assert!(read_reply(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
