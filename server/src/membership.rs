//! How a node comes to belong to a cluster: founding one, joining one, or finding in its folder that it does.
//!
//! ```text
//!   holdfast init         folder ─▶ a new cluster's identity, node 1
//!   holdfast join ADDR    ask ADDR ─▶ (the leader) ─▶ a number ─▶ folder; then a snapshot, then the log, then a vote
//!   holdfast recover      the others are lost ─▶ another cluster's identity, and this node alone in it: recover.rs
//!   holdfast              folder says: alone, node N of a cluster, or one that its cluster has removed
//! ```
//!
//! Both commands do their part once; given again to a folder that belongs to a cluster they just start the node, so that a
//! service may keep them in its command line.

use crate::cluster::{Address, NodeId};
use crate::peer::{JoinReply, JoinRequest, request_join};
use crate::server::{StartError, random_u128};
use holdfast_engine::folder::DataFolder;
use holdfast_engine::state_file;
use holdfast_engine::vfs::OsVfs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a node starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Entry {
    /// As what its folder says it is.
    #[default]
    Start,
    /// As the first node of a new cluster.
    Init,
    /// As a new node of the cluster that this address belongs to.
    Join(Address),
}

/// Why a node takes part in its cluster no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parting {
    /// The cluster has removed it.
    Removed,
    /// Its folder is not the one that made its promises: why, and what to do.
    PromiseLost(String),
}

/// How long a node tries to join before it gives up.
const JOIN_MAX: Duration = Duration::from_secs(60);
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The pause before a request is repeated.
const PAUSE: Duration = Duration::from_millis(250);
/// Redirections in a row before it pauses.
const REDIRECTS_MAX: usize = 4;

/// The state file with the peers that a joining node was told of.
const PEERS_FILE: &str = "PEERS";
const PEERS_MAGIC: [u8; 8] = *b"HFPEERS\0";
const PEERS_VERSION: u32 = 1;
/// The state file, without a payload, of a node that its cluster has removed.
const REMOVED_FILE: &str = "REMOVED";
const REMOVED_MAGIC: [u8; 8] = *b"HFREMOVD";
const REMOVED_VERSION: u32 = 1;
/// The state file with the newest starts of other nodes.
pub(crate) const STARTS_FILE: &str = "STARTS";
/// The state file of a node whose state is not the majority's.
pub(crate) const DIFFERS_FILE: &str = "DIFFERS";
/// The state file of a folder that is not the one that made its node's promises. The payload says how that was found.
const LOST_FILE: &str = "LOST";
const LOST_MAGIC: [u8; 8] = *b"HFLOST\0\0";
const LOST_VERSION: u32 = 1;

/// Makes the folder's node the first of a new cluster, unless it belongs to one.
///
/// # Errors
/// When the folder can't be written.
pub(crate) fn found(folder: &mut DataFolder) -> Result<(), StartError> {
    if folder.identity().cluster != 0 {
        tracing::info!("the folder belongs to a cluster already; starting its node");
        return Ok(());
    }
    if folder.identity().initialised {
        tracing::warn!(
            "this node becomes the first of a cluster: SELECT of other databases and commands over keys in several hash slots stop \
             working for its clients"
        );
    }
    // NB: 0 means none.
    folder.join_cluster(random_u128().max(1), 1)?;
    Ok(())
}

/// Has the folder's node taken into a cluster, unless it belongs to one.
///
/// # Errors
/// When nobody takes it in within a minute, the cluster refuses, or the folder holds data of its own.
pub(crate) async fn join(folder: &mut DataFolder, address: &Address, request: JoinRequest) -> Result<(), StartError> {
    if folder.identity().cluster != 0 {
        tracing::info!(
            "the folder belongs to cluster {:032x} already: its node is started, and {address} is not asked",
            folder.identity().cluster
        );
        return Ok(());
    }
    if folder.identity().initialised {
        return Err(StartError::Recovery(format!(
            "the folder {} holds the data of a node that is alone; join with an empty one (--dir), or let the others join \
             this node after 'holdfast init'",
            folder.path().display()
        )));
    }
    let deadline = Instant::now() + JOIN_MAX;
    let mut ask = address.clone();
    let mut redirects = 0;
    let mut reason;
    let mut told = String::new();
    loop {
        match request_join(&ask, request.clone(), REQUEST_MAX).await {
            Ok(JoinReply::Welcome { cluster, node, peers }) => {
                let number = u32::try_from(node).map_err(|_| {
                    StartError::Recovery(format!("{ask} calls this node {node}, which is more than a folder can hold"))
                })?;
                store_peers(folder, &peers)?;
                folder.join_cluster(cluster, number)?;
                tracing::info!(node, "this node belongs to the cluster now");
                return Ok(());
            }
            Ok(JoinReply::Redirect { leader }) if redirects < REDIRECTS_MAX => {
                redirects += 1;
                ask = leader;
                continue;
            }
            Ok(JoinReply::Redirect { leader }) => {
                reason = format!("{ask} says that {leader} leads, and so on in a circle")
            }
            Ok(JoinReply::Retry { reason: why }) => reason = why,
            Ok(JoinReply::Refused { reason }) => {
                return Err(StartError::Recovery(format!("{ask} does not take this node into its cluster: {reason}")));
            }
            Err(error) => reason = format!("{ask}: {error}"),
        }
        if Instant::now() >= deadline {
            return Err(StartError::Recovery(format!(
                "nobody took this node into a cluster for {} seconds; last: {reason}. {address} must be the peer address of \
                 a running member (its client port + 10000, unless set)",
                JOIN_MAX.as_secs()
            )));
        }
        if reason != told {
            tracing::info!(reason, "not in the cluster yet; asking again");
            told.clone_from(&reason);
        }
        ask = address.clone();
        redirects = 0;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Notes in the folder that the cluster has removed its node, so that the next start knows without being told.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn mark_removed(folder: &DataFolder) -> holdfast_engine::Result<()> {
    let path = folder.path().join(REMOVED_FILE);
    state_file::write(&*OsVfs::shared(), &path, REMOVED_MAGIC, REMOVED_VERSION, &[])
}

/// Whether the folder says that the cluster has removed its node.
///
/// # Errors
/// When the note is damaged or can't be read.
fn is_removed(folder: &DataFolder) -> holdfast_engine::Result<bool> {
    let path = folder.path().join(REMOVED_FILE);
    Ok(state_file::read(&*OsVfs::shared(), &path, REMOVED_MAGIC, REMOVED_VERSION)?.is_some())
}

/// Notes in the folder that it is not the one that made its node's promises: it is never to take part again.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn mark_promise_lost(folder: &DataFolder, reason: &str) -> holdfast_engine::Result<()> {
    let path = folder.path().join(LOST_FILE);
    state_file::write(&*OsVfs::shared(), &path, LOST_MAGIC, LOST_VERSION, reason.as_bytes())
}

/// Why the folder's node may not take part in its cluster, if it may not.
///
/// # Errors
/// When the notes are damaged or can't be read.
pub(crate) fn parting(folder: &DataFolder) -> holdfast_engine::Result<Option<Parting>> {
    let path = folder.path().join(LOST_FILE);
    let lost = state_file::read(&*OsVfs::shared(), &path, LOST_MAGIC, LOST_VERSION)?;
    let lost = lost.map(|(_, reason)| Parting::PromiseLost(String::from_utf8_lossy(&reason).into_owned()));
    Ok(if is_removed(folder)? { Some(Parting::Removed) } else { lost })
}

/// Forgets what the folder says of its old cluster: its other nodes, their starts, and why this one took no part.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn forget_cluster(dir: &Path) -> holdfast_engine::Result<()> {
    let vfs = OsVfs::shared();
    let names = [PEERS_FILE, STARTS_FILE, REMOVED_FILE, LOST_FILE, DIFFERS_FILE];
    names.iter().try_for_each(|name| state_file::remove(&*vfs, &dir.join(name)))
}

fn peers_path(folder: &DataFolder) -> PathBuf {
    folder.path().join(PEERS_FILE)
}

/// Keeps the addresses of the other nodes until this one has its first snapshot, which names them.
fn store_peers(folder: &DataFolder, peers: &[(NodeId, Address)]) -> Result<(), StartError> {
    let mut payload = Vec::new();
    for (id, address) in peers {
        let text = address.to_string();
        payload.extend_from_slice(&id.to_le_bytes());
        payload.extend_from_slice(&(text.len() as u16).to_le_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    state_file::write(&*OsVfs::shared(), &peers_path(folder), PEERS_MAGIC, PEERS_VERSION, &payload)?;
    Ok(())
}

/// The addresses that [`join`] stored; none if there are none, or if they can't be read.
pub(crate) fn stored_peers(folder: &DataFolder) -> Vec<(NodeId, Address)> {
    match state_file::read(&*OsVfs::shared(), &peers_path(folder), PEERS_MAGIC, PEERS_VERSION) {
        Ok(Some((_, payload))) => parse_peers(&payload).unwrap_or_default(),
        Ok(None) => Vec::new(),
        Err(error) => {
            // Others dial this node, too: it is found without it.
            tracing::warn!(%error, "the list of peers is ignored");
            Vec::new()
        }
    }
}

fn parse_peers(mut rest: &[u8]) -> Option<Vec<(NodeId, Address)>> {
    let mut peers = Vec::new();
    while !rest.is_empty() {
        let (id, tail) = rest.split_first_chunk::<8>()?;
        let (length, tail) = tail.split_first_chunk::<2>()?;
        let (text, tail) = tail.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        peers.push((u64::from_le_bytes(*id), std::str::from_utf8(text).ok()?.parse().ok()?));
        rest = tail;
    }
    Some(peers)
}
