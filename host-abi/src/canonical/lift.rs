//! Lifting: typed values out of a guest's core values and memory.

use bytes::Bytes;

use super::chunks::ByteChunks;
use super::layout::{AbiType, CoreValue, Fields, MAX_FLAT_PARAMS, payload_offset};
use super::memory::{AbiError, Fault, GuestLen, GuestMemory, GuestPtr};

/// Where values are lifted from. What is lifted through one source may take as much of the host's memory as the
/// guest has itself, and no more: neither lists that all point at the same bytes nor a memory full of empty lists
/// make the host allocate without end.
pub struct Source<'a> {
    memory: &'a dyn GuestMemory,
    /// It stays as it is while this is there.
    size: u64,
    budget: u64,
}

impl<'a> Source<'a> {
    pub fn new(memory: &'a dyn GuestMemory) -> Self {
        let size = memory.size();
        Self { memory, size, budget: size }
    }

    /// Checks that `bytes` bytes at `address` are in memory and aligned.
    pub fn check(&self, address: GuestPtr, bytes: u64, align: u32) -> Result<(), Fault> {
        let memory = self.size;
        if !address.0.is_multiple_of(align) {
            return Err(Fault::Misaligned { address, align });
        }
        if u64::from(address.0) + bytes > memory {
            return Err(Fault::OutOfBounds { address, bytes, memory });
        }
        Ok(())
    }

    /// Takes what the host is about to allocate out of the budget.
    fn spend(&mut self, bytes: u64) -> Result<(), Fault> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Fault::Overlapping { memory: self.size })?;
        Ok(())
    }

    fn read<const N: usize>(&self, address: GuestPtr) -> Result<[u8; N], AbiError> {
        let mut bytes = [0; N];
        self.memory.read(address, &mut bytes).map_err(|_| Fault::OutOfBounds {
            address,
            bytes: N as u64,
            memory: self.size,
        })?;
        Ok(bytes)
    }

    fn bytes(&mut self, address: GuestPtr, length: GuestLen) -> Result<Vec<u8>, AbiError> {
        let bytes = u64::from(length.0);
        self.check(address, bytes, 1)?;
        self.spend(bytes)?;
        let copy = self.memory.copy(address, length);
        Ok(copy.map_err(|_| Fault::OutOfBounds { address, bytes, memory: self.size })?)
    }
}

/// Core values in the order of a signature.
pub struct FlatValues<'a>(std::slice::Iter<'a, CoreValue>);

impl<'a> FlatValues<'a> {
    pub fn new(values: &'a [CoreValue]) -> Self {
        Self(values.iter())
    }

    /// The low half of the next value: an `i32`, or one widened by a variant's other cases.
    fn next_i32(&mut self) -> Result<u32, AbiError> {
        match self.0.next() {
            Some(CoreValue::I32(value)) => Ok(*value),
            Some(CoreValue::I64(value)) => Ok(*value as u32),
            None => Err(Fault::Signature.into()),
        }
    }

    fn next_i64(&mut self) -> Result<u64, AbiError> {
        match self.0.next() {
            Some(CoreValue::I64(value)) => Ok(*value),
            _ => Err(Fault::Signature.into()),
        }
    }

    /// The next `count` values on their own, so that a case of a variant reads no more than its payload.
    pub(crate) fn take(&mut self, count: usize) -> Result<FlatValues<'a>, AbiError> {
        let (payload, rest) = self.0.as_slice().split_at_checked(count).ok_or(Fault::Signature)?;
        self.0 = rest.iter();
        Ok(FlatValues::new(payload))
    }
}

/// A type that can be lifted.
pub trait Lift: AbiType {
    /// From core values.
    fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError>;

    /// From memory. The caller has checked that [`SIZE`](AbiType::SIZE) bytes at `address` are there.
    fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError>;
}

macro_rules! lift_integer {
    ($($type:ty: $next:ident),*) => {$(
        impl Lift for $type {
            fn lift(_: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
                // The canonical ABI takes narrow integers modulo their width.
                flat.$next().map(|value| value as Self)
            }

            fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
                source.read(address).map(Self::from_le_bytes)
            }
        }
    )*};
}

lift_integer!(u8: next_i32, u16: next_i32, u32: next_i32, u64: next_i64);

/// Strings and lists: only what the pointer and the length mean differs.
macro_rules! lift_pointer {
    ($([$($generic:ident)?] $type:ty: $read:expr),*) => {$(
        impl$(<$generic: Lift>)? Lift for $type {
            fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
                let address = GuestPtr(flat.next_i32()?);
                let length = GuestLen(flat.next_i32()?);
                $read(source, address, length)
            }

            fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
                let start = GuestPtr(u32::load(source, address)?);
                let length = GuestLen(u32::load(source, address.offset(4))?);
                $read(source, start, length)
            }
        }
    )*};
}

lift_pointer!([] String: lift_string, [] Bytes: lift_bytes, [] ByteChunks: lift_bytes, [T] Vec<T>: lift_list);

fn lift_string(source: &mut Source<'_>, address: GuestPtr, length: GuestLen) -> Result<String, AbiError> {
    let bytes = source.bytes(address, length)?;
    String::from_utf8(bytes).map_err(|_| Fault::NotUtf8 { address }.into())
}

fn lift_bytes<B: From<Vec<u8>>>(source: &mut Source<'_>, address: GuestPtr, length: GuestLen) -> Result<B, AbiError> {
    source.bytes(address, length).map(B::from)
}

fn lift_list<T: Lift>(source: &mut Source<'_>, address: GuestPtr, length: GuestLen) -> Result<Vec<T>, AbiError> {
    source.check(address, u64::from(length.0) * u64::from(T::SIZE), T::ALIGN)?;
    source.spend(u64::from(length.0) * size_of::<T>() as u64)?;
    let mut list = Vec::with_capacity(length.0 as usize);
    for index in 0..length.0 {
        let element = T::load(source, address.offset(index * T::SIZE));
        list.push(element.map_err(|error| error.inside(format!("[{index}]")))?);
    }
    Ok(list)
}

impl Lift for () {
    fn lift(_: &mut Source<'_>, _: &mut FlatValues<'_>) -> Result<Self, AbiError> {
        Ok(())
    }

    fn load(_: &mut Source<'_>, _: GuestPtr) -> Result<Self, AbiError> {
        Ok(())
    }
}

impl<A: Lift, B: Lift> Lift for (A, B) {
    fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
        let first = A::lift(source, flat).map_err(|error| error.inside("0"))?;
        let second = B::lift(source, flat).map_err(|error| error.inside("1"))?;
        Ok((first, second))
    }

    fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
        let mut fields = Fields::default();
        let first = A::load(source, address.offset(fields.next_field::<A>())).map_err(|error| error.inside("0"))?;
        let second = B::load(source, address.offset(fields.next_field::<B>())).map_err(|error| error.inside("1"))?;
        Ok((first, second))
    }
}

impl<T: Lift> Lift for Option<T> {
    fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
        let discriminant = flat.next_i32()?;
        let mut payload = flat.take(T::FLAT_LEN)?;
        match discriminant {
            0 => Ok(None),
            1 => T::lift(source, &mut payload).map(Some),
            _ => Err(Fault::UnknownDiscriminant { discriminant, cases: 2 }.into()),
        }
    }

    fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
        match u8::load(source, address)? {
            0 => Ok(None),
            1 => T::load(source, address.offset(payload_offset(T::ALIGN))).map(Some),
            other => Err(unknown_case(other)),
        }
    }
}

impl<T: Lift, E: Lift> Lift for Result<T, E> {
    fn lift(source: &mut Source<'_>, flat: &mut FlatValues<'_>) -> Result<Self, AbiError> {
        let discriminant = flat.next_i32()?;
        let mut payload = flat.take(Self::FLAT_LEN - 1)?;
        match discriminant {
            0 => T::lift(source, &mut payload).map(Ok),
            1 => E::lift(source, &mut payload).map(Err),
            _ => Err(Fault::UnknownDiscriminant { discriminant, cases: 2 }.into()),
        }
    }

    fn load(source: &mut Source<'_>, address: GuestPtr) -> Result<Self, AbiError> {
        let payload = address.offset(payload_offset(Self::ALIGN));
        match u8::load(source, address)? {
            0 => T::load(source, payload).map(Ok),
            1 => E::load(source, payload).map(Err),
            other => Err(unknown_case(other)),
        }
    }
}

fn unknown_case(discriminant: u8) -> AbiError {
    let discriminant = u32::from(discriminant);
    Fault::UnknownDiscriminant { discriminant, cases: 2 }.into()
}

/// The parameters of a function, as a tuple.
pub trait Params: AbiType {
    /// `names` are those of the WIT declaration, one for each parameter, for errors.
    fn lift_params(source: &mut Source<'_>, names: &[&str], values: &[CoreValue]) -> Result<Self, AbiError>;
}

impl<A: AbiType> AbiType for (A,) {
    const SIZE: u32 = A::SIZE;
    const ALIGN: u32 = A::ALIGN;
    const FLAT_LEN: usize = A::FLAT_LEN;

    fn flatten(flat: &mut Vec<super::CoreType>) {
        A::flatten(flat);
    }
}

macro_rules! lift_params {
    ($($type:ident $index:literal),*) => {
        impl<$($type: Lift),*> Params for ($($type,)*) {
            fn lift_params(source: &mut Source<'_>, names: &[&str], values: &[CoreValue]) -> Result<Self, AbiError> {
                let mut values = FlatValues::new(values);
                if Self::FLAT_LEN <= MAX_FLAT_PARAMS {
                    return Ok(($(
                        $type::lift(source, &mut values).map_err(|error| error.inside(names[$index]))?,
                    )*));
                }
                let start = GuestPtr(values.next_i32()?);
                source
                    .check(start, u64::from(Self::SIZE), Self::ALIGN)
                    .map_err(|fault| AbiError::from(fault).inside("parameters"))?;
                let mut fields = Fields::default();
                Ok(($(
                    $type::load(source, start.offset(fields.next_field::<$type>()))
                        .map_err(|error| error.inside(names[$index]))?,
                )*))
            }
        }
    };
}

lift_params!(A 0);
lift_params!(A 0, B 1);
