//! The states of a circuit breaker and what leads from one to another, told the time and doing nothing else.

use std::sync::Arc;
use std::time::Instant;

use super::Settings;

/// Of the calls since the counts began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Counts {
    pub(in super::super) requests: i64,
    pub(in super::super) total_successes: i64,
    pub(in super::super) total_failures: i64,
    pub(in super::super) consecutive_successes: i64,
    pub(in super::super) consecutive_failures: i64,
}

impl Counts {
    /// As conditions name them.
    pub(in super::super) fn variables(&self) -> [(&'static str, i64); 5] {
        [
            ("requests", self.requests),
            ("totalSuccesses", self.total_successes),
            ("totalFailures", self.total_failures),
            ("consecutiveSuccesses", self.consecutive_successes),
            ("consecutiveFailures", self.consecutive_failures),
        ]
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => {
                self.total_successes += 1;
                self.consecutive_successes += 1;
                self.consecutive_failures = 0;
            }
            Outcome::Failure => {
                self.total_failures += 1;
                self.consecutive_failures += 1;
                self.consecutive_successes = 0;
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    Success,
    Failure,
}

/// Why a call does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum Refusal {
    #[error("the circuit breaker is open")]
    Open,
    #[error("the circuit breaker is half-open, and others are trying already")]
    TooManyRequests,
}

/// A time that is not there, or too far off to be one, never comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { clear_at: Option<Instant> },
    Open { until: Option<Instant> },
    HalfOpen,
}

impl State {
    fn closed(settings: &Settings, now: Instant) -> Self {
        Self::Closed { clear_at: settings.interval.and_then(|interval| now.checked_add(interval)) }
    }
}

/// The state machine, told the time.
#[derive(Debug)]
pub(super) struct Machine {
    settings: Arc<Settings>,
    state: State,
    counts: Counts,
    /// Counts the times that the counts began anew.
    generation: u64,
}

impl Machine {
    pub(super) fn new(settings: Arc<Settings>, now: Instant) -> Self {
        let state = State::closed(&settings, now);
        Self { settings, state, counts: Counts::default(), generation: 0 }
    }

    /// Lets a call pass, whose end belongs to the generation that is answered.
    pub(super) fn admit(&mut self, now: Instant) -> Result<u64, Refusal> {
        self.pass_time(now);
        match self.state {
            State::Open { .. } => return Err(Refusal::Open),
            State::HalfOpen if self.counts.requests >= self.settings.max_requests => {
                return Err(Refusal::TooManyRequests);
            }
            State::HalfOpen | State::Closed { .. } => {}
        }
        self.counts.requests += 1;
        Ok(self.generation)
    }

    pub(super) fn end(&mut self, generation: u64, outcome: Outcome, now: Instant) {
        self.pass_time(now);
        if generation != self.generation {
            return;
        }
        self.counts.add(outcome);
        match (self.state, outcome) {
            (State::Closed { .. }, Outcome::Failure) if self.settings.trip.holds(&self.counts) => self.open(now),
            (State::HalfOpen, Outcome::Failure) => self.open(now),
            (State::HalfOpen, Outcome::Success) if self.counts.consecutive_successes >= self.settings.max_requests => {
                self.close(now);
            }
            _ => {}
        }
    }

    /// As if a call had not been made whose end nobody waited for: otherwise it would keep a half-open breaker from
    /// letting another one pass.
    pub(super) fn withdraw(&mut self, generation: u64) {
        if generation == self.generation {
            self.counts.requests -= 1;
        }
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Closed { .. } => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
        }
    }

    fn pass_time(&mut self, now: Instant) {
        match self.state {
            State::Closed { clear_at: Some(at) } if at < now => self.close(now),
            State::Open { until: Some(until) } if until < now => self.enter(State::HalfOpen),
            _ => {}
        }
    }

    fn open(&mut self, now: Instant) {
        self.enter(State::Open { until: now.checked_add(self.settings.timeout) });
    }

    fn close(&mut self, now: Instant) {
        self.enter(State::closed(&self.settings, now));
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.counts = Counts::default();
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use Outcome::{Failure, Success};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A breaker and its clock.
    struct Bench {
        machine: Machine,
        now: Instant,
    }

    impl Bench {
        /// Opens after two failures in a row, for ten seconds.
        fn new(more: &str) -> Self {
            let yaml = format!("{{trip: consecutiveFailures > 1, timeout: 10s{more}}}");
            let settings = Settings::new(&serde_yaml::from_str(&yaml).unwrap()).unwrap();
            let now = Instant::now();
            Self { machine: Machine::new(Arc::new(settings), now), now }
        }

        fn admit(&mut self) -> Result<u64, Refusal> {
            self.machine.admit(self.now)
        }

        fn end(&mut self, generation: u64, outcome: Outcome) {
            self.machine.end(generation, outcome, self.now);
        }

        fn call(&mut self, outcome: Outcome) {
            let generation = self.admit().expect("a call that passes");
            self.end(generation, outcome);
        }

        fn state(&self) -> &'static str {
            self.machine.state_name()
        }

        fn open(more: &str) -> Self {
            let mut bench = Self::new(more);
            bench.call(Failure);
            bench.call(Failure);
            assert_eq!(bench.state(), "open");
            bench
        }

        fn half_open(more: &str) -> Self {
            let mut bench = Self::open(more);
            bench.now += 10 * SECOND + Duration::from_nanos(1);
            bench
        }
    }

    #[test]
    fn successes_keep_it_closed_and_are_counted() {
        let mut bench = Bench::new("");
        for outcome in [Success, Failure, Success, Success, Failure] {
            bench.call(outcome);
        }
        let counts = Counts {
            requests: 5,
            total_successes: 3,
            total_failures: 2,
            consecutive_successes: 0,
            consecutive_failures: 1,
        };
        assert_eq!((bench.state(), bench.machine.counts), ("closed", counts));
    }

    #[test]
    fn only_a_failure_opens_it() {
        let settings = Settings::new(&serde_yaml::from_str("{trip: requests > 1}").unwrap()).unwrap();
        let now = Instant::now();
        let mut bench = Bench { machine: Machine::new(Arc::new(settings), now), now };
        bench.call(Success);
        bench.call(Success);
        assert_eq!(bench.state(), "closed");
        bench.call(Failure);
        assert_eq!(bench.state(), "open");
    }

    #[test]
    fn an_open_one_lets_nothing_pass_until_its_time_is_over() {
        let mut bench = Bench::open("");
        assert_eq!(bench.admit(), Err(Refusal::Open));
        bench.now += 10 * SECOND;
        assert_eq!(bench.admit(), Err(Refusal::Open));
        bench.now += Duration::from_nanos(1);
        assert!(bench.admit().is_ok());
        assert_eq!(bench.state(), "half-open");
    }

    #[test]
    fn a_half_open_one_lets_so_many_pass_and_closes_when_all_succeeded() {
        let mut bench = Bench::half_open(", maxRequests: 2");
        let (one, other) = (bench.admit().unwrap(), bench.admit().unwrap());
        assert_eq!(bench.admit(), Err(Refusal::TooManyRequests));
        bench.end(one, Success);
        assert_eq!((bench.state(), bench.admit()), ("half-open", Err(Refusal::TooManyRequests)));
        bench.end(other, Success);
        assert_eq!((bench.state(), bench.machine.counts), ("closed", Counts::default()));
    }

    #[test]
    fn a_failure_opens_a_half_open_one_for_the_whole_time_again() {
        let mut bench = Bench::half_open(", maxRequests: 2");
        bench.call(Success);
        bench.call(Failure);
        assert_eq!(bench.admit(), Err(Refusal::Open));
        bench.now += 10 * SECOND;
        assert_eq!(bench.admit(), Err(Refusal::Open));
        bench.now += SECOND;
        assert!(bench.admit().is_ok());
    }

    #[test]
    fn the_counts_of_a_closed_one_begin_anew_with_every_interval() {
        let mut bench = Bench::new(", interval: 5s");
        bench.call(Failure);
        bench.now += 5 * SECOND;
        bench.call(Success);
        assert_eq!(bench.machine.counts.requests, 2);
        bench.call(Failure);
        bench.now += Duration::from_nanos(1);
        bench.call(Failure);
        assert_eq!((bench.state(), bench.machine.counts.requests), ("closed", 1));
        bench.call(Failure);
        assert_eq!(bench.state(), "open");
    }

    #[test]
    fn a_call_from_before_the_counts_began_anew_does_not_count() {
        let mut bench = Bench::new(", interval: 5s");
        let old = bench.admit().unwrap();
        bench.now += 6 * SECOND;
        bench.end(old, Failure);
        assert_eq!(bench.machine.counts, Counts::default());

        let mut bench = Bench::new("");
        let old = bench.admit().unwrap();
        bench.call(Failure);
        bench.call(Failure);
        bench.end(old, Success);
        assert_eq!(bench.state(), "open");
        bench.now += 11 * SECOND;
        bench.end(old, Success);
        assert_eq!(bench.state(), "half-open");
    }

    #[test]
    fn a_call_that_nobody_waited_for_makes_place_for_another() {
        let mut bench = Bench::half_open("");
        let abandoned = bench.admit().unwrap();
        assert_eq!(bench.admit(), Err(Refusal::TooManyRequests));
        bench.machine.withdraw(abandoned);
        bench.call(Success);
        assert_eq!(bench.state(), "closed");
        bench.machine.withdraw(abandoned);
        assert_eq!(bench.machine.counts, Counts::default());
    }

    #[test]
    fn the_defaults_are_those_of_gobreaker() {
        for yaml in ["{}", "{maxRequests: 0, interval: 0s, timeout: -1s, trip: ''}"] {
            let settings = Settings::new(&serde_yaml::from_str(yaml).unwrap()).unwrap();
            let Settings { max_requests, interval, timeout, trip } = settings;
            assert_eq!((max_requests, interval, timeout), (1, None, 60 * SECOND));
            assert!(trip.holds(&Counts { consecutive_failures: 6, ..Counts::default() }));
        }
    }
}
