//! Instances that answer more than one request.

use std::time::Duration;

use anyhow::ensure;
use http::StatusCode;
use shim::guest_host::trigger::http::{HttpOptions, Instances};

use super::Server;
use crate::guest::{Subject, wat};
use crate::runner::{Case, cases};

pub(super) fn cases() -> Vec<Case> {
    cases! {
        "http-reuse", wat!("handler");
        an_instance_is_used_again_with_its_memory,
        an_instance_that_trapped_exited_or_took_too_long_is_not_used_again,
        requests_at_once_have_an_instance_each,
    }
}

fn reuse() -> HttpOptions {
    HttpOptions { instances: Instances::Reuse, ..HttpOptions::default() }
}

async fn an_instance_is_used_again_with_its_memory(subject: Subject) -> anyhow::Result<()> {
    let server = Server::start_with(subject.guest()?, reuse()).await?;
    ensure!(server.get("/memory").await?.body() == "fresh");
    for _ in 0..10 {
        ensure!(server.get("/memory").await?.body() == "used");
    }
    server.stop().await
}

async fn an_instance_that_trapped_exited_or_took_too_long_is_not_used_again(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { request_timeout: Duration::from_millis(200), ..reuse() };
    let server = Server::start_with(subject.guest()?, options).await?;
    for (path, status) in [("/trap", 500), ("/exit", 500), ("/loop", 504)] {
        ensure!(server.get("/memory").await?.body() == "fresh", "before {path}");
        ensure!(server.get("/memory").await?.body() == "used", "before {path}");
        ensure!(server.get(path).await?.status() == status, "{path}");
    }
    ensure!(server.get("/memory").await?.body() == "fresh");
    server.stop().await
}

async fn requests_at_once_have_an_instance_each(subject: Subject) -> anyhow::Result<()> {
    let options = HttpOptions { request_timeout: Duration::from_secs(1), ..reuse() };
    let server = Server::start_with(subject.guest()?, options).await?;
    ensure!(server.get("/memory").await?.body() == "fresh");
    let (looped, answered) = tokio::join!(server.get("/loop"), server.get("/memory"));
    ensure!(looped?.status() == StatusCode::GATEWAY_TIMEOUT);
    ensure!(answered?.status() == StatusCode::OK);
    server.stop().await
}
