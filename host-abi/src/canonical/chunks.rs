//! Bytes that came in pieces.

use bytes::{Bytes, BytesMut};

/// A list of bytes in the pieces that it came in. They become one in the guest's memory, and nowhere before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ByteChunks(Vec<Bytes>);

impl ByteChunks {
    /// Shorter chunks are joined: a list of many small ones would take more than its bytes.
    const SHORT: usize = 4096;

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, chunk: Bytes) {
        match self.0.pop() {
            Some(last) if last.len().max(chunk.len()) < Self::SHORT => {
                let mut joined = BytesMut::from(last);
                joined.extend_from_slice(&chunk);
                self.0.push(joined.freeze());
            }
            last => self.0.extend(last.into_iter().chain([chunk])),
        }
    }

    /// The bytes in one piece.
    pub fn into_bytes(self) -> Bytes {
        match <[Bytes; 1]>::try_from(self.0) {
            Ok([whole]) => whole,
            Err(chunks) => chunks.concat().into(),
        }
    }

    pub(super) fn as_slice(&self) -> &[Bytes] {
        &self.0
    }
}

impl From<Bytes> for ByteChunks {
    fn from(bytes: Bytes) -> Self {
        Self(vec![bytes])
    }
}

impl From<Vec<u8>> for ByteChunks {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(sizes: &[usize]) -> ByteChunks {
        let mut chunks = ByteChunks::default();
        for (number, size) in (0..).zip(sizes) {
            chunks.push(vec![number; *size].into());
        }
        chunks
    }

    #[test]
    fn short_chunks_are_joined_and_long_ones_left_alone() {
        let sizes = |chunks: ByteChunks| chunks.0.iter().map(Bytes::len).collect::<Vec<_>>();
        assert_eq!(sizes(chunks(&[1; 5000])), [4096, 904]);
        assert_eq!(sizes(chunks(&[5000, 1, 1, 5000, 4096])), [5000, 2, 5000, 4096]);
    }

    #[test]
    fn chunks_keep_their_order_whatever_their_sizes() {
        for sizes in [&[][..], &[0], &[3], &[5000, 1, 2, 5000, 0, 7]] {
            let expected: Vec<u8> = (0..).zip(sizes).flat_map(|(number, size)| vec![number; *size]).collect();
            assert_eq!(chunks(sizes).len(), expected.len());
            assert_eq!(chunks(sizes).into_bytes(), expected);
        }
    }
}
