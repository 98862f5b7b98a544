//! The example guests, each in Rust and in C, on every store.

mod cart;
mod counter;
mod session;

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use host_abi::state::{GetRequest, SetRequest, StateStore};

use super::on_stores::StoreGroup;
use crate::guest::{Ended, Guest, Program, Subject};
use crate::runner::Case;
use crate::store::{NAME, Store, StoreKind};

pub(super) fn cases() -> Vec<Case> {
    counter::cases().chain(cart::cases()).chain(session::cases()).collect()
}

/// For both programs of a name, on each kind of store.
fn groups(name: &'static str) -> impl Iterator<Item = StoreGroup> {
    [Program::Rust(name), Program::C(name)].into_iter().flat_map(groups_of)
}

fn groups_of(program: Program) -> [StoreGroup; StoreKind::ALL.len()] {
    StoreKind::ALL.map(|kind| group(program, kind))
}

fn group(program: Program, kind: StoreKind) -> StoreGroup {
    let language = if let Program::C(_) = program { "c" } else { "rust" };
    let name = format!("examples::{}::{language}::{}", program.name(), kind.name());
    StoreGroup { name, program, kind, store: Store::new }
}

/// A program, each of whose guests does one command, and the store that they share.
struct Example {
    subject: Subject,
    store: Store,
}

impl Example {
    fn guest(&self, words: &[&str]) -> anyhow::Result<Guest> {
        let guest = self.subject.guest()?.args(&[&[self.subject.program.name()], words].concat());
        Ok(guest.state_stores(self.store.state_stores()))
    }

    /// What a guest prints that succeeds.
    async fn printed(&self, words: &[&str]) -> anyhow::Result<String> {
        let printed = self.guest(words)?.start().await?.success().with_context(|| words.join(" "))?;
        Ok(String::from_utf8(printed)?)
    }

    /// What a guest says that fails.
    async fn refused(&self, words: &[&str]) -> anyhow::Result<String> {
        let ended = self.guest(words)?.start().await?;
        ensure!(ended.exit_code()? == 1 && ended.stdout.is_empty(), "{}: {ended:?}", words.join(" "));
        Ok(ended.stderr())
    }

    /// Lets guests do these commands at the same time.
    async fn at_once(&self, commands: &[&[&str]]) -> anyhow::Result<Vec<Ended>> {
        let mut guests = Vec::new();
        for words in commands {
            guests.push(tokio::spawn(self.guest(words)?.start()));
        }
        let mut ended = Vec::new();
        for guest in guests {
            ended.push(guest.await??);
        }
        Ok(ended)
    }

    fn state_store(&self) -> anyhow::Result<Arc<dyn StateStore>> {
        self.store.state_stores().remove(NAME).context("no store")
    }

    /// What is in the store at a key; nothing where it does not exist.
    async fn value(&self, key: &str) -> anyhow::Result<String> {
        let response = self.state_store()?.get(GetRequest { key: key.to_owned(), ..GetRequest::default() }).await?;
        Ok(String::from_utf8(response.data.to_vec())?)
    }

    /// Writes what another program may have written.
    async fn write(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        Ok(self.state_store()?.set(SetRequest { key: key.to_owned(), value, ..SetRequest::default() }).await?)
    }

    /// Each of these commands prints the usage and ends with code 2.
    async fn know_none_of(&self, commands: &[&[&str]]) -> anyhow::Result<()> {
        let usage = format!("usage: {} [--store NAME] ", self.subject.program.name());
        for words in commands {
            let ended = self.guest(words)?.start().await?;
            ensure!(ended.exit_code()? == 2 && ended.stderr().starts_with(&usage), "{}: {ended:?}", words.join(" "));
        }
        Ok(())
    }

    /// A store that is not configured is named as the host names it.
    async fn find_no_other_store(&self, words: &[&str]) -> anyhow::Result<()> {
        let said = self.refused(&[&["--store", "another"], words].concat()).await?;
        ensure!(said == "not-found: no state store \"another\"; configured: state\n", "{said}");
        self.printed(&[&["--store", NAME], words].concat()).await.map(drop)
    }
}
