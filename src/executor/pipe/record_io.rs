//! The framing of `RecordIO`, as `MXNet` and the service's readers have it.
//!
//! Invariant: a record is a magic number, a length (both of four bytes, little-endian), the data, and zeros up to a
//! multiple of four bytes. All data is one record: records in parts, for which the three high bits of the length stand,
//! are put together by readers in two ways that differ, so none is made.

/// Begins each record.
pub(super) const MAGIC: u32 = 0xced7_230a;

/// The longest data of one record, bytes.
pub(super) const MAX_BYTES: u64 = (1 << 29) - 1;

/// What stands before data of a length; none where that is too much for a record.
pub(super) fn header(bytes: u64) -> Option<[u8; 8]> {
    let length = u32::try_from(bytes).ok().filter(|_| bytes <= MAX_BYTES)?;
    let mut header = [0; 8];
    header[..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..].copy_from_slice(&length.to_le_bytes());
    Some(header)
}

/// What stands after data of a length.
pub(super) fn padding(bytes: u64) -> &'static [u8] {
    match bytes % 4 {
        1 => &[0; 3],
        2 => &[0; 2],
        3 => &[0; 1],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads as the readers of the format do: header, data, padding.
    fn records(mut stream: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !stream.is_empty() {
            let word = |at: usize| u32::from_le_bytes(stream[at..at + 4].try_into().unwrap());
            assert_eq!(word(0), 0xced7_230a);
            assert_eq!(word(4) >> 29, 0, "a whole record");
            let length = (word(4) & 0x1fff_ffff) as usize;
            records.push(stream[8..8 + length].to_vec());
            let padded = length.div_ceil(4) * 4;
            assert!(stream[8 + length..8 + padded].iter().all(|byte| *byte == 0));
            stream = &stream[8 + padded..];
        }
        records
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_again(data in prop::collection::vec(
            prop_oneof![prop::collection::vec(any::<u8>(), 0..40), Just(MAGIC.to_le_bytes().repeat(3))], 0..20
        )) {
            let mut stream = Vec::new();
            for record in &data {
                stream.extend(header(record.len() as u64).unwrap());
                stream.extend(record);
                stream.extend(padding(record.len() as u64));
            }
            prop_assert_eq!(stream.len() % 4, 0);
            prop_assert_eq!(records(&stream), data);
        }
    }

    #[test]
    fn a_record_has_its_limits() {
        assert_eq!(header(3).unwrap(), [0x0a, 0x23, 0xd7, 0xce, 3, 0, 0, 0]);
        assert_eq!(header(MAX_BYTES).unwrap()[4..], [0xff, 0xff, 0xff, 0x1f]);
        assert_eq!(header(MAX_BYTES + 1), None);
        assert_eq!(header(u64::MAX), None);
    }
}
