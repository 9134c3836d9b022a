//! What this node keeps for one other node: addresses, the connections to it and from it, and figures.

use super::Lane;
use super::wire::Wire;
use crate::cluster::{Address, NodeId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Figures of the traffic with one node since it became a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Messages queued for it.
    pub sent_messages: u64,
    /// Bytes that the sockets to it took.
    pub sent_bytes: u64,
    /// Messages that came from it.
    pub received_messages: u64,
    /// Bytes that came from it.
    pub received_bytes: u64,
    /// Messages for it that were dropped: no connection, a full queue, or too large.
    pub dropped_messages: u64,
    /// Connections to it that were made, of either lane.
    pub connects: u64,
    /// Attempts to connect to it that failed, of either lane.
    pub failures: u64,
    /// Connections that it made, of either lane.
    pub accepts: u64,
}

/// Where a node can be dialed.
#[derive(Debug, Clone, Default)]
struct Addresses {
    /// What the list of members says.
    member: Option<Address>,
    /// What the node itself last said: client and peer address.
    announced: Option<(Address, Address)>,
}

/// A connection from the node.
#[derive(Debug)]
struct Inbound {
    serial: u64,
    since: Instant,
    /// Tells its task to end.
    end: Rc<Notify>,
}

/// One other node.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: NodeId,
    control: Wire,
    bulk: Wire,
    addresses: RefCell<Addresses>,
    /// The connections from the node, by lane.
    inbound: RefCell<[Option<Inbound>; 2]>,
    pub(super) counters: Cell<PeerCounters>,
}

impl Link {
    pub(super) fn new(id: NodeId) -> Self {
        Link {
            id,
            control: Wire::new(),
            bulk: Wire::new(),
            addresses: RefCell::default(),
            inbound: RefCell::default(),
            counters: Cell::default(),
        }
    }

    pub(super) fn wire(&self, lane: Lane) -> &Wire {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut PeerCounters)) {
        let mut counters = self.counters.get();
        change(&mut counters);
        self.counters.set(counters);
    }

    /// Whether the list of members has the node.
    pub(super) fn is_member(&self) -> bool {
        self.addresses.borrow().member.is_some()
    }

    /// Takes over the address in the list of members; `None` if it isn't there.
    pub(super) fn set_member(&self, address: Option<&Address>) {
        let before = self.candidates();
        self.addresses.borrow_mut().member = address.cloned();
        if self.candidates() != before {
            self.readdress();
        }
    }

    /// Takes over what the node says of itself.
    pub(super) fn set_announced(&self, client: Address, peer: Address) {
        let before = self.candidates();
        self.addresses.borrow_mut().announced = Some((client, peer));
        if self.candidates() != before {
            self.readdress();
        }
    }

    /// What the node last said of itself: client and peer address.
    pub(super) fn announced(&self) -> Option<(Address, Address)> {
        self.addresses.borrow().announced.clone()
    }

    /// The address for the n-th attempt in a row: the members' list first, then what the node said, by turns.
    pub(super) fn address(&self, attempt: usize) -> Option<Address> {
        let candidates = self.candidates();
        candidates.get(attempt % candidates.len().max(1)).cloned()
    }

    /// Whether the node may be at this address.
    pub(super) fn may_be_at(&self, address: &Address) -> bool {
        self.candidates().contains(address)
    }

    fn candidates(&self) -> Vec<Address> {
        let addresses = self.addresses.borrow();
        let mut candidates: Vec<Address> = addresses.member.iter().cloned().collect();
        if let Some((_, peer)) = &addresses.announced
            && !candidates.contains(peer)
        {
            candidates.push(peer.clone());
        }
        candidates
    }

    /// The node is there: whoever pauses before dialing it again needn't.
    pub(super) fn hurry(&self) {
        self.control.hurry.notify_one();
        self.bulk.hurry.notify_one();
    }

    fn readdress(&self) {
        self.control.readdress();
        self.bulk.readdress();
    }

    /// Ends everything that concerns the node.
    pub(super) fn stop(&self) {
        self.control.stop();
        self.bulk.stop();
        for inbound in self.inbound.take().into_iter().flatten() {
            inbound.end.notify_one();
        }
    }

    /// Registers a connection from the node, in place of an older one of the lane.
    pub(super) fn add_inbound(&self, lane: Lane, serial: u64) -> Rc<Notify> {
        let end = Rc::new(Notify::new());
        let older = self.inbound.borrow_mut()[place(lane)].replace(Inbound {
            serial,
            since: Instant::now(),
            end: Rc::clone(&end),
        });
        if let Some(older) = older {
            older.end.notify_one();
        }
        end
    }

    /// Whether the node is connected to this one.
    pub(super) fn has_inbound(&self) -> bool {
        self.inbound.borrow().iter().any(Option::is_some)
    }

    /// The connections that are there: whether this node made it, since when, and what waits to be sent.
    pub(super) fn connections(&self) -> Vec<(bool, Instant, usize)> {
        let made = [&self.control, &self.bulk].into_iter();
        let outgoing = made.filter_map(|wire| wire.since().map(|since| (true, since, wire.queued_bytes())));
        let inbound = self.inbound.borrow();
        outgoing.chain(inbound.iter().flatten().map(|inbound| (false, inbound.since, 0))).collect()
    }

    /// Takes a connection from the list, unless a newer one has its place.
    pub(super) fn remove_inbound(&self, lane: Lane, serial: u64) {
        let mut inbound = self.inbound.borrow_mut();
        let slot = &mut inbound[place(lane)];
        if slot.as_ref().is_some_and(|inbound| inbound.serial == serial) {
            *slot = None;
        }
    }
}

fn place(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
    }
}
