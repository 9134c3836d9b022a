//! Any bytes, cut anywhere: the decoder must not panic, must not ask for a call that can't help, must hold little memory,
//! and must find the same commands however the stream is cut.

#![no_main]

use holdfast_server::resp::{Decoder, Limits, ProtocolError, Step};
use libfuzzer_sys::fuzz_target;

type Found = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn run(stream: &[u8], piece: usize, limits: &Limits) -> Found {
    let mut decoder = Decoder::new();
    let mut commands = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let buffer = &stream[start..end];
        match decoder.decode(buffer, limits) {
            Ok(Step::Command { consumed }) => {
                assert!(consumed <= buffer.len());
                let mut args = Vec::new();
                decoder.fill_args(buffer, &mut args);
                assert!(!args.is_empty() && args.len() <= limits.args_max);
                assert!(args.iter().all(|arg| arg.len() <= limits.bulk_bytes_max.max(limits.inline_bytes_max)));
                commands.push(args.iter().map(|arg| arg.to_vec()).collect());
                start += consumed;
            }
            Ok(Step::Empty { consumed }) => {
                assert!(consumed > 0 && consumed <= buffer.len());
                start += consumed;
            }
            Ok(Step::Incomplete { need }) => {
                assert!(need > buffer.len());
                if end == stream.len() {
                    return (commands, None);
                }
                end = (end + piece).min(stream.len());
            }
            Err(error) => return (commands, Some(error)),
        }
        assert!(decoder.memory_bytes() <= 1024 + 64 * stream.len());
    }
}

fuzz_target!(|input: &[u8]| {
    let [piece, flags, stream @ ..] = input else { return };
    let limits = Limits {
        bulk_bytes_max: 4096,
        args_max: 64,
        inline_bytes_max: 256,
        command_bytes_max: 16 * 1024,
        unauthenticated: flags & 1 == 1,
    };
    let whole = run(stream, stream.len().max(1), &limits);
    let pieces = run(stream, usize::from(*piece).max(1), &limits);
    assert_eq!(whole, pieces);
});
