//! How memories get a module's data: those of a module with little are kept and get a copy, those of one with much are new
//! and the artifact is mapped into them.

use wasmparser::{Parser, Payload};

/// How many bytes of data are little, with what the module says of each segment.
const MOST_COPIED: usize = 256 << 10;

/// Whether a module has much data, as far as it can be read.
pub(crate) fn is_much(module: &[u8]) -> bool {
    let sections = Parser::new(0).parse_all(module).map_while(Result::ok);
    let data = sections.filter_map(|section| match section {
        Payload::DataSection(data) => Some(data.range().len()),
        _ => None,
    });
    data.sum::<usize>() > MOST_COPIED
}
