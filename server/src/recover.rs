//! `holdfast recover`: what is left to do when a cluster has lost the majority of its nodes for good.
//!
//! ```text
//!   folder ─▶ what it has, and what may be lost ─▶ asked for a yes ─▶ another cluster's identity, marked as under way
//!                                                                     ─▶ all of the log applied ─▶ only member ─▶ mark gone
//! ```
//!
//! A majority that is gone takes with it what only it had: nobody can say what that was. So this is no part of any normal operation: a
//! person decides, on a node that does not run. The node becomes the only member of a *new* cluster: nodes of the old one that turn
//! up again, perhaps with another survivor's writes, are strangers to it and are refused.
//!
//! # Caveats
//! - All of the log is kept, its end included that may never have been agreed on: a write of unknown outcome may turn out to have
//!   happened. The other way round acknowledged writes could be lost that need not be.
//! - From the mark on, a plain start of the folder is refused until a recovery has ended: its log says more than the old cluster may have
//!   agreed on. A recovery that was cut short is begun again, with the same new identity.

use crate::cluster::{Address, Member, Members, NodeId};
use crate::membership::{self, Parting};
use crate::node::Node;
use crate::replica::DATA_GROUP;
use crate::server::{StartError, random_u128};
use crate::settings::{Durability, PEER_PORT_OFFSET, RecoverPlan, Settings};
use crate::shard::{Shard, wall_clock_ms};
use crate::storage;
use holdfast_engine::folder::{DataFolder, FolderIdentity};
use std::fmt::Write as _;
use std::io::{self, BufRead, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// How many digits of the cluster's identity are to be typed.
const TYPED_DIGITS: usize = 8;

/// Recovers the folder that the settings name, or only says what it has.
///
/// # Errors
/// When the folder is in use, damaged or of no cluster, the answer is no, or the disk refuses.
pub fn run(settings: Settings, plan: RecoverPlan) -> Result<(), StartError> {
    // Nothing of this may be lost by a power cut, whatever clients are promised later.
    let settings = Arc::new(Settings { durability: Durability::Always, ..settings });
    let found = inspect(&settings)?;
    say(&found.describe(&settings));
    if plan.inspect {
        return Ok(());
    }
    found.check()?;
    say(&found.warn());
    if !plan.yes && !is_confirmed(&found)? {
        return Err(StartError::Recovery("nothing was changed".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(StartError::Runtime)?;
    runtime.block_on(recover(&settings, found))
}

fn say(text: &str) {
    let mut out = io::stdout().lock();
    // A closed standard output is no reason to stop halfway.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What a folder has.
#[derive(Debug, Clone)]
struct Found {
    identity: FolderIdentity,
    parting: Option<Parting>,
    /// Its state was found to be another than the majority's.
    differs: bool,
    members: Members,
    term: u64,
    first: u64,
    last: u64,
    last_term: u64,
    commit: u64,
    /// What the store has of it.
    stored: u64,
}

/// Looks into the folder, as a start does that talks to nobody.
fn inspect(settings: &Settings) -> Result<Found, StartError> {
    let folder = open_folder(settings)?;
    let identity = *folder.identity();
    let parting = membership::parting(&folder)?;
    let mut opened = storage::open_host(settings, folder, random_u128(), false)?;
    let replica = opened.host.data();
    let status = replica.raft().status();
    let log = opened.host.log().group(DATA_GROUP);
    let found = Found {
        identity,
        parting,
        differs: replica.differs(),
        members: opened.host.members_at(DATA_GROUP, status.commit).map_err(|error| {
            StartError::Recovery(format!("the log in {} can't be read: {error}", settings.dir.display()))
        })?,
        term: status.role.term,
        first: status.first,
        last: status.last,
        last_term: log.and_then(|log| log.term(status.last)).unwrap_or(0),
        commit: status.commit,
        stored: replica.applied().index,
    };
    opened.host.close()?;
    // NB: nothing more is done with the log that would have to learn of it.
    let _closed = opened.writer.close()?;
    Ok(found)
}

/// NB: a folder that isn't there is not made.
fn open_folder(settings: &Settings) -> Result<DataFolder, StartError> {
    let refused = |what: &str| StartError::Recovery(format!("{} {what}: nothing to recover", settings.dir.display()));
    if !settings.dir.join("IDENTITY").exists() {
        return Err(refused("is no data folder"));
    }
    let folder = storage::open_folder(settings, random_u128())?;
    match folder.identity().cluster {
        0 => Err(refused("belongs to no cluster; its node starts by itself")),
        _ => Ok(folder),
    }
}

impl Found {
    fn node(&self) -> NodeId {
        NodeId::from(self.identity.node)
    }

    /// Whether there is anything to go on with.
    fn check(&self) -> Result<(), StartError> {
        let would_serve = self.parting.is_none() && !self.differs;
        if self.members.conf.is_sole_voter(self.node()) && would_serve && !self.identity.recovering {
            return Err(StartError::Recovery(format!(
                "node {} is the only voter of its cluster: nothing is missing, start it as usual",
                self.node()
            )));
        }
        if self.stored == 0 && self.last == 0 {
            return Err(StartError::Recovery(
                "the folder holds no data: its node never got any from its cluster. Recover another one".to_owned(),
            ));
        }
        Ok(())
    }

    fn role(&self, id: NodeId) -> &'static str {
        let conf = &self.members.conf;
        match () {
            () if conf.is_voter(id) => "has a vote",
            () if conf.contains(id) => "learner, has no vote",
            () => "not in the group yet",
        }
    }

    fn describe(&self, settings: &Settings) -> String {
        let Found { identity, term, first, last, last_term, commit, stored, differs, .. } = self;
        let mut text = format!(
            "folder      {}\ncluster     {:032x}\nnode        {}, started {} times\nterm        {term}\n\
             log         entries {first} to {last}, the last of term {last_term}\n\
             stored      up to {stored}\ncommitted   up to {commit} at least; as of there:\n",
            settings.dir.display(),
            identity.cluster,
            identity.node,
            identity.boot,
        );
        for (id, member) in &self.members.nodes {
            let me = if *id == self.node() { ", this one" } else { "" };
            // Writing to a string can't fail.
            let _ =
                writeln!(text, "member      {id} at {}, peers {}: {}{me}", member.client, member.peer, self.role(*id));
        }
        match &self.parting {
            Some(Parting::Removed) => {
                text.push_str("NB          the cluster had removed this node: it may lack much of what came later\n");
            }
            Some(Parting::PromiseLost(reason)) => {
                let _ = writeln!(text, "NB          it lacks what it had acknowledged: {reason}");
            }
            None => {}
        }
        if *differs {
            text.push_str("NB          its state was found to be another than the majority's: recover another node, if there is one\n");
        }
        if identity.recovering {
            text.push_str(
                "NB          a recovery of it was begun and not finished: the cluster's identity is the new one already\n",
            );
        }
        text.push_str(
            "\nOf several nodes that are left, recover the one whose last entry has the highest term, and of those with the same term the \
             one with the highest entry.\n",
        );
        text
    }

    fn warn(&self) -> String {
        let Found { last, commit, .. } = self;
        let others: Vec<String> =
            self.members.nodes.keys().filter(|id| **id != self.node()).map(NodeId::to_string).collect();
        let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        format!(
            "\nThis makes node {} the only member of a new cluster.\n\n\
             - LOST is every acknowledged write that this node does not have: whatever the others agreed on after entry {last}. Nobody can say \
             what that is.\n\
             - {}\n\
             - The other nodes (known here: {others}) are not let in again, not even if they come back. Remove their folders and let \
             them join.\n\
             - Never do this while a majority of the old cluster may still run: there would be two clusters with the same data, and \
             clients of both.\n\n",
            self.node(),
            match last.saturating_sub(*commit) {
                0 => "All entries of its log are known to be agreed on.".to_owned(),
                1 => format!(
                    "Entry {last} is not known to be agreed on. It is kept: a write that no client was told of may appear."
                ),
                _ => format!(
                    "Entries {} to {last} are not known to be agreed on. They are kept: writes that no client was told of may appear.",
                    commit + 1
                ),
            },
        )
    }
}

/// Asks.
fn is_confirmed(found: &Found) -> Result<bool, StartError> {
    let digits = format!("{:032x}", found.identity.cluster)[..TYPED_DIGITS].to_owned();
    let which = if found.identity.recovering { "new" } else { "old" };
    say(&format!("To go on, type the first {TYPED_DIGITS} digits of the {which} cluster's identity ({digits}): "));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|error| StartError::Recovery(format!("no answer can be read, and --yes was not given: {error}")))?;
    Ok(line.trim() == digits)
}

async fn recover(settings: &Arc<Settings>, found: Found) -> Result<(), StartError> {
    let node = found.node();
    let mut folder = open_folder(settings)?;
    // NB: 0 means none.
    let cluster = if found.identity.recovering { found.identity.cluster } else { random_u128().max(1) };
    folder.begin_recovery(cluster)?;
    let opened = storage::open_host(settings, folder, random_u128(), true)?;
    // Nobody connects: the shard is there to apply the log.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let (stop, _stopped) = watch::channel(false);
    let server = Node::new(Arc::clone(settings), nowhere, wall_clock_ms(), random_u128(), stop);
    let shard = Shard::new(server, opened.host, opened.writer).map_err(StartError::Runtime)?;
    shard.borrow_mut().catch_up().map_err(StartError::Recovery)?;
    shard.borrow_mut().become_alone(node, || listed_later(settings, &found.identity))?;
    let applied = shard.borrow().applied_index();
    Shard::stop(&shard).await.map_err(StartError::Recovery)?;
    membership::forget_cluster(&settings.dir)?;
    shard.borrow_mut().finish_recovery()?;
    say(&format!(
        "Node {node} is the only member of the new cluster {cluster:032x}, with everything up to entry {applied}. Start it as usual; \
         then let other machines join it, with empty folders: holdfast join PEER-ADDRESS\n"
    ));
    Ok(())
}

/// The entry of a node that no list of members has: it corrects its addresses when it starts.
fn listed_later(settings: &Settings, identity: &FolderIdentity) -> Member {
    let host = settings.announced_host();
    let peer = match settings.peer_port {
        0 => settings.port.saturating_add(PEER_PORT_OFFSET),
        port => port,
    };
    let address = |port: u16| Address::new(host.clone(), port.max(1));
    Member { folder: identity.folder, client: address(settings.port), peer: address(peer) }
}
