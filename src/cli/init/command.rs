//! The command: looks, asks, refuses to overwrite, writes.

use std::collections::BTreeSet;
use std::io::{BufReader, IsTerminal as _};
use std::os::unix::fs::PermissionsExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use super::found::{Stock, missing, products, stock_roles};
use super::names::Versions;
use super::{ask, write};
use crate::cli::args::Init;
use crate::cli::context::Context;
use crate::cli::error::{Failure, exit};
use crate::fs::{IoResultExt as _, calls, replace};

/// Makes a project of what is in install/.
pub(in crate::cli) fn run(context: &Context, args: &Init) -> Result<u8, Failure> {
    // Not the nearest project above: this is to be one.
    let folder = context.common.dir.clone().unwrap_or_else(|| Utf8PathBuf::from("."));
    let artifacts = artifacts(&folder)?;
    let stock = stock_roles();
    let found = products(&stock, &artifacts);
    let asks =
        !args.yes && !context.is_json() && std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let versions: Versions = if asks {
        ask::ask(&found, BufReader::new(std::io::stdin()), std::io::stderr())
            .at("ask on", Utf8Path::new("the terminal"))?
    } else {
        found.iter().filter_map(|(product, all)| Some((product.clone(), all.first()?.clone()))).collect()
    };
    let (roles, left): (Vec<&Stock>, Vec<&Stock>) =
        stock.iter().partition(|one| missing(one, &versions, &artifacts).is_empty());
    if roles.is_empty() {
        return Err(nothing(&folder, &stock, &versions, &artifacts));
    }
    let name = name(args, &folder);
    let files = write::files(&name, &roles, &versions, &artifacts);
    let there: Vec<&str> =
        files.keys().map(String::as_str).filter(|path| folder.join(path).exists()).collect();
    if !there.is_empty() {
        let message = format!("{folder} has {} already, and nothing is overwritten", there.join(", "));
        let failure = Failure::new(exit::INVALID, "init", message);
        return Err(
            failure.help("make the project in a new folder: mkdir it, with install/ in it, and init there")
        );
    }
    for (path, text) in &files {
        let path = folder.join(path);
        let dir = path.parent().unwrap_or(&folder);
        calls::create_dir_all(dir).at("create", dir)?;
        replace(&path, text.as_bytes())?;
        if text.starts_with("#!") {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
                .at("set the mode of", &path)?;
        }
    }
    // Half of a product that was found is worth a word; what is not there at all is not.
    for one in left {
        let lacks = missing(one, &versions, &artifacts);
        let needed = one.artifacts.iter().filter(|(_, plugin)| !plugin).count();
        if lacks.len() < needed {
            context.remark(&format!("{} is left out: install/ has no {}", one.role, lacks.join(", ")));
        }
    }
    let names: Vec<&str> = roles.iter().map(|one| one.role).collect();
    let paths: Vec<&String> = files.keys().collect();
    context.result(
        || json!({ "name": name, "roles": names, "versions": versions, "files": paths }),
        || {
            format!(
                "{} roles: {}\nwritten: windlass.toml, cluster.toml, {} recipes and files of conf\n\
                 next: `windlass lock`, `windlass build`, then change cluster.toml and `windlass check`\n",
                names.len(),
                names.join(", "),
                paths.len() - 2
            )
        },
    )?;
    Ok(exit::DONE)
}

/// The files in install/.
fn artifacts(folder: &Utf8Path) -> Result<BTreeSet<String>, Failure> {
    let path = folder.join("install");
    let entries = match path.read_dir_utf8() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).at("read", &path)?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.at("read", &path)?;
        if entry.path().is_file() {
            names.insert(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn nothing(folder: &Utf8Path, stock: &[Stock], versions: &Versions, artifacts: &BTreeSet<String>) -> Failure {
    let install = folder.join("install");
    let message = format!("{install} has nothing that a stock recipe could be made of");
    let wanted: BTreeSet<String> = stock.iter().flat_map(|one| missing(one, versions, artifacts)).collect();
    let wanted: Vec<String> = wanted.into_iter().collect();
    Failure::new(exit::INVALID, "init", message)
        .help("put vendors' archives there, as downloaded, then run it again")
        .help(format!("known are {}", wanted.join(", ")))
        .help("for other products write recipes by hand: docs/recipes.md")
}

/// What the project is called: `--name`, or as its folder.
fn name(args: &Init, folder: &Utf8Path) -> String {
    let own = || folder.canonicalize_utf8().ok()?.file_name().map(str::to_owned);
    args.name
        .clone()
        .or_else(own)
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "project".to_owned())
}
