//! The commands that took longest: a bounded list, newest first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Arguments kept of an entry; the last of them says how many more there were.
const ARGS_MAX: usize = 32;
/// Bytes kept of an argument.
const ARG_BYTES_MAX: usize = 128;

/// A command that took long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlowLogEntry {
    /// Rises by one with every entry, also over a reset.
    pub id: u64,
    /// When it ran, in seconds since the epoch.
    pub time_seconds: u64,
    /// How long it executed, in microseconds.
    pub duration_us: u64,
    /// The arguments, shortened.
    pub args: Vec<Vec<u8>>,
    /// The client's address.
    pub address: String,
    /// The client's name.
    pub name: String,
}

/// The slow log. Long arguments are cut, so that its size is bounded by its length.
#[derive(Debug, Default)]
pub struct SlowLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<SlowLogEntry>,
    next_id: u64,
}

impl SlowLog {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a command. The caller has compared its duration with
    /// [`Live::slowlog_log_slower_than_us`](super::Live::slowlog_log_slower_than_us).
    pub fn record(
        &self,
        len_max: usize,
        now_ms: u64,
        duration_us: u64,
        args: &[&[u8]],
        client: Option<&super::ClientInfo>,
    ) {
        let entry = SlowLogEntry {
            id: 0,
            time_seconds: now_ms / 1000,
            duration_us,
            args: shorten(args),
            address: client.map(|client| client.address.to_string()).unwrap_or_default(),
            name: client.map(super::ClientInfo::name).unwrap_or_default(),
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.next_id;
        inner.next_id += 1;
        inner.entries.push_front(SlowLogEntry { id, ..entry });
        inner.entries.truncate(len_max);
    }

    /// The newest `count` entries, newest first.
    pub fn newest(&self, count: usize) -> Vec<SlowLogEntry> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.entries.iter().take(count).cloned().collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops all entries.
    pub fn reset(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.clear();
    }
}

/// Whether the argument at `index` is, or may be, a password.
fn is_secret(args: &[&[u8]], index: usize) -> bool {
    let is = |at: usize, word: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    match index {
        0 => false,
        _ if is(0, "auth") => true,
        _ if is(0, "hello") => is(index - 1, "auth") || (index > 1 && is(index - 2, "auth")),
        _ => is(0, "config") && is(1, "set") && is(index - 1, "requirepass"),
    }
}

fn shorten(args: &[&[u8]]) -> Vec<Vec<u8>> {
    let shown = if args.len() > ARGS_MAX { ARGS_MAX - 1 } else { args.len() };
    let mut kept: Vec<Vec<u8>> = args[..shown]
        .iter()
        .enumerate()
        .map(|(index, arg)| match arg.len().checked_sub(ARG_BYTES_MAX) {
            _ if is_secret(args, index) => b"(redacted)".to_vec(),
            Some(more) if more > 0 => {
                let mut short = arg[..ARG_BYTES_MAX].to_vec();
                short.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                short
            }
            _ => arg.to_vec(),
        })
        .collect();
    if shown < args.len() {
        kept.push(format!("... ({} more arguments)", args.len() - shown).into_bytes());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_come_first_and_the_oldest_go() {
        let log = SlowLog::new();
        for at in 0..5u64 {
            log.record(3, at * 1000, 10 + at, &[b"GET", b"k"], None);
        }
        let ids: Vec<u64> = log.newest(10).iter().map(|entry| entry.id).collect();
        assert_eq!(ids, [4, 3, 2]);
        assert_eq!(log.newest(1)[0].time_seconds, 4);
        log.reset();
        assert!(log.is_empty());
        log.record(3, 0, 1, &[b"GET"], None);
        assert_eq!(log.newest(1)[0].id, 5, "ids go on after a reset");
    }

    #[test]
    fn passwords_are_not_kept() {
        let kept = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            shorten(&args).iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept("AUTH me secret"), "AUTH (redacted) (redacted)");
        assert_eq!(kept("hello 3 auth me secret setname x"), "hello 3 auth (redacted) (redacted) setname x");
        assert_eq!(kept("CONFIG SET save x requirepass secret"), "CONFIG SET save x requirepass (redacted)");
        assert_eq!(kept("SET auth secret"), "SET auth secret");
    }

    #[test]
    fn large_commands_are_shortened() {
        let long = vec![b'x'; 200];
        let mut args: Vec<&[u8]> = vec![&long];
        args.resize(40, b"a");
        let kept = shorten(&args);
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[0], [&long[..128], b"... (72 more bytes)"].concat());
        assert_eq!(kept[31], b"... (9 more arguments)");
        assert_eq!(shorten(&args[..32]).len(), 32);
        assert_eq!(shorten(&[&long[..128]])[0].len(), 128);
    }
}
