//! What a memory begins with, for modules with much data.
//!
//! wasmer copies data segment by segment for every instance, and allocates for each. Go's linker makes up to 100,000 segments: it
//! leaves out what is more than eight zeros (`cmd/link/internal/wasm/asm.go`, `writeDataSec`). So a module with much data is
//! compiled without it, and what its memory begins with stands in front of the native code, to be mapped.
//!
//! An artifact is an image, which may be empty, native code, and a trailer: the image's address in the memory and its
//! length, 8 bytes each, little-endian.

use std::borrow::Cow;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use wasm_encoder::RawSection;
use wasmer::WASM_PAGE_SIZE;
use wasmparser::{
    BinaryReaderError, Data, DataKind, DataSectionReader, MemoryType, Operator, Parser, Payload, TypeRef,
};

use crate::artifact_cache::Artifact;
use crate::guest_memory::MemoryImage;
use crate::module_data;

/// Another one for each change of the artifact's layout.
pub(super) const LAYOUT: u32 = 1;

const TRAILER: usize = 16;

/// How many times as large as the data an image may be, with the zeros between.
const MOST_STRETCHED: usize = 4;

/// Whole Wasm pages of a memory, which are whole pages of the system, too.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    address: usize,
    bytes: Vec<u8>,
}

impl Image {
    /// Takes the data out of a module that has much: the image begins the memory of its instances with it. Data stays in the
    /// module if it is little, if instructions may name it, or if it may not fit. What is no module is left as it is.
    pub(super) fn take_from(module: &[u8]) -> (Self, Cow<'_, [u8]>) {
        let taken = if module_data::is_much(module) { take(module).ok().flatten() } else { None };
        taken.map_or((Self::default(), Cow::Borrowed(module)), |(image, rest)| (image, Cow::Owned(rest)))
    }

    /// The artifact that has this image and the native code.
    pub(super) fn with_code(self, code: &[u8]) -> Vec<u8> {
        let Self { address, bytes: mut artifact } = self;
        let length = artifact.len();
        artifact.extend_from_slice(code);
        artifact.extend_from_slice(&(address as u64).to_le_bytes());
        artifact.extend_from_slice(&(length as u64).to_le_bytes());
        artifact
    }
}

/// The image and the native code of an artifact.
pub(super) fn open(artifact: &Artifact) -> anyhow::Result<(Option<MemoryImage>, Bytes)> {
    let mut code = artifact.map()?;
    let trailer = code.len().checked_sub(TRAILER).context("no trailer")?;
    let trailer = code.split_off(trailer);
    let number =
        |at: usize| usize::try_from(u64::from_le_bytes(trailer[at..at + 8].try_into()?)).map_err(anyhow::Error::from);
    let (address, length) = (number(0)?, number(8)?);
    ensure!(length <= code.len(), "the image is longer than the artifact");
    let code = code.slice(length..);
    if length == 0 {
        return Ok((None, code));
    }
    Ok((Some(MemoryImage { file: artifact.file().try_clone()?, address, length }), code))
}

fn take(module: &[u8]) -> Result<Option<(Image, Vec<u8>)>, BinaryReaderError> {
    let (mut rest, mut memories, mut taken) = (wasm_encoder::Module::new(), Vec::new(), None);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if taken.is_some() && !matches!(payload, Payload::CustomSection(_) | Payload::End(_)) {
            // Not where data may be: the engine says so.
            return Ok(None);
        }
        let section = payload.as_section();
        match payload {
            // Instructions may name segments.
            Payload::DataCountSection { .. } => return Ok(None),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    if let TypeRef::Memory(_) = import?.ty {
                        return Ok(None);
                    }
                }
            }
            Payload::MemorySection(section) => memories = section.into_iter().collect::<Result<_, _>>()?,
            Payload::DataSection(segments) => {
                let [memory] = &memories[..] else { return Ok(None) };
                let Some(image) = image(segments, memory)? else { return Ok(None) };
                taken = Some(image);
                continue;
            }
            _ => {}
        }
        if let Some((id, range)) = section {
            rest.section(&RawSection { id, data: &module[range] });
        }
    }
    Ok(taken.map(|image| (image, rest.finish())))
}

/// Nothing where a segment is in no fixed place, the memory is too small, or much of the image would be zeros.
fn image(segments: DataSectionReader<'_>, memory: &MemoryType) -> Result<Option<Image>, BinaryReaderError> {
    let most = (segments.range().len() * MOST_STRETCHED) as u64;
    let (mut start, mut end, mut placed) = (u64::MAX, 0, Vec::new());
    for segment in segments {
        let segment = segment?;
        let Some(address) = address(&segment)? else { return Ok(None) };
        (start, end) = (start.min(address), end.max(address + segment.data.len() as u64));
        placed.push((address, segment.data));
    }
    let page = WASM_PAGE_SIZE as u64;
    let (start, end) = (start / page * page, end.next_multiple_of(page));
    if start >= end || end > memory.initial.saturating_mul(page) || end - start > most {
        return Ok(None);
    }
    let mut bytes = vec![0; (end - start) as usize];
    for (address, data) in placed {
        bytes[(address - start) as usize..][..data.len()].copy_from_slice(data);
    }
    Ok(Some(Image { address: start as usize, bytes }))
}

fn address(segment: &Data<'_>) -> Result<Option<u64>, BinaryReaderError> {
    let DataKind::Active { memory_index: 0, offset_expr } = &segment.kind else { return Ok(None) };
    let mut operators = offset_expr.get_operators_reader();
    let Operator::I32Const { value } = operators.read()? else { return Ok(None) };
    Ok(matches!(operators.read()?, Operator::End).then_some(u64::from(value.cast_unsigned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment that is much.
    fn much(address: u32) -> String {
        format!(r#"(data (i32.const {address}) "{}")"#, "m".repeat(300_000))
    }

    fn module(fields: &str) -> Vec<u8> {
        wat::parse_str(format!("(module {fields})")).unwrap()
    }

    #[track_caller]
    fn stays(module: &[u8]) {
        let (image, rest) = Image::take_from(module);
        assert!(image.bytes.is_empty() && matches!(rest, Cow::Borrowed(same) if same == module));
    }

    #[test]
    fn much_data_is_in_the_image_and_all_else_in_the_module() {
        let others = r#"(import "host" "call" (func)) (table 2 funcref) (memory (export "memory") 16)
            (global i32 (i32.const 1)) (elem (i32.const 0) func 0 1) (func $start call 0) (start $start)"#;
        let data = r#"(data (i32.const 70001) "ab") (data (i32.const 70002) "c\00") (data (i32.const 65530) "")"#;
        let module_with_data = module(&format!("{others} {data} {}", much(100_000)));
        let (image, rest) = Image::take_from(&module_with_data);
        assert_eq!(*rest, module(others));
        // From the page before, where there is nothing.
        assert_eq!((image.address, image.bytes.len()), (0, 7 * WASM_PAGE_SIZE));
        assert_eq!(image.bytes[70_000..70_005], *b"\0ac\0\0");
        assert_eq!(image.bytes[99_999..100_001], *b"\0m");
        assert_eq!(image.bytes[399_999..400_001], *b"m\0");
    }

    #[test]
    fn little_data_stays() {
        stays(&module(r#"(memory 1) (data (i32.const 1) "a")"#));
        stays(&module("(memory 1)"));
    }

    #[test]
    fn data_that_may_not_fit_or_lies_far_apart_stays() {
        stays(&module(&format!("(memory 4) {}", much(0))));
        stays(&module(&format!("(memory 16) {}", much(1_000_000))));
        stays(&module(&format!("(memory 16) {} {}", much(0), r#"(data (i32.const -1) "a")"#)));
        stays(&module(&format!("(memory 16) {} {}", much(0), r#"(data (i32.const 1048577) "")"#)));
        stays(&module(&format!("(memory 100) {} {}", much(0), r#"(data (i32.const 5000000) "a")"#)));
    }

    #[test]
    fn data_that_can_be_told_apart_stays() {
        let data = much(0);
        stays(&module(&format!("(memory 16) {data} (func (data.drop 0))")));
        stays(&module(&format!(r#"(memory 16) {data} (data "passive")"#)));
        stays(&module(&format!(r#"(import "host" "memory" (memory 16)) {data}"#)));
        stays(&module(&format!("(memory 16) (memory 16) {data}")));
        stays(&module(&format!(r#"(import "host" "base" (global i32)) (memory 16) {data} (data (global.get 0) "c")"#)));
    }

    #[test]
    fn what_is_no_module_stays() {
        let whole = module(&format!("(memory 16) {}", much(0)));
        for end in [0, 4, 8, 12, 20, whole.len() - 1] {
            stays(&whole[..end]);
        }
        // Sections that come twice, or too early.
        let data = &whole[module("(memory 16)").len()..];
        for more in [data, &module("(memory 16)")[8..]] {
            stays(&[&whole[..], more].concat());
        }
    }

    #[test]
    fn an_artifact_has_its_image_and_its_code() {
        let image = Image { address: WASM_PAGE_SIZE, bytes: vec![7; WASM_PAGE_SIZE] };
        let artifact = Artifact::in_memory(&image.with_code(b"code")).unwrap();
        let (image, code) = open(&artifact).unwrap();
        let image = image.unwrap();
        assert_eq!((image.address, image.length, &code[..]), (WASM_PAGE_SIZE, WASM_PAGE_SIZE, &b"code"[..]));
        let artifact = Artifact::in_memory(&Image::default().with_code(b"code")).unwrap();
        let (image, code) = open(&artifact).unwrap();
        assert!(image.is_none() && code == b"code"[..]);
        for damaged in [&b"short"[..], &[0xff; TRAILER]] {
            assert!(open(&Artifact::in_memory(damaged).unwrap()).is_err());
        }
    }
}
