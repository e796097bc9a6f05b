//! 201 to 203, 205, 216: limits, as the service gets them, against what its kind needs.

use super::codes::{self, Code};
use super::elastic::{EsNode, KINDS};
use super::preflight::level;
use super::topology::Instance;
use super::{Level, Problem};
use crate::agent::{LimitFrom, Preflight, RolePreflight};
use crate::recipe::{Limit, ServiceKind};

/// A limit that a kind of service needs at least.
struct Need {
    name: &'static str,
    least: Limit,
    code: Code,
    level: Level,
    why: &'static str,
}

fn needs(one: &Instance) -> Vec<Need> {
    let need = |name, least, code, level, why| Need { name, least, code, level, why };
    let mut needs = Vec::new();
    if KINDS.contains(&one.kind) {
        let level = level(one);
        needs.extend([
            need(
                "nofile",
                Limit::Number(65_535),
                codes::P201,
                level,
                "every segment of every shard is a file",
            ),
            need("nproc", Limit::Number(4096), codes::P202, level, "its thread pools need them"),
            need("as", Limit::Unlimited, codes::P203, level, "it maps its index files"),
            need("fsize", Limit::Unlimited, codes::P203, level, "segments grow as they are merged"),
        ]);
        let locks = EsNode::of(one).is_ok_and(|node| node.conf.flag("bootstrap.memory_lock") == Some(true));
        if locks {
            let why = "bootstrap.memory_lock is true: without the limit it does not start";
            needs.push(need("memlock", Limit::Unlimited, codes::P205, level, why));
        }
    }
    if one.kind == ServiceKind::Kafka {
        let why = "every segment of every partition is a file, or two";
        needs.push(need("nofile", Limit::Number(65_535), codes::P201, Level::Warn, why));
    }
    needs
}

/// Every limit of a role.
pub(super) fn limits(one: &Instance, node: &Preflight, role: &RolePreflight, problems: &mut Vec<Problem>) {
    let at = Some(one.node.as_str());
    let recipe = |name: &str| format!("recipes/{}.toml service.limits.{name}", one.role);
    for (name, fact) in &role.limits {
        if let Some(hard) = fact.refused {
            problems.push(Problem::new(
                codes::P216,
                at,
                recipe(name),
                format!(
                    "{}: the recipe wants {name} {}, and {}, as whom the agent runs, may give {}",
                    one.name(),
                    shown(fact.soft),
                    node.agent_user,
                    shown(hard)
                ),
                format!(
                    "raise the hard limit of {} (limits.conf), or let the agent run as root with CAP_SYS_RESOURCE",
                    node.agent_user
                ),
            ));
        }
    }
    for need in needs(one) {
        let Some(fact) = role.limits.get(need.name) else { continue };
        // A JVM raises its own number of open files to the hard limit.
        let value = if need.name == "nofile" { fact.hard } else { fact.soft };
        if !is_less(value, need.least) {
            continue;
        }
        let (place, from) = match fact.from {
            LimitFrom::Recipe => (recipe(need.name), "its recipe"),
            LimitFrom::Process => (format!("/proc/{}/limits", role.pid.unwrap_or_default()), "its process"),
            LimitFrom::Agent => ("/proc/self/limits of the agent".to_owned(), "what a start inherits"),
        };
        let message = format!(
            "{}: {} is {} by {from}, and should be {}: {}",
            one.name(),
            need.name,
            shown(value),
            shown(need.least),
            need.why
        );
        let wanted = match need.least {
            Limit::Unlimited => "\"unlimited\"".to_owned(),
            Limit::Number(number) => number.to_string(),
        };
        let help = format!("[service] limits = {{ {} = {wanted} }} in the recipe", need.name);
        problems.push(Problem::new(need.code, at, place, message, help).at_most(need.level));
    }
}

fn is_less(value: Limit, least: Limit) -> bool {
    match (value, least) {
        (Limit::Unlimited, _) => false,
        (Limit::Number(_), Limit::Unlimited) => true,
        (Limit::Number(value), Limit::Number(least)) => value < least,
    }
}

fn shown(limit: Limit) -> String {
    match limit {
        Limit::Unlimited => "unlimited".to_owned(),
        Limit::Number(number) => number.to_string(),
    }
}
