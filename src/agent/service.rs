//! A recipe's `[service]` becomes a release's [`Unit`]: every template rendered, every value read.

use std::collections::BTreeMap;

use camino::Utf8Path;

use super::render::Renderer;
use super::supervise::{UNIT_FORMAT, Unit};
use crate::model::{Span, Supervision, millis};
use crate::recipe::{Api, Limit, OrTemplate, Probe, Ready, Reload, Service};

/// Why a service's text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[service] {key}: {why}")]
pub struct ServiceError {
    /// Where in `[service]`.
    pub key: String,
    /// Why not; never with a value in it.
    pub why: String,
}

struct Values<'a>(&'a Renderer);

impl Values<'_> {
    fn text(&self, key: &str, text: &str) -> Result<String, ServiceError> {
        let wrong = |why: String| ServiceError { key: key.to_owned(), why };
        let text = self.0.render(text).map_err(|error| wrong(error.to_string()))?.exact;
        if text.contains('\0') { Err(wrong("it holds a NUL byte".to_owned())) } else { Ok(text) }
    }

    fn optional(&self, key: &str, text: Option<&String>) -> Result<Option<String>, ServiceError> {
        text.map(|text| self.text(key, text)).transpose()
    }

    fn given(&self, key: &str, text: Option<&String>) -> Result<Option<String>, ServiceError> {
        Ok(self.optional(key, text)?.filter(|text| !text.is_empty()))
    }

    fn value<T: Clone>(
        &self,
        key: &str,
        value: &OrTemplate<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ServiceError> {
        match value {
            OrTemplate::Value(value) => Ok(value.clone()),
            OrTemplate::Template(text) => {
                let wrong = || ServiceError {
                    key: key.to_owned(),
                    why: "what it renders to is no such value".to_owned(),
                };
                parse(self.text(key, text)?.trim()).ok_or_else(wrong)
            }
        }
    }

    fn number(&self, key: &str, value: &OrTemplate<u16>) -> Result<OrTemplate<u16>, ServiceError> {
        self.value(key, value, |text| text.parse().ok()).map(OrTemplate::Value)
    }

    fn span(&self, key: &str, value: &OrTemplate<Span>) -> Result<Span, ServiceError> {
        self.value(key, value, |text| text.parse().ok())
    }

    fn ready(&self, ready: &Ready) -> Result<Ready, ServiceError> {
        let probe = match &ready.probe {
            Probe::Http { port, path, status, body } => Probe::Http {
                port: self.number("ready.http.port", port)?,
                path: self.text("ready.http.path", path)?,
                status: self.number("ready.http.status", status)?,
                body: self.optional("ready.http.body", body.as_ref())?,
            },
            Probe::Tcp(port) => Probe::Tcp(self.number("ready.tcp", port)?),
            Probe::Command(words) => Probe::Command(
                words.iter().map(|word| self.text("ready.command", word)).collect::<Result<_, _>>()?,
            ),
        };
        Ok(Ready { probe, within: OrTemplate::Value(self.span("ready.within", &ready.within)?) })
    }

    fn api(&self, api: &Api) -> Result<Api, ServiceError> {
        Ok(Api {
            port: api.port.as_ref().map(|port| self.number("api.port", port)).transpose()?,
            tls: api.tls,
            ca: self.optional("api.ca", api.ca.as_ref())?,
            server_name: self.optional("api.server_name", api.server_name.as_ref())?,
            // One that renders to nothing is not given: whether there is a login may be up to a var.
            user: self.given("api.user", api.user.as_ref())?,
            password: self.given("api.password", api.password.as_ref())?,
            api_key: self.given("api.api_key", api.api_key.as_ref())?,
        })
    }
}

/// Renders a service for the release at `release`.
pub(super) fn unit(
    service: &Service,
    versions: &BTreeMap<String, String>,
    renderer: &Renderer,
    release: &Utf8Path,
    log: &Utf8Path,
    supervisor: &Supervision,
) -> Result<Unit, ServiceError> {
    let values = Values(renderer);
    let words = |key: &str, words: &[String]| -> Result<Vec<String>, ServiceError> {
        words.iter().map(|word| values.text(key, word)).collect()
    };
    let mut command = words("start", &service.start)?;
    let Some(program) = command.first_mut() else {
        return Err(ServiceError { key: "start".to_owned(), why: "it names no program".to_owned() });
    };
    // One that renders to an absolute path stays that.
    *program = release.join(&*program).into_string();
    let env =
        service.env.iter().map(|(name, text)| Ok((name.clone(), values.text(&format!("env.{name}"), text)?)));
    let limits = service.limits.iter().map(|(name, limit)| {
        let parse = |text: &str| match text {
            "unlimited" => Some(Limit::Unlimited),
            text => text.parse().ok().map(Limit::Number),
        };
        Ok((name.clone(), values.value(&format!("limits.{name}"), limit, parse)?))
    });
    let timeout = values.span("stop.timeout", &service.stop.timeout)?;
    let mut test = words("test", &service.test)?;
    if let Some(program) = test.first_mut() {
        *program = release.join(&*program).into_string();
    }
    Ok(Unit {
        format: UNIT_FORMAT,
        kind: service.kind,
        supervisor: supervisor.clone(),
        user: values.optional("user", service.user.as_ref())?,
        group: values.optional("group", service.group.as_ref())?,
        capabilities: words("capabilities", &service.capabilities)?,
        command,
        env: env.collect::<Result<_, _>>()?,
        signal: values.text("stop.signal", &service.stop.signal)?,
        timeout_ms: millis(timeout.0),
        test,
        limits: limits.collect::<Result<_, _>>()?,
        cwd: release.to_owned(),
        log: log.to_owned(),
        ready: service.ready.as_ref().map(|ready| values.ready(ready)).transpose()?,
        api: service.api.as_ref().map(|api| values.api(api)).transpose()?,
        product: versions.get(service.kind.name()).cloned(),
        reload: match &service.reload {
            None => None,
            Some(Reload::Signal(name)) => Some(Reload::Signal(values.text("reload.signal", name)?)),
            Some(Reload::Command(command)) => Some(Reload::Command(words("reload.command", command)?)),
        },
    })
}
