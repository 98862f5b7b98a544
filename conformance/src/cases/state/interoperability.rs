//! A guest and a Dapr application on one store, both with the app id `shop`.

use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use components::{App, AppId};
use host_abi::error::ErrorClass;

use super::{Item, STATE, State};
use crate::cases::on_stores::{StoreGroup, on_stores};
use crate::dapr::{Dapr, Stored, Write};
use crate::runner::Case;
use crate::store::{Store, StoreKind};

/// Where the guest's `key` lies.
const KEY: &str = "shop||key";

pub(super) fn cases() -> Vec<Case> {
    let of_stores_that_can_be_shared = on_stores! {
        [StoreKind::Sqlite, StoreKind::Redis, StoreKind::Postgresql].map(group), State;
        what_dapr_wrote_is_read_and_written_on,
        what_a_guest_wrote_dapr_reads_and_writes_on,
        dapr_finds_tables_that_a_guest_made,
        of_a_guest_and_dapr_the_later_is_refused,
        of_two_first_writes_the_second_fails_whose_ever_it_is,
        what_one_deletes_the_other_does_not_find,
        a_time_to_live_counts_for_both,
        a_transaction_of_a_guest_is_there_for_dapr,
    };
    let of_sqlite = on_stores! { [StoreKind::Sqlite].map(group), State; what_dapr_wrote_as_json_is_read, };
    of_stores_that_can_be_shared.chain(of_sqlite).collect()
}

fn group(kind: StoreKind) -> StoreGroup {
    StoreGroup { name: format!("state::{}::shared-with-dapr", kind.name()), program: STATE, kind, store: shop_store }
}

fn shop_store(kind: StoreKind) -> anyhow::Result<Store> {
    Store::for_app(kind, &App { id: Some(AppId::new("shop")?), ..App::default() })
}

fn write(value: &str) -> Write<'_> {
    Write { value: value.as_bytes(), ..Write::default() }
}

async fn stored(dapr: &Dapr<'_>) -> anyhow::Result<Stored> {
    dapr.get(KEY).await?.context("Dapr finds nothing")
}

async fn what_dapr_wrote_is_read_and_written_on(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    for value in ["theirs", ""] {
        ensure!(dapr.set(KEY, write(value)).await?);
        let etag = stored(&dapr).await?.etag;
        ensure!(state.item("key").await? == Item { data: value.to_owned(), etag: Some(etag.clone()) });
        state.succeed(&["set", "key", "ours", "--etag", &etag]).await?;
        ensure!(stored(&dapr).await?.value == b"ours");
    }
    Ok(())
}

async fn what_a_guest_wrote_dapr_reads_and_writes_on(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut input = tempfile::tempfile()?;
    input.write_all(&every_byte)?;
    input.rewind()?;
    state.set_from(input).await?;
    ensure!(stored(&dapr).await?.value == every_byte);
    state.succeed(&["set", "key", "ours"]).await?;
    let etag = state.etag("key").await?;
    ensure!(stored(&dapr).await? == Stored { value: b"ours".to_vec(), etag: etag.clone() });
    ensure!(dapr.set(KEY, Write { etag: Some(&etag), ..write("theirs") }).await?);
    ensure!(state.data("key").await? == "theirs");
    Ok(())
}

async fn dapr_finds_tables_that_a_guest_made(state: State) -> anyhow::Result<()> {
    state.succeed(&["set", "key", "ours"]).await?;
    let dapr = state.store.dapr().await?;
    ensure!(stored(&dapr).await?.value == b"ours");
    Ok(())
}

async fn of_a_guest_and_dapr_the_later_is_refused(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    state.succeed(&["set", "key", "one"]).await?;
    let seen_by_both = state.etag("key").await?;
    ensure!(dapr.set(KEY, Write { etag: Some(&seen_by_both), ..write("theirs") }).await?);
    state.refuse(&["set", "key", "ours", "--etag", &seen_by_both], ErrorClass::EtagMismatch).await?;
    state.refuse(&["delete", "key", "--etag", &seen_by_both], ErrorClass::EtagMismatch).await?;
    let seen_by_both = stored(&dapr).await?.etag;
    state.succeed(&["set", "key", "ours", "--etag", &seen_by_both]).await?;
    ensure!(!dapr.set(KEY, Write { etag: Some(&seen_by_both), ..write("theirs") }).await?);
    ensure!(!dapr.delete(KEY, Some(&seen_by_both)).await?);
    ensure!(state.data("key").await? == "ours");
    Ok(())
}

async fn of_two_first_writes_the_second_fails_whose_ever_it_is(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    let first_write = Write { first_write: true, ..write("theirs") };
    ensure!(dapr.set(KEY, first_write).await?);
    ensure!(state.run(&["set", "key", "ours", "--first-write"]).await?.exit_code()? == 1);
    ensure!(dapr.delete(KEY, None).await?);
    state.succeed(&["set", "key", "ours", "--first-write"]).await?;
    ensure!(!dapr.set(KEY, first_write).await?);
    ensure!(state.data("key").await? == "ours");
    Ok(())
}

async fn what_one_deletes_the_other_does_not_find(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    ensure!(dapr.set(KEY, write("theirs")).await?);
    state.succeed(&["delete", "key", "--etag", &stored(&dapr).await?.etag]).await?;
    ensure!(dapr.get(KEY).await?.is_none());
    state.succeed(&["set", "key", "ours"]).await?;
    ensure!(dapr.delete(KEY, Some(&state.etag("key").await?)).await?);
    ensure!(state.item("key").await? == Item::missing());
    Ok(())
}

async fn a_time_to_live_counts_for_both(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    ensure!(dapr.set("shop||theirs", Write { seconds: Some(3), ..write("theirs") }).await?);
    state.succeed(&["set", "key", "ours", "--ttl", "3"]).await?;
    ensure!(state.data("theirs").await? == "theirs" && stored(&dapr).await?.value == b"ours");
    let written = Instant::now();
    loop {
        let asked = written.elapsed();
        if state.item("theirs").await? == Item::missing() && dapr.get(KEY).await?.is_none() {
            return Ok(());
        }
        ensure!(asked < Duration::from_secs(4), "they are there after {asked:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_transaction_of_a_guest_is_there_for_dapr(state: State) -> anyhow::Result<()> {
    let dapr = state.store.dapr().await?;
    ensure!(dapr.set(KEY, write("theirs")).await?);
    let etag = stored(&dapr).await?.etag;
    state.succeed(&["transact", &format!("delete:key#{etag}"), "set:other=ours"]).await?;
    ensure!(dapr.get(KEY).await?.is_none());
    let other = dapr.get("shop||other").await?.context("Dapr does not find the other")?;
    ensure!(other.value == b"ours" && other.etag == state.etag("other").await?);
    Ok(())
}

async fn what_dapr_wrote_as_json_is_read(state: State) -> anyhow::Result<()> {
    let Dapr::Sqlite(dapr) = state.store.dapr().await? else { anyhow::bail!("only SQLite tells JSON from bytes") };
    dapr.set_json(KEY, r#"{"count": 1}"#)?;
    let Item { data, etag } = state.item("key").await?;
    ensure!(data == r#"{"count": 1}"#);
    state.succeed(&["set", "key", "ours", "--etag", &etag.context("no etag")?]).await?;
    ensure!(state.data("key").await? == "ours");
    Ok(())
}
