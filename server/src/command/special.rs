//! The options of commands that the shard runs itself.

use super::{Failure, parse_i64};
use crate::cluster::NodeId;
use crate::slot::SLOT_COUNT;

/// What SCAN asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanOptions<'a> {
    /// Where the walk goes on; 0 to begin.
    pub cursor: u64,
    /// Only keys that this pattern matches; none for all.
    pub pattern: Option<&'a [u8]>,
    /// How many keys to look at, at least 1.
    pub count: usize,
    /// Only keys whose type has this name, in any case; a name that no type has finds nothing.
    pub type_name: Option<&'a [u8]>,
}

/// How many keys a step of SCAN looks at unless COUNT says otherwise.
pub const SCAN_COUNT_DEFAULT: usize = 10;

impl<'a> ScanOptions<'a> {
    /// Reads `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
    ///
    /// # Errors
    /// Redis's: an invalid cursor, a count that is no integer, or a syntax error.
    pub fn parse(args: &[&'a [u8]]) -> Result<Self, Failure> {
        const INVALID_CURSOR: Failure = Failure::fixed("ERR invalid cursor");
        let cursor = args.get(1).and_then(|arg| parse_cursor(arg)).ok_or(INVALID_CURSOR)?;
        let mut options = ScanOptions { cursor, pattern: None, count: SCAN_COUNT_DEFAULT, type_name: None };
        let mut words = args.iter().skip(2);
        while let Some(word) = words.next() {
            let value = words.next().copied().ok_or(Failure::SYNTAX)?;
            if word.eq_ignore_ascii_case(b"count") {
                let count = parse_i64(value).ok_or(Failure::NOT_INTEGER)?;
                if count < 1 {
                    return Err(Failure::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if word.eq_ignore_ascii_case(b"match") {
                // A lone star is the same as none, and much cheaper.
                options.pattern = (value != b"*").then_some(value);
            } else if word.eq_ignore_ascii_case(b"type") {
                options.type_name = Some(value);
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        Ok(options)
    }
}

/// An unsigned 64-bit number, with leading zeros if need be.
fn parse_cursor(arg: &[u8]) -> Option<u64> {
    if arg.is_empty() || !arg.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(arg).ok()?.parse().ok()
}

/// What SHUTDOWN asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShutdownOptions {
    /// SAVE (true) or NOSAVE (false) was given. Either way nothing that was acknowledged is lost.
    pub save: Option<bool>,
    /// Don't wait for replicas that lag.
    pub now: bool,
    /// Stop even if something fails on the way.
    pub force: bool,
    /// Take back a shutdown that is waiting.
    pub abort: bool,
}

impl ShutdownOptions {
    /// Reads `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]`.
    ///
    /// # Errors
    /// A syntax error: an unknown word, SAVE with NOSAVE, or ABORT with anything else.
    pub fn parse(args: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = ShutdownOptions::default();
        for word in args.iter().skip(1) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("save") && options.save != Some(false) {
                options.save = Some(true);
            } else if is("nosave") && options.save != Some(true) {
                options.save = Some(false);
            } else if is("now") {
                options.now = true;
            } else if is("force") {
                options.force = true;
            } else if is("abort") {
                options.abort = true;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        if options.abort && (options.save.is_some() || options.now || options.force) {
            return Err(Failure::SYNTAX);
        }
        Ok(options)
    }
}

/// What WAIT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitOptions {
    /// How many other replicas must have synced this connection's last write.
    pub replicas: i64,
    /// How long to wait for them, in milliseconds; 0 for ever.
    pub timeout_ms: u64,
}

impl WaitOptions {
    /// Reads `WAIT numreplicas timeout`.
    ///
    /// # Errors
    /// Redis's for a number that isn't one or that is negative.
    pub fn parse(args: &[&[u8]]) -> Result<Self, Failure> {
        let word = |index: usize| args.get(index).copied().unwrap_or_default();
        let replicas = parse_i64(word(1)).ok_or(Failure::NOT_INTEGER)?;
        let timeout = parse_i64(word(2)).ok_or(Failure::fixed("ERR timeout is not an integer or out of range"))?;
        let timeout_ms = u64::try_from(timeout).map_err(|_| Failure::fixed("ERR timeout is negative"))?;
        Ok(WaitOptions { replicas, timeout_ms })
    }
}

/// Which slot CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotOptions {
    /// The slot.
    pub slot: u16,
    /// The most keys that GETKEYSINSLOT answers; 0 for COUNTKEYSINSLOT.
    pub count: usize,
}

impl SlotOptions {
    /// Reads `CLUSTER COUNTKEYSINSLOT slot` or `CLUSTER GETKEYSINSLOT slot count`.
    ///
    /// # Errors
    /// Redis's for what is no number, for a slot that there isn't, and for a negative count.
    pub fn parse(args: &[&[u8]]) -> Result<Self, Failure> {
        const INVALID_SLOT: Failure = Failure::fixed("ERR Invalid slot");
        const INVALID: Failure = Failure::fixed("ERR Invalid slot or number of keys");
        let number = |word: &&[u8]| parse_i64(word).ok_or(Failure::NOT_INTEGER);
        let slot = args.get(2).map_or(Err(Failure::NOT_INTEGER), number)?;
        let count = args.get(3).map(number).transpose()?;
        let slot = u16::try_from(slot).ok().filter(|slot| *slot < SLOT_COUNT);
        match (slot, count) {
            (Some(slot), None) => Ok(SlotOptions { slot, count: 0 }),
            (None, None) => Err(INVALID_SLOT),
            (Some(slot), Some(count @ 0..)) => {
                Ok(SlotOptions { slot, count: usize::try_from(count).unwrap_or(usize::MAX) })
            }
            (_, Some(_)) => Err(INVALID),
        }
    }
}

/// Reads the number of a node, the third word of `HOLDFAST REMOVE-NODE node` and `HOLDFAST TRANSFER-LEADER [node]`.
///
/// # Errors
/// Redis's for what is no number. Whether there is such a node, the group knows.
pub fn parse_node(args: &[&[u8]]) -> Result<NodeId, Failure> {
    let number = args.get(2).and_then(|word| parse_i64(word));
    number.and_then(|number| NodeId::try_from(number).ok()).ok_or(Failure::NOT_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(request: &str) -> Vec<&[u8]> {
        request.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn scan_options_are_read() {
        let request = args("scan 17 MATCH a* count 100 Type string");
        let options = ScanOptions::parse(&request).expect("options");
        assert_eq!(options, ScanOptions { cursor: 17, pattern: Some(b"a*"), count: 100, type_name: Some(b"string") });
        let request = args("scan 0 match *");
        assert_eq!(ScanOptions::parse(&request).expect("options").pattern, None);
        for (request, error) in [
            ("scan x", "ERR invalid cursor"),
            ("scan -1", "ERR invalid cursor"),
            ("scan 18446744073709551616", "ERR invalid cursor"),
            ("scan 0 count", "ERR syntax error"),
            ("scan 0 count 0", "ERR syntax error"),
            ("scan 0 count x", "ERR value is not an integer or out of range"),
            ("scan 0 nonsense 1", "ERR syntax error"),
        ] {
            assert_eq!(ScanOptions::parse(&args(request)).expect_err(request).text(), error);
        }
    }

    #[test]
    fn shutdown_options_are_read() {
        let parsed = |request| ShutdownOptions::parse(&args(request));
        assert_eq!(parsed("shutdown"), Ok(ShutdownOptions::default()));
        assert_eq!(
            parsed("shutdown nosave now FORCE"),
            Ok(ShutdownOptions { save: Some(false), now: true, force: true, abort: false })
        );
        assert!(parsed("shutdown abort").is_ok_and(|options| options.abort));
        for request in ["shutdown save nosave", "shutdown abort now", "shutdown later"] {
            assert_eq!(parsed(request), Err(Failure::SYNTAX), "{request}");
        }
    }

    #[test]
    fn slot_options_are_read() {
        let parsed = |request| SlotOptions::parse(&args(request));
        assert_eq!(parsed("cluster countkeysinslot 16383"), Ok(SlotOptions { slot: 16383, count: 0 }));
        assert_eq!(parsed("cluster getkeysinslot 0 7"), Ok(SlotOptions { slot: 0, count: 7 }));
        for (request, error) in [
            ("cluster countkeysinslot x", "ERR value is not an integer or out of range"),
            ("cluster countkeysinslot 16384", "ERR Invalid slot"),
            ("cluster countkeysinslot -1", "ERR Invalid slot"),
            ("cluster getkeysinslot 1 x", "ERR value is not an integer or out of range"),
            ("cluster getkeysinslot 1 -1", "ERR Invalid slot or number of keys"),
            ("cluster getkeysinslot 16384 1", "ERR Invalid slot or number of keys"),
        ] {
            assert_eq!(parsed(request).expect_err(request).text(), error);
        }
    }

    #[test]
    fn node_numbers_are_read() {
        assert_eq!(parse_node(&args("holdfast remove-node 7")), Ok(7));
        for request in ["holdfast remove-node x", "holdfast remove-node -1", "holdfast remove-node"] {
            assert_eq!(parse_node(&args(request)), Err(Failure::NOT_INTEGER), "{request}");
        }
    }

    #[test]
    fn wait_options_are_read() {
        let parsed = |request| WaitOptions::parse(&args(request));
        assert_eq!(parsed("wait 1 100"), Ok(WaitOptions { replicas: 1, timeout_ms: 100 }));
        assert_eq!(parsed("wait x 100"), Err(Failure::NOT_INTEGER));
        assert_eq!(parsed("wait 0 x").expect_err("x").text(), "ERR timeout is not an integer or out of range");
        assert_eq!(parsed("wait 0 -1").expect_err("-1").text(), "ERR timeout is negative");
    }
}
