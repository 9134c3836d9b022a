//! Any bytes of a peer: the frame format must not panic, must hold little memory, must find the same frames however the stream is
//! cut, and must write what it read as the same bytes.

#![no_main]

use bytes::Bytes;
use holdfast_server::peer::FrameBuffer;
use holdfast_server::peer::format::{self, FormatError, Frame, HEAD_BYTES, Head};
use holdfast_server::resp::Output;
use libfuzzer_sys::fuzz_target;

fn run(stream: &[u8], piece: usize) -> (Vec<Frame>, Option<FormatError>) {
    let mut buffer = FrameBuffer::new(1 << 16);
    let mut frames = Vec::new();
    for bytes in stream.chunks(piece) {
        buffer.room().extend_from_slice(bytes);
        loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(buffer.memory_bytes() <= 128 * 1024 + 2 * stream.len());
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let [piece, body @ ..] = input else { return };
    if body.is_empty() {
        return;
    }
    // Random bytes hardly ever carry the right checksum: here the body gets it.
    let head = Head { length: body.len(), crc: format::checksum(body) };
    let read = format::decode(head, &Bytes::copy_from_slice(body));
    assert_eq!(read, format::decode_borrowed(head, body));
    let mut stream = body.to_vec();
    if let Ok(frame) = read {
        let mut out = Output::new();
        format::encode(&frame, usize::MAX, &mut out).expect("it fits");
        let bytes = out.to_vec();
        assert_eq!(&bytes[HEAD_BYTES..], body);
        stream = [&bytes[..], &bytes, body].concat();
    }
    assert_eq!(run(&stream, stream.len()), run(&stream, usize::from(*piece).max(1)));
});
