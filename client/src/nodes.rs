//! Which nodes a client knows, and which of them it asks.
//!
//! It begins with the addresses that it was given, learns more from redirections and from `CLUSTER SLOTS`, and stays with the
//! node that answered last: in a cluster, after the first redirection, that is the leader. A node that can't be reached is
//! passed over for the next one, round and round, until the caller's time is up.

use crate::config::Address;
use crate::value::Value;

/// Addresses that are kept. A server that names ever new ones fills no memory.
const NODES_MAX: usize = 64;

/// The nodes of one cluster, or the one node that there is.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// Never empty.
    known: Vec<Address>,
    current: usize,
    /// How many were passed over since one was followed or answered.
    passed_over: usize,
}

impl Nodes {
    /// The first one is asked first.
    pub(crate) fn new(first: Address, others: &[Address]) -> Self {
        let mut nodes = Nodes { known: vec![first], current: 0, passed_over: 0 };
        for address in others {
            nodes.learn(address.clone());
        }
        nodes
    }

    /// The node to ask.
    pub(crate) fn current(&self) -> &Address {
        &self.known[self.current]
    }

    /// Whether there is another one to turn to.
    pub(crate) fn has_others(&self) -> bool {
        self.known.len() > 1
    }

    /// Adds a node to those that are tried; gives its place, if there is room.
    pub(crate) fn learn(&mut self, address: Address) -> Option<usize> {
        let place = self.known.iter().position(|known| *known == address);
        place.or_else(|| {
            (self.known.len() < NODES_MAX).then(|| {
                self.known.push(address);
                self.known.len() - 1
            })
        })
    }

    /// Asks this node from now on.
    pub(crate) fn follow(&mut self, address: Address) {
        match self.learn(address.clone()) {
            Some(place) => self.current = place,
            // No room: the place of the one that sent us there.
            None => self.known[self.current] = address,
        }
        self.passed_over = 0;
    }

    /// Turns from a node that is of no use to the next. True when all of them have been tried: time for a pause.
    pub(crate) fn pass_over(&mut self, useless: &Address) -> bool {
        // Another caller may have turned already.
        if self.current() == useless {
            self.current = (self.current + 1) % self.known.len();
            self.passed_over += 1;
        }
        self.passed_over.is_multiple_of(self.known.len())
    }

    /// The node answered.
    pub(crate) fn answered(&mut self) {
        self.passed_over = 0;
    }
}

/// The addresses in a reply to `CLUSTER SLOTS`, the master of the first range first. What is malformed is left out.
pub(crate) fn addresses_in(slots: &Value, answered: &Address) -> Vec<Address> {
    let mut found: Vec<Address> = Vec::new();
    for range in slots.as_elements().unwrap_or_default() {
        for node in range.as_elements().unwrap_or_default().iter().skip(2) {
            if let Some([host, port, ..]) = node.as_elements()
                && let Some(port) =
                    port.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
            {
                let host = host.as_bytes().map(|host| String::from_utf8_lossy(host)).unwrap_or_default();
                // No host means the one that answered.
                let host = if host.is_empty() || host == "?" { answered.host.clone() } else { host.into_owned() };
                let address = Address::new(host, port);
                if !found.contains(&address) && found.len() < NODES_MAX {
                    found.push(address);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address::new("h", port)
    }

    #[test]
    fn nodes_are_tried_in_turn_and_a_round_is_noticed() {
        let mut nodes = Nodes::new(address(1), &[address(2), address(1), address(3)]);
        assert!(!nodes.pass_over(&address(1)) && !nodes.pass_over(&address(2)));
        assert_eq!(nodes.current(), &address(3));
        assert!(nodes.pass_over(&address(3)), "all three were tried");
        assert_eq!(nodes.current(), &address(1));
        assert!(nodes.pass_over(&address(9)), "it was not asked, so nothing changes");
        assert_eq!(nodes.current(), &address(1));
    }

    #[test]
    fn followed_node_stays_the_one_that_is_asked() {
        let mut nodes = Nodes::new(address(1), &[]);
        nodes.follow(address(7));
        assert_eq!(nodes.current(), &address(7));
        nodes.answered();
        assert!(!nodes.pass_over(&address(7)), "the first one is still there");
        assert_eq!(nodes.current(), &address(1));
    }

    #[test]
    fn endless_redirections_fill_no_memory() {
        let mut nodes = Nodes::new(address(1), &[]);
        for port in 1..5000 {
            nodes.follow(address(port));
            assert_eq!(nodes.current(), &address(port));
        }
        assert_eq!(nodes.known.len(), NODES_MAX);
    }

    #[test]
    fn slots_name_the_master_first() {
        let bulk = |text: &'static str| Value::Bulk(text.as_bytes().into());
        let node = |host, port| Value::Array(vec![bulk(host), Value::Integer(port), bulk("id"), Value::Array(vec![])]);
        let range =
            |nodes: Vec<Value>| Value::Array([Value::Integer(0), Value::Integer(9)].into_iter().chain(nodes).collect());
        let slots = Value::Array(vec![
            range(vec![node("a", 2), node("", 3), node("b", 0), node("b", 99999), Value::Null]),
            range(vec![node("a", 2), Value::Array(vec![bulk("x")])]),
        ]);
        assert_eq!(addresses_in(&slots, &Address::new("me", 1)), [Address::new("a", 2), Address::new("me", 3)]);
        assert!(addresses_in(&Value::Null, &Address::new("me", 1)).is_empty());
    }
}
