//! A recipe's `[service]` becomes a [`Service`]: templates checked, fixed values read.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::decode::Decoder;
use super::reader::Fields;
use super::service::{Api, Limit, OrTemplate, Probe, Ready, Reload, Service, ServiceKind, Stop};
use super::template::is_template;
use super::tree::{Node, Table, Value};
use crate::model::Span;

const SERVICE_KEYS: &[&str] = &[
    "kind",
    "user",
    "group",
    "capabilities",
    "start",
    "env",
    "stop",
    "reload",
    "test",
    "limits",
    "ready",
    "api",
];
const SIGNALS: &[&str] = &["TERM", "INT", "QUIT", "HUP", "KILL", "USR1", "USR2", "WINCH"];
const LIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
const CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

impl Decoder<'_> {
    pub(super) fn service(&self, table: &Table) -> Option<Service> {
        let fields = Fields::new(table, "[service]", SERVICE_KEYS, self.problems);
        let kind = self.kind(&fields);
        let start = self.start(&fields);
        let service = Service {
            user: self.optional_text(&fields, "user"),
            group: self.optional_text(&fields, "group"),
            capabilities: self.capabilities(&fields),
            env: self.env(&fields),
            stop: self.stop(&fields),
            test: self.test(&fields),
            limits: self.limits(&fields),
            ready: fields.table("ready").and_then(|table| self.ready(table)),
            api: fields.table("api").map(|table| self.api(table)),
            reload: fields.table("reload").and_then(|table| self.reload(table)),
            kind: kind?,
            start: start?,
        };
        Some(service)
    }

    fn kind(&self, fields: &Fields<'_>) -> Option<ServiceKind> {
        let node = fields.require("kind", "\"process\"")?;
        let text = node.string("kind", self.problems)?;
        let known = ServiceKind::ALL.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
        if known.is_none() {
            let problem = node.place.problem(format!("there is no kind of service `{text}`"));
            self.problems.add(problem.names(text, "kinds", ServiceKind::ALL.map(|(name, _)| name)));
        }
        known
    }

    fn start(&self, fields: &Fields<'_>) -> Option<Vec<String>> {
        let node = fields.require("start", "[\"<program in the release>\", \"<argument>\"]")?;
        let words = self.words(fields, "start");
        if matches!(&node.value, Value::Array(items) if items.is_empty()) {
            self.problems.add(node.place.problem("`start` names no program"));
        }
        (!words.is_empty()).then_some(words)
    }

    fn words(&self, fields: &Fields<'_>, key: &str) -> Vec<String> {
        fields.array(key).iter().filter_map(|node| self.text_or_number(key, node)).collect()
    }

    fn optional_text(&self, fields: &Fields<'_>, key: &str) -> Option<String> {
        let text = self.keep(key, fields.node(key)?)?;
        if text.is_empty()
            && let Some(node) = fields.node(key)
        {
            self.problems.add(node.place.problem(format!("`{key}` is empty")));
        }
        Some(text)
    }

    /// A string, or a number as the text it is written as.
    fn text_or_number(&self, key: &str, node: &Node) -> Option<String> {
        let text = match &node.value {
            Value::Integer(number) => number.to_string(),
            Value::Float(_) => node.place.text().to_owned(),
            _ => self.keep(key, node)?,
        };
        if text.contains('\0') {
            self.problems.add(node.place.problem(format!("`{key}` holds a NUL byte")));
            return None;
        }
        Some(text)
    }

    fn capabilities(&self, fields: &Fields<'_>) -> Vec<String> {
        let read = |node: &Node| {
            let text = self.keep("capabilities", node)?;
            if !is_template(&text) && !CAPABILITIES.contains(&text.as_str()) {
                let problem = node.place.problem(format!("there is no capability `{text}`"));
                self.problems.add(problem.names(&text, "capabilities", CAPABILITIES.iter().copied()));
            }
            Some(text)
        };
        fields.array("capabilities").iter().filter_map(read).collect()
    }

    fn env(&self, fields: &Fields<'_>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (name, entry) in fields.table("env").map(|table| &table.entries).into_iter().flatten() {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.problems.add(entry.key.problem("not a name of an environment variable"));
            }
            if let Some(text) = self.text_or_number(name, &entry.node) {
                env.insert(name.clone(), text);
            }
        }
        env
    }

    fn stop(&self, fields: &Fields<'_>) -> Stop {
        let mut stop = Stop {
            signal: "TERM".to_owned(),
            timeout: OrTemplate::Value(Span(std::time::Duration::from_mins(1))),
        };
        let Some(table) = fields.table("stop") else { return stop };
        let fields = Fields::new(table, "[service] stop", &["signal", "timeout"], self.problems);
        if let Some(signal) = fields.node("signal").and_then(|node| self.signal(node, "to stop with")) {
            stop.signal = signal;
        }
        if let Some(timeout) = fields.node("timeout").and_then(|node| self.parsed("timeout", node)) {
            stop.timeout = timeout;
        }
        stop
    }

    fn signal(&self, node: &Node, what_for: &str) -> Option<String> {
        let text = self.keep("signal", node)?;
        let name = text.strip_prefix("SIG").unwrap_or(&text);
        if !is_template(&text) && !SIGNALS.contains(&name) {
            let problem = node.place.problem(format!("there is no signal `{text}` {what_for}"));
            self.problems.add(problem.names(name, "signals", SIGNALS.iter().copied()));
        }
        Some(name.to_owned())
    }

    fn reload(&self, table: &Table) -> Option<Reload> {
        let fields = Fields::new(table, "[service] reload", &["signal", "command"], self.problems);
        match (fields.node("signal"), fields.node("command")) {
            (Some(node), None) => self.signal(node, "to reload with").map(Reload::Signal),
            (None, Some(_)) => self.command_words(&fields).map(Reload::Command),
            (_, both) => {
                let what =
                    if both.is_some() { "both signal and command" } else { "neither signal nor command" };
                let problem = fields.place().problem(format!("[service] reload has {what}"));
                self.problems.add(problem.help("as in reload = { signal = \"HUP\" }"));
                None
            }
        }
    }

    fn test(&self, fields: &Fields<'_>) -> Vec<String> {
        if let Some(node) = fields.node("test")
            && matches!(&node.value, Value::Array(items) if items.is_empty())
        {
            self.problems.add(node.place.problem("`test` names no program"));
        }
        self.words(fields, "test")
    }

    fn limits(&self, fields: &Fields<'_>) -> BTreeMap<String, OrTemplate<Limit>> {
        let Some(table) = fields.table("limits") else { return BTreeMap::new() };
        let fields = Fields::new(table, "[service] limits", LIMITS, self.problems);
        LIMITS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), self.limit(key, fields.node(key)?)?)))
            .collect()
    }

    fn limit(&self, key: &str, node: &Node) -> Option<OrTemplate<Limit>> {
        match &node.value {
            Value::Integer(_) => {
                let number = node.integer(key, 0, i64::MAX.into(), self.problems)?;
                u64::try_from(number).ok().map(|number| OrTemplate::Value(Limit::Number(number)))
            }
            Value::String(text) if text == "unlimited" => Some(OrTemplate::Value(Limit::Unlimited)),
            Value::String(text) if is_template(text) => self.keep(key, node).map(OrTemplate::Template),
            _ => node.wrong(key, "a whole number, \"unlimited\" or a template", self.problems),
        }
    }

    /// A number from 1 to `max`, or a template that gives it.
    fn number(&self, key: &str, node: &Node, max: u16) -> Option<OrTemplate<u16>> {
        match &node.value {
            Value::String(text) if is_template(text) => self.keep(key, node).map(OrTemplate::Template),
            Value::Integer(_) => {
                let number = node.integer(key, 1, max.into(), self.problems)?;
                u16::try_from(number).ok().map(OrTemplate::Value)
            }
            _ => node.wrong(key, "a whole number or a template", self.problems),
        }
    }

    /// A string that is read now, unless it is a template.
    fn parsed<T: FromStr<Err: Display>>(&self, key: &str, node: &Node) -> Option<OrTemplate<T>> {
        let text = self.keep(key, node)?;
        if is_template(&text) {
            return Some(OrTemplate::Template(text));
        }
        self.problems.accept(&node.place, text.parse()).map(OrTemplate::Value)
    }

    fn ready(&self, table: &Table) -> Option<Ready> {
        const PROBES: [&str; 3] = ["http", "tcp", "command"];
        let fields =
            Fields::new(table, "[service.ready]", &["http", "tcp", "command", "within"], self.problems);
        let given: Vec<&str> = PROBES.into_iter().filter(|key| fields.node(key).is_some()).collect();
        let within = match fields.node("within") {
            Some(node) => self.parsed("within", node),
            None => Some(OrTemplate::Value(Span(std::time::Duration::from_mins(2)))),
        };
        let probe = match *given {
            ["http"] => fields.table("http").and_then(|table| self.http(table)),
            ["tcp"] => fields.node("tcp").and_then(|node| self.number("tcp", node, u16::MAX)).map(Probe::Tcp),
            [_] => self.command(&fields),
            [] => {
                let problem = fields.place().problem("[service.ready] has no probe");
                self.problems.add(problem.help("give one of http, tcp, command"));
                None
            }
            [_, second, ..] => {
                if let Some(entry) = fields.entry(second) {
                    let problem = entry.key.problem(format!("[service.ready] has {}", given.join(" and ")));
                    self.problems.add(problem.help("give one of http, tcp, command"));
                }
                None
            }
        };
        Some(Ready { probe: probe?, within: within? })
    }

    fn http(&self, table: &Table) -> Option<Probe> {
        let fields = Fields::new(table, "http", &["port", "path", "status", "body"], self.problems);
        let port = fields.require("port", "9200").and_then(|node| self.number("port", node, u16::MAX));
        let path = fields.node("path").map_or_else(|| Some("/".to_owned()), |node| self.http_path(node));
        let status = fields
            .node("status")
            .map_or(Some(OrTemplate::Value(200)), |node| self.number("status", node, 599));
        Some(Probe::Http {
            port: port?,
            path: path?,
            status: status?,
            body: self.optional_text(&fields, "body"),
        })
    }

    fn api(&self, table: &Table) -> Api {
        const KEYS: &[&str] = &["port", "tls", "ca", "server_name", "user", "password", "api_key"];
        let fields = Fields::new(table, "[service.api]", KEYS, self.problems);
        let api = Api {
            port: fields.node("port").and_then(|node| self.number("port", node, u16::MAX)),
            tls: fields.boolean("tls").unwrap_or(false),
            ca: self.optional_text(&fields, "ca"),
            server_name: self.optional_text(&fields, "server_name"),
            user: self.optional_text(&fields, "user"),
            password: self.optional_text(&fields, "password"),
            api_key: self.optional_text(&fields, "api_key"),
        };
        for key in ["password", "api_key"] {
            // It would be written into the bundle; the name alone is.
            if let Some(entry) = fields.entry(key)
                && let Value::String(text) = &entry.node.value
                && text.contains("secret(")
            {
                let problem =
                    entry.node.place.problem(format!("`{key}` is the name of a secret, not its value"));
                self.problems.add(problem.help("give the name that it has in cluster.toml's [secrets]"));
            }
        }
        if api.password.is_some() != api.user.is_some() {
            let problem = fields.place().problem("[service.api] has one of `user` and `password` alone");
            self.problems.add(problem.help("give both, or an `api_key`"));
        } else if api.api_key.is_some() && api.user.is_some() {
            let problem = fields.place().problem("[service.api] has both a user and an API key");
            self.problems.add(problem.help("give one of the two"));
        } else if api.ca.is_some() && !api.tls {
            let problem = fields.place().problem("[service.api] has `ca` without `tls = true`");
            self.problems.add(problem.help("add `tls = true`"));
        }
        api
    }

    fn http_path(&self, node: &Node) -> Option<String> {
        let text = self.keep("path", node)?;
        if !is_template(&text) && !text.starts_with('/') {
            self.problems.add(node.place.problem("the path of a request starts with `/`"));
        }
        Some(text)
    }

    fn command(&self, fields: &Fields<'_>) -> Option<Probe> {
        self.command_words(fields).map(Probe::Command)
    }

    fn command_words(&self, fields: &Fields<'_>) -> Option<Vec<String>> {
        let words = self.words(fields, "command");
        if let Some(node) = fields.node("command")
            && matches!(&node.value, Value::Array(items) if items.is_empty())
        {
            self.problems.add(node.place.problem("`command` names no program"));
        }
        (!words.is_empty()).then_some(words)
    }
}
