//! The one template language: minijinja, in which an undefined name is an error.
//!
//! One [`Engine`] serves the whole process, for recipes here and for conf when a node stages a
//! release. Checking (syntax, filters, tests, names) needs no values and is done when a bundle is
//! built; rendering takes the values as a context.
//!
//! # Invariants
//!
//! * Nothing is escaped and the last newline is kept: what is outside of tags comes out byte for byte.
//! * An error never shows a value of the context, since it may be a secret.

use std::ops::Range;
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::scan::{LONGEST, Scan, scan};

/// A configured template engine.
#[derive(Debug)]
pub struct Engine {
    env: Environment<'static>,
}

/// What is wrong with a template, in bytes of its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What is wrong, in one line.
    pub message: String,
    /// Bytes of the template.
    pub span: Range<usize>,
    /// What to write instead, a line each.
    pub help: Vec<String>,
}

/// Functions of the language that are there without being in a context.
pub(super) const BUILT_IN: &[&str] = &["range", "dict", "namespace"];

static SHARED: LazyLock<Engine> = LazyLock::new(Engine::new);

impl Engine {
    /// The process's engine.
    pub fn shared() -> &'static Self {
        &SHARED
    }

    fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        // For the span of an error; the values that come with it are never printed.
        env.set_debug(true);
        // It would print the context, secrets and all.
        env.remove_global("debug");
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            env.set_syntax(syntax);
        }
        Self { env }
    }

    /// Renders `text` with the names in `context`.
    pub fn render(&self, text: &str, context: &Value) -> Result<String, TemplateError> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        guard(&scan(text))?;
        self.env.render_str(text, context.clone()).map_err(|error| describe(&error, text))
    }

    /// Checks what can be checked without values; gives the names that `text` takes from its context.
    pub(super) fn check(&self, text: &str) -> Result<Scan, TemplateError> {
        if !is_template(text) {
            return Ok(Scan::default());
        }
        let mut found = scan(text);
        guard(&found)?;
        let template = self.env.template_from_str(text).map_err(|error| describe(&error, text))?;
        let roots = template.undeclared_variables(false);
        found.names.retain(|name| name.path.first().is_some_and(|root| roots.contains(root)));
        self.check_words(&found)?;
        Ok(found)
    }

    /// The engine itself finds an unknown filter, test or include only when it renders.
    fn check_words(&self, found: &Scan) -> Result<(), TemplateError> {
        let mut state = self.env.empty_state();
        let wrong = |message: String, span: &Range<usize>| TemplateError {
            message,
            span: span.clone(),
            help: Vec::new(),
        };
        for (name, span) in &found.filters {
            let tried = state.apply_filter(name, &[]);
            if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
                return Err(wrong(format!("unknown filter `{name}`"), span));
            }
        }
        for (name, span) in &found.tests {
            let tried = state.perform_test(name, &[]);
            if tried.is_err_and(|error| error.kind() == ErrorKind::UnknownTest) {
                return Err(wrong(format!("unknown test `{name}`"), span));
            }
        }
        for (word, span) in &found.statements {
            if ["include", "import", "from", "extends"].contains(&word.as_str()) {
                return Err(wrong(format!("`{word}` is not available: a template stands alone"), span));
            }
        }
        Ok(())
    }
}

/// Whether `text` holds anything for the engine to do.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Keeps from the engine what would overflow its stack.
fn guard(found: &Scan) -> Result<(), TemplateError> {
    let Some(span) = found.too_long.clone() else { return Ok(()) };
    let message = format!("more than {LONGEST} words in one tag, or as many branches");
    Err(TemplateError { message, span, help: vec!["split it up, or move the data to [vars]".to_owned()] })
}

fn describe(error: &minijinja::Error, text: &str) -> TemplateError {
    let what = match error.kind() {
        ErrorKind::SyntaxError => "syntax error in the template".to_owned(),
        ErrorKind::UndefinedError => "undefined name in the template".to_owned(),
        kind => kind.to_string(),
    };
    let message = match error.detail() {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    };
    let span = error.range().unwrap_or_else(|| line_span(text, error.line().unwrap_or(1)));
    TemplateError { message, span, help: Vec::new() }
}

fn line_span(text: &str, line: usize) -> Range<usize> {
    let mut start = 0;
    for (index, content) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            return start..start + content.trim_end().len();
        }
        start += content.len();
    }
    0..text.len()
}

/// JSON as a template sees it.
pub fn to_template_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (_, Some(number), _) => Value::from(number),
            (_, _, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(to_template_value).collect(),
        Json::Object(map) => {
            Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), to_template_value(value))))
        }
    }
}

/// Whether `text` takes `root` from its context; false if it is no valid template.
pub(super) fn uses(text: &str, root: &str) -> bool {
    let template = Engine::shared().env.template_from_str(text);
    template.is_ok_and(|template| template.undeclared_variables(false).contains(root))
}
