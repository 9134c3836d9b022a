//! A command's arguments, in the notation of manuals, as the tree that `COMMAND DOCS` answers.
//!
//! The table keeps one line for each command, which people can read:
//!
//! ```text
//! key value [NX | XX] [GET] [EX seconds | PX milliseconds]        key [key ...]        <key value> [<key value> ...]
//! ```
//!
//! Upper case is written as it stands (a *token*, which belongs to the argument that follows it); lower case is an
//! argument, after a colon its type unless its name tells; brackets are optional, angles group, a bar means either, dots
//! repeat what comes before them.

/// One argument, or a group of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    /// What it is called.
    pub(crate) name: String,
    /// `key`, `string`, `integer`, `double`, `pattern`, `unix-time`, `pure-token`, `oneof` or `block`.
    pub(crate) kind: &'static str,
    /// The word that goes before it, or that it consists of.
    pub(crate) token: Option<&'static str>,
    /// It may be left out.
    pub(crate) optional: bool,
    /// It may come several times.
    pub(crate) multiple: bool,
    /// The parts of a `block`, the choices of a `oneof`.
    pub(crate) parts: Vec<Argument>,
}

/// The arguments that a line describes.
pub(crate) fn parse(line: &'static str) -> Vec<Argument> {
    let mut words = words(line).into_iter().peekable();
    sequence(&mut words)
}

/// Splits at spaces, and around the signs that stand for themselves.
fn words(line: &'static str) -> Vec<&'static str> {
    let mut words = Vec::new();
    for mut word in line.split(' ').filter(|word| !word.is_empty()) {
        while let Some(rest) = word.strip_prefix(['[', '<']) {
            words.push(&word[..1]);
            word = rest;
        }
        let inner = word.trim_end_matches([']', '>']);
        if !inner.is_empty() {
            words.push(inner);
        }
        words.extend((inner.len()..word.len()).map(|at| &word[at..at + 1]));
    }
    words
}

type Words = std::iter::Peekable<std::vec::IntoIter<&'static str>>;

/// Arguments one after the other, up to a closing sign or a bar.
fn sequence(words: &mut Words) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = Vec::new();
    let mut token = None;
    while let Some(word) = words.next_if(|word| !matches!(*word, "]" | ">" | "|")) {
        let next = match word {
            "..." => {
                if let Some(last) = arguments.last_mut() {
                    last.multiple = true;
                }
                continue;
            }
            "[" | "<" => {
                let mut group = choice(words);
                words.next();
                group.optional |= word == "[";
                Some(group)
            }
            word if is_token(word) => None,
            word => Some(argument(word)),
        };
        match next {
            // An upper-case word: it waits for what it belongs to.
            None => arguments.extend(token.replace(word).map(pure_token)),
            // `key [key ...]` is one argument that may be repeated.
            Some(next) if next.multiple && arguments.last().is_some_and(|last| same(last, &next)) => {
                if let Some(last) = arguments.last_mut() {
                    last.multiple = true;
                }
            }
            Some(mut next) if next.token.is_none() && !next.optional => {
                next.token = token.take();
                arguments.push(next);
            }
            Some(next) => {
                arguments.extend(token.take().map(pure_token));
                arguments.push(next);
            }
        }
    }
    arguments.extend(token.map(pure_token));
    arguments
}

/// What is between brackets or angles: one sequence, or several to choose from.
fn choice(words: &mut Words) -> Argument {
    let mut choices = vec![one(sequence(words))];
    while words.next_if_eq(&"|").is_some() {
        choices.push(one(sequence(words)));
    }
    if choices.len() == 1 { choices.remove(0) } else { group("oneof", choices) }
}

/// One argument for a sequence.
fn one(mut sequence: Vec<Argument>) -> Argument {
    if sequence.len() == 1 { sequence.remove(0) } else { group("block", sequence) }
}

fn group(kind: &'static str, parts: Vec<Argument>) -> Argument {
    let name = parts.first().map_or(String::new(), |part| part.name.clone());
    Argument { name, kind, token: None, optional: false, multiple: false, parts }
}

fn same(a: &Argument, b: &Argument) -> bool {
    a.name == b.name && a.kind == b.kind && a.parts == b.parts
}

fn is_token(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_uppercase()) && !word.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn pure_token(word: &'static str) -> Argument {
    Argument { token: Some(word), kind: "pure-token", ..argument(&word.to_lowercase()) }
}

fn argument(word: &str) -> Argument {
    let (name, kind) = match word.rsplit_once(':') {
        Some((name, "key")) => (name, "key"),
        Some((name, "double")) => (name, "double"),
        Some((name, "integer")) => (name, "integer"),
        Some((name, "string")) => (name, "string"),
        _ => (word, kind_by_name(word)),
    };
    Argument { name: name.to_string(), kind, token: None, optional: false, multiple: false, parts: Vec::new() }
}

fn kind_by_name(name: &str) -> &'static str {
    match name {
        "key" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "seconds" | "milliseconds" | "ttl" | "offset" | "start" | "end" | "bit" | "increment" | "decrement"
        | "count" | "index" | "cursor" | "numreplicas" | "timeout" | "client-id" | "frequency" | "destination-db"
        | "min-match-len" => "integer",
        _ => "string",
    }
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    /// A tree on one line: kind(name or parts), `?` for optional, `+` for multiple.
    fn show(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let token = argument.token.map_or(String::new(), |token| format!("{token} "));
            let parts =
                if argument.parts.is_empty() { argument.name.clone() } else { format!("({})", show(&argument.parts)) };
            let signs =
                format!("{}{}", if argument.optional { "?" } else { "" }, if argument.multiple { "+" } else { "" });
            format!("{token}{}:{parts}{signs}", argument.kind)
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn lines_become_trees() {
        for (line, tree) in [
            ("", ""),
            ("key", "key:key"),
            ("key [key ...]", "key:key+"),
            ("<key value> [<key value> ...]", "block:(key:key, string:value)+"),
            (
                "key value [NX | XX] [EX seconds | KEEPTTL]",
                "key:key, string:value, oneof:(NX pure-token:nx, XX pure-token:xx)?, \
                 oneof:(EX integer:seconds, KEEPTTL pure-token:keepttl)?",
            ),
            (
                "key [start end [BYTE | BIT]]",
                "key:key, block:(integer:start, integer:end, oneof:(BYTE pure-token:byte, BIT pure-token:bit)?)?",
            ),
            ("[command-name ...]", "string:command-name?+"),
            ("destkey:key key [key ...]", "key:destkey, key:key+"),
            ("<ON | OFF>", "oneof:(ON pure-token:on, OFF pure-token:off)"),
        ] {
            assert_eq!(show(&parse(line)), tree, "{line}");
        }
    }

    #[test]
    fn every_line_of_the_table_is_read_to_its_end() {
        for spec in all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)) {
            let mut words = words(spec.syntax).into_iter().peekable();
            sequence(&mut words);
            assert_eq!(words.next(), None, "{}: {}", spec.name, spec.syntax);
        }
    }
}
