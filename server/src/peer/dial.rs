//! Keeps one connection to one node: dials, drives it, dials again.
//!
//! Between attempts it pauses, from 50 ms on twice as long each time up to 2 s. The second half of each pause is random, so that
//! nodes that lost the same peer don't come back in step. A connection that held for some time ends the series, and a connection from a
//! node that could not be reached ends the pause: it is there.

use super::format::{Hello, Purpose};
use super::handshake::DialError;
use super::link::Link;
use super::transport::Inner;
use super::wire::End;
use super::{Lane, PeerOptions, handshake};
use crate::cluster::{Address, NodeId};
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// A connection that held this long was a good one: the next pause is the shortest again.
const SETTLED: Duration = Duration::from_secs(2);

/// Different failures that are told about one outage.
const COMPLAINTS_MAX: usize = 8;

/// Runs until the node is no peer any more.
pub(super) async fn keep_connected(inner: Rc<Inner>, link: Rc<Link>, lane: Lane) {
    let wire = link.wire(lane);
    let mut pauses = Pauses::new(&inner.options, link.id, lane);
    let mut attempt = 0;
    // What was said of failures since the last connection: it is said once.
    let mut complaints: Vec<String> = Vec::new();
    while !wire.is_stopped() {
        let Some(address) = link.address(attempt) else {
            wire.interrupted().await;
            continue;
        };
        let hello = hello(&inner.options, link.id, lane);
        let dialed = tokio::select! {
            biased;
            () = wire.interrupted() => continue,
            dialed = handshake::dial(&address, &hello, inner.options.handshake()) => dialed,
        };
        let was_reached = dialed.is_ok();
        match dialed {
            Ok(stream) => {
                complaints.clear();
                attempt = 0;
                let since = Instant::now();
                link.count(|counters| counters.connects += 1);
                let end = converse(&inner, &link, lane, &address, stream).await;
                if since.elapsed() >= SETTLED {
                    pauses.restart();
                }
                if !wire.is_stopped() && lane == Lane::Control {
                    tracing::warn!("the connection to node {} at {address} is lost: {end}", link.id);
                }
            }
            Err(error) => {
                attempt += 1;
                link.count(|counters| counters.failures += 1);
                let line = format!("no {} connection to node {} at {address}: {error}", name(lane), link.id);
                // Where control can't be connected, bulk can't either.
                let counts = lane == Lane::Control || link.wire(Lane::Control).is_open();
                if counts && complaints.len() < COMPLAINTS_MAX && !complaints.contains(&line) {
                    tracing::warn!("{line}; trying again until it succeeds");
                    complaints.push(line);
                }
                if let Some(sink) = inner.sink() {
                    match error {
                        DialError::Removed(_) => sink.removed(link.id),
                        DialError::PromiseLost(reason) => sink.promise_lost(link.id, &reason),
                        _ => {}
                    }
                    sink.turn_end();
                }
            }
        }
        if inner.sink().is_none() {
            return;
        }
        tokio::select! {
            biased;
            () = wire.interrupted() => {}
            // NB: not after a connection that was made and lost, or two nodes that don't like what they hear would keep each
            // other from pausing.
            () = wire.hurry.notified(), if !was_reached => {}
            () = tokio::time::sleep(pauses.next()) => {}
        }
    }
}

/// Uses a connection until it ends.
async fn converse(
    inner: &Rc<Inner>,
    link: &Rc<Link>,
    lane: Lane,
    address: &Address,
    stream: tokio::net::TcpStream,
) -> End {
    let wire = link.wire(lane);
    handshake::give_up_after(&stream, inner.options.stall());
    let stream = Rc::new(stream);
    wire.install(Rc::clone(&stream));
    if lane == Lane::Control {
        tracing::info!("connected to node {} at {address}", link.id);
        report(inner, link.id, true);
    }
    let moved = || !link.may_be_at(address);
    let written = |bytes: usize| link.count(|counters| counters.sent_bytes += bytes as u64);
    let end = wire.drive(&stream, inner.options.stall(), moved, written).await;
    wire.remove();
    if lane == Lane::Control {
        report(inner, link.id, false);
    }
    end
}

fn report(inner: &Inner, peer: NodeId, up: bool) {
    if let Some(sink) = inner.sink() {
        sink.link(peer, up);
        sink.turn_end();
    }
}

fn hello(options: &PeerOptions, to: NodeId, lane: Lane) -> Hello {
    let purpose = match lane {
        Lane::Control => Purpose::Control,
        Lane::Bulk => Purpose::Bulk,
    };
    let PeerOptions { cluster, me, client, peer, starts, pace, .. } = options.clone();
    Hello { purpose, cluster, from: me, to, client, peer, starts, pace }
}

pub(super) fn name(lane: Lane) -> &'static str {
    match lane {
        Lane::Control => "control",
        Lane::Bulk => "bulk",
    }
}

/// The pauses between attempts.
#[derive(Debug)]
struct Pauses {
    ms_min: u64,
    ms_max: u64,
    failures: u32,
    random: u64,
}

impl Pauses {
    fn new(options: &PeerOptions, id: NodeId, lane: Lane) -> Self {
        let (ms_min, ms_max) = (options.redial_ms_min.max(1), options.redial_ms_max.max(options.redial_ms_min).max(1));
        Pauses { ms_min, ms_max, failures: 0, random: options.seed ^ (id << 1) ^ u64::from(lane == Lane::Bulk) }
    }

    fn restart(&mut self) {
        self.failures = 0;
    }

    fn next(&mut self) -> Duration {
        let whole = self.ms_min.saturating_mul(1 << self.failures.min(20)).min(self.ms_max);
        self.failures += 1;
        // SplitMix64: the seed is an input, so that a simulated cluster does the same again.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Duration::from_millis(whole / 2 + mixed % (whole - whole / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ_between_nodes() {
        let options = |seed| PeerOptions::new(1, 1, Address::new("a", 1), Address::new("a", 2), seed);
        let draw = |seed| {
            let mut pauses = Pauses::new(&options(seed), 2, Lane::Control);
            (0..12).map(|_| pauses.next().as_millis() as u64).collect::<Vec<_>>()
        };
        for (n, pause) in draw(7).into_iter().enumerate() {
            let whole = (50 << n).min(2000);
            assert!((whole / 2..=whole).contains(&pause), "pause {n} is {pause} ms");
        }
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn good_connection_ends_the_series() {
        let mut pauses =
            Pauses::new(&PeerOptions::new(1, 1, Address::new("a", 1), Address::new("a", 2), 1), 2, Lane::Bulk);
        let last = (0..9).map(|_| pauses.next()).last();
        assert!(last > Some(Duration::from_millis(900)));
        pauses.restart();
        assert!(pauses.next() <= Duration::from_millis(50));
    }
}
