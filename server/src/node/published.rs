//! The topology that the shard publishes, with what is derived from it at most once.

use crate::cluster::Topology;
use crate::resp::Proto;
use bytes::Bytes;
use std::sync::{Arc, OnceLock};

/// A published topology, and the reply to `CLUSTER SLOTS` for each protocol version, encoded when first asked for.
///
/// After a fail-over every client asks at once; encoding the same reply for each of them would take the time that the new
/// leader needs for their commands. A topology is published again whenever an index moves, and the replies go over to the
/// next one if it reads the same.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) topology: Arc<Topology>,
    slots: Arc<[OnceLock<Bytes>; 2]>,
}

impl Published {
    pub(super) fn new(topology: Arc<Topology>, previous: Option<&Published>) -> Self {
        let kept = previous.filter(|previous| previous.topology.has_same_slots(&topology));
        let slots = kept.map_or_else(Arc::default, |previous| Arc::clone(&previous.slots));
        Published { topology, slots }
    }

    /// The encoded reply to `CLUSTER SLOTS`; `encode` makes it if it was not asked for before.
    pub(crate) fn slots(&self, proto: Proto, encode: impl FnOnce(&Topology) -> Bytes) -> &Bytes {
        let place = match proto {
            Proto::Resp2 => &self.slots[0],
            Proto::Resp3 => &self.slots[1],
        };
        place.get_or_init(|| encode(&self.topology))
    }
}
