//! A guest's linear memory, and what can be wrong with what a guest says about it.

use std::fmt;

/// An address in a guest's memory, as the guest gave it: any value is possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestPtr(pub u32);

/// A number of bytes or of elements, as the guest gave it: any value is possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestLen(pub u32);

impl GuestPtr {
    /// The address `offset` bytes on. It cannot pass the end of the address space inside a range that was
    /// checked against memory; outside one, it stops there and fails the next check.
    pub fn offset(self, offset: u32) -> Self {
        Self(self.0.saturating_add(offset))
    }
}

impl fmt::Display for GuestPtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The range asked for is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfBounds;

/// A guest's linear memory. Implementations check every range; nothing is read or written when one fails.
pub trait GuestMemory {
    /// Its present size in bytes.
    fn size(&self) -> u64;

    /// Fills `into` from `address` on.
    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds>;

    /// Reads `length` bytes, which the caller knows to be in memory. Who has the memory as a slice need not fill the
    /// copy with zeros first.
    fn copy(&self, address: GuestPtr, length: GuestLen) -> Result<Vec<u8>, OutOfBounds> {
        let mut bytes = vec![0; length.0 as usize];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` from `address` on.
    fn write(&mut self, address: GuestPtr, bytes: &[u8]) -> Result<(), OutOfBounds>;
}

/// A plain buffer serves as the memory of no guest in particular.
impl GuestMemory for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let start = address.0 as usize;
        let range = self.get(start..start.saturating_add(into.len()));
        into.copy_from_slice(range.ok_or(OutOfBounds)?);
        Ok(())
    }

    fn write(&mut self, address: GuestPtr, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let start = address.0 as usize;
        let range = self.get_mut(start..start.saturating_add(bytes.len()));
        range.ok_or(OutOfBounds)?.copy_from_slice(bytes);
        Ok(())
    }
}

/// What is wrong with a value that a guest passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{bytes} bytes at {address} reach past the end of memory ({memory} bytes)")]
    OutOfBounds { address: GuestPtr, bytes: u64, memory: u64 },
    #[error("address {address} is not aligned to {align} bytes")]
    Misaligned { address: GuestPtr, align: u32 },
    #[error("the string at {address} is not UTF-8")]
    NotUtf8 { address: GuestPtr },
    #[error("discriminant {discriminant} where there are {cases} cases")]
    UnknownDiscriminant { discriminant: u32, cases: u32 },
    #[error("its parts overlap or are too many: holding them takes more than the whole memory ({memory} bytes)")]
    Overlapping { memory: u64 },
    #[error("the core values do not have the declared types")]
    Signature,
}

/// A guest broke the canonical ABI: a trap, never the host's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbiError {
    /// From the innermost name outwards: field, argument, function.
    path: Vec<String>,
    function: Option<String>,
    pub fault: Fault,
}

impl AbiError {
    /// Says that the value with the fault is (inside) the one called `name`.
    #[must_use]
    pub fn inside(mut self, name: impl Into<String>) -> Self {
        self.path.push(name.into());
        self
    }

    /// Says which function the value was passed to or returned from.
    #[must_use]
    pub fn of_function(mut self, function: impl Into<String>) -> Self {
        self.function = Some(function.into());
        self
    }
}

impl From<Fault> for AbiError {
    fn from(fault: Fault) -> Self {
        Self { path: Vec::new(), function: None, fault }
    }
}

impl fmt::Display for AbiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(function) = &self.function {
            write!(f, "{function}: ")?;
        }
        for (depth, name) in self.path.iter().rev().enumerate() {
            let dot = if depth == 0 || name.starts_with('[') { "" } else { "." };
            write!(f, "{dot}{name}")?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        self.fault.fmt(f)
    }
}

impl std::error::Error for AbiError {}
