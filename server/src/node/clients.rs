//! Who is connected, visible from every thread.
//!
//! A connection belongs to one shard thread. What others may see of it or ask of it is in its [`ClientInfo`]: the shard
//! keeps the figures there up to date, and looks there whether somebody wants the connection closed or unblocked.

use super::Node;
use crate::resp::Proto;
use crate::session::Session;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

/// How CLIENT UNBLOCK ends a blocking command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnblockReason {
    /// As if its time were over.
    Timeout,
    /// With the error UNBLOCKED.
    Error,
}

/// What every thread may know of a connection.
#[derive(Debug)]
pub struct ClientInfo {
    /// Rises with every connection of a run; never used twice.
    pub id: u64,
    /// The client's end.
    pub address: SocketAddr,
    /// Our end.
    pub local_address: SocketAddr,
    /// When it connected, in milliseconds since the epoch.
    pub created_ms: u64,
    last_seen_ms: AtomicU64,
    last_command: AtomicU16,
    commands: AtomicU64,
    proto: AtomicU8,
    file_handle: AtomicI32,
    no_evict: AtomicBool,
    no_touch: AtomicBool,
    read_only: AtomicBool,
    killed: AtomicBool,
    blocked: AtomicBool,
    /// 0 none, 1 timeout, 2 error.
    unblock: AtomicU8,
    input_bytes: AtomicU64,
    output_bytes: AtomicU64,
    memory_bytes: AtomicU64,
    names: Mutex<Names>,
    waker: Mutex<Option<Waker>>,
}

#[derive(Debug, Default)]
struct Names {
    name: String,
    library_name: String,
    library_version: String,
}

impl ClientInfo {
    pub(crate) fn new(id: u64, address: SocketAddr, local_address: SocketAddr, now_ms: u64) -> Self {
        ClientInfo {
            id,
            address,
            local_address,
            created_ms: now_ms,
            last_seen_ms: AtomicU64::new(now_ms),
            last_command: AtomicU16::new(0),
            commands: AtomicU64::new(0),
            proto: AtomicU8::new(2),
            file_handle: AtomicI32::new(-1),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unblock: AtomicU8::new(0),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            names: Mutex::default(),
            waker: Mutex::default(),
        }
    }

    /// The name that the client gave itself; empty for none.
    pub fn name(&self) -> String {
        self.names().name.clone()
    }

    /// When the client last sent a command, in milliseconds since the epoch.
    pub fn last_seen_ms(&self) -> u64 {
        self.last_seen_ms.load(Relaxed)
    }

    /// Whether somebody wants the connection closed.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    /// Asks the connection's thread to close it.
    pub fn kill(&self) {
        self.killed.store(true, Relaxed);
        self.wake();
    }

    /// What to wake when something is asked of the connection.
    pub fn set_waker(&self, waker: &Waker) {
        let mut kept = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_mut() {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// Says whether the client waits in a blocking command.
    pub fn set_blocked(&self, blocked: bool) {
        self.unblock.store(0, Relaxed);
        self.blocked.store(blocked, Relaxed);
    }

    /// Whether the client waits in a blocking command.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// Asks that a blocked client go on; false if it is not blocked.
    pub fn request_unblock(&self, reason: UnblockReason) -> bool {
        if !self.is_blocked() {
            return false;
        }
        self.unblock.store(if reason == UnblockReason::Timeout { 1 } else { 2 }, Relaxed);
        self.wake();
        true
    }

    /// Whether and how somebody asked that the client go on; asked for only once.
    pub fn take_unblock(&self) -> Option<UnblockReason> {
        match self.unblock.swap(0, Relaxed) {
            1 => Some(UnblockReason::Timeout),
            2 => Some(UnblockReason::Error),
            _ => None,
        }
    }

    /// Publishes the sizes of the connection's buffers, in bytes: unread input, unsent output, and all memory.
    pub fn set_buffers(&self, input_bytes: usize, output_bytes: usize, memory_bytes: usize) {
        self.input_bytes.store(input_bytes as u64, Relaxed);
        self.output_bytes.store(output_bytes as u64, Relaxed);
        self.memory_bytes.store(memory_bytes as u64, Relaxed);
    }

    /// Publishes the socket's file handle.
    pub fn set_file_handle(&self, handle: i32) {
        self.file_handle.store(handle, Relaxed);
    }

    pub(crate) fn seen(&self, now_ms: u64) {
        self.last_seen_ms.store(now_ms, Relaxed);
    }

    pub(crate) fn ran(&self, command: u16) {
        self.last_command.store(command, Relaxed);
        // Only the connection's own thread counts: no locked instruction is needed.
        self.commands.store(self.commands.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn set_proto(&self, proto: Proto) {
        self.proto.store(proto.number(), Relaxed);
    }

    pub(crate) fn set_name(&self, name: &str) {
        self.names().name = name.to_owned();
    }

    pub(crate) fn set_library_name(&self, name: &str) {
        self.names().library_name = name.to_owned();
    }

    pub(crate) fn set_library_version(&self, version: &str) {
        self.names().library_version = version.to_owned();
    }

    pub(crate) fn set_no_evict(&self, on: bool) {
        self.no_evict.store(on, Relaxed);
    }

    pub(crate) fn set_no_touch(&self, on: bool) {
        self.no_touch.store(on, Relaxed);
    }

    pub(crate) fn set_read_only(&self, on: bool) {
        self.read_only.store(on, Relaxed);
    }

    /// The line of CLIENT LIST, with its line end.
    pub fn describe(&self, now_ms: u64) -> String {
        let mut flags = String::new();
        for (flag, on) in [
            ('b', self.is_blocked()),
            ('A', self.is_killed()),
            ('r', self.read_only.load(Relaxed)),
            ('e', self.no_evict.load(Relaxed)),
            ('T', self.no_touch.load(Relaxed)),
        ] {
            if on {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let command = crate::command::by_id(self.last_command.load(Relaxed)).map_or("NULL", |spec| spec.name);
        let seconds_since = |then: u64| now_ms.saturating_sub(then) / 1000;
        let output = self.output_bytes.load(Relaxed);
        let names = self.names();
        let mut line = String::with_capacity(384);
        // Writing to a string can't fail.
        let _ = writeln!(
            line,
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 \
             qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={output} oll=0 omem={output} tot-mem={} \
             events=r cmd={command} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.local_address,
            self.file_handle.load(Relaxed),
            names.name,
            seconds_since(self.created_ms),
            seconds_since(self.last_seen_ms()),
            self.input_bytes.load(Relaxed),
            self.memory_bytes.load(Relaxed),
            self.proto.load(Relaxed),
            names.library_name,
            names.library_version,
        );
        line
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            waker.wake_by_ref();
        }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which clients CLIENT KILL means: all conditions that are set must hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientFilter<'a> {
    /// This one.
    pub id: Option<u64>,
    /// Whose own end this is, `ip:port`.
    pub address: Option<&'a str>,
    /// Who connected to this end of ours.
    pub local_address: Option<&'a str>,
    /// Not this one.
    pub except: Option<u64>,
}

impl ClientFilter<'_> {
    fn matches(&self, client: &ClientInfo) -> bool {
        self.id.is_none_or(|id| client.id == id)
            && self.except.is_none_or(|id| client.id != id)
            && self.address.is_none_or(|address| client.address.to_string() == address)
            && self.local_address.is_none_or(|address| client.local_address.to_string() == address)
    }
}

/// All connections of the node.
#[derive(Debug, Default)]
pub struct ClientRegistry {
    clients: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    last_id: AtomicU64,
}

impl ClientRegistry {
    /// Takes a connection in, and makes its session.
    pub fn register(
        &self,
        address: SocketAddr,
        local_address: SocketAddr,
        now_ms: u64,
        node: &Node,
    ) -> (Session, Arc<ClientInfo>) {
        let id = self.last_id.fetch_add(1, Relaxed) + 1;
        let info = Arc::new(ClientInfo::new(id, address, local_address, now_ms));
        self.clients().insert(id, Arc::clone(&info));
        (Session::new(Arc::clone(&info), !node.live.has_password()), info)
    }

    /// Lets a connection go.
    pub fn unregister(&self, id: u64) {
        self.clients().remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.clients().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection with this id.
    pub fn get(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.clients().get(&id).cloned()
    }

    /// All connections, by id.
    pub fn list(&self) -> Vec<Arc<ClientInfo>> {
        self.clients().values().cloned().collect()
    }

    /// The connections that the filter means, by id.
    pub fn matching(&self, filter: &ClientFilter<'_>) -> Vec<Arc<ClientInfo>> {
        self.clients().values().filter(|client| filter.matches(client)).cloned().collect()
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<ClientInfo>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_node;
    use super::*;
    use crate::settings::Settings;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn clients_come_and_go_under_ids_of_their_own() {
        let node = test_node(Settings::default());
        let (one, _) = node.clients.register(address(1), address(9), 0, &node);
        let (two, info) = node.clients.register(address(2), address(9), 0, &node);
        assert!(one.id < two.id);
        assert_eq!(node.clients.len(), 2);
        node.clients.unregister(one.id);
        assert!(node.clients.get(one.id).is_none());
        let (three, _) = node.clients.register(address(3), address(9), 0, &node);
        assert!(three.id > two.id, "ids are not used again");
        assert!(Arc::ptr_eq(&node.clients.get(two.id).unwrap(), &info));
    }

    #[test]
    fn filters_mean_those_that_meet_every_condition() {
        let node = test_node(Settings::default());
        for port in 1..=3 {
            node.clients.register(address(port), address(9), 0, &node);
        }
        let ids = |filter: ClientFilter<'_>| node.clients.matching(&filter).iter().map(|c| c.id).collect::<Vec<_>>();
        assert_eq!(ids(ClientFilter::default()), [1, 2, 3]);
        assert_eq!(ids(ClientFilter { address: Some("10.0.0.1:2"), ..ClientFilter::default() }), [2]);
        assert_eq!(
            ids(ClientFilter { local_address: Some("10.0.0.1:9"), except: Some(1), ..Default::default() }),
            [2, 3]
        );
        assert_eq!(ids(ClientFilter { id: Some(2), except: Some(2), ..Default::default() }), [0u64; 0]);
    }

    #[test]
    fn killing_and_unblocking_wake_the_connection() {
        let info = ClientInfo::new(1, address(1), address(9), 0);
        let counter = Arc::new(Counter::default());
        info.set_waker(&Waker::from(Arc::clone(&counter)));
        assert!(!info.request_unblock(UnblockReason::Error), "it is not blocked");
        info.set_blocked(true);
        assert!(info.request_unblock(UnblockReason::Error));
        assert_eq!(info.take_unblock(), Some(UnblockReason::Error));
        assert_eq!(info.take_unblock(), None);
        info.kill();
        assert!(info.is_killed());
        assert_eq!(counter.0.load(Relaxed), 2);
    }

    #[test]
    fn line_has_the_fields_of_redis() {
        let info = ClientInfo::new(7, address(1), address(9), 1000);
        info.set_name("worker");
        info.set_no_evict(true);
        info.set_buffers(10, 20, 30);
        let line = info.describe(4500);
        assert!(line.starts_with("id=7 addr=10.0.0.1:1 laddr=10.0.0.1:9 fd=-1 name=worker age=3 idle=3 flags=e db=0 "));
        assert!(line.contains(" qbuf=10 ") && line.contains(" omem=20 tot-mem=30 "));
        assert!(line.ends_with(" cmd=NULL user=default redir=-1 resp=2 lib-name= lib-ver=\n"), "{line}");
    }
}
