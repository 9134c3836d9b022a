use super::*;
use crate::table::{Applied, Object, ObjectKind, RowSpace};
use crate::vfs::{CrashPlan, OsVfs, SimVfs, Survival};
use bytes::Bytes;
use proptest::prelude::*;

fn header() -> SnapshotHeader {
    SnapshotHeader {
        group: 3,
        applied: Applied { index: 77, term: 4, stamp_ms: 1_700_000_000_000 },
        incarnation: 12,
        ranges: vec![(0, 99), (200, 16383)],
        conf_state: Bytes::from_static(b"voters 1 2 3"),
    }
}

fn rows(count: u64, value_bytes: usize) -> Vec<ViewRow> {
    (0..count)
        .map(|n| ViewRow {
            space: RowSpace::Keys,
            slot: if n < count / 2 { 7 } else { 300 },
            hash: n << 3,
            key: format!("key-{n}").into_bytes().into(),
            object: Object {
                kind: ObjectKind::String,
                deadline_ms: if n % 3 == 0 { n + 1 } else { 0 },
                data: Bytes::from(vec![n as u8; value_bytes]),
            },
        })
        .collect()
}

fn encode(rows: &[ViewRow]) -> Vec<u8> {
    let mut encoder = SnapshotEncoder::new(&header());
    let mut bytes = Vec::new();
    for row in rows {
        encoder.push(row);
        bytes.extend(encoder.take());
    }
    bytes.extend(encoder.finish());
    bytes
}

fn decode(bytes: &[u8], piece: usize) -> Result<(SnapshotHeader, Vec<ViewRow>)> {
    let mut decoder = SnapshotDecoder::new("test");
    let mut rows = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.feed(piece)?;
        rows.extend(std::iter::from_fn(|| decoder.next_row()));
    }
    decoder.finish()?;
    Ok((decoder.header().unwrap().clone(), rows))
}

#[test]
fn rows_come_back_whatever_the_pieces() {
    let mut rows = rows(2_000, 700);
    rows.extend((0..50).map(|n| ViewRow {
        space: RowSpace::Records,
        slot: 7,
        hash: 0,
        key: [n; 24].as_slice().into(),
        object: Object::string(Bytes::from(vec![n; 20])),
    }));
    let bytes = encode(&rows);
    assert!(bytes.len() < 2_000 * 350, "the blocks are compressed: {} bytes", bytes.len());
    for piece in [1, 13, 4096, usize::MAX] {
        assert_eq!(decode(&bytes, piece).unwrap(), (header(), rows.clone()));
    }
    assert_eq!(decode(&encode(&[]), 5).unwrap().1, []);
}

#[test]
fn value_larger_than_a_block_travels_alone() {
    let mut rows = rows(3, 10);
    rows[1].object.data = Bytes::from(vec![9; 5 << 20]);
    let bytes = encode(&rows);
    assert_eq!(decode(&bytes, 64 << 10).unwrap().1, rows);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = encode(&rows(40, 10));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let error = decode(&flipped, 64).expect_err(&format!("byte {at} bit {bit}"));
            assert!(matches!(error, Error::Damaged { .. }));
        }
    }
}

#[test]
fn every_truncation_and_any_addition_is_noticed() {
    let bytes = encode(&rows(40, 10));
    for cut in 0..bytes.len() {
        assert!(decode(&bytes[..cut], 64).is_err(), "cut at {cut}");
    }
    let more = [&bytes[..], b"B"].concat();
    assert!(decode(&more, 64).is_err());
}

#[test]
fn swapped_or_repeated_blocks_are_noticed() {
    let rows = rows(2_000, 700);
    let (one, two) = (encode(&rows[..1_000]), encode(&rows[1_000..]));
    let head = header().encode().len();
    let body = |bytes: &[u8]| bytes[head..bytes.len() - FOOTER_BYTES].to_vec();
    let footer = &encode(&rows)[encode(&rows).len() - FOOTER_BYTES..];
    let join = |parts: &[Vec<u8>]| [&one[..head], &parts.concat(), footer].concat();
    assert!(decode(&join(&[body(&two), body(&one)]), 4096).is_err());
    assert!(decode(&join(&[body(&one), body(&one)]), 4096).is_err());
    assert!(decode(&join(&[body(&one)]), 4096).is_err());
}

#[test]
fn newer_format_is_named() {
    let mut bytes = encode(&[]);
    bytes[7] = 9;
    let error = decode(&bytes, 64).unwrap_err().to_string();
    assert!(error.contains("format 9"), "{error}");
}

#[test]
fn file_is_there_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let vfs = OsVfs::shared();
    let path = dir.path().join("g3.snapshot");
    let rows = rows(5_000, 100);
    let broken = rows.iter().take(100).cloned().map(Ok);
    let broken = broken.chain([Err(Error::Locked { path: path.clone() })]);
    assert!(write_snapshot(&vfs, &path, &header(), &mut { broken }).is_err());
    assert!(!path.exists());

    let bytes = write_snapshot(&vfs, &path, &header(), &mut rows.iter().cloned().map(Ok)).unwrap();
    assert_eq!(bytes, std::fs::metadata(&path).unwrap().len());
    let file = SnapshotFile::open(&vfs, &path).unwrap();
    assert_eq!(file.header(), &header());
    assert_eq!(file.map(Result::unwrap).collect::<Vec<_>>(), rows);

    vfs.open(&path, false).unwrap().set_len(bytes - 1).unwrap();
    let error = SnapshotFile::verify(&vfs, &path).unwrap_err().to_string();
    assert!(error.contains("g3.snapshot") && error.contains("not complete"), "{error}");
}

/// The power goes at each step, the rename and the sync of the folder among them: what has its name then is whole, and once it was said to be
/// there, it is.
#[test]
fn power_cut_at_each_step_leaves_the_whole_file_or_none() {
    let path = std::path::Path::new("/s/g3.snapshot");
    let rows = rows(2_000, 100);
    let (mut there, mut absent) = (0, 0);
    for step in 0.. {
        for (seed, survival) in
            [(0, Survival::Nothing), (1, Survival::Chance(50)), (2, Survival::Chance(50)), (3, Survival::Chance(100))]
        {
            let sim = SimVfs::new();
            crate::vfs::create_dir_durably(&sim, path.parent().unwrap()).unwrap();
            sim.halt_after(step);
            let written = write_snapshot(&sim.shared(), path, &header(), &mut rows.iter().cloned().map(Ok));
            if written.is_ok() && !sim.halted() {
                assert!(there > 0 && absent > 0, "{there} times there, {absent} times not");
                return;
            }
            let after = sim.crash(CrashPlan { seed, data: survival, names: survival });
            if !after.shared().exists(path).unwrap() {
                assert!(written.is_err(), "step {step}: it was said to be there");
                absent += 1;
                continue;
            }
            SnapshotFile::verify(&after.shared(), path).unwrap_or_else(|error| panic!("step {step}: {error}"));
            there += 1;
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), keep in 0usize..400) {
        let mut input = encode(&rows(20, 5));
        input.truncate(keep);
        input.extend(bytes);
        let _ = decode(&input, 50);
    }
}

/// A snapshot that this format's first release wrote: it must be read for ever.
#[test]
fn golden_snapshot_is_read() {
    let golden = include_bytes!("golden-v1.snapshot");
    assert_eq!(decode(golden, 7).unwrap(), (header(), rows(6, 3)));
    assert_eq!(encode(&rows(6, 3)), golden, "and what is written has not changed");
}
