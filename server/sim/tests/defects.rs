//! Deliberate defects: the simulator finds them. Needs a build with `--features defects`; `sim --defects` looks for all of them.

#![cfg(feature = "defects")]

use clap::Parser;
use holdfast_sim::args::Arguments;
use holdfast_sim::defects::{Defect, hunt_one};
use holdfast_sim::world::simulate;

#[test]
fn defects_are_found_within_a_few_seeds() {
    for name in [
        "vote-not-synced",
        "append-ack-before-sync",
        "own-entries-not-synced",
        "two-changes-at-once",
        "follower-read-unasked",
        "time-by-own-clock",
        "time-moved-by-reads",
        "reclaim-unchecked",
        "ending-overlooked",
    ] {
        let arguments = Arguments::parse_from(["sim", "--seeds", "0..100", "--defect", name]);
        let mut output = Vec::new();
        let defect = Defect::parse(name).expect("a defect of this name");
        let found = hunt_one(&arguments, defect, &simulate, &mut output).expect("a vector takes all");
        assert!(found, "{}", String::from_utf8_lossy(&output));
    }
}
