//! `docs/src/testing.md` maps scenarios to tests: each test that it names is there.

use std::path::Path;

#[test]
fn testing_page_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let page = std::fs::read_to_string(root.join("docs/src/testing.md")).expect("the page");
    let mut count = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains(".rs`")) {
        let mut names = row.split('`').skip(1).step_by(2);
        let file = names.next().expect("a file");
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        for name in names {
            assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
            count += 1;
        }
    }
    assert!(count > 80, "only {count} tests were found on the page");
}
