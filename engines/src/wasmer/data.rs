//! A module's data in few segments.
//!
//! wasmer looks at each segment for every instance. Go's linker leaves out what is more than eight zeros, until there are
//! 100,000 segments (`cmd/link/internal/wasm/asm.go`, `writeDataSec`); nearly all are a few bytes from the next.

use std::borrow::Cow;

use wasm_encoder::{ConstExpr, DataSection, RawSection};
use wasmparser::{
    BinaryReaderError, Data, DataKind, DataSectionReader, ImportSectionReader, Operator, Parser, Payload, TypeRef,
};

/// How many zeros between two segments are filled in, at most: fewer than a page has, so that no page of zeros is among them.
pub(super) const MOST_ZEROS: usize = 128;

/// The module with those segments as one that are nearly next to each other. Its instances begin with the same memories, or
/// fail for the same reason. A module that could tell its segments apart, or that cannot be read, is as it was.
pub(super) fn joined(module: &[u8]) -> Cow<'_, [u8]> {
    join(module).ok().flatten().map_or(Cow::Borrowed(module), Cow::Owned)
}

fn join(module: &[u8]) -> Result<Option<Vec<u8>>, BinaryReaderError> {
    let (mut joined, mut is_shorter) = (wasm_encoder::Module::new(), false);
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        let section = payload.as_section();
        match payload {
            // Its instructions may name a segment.
            Payload::DataCountSection { .. } => return Ok(None),
            // It may not be all zeros.
            Payload::ImportSection(imports) if imports_memory(imports.clone())? => return Ok(None),
            Payload::DataSection(segments) => {
                let count = segments.count() as usize;
                let Some(runs) = runs(segments)? else { return Ok(None) };
                is_shorter = runs.len() < count;
                joined.section(&data_section(runs));
                continue;
            }
            _ => {}
        }
        if let Some((id, range)) = section {
            joined.section(&RawSection { id, data: &module[range] });
        }
    }
    Ok(is_shorter.then(|| joined.finish()))
}

fn imports_memory(imports: ImportSectionReader<'_>) -> Result<bool, BinaryReaderError> {
    for import in imports.into_imports() {
        if matches!(import?.ty, TypeRef::Memory(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What lies in a memory from an address on.
struct Run {
    memory: u32,
    start: u32,
    bytes: Vec<u8>,
}

impl Run {
    /// Takes in what begins at the end, or a few zeros behind it.
    fn extend(&mut self, memory: u32, start: u32, bytes: &[u8]) -> bool {
        let end = self.start as usize + self.bytes.len();
        let zeros = (start as usize).checked_sub(end).filter(|zeros| *zeros <= MOST_ZEROS);
        let Some(zeros) = zeros.filter(|_| memory == self.memory) else { return false };
        self.bytes.resize(self.bytes.len() + zeros, 0);
        self.bytes.extend_from_slice(bytes);
        true
    }
}

/// Nothing where a segment has no fixed address.
fn runs(segments: DataSectionReader<'_>) -> Result<Option<Vec<Run>>, BinaryReaderError> {
    let mut runs: Vec<Run> = Vec::new();
    for segment in segments {
        let segment = segment?;
        let Some((memory, start)) = address(&segment)? else { return Ok(None) };
        if !runs.last_mut().is_some_and(|run| run.extend(memory, start, segment.data)) {
            runs.push(Run { memory, start, bytes: segment.data.to_vec() });
        }
    }
    Ok(Some(runs))
}

fn address(segment: &Data<'_>) -> Result<Option<(u32, u32)>, BinaryReaderError> {
    let DataKind::Active { memory_index, offset_expr } = &segment.kind else { return Ok(None) };
    let mut operators = offset_expr.get_operators_reader();
    let Operator::I32Const { value } = operators.read()? else { return Ok(None) };
    Ok(matches!(operators.read()?, Operator::End).then_some((*memory_index, value.cast_unsigned())))
}

fn data_section(runs: Vec<Run>) -> DataSection {
    let mut section = DataSection::new();
    for Run { memory, start, bytes } in runs {
        section.active(memory, &ConstExpr::i32_const(start.cast_signed()), bytes);
    }
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(fields: &str) -> Vec<u8> {
        wat::parse_str(format!("(module {fields})")).unwrap()
    }

    #[track_caller]
    fn becomes(fields: &str, expected: &str) {
        assert_eq!(joined(&module(fields)), module(expected));
    }

    #[track_caller]
    fn stays(module: &[u8]) {
        assert!(matches!(joined(module), Cow::Borrowed(same) if same == module));
    }

    #[test]
    fn segments_that_are_nearly_next_to_each_other_are_one() {
        let zeros = r"\00".repeat(MOST_ZEROS);
        becomes(
            r#"(memory 1) (data (i32.const 9) "a") (data (i32.const 10) "b") (data (i32.const 139) "") (data (i32.const 140) "c")"#,
            &format!(r#"(memory 1) (data (i32.const 9) "ab{zeros}\00c")"#),
        );
        let memories = r#"(memory 1) (memory 1)"#;
        becomes(
            &format!(r#"{memories} (data (memory 1) (i32.const 1) "a") (data (memory 1) (i32.const 2) "b")"#),
            &format!(r#"{memories} (data (memory 1) (i32.const 1) "ab")"#),
        );
    }

    #[test]
    fn everything_else_is_as_it_was() {
        let others = r#"(import "host" "call" (func)) (table 2 funcref) (memory (export "memory") 1)
            (global i32 (i32.const 1)) (elem (i32.const 0) func 0 1) (func $start call 0) (start $start)"#;
        becomes(
            &format!(r#"{others} (data (i32.const 1) "a") (data (i32.const 2) "b")"#),
            &format!(r#"{others} (data (i32.const 1) "ab")"#),
        );
    }

    #[test]
    fn segments_that_overlap_go_back_or_lie_apart_stay() {
        for second in [9, 8, 139, 0x8000_0000_u32] {
            stays(&module(&format!(r#"(memory 1) (data (i32.const 9) "a") (data (i32.const {second}) "b")"#)));
        }
        stays(&module(r#"(memory 1) (memory 1) (data (i32.const 1) "a") (data (memory 1) (i32.const 2) "b")"#));
    }

    #[test]
    fn a_module_that_could_tell_the_difference_stays() {
        let data = r#"(data (i32.const 1) "a") (data (i32.const 2) "b")"#;
        stays(&module(&format!("(memory 1) {data} (func (data.drop 0))")));
        stays(&module(&format!("(memory 1) {data} (data \"passive\")")));
        stays(&module(&format!(r#"(import "host" "memory" (memory 1)) {data}"#)));
        stays(&module(&format!(r#"(import "host" "base" (global i32)) (memory 1) {data} (data (global.get 0) "c")"#)));
        stays(&module("(memory 1)"));
    }

    #[test]
    fn what_is_no_module_stays() {
        let whole = module(r#"(memory 1) (data (i32.const 1) "a") (data (i32.const 2) "b")"#);
        for end in 0..whole.len() {
            stays(&whole[..end]);
        }
        stays(&wat::parse_str("(component (core module (memory 1)))").unwrap());
    }
}
