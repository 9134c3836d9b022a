//! Commands about all keys or about the node, and reads of the store: what takes more than one step.
//!
//! A job begins on the shard thread, reads the store on a reader thread, and goes on when that has an answer. Its connection is
//! held meanwhile; the others are served. Since it was held until all its earlier commands were answered, the order of its
//! replies is kept.

use super::conn::{ConnKey, Hold, Wanted};
use super::{AbortOnPanic, Shard, membership};
use crate::command::{
    CommandSpec, Failure, Needs, ScanOptions, ShutdownOptions, SlotOptions, Special, WaitOptions, glob, parse_node,
};
use crate::connection::CLUSTER_DISABLED;
use crate::node::UnblockReason;
use crate::resp::Reply;
use crate::slot::owned_key;
use holdfast_engine::Result;
use holdfast_engine::table::{ExpireJob, Fetched, Fetcher, Len, ObjectKind, ScanPage, ScanPosition, ScanRow};
use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Bytes of values, and keys, that one visit of a reader thread brings for the command that waits.
const ROUND_BYTES_MAX: u64 = 4 << 20;
const ROUND_KEYS_MAX: usize = 1024;
/// Bytes of values read for a connection beyond which nothing more is read for its later commands.
const LOOK_AHEAD_BYTES_MAX: u64 = 1 << 20;
/// Keys looked at in one step of KEYS, or of a SCAN with a large COUNT.
const PAGE_KEYS_MAX: usize = 4096;
/// Bytes of keys looked at after which a SCAN gives its cursor back, whatever COUNT says.
const SCAN_BYTES_MAX: usize = 4 << 20;
/// Low bits of a SCAN cursor: the hash. The slot stands above them, so that a cursor says where it is.
const CURSOR_HASH_BITS: u32 = 50;
/// Keys looked at in the first step through a slot.
const SLOT_PAGE_KEYS_MIN: usize = 16;
/// Only a leader knows how far the others are.
const WAIT_ON_REPLICA: &str = "ERR WAIT cannot be used with replica instances: only the leader knows who has a write";
const WAIT_DEPOSED: &str = "UNBLOCKED this node lost its leadership while WAIT was waiting: ask the new leader";
/// Keys looked at in one step of RANDOMKEY: the first that is not expired is the answer.
const RANDOM_PAGE_KEYS: usize = 8;

pub(super) type Shared = Rc<RefCell<Shard>>;

/// What a job answers: it writes one value, or fails with an error's text.
pub(super) type Answer = std::result::Result<Box<dyn FnOnce(&mut Reply)>, Failure>;

impl Shard {
    /// Reads the keys that a connection wants from the store, so that the command that needs them can run; releases the
    /// connection then.
    ///
    /// In rounds, so that a command of many keys neither keeps a reader from others for long nor has more on its way at once
    /// than a round may.
    pub(super) fn fetch(&mut self, place: usize) {
        let Some(shard) = self.me.upgrade() else { return };
        let mut wanted = std::mem::take(&mut self.conns[place].wanted);
        let key = self.key_of(place);
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            loop {
                let fetcher = shard.borrow().host.data().fetcher();
                let round = on_reader(move || Round::read(&fetcher, wanted)).await;
                let mut this = shard.borrow_mut();
                match round {
                    Ok(round) => {
                        wanted = round.rest;
                        if !this.admit_round(key, round.own, round.ahead, &mut wanted.bytes_max)
                            || wanted.own.is_empty()
                        {
                            break;
                        }
                    }
                    Err(error) => {
                        this.store_failed(key, &error.to_string());
                        break;
                    }
                }
            }
            shard.borrow_mut().release(key);
        });
    }

    /// Takes in what a round read. `false`: there is no point in another.
    fn admit_round(&mut self, key: ConnKey, own: Vec<Fetched>, ahead: Vec<Fetched>, bytes_left: &mut u64) -> bool {
        for fetched in ahead {
            let name = fetched.key().key.to_vec();
            if self.host.data_mut().admit(fetched) {
                // The cache has it now.
                self.host.data_mut().unpin(&name);
            }
        }
        let mut go_on = true;
        for fetched in own {
            let name = fetched.key().key.to_vec();
            let data_bytes = fetched.data_bytes();
            // A key that was written meanwhile is looked at again when the command is.
            if self.host.data_mut().admit(fetched) {
                match self.conn_mut(key) {
                    Some(conn) => {
                        conn.pinned.push(name);
                        conn.overfull |= data_bytes > *bytes_left;
                        go_on &= !conn.overfull;
                        *bytes_left = bytes_left.saturating_sub(data_bytes);
                    }
                    None => {
                        self.host.data_mut().unpin(&name);
                        go_on = false;
                    }
                }
            }
        }
        go_on
    }

    fn store_failed(&mut self, key: ConnKey, text: &str) {
        tracing::error!(error = text, "a key could not be read from the store");
        if let Some(conn) = self.conn_mut(key) {
            conn.reply.error(&format!("ERR the store could not be read: {text}"));
            conn.closing = true;
        }
    }

    /// Runs a command that the shard itself knows.
    pub(super) fn run_special(&mut self, place: usize, spec: &'static CommandSpec, special: Special, args: &[&[u8]]) {
        let Some(shard) = self.me.upgrade() else { return };
        let conn = self.key_of(place);
        let job: std::result::Result<std::pin::Pin<Box<dyn Future<Output = Answer>>>, Failure> = match special {
            Special::Scan => ScanOptions::parse(args).map(|options| {
                let request = ScanRequest::new(&options);
                Box::pin(scan(Rc::clone(&shard), request)) as _
            }),
            Special::Keys => {
                let pattern = args.get(1).copied().unwrap_or_default().to_vec();
                Ok(Box::pin(keys(Rc::clone(&shard), pattern)) as _)
            }
            Special::RandomKey => Ok(Box::pin(random_key(Rc::clone(&shard))) as _),
            Special::DbSize => Ok(Box::pin(db_size(Rc::clone(&shard))) as _),
            Special::Wait => {
                WaitOptions::parse(args).map(|options| Box::pin(wait(Rc::clone(&shard), conn, options)) as _)
            }
            Special::Shutdown => match ShutdownOptions::parse(args) {
                Ok(options) if options.abort => Err(Failure::fixed("ERR No shutdown in progress.")),
                Ok(_) => {
                    self.conns[place].closing = true;
                    self.node.request_stop();
                    return;
                }
                Err(failure) => Err(failure),
            },
            Special::CountKeysInSlot | Special::GetKeysInSlot if !self.node.is_clustered() => {
                Err(Failure::fixed(CLUSTER_DISABLED))
            }
            Special::CountKeysInSlot => SlotOptions::parse(args)
                .map(|options| Box::pin(count_keys_in_slot(Rc::clone(&shard), options.slot)) as _),
            Special::Nodes => {
                let read_only = self.conns[place].session.read_only;
                Ok(Box::pin(std::future::ready(self.list_nodes(read_only))) as _)
            }
            Special::RemoveNode => {
                parse_node(args).map(|node| Box::pin(membership::remove_node(Rc::clone(&shard), conn, node)) as _)
            }
            Special::Verify => Ok(Box::pin(membership::verify(Rc::clone(&shard), conn)) as _),
            Special::TransferLeader => match args.len() {
                ..3 => Ok(None),
                3 => parse_node(args).map(Some),
                _ => Err(Failure::SYNTAX),
            }
            .map(|node| Box::pin(membership::transfer_leader(Rc::clone(&shard), conn, node)) as _),
            Special::GetKeysInSlot => {
                SlotOptions::parse(args).map(|options| Box::pin(get_keys_in_slot(Rc::clone(&shard), options)) as _)
            }
        };
        self.conns[place].session.info().ran(spec.id);
        let job = match job {
            Ok(job) => job,
            Err(failure) => {
                self.refuse(place, failure.text());
                return;
            }
        };
        self.hold(place, Hold::Job);
        let started = Instant::now();
        tokio::task::spawn_local(async move {
            let _guard = AbortOnPanic;
            let answer = job.await;
            let mut this = shard.borrow_mut();
            if let Some(conn_state) = this.conn_mut(conn) {
                // The reply comes before anything the held connection asks for next.
                conn_state.hold = Hold::None;
                this.answer_now(conn.place, |reply| match answer {
                    Ok(write) => write(reply),
                    Err(failure) => reply.error(failure.text()),
                });
                this.metrics.record_command(spec, &[], started.elapsed(), None, None);
                this.release(conn);
            }
        });
    }
}

/// What one visit of a reader thread brought.
#[derive(Debug)]
struct Round {
    own: Vec<Fetched>,
    ahead: Vec<Fetched>,
    /// What is left to read.
    rest: Wanted,
}

impl Round {
    /// Reads keys until all are there or a round's share is. Keys of later commands come last, and only if their values will
    /// be in the cache when their command comes.
    fn read(fetcher: &Fetcher, mut wanted: Wanted) -> Result<Round> {
        let read = |key: &[u8], needs: Needs| match needs {
            Needs::Values => fetcher.fetch(owned_key(key)),
            Needs::Heads | Needs::Nothing => fetcher.fetch_head(owned_key(key)),
        };
        let (mut own, mut ahead) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        let mut cached = true;
        while bytes < ROUND_BYTES_MAX
            && own.len() < ROUND_KEYS_MAX
            && let Some(key) = wanted.own.pop_front()
        {
            let fetched = read(&key, wanted.needs)?;
            bytes += fetched.data_bytes();
            cached &= fetcher.is_cacheable(&fetched);
            own.push(fetched);
        }
        if wanted.own.is_empty() {
            for (key, needs) in std::mem::take(&mut wanted.ahead) {
                if !cached || bytes >= LOOK_AHEAD_BYTES_MAX {
                    break;
                }
                let fetched = read(&key, needs)?;
                bytes += fetched.data_bytes();
                cached = fetcher.is_cacheable(&fetched);
                ahead.push(fetched);
            }
        }
        Ok(Round { own, ahead, rest: wanted })
    }
}

/// Runs what may block on the disk on a reader thread.
pub(super) async fn on_reader<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The work itself panicked: so would it have on this thread.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn store_failure(error: &holdfast_engine::Error) -> Failure {
    Failure::new(format!("ERR the store could not be read: {error}"))
}

/// A page of keys from a position on.
async fn page(shard: &Shared, from: ScanPosition, limit: usize) -> std::result::Result<ScanPage, Failure> {
    let mut limit = limit.clamp(1, PAGE_KEYS_MAX);
    loop {
        let job = shard.borrow().host.data().scan(from, limit);
        let outcome = if job.needs_store() { on_reader(move || job.run()).await } else { job.run() };
        let outcome = outcome.map_err(|error| store_failure(&error))?;
        match shard.borrow_mut().host.data_mut().finish_scan(outcome) {
            Some(page) => return Ok(page),
            // A flush came between. A smaller page is sooner read.
            None => limit = (limit / 2).max(1),
        }
    }
}

/// A SCAN command's options, owned.
#[derive(Debug)]
struct ScanRequest {
    from: ScanPosition,
    pattern: Option<Vec<u8>>,
    count: usize,
    /// `Some(false)`: a type that no key has.
    type_matches: bool,
}

impl ScanRequest {
    fn new(options: &ScanOptions<'_>) -> Self {
        ScanRequest {
            from: position_of(options.cursor),
            pattern: options.pattern.map(<[u8]>::to_vec),
            count: options.count,
            type_matches: options.type_name.is_none_or(|name| name.eq_ignore_ascii_case(type_name(ObjectKind::String))),
        }
    }
}

fn type_name(kind: ObjectKind) -> &'static [u8] {
    match kind {
        ObjectKind::String => b"string",
    }
}

/// The cursor for a position. The first position has no cursor of its own: 0 begins and ends a scan.
fn cursor_of(position: Option<ScanPosition>) -> u64 {
    position.map_or(0, |at| (u64::from(at.slot) << CURSOR_HASH_BITS) | at.hash50)
}

/// The position of a cursor. Every number is one: 14 bits of slot and 50 of hash.
fn position_of(cursor: u64) -> ScanPosition {
    ScanPosition { slot: (cursor >> CURSOR_HASH_BITS) as u16, hash50: cursor & ((1 << CURSOR_HASH_BITS) - 1) }
}

async fn scan(shard: Shared, request: ScanRequest) -> Answer {
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let mut looked_at = 0;
    let mut next = Some(request.from);
    let mut bytes = 0;
    while let Some(from) = next
        && looked_at < request.count
        && bytes < SCAN_BYTES_MAX
    {
        let page = page(&shard, from, request.count - looked_at).await?;
        let time_ms = shard.borrow().host.data().time_ms();
        looked_at += page.rows.len().max(1);
        bytes += page.rows.iter().map(|row| row.key.len() + 32).sum::<usize>();
        next = page.next;
        let live = page.rows.into_iter().filter(|row| row.deadline_ms == 0 || row.deadline_ms > time_ms);
        found.extend(live.map(|row| row.key).filter(|key| {
            request.type_matches && request.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key))
        }));
    }
    let cursor = cursor_of(next);
    Ok(Box::new(move |reply| {
        reply.array(2);
        reply.bulk(cursor.to_string().as_bytes());
        reply.array(found.len());
        for key in &found {
            reply.bulk(key);
        }
    }))
}

async fn keys(shard: Shared, pattern: Vec<u8>) -> Answer {
    let mut found: Vec<Box<[u8]>> = Vec::new();
    // As in Redis, where a lone star is the only pattern that matches the empty key.
    let all = pattern == b"*";
    let mut bytes = 0usize;
    let limit = shard.borrow().node.settings.output_bytes_max;
    let mut next = Some(ScanPosition::default());
    while let Some(from) = next {
        let page = page(&shard, from, PAGE_KEYS_MAX).await?;
        let time_ms = shard.borrow().host.data().time_ms();
        next = page.next;
        for row in page.rows {
            if (row.deadline_ms == 0 || row.deadline_ms > time_ms) && (all || glob::matches(&pattern, &row.key)) {
                bytes += row.key.len() + 32;
                found.push(row.key);
            }
        }
        if bytes > limit {
            return Err(Failure::fixed("ERR the reply to KEYS would be over output-bytes-max; use SCAN"));
        }
    }
    Ok(Box::new(move |reply| {
        reply.array(found.len());
        for key in &found {
            reply.bulk(key);
        }
    }))
}

/// Walks over the keys of one slot, expired ones left out, until `wanted` have been seen.
async fn walk_slot(
    shard: &Shared,
    slot: u16,
    wanted: usize,
    mut see: impl FnMut(Box<[u8]>),
) -> std::result::Result<(), Failure> {
    let mut next = Some(ScanPosition { slot, hash50: 0 });
    // Small at first: tools ask for one slot after another, and most slots have few keys.
    let mut limit = SLOT_PAGE_KEYS_MIN;
    let mut seen = 0;
    while let Some(from) = next
        && from.slot == slot
        && seen < wanted
    {
        let page = page(shard, from, limit).await?;
        let time_ms = shard.borrow().host.data().time_ms();
        let live = |row: &ScanRow| row.slot == slot && (row.deadline_ms == 0 || row.deadline_ms > time_ms);
        for row in page.rows.into_iter().filter(live).take(wanted - seen) {
            see(row.key);
            seen += 1;
        }
        next = page.next;
        limit = (limit * 4).min(PAGE_KEYS_MAX);
    }
    Ok(())
}

async fn count_keys_in_slot(shard: Shared, slot: u16) -> Answer {
    let mut count: i64 = 0;
    walk_slot(&shard, slot, usize::MAX, |_| count += 1).await?;
    Ok(Box::new(move |reply| reply.int(count)))
}

async fn get_keys_in_slot(shard: Shared, options: SlotOptions) -> Answer {
    let limit = shard.borrow().node.settings.output_bytes_max;
    let (mut found, mut bytes) = (Vec::new(), 0usize);
    walk_slot(&shard, options.slot, options.count, |key| {
        bytes += key.len() + 32;
        // What is over the limit is refused below; it needn't be kept for that.
        if bytes <= limit {
            found.push(key);
        }
    })
    .await?;
    if bytes > limit {
        return Err(Failure::fixed("ERR the reply would be over output-bytes-max; ask for fewer keys"));
    }
    Ok(Box::new(move |reply| {
        reply.array(found.len());
        for key in &found {
            reply.bulk(key);
        }
    }))
}

async fn random_key(shard: Shared) -> Answer {
    // A random place, and the first key after it: keys behind gaps are likelier, which nobody is promised otherwise.
    let random = crate::server::random_u128();
    let start = ScanPosition {
        slot: (random as u16) % crate::slot::SLOT_COUNT,
        hash50: (random >> 64) as u64 & ((1 << CURSOR_HASH_BITS) - 1),
    };
    // From there to the end, then once more from the beginning.
    for origin in [start, ScanPosition::default()] {
        let mut next = Some(origin);
        while let Some(from) = next {
            let page = page(&shard, from, RANDOM_PAGE_KEYS).await?;
            let time_ms = shard.borrow().host.data().time_ms();
            if let Some(row) = page.rows.into_iter().find(|row| row.deadline_ms == 0 || row.deadline_ms > time_ms) {
                return Ok(Box::new(move |reply| reply.bulk(&row.key)));
            }
            next = page.next;
        }
    }
    Ok(Box::new(|reply| reply.null()))
}

async fn db_size(shard: Shared) -> Answer {
    let len = shard.borrow_mut().host.data_mut().len().map_err(|error| store_failure(&error))?;
    let count = match len {
        Len::Exact(count) => count,
        Len::Job(job) => {
            let outcome = on_reader(move || job.run()).await.map_err(|error| store_failure(&error))?;
            shard.borrow_mut().host.data_mut().finish_len(outcome)
        }
    };
    Ok(Box::new(move |reply| reply.int(i64::try_from(count).unwrap_or(i64::MAX))))
}

/// Waits until so many other replicas have the connection's last write on their disks. A node that is alone has no other
/// replica to wait for: it waits as long as it is told to, and answers none.
async fn wait(shard: Shared, conn: ConnKey, options: WaitOptions) -> Answer {
    let count = |count: usize| -> Answer { Ok(Box::new(move |reply| reply.int(count as i64))) };
    let found = shard.borrow_mut().conn_mut(conn).map(|conn| (std::sync::Arc::clone(&conn.info), conn.last_write));
    let Some((info, index)) = found else { return count(0) };
    let first = shard.borrow().replicas_with(index).ok_or(Failure::fixed(WAIT_ON_REPLICA))?;
    if i64::try_from(first).is_ok_and(|first| first >= options.replicas) {
        return count(first);
    }
    info.set_blocked(true);
    shard.borrow_mut().metrics.blocked_clients += 1;
    let mut timeout =
        (options.timeout_ms > 0).then(|| Box::pin(tokio::time::sleep(Duration::from_millis(options.timeout_ms))));
    let mut end = poll_fn(|context| {
        // The connection's own waker is what CLIENT UNBLOCK and CLIENT KILL know; this one is told on each poll of it.
        let mut this = shard.borrow_mut();
        let Some(state) = this.conn_mut(conn) else { return Poll::Ready(WaitEnd::Over) };
        if state.dead || state.eof || info.is_killed() {
            return Poll::Ready(WaitEnd::Over);
        }
        if let Some(reason) = info.take_unblock() {
            return Poll::Ready(WaitEnd::Unblocked(reason));
        }
        state.job_waker = Some(context.waker().clone());
        match this.replicas_with(index) {
            None => return Poll::Ready(WaitEnd::Deposed),
            Some(now) if i64::try_from(now).is_ok_and(|now| now >= options.replicas) => {
                return Poll::Ready(WaitEnd::Over);
            }
            Some(_) => this.wake_when_replicated(context.waker()),
        }
        match &mut timeout {
            Some(timeout) => timeout.as_mut().poll(context).map(|()| WaitEnd::Over),
            None => Poll::Pending,
        }
    })
    .await;
    info.set_blocked(false);
    let mut this = shard.borrow_mut();
    this.metrics.blocked_clients -= 1;
    let last = this.replicas_with(index);
    if last.is_none() {
        end = WaitEnd::Deposed;
    }
    match end {
        WaitEnd::Unblocked(UnblockReason::Error) => {
            Err(Failure::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK"))
        }
        WaitEnd::Deposed => Err(Failure::fixed(WAIT_DEPOSED)),
        WaitEnd::Unblocked(_) | WaitEnd::Over => count(last.unwrap_or(0)),
    }
}

/// Why a WAIT that had to wait goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitEnd {
    /// Enough replicas, the time is over, or nobody waits any more.
    Over,
    /// CLIENT UNBLOCK.
    Unblocked(UnblockReason),
    /// This node no longer leads, and so doesn't hear how far the others are.
    Deposed,
}

/// Looks for expired keys and proposes to delete what it finds, one round at a time. What only the store knows is read before, so
/// that applying the deletion needn't.
pub(super) fn look_for_expired(shard: &mut Shard, limit: usize) {
    if shard.looking_for_expired {
        return;
    }
    let Some(job) = shard.host.data_mut().expired(shard.clock_ms, limit) else { return };
    if !job.needs_store() {
        if let Ok(outcome) = job.run() {
            let keys: Vec<_> =
                shard.host.data_mut().finish_expired(outcome).into_iter().map(|key| key.key.to_vec()).collect();
            shard.propose_reclaim(&keys);
        }
        return;
    }
    let Some(me) = shard.me.upgrade() else { return };
    shard.looking_for_expired = true;
    tokio::task::spawn_local(async move {
        let _guard = AbortOnPanic;
        if let Err(error) = reclaim_stored(&me, job).await {
            tracing::error!(%error, "cannot look for expired keys");
        }
        me.borrow_mut().looking_for_expired = false;
    });
}

async fn reclaim_stored(shard: &Shared, job: ExpireJob) -> Result<()> {
    let outcome = on_reader(move || job.run()).await?;
    let (keys, fetcher) = {
        let mut this = shard.borrow_mut();
        (this.host.data_mut().finish_expired(outcome), this.host.data().fetcher())
    };
    let fetched: Vec<Result<Fetched>> =
        on_reader(move || keys.into_iter().map(|key| fetcher.fetch_head(key)).collect()).await;
    let mut this = shard.borrow_mut();
    let mut expired = Vec::new();
    for fetched in fetched {
        match fetched {
            Ok(fetched) => {
                let key = fetched.key().key.to_vec();
                if this.host.data_mut().admit(fetched) {
                    expired.push(key);
                }
            }
            Err(error) => tracing::error!(%error, "an expired key could not be read and is kept"),
        }
    }
    this.propose_reclaim(&expired);
    this.unpin_after_turn(expired, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_say_where_they_are() {
        for position in [
            ScanPosition { slot: 0, hash50: 1 },
            ScanPosition { slot: 16383, hash50: (1 << CURSOR_HASH_BITS) - 1 },
            ScanPosition { slot: 77, hash50: 0 },
        ] {
            assert_eq!(position_of(cursor_of(Some(position))), position);
        }
        assert_eq!(cursor_of(None), 0);
        assert_eq!(position_of(0), ScanPosition::default());
        assert_eq!(position_of(u64::MAX).slot, crate::slot::SLOT_COUNT - 1, "no number is beyond the last slot");
    }
}
