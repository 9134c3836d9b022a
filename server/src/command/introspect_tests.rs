//! COMMAND's replies, read back as a client reads them.

use super::mem::MemKeyspace;
use super::{CommandSpec, all};
use crate::resp::{Proto, Value};

fn ask(proto: Proto, request: &str) -> Value {
    let args: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
    let reply = MemKeyspace::new(1).run(proto, &args);
    let (value, len) = Value::parse(&reply).expect("a reply").expect("a whole reply");
    assert_eq!(len, reply.len(), "{request}: one value, nothing after it");
    value
}

fn elements(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) | Value::Set(elements) => elements,
        other => panic!("no list: {other:?}"),
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

fn field(map: &Value, name: &str) -> Option<Value> {
    let Value::Map(pairs) = map else { panic!("no map: {map:?}") };
    pairs.iter().find(|(key, _)| *key == bulk(name)).map(|(_, value)| value.clone())
}

#[test]
fn every_command_is_described_with_ten_elements() {
    for proto in [Proto::Resp2, Proto::Resp3] {
        let entries = elements(ask(proto, "COMMAND"));
        assert_eq!(ask(proto, "command info"), Value::Array(entries.clone()));
        assert_eq!(ask(proto, "command count"), Value::Int(entries.len() as i64));
        let names: Vec<Value> = entries.iter().map(|entry| elements(entry.clone())[0].clone()).collect();
        assert_eq!(names, all().map(|spec| bulk(spec.name)).collect::<Vec<_>>());
        for (entry, spec) in entries.into_iter().zip(all()) {
            let entry = elements(entry);
            assert_eq!(entry.len(), 10, "{}", spec.name);
            assert_eq!(entry[1], Value::Int(i64::from(spec.arity)));
            assert_eq!(elements(entry[9].clone()).len(), spec.subcommands.len());
        }
    }
}

#[test]
fn unknown_commands_have_no_description() {
    assert_eq!(
        ask(Proto::Resp2, "command info nosuch client|nosuch nosuch|id"),
        Value::Array(vec![Value::Null, Value::Null, Value::Null])
    );
    assert_eq!(ask(Proto::Resp3, "command docs nosuch"), Value::Map(Vec::new()));
}

#[test]
fn documentation_names_every_argument() {
    let Value::Map(commands) = ask(Proto::Resp3, "command docs") else { panic!("no map") };
    assert_eq!(commands.len(), all().count());
    let set = &commands.iter().find(|(name, _)| *name == bulk("set")).expect("SET").1;
    assert_eq!(field(set, "group"), Some(bulk("string")));
    assert_eq!(field(set, "since"), Some(bulk("1.0.0")));
    let arguments = elements(field(set, "arguments").expect("arguments"));
    assert_eq!(arguments.len(), 5);
    assert_eq!(field(&arguments[0], "name"), Some(bulk("key")));
    assert_eq!(field(&arguments[0], "type"), Some(bulk("key")));
    assert_eq!(field(&arguments[0], "key_spec_index"), Some(Value::Int(0)));
    assert_eq!(field(&arguments[2], "type"), Some(bulk("oneof")));
    assert_eq!(field(&arguments[2], "flags"), Some(Value::Set(vec![Value::Simple("optional".into())])));
    let expiry = elements(field(&arguments[4], "arguments").expect("choices"));
    assert_eq!(field(&expiry[0], "token"), Some(bulk("EX")));
    assert_eq!(field(&expiry[0], "type"), Some(bulk("integer")));
    let getset = &commands.iter().find(|(name, _)| *name == bulk("getset")).expect("GETSET").1;
    assert_eq!(field(getset, "deprecated_since"), Some(bulk("6.2.0")));
    let client = &commands.iter().find(|(name, _)| *name == bulk("client")).expect("CLIENT").1;
    let Some(Value::Map(subcommands)) = field(client, "subcommands") else { panic!("no subcommands") };
    assert!(subcommands.iter().any(|(name, _)| *name == bulk("client|list")));
}

#[test]
fn lists_are_filtered() {
    let list = |request: &str| elements(ask(Proto::Resp2, request));
    let rows = || all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    let named = |keep: &dyn Fn(&CommandSpec) -> bool| -> Vec<Value> {
        rows().filter(|spec| keep(spec)).map(|spec| bulk(spec.name)).collect()
    };
    assert_eq!(list("command list").len(), all().count());
    assert_eq!(list("command list filterby module any"), []);
    assert_eq!(list("command list FILTERBY pattern GET*"), named(&|spec| spec.name.starts_with("get")));
    assert_eq!(list("command list filterby aclcat BITMAP"), named(&|spec| spec.group.name() == "bitmap"));
    assert_eq!(list("command list filterby aclcat set"), []);
    for request in ["command list x", "command list filterby x y", "command list filterby pattern"] {
        assert_eq!(ask(Proto::Resp2, request), Value::Error("ERR syntax error".into()), "{request}");
    }
}

#[test]
fn keys_of_a_request_are_found() {
    let keys = |request: &str| ask(Proto::Resp2, &format!("command getkeys {request}"));
    assert_eq!(keys("mset a 1 b 2"), Value::Array(vec![bulk("a"), bulk("b")]));
    assert_eq!(keys("memory usage k samples 5"), Value::Array(vec![bulk("k")]));
    let with_flags = |request: &str| ask(Proto::Resp2, &format!("command getkeysandflags {request}"));
    let one = |key: &str, flags: &[&str]| {
        let flags = flags.iter().map(|flag| Value::Simple(flag.to_string())).collect();
        Value::Array(vec![Value::Array(vec![bulk(key), Value::Array(flags)])])
    };
    assert_eq!(with_flags("set a b"), one("a", &["OW", "update"]));
    assert_eq!(with_flags("set a b ifeq c"), one("a", &["RW", "access", "update"]));
    assert_eq!(with_flags("bitfield a get u8 0"), one("a", &["RO", "access"]));
}

#[test]
fn requests_for_very_many_descriptions_are_refused() {
    for subcommand in ["info", "docs"] {
        let refused = |count: usize| {
            let request = format!("command {subcommand}{}", " get".repeat(count));
            matches!(ask(Proto::Resp2, &request), Value::Error(text) if text.starts_with("ERR too many command names"))
        };
        assert!(!refused(1024) && refused(1025), "{subcommand}");
    }
}
