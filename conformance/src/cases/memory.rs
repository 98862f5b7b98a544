//! Hostile guests: whatever they pass their host is a trap that names the function and the argument, and harms
//! nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use engines::engine::{Stop, TrapKind};
use host_abi::http::{Method, Request};
use host_abi::state::{SetRequest, StateStore};

use crate::guest::{Program, Subject, wat};
use crate::runner::{Case, cases};
use crate::store::{self, Store, StoreKind};

pub(super) const HOSTILE: Program = wat!("hostile-memory");
const HANDLER: Program = wat!("hostile-handler");

const GET: &str = "dapr:state/state-interface.get";
const SET: &str = "dapr:state/state-interface.set";
const DELETE: &str = "dapr:state/state-interface.delete";
const SEND: &str = "dapr:http/http-client.send";
const HANDLE: &str = "dapr:http/http-handler#handle-http-request";

/// Exports of the guest, the function that each misuses, and what the trap says of it.
const MISUSES: &[(&str, &str, &str)] = &[
    ("name-outside-memory", GET, "name: 5 bytes at 0xffffffff reach past the end of memory (65536 bytes)"),
    ("name-longer-than-memory", GET, "name: 4294967295 bytes at 0x10 reach past the end of memory (65536 bytes)"),
    ("name-of-nothing-past-the-end", GET, "name: 0 bytes at 0x10001 reach past the end of memory (65536 bytes)"),
    ("key-not-utf8", GET, "req.key: the string at 0x20 is not UTF-8"),
    ("key-half-outside", GET, "req.key: 2 bytes at 0xffff reach past the end of memory (65536 bytes)"),
    ("metadata-neither-some-nor-none", GET, "req.metadata: discriminant 2 where there are 2 cases"),
    ("metadata-misaligned", GET, "req.metadata: address 0x41 is not aligned to 4 bytes"),
    (
        "metadata-longer-than-memory",
        GET,
        "req.metadata: 68719476720 bytes at 0x40 reach past the end of memory (65536 bytes)",
    ),
    (
        "metadata-overlapping",
        GET,
        "req.metadata[1].0: its parts overlap or are too many: \
         holding them takes more than the whole memory (65536 bytes)",
    ),
    (
        "metadata-value-outside-memory",
        GET,
        "req.metadata[0].1: 28672 bytes at 0xfffffffe reach past the end of memory (65536 bytes)",
    ),
    ("consistency-unknown", GET, "req.options.consistency: discriminant 3 where there are 3 cases"),
    ("result-misaligned", GET, "result: address 0x102 is not aligned to 4 bytes"),
    ("result-half-outside", GET, "result: 48 bytes at 0xffd4 reach past the end of memory (65536 bytes)"),
    ("parameters-misaligned", SET, "parameters: address 0x82 is not aligned to 4 bytes"),
    ("parameters-half-outside", SET, "parameters: 64 bytes at 0xffc8 reach past the end of memory (65536 bytes)"),
    (
        "value-longer-than-memory",
        SET,
        "req.value: 2147483648 bytes at 0x200 reach past the end of memory (65536 bytes)",
    ),
    ("etag-neither-some-nor-none", SET, "req.etag: discriminant 255 where there are 2 cases"),
    ("concurrency-unknown", SET, "req.options.concurrency: discriminant 3 where there are 3 cases"),
    (
        "content-type-outside-memory",
        SET,
        "req.content-type: 1 bytes at 0x10000 reach past the end of memory (65536 bytes)",
    ),
    ("etag-not-utf8", DELETE, "req.etag: the string at 0x20 is not UTF-8"),
    ("method-unknown", SEND, "req.method: discriminant 7 where there are 7 cases"),
    ("body-longer-than-memory", SEND, "req.body: 2147483647 bytes at 0x18 reach past the end of memory (65536 bytes)"),
    ("allocator-outside-memory", GET, "cabi_realloc: 5 bytes at 0xfffffff0 reach past the end of memory (65536 bytes)"),
    ("allocator-calls-its-host", GET, "called by cabi_realloc"),
];

/// Methods of a request, and what the trap says of the response that the guest has for it.
const RESPONSES: &[(&str, Method, &str)] = &[
    ("response_half_outside", Method::Get, "result: 28 bytes at 0xffe8 reach past the end of memory (65536 bytes)"),
    ("response_misaligned", Method::Post, "result: address 0x82 is not aligned to 4 bytes"),
    ("response_headers_neither_some_nor_none", Method::Put, "result.headers: discriminant 2 where there are 2 cases"),
    (
        "response_headers_longer_than_memory",
        Method::Delete,
        "result.headers: 68719476720 bytes at 0x40 reach past the end of memory (65536 bytes)",
    ),
    ("response_header_not_utf8", Method::Patch, "result.headers[0].0: the string at 0x10 is not UTF-8"),
    (
        "response_body_longer_than_memory",
        Method::Head,
        "result.body: 2147483647 bytes at 0x400 reach past the end of memory (65536 bytes)",
    ),
];

pub(super) fn cases() -> Vec<Case> {
    let misuse = |&(export, function, fault): &(&'static str, &'static str, &'static str)| {
        Case::new("memory", export.replace('-', "_"), HOSTILE, move |subject| {
            is_named(subject, export, format!("{function}: {fault}"))
        })
    };
    let response = |&(name, method, fault): &(&'static str, Method, &'static str)| {
        Case::new("memory", name, HANDLER, move |subject| response_is_named(subject, method, fault))
    };
    let mut cases: Vec<Case> = MISUSES.iter().map(misuse).chain(RESPONSES.iter().map(response)).collect();
    cases.extend(cases! {
        "memory", HOSTILE;
        what_is_well_formed_is_answered,
        an_allocator_that_misaligns_is_named,
        an_allocator_that_traps_is_the_guests_trap,
    });
    cases.extend(cases! { "memory", HANDLER; a_trap_while_a_response_is_freed_is_the_guests });
    cases.extend(cases! { "memory", wat!("no-allocator"); a_guest_without_an_allocator_traps_when_one_is_needed });
    cases.extend(cases! { "memory", wat!("no-memory"); a_guest_without_memory_traps });
    cases
}

pub(super) type Stores = BTreeMap<String, Arc<dyn StateStore>>;

/// A store whose answer to `get` takes an allocation for each part that it can have.
pub(super) async fn stored() -> anyhow::Result<Stores> {
    let stores = Store::new(StoreKind::InMemory)?.state_stores();
    let request = SetRequest {
        key: "key".to_owned(),
        value: Bytes::from_static(b"value"),
        metadata: Some(vec![("ttlInSeconds".to_owned(), "1000".to_owned())]),
        ..SetRequest::default()
    };
    stores[store::NAME].set(request).await?;
    Ok(stores)
}

async fn is_named(subject: Subject, export: &'static str, message: String) -> anyhow::Result<()> {
    let trap = subject.guest()?.state_stores(stored().await?).run(export).await?.trap()?;
    ensure!(trap.kind == TrapKind::HostAbi && trap.message.as_ref() == Some(&message), "{trap}");
    subject.guest()?.state_stores(stored().await?).run("well-formed").await?.success().context("the next guest")?;
    Ok(())
}

async fn response_is_named(subject: Subject, method: Method, fault: &'static str) -> anyhow::Result<()> {
    let answered = subject.guest()?.answer(request(method)).await;
    let Err(Stop::Trap(trap)) = answered else { anyhow::bail!("no trap but {answered:?}") };
    let message = format!("{HANDLE}: {fault}");
    ensure!(trap.kind == TrapKind::HostAbi && trap.message.as_ref() == Some(&message), "{trap}");
    Ok(())
}

fn request(method: Method) -> Request {
    let headers = vec![("host".to_owned(), "localhost".to_owned())];
    Request { method, uri: "/".to_owned(), headers, ..Request::default() }
}

async fn what_is_well_formed_is_answered(subject: Subject) -> anyhow::Result<()> {
    subject.guest()?.state_stores(stored().await?).run("well-formed").await?.success()?;
    Ok(())
}

async fn an_allocator_that_misaligns_is_named(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.state_stores(stored().await?).run("allocator-misaligned").await?.trap()?;
    let message = trap.message.clone().unwrap_or_default();
    let named = message.starts_with(&format!("{GET}: cabi_realloc: address "));
    ensure!(trap.kind == TrapKind::HostAbi && named && message.ends_with(" is not aligned to 4 bytes"), "{trap}");
    Ok(())
}

async fn an_allocator_that_traps_is_the_guests_trap(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.state_stores(stored().await?).run("allocator-traps").await?.trap()?;
    ensure!(trap.kind == TrapKind::Unreachable, "{trap}");
    Ok(())
}

async fn a_trap_while_a_response_is_freed_is_the_guests(subject: Subject) -> anyhow::Result<()> {
    let answered = subject.guest()?.answer(request(Method::Options)).await;
    ensure!(
        matches!(&answered, Err(Stop::Trap(trap)) if trap.kind == TrapKind::Unreachable),
        "no trap but {answered:?}"
    );
    Ok(())
}

async fn a_guest_without_an_allocator_traps_when_one_is_needed(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.state_stores(stored().await?).start().await?.trap()?;
    ensure!(trap.kind == TrapKind::MissingExport && trap.to_string().contains("\"cabi_realloc\""), "{trap}");
    Ok(())
}

async fn a_guest_without_memory_traps(subject: Subject) -> anyhow::Result<()> {
    let trap = subject.guest()?.state_stores(stored().await?).run("get").await?.trap()?;
    let message = format!("{GET}: name: 5 bytes at 0x10 reach past the end of memory (0 bytes)");
    ensure!(trap.kind == TrapKind::HostAbi && trap.message.as_ref() == Some(&message), "{trap}");
    Ok(())
}
