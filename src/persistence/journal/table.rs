//! Tables in a file: sorted items of one size, in blocks of 4 KiB that each carry a checksum.
//!
//! An item is found by halving, a block read for each step, so that a table need not be in memory. A block whose
//! checksum is wrong is an error of the kind `InvalidData`.

use std::{io, marker::PhantomData, ops::Range};

use bytes::{Buf, BufMut};

use super::disk::DiskFile;

/// How large a block is, its checksum in the last four bytes. Unit: bytes.
pub(super) const TABLE_BLOCK: usize = 4_096;

const CONTENT: usize = TABLE_BLOCK - 4;

/// Up to how many blocks are read at a time.
const BLOCKS_READ_MAX: u64 = 64;

/// Something that takes the same number of bytes each time.
pub(super) trait Item: Copy {
    /// How many. Unit: bytes.
    const BYTES: usize;

    /// Writes exactly so many.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads what `put` wrote. `None`: too few bytes.
    fn get(bytes: &mut &[u8]) -> Option<Self>;
}

/// Where a table of `T` lies in a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<T> {
    at: u64,
    items: u64,
    of: PhantomData<T>,
}

impl<T: Item> Table<T> {
    const PER_BLOCK: u64 = (CONTENT / T::BYTES) as u64;

    pub(super) fn new(at: u64, items: u64) -> Self {
        Self { at, items, of: PhantomData }
    }

    pub(super) fn len(&self) -> u64 {
        self.items
    }

    /// Where it ends in the file.
    pub(super) fn end(&self) -> u64 {
        self.at + self.items.div_ceil(Self::PER_BLOCK) * TABLE_BLOCK as u64
    }

    /// The items in `range` and no more than a reading of some blocks brings; none only if there are none.
    pub(super) fn read(&self, file: &dyn DiskFile, range: Range<u64>) -> io::Result<Vec<T>> {
        let end = range.end.min(self.items);
        if range.start >= end {
            return Ok(Vec::new());
        }
        let first = range.start / Self::PER_BLOCK;
        let blocks = (end.div_ceil(Self::PER_BLOCK) - first).min(BLOCKS_READ_MAX);
        let mut bytes = vec![0; usize::try_from(blocks).map_err(io::Error::other)? * TABLE_BLOCK];
        file.read_at(&mut bytes, self.at + first * TABLE_BLOCK as u64)?;
        let few = (end - range.start).min(blocks * Self::PER_BLOCK);
        let mut items = Vec::with_capacity(usize::try_from(few).map_err(io::Error::other)?);
        for (block, number) in bytes.chunks_exact(TABLE_BLOCK).zip(first..) {
            let mut content = checked(block)?;
            let begins = number * Self::PER_BLOCK;
            for at in begins..(begins + Self::PER_BLOCK).min(end) {
                let item = T::get(&mut content).ok_or(io::ErrorKind::InvalidData)?;
                if at >= range.start {
                    items.push(item);
                }
            }
        }
        Ok(items)
    }

    /// Where in `range` the first item stands that is not `before`; all before it are.
    pub(super) fn partition_point(
        &self,
        file: &dyn DiskFile,
        range: Range<u64>,
        before: impl Fn(&T) -> bool,
    ) -> io::Result<u64> {
        let (mut low, mut high) = (range.start, range.end.min(self.items));
        while low < high {
            let middle = low + (high - low) / 2;
            let block = middle / Self::PER_BLOCK * Self::PER_BLOCK;
            let (first, last) = (block.max(low), (block + Self::PER_BLOCK).min(high));
            let items = self.read(file, first..last)?;
            match items.partition_point(&before) as u64 {
                0 => high = first,
                passed if passed == last - first => low = last,
                passed => return Ok(first + passed),
            }
        }
        Ok(low)
    }
}

/// Writes the items of a table, block by block.
pub(super) fn write_table<T: Item>(
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = Vec::with_capacity(TABLE_BLOCK);
    for item in items {
        if block.len() + T::BYTES > CONTENT {
            write(sealed(&mut block))?;
            block.clear();
        }
        item.put(&mut block);
    }
    if block.is_empty() { Ok(()) } else { write(sealed(&mut block)) }
}

fn sealed(block: &mut Vec<u8>) -> &[u8] {
    block.resize(CONTENT, 0);
    let checksum = crc32c::crc32c(block);
    block.put_u32_le(checksum);
    block
}

fn checked(block: &[u8]) -> io::Result<&[u8]> {
    let (content, mut checksum) = block.split_at_checked(CONTENT).ok_or(io::ErrorKind::InvalidData)?;
    let is_right = checksum.try_get_u32_le().is_ok_and(|checksum| checksum == crc32c::crc32c(content));
    if is_right { Ok(content) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Number(u64);

    impl Item for Number {
        const BYTES: usize = 8;
        fn put(&self, out: &mut Vec<u8>) {
            out.put_u64_le(self.0);
        }
        fn get(bytes: &mut &[u8]) -> Option<Self> {
            bytes.try_get_u64_le().ok().map(Self)
        }
    }

    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl DiskFile for Bytes {
        fn bytes(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let begin = usize::try_from(offset).unwrap();
            let bytes = self.0.get(begin..begin + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn allocate(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn table(items: u64) -> (Table<Number>, Bytes) {
        let mut bytes = vec![7; 100];
        write_table((0..items).map(|number| Number(number * 2)), |block| {
            bytes.extend_from_slice(block);
            Ok(())
        })
        .unwrap();
        let table = Table::new(100, items);
        assert_eq!(table.end(), bytes.len() as u64);
        (table, Bytes(bytes))
    }

    #[test]
    fn every_item_is_found_and_read() {
        for items in [0, 1, 510, 511, 512, 5_000] {
            let (table, file) = table(items);
            for number in (0..items).step_by(37).chain([items.saturating_sub(1)]) {
                for wanted in [number * 2, number * 2 + 1] {
                    let found = table.partition_point(&file, 0..items, |item| item.0 < wanted).unwrap();
                    assert_eq!(found, wanted.div_ceil(2).min(items), "{wanted} of {items}");
                }
                let few = table.read(&file, number..number + 3).unwrap();
                let expected: Vec<_> = (number..items.min(number + 3)).map(|number| Number(number * 2)).collect();
                assert_eq!(few, expected);
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error() {
        let (table, Bytes(mut bytes)) = table(1_000);
        for at in [100, 100 + 4_000, 100 + 4_095, 100 + 4_096 + 3] {
            bytes[at] ^= 1;
            let error = table.read(&Bytes(bytes.clone()), 0..1_000).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            bytes[at] ^= 1;
        }
    }
}
