//! What a user of Kubernetes sees, on a cluster of one node.

mod components;
mod images;
mod lifecycle;
mod namespace;
mod pod_spec;
mod workloads;

#[path = "../support/mod.rs"]
mod support;
