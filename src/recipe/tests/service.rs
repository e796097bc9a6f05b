//! What a recipe says when something in its `[service]` is wrong.

use insta::assert_snapshot;

use super::{errors, spec};
use crate::recipe::{Limit, OrTemplate, Probe, Reload};

#[test]
fn unknown_kind() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "elasticsaerch""#,
        r#"start = ["x"]"#,
    ]), @r#"
    error: there is no kind of service `elasticsaerch`
     --> recipes/x.toml:4:8
      |
    4 | kind = "elasticsaerch"
      |        ^^^^^^^^^^^^^^^
      |
      = help: did you mean `elasticsearch`?
      = help: valid kinds: elasticsearch, opensearch, kafka, zookeeper, redis, nginx, kibana, process
    "#);
}

#[test]
fn missing_keys() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"user = "x""#,
    ]), @r#"
    error: [service] has no `kind`
     --> recipes/x.toml:3:1
      |
    3 | [service]
      | ^^^^^^^^^
      |
      = help: add: kind = "process"

    error: [service] has no `start`
     --> recipes/x.toml:3:1
      |
    3 | [service]
      | ^^^^^^^^^
      |
      = help: add: start = ["<program in the release>", "<argument>"]
    "#);
}

#[test]
fn reloading() {
    let service = |line: &str| {
        let text = format!(
            "schema = 1\nversion = \"1\"\n[[unpack]]\nartifact = \"x.tar\"\ninto = \"x\"\n[service]\n\
             kind = \"process\"\nstart = [\"x\"]\n{line}\n"
        );
        spec(&[("x.toml", &text)]).service.unwrap().reload
    };
    assert_eq!(service("reload = { signal = \"SIGHUP\" }"), Some(Reload::Signal("HUP".to_owned())));
    let words = ["bin/ctl", "{{ release }}"].map(str::to_owned).to_vec();
    assert_eq!(
        service("reload = { command = [\"bin/ctl\", \"{{ release }}\"] }"),
        Some(Reload::Command(words))
    );
    assert_eq!(service(""), None);
    for (line, wanted) in [
        ("reload = {}", "neither signal nor command"),
        ("reload = { signal = \"HUP\", command = [\"x\"] }", "both signal and command"),
        ("reload = { signal = \"HUPP\" }", "no signal `HUPP` to reload with"),
        ("reload = { command = [] }", "names no program"),
    ] {
        let told = errors(&["[service]", "kind = \"process\"", "start = [\"x\"]", line]);
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn unknown_keys() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"relaod = ["y"]"#,
        r#"stop = { signal = "TERM", after = "1s" }"#,
        "[service.ready]",
        "htpp = { port = 1 }",
    ]), @r#"
    error: unknown key `relaod` in [service]
     --> recipes/x.toml:6:1
      |
    6 | relaod = ["y"]
      | ^^^^^^
      |
      = help: did you mean `reload` or `ready`?
      = help: valid keys: kind, user, group, capabilities, start, env, stop, reload, test, limits, ready, api

    error: unknown key `after` in [service] stop
     --> recipes/x.toml:7:27
      |
    7 | stop = { signal = "TERM", after = "1s" }
      |                           ^^^^^
      |
      = help: valid keys: signal, timeout

    error: [service.ready] has no probe
     --> recipes/x.toml:8:1
      |
    8 | [service.ready]
      | ^^^^^^^^^^^^^^^
      |
      = help: give one of http, tcp, command

    error: unknown key `htpp` in [service.ready]
     --> recipes/x.toml:9:1
      |
    9 | htpp = { port = 1 }
      | ^^^^
      |
      = help: did you mean `http`?
      = help: valid keys: http, tcp, command, within
    "#);
}

#[test]
fn wrong_types() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = "bin/x -v""#,
        "user = 1000",
        r#"env = { A = true, B = ["x"] }"#,
        r#"stop = "TERM""#,
    ]), @r#"
    error: `start` must be an array, as in start = ["bin/x -v"], not a string
     --> recipes/x.toml:5:9
      |
    5 | start = "bin/x -v"
      |         ^^^^^^^^^^ this is a string

    error: `user` must be a string, not an integer
     --> recipes/x.toml:6:8
      |
    6 | user = 1000
      |        ^^^^ this is an integer
      |
      = help: quote it: "1000"

    error: `A` must be a string, not a boolean
     --> recipes/x.toml:7:13
      |
    7 | env = { A = true, B = ["x"] }
      |             ^^^^ this is a boolean
      |
      = help: quote it: "true"

    error: `B` must be a string, not an array
     --> recipes/x.toml:7:23
      |
    7 | env = { A = true, B = ["x"] }
      |                       ^^^^^ this is an array

    error: `stop` must be a table, not a string
     --> recipes/x.toml:8:8
      |
    8 | stop = "TERM"
      |        ^^^^^^ this is a string
    "#);
}

#[test]
fn nothing_to_start() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        "start = []",
        r#"user = """#,
    ]), @r#"
    error: `start` names no program
     --> recipes/x.toml:5:9
      |
    5 | start = []
      |         ^^

    error: `user` is empty
     --> recipes/x.toml:6:8
      |
    6 | user = ""
      |        ^^
    "#);
}

#[test]
fn capabilities() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"capabilities = ["NET_BIND_SERVICE"]"#,
    ]), @r#"
    error: there is no capability `NET_BIND_SERVICE`
     --> recipes/x.toml:6:17
      |
    6 | capabilities = ["NET_BIND_SERVICE"]
      |                 ^^^^^^^^^^^^^^^^^^
      |
      = help: did you mean `CAP_NET_BIND_SERVICE`?
    "#);
}

#[test]
fn stopping() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"stop = { signal = "SIGTREM", timeout = "60" }"#,
    ]), @r#"
    error: there is no signal `SIGTREM` to stop with
     --> recipes/x.toml:6:19
      |
    6 | stop = { signal = "SIGTREM", timeout = "60" }
      |                   ^^^^^^^^^
      |
      = help: did you mean `TERM`?
      = help: valid signals: TERM, INT, QUIT, HUP, KILL, USR1, USR2, WINCH

    error: `60` is not a span of time; expected numbers with ms, s, m, h or d, as in `90s` or `1h 30m`
     --> recipes/x.toml:6:40
      |
    6 | stop = { signal = "SIGTREM", timeout = "60" }
      |                                        ^^^^
    "#);
}

#[test]
fn limits() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"limits = { nofiles = 1, nproc = -1, core = "none", as = 1.5 }"#,
    ]), @r#"
    error: unknown key `nofiles` in [service] limits
     --> recipes/x.toml:6:12
      |
    6 | limits = { nofiles = 1, nproc = -1, core = "none", as = 1.5 }
      |            ^^^^^^^
      |
      = help: did you mean `nofile` or `nice`?
      = help: valid keys: as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack

    error: `nproc` must be from 0 to 9223372036854775807, not -1
     --> recipes/x.toml:6:33
      |
    6 | limits = { nofiles = 1, nproc = -1, core = "none", as = 1.5 }
      |                                 ^^

    error: `core` must be a whole number, "unlimited" or a template, not a string
     --> recipes/x.toml:6:44
      |
    6 | limits = { nofiles = 1, nproc = -1, core = "none", as = 1.5 }
      |                                            ^^^^^^ this is a string

    error: `as` must be a whole number, "unlimited" or a template, not a float
     --> recipes/x.toml:6:57
      |
    6 | limits = { nofiles = 1, nproc = -1, core = "none", as = 1.5 }
      |                                                         ^^^ this is a float
    "#);
}

#[test]
fn no_probe() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        "[service.ready]",
        r#"within = "10s""#,
    ]), @"
    error: [service.ready] has no probe
     --> recipes/x.toml:6:1
      |
    6 | [service.ready]
      | ^^^^^^^^^^^^^^^
      |
      = help: give one of http, tcp, command
    ");
}

#[test]
fn two_probes() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        "[service.ready]",
        "tcp = 1",
        r#"command = ["x"]"#,
    ]), @r#"
    error: [service.ready] has tcp and command
     --> recipes/x.toml:8:1
      |
    8 | command = ["x"]
      | ^^^^^^^
      |
      = help: give one of http, tcp, command
    "#);
}

#[test]
fn bad_probe() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        "[service.ready]",
        r#"http = { port = 92000, path = "status", status = "ok" }"#,
        r#"within = "soon""#,
    ]), @r#"
    error: `port` must be from 1 to 65535, not 92000
     --> recipes/x.toml:7:17
      |
    7 | http = { port = 92000, path = "status", status = "ok" }
      |                 ^^^^^

    error: the path of a request starts with `/`
     --> recipes/x.toml:7:31
      |
    7 | http = { port = 92000, path = "status", status = "ok" }
      |                               ^^^^^^^^

    error: `status` must be a whole number or a template, not a string
     --> recipes/x.toml:7:50
      |
    7 | http = { port = 92000, path = "status", status = "ok" }
      |                                                  ^^^^ this is a string

    error: `soon` is not a span of time; expected numbers with ms, s, m, h or d, as in `90s` or `1h 30m`
     --> recipes/x.toml:8:10
      |
    8 | within = "soon"
      |          ^^^^^^
    "#);
}

#[test]
fn empty_command() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        "[service.ready]",
        "command = []",
    ]), @"
    error: `command` names no program
     --> recipes/x.toml:7:11
      |
    7 | command = []
      |           ^^
    ");
}

#[test]
fn http_without_port() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        "[service.ready]",
        r#"http = { path = "/" }"#,
    ]), @r#"
    error: http has no `port`
     --> recipes/x.toml:7:8
      |
    7 | http = { path = "/" }
      |        ^^^^^^^^^^^^^^
      |
      = help: add: port = 9200
    "#);
}

#[test]
fn names_in_templates() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]"#,
    ]), @r#"
    error: windlass.toml has no version of `jd`
     --> recipes/x.toml:5:14
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |              ^^^^^^^^^^^
      |
      = help: did you mean `jdk`?
      = help: valid products: analysis-ik, elasticsearch, jdk

    error: there is no `relase` in templates
     --> recipes/x.toml:5:35
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |                                   ^^^^^^
      |
      = help: did you mean `release`?
      = help: valid names: versions, vars, role, release, current, shared, node, cluster, nodes_with, secret

    error: there is no `node.adress`
     --> recipes/x.toml:5:53
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |                                                     ^^^^^^^^^^^
      |
      = help: did you mean `address`?
      = help: valid fields: name, address, zone, vars

    error: `secret` is a function
     --> recipes/x.toml:5:74
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |                                                                          ^^^^^^
      |
      = help: write secret("...")

    error: `build` exists only in `version`
     --> recipes/x.toml:5:90
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |                                                                                          ^^^^^
      |
      = help: the build number is in the store's index only: the same content has the same digest under any number

    error: there is no `cluster.size`
     --> recipes/x.toml:5:105
      |
    5 | start = ["{{ versions.jd }}", "{{ relase }}/x", "{{ node.adress }}", "{{ secret }}", "{{ build }}", "{{ cluster.size }}"]
      |                                                                                                         ^^^^^^^^^^^^
      |
      = help: valid fields: name, forming
    "#);
}

#[test]
fn template_syntax() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"env = { A = "{{ release", B = "{% if node %}" }"#,
    ]), @r#"
    error: syntax error in the template: unexpected end of input, expected end of variable block
     --> recipes/x.toml:6:17
      |
    6 | env = { A = "{{ release", B = "{% if node %}" }
      |                 ^^^^^^^

    error: syntax error in the template: unexpected end of input, expected end of block
     --> recipes/x.toml:6:43
      |
    6 | env = { A = "{{ release", B = "{% if node %}" }
      |                                           ^^
    "#);
}

#[test]
fn env_names() {
    assert_snapshot!(errors(&[
        "[service]",
        r#"kind = "process""#,
        r#"start = ["x"]"#,
        r#"env = { "A=B" = "x" }"#,
    ]), @r#"
    error: not a name of an environment variable
     --> recipes/x.toml:6:9
      |
    6 | env = { "A=B" = "x" }
      |         ^^^^^
    "#);
}

#[test]
fn numbers_and_templates() {
    let text = r#"
schema = 1
version = "1"
[service]
kind = "process"
start = ["x", 8, 1.50]
limits = { nofile = 1, core = "unlimited", nproc = "{{ vars.nproc }}" }
stop = { timeout = "{{ vars.patience }}" }
[service.ready]
tcp = "{{ vars.port }}"
within = "{{ vars.patience }}"
"#;
    let service = spec(&[("x.toml", text)]).service.unwrap();
    assert_eq!(service.start, ["x", "8", "1.50"]);
    assert_eq!(service.limits["core"], OrTemplate::Value(Limit::Unlimited));
    assert_eq!(service.limits["nproc"], OrTemplate::Template("{{ vars.nproc }}".to_owned()));
    let ready = service.ready.clone().unwrap();
    assert_eq!(ready.probe, Probe::Tcp(OrTemplate::Template("{{ vars.port }}".to_owned())));
    let text = serde_json::to_string(&service).unwrap();
    assert_eq!(serde_json::from_str::<crate::recipe::Service>(&text).unwrap(), service);
}

#[test]
fn nul_bytes() {
    assert_snapshot!(errors(&["[service]", "kind = \"process\"", r#"start = ["x\u0000"]"#]), @r#"
    error: `start` holds a NUL byte
     --> recipes/x.toml:5:10
      |
    5 | start = ["x\u0000"]
      |          ^^^^^^^^^
    "#);
}
