//! What the server says about its commands (`COMMAND DOCS`), made into syntax lines.

use std::collections::BTreeMap;

use holdfast_client::Value;

/// Nesting of arguments that is followed; a server that goes deeper is not explained further.
const ARGUMENT_DEPTH_MAX: usize = 8;

/// One command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Doc {
    pub(crate) summary: String,
    pub(crate) since: String,
    pub(crate) group: String,
    /// The arguments in order, each as it is shown: `key`, `[NX|XX]`, `key [key ...]`.
    pub(crate) arguments: Vec<String>,
}

/// Commands by their names in capitals; a subcommand's name is `CONFIG GET`.
#[derive(Debug, Default)]
pub(crate) struct Docs {
    commands: BTreeMap<String, Doc>,
}

impl Docs {
    pub(crate) fn from_reply(reply: Value) -> Self {
        let mut docs = Docs::default();
        for (name, fields) in reply.into_pairs().unwrap_or_default() {
            docs.add(&text(&name).to_uppercase(), fields, 0);
        }
        docs
    }

    fn add(&mut self, name: &str, fields: Value, depth: usize) {
        let mut doc = Doc::default();
        for (field, value) in fields.into_pairs().unwrap_or_default() {
            match text(&field).as_str() {
                "summary" => doc.summary = text(&value),
                "since" => doc.since = text(&value),
                "group" => doc.group = text(&value),
                "arguments" => doc.arguments = syntax_list(value, 0),
                "subcommands" if depth == 0 => {
                    for (subcommand, fields) in value.into_pairs().unwrap_or_default() {
                        // Servers name it with its parent: `config|get`.
                        let full = text(&subcommand).to_uppercase().replace('|', " ");
                        let full = if full.contains(' ') { full } else { format!("{name} {full}") };
                        self.add(&full, fields, depth + 1);
                    }
                }
                _ => {}
            }
        }
        self.commands.insert(name.to_owned(), doc);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.commands.keys().map(String::as_str)
    }

    /// The command that these words begin with, and how many of the words are its name.
    pub(crate) fn lookup(&self, words: &[String]) -> Option<(usize, &str, &Doc)> {
        let first = words.first()?.to_uppercase();
        if let Some(second) = words.get(1)
            && let Some((name, doc)) = self.commands.get_key_value(&format!("{first} {}", second.to_uppercase()))
        {
            return Some((2, name, doc));
        }
        self.commands.get_key_value(&first).map(|(name, doc)| (1, name.as_str(), doc))
    }
}

impl Doc {
    /// What is still to be typed after `typed` arguments. Which optional ones were given isn't known, so from the first of
    /// them on all are shown.
    pub(crate) fn remaining(&self, typed: usize) -> String {
        let fixed = self.arguments.iter().take_while(|argument| !argument.contains(['[', '|'])).count();
        self.arguments[typed.min(fixed)..].join(" ")
    }
}

fn syntax_list(arguments: Value, depth: usize) -> Vec<String> {
    match arguments {
        Value::Array(items) if depth < ARGUMENT_DEPTH_MAX => {
            items.into_iter().map(|item| syntax(item, depth)).collect()
        }
        _ => Vec::new(),
    }
}

fn syntax(argument: Value, depth: usize) -> String {
    let (mut name, mut shown, mut kind, mut token) = (String::new(), None, String::new(), None);
    let (mut optional, mut multiple, mut multiple_token) = (false, false, false);
    let mut inner = Vec::new();
    for (field, value) in argument.into_pairs().unwrap_or_default() {
        match text(&field).as_str() {
            "name" => name = text(&value),
            "display_text" => shown = Some(text(&value)),
            "type" => kind = text(&value),
            "token" => token = Some(text(&value)),
            "arguments" => inner = syntax_list(value, depth + 1),
            "flags" => {
                for flag in value.as_elements().unwrap_or_default() {
                    match text(flag).as_str() {
                        "optional" => optional = true,
                        "multiple" => multiple = true,
                        "multiple_token" => multiple_token = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = match kind.as_str() {
        "pure-token" => token.take().unwrap_or(name),
        "oneof" => inner.join("|"),
        "block" => inner.join(" "),
        _ => shown.unwrap_or(name),
    };
    if multiple && !multiple_token {
        out = format!("{out} [{out} ...]");
    }
    if let Some(token) = token {
        out = format!("{token} {out}");
    }
    if multiple_token {
        out = format!("{out} [{out} ...]");
    }
    if optional { format!("[{out}]") } else { out }
}

fn text(value: &Value) -> String {
    value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &'static str) -> Value {
        Value::Bulk(text.as_bytes().into())
    }

    fn map(pairs: Vec<(&'static str, Value)>) -> Value {
        Value::Map(pairs.into_iter().map(|(key, value)| (bulk(key), value)).collect())
    }

    fn set_docs() -> Docs {
        let flags = |flag| Value::Set(vec![Value::Simple(flag)]);
        let choice = map(vec![
            ("name", bulk("condition")),
            ("type", bulk("oneof")),
            ("flags", flags("optional".into())),
            (
                "arguments",
                Value::Array(vec![
                    map(vec![("name", bulk("nx")), ("type", bulk("pure-token")), ("token", bulk("NX"))]),
                    map(vec![("name", bulk("seconds")), ("type", bulk("integer")), ("token", bulk("EX"))]),
                ]),
            ),
        ]);
        let keys = map(vec![("name", bulk("key")), ("type", bulk("key")), ("flags", flags("multiple".into()))]);
        let get = map(vec![("summary", bulk("Reads a setting")), ("arguments", Value::Array(vec![keys.clone()]))]);
        Docs::from_reply(map(vec![
            (
                "set",
                map(vec![
                    ("summary", bulk("Sets a key")),
                    ("arguments", Value::Array(vec![map(vec![("name", bulk("key")), ("type", bulk("key"))]), choice])),
                ]),
            ),
            ("config", map(vec![("summary", bulk("Settings")), ("subcommands", map(vec![("config|get", get)]))])),
        ]))
    }

    #[test]
    fn syntax_is_built_from_arguments() {
        let docs = set_docs();
        assert_eq!(docs.commands["SET"].arguments, ["key", "[NX|EX seconds]"]);
        assert_eq!(docs.commands["CONFIG GET"].arguments, ["key [key ...]"]);
    }

    #[test]
    fn subcommand_is_found_before_its_parent() {
        let docs = set_docs();
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(docs.lookup(&words("config get x")).map(|(used, name, _)| (used, name)), Some((2, "CONFIG GET")));
        assert_eq!(docs.lookup(&words("config nope")).map(|(used, name, _)| (used, name)), Some((1, "CONFIG")));
        assert!(docs.lookup(&words("nope")).is_none());
    }

    #[test]
    fn hint_drops_what_was_typed_but_not_what_is_optional() {
        let doc = set_docs().commands["SET"].clone();
        assert_eq!(doc.remaining(0), "key [NX|EX seconds]");
        assert_eq!(doc.remaining(1), "[NX|EX seconds]");
        assert_eq!(doc.remaining(9), "[NX|EX seconds]");
    }

    #[test]
    fn odd_replies_give_no_docs_rather_than_a_panic() {
        for reply in [Value::Null, Value::Array(vec![Value::Null]), Value::Map(vec![(Value::Null, Value::Integer(1))])]
        {
            let _ = Docs::from_reply(reply);
        }
    }
}
