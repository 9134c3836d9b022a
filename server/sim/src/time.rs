//! Virtual time, and the clocks of nodes that read it wrongly.
//!
//! True time is a number of microseconds since the simulation began: [`Micros`]. Nobody in it sees true time. A node has a
//! [`NodeClock`] with two hands, as a machine has: a monotonic one that may run a little fast or slow but never back, and a
//! wall clock that is off by some amount and may jump.

use std::fmt;

/// Microseconds of virtual time since the simulation began, or a span of them.
pub type Micros = u64;

/// One millisecond.
pub const MILLISECOND: Micros = 1000;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// One minute.
pub const MINUTE: Micros = 60 * SECOND;

/// What the wall clocks show when the simulation begins: some day in 2026, in microseconds since 1970.
pub const WALL_START: Micros = 1_767_225_600 * SECOND;

/// A time for people: seconds with six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown(pub Micros);

impl fmt::Display for Shown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{:06}", self.0 / SECOND, self.0 % SECOND)
    }
}

/// A span for people, as short as it can be said exactly: `3 s`, `250 ms`, `17 us`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShownSpan(pub Micros);

impl fmt::Display for ShownSpan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0 => (1, "s"),
            span if span.is_multiple_of(SECOND) => (SECOND, "s"),
            span if span.is_multiple_of(MILLISECOND) => (MILLISECOND, "ms"),
            _ => (1, "us"),
        };
        write!(formatter, "{} {name}", self.0 / unit)
    }
}

/// The clocks of one machine.
///
/// # Invariant
/// The monotonic time never goes back, whatever is done to the clock, as long as true time does not.
#[derive(Debug, Clone)]
pub struct NodeClock {
    /// True time at the last change of rate.
    since: Micros,
    /// The monotonic time then.
    monotonic_then: Micros,
    /// Parts per million that the monotonic clock gains.
    drift_ppm: i64,
    /// What the wall clock is ahead of a right one, but for the drift.
    wall_offset_us: i64,
}

impl NodeClock {
    /// A clock that is right and starts at a monotonic time of its own (machines differ in when they were booted).
    pub fn new(now: Micros, monotonic_start: Micros) -> NodeClock {
        NodeClock { since: now, monotonic_then: monotonic_start, drift_ppm: 0, wall_offset_us: 0 }
    }

    /// What the monotonic clock shows.
    pub fn monotonic(&self, now: Micros) -> Micros {
        self.monotonic_then + self.elapsed(now)
    }

    fn elapsed(&self, now: Micros) -> Micros {
        let elapsed = i128::from(now.saturating_sub(self.since));
        let gained = elapsed * i128::from(self.drift_ppm) / 1_000_000;
        (elapsed + gained).max(0) as Micros
    }

    /// What the wall clock shows, in microseconds since 1970. It may go back when it jumps.
    pub fn wall(&self, now: Micros) -> Micros {
        // The wall clock is disciplined from outside, so the drift of the crystal does not add up in it.
        (WALL_START + now).saturating_add_signed(self.wall_offset_us)
    }

    /// The true time at which the monotonic clock will show at least `monotonic`: when a timer set on it is due.
    pub fn true_time_of(&self, now: Micros, monotonic: Micros) -> Micros {
        let shown = self.monotonic(now);
        if monotonic <= shown {
            return now;
        }
        let missing = u128::from(monotonic - shown);
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let mut at = now + (missing * 1_000_000).div_ceil(rate) as Micros;
        // What was rounded away in `shown` and in the division may be a microsecond or two.
        while self.monotonic(at) < monotonic {
            at += 1;
        }
        while at > now && self.monotonic(at - 1) >= monotonic {
            at -= 1;
        }
        at
    }

    /// Lets the monotonic clock jump ahead by this much.
    pub fn jump(&mut self, by: Micros) {
        self.monotonic_then += by;
    }

    /// Lets the monotonic clock go on from what it showed at `then`: it stood still since. NB: it goes back from what it would show,
    /// so nobody may have looked at it meanwhile.
    pub fn stood_still_since(&mut self, then: Micros, now: Micros) {
        self.monotonic_then = self.monotonic(then);
        self.since = now;
    }

    /// Lets the monotonic clock gain this many microseconds a second from now on; negative: lose.
    ///
    /// # Panics
    /// If it would run at less than half or more than twice the right rate: no crystal does.
    pub fn set_drift(&mut self, now: Micros, drift_ppm: i64) {
        assert!((-500_000..=1_000_000).contains(&drift_ppm), "a clock that runs {drift_ppm} ppm wrong is broken");
        self.monotonic_then = self.monotonic(now);
        self.since = now;
        self.drift_ppm = drift_ppm;
    }

    /// Puts the wall clock this far ahead of the right time; negative: behind.
    pub fn set_wall_offset(&mut self, offset_us: i64) {
        self.wall_offset_us = offset_us;
    }

    /// How far the wall clock is ahead of the right time.
    pub fn wall_offset_us(&self) -> i64 {
        self.wall_offset_us
    }

    /// Moves the wall clock by this much.
    pub fn jump_wall(&mut self, by_us: i64) {
        self.wall_offset_us = self.wall_offset_us.saturating_add(by_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_changes_the_rate_and_never_the_past() {
        let mut clock = NodeClock::new(100, 5000);
        assert_eq!(clock.monotonic(100), 5000);
        clock.set_drift(1100, 100_000);
        assert_eq!(clock.monotonic(1100), 6000);
        assert_eq!(clock.monotonic(2100), 7100);
        clock.set_drift(2100, -100_000);
        assert_eq!(clock.monotonic(2100), 7100);
        assert_eq!(clock.monotonic(3100), 8000);
    }

    #[test]
    fn timers_fire_at_the_first_moment_that_shows_their_time() {
        for drift in [-100_000, -99_991, -1, 0, 1, 33_333, 100_000] {
            let mut clock = NodeClock::new(0, 17);
            clock.set_drift(0, drift);
            for deadline in (0..20_000).step_by(37) {
                let at = clock.true_time_of(1000, deadline);
                assert!(clock.monotonic(at) >= deadline, "drift {drift}, deadline {deadline}");
                assert!(at == 1000 || clock.monotonic(at - 1) < deadline, "drift {drift}, deadline {deadline}");
            }
        }
    }

    #[test]
    fn wall_clock_jumps_and_the_monotonic_does_not() {
        let mut clock = NodeClock::new(0, 0);
        clock.set_wall_offset(500);
        clock.jump_wall(-2000);
        assert_eq!(clock.wall(SECOND), WALL_START + SECOND - 1500);
        assert_eq!(clock.monotonic(SECOND), SECOND);
    }

    #[test]
    fn spans_are_said_in_the_largest_unit_that_is_exact() {
        let shown = [0, 3 * SECOND, 2200 * MILLISECOND, 1001].map(|span| ShownSpan(span).to_string());
        assert_eq!(shown, ["0 s", "3 s", "2200 ms", "1001 us"]);
        assert_eq!(Shown(61_000_050).to_string(), "61.000050");
    }
}
