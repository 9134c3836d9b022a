use super::*;
use crate::peer::FrameBuffer;
use holdfast_raft::{ConfState, Entry, EntryKind, Message, MessageBody, Position, SnapshotMeta};
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(frame: &Frame) -> Vec<u8> {
    let mut out = Output::new();
    let bytes = encode(frame, usize::MAX, &mut out).unwrap();
    assert_eq!(bytes, out.len_bytes());
    out.to_vec()
}

fn decoded(bytes: &[u8]) -> Result<Frame, FormatError> {
    let (head, body) = bytes.split_first_chunk().expect("a head");
    let head = Head::decode(head, 1 << 24)?;
    let owned = decode(head, &Bytes::copy_from_slice(body));
    assert_eq!(owned, decode_borrowed(head, body), "both ways to read give the same");
    owned
}

/// Makes a frame of a body, with the right length and checksum.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

fn raft(body: MessageBody) -> Frame {
    Frame::Message(PeerMessage::Raft { group: 9, message: Message { from: 1, to: 2, term: 3, body } })
}

fn append(payloads: &[Bytes]) -> Frame {
    let entry = |(n, payload): (usize, &Bytes)| Entry {
        term: 2,
        index: 11 + n as u64,
        kind: EntryKind::Normal,
        payload: payload.clone(),
    };
    let entries = payloads.iter().enumerate().map(entry).collect();
    raft(MessageBody::Append { previous_index: 10, previous_term: 2, commit: 8, entries })
}

fn entries_of(frame: Frame) -> Vec<Entry> {
    match frame {
        Frame::Message(PeerMessage::Raft {
            message: Message { body: MessageBody::Append { entries, .. }, .. },
            ..
        }) => entries,
        other => panic!("{other:?} is no append"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of version 1, part by part as the page of the format has them.
#[test]
fn golden_bytes() {
    let raft_head = "0900000000000000 0100000000000000 0200000000000000 0300000000000000";
    let entry =
        |kind, payload: &'static [u8], index| Entry { term: 2, index, kind, payload: Bytes::from_static(payload) };
    let append = MessageBody::Append {
        previous_index: 10,
        previous_term: 2,
        commit: 8,
        entries: vec![
            entry(EntryKind::Normal, b"abc", 11),
            entry(EntryKind::Noop, b"", 12),
            entry(EntryKind::ConfChange, b"\xff", 13),
        ],
    };
    let conf_state = ConfState { learners: vec![4], ..ConfState::of_voters([1, 2]) };
    let (client, peer) = (Address::new("10.0.0.1", 6379), Address::new("::1", 16379));
    let chunk =
        SnapshotChunk { group: 9, transfer: 5, term: 3, offset: 16, bytes: Bytes::from_static(b"xyz"), last: true };
    let starts = Starts { boot: 3, runs: vec![0x11, 0x12] };
    let pace = Pace { election_timeout_ms: 500, lease_ms: 447, clock_drift_percent: 10 };
    let cases: Vec<(Frame, u32, String)> = vec![
        (
            raft(append),
            0x9224_cb0e,
            format!(
                "14 {raft_head} 0a00000000000000 0200000000000000 0800000000000000 03000000 \
                 0200000000000000 00 03000000  0200000000000000 01 00000000  0200000000000000 02 01000000 616263 ff"
            ),
        ),
        (
            raft(MessageBody::Vote { last_index: 10, last_term: 2, transfer: true }),
            0x17c5_79b0,
            format!("12 {raft_head} 0a00000000000000 0200000000000000 01"),
        ),
        (
            raft(MessageBody::Snapshot { meta: SnapshotMeta { index: 7, term: 2, conf_state } }),
            0x1273_cd99,
            format!(
                "19 {raft_head} 0700000000000000 0200000000000000 \
                 02 0100000000000000 0200000000000000 01 0400000000000000 00 00 00"
            ),
        ),
        (
            Frame::Message(PeerMessage::SnapshotChunk(chunk)),
            0x0dd9_0eea,
            "20 0900000000000000 0500000000000000 0300000000000000 1000000000000000 01 78797a".into(),
        ),
        (
            Frame::Message(PeerMessage::SnapshotStatus { group: 9, transfer: 5, status: SnapshotStatus::Received(19) }),
            0x483e_71e9,
            "21 0900000000000000 0500000000000000 00 1300000000000000".into(),
        ),
        (
            Frame::Hello(Hello { purpose: Purpose::Bulk, cluster: 0xabc, from: 1, to: 2, client, peer, starts, pace }),
            0x4294_c110,
            "01 01 bc0a0000000000000000000000000000 0100000000000000 0200000000000000 \
             0d00 31302e302e302e313a36333739  0b00 5b3a3a315d3a3136333739 \
             0300000000000000 02 1100000000000000 1200000000000000 \
             f401000000000000 bf01000000000000 0a00000000000000"
                .into(),
        ),
        (
            Frame::Message(PeerMessage::StateHash { group: 9, found: StateHash { index: 19, hash: Some(0xabc) } }),
            0xba18_e1ab,
            "23 0900000000000000 1300000000000000 01 bc0a0000000000000000000000000000".into(),
        ),
        (Frame::Accept(2), 0x8ada_3b55, "02 0200000000000000".into()),
        (Frame::Refuse("no".into()), 0x0df8_7fa6, "03 0200 6e6f".into()),
        (Frame::Removed("no".into()), 0xc518_f0d6, "06 0200 6e6f".into()),
        (Frame::PromiseLost("no".into()), 0xf878_d966, "07 0200 6e6f".into()),
        (raft(MessageBody::PromiseLost { last_index: 7 }), 0x1308_d96a, format!("24 {raft_head} 0700000000000000")),
    ];
    let mut found = Vec::new();
    for (frame, crc, body) in cases {
        let bytes = encoded(&frame);
        assert_eq!(hex(&bytes[HEAD_BYTES..]), body.replace(' ', ""), "{frame:?}");
        assert_eq!(bytes[..4], (bytes.len() as u32 - 8).to_le_bytes());
        assert_eq!(decoded(&bytes), Ok(frame));
        found.push((u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]), crc));
    }
    let shown: Vec<String> = found.iter().map(|(crc, _)| format!("{crc:#010x}")).collect();
    assert!(found.iter().all(|(crc, expected)| crc == expected), "the checksums are {shown:?}");
    assert_eq!(&PREFACE, b"HFPEER\0\x01");
}

#[test]
fn large_payloads_are_neither_copied_out_nor_in() {
    let (small, large) = (Bytes::from(vec![1; COPIED_BYTES_MAX]), Bytes::from(vec![2; COPIED_BYTES_MAX + 1]));
    let mut out = Output::new();
    encode(&append(&[small.clone(), large.clone()]), usize::MAX, &mut out).unwrap();
    let mut parts = [std::io::IoSlice::new(&[]); 8];
    let used = out.io_slices(&mut parts);
    assert!(parts[..used].iter().any(|part| part.as_ptr() == large.as_ptr()), "the large one is sent from its place");
    assert!(!parts[..used].iter().any(|part| part.as_ptr() == small.as_ptr()));

    let bytes = Bytes::from(out.to_vec());
    let head = Head::decode(bytes[..HEAD_BYTES].first_chunk().unwrap(), 1 << 20).unwrap();
    let body = bytes.slice(HEAD_BYTES..);
    for entry in entries_of(decode(head, &body).unwrap()) {
        assert!(body.as_ptr_range().contains(&entry.payload.as_ptr()), "it is a slice of the frame");
    }
}

#[test]
fn payload_that_would_pin_much_more_than_itself_is_copied() {
    let large = Bytes::from(vec![2; 8000]);
    for (small_bytes, is_slice) in [(100, false), (2000, false), (2700, true)] {
        let bytes = Bytes::from(encoded(&append(&[large.clone(), Bytes::from(vec![1; small_bytes])])));
        let head = Head::decode(bytes[..HEAD_BYTES].first_chunk().unwrap(), 1 << 20).unwrap();
        let entries = entries_of(decode(head, &bytes.slice(HEAD_BYTES..)).unwrap());
        let of_frame = |payload: &Bytes| bytes.as_ptr_range().contains(&payload.as_ptr());
        assert!(of_frame(&entries[0].payload));
        assert_eq!(of_frame(&entries[1].payload), is_slice, "{small_bytes} of {} bytes", bytes.len());
    }
}

#[test]
fn frame_over_the_limit_is_not_written_and_not_read() {
    let mut out = Output::new();
    encode(&Frame::Accept(1), usize::MAX, &mut out).unwrap();
    let before = out.to_vec();
    let frame = append(&[Bytes::from(vec![1; 5000])]);
    let bytes = encoded(&frame).len();
    assert!(matches!(encode(&frame, bytes - 1, &mut out), Err(FormatError::Length { .. })));
    assert_eq!(out.to_vec(), before);
    assert_eq!(encode(&frame, bytes, &mut out), Ok(bytes));
    let head = [0x01, 0x10, 0, 0, 0, 0, 0, 0];
    assert_eq!(Head::decode(&head, 0x1000), Err(FormatError::Length { length: 0x1001, limit: 0x1000 }));
    assert!(Head::decode(&head, 0x1001).is_ok());
    assert!(Head::decode(&[0; 8], 0x1000).is_err(), "an empty body has no kind");
}

#[test]
fn what_no_correct_node_sends_is_refused_with_its_reason() {
    let good = encoded(&append(&[Bytes::from_static(b"abc")]));
    let good = &good[HEAD_BYTES..];
    let changed = |at: usize, bytes: &[u8]| {
        let mut body = good.to_vec();
        body[at..at + bytes.len()].copy_from_slice(bytes);
        framed(&body)
    };
    let with_more = framed(&[good, b"x"].concat());
    let text = |bytes: &[u8]| {
        let length = (bytes.len() as u16).to_le_bytes();
        framed(&[&[kind::REFUSE][..], &length, bytes].concat())
    };
    for (bytes, reason) in [
        (framed(&[0xee; 40]), "a frame is of the unknown kind 238"),
        (changed(9, &[0; 8]), "sender and receiver"),
        (changed(9, &2u64.to_le_bytes()), "sender and receiver"),
        (changed(57, &u32::MAX.to_le_bytes()), "more entries are announced"),
        (changed(69, &[7]), "an entry is of an unknown kind"),
        (changed(69, &[1]), "an empty entry has a payload"),
        (changed(70, &u32::MAX.to_le_bytes()), "a length is beyond the end"),
        (changed(33, &u64::MAX.to_le_bytes()), "beyond all numbers"),
        (with_more, "bytes are left over"),
        (framed(&good[..good.len() - 1]), "a length is beyond the end"),
        (framed(&good[..20]), "a field is cut short"),
        (text(b"\xff"), "a text is not UTF-8"),
        (text(b"a\nb"), "control characters"),
        (text(&[b'a'; 1025]), "a text is too long"),
    ] {
        let error = decoded(&bytes).expect_err(reason).to_string();
        assert!(error.contains(reason), "'{error}' instead of '{reason}'");
    }
    let mut flipped = framed(good);
    flipped[20] ^= 1;
    assert_eq!(decoded(&flipped), Err(FormatError::Checksum));
}

#[test]
fn texts_are_written_so_that_they_can_be_read() {
    let long = format!("a\r\nb{}", "ä".repeat(1000));
    let Ok(Frame::Refuse(text)) = decoded(&encoded(&Frame::Refuse(long))) else { panic!("it is refused") };
    assert!(text.starts_with("a  bä") && text.len() <= fields::TEXT_BYTES_MAX);
}

fn any_position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(index, term)| Position { index, term })
}

fn any_conf_state() -> impl Strategy<Value = ConfState> {
    let ids = || proptest::collection::btree_set(1u64..1000, 1..8);
    (ids(), ids(), proptest::option::of(ids()), any::<bool>()).prop_map(|(voters, others, outgoing, auto_leave)| {
        let voters_outgoing: Vec<u64> = outgoing.into_iter().flatten().collect();
        let is_voter = |id: &u64| voters.contains(id) || voters_outgoing.contains(id);
        ConfState {
            learners: others.iter().copied().filter(|id| !is_voter(id)).collect(),
            learners_next: voters_outgoing.iter().copied().filter(|id| !voters.contains(id)).take(2).collect(),
            auto_leave: auto_leave && !voters_outgoing.is_empty(),
            voters: voters.iter().copied().collect(),
            voters_outgoing,
        }
    })
}

fn any_append() -> impl Strategy<Value = MessageBody> {
    let payload = prop_oneof![vec(any::<u8>(), 0..40), (0usize..12_000).prop_map(|length| vec![7; length])];
    let entry = (any::<u64>(), 0u8..3, payload);
    (0u64..u64::MAX - 100, any::<u64>(), any::<u64>(), vec(entry, 0..6)).prop_map(
        |(previous_index, previous_term, commit, entries)| {
            let entry = |(n, (term, kind, payload)): (usize, (u64, u8, Vec<u8>))| {
                let (kind, payload) = match kind {
                    0 => (EntryKind::Normal, payload),
                    1 => (EntryKind::Noop, Vec::new()),
                    _ => (EntryKind::ConfChange, payload),
                };
                Entry { term, index: previous_index + 1 + n as u64, kind, payload: payload.into() }
            };
            let entries = entries.into_iter().enumerate().map(entry).collect();
            MessageBody::Append { previous_index, previous_term, commit, entries }
        },
    )
}

fn any_body() -> impl Strategy<Value = MessageBody> {
    prop_oneof![
        3 => any_append(),
        1 => (any::<(u64, u64)>(), any_position())
            .prop_map(|((last_index, last_term), commit)| MessageBody::PreVote { last_index, last_term, commit }),
        1 => (any::<bool>(), any_position()).prop_map(|(granted, commit)| MessageBody::PreVoteReply { granted, commit }),
        1 => any::<(u64, u64, bool)>()
            .prop_map(|(last_index, last_term, transfer)| MessageBody::Vote { last_index, last_term, transfer }),
        1 => (any::<bool>(), any_position()).prop_map(|(granted, commit)| MessageBody::VoteReply { granted, commit }),
        1 => any::<u64>().prop_map(|index| MessageBody::AppendAccepted { index }),
        1 => any::<(u64, u64, u64)>().prop_map(|(previous_index, hint_index, hint_term)| MessageBody::AppendRejected {
            previous_index,
            hint_index,
            hint_term
        }),
        1 => any::<(u64, u64, bool)>()
            .prop_map(|(round, commit, sleep)| MessageBody::Heartbeat { round, commit, sleep }),
        1 => any::<(u64, bool)>().prop_map(|(round, asleep)| MessageBody::HeartbeatReply { round, asleep }),
        1 => (any::<u64>(), any::<u64>(), any_conf_state()).prop_map(|(index, term, conf_state)| {
            MessageBody::Snapshot { meta: SnapshotMeta { index, term, conf_state } }
        }),
        1 => any::<u64>().prop_map(|index| MessageBody::SnapshotReply { index }),
        1 => any::<u64>().prop_map(|index_min| MessageBody::SnapshotWanted { index_min }),
        1 => any::<u64>().prop_map(|request| MessageBody::ReadIndex { request }),
        1 => any::<(u64, Option<u64>)>()
            .prop_map(|(request, index)| MessageBody::ReadIndexReply { request, index }),
        1 => Just(MessageBody::TimeoutNow),
        1 => Just(MessageBody::StaleTerm),
    ]
}

fn any_message() -> impl Strategy<Value = PeerMessage> {
    let status = prop_oneof![
        any::<u64>().prop_map(SnapshotStatus::Received),
        Just(SnapshotStatus::Complete),
        Just(SnapshotStatus::Refused)
    ];
    prop_oneof![
        6 => (any::<u64>(), 1u64..100, 101u64..200, any::<u64>(), any_body()).prop_map(|(group, from, to, term, body)| {
            PeerMessage::Raft { group, message: Message { from, to, term, body } }
        }),
        1 => (any::<[u64; 3]>(), 0u64..1 << 60, vec(any::<u8>(), 0..9000), any::<bool>()).prop_map(
            |([group, transfer, term], offset, bytes, last)| {
                PeerMessage::SnapshotChunk(SnapshotChunk { group, transfer, term, offset, bytes: bytes.into(), last })
            }
        ),
        1 => Just(PeerMessage::Beat),
        1 => (any::<u64>(), any::<u64>(), any::<Option<u128>>()).prop_map(|(group, index, hash)| PeerMessage::StateHash {
            group,
            found: StateHash { index, hash },
        }),
        1 => (any::<u64>(), any::<u64>(), status)
            .prop_map(|(group, transfer, status)| PeerMessage::SnapshotStatus { group, transfer, status }),
    ]
}

fn any_address() -> impl Strategy<Value = Address> {
    (prop_oneof!["[a-z0-9.-]{1,30}", "[0-9a-f]{1,4}::[0-9a-f]{1,4}"], 1u16..)
        .prop_map(|(host, port)| Address { host, port })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let reason = || "[ -~äöü€]{0,40}";
    let purpose = prop_oneof![Just(Purpose::Control), Just(Purpose::Bulk), Just(Purpose::Join)];
    let reply = prop_oneof![
        (1u128.., 1u64.., vec((any::<u64>(), any_address()), 0..6))
            .prop_map(|(cluster, node, peers)| JoinReply::Welcome { cluster, node, peers }),
        any_address().prop_map(|leader| JoinReply::Redirect { leader }),
        reason().prop_map(|reason| JoinReply::Retry { reason }),
        reason().prop_map(|reason| JoinReply::Refused { reason }),
    ];
    prop_oneof![
        8 => any_message().prop_map(Frame::Message),
        1 => (purpose, any::<u128>(), any::<[u64; 6]>(), any_address(), any_address(), vec(any::<u64>(), 0..=STARTS_KEPT))
            .prop_map(|(purpose, cluster, [from, to, boot, timeout, lease, drift], client, peer, runs)| {
                let pace = Pace { election_timeout_ms: timeout, lease_ms: lease, clock_drift_percent: drift };
                let starts = Starts { boot, runs };
                Frame::Hello(Hello { purpose, cluster, from, to, client, peer, starts, pace })
            }),
        1 => any::<u64>().prop_map(Frame::Accept),
        1 => reason().prop_map(Frame::Refuse),
        1 => reason().prop_map(Frame::Removed),
        1 => reason().prop_map(Frame::PromiseLost),
        1 => (any::<u128>(), any_address(), any_address())
            .prop_map(|(folder, client, peer)| Frame::JoinRequest(JoinRequest { folder, client, peer })),
        2 => reply.prop_map(Frame::JoinReply),
    ]
}

/// Feeds a stream in pieces and takes out all that is in it.
fn frames_in(stream: &[u8], piece: usize) -> (Vec<Frame>, Option<FormatError>) {
    let mut buffer = FrameBuffer::new(1 << 20);
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
        assert!(buffer.memory_bytes() <= 2 * stream.len() + 128 * 1024);
    }
    (frames, None)
}

proptest! {
    #[test]
    fn frames_survive_the_encoding(frame in any_frame()) {
        let bytes = encoded(&frame);
        prop_assert_eq!(decoded(&bytes), Ok(frame));
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut(frames in vec(any_frame(), 1..8), piece in 1usize..20_000) {
        let stream = frames.iter().flat_map(encoded).collect::<Vec<_>>();
        prop_assert_eq!(frames_in(&stream, piece), (frames, None));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(kind in any::<u8>(), body in vec(any::<u8>(), 0..300), piece in 1usize..400) {
        let body = [&[kind % 0x24][..], &body].concat();
        // What is read from bytes is written as the same bytes: there is one encoding of each frame.
        if let Ok(frame) = decoded(&framed(&body)) {
            prop_assert_eq!(&encoded(&frame)[HEAD_BYTES..], &body[..]);
        }
        let _ = frames_in(&body, piece);
    }

    #[test]
    fn altered_frames_are_read_without_a_panic(frame in any_frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let bytes = encoded(&frame);
        let mut body = bytes[HEAD_BYTES..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(frame) = decoded(&framed(&body)) {
            prop_assert_eq!(&encoded(&frame)[HEAD_BYTES..], &body[..]);
        }
    }
}

#[test]
fn large_frames_are_adopted_from_the_stream() {
    let payload = Bytes::from((0..300_000u32).map(|n| n as u8).collect::<Vec<_>>());
    let frames: Vec<Frame> = (0..5).map(|n| append(&[payload.slice(n..)])).collect();
    let stream = frames.iter().flat_map(encoded).collect::<Vec<_>>();
    for piece in [1000, 65_536, 299_999, stream.len()] {
        assert_eq!(frames_in(&stream, piece), (frames.clone(), None), "in pieces of {piece}");
    }
}

#[test]
fn announced_length_costs_nothing_until_the_bytes_come() {
    let mut buffer = FrameBuffer::new(1 << 30);
    let mut head = (1u32 << 30).to_le_bytes().to_vec();
    head.extend_from_slice(&[0; 4]);
    buffer.room().extend_from_slice(&head);
    assert_eq!(buffer.next_frame(), Ok(None));
    assert!(buffer.is_partial());
    let _ = buffer.room();
    assert!(buffer.memory_bytes() <= 128 * 1024, "{} bytes are held", buffer.memory_bytes());
    head[3] = 0xff;
    let mut buffer = FrameBuffer::new(1 << 30);
    buffer.room().extend_from_slice(&head);
    assert!(matches!(buffer.next_frame(), Err(FormatError::Length { .. })));
}
