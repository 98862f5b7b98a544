//! Real servers for tests, each on loopback or in a network of its own, in a folder of its own, ended with the value
//! that stands for it.

pub mod containerd;
pub mod kubernetes;
mod loopback;
pub mod mounts;
pub mod network;
pub mod pause;
pub mod pods;
pub mod postgresql;
pub mod redis;
