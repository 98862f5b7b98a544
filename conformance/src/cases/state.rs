//! State stores, asked by a guest: what Dapr's own conformance suite asks of every store (components-contrib,
//! `tests/conformance/state`).

mod interoperability;

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use components::{App, AppId};
use host_abi::error::ErrorClass;
use tokio::task::JoinSet;

use super::on_stores::{StoreGroup, on_stores};
use crate::guest::{Ended, Program, Subject};
use crate::runner::{Case, WORKERS};
use crate::store::{Store, StoreKind};

const STATE: Program = Program::Rust("state");

pub(super) fn cases() -> Vec<Case> {
    let of_every_store = on_stores! {
        StoreKind::ALL.map(group), State;
        what_is_set_comes_back,
        ten_megabytes_come_back,
        keys_of_any_script_are_kept,
        a_missing_key_is_empty_and_has_no_etag,
        a_deleted_key_is_empty_and_has_no_etag,
        deleting_a_missing_key_succeeds,
        an_etag_is_not_empty_and_changes_with_every_write,
        the_current_etag_is_accepted,
        a_set_with_a_wrong_etag_is_refused,
        a_set_with_a_malformed_etag_is_refused,
        a_delete_with_a_wrong_etag_is_refused,
        a_second_first_write_without_an_etag_fails,
        a_first_write_with_a_stale_etag_fails,
        the_last_of_two_last_writes_counts,
        every_consistency_is_taken,
        a_ttl_that_is_no_number_writes_nothing,
        a_value_is_gone_when_its_ttl_is_over,
        a_negative_ttl_clears_the_ttl,
        an_empty_key_is_refused,
        an_unknown_store_is_refused_by_its_name,
        the_guest_without_arguments_sets_z_and_prints_it,
        a_bulk_get_answers_every_key_in_order,
        a_bulk_write_applies_all_but_the_items_it_names,
        a_transaction_is_done_in_its_order,
        a_transaction_that_is_refused_changes_nothing,
        several_keys_of_an_unknown_store_are_refused_by_its_name,
    };
    let of_stores_with_an_expiry_column = on_stores! {
        [StoreKind::InMemory, StoreKind::Sqlite, StoreKind::Postgresql].map(group), State;
        an_omitted_ttl_clears_the_ttl,
    };
    let of_redis = on_stores! {
        [StoreKind::Redis].map(group), State;
        the_layout_in_redis_is_daprs,
        an_app_id_is_the_prefix_of_its_keys,
        a_server_that_is_down_is_an_error_until_it_is_back,
        guests_that_wait_for_a_server_hold_up_nobody,
    };
    let of_one_process = of_every_store.chain(of_stores_with_an_expiry_column).chain(of_redis);
    of_one_process.chain(interoperability::cases()).collect()
}

fn group(kind: StoreKind) -> StoreGroup {
    StoreGroup { name: format!("state::{}", kind.name()), program: STATE, kind, store: Store::new }
}

/// A store, and guests that use it, each for one call.
struct State {
    subject: Subject,
    store: Store,
}

/// What a guest got for a key.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    data: String,
    etag: Option<String>,
}

impl Item {
    fn missing() -> Self {
        Self { data: String::new(), etag: None }
    }
}

impl State {
    async fn run(&self, words: &[&str]) -> anyhow::Result<Ended> {
        let guest = self.subject.guest()?.args(&[&["state"], words].concat());
        guest.state_stores(self.store.state_stores()).start().await
    }

    async fn succeed(&self, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        self.run(words).await?.success().with_context(|| words.join(" "))
    }

    /// The guest must print an error of this class and end.
    async fn refuse(&self, words: &[&str], class: ErrorClass) -> anyhow::Result<()> {
        let ended = self.run(words).await?;
        let refused = ended.exit_code()? == 1 && ended.stderr().starts_with(&format!("{class}: component state: "));
        ensure!(refused, "{}: {ended:?}, not {class}", words.join(" "));
        Ok(())
    }

    async fn item(&self, key: &str) -> anyhow::Result<Item> {
        let printed = String::from_utf8(self.succeed(&["get", key, "--show-etag"]).await?)?;
        let printed = printed.strip_suffix('\n').context("no line")?;
        Ok(match printed.rsplit_once("\netag: ") {
            Some((data, etag)) => Item { data: data.to_owned(), etag: Some(etag.to_owned()) },
            None => Item { data: printed.to_owned(), etag: None },
        })
    }

    async fn data(&self, key: &str) -> anyhow::Result<String> {
        Ok(self.item(key).await?.data)
    }

    async fn etag(&self, key: &str) -> anyhow::Result<String> {
        self.item(key).await?.etag.with_context(|| format!("{key} has no etag"))
    }

    /// Sets bytes, and gets them back.
    async fn round_trip(&self, value: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut input = tempfile::tempfile()?;
        input.write_all(value)?;
        input.rewind()?;
        self.set_from(input).await?;
        let mut printed = self.succeed(&["get", "key"]).await?;
        ensure!(printed.pop() == Some(b'\n'));
        Ok(printed)
    }

    async fn set_from(&self, input: File) -> anyhow::Result<()> {
        let guest = self.subject.guest()?.args(&["state", "set", "key"]).stdin(input);
        guest.state_stores(self.store.state_stores()).start().await?.success().map(drop)
    }
}

async fn what_is_set_comes_back(state: State) -> anyhow::Result<()> {
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [b"text".as_slice(), b"", br#"{"a": [1, "b"]}"#, b"\0", b"\n", &every_byte] {
        ensure!(state.round_trip(value).await? == value);
    }
    Ok(())
}

async fn ten_megabytes_come_back(state: State) -> anyhow::Result<()> {
    let value: Vec<u8> = (0..10_000_000_u32).map(|index| (index % 251) as u8).collect();
    let same = state.round_trip(&value).await? == value;
    ensure!(same, "they are not the same");
    Ok(())
}

async fn keys_of_any_script_are_kept(state: State) -> anyhow::Result<()> {
    let keys = ["ключ", "鍵 with spaces", "quote ' \" \\ %s ?1", "|", "line\nbreak"];
    for key in keys {
        state.succeed(&["set", key, key]).await?;
    }
    for key in keys {
        ensure!(state.data(key).await? == key);
    }
    Ok(())
}

async fn a_missing_key_is_empty_and_has_no_etag(state: State) -> anyhow::Result<()> {
    let printed = state.succeed(&["get", "missing", "--show-etag", "--show-metadata"]).await?;
    ensure!(printed == b"\n", "{printed:?}");
    Ok(())
}

async fn a_deleted_key_is_empty_and_has_no_etag(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "value"]).await?;
    state.succeed(&["delete", "key"]).await?;
    ensure!(state.item("key").await? == Item::missing());
    Ok(())
}

async fn deleting_a_missing_key_succeeds(state: State) -> anyhow::Result<()> {
    state.succeed(&["delete", "missing"]).await.map(drop)
}

async fn an_etag_is_not_empty_and_changes_with_every_write(state: State) -> anyhow::Result<()> {
    let mut seen = Vec::new();
    for value in ["one", "two", "two"] {
        state.succeed(&["set", "key", value]).await?;
        let etag = state.etag("key").await?;
        ensure!(!etag.is_empty() && !seen.contains(&etag), "{etag:?} after {seen:?}");
        seen.push(etag);
    }
    Ok(())
}

async fn the_current_etag_is_accepted(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "one"]).await?;
    state.succeed(&["set", "key", "two", "--etag", &state.etag("key").await?]).await?;
    ensure!(state.data("key").await? == "two");
    state.succeed(&["delete", "key", "--etag", &state.etag("key").await?]).await?;
    ensure!(state.item("key").await? == Item::missing());
    Ok(())
}

/// Sets `key` to `one`, then to `two`: the etag of the first write.
async fn stale_etag(state: &State) -> anyhow::Result<String> {
    state.succeed(&["set", "key", "one"]).await?;
    let stale = state.etag("key").await?;
    state.succeed(&["set", "key", "two"]).await?;
    Ok(stale)
}

async fn a_set_with_a_wrong_etag_is_refused(state: State) -> anyhow::Result<()> {
    let stale = stale_etag(&state).await?;
    state.refuse(&["set", "key", "three", "--etag", &stale], ErrorClass::EtagMismatch).await?;
    ensure!(state.data("key").await? == "two");
    Ok(())
}

async fn a_set_with_a_malformed_etag_is_refused(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "one"]).await?;
    state.refuse(&["set", "key", "two", "--etag", "not-an-etag"], state.store.refusal_of_malformed_etags()).await?;
    ensure!(state.data("key").await? == "one");
    Ok(())
}

async fn a_delete_with_a_wrong_etag_is_refused(state: State) -> anyhow::Result<()> {
    let stale = stale_etag(&state).await?;
    state.refuse(&["delete", "key", "--etag", &stale], ErrorClass::EtagMismatch).await?;
    ensure!(state.data("key").await? == "two");
    Ok(())
}

async fn a_second_first_write_without_an_etag_fails(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "one", "--first-write"]).await?;
    ensure!(state.run(&["set", "key", "two", "--first-write"]).await?.exit_code()? == 1);
    ensure!(state.data("key").await? == "one");
    Ok(())
}

async fn a_first_write_with_a_stale_etag_fails(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "one", "--first-write"]).await?;
    let first = state.etag("key").await?;
    state.succeed(&["set", "key", "two", "--first-write", "--etag", &first]).await?;
    let stale = ["set", "key", "three", "--first-write", "--etag", &first];
    state.refuse(&stale, ErrorClass::EtagMismatch).await?;
    ensure!(state.data("key").await? == "two");
    Ok(())
}

async fn the_last_of_two_last_writes_counts(state: State) -> anyhow::Result<()> {
    for value in ["one", "two"] {
        state.succeed(&["set", "key", value, "--last-write"]).await?;
    }
    ensure!(state.data("key").await? == "two");
    Ok(())
}

async fn every_consistency_is_taken(state: State) -> anyhow::Result<()> {
    for consistency in ["eventual", "strong"] {
        state.succeed(&["set", "key", consistency, "--consistency", consistency]).await?;
        let printed = state.succeed(&["get", "key", "--consistency", consistency]).await?;
        ensure!(printed == format!("{consistency}\n").into_bytes());
        state.succeed(&["delete", "key", "--consistency", consistency]).await?;
    }
    Ok(())
}

async fn a_ttl_that_is_no_number_writes_nothing(state: State) -> anyhow::Result<()> {
    state.refuse(&["set", "key", "value", "--ttl", "foo"], ErrorClass::InvalidArgument).await?;
    ensure!(state.item("key").await? == Item::missing());
    state.succeed(&["set", "key", "one"]).await?;
    state.refuse(&["set", "key", "two", "--ttl", "foo"], ErrorClass::InvalidArgument).await?;
    ensure!(state.data("key").await? == "one");
    Ok(())
}

async fn a_value_is_gone_when_its_ttl_is_over(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "value", "--ttl", "2"]).await?;
    let written = Instant::now();
    ensure!(state.data("key").await? == "value");
    loop {
        let asked = written.elapsed();
        if state.item("key").await? == Item::missing() {
            return Ok(());
        }
        ensure!(asked < Duration::from_secs(3), "it was there after {asked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes a value that expires, then another with these options, which must not.
async fn clears_the_ttl(state: State, options: &[&str]) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "one", "--ttl", "1"]).await?;
    state.succeed(&[&["set", "key", "two"], options].concat()).await?;
    // Time is all that there is to wait for.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    ensure!(state.data("key").await? == "two");
    Ok(())
}

async fn a_negative_ttl_clears_the_ttl(state: State) -> anyhow::Result<()> {
    clears_the_ttl(state, &["--ttl", "-1"]).await
}

async fn an_omitted_ttl_clears_the_ttl(state: State) -> anyhow::Result<()> {
    clears_the_ttl(state, &[]).await
}

async fn an_empty_key_is_refused(state: State) -> anyhow::Result<()> {
    for words in [["set", "", "value"].as_slice(), &["get", ""], &["delete", ""]] {
        state.refuse(words, ErrorClass::InvalidArgument).await?;
    }
    Ok(())
}

async fn an_unknown_store_is_refused_by_its_name(state: State) -> anyhow::Result<()> {
    for words in [["set", "key", "value"].as_slice(), &["get", "key"], &["delete", "key"]] {
        let ended = state.run(&[words, &["--store", "another"]].concat()).await?;
        ensure!(
            ended.exit_code()? == 1 && ended.stderr() == "not-found: no state store \"another\"; configured: state\n"
        );
    }
    Ok(())
}

async fn the_guest_without_arguments_sets_z_and_prints_it(state: State) -> anyhow::Result<()> {
    ensure!(state.succeed(&[]).await? == b"value\n");
    Ok(())
}

async fn a_bulk_get_answers_every_key_in_order(state: State) -> anyhow::Result<()> {
    state.succeed(&["bulk-set", "one=1", "two=2", "three="]).await?;
    let printed = state.succeed(&["bulk-get", "two", "missing", "one", "three", "", "two"]).await?;
    let printed = String::from_utf8(printed)?;
    let lines: Vec<&str> = printed.lines().collect();
    let [two, missing, one, three, nameless, again] = lines[..] else { anyhow::bail!("{lines:?}") };
    ensure!([two, missing, one, three, again] == ["two: 2", "missing: ", "one: 1", "three: ", "two: 2"], "{lines:?}");
    ensure!(nameless.starts_with(": invalid-argument: component state: "), "{nameless}");
    Ok(())
}

async fn a_bulk_write_applies_all_but_the_items_it_names(state: State) -> anyhow::Result<()> {
    let stale = stale_etag(&state).await?;
    let refused = |ended: Ended| -> anyhow::Result<()> {
        let printed = ended.stderr().to_owned();
        let is_named = printed.starts_with("key: etag-mismatch: component state: ") && printed.lines().count() == 1;
        ensure!(ended.exit_code()? == 1 && is_named, "{printed}");
        Ok(())
    };
    refused(state.run(&["bulk-set", "one=1", &format!("key=three#{stale}"), "other=1"]).await?)?;
    ensure!([state.data("one").await?, state.data("key").await?, state.data("other").await?] == ["1", "two", "1"]);
    refused(state.run(&["bulk-delete", "one", &format!("key#{stale}"), "other", "missing"]).await?)?;
    ensure!([state.data("one").await?, state.data("key").await?, state.data("other").await?] == ["", "two", ""]);
    Ok(())
}

async fn a_transaction_is_done_in_its_order(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "old", "value"]).await?;
    let etag = state.etag("old").await?;
    let operations = ["set:key=one", "delete:key", "set:key=two", &format!("delete:old#{etag}"), "delete:missing"];
    state.succeed(&[&["transact"], &operations[..]].concat()).await?;
    ensure!(state.data("key").await? == "two");
    ensure!(state.item("old").await? == Item::missing());
    Ok(())
}

async fn a_transaction_that_is_refused_changes_nothing(state: State) -> anyhow::Result<()> {
    let stale = stale_etag(&state).await?;
    for (refused, class) in [
        (format!("set:key=three#{stale}"), ErrorClass::EtagMismatch),
        (format!("delete:key#{stale}"), ErrorClass::EtagMismatch),
        ("set:key=three#not-an-etag".to_owned(), state.store.refusal_of_malformed_etags()),
        ("set:=nameless".to_owned(), ErrorClass::InvalidArgument),
    ] {
        state.refuse(&["transact", "set:new=value", &refused, "delete:key"], class).await?;
        ensure!(state.item("new").await? == Item::missing(), "{refused}");
        ensure!(state.data("key").await? == "two", "{refused}");
    }
    Ok(())
}

async fn several_keys_of_an_unknown_store_are_refused_by_its_name(state: State) -> anyhow::Result<()> {
    for words in [["bulk-get", "key"], ["bulk-set", "key=value"], ["bulk-delete", "key"], ["transact", "delete:key"]] {
        let ended = state.run(&[&words[..], &["--store", "another"]].concat()).await?;
        ensure!(
            ended.exit_code()? == 1 && ended.stderr() == "not-found: no state store \"another\"; configured: state\n"
        );
    }
    Ok(())
}

/// Everything in the hash at a key of the server, by name.
fn hash(state: &mut State, key: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut fields: Vec<(String, String)> = state.store.redis()?.command(&["HGETALL", key]);
    fields.sort();
    Ok(fields)
}

fn version(data: &str, version: &str) -> Vec<(String, String)> {
    vec![("data".to_owned(), data.to_owned()), ("version".to_owned(), version.to_owned())]
}

async fn the_layout_in_redis_is_daprs(mut state: State) -> anyhow::Result<()> {
    state.succeed(&[]).await?;
    ensure!(hash(&mut state, "z")? == version("value", "1"));
    state.succeed(&["set", "z", "another"]).await?;
    ensure!(hash(&mut state, "z")? == version("another", "2"));
    Ok(())
}

async fn an_app_id_is_the_prefix_of_its_keys(mut state: State) -> anyhow::Result<()> {
    let app = App { id: Some(AppId::new("myapp")?), ..App::default() };
    state.store = Store::for_app(StoreKind::Redis, &app)?;
    state.succeed(&[]).await?;
    ensure!(hash(&mut state, "myapp||z")? == version("value", "1"));
    Ok(())
}

async fn a_server_that_is_down_is_an_error_until_it_is_back(mut state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "value"]).await?;
    state.store.redis()?.stop();
    state.refuse(&["get", "key"], ErrorClass::Unavailable).await?;
    state.store.redis()?.restart();
    ensure!(state.item("key").await? == Item::missing());
    state.succeed(&["set", "key", "value"]).await?;
    ensure!(state.data("key").await? == "value");
    Ok(())
}

async fn guests_that_wait_for_a_server_hold_up_nobody(mut state: State) -> anyhow::Result<()> {
    state.store.redis()?.command::<()>(&["CLIENT", "PAUSE", "100000", "WRITE"]);
    let mut waiting = JoinSet::new();
    for _ in 0..10 * WORKERS {
        let guest = state.subject.guest()?.args(&["state", "set", "key", "value"]);
        waiting.spawn(guest.state_stores(state.store.state_stores()).start());
    }
    let other = Store::new(StoreKind::InMemory)?;
    for _ in 0..10 {
        let guest = state.subject.guest()?.args(&["state"]).state_stores(other.state_stores());
        ensure!(guest.start().await?.success()? == b"value\n");
    }
    ensure!(waiting.len() == 10 * WORKERS && waiting.try_join_next().is_none(), "a paused server answers");
    state.store.redis()?.command::<()>(&["CLIENT", "UNPAUSE"]);
    while let Some(ended) = waiting.join_next().await {
        ended??.success()?;
    }
    Ok(())
}
