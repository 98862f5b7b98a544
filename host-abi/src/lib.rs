//! What a guest can ask of its host: the interfaces of `host-abi/wit`, independent of any engine and any store.
//!
//! - [`canonical`] is the Component Model's canonical ABI for core modules: how typed values cross the
//!   boundary of a guest's memory.
//! - [`state`], [`secrets`] and [`http`] hold the types of each WIT interface and the trait that an implementation provides.
//! - [`host_functions`] is the one table of functions that every engine adapter binds.

#![forbid(unsafe_code)]

pub mod canonical;
pub mod error;
pub mod host_functions;
pub mod http;
pub mod secrets;
pub mod state;
