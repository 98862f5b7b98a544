//! The runtime's options in a create request: `runtimeoptions.v1.Options`, as containerd's CRI plugin and
//! `ctr run --runtime-config-path` send them.

use std::path::Path;

use anyhow::bail;
use containerd_shim::protos::protobuf::CodedInputStream;
use containerd_shim::protos::protobuf::well_known_types::any::Any;

use crate::operator_config::OperatorConfig;

/// Source: containerd, `api/types/runtimeoptions/v1/api.proto`.
const TYPE: &str = "runtimeoptions.v1.Options";
/// Field 2, a string (wire type 2).
const CONFIG_PATH: u32 = (2 << 3) | 2;

/// The configuration that the options name, or else the usual one.
pub(super) fn operator_config(options: Option<&Any>) -> anyhow::Result<OperatorConfig> {
    let Some(options) = options.filter(|options| !options.value.is_empty()) else {
        return OperatorConfig::read_usual();
    };
    // `ctr` sends the options of the runc runtime to every runtime that it does not know.
    if options.type_url.rsplit('/').next() != Some(TYPE) {
        return OperatorConfig::read_usual();
    }
    match config_path(&options.value) {
        Ok(Some(path)) if !path.is_empty() => OperatorConfig::read(Path::new(&path)),
        Ok(_) => OperatorConfig::read_usual(),
        Err(error) => bail!("the runtime's options cannot be read: {error}"),
    }
}

fn config_path(options: &[u8]) -> containerd_shim::protos::protobuf::Result<Option<String>> {
    let mut input = CodedInputStream::from_bytes(options);
    let mut path = None;
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        if tag == CONFIG_PATH {
            path = Some(input.read_string()?);
        } else {
            containerd_shim::protos::protobuf::rt::skip_field_for_tag(tag, &mut input)?;
        }
    }
    Ok(path)
}
