//! What the line editor asks while a person types: completions, hints, whether the line is finished.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::docs::Docs;
use super::split::{SplitError, split};

/// The words that the shell itself understands.
const OWN_WORDS: [&str; 4] = ["HELP", "CLEAR", "EXIT", "QUIT"];

/// The editor's view on the commands; the documentation is replaced when a connection is made.
#[derive(Clone, Default)]
pub(crate) struct Assistant {
    docs: Arc<Mutex<Docs>>,
}

/// Shown behind the cursor, never inserted.
pub(crate) struct SyntaxHint(String);

impl Hint for SyntaxHint {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

/// A hint that runs over the line's end would hide what is typed.
const HINT_LETTERS_MAX: usize = 60;

fn shortened(hint: String) -> String {
    match hint.char_indices().nth(HINT_LETTERS_MAX) {
        Some((end, _)) => format!("{}...", &hint[..end]),
        None => hint,
    }
}

impl Assistant {
    pub(crate) fn learn(&self, docs: Docs) {
        *self.docs.lock().unwrap_or_else(PoisonError::into_inner) = docs;
    }

    pub(crate) fn with_docs<R>(&self, look: impl FnOnce(&Docs) -> R) -> R {
        look(&self.docs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names that what was typed can become, and where in the line it begins.
    fn candidates(&self, typed: &str) -> (usize, Vec<String>) {
        let after_help = typed.get(..5).filter(|word| word.eq_ignore_ascii_case("help "));
        let start = after_help.map_or(0, str::len);
        let wanted = typed[start..].to_uppercase();
        // A second word is completed for commands that have subcommands.
        let words = wanted.split(' ').count();
        let lower = typed[start..].chars().next().is_some_and(char::is_lowercase);
        let mut names: Vec<String> = self.with_docs(|docs| {
            let own = OWN_WORDS.iter().copied().filter(|_| start == 0);
            let all = docs.names().chain(own);
            all.filter(|name| name.starts_with(&wanted) && name.split(' ').count() == words)
                .map(str::to_owned)
                .collect()
        });
        names.sort_unstable();
        names.dedup();
        if lower {
            names.iter_mut().for_each(|name| *name = name.to_lowercase());
        }
        (start, names)
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, names) = self.candidates(&line[..position]);
        let pairs = names.into_iter().map(|name| Pair { display: name.clone(), replacement: name + " " }).collect();
        Ok((start, pairs))
    }
}

impl Hinter for Assistant {
    type Hint = SyntaxHint;

    fn hint(&self, line: &str, position: usize, _: &Context<'_>) -> Option<SyntaxHint> {
        if position < line.len() {
            return None;
        }
        let words = split(line.as_bytes()).ok()?;
        let words: Vec<String> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let spaced = line.ends_with(' ');
        self.with_docs(|docs| {
            let (used, _, doc) = docs.lookup(&words)?;
            // While the last word is being typed, it counts as not yet there.
            let finished = words.len() - usize::from(!spaced && words.len() > used);
            let rest = shortened(doc.remaining(finished - used));
            if rest.is_empty() || (!spaced && words.len() > used) {
                return None;
            }
            Some(SyntaxHint(if spaced { rest } else { format!(" {rest}") }))
        })
    }
}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match split(context.input().as_bytes()) {
            Err(SplitError::Open) => ValidationResult::Incomplete,
            _ => ValidationResult::Valid(None),
        })
    }
}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use holdfast_client::Value;

    use super::*;

    fn assistant() -> Assistant {
        let empty = || Value::Map(Vec::new());
        let name = |text: &'static str| Value::Bulk(text.as_bytes().into());
        let sub = Value::Map(vec![(name("config|get"), empty()), (name("config|set"), empty())]);
        let config = Value::Map(vec![(name("subcommands"), sub)]);
        let assistant = Assistant::default();
        let all = vec![(name("get"), empty()), (name("getex"), empty()), (name("config"), config)];
        assistant.learn(Docs::from_reply(Value::Map(all)));
        assistant
    }

    #[test]
    fn names_are_completed_in_the_case_that_was_typed() {
        let assistant = assistant();
        assert_eq!(assistant.candidates("ge"), (0, vec!["get".to_owned(), "getex".to_owned()]));
        assert_eq!(assistant.candidates("GETE"), (0, vec!["GETEX".to_owned()]));
        assert_eq!(assistant.candidates("config "), (0, vec!["config get".to_owned(), "config set".to_owned()]));
        assert_eq!(assistant.candidates("help con"), (5, vec!["config".to_owned()]));
        assert_eq!(assistant.candidates("get k"), (0, vec![]));
    }
}
