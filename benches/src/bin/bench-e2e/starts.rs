//! Containers that say hello and end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::interruption;
use crate::machine::Moment;
use crate::node::{Node, Runtime};
use crate::report::{Goal, Line, Measurement, Unit, Value, median};

/// After `ctr` has ended, shim and containerd still tidy up: what that takes belongs to the run.
const AFTERMATH: Duration = Duration::from_millis(100);

const BURST: usize = 60;
const AT_A_TIME: usize = 8;
const NEIGHBOURS: [usize; 4] = [1, 10, 50, 100];

/// Wall time and CPU of one container after the other.
pub(crate) fn one_by_one(rounds: usize) -> Result<Vec<Measurement>> {
    let node = Node::start()?;
    warm_up(&node)?;
    eprintln!("{rounds} starts of each kind");
    let samples = in_turns(rounds, |runtime| node.hello(runtime))?;
    let hello = |what, values| Measurement {
        title: format!("`ctr run --rm` of hello: {what} of {rounds}"),
        unit: Unit::Milliseconds,
        lines: vec![Line::new("", values, vec![Goal::at_most(0.60).of_baseline()])],
    };
    Ok(vec![
        hello("wall, median", values(&samples, Samples::wall)),
        hello("CPU of the whole machine, mean", values(&samples, Samples::cpu)),
    ])
}

/// What the first container of a module waits for: its artifact has to be made.
pub(crate) fn first_of_a_module(rounds: usize) -> Result<Measurement> {
    let node = Node::start()?;
    warm_up(&node)?;
    eprintln!("{rounds} first starts of each kind");
    let samples = in_turns(rounds, |runtime| node.hello_for_the_first_time(runtime))?;
    Ok(Measurement {
        title: format!("`ctr run --rm` of hello, not compiled before: wall, median of {rounds}"),
        unit: Unit::Milliseconds,
        lines: vec![Line::new("", values(&samples, Samples::wall), Vec::new())],
    })
}

/// Containers per second, several at a time.
pub(crate) fn burst(rounds: usize) -> Result<Measurement> {
    let node = Node::start()?;
    warm_up(&node)?;
    let mut rates: Vec<_> = Runtime::all().into_iter().map(|runtime| (runtime, Vec::new())).collect();
    for round in 1..=rounds {
        eprintln!("burst {round} of {rounds}, of each kind");
        for (runtime, rates) in &mut rates {
            rates.push(rate(&node, *runtime)?);
            thread::sleep(AFTERMATH);
        }
    }
    let values = values(&rates, |rates| median(rates.iter().copied()));
    Ok(Measurement {
        title: format!("{BURST} of them, {AT_A_TIME} at a time, median of {rounds}"),
        unit: Unit::PerSecond,
        lines: vec![Line::new("", values, vec![Goal::at_least(1.8).of_baseline()])],
    })
}

fn rate(node: &Node, runtime: Runtime) -> Result<f64> {
    let taken = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while taken.fetch_add(1, Ordering::Relaxed) < BURST {
            interruption::check()?;
            node.hello(runtime)?;
        }
        Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker that does not panic"))
    })?;
    Ok(BURST as f64 / started.elapsed().as_secs_f64())
}

/// Whether the cost of one more container grows with those that run, which are of all kinds.
pub(crate) fn beside_neighbours(rounds: usize) -> Result<Measurement> {
    let node = Node::start()?;
    warm_up(&node)?;
    let kinds = Runtime::all();
    let mut neighbours = kinds.iter().cycle();
    let mut running = 0;
    let mut lines = Vec::new();
    for count in NEIGHBOURS {
        eprintln!("{rounds} starts of each kind beside {count} containers");
        for neighbour in neighbours.by_ref().take(count - running) {
            interruption::check()?;
            node.start_idle(*neighbour)?;
        }
        running = count;
        thread::sleep(AFTERMATH);
        let samples = in_turns(rounds, |runtime| node.hello(runtime))?;
        lines.push(Line::new(&format!("{count} running"), values(&samples, Samples::wall), Vec::new()));
    }
    Ok(Measurement {
        title: format!("`ctr run --rm` of hello beside idle containers of all kinds: wall, median of {rounds}"),
        unit: Unit::Milliseconds,
        lines,
    })
}

/// What only the first container of a node pays for is paid.
fn warm_up(node: &Node) -> Result<()> {
    Runtime::all().into_iter().try_for_each(|runtime| node.hello(runtime).map(drop))
}

/// One run of each kind, and again.
fn in_turns(rounds: usize, run: impl Fn(Runtime) -> Result<Duration>) -> Result<Vec<(Runtime, Samples)>> {
    let mut samples: Vec<_> = Runtime::all().into_iter().map(|runtime| (runtime, Samples::default())).collect();
    for _ in 0..rounds {
        for (runtime, samples) in &mut samples {
            samples.measure(|| run(*runtime))?;
        }
    }
    Ok(samples)
}

/// Runs of one kind.
#[derive(Default)]
struct Samples {
    wall: Vec<Duration>,
    cpu_seconds: f64,
}

impl Samples {
    fn measure(&mut self, run: impl FnOnce() -> Result<Duration>) -> Result<()> {
        interruption::check()?;
        let before = Moment::now()?;
        self.wall.push(run()?);
        thread::sleep(AFTERMATH);
        self.cpu_seconds += before.busy_seconds()?;
        Ok(())
    }

    fn wall(&self) -> f64 {
        median(self.wall.iter().map(milliseconds))
    }

    fn cpu(&self) -> f64 {
        self.cpu_seconds * 1e3 / self.wall.len() as f64
    }
}

fn milliseconds(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn values<S>(samples: &[(Runtime, S)], number: impl Fn(&S) -> f64) -> Vec<Value> {
    samples.iter().map(|(runtime, samples)| Value { name: runtime.name(), number: number(samples) }).collect()
}
