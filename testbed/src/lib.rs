//! Real servers for tests, each on loopback, in a folder of its own, ended with the value that stands for it.

pub mod containerd;
pub mod redis;
