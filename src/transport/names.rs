//! Names to addresses without libc's resolver, so that a static binary can look them up.
//!
//! `/etc/hosts` and `/etc/resolv.conf` are read by hickory; NSS modules (LDAP, mDNS) are not asked.
//! A literal address needs neither.

use std::error::Error;
use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use tokio::sync::OnceCell;

/// Looks names up; reads the system's configuration when the first name comes.
#[derive(Default)]
pub(super) struct Names(OnceCell<TokioResolver>);

type Failure = Box<dyn Error + Send + Sync>;

impl Names {
    /// The addresses of `host`, in the order to try them.
    pub(super) async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, Option<Failure>> {
        if let Some(address) = literal(host) {
            return Ok(vec![address]);
        }
        let resolver = self
            .0
            .get_or_try_init(async || TokioResolver::builder_tokio()?.build())
            .await
            .map_err(|error| Some(error.into()))?;
        let found = resolver.lookup_ip(host).await.map_err(|error| Some(error.into()))?;
        let addresses: Vec<IpAddr> = found.iter().collect();
        if addresses.is_empty() { Err(None) } else { Ok(addresses) }
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_and_the_hosts_file_need_no_server() {
        let names = Names::default();
        assert_eq!(names.lookup("[::1]").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(names.0.get().is_none());
        assert!(names.lookup("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    }
}
