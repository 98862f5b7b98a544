//! Guests built for the original ABI, before this project existed: they run as they are.

use anyhow::ensure;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::http::Server;
use crate::guest::{Subject, wat};
use crate::runner::{Case, cases};
use crate::store::{Store, StoreKind};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases! { "original-abi", wat!("original-abi"); a_handler_answers, a_handler_gets_the_body };
    cases.extend(cases! {
        "original-abi", wat!("original-abi-state");
        a_command_sets_and_gets,
        a_command_without_a_store_gets_an_error,
    });
    cases
}

async fn a_handler_answers(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for _ in 0..3 {
        let response = server.get("/").await?;
        ensure!(response.status() == StatusCode::OK);
        ensure!(response.headers().get_all("x-abi").iter().eq(["original"]));
        ensure!(response.body() == "original abi");
    }
    server.stop().await
}

async fn a_handler_gets_the_body(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start(subject.guest()?).await?;
    for bytes in [1, 1000, 1_000_000] {
        let body = Bytes::from(vec![b'x'; bytes]);
        ensure!(server.send(Method::POST, "/", body.clone()).await?.body() == &body);
    }
    server.stop().await
}

async fn a_command_sets_and_gets(subject: Subject) -> anyhow::Result<()> {
    for kind in [StoreKind::InMemory, StoreKind::Sqlite] {
        let store = Store::new(kind)?;
        let ended = subject.guest()?.state_stores(store.state_stores()).start().await?;
        ensure!(ended.success()? == b"value", "{}", kind.name());
    }
    Ok(())
}

async fn a_command_without_a_store_gets_an_error(subject: Subject) -> anyhow::Result<()> {
    let ended = subject.guest()?.start().await?;
    ensure!(ended.exit_code()? == 1);
    ensure!(ended.stderr() == "not-found: no state store \"state\"; configured: none");
    Ok(())
}
