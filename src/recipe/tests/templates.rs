//! Conf templates: what is checked when a bundle is built, and how they are rendered.

use std::collections::BTreeMap;

use insta::assert_snapshot;

use crate::recipe::{Engine, check_template, to_template_value};

fn versions() -> BTreeMap<String, String> {
    BTreeMap::from([("jdk".to_owned(), "11".to_owned()), ("kafka".to_owned(), "2".to_owned())])
}

fn errors(text: &str) -> String {
    check_template("conf/x.yml", text, &versions()).unwrap_err().to_string()
}

#[test]
fn finds_what_is_used() {
    let text = "{% for n in nodes_with('kafka') %}{{ n.address }}{% endfor %}\n\
                {{ secret(\"pw\") }} {{ node.vars.x }} {{ vars.heap }} {{ versions.jdk }} {# {{ no }} #}";
    let found = check_template("x", text, &versions()).unwrap();
    let names: Vec<&str> = found.names.iter().map(String::as_str).collect();
    assert_eq!(names, ["node.vars.x", "nodes_with", "secret", "vars.heap", "versions.jdk"]);
    assert_eq!(found.versions, BTreeMap::from([("jdk".to_owned(), "11".to_owned())]));
    assert_eq!(found.secrets.first().map(String::as_str), Some("pw"));
    let all = check_template("x", "{{ versions[vars.product] }}", &versions()).unwrap();
    assert_eq!(all.versions, versions());
}

#[test]
fn what_may_be_missing_is_no_error() {
    for text in [
        "{{ versions.es | default('1') }}",
        "{% if versions.es is defined %}{{ versions.es }}{% endif %}",
        "{% set x = 1 %}{{ x }}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1) }}",
        "{% raw %}{{ nothing }}{% endraw %}",
        "no template { at all }} %}",
        "",
    ] {
        check_template("x", text, &versions()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
}

#[test]
fn wrong_names() {
    assert_snapshot!(errors("a: {{ versions.jdkk }}\r\nb: {{ nod.name }}\r\nc: {{ node.nmae }} {{ build }}"), @"
    error: windlass.toml has no version of `jdkk`
     --> conf/x.yml:1:7
      |
    1 | a: {{ versions.jdkk }}
      |       ^^^^^^^^^^^^^
      |
      = help: did you mean `jdk`?
      = help: valid products: jdk, kafka

    error: there is no `nod` in templates
     --> conf/x.yml:2:7
      |
    2 | b: {{ nod.name }}
      |       ^^^^^^^^
      |
      = help: did you mean `node` or `nodes_with`?
      = help: valid names: versions, vars, role, release, current, shared, node, cluster, nodes_with, secret

    error: there is no `node.nmae`
     --> conf/x.yml:3:7
      |
    3 | c: {{ node.nmae }} {{ build }}
      |       ^^^^^^^^^
      |
      = help: did you mean `name`?
      = help: valid fields: name, address, zone, vars

    error: `build` exists only in `version`
     --> conf/x.yml:3:23
      |
    3 | c: {{ node.nmae }} {{ build }}
      |                       ^^^^^
      |
      = help: the build number is in the store's index only: the same content has the same digest under any number
    ");
}

#[test]
fn wrong_syntax() {
    assert_snapshot!(errors("a: 1\nb: {{ 1 + }}\n"), @"
    error: syntax error in the template: unexpected end of variable block
     --> conf/x.yml:2:11
      |
    2 | b: {{ 1 + }}
      |           ^^
    ");
    assert_snapshot!(errors("{% if vars.x %}\n"), @"
    error: syntax error in the template: unexpected end of input, expected end of block
     --> conf/x.yml:1:16
      |
    1 | {% if vars.x %}
      |                ^
    ");
    assert_snapshot!(errors("{{ x"), @"
    error: syntax error in the template: unexpected end of input, expected end of variable block
     --> conf/x.yml:1:4
      |
    1 | {{ x
      |    ^
    ");
}

#[test]
fn wrong_words() {
    assert_snapshot!(errors("{{ vars.a | uper }}"), @"
    error: unknown filter `uper`
     --> conf/x.yml:1:13
      |
    1 | {{ vars.a | uper }}
      |             ^^^^
    ");
    assert_snapshot!(errors("{% if vars.a is defind %}{% endif %}"), @"
    error: unknown test `defind`
     --> conf/x.yml:1:17
      |
    1 | {% if vars.a is defind %}{% endif %}
      |                 ^^^^^^
    ");
    assert_snapshot!(errors("{% include 'other' %}"), @"
    error: `include` is not available: a template stands alone
     --> conf/x.yml:1:4
      |
    1 | {% include 'other' %}
      |    ^^^^^^^
    ");
    assert_snapshot!(errors("{{ debug() }}"), @"
    error: there is no `debug` in templates
     --> conf/x.yml:1:4
      |
    1 | {{ debug() }}
      |    ^^^^^
      |
      = help: valid names: versions, vars, role, release, current, shared, node, cluster, nodes_with, secret
    ");
    assert_snapshot!(errors("{{ nodes_with }}"), @r#"
    error: `nodes_with` is a function
     --> conf/x.yml:1:4
      |
    1 | {{ nodes_with }}
      |    ^^^^^^^^^^
      |
      = help: write nodes_with("...")
    "#);
}

#[test]
fn rendering_keeps_every_byte_outside_of_tags() {
    let context = to_template_value(&serde_json::json!({"vars": {"a": "<&>", "n": u64::MAX}}));
    let text = "x: {{ vars.a }}\r\ny: {{ vars.n }}\n\n";
    assert_eq!(Engine::shared().render(text, &context).unwrap(), "x: <&>\r\ny: 18446744073709551615\n\n");
}

#[test]
fn rendering_an_undefined_name_fails_and_shows_no_value() {
    let context = to_template_value(&serde_json::json!({"vars": {"password": "hunter2"}}));
    let error = Engine::shared().render("{{ vars.password }}{{ vars.port }}", &context).unwrap_err();
    assert_eq!(&"{{ vars.password }}{{ vars.port }}"[error.span.clone()], "vars.port");
    assert!(!format!("{error:?} {error:#}").contains("hunter2"));
    assert_snapshot!(error, @"undefined name in the template: `vars.port` is undefined");
}
