//! COMMAND: the table as client libraries and redis-cli ask for it.
//!
//! Cluster clients route by it, so it is exact; the shapes, down to which strings are simple ones, are Redis 7's.

use super::exec::Outcome;
use super::keyspec::{FindKeys, KeySpec};
use super::spec::{category, flag};
use super::syntax::{self, Argument};
use super::{CommandSpec, Failure, all, glob, lookup, resolve};
use crate::resp::Reply;

/// Names that one request may ask about. Descriptions are a hundred times longer than names, and no client asks for more
/// than there are.
const NAMES_MAX: usize = 1024;

fn check_names(names: &[&[u8]]) -> Outcome {
    const TOO_MANY: Failure =
        Failure::fixed("ERR too many command names, ask for 1024 at most or for all without naming any");
    if names.len() > NAMES_MAX { Err(TOO_MANY) } else { Ok(()) }
}

/// COMMAND
pub(crate) fn command(_args: &[&[u8]], reply: &mut Reply) -> Outcome {
    reply.array(all().count());
    all().for_each(|spec| write_info(spec, reply));
    Ok(())
}

/// COMMAND COUNT
pub(crate) fn count(_args: &[&[u8]], reply: &mut Reply) -> Outcome {
    reply.int(all().count() as i64);
    Ok(())
}

/// COMMAND INFO [command-name ...]
pub(crate) fn info(args: &[&[u8]], reply: &mut Reply) -> Outcome {
    if args.len() == 2 {
        return command(args, reply);
    }
    check_names(&args[2..])?;
    reply.array(args.len() - 2);
    for name in &args[2..] {
        match by_full_name(name) {
            Some(spec) => write_info(spec, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// A command, or after a bar its subcommand.
fn by_full_name(name: &[u8]) -> Option<&'static CommandSpec> {
    match memchr::memchr(b'|', name) {
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
        None => lookup(name),
    }
}

fn write_info(spec: &CommandSpec, reply: &mut Reply) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.int(i64::from(spec.arity));
    write_names(flag::NAMES.iter().filter(|(bit, _)| spec.flags & bit != 0).map(|(_, name)| *name), reply);
    let (first, last, step) = spec.key_range();
    for position in [first, last, step] {
        reply.int(position);
    }
    let categories = category::NAMES.iter().enumerate().filter(|(bit, _)| spec.categories & 1 << bit != 0);
    reply.set(categories.clone().count());
    categories.for_each(|(_, name)| reply.simple(&format!("@{name}")));
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.key_specs.len());
    spec.key_specs.iter().for_each(|keys| write_key_spec(keys, reply));
    reply.set(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| write_info(sub, reply));
}

/// A set of simple strings.
fn write_names<'a>(names: impl Iterator<Item = &'a str> + Clone, reply: &mut Reply) {
    reply.set(names.clone().count());
    names.for_each(|name| reply.simple(name));
}

fn write_key_spec(keys: &KeySpec, reply: &mut Reply) {
    let notes = keys.notes;
    reply.map(3 + usize::from(!notes.is_empty()));
    if !notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(notes.as_bytes());
    }
    reply.bulk(b"flags");
    write_names(keys.flags.iter().copied(), reply);
    reply.bulk(b"begin_search");
    write_search("index", &[("index", i64::from(keys.index))], reply);
    reply.bulk(b"find_keys");
    match keys.find {
        FindKeys::Range { last, step } => {
            let numbers = [("lastkey", i64::from(last)), ("keystep", i64::from(step)), ("limit", 0)];
            write_search("range", &numbers, reply);
        }
        FindKeys::KeyNum { count_at, first, step } => {
            let numbers =
                [("keynumidx", i64::from(count_at)), ("firstkey", i64::from(first)), ("keystep", i64::from(step))];
            write_search("keynum", &numbers, reply);
        }
    }
}

fn write_search(kind: &str, numbers: &[(&str, i64)], reply: &mut Reply) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.int(*number);
    }
}

/// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]
pub(crate) fn list(args: &[&[u8]], reply: &mut Reply) -> Outcome {
    let everything = || all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    let names: Vec<&str> = match &args[2..] {
        [] => all().map(|spec| spec.name).collect(),
        [filter_by, kind, value] if filter_by.eq_ignore_ascii_case(b"filterby") => {
            if kind.eq_ignore_ascii_case(b"module") {
                Vec::new()
            } else if kind.eq_ignore_ascii_case(b"aclcat") {
                let bit = category::NAMES.iter().position(|name| value.eq_ignore_ascii_case(name.as_bytes()));
                let has = |spec: &CommandSpec| bit.is_some_and(|bit| spec.categories & 1 << bit != 0);
                everything().filter(|spec| has(spec)).map(|spec| spec.name).collect()
            } else if kind.eq_ignore_ascii_case(b"pattern") {
                let pattern = value.to_ascii_lowercase();
                let names = everything().map(|spec| spec.name);
                names.filter(|name| glob::matches(&pattern, name.as_bytes())).collect()
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        _ => return Err(Failure::SYNTAX),
    };
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

/// COMMAND DOCS [command-name ...]
pub(crate) fn docs(args: &[&[u8]], reply: &mut Reply) -> Outcome {
    check_names(&args[2..])?;
    let specs: Vec<&CommandSpec> = match &args[2..] {
        [] => all().collect(),
        names => names.iter().filter_map(|name| by_full_name(name)).collect(),
    };
    write_docs(&specs, reply);
    Ok(())
}

fn write_docs(specs: &[&CommandSpec], reply: &mut Reply) {
    reply.map(specs.len());
    for spec in specs {
        reply.bulk(spec.name.as_bytes());
        let arguments = syntax::parse(spec.syntax);
        let deprecated = if spec.deprecated.is_some() { 3 } else { 0 };
        let rest = usize::from(!arguments.is_empty()) + usize::from(!spec.subcommands.is_empty());
        reply.map(4 + deprecated + rest);
        let mut field = |name: &str, value: &str| {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        };
        field("summary", spec.summary);
        field("since", spec.since);
        field("group", spec.group.name());
        field("complexity", spec.complexity);
        if let Some((since, replacement)) = spec.deprecated {
            reply.bulk(b"doc_flags");
            write_names(std::iter::once("deprecated"), reply);
            reply.bulk(b"deprecated_since");
            reply.bulk(since.as_bytes());
            reply.bulk(b"replaced_by");
            reply.bulk(replacement.as_bytes());
        }
        if !arguments.is_empty() {
            reply.bulk(b"arguments");
            let mut keys_seen = 0;
            write_arguments(&arguments, spec.key_specs.len(), &mut keys_seen, reply);
        }
        if !spec.subcommands.is_empty() {
            reply.bulk(b"subcommands");
            write_docs(&spec.subcommands.iter().collect::<Vec<_>>(), reply);
        }
    }
}

/// Keys are numbered by the spec that finds them: one after the other, the last spec taking what is left.
fn write_arguments(arguments: &[Argument], key_specs: usize, keys_seen: &mut usize, reply: &mut Reply) {
    reply.array(arguments.len());
    for argument in arguments {
        let is_key = argument.kind == "key";
        let flags = [(argument.optional, "optional"), (argument.multiple, "multiple")];
        let flags = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name);
        let fields = [is_key, argument.token.is_some(), flags.clone().next().is_some(), !argument.parts.is_empty()];
        reply.map(2 + fields.iter().filter(|there| **there).count());
        reply.bulk(b"name");
        reply.bulk(argument.name.as_bytes());
        reply.bulk(b"type");
        reply.bulk(argument.kind.as_bytes());
        if is_key {
            reply.bulk(b"key_spec_index");
            reply.int((*keys_seen).min(key_specs.saturating_sub(1)) as i64);
            *keys_seen += 1;
        }
        if let Some(token) = argument.token {
            reply.bulk(b"token");
            reply.bulk(token.as_bytes());
        }
        if flags.clone().next().is_some() {
            reply.bulk(b"flags");
            write_names(flags, reply);
        }
        if !argument.parts.is_empty() {
            reply.bulk(b"arguments");
            write_arguments(&argument.parts, key_specs, keys_seen, reply);
        }
    }
}

/// COMMAND GETKEYS command [arg ...]
pub(crate) fn getkeys(args: &[&[u8]], reply: &mut Reply) -> Outcome {
    let request = &args[2..];
    let keys = keys_in(request)?;
    reply.array(keys.len());
    keys.iter().for_each(|(position, _)| reply.bulk(request[*position]));
    Ok(())
}

/// COMMAND GETKEYSANDFLAGS command [arg ...]
pub(crate) fn getkeysandflags(args: &[&[u8]], reply: &mut Reply) -> Outcome {
    let request = &args[2..];
    let keys = keys_in(request)?;
    reply.array(keys.len());
    for (position, access) in keys {
        reply.array(2);
        reply.bulk(request[position]);
        write_names(access.0.iter().copied(), reply);
    }
    Ok(())
}

fn keys_in(request: &[&[u8]]) -> Result<Vec<(usize, super::KeyAccess)>, Failure> {
    let spec = match resolve(request) {
        Ok(spec) => spec,
        // What has no keys says so whatever its arguments are.
        Err(super::Rejection::WrongArity(name)) => match by_full_name(name.as_bytes()) {
            Some(spec) if spec.key_specs.is_empty() => spec,
            _ => return Err(Failure::fixed("ERR Invalid number of arguments specified for command")),
        },
        Err(_) => return Err(Failure::fixed("ERR Invalid command specified")),
    };
    if spec.key_specs.is_empty() {
        return Err(Failure::fixed("ERR The command has no key arguments"));
    }
    let keys = spec.keys_with_access(request);
    if keys.is_empty() {
        return Err(Failure::fixed("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
}

/// COMMAND HELP
pub(crate) fn help(_args: &[&[u8]], reply: &mut Reply) -> Outcome {
    reply.help(&[
        "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "(no subcommand)",
        "    All commands with arity, flags and key positions.",
        "COUNT",
        "    The number of commands.",
        "DOCS [<command-name> ...]",
        "    Documentation of these commands, or of all.",
        "GETKEYS <full-command>",
        "    The keys in a request.",
        "GETKEYSANDFLAGS <full-command>",
        "    The keys in a request and what happens to them.",
        "INFO [<command-name> ...]",
        "    These commands, or all, with arity, flags and key positions.",
        "LIST [FILTERBY <MODULE <name> | ACLCAT <category> | PATTERN <pattern>>]",
        "    The names of the commands.",
        "HELP",
        "    This text.",
    ]);
    Ok(())
}
