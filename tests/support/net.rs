//! Loopback addresses of a test's own.
//!
//! A port that is found by binding port 0 and letting go of it lies in the range that the kernel gives to outgoing
//! connections, so any client on the machine may take it before the server does. Addresses of a network of its own
//! let a test use fixed ports below that range.

use std::fs::{self, File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Claims are shared by every user and every checkout on the machine, so they are not below `$TMPDIR`.
const CLAIMS: &str = "/tmp/windlass-net";
/// 127.64.0.0/24 to 127.127.255.0/24.
const NETWORKS: u16 = 64 * 256;

/// A line of `[lints]`: the node's port check (P211) does not look at addresses, so that the services of other tests
/// and of other nodes on this machine count as being in the way.
pub(crate) const SAME_PORTS: &str = "P211 = \"allow\"\n";

/// A /24 of the loopback range that no other test uses while this value lives.
#[derive(Debug)]
pub(crate) struct Net {
    number: u16,
    _claim: File,
}

impl Net {
    /// Claims the first free network.
    pub(crate) fn claim() -> Self {
        if fs::create_dir(CLAIMS).is_ok() {
            fs::set_permissions(CLAIMS, fs::Permissions::from_mode(0o1777)).unwrap();
        }
        for number in 0..NETWORKS {
            let path = Path::new(CLAIMS).join(number.to_string());
            let open =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o666).open(path);
            // Another user's umask may have made it theirs alone.
            let Ok(claim) = open else { continue };
            if claim.try_lock().is_err() {
                continue;
            }
            let net = Self { number, _claim: claim };
            // A server that outlived its test still holds its addresses.
            if !net.in_use() {
                return net;
            }
        }
        panic!("all {NETWORKS} networks of {CLAIMS} are claimed or in use");
    }

    /// The address with this last number.
    pub(crate) fn ip(&self, last: u8) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(127, 64 + high, low, last)
    }

    /// The address with this last number, and a port.
    pub(crate) fn at(&self, last: u8, port: u16) -> SocketAddr {
        (self.ip(last), port).into()
    }

    /// Whether a TCP socket is bound to an address of the network.
    fn in_use(&self) -> bool {
        let wanted = self.ip(0).octets();
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        table.lines().skip(1).any(|line| {
            // `sl local_address ...`: the address is hexadecimal, least significant byte first; state 06 is TIME_WAIT.
            let mut words = line.split_whitespace().skip(1);
            let local = words.next().and_then(|local| local.split_once(':')).map(|(address, _)| address);
            let state = words.nth(1);
            let local = local.and_then(|address| u32::from_str_radix(address, 16).ok());
            state != Some("06") && local.is_some_and(|address| address.to_le_bytes()[..3] == wanted[..3])
        })
    }
}

#[test]
fn networks_differ_and_a_listener_keeps_one_from_being_claimed() {
    let first = Net::claim();
    let second = Net::claim();
    assert_ne!(first.ip(1), second.ip(1));
    let listener = std::net::TcpListener::bind(second.at(1, 8080)).unwrap();
    assert!(second.in_use() && !first.in_use());
    drop(listener);
    assert!(!second.in_use());
}
