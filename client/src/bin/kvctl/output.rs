//! How results are printed: for people on a terminal, exact bytes into a pipe, JSON on request.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use holdfast_client::Value;
use serde_json::{Map, Number, Value as Json, json};

use crate::text::{base64, escape};

/// Standard output with its manners.
pub(crate) struct Output {
    out: io::BufWriter<io::StdoutLock<'static>>,
    /// Whether a person is looking.
    pub(crate) terminal: bool,
    /// Whether JSON was asked for.
    pub(crate) json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Output { terminal: stdout.is_terminal(), json, out: io::BufWriter::with_capacity(64 << 10, stdout.lock()) }
    }

    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    pub(crate) fn json(&mut self, value: &Json) -> io::Result<()> {
        self.line(&value.to_string())
    }

    /// Rows under a header, escaped already: drawn on a terminal, parted by tabs into a pipe.
    pub(crate) fn table(&mut self, header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        if !self.terminal {
            self.line(&header.join("\t"))?;
            return rows.iter().try_for_each(|row| self.line(&row.join("\t")));
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(header.to_vec());
        table.add_rows(rows);
        self.line(&table.trim_fmt())
    }

    /// One string as the whole result: escaped on a terminal, byte for byte otherwise.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.terminal { self.line(&escape(bytes, false)) } else { self.out.write_all(bytes) }
    }

    /// One string among several.
    pub(crate) fn item(&mut self, bytes: &[u8], end: u8) -> io::Result<()> {
        if end == 0 || !self.terminal {
            self.out.write_all(bytes)?;
            self.out.write_all(&[end])
        } else {
            self.line(&escape(bytes, false))
        }
    }

    /// A whole reply of the server.
    pub(crate) fn reply(&mut self, value: &Value) -> io::Result<()> {
        if self.json {
            return self.json(&to_json(value));
        }
        if self.terminal {
            let mut text = String::new();
            pretty(value, 0, &mut text);
            return self.line(&text);
        }
        match value {
            Value::Bulk(bytes) => self.out.write_all(bytes),
            other => self.plain(other),
        }
    }

    /// Elements one per line, without types.
    fn plain(&mut self, value: &Value) -> io::Result<()> {
        match value {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => {
                items.iter().try_for_each(|item| self.plain(item))
            }
            Value::Map(pairs) => pairs.iter().try_for_each(|(key, value)| {
                self.plain(key)?;
                self.plain(value)
            }),
            Value::Null => self.line(""),
            Value::Error(error) => self.line(error.text()),
            Value::Integer(number) => self.line(&number.to_string()),
            Value::Double(number) => self.line(&number.to_string()),
            Value::Boolean(truth) => self.line(if *truth { "true" } else { "false" }),
            Value::Simple(bytes)
            | Value::Bulk(bytes)
            | Value::BigNumber(bytes)
            | Value::Verbatim { text: bytes, .. } => {
                self.out.write_all(bytes)?;
                self.out.write_all(b"\n")
            }
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Bytes as JSON: a string if they are UTF-8, otherwise an object with their base64.
pub(crate) fn bytes_to_json(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => Json::String(text.into()),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

/// A reply as JSON. A map becomes an object if its keys are distinct texts, otherwise an array of pairs.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Simple(bytes) | Value::Bulk(bytes) | Value::Verbatim { text: bytes, .. } => bytes_to_json(bytes),
        Value::BigNumber(digits) => bytes_to_json(digits),
        Value::Error(error) => json!({ "error": { "code": error.code(), "message": error.text() } }),
        Value::Integer(number) => Json::from(*number),
        // Infinities and "not a number" have no JSON number.
        Value::Double(number) => {
            Number::from_f64(*number).map_or_else(|| Json::String(number.to_string()), Json::Number)
        }
        Value::Boolean(truth) => Json::Bool(*truth),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => {
            let mut object = Map::new();
            for (key, value) in pairs {
                if let Json::String(key) = to_json(key) {
                    object.insert(key, to_json(value));
                }
            }
            if object.len() == pairs.len() {
                Json::Object(object)
            } else {
                pairs.iter().map(|(key, value)| json!([to_json(key), to_json(value)])).collect()
            }
        }
    }
}

/// A reply for people, with types and numbered elements; nested ones are indented. No line end at the end.
pub(crate) fn pretty(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("(nil)"),
        Value::Simple(text) => out.push_str(&escape(text, false)),
        Value::Bulk(bytes) => {
            out.push('"');
            out.push_str(&escape(bytes, true));
            out.push('"');
        }
        Value::Error(error) => {
            out.push_str("(error) ");
            out.push_str(&escape(error.text().as_bytes(), false));
        }
        Value::Integer(number) => out.push_str(&format!("(integer) {number}")),
        Value::Double(number) => out.push_str(&format!("(double) {number}")),
        Value::Boolean(truth) => out.push_str(if *truth { "(true)" } else { "(false)" }),
        Value::BigNumber(digits) => {
            out.push_str("(big number) ");
            out.push_str(&escape(digits, false));
        }
        // Meant to be read, so its line breaks are kept.
        Value::Verbatim { text, .. } => {
            let lines: Vec<_> =
                text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
            let shown: Vec<_> = lines.iter().map(|line| escape(line, false)).collect();
            out.push_str(shown.join("\n").trim_end());
        }
        Value::Array(items) => elements(items, ")", "(empty array)", indent, out),
        Value::Set(items) => elements(items, "~", "(empty set)", indent, out),
        Value::Push(items) => elements(items, ">", "(empty push)", indent, out),
        Value::Map(pairs) if pairs.is_empty() => out.push_str("(empty map)"),
        Value::Map(pairs) => {
            let width = pairs.len().to_string().len();
            for (position, (key, value)) in pairs.iter().enumerate() {
                if position > 0 {
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                out.push_str(&format!("{:>width$}# ", position + 1));
                let inner = indent + width + 2;
                pretty(key, inner, out);
                out.push_str(" => ");
                if is_collection(value) {
                    // A collection starts on a line of its own: beside a long key it couldn't be aligned.
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', inner + 2));
                    pretty(value, inner + 2, out);
                } else {
                    pretty(value, inner, out);
                }
            }
        }
    }
}

fn is_collection(value: &Value) -> bool {
    match value {
        Value::Map(pairs) => !pairs.is_empty(),
        other => other.as_elements().is_some_and(|items| !items.is_empty()),
    }
}

fn elements(items: &[Value], mark: &str, none: &str, indent: usize, out: &mut String) {
    if items.is_empty() {
        out.push_str(none);
        return;
    }
    let width = items.len().to_string().len();
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&format!("{:>width$}{mark} ", position + 1));
        pretty(item, indent + width + mark.len() + 1, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &'static str) -> Value {
        Value::Bulk(text.as_bytes().into())
    }

    fn shown(value: &Value) -> String {
        let mut out = String::new();
        pretty(value, 0, &mut out);
        out
    }

    #[test]
    fn nested_replies_are_indented() {
        let value = Value::Array(vec![
            Value::Integer(1),
            Value::Array(vec![bulk("a\"b"), Value::Null]),
            Value::Map(vec![(bulk("k"), Value::Boolean(true)), (bulk("list"), Value::Set(vec![bulk("x")]))]),
        ]);
        assert_eq!(
            shown(&value),
            "1) (integer) 1\n2) 1) \"a\\\"b\"\n   2) (nil)\n3) 1# \"k\" => (true)\n   2# \"list\" => \n        1~ \"x\""
        );
    }

    #[test]
    fn text_for_people_keeps_its_lines_but_not_its_control_bytes() {
        let text = Value::Verbatim { format: *b"txt", text: "# Server\r\na:1\x1b[2J\r\n".as_bytes().into() };
        assert_eq!(shown(&text), "# Server\na:1\\x1b[2J");
    }

    #[test]
    fn json_is_lossless_for_bytes_and_odd_maps() {
        assert_eq!(to_json(&Value::Bulk(vec![0xff].into())).to_string(), r#"{"base64":"/w=="}"#);
        let odd = Value::Map(vec![(Value::Integer(1), bulk("x"))]);
        assert_eq!(to_json(&odd).to_string(), r#"[[1,"x"]]"#);
        let twice = Value::Map(vec![(bulk("a"), Value::Integer(1)), (bulk("a"), Value::Integer(2))]);
        assert_eq!(to_json(&twice).to_string(), r#"[["a",1],["a",2]]"#);
        assert_eq!(to_json(&Value::Double(f64::INFINITY)).to_string(), r#""inf""#);
    }
}
