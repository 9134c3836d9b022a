//! Histories by hand, histories by construction, and other checkers' verdicts on both.

mod by_hand;
mod generator;
mod random;
mod reference;
mod stateright;
