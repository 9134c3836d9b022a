//! The page of settings in the book must say what the table says.

use super::{Change, all};

const PAGE: &str = include_str!("../../../docs/src/reference/settings.md");

/// The table of the page, as it must be.
fn table() -> String {
    let mut text =
        "| Name and flag | Variable | Default | Change | Meaning |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for setting in all() {
        let default = if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
        let change = match setting.change {
            Change::AtStart => "start",
            Change::Live => "live",
        };
        let (flag, variable, help) = (setting.flag(), setting.variable(), setting.help);
        text += &format!("| `{flag} {}` | `{variable}` | {default} | {change} | {help} |\n", setting.placeholder);
    }
    text
}

#[test]
fn page_lists_every_setting_as_the_table_has_it() {
    let wanted = table();
    assert!(PAGE.contains(&wanted), "docs/src/reference/settings.md should contain:\n\n{wanted}");
}

#[test]
fn page_lists_every_name_that_config_knows() {
    for name in crate::connection::config_names() {
        assert!(PAGE.contains(&format!("`{name}`")) || PAGE.contains(&format!("`--{name} ")), "{name} is missing");
    }
}

#[test]
fn example_of_the_page_is_a_settings_file() {
    let (_, rest) = PAGE.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("the end of the example");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdfast.toml");
    std::fs::write(&path, example).expect("a file");
    let flags = ["holdfast", "--config", path.to_str().expect("text")].map(std::ffi::OsString::from);
    let settings = super::load(flags, []).expect("settings");
    assert_eq!(settings.port, 6380);
}
