//! The verdicts of stateright's tester, which somebody else wrote, on the same histories.

use ::stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

use super::super::*;
use super::generator::{Mix, Planned, Point, Shape, falsify, history, make, points};
use super::reference::outcomes;
use crate::random::Random;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Register(Option<Vec<u8>>);

impl SequentialSpec for Register {
    type Op = Operation;
    type Ret = Option<Answer>;

    fn invoke(&mut self, operation: &Operation) -> Option<Answer> {
        let (after, answers) = outcomes(self.0.as_deref(), operation);
        self.0 = after;
        answers.into_iter().next()
    }

    fn is_valid_step(&mut self, operation: &Operation, answer: &Option<Answer>) -> bool {
        let (after, answers) = outcomes(self.0.as_deref(), operation);
        self.0 = after;
        answer.as_ref().is_some_and(|answer| answers.contains(answer))
    }
}

fn is_linearizable(planned: &[Planned]) -> bool {
    let mut tester = LinearizabilityTester::new(Register::default());
    for (_, point) in points(planned) {
        match point {
            // A thread of its own for each operation: a client goes on after one of unknown outcome, a thread may not.
            Point::Call(place) if planned[place].outcome != Outcome::Failed => {
                tester.on_invoke(place, planned[place].operation.clone()).unwrap();
            }
            Point::Return(place) => {
                if let Outcome::Answered(answer) = &planned[place].outcome {
                    tester.on_return(place, Some(answer.clone())).unwrap();
                }
            }
            Point::Call(_) => {}
        }
    }
    tester.is_consistent()
}

#[test]
fn verdicts_agree_with_stateright() {
    let mut violations = 0;
    for seed in 0..1500 {
        let mut random = Random::new(seed);
        let mix = [Mix::FewValues, Mix::UniqueValues, Mix::Counter, Mix::Log][random.index(4)];
        let clients = random.range(1..=4) as u32;
        let shape = Shape { clients, operations: 7, unknown_per_mille: 150, duration_max: 12, mix };
        let mut planned = make(&mut random, shape);
        assert!(is_linearizable(&planned), "seed {seed}");
        falsify(&mut random, &mut planned);
        let verdict = check(&history(&planned), 100_000);
        let expected = is_linearizable(&planned);
        assert_eq!(verdict.is_pass(), expected, "seed {seed}: {planned:#?}\n{verdict}");
        violations += u32::from(!expected);
    }
    assert!((300..1400).contains(&violations), "{violations} violations are too few or too many to tell anything");
}
