//! Names to addresses, as every other program on this machine has them: by the system's resolver.
//!
//! `getaddrinfo` asks `/etc/hosts`, DNS and whatever else `/etc/nsswitch.conf` names. A static glibc would have to load
//! those modules at run time, and only ones of its own version do not crash it: such a build asks `getent` instead,
//! which is the same lookup by the machine's own glibc. A static musl needs neither; it reads `/etc/hosts` and DNS.
//!
//! There is no timeout here: callers bound the whole connection attempt.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use tokio::process::Command;

type Failure = Box<dyn Error + Send + Sync>;

/// Whether loading NSS modules into this process is safe.
const NSS: bool = !cfg!(all(target_env = "gnu", target_feature = "crt-static"));

/// Returns the addresses of `host` in the order to try them; never an empty list.
///
/// `Err(None)` means that there are none and the resolver gave no reason.
pub(super) async fn lookup(host: &str, port: u16) -> Result<Vec<SocketAddr>, Option<Failure>> {
    let found = match literal(host) {
        Some(address) => vec![SocketAddr::new(address, port)],
        None if NSS => {
            tokio::net::lookup_host((host, port)).await.map_err(|error| Some(error.into()))?.collect()
        }
        None => getent(host, port).await?,
    };
    if found.is_empty() { Err(None) } else { Ok(found) }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// Asks `getent ahosts`, whose lines begin with an address; each address has one for every socket type.
async fn getent(host: &str, port: u16) -> Result<Vec<SocketAddr>, Option<Failure>> {
    if host.starts_with('-') {
        return Err(None);
    }
    let answer = Command::new("getent")
        .args(["ahosts", host])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Some(format!("could not run getent: {error}").into()))?;
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&answer.stdout).lines() {
        let address = line.split_whitespace().next().and_then(|word| word.parse().ok());
        if let Some(address) = address.map(|address| SocketAddr::new(address, port))
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_need_no_resolver() {
        assert_eq!(lookup("[::1]", 22).await.unwrap(), ["[::1]:22".parse::<SocketAddr>().unwrap()]);
        assert_eq!(lookup("192.0.2.7", 22).await.unwrap(), ["192.0.2.7:22".parse::<SocketAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn both_resolvers_read_the_hosts_file() {
        for found in [lookup("localhost", 22).await.unwrap(), getent("localhost", 22).await.unwrap()] {
            assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
            assert!(found.iter().all(|address| address.port() == 22), "{found:?}");
        }
    }

    #[tokio::test]
    async fn an_unknown_name_is_an_error() {
        assert!(lookup("no-such-host.invalid", 22).await.is_err());
        assert!(getent("no-such-host.invalid", 22).await.unwrap().is_empty());
        assert!(getent("--help", 22).await.is_err());
    }
}
