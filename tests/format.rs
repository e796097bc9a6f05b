//! docs/format.md holds: a reader written from it agrees with windlass, bundles of every version can be read, and
//! those of a newer one are refused with advice.
//!
//! `tests/fixtures/format-1/` is a whole project with the bundle that version 1 made of it. Neither is ever
//! changed; a new version of a format gets a folder of its own beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use camino::Utf8Path;
use serde_json::{Value, json};
use windlass::bundle::{Composed, Layer, Manifest, Toc, TocPlace, frame, layout, tar};
use windlass::model::{Cancel, Digest};
use windlass::recipe::Lock;
use windlass::store::Store;

use crate::support::project::copy_tree;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1")
}

fn windlass(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.arg("-C").arg(folder).args(arguments).env_remove("WINDLASS_BUILD").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The result of a command that succeeds.
fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = windlass(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn parsed(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, arguments)).unwrap()
}

/// Both streams of a command that fails with `code`.
fn failed(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = windlass(folder, arguments);
    let streams = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {streams}");
    streams
}

/// The fixture's project in a folder of its own, with its store or without.
fn project(with_store: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_tree(&fixture(), dir.path());
    if !with_store {
        fs::remove_dir_all(dir.path().join("out")).unwrap();
    }
    dir
}

/// What the second reader says; `None` where its tools are missing.
fn second_reader(layout: &Path, name: &str) -> Option<Value> {
    for tool in ["python3", "zstd"] {
        if Command::new(tool).arg("--version").output().is_err() {
            crate::support::tools::skip(&format!("the second reader: there is no {tool}"));
            return None;
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/second_reader.py");
    let output = Command::new("python3").arg(script).arg(layout).arg(name).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

/// Compares the second reader with `windlass inspect` and with windlass's own table of contents.
fn compare(folder: &Path, name: &str) {
    let Some(second) = second_reader(&folder.join("out"), name) else { return };
    let inspected = parsed(folder, &["inspect", name, "--format", "json"]);
    for key in ["digest", "files", "unpacked_size", "record"] {
        assert_eq!(second[key], inspected[key], "{key}");
    }
    let without_offset = |mut entry: Value| {
        entry.as_object_mut().unwrap().remove("offset");
        entry
    };
    let entries: Value = second["entries"].as_array().unwrap().iter().cloned().map(without_offset).collect();
    assert_eq!(entries, inspected["entries"]);

    let store = Store::open(Utf8Path::from_path(&folder.join("out")).unwrap(), &Cancel::new()).unwrap();
    let bundle = store.bundle(&name.parse().unwrap()).unwrap();
    let layers = second["layers"].as_array().unwrap();
    assert_eq!(layers.len(), bundle.manifest.layers.len());
    for ((layer, read), shown) in
        bundle.manifest.layers.iter().zip(layers).zip(inspected["layers"].as_array().unwrap())
    {
        for key in ["digest", "size", "diff_id"] {
            assert_eq!(read[key], shown[key], "{key}");
        }
        let toc = store.layer(layer).unwrap().toc;
        let frames: Vec<Value> = toc
            .frames
            .iter()
            .map(|f| json!({ "offset": f.offset, "size": f.size, "tar_offset": f.tar_offset, "tar_size": f.tar_size }))
            .collect();
        assert_eq!(read["frames"], Value::from(frames));
        let offsets: Vec<&Value> =
            read["entries"].as_array().unwrap().iter().map(|entry| &entry["offset"]).collect();
        assert_eq!(
            offsets,
            toc.offsets.iter().map(|offset| json!(offset)).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
}

/// Adds files to the project that the fixture lacks for its size: many small ones, and noise.
fn grow(folder: &Path) {
    let conf = folder.join("conf/sample/many");
    fs::create_dir_all(&conf).unwrap();
    let mut state = 1u64;
    let mut noise = |size: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..size).map(|_| next()).collect()
    };
    for n in 0..600usize {
        fs::write(conf.join(format!("file-{n}")), noise(n * 37)).unwrap();
    }
    fs::write(conf.join("large-noise"), noise((5 << 20) + 3)).unwrap();
    fs::write(conf.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(conf.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("../many/run", conf.join("a-link")).unwrap();
}

#[test]
fn a_second_reader_agrees() {
    let dir = project(false);
    grow(dir.path());
    for (level, version) in [("3", "sample:1.0-1"), ("1", "sample:1.0-2")] {
        done(dir.path(), &["build", "--level", level]);
        compare(dir.path(), version);
    }
}

#[test]
fn bundles_of_format_1_are_read_and_verified() {
    let dir = project(true);
    let problems = parsed(dir.path(), &["verify", "--format", "json"]);
    assert_eq!(problems, json!({ "problems": [] }));
    let now = parsed(dir.path(), &["inspect", "sample:1.0-1", "--format", "json"]);
    let then: Value = serde_json::from_slice(&fs::read(fixture().join("inspect.json")).unwrap()).unwrap();
    // Fields may have been added since.
    for (key, value) in then.as_object().unwrap() {
        assert_eq!(&now[key], value, "{key}");
    }
    compare(dir.path(), "sample:1.0-1");
}

#[test]
fn the_same_inputs_still_make_the_same_bytes() {
    let dir = project(false);
    let built = parsed(dir.path(), &["build", "--locked", "--format", "json"]);
    let then: Value = serde_json::from_slice(&fs::read(fixture().join("inspect.json")).unwrap()).unwrap();
    assert_eq!(
        built["bundles"][0]["digest"], then["digest"],
        "bundles have other bytes than before: a change of the format, of libzstd or of bundle.json, which \
         docs/format.md has to announce"
    );
}

#[test]
fn locks_of_schema_1_are_read_and_written_alike() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/lock-1/windlass.lock");
    let then = fs::read_to_string(path).unwrap();
    let lock = Lock::parse(&then).unwrap();
    assert_eq!(lock.len(), 2);
    assert_eq!(lock.get("notes.txt").unwrap().size, 41);
    assert_eq!(lock.to_text(), then);
}

fn add_blob(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    fs::write(store.blob_path(&digest), bytes).unwrap();
    digest
}

/// A newer windlass's layer in place of the bundle's last, made from its table by `change`.
fn rewrite_last_layer(out: &Path, content: &[u8], change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let store = Store::open(Utf8Path::from_path(out).unwrap(), &Cancel::new()).unwrap();
    let bundle = store.bundle(&"sample".parse().unwrap()).unwrap();
    let old = bundle.manifest.layers.last().unwrap();
    let mut entries = store.layer(old).unwrap().toc.entries;
    for entry in &mut entries {
        if let windlass::bundle::Node::File { size, digest, .. } = &mut entry.node {
            (*size, *digest) = (content.len() as u64, Digest::of(content));
        }
    }
    let mut raw = Vec::new();
    for entry in &entries {
        tar::write_header(entry, 0, &mut raw);
        if entry.size() > 0 {
            raw.extend_from_slice(content);
        }
    }
    raw.resize(raw.len().next_multiple_of(512) + 1024, 0);
    assert_eq!(layout::pieces(&entries).len(), 1);
    let mut blob = Vec::new();
    frame::compress_run(&raw, 3, &mut blob).unwrap();
    let frames_size = blob.len() as u64;
    let table = change(Toc::new(entries, [frames_size]).encode().unwrap());
    let (trailer, place) = TocPlace::trailer(&table, frames_size);
    blob.extend_from_slice(&trailer);

    let mut layers = bundle.manifest.layers.clone();
    let digest = add_blob(&store, &blob);
    *layers.last_mut().unwrap() = Layer { digest, size: blob.len() as u64, diff_id: Digest::of(&raw), place };
    let Manifest { role, files, unpacked_size, .. } = &bundle.manifest;
    let composed = Composed::new(role, &layers, *files, *unpacked_size).unwrap();
    add_blob(&store, &composed.config);
    add_blob(&store, &composed.manifest);
    let index = out.join("index.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    json["manifests"][0]["digest"] = json!(composed.digest);
    json["manifests"][0]["size"] = json!(composed.manifest.len());
    fs::write(index, json.to_string()).unwrap();
}

/// The content of the fixture's bundle.json.
fn record(out: &Path) -> String {
    let store = Store::open(Utf8Path::from_path(out).unwrap(), &Cancel::new()).unwrap();
    let bundle = store.bundle(&"sample".parse().unwrap()).unwrap();
    text(&store.record(&bundle).unwrap().to_bytes().unwrap())
}

#[test]
fn a_rewritten_layer_is_taken_if_nothing_in_it_is_newer() {
    let dir = project(true);
    let out = dir.path().join("out");
    let with_field = record(&out).replace("\"format\": 1,", "\"format\": 1, \"added_later\": true,");
    rewrite_last_layer(&out, with_field.as_bytes(), |table| table);
    done(dir.path(), &["inspect", "sample"]);
}

#[test]
fn a_newer_table_of_contents_is_refused_with_advice() {
    let dir = project(true);
    let out = dir.path().join("out");
    let newer = |table: Vec<u8>| {
        let mut raw = zstd::bulk::decompress(&table, 1 << 20).unwrap();
        raw[0] = 2;
        zstd::bulk::compress(&raw, 9).unwrap()
    };
    rewrite_last_layer(&out, record(&out).as_bytes(), newer);
    for arguments in [&["inspect", "sample"][..], &["diff", "sample", "sample"]] {
        let told = failed(dir.path(), arguments, 1);
        assert!(told.contains("the table of contents has format 2; this windlass reads format 1"), "{told}");
        assert!(told.contains("a newer windlass wrote it: upgrade this one"), "{told}");
    }
    let told = failed(dir.path(), &["verify"], 1);
    assert!(told.contains("has format 2") && told.contains("is not damaged"), "{told}");
}

#[test]
fn a_newer_bundle_json_is_refused_with_advice() {
    let dir = project(true);
    let out = dir.path().join("out");
    let newer = record(&out).replace("\"format\": 1,", "\"format\": 2,");
    rewrite_last_layer(&out, newer.as_bytes(), |table| table);
    let told = failed(dir.path(), &["inspect", "sample"], 1);
    assert!(told.contains(".windlass/bundle.json has format 2; this windlass reads format 1"), "{told}");
    assert!(told.contains("a newer windlass wrote it: upgrade this one"), "{told}");
    let told = failed(dir.path(), &["verify"], 1);
    assert!(told.contains("has format 2") && told.contains("is not damaged"), "{told}");
}

#[test]
fn newer_schemas_are_refused_with_advice() {
    for file in ["windlass.toml", "recipes/sample.toml", "recipes/_base.toml", "windlass.lock"] {
        let dir = project(false);
        let path = dir.path().join(file);
        let newer =
            fs::read_to_string(&path).unwrap().replacen("schema = 1", "schema = 2", 1) + "\n[later]\nx = 1\n";
        fs::write(path, newer).unwrap();
        let told = failed(dir.path(), &["build"], 2);
        assert!(told.contains(&format!("{file}:")) && told.contains("schema 2"), "{file}: {told}");
        assert!(told.contains("upgrade this one"), "{file}: {told}");
        assert!(!told.contains("later"), "{file}: what a newer schema means is not guessed: {told}");
    }
}

#[test]
fn another_version_of_the_oci_layout_is_refused() {
    let dir = project(true);
    fs::write(dir.path().join("out/oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    let told = failed(dir.path(), &["ls"], 1);
    assert!(told.contains("OCI layout version `2.0.0`; expected `1.0.0`"), "{told}");
}
