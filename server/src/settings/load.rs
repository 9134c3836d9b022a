//! Flags over environment over file over defaults, with the place of every value.

use super::table::{Setting, all};
use super::{Change, Settings};
use crate::membership::Entry;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Names of environment variables of ours begin so, and no others may.
const VARIABLE_PREFIX: &str = "HOLDFAST_";
/// The variable that names the file.
const CONFIG_VARIABLE: &str = "HOLDFAST_CONFIG";
/// No file of settings is larger, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there are no settings to start with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The flags can't be understood, or help or the version was asked for.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// A file can't be used, or a value is unknown, wrong or contradictory. The text names the place.
    #[error("{0}")]
    Refused(String),
}

impl SettingsError {
    /// Tells the user: help and version on standard output, what went wrong on standard error.
    pub fn print(&self) {
        match self {
            // Nobody is there to be told if this fails.
            SettingsError::Flags(error) => drop(error.print()),
            SettingsError::Refused(text) => eprintln!("holdfast: {text}"),
        }
    }

    /// The exit code of the process: 0 for help and version, 2 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            SettingsError::Flags(error) if !error.use_stderr() => 0,
            _ => 2,
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone)]
enum Origin {
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

impl Origin {
    fn describe(&self, name: &str) -> String {
        match self {
            Origin::File { path, line } => format!("{}:{line}: {name}", path.display()),
            Origin::Variable(variable) => format!("the environment variable {variable}"),
            Origin::Flag(flag) => flag.clone(),
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// One node.
    Node(Box<Settings>, Entry),
    /// The last node of a cluster that is lost becomes the only one of another.
    Recover(Box<Settings>, RecoverPlan),
    /// Several nodes of one cluster, as processes of this machine.
    Cluster(ClusterPlan),
}

/// How a node is recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverPlan {
    /// Only say what there is.
    pub inspect: bool,
    /// Don't ask.
    pub yes: bool,
}

/// Several nodes on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterPlan {
    /// How many nodes.
    pub nodes: u16,
    /// The folder that holds a data folder for each.
    pub dir: PathBuf,
    /// The first node's client port; the others' follow it.
    pub base_port: u16,
    /// Flags for every node.
    pub flags: Vec<OsString>,
}

/// Reads what is to be done, and the settings for it: as [`load`], with the commands `init`, `join` and `cluster`.
///
/// # Errors
/// As [`load`].
pub fn load_launch(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Launch, SettingsError> {
    let mut matches = command_line().try_get_matches_from(arguments)?;
    let (mut matches, entry) = match matches.remove_subcommand() {
        None => (matches, Entry::Start),
        Some((name, matches)) if name == "init" => (matches, Entry::Init),
        Some((name, mut matches)) if name == "join" => {
            let address: Option<String> = matches.remove_one("ADDRESS");
            let address = address.unwrap_or_default().parse().map_err(SettingsError::Refused)?;
            (matches, Entry::Join(address))
        }
        Some((name, mut matches)) if name == "recover" => {
            let plan = RecoverPlan { inspect: matches.get_flag("inspect"), yes: matches.get_flag("yes") };
            return Ok(Launch::Recover(Box::new(settings_of(&mut matches, environment)?), plan));
        }
        Some((_, mut matches)) => {
            return Ok(Launch::Cluster(ClusterPlan {
                nodes: matches.remove_one("nodes").unwrap_or(3),
                dir: matches.remove_one("dir").unwrap_or_default(),
                base_port: matches.remove_one("base-port").unwrap_or(7001),
                flags: matches.remove_many("FLAGS").map(Iterator::collect).unwrap_or_default(),
            }));
        }
    };
    Ok(Launch::Node(Box::new(settings_of(&mut matches, environment)?), entry))
}

/// Reads the settings from the flags in `arguments` (the first is the program's name), the variables in `environment`
/// and the file that one of them names.
///
/// # Errors
/// Help or version were asked for, or something is unknown, wrong, or contradictory; see [`SettingsError`].
pub fn load(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, SettingsError> {
    settings_of(&mut command().try_get_matches_from(arguments)?, environment)
}

fn settings_of(
    matches: &mut ArgMatches,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Settings, SettingsError> {
    let mut loader = Loader::default();
    let variables = variables(environment)?;
    let flag_file: Option<OsString> = matches.remove_one("config");
    let file = flag_file.or_else(|| variables.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|v| v.1.clone()));
    if let Some(file) = file.filter(|file| !file.is_empty()) {
        let path = PathBuf::from(file);
        loader.file(&path)?;
        loader.settings.config_file = Some(path);
    }
    for (name, value) in variables.into_iter().filter(|(name, _)| name != CONFIG_VARIABLE) {
        loader.variable(&name, &value)?;
    }
    for setting in all() {
        if let Some(value) = matches.remove_one::<OsString>(setting.name) {
            loader.set(setting, &text_of(&value, &setting.flag())?, Origin::Flag(setting.flag()))?;
        }
    }
    loader.finish()
}

#[derive(Debug, Default)]
struct Loader {
    settings: Settings,
    origins: BTreeMap<&'static str, Origin>,
}

impl Loader {
    fn set(&mut self, setting: &'static Setting, text: &str, origin: Origin) -> Result<(), SettingsError> {
        setting
            .set(&mut self.settings, text)
            .map_err(|reason| SettingsError::Refused(format!("{}: {reason}", origin.describe(setting.name))))?;
        self.origins.insert(setting.name, origin);
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), SettingsError> {
        let refused = |line: usize, what: String| {
            let place = if line == 0 { path.display().to_string() } else { format!("{}:{line}", path.display()) };
            SettingsError::Refused(format!("{place}: {what}"))
        };
        let length = std::fs::metadata(path)
            .map_err(|error| refused(0, format!("the settings file can't be read: {error}")))?
            .len();
        if length > FILE_BYTES_MAX {
            return Err(refused(0, format!("a settings file of {length} bytes is no settings file")));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| refused(0, format!("the settings file can't be read: {error}")))?;
        let line_of = |at: usize| 1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count();
        let table = DeTable::parse(&text)
            .map_err(|error| refused(error.span().map_or(0, |span| line_of(span.start)), error.message().to_owned()))?;
        for (key, value) in table.get_ref() {
            let line = line_of(key.span().start);
            let name: &str = key.get_ref();
            let Some(setting) = find(name) else {
                return Err(refused(line, format!("there is no setting '{name}'{}", hint(name))));
            };
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
                DeValue::Boolean(value) => value.to_string(),
                _ => return Err(refused(line, format!("{name} must be a string, a whole number, true or false"))),
            };
            self.set(setting, &text, Origin::File { path: path.to_owned(), line })?;
        }
        Ok(())
    }

    fn variable(&mut self, name: &str, value: &OsString) -> Result<(), SettingsError> {
        let setting = all().iter().find(|setting| setting.variable() == name).ok_or_else(|| {
            let wanted = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase().replace('_', "-");
            let hint = closest(&wanted)
                .map(|setting| format!("; did you mean {}?", setting.variable()))
                .unwrap_or_else(|| "; see holdfast --help".to_owned());
            SettingsError::Refused(format!("the environment variable {name} is no setting{hint}"))
        })?;
        self.set(setting, &text_of(value, name)?, Origin::Variable(name.to_owned()))
    }

    fn finish(self) -> Result<Settings, SettingsError> {
        let describe = |name: &str| match self.origins.get(name) {
            Some(origin) => origin.describe(name),
            None => format!("{name} (the default)"),
        };
        self.settings.check(describe).map_err(SettingsError::Refused)?;
        Ok(self.settings)
    }
}

/// Our variables, sorted by name so that the first error does not depend on the order of the environment.
fn variables(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, OsString)>, SettingsError> {
    let mut variables = Vec::new();
    for (name, value) in environment {
        if name.as_encoded_bytes().starts_with(VARIABLE_PREFIX.as_bytes()) {
            variables.push((text_of(&name, "the name of an environment variable")?, value));
        }
    }
    variables.sort();
    Ok(variables)
}

fn text_of(value: &OsString, place: &str) -> Result<String, SettingsError> {
    value
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| SettingsError::Refused(format!("{place}: '{}' is not valid UTF-8", value.display())))
}

fn find(name: &str) -> Option<&'static Setting> {
    all().iter().find(|setting| setting.name == name)
}

fn hint(name: &str) -> String {
    closest(&name.replace('_', "-").to_ascii_lowercase())
        .map(|setting| format!("; did you mean '{}'?", setting.name))
        .unwrap_or_else(|| "; holdfast --help lists them".to_owned())
}

/// The setting whose name is at most two letters away.
fn closest(name: &str) -> Option<&'static Setting> {
    all()
        .iter()
        .map(|setting| (distance(setting.name.as_bytes(), name.as_bytes()), setting))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, setting)| setting)
}

/// How many letters must be changed, added or left out to make one word of the other.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let other = &other[..other.len().min(64)];
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// The command line with its commands.
fn command_line() -> Command {
    let init = with_settings(Command::new("init")).about("Starts this node as the first of a new cluster").long_about(
        "Starts this node as the first of a new cluster. What its folder holds stays. The others come in with 'holdfast join'. \
         Given again, or for a folder that belongs to a cluster, it just starts the node; 'holdfast' alone does too.\n\n\
         holdfast init --config node1.toml",
    );
    let join = with_settings(Command::new("join"))
        .about("Starts this node as a new member of a running cluster")
        .long_about(
            "Starts this node as a new member of a running cluster, with an empty folder. It gets a copy of the data, then the \
             log as it grows, then a vote. Given again, or for a folder that belongs to a cluster, it just starts the node; \
             'holdfast' alone does too.\n\n\
             holdfast join 10.0.0.1:16379 --config node2.toml",
        )
        .arg(Arg::new("ADDRESS").required(true).help(
            "The peer address of any member, host:port: its client port + 10000, unless peer-port is set",
        ));
    let cluster = Command::new("cluster")
        .about("Runs a cluster of several nodes on this machine")
        .long_about(
            "Runs a cluster of several nodes on this machine, each a process of its own with real sockets and files: to try \
             things out, and for tests. Prints each node's address and process id, and what the nodes log, with the node in front. \
             A node that dies is started again after a second. Ctrl-C stops them all; with the same folder the same cluster \
             starts again.\n\n\
             holdfast cluster --nodes 3 --dir ./cluster --base-port 7001 -- --memory-budget 256MiB",
        )
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .value_name("COUNT")
                .default_value("3")
                .value_parser(clap::value_parser!(u16).range(1..=31))
                .help("How many nodes"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("FOLDER")
                .default_value("./holdfast-cluster")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The folder that holds a data folder for each node"),
        )
        .arg(
            Arg::new("base-port")
                .long("base-port")
                .value_name("PORT")
                .default_value("7001")
                .value_parser(clap::value_parser!(u16).range(1..=55_000))
                .help("The first node's client port; the others' follow. Peers use the ports 10000 above"),
        )
        .arg(
            Arg::new("FLAGS")
                .last(true)
                .num_args(0..)
                .value_parser(clap::value_parser!(OsString))
                .help("Settings for every node, as flags"),
        );
    let recover = with_settings(Command::new("recover"))
        .about("Makes the last node of a cluster that lost its majority for good the first of another")
        .long_about(
            "For a cluster that lost the majority of its nodes for good. Makes the node of a folder, which must not run, the only member \
             of a new cluster, with all that its log holds. Acknowledged writes that only the lost nodes have are lost. Shows \
             what the folder has, and asks before it changes anything. If several nodes are left, look at each with --inspect, and \
             recover the one whose log goes furthest; the others join it with empty folders.\n\n\
             holdfast recover --inspect --dir /var/lib/holdfast\n\
             holdfast recover --config node1.toml",
        )
        .arg(
            Arg::new("inspect").long("inspect").action(ArgAction::SetTrue).help("Show what the folder has. Like a start, it cuts off a torn end of the log, and is counted"),
        )
        .arg(Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("Don't ask"));
    command().subcommands([init, join, recover, cluster])
}

/// The command line, made from the table.
fn command() -> Command {
    with_settings(Command::new("holdfast"))
        .version(env!("CARGO_PKG_VERSION"))
        .about("A durable key-value database that speaks the Redis protocol")
        .long_about(
            "A durable key-value database that speaks the Redis protocol.\n\n\
             Without a command, a node starts as what its data folder says it is: alone, or a member of a cluster.\n\n\
             Every setting can be given as a flag, as an environment variable (HOLDFAST_ and its name in capitals), or \
             as a key of the file that --config names; a flag wins over the environment, the environment over the \
             file. Sizes are bytes or carry a unit: 64KiB, 64MiB, 2GiB.",
        )
}

/// Adds the flags of all settings.
fn with_settings(command: Command) -> Command {
    let mut command = command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .action(ArgAction::Set)
            .value_parser(clap::value_parser!(OsString))
            .help("A TOML file with settings, such as: port = 6380 [env: HOLDFAST_CONFIG=]"),
    );
    for setting in all() {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        let live = if setting.change == Change::Live { "; CONFIG SET can change it" } else { "" };
        command = command.arg(
            Arg::new(setting.name)
                .long(setting.name)
                .value_name(setting.placeholder)
                .action(ArgAction::Set)
                .allow_hyphen_values(true)
                .value_parser(clap::value_parser!(OsString))
                .help(format!("{}. [default: {default}; env: {}{live}]", setting.help, setting.variable())),
        );
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Durability;
    use holdfast_engine::store::StoreKind;

    fn load_with(flags: &[&str], environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let flags = ["holdfast"].iter().chain(flags).map(OsString::from);
        load(flags, environment.iter().map(|(name, value)| (name.into(), value.into())))
    }

    fn refusal(flags: &[&str], environment: &[(&str, &str)]) -> String {
        let error = load_with(flags, environment).expect_err("a refusal");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("holdfast.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let settings = load_with(&[], &[("PATH", "/bin"), ("OTHER_PORT", "x")]).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.port, 6379);
        assert!(settings.bind.is_loopback());
        assert_eq!(settings.durability, Durability::Always);
        assert_eq!(settings.memory_budget_bytes, 1 << 30);
    }

    #[test]
    fn flag_wins_over_environment_and_environment_over_file() {
        let (_folder, path) = file("port = 1000\nmaxclients = 11\nstore = \"sled\"\nprotected-mode = false\n");
        let environment = [("HOLDFAST_PORT", "2000"), ("HOLDFAST_MAXCLIENTS", "12"), ("HOLDFAST_CONFIG", &path)];
        let settings = load_with(&["--port", "3000"], &environment).unwrap();
        assert_eq!(settings.port, 3000);
        assert_eq!(settings.maxclients, 12);
        assert_eq!(settings.store, StoreKind::Sled);
        assert!(!settings.protected_mode);
        assert_eq!(settings.config_file, Some(PathBuf::from(path)));
    }

    #[test]
    fn every_setting_can_be_given_in_every_way() {
        for setting in all() {
            let value = match setting.default {
                "" => "something",
                value => value,
            };
            let by_flag = load_with(&[&setting.flag(), value], &[]).unwrap();
            let by_variable = load_with(&[], &[(&setting.variable(), value)]).unwrap();
            let (_folder, path) = file(&format!("{} = \"{value}\"\n", setting.name));
            let mut by_file = load_with(&["--config", &path], &[]).unwrap();
            by_file.config_file = None;
            assert_eq!(by_flag, by_variable, "{}", setting.name);
            assert_eq!(by_flag, by_file, "{}", setting.name);
        }
    }

    #[test]
    fn unknown_settings_are_refused_with_their_place() {
        let (_folder, path) = file("# comment\nport = 1\nmax-clients = 3\n");
        assert_eq!(
            refusal(&["--config", &path], &[]),
            format!("{path}:3: there is no setting 'max-clients'; did you mean 'maxclients'?")
        );
        assert_eq!(
            refusal(&[], &[("HOLDFAST_PROT", "1")]),
            "the environment variable HOLDFAST_PROT is no setting; did you mean HOLDFAST_PORT?"
        );
        assert!(refusal(&["--prot", "1"], &[]).contains("--port"));
    }

    #[test]
    fn wrong_values_are_refused_with_their_place() {
        let (_folder, path) = file("port = 1\nmemory-budget = \"1MiB\"\n");
        assert_eq!(
            refusal(&["--config", &path], &[]),
            format!("{path}:2: memory-budget: 1MiB is out of range: 32MiB to 64TiB")
        );
        assert_eq!(refusal(&["--port", "70000"], &[]), "--port: 70000 is out of range: 0 to 65535");
        assert_eq!(
            refusal(&[], &[("HOLDFAST_DURABILITY", "maybe")]),
            "the environment variable HOLDFAST_DURABILITY: 'maybe' is not one of always, everysec, no"
        );
        let (_folder, path) = file("port = [1, 2]\n");
        assert!(refusal(&["--config", &path], &[]).starts_with(&format!("{path}:1: port must be")));
        let (_folder, path) = file("port = 1\n\nport = 2\n");
        assert!(refusal(&["--config", &path], &[]).starts_with(&format!("{path}:3: ")));
        let (_folder, path) = file("port = 1\n[bind]\nx = 1\n");
        assert!(refusal(&["--config", &path], &[]).starts_with(&format!("{path}:2: bind must be")));
        assert!(refusal(&["--config", "/nonexistent/x.toml"], &[]).contains("/nonexistent/x.toml"));
    }

    #[test]
    fn contradictions_are_refused_with_both_places() {
        let (_folder, path) = file("\nvalue-bytes-max = \"100MiB\"\n");
        let text = refusal(&["--config", &path, "--memory-budget", "128MiB"], &[]);
        assert!(text.starts_with("--memory-budget is 128MiB"), "{text}");
        assert!(text.contains(&format!("{path}:2: value-bytes-max, which is 100MiB")), "{text}");
        let text = refusal(&["--output-bytes-max", "32MiB"], &[]);
        assert!(text.contains("value-bytes-max (the default) is 64MiB"), "{text}");
        let text = refusal(&["--request-bytes-max", "64MiB"], &[]);
        assert!(text.starts_with("--request-bytes-max is 64MiB"), "{text}");
        let text = refusal(&["--log-bytes-max", "100MiB"], &[]);
        assert!(text.starts_with("--log-bytes-max is 100MiB, less than four times log-segment-bytes"), "{text}");
    }

    #[test]
    fn help_and_version_are_not_failures() {
        for flag in ["--help", "-h", "--version"] {
            assert_eq!(load_with(&[flag], &[]).expect_err("text").exit_code(), 0);
        }
        let help = load_with(&["--help"], &[]).expect_err("help").to_string();
        for setting in all() {
            assert!(help.contains(&setting.flag()), "{}", setting.name);
            assert!(help.contains(&setting.variable()), "{}", setting.name);
        }
    }

    #[test]
    fn password_is_not_in_the_debug_text() {
        let settings = load_with(&["--requirepass", "s3cret"], &[]).unwrap();
        assert!(!format!("{settings:?}").contains("s3cret"));
    }
}
