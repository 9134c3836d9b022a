//! The nodes of a cluster in `kvctl status`: each is asked for itself.
//!
//! The node that was asked first lists the others (`INFO cluster`), and all of them are asked at the same time. What a node
//! says of its own replica (role, term, indexes) is true of it at that moment; the moments differ by a round trip. A node
//! that can't be reached is shown with the role that the first one gives it, and with the reason.

use std::sync::Arc;

use holdfast_client::{Address, Command, Config, Connection, Error};
use serde_json::{Value as Json, json};

use crate::output::Output;
use crate::status::{Info, LOG_BYTES};
use crate::text::{escape, show_bytes, show_count};

/// Nodes that are asked: a server that lists ever more can't make us connect for ever.
const NODES_MAX: usize = 128;

/// One node's replica of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Replica {
    role: String,
    term: Option<u64>,
    commit: Option<u64>,
    applied: Option<u64>,
}

/// A row: a node and a group of which it has a replica.
#[derive(Debug, Clone)]
struct Row {
    node: u64,
    address: String,
    group: Option<u64>,
    replica: Replica,
    /// Entries between what the group has committed and what the node has applied.
    lag: Option<u64>,
    log_bytes: Option<u64>,
    /// Why the node could not be asked.
    failure: Option<String>,
}

/// The nodes of a cluster, as they were found.
pub(crate) struct Nodes {
    rows: Vec<Row>,
}

/// The value of `name` in `name=value,...`.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(',').find_map(|pair| pair.split_once('=').filter(|(known, _)| *known == name)).map(|(_, value)| value)
}

fn number(line: &str, name: &str) -> Option<u64> {
    field(line, name)?.parse().ok()
}

/// The groups that a node tells of, by number.
fn groups(info: &Info) -> Vec<(u64, &str)> {
    info.numbered("cluster_group")
}

impl Replica {
    /// What a node says of its own replica.
    fn own(line: &str) -> Self {
        Replica {
            role: field(line, "role").unwrap_or_default().to_owned(),
            term: number(line, "term"),
            commit: number(line, "commit"),
            applied: number(line, "applied"),
        }
    }

    /// What another node says of it: its role, no more.
    fn reported(line: &str, node: u64) -> Option<Self> {
        let among = |name: &str| field(line, name).is_some_and(|list| list.split('+').any(|id| id.parse() == Ok(node)));
        let role = if number(line, "leader") == Some(node) {
            "leader"
        } else if among("voters") {
            "follower"
        } else if among("learners") {
            "learner"
        } else {
            return None;
        };
        Some(Replica { role: role.to_owned(), ..Replica::default() })
    }
}

impl Nodes {
    /// Asks every node that the first one lists; nothing if it is no node of a cluster of ours.
    pub(crate) async fn ask(config: &Config, first: &Info) -> Option<Nodes> {
        let listed: Vec<(u64, Address)> = first
            .numbered("cluster_node")
            .into_iter()
            .filter_map(|(node, line)| Some((node, field(line, "client")?.parse().ok()?)))
            .take(NODES_MAX)
            .collect();
        if listed.is_empty() {
            return None;
        }
        let asked: Vec<_> = listed
            .into_iter()
            .map(|(node, address)| {
                let config = Config { address: address.clone(), ..config.clone() };
                (node, address, tokio::spawn(info_of(config)))
            })
            .collect();
        let mut rows = Vec::new();
        for (node, address, answer) in asked {
            let answer = match answer.await {
                Ok(Ok(info)) => Ok(info),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("it could not be asked".to_owned()),
            };
            rows.extend(rows_of(node, &address, first, answer));
        }
        measure_lag(&mut rows);
        Some(Nodes { rows })
    }

    pub(crate) fn as_json(&self) -> Json {
        let row = |row: &Row| {
            json!({
                "id": row.node,
                "address": row.address,
                "group": row.group,
                "role": row.replica.role,
                "term": row.replica.term,
                "commit": row.replica.commit,
                "applied": row.replica.applied,
                "lag": row.lag,
                "log_bytes": row.log_bytes,
                "reachable": row.failure.is_none(),
                "error": row.failure,
            })
        };
        self.rows.iter().map(row).collect()
    }

    /// A table on a terminal, tabs into a pipe.
    pub(crate) fn print(&self, output: &mut Output) -> std::io::Result<()> {
        let several = self.rows.iter().any(|row| row.group != self.rows[0].group && row.group.is_some());
        let mut header = vec!["node", "address", "role", "term", "commit", "applied", "lag", "log size", "reachable"];
        if several {
            header.insert(2, "group");
        }
        let unknown = || "-".to_owned();
        let count = |value: Option<u64>| value.map_or_else(unknown, show_count);
        let lines = self.rows.iter().map(|row| {
            let mut cells = vec![
                row.node.to_string(),
                row.address.clone(),
                row.replica.role.clone(),
                row.replica.term.map_or_else(unknown, |term| term.to_string()),
                count(row.replica.commit),
                count(row.replica.applied),
                count(row.lag),
                row.log_bytes.map_or_else(unknown, show_bytes),
                row.failure.as_ref().map_or_else(|| "yes".to_owned(), |failure| format!("no: {failure}")),
            ];
            if several {
                cells.insert(2, row.group.map_or_else(unknown, |group| group.to_string()));
            }
            cells.iter().map(|cell| escape(cell.as_bytes(), false)).collect::<Vec<_>>()
        });
        output.line("")?;
        output.table(&header, lines.collect())
    }
}

/// What a node says of itself; nothing is tried twice, since whether it answers is the question.
async fn info_of(config: Config) -> Result<Info, Error> {
    let connection = Connection::open(Arc::new(config)).await?;
    let reply = connection.call(Command::read("INFO")).await?;
    Ok(Info::of_reply(&reply))
}

fn rows_of(node: u64, address: &Address, first: &Info, answer: Result<Info, String>) -> Vec<Row> {
    let empty = Row {
        node,
        address: address.to_string(),
        group: None,
        replica: Replica { role: "-".to_owned(), ..Replica::default() },
        lag: None,
        log_bytes: None,
        failure: None,
    };
    // An address may have been taken over by another node, or by a server that is none of ours.
    let answer = answer.and_then(|info| match info.number(&["cluster_me"]) {
        Some(number) if number == node && info.text(&["cluster_id"]) == first.text(&["cluster_id"]) => Ok(info),
        _ => Err("another server answers there".to_owned()),
    });
    let rows: Vec<Row> = match &answer {
        Ok(info) => {
            let log_bytes = info.number(LOG_BYTES);
            let own = groups(info).into_iter();
            own.map(|(group, line)| Row { group: Some(group), replica: Replica::own(line), log_bytes, ..empty.clone() })
                .collect()
        }
        Err(failure) => {
            let reported = groups(first).into_iter().filter_map(|(group, line)| {
                let replica = Replica::reported(line, node)?;
                Some(Row { group: Some(group), replica, failure: Some(failure.clone()), ..empty.clone() })
            });
            reported.collect()
        }
    };
    if rows.is_empty() { vec![Row { failure: answer.err(), ..empty }] } else { rows }
}

/// Against the highest commit index that any node of the group told.
fn measure_lag(rows: &mut [Row]) {
    for place in 0..rows.len() {
        let group = rows[place].group;
        let commit = rows.iter().filter(|row| row.group == group).filter_map(|row| row.replica.commit).max();
        let applied = rows[place].replica.applied;
        rows[place].lag = commit.zip(applied).map(|(commit, applied)| commit.saturating_sub(applied));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "role=leader,term=7,leader=1,commit=90,applied=88,voters=1+2,learners=13";

    #[test]
    fn replica_is_described_by_itself_or_by_another() {
        let own = Replica::own(GROUP);
        assert_eq!((own.role.as_str(), own.term, own.commit, own.applied), ("leader", Some(7), Some(90), Some(88)));
        let role = |node| Replica::reported(GROUP, node).map(|replica| replica.role);
        assert_eq!(role(1).as_deref(), Some("leader"));
        assert_eq!(role(2).as_deref(), Some("follower"));
        assert_eq!(role(13).as_deref(), Some("learner"));
        assert_eq!((role(3), role(0)), (None, None));
        assert_eq!(Replica::own("nonsense,=,term=x"), Replica::default());
    }

    #[test]
    fn server_that_took_over_an_address_is_not_taken_for_the_node() {
        let first = Info::parse(&format!("cluster_id:a\r\ncluster_me:1\r\ncluster_group1:{GROUP}\r\n"));
        let address = Address::new("h", 1);
        let other = Info::parse("cluster_id:b\r\ncluster_me:2\r\ncluster_group1:role=leader\r\n");
        let rows = rows_of(2, &address, &first, Ok(other));
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].replica.role, "follower");
        assert!(rows[0].failure.is_some());
        assert!(
            rows_of(
                1,
                &address,
                &first,
                Ok(Info::parse(&format!("cluster_id:a\r\ncluster_me:1\r\ncluster_group1:{GROUP}")))
            )[0]
            .failure
            .is_none()
        );
    }
}
