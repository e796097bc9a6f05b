//! Kibana: ready when it says that it is. Its vendor supports no cluster of two versions, so that across versions all
//! instances stop before the first one starts; the plan sees to that.

use hyper::Method;
use serde_json::Value;

use super::adapter::{Adapter, AdapterError};
use super::view::View;
use crate::rollout::Held;

/// Kibana.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kibana;

impl Adapter for Kibana {
    async fn ready(&self, view: &View<'_>) -> Result<Held, AdapterError> {
        let answer = view.this.http(Method::GET, "/api/status", None).await?;
        match answer.json() {
            Ok(body) => Ok(held(&body, view.this.product.as_deref())),
            Err(_) => Ok(Held::NotYet(format!("/api/status answers {}", answer.status))),
        }
    }
}

/// What `/api/status` says. Who is not logged in is told the level alone.
fn held(body: &Value, product: Option<&str>) -> Held {
    let version = body["version"]["number"].as_str();
    if let (Some(found), Some(wanted)) = (version, product)
        && found != wanted
    {
        return Held::NotYet(format!("1 of 2: it answers as {found}, not {wanted}"));
    }
    let overall = &body["status"]["overall"];
    match overall["level"].as_str().or(overall["state"].as_str()) {
        Some("available" | "green") => Held::Yes,
        Some(other) => Held::NotYet(format!("2 of 2: its status is {other}")),
        None => Held::NotYet("2 of 2: it does not say its status".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_ways_to_say_that_all_is_well_are_understood() {
        let old = json!({"version": {"number": "7.17.0"}, "status": {"overall": {"state": "green"}}});
        let new = json!({"version": {"number": "8.0.0"}, "status": {"overall": {"level": "available"}}});
        assert_eq!(held(&old, Some("7.17.0")), Held::Yes);
        assert_eq!(held(&new, None), Held::Yes);
        assert_eq!(held(&json!({"status": {"overall": {"level": "available"}}}), Some("8.0.0")), Held::Yes);
        assert!(matches!(held(&old, Some("8.0.0")), Held::NotYet(why) if why.starts_with("1 of 2")));
        let red = json!({"status": {"overall": {"level": "critical"}}});
        assert!(matches!(held(&red, None), Held::NotYet(why) if why.contains("critical")));
    }
}
