//! Lowering: typed values into an image that an engine then places in a guest's memory.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::call::Guest;
use super::chunks::ByteChunks;
use super::layout::{AbiType, CoreType, CoreValue, Fields, MAX_FLAT_PARAMS, MAX_FLAT_RESULTS, joined, payload_offset};
use super::memory::{AbiError, Fault, GuestLen, GuestMemory, GuestPtr};

/// A block of an [`Image`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(usize);

/// What a block holds: built field by field, or bytes taken over whole, so that a body is copied once.
enum Content {
    /// A part of what the image has built.
    Built(Range<usize>),
    Whole(Bytes),
    Chunks(ByteChunks),
}

/// Bytes that need an address of their own in the guest.
struct Block {
    align: u32,
    content: Content,
}

/// Lowered memory, before anyone knows its addresses. Most are small, and made without allocating.
#[derive(Default)]
pub struct Image {
    blocks: SmallVec<[Block; 4]>,
    /// The contents of all built blocks, one behind the other.
    built: SmallVec<[u8; 64]>,
    /// Where in `built` the address of which block goes.
    links: SmallVec<[(usize, BlockId); 4]>,
}

/// Its size alone: the bytes may be a secret.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks", self.blocks.len())
    }
}

impl Image {
    fn add(&mut self, align: u32, content: Content) -> BlockId {
        self.blocks.push(Block { align, content });
        BlockId(self.blocks.len() - 1)
    }

    /// A block of `size` zero bytes, to be filled in.
    pub fn reserve(&mut self, size: usize, align: u32) -> BlockId {
        let start = self.built.len();
        self.built.resize(start + size, 0);
        self.add(align, Content::Built(start..start + size))
    }

    /// A block of bytes as they are.
    pub fn bytes(&mut self, bytes: Bytes) -> BlockId {
        self.add(1, Content::Whole(bytes))
    }

    /// A block of chunks, one behind the other.
    pub fn chunks(&mut self, chunks: ByteChunks) -> BlockId {
        self.add(1, Content::Chunks(chunks))
    }

    /// Fills in a part of a reserved block.
    pub fn put(&mut self, block: BlockId, offset: u32, bytes: &[u8]) {
        if let Content::Built(content) = &self.blocks[block.0].content {
            self.built[content.clone()][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Has the address of `target` stand at an offset of a reserved block.
    pub fn link(&mut self, block: BlockId, offset: u32, target: BlockId) {
        if let Content::Built(content) = &self.blocks[block.0].content {
            self.links.push((content.start + offset as usize, target));
        }
    }

    /// What a block holds, and what follows.
    fn content<'a>(&'a self, block: &'a Block) -> (&'a [u8], &'a [Bytes]) {
        match &block.content {
            Content::Built(content) => (&self.built[content.clone()], &[]),
            Content::Whole(bytes) => (bytes, &[]),
            Content::Chunks(chunks) => (&[], chunks.as_slice()),
        }
    }

    fn size(&self, block: &Block) -> GuestLen {
        let (bytes, chunks) = self.content(block);
        length(bytes.len() + chunks.iter().map(Bytes::len).sum::<usize>())
    }

    /// Allocates every block in the guest and writes it. With `root`, the first block goes there instead.
    async fn place<G: Guest>(
        &mut self,
        guest: &mut G,
        root: Option<GuestPtr>,
        function: &str,
    ) -> Result<SmallVec<[GuestPtr; 4]>, G::Error> {
        let mut addresses = SmallVec::new();
        for (index, block) in self.blocks.iter().enumerate() {
            let address = match root {
                Some(root) if index == 0 => root,
                _ => allocate(guest, block.align, self.size(block), function).await?,
            };
            addresses.push(address);
        }
        for (offset, target) in &self.links {
            let address: GuestPtr = addresses[target.0];
            self.built[*offset..][..4].copy_from_slice(&address.0.to_le_bytes());
        }
        for (block, address) in self.blocks.iter().zip(&addresses) {
            let (bytes, chunks) = self.content(block);
            let written = write(guest, *address, bytes).and_then(|()| write_chunks(guest, *address, chunks));
            written.map_err(|error| error.of_function(function))?;
        }
        Ok(addresses)
    }
}

/// The length of a list or string to lower. One that a 32-bit guest could not even address is cut off at the
/// largest length there is, which no guest's allocator provides.
fn length(bytes: usize) -> GuestLen {
    GuestLen(u32::try_from(bytes).unwrap_or(u32::MAX))
}

async fn allocate<G: Guest>(guest: &mut G, align: u32, size: GuestLen, function: &str) -> Result<GuestPtr, G::Error> {
    let address = guest.allocate(align, size).await?;
    super::Source::new(guest)
        .check(address, u64::from(size.0), align)
        .map_err(|fault| AbiError::from(fault).inside("cabi_realloc").of_function(function))?;
    Ok(address)
}

/// The guest's allocator ran since the range was checked; memory never shrinks, but the check is free.
fn write(guest: &mut impl GuestMemory, address: GuestPtr, bytes: &[u8]) -> Result<(), AbiError> {
    let written = guest.write(address, bytes);
    written.map_err(|_| Fault::OutOfBounds { address, bytes: bytes.len() as u64, memory: guest.size() }.into())
}

fn write_chunks(guest: &mut impl GuestMemory, mut address: GuestPtr, chunks: &[Bytes]) -> Result<(), AbiError> {
    for chunk in chunks {
        write(guest, address, chunk)?;
        address = address.offset(length(chunk.len()).0);
    }
    Ok(())
}

/// A core value, or the address that a block will have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Value(CoreValue),
    Address(BlockId),
    /// The address of a block, in an `i64` of joined variant cases.
    WideAddress(BlockId),
}

impl Slot {
    fn widen(self, to: CoreType) -> Self {
        match (self, to) {
            (Self::Value(value), to) => Self::Value(value.widen(to)),
            (Self::Address(block), CoreType::I64) => Self::WideAddress(block),
            (address, _) => address,
        }
    }
}

/// A whole value (or all parameters) on its way into a guest.
#[derive(Debug)]
pub struct Lowered {
    image: Image,
    slots: Vec<Slot>,
}

impl Lowered {
    /// Parameters of an exported function: core values, or one pointer to all of them.
    pub fn params<P: Lower>(params: P) -> Self {
        if P::FLAT_LEN <= MAX_FLAT_PARAMS {
            return Self::flat(params);
        }
        let mut lowered = Self::in_memory(params);
        lowered.slots.push(Slot::Address(BlockId(0)));
        lowered
    }

    /// The result of a host function: a core value, or memory at the address that the guest passed.
    pub fn result<R: Lower>(result: R) -> Self {
        if R::FLAT_LEN <= MAX_FLAT_RESULTS { Self::flat(result) } else { Self::in_memory(result) }
    }

    fn flat<T: Lower>(value: T) -> Self {
        let (mut image, mut slots) = (Image::default(), Vec::new());
        value.lower(&mut image, &mut slots);
        Self { image, slots }
    }

    fn in_memory<T: Lower>(value: T) -> Self {
        let mut image = Image::default();
        let root = image.reserve(T::SIZE as usize, T::ALIGN);
        value.store(&mut image, root, 0);
        Self { image, slots: Vec::new() }
    }

    /// Puts the value into the guest: its memory through the guest's allocator, or at `root` the part that
    /// the guest reserved itself. Answers the core values to pass. Errors name `function`.
    pub async fn place<G: Guest>(
        &mut self,
        guest: &mut G,
        root: Option<GuestPtr>,
        function: &str,
    ) -> Result<Vec<CoreValue>, G::Error> {
        let addresses = self.image.place(guest, root, function).await?;
        let value = |slot| match slot {
            Slot::Value(value) => value,
            Slot::Address(block) => CoreValue::I32(block_address(&addresses, block)),
            Slot::WideAddress(block) => CoreValue::I64(u64::from(block_address(&addresses, block))),
        };
        Ok(self.slots.iter().copied().map(value).collect())
    }
}

fn block_address(addresses: &[GuestPtr], block: BlockId) -> u32 {
    addresses[block.0].0
}

/// A type that can be lowered.
pub trait Lower: AbiType {
    /// Into core values.
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>);

    /// Into [`SIZE`](AbiType::SIZE) bytes at an offset of a reserved block.
    fn store(self, image: &mut Image, block: BlockId, offset: u32);
}

macro_rules! lower_integer {
    ($($type:ty: $core:ident),*) => {$(
        impl Lower for $type {
            fn lower(self, _: &mut Image, flat: &mut Vec<Slot>) {
                flat.push(Slot::Value(CoreValue::$core(self.into())));
            }

            fn store(self, image: &mut Image, block: BlockId, offset: u32) {
                image.put(block, offset, &self.to_le_bytes());
            }
        }
    )*};
}

lower_integer!(u8: I32, u16: I32, u32: I32, u64: I64);

/// A type that lies in a block of its own, behind a pointer and a length.
trait LowerBehindPointer: AbiType {
    /// The block, and the length in elements.
    fn block(self, image: &mut Image) -> (BlockId, GuestLen);
}

impl LowerBehindPointer for Bytes {
    fn block(self, image: &mut Image) -> (BlockId, GuestLen) {
        let length = length(self.len());
        (image.bytes(self), length)
    }
}

impl LowerBehindPointer for ByteChunks {
    fn block(self, image: &mut Image) -> (BlockId, GuestLen) {
        let length = length(self.len());
        (image.chunks(self), length)
    }
}

impl LowerBehindPointer for String {
    fn block(self, image: &mut Image) -> (BlockId, GuestLen) {
        Bytes::from(self).block(image)
    }
}

impl<T: Lower> LowerBehindPointer for Vec<T> {
    fn block(self, image: &mut Image) -> (BlockId, GuestLen) {
        let length = length(self.len());
        let block = image.reserve(self.len() * T::SIZE as usize, T::ALIGN);
        for (offset, element) in (0..).step_by(T::SIZE as usize).zip(self) {
            element.store(image, block, offset);
        }
        (block, length)
    }
}

macro_rules! lower_pointer {
    ($([$($generic:ident)?] $type:ty),*) => {$(
        impl$(<$generic: Lower>)? Lower for $type {
            fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
                let (target, length) = self.block(image);
                flat.extend([Slot::Address(target), Slot::Value(CoreValue::I32(length.0))]);
            }

            fn store(self, image: &mut Image, block: BlockId, offset: u32) {
                let (target, length) = self.block(image);
                image.link(block, offset, target);
                image.put(block, offset + 4, &length.0.to_le_bytes());
            }
        }
    )*};
}

lower_pointer!([] String, [] Bytes, [] ByteChunks, [T] Vec<T>);

impl Lower for () {
    fn lower(self, _: &mut Image, _: &mut Vec<Slot>) {}

    fn store(self, _: &mut Image, _: BlockId, _: u32) {}
}

impl<A: Lower, B: Lower> Lower for (A, B) {
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
        self.0.lower(image, flat);
        self.1.lower(image, flat);
    }

    fn store(self, image: &mut Image, block: BlockId, offset: u32) {
        let mut fields = Fields::default();
        self.0.store(image, block, offset + fields.next_field::<A>());
        self.1.store(image, block, offset + fields.next_field::<B>());
    }
}

impl<A: Lower> Lower for (A,) {
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
        self.0.lower(image, flat);
    }

    fn store(self, image: &mut Image, block: BlockId, offset: u32) {
        self.0.store(image, block, offset);
    }
}

/// A case of a variant: its number, then its payload in the core types that all cases share.
pub(crate) fn lower_case<T: Lower>(
    case: u32,
    payload: Option<T>,
    shared: &[CoreType],
    image: &mut Image,
    flat: &mut Vec<Slot>,
) {
    let mut slots = Vec::with_capacity(shared.len());
    if let Some(payload) = payload {
        payload.lower(image, &mut slots);
    }
    flat.push(Slot::Value(CoreValue::I32(case)));
    let padding = std::iter::repeat(Slot::Value(CoreValue::I32(0)));
    let payload = slots.into_iter().chain(padding).zip(shared);
    flat.extend(payload.map(|(slot, to)| slot.widen(*to)));
}

impl<T: Lower> Lower for Option<T> {
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
        lower_case(u32::from(self.is_some()), self, &T::flat(), image, flat);
    }

    fn store(self, image: &mut Image, block: BlockId, offset: u32) {
        u8::from(self.is_some()).store(image, block, offset);
        if let Some(value) = self {
            value.store(image, block, offset + payload_offset(T::ALIGN));
        }
    }
}

impl<T: Lower, E: Lower> Lower for Result<T, E> {
    fn lower(self, image: &mut Image, flat: &mut Vec<Slot>) {
        let shared = joined([T::flat(), E::flat()]);
        match self {
            Ok(value) => lower_case(0, Some(value), &shared, image, flat),
            Err(error) => lower_case(1, Some(error), &shared, image, flat),
        }
    }

    fn store(self, image: &mut Image, block: BlockId, offset: u32) {
        u8::from(self.is_err()).store(image, block, offset);
        let payload = offset + payload_offset(Self::ALIGN);
        match self {
            Ok(value) => value.store(image, block, payload),
            Err(error) => error.store(image, block, payload),
        }
    }
}
