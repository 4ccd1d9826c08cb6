//! The images registered in the configuration: the only programs that a request can name.
//!
//! Invariant: a request's `TrainingImage` selects an entry or nothing; no part of it ever becomes a path or an argument.
//! In a pattern `*` and `?` match anything but `/`, and `**` matches that too: `*.dkr.ecr.*.amazonaws.com/xgboost:*`
//! cannot be met by an image of another repository.

use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher};

use crate::domain::request::MetricDefinition;

/// `[[images]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// An image name, or a glob pattern over image names.
    pub name: String,
    /// The program and its first arguments; `train` is appended.
    pub command: Vec<String>,
    /// What requests without definitions of their own get.
    #[serde(default)]
    pub metric_definitions: Vec<MetricDefinition>,
}

/// All registered images, compiled for matching.
#[derive(Debug, Default, Clone)]
pub struct Images {
    images: Vec<(Image, Option<GlobMatcher>)>,
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
        Ok(Self { images: images.into_iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The image that a request's `TrainingImage` names: an exact name first, then the first pattern that matches.
    #[must_use]
    pub fn find(&self, training_image: &str) -> Option<&Image> {
        let exact = self.images.iter().find(|(image, _)| image.name == training_image);
        let matching = || {
            let matches = |matcher: &GlobMatcher| matcher.is_match(training_image);
            self.images.iter().find(|(_, matcher)| matcher.as_ref().is_some_and(matches))
        };
        exact.or_else(matching).map(|(image, _)| image)
    }

    /// The registered names, as configured.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|(image, _)| image.name.as_str())
    }

    /// The registered images, as configured.
    pub fn iter(&self) -> impl Iterator<Item = &Image> {
        self.images.iter().map(|(image, _)| image)
    }
}

/// Checks a command and resolves its program to an absolute path: a name without `/` along `search_path` (as `PATH` is
/// written), a relative path from `base`.
pub fn resolve_command(image: &Image, base: &Path, search_path: &str) -> Result<Vec<String>, InvalidCommand> {
    let invalid = |why: String| InvalidCommand { name: image.name.clone(), why };
    let Some((program, arguments)) = image.command.split_first() else {
        return Err(invalid("it is empty; name a program, as in command = [\"python3\", \"train.py\"]".into()));
    };
    if image.command.iter().any(|word| word.contains('\0')) {
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
    let glob: Glob = GlobBuilder::new(name).literal_separator(true).backslash_escape(true).build()?;
    Ok(Some(glob.compile_matcher()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> Image {
        Image { name: name.into(), command: vec!["/bin/true".into()], metric_definitions: vec![] }
    }

    fn found<'a>(images: &'a Images, name: &str) -> Option<&'a str> {
        images.find(name).map(|image| image.name.as_str())
    }

    #[test]
    fn an_exact_name_wins_over_an_earlier_pattern() {
        let images = Images::new(vec![image("local/*"), image("local/xgb:1"), image("**")]).unwrap();
        assert_eq!(found(&images, "local/xgb:1"), Some("local/xgb:1"));
        assert_eq!(found(&images, "local/xgb:2"), Some("local/*"));
        assert_eq!(found(&images, "a/b/c"), Some("**"));
    }

    #[test]
    fn a_star_stays_within_its_part_of_the_name() {
        let name = "*.dkr.ecr.*.amazonaws.com/sagemaker-xgboost:*";
        let images = Images::new(vec![image(name)]).unwrap();
        let aws = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.7-1";
        assert_eq!(found(&images, aws), Some(name));
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
    fn a_broken_pattern_is_named() {
        let error = Images::new(vec![image("a[")]).unwrap_err();
        assert!(error.to_string().starts_with("the image name a[ is not a valid glob pattern: "), "{error}");
    }

    #[test]
    fn programs_are_resolved_at_start() {
        let with = |command: &[&str]| Image {
            name: "i".into(),
            command: command.iter().map(ToString::to_string).collect(),
            metric_definitions: vec![],
        };
        let resolve = |command: &[&str]| resolve_command(&with(command), Path::new("/bin"), "relative:/bin");
        assert_eq!(resolve(&["sh", "-c", "x"]).unwrap(), ["/bin/sh", "-c", "x"]);
        assert_eq!(resolve(&["./sh"]).unwrap(), ["/bin/./sh"]);
        assert!(resolve(&[]).unwrap_err().to_string().contains("it is empty"));
        assert!(resolve(&["no-such-program"]).unwrap_err().to_string().contains("looked at relative:/bin"));
        assert!(resolve(&["/etc/passwd"]).is_err(), "not executable");
    }
}
