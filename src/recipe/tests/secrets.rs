//! The scan for secrets: what it finds, what it leaves alone, and that it never repeats one.

use insta::assert_snapshot;

use crate::recipe::secrets::scan;

/// Secrets are put together here, so that no scanner of this repository finds them.
fn samples() -> Vec<(&'static str, String)> {
    let long = "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0FeDcBa".to_owned();
    let mut list: Vec<(&str, String)> = [
        ("an AWS access key", "AKIA", "Z9Y8X7W6V5U4T3S2"),
        ("an AWS access key", "ASIA", "Z9Y8X7W6V5U4T3S2"),
        ("a GitHub token", "ghp_", &long),
        ("a GitHub token", "gho_", &long),
        ("a GitHub token", "ghs_", &long),
        ("a GitHub token", "github_pat_", &long),
        ("a GitLab token", "glpat-", &long),
        ("a Slack token", "xoxb-", &long),
        ("a Google API key", "AIza", &long[1..]),
        ("an npm token", "npm_", &long),
        ("a Stripe key", "sk_live_", &long),
        ("an Elasticsearch API key", "ApiKey ", "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2Ji1Hg0FeDcBa1234=="),
    ]
    .into_iter()
    .map(|(what, start, rest)| (what, format!("{start}{rest}")))
    .collect();
    list.push(("a JSON web token", format!("eyJ{long}.eyJ{long}.{long}")));
    for kind in ["", "RSA ", "EC ", "DSA "] {
        list.push(("a private key", pem(&format!("{kind}PRIVATE KEY"), &long)));
    }
    list.push(("a private key", pem("PRIVATE KEY", "MIIE...")));
    // The best-known example: whoever has it in conf meant to put a key there.
    list.push(("an AWS access key", "AKIAIOSFODNN7EXAMPLE".to_owned()));
    list.push(("an OpenSSH private key", pem("OPENSSH PRIVATE KEY", &long)));
    list.push(("an encrypted private key", pem("ENCRYPTED PRIVATE KEY", &long)));
    list.push(("a PGP private key", pem("PGP PRIVATE KEY BLOCK", &long)));
    list
}

fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\\n{body}\n{body}\n-----END {label}-----")
}

#[test]
fn finds_each_shape_and_masks_it() {
    for (what, secret) in samples() {
        let text = format!("# conf\r\nkey: \"{secret}\"\n");
        let found = scan("conf/x.yml", text.as_bytes());
        assert_eq!(found.len(), 1, "{what}: {secret}");
        assert_eq!(found[0].message, format!("this looks like {what}"), "{secret}");
        assert_eq!((found[0].place.line(), found[0].place.column()), (2, 7));
        let shown = format!("{} {:?}", found[0], found[0]);
        assert!(!shown.contains("Zx9Yw8Vu7") && !shown.contains("Z9Y8X7"), "{shown}");
        assert!(!shown.contains("w8Vu7Ts6Rq5"), "{shown}");
    }
}

#[test]
fn leaves_the_rest_alone() {
    for text in [
        "password: {{ secret(\"elastic_password\") }}",
        "Authorization: ApiKey {{ secret('api_key') }}",
        "-----BEGIN PRIVATE KEY-----\n{{ secret(\"a_rather_long_name_of_a_tls_private_key_here\") }}\n-----END PRIVATE KEY-----",
        "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUJ0cH8Yx0aB1cD2eF3gH4iJ5kL6mN\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIBszCCAVmgAwIBAgIUJ0cH8Yx0aB1cD2eF3gH4iJ5kL6mN\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\n<your key>\n-----END PRIVATE KEY-----",
        "an AKIA key, ghp_ token, eyJ.eyJ.x, xoxb-, sk_live_",
        "xAKIAZ9Y8X7W6V5U4T3S2 AKIAZ9Y8X7W6V5U4T3S2QQ",
        "-----",
        "-----BEGIN PRIVATE KEY",
        "",
    ] {
        let found = scan("x", text.as_bytes());
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}

#[test]
fn binary_files_are_scanned_too() {
    let mut bytes = vec![0xff, 0, 0xfe, b'\n', b' '];
    bytes.extend(samples()[0].1.as_bytes());
    bytes.push(0xff);
    assert_eq!(scan("x", &bytes)[0].place.line(), 2);
}

#[test]
fn says_what_to_do() {
    let text = format!("a: 1\naccess: {} # ours\nb: {}\n", samples()[0].1, samples()[2].1);
    let found: Vec<String> = scan("conf/x.yml", text.as_bytes()).iter().map(ToString::to_string).collect();
    assert_snapshot!(found.join("\n\n"), @r#"
    error: this looks like an AWS access key
     --> conf/x.yml:2:9
      |
    2 | access: AKIA**************** # ours
      |         ^^^^^^^^^^^^^^^^^^^^ not for a bundle
      |
      = help: a bundle is copied to registries and nodes, and kept: put no secret in it
      = help: name it under [secrets] in cluster.toml and write {{ secret("<name>") }} here

    error: this looks like a GitHub token
     --> conf/x.yml:3:4
      |
    3 | b: ghp_************************************
      |    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ not for a bundle
      |
      = help: a bundle is copied to registries and nodes, and kept: put no secret in it
      = help: name it under [secrets] in cluster.toml and write {{ secret("<name>") }} here
    "#);
}
