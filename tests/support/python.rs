//! Curator and `ElastAlert` themselves, from the Python registry, in archives with the layout that the stock recipes
//! want: programs that find their packages beside themselves, whatever release they are in.
//!
//! Python reads `.pyc` files that a release holds only where they do not go by the time of their source: a bundle's
//! files have no time. So they are compiled to be taken unchecked.

use std::path::PathBuf;
use std::process::Command;

use crate::support::fetch::fetch;
use crate::support::project::{Run, have};

/// The last Curator that knows Elasticsearch 6.
pub(crate) const CURATOR: &str = "5.8.4";
/// `ElastAlert` 0.2.4 needs a package that no longer builds; this is its successor, of a version that still knows
/// Elasticsearch 6 and needs few packages more.
pub(crate) const ELASTALERT: &str = "2.1.2";

/// What Curator imports. Some of what its package asks for it does not, and the `PyYAML` that it asks for no longer builds.
const OF_CURATOR: &str = "elasticsearch-curator==5.8.4 elasticsearch==7.17.12 urllib3==1.26.18 certifi click==7.1.2 \
                          voluptuous==0.13.1 pyyaml==6.0.1 six==1.16.0";
const OF_ELASTALERT: &str = "elastalert2==2.1.2 MarkupSafe<2.1 setuptools<70 urllib3<2";

const CURATOR_STARTS: &str = "import os, sys\n\
     sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), \"lib\"))\n\
     from curator.cli import cli\n\
     sys.exit(cli())\n";

/// The interpreter itself, past whatever stands before it in `PATH`, and the form of modules that it loads.
fn interpreter() -> Option<(String, String)> {
    if !have("python3") {
        return None;
    }
    let says = "import sys; print(sys.executable, sys.implementation.cache_tag)";
    let said = Run::of(Command::new("python3").args(["-c", says])).ok().stdout;
    let (path, tag) = said.trim().split_once(' ')?;
    Some((path.to_owned(), tag.to_owned()))
}

/// Fetches packages into `folder`/`lib`, adds what `more` does there, and packs the folder.
fn packed(name: &str, folder: &str, lib: &str, install: &str, more: &str) -> Option<PathBuf> {
    let (python, tag) = interpreter()?;
    let (start, end) = (format!("{name}-{tag}"), ".tar.gz");
    let script = format!(
        "set -e; work=work; mkdir -p $work/{folder}; exec 3>&1 >&2\n\
         {python} -m pip install -q --disable-pip-version-check --no-warn-conflicts --target $work/{folder}/{lib} {install}\n\
         here=$work/{folder}\n{more}\n\
         {python} -m compileall -q -f --invalidation-mode unchecked-hash $here/{lib} || :\n\
         tar -czf $work/packed -C $work {folder}; mv $work/packed {start}{end}"
    );
    fetch(&start, end, &["bash", "-eo", "pipefail", "-c", &script.replace("@PYTHON@", &python)])
}

/// As `elasticsearch-curator-<version>-linux-x86_64.tar.gz`: `curator` and `lib/`.
pub(crate) fn curator() -> Option<PathBuf> {
    let install = format!("--no-deps --only-binary :all: {OF_CURATOR}");
    let more = format!(
        "cat >$here/curator <<'END'\n#!@PYTHON@ -sE\n{CURATOR_STARTS}END\nchmod 755 $here/curator; rm -rf $here/lib/bin"
    );
    packed(&format!("elasticsearch-curator-{CURATOR}"), "elasticsearch-curator", "lib", &install, &more)
}

/// As `elastalert-<version>-linux-x86_64.tar.gz`: `bin/python` and `lib/`. Without descriptions of web services that
/// no rule here asks.
pub(crate) fn elastalert() -> Option<PathBuf> {
    let quoted: Vec<String> = OF_ELASTALERT.split(' ').map(|one| format!("'{one}'")).collect();
    let more = "mkdir $here/bin; cat >$here/bin/python <<'END'\n#!/bin/sh\n\
                here=$(dirname \"$0\")\nPYTHONPATH=$here/../lib exec @PYTHON@ -s \"$@\"\nEND\n\
                chmod 755 $here/bin/python; rm -rf $here/lib/bin $here/lib/botocore/data/*/ $here/lib/boto3/data \
                $here/lib/tests";
    packed(
        &format!("elastalert-{ELASTALERT}"),
        &format!("elastalert-{ELASTALERT}"),
        "lib",
        &quoted.join(" "),
        more,
    )
}
