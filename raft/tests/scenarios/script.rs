//! Scenario scripts: a test moves every message and every write by hand, and reads as what happened.
//!
//! The scripts lie in `tests/scripts/<area>/<behaviour>`. Each command prints what it caused: messages (`1→2 …`), writes
//! (`1 writes ...`), what became durable (`1 has written ...`), entries handed out (`1 applies ...`), reads, and changes
//! of role. Entries are shown as `index@term`. Regenerate with `UPDATE_GOLDENFILES=1`, and read the difference.
//!
//! Commands (ids are numbers):
//! - `cluster 1 2 3 [lease=off] [pre_vote=off]`: a new group. `join 4`: a replica that knows nothing yet.
//! - `tick 1 3000`: time passes for a replica, in milliseconds. `campaign 1`.
//! - `propose 1 value`, `read 1 number`, `transfer 1 target`.
//! - `change 1 [voter=4] [learner=4] [remove=4] [explicit]`, `leave 1`.
//! - `persist 1`: the disk finishes all writes under way; `persist 1 one`: only the first.
//! - `deliver [from=1] [to=2]`: what is on its way arrives, in order. `drop [from=1] [to=2]`.
//! - `stabilize`: deliver and persist until nothing moves. `crash 1 [done=0]`, `restart 1`.
//! - `checkpoint 1 keep`: the log is cut. `request 1`: the applied state is lost. `status`.

use std::{collections::BTreeMap, error::Error, fmt::Write as _, path::Path};

use goldenscript::{Command, Context, Runner};
use holdfast_raft::{
    ConfChange, ConfState, ConfStep, ConfTransition, Config, Entry, EntryKind, Message, MessageBody, Ready, WriteBatch,
};

use crate::network::{
    checker::Checker,
    disk::Disk,
    node::{Event, Node},
};

#[derive(Default)]
struct Script {
    nodes: BTreeMap<u64, Node>,
    clocks: BTreeMap<u64, u64>,
    way: Vec<Message>,
    checker: Checker,
    out: String,
}

fn entry_text(entry: &Entry) -> String {
    let content = match entry.kind {
        EntryKind::Noop => "noop".to_owned(),
        EntryKind::Normal => String::from_utf8_lossy(&entry.payload).into_owned(),
        EntryKind::ConfChange => {
            let change = ConfChange::decode(&entry.payload).expect("ours");
            format!("{:?}{:?}", change.transition, change.steps)
        }
    };
    format!("{}@{} {content}", entry.index, entry.term)
}

fn entries_text(entries: &[Entry]) -> String {
    let texts: Vec<String> = entries.iter().map(entry_text).collect();
    format!("[{}]", texts.join(", "))
}

fn conf_text(conf: &ConfState) -> String {
    let mut text = format!("voters {:?}", conf.voters);
    for (name, list) in
        [("outgoing", &conf.voters_outgoing), ("learners", &conf.learners), ("learners next", &conf.learners_next)]
    {
        if !list.is_empty() {
            write!(text, " {name} {list:?}").expect("writing to a string works");
        }
    }
    text
}

fn message_text(message: &Message) -> String {
    let body = match &message.body {
        MessageBody::PreVote { last_index, last_term, commit } => {
            format!("PreVote last={last_index}@{last_term} commit={}@{}", commit.index, commit.term)
        }
        MessageBody::PreVoteReply { granted, commit } => {
            format!("PreVoteReply {} commit={}@{}", if *granted { "yes" } else { "no" }, commit.index, commit.term)
        }
        MessageBody::Vote { last_index, last_term, transfer } => {
            format!("Vote last={last_index}@{last_term}{}", if *transfer { " transfer" } else { "" })
        }
        MessageBody::VoteReply { granted, commit } => {
            format!("VoteReply {} commit={}@{}", if *granted { "yes" } else { "no" }, commit.index, commit.term)
        }
        MessageBody::Append { previous_index, previous_term, commit, entries } => {
            format!("Append after={previous_index}@{previous_term} commit={commit} {}", entries_text(entries))
        }
        MessageBody::AppendAccepted { index } => format!("Accepted {index}"),
        MessageBody::AppendRejected { previous_index, hint_index, hint_term } => {
            format!("Rejected {previous_index} hint={hint_index}@{hint_term}")
        }
        MessageBody::Heartbeat { round, commit, sleep } => {
            format!("Heartbeat round={round} commit={commit}{}", if *sleep { " sleep" } else { "" })
        }
        MessageBody::HeartbeatReply { round, asleep } => {
            format!("HeartbeatReply round={round}{}", if *asleep { " asleep" } else { "" })
        }
        MessageBody::ReadIndex { .. } => "ReadIndex".to_owned(),
        MessageBody::ReadIndexReply { index: Some(index), .. } => format!("ReadIndexReply {index}"),
        MessageBody::ReadIndexReply { index: None, .. } => "ReadIndexReply unknown".to_owned(),
        MessageBody::Snapshot { meta } => {
            format!("Snapshot {}@{} {}", meta.index, meta.term, conf_text(&meta.conf_state))
        }
        MessageBody::SnapshotReply { index } => format!("SnapshotReply {index}"),
        MessageBody::SnapshotWanted { index_min } => format!("SnapshotWanted from={index_min}"),
        MessageBody::PromiseLost { last_index } => format!("PromiseLost last={last_index}"),
        MessageBody::TimeoutNow => "TimeoutNow".to_owned(),
        MessageBody::StaleTerm => "StaleTerm".to_owned(),
    };
    format!("{}→{} term={} {body}", message.from, message.to, message.term)
}

fn write_text(write: &WriteBatch) -> String {
    let mut text = format!("#{}", write.sequence);
    if let Some(hard_state) = write.hard_state {
        write!(text, " term={} vote={} commit={}", hard_state.term, hard_state.vote, hard_state.commit)
            .expect("writing to a string works");
    }
    if let Some(install) = &write.snapshot {
        let log = if install.keep_log_after { "keeping the log" } else { "in place of the log" };
        write!(text, " snapshot {}@{} {log}", install.meta.index, install.meta.term).expect("writing works");
    }
    if !write.entries.is_empty() {
        write!(text, " {}", entries_text(&write.entries)).expect("writing to a string works");
    }
    text
}

fn ready_text(id: u64, ready: &Ready) -> String {
    let mut text = String::new();
    let mut line = |what: String| text.push_str(&format!("{id} {what}\n"));
    if let Some(state) = ready.role {
        let leader = state.leader.map_or("nobody".to_owned(), |leader| leader.to_string());
        line(format!("is {:?} in term {}, led by {leader}", state.role, state.term));
    }
    if let Some(write) = &ready.write {
        line(format!("writes {}", write_text(write)));
    }
    for entry in &ready.committed {
        line(format!("applies {}", entry_text(entry)));
        for (_, conf) in ready.conf_states.iter().filter(|(index, _)| *index == entry.index) {
            line(format!("has {}", conf_text(conf)));
        }
    }
    for read in &ready.reads {
        line(format!("serves read {} at {}", read.context, read.index));
    }
    for read in &ready.reads_dropped {
        line(format!("drops read {read}"));
    }
    for lost in &ready.promises_lost {
        line(format!("knows that {lost} lost its promise"));
    }
    for need in &ready.snapshots {
        line(format!("makes a snapshot for {}", need.to));
    }
    for message in &ready.messages {
        text.push_str(&message_text(message));
        text.push('\n');
    }
    text
}

impl Script {
    /// Does something to a replica, then prints and carries out what it wants done.
    fn act<T>(&mut self, id: u64, act: impl FnOnce(&mut Node, u64) -> T) -> Result<T, Box<dyn Error>> {
        let clock = self.clocks.get(&id).copied().unwrap_or(0);
        let node = self.nodes.get_mut(&id).ok_or("no such replica")?;
        if node.raft.is_none() {
            return Err("that replica is down".into());
        }
        let before = node.raft().commit_index();
        let led = node.is_leader().then(|| (node.raft().term(), node.raft().conf_state().clone()));
        let result = act(node, clock);
        let out = &mut self.out;
        let messages = node.pump(&mut self.checker, |event| {
            if let Event::Ready(ready) = event {
                out.push_str(&ready_text(id, ready));
            }
        });
        node.reads.clear();
        self.way.extend(messages);
        self.checker.on_step(&self.nodes, id, before, led);
        Ok(result)
    }

    fn persist(&mut self, id: u64, sequence: u64) -> Result<(), Box<dyn Error>> {
        let mut written = String::new();
        if let Some(node) = self.nodes.get_mut(&id) {
            for write in node.writes.iter().filter(|write| write.sequence <= sequence) {
                written.push_str(&format!("{id} has written #{}\n", write.sequence));
            }
        }
        self.out.push_str(&written);
        self.act(id, |node, _| {
            node.persist(sequence, |event| {
                if let Event::Written(write) = event {
                    assert!(write.sequence <= sequence, "the disk keeps the order");
                }
            });
        })
    }

    fn deliver(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<(), Box<dyn Error>> {
        let (arriving, rest) = std::mem::take(&mut self.way).into_iter().partition(wanted);
        self.way = rest;
        let arriving: Vec<Message> = arriving;
        for message in arriving {
            if self.nodes.get(&message.to).is_some_and(|node| node.raft.is_some()) {
                self.act(message.to, |node, clock| node.raft().step(clock, message))??;
            }
        }
        Ok(())
    }

    fn command(&mut self, command: &Command) -> Result<(), Box<dyn Error>> {
        let mut args = command.consume_args();
        let number =
            |text: Option<&str>| -> Result<u64, Box<dyn Error>> { Ok(text.ok_or("a number is missing")?.parse()?) };
        match command.name.as_str() {
            "cluster" => {
                let off = |text: Option<&str>| text == Some("off");
                let (lease, pre_vote) = (!off(args.take_key("lease")), !off(args.take_key("pre_vote")));
                let mut ids = Vec::new();
                while let Some(id) = args.next_pos() {
                    ids.push(id.parse()?);
                }
                for id in &ids {
                    let mut node = Node::new(Config { lease, pre_vote, ..Config::new(*id) }, Disk::founder(&ids));
                    node.start(0);
                    self.nodes.insert(*id, node);
                }
            }
            "join" => {
                let id = number(args.next_pos())?;
                let mut node = Node::new(Config::new(id), Disk::empty());
                node.start(0);
                self.nodes.insert(id, node);
            }
            "tick" => {
                let (id, time) = (number(args.next_pos())?, number(args.next_pos())?);
                *self.clocks.entry(id).or_default() += time;
                self.act(id, |node, clock| node.raft().tick(clock))?;
            }
            "campaign" => {
                let id = number(args.next_pos())?;
                if !self.act(id, |node, _| node.raft().campaign())? {
                    return Err("it may not campaign now".into());
                }
            }
            "propose" => {
                let id = number(args.next_pos())?;
                let value = args.next_pos().ok_or("a value is missing")?.to_owned();
                self.act(id, |node, _| node.raft().propose(value.into()))??;
            }
            "read" => {
                let (id, context) = (number(args.next_pos())?, number(args.next_pos())?);
                self.act(id, |node, clock| node.raft().read_index(clock, context))??;
            }
            "transfer" => {
                let (id, target) = (number(args.next_pos())?, number(args.next_pos())?);
                self.act(id, |node, _| node.raft().transfer_leader(target))??;
            }
            "change" | "leave" => {
                let id = number(args.next_pos())?;
                let mut change = ConfChange::leave();
                if command.name == "change" {
                    change.transition = ConfTransition::Auto;
                    while let Some((kind, member)) = args.next_key() {
                        let member = member.parse()?;
                        change.steps.push(match kind {
                            "voter" => ConfStep::AddVoter(member),
                            "learner" => ConfStep::AddLearner(member),
                            "remove" => ConfStep::Remove(member),
                            _ => return Err("voter, learner or remove".into()),
                        });
                    }
                    if args.next_pos() == Some("explicit") {
                        change.transition = ConfTransition::JointExplicit;
                    }
                }
                self.act(id, |node, _| node.raft().propose_conf_change(&change))??;
            }
            "persist" => {
                let id = number(args.next_pos())?;
                let first = self.nodes.get(&id).and_then(|node| node.writes.front()).map_or(0, |write| write.sequence);
                let sequence = if args.next_pos() == Some("one") { first } else { u64::MAX };
                self.persist(id, sequence)?;
            }
            "deliver" | "drop" => {
                let from = args.take_key("from").map(str::parse::<u64>).transpose()?;
                let to = args.take_key("to").map(str::parse::<u64>).transpose()?;
                let wanted = |message: &Message| {
                    from.is_none_or(|from| message.from == from) && to.is_none_or(|to| message.to == to)
                };
                if command.name == "deliver" {
                    self.deliver(wanted)?;
                } else {
                    self.way.retain(|message| !wanted(message));
                }
            }
            "stabilize" => loop {
                let busy: Vec<u64> =
                    self.nodes.values().filter(|node| !node.writes.is_empty()).map(|node| node.id).collect();
                if busy.is_empty() && self.way.is_empty() {
                    break;
                }
                for id in busy {
                    self.persist(id, u64::MAX)?;
                }
                self.deliver(|_| true)?;
            },
            "crash" => {
                let done = args.take_key("done").unwrap_or("0").parse()?;
                self.nodes.get_mut(&number(args.next_pos())?).ok_or("no such replica")?.crash(done);
            }
            "restart" => {
                let id = number(args.next_pos())?;
                let clock = self.clocks.get(&id).copied().unwrap_or(0);
                self.nodes.get_mut(&id).ok_or("no such replica")?.start(clock);
                self.act(id, |_, _| ())?;
            }
            "checkpoint" => {
                let (id, keep) = (number(args.next_pos())?, number(args.next_pos())?);
                self.act(id, |node, _| node.checkpoint(keep))?;
            }
            "request" => self.act(number(args.next_pos())?, |node, _| node.raft().request_snapshot())?,
            "status" => {
                for node in self.nodes.values() {
                    let Some(raft) = &node.raft else {
                        writeln!(self.out, "{} is down", node.id)?;
                        continue;
                    };
                    let status = raft.status();
                    writeln!(
                        self.out,
                        "{} {:?} term={} log={}..={} persisted={} commit={} applied={} {}",
                        node.id,
                        status.role.role,
                        status.role.term,
                        status.first,
                        status.last,
                        status.persisted,
                        status.commit,
                        node.applied,
                        conf_text(raft.conf_state())
                    )?;
                }
            }
            other => return Err(format!("no such command: {other}").into()),
        }
        args.reject_next()
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        self.out.clear();
        self.command(command)?;
        Ok(std::mem::take(&mut self.out))
    }
}

fn run_area(area: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let mut scripts: Vec<_> =
        folder.read_dir().expect("the area has scripts").map(|file| file.expect("readable").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        println!("script {}", script.display());
        goldenscript::run(&mut Script::default(), &script).expect("the script runs");
    }
}

#[test]
fn election_scripts() {
    run_area("election");
}

#[test]
fn replication_scripts() {
    run_area("replication");
}

#[test]
fn read_scripts() {
    run_area("read");
}

#[test]
fn snapshot_scripts() {
    run_area("snapshot");
}

#[test]
fn membership_scripts() {
    run_area("membership");
}
