//! Any arguments to any command: exactly one reply, no panic, and the same again from the same state.

use holdfast_server::command::mem::MemKeyspace;
use holdfast_server::command::{CommandSpec, Handler, Needs, all, check_sizes, keys_of};
use holdfast_server::resp::{Proto, Value};
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;

/// Every command that runs on a keyspace or from the table alone.
fn runnable() -> Vec<&'static CommandSpec> {
    all()
        .flat_map(|spec| if spec.subcommands.is_empty() { std::slice::from_ref(spec) } else { spec.subcommands })
        .filter(|spec| matches!(spec.handler, Handler::Data(_) | Handler::Table(_)))
        .collect()
}

/// What the options and operands of commands are made of.
const KNOWN: &[&str] = &[
    "",
    "a",
    "b",
    "c",
    "0",
    "1",
    "-1",
    "2",
    "7",
    "8",
    "100",
    "-100",
    "255",
    "65536",
    "4294967295",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "0.1",
    "-2.5e3",
    "1e400",
    "inf",
    "nan",
    "ex",
    "px",
    "exat",
    "pxat",
    "nx",
    "xx",
    "gt",
    "lt",
    "get",
    "set",
    "incrby",
    "overflow",
    "wrap",
    "sat",
    "fail",
    "keepttl",
    "persist",
    "ifeq",
    "and",
    "or",
    "xor",
    "not",
    "bit",
    "byte",
    "u8",
    "i64",
    "u63",
    "i5",
    "#0",
    "#3",
    "idx",
    "len",
    "minmatchlen",
    "withmatchlen",
    "db",
    "replace",
    "absttl",
    "idletime",
    "freq",
    "samples",
    "async",
    "sync",
    "filterby",
    "pattern",
    "aclcat",
    "module",
    "mset",
    "client",
    "client|list",
    "*",
    "[a-",
];

/// Words that mean something to some command, numbers at the edges, and bytes that mean nothing.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::sample::select(KNOWN).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
    ]
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    (proptest::sample::select(runnable()), proptest::collection::vec(word(), 0..9))
        .prop_map(|(spec, words)| spec.name.split('|').map(|part| part.as_bytes().to_vec()).chain(words).collect())
}

fn slices(request: &[Vec<u8>]) -> Vec<&[u8]> {
    request.iter().map(Vec::as_slice).collect()
}

/// Requests that would fill memory for real are left out: the limit is 64 MiB, and one such value is fine, many are slow.
fn is_cheap(request: &[Vec<u8>]) -> bool {
    !request.iter().any(|word| {
        let digits = word.strip_prefix(b"#").unwrap_or(word);
        let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<i64>().ok());
        number.is_some_and(|number| (1_000_000..=600_000_000).contains(&number))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { ..ProptestConfig::default() })]

    #[test]
    fn any_requests_get_one_reply_each_and_the_same_twice(
        requests in proptest::collection::vec(request().prop_filter("cheap", |request| is_cheap(request)), 1..25),
        resp3: bool,
    ) {
        let proto = if resp3 { Proto::Resp3 } else { Proto::Resp2 };
        let (mut keys, mut again) = (MemKeyspace::new(NOW_MS), MemKeyspace::new(NOW_MS));
        for (count, request) in requests.iter().enumerate() {
            let args = slices(request);
            let before = keys.clone();
            let reply = keys.run(proto, &args);
            let parsed = Value::parse(&reply);
            let (value, len) = parsed.expect("a well-formed reply").expect("a whole reply");
            prop_assert_eq!(len, reply.len(), "{:?}", request);
            if matches!(value, Value::Error(_)) {
                prop_assert!(keys.iter().eq(before.iter()), "an error changes nothing: {:?}", request);
            }
            prop_assert_eq!(again.run(proto, &args), reply);
            keys.now_ms += count as u64 * 50;
            again.now_ms = keys.now_ms;
        }
        prop_assert_eq!(keys, again);
    }

    /// The shard fetches only what `needs` and `keys_of` say: what a command does must not depend on any other key.
    #[test]
    fn only_declared_keys_decide_and_change(
        setup in proptest::collection::vec((word(), word()), 0..6),
        request in request().prop_filter("cheap", |request| is_cheap(request)),
    ) {
        let args = slices(&request);
        let Ok(spec) = holdfast_server::command::resolve(&args) else { return Ok(()) };
        prop_assume!(spec.name != "flushall" && spec.name != "flushdb");
        prop_assert!(check_sizes(spec, &args, 1 << 20).is_ok());
        let declared: Vec<&[u8]> = keys_of(spec, &args).map(|position| args[position]).collect();
        let needs = spec.needs(&args);
        let (mut full, mut sparse) = (MemKeyspace::new(NOW_MS), MemKeyspace::new(NOW_MS));
        for (key, value) in &setup {
            full.run(Proto::Resp2, &[b"set", key, value]);
            // Of a value whose head is all that counts, any other of its length will do.
            let value = if needs == Needs::Heads { &vec![b'?'; value.len()] } else { value };
            if needs != Needs::Nothing && declared.contains(&key.as_slice()) {
                sparse.run(Proto::Resp2, &[b"set", key, value]);
            }
        }
        let before = full.clone();
        prop_assert_eq!(full.run(Proto::Resp2, &args), sparse.run(Proto::Resp2, &args), "{:?}", request);
        for (key, object) in full.iter().filter(|(key, _)| declared.contains(key)) {
            let same = sparse.iter().any(|(other, found)| other == key && found == object);
            let blind_and_refused = needs != Needs::Values && before.iter().any(|(other, found)| other == key && found == object);
            prop_assert!(same || blind_and_refused, "{:?} {:?}", request, key);
        }
        let others = |keys: &MemKeyspace| -> Vec<_> {
            keys.iter().filter(|(key, _)| !declared.contains(key)).map(|(key, object)| (key.to_vec(), object.clone())).collect()
        };
        prop_assert_eq!(others(&full), others(&before), "{:?}", request);
        if !spec.is_write() {
            prop_assert_eq!(full, before);
        }
    }
}
