//! A file of an archive beside the one that is in its place.
//!
//! Invariant: what has been read to compare them is not lost: what differs is there from its beginning.

use std::io::{self, Chain, Cursor, Read, Seek, Take};
use std::path::Path;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::libc;

/// A file's data from its beginning: what is as it was, what was read beyond that, and what was not read.
pub(super) type Whole<'a, R> = Chain<Chain<Take<std::fs::File>, Cursor<Vec<u8>>>, &'a mut R>;

const BUFFER_BYTES: usize = 64 << 10;

/// Compares data with a file of the same length; none where they are the same.
pub(super) fn differing<'a, R: Read>(folder: &Dir, path: &Path, data: &'a mut R) -> io::Result<Option<Whole<'a, R>>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let mut there = folder.open_with(path, &options)?.into_std();
    let (mut read, mut other, mut same) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES], 0);
    loop {
        let length = data.read(&mut read)?;
        if length == 0 {
            return Ok(None);
        }
        if there.read_exact(&mut other[..length]).is_err() || read[..length] != other[..length] {
            read.truncate(length);
            there.rewind()?;
            return Ok(Some(there.take(same).chain(Cursor::new(read)).chain(data)));
        }
        same += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_whole_and_what_does_not_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let there: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        std::fs::write(folder.path().join("file"), &there).unwrap();
        let opened = Dir::open_ambient_dir(folder.path(), cap_std::ambient_authority()).unwrap();
        assert!(differing(&opened, "file".as_ref(), &mut there.as_slice()).unwrap().is_none());
        for at in [0, 1, 65_536, 199_999] {
            let mut new = there.clone();
            new[at] ^= 1;
            let mut whole = Vec::new();
            differing(&opened, "file".as_ref(), &mut new.as_slice()).unwrap().unwrap().read_to_end(&mut whole).unwrap();
            assert!(whole == new, "from byte {at} on");
        }
    }
}
