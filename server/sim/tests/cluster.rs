//! Whole nodes in the simulator: seeds that must be clean, seeds that once were not, and runs that must repeat.

use clap::Parser;
use holdfast_sim::args::Arguments;
use holdfast_sim::campaign::{Totals, run_all};
use holdfast_sim::world::simulate;

fn campaign(words: &[&str]) -> (Totals, String) {
    let arguments = Arguments::try_parse_from(std::iter::once("sim").chain(words.iter().copied())).expect("arguments");
    let mut output = Vec::new();
    let totals = run_all(&arguments, &simulate, &mut output).expect("a vector takes all");
    (totals, String::from_utf8(output).expect("text"))
}

#[track_caller]
fn is_clean(seed: &str) {
    let (totals, output) = campaign(&["--seed", seed]);
    assert_eq!(totals.exit_code(), 0, "{output}");
}

#[test]
fn seeds_are_clean_and_come_by_the_places_that_matter() {
    let (totals, output) = campaign(&["--seeds", "1000..1040"]);
    assert_eq!(totals.exit_code(), 0, "{output}");
    assert!(totals.operations.answered > 500 * totals.seeds, "{output}");
    for place in [
        "appends rejected",
        "crashes during a write",
        "crashes with unflushed memtables",
        "deadlines left to the leader",
        "expired keys deleted",
        "expired keys that were none any more",
        "leaderships handed over",
        "leaderships lost",
        "log cuts",
        "numbered writes answered again",
        "reads behind writes",
        "reads by followers",
        "reads by followers given up",
        "reads by the quorum",
        "reads that moved the group's time",
        "reads under a lease",
        "sessions forgotten",
        "snapshots put in place",
        "stale reads by followers",
        "starts cut short",
        "votes given",
    ] {
        assert!(totals.marks.count(place) > 0, "no run came by: {place}\n{output}");
    }
}

#[test]
fn same_seed_gives_the_same_run() {
    let (totals, output) = campaign(&["--seeds", "0..6", "--twice"]);
    assert_eq!(totals.exit_code(), 0, "{output}");
}

/// A snapshot that arrived while an older one was being put in place had that one's file removed: the node gave up.
#[test]
fn snapshot_behind_a_snapshot() {
    is_clean("17");
}

/// A follower had its snapshot in place, and the log was cut beyond it before the leader's driver looked: the next need for a
/// snapshot was taken for the one before, and the follower waited for ever.
#[test]
fn snapshot_cut_off_by_the_log() {
    is_clean("22");
}

/// The second node's welcome got lost, but it was given a vote all the same, since the log was short: the founder could not
/// lead without it, nor could it be told that it belongs without a leader.
#[test]
fn welcome_that_got_lost() {
    is_clean("100");
}

/// With a leader that serves reads before it has committed in its own term, this seed shows a read that goes back.
#[test]
fn reads_right_after_an_election() {
    is_clean("10");
}

/// A node with entries that were never committed went down between putting a snapshot in place and cutting its log: the log was as
/// long as before, but another, and the node could not start any more.
#[test]
fn snapshot_in_place_of_entries_that_were_never_committed() {
    is_clean("2858");
}
