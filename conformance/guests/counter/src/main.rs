//! Adds to a number in a Dapr state store, one at a time, while others do the same: nothing is lost and nothing is
//! counted twice, also where the store goes away between a write and its answer.
//!
//! A write says what it replaces, by the etag, so that it has its effect once or never. Whether it had it, the
//! value itself tells: while a counter is at work, the value also holds how much that counter has added. So there
//! is one answer to a conflict, to a lost answer and to success: read again, and write what is still missing. In
//! the end the counter removes its note; a number that nobody adds to is a plain decimal.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::process::ExitCode;
use std::time::Duration;
use std::{str, thread};

use store::{Error, Failure, Item, Outcome, Store, positive, random, random_id};

const USAGE: &str = "usage: counter [--store NAME] KEY TIMES";

/// How often in a row the store may be unavailable: some twelve seconds.
const MOST_FAILURES: u32 = 16;

fn main() -> ExitCode {
    store::run(USAGE, |store, words| {
        let &[key, times] = words else { return Err(Failure::Usage) };
        let times = positive(times)?;
        let mut counter = Counter { store, key, id: random_id(), conflicts: 0 };
        counter.settle(|tally, id| tally.add(id, times))?;
        let tally = counter.settle(|tally, id| tally.notes.remove(id).is_some())?;
        println!("value: {}\nconflicts: {}", tally.total, counter.conflicts);
        Ok(())
    })
}

struct Counter<'a> {
    store: &'a Store<'a>,
    key: &'a str,
    id: String,
    conflicts: u64,
}

enum Step {
    /// There was nothing to change.
    Settled(Tally),
    Tried(Outcome),
}

impl Counter<'_> {
    /// Changes the value until there is nothing more to change, and answers it.
    fn settle(&mut self, change: impl Fn(&mut Tally, &str) -> bool) -> Result<Tally, Failure> {
        let (mut conflicts, mut failures) = (0, 0);
        loop {
            match self.step(&change) {
                Ok(Step::Settled(tally)) => return Ok(tally),
                Ok(Step::Tried(Outcome::Written)) => (conflicts, failures) = (0, 0),
                Ok(Step::Tried(Outcome::Conflict)) => {
                    self.conflicts += 1;
                    (conflicts, failures) = (conflicts + 1, 0);
                    pause(conflicts, 1, 50);
                }
                Err(Failure::Store(Error::Unavailable(_))) if failures < MOST_FAILURES => {
                    failures += 1;
                    pause(failures, 50, 1000);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn step(&self, change: impl Fn(&mut Tally, &str) -> bool) -> Result<Step, Failure> {
        let seen = self.store.get(self.key)?;
        let mut tally = self.parse(seen.as_ref())?;
        if !change(&mut tally, &self.id) {
            return Ok(Step::Settled(tally));
        }
        Ok(Step::Tried(self.store.set(self.key, tally.to_string().into_bytes(), seen.as_ref())?))
    }

    fn parse(&self, seen: Option<&Item>) -> Result<Tally, Failure> {
        let Some(item) = seen else { return Ok(Tally::default()) };
        let tally = str::from_utf8(&item.data).ok().and_then(Tally::parse);
        tally.ok_or_else(|| Failure::Other(format!("{} is no number that can be added to", self.key)))
    }
}

/// Longer each time, up to `longest` milliseconds, and never quite the same for two counters.
fn pause(attempt: u32, shortest: u64, longest: u64) {
    let most = longest.min(shortest << attempt.min(16));
    thread::sleep(Duration::from_millis(most / 2 + random() % most));
}

/// `42`, or `42 4f1c=12 90ab=7`: the number, and of each counter at work its id and how much of it is its own.
#[derive(Default)]
struct Tally {
    total: u64,
    notes: BTreeMap<String, u32>,
}

impl Tally {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        // One can be added to what is below the greatest number.
        let total = words.next()?.parse().ok().filter(|&total| total < u64::MAX)?;
        let note = |word: &str| {
            let (id, count) = word.split_once('=')?;
            Some((id.to_owned(), count.parse().ok()?))
        };
        Some(Self { total, notes: words.map(note).collect::<Option<_>>()? })
    }

    /// False where this counter has added all that it was asked for.
    fn add(&mut self, id: &str, times: u32) -> bool {
        let own = self.notes.entry(id.to_owned()).or_default();
        if *own >= times {
            return false;
        }
        *own += 1;
        self.total += 1;
        true
    }
}

impl Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.total)?;
        self.notes.iter().try_for_each(|(id, count)| write!(formatter, " {id}={count}"))
    }
}
