//! Running cases: each on a thread and a runtime of its own, so that one that hangs, panics or blocks its threads
//! fails alone.

use std::any::Any;
use std::env;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::runtime;

use crate::guest::{EngineUnderTest, Program, Subject};

/// A case that takes longer has failed: ten times what the slowest takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// The threads that a case's guests share: as few as a small node has.
pub(crate) const WORKERS: usize = 2;

type Body = dyn Fn(Subject) -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>> + Send + Sync;

/// Something that holds on every engine.
pub(crate) struct Case {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) program: Program,
    /// A program that the machine may lack.
    needs: Option<PathBuf>,
    body: Arc<Body>,
}

/// Cases of one group and one program, each named as its function.
macro_rules! cases {
    ($group:expr, $program:expr; $($body:ident),+ $(,)?) => {
        vec![$($crate::runner::Case::new($group, stringify!($body), $program, $body)),+]
    };
}
pub(crate) use cases;

impl Case {
    pub(crate) fn new<F>(
        group: impl Into<String>,
        name: impl Into<String>,
        program: Program,
        body: impl Fn(Subject) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let body = Arc::new(move |subject| Box::pin(body(subject)) as Pin<Box<dyn Future<Output = _>>>);
        Self { group: group.into(), name: name.into(), program, needs: None, body }
    }

    /// Skips the case on a machine that has no such program.
    pub(crate) fn needs(mut self, program: Option<PathBuf>) -> Self {
        self.needs = program;
        self
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}::{}", self.group, self.name)
    }

    /// Runs on all engines side by side: what one does to the process must not trouble another. The answer has their
    /// order.
    pub(crate) fn run(&self, engines: &[Arc<EngineUnderTest>], expected: &[ExpectedFailure]) -> Vec<Run> {
        if let Some(program) = self.needs.as_ref().filter(|program| !is_installed(program)) {
            let outcome = Outcome::Skipped(format!("{} is not installed", program.display()));
            let skipped = |engine: &Arc<EngineUnderTest>| Run::new(engine.name(), outcome.clone(), Duration::ZERO);
            return engines.iter().map(skipped).collect();
        }
        let started: Vec<Started> = engines.iter().map(|engine| self.start(Arc::clone(engine))).collect();
        let end = |(started, engine): (Started, &Arc<EngineUnderTest>)| {
            let name = self.full_name();
            let expected = expected.iter().find(|failure| failure.case == name && failure.engine == engine.name());
            let (result, duration) = started.end();
            Run::new(engine.name(), Outcome::new(result, expected), duration)
        };
        started.into_iter().zip(engines).map(end).collect()
    }

    fn start(&self, engine: Arc<EngineUnderTest>) -> Started {
        let subject = Subject::new(engine, self.program);
        let body = Arc::clone(&self.body);
        let (done, result) = mpsc::channel();
        let main = move || {
            let started = Instant::now();
            let runtime = match runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(done.send((Err(error.into()), started.elapsed()))),
            };
            let result = runtime.block_on(body(subject));
            let _ = done.send((result, started.elapsed()));
            // Does not wait for what a failed case left running.
            runtime.shutdown_background();
        };
        Started { thread: thread::spawn(main), result }
    }
}

/// A case at work on one engine.
struct Started {
    thread: JoinHandle<()>,
    result: Receiver<(anyhow::Result<()>, Duration)>,
}

impl Started {
    fn end(self) -> (anyhow::Result<()>, Duration) {
        match self.result.recv_timeout(DEADLINE) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => (Err(anyhow!("it did not end within {DEADLINE:?}")), DEADLINE),
            Err(RecvTimeoutError::Disconnected) => {
                let reason = self.thread.join().err().and_then(panic_message);
                (Err(anyhow!("panicked: {}", reason.unwrap_or_default())), Duration::ZERO)
            }
        }
    }
}

fn panic_message(payload: Box<dyn Any + Send>) -> Option<String> {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}

fn is_installed(program: &Path) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A case that an engine does not pass, and is known not to.
pub(crate) struct ExpectedFailure {
    /// Group and name, as `--list` prints them.
    pub(crate) case: &'static str,
    pub(crate) engine: &'static str,
    pub(crate) reason: &'static str,
}

/// What a case came to on one engine.
pub(crate) struct Run {
    pub(crate) engine: &'static str,
    pub(crate) outcome: Outcome,
    pub(crate) duration: Duration,
}

impl Run {
    pub(crate) fn new(engine: &'static str, outcome: Outcome, duration: Duration) -> Self {
        Self { engine, outcome, duration }
    }
}

/// With the reason, but for success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    ExpectedFailure(String),
    Skipped(String),
}

impl Outcome {
    fn new(result: anyhow::Result<()>, expected: Option<&ExpectedFailure>) -> Self {
        match (result, expected) {
            (Ok(()), None) => Self::Passed,
            (Err(error), None) => Self::Failed(format!("{error:#}")),
            (Err(_), Some(expected)) => Self::ExpectedFailure(expected.reason.to_owned()),
            (Ok(()), Some(expected)) => {
                Self::Failed(format!("passed, but it is listed as an expected failure: {}", expected.reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const NOTHING: Program = Program::Wat("nothing", "(module)");

    fn run<F>(body: impl Fn(Subject) -> F + Send + Sync + 'static, expected: &[ExpectedFailure]) -> Vec<Outcome>
    where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let engines: Vec<_> = engines::built_in().into_iter().map(EngineUnderTest::new).map(Arc::new).collect();
        let runs = Case::new("group", "name", NOTHING, body).run(&engines, expected);
        assert!(runs.iter().map(|run| run.engine).eq(engines.iter().map(|engine| engine.name())));
        runs.into_iter().map(|run| run.outcome).collect()
    }

    #[test]
    fn a_case_runs_on_every_engine() {
        let first = engines::built_in()[0].name();
        let on_the_first = move |subject: Subject| async move {
            if subject.engine().name() == first { Ok(()) } else { bail!("another") }
        };
        let others = engines::built_in().len() - 1;
        let outcomes = run(on_the_first, &[]);
        assert_eq!(outcomes[0], Outcome::Passed);
        assert_eq!(outcomes[1..], vec![Outcome::Failed("another".to_owned()); others]);
    }

    #[test]
    fn a_panic_fails_its_case() {
        let outcomes = run(async |_| panic!("out of {}", "order"), &[]);
        assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Failed("panicked: out of order".to_owned())));
    }

    #[test]
    fn an_expected_failure_is_no_failure() {
        let engine = engines::built_in()[0].name();
        let expected = [ExpectedFailure { case: "group::name", engine, reason: "not yet" }];
        let outcomes = run(async |_| bail!("no"), &expected);
        assert_eq!(outcomes[0], Outcome::ExpectedFailure("not yet".to_owned()));
        assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Failed("no".to_owned())));
    }

    #[test]
    fn an_expected_failure_that_passes_is_a_failure() {
        let engine = engines::built_in()[0].name();
        let expected = [ExpectedFailure { case: "group::name", engine, reason: "not yet" }];
        let outcomes = run(async |_| Ok(()), &expected);
        assert!(matches!(&outcomes[0], Outcome::Failed(reason) if reason.contains("not yet")));
        assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Passed));
    }

    #[test]
    fn a_case_whose_program_is_missing_is_skipped() {
        let engines: Vec<_> = engines::built_in().into_iter().map(EngineUnderTest::new).map(Arc::new).collect();
        let case = Case::new("group", "name", NOTHING, async |_| bail!("it ran")).needs(Some("no-such-program".into()));
        let skipped = Outcome::Skipped("no-such-program is not installed".to_owned());
        assert!(case.run(&engines, &[]).iter().all(|run| run.outcome == skipped));
    }
}
