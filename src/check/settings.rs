//! A conf file, read: keys in flat form, each with its values and its line.

use std::collections::BTreeMap;

use super::yaml;

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// One, or those of a list.
    pub values: Vec<String>,
    /// Counted from 1; 0 is not from a file.
    pub line: usize,
    /// Where its last value stands.
    pub last: usize,
}

/// The settings of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    file: String,
    entries: BTreeMap<String, Setting>,
}

impl Settings {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), entries: BTreeMap::new() }
    }

    /// Reads YAML.
    pub(super) fn yaml(file: &str, text: &str) -> Result<Self, (usize, String)> {
        yaml::read(file, text)
    }

    /// Reads `key=value` lines; the last of a key holds, as it does for Java.
    pub(super) fn properties(file: &str, text: &str) -> Self {
        let mut settings = Self::new(file);
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            if let Some((key, value)) = line.split_once(['=', ':']) {
                let (values, line) = (vec![value.trim().to_owned()], index + 1);
                let setting = Setting { values, line, last: line };
                settings.entries.insert(key.trim().to_owned(), setting);
            }
        }
        settings
    }

    /// Adds a key that must be new.
    pub(super) fn add(&mut self, key: String, setting: Setting) -> Result<(), (usize, String)> {
        let line = setting.line;
        if let Some(first) = self.entries.get(&key) {
            return Err((line, format!("`{key}` is given twice, first on line {}", first.line)));
        }
        self.entries.insert(key, setting);
        Ok(())
    }

    /// Sets a key that does not come from the file, as `-Ekey=value` does.
    pub(super) fn set(&mut self, key: &str, value: &str) {
        let setting = Setting { values: vec![value.to_owned()], line: 0, last: 0 };
        self.entries.insert(key.to_owned(), setting);
    }

    /// Replaces `${NAME}` and `${NAME:default}` by what the service's environment has.
    pub(super) fn fill(&mut self, env: &BTreeMap<String, String>) {
        for value in self.entries.values_mut().flat_map(|setting| &mut setting.values) {
            let mut filled = String::new();
            let mut rest = value.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                let Some((name, tail)) = after.split_once('}') else { break };
                let (name, default) = name.split_once(':').map_or((name, None), |(a, b)| (a, Some(b)));
                filled.push_str(before);
                match env.get(name).map(String::as_str).or(default) {
                    Some(text) => filled.push_str(text),
                    None => filled.extend(["${", name, "}"]),
                }
                rest = tail;
            }
            filled.push_str(rest);
            *value = filled;
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// A single value; of a list its parts, with commas between.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        let values = &self.entries.get(key)?.values;
        Some(values.join(",")).filter(|text| !matches!(text.as_str(), "~" | "null"))
    }

    /// The first of these keys that is given, with its value.
    pub(super) fn first<'a>(&self, keys: &[&'a str]) -> Option<(&'a str, String)> {
        keys.iter().find_map(|key| Some((*key, self.get(key)?)))
    }

    pub(super) fn number(&self, key: &str) -> Option<i64> {
        self.get(key)?.trim().parse().ok()
    }

    /// `true` and `false`, also in quotes.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        match self.get(key)?.trim() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// A list, written as one or with commas.
    pub(super) fn list(&self, key: &str) -> Option<Vec<String>> {
        let setting = self.entries.get(key)?;
        let parts = setting.values.iter().flat_map(|value| value.split(',')).map(str::trim);
        Some(parts.filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// Keys that start so, with what follows and the value.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a Setting)> {
        self.entries.iter().filter_map(move |(key, setting)| Some((key.strip_prefix(prefix)?, setting)))
    }

    /// `file:line` of a key, or the file where the key is not given.
    pub(super) fn place(&self, key: &str) -> String {
        match self.entries.get(key).map(|setting| setting.line) {
            Some(line @ 1..) => format!("{}:{line}", self.file),
            Some(0) => format!("{} {key}, from the command line", self.file),
            None => format!("{} {key}", self.file),
        }
    }
}
