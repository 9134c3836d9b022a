//! `kvctl node` and `kvctl leader`: who belongs to the cluster, and who leads it.
//!
//! The server does the work, and any node will do: those that don't lead name the leader, and the client goes there.
//! `HOLDFAST REMOVE-NODE` may be repeated at will (numbers of nodes are never reused), so it is, after a lost connection too;
//! `HOLDFAST TRANSFER-LEADER` is not, or leadership could go on to somebody else.

use std::time::{Duration, Instant};

use holdfast_client::{Address, Client, Command, Config, Error, Outcome, Value};
use serde_json::{Value as Json, json};

use crate::args::{LeaderCommands, NodeCommands};
use crate::failure::{Answer, Failure};
use crate::output::Output;
use crate::text::{escape, show_count};

/// How often a node that is waited for is asked about.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A node, as the leader sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    id: u64,
    client: String,
    peer: String,
    role: String,
    votes: bool,
    reachable: bool,
    leaving: bool,
    lag: Option<u64>,
}

impl Node {
    fn of_reply(reply: Value) -> Option<Node> {
        let mut node = Node::default();
        for (name, value) in reply.into_pairs()? {
            let name = name.into_bytes()?;
            let number = value.as_integer();
            let text = || value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            match name.as_ref() {
                b"id" => node.id = u64::try_from(number?).ok()?,
                b"client" => node.client = text()?,
                b"peer" => node.peer = text()?,
                b"role" => node.role = text()?,
                b"votes" => node.votes = number? != 0,
                b"reachable" => node.reachable = number? != 0,
                b"leaving" => node.leaving = number? != 0,
                b"lag" => node.lag = number.and_then(|lag| u64::try_from(lag).ok()),
                // A later release may tell more.
                _ => {}
            }
        }
        (node.id != 0).then_some(node)
    }

    fn as_json(&self) -> Json {
        json!({
            "id": self.id,
            "client": self.client,
            "peer": self.peer,
            "role": self.role,
            "votes": self.votes,
            "lag": self.lag,
            "reachable": self.reachable,
            "leaving": self.leaving,
        })
    }

    fn is_at(&self, address: &Address) -> bool {
        let address = address.to_string();
        self.client == address || self.peer == address
    }

    /// What a newcomer still lacks.
    fn stage(&self) -> String {
        match (self.role.as_str(), self.lag) {
            ("learner", Some(lag)) => format!("node {} is a learner, {} entries behind", self.id, show_count(lag)),
            ("learner", None) => format!("node {} is a learner", self.id),
            _ => format!("node {} has joined", self.id),
        }
    }
}

async fn nodes(client: &Client) -> Result<Vec<Node>, Failure> {
    let reply = client.call(Command::read("HOLDFAST").arg("NODES")).await?;
    let items = match &reply {
        Value::Array(items) => items.clone(),
        other => return Err(unexpected(other)),
    };
    items.into_iter().map(|item| Node::of_reply(item.clone()).ok_or_else(|| unexpected(&item))).collect()
}

fn unexpected(reply: &Value) -> Failure {
    let command = "HOLDFAST".to_owned();
    Failure::Client(Error::Unexpected { command, got: reply.kind(), expected: "a number or a list of nodes" })
}

async fn number(client: &Client, command: Command) -> Result<i64, Failure> {
    let reply = client.call(command).await?;
    reply.as_integer().ok_or_else(|| unexpected(&reply))
}

pub(crate) async fn run_node(client: &Client, command: NodeCommands, output: &mut Output) -> Result<Answer, Failure> {
    match command {
        NodeCommands::List => list(client, output).await,
        NodeCommands::Add { address, wait } => add(client, address, wait, output).await,
        NodeCommands::Remove { node } => {
            remove(client, node).await?;
            if output.json {
                output.json(&json!({ "node": node, "removed": true }))?;
            } else {
                output.line(&format!("node {node} is removed"))?;
            }
            Ok(Answer::Yes)
        }
        NodeCommands::Replace { dead, new, wait } => replace(client, dead, &new, wait, output).await,
    }
}

pub(crate) async fn run_leader(
    client: &Client,
    command: LeaderCommands,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let LeaderCommands::Transfer { to } = command;
    let mut transfer = Command::write("HOLDFAST").arg("TRANSFER-LEADER");
    if let Some(to) = to {
        transfer = transfer.number(to);
    }
    let leader = number(client, transfer).await?;
    if output.json {
        output.json(&json!({ "leader": leader }))?;
    } else {
        output.line(&format!("node {leader} leads"))?;
    }
    Ok(Answer::Yes)
}

/// Has the nodes compare what they hold.
pub(crate) async fn run_verify(client: &Client, wait: Duration, output: &mut Output) -> Result<Answer, Failure> {
    // Whether anybody is there to be asked shows within the usual time.
    nodes(client).await?;
    if !output.json {
        eprintln!("kvctl: waiting: every node hashes what it holds, at 64 MiB a second at most");
    }
    let patient = Client::new(Config { timeout: wait, ..client.config().clone() });
    let reply = match patient.call(Command::read("HOLDFAST").arg("VERIFY")).await {
        // It changes nothing, whether it was begun or not.
        Err(Error::TimedOut { address, after, .. }) => {
            return Err(Error::TimedOut { address, after, outcome: Outcome::NotExecuted }.into());
        }
        reply => reply?,
    };
    let (mut index, mut hash, mut nodes) = (None, None, Vec::new());
    for (name, value) in reply.clone().into_pairs().ok_or_else(|| unexpected(&reply))? {
        let text = |value: &Value| value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        match name.as_bytes().map(AsRef::<[u8]>::as_ref) {
            Some(b"index") => index = value.as_integer(),
            Some(b"hash") => hash = text(&value),
            Some(b"nodes") => {
                for (id, finding) in value.into_pairs().ok_or_else(|| unexpected(&reply))? {
                    nodes.push(id.as_integer().zip(text(&finding)).ok_or_else(|| unexpected(&reply))?);
                }
            }
            // A later release may tell more.
            _ => {}
        }
    }
    let index = index.ok_or_else(|| unexpected(&reply))?;
    if output.json {
        let rows: Vec<Json> = nodes.iter().map(|(id, finding)| json!({ "id": id, "state": finding })).collect();
        output.json(&json!({ "index": index, "hash": hash, "nodes": rows }))?;
    } else {
        match &hash {
            Some(hash) => {
                output.line(&format!("at index {index} a majority holds {}", escape(hash.as_bytes(), false)))?
            }
            None => output.line(&format!("at index {index} no majority holds the same"))?,
        }
        let cells = |text: &str| escape(text.as_bytes(), false);
        let rows = nodes.iter().map(|(id, finding)| vec![id.to_string(), cells(finding)]).collect();
        output.table(&["node", "state"], rows)?;
    }
    let is_sound = hash.is_some() && nodes.iter().all(|(_, finding)| finding != "differs");
    Ok(if is_sound { Answer::Yes } else { Answer::No })
}

async fn list(client: &Client, output: &mut Output) -> Result<Answer, Failure> {
    let nodes = nodes(client).await?;
    if output.json {
        let nodes: Vec<Json> = nodes.iter().map(Node::as_json).collect();
        output.json(&json!({ "nodes": nodes }))?;
        return Ok(Answer::Yes);
    }
    let yes_no = |truth: bool| if truth { "yes" } else { "no" }.to_owned();
    let rows = nodes.iter().map(|node| {
        let role = if node.leaving { format!("{}, leaving", node.role) } else { node.role.clone() };
        let lag = node.lag.map_or_else(|| "-".to_owned(), show_count);
        let cells = [
            node.id.to_string(),
            node.client.clone(),
            node.peer.clone(),
            role,
            yes_no(node.votes),
            lag,
            yes_no(node.reachable),
        ];
        cells.iter().map(|cell| escape(cell.as_bytes(), false)).collect()
    });
    output.table(&["node", "clients at", "peers at", "role", "vote", "lag", "reachable"], rows.collect())?;
    Ok(Answer::Yes)
}

async fn remove(client: &Client, node: u64) -> Result<i64, Failure> {
    let reply = client.repeat(Command::write("HOLDFAST").arg("REMOVE-NODE").number(node)).await?;
    reply.as_integer().ok_or_else(|| unexpected(&reply))
}

/// A node adds itself: this says how, and waits for it.
async fn add(
    client: &Client,
    address: Option<Address>,
    wait: Option<Duration>,
    output: &mut Output,
) -> Result<Answer, Failure> {
    if let (Some(wait), Some(address)) = (wait, &address) {
        return match wait_for_voter(client, address, wait, output).await? {
            Some(node) => {
                if output.json {
                    output.json(&json!({ "address": address.to_string(), "node": node.id, "votes": true }))?;
                } else {
                    output.line(&format!("node {} at {address} has a vote", node.id))?;
                }
                Ok(Answer::Yes)
            }
            None => not_yet(address, wait, output),
        };
    }
    let nodes = nodes(client).await?;
    let leader = nodes.iter().find(|node| node.role == "leader").or(nodes.first());
    let Some(leader) = leader else { return Err(Failure::Usage("the cluster lists no node yet; ask again".into())) };
    let mut command = format!("holdfast join {}", leader.peer);
    if let Some(address) = &address {
        command.push_str(&format!(" --bind {} --port {}", address.host, address.port));
    }
    if output.json {
        output.json(&json!({ "address": address.map(|address| address.to_string()), "command": command }))?;
    } else {
        let command = escape(command.as_bytes(), false);
        output.line(&format!(
            "A node adds itself. Where it shall run, with an empty data folder:\n\n  {command}\n\nIt gets a copy of the data, then a \
             vote. `kvctl node add ADDRESS --wait 10m` waits for that, and `kvctl node list` shows it."
        ))?;
    }
    Ok(Answer::Yes)
}

async fn replace(
    client: &Client,
    dead: u64,
    new: &Address,
    wait: Duration,
    output: &mut Output,
) -> Result<Answer, Failure> {
    let known = nodes(client).await?;
    let voters = known.iter().filter(|node| node.votes).count();
    match known.iter().find(|node| node.is_at(new)) {
        Some(node) if node.id == dead => {
            return Err(Failure::Usage(format!(
                "{new} is node {dead} itself: name the address of the node that takes its place. On the same machine: `kvctl node remove \
                 {dead}`, and then `holdfast join` with an empty folder"
            )));
        }
        // A cluster of an odd number of voters has none to spare: whoever is named here was part of it before.
        Some(node) if node.votes && voters % 2 == 1 && known.iter().any(|node| node.id == dead && node.votes) => {
            return Err(Failure::Usage(format!(
                "node {} at {new} has a vote already, and without node {dead} there would be {} voters instead of {voters}. If that is meant, \
                 or it was added for this: `kvctl node remove {dead}`",
                node.id,
                voters - 1
            )));
        }
        _ => {}
    }
    let Some(node) = wait_for_voter(client, new, wait, output).await? else { return not_yet(new, wait, output) };
    remove(client, dead).await?;
    if output.json {
        output.json(&json!({ "node": dead, "removed": true, "by": node.id }))?;
    } else {
        output.line(&format!("node {dead} is removed, node {} has taken its place", node.id))?;
    }
    Ok(Answer::Yes)
}

/// Waits until the node at an address has a vote; none if it takes too long. What it is waiting for goes to standard error.
async fn wait_for_voter(
    client: &Client,
    address: &Address,
    wait: Duration,
    output: &Output,
) -> Result<Option<Node>, Failure> {
    let started = Instant::now();
    let mut told = String::new();
    loop {
        let node = nodes(client).await?.into_iter().find(|node| node.is_at(address));
        if let Some(node) = node.clone().filter(|node| node.votes) {
            return Ok(Some(node));
        }
        // Only what changes: the number of entries does all the time.
        let stage = node.as_ref().map_or_else(|| "nobody".to_owned(), |node| node.role.clone());
        if stage != told && !output.json {
            let text = node.map_or_else(|| format!("no node has joined at {address} yet"), |node| node.stage());
            eprintln!("kvctl: waiting: {}", escape(text.as_bytes(), false));
            told = stage;
        }
        if started.elapsed() + LOOK_EVERY > wait {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn not_yet(address: &Address, wait: Duration, output: &mut Output) -> Result<Answer, Failure> {
    if output.json {
        output.json(&json!({ "address": address.to_string(), "node": null, "votes": false }))?;
    } else {
        eprintln!("kvctl: nothing was changed: the node at {address} has no vote after {wait:?}");
    }
    Ok(Answer::No)
}
