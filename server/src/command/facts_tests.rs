//! The table compared with what Redis 7.0.15 reports (`tests/redis_facts.tsv`, written by `record_redis_facts.py`).

use std::collections::BTreeSet;

use super::keyspec::FindKeys;
use super::spec::{category, flag};
use super::{CommandSpec, all};

const FACTS: &str = include_str!("../../tests/redis_facts.tsv");

/// Containers of Redis's of which we have a few subcommands only: what we lack of these isn't compared.
const PARTIAL: [&str; 1] = ["function|"];

/// Commands of ours that Redis 7.0 doesn't have.
const OURS: [&str; 14] = [
    "cad",
    "cas",
    "client|no-touch",
    "client|setinfo",
    "cluster|myshardid",
    "delifeq",
    "holdfast",
    "holdfast|help",
    "holdfast|nodes",
    "holdfast|once",
    "holdfast|remove-node",
    "holdfast|session",
    "holdfast|transfer-leader",
    "holdfast|verify",
];

/// A write in Redis; here it has nothing to write, and must not be logged.
const DIFFERENT: [&str; 1] = ["function|flush"];

fn rows() -> impl Iterator<Item = &'static CommandSpec> {
    all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands))
}

/// A row in the columns of the file.
fn facts(spec: &CommandSpec) -> String {
    let flags = flag::NAMES.iter().filter(|(bit, _)| spec.flags & bit != 0).map(|(_, name)| name.to_string());
    let categories = category::NAMES.iter().enumerate().filter(|(bit, _)| spec.categories & 1 << bit != 0);
    let key_specs = spec.key_specs.iter().map(|keys| match keys.find {
        FindKeys::Range { last, step } => format!("{} {last} {step} {}", keys.index, keys.flags.join(" ")),
        FindKeys::KeyNum { .. } => "counted".to_string(),
    });
    let (first, last, step) = spec.key_range();
    let join = |words: Vec<String>, between: &str| words.join(between);
    [
        spec.name.to_string(),
        spec.arity.to_string(),
        join(flags.collect(), " "),
        format!("{first} {last} {step}"),
        join(categories.map(|(_, name)| format!("@{name}")).collect(), " "),
        spec.tips.join(" "),
        join(key_specs.collect(), ";"),
        spec.since.to_string(),
        spec.group.name().to_string(),
        spec.deprecated.map_or("", |(since, _)| since).to_string(),
    ]
    .join("\t")
}

#[test]
fn rows_state_what_redis_reports() {
    let compared = |name: &str| !OURS.contains(&name) && !DIFFERENT.contains(&name);
    let ours: BTreeSet<String> = rows()
        .map(|spec| (spec.name, facts(spec)))
        .filter(|(name, _)| compared(name))
        .map(|(_, facts)| facts)
        .collect();
    let name = |line: &&str| line.split('\t').next().unwrap_or_default().to_string();
    let names: BTreeSet<&str> = rows().map(|spec| spec.name).collect();
    let lacking = |name: &str| !names.contains(name) && PARTIAL.iter().any(|prefix| name.starts_with(prefix));
    let redis: BTreeSet<String> =
        FACTS.lines().filter(|line| compared(&name(line)) && !lacking(&name(line))).map(str::to_string).collect();
    let differences: Vec<_> = ours.symmetric_difference(&redis).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn what_is_listed_as_ours_is() {
    let names: BTreeSet<&str> = rows().map(|spec| spec.name).collect();
    let redis: BTreeSet<&str> = FACTS.lines().filter_map(|line| line.split('\t').next()).collect();
    assert!(OURS.iter().all(|name| names.contains(name) && !redis.contains(name)));
}

#[test]
fn manual_lists_every_command() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/commands.md");
    let page = std::fs::read_to_string(page).expect("the page");
    for spec in rows().filter(|spec| !spec.name.ends_with("|help") && spec.subcommands.is_empty()) {
        let name = spec.name.replace('|', " ").to_uppercase();
        assert!(page.contains(&format!("`{name}`")), "{name} is not in commands.md");
    }
}
