//! Archives with the layouts of the vendors' own, small and always the same, for every artifact of the stock
//! recipes.
//!
//! What matters of a layout is here: the name of the top directory or its absence, modes, symlinks, files that
//! recipes leave out, long paths, archives without entries for directories. Contents are made up. A file that a
//! vendor changes with every version has contents made from the version; a third party's jar, which stays, has not.
//!
//! Not here: programs. Nothing in these archives can run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

/// Writes every artifact that the stock recipes name at `versions` into `install`, and says which.
pub(crate) fn generate(install: &Path, versions: &BTreeMap<String, String>) -> Vec<PathBuf> {
    fs::create_dir_all(install).unwrap();
    let version = |product: &str| versions[product].as_str();
    let mut written = Vec::new();
    let mut tar = |name: String, tree: &Tree| written.push(write_tar_gz(&install.join(name), tree));

    let elastic = version("elasticsearch");
    tar(format!("elasticsearch-{elastic}.tar.gz"), &elasticsearch(elastic));
    tar(format!("kibana-{0}-linux-x86_64.tar.gz", version("kibana")), &kibana(version("kibana")));
    for beat in ["filebeat", "metricbeat", "heartbeat", "packetbeat"] {
        let release = version("beats");
        tar(format!("{beat}-{release}-linux-x86_64.tar.gz"), &beat_tree(beat, release));
    }
    tar(format!("jdk-{0}_linux-x64_bin.tar.gz", version("jdk")), &jdk(version("jdk")));
    tar(format!("jdk-{0}-linux-x64.tar.gz", version("jdk8")), &jdk8(version("jdk8")));
    tar(
        format!("kafka_{}-{}.tgz", version("scala"), version("kafka")),
        &kafka(version("scala"), version("kafka")),
    );
    tar(format!("zookeeper-{0}.tar.gz", version("zookeeper")), &zookeeper(version("zookeeper")));
    tar(format!("streamsets-datacollector-core-{0}.tgz", version("sdc")), &sdc(version("sdc")));
    tar(format!("redis-{0}-linux-x86_64.tar.gz", version("redis")), &redis(version("redis")));
    tar(format!("nginx-{0}-linux-x86_64.tar.gz", version("nginx")), &nginx(version("nginx")));
    tar(
        format!("elasticsearch-curator-{0}-linux-x86_64.tar.gz", version("curator")),
        &curator(version("curator")),
    );
    tar(
        format!("elastalert-{0}-linux-x86_64.tar.gz", version("elastalert")),
        &elastalert(version("elastalert")),
    );

    let (plugin, kibana) = (version("elastalert_plugin"), version("kibana"));
    let name = format!("elastalert-kibana-plugin-{plugin}-{kibana}.zip");
    written.push(write_zip(&install.join(name), &elastalert_plugin(plugin, kibana)));
    let name = format!("elasticsearch-analysis-ik-{elastic}.zip");
    written.push(write_zip(&install.join(name), &analysis_ik(elastic)));
    written
}

/// The entries of one archive, in the order in which they are written.
struct Tree {
    /// `name-1.2.3/`, or empty where the vendor has no top directory.
    top: String,
    /// Put into the contents of files that change with every version.
    version: String,
    /// Whether directories have entries of their own.
    dirs: bool,
    entries: Vec<Entry>,
}

struct Entry {
    path: String,
    mode: u32,
    body: Body,
}

enum Body {
    Dir,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    fn new(top: &str, version: &str) -> Self {
        let mut tree =
            Self { top: String::new(), version: version.to_owned(), dirs: true, entries: Vec::new() };
        if !top.is_empty() {
            tree.push("", 0o755, Body::Dir, top);
            tree.top = format!("{top}/");
        }
        tree
    }

    /// For vendors whose archives name files only.
    fn without_dirs(mut self) -> Self {
        self.dirs = false;
        self.entries.clear();
        self
    }

    fn push(&mut self, prefix: &str, mode: u32, body: Body, path: &str) -> &mut Self {
        self.entries.push(Entry { path: format!("{prefix}{path}"), mode, body });
        self
    }

    fn add(&mut self, path: &str, mode: u32, body: Body) -> &mut Self {
        let top = self.top.clone();
        if self.dirs {
            for (at, _) in path.match_indices('/') {
                let parent = format!("{top}{}", &path[..at]);
                if !self.entries.iter().any(|entry| entry.path == parent) {
                    self.push("", 0o755, Body::Dir, &parent);
                }
            }
        }
        self.push(&top, mode, body, path)
    }

    /// A directory with nothing in it.
    fn dir(&mut self, path: &str) -> &mut Self {
        self.add(path, 0o755, Body::Dir)
    }

    /// Text that changes with the version.
    fn text(&mut self, path: &str) -> &mut Self {
        self.text_mode(path, 0o644)
    }

    fn text_mode(&mut self, path: &str, mode: u32) -> &mut Self {
        let body = format!("# {path} of {}{}\n{}", self.top, self.version, "key = value\n".repeat(40));
        self.add(path, mode, Body::File(body.into_bytes()))
    }

    /// A launcher, as executable as the vendor ships it.
    fn script(&mut self, path: &str) -> &mut Self {
        let body = format!("#!/bin/sh\n# {path} {}\nexit 1\n", self.version);
        self.add(path, 0o755, Body::File(body.into_bytes()))
    }

    /// A program of `size` bytes that changes with the version.
    fn program(&mut self, path: &str, size: usize) -> &mut Self {
        let bytes = noise(&format!("{path} {}", self.version), size);
        self.add(path, 0o755, Body::File([b"\x7fELF".as_slice(), &bytes].concat()))
    }

    /// Binary data that changes with the version.
    fn binary(&mut self, path: &str, size: usize) -> &mut Self {
        let bytes = noise(&format!("{path} {}", self.version), size);
        self.add(path, 0o644, Body::File(bytes))
    }

    /// A jar of the vendor's own, named after the version.
    fn own_jar(&mut self, path: &str) -> &mut Self {
        let bytes = noise(&format!("{path} {}", self.version), 24 * 1024);
        self.add(path, 0o644, Body::File([b"PK\x03\x04".as_slice(), &bytes].concat()))
    }

    /// A third party's jar: the same in every version of what holds it.
    fn jar(&mut self, path: &str) -> &mut Self {
        let bytes = noise(path.rsplit('/').next().unwrap(), 16 * 1024);
        self.add(path, 0o644, Body::File([b"PK\x03\x04".as_slice(), &bytes].concat()))
    }

    fn link(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(path, 0o777, Body::Link(target.to_owned()))
    }
}

fn elasticsearch(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("elasticsearch-{version}"), version);
    for name in ["LICENSE.txt", "NOTICE.txt", "README.textile"] {
        tree.text(name);
    }
    for name in ["elasticsearch", "elasticsearch-cli", "elasticsearch-env", "elasticsearch-keystore"] {
        tree.script(&format!("bin/{name}"));
    }
    for name in ["elasticsearch-plugin", "elasticsearch-shard", "elasticsearch-certutil", "x-pack-env"] {
        tree.script(&format!("bin/{name}"));
    }
    // Only the owner and group may see what is in config, and the group may write.
    for name in ["elasticsearch.yml", "jvm.options", "log4j2.properties", "role_mapping.yml"] {
        tree.text_mode(&format!("config/{name}"), 0o660);
    }
    for name in ["roles.yml", "users", "users_roles"] {
        tree.text_mode(&format!("config/{name}"), 0o660);
    }
    for name in ["elasticsearch", "elasticsearch-cli", "elasticsearch-core", "elasticsearch-x-content"] {
        tree.own_jar(&format!("lib/{name}-{version}.jar"));
    }
    for name in
        ["lucene-core-7.7.0", "lucene-queries-7.7.0", "jna-4.5.1", "joda-time-2.10.1", "log4j-core-2.11.1"]
    {
        tree.jar(&format!("lib/{name}.jar"));
    }
    tree.own_jar(&format!("lib/tools/security-cli/elasticsearch-security-cli-{version}.jar"));
    tree.dir("logs");
    for module in ["analysis-common", "ingest-geoip", "lang-painless", "reindex", "transport-netty4"] {
        tree.own_jar(&format!("modules/{module}/{module}-{version}.jar"));
        tree.text(&format!("modules/{module}/plugin-descriptor.properties"));
    }
    tree.jar("modules/transport-netty4/netty-transport-4.1.32.Final.jar");
    tree.binary("modules/ingest-geoip/GeoLite2-City.mmdb", 256 * 1024);
    for module in ["x-pack-core", "x-pack-ml", "x-pack-monitoring", "x-pack-security"] {
        tree.own_jar(&format!("modules/{module}/{module}-{version}.jar"));
        tree.text(&format!("modules/{module}/plugin-descriptor.properties"));
    }
    for name in ["autodetect", "controller", "normalize"] {
        tree.program(&format!("modules/x-pack-ml/platform/linux-x86_64/bin/{name}"), 96 * 1024);
    }
    tree.binary("modules/x-pack-ml/platform/linux-x86_64/lib/libMlCore.so", 64 * 1024);
    tree.dir("plugins");
    tree
}

/// Its files are at the top of the zip.
fn analysis_ik(version: &str) -> Tree {
    let mut tree = Tree::new("", version).without_dirs();
    tree.own_jar(&format!("elasticsearch-analysis-ik-{version}.jar"));
    for name in
        ["httpclient-4.5.2.jar", "httpcore-4.4.4.jar", "commons-logging-1.2.jar", "commons-codec-1.9.jar"]
    {
        tree.jar(name);
    }
    tree.text("plugin-descriptor.properties").text("plugin-security.policy");
    for name in ["IKAnalyzer.cfg.xml", "main.dic", "quantifier.dic", "stopword.dic", "surname.dic"] {
        tree.text(&format!("config/{name}"));
    }
    tree
}

fn kibana(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("kibana-{version}-linux-x86_64"), version);
    tree.text("LICENSE.txt").text("NOTICE.txt").text("README.txt").text("package.json");
    tree.script("bin/kibana").script("bin/kibana-keystore").script("bin/kibana-plugin");
    tree.text("config/kibana.yml");
    tree.dir("data").dir("plugins");
    tree.program("node/bin/node", 512 * 1024);
    tree.link("node/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js");
    tree.link("node/bin/npx", "../lib/node_modules/npm/bin/npx-cli.js");
    tree.script("node/lib/node_modules/npm/bin/npm-cli.js");
    tree.script("node/lib/node_modules/npm/bin/npx-cli.js");
    tree.text("node/share/man/man1/node.1");
    // Hundreds of thousands of small files, many of them the same, some very deep.
    for package in 0..60 {
        tree.text(&format!("node_modules/package-{package:02}/package.json"));
        tree.text(&format!("node_modules/package-{package:02}/index.js"));
        tree.text(&format!("node_modules/package-{package:02}/LICENSE"));
    }
    let deep = "node_modules/@elastic/".to_owned() + &"a-rather-long-package-name/node_modules/".repeat(6);
    tree.text(&format!("{deep}index.js"));
    tree.script("node_modules/package-00/bin/run.js");
    tree.link("node_modules/.bin/run", "../package-00/bin/run.js");
    for name in ["kibana.bundle.js", "commons.bundle.js", "login.bundle.js"] {
        tree.binary(&format!("optimize/bundles/{name}"), 48 * 1024);
    }
    tree.text("optimize/.babelcache.json");
    for name in ["cli/index.js", "cli_keystore/index.js", "server/index.js", "legacy/ui/index.js"] {
        tree.text(&format!("src/{name}"));
    }
    tree.dir("built_assets/css");
    tree.text("webpackShims/angular.js");
    tree
}

/// Kibana's plugins are at `kibana/<name>/` in their zips.
fn elastalert_plugin(version: &str, kibana: &str) -> Tree {
    let mut tree = Tree::new("", &format!("{version} {kibana}")).without_dirs();
    for name in ["package.json", "index.js", "README.md", "server/routes/elastalert.js"] {
        tree.text(&format!("kibana/elastalert-kibana-plugin/{name}"));
    }
    for name in
        ["public/main.js", "public/less/main.less", "node_modules/brace/index.js", "translations/en.json"]
    {
        tree.text(&format!("kibana/elastalert-kibana-plugin/{name}"));
    }
    tree
}

fn beat_tree(beat: &str, version: &str) -> Tree {
    let mut tree = Tree::new(&format!("{beat}-{version}-linux-x86_64"), version);
    tree.text(".build_hash.txt").text("LICENSE.txt").text("NOTICE.txt").text("README.md").text("fields.yml");
    tree.text_mode(&format!("{beat}.yml"), 0o600);
    tree.text(&format!("{beat}.reference.yml"));
    tree.program(beat, 384 * 1024);
    for dashboard in 0..8 {
        tree.text(&format!("kibana/6/dashboard/{beat}-{dashboard}.json"));
    }
    match beat {
        "filebeat" => {
            for module in ["elasticsearch", "kafka", "nginx", "system"] {
                tree.text(&format!("module/{module}/module.yml"));
                tree.text(&format!("module/{module}/log/ingest/pipeline.json"));
                tree.text(&format!("modules.d/{module}.yml.disabled"));
            }
        }
        "metricbeat" => {
            tree.text("modules.d/system.yml");
            for module in ["elasticsearch", "kafka", "nginx", "redis"] {
                tree.text(&format!("modules.d/{module}.yml.disabled"));
            }
        }
        "heartbeat" => {
            tree.text("monitors.d/sample.http.yml.disabled");
        }
        _ => {}
    }
    tree
}

/// From 9 on: `jdk-11.0.1/`, modules, and a `legal/` of links into `java.base`.
fn jdk(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("jdk-{version}"), version).without_dirs();
    tree.text("README.html").text("release");
    for name in ["java", "javac", "jar", "jcmd", "jstack", "keytool"] {
        tree.program(&format!("bin/{name}"), 12 * 1024);
    }
    for name in ["logging.properties", "net.properties", "security/java.policy", "security/java.security"] {
        tree.text(&format!("conf/{name}"));
    }
    tree.text("include/jni.h").text("include/linux/jni_md.h");
    for module in ["java.base", "java.logging", "java.sql"] {
        tree.binary(&format!("jmods/{module}.jmod"), 32 * 1024);
    }
    for name in ["COPYRIGHT", "LICENSE", "zlib.md"] {
        tree.text_mode(&format!("legal/java.base/{name}"), 0o444);
    }
    for module in ["java.logging", "java.sql"] {
        for name in ["COPYRIGHT", "LICENSE"] {
            tree.link(&format!("legal/{module}/{name}"), &format!("../java.base/{name}"));
        }
    }
    tree.binary("lib/modules", 768 * 1024).binary("lib/src.zip", 128 * 1024);
    tree.program("lib/jexec", 8 * 1024).program("lib/jspawnhelper", 8 * 1024);
    tree.program("lib/server/libjvm.so", 192 * 1024).binary("lib/libjava.so", 24 * 1024);
    tree.binary("lib/security/cacerts", 32 * 1024).text("lib/tzdb.dat");
    tree
}

/// Up to 8: the file is called 8u202, the directory `jdk1.8.0_202`, and a runtime is inside.
fn jdk8(version: &str) -> Tree {
    let update = version.strip_prefix("8u").expect("a version such as 8u202");
    let mut tree = Tree::new(&format!("jdk1.8.0_{update}"), version);
    tree.text("COPYRIGHT").text("LICENSE").text("README.html").text("release");
    tree.binary("src.zip", 96 * 1024).binary("javafx-src.zip", 32 * 1024);
    for name in ["java", "javac", "jar", "jstack"] {
        tree.program(&format!("bin/{name}"), 8 * 1024);
    }
    // A link beside the program that it stands for.
    tree.link("bin/ControlPanel", "jcontrol").program("bin/jcontrol", 4 * 1024);
    tree.program("jre/bin/java", 8 * 1024).program("jre/lib/amd64/server/libjvm.so", 160 * 1024);
    tree.link("jre/lib/amd64/server/libjsig.so", "../libjsig.so")
        .binary("jre/lib/amd64/libjsig.so", 4 * 1024);
    tree.own_jar("jre/lib/rt.jar").own_jar("jre/lib/charsets.jar").own_jar("lib/tools.jar");
    tree.binary("jre/lib/security/cacerts", 24 * 1024);
    tree.text("man/man1/java.1").text("man/ja_JP.UTF-8/man1/java.1").link("man/ja", "ja_JP.UTF-8");
    tree.own_jar("lib/visualvm/visualvm/core/core.jar").own_jar("lib/missioncontrol/plugins/jmc.jar");
    tree
}

fn kafka(scala: &str, version: &str) -> Tree {
    let mut tree = Tree::new(&format!("kafka_{scala}-{version}"), version);
    tree.text("LICENSE").text("NOTICE");
    for name in ["kafka-server-start.sh", "kafka-server-stop.sh", "kafka-run-class.sh", "kafka-topics.sh"] {
        tree.script(&format!("bin/{name}"));
    }
    tree.script("bin/windows/kafka-server-start.bat");
    for name in ["server.properties", "log4j.properties", "zookeeper.properties", "tools-log4j.properties"] {
        tree.text(&format!("config/{name}"));
    }
    tree.own_jar(&format!("libs/kafka_{scala}-{version}.jar"));
    for name in ["kafka-clients", "kafka-streams", "connect-runtime"] {
        tree.own_jar(&format!("libs/{name}-{version}.jar"));
    }
    for name in
        ["jackson-core-2.9.4", "jetty-server-9.4.10", "lz4-java-1.4.1", "slf4j-api-1.7.25", "zkclient-0.10"]
    {
        tree.jar(&format!("libs/{name}.jar"));
    }
    tree.binary(&format!("site-docs/kafka_{scala}-{version}-site-docs.tgz"), 48 * 1024);
    tree
}

fn zookeeper(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("zookeeper-{version}"), version);
    tree.text("LICENSE.txt").text("NOTICE.txt").text("build.xml").text("ivy.xml");
    tree.own_jar(&format!("zookeeper-{version}.jar"));
    tree.text(&format!("zookeeper-{version}.jar.asc"));
    for name in ["zkServer.sh", "zkCli.sh", "zkEnv.sh", "zkCleanup.sh"] {
        tree.script(&format!("bin/{name}"));
    }
    tree.text("conf/configuration.xsl").text("conf/log4j.properties").text("conf/zoo_sample.cfg");
    tree.text("contrib/rest/rest.properties");
    tree.own_jar(&format!("dist-maven/zookeeper-{version}.jar"));
    tree.text("docs/index.html").text("docs/zookeeperAdmin.html");
    for name in ["log4j-1.2.17", "netty-3.10.6.Final", "slf4j-api-1.7.25", "jline-0.9.94"] {
        tree.jar(&format!("lib/{name}.jar"));
    }
    tree.text("recipes/lock/build.xml").text("src/java/main/org/apache/zookeeper/ZooKeeper.java");
    tree
}

fn sdc(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("streamsets-datacollector-{version}"), version);
    tree.text("LICENSE.txt").text("NOTICE.txt").text("README.txt");
    tree.own_jar(&format!("api-lib/streamsets-datacollector-api-{version}.jar"));
    tree.script("bin/streamsets");
    tree.own_jar(&format!("cli-lib/streamsets-datacollector-cli-{version}.jar"));
    tree.own_jar(&format!("container-lib/streamsets-datacollector-container-{version}.jar"));
    tree.jar("container-lib/jetty-server-9.4.2.jar").jar("container-lib/guava-18.0.jar");
    tree.dir("data")
        .dir("log")
        .dir("resources")
        .dir("user-libs")
        .dir("streamsets-libs-extras")
        .dir("libs-common-lib");
    for name in ["sdc.properties", "sdc-log4j.properties", "sdc-security.policy", "ldap-login.conf"] {
        tree.text(&format!("etc/{name}"));
    }
    for name in ["form-realm.properties", "basic-realm.properties", "email-password.txt"] {
        tree.text_mode(&format!("etc/{name}"), 0o600);
    }
    tree.script("initd/sdcd");
    for name in ["_sdc", "_cli", "_stagelibs", "sdc-env.sh", "sdcd-env.sh"] {
        tree.script(&format!("libexec/{name}"));
    }
    tree.own_jar(&format!("libexec/bootstrap-libs/main/streamsets-datacollector-bootstrap-{version}.jar"));
    tree.jar("root-lib/snappy-java-1.1.1.6.jar");
    tree.text("sdc-static-web/index.html").binary("sdc-static-web/app.js", 64 * 1024);
    for library in ["basic", "dataformats", "dev"] {
        let at = format!("streamsets-libs/streamsets-datacollector-{library}-lib/lib");
        tree.own_jar(&format!("{at}/streamsets-datacollector-{library}-lib-{version}.jar"));
        tree.jar(&format!("{at}/commons-csv-1.4.jar"));
    }
    tree
}

/// As `make PREFIX=... install` leaves it: one program under three names.
fn redis(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("redis-{version}"), version);
    tree.program("bin/redis-server", 128 * 1024).program("bin/redis-cli", 48 * 1024);
    tree.program("bin/redis-benchmark", 32 * 1024);
    for name in ["redis-check-aof", "redis-check-rdb", "redis-sentinel"] {
        tree.link(&format!("bin/{name}"), "redis-server");
    }
    tree
}

/// As `make install DESTDIR=...` leaves it.
fn nginx(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("nginx-{version}"), version);
    for name in ["fastcgi_params", "mime.types", "nginx.conf", "nginx.conf.default", "uwsgi_params"] {
        tree.text(&format!("conf/{name}"));
    }
    tree.text("html/index.html").text("html/50x.html").dir("logs");
    tree.program("sbin/nginx", 160 * 1024).binary("modules/ngx_stream_module.so", 16 * 1024);
    tree
}

/// The vendor's package's /opt/elasticsearch-curator: a frozen Python.
fn curator(version: &str) -> Tree {
    let mut tree = Tree::new("elasticsearch-curator", version);
    for name in ["curator", "curator_cli", "es_repo_mgr"] {
        tree.program(name, 16 * 1024);
    }
    tree.binary("lib/library.zip", 96 * 1024).binary("lib/libpython3.6m.so.1.0", 64 * 1024);
    for name in ["_bisect", "_bz2", "_ctypes", "_hashlib", "zlib"] {
        tree.binary(&format!("lib/{name}.cpython-36m-x86_64-linux-gnu.so"), 4 * 1024);
    }
    tree
}

/// A relocatable Python with ElastAlert in it.
fn elastalert(version: &str) -> Tree {
    let mut tree = Tree::new(&format!("elastalert-{version}"), version);
    tree.program("bin/python2.7", 96 * 1024);
    tree.link("bin/python2", "python2.7").link("bin/python", "python2");
    tree.program("lib/libpython2.7.so.1.0", 96 * 1024).link("lib/libpython2.7.so", "libpython2.7.so.1.0");
    for name in ["os.py", "json/__init__.py", "encodings/utf_8.py"] {
        tree.text(&format!("lib/python2.7/{name}"));
    }
    for name in ["__init__", "create_index", "elastalert", "ruletypes", "test_rule"] {
        tree.text(&format!("lib/python2.7/site-packages/elastalert/{name}.py"));
    }
    tree.text(&format!("lib/python2.7/site-packages/elastalert-{version}.dist-info/METADATA"));
    tree.text("lib/python2.7/site-packages/elasticsearch/client/__init__.py");
    tree
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: &str, size: usize) -> Vec<u8> {
    // FNV-1a for the state, xorshift64* for the stream.
    let mut state = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn write_tar_gz(path: &Path, tree: &Tree) -> PathBuf {
    let file = File::create(path).unwrap();
    let gzip = GzBuilder::new().mtime(0).write(file, Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for entry in &tree.entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(entry.mode);
        // Vendors leave their build machine's names and times in; a bundle has none of them.
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_username("jenkins").unwrap();
        header.set_mtime(1_553_000_000);
        match &entry.body {
            Body::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, format!("{}/", entry.path), std::io::empty()).unwrap();
            }
            Body::File(bytes) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, &entry.path, bytes.as_slice()).unwrap();
            }
            Body::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, &entry.path, target).unwrap();
            }
        }
    }
    tar.into_inner().unwrap().finish().unwrap();
    path.to_owned()
}

fn write_zip(path: &Path, tree: &Tree) -> PathBuf {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    for entry in &tree.entries {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .last_modified_time(zip::DateTime::default())
            .unix_permissions(entry.mode);
        match &entry.body {
            Body::Dir => zip.add_directory(format!("{}/", entry.path), options).unwrap(),
            Body::File(bytes) => {
                zip.start_file(entry.path.as_str(), options).unwrap();
                zip.write_all(bytes).unwrap();
            }
            Body::Link(_) => unreachable!("no vendor's zip has links"),
        }
    }
    zip.finish().unwrap();
    path.to_owned()
}
