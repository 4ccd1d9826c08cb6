//! The images that a request can name: those registered in the configuration, and container images on its allow-list.
//!
//! Invariant: a request's `TrainingImage` selects an entry, or is itself the reference of a container image that a pattern
//! of the owner's allows; no part of it ever becomes a path or an argument.
//! In a pattern `*` and `?` match anything but `/`, and `**` matches that too: `*.dkr.ecr.*.amazonaws.com/xgboost:*`
//! cannot be met by an image of another repository.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::domain::request::MetricDefinition;

/// An image, as registered or as allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// An image name, or a glob pattern over image names.
    pub name: String,
    /// What runs.
    pub program: Program,
    /// What requests without definitions of their own get.
    pub metric_definitions: Vec<MetricDefinition>,
    /// Whether it runs a script of the user's, so that what `sagemaker_submit_directory` names is to be a channel.
    pub script_mode: bool,
}

/// What stands behind an image's name; either gets the one argument `train`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program of this machine and its first arguments.
    Command(Vec<String>),
    /// A container image with its own entry point.
    Container(Container),
}

/// A container image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What the daemon knows it by, such as `registry.example.com/team/xgboost:1`.
    pub reference: String,
    /// Whether only `/opt/ml` and `/tmp` can be written to.
    pub read_only_root: bool,
}

impl Image {
    /// A program of this machine, without metric definitions.
    #[must_use]
    pub fn command<'w>(name: &str, command: impl IntoIterator<Item = &'w str>) -> Self {
        let command = command.into_iter().map(str::to_owned).collect();
        Self::bare(name, Program::Command(command))
    }

    /// A container image under a name, without metric definitions.
    #[must_use]
    pub fn container(name: &str, reference: &str) -> Self {
        let container = Container { reference: reference.to_owned(), read_only_root: false };
        Self::bare(name, Program::Container(container))
    }

    fn bare(name: &str, program: Program) -> Self {
        Self { name: name.to_owned(), program, metric_definitions: Vec::new(), script_mode: false }
    }

    /// The container image, where it is one.
    #[must_use]
    pub fn as_container(&self) -> Option<&Container> {
        match &self.program {
            Program::Container(container) => Some(container),
            Program::Command(_) => None,
        }
    }
}

/// All images, compiled for matching.
#[derive(Debug, Default, Clone)]
pub struct Images {
    images: Vec<(Image, Option<GlobMatcher>)>,
    /// Container images that need no entry.
    allowed: Vec<(String, GlobMatcher)>,
}

/// A registered name that is no glob pattern.
#[derive(Debug, thiserror::Error)]
#[error("the image name {name} is not a valid glob pattern: {why}")]
pub struct InvalidPattern {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

/// A registered command that cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the command of image {name} cannot be run: {why}")]
pub struct InvalidCommand {
    /// The image.
    pub name: String,
    /// What is wrong with the command, and where it was looked for.
    pub why: String,
}

impl Images {
    /// Compiles the patterns.
    pub fn new(images: Vec<Image>) -> Result<Self, InvalidPattern> {
        let compile = |image: Image| match pattern(&image.name) {
            Ok(matcher) => Ok((image, matcher)),
            Err(why) => Err(InvalidPattern { name: image.name, why: why.kind().to_string() }),
        };
        Ok(Self { images: images.into_iter().map(compile).collect::<Result<_, _>>()?, allowed: Vec::new() })
    }

    /// Lets requests name container images that a pattern matches, without an entry.
    pub fn allow(mut self, patterns: &[String]) -> Result<Self, InvalidPattern> {
        for name in patterns {
            let invalid = |why: globset::Error| InvalidPattern { name: name.clone(), why: why.kind().to_string() };
            self.allowed.push((name.clone(), glob(name).map_err(invalid)?));
        }
        Ok(self)
    }

    /// The image that a request's `TrainingImage` names: an exact name first, then the first pattern that matches, then
    /// the container image of that very reference where the allow-list has it.
    #[must_use]
    pub fn find(&self, training_image: &str) -> Option<Cow<'_, Image>> {
        if let Some(registered) = self.registered(training_image) {
            return Some(Cow::Borrowed(registered));
        }
        let allowed = is_reference(training_image) && self.allowed.iter().any(|(_, p)| p.is_match(training_image));
        allowed.then(|| Cow::Owned(Image::container(training_image, training_image)))
    }

    /// Whether any request can ask for a container.
    #[must_use]
    pub fn has_containers(&self) -> bool {
        !self.allowed.is_empty() || self.iter().any(|image| image.as_container().is_some())
    }

    fn registered(&self, training_image: &str) -> Option<&Image> {
        let exact = self.images.iter().find(|(image, _)| image.name == training_image);
        let matching = || {
            let matches = |matcher: &GlobMatcher| matcher.is_match(training_image);
            self.images.iter().find(|(_, matcher)| matcher.as_ref().is_some_and(matches))
        };
        exact.or_else(matching).map(|(image, _)| image)
    }

    /// The names that can be used, as configured.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let registered = self.images.iter().map(|(image, _)| image.name.as_str());
        registered.chain(self.allowed.iter().map(|(pattern, _)| pattern.as_str()))
    }

    /// The registered images, as configured.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|(image, _)| image)
    }
}

/// Checks a command and resolves its program to an absolute path: a name without `/` along `search_path` (as `PATH` is
/// written), a relative path from `base`.
pub fn resolve_command(
    name: &str,
    command: &[String],
    base: &Path,
    search_path: &str,
) -> Result<Vec<String>, InvalidCommand> {
    let invalid = |why: String| InvalidCommand { name: name.to_owned(), why };
    let Some((program, arguments)) = command.split_first() else {
        return Err(invalid("it is empty; name a program, as in command = [\"python3\", \"train.py\"]".into()));
    };
    if command.iter().any(|word| word.contains('\0')) {
        return Err(invalid("it holds a NUL character".into()));
    }
    let candidates: Vec<PathBuf> = if program.contains('/') {
        vec![base.join(program)]
    } else {
        search_path.split(':').filter(|dir| dir.starts_with('/')).map(|dir| Path::new(dir).join(program)).collect()
    };
    let Some(found) = candidates.iter().find(|path| is_executable(path)) else {
        let looked = if program.contains('/') { base.join(program).display().to_string() } else { search_path.into() };
        return Err(invalid(format!("no executable file {program} was found (looked at {looked})")));
    };
    let Some(found) = found.to_str() else {
        return Err(invalid(format!("{} is not UTF-8", found.display())));
    };
    Ok(std::iter::once(found.to_owned()).chain(arguments.iter().cloned()).collect())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn pattern(name: &str) -> Result<Option<GlobMatcher>, globset::Error> {
    if !name.contains(['*', '?', '[', '{']) {
        return Ok(None);
    }
    glob(name).map(Some)
}

fn glob(pattern: &str) -> Result<GlobMatcher, globset::Error> {
    let glob: Glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build()?;
    Ok(glob.compile_matcher())
}

/// Whether a text can be the reference of a container image, and nothing else: it becomes part of a URL.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "._-:@".contains(c);
    let part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(ordinary);
    text.len() <= 512 && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image::command(name, ["/bin/true"])
    }

    fn found(images: &Images, name: &str) -> Option<String> {
        images.find(name).map(|image| image.name.clone())
    }

    #[test]
    fn an_exact_name_wins_over_an_earlier_pattern() {
        let images = Images::new(vec![image("local/*"), image("local/xgb:1"), image("**")]).unwrap();
        assert_eq!(found(&images, "local/xgb:1"), Some("local/xgb:1".into()));
        assert_eq!(found(&images, "local/xgb:2"), Some("local/*".into()));
        assert_eq!(found(&images, "a/b/c"), Some("**".into()));
    }

    #[test]
    fn a_star_stays_within_its_part_of_the_name() {
        let name = "*.dkr.ecr.*.amazonaws.com/sagemaker-xgboost:*";
        let images = Images::new(vec![image(name)]).unwrap();
        let aws = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1";
        assert_eq!(found(&images, aws), Some(name.into()));
        for other in [
            "683313688378.dkr.ecr.us-east-1.amazonaws.com/evil/sagemaker-xgboost:1",
            "evil/1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1",
            "1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost",
            "1.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1/../../x",
        ] {
            assert_eq!(found(&images, other), None, "{other}");
        }
    }

    #[test]
    fn container_images_are_taken_as_far_as_the_allow_list_goes() {
        let images = Images::new(vec![image("team/xgb:1")]).unwrap();
        let images = images.allow(&["registry.example.com/**".into(), "team/*:*".into()]).unwrap();
        let reference = |name: &str| Some(images.find(name)?.as_container()?.reference.clone());
        let own = "registry.example.com:5000/a";
        assert_eq!(reference("registry.example.com/a/b:1").as_deref(), Some("registry.example.com/a/b:1"));
        assert_eq!(reference("team/torch:2").as_deref(), Some("team/torch:2"));
        assert_eq!(reference("team/xgb:1"), None, "an entry of its own comes first");
        for name in [own, "evil/registry.example.com/a", "team/x", "registry.example.com/../a", "team/a?b:1", ""] {
            assert_eq!(images.find(name), None, "{name}");
        }
        let names: Vec<&str> = images.names().collect();
        assert_eq!(names, ["team/xgb:1", "registry.example.com/**", "team/*:*"]);
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Images::new(vec![image("a[")]).unwrap_err();
        assert!(error.to_string().starts_with("the image name a[ is not a valid glob pattern: "), "{error}");
    }

    #[test]
    fn programs_are_resolved_at_start() {
        let words = |command: &[&str]| command.iter().map(ToString::to_string).collect::<Vec<_>>();
        let resolve = |command: &[&str]| resolve_command("i", &words(command), Path::new("/bin"), "relative:/bin");
        assert_eq!(resolve(&["sh", "-c", "x"]).unwrap(), ["/bin/sh", "-c", "x"]);
        assert_eq!(resolve(&["./sh"]).unwrap(), ["/bin/./sh"]);
        assert!(resolve(&[]).unwrap_err().to_string().contains("it is empty"));
        assert!(resolve(&["no-such-program"]).unwrap_err().to_string().contains("looked at relative:/bin"));
        assert!(resolve(&["/etc/passwd"]).is_err(), "not executable");
    }
}
