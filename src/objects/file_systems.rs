//! Folders of this machine that stand for network file systems (`FileSystemDataSource`).
//!
//! Invariant: a directory is found beneath its file system's root, by a handle on the root: neither `..` nor a link leads
//! out. Nothing is written there; who shows it to a program shows it read-only.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use super::tree::{Base, failed};
use super::{Objects, ObjectsError};
use crate::config::{FileSystem, FileSystemType};
use crate::domain::rules;

/// The roots, by their ids.
pub(super) type FileSystems = BTreeMap<String, (FileSystemType, Arc<Base>)>;

impl Objects {
    /// Takes directories of file systems from these folders.
    pub fn with_file_systems(mut self, entries: &[FileSystem]) -> Result<Self, ObjectsError> {
        for FileSystem { id, kind, path } in entries {
            let doing = || format!("opening {}, which is {id}", path.display());
            let base = Base::open(path).map_err(failed(doing))?;
            self.file_systems.insert(id.clone(), (*kind, Arc::new(base)));
        }
        Ok(self)
    }

    /// The file systems that there are, in the order of their ids.
    pub fn file_systems(&self) -> impl Iterator<Item = (&str, FileSystemType)> {
        self.file_systems.iter().map(|(id, (kind, _))| (id.as_str(), *kind))
    }

    /// The folder that stands for a directory of a file system.
    pub async fn directory(&self, id: &str, directory: &str) -> Result<PathBuf, ObjectsError> {
        let refused = |why: &str| ObjectsError::NoDirectory {
            file_system: id.to_owned(),
            directory: directory.to_owned(),
            why: why.to_owned(),
        };
        let (_, base) = self.file_systems.get(id).ok_or_else(|| refused("this server has no such file system"))?;
        let (base, within) = (Arc::clone(base), PathBuf::from(rules::directory(directory).map_err(refused)?));
        let looking =
            self.blocking(format!("looking up {directory} of {id}"), move |_| match base.dir.metadata(&within) {
                Ok(meta) if meta.is_dir() => base.host_path(&within).map(Ok),
                Ok(_) => Ok(Err("it is no directory")),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Ok(Err("there is no such directory"))
                }
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    Ok(Err("it leads out of the file system, or may not be read"))
                }
                Err(error) => Err(error),
            });
        looking.await?.map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[tokio::test]
    async fn a_directory_is_beneath_its_root_or_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("efs");
        std::fs::create_dir_all(root.join("data/train")).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink(folder.path().join("outside"), root.join("leak")).unwrap();
        symlink("../../outside", root.join("data/up")).unwrap();
        symlink("data", root.join("link")).unwrap();
        let entry = FileSystem { id: "fs-01234567".into(), kind: FileSystemType::EFS, path: root.clone() };
        let objects = Objects::new(folder.path().join("root"), vec![]).unwrap().with_file_systems(&[entry]).unwrap();
        let root = root.canonicalize().unwrap();
        for (directory, found) in [("/", ""), ("/data/train", "data/train"), ("/data/", "data"), ("/link", "data")] {
            assert_eq!(objects.directory("fs-01234567", directory).await.unwrap(), root.join(found), "{directory}");
        }
        for directory in ["/leak", "/data/up", "/file", "/none", "/file/x", "/../outside", "data", "", "//x", "/a\0b"] {
            let error = objects.directory("fs-01234567", directory).await.unwrap_err();
            let named = matches!(&error, ObjectsError::NoDirectory { directory: named, .. } if named == directory);
            assert!(named && !error.is_infrastructure(), "{directory:?}: {error}");
        }
        let error = objects.directory("fs-76543210", "/").await.unwrap_err().to_string();
        assert!(error.contains("fs-76543210") && error.contains("no such file system"), "{error}");
    }
}
