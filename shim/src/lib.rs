//! containerd and OCI live here and nowhere else.
//!
//! Three programs, all thin around this library:
//! - [`shim_process`]: `containerd-shim-dapr-v1`, which containerd starts; one stays for each sandbox and
//!   serves the task API. It never runs a guest.
//! - [`guest_host`]: `dapr-guest-host`, one for each container, in the container's namespaces and cgroup. It holds
//!   the engine, the host ABI, the components and the trigger.
//! - [`operator_tool`]: `dapr-wasm`, with which a node's operator looks after the artifact cache.
//!
//! They talk through [`protocol`].

mod cgroup_path;
pub mod guest_host;
mod idle_memory;
mod inheritance;
mod logging;
mod operator_config;
pub mod operator_tool;
mod printable;
mod protocol;
mod quantity;
mod read_only;
pub mod shim_process;
mod systemd;
