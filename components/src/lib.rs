//! Dapr components: read from Dapr's own Component YAML, ready for the host functions of `host-abi`.
//!
//! - [`manifest`] reads files and folders of Component documents and reports everything that is wrong at once.
//! - [`field`] describes what a component's metadata may hold; docs/components.md is made of the descriptions.
//! - `configuration` holds what Configuration documents among the manifests forbid.
//! - [`registry`] knows which component types exist, and [loads](registry::Registry::load) a folder for one app.
//! - [`resiliency`] does with calls what Resiliency documents among the manifests say: time-outs, retries, circuit
//!   breakers.
//! - [`secrets`] holds the secret stores, which other components and guests have their secrets from.
//! - [`state`] holds the state stores: in memory always, `postgresql`, `redis` and `sqlite` as cargo features.
//!
//! Loading does no I/O but to read the manifests, the secrets they refer to and the root certificates of the system:
//! no store is contacted, no other file opened and no thread started before a guest makes the first call. A store
//! that is down then is not the end of the container: the first calls wait for it until the component's `initTimeout`
//! is over, and from then on that it is down is an answer to the guest, and the next call tries again.

#![forbid(unsafe_code)]

pub mod app;
mod configuration;
pub mod duration;
pub mod field;
pub mod manifest;
pub mod properties;
pub mod registry;
pub mod resiliency;
pub mod secrets;
pub mod state;

pub use app::{App, AppId};
pub use field::{Description, Field};
pub use manifest::Faults;
pub use registry::{Components, Registry};
