//! The transport between nodes, over loopback sockets: order, loss and return of connections, strangers, and limits.

mod net;

use holdfast_server::cluster::Address;
use holdfast_server::peer::format::{Frame, Hello, PREFACE, Purpose};
use holdfast_server::peer::{DialError, JoinReply, JoinRequest, Lane, PeerMessage, Refusal, request_join};
use net::*;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

#[test]
fn messages_of_a_lane_arrive_in_order() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        let mut sent = (Vec::new(), Vec::new());
        for n in 1..=600 {
            let control = heartbeat(1, 2, n);
            let bulk = append(1, 2, n, vec![n as u8; (n as usize * 37) % 20_000]);
            assert_eq!((control.lane(), bulk.lane()), (Lane::Control, Lane::Bulk));
            sent.0.push(control.clone());
            sent.1.push(bulk.clone());
            assert!(one.peers.send(2, control) && one.peers.send(2, bulk));
            if n % 7 == 0 {
                one.peers.flush();
            }
        }
        one.peers.flush();
        two.sink
            .until(|events| events.iter().filter(|event| matches!(event, Event::Message(..))).count() == 1200)
            .await;
        let (control, bulk): (Vec<_>, Vec<_>) =
            two.sink.messages(1).into_iter().partition(|message| message.lane() == Lane::Control);
        assert!(control == sent.0, "control messages are in order");
        assert!(bulk == sent.1, "bulk messages are in order");
        // The end of the turn follows the last message.
        two.sink.until(|events| events.last() == Some(&Event::TurnEnd)).await;
        let (out, back) = (counters(&one, 2), counters(&two, 1));
        assert_eq!((out.sent_messages, out.dropped_messages, out.connects), (1200, 0, 2));
        assert_eq!((back.received_messages, back.accepts), (1200, 2));
        assert_eq!(out.sent_bytes, back.received_bytes);
        assert_eq!(one.peers.queued_bytes(2, Lane::Control) + one.peers.queued_bytes(2, Lane::Bulk), 0);
    });
}

#[test]
fn sink_may_send_while_it_is_called() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        for node in [&one, &two] {
            *node.sink.echo.borrow_mut() = Some((node.peers.clone(), 200));
        }
        one.send(2, heartbeat(1, 2, 1));
        one.sink.until(|events| events.iter().filter(|event| matches!(event, Event::Message(..))).count() == 100).await;
        assert_eq!(
            one.sink.messages(2).iter().map(round_of).collect::<Vec<_>>(),
            (2..=200).step_by(2).collect::<Vec<_>>()
        );
        // The nodes hold their sinks, which hold the nodes.
        one.sink.echo.take();
        two.sink.echo.take();
    });
}

#[test]
fn message_is_dropped_without_a_connection_or_for_a_stranger() {
    run(async {
        let one = Node::start(1).await;
        one.peers.set_members(&[one.member(), (2, Address::new("127.0.0.1", 1))], 0);
        assert!(!one.peers.send(2, heartbeat(1, 2, 1)), "nobody listens there");
        assert!(!one.peers.send(3, heartbeat(1, 3, 1)), "node 3 is nobody");
        assert!(!one.peers.send(1, heartbeat(1, 1, 1)), "nobody writes to himself");
        assert_eq!(counters(&one, 2).dropped_messages, 1);
        assert!(!one.peers.is_connected(2));
    });
}

#[test]
fn lost_connection_is_told_and_made_again() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        let port = two.address.port;
        two.stop().await;
        one.sink.until_seen(&Event::Link(2, false)).await;
        assert!(!one.peers.is_connected(2) && !one.peers.send(2, heartbeat(1, 2, 1)));
        one.sink.events.borrow_mut().clear();

        let two = Node::start_with(2, port, |_| {}).await;
        connect(&[&one, &two]).await;
        one.send(2, heartbeat(1, 2, 2));
        two.sink.until_seen(&Event::Message(1, heartbeat(1, 2, 2))).await;
        assert!(counters(&one, 2).connects >= 3);
    });
}

#[test]
fn node_that_comes_back_is_dialed_without_waiting_for_the_end_of_the_pause() {
    run(async {
        let one = Node::start_with(1, 0, |options| {
            (options.redial_ms_min, options.redial_ms_max) = (3_600_000, 3_600_000);
        })
        .await;
        let two = Node::start(2).await;
        let members = [one.member(), two.member()];
        let port = two.address.port;
        two.stop().await;
        one.peers.set_members(&members, 0);
        until(|| counters(&one, 2).failures == 2).await;
        let two = Node::start_with(2, port, |_| {}).await;
        two.peers.set_members(&members, 0);
        one.sink.until_seen(&Event::Link(2, true)).await;
    });
}

#[test]
fn newer_connection_takes_the_place_of_an_older_one() {
    run(async {
        let one = Node::start(1).await;
        one.peers.set_members(&[one.member(), (2, Address::new("127.0.0.1", 1))], 0);
        let (mut older, answer) = Wire::dial(&one, hello(Purpose::Control, 2, 1)).await;
        assert_eq!(answer, Frame::Accept(1));
        let (mut other_lane, answer) = Wire::dial(&one, hello(Purpose::Bulk, 2, 1)).await;
        assert_eq!(answer, Frame::Accept(1));
        older.send(&bytes_of(&Frame::Message(heartbeat(2, 1, 1)))).await;
        one.sink.until_seen(&Event::Message(2, heartbeat(2, 1, 1))).await;

        let (mut newer, answer) = Wire::dial(&one, hello(Purpose::Control, 2, 1)).await;
        assert_eq!(answer, Frame::Accept(1));
        assert_eq!(older.frame().await, None, "the older one is closed");
        for (wire, round) in [(&mut newer, 2), (&mut other_lane, 3)] {
            wire.send(&bytes_of(&Frame::Message(heartbeat(2, 1, round)))).await;
            one.sink.until_seen(&Event::Message(2, heartbeat(2, 1, round))).await;
        }
    });
}

#[test]
fn strangers_are_refused_with_a_reason() {
    run(async {
        let one = Node::start(1).await;
        // Node 2 was there once: a higher number is a member.
        one.peers.set_members(&[one.member(), (3, Address::new("127.0.0.1", 1))], 0);
        let of_cluster = |hello: Hello, cluster| Hello { cluster, ..hello };
        for (hello, reason) in [
            (
                of_cluster(hello(Purpose::Control, 3, 1), 7),
                "node 3 of cluster 00000000000000000000000000000007 dialed node 1 of cluster",
            ),
            (of_cluster(hello(Purpose::Bulk, 3, 1), 0), "of cluster"),
            (of_cluster(hello(Purpose::Join, 3, 1), 7), "belongs to cluster"),
            (hello(Purpose::Control, 1, 3), "dialed itself"),
            (hello(Purpose::Control, 3, 4), "this is node 1"),
            (hello(Purpose::Control, 2, 1), "not a member of the cluster any more"),
            (hello(Purpose::Control, 0, 1), "node 0"),
        ] {
            let (mut wire, answer) = Wire::dial(&one, hello).await;
            let (Frame::Refuse(text) | Frame::Removed(text)) = &answer else { panic!("{answer:?}, not '{reason}'") };
            assert!(text.contains(reason), "'{text}' instead of '{reason}'");
            assert_eq!(matches!(answer, Frame::Removed(_)), reason.contains("any more"), "'{reason}'");
            assert_eq!(wire.frame().await, None);
        }
        assert!(one.sink.events.borrow().iter().all(|event| !matches!(event, Event::Message(..))));
    });
}

#[test]
fn node_that_is_not_heard_is_told_why() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        one.peers.set_members(&[one.member(), two.member()], 0);
        for (refusal, answer) in [
            (Refusal::Settings("other clocks".into()), Frame::Refuse("other clocks".into())),
            (Refusal::PromiseLost("an old copy".into()), Frame::PromiseLost("an old copy".into())),
        ] {
            *one.sink.refusal.borrow_mut() = Some(refusal);
            let (mut wire, told) = Wire::dial(&one, hello(Purpose::Control, 2, 1)).await;
            assert_eq!(told, answer);
            assert_eq!(wire.frame().await, None);
        }
        // Its sink is told, too, and may end everything at once.
        two.peers.set_members(&[one.member(), two.member()], 0);
        two.sink.until_seen(&Event::PromiseLost(1, "an old copy".into())).await;
        assert!(one.sink.messages(2).is_empty());
        // The other direction is the other node's to judge.
        one.sink.until_seen(&Event::Link(2, true)).await;
    });
}

#[test]
fn other_version_is_told_so() {
    run(async {
        let one = Node::start(1).await;
        let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
        wire.send(b"HFPEER\0\x63").await;
        wire.send(&bytes_of(&Frame::Hello(hello(Purpose::Control, 2, 1)))).await;
        wire.preface().await;
        let Some(Frame::Refuse(text)) = wire.frame().await else { panic!("no refusal") };
        assert!(text.contains("speaks version 1 of the peer protocol, not 99"), "{text}");
    });
}

#[test]
fn garbage_ends_its_connection_and_nothing_else() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        one.peers.set_members(&[one.member(), two.member(), (3, Address::new("127.0.0.1", 1))], 0);
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], b"HFPEER\0\x01\xff\xff\xff\xff........"] {
            let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
            wire.send(garbage).await;
            assert_eq!(wire.frame().await, None);
        }
        let good = bytes_of(&Frame::Message(heartbeat(3, 1, 1)));
        let mut flipped = good.clone();
        flipped[12] ^= 4;
        let mut too_long = u32::MAX.to_le_bytes().to_vec();
        too_long.extend_from_slice(&[0; 4]);
        let forged = bytes_of(&Frame::Message(heartbeat(2, 1, 66)));
        let misplaced = bytes_of(&Frame::Accept(1));
        for bad in [flipped, too_long, forged, misplaced] {
            one.sink.events.borrow_mut().clear();
            let (mut wire, answer) = Wire::dial(&one, hello(Purpose::Control, 3, 1)).await;
            assert_eq!(answer, Frame::Accept(1));
            // What was right before it counts.
            wire.send(&[&good[..], &bad, &good].concat()).await;
            assert_eq!(wire.frame().await, None);
            assert_eq!(one.sink.messages(3), [heartbeat(3, 1, 1)]);
            assert_eq!(one.sink.events.borrow().last(), Some(&Event::TurnEnd));
        }
        two.send(1, heartbeat(2, 1, 5));
        one.sink.until_seen(&Event::Message(2, heartbeat(2, 1, 5))).await;
    });
}

#[test]
fn half_a_frame_and_silence_are_given_up() {
    run(async {
        let one = Node::start_with(1, 0, |options| (options.stall_ms, options.handshake_ms) = (50, 50)).await;
        one.peers.set_members(&[one.member(), (2, Address::new("127.0.0.1", 1))], 0);
        // In the handshake.
        let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
        wire.send(&PREFACE[..5]).await;
        assert_eq!(wire.frame().await, None);
        let (mut silent, answer) = Wire::dial(&one, hello(Purpose::Control, 2, 1)).await;
        assert_eq!(answer, Frame::Accept(1));
        for _ in 0..3 {
            // Of a message that announces half a gigabyte.
            let (mut wire, answer) = Wire::dial(&one, hello(Purpose::Bulk, 2, 1)).await;
            assert_eq!(answer, Frame::Accept(1));
            wire.send(&(1u32 << 29).to_le_bytes()).await;
            wire.send(&[0; 50]).await;
            assert_eq!(wire.frame().await, None);
        }
        // Silence between messages is no fault, however long.
        silent.send(&bytes_of(&Frame::Message(heartbeat(2, 1, 1)))).await;
        one.sink.until_seen(&Event::Message(2, heartbeat(2, 1, 1))).await;
    });
}

#[test]
fn peer_that_does_not_read_costs_a_bounded_queue_and_no_control_message() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        let one = Node::start_with(1, 0, |options| {
            options.bulk_queue_bytes_max = 1 << 20;
            options.stall_ms = 500;
        })
        .await;
        one.peers.set_members(&[one.member(), (2, address)], 0);
        let (mut control, mut bulk) = (None, None);
        while control.is_none() || bulk.is_none() {
            let (wire, purpose) = Wire::accept(&listener, 2).await;
            let place = if purpose == Purpose::Control { &mut control } else { &mut bulk };
            *place = Some(wire);
        }
        let (mut control, bulk) = (control.unwrap(), bulk.unwrap());
        until(|| counters(&one, 2).connects == 2).await;

        // Until the socket's buffers are full too.
        let mut refusals = 0;
        while refusals < 1000 {
            let taken = one.peers.send(2, chunk(0, vec![7; 64 * 1024]));
            one.peers.flush();
            refusals = if taken { 0 } else { refusals + 1 };
            assert!(one.peers.queued_bytes(2, Lane::Bulk) <= 1 << 20);
            if !taken {
                tokio::task::yield_now().await;
            }
        }
        assert!(one.peers.queued_bytes(2, Lane::Bulk) > (1 << 20) - 70_000, "the queue is full");
        assert!(counters(&one, 2).dropped_messages >= 1000);
        for round in 0..10 {
            one.send(2, heartbeat(1, 2, round));
            assert_eq!(control.frame().await, Some(Frame::Message(heartbeat(1, 2, round))));
        }
        // The stalled connection is given up and made again; the other lane doesn't notice.
        let (mut again, purpose) = Wire::accept(&listener, 2).await;
        assert_eq!(purpose, Purpose::Bulk);
        until(|| counters(&one, 2).connects == 3).await;
        assert_eq!(one.peers.queued_bytes(2, Lane::Bulk), 0);
        one.send(2, chunk(5, vec![8]));
        assert_eq!(again.frame().await, Some(Frame::Message(chunk(5, vec![8]))));
        one.send(2, heartbeat(1, 2, 99));
        assert_eq!(control.frame().await, Some(Frame::Message(heartbeat(1, 2, 99))));
        drop(bulk);
    });
}

#[test]
fn large_piece_of_a_snapshot_does_not_delay_control() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        let large = chunk(0, (0..48u32 << 20).map(|n| n as u8).collect());
        assert!(one.peers.send(2, large.clone()));
        assert!(one.peers.send(2, chunk(48 << 20, vec![1])));
        one.peers.flush();
        for round in 1..=20 {
            one.send(2, heartbeat(1, 2, round));
            two.sink.until(|events| events.contains(&Event::Message(1, heartbeat(1, 2, round)))).await;
        }
        two.sink.until_seen(&Event::Message(1, chunk(48 << 20, vec![1]))).await;
        let messages = two.sink.messages(1);
        assert_eq!(messages.len(), 22);
        let place = messages.iter().position(|message| matches!(message, PeerMessage::SnapshotChunk(_)));
        assert!(place > Some(0), "heartbeats overtake it");
        assert!(messages[place.unwrap()] == large);
    });
}

#[test]
fn message_over_the_limit_of_the_queue_is_taken_when_nothing_waits() {
    run(async {
        let one = Node::start_with(1, 0, |options| {
            options.bulk_queue_bytes_max = 1000;
            options.frame_bytes_max = 100_000;
        })
        .await;
        let two = Node::start(2).await;
        connect(&[&one, &two]).await;
        assert!(one.peers.send(2, chunk(0, vec![1; 5000])));
        assert!(!one.peers.send(2, chunk(5000, vec![2; 10])), "something waits");
        one.peers.flush();
        until(|| one.peers.queued_bytes(2, Lane::Bulk) == 0).await;
        assert!(!one.peers.send(2, chunk(0, vec![3; 100_000])), "the other side would refuse it");
        assert_eq!(one.peers.queued_bytes(2, Lane::Bulk), 0);
        one.send(2, chunk(5000, vec![2; 10]));
        two.sink.until_seen(&Event::Message(1, chunk(5000, vec![2; 10]))).await;
        assert_eq!(counters(&one, 2).dropped_messages, 2);
    });
}

#[test]
fn node_that_is_not_known_yet_is_let_in_and_answered() {
    run(async {
        let (one, four) = (Node::start(1).await, Node::start(4).await);
        one.peers.set_members(&[one.member()], 0);
        four.peers.set_members(&[one.member(), four.member()], 0);
        four.sink.until_seen(&Event::Link(1, true)).await;
        one.sink.until_seen(&Event::Link(4, true)).await;
        one.send(4, heartbeat(1, 4, 1));
        four.sink.until_seen(&Event::Message(1, heartbeat(1, 4, 1))).await;
        assert_eq!(one.peers.announced(4), Some((Address::new("127.0.0.1", 1), four.address.clone())));
        // It leaves without having become a member.
        four.stop().await;
        one.sink.until_seen(&Event::Link(4, false)).await;
        until(|| one.peers.counters().is_empty()).await;
    });
}

#[test]
fn removed_node_is_cut_off_and_not_let_in_again() {
    run(async {
        let (one, two, three) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
        connect(&[&one, &two, &three]).await;
        one.peers.set_members(&[one.member(), three.member()], 0);
        one.sink.until_seen(&Event::Link(2, false)).await;
        two.sink.until_seen(&Event::Link(1, false)).await;
        assert!(!one.peers.send(2, heartbeat(1, 2, 1)));
        let (_, answer) = Wire::dial(&one, hello(Purpose::Control, 2, 1)).await;
        assert!(matches!(answer, Frame::Removed(_)));
        two.sink.until_seen(&Event::Removed(1)).await;
        one.send(3, heartbeat(1, 3, 1));
        three.sink.until_seen(&Event::Message(1, heartbeat(1, 3, 1))).await;
        three.send(2, heartbeat(3, 2, 1));
        two.sink.until_seen(&Event::Message(3, heartbeat(3, 2, 1))).await;
    });
}

#[test]
fn newest_node_is_told_that_it_was_removed() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        // Nobody has a higher number, but this one was given.
        one.peers.set_members(&[one.member()], 2);
        two.sink.until_seen(&Event::Removed(1)).await;
        // One that was not given yet may be a node that others know already.
        let (_, answer) = Wire::dial(&one, hello(Purpose::Control, 3, 1)).await;
        assert_eq!(answer, Frame::Accept(1));
    });
}

#[test]
fn member_is_found_at_its_new_address() {
    run(async {
        let (one, two) = (Node::start(1).await, Node::start(2).await);
        connect(&[&one, &two]).await;
        two.stop().await;
        one.sink.until_seen(&Event::Link(2, false)).await;
        one.sink.events.borrow_mut().clear();
        // It comes back elsewhere and says so itself: the list of members doesn't know.
        let two = Node::start(2).await;
        two.peers.set_members(&[one.member(), two.member()], 0);
        one.sink.until_seen(&Event::Link(2, true)).await;
        assert_eq!(one.peers.announced(2).map(|(_, peer)| peer), Some(two.address.clone()));
        one.send(2, heartbeat(1, 2, 1));
        two.sink.until_seen(&Event::Message(1, heartbeat(1, 2, 1))).await;
        // The list of members says it, and the node is not there: connections to where it was end.
        two.stop().await;
        one.sink.until_seen(&Event::Link(2, false)).await;
        one.sink.events.borrow_mut().clear();
        let two = Node::start(2).await;
        one.peers.set_members(&[one.member(), two.member()], 0);
        one.sink.until_seen(&Event::Link(2, true)).await;
        one.send(2, heartbeat(1, 2, 2));
        two.sink.until_seen(&Event::Message(1, heartbeat(1, 2, 2))).await;
    });
}

#[test]
fn another_node_at_the_address_is_no_peer() {
    run(async {
        let (one, three) = (Node::start(1).await, Node::start(3).await);
        one.peers.set_members(&[one.member(), (2, three.address.clone())], 0);
        // Node 3 refuses whoever wants node 2; a node that claims to be another than was dialed is not believed either.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
        one.peers.set_members(&[one.member(), (2, address)], 0);
        for _ in 0..3 {
            let (mut wire, _) = Wire::accept(&listener, 7).await;
            assert_eq!(wire.frame().await, None);
        }
        assert!(!one.peers.is_connected(2));
        assert_eq!(counters(&one, 2).connects, 0);
    });
}

#[test]
fn connections_from_others_are_limited() {
    run(async {
        let one = Node::start_with(1, 0, |options| options.inbound_max = 3).await;
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
        }
        let mut fourth = Wire::new(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
        assert_eq!(fourth.frame().await, None);
        // A place that becomes free is used again.
        idle.pop().unwrap().shutdown().await.unwrap();
        loop {
            let mut wire = Wire::new(TcpStream::connect(("127.0.0.1", one.address.port)).await.unwrap());
            let _ = wire.stream.write_all(&PREFACE).await;
            let _ = wire.stream.write_all(&bytes_of(&Frame::Hello(hello(Purpose::Control, 7, 1)))).await;
            let mut preface = [0; 8];
            if tokio::io::AsyncReadExt::read_exact(&mut wire.stream, &mut preface).await.is_ok() {
                assert_eq!(wire.frame().await, Some(Frame::Accept(1)));
                break;
            }
        }
    });
}

fn request() -> JoinRequest {
    JoinRequest { folder: 77, client: Address::new("db-4.example.com", 6379), peer: Address::new("::1", 16379) }
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn request_to_join_gets_the_reply() {
    run(async {
        let one = Node::start(1).await;
        let peers = (1..=1000).map(|n| (n, Address::new("a-rather-long-name.of-a-node.example.com", 1000 + n as u16)));
        for reply in [
            JoinReply::Welcome { cluster: CLUSTER, node: 4, peers: peers.collect() },
            JoinReply::Redirect { leader: Address::new("10.0.0.2", 16379) },
            JoinReply::Retry { reason: "there is no leader".into() },
            JoinReply::Refused { reason: "the cluster is full".into() },
        ] {
            *one.sink.join_reply.borrow_mut() = Some(reply.clone());
            one.sink.events.borrow_mut().clear();
            assert_eq!(request_join(&one.address, request(), SOON).await.unwrap(), reply);
            assert_eq!(*one.sink.events.borrow(), [Event::Join(request()), Event::TurnEnd]);
        }
        *one.sink.join_reply.borrow_mut() = None;
        let reply = request_join(&one.address, request(), SOON).await.unwrap();
        assert!(matches!(reply, JoinReply::Retry { .. }), "{reply:?} to a request that was dropped");
    });
}

#[test]
fn request_to_join_fails_where_no_node_answers() {
    run(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::new("127.0.0.1", silent.local_addr().unwrap().port());
        let result = request_join(&address, request(), Duration::from_millis(50)).await;
        assert!(matches!(result, Err(DialError::TimedOut(_))), "{result:?}");
        // The connection of the first attempt is still in the listener's queue.
        drop(silent.accept().await.unwrap());
        let redis = async {
            let (mut stream, _) = silent.accept().await.unwrap();
            stream.write_all(b"-ERR unknown command\r\n").await.unwrap();
            stream
        };
        let (result, _stream) = tokio::join!(request_join(&address, request(), SOON), redis);
        assert!(matches!(result, Err(DialError::Stranger)), "{result:?}");
        drop(silent);
        let result = request_join(&address, request(), SOON).await;
        assert!(matches!(result, Err(DialError::Connect(_))), "{result:?}");
    });
}
