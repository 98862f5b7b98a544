//! The process that the shim starts for each container.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use shim::guest_host::GuestHost;

/// See docs/decisions/0008-a-fresh-instance-for-each-request.md.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    GuestHost::new().main()
}
