//! Directory trees that stand for buckets.
//!
//! Invariant: every path is opened beneath a folder that was configured, by a handle on that folder: neither `..` nor a
//! link leads out. An object appears whole, by rename, and stays after a power failure once a call has returned.

use std::io::{self, ErrorKind, Read as _, Seek as _, Write};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, MetadataExt};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bounds::{Bounds, Limits, Refusal};
use super::fetched::{free_bytes, short_name};
use super::listing::{Listing, Object};
use super::uri::Location;
use super::{ObjectsError, archive};

/// Begins the names of files that are not objects yet.
const UNFINISHED: &str = ".tunesmith-";
/// Where they stand beneath the root.
const UNFINISHED_FILES: &str = ".unfinished";
/// Where they stand beneath a folder that is mapped from another file system: those of each root in a folder of their own,
/// for servers may share what is mapped.
const UNFINISHED_ELSEWHERE: &str = ".tunesmith-unfinished";
/// What a root goes by there.
const NAME: &str = ".name";
/// Where objects of a prefix that is no folder are gathered.
const STAGED: &str = ".staged";

/// A folder with the handle that confines everything to it.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) dir: Dir,
    path: PathBuf,
}

/// The root and the folders mapped into it.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: Base,
    /// Longest prefix first.
    mapped: Vec<(Location, Base)>,
    /// Files that are not objects yet.
    unfinished: Dir,
    unfinished_device: u64,
    /// Where they stand beneath a mapped folder.
    unfinished_elsewhere: PathBuf,
    /// What copies leave free of the disk.
    pub(super) min_free_bytes: u64,
}

impl Base {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        Ok(Self { dir: Dir::open_ambient_dir(&path, ambient_authority())?, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The host's path of something beneath, links resolved.
    pub(super) fn host_path(&self, within: &Path) -> io::Result<PathBuf> {
        if within == Path::new(".") {
            Ok(self.path.clone())
        } else {
            Ok(self.path.join(self.dir.canonicalize(within)?))
        }
    }
}

impl Tree {
    pub(super) fn open(root: &Path, mapped: &[(String, PathBuf)]) -> Result<Self, ObjectsError> {
        std::fs::create_dir_all(root).map_err(failed(|| format!("making {}", root.display())))?;
        let root = Base::open(root).map_err(failed(|| format!("opening {}", root.display())))?;
        let open = |(prefix, folder): &(String, PathBuf)| {
            let base = Base::open(folder);
            let base = base.map_err(failed(|| format!("opening {}, mapped as {prefix}", folder.display())))?;
            Ok((Location::parse(prefix)?, base))
        };
        let mut mapped: Vec<_> = mapped.iter().map(open).collect::<Result<_, ObjectsError>>()?;
        mapped.sort_by_key(|(location, _)| std::cmp::Reverse(location.segments.len()));
        root.dir.create_dir_all(UNFINISHED_FILES).map_err(failed(|| format!("making {UNFINISHED_FILES}")))?;
        let opened = open_unfinished(&root.dir, UNFINISHED_FILES).and_then(|dir| Ok((dir.dir_metadata()?.dev(), dir)));
        let (unfinished_device, unfinished) = opened.map_err(failed(|| format!("opening {UNFINISHED_FILES}")))?;
        drop_unfinished_gatherings(&root.dir);
        let name = own_name(&root.dir).map_err(failed(|| format!("reading {NAME}")))?;
        let unfinished_elsewhere = Path::new(UNFINISHED_ELSEWHERE).join(name);
        for (_, base) in &mapped {
            match open_unfinished(&base.dir, &unfinished_elsewhere) {
                Err(error) if !is_absent(&error) => {
                    tracing::warn!(path = %base.path.display(), %error, "unfinished objects were not looked for");
                }
                _ => {}
            }
        }
        Ok(Self { root, mapped, unfinished, unfinished_device, unfinished_elsewhere, min_free_bytes: 0 })
    }

    /// The folder that a location lies in, and its path from there; `.` is the folder itself.
    pub(super) fn locate(&self, location: &Location) -> (&Base, PathBuf) {
        for (prefix, base) in &self.mapped {
            if prefix.bucket == location.bucket && location.segments.starts_with(&prefix.segments) {
                return (base, joined(&location.segments[prefix.segments.len()..]));
            }
        }
        (&self.root, Path::new(&location.bucket).join(joined(&location.segments)).components().collect())
    }

    /// Where the host keeps a location, or would.
    pub(super) fn place(&self, location: &Location) -> PathBuf {
        let (base, path) = self.locate(location);
        base.path.join(path).components().filter(|part| *part != Component::CurDir).collect()
    }

    /// A local path with everything whose key begins with the location's.
    pub(super) fn stage(&self, location: &Location) -> io::Result<Option<PathBuf>> {
        let (base, path) = self.locate(location);
        match base.dir.metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                let bounds = Bounds::new(Limits::INPUT, CancellationToken::new());
                return match holds_object(&base.dir.open_dir(&path)?, 0, &bounds) {
                    Ok(false) => Ok(None),
                    // What may not be looked into is for the program to try.
                    Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
                    _ => base.host_path(&path).map(Some),
                };
            }
            Ok(_) if !location.is_folder => return base.host_path(&path).map(Some),
            Ok(_) => return Ok(None),
            Err(error) if is_absent(&error) => {}
            Err(error) => return Err(error),
        }
        if location.is_folder { Ok(None) } else { self.gather(base, &path) }
    }

    /// A folder with the objects whose names begin with the last segment; the same one for the same objects.
    fn gather(&self, base: &Base, path: &Path) -> io::Result<Option<PathBuf>> {
        let (Some(parent), Some(prefix)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Ok(None);
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let entries = match base.dir.read_dir(parent) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut matches = Vec::new();
        let mut identity = Sha256::new_with_prefix(base.path.join(path).as_os_str().as_encoded_bytes());
        for entry in entries {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(prefix) && !name.starts_with(UNFINISHED)) {
                matches.push(name);
            }
        }
        matches.sort_unstable();
        let (mut files, bounds) = (Vec::new(), Bounds::new(Limits::INPUT, CancellationToken::new()));
        for name in matches {
            list(&base.dir, &parent.join(&name), Path::new(&name), 0, &bounds, &mut files)?;
        }
        if files.is_empty() {
            return Ok(None);
        }
        for file in &files {
            let object = shown(&file.target.to_string_lossy(), &base.dir.metadata(&file.source)?)?;
            identity.update(file.target.as_os_str().as_encoded_bytes());
            identity.update(format!("\0{}\0{}\0", object.bytes, object.modified));
        }
        self.assemble(identity, files.iter().map(|file| (base, file.source.as_path(), file.target.as_path()))).map(Some)
    }

    /// A folder beneath the root with these files, by the name that the digest gives it.
    fn assemble<'f>(
        &self,
        identity: Sha256,
        files: impl Iterator<Item = (&'f Base, &'f Path, &'f Path)>,
    ) -> io::Result<PathBuf> {
        let (staged, unfinished) = (staged(identity), Path::new(STAGED).join(unfinished_name()));
        if !self.root.dir.is_dir(&staged) {
            self.root.dir.create_dir_all(&unfinished)?;
            for (base, source, target) in files {
                let target = unfinished.join(target);
                target.parent().map_or(Ok(()), |parent| self.root.dir.create_dir_all(parent))?;
                // The same file by another name where both are on one file system.
                if base.dir.hard_link(source, &self.root.dir, &target).is_err() {
                    let bytes = base.dir.metadata(source)?.len();
                    if free_bytes(&self.root.path)? < bytes.saturating_add(self.min_free_bytes) {
                        self.root.dir.remove_dir_all(&unfinished)?;
                        return Err(Refusal::NoRoom(bytes, self.min_free_bytes).into());
                    }
                    base.dir.copy(source, &self.root.dir, &target)?;
                }
            }
            if let Err(error) = self.root.dir.rename(&unfinished, &self.root.dir, &staged) {
                self.root.dir.remove_dir_all(&unfinished)?;
                // Another attempt of the same job was quicker.
                if !self.root.dir.is_dir(&staged) {
                    return Err(error);
                }
            }
        }
        self.root.host_path(&staged)
    }

    /// A small object's bytes; none where there is no such object. One of more than `max_bytes` is an error.
    pub(super) fn read(&self, location: &Location, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let (base, path) = self.locate(location);
        let Some((path, meta)) = regular(base, &path)? else { return Ok(None) };
        if meta.len() > max_bytes {
            return Err(Refusal::TooLarge(max_bytes).into());
        }
        let Some(file) = archive::open_regular(&base.dir, &path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max_bytes).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The objects of these keys; the first that is not there is the error's.
    pub(super) fn look_up(&self, bucket: &str, keys: &[String]) -> io::Result<Result<Vec<Object>, String>> {
        let mut objects = Vec::with_capacity(keys.len());
        for key in keys {
            let (base, path) = self.locate(&within(bucket, key));
            match regular(base, &path)? {
                Some((_, meta)) => objects.push(shown(key, &meta)?),
                None => return Ok(Err(key.clone())),
            }
        }
        Ok(Ok(objects))
    }

    /// A folder with what a listing has, while that is as it was; the error's key is that of the first that is not.
    pub(super) fn stage_listed(&self, listing: &Listing) -> io::Result<Result<PathBuf, String>> {
        let mut identity = Sha256::new_with_prefix(format!("listed\0{}", listing.bucket));
        for (path, object) in &listing.files {
            identity.update(format!("\0{path}\0{}\0{}\0{}\0", object.key, object.bytes, object.modified));
        }
        let gathered = staged(identity.clone());
        if self.root.dir.is_dir(&gathered) {
            return match self.rewritten(&gathered, listing)? {
                Some(key) => Ok(Err(key)),
                None => self.root.host_path(&gathered).map(Ok),
            };
        }
        let mut files = Vec::with_capacity(listing.files.len());
        for (target, object) in &listing.files {
            let (base, path) = self.locate(&within(&listing.bucket, &object.key));
            match regular(base, &path)? {
                Some((source, meta)) if shown(&object.key, &meta)? == *object => files.push((base, source, target)),
                _ => return Ok(Err(object.key.clone())),
            }
        }
        let files = files.iter().map(|(base, source, target)| (*base, source.as_path(), Path::new(target)));
        self.assemble(identity, files).map(Ok)
    }

    /// The first object of a gathered listing that is not as it was: what is a link shows a file that was written over in
    /// its place, rather than replaced.
    fn rewritten(&self, gathered: &Path, listing: &Listing) -> io::Result<Option<String>> {
        for (target, object) in &listing.files {
            let there = self.root.dir.metadata(gathered.join(target))?;
            if shown(&object.key, &there)? == *object {
                continue;
            }
            // A copy has a time of its own.
            let (base, path) = self.locate(&within(&listing.bucket, &object.key));
            let source = regular(base, &path)?;
            let is_link = source.is_some_and(|(_, source)| (source.dev(), source.ino()) == (there.dev(), there.ino()));
            if is_link || there.len() != object.bytes {
                return Ok(Some(object.key.clone()));
            }
        }
        Ok(None)
    }

    /// A folder, made where it is missing.
    pub(super) fn directory(&self, location: &Location) -> io::Result<PathBuf> {
        let (base, path) = self.locate(location);
        base.dir.create_dir_all(&path)?;
        base.host_path(&path)
    }

    /// Writes one object.
    pub(super) fn put(&self, location: &Location, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let (base, path) = self.locate(location);
        self.put_beneath(base, &path, write)
    }

    /// Writes a file beneath a base, with the folders it needs.
    pub(super) fn put_beneath(
        &self,
        base: &Base,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(ErrorKind::IsADirectory, "the URI names a whole bucket"));
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                base.dir.create_dir_all(parent)?;
                base.dir.open_dir(parent)?
            }
            _ => base.dir.try_clone()?,
        };
        // Where it is one file system, unfinished files stand together, so that what a crash leaves is found without
        // going through every bucket.
        let device = folder.dir_metadata()?.dev();
        if device == self.unfinished_device {
            return put(&self.unfinished, &unfinished_name(), &folder, Path::new(name), write);
        }
        if device == base.dir.dir_metadata()?.dev() {
            // Only what is further in may be the server's to write to.
            let made = base.dir.create_dir_all(&self.unfinished_elsewhere);
            if let Ok(unfinished) = made.and_then(|()| base.dir.open_dir(&self.unfinished_elsewhere)) {
                return put(&unfinished, &unfinished_name(), &folder, Path::new(name), write);
            }
        }
        put(&folder, &unfinished_name(), &folder, Path::new(name), write)
    }

    /// A file without a name, written and to be read from its beginning, with its length.
    pub(super) fn nameless(&self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<(std::fs::File, u64)> {
        let name = unfinished_name();
        let mut options = cap_std::fs::OpenOptions::new();
        let mut file = self.unfinished.open_with(&name, options.read(true).write(true).create_new(true))?;
        self.unfinished.remove_file(&name)?;
        write(&mut file)?;
        let mut file = file.into_std();
        let bytes = file.stream_position()?;
        file.rewind()?;
        Ok((file, bytes))
    }

    /// Forgets gathered prefixes. Only while no attempt runs: its channels are shown from there.
    pub(super) fn forget_gathered(&self) -> io::Result<()> {
        match self.root.dir.remove_dir_all(STAGED) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn put(
    at: &Dir,
    unfinished: &str,
    folder: &Dir,
    name: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = at.create(unfinished)?;
    let written = write(&mut file).and_then(|()| file.flush());
    match written.and_then(|()| at.rename(unfinished, folder, name)) {
        // Synced under its last name: a journalling file system then keeps the name with the bytes, at the price of one
        // commit. What a power failure tears before is written again, since nothing was recorded of it yet.
        Ok(()) => file.sync_all(),
        Err(error) => {
            let _ = at.remove_file(unfinished);
            Err(error)
        }
    }
}

/// A file with the path that it gets elsewhere.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
}

/// All regular files at or beneath a path, without following links, in order.
pub(super) fn list(
    dir: &Dir,
    source: &Path,
    target: &Path,
    depth: usize,
    bounds: &Bounds,
    files: &mut Vec<Listed>,
) -> io::Result<()> {
    bounds.entry(depth)?;
    let meta = dir.symlink_metadata(source)?;
    if meta.is_file() {
        bounds.bytes(meta.len())?;
        files.push(Listed { source: source.to_owned(), target: target.to_owned() });
    }
    if !meta.is_dir() {
        return Ok(());
    }
    let names = archive::names(&archive::open_folder(dir, source)?, depth, bounds)?;
    names.iter().try_for_each(|name| list(dir, &source.join(name), &target.join(name), depth + 1, bounds, files))
}

/// Whether anything but folders stands at or beneath a folder; looks no further than the first.
fn holds_object(folder: &Dir, depth: usize, bounds: &Bounds) -> io::Result<bool> {
    let mut folders = Vec::new();
    for entry in folder.entries()? {
        bounds.entry(depth)?;
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            return Ok(true);
        }
        folders.push(entry.file_name());
    }
    for name in folders {
        if holds_object(&folder.open_dir(&name)?, depth + 1, bounds)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The name of a root, drawn once.
fn own_name(root: &Dir) -> io::Result<String> {
    match root.read_to_string(NAME) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let drawn = Uuid::new_v4().simple().to_string();
            root.write(NAME, &drawn)?;
            Ok(drawn)
        }
        read => {
            // Cut short by a crash, it is another name than it was: what stood under that one stays.
            let read = read?;
            let name: String = read.chars().filter(char::is_ascii_hexdigit).collect();
            Ok(if name.is_empty() { "0".to_owned() } else { name })
        }
    }
}

/// A folder of unfinished files; what a crash left in it is deleted.
fn open_unfinished(base: &Dir, name: impl AsRef<Path>) -> io::Result<Dir> {
    let unfinished = base.open_dir(name)?;
    for entry in unfinished.entries()? {
        let name = entry?.file_name();
        if let Err(error) = unfinished.remove_file(&name) {
            tracing::warn!(?name, %error, "an unfinished object could not be deleted");
        }
    }
    Ok(unfinished)
}

/// Deletes gathered prefixes that a crash left half done; they are under no name that anything looks for.
fn drop_unfinished_gatherings(root: &Dir) {
    for entry in root.read_dir(STAGED).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(UNFINISHED))
            && let Err(error) = root.remove_dir_all(Path::new(STAGED).join(&name))
        {
            tracing::warn!(?name, %error, "a half-gathered prefix could not be deleted");
        }
    }
}

fn joined(segments: &[String]) -> PathBuf {
    if segments.is_empty() { PathBuf::from(".") } else { segments.iter().collect() }
}

fn unfinished_name() -> String {
    format!("{UNFINISHED}{}", Uuid::new_v4().simple())
}

/// Where gathered objects of this digest stand.
fn staged(identity: Sha256) -> PathBuf {
    Path::new(STAGED).join(short_name(identity))
}

/// A key of a bucket, its parts checked before.
fn within(bucket: &str, key: &str) -> Location {
    let segments = key.split('/').map(str::to_owned).collect();
    Location { bucket: bucket.to_owned(), segments, is_folder: false }
}

/// A regular file, links within the base resolved; none where there is none, or where a link leads out.
fn regular(base: &Base, path: &Path) -> io::Result<Option<(PathBuf, Metadata)>> {
    let found = base.dir.canonicalize(path).and_then(|path| Ok((base.dir.symlink_metadata(&path)?, path)));
    match found {
        Ok((meta, path)) => Ok(meta.is_file().then_some((path, meta))),
        Err(error) if is_absent(&error) || error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file as an object.
fn shown(key: &str, meta: &Metadata) -> io::Result<Object> {
    let modified = meta.modified()?.into_std().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Object { key: key.to_owned(), bytes: meta.len(), etag: None, modified: modified.as_nanos().to_string() })
}

/// Nothing there: also where a file stands on the way.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// An error of the file system, or of [`Bounds`], as the caller's.
pub(super) fn failed(doing: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> ObjectsError {
    move |source| match source.downcast::<Refusal>() {
        Ok(Refusal::Cancelled) => ObjectsError::Cancelled { doing: doing() },
        Ok(Refusal::TooLarge(max_bytes)) => ObjectsError::TooLarge { doing: doing(), max_bytes },
        Ok(why @ Refusal::NoRoom(bytes, _)) => ObjectsError::NoRoom { bytes, why: why.to_string() },
        Ok(why) => ObjectsError::Unpackable { doing: doing(), why: why.to_string() },
        Err(source) => ObjectsError::Io { doing: doing(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_leaves_on_another_file_system_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let mapped = dir.path().join("mapped");
        std::fs::create_dir(&mapped).unwrap();
        let open = || Tree::open(&dir.path().join("root"), &[("s3://b/".into(), mapped.clone())]).unwrap();
        let mut tree = open();
        tree.unfinished_device = !tree.unfinished_device;
        let location = Location::parse("s3://b/deep/object").unwrap();
        tree.put(&location, |file| file.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::read_to_string(mapped.join("deep/object")).unwrap(), "whole");
        let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tree.put(&location, |_| panic!("the server is killed"))
        }));
        assert!(crashed.is_err());
        let left = || std::fs::read_dir(mapped.join(&tree.unfinished_elsewhere)).unwrap().count();
        assert_eq!((left(), std::fs::read_dir(mapped.join("deep")).unwrap().count()), (1, 1));
        let other = dir.path().join("other");
        drop(Tree::open(&other, &[("s3://b/".into(), mapped.clone())]).unwrap());
        assert_eq!(left(), 1, "what another server has begun");
        drop(open());
        assert_eq!(left(), 0);
        assert_eq!(std::fs::read_to_string(mapped.join("deep/object")).unwrap(), "whole");
    }

    #[test]
    fn copies_leave_the_disk_its_floor_and_links_need_no_room() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap());
        let device = |path: &Path| std::os::unix::fs::MetadataExt::dev(&std::fs::metadata(path).unwrap());
        assert_ne!(device(dir.path()), device(elsewhere.path()), "this test wants a file system in memory");
        let (root, mapped) = (dir.path().join("root"), elsewhere.path().to_owned());
        std::fs::create_dir_all(root.join("here")).unwrap();
        for folder in [&root.join("here"), &mapped] {
            std::fs::write(folder.join("part-1"), "rows").unwrap();
        }
        let mut tree = Tree::open(&root, &[("s3://elsewhere/".into(), mapped)]).unwrap();
        let stage = |tree: &Tree, uri: &str| tree.stage(&Location::parse(uri).unwrap());
        tree.min_free_bytes = u64::MAX;
        let error = failed(String::new)(stage(&tree, "s3://elsewhere/part").unwrap_err());
        assert!(matches!(error, ObjectsError::NoRoom { bytes: 4, .. }), "{error}");
        assert!(stage(&tree, "s3://here/part").unwrap().unwrap().join("part-1").exists());
        tree.min_free_bytes = 0;
        assert!(stage(&tree, "s3://elsewhere/part").unwrap().unwrap().join("part-1").exists());
    }
}
