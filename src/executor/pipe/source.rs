//! The items of a channel that is streamed.
//!
//! Invariant: only regular files at or beneath the channel's own data are opened, whatever links stand there. How many
//! items there are and what each is does not change once a source is open.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use nix::libc;

use crate::domain::pipe::Piece;
use crate::executor::keys;
use crate::executor::paths::open_without_links;

/// A channel's data, open.
#[derive(Debug)]
pub(super) struct Source {
    folder: Dir,
    /// By the first part of a path, where the items' files are in several folders.
    buckets: BTreeMap<String, Dir>,
    items: Items,
}

#[derive(Debug)]
enum Items {
    /// Each file, in the order of the keys.
    Files(Vec<PathBuf>),
    /// The lines of a list, by where each begins.
    List(BufReader<File>, Vec<u64>),
}

/// A part of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// A file beneath the channel's data.
    File(PathBuf),
    /// A text as it stands.
    Text(String),
}

impl Source {
    /// Opens a folder, or a single file; of a folder what a list names, or all of it. What a list names may be in further
    /// folders.
    pub(super) fn open(path: &Path, list: Option<&Path>, buckets: &BTreeMap<String, PathBuf>) -> io::Result<Self> {
        let bucket = |(name, path): (&String, &PathBuf)| Ok((name.clone(), Dir::from_std_file(opened(path)?)));
        let buckets = buckets.iter().map(bucket).collect::<io::Result<_>>()?;
        let place = opened(path)?;
        if place.metadata()?.is_dir() {
            let folder = Dir::from_std_file(place);
            let items = match list {
                None => Items::Files(files(&folder)?),
                Some(list) => lines(list)?,
            };
            return Ok(Self { folder, buckets, items });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the data has no name"));
        };
        Ok(Self { folder: Dir::from_std_file(opened(parent)?), buckets, items: Items::Files(vec![name.into()]) })
    }

    /// How many items it has.
    pub(super) fn len(&self) -> usize {
        match &self.items {
            Items::Files(files) => files.len(),
            Items::List(_, lines) => lines.len(),
        }
    }

    /// The parts of an item; none of one that is not there.
    pub(super) fn item(&mut self, number: usize) -> io::Result<Vec<Part>> {
        match &mut self.items {
            Items::Files(files) => Ok(files.get(number).cloned().map(Part::File).into_iter().collect()),
            Items::List(list, lines) => {
                let Some(at) = lines.get(number) else { return Ok(Vec::new()) };
                list.seek(SeekFrom::Start(*at))?;
                let mut line = Vec::new();
                list.read_until(b'\n', &mut line)?;
                let pieces: Vec<Piece> = serde_json::from_slice(&line)?;
                let part = |piece| match piece {
                    Piece::File(path) => Part::File(path.into()),
                    Piece::Text(text) => Part::Text(text),
                };
                Ok(pieces.into_iter().map(part).collect())
            }
        }
    }

    /// The folder of an item's file, and its path there.
    fn place<'a>(&'a self, path: &'a Path) -> Option<(&'a Dir, &'a Path)> {
        if self.buckets.is_empty() {
            return Some((&self.folder, path));
        }
        let mut parts = path.components();
        let bucket = self.buckets.get(parts.next()?.as_os_str().to_str()?)?;
        Some((bucket, parts.as_path()))
    }

    /// Opens a regular file of an item, with its length.
    pub(super) fn file(&self, path: &Path) -> io::Result<(File, u64)> {
        let mut options = OpenOptions::new();
        // Something else may stand there by now, and must not be waited for.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let (folder, path) = self.place(path).ok_or(ErrorKind::NotFound)?;
        let file = folder.open_with(path, &options)?.into_std();
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta.len())) } else { Err(io::Error::other("it is no regular file")) }
    }
}

/// Opens what stands at a path, for reading.
fn opened(path: &Path) -> io::Result<File> {
    let place = open_without_links(path)?;
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// The regular files of a folder, by links within it too.
fn files(folder: &Dir) -> io::Result<Vec<PathBuf>> {
    let mut files = keys::objects(folder)?;
    files.retain(|path| folder.metadata(path).is_ok_and(|meta| meta.is_file()));
    Ok(files)
}

fn lines(list: &Path) -> io::Result<Items> {
    let mut list = BufReader::new(File::open(list)?);
    let (mut starts, mut at) = (Vec::new(), 0);
    loop {
        let length = list.skip_until(b'\n')?;
        if length == 0 {
            return Ok(Items::List(list, starts));
        }
        starts.push(at);
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &Source, path: &str) -> io::Result<String> {
        let (mut file, bytes) = source.file(path.as_ref())?;
        let text = io::read_to_string(&mut file)?;
        assert_eq!(text.len() as u64, bytes);
        Ok(text)
    }

    fn items(source: &mut Source) -> Vec<Vec<Part>> {
        (0..source.len()).map(|number| source.item(number).unwrap()).collect()
    }

    #[test]
    fn a_folder_has_its_files_in_the_order_of_keys_and_nothing_beyond_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().canonicalize().unwrap().join("data");
        std::fs::create_dir_all(data.join("a")).unwrap();
        for path in ["data/a/x", "data/a.csv", "secret"] {
            std::fs::write(data.parent().unwrap().join(path), path).unwrap();
        }
        std::os::unix::fs::symlink("../secret", data.join("b-out")).unwrap();
        std::os::unix::fs::symlink("a/x", data.join("c-in")).unwrap();
        nix::unistd::mkfifo(&data.join("d-pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut source = Source::open(&data, None, &BTreeMap::new()).unwrap();
        let file = |path: &str| vec![Part::File(path.into())];
        assert_eq!(items(&mut source), [file("a.csv"), file("a/x"), file("c-in")]);
        assert_eq!(read(&source, "c-in").unwrap(), "data/a/x");
        for beyond in ["b-out", "../secret", "d-pipe", "a", "none"] {
            assert!(read(&source, beyond).is_err(), "{beyond}");
        }
        let mut single = Source::open(&data.join("a.csv"), None, &BTreeMap::new()).unwrap();
        assert_eq!(items(&mut single), [file("a.csv")]);
        assert_eq!(single.item(7).unwrap(), []);
        assert!(Source::open(&data.join("c-in"), None, &BTreeMap::new()).is_err(), "a link is not what was staged");
    }

    #[test]
    fn a_list_is_read_line_by_line_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        std::fs::write(&list, "[{\"file\":\"b\"},{\"text\":\"1\"}]\n[{\"file\":\"a\"}]\n[]").unwrap();
        let mut source = Source::open(&folder.path().canonicalize().unwrap(), Some(&list), &BTreeMap::new()).unwrap();
        assert_eq!(source.len(), 3);
        assert_eq!(source.item(1).unwrap(), [Part::File("a".into())]);
        assert_eq!(source.item(0).unwrap(), [Part::File("b".into()), Part::Text("1".into())]);
        assert_eq!(source.item(2).unwrap(), []);
    }
}
