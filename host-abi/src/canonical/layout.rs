//! How a type lies in memory, and how it flattens into core values.

use smallvec::SmallVec;

/// A core WebAssembly type that the interfaces flatten to. No interface has floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreType {
    I32,
    I64,
}

impl CoreType {
    /// The type that holds a value of either (`join` in the canonical ABI).
    pub(crate) fn join(self, other: Self) -> Self {
        if self == other { self } else { Self::I64 }
    }
}

/// A core value, bit for bit: core integers have no sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreValue {
    I32(u32),
    I64(u64),
}

impl CoreValue {
    /// The same value in the wider (or the same) type that a variant's cases were joined to.
    pub fn widen(self, to: CoreType) -> Self {
        match (self, to) {
            (Self::I32(value), CoreType::I64) => Self::I64(u64::from(value)),
            (value, _) => value,
        }
    }
}

/// A core function's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub params: Vec<CoreType>,
    pub results: Vec<CoreType>,
}

/// Parameters that flatten to more core values than this are passed in memory.
pub(crate) const MAX_FLAT_PARAMS: usize = 16;
/// Results that flatten to more core values than this are passed in memory.
pub(crate) const MAX_FLAT_RESULTS: usize = 1;

/// The core values of a call of a host function.
pub type Arguments = SmallVec<[CoreValue; MAX_FLAT_PARAMS + 1]>;

/// A type that can cross the boundary between host and guest.
pub trait AbiType: Sized + Send + 'static {
    /// Bytes in memory, a multiple of [`ALIGN`](Self::ALIGN).
    const SIZE: u32;
    /// A power of two.
    const ALIGN: u32;
    /// How many core values it flattens to.
    const FLAT_LEN: usize;

    /// Appends the core types of this type.
    fn flatten(flat: &mut Vec<CoreType>);

    fn flat() -> Vec<CoreType> {
        let mut flat = Vec::new();
        Self::flatten(&mut flat);
        flat
    }
}

/// The next multiple of `align`, a power of two.
pub(crate) const fn align_to(offset: u32, align: u32) -> u32 {
    (offset + align - 1) & !(align - 1)
}

/// Walks the fields of a record (or a tuple, or parameters in memory) in order.
#[derive(Default)]
pub(crate) struct Fields {
    end: u32,
}

impl Fields {
    /// The offset of the next field, of type `T`.
    pub(crate) fn next_field<T: AbiType>(&mut self) -> u32 {
        let offset = align_to(self.end, T::ALIGN);
        self.end = offset + T::SIZE;
        offset
    }
}

pub(crate) const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

pub(crate) const fn max_len(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// Where the payload of a variant with a one-byte discriminant starts.
pub(crate) const fn payload_offset(payload_align: u32) -> u32 {
    align_to(1, payload_align)
}

/// Bytes of a variant with a one-byte discriminant.
pub(crate) const fn variant_size(payload_size: u32, payload_align: u32) -> u32 {
    align_to(payload_offset(payload_align) + payload_size, payload_align)
}

macro_rules! integer_layout {
    ($($type:ty: $size:literal $core:ident),*) => {$(
        impl AbiType for $type {
            const SIZE: u32 = $size;
            const ALIGN: u32 = $size;
            const FLAT_LEN: usize = 1;

            fn flatten(flat: &mut Vec<CoreType>) {
                flat.push(CoreType::$core);
            }
        }
    )*};
}

integer_layout!(u8: 1 I32, u16: 2 I32, u32: 4 I32, u64: 8 I64);

/// Strings and lists are a pointer and a length.
macro_rules! pointer_layout {
    ($([$($generic:ident)?] $type:ty),*) => {$(
        impl$(<$generic: AbiType>)? AbiType for $type {
            const SIZE: u32 = 8;
            const ALIGN: u32 = 4;
            const FLAT_LEN: usize = 2;

            fn flatten(flat: &mut Vec<CoreType>) {
                flat.extend([CoreType::I32, CoreType::I32]);
            }
        }
    )*};
}

pointer_layout!([] String, [] bytes::Bytes, [] super::ByteChunks, [T] Vec<T>);

/// What a case without a payload carries.
impl AbiType for () {
    const SIZE: u32 = 0;
    const ALIGN: u32 = 1;
    const FLAT_LEN: usize = 0;

    fn flatten(_: &mut Vec<CoreType>) {}
}

impl<A: AbiType, B: AbiType> AbiType for (A, B) {
    const SIZE: u32 = align_to(align_to(A::SIZE, B::ALIGN) + B::SIZE, Self::ALIGN);
    const ALIGN: u32 = max(A::ALIGN, B::ALIGN);
    const FLAT_LEN: usize = A::FLAT_LEN + B::FLAT_LEN;

    fn flatten(flat: &mut Vec<CoreType>) {
        A::flatten(flat);
        B::flatten(flat);
    }
}

impl<T: AbiType> AbiType for Option<T> {
    const SIZE: u32 = variant_size(T::SIZE, T::ALIGN);
    const ALIGN: u32 = T::ALIGN;
    const FLAT_LEN: usize = 1 + T::FLAT_LEN;

    fn flatten(flat: &mut Vec<CoreType>) {
        flat.push(CoreType::I32);
        T::flatten(flat);
    }
}

impl<T: AbiType, E: AbiType> AbiType for Result<T, E> {
    const SIZE: u32 = variant_size(max(T::SIZE, E::SIZE), Self::ALIGN);
    const ALIGN: u32 = max(T::ALIGN, E::ALIGN);
    const FLAT_LEN: usize = 1 + max_len(T::FLAT_LEN, E::FLAT_LEN);

    fn flatten(flat: &mut Vec<CoreType>) {
        flat.push(CoreType::I32);
        flat.extend(joined([T::flat(), E::flat()]));
    }
}

/// The core types that hold the payload of any case.
pub(crate) fn joined<const CASES: usize>(cases: [Vec<CoreType>; CASES]) -> Vec<CoreType> {
    let mut shared = Vec::new();
    for case in cases {
        let (mut longer, shorter) = if case.len() > shared.len() { (case, shared) } else { (shared, case) };
        for (slot, other) in longer.iter_mut().zip(shorter) {
            *slot = slot.join(other);
        }
        shared = longer;
    }
    shared
}
