//! From the words of a request to the row of the table, or to the error that Redis would give.

use super::{CommandSpec, Failure, KEY_BYTES_MAX, keys_of, lookup};

/// Why a request names nothing that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such command.
    UnknownCommand,
    /// The command has no such subcommand.
    UnknownSubcommand,
    /// Too few or too many words for the command of this name.
    WrongArity(&'static str),
}

/// How much of the name, and of all arguments together, an error repeats, in bytes.
const ECHO_BYTES_MAX: usize = 128;

impl Rejection {
    /// The error for the client, code first.
    #[cold]
    pub fn failure(&self, args: &[&[u8]]) -> Failure {
        let name = args.first().copied().unwrap_or_default();
        match self {
            Rejection::WrongArity(name) => Failure::wrong_arity(name),
            Rejection::UnknownSubcommand => {
                let subcommand = echo(args.get(1).copied().unwrap_or_default(), ECHO_BYTES_MAX);
                let name = echo(name, usize::MAX).to_uppercase();
                Failure::new(format!("ERR unknown subcommand '{subcommand}'. Try {name} HELP."))
            }
            Rejection::UnknownCommand => {
                // The budget is in bytes and counts the quotes, as Redis's does.
                let mut words = String::new();
                let mut spent = 0;
                for argument in args.iter().skip(1) {
                    if spent >= ECHO_BYTES_MAX {
                        break;
                    }
                    let shown = until_nul(argument, ECHO_BYTES_MAX - spent);
                    words.push_str(&format!("'{}' ", String::from_utf8_lossy(shown)));
                    spent += shown.len() + 3;
                }
                let name = echo(name, ECHO_BYTES_MAX);
                Failure::new(format!("ERR unknown command '{name}', with args beginning with: {words}"))
            }
        }
    }
}

fn echo(bytes: &[u8], bytes_max: usize) -> String {
    String::from_utf8_lossy(until_nul(bytes, bytes_max)).into_owned()
}

/// Text ends at a zero byte.
fn until_nul(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
}

/// The row for a request, with its count of words checked.
///
/// # Errors
/// A [`Rejection`], whose `failure` is the reply. `args` without any word is an unknown command.
#[inline]
pub fn resolve(args: &[&[u8]]) -> Result<&'static CommandSpec, Rejection> {
    let name = args.first().ok_or(Rejection::UnknownCommand)?;
    let mut spec = lookup(name).ok_or(Rejection::UnknownCommand)?;
    if !spec.subcommands.is_empty() && args.len() > 1 {
        spec = spec.subcommand(args[1]).ok_or(Rejection::UnknownSubcommand)?;
    }
    if spec.accepts_count(args.len()) { Ok(spec) } else { Err(Rejection::WrongArity(spec.name)) }
}

impl CommandSpec {
    /// The subcommand of this name, in any case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static CommandSpec> {
        self.subcommands.iter().find(|sub| sub.last_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The part of the name after the bar; all of it for a top-level command.
    pub(crate) fn last_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }
}

/// Refuses keys over [`KEY_BYTES_MAX`] and arguments over `value_bytes_max`, before anything is routed or logged.
///
/// # Errors
/// The error for the client.
#[inline]
pub fn check_sizes(spec: &'static CommandSpec, args: &[&[u8]], value_bytes_max: usize) -> Result<(), Failure> {
    let bytes_max = value_bytes_max.min(KEY_BYTES_MAX);
    if args.iter().all(|arg| arg.len() <= bytes_max) {
        return Ok(());
    }
    if keys_of(spec, args).any(|position| args[position].len() > KEY_BYTES_MAX) {
        return Err(Failure::KEY_TOO_LONG);
    }
    if args.iter().any(|arg| arg.len() > value_bytes_max) {
        return Err(Failure::VALUE_TOO_LONG);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(request: &[&str]) -> String {
        let args: Vec<&[u8]> = request.iter().map(|word| word.as_bytes()).collect();
        resolve(&args).expect_err("a rejection").failure(&args).text().to_string()
    }

    #[test]
    fn rejections_are_worded_as_redis_words_them() {
        assert_eq!(rejected(&["foo"]), "ERR unknown command 'foo', with args beginning with: ");
        assert_eq!(rejected(&["foo", "a", "b"]), "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        assert_eq!(rejected(&["CONFIG", "nope"]), "ERR unknown subcommand 'nope'. Try CONFIG HELP.");
        assert_eq!(rejected(&["get"]), "ERR wrong number of arguments for 'get' command");
        assert_eq!(rejected(&["OBJECT"]), "ERR wrong number of arguments for 'object' command");
        assert_eq!(rejected(&["Object", "Encoding"]), "ERR wrong number of arguments for 'object|encoding' command");
    }

    #[test]
    fn rejections_repeat_little_of_a_large_request() {
        let long = "x".repeat(1000);
        let text = rejected(&[&long, &long, &long]);
        assert_eq!(text, format!("ERR unknown command '{0}', with args beginning with: '{0}' ", &long[..128]));
        let text = rejected(&["foo", &long[..100], &long]);
        assert!(text.ends_with(&format!("'{}' '{}' ", &long[..100], &long[..25])), "{text}");
        assert_eq!(rejected(&["a\0b", "c\0d"]), "ERR unknown command 'a', with args beginning with: 'c' ");
    }

    #[test]
    fn oversized_keys_and_values_are_refused() {
        let key = vec![b'k'; KEY_BYTES_MAX + 1];
        let set = lookup(b"set").expect("a command");
        assert_eq!(check_sizes(set, &[b"set", &key[1..], b"v"], 1 << 20), Ok(()));
        assert_eq!(check_sizes(set, &[b"set", &key, b"v"], 1 << 20), Err(Failure::KEY_TOO_LONG));
        assert_eq!(check_sizes(set, &[b"set", b"k", &key], 1 << 20), Ok(()));
        assert_eq!(check_sizes(set, &[b"set", b"k", &key], KEY_BYTES_MAX), Err(Failure::VALUE_TOO_LONG));
        assert_eq!(check_sizes(set, &[b"set", b"k", b"12345"], 4), Err(Failure::VALUE_TOO_LONG));
    }
}
