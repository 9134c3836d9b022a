//! What the decoder must do with any stream, however it is cut.

use super::{Decoder, Limits, ProtocolError, Step, recycle_args};
use proptest::prelude::*;

type Command = Vec<Vec<u8>>;

/// Feeds `stream` in pieces that end at `cuts`, as a connection would, and collects the commands.
fn run(stream: &[u8], cuts: &[usize], limits: &Limits) -> (Vec<Command>, Option<ProtocolError>) {
    let mut decoder = Decoder::new();
    let mut commands = Vec::new();
    let mut consumed_total = 0;
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
    ends.sort_unstable();
    let mut args = Vec::new();
    for end in ends {
        loop {
            let buffer = &stream[consumed_total.min(end)..end];
            if buffer.len() < consumed_total.saturating_sub(end) {
                break;
            }
            match decoder.decode(buffer, limits) {
                Ok(Step::Command { consumed }) => {
                    assert!(consumed <= buffer.len());
                    let mut now = recycle_args(args);
                    decoder.fill_args(buffer, &mut now);
                    assert_eq!(now.len(), decoder.args_len());
                    commands.push(now.iter().map(|arg| arg.to_vec()).collect());
                    args = recycle_args(now);
                    consumed_total += consumed;
                }
                Ok(Step::Empty { consumed }) => {
                    assert!(consumed > 0 && consumed <= buffer.len());
                    consumed_total += consumed;
                }
                Ok(Step::Incomplete { need }) => {
                    assert!(need > buffer.len(), "a call that can't help is asked for");
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
    }
    (commands, None)
}

fn encode(command: &Command) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
        bytes.extend(arg);
        bytes.extend(b"\r\n");
    }
    bytes
}

fn decode_all(stream: &[u8]) -> Vec<Command> {
    let (commands, error) = run(stream, &[], &Limits::default());
    assert_eq!(error, None);
    commands
}

fn error_of(stream: &[u8]) -> String {
    run(stream, &[], &Limits::default()).1.map(|error| error.to_string()).unwrap_or_default()
}

fn words(line: &str) -> Command {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn streams() -> impl Strategy<Value = (Vec<Command>, Vec<u8>)> {
    let command = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6).prop_map(|command| {
        let bytes = encode(&command);
        (Some(command), bytes)
    });
    let inline =
        "[a-z]{1,5}( [a-z]{1,5}){0,3}".prop_map(|line| (Some(words(&line)), format!("{line}\r\n").into_bytes()));
    let empty = prop_oneof![Just("\r\n"), Just("*0\r\n"), Just("  \n"), Just("*-1\r\n")]
        .prop_map(|text| (None, text.as_bytes().to_vec()));
    proptest::collection::vec(prop_oneof![4 => command, 1 => inline, 1 => empty], 0..20).prop_map(|parts| {
        let bytes = parts.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        (parts.into_iter().filter_map(|(command, _)| command).collect(), bytes)
    })
}

proptest! {
    #[test]
    fn any_split_of_a_stream_gives_the_same_commands(
        (commands, stream) in streams(),
        cuts in proptest::collection::vec(any::<usize>(), 0..30),
    ) {
        prop_assert_eq!(run(&stream, &cuts, &Limits::default()), (commands.clone(), None));
        let every_byte: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(run(&stream, &every_byte, &Limits::default()), (commands, None));
    }

    #[test]
    fn random_bytes_never_panic_and_splits_do_not_change_the_outcome(
        stream in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"*$\r\n0123456789\"' -".to_vec())], 0..300),
        cuts in proptest::collection::vec(any::<usize>(), 0..10),
    ) {
        let limits = Limits { bulk_bytes_max: 100, args_max: 10, ..Limits::default() };
        let whole = run(&stream, &[], &limits);
        let pieces = run(&stream, &cuts, &limits);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn integers_are_read_as_written(value in any::<i64>()) {
        prop_assert_eq!(super::parse_integer(value.to_string().as_bytes()), Some(value));
    }
}

#[test]
fn integers_that_redis_refuses_are_refused() {
    for text in ["", "-", "+1", "01", "-0", "00", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809"] {
        assert_eq!(super::parse_integer(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn pipeline_is_cut_into_its_commands() {
    let stream = [encode(&words("SET a 1")), encode(&words("GET a")), b"PING\r\n".to_vec()].concat();
    assert_eq!(decode_all(&stream), vec![words("SET a 1"), words("GET a"), words("PING")]);
}

#[test]
fn protocol_errors_are_worded_as_redis_words_them() {
    assert_eq!(error_of(b"*x\r\n"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(error_of(b"*\r\n"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(error_of(b"*3000000000\r\n"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(error_of(b"*1\r\n$-1\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(error_of(b"*1\r\n$99999999999\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(error_of(b"*1\r\n$03\r\nabc\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(error_of(b"*1\r\n:1\r\n"), "ERR Protocol error: expected '$', got ':'");
    assert_eq!(error_of(b"*1\r\nPING\r\n"), "ERR Protocol error: expected '$', got 'P'");
    assert_eq!(error_of(b"SET \"a\r\n"), "ERR Protocol error: unbalanced quotes in request");
    let long = vec![b'1'; 65 * 1024];
    assert_eq!(error_of(&[b"*".as_slice(), &long].concat()), "ERR Protocol error: too big mbulk count string");
    assert_eq!(error_of(&[b"*1\r\n$".as_slice(), &long].concat()), "ERR Protocol error: too big bulk count string");
    assert_eq!(error_of(&long), "ERR Protocol error: too big inline request");
}

#[test]
fn unauthenticated_clients_may_send_little() {
    let limits = Limits { unauthenticated: true, ..Limits::default() };
    let error = |stream: &[u8]| run(stream, &[], &limits).1;
    assert_eq!(error(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulk));
    assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulk));
    assert_eq!(error(&encode(&words("AUTH secret"))), None);
}

#[test]
fn command_is_refused_before_it_is_received_when_too_big_as_a_whole() {
    let limits = Limits { bulk_bytes_max: 1000, command_bytes_max: 1500, ..Limits::default() };
    let first = [b"*2\r\n$1000\r\n".as_slice(), &[b'x'; 1000], b"\r\n$900\r\n"].concat();
    assert_eq!(run(&first, &[], &limits).1, Some(ProtocolError::TooBigCommand));
}

/// The fuzzer's find: the words of a line were not counted against the limit, only those of an array.
#[test]
fn line_of_too_many_words_is_refused() {
    let limits = Limits { args_max: 3, ..Limits::default() };
    assert_eq!(run(b"a b c\r\n", &[], &limits), (vec![words("a b c")], None));
    assert_eq!(run(b"a b c d\r\n", &[], &limits).1, Some(ProtocolError::TooBigInline));
}

/// The fuzzer's find: a header beyond the limit was another error when its line end had come with it.
#[test]
fn overlong_header_is_the_same_error_however_it_is_cut() {
    let limits = Limits { inline_bytes_max: 10, ..Limits::default() };
    let stream = b"*123456789012345\r\n";
    for cuts in [vec![], vec![11], (0..stream.len()).collect()] {
        assert_eq!(run(stream, &cuts, &limits).1, Some(ProtocolError::TooBigMultibulkCount), "{cuts:?}");
    }
}

#[test]
fn announced_lengths_allocate_nothing() {
    let mut decoder = Decoder::new();
    let step = decoder.decode(b"*1048576\r\n$67108864\r\n", &Limits::default()).unwrap();
    assert_eq!(step, Step::Incomplete { need: 10 + 11 + 67_108_864 + 2 + 1_048_575 * 6 });
    assert!(decoder.memory_bytes() < 1024);
}

#[test]
fn many_arguments_do_not_pin_memory_afterwards() {
    let many = encode(&vec![b"a".to_vec(); 100_000]);
    let mut decoder = Decoder::new();
    assert_eq!(decoder.decode(&many, &Limits::default()), Ok(Step::Command { consumed: many.len() }));
    assert!(matches!(decoder.decode(b"", &Limits::default()), Ok(Step::Incomplete { need: 1 })));
    assert!(decoder.memory_bytes() < 64 * 1024);
}

#[test]
fn blank_lines_without_end_can_be_dropped() {
    let mut decoder = Decoder::new();
    let blank = b"\r\n*0\r\n*1\r\n";
    assert_eq!(decoder.decode(blank, &Limits::default()), Ok(Step::Empty { consumed: 6 }));
    assert_eq!(decoder.decode(&blank[6..], &Limits::default()), Ok(Step::Incomplete { need: 5 }));
}

#[test]
fn value_that_drips_in_is_not_parsed_again_and_again() {
    let value = vec![b'v'; 1 << 20];
    let stream = encode(&vec![b"SET".to_vec(), b"k".to_vec(), value.clone()]);
    let mut decoder = Decoder::new();
    let mut have = 1;
    let mut calls = 0;
    loop {
        calls += 1;
        match decoder.decode(&stream[..have], &Limits::default()).unwrap() {
            Step::Incomplete { need } => have = need,
            Step::Command { consumed } => break assert_eq!(consumed, stream.len()),
            Step::Empty { .. } => panic!("nothing is empty here"),
        }
    }
    assert!(calls < 40, "{calls} calls for a value whose length was known");
}
