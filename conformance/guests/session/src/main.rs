//! A session in a Dapr state store: a token at `session/USER`, which the store forgets when its time is over.
//!
//! A session that is closed stays for a while, as an empty value. In Redis a write with an etag succeeds on a key that
//! was deleted, so that a touch at the same time could open it again.

use std::process::ExitCode;

use store::{Failure, Item, Outcome, Store, positive, random_id};

const USAGE: &str = "\
usage: session [--store NAME] open USER SECONDS      prints the token of the session
       session [--store NAME] touch USER SECONDS     from now
       session [--store NAME] show USER
       session [--store NAME] close USER";

/// Longer than a touch takes.
const SECONDS_AFTER_CLOSE: u32 = 60;

fn main() -> ExitCode {
    store::run(USAGE, |store, words| match *words {
        ["open", user, seconds] => open(store, &session_key(user), positive(seconds)?),
        ["touch", user, seconds] => touch(store, &session_key(user), positive(seconds)?),
        ["show", user] => show(store, &session_key(user)),
        ["close", user] => close(store, &session_key(user)),
        _ => Err(Failure::Usage),
    })
}

fn session_key(user: &str) -> String {
    format!("session/{user}")
}

/// Only one of several that open the same session at once succeeds.
fn open(store: &Store, key: &str, seconds: u32) -> Result<(), Failure> {
    let token = random_id();
    loop {
        let seen = store.get(key)?;
        if seen.as_ref().is_some_and(is_open) {
            return Err(Failure::Other(format!("{key} is open already")));
        }
        if let Outcome::Written = store.set_for(seconds, key, token.clone().into_bytes(), seen.as_ref())? {
            println!("{token}");
            return Ok(());
        }
    }
}

fn touch(store: &Store, key: &str, seconds: u32) -> Result<(), Failure> {
    loop {
        let seen = existing(store, key)?;
        if let Outcome::Written = store.set_for(seconds, key, seen.data.clone(), Some(&seen))? {
            return Ok(());
        }
    }
}

fn close(store: &Store, key: &str) -> Result<(), Failure> {
    loop {
        let Some(seen) = store.get(key)?.filter(is_open) else { return Ok(()) };
        if let Outcome::Written = store.set_for(SECONDS_AFTER_CLOSE, key, Vec::new(), Some(&seen))? {
            return Ok(());
        }
    }
}

fn show(store: &Store, key: &str) -> Result<(), Failure> {
    println!("{}", String::from_utf8_lossy(&existing(store, key)?.data));
    Ok(())
}

fn existing(store: &Store, key: &str) -> Result<Item, Failure> {
    store.get(key)?.filter(is_open).ok_or_else(|| Failure::Other(format!("there is no {key}")))
}

fn is_open(item: &Item) -> bool {
    !item.data.is_empty()
}
