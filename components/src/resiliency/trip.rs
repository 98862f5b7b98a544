//! When a circuit breaker opens: a condition in CEL, the Common Expression Language, over its counts.

use cel::{Context, ExecutionError, Program, Value};

use super::InvalidPolicy;
use super::circuit_breaker::Counts;

/// Without a condition: more than five failures in a row.
#[derive(Debug, Default)]
pub(super) struct Trip(Option<Program>);

impl Trip {
    /// # Errors
    /// The condition cannot be parsed, names what is not counted, or would not say yes or no. Dapr finds out about the
    /// last two when the breaker should open, which it then never does.
    pub(super) fn new(condition: &str) -> Result<Self, InvalidPolicy> {
        if condition.is_empty() {
            return Ok(Self(None));
        }
        let program = Program::compile(condition).map_err(|errors| InvalidPolicy::trip(&errors))?;
        let known = Counts::default().variables().map(|(name, _)| name);
        if let Some(unknown) = program.references().variables().into_iter().find(|name| !known.contains(name)) {
            let message = format!("{unknown:?} is not counted; there are {}", known.join(", "));
            return Err(InvalidPolicy::trip(&message));
        }
        let first_failure = Counts { requests: 1, total_failures: 1, consecutive_failures: 1, ..Counts::default() };
        match evaluate(&program, &first_failure) {
            // What is divided by may be zero at first.
            Ok(Value::Bool(_)) | Err(ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_)) => {
                Ok(Self(Some(program)))
            }
            Ok(_) => Err(InvalidPolicy::trip(&"it is neither true nor false")),
            Err(error) => Err(InvalidPolicy::trip(&error)),
        }
    }

    /// A condition that cannot be evaluated does not hold.
    pub(super) fn holds(&self, counts: &Counts) -> bool {
        match &self.0 {
            None => counts.consecutive_failures > 5,
            Some(program) => matches!(evaluate(program, counts), Ok(Value::Bool(true))),
        }
    }
}

fn evaluate(program: &Program, counts: &Counts) -> Result<Value, ExecutionError> {
    let mut context = Context::default();
    for (name, count) in counts.variables() {
        context.add_variable_from_value(name, count);
    }
    program.execute(&context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(consecutive: i64, total: i64, requests: i64) -> Counts {
        Counts { requests, total_failures: total, consecutive_failures: consecutive, ..Counts::default() }
    }

    fn refused(condition: &str) -> String {
        Trip::new(condition).map(|_| condition).unwrap_err().to_string()
    }

    #[test]
    fn without_a_condition_the_sixth_failure_in_a_row_trips() {
        let trip = Trip::new("").unwrap();
        assert!(!trip.holds(&failed(5, 100, 200)));
        assert!(trip.holds(&failed(6, 6, 6)));
    }

    #[test]
    fn a_condition_is_over_the_counts() {
        let trip = Trip::new("consecutiveFailures >= 2 && requests > 10").unwrap();
        assert!(trip.holds(&failed(2, 2, 11)));
        assert!(!trip.holds(&failed(2, 2, 10)));
        let trip = Trip::new("totalFailures * 2 > totalSuccesses + consecutiveSuccesses").unwrap();
        assert!(trip.holds(&Counts { total_successes: 3, ..failed(2, 2, 5) }));
        assert!(!trip.holds(&Counts { total_successes: 4, ..failed(1, 2, 6) }));
    }

    #[test]
    fn a_division_by_zero_does_not_trip() {
        let trip = Trip::new("totalFailures / totalSuccesses > 1").unwrap();
        assert!(!trip.holds(&failed(9, 9, 9)));
        assert!(trip.holds(&Counts { total_successes: 1, ..failed(9, 9, 10) }));
    }

    #[test]
    fn a_condition_that_could_never_hold_is_refused() {
        assert!(refused("failures > 5").contains("\"failures\" is not counted; there are requests, "));
        assert!(refused("requests + 1").contains("neither true nor false"));
        assert!(refused("sum(requests) > 1").starts_with("`trip` is no condition: "));
        assert!(refused("consecutiveFailures >").starts_with("`trip` is no condition: "));
        assert!(!refused("consecutiveFailures >").contains('\n'));
    }
}
