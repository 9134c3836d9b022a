//! Results by round, a JSON line each, so that a campaign can be interrupted and go on; and the table of all of them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use holdfast_sim::workload::WorkloadCounts;
use serde_json::{Value, json};

/// What a fault did to the clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Kind and victims.
    pub fault: String,
    /// The numbers of the nodes.
    pub victims: String,
    /// Whether nothing else was wrong at the same time.
    pub is_alone: bool,
    /// From its begin until it was mended, in milliseconds; nodes that had to be started are.
    pub held_ms: u64,
    /// From its begin until a write succeeded that was asked for after it, in milliseconds.
    pub after_begin_ms: Option<u64>,
    /// The same, from when it was mended.
    pub after_mend_ms: Option<u64>,
}

/// How a round went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Its number, from 1.
    pub round: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations that were refused for certain.
    pub failed: u64,
    /// Operations whose outcome nobody knows.
    pub unknown: u64,
    /// What went wrong.
    pub effects: Vec<Effect>,
    /// Keys of this cluster, each of which was compared on every node.
    pub keys: u64,
    /// Writes of earlier rounds that happened late.
    pub late: u64,
    /// `linearizable`, or what is wrong.
    pub verdict: String,
}

impl Row {
    /// Whether nothing is wrong.
    pub fn is_pass(&self) -> bool {
        self.verdict == "linearizable"
    }

    /// Enters how operations ended.
    pub fn count(&mut self, counts: &WorkloadCounts) {
        (self.answered, self.failed, self.unknown) = (counts.answered, counts.failed, counts.unknown);
    }

    fn to_json(&self) -> Value {
        let effects: Vec<Value> = self
            .effects
            .iter()
            .map(|effect| {
                json!({
                    "fault": effect.fault, "victims": effect.victims, "alone": effect.is_alone, "held_ms": effect.held_ms,
                    "after_begin_ms": effect.after_begin_ms, "after_mend_ms": effect.after_mend_ms,
                })
            })
            .collect();
        json!({
            "round": self.round, "millis": self.millis, "answered": self.answered, "failed": self.failed,
            "unknown": self.unknown, "faults": effects, "keys": self.keys, "late": self.late, "verdict": self.verdict,
        })
    }

    fn from_json(value: &Value) -> Option<Row> {
        let number = |name: &str| value.get(name)?.as_u64();
        let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
        let effect = |value: &Value| {
            let number = |name: &str| value.get(name)?.as_u64();
            Some(Effect {
                fault: text(value, "fault")?,
                victims: text(value, "victims")?,
                is_alone: value.get("alone")?.as_bool()?,
                held_ms: number("held_ms")?,
                after_begin_ms: number("after_begin_ms"),
                after_mend_ms: number("after_mend_ms"),
            })
        };
        Some(Row {
            round: number("round")?,
            millis: number("millis")?,
            answered: number("answered")?,
            failed: number("failed")?,
            unknown: number("unknown")?,
            effects: value.get("faults")?.as_array()?.iter().map(effect).collect::<Option<_>>()?,
            keys: number("keys")?,
            late: number("late")?,
            verdict: text(value, "verdict")?,
        })
    }
}

/// All rounds of a campaign, in a file.
#[derive(Debug)]
pub struct Results {
    file: File,
    rows: Vec<Row>,
    seed: u64,
}

impl Results {
    /// Opens the file, or begins it.
    ///
    /// # Errors
    /// If it is there and the campaign shall not go on with it, or the campaign there is another one.
    pub fn open(path: &Path, resume: bool, seed: u64, nodes: usize) -> Result<Results, String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut lines = Vec::new();
        if path.exists() {
            if !resume {
                return Err(format!("{} is there already: --resume goes on with it", path.display()));
            }
            lines =
                BufReader::new(File::open(path).map_err(failed)?).lines().collect::<Result<_, _>>().map_err(failed)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if lines.is_empty() {
            writeln!(file, "{}", json!({ "seed": seed, "nodes": nodes })).map_err(failed)?;
            return Ok(Results { file, rows: Vec::new(), seed });
        }
        let head: Value = serde_json::from_str(&lines[0]).unwrap_or_default();
        let begun = (head.get("seed").and_then(Value::as_u64), head.get("nodes").and_then(Value::as_u64));
        if begun != (Some(seed), Some(nodes as u64)) {
            return Err(format!("{} is of another campaign: {}", path.display(), lines[0]));
        }
        let parse = |line: &String| serde_json::from_str(line).ok().as_ref().and_then(Row::from_json);
        // A last line that was torn when the campaign was killed is no round.
        let rows: Vec<Row> = lines[1..].iter().filter_map(parse).collect();
        if let Some(last) = lines.last()
            && serde_json::from_str::<Value>(last).is_err()
        {
            writeln!(file).map_err(failed)?;
        }
        Ok(Results { file, rows, seed })
    }

    /// Adds a round.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn add(&mut self, row: Row) -> Result<(), String> {
        let written = writeln!(self.file, "{}", row.to_json()).and_then(|()| self.file.sync_data());
        self.rows.push(row);
        written.map_err(|error| format!("cannot write the results: {error}"))
    }

    /// The number of the next round.
    pub fn next(&self) -> u64 {
        self.rows.iter().map(|row| row.round).max().unwrap_or_default() + 1
    }

    /// The table of all rounds.
    pub fn table(&self) -> String {
        let sum = |value: fn(&Row) -> u64| self.rows.iter().map(value).sum::<u64>();
        let failures = self.rows.iter().filter(|row| !row.is_pass()).count();
        let mut text = format!(
            "seed {}: {} rounds in {:.1} minutes; {} operations answered, {} refused, {} of unknown outcome, {} of them late; \
             {} rounds linearizable, {} not\n",
            self.seed,
            self.rows.len(),
            sum(|row| row.millis) as f64 / 60_000.0,
            sum(|row| row.answered),
            sum(|row| row.failed),
            sum(|row| row.unknown),
            sum(|row| row.late),
            self.rows.len() - failures,
            failures
        );
        let mut by_fault = BTreeMap::<&str, Vec<&Effect>>::new();
        for effect in self.rows.iter().flat_map(|row| &row.effects) {
            by_fault.entry(&effect.fault).or_default().push(effect);
        }
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "fault",
            "times",
            "alone",
            "first write after it began, ms: median",
            "max",
            "after it was mended: median",
            "max",
        ]);
        for (fault, effects) in by_fault {
            let alone: Vec<&Effect> = effects.iter().copied().filter(|effect| effect.is_alone).collect();
            let spread = |time: fn(&Effect) -> Option<u64>| {
                let mut times: Vec<u64> = alone.iter().filter_map(|effect| time(effect)).collect();
                times.sort_unstable();
                let shown = |time: Option<&u64>| time.map_or("-".to_owned(), u64::to_string);
                (shown(times.get(times.len() / 2)), shown(times.last()))
            };
            let (begin, mend) = (spread(|effect| effect.after_begin_ms), spread(|effect| effect.after_mend_ms));
            table.add_row([
                fault.to_owned(),
                effects.len().to_string(),
                alone.len().to_string(),
                begin.0,
                begin.1,
                mend.0,
                mend.1,
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        text += &table.to_string();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round: u64) -> Row {
        let effect = Effect {
            fault: "kill leader".to_owned(),
            victims: "1".to_owned(),
            is_alone: true,
            held_ms: 5,
            after_begin_ms: Some(7),
            after_mend_ms: None,
        };
        let verdict = "linearizable".to_owned();
        Row { round, millis: 1, answered: 2, failed: 3, unknown: 4, effects: vec![effect], keys: 8, late: 0, verdict }
    }

    #[test]
    fn campaign_goes_on_where_it_was_interrupted_even_in_the_middle_of_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results");
        let mut results = Results::open(&path, false, 7, 3).unwrap();
        results.add(row(1)).unwrap();
        write!(results.file, "{{\"round\": 2, \"mil").unwrap();
        assert!(Results::open(&path, false, 7, 3).unwrap_err().contains("--resume"));
        assert!(Results::open(&path, true, 8, 3).unwrap_err().contains("another campaign"));
        let mut results = Results::open(&path, true, 7, 3).unwrap();
        assert_eq!(results.next(), 2);
        results.add(row(2)).unwrap();
        let results = Results::open(&path, true, 7, 3).unwrap();
        assert_eq!(results.rows, [row(1), row(2)]);
        assert!(results.table().contains("kill leader"), "{}", results.table());
    }
}
