//! Keeps the log readable: what happens again and again is said once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// After this time the same is said again.
const SILENCE: Duration = Duration::from_secs(600);
/// Different lines within that time; more are not said at all, so that nobody can fill the log from outside.
const LINES_MAX: usize = 64;

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Said(RefCell<HashMap<String, Instant>>);

impl Said {
    /// Writes a warning, unless it was written lately.
    pub(super) fn warn(&self, line: &str) {
        if self.is_news(line) {
            tracing::warn!("{line}");
        }
    }

    fn is_news(&self, line: &str) -> bool {
        let mut lines = self.0.borrow_mut();
        let now = Instant::now();
        if lines.len() >= LINES_MAX {
            lines.retain(|_, said| now.duration_since(*said) < SILENCE);
        }
        if lines.get(line).is_some_and(|said| now.duration_since(*said) < SILENCE) || lines.len() >= LINES_MAX {
            return false;
        }
        lines.insert(line.to_string(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_and_the_log_cannot_be_filled() {
        let said = Said::default();
        assert!(said.is_news("a") && !said.is_news("a") && said.is_news("b"));
        let count = (0..1000).filter(|n| said.is_news(&n.to_string())).count();
        assert_eq!(count, LINES_MAX - 2);
    }
}
