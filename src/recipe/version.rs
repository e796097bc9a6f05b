//! The version of a bundle: a template in which only the build number is still open.

use serde_json::Value as Json;

use super::diagnostic::Diagnostic;
use super::place::Place;
use super::template::{Engine, to_template_value};
use crate::model::Version;

/// A recipe's `version`, with the names it may use.
#[derive(Clone, Debug)]
pub struct VersionTemplate {
    text: String,
    place: Place,
    /// `versions` and `vars`.
    names: serde_json::Map<String, Json>,
    uses_build: bool,
}

impl VersionTemplate {
    pub(super) fn new(
        text: &str,
        place: &Place,
        names: serde_json::Map<String, Json>,
        uses_build: bool,
    ) -> Self {
        Self { text: text.to_owned(), place: place.clone(), names, uses_build }
    }

    /// Where it stands in the recipe.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the build number is part of the version.
    pub fn uses_build(&self) -> bool {
        self.uses_build
    }

    /// The version of build `build`; a build number that is not used is ignored.
    ///
    /// Fails if the number is used and not given, or if the result is no version.
    pub fn render(&self, build: Option<u64>) -> Result<Version, Diagnostic> {
        if self.uses_build && build.is_none() {
            return Err(self
                .place
                .problem("this version needs a build number")
                .help("give one with --build"));
        }
        let mut names = self.names.clone();
        if let Some(build) = build {
            names.insert("build".to_owned(), Json::from(build));
        }
        let context = to_template_value(&Json::Object(names));
        let text = Engine::shared()
            .render(&self.text, &context)
            .map_err(|error| self.place.problem(error.message))?;
        text.parse().map_err(|error| self.place.problem(format!("{error}")))
    }

    /// The build number that gives `version`, if this template made it.
    pub fn build_of(&self, version: &Version) -> Option<u64> {
        if !self.uses_build {
            return None;
        }
        let runs: Vec<&str> = version.as_str().split(|c: char| !c.is_ascii_digit()).collect();
        // A whole run of digits nearly always; a part of one in `1{{ build }}`.
        let parts = runs.iter().flat_map(|run| {
            (0..run.len()).flat_map(move |start| (start + 1..=run.len()).map(move |end| &run[start..end]))
        });
        runs.iter()
            .copied()
            .chain(parts)
            .filter_map(|digits| digits.parse().ok())
            .find(|build| self.render(Some(*build)).is_ok_and(|made| made == *version))
    }
}
