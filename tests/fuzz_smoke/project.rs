//! windlass.toml, a recipe, a part that it extends and a template: whatever is wrong with them can be said.
//!
//! Zero bytes part the texts.

use std::collections::BTreeMap;

use windlass::recipe::{Source, check_template, read_project, secrets, set_version};

pub(crate) fn run(text: &str) {
    let mut texts = text.split('\0');
    let mut next = || texts.next().unwrap_or_default();
    let project = Source::new("windlass.toml", next());
    let recipes = BTreeMap::from(
        [("role.toml", next()), ("_part.toml", next())]
            .map(|(name, text)| (name.to_owned(), Source::new(&format!("recipes/{name}"), text))),
    );
    match read_project(&project, &recipes) {
        Ok(project) => {
            for spec in project.recipes.values() {
                let _ = spec.version.render(Some(7));
            }
        }
        Err(problems) => {
            let _ = (problems.render(false), problems.render(true));
        }
    }
    if let Ok(new) = set_version(project.text(), "jdk", "11.0.1") {
        assert_eq!(set_version(&new, "jdk", "11.0.1").expect("it is there"), new);
    }
    let template = next();
    let versions = BTreeMap::from([("jdk".to_owned(), "11".to_owned())]);
    if let Err(problems) = check_template("conf/x", template, &versions) {
        let _ = problems.render(false);
    }
    let _ = secrets::scan("conf/x", template.as_bytes());
}
