//! The walk along the data path in the docs names functions that exist.

use std::path::Path;

/// Names in backquotes in the order of the text.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_function_of_the_walk_is_in_the_file_named_with_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace");
    let walk = std::fs::read_to_string(root.join("docs/src/data-path.md")).expect("docs/src/data-path.md");
    let mut checked = 0;
    for paragraph in walk.split("\n\n") {
        let names: Vec<&str> = quoted(paragraph).collect();
        let files: Vec<String> = names
            .iter()
            .filter(|name| name.ends_with(".rs"))
            .map(|name| std::fs::read_to_string(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")))
            .collect();
        let is_function = |name: &&&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        for name in names.iter().filter(is_function).filter(|name| **name != "fdatasync") {
            let needle = format!("fn {name}");
            assert!(files.iter().any(|file| file.contains(&needle)), "{name} is in none of the files of:\n{paragraph}");
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} functions found: has the page changed its form?");
}
