//! Replies compared with those of a real Redis.
//!
//! Each file of `tests/vectors` is a list of requests, each followed by the reply that Redis 7.0.15 gave (its bytes,
//! escaped). `regenerate.py` asks a server of your choice and rewrites the replies; read the diff before you commit it.
//!
//! ```text
//! # A comment. An empty line flushes all keys.
//! > set k v            a request in RESP2; quotes and \xHH as in redis-cli
//! = +OK\r\n            its reply
//! 3> get nothing       the same in RESP3
//! = _\r\n
//! ! cas k v w          a request of ours: Redis isn't asked, the reply is written by hand
//! = :1\r\n
//! ```

use std::path::{Path, PathBuf};

use holdfast_server::command::mem::MemKeyspace;
use holdfast_server::resp::Proto;

/// The time at which the requests run, in milliseconds since the epoch. Deadlines in the files are far after it.
const NOW_MS: u64 = 1_700_000_000_000;

fn vector_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder of vectors")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    // A file from elsewhere, for those who compare with random requests.
    files.extend(std::env::var_os("HOLDFAST_VECTORS").map(PathBuf::from));
    files.sort();
    files
}

/// Words at spaces; double quotes keep spaces, `\xHH`, `\r`, `\n`, `\\` and `\"` stand for bytes.
fn split(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' if !quoted => words.extend(word.take()),
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b'\\' if quoted => {
                let escaped = match bytes.next().expect("something after a backslash") {
                    b'x' => {
                        let digits = [bytes.next().expect("a digit"), bytes.next().expect("a digit")];
                        let digits = std::str::from_utf8(&digits).expect("digits");
                        u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
                    }
                    b'r' => b'\r',
                    b'n' => b'\n',
                    other => other,
                };
                word.get_or_insert_default().push(escaped);
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

fn escape(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'\r' => "\\r".to_string(),
        b'\n' => "\\n".to_string(),
        b'\\' => "\\\\".to_string(),
        b' '..=b'~' => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(one).collect()
}

#[test]
fn replies_are_those_of_redis() {
    let mut failures = Vec::new();
    let mut count = 0;
    for file in vector_files() {
        let text = std::fs::read_to_string(&file).expect("vectors are text");
        let mut keys = MemKeyspace::new(NOW_MS);
        let mut replied: Option<(usize, String, String)> = None;
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() {
                keys = MemKeyspace::new(NOW_MS);
            } else if let Some(expected) = line.strip_prefix("= ") {
                let (number, request, reply) = replied.take().expect("a reply follows a request");
                count += 1;
                if reply != expected {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    failures.push(format!("{name}:{number}: {request}\n  redis {expected}\n  ours  {reply}"));
                }
            } else if !line.starts_with('#') {
                let (mark, request) = line.split_once(' ').expect("a mark and a request");
                let proto = if mark.starts_with('3') { Proto::Resp3 } else { Proto::Resp2 };
                let words = split(request);
                let args: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                assert!(replied.is_none(), "{}:{number}: the request before has no reply", file.display());
                replied = Some((number + 1, request.to_string(), escape(&keys.run(proto, &args))));
            }
        }
        assert!(replied.is_none(), "{}: the last request has no reply", file.display());
    }
    assert!(count > 500, "only {count} vectors were found");
    assert!(failures.is_empty(), "{} of {count} replies differ:\n{}", failures.len(), failures.join("\n"));
}
