//! Many small histories against the reference, and large ones against the clock.

use super::super::*;
use super::generator::{Mix, Shape, calls, falsify, history, make};
use super::reference;
use crate::random::Random;

const MIXES: [Mix; 4] = [Mix::FewValues, Mix::UniqueValues, Mix::Counter, Mix::Log];

fn small(random: &mut Random) -> Shape {
    Shape {
        clients: random.range(1..=4) as u32,
        operations: random.range(1..=7) as usize,
        unknown_per_mille: [0, 200, 400][random.index(3)],
        duration_max: random.range(1..=12),
        mix: MIXES[random.index(MIXES.len())],
    }
}

#[test]
fn made_histories_pass_and_falsified_ones_get_the_verdict_of_trying_every_order() {
    let mut violations = 0;
    for seed in 0..6000 {
        let mut random = Random::new(seed);
        let shape = small(&mut random);
        let mut planned = make(&mut random, shape);
        let verdict = check(&history(&planned), 100_000);
        assert!(verdict.is_pass(), "seed {seed}: {verdict}");
        for _ in 0..1 + random.below(2) {
            falsify(&mut random, &mut planned);
        }
        let history = history(&planned);
        let verdict = check(&history, 100_000);
        let expected = reference::is_linearizable(&calls(&history));
        assert_eq!(verdict.is_pass(), expected, "seed {seed}: {planned:#?}\n{verdict}");
        assert!(!matches!(verdict, Verdict::Undecided { .. }), "seed {seed}");
        violations += u32::from(!expected);
    }
    assert!((1500..5000).contains(&violations), "{violations} violations are too few or too many to tell anything");
}

fn large(mix: Mix, unknown_per_mille: u32) -> Shape {
    // About half of the time an operation is under way, so 20 clients make 10 at once.
    Shape { clients: 20, operations: 2000, unknown_per_mille, duration_max: 1000, mix }
}

#[test]
fn thousands_of_concurrent_operations_with_unknown_outcomes_are_ordered_in_few_steps() {
    for (mix, unknown_per_mille) in MIXES.into_iter().flat_map(|mix| [(mix, 5), (mix, 25)]) {
        for seed in 0..10 {
            let mut random = Random::new(seed);
            let made = history(&make(&mut random, large(mix, unknown_per_mille)));
            let verdict = check(&made, STEPS_MAX / 10);
            assert!(verdict.is_pass(), "{mix:?}, {unknown_per_mille}, seed {seed}: {verdict}");
        }
    }
}

#[test]
fn one_false_answer_among_thousands_is_found_within_the_budget() {
    for mix in MIXES {
        let mut found = 0;
        for seed in 0..10 {
            let mut random = Random::new(seed);
            let mut planned = make(&mut random, large(mix, 5));
            while !falsify(&mut random, &mut planned) {}
            let verdict = check(&history(&planned), STEPS_MAX);
            assert!(!matches!(verdict, Verdict::Undecided { .. }), "{mix:?}, seed {seed}: {verdict}");
            found += u32::from(!verdict.is_pass());
        }
        // Where few values come again and again, most false answers have a true explanation too.
        let found_min = if matches!(mix, Mix::FewValues) { 1 } else { 8 };
        assert!(found >= found_min, "{mix:?}: {found}");
    }
}
