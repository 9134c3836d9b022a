//! The settings that `CONFIG SET` may change, until the next start.

use crate::settings::{LogLevel, Settings};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};

/// Settings in motion. They start out as in [`Settings`]; every thread sees a change with its next command.
#[derive(Debug)]
pub struct Live {
    maxclients: AtomicU32,
    timeout_seconds: AtomicU32,
    tcp_keepalive_seconds: AtomicU32,
    protected_mode: AtomicBool,
    slowlog_log_slower_than_us: AtomicI64,
    slowlog_max_len: AtomicUsize,
    log_level: AtomicU8,
    password: RwLock<Box<[u8]>>,
    has_password: AtomicBool,
    /// Redis's settings that have no counterpart here, as they were set.
    stored: Mutex<BTreeMap<&'static str, String>>,
}

impl Live {
    pub(super) fn new(settings: &Settings) -> Self {
        let live = Live {
            maxclients: AtomicU32::new(settings.maxclients),
            timeout_seconds: AtomicU32::new(settings.timeout_seconds),
            tcp_keepalive_seconds: AtomicU32::new(settings.tcp_keepalive_seconds),
            protected_mode: AtomicBool::new(settings.protected_mode),
            slowlog_log_slower_than_us: AtomicI64::new(settings.slowlog_log_slower_than_us),
            slowlog_max_len: AtomicUsize::new(settings.slowlog_max_len),
            log_level: AtomicU8::new(settings.log_level as u8),
            password: RwLock::default(),
            has_password: AtomicBool::new(false),
            stored: Mutex::default(),
        };
        live.set_password(&settings.requirepass);
        live
    }

    /// The most clients at a time.
    pub fn maxclients(&self) -> u32 {
        self.maxclients.load(Relaxed)
    }

    /// Seconds after which an idle client is closed; 0 for never.
    pub fn timeout_seconds(&self) -> u32 {
        self.timeout_seconds.load(Relaxed)
    }

    /// Seconds of silence before the system probes a new connection; 0 for never.
    pub fn tcp_keepalive_seconds(&self) -> u32 {
        self.tcp_keepalive_seconds.load(Relaxed)
    }

    /// Whether strangers are refused while there is no password.
    pub fn protected_mode(&self) -> bool {
        self.protected_mode.load(Relaxed)
    }

    /// Microseconds from which on a command goes to the slow log; negative for none.
    #[inline]
    pub fn slowlog_log_slower_than_us(&self) -> i64 {
        self.slowlog_log_slower_than_us.load(Relaxed)
    }

    /// The most entries of the slow log.
    pub fn slowlog_max_len(&self) -> usize {
        self.slowlog_max_len.load(Relaxed)
    }

    /// What is logged.
    pub fn log_level(&self) -> LogLevel {
        const LEVELS: [LogLevel; 5] =
            [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
        LEVELS.get(usize::from(self.log_level.load(Relaxed))).copied().unwrap_or_default()
    }

    /// Whether clients must authenticate.
    #[inline]
    pub fn has_password(&self) -> bool {
        self.has_password.load(Relaxed)
    }

    /// The password; empty for none.
    pub fn password(&self) -> Vec<u8> {
        self.password.read().unwrap_or_else(PoisonError::into_inner).to_vec()
    }

    /// Whether `given` is the password. Takes the same time wherever a wrong one differs.
    pub fn password_is(&self, given: &[u8]) -> bool {
        let password = self.password.read().unwrap_or_else(PoisonError::into_inner);
        let mut difference = password.len() ^ given.len();
        for (at, byte) in given.iter().enumerate() {
            let wanted = password.get(at % password.len().max(1)).copied().unwrap_or(0);
            difference |= usize::from(byte ^ wanted);
        }
        difference == 0
    }

    pub(crate) fn set_maxclients(&self, count: u32) {
        self.maxclients.store(count, Relaxed);
    }

    pub(crate) fn set_timeout_seconds(&self, seconds: u32) {
        self.timeout_seconds.store(seconds, Relaxed);
    }

    pub(crate) fn set_tcp_keepalive_seconds(&self, seconds: u32) {
        self.tcp_keepalive_seconds.store(seconds, Relaxed);
    }

    pub(crate) fn set_protected_mode(&self, on: bool) {
        self.protected_mode.store(on, Relaxed);
    }

    pub(crate) fn set_slowlog_log_slower_than_us(&self, us: i64) {
        self.slowlog_log_slower_than_us.store(us, Relaxed);
    }

    pub(crate) fn set_slowlog_max_len(&self, len: usize) {
        self.slowlog_max_len.store(len, Relaxed);
    }

    pub(super) fn set_log_level(&self, level: LogLevel) {
        self.log_level.store(level as u8, Relaxed);
    }

    pub(crate) fn set_password(&self, password: impl AsRef<[u8]>) {
        let password = password.as_ref();
        *self.password.write().unwrap_or_else(PoisonError::into_inner) = password.into();
        self.has_password.store(!password.is_empty(), Relaxed);
    }

    pub(crate) fn stored(&self, name: &str) -> Option<String> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(crate) fn store(&self, name: &'static str, value: String) {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner).insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_the_password() {
        let live = Live::new(&Settings { requirepass: "abcabc".to_owned(), ..Settings::default() });
        assert!(live.has_password() && live.password_is(b"abcabc"));
        for wrong in ["", "abc", "abcab", "abcabcabc", "abcabd", "xbcabc", "abcabcabcabc"] {
            assert!(!live.password_is(wrong.as_bytes()), "{wrong}");
        }
        live.set_password("");
        assert!(!live.has_password());
    }

    #[test]
    fn every_log_level_survives_the_atomic() {
        let live = Live::new(&Settings::default());
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace] {
            live.set_log_level(level);
            assert_eq!(live.log_level(), level);
        }
    }
}
