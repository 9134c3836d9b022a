//! LCS: the longest common subsequence of two strings.
//!
//! The textbook table, whose cell (i, j) is the length of the longest common subsequence of the first i bytes of one
//! string and the first j of the other. It takes memory and time in the product of the lengths, so its size is held to
//! the limit for values, as Redis holds it to `proto-max-bulk-len`: two strings of 4 KiB are about the most.

use bytes::Bytes;

use super::exec::{Exec, Outcome};
use super::{Failure, parse_i64};

#[derive(Debug, Default)]
struct Options {
    length: bool,
    positions: bool,
    match_len_min: i64,
    with_match_len: bool,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Self, Failure> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("len") {
                options.length = true;
            } else if is("idx") {
                options.positions = true;
            } else if is("withmatchlen") {
                options.with_match_len = true;
            } else if is("minmatchlen") {
                let number = words.next().ok_or(Failure::SYNTAX)?;
                options.match_len_min = parse_i64(number).ok_or(Failure::NOT_INTEGER)?;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        if options.length && options.positions {
            return Err(Failure::fixed("ERR If you want both the length and indexes, please just use IDX."));
        }
        Ok(options)
    }
}

/// A run of equal bytes in both strings: where it starts in each, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    first: usize,
    second: usize,
    len: usize,
}

/// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]
pub(crate) fn lcs(exec: &mut Exec<'_>) -> Outcome {
    const NOT_STRINGS: Failure = Failure::fixed("ERR The specified keys must contain string values");
    let (key, other) = (exec.args[1], exec.args[2]);
    let mut load = |key: &[u8]| match exec.string(key) {
        Ok(value) => Ok(value.map_or(Bytes::new(), |object| object.data)),
        Err(_) => Err(NOT_STRINGS),
    };
    let (first, second) = (load(key)?, load(other)?);
    let options = Options::parse(&exec.args[3..])?;
    let table = Table::new(&first, &second, exec.value_bytes_max)?;
    if options.positions {
        let mut matches = table.matches(&first, &second);
        matches.retain(|found| i64::try_from(found.len).unwrap_or(i64::MAX) >= options.match_len_min);
        exec.reply.map(2);
        exec.reply.bulk(b"matches");
        exec.reply.array(matches.len());
        for found in matches {
            exec.reply.array(2 + usize::from(options.with_match_len));
            for start in [found.first, found.second] {
                exec.reply.array(2);
                exec.reply.int(start as i64);
                exec.reply.int((start + found.len - 1) as i64);
            }
            if options.with_match_len {
                exec.reply.int(found.len as i64);
            }
        }
        exec.reply.bulk(b"len");
        exec.reply.int(i64::from(table.length()));
    } else if options.length {
        exec.reply.int(i64::from(table.length()));
    } else {
        let mut runs = table.matches(&first, &second);
        runs.reverse();
        let text: Vec<u8> = runs.iter().flat_map(|run| &first[run.first..run.first + run.len]).copied().collect();
        exec.reply.bulk(&text);
    }
    Ok(())
}

struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(first: &[u8], second: &[u8], bytes_max: usize) -> Result<Self, Failure> {
        const TOO_LARGE: Failure =
            Failure::fixed("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
        let width = second.len() + 1;
        let count = (first.len() + 1).checked_mul(width).ok_or(TOO_LARGE)?;
        if count.checked_mul(size_of::<u32>()).is_none_or(|bytes| bytes > bytes_max) {
            return Err(TOO_LARGE);
        }
        let mut cells = vec![0u32; count];
        for (row, byte) in first.iter().enumerate() {
            let (above, below) = cells[row * width..].split_at_mut(width);
            for (column, other) in second.iter().enumerate() {
                below[column + 1] =
                    if byte == other { above[column] + 1 } else { above[column + 1].max(below[column]) };
            }
        }
        Ok(Table { cells, width })
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.cells[row * self.width + column]
    }

    fn length(&self) -> u32 {
        self.cells.last().copied().unwrap_or(0)
    }

    /// The runs that make up one longest common subsequence, the last one first. Where there is a choice it is Redis's:
    /// to go left in the table.
    fn matches(&self, first: &[u8], second: &[u8]) -> Vec<Match> {
        let mut matches: Vec<Match> = Vec::new();
        let (mut row, mut column) = (first.len(), second.len());
        while row > 0 && column > 0 {
            if first[row - 1] == second[column - 1] {
                (row, column) = (row - 1, column - 1);
                match matches.last_mut() {
                    Some(run) if run.first == row + 1 && run.second == column + 1 => {
                        *run = Match { first: row, second: column, len: run.len + 1 };
                    }
                    _ => matches.push(Match { first: row, second: column, len: 1 }),
                }
            } else if self.at(row - 1, column) > self.at(row, column - 1) {
                row -= 1;
            } else {
                column -= 1;
            }
        }
        matches
    }
}
