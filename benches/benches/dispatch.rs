//! From a decoded request to its reply, without socket or log: finding the command, encoding it into an entry, reading the entry
//! back, and running the handler over an ordered map.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use holdfast_server::command::mem::MemKeyspace;
use holdfast_server::command::{self, Exec};
use holdfast_server::entry::{EntryBuilder, EntryReader};
use holdfast_server::resp::{Proto, Reply};
use std::hint::black_box;

/// Commands in a turn.
const TURN: usize = 50;

fn dispatch(criterion: &mut Criterion) {
    let requests: [(&str, &[&[u8]]); 4] = [
        ("get", &[b"GET", b"key:000000000042"]),
        ("set", &[b"SET", b"key:000000000042", &[b'v'; 64]]),
        ("set_with_options", &[b"SET", b"key:000000000042", &[b'v'; 64], b"EX", b"100", b"KEEPTTL"]),
        ("incr", &[b"INCR", b"counter"]),
    ];
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(TURN as u64));
    for (name, args) in requests {
        group.bench_function(format!("resolve/{name}"), |bencher| {
            bencher.iter(|| (0..TURN).filter(|_| command::resolve(black_box(args)).is_ok()).count());
        });
        group.bench_function(format!("turn/{name}"), |bencher| {
            let mut keys = MemKeyspace::new(1_700_000_000_000);
            let mut reply = Reply::new(Proto::Resp2);
            bencher.iter_batched_ref(
                EntryBuilder::default,
                |builder| {
                    for _ in 0..TURN {
                        if let Ok(spec) = command::resolve(black_box(args)) {
                            builder.push(spec.id, args);
                        }
                    }
                    let entry = builder.finish(1_700_000_000_000, 64 << 20);
                    if let Ok(mut reader) = EntryReader::new(&entry) {
                        let now_ms = reader.stamp_ms();
                        let mut words = Vec::new();
                        while let Ok(Some(number)) = reader.next(&mut words) {
                            if let Some(spec) = command::by_id(number) {
                                let exec = &mut Exec {
                                    keys: &mut keys,
                                    args: &words,
                                    reply: &mut reply,
                                    now_ms,
                                    value_bytes_max: 64 << 20,
                                };
                                spec.execute(exec);
                            }
                        }
                    }
                    reply.output_mut().clear();
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
