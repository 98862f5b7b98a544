//! `counter`: increments that are neither lost nor done twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::ensure;
use async_trait::async_trait;
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};
use tokio::task::JoinSet;

use super::{Example, group, groups, groups_of};
use crate::cases::on_stores::{StoreGroup, on_stores};
use crate::guest::Program;
use crate::runner::Case;
use crate::store::{NAME, Store, StoreKind};

pub(super) fn cases() -> impl Iterator<Item = Case> {
    let small = on_stores! {
        groups("counter"), Example;
        a_counter_alone_reaches_its_number,
        counters_at_once_lose_nothing,
        a_write_that_is_not_answered_counts_once,
        a_value_that_is_no_number_is_left_alone,
        the_notes_of_others_are_kept,
        what_is_no_count_prints_the_usage,
    };
    let fifty = on_stores! { groups_of(RUST), Example; fifty_counters_at_once_reach_ten_thousand };
    let on_durable_redis = StoreGroup { store: |_| Store::on_durable_redis(), ..group(RUST, StoreKind::Redis) };
    let restarts = on_stores! { [on_durable_redis], Example; fifty_counters_do_so_while_redis_is_restarted };
    small.chain(fifty).chain(restarts)
}

const RUST: Program = Program::Rust("counter");

async fn a_counter_alone_reaches_its_number(example: Example) -> anyhow::Result<()> {
    ensure!(example.printed(&["key", "5"]).await? == "value: 5\nconflicts: 0\n");
    ensure!(example.value("key").await? == "5");
    example.write("other", "41").await?;
    ensure!(example.printed(&["other", "1"]).await? == "value: 42\nconflicts: 0\n");
    example.find_no_other_store(&["key", "1"]).await?;
    ensure!(example.value("key").await? == "6");
    Ok(())
}

async fn counters_at_once_lose_nothing(example: Example) -> anyhow::Result<()> {
    for ended in example.at_once(&[["key", "25"].as_slice(); 4]).await? {
        ended.success()?;
    }
    let value = example.value("key").await?;
    ensure!(value == "100", "{value}");
    Ok(())
}

async fn fifty_counters_at_once_reach_ten_thousand(example: Example) -> anyhow::Result<()> {
    for ended in example.at_once(&[["key", "200"].as_slice(); 50]).await? {
        ended.success()?;
    }
    let value = example.value("key").await?;
    ensure!(value == "10000", "{value}");
    Ok(())
}

async fn fifty_counters_do_so_while_redis_is_restarted(mut example: Example) -> anyhow::Result<()> {
    let mut counters = JoinSet::new();
    for _ in 0..50 {
        counters.spawn(example.guest(&["key", "200"])?.start());
    }
    for reached in [2_000, 5_000, 8_000] {
        while example.total().await? < reached {
            ensure!(!counters.is_empty(), "the counters ended before {reached}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        example.store.redis()?.restart();
    }
    while let Some(ended) = counters.join_next().await {
        ended??.success()?;
    }
    let value = example.value("key").await?;
    ensure!(value == "10000", "{value}");
    Ok(())
}

impl Example {
    /// How far the counters of `key` have come.
    async fn total(&self) -> anyhow::Result<u32> {
        let value = self.value("key").await?;
        let total = value.split(' ').next().unwrap_or_default();
        Ok(if total.is_empty() { 0 } else { total.parse()? })
    }
}

/// A store to which, of every four writes, one does not come, and from which the answer of another does not.
struct Unreliable {
    store: Arc<dyn StateStore>,
    writes: AtomicU32,
}

#[async_trait]
impl StateStore for Unreliable {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        self.store.get(request).await
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        let unanswered = Err(Error::new(ErrorClass::Unavailable, "no answer"));
        match self.writes.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => self.store.set(request).await.and(unanswered),
            2 => unanswered,
            _ => self.store.set(request).await,
        }
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.store.delete(request).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.store.transact(operations).await
    }
}

async fn a_write_that_is_not_answered_counts_once(example: Example) -> anyhow::Result<()> {
    let unreliable = Unreliable { store: example.state_store()?, writes: AtomicU32::new(0) };
    let stores = BTreeMap::from([(NAME.to_owned(), Arc::new(unreliable) as Arc<dyn StateStore>)]);
    let counter = || anyhow::Ok(example.guest(&["key", "10"])?.state_stores(stores.clone()).start());
    let (one, other) = tokio::join!(counter()?, counter()?);
    one?.success()?;
    other?.success()?;
    let value = example.value("key").await?;
    ensure!(value == "20", "{value}");
    Ok(())
}

async fn a_value_that_is_no_number_is_left_alone(example: Example) -> anyhow::Result<()> {
    for value in ["text", "-1", "1.5", "4 2", "4 note=", "4 note=2 ", "18446744073709551615", "1\0"] {
        example.write("key", value).await?;
        let said = example.refused(&["key", "1"]).await?;
        ensure!(said == "key is no number that can be added to\n", "{value:?}: {said}");
        ensure!(example.value("key").await? == value);
    }
    Ok(())
}

async fn the_notes_of_others_are_kept(example: Example) -> anyhow::Result<()> {
    example.write("key", "40 4f1c=12 90ab=7").await?;
    ensure!(example.printed(&["key", "2"]).await? == "value: 42\nconflicts: 0\n");
    ensure!(example.value("key").await? == "42 4f1c=12 90ab=7");
    Ok(())
}

async fn what_is_no_count_prints_the_usage(example: Example) -> anyhow::Result<()> {
    let commands: [&[&str]; 6] =
        [&[], &["key"], &["key", "0"], &["key", "many"], &["key", "4294967296"], &["key", "1", "2"]];
    example.know_none_of(&commands).await
}
