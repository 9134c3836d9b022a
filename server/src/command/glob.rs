//! Glob patterns, as KEYS, SCAN and COMMAND LIST take them, with the rules and the oddities of Redis.
//!
//! `*` any run of bytes, `?` any byte, `[a-z]` and `[^a-z]` classes, `\` takes the next byte as it is. Oddities that are
//! kept, since stored patterns rely on what they do today:
//! - An empty text matches the empty pattern and a lone `*`, but not `**`.
//! - A class that isn't closed ends with the pattern. `[]` matches nothing, `[^]` anything.
//! - Bounds of a range may be swapped, and are compared as signed bytes.
//!
//! Every element but a star consumes exactly one byte, so it is enough to come back to the *last* star: the time is at
//! most the product of the two lengths, whatever a hostile pattern says.

/// Whether all of `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty() || pattern == b"*";
    }
    let (mut at, mut position) = (0, 0);
    // Where to go on in the pattern, and in the text, if what follows the last star doesn't fit.
    let mut retry: Option<(usize, usize)> = None;
    while position < text.len() {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, position));
            continue;
        }
        match element(&pattern[at..], text[position]) {
            Some(len) => {
                at += len;
                position += 1;
            }
            None => {
                let Some((after_star, swallowed)) = retry else { return false };
                position = swallowed + 1;
                at = after_star;
                retry = Some((at, position));
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// How many bytes of `pattern` its first element takes, if that element matches `byte`; none if it doesn't, or if there
/// is no element.
fn element(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', ref rest @ ..] => class(rest, byte).map(|len| len + 1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [literal, ..] => (literal == byte).then_some(1),
    }
}

/// Like [`element`], for what follows the opening bracket.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = pattern.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (low.cast_signed(), high.cast_signed());
                found |= (low.min(high)..=low.max(high)).contains(&byte.cast_signed());
                at += 3;
            }
            [literal, ..] => {
                found |= literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "aaa", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("[a\\-z]", "-", true),
            ("[a\\-z]", "b", false),
            ("[\\]]", "]", true),
            ("[]", "a", false),
            ("[^]", "a", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[ab", "b", true),
            ("[ab", "[ab", false),
            ("[a-", "-", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("*b?d*", "aabcd", true),
            ("*b?d*", "aabxxd", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
    }

    /// Pattern, text and Redis's verdict, separated by tabs: recorded with SET and KEYS.
    #[test]
    fn odd_patterns_match_as_in_redis() {
        for line in include_str!("../../tests/redis_globs.tsv").lines() {
            let [pattern, text, verdict] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), verdict == "1", "{line:?}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = b"a*".repeat(2000);
        let text = b"a".repeat(10_000);
        assert!(!matches(&[pattern.as_slice(), b"b"].concat(), &text));
        assert!(matches(&pattern, &text));
    }

    /// The definition, without regard for time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|skip| naive(rest, &text[skip..])),
            (_, [byte, tail @ ..]) => element(pattern, *byte).is_some_and(|len| naive(&pattern[len..], tail)),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn coming_back_to_the_last_star_is_enough(pattern in "[ab*?\\[\\]^-]{0,8}", text in "[ab-]{1,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
