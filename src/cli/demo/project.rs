//! The demo's folder: windlass.toml, a recipe, conf, and artifacts laid out as vendors lay them out.

use camino::Utf8Path;

use crate::fs::{IoError, IoResultExt as _, calls};

const PROJECT: &str = r#"schema = 1
name = "demo"

[versions]          # the one place where a version is raised
hello = "1.0.0"
runtime = "3.1"
"#;

const HELLO: &str = r#"schema = 1
version = "{{ versions.hello }}-{{ build }}"

[[unpack]]
artifact = "runtime-{{ versions.runtime }}.tar.gz"
into = "runtime"

[[unpack]]
artifact = "hello-{{ versions.hello }}.tar.gz"
into = "hello"

[[conf]]
from = "hello"
into = "hello/conf"
render = ["hello.conf"]

[[persist]]
name = "data"
at = "hello/data"

[service]
kind = "process"
start = ["hello/bin/hello", "hello/conf/hello.conf", "hello"]
stop = { signal = "TERM", timeout = "5s" }

[service.ready]
http = { port = "{{ vars.port }}", path = "/", status = 200 }
within = "5s"
"#;

const CONF: &str = "# rendered on each node
node = {{ node.name }}
listen = {{ node.address }}:{{ vars.port }}
greeting = good day
";

/// The versions of the service; the last one wants another line in its conf, which nobody wrote.
const VERSIONS: [(&str, &str); 3] = [("1.0.0", "greeting"), ("2.0.0", "greeting"), ("3.0.0", "salutation")];

/// Writes the project; `program` becomes the service's runtime.
pub(super) fn write_project(folder: &Utf8Path, program: &Utf8Path) -> Result<(), IoError> {
    for (file, text) in
        [("windlass.toml", PROJECT), ("recipes/hello.toml", HELLO), ("conf/hello/hello.conf", CONF)]
    {
        write(&folder.join(file), text.as_bytes())?;
    }
    let server = std::fs::read(program).at("read", program)?;
    let runtime =
        [("bin/server", 0o755, server), ("LICENSE", 0o644, b"Apache-2.0 OR MIT, at your option.\n".to_vec())];
    tarball(&folder.join("install/runtime-3.1.tar.gz"), "runtime-3.1", &runtime)?;
    for (version, key) in VERSIONS {
        let start = "#!/bin/sh\nexec runtime/bin/server demo-service \"$@\"\n";
        let mut files = vec![
            ("bin/hello".to_owned(), 0o755, start.as_bytes().to_vec()),
            ("VERSION".to_owned(), 0o644, version.as_bytes().to_vec()),
            ("GREETING-KEY".to_owned(), 0o644, key.as_bytes().to_vec()),
        ];
        files.extend((0..200).map(|page| {
            let edition = if page % 20 == 0 { version } else { "any" };
            let text = format!("<h1>Page {page}</h1><p>Edition {edition}</p>\n").repeat(40);
            (format!("pages/{page:03}.html"), 0o644, text.into_bytes())
        }));
        let files: Vec<_> =
            files.iter().map(|(name, mode, bytes)| (name.as_str(), *mode, bytes.clone())).collect();
        let name = format!("hello-{version}");
        tarball(&folder.join(format!("install/{name}.tar.gz")), &name, &files)?;
    }
    Ok(())
}

/// Writes a file, and the folders above it.
pub(super) fn write(path: &Utf8Path, bytes: &[u8]) -> Result<(), IoError> {
    if let Some(dir) = path.parent() {
        calls::create_dir_all(dir).at("create", dir)?;
    }
    std::fs::write(path, bytes).at("write", path)
}

fn tarball(path: &Utf8Path, top: &str, files: &[(&str, u32, Vec<u8>)]) -> Result<(), IoError> {
    write(path, b"")?;
    let file = std::fs::File::create(path).at("create", path)?;
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_500_000_000);
        tar.append_data(&mut header, format!("{top}/{name}"), bytes.as_slice()).at("write", path)?;
    }
    tar.into_inner().and_then(flate2::write::GzEncoder::finish).at("write", path)?;
    Ok(())
}
