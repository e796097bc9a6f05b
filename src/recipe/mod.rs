//! windlass.toml, recipes, templates, windlass.lock: what people write, checked and resolved.
//!
//! Texts become spanned trees ([`load()`] reads the folder, nothing else here touches the disk), trees
//! are merged and decoded into a [`Project`], and whatever is wrong becomes [`Diagnostics`].

mod decode;
mod decode_service;
mod diagnostic;
mod extends;
mod glob;
mod load;
mod lock;
mod names;
mod place;
mod project;
mod reader;
mod scan;
pub mod secrets;
mod service;
mod set;
mod spec;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod version;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use glob::glob_set;
pub(crate) use load::decode_utf8;
pub use load::{LoadError, load};
pub use lock::{Lock, Locked};
pub use names::{TemplateNames, check_template};
pub use place::{Place, Source};
pub use project::read_project;
pub(crate) use reader::{Fields, Problems, check_schema};
pub use service::{Api, Limit, OrTemplate, Probe, Ready, Reload, Service, ServiceKind, Stop};
pub use set::{SetError, set_version};
pub use spec::{Conf, Defaults, Format, Persist, Project, Scratch, Spec, Strip, Unpack};
pub use template::{Engine, TemplateError, to_template_value};
pub(crate) use tree::{Node as TreeNode, Table, Value, parse};
pub use version::VersionTemplate;
