//! The process that the shim starts for each container.

use std::process::ExitCode;

use shim::guest_host::GuestHost;

fn main() -> ExitCode {
    GuestHost::new().main()
}
