//! RESP: how fast commands are decoded and replies encoded, per command.
//!
//! `cargo bench -p holdfast-bench --bench resp`. One shard thread should manage well over 1.5 million pipelined commands a
//! second in all, so decoding one may take a small part of 600 ns.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdfast_server::resp::{Decoder, Limits, Proto, Reply, Step, recycle_args};
use std::hint::black_box;

const COMMANDS: usize = 1000;

fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend(format!("${}\r\n", arg.len()).into_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Decodes every command of `stream` and returns how many there were.
fn decode_all(stream: &[u8], decoder: &mut Decoder, limits: &Limits) -> usize {
    let mut at = 0;
    let mut count = 0;
    let mut args: Vec<&[u8]> = Vec::new();
    while at < stream.len() {
        match decoder.decode(&stream[at..], limits) {
            Ok(Step::Command { consumed }) => {
                let mut now = recycle_args(args);
                decoder.fill_args(&stream[at..], &mut now);
                black_box(&now);
                args = recycle_args(now);
                at += consumed;
                count += 1;
            }
            Ok(Step::Empty { consumed }) => at += consumed,
            Ok(Step::Incomplete { .. }) | Err(_) => break,
        }
    }
    count
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/decode");
    let value = [b'v'; 64];
    let keys: Vec<String> = (0..COMMANDS).map(|at| format!("key:{at:012}")).collect();
    let sets: Vec<u8> = keys.iter().flat_map(|key| encode(&[b"SET", key.as_bytes(), &value])).collect();
    let gets: Vec<u8> = keys.iter().flat_map(|key| encode(&[b"GET", key.as_bytes()])).collect();
    let inline: Vec<u8> = keys.iter().flat_map(|key| format!("GET {key}\r\n").into_bytes()).collect();
    let limits = Limits::default();
    for (name, stream) in [("set_64b", &sets), ("get", &gets), ("inline_get", &inline)] {
        group.throughput(Throughput::Elements(COMMANDS as u64));
        group.bench_function(name, |bencher| {
            let mut decoder = Decoder::new();
            bencher.iter(|| assert_eq!(decode_all(black_box(stream), &mut decoder, &limits), COMMANDS));
        });
    }
    // A value of 1 MiB that arrives in pieces of 16 KiB: the work must not grow with the square.
    let large = encode(&[b"SET", b"k", &vec![b'v'; 1 << 20]]);
    group.throughput(Throughput::Bytes(large.len() as u64));
    group.bench_function("set_1mib_in_pieces", |bencher| {
        let mut decoder = Decoder::new();
        bencher.iter(|| {
            let mut have = 0;
            loop {
                have = (have + (16 << 10)).min(large.len());
                if let Ok(Step::Command { consumed }) = decoder.decode(black_box(&large[..have]), &limits) {
                    break consumed;
                }
            }
        });
    });
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resp/encode");
    group.throughput(Throughput::Elements(COMMANDS as u64));
    let value = Bytes::from(vec![b'v'; 64]);
    let large = Bytes::from(vec![b'v'; 1 << 20]);
    let mut reply = Reply::new(Proto::Resp2);
    let mut measure = |name: &str, write: &dyn Fn(&mut Reply)| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..COMMANDS {
                    write(&mut reply);
                }
                let written = black_box(reply.output().len_bytes());
                reply.output_mut().advance(written);
            });
        });
    };
    measure("ok", &|reply| reply.ok());
    measure("int", &|reply| reply.int(black_box(123_456)));
    measure("bulk_64b", &|reply| reply.bulk_shared(black_box(&value)));
    measure("bulk_1mib_shared", &|reply| reply.bulk_shared(black_box(&large)));
    group.finish();

    criterion.bench_function("resp/vectored_slices", |bencher| {
        bencher.iter_batched_ref(
            || {
                let mut reply = Reply::new(Proto::Resp2);
                for _ in 0..32 {
                    reply.bulk_shared(&large);
                }
                reply
            },
            |reply| {
                let mut slices = [std::io::IoSlice::new(&[]); 64];
                black_box(reply.output().io_slices(&mut slices))
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
