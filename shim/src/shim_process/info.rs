//! The answer to `-info`, by which containerd 2.2 and later ask what a runtime is.

use std::io::{self, Write as _};

use containerd_shim::protos::protobuf::{Message as _, MessageField};
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};

/// Writes the runtime's name and version to standard output, as containerd's `types.RuntimeInfo`. The options that
/// containerd sends on standard input change nothing in it.
pub(super) fn answer(runtime_id: &str) -> anyhow::Result<()> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").to_owned(), ..RuntimeVersion::default() };
    let info =
        RuntimeInfo { name: runtime_id.to_owned(), version: MessageField::some(version), ..RuntimeInfo::default() };
    io::stdout().write_all(&info.write_to_bytes()?)?;
    Ok(())
}
