//! CLIENT PAUSE: commands are held back for a while, so that an operator can move clients without losing writes.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// What is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseMode {
    /// Writes.
    Write,
    /// All commands.
    All,
}

/// Whether clients are held back, and until when. No pause is longer or weaker for a second one that overlaps it.
#[derive(Debug, Default)]
pub struct Pause {
    /// 0 none, 1 writes, 2 all.
    mode: AtomicU8,
    until_ms: AtomicU64,
}

impl Pause {
    /// Holds commands back until `until_ms`. A pause that runs already is extended or widened, never cut.
    pub fn start(&self, mode: PauseMode, until_ms: u64, now_ms: u64) {
        if self.until_ms.load(Relaxed) <= now_ms {
            self.mode.store(0, Relaxed);
        }
        // NB: two operators at once: each of the two maxima holds on its own, which is all that is promised.
        self.until_ms.fetch_max(until_ms, Relaxed);
        self.mode.fetch_max(1 + u8::from(mode == PauseMode::All), Relaxed);
    }

    /// Lets everything go on.
    pub fn end(&self) {
        self.mode.store(0, Relaxed);
        self.until_ms.store(0, Relaxed);
    }

    /// Whether a command is held back now.
    #[inline]
    pub fn holds(&self, is_write: bool, now_ms: u64) -> bool {
        match self.mode.load(Relaxed) {
            0 => false,
            1 => is_write && now_ms < self.until_ms.load(Relaxed),
            _ => now_ms < self.until_ms.load(Relaxed),
        }
    }

    /// What is held back now.
    pub fn mode(&self, now_ms: u64) -> Option<PauseMode> {
        match (self.holds(false, now_ms), self.holds(true, now_ms)) {
            (true, _) => Some(PauseMode::All),
            (false, true) => Some(PauseMode::Write),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_holds_what_it_names_until_it_ends() {
        let pause = Pause::default();
        assert_eq!(pause.mode(0), None);
        pause.start(PauseMode::Write, 100, 0);
        assert!(pause.holds(true, 99) && !pause.holds(false, 99) && !pause.holds(true, 100));
        pause.start(PauseMode::All, 50, 0);
        assert_eq!(pause.mode(99), Some(PauseMode::All));
        pause.start(PauseMode::Write, 300, 200);
        assert_eq!(pause.mode(250), Some(PauseMode::Write), "an ended pause leaves nothing behind");
        pause.end();
        assert_eq!(pause.mode(250), None);
    }
}
