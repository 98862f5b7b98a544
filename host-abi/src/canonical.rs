//! The canonical ABI of the WebAssembly Component Model, as far as core modules use it: the layout, lifting
//! and lowering that `wit-bindgen` generates guests for.
//!
//! Source: <https://github.com/WebAssembly/component-model/blob/main/design/mvp/CanonicalABI.md>.
//!
//! Lifting reads a typed value out of a guest; every pointer, length and discriminant in it is hostile.
//! Lowering is split in two, because only an engine can call a guest's allocator: a value becomes a
//! [`Lowered`] image without touching the guest, and the image is then placed in the guest's memory.

mod call;
mod chunks;
mod layout;
mod lift;
mod lower;
mod memory;
mod record;

pub use call::{ExportCall, Guest, GuestExports, TypedCall, call_export};
pub use chunks::ByteChunks;
pub use layout::{AbiType, Arguments, CoreType, CoreValue, Signature};
pub(crate) use layout::{Fields, MAX_FLAT_PARAMS, MAX_FLAT_RESULTS, align_to};
pub use lift::{FlatValues, Lift, Params, Source};
pub(crate) use lower::{BlockId, Image, Slot};
pub use lower::{Lower, Lowered};
pub use memory::{AbiError, Fault, GuestLen, GuestMemory, GuestPtr, OutOfBounds};
pub(crate) use record::{wit_enum, wit_record, wit_variant};

/// For [`wit_variant`].
pub(crate) mod variant {
    pub(crate) use super::layout::{joined, max, max_len, payload_offset, variant_size};
    pub(crate) use super::lower::lower_case;
}
