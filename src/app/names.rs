//! Follows the names of hosts: when one stands for other addresses, its probe goes to them, and so do new server connections; those
//! to addresses that are gone are closed when nobody uses them.

use super::watch::for_pools;
use super::yard::Yard;
use crate::cluster::HostReport;
use crate::database::Upstream;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A resolver that takes longer has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// While names are not followed, the setting is looked at this often.
const PAUSE: Duration = Duration::from_secs(1);

/// The addresses that each host's name stood for when it was looked up last, by the host's id.
#[derive(Debug, Default)]
struct KnownAddresses(HashMap<u32, Arc<[IpAddr]>>);

impl KnownAddresses {
    /// Takes an answer of the resolver; the addresses if they are others than before. A failure, which may pass, changes nothing.
    fn changed(&mut self, host_id: u32, found: io::Result<Vec<IpAddr>>) -> Option<Arc<[IpAddr]>> {
        let mut found: Vec<IpAddr> = found.ok()?.into_iter().map(|address| address.to_canonical()).collect();
        found.sort_unstable();
        found.dedup();
        if found.is_empty() || self.0.get(&host_id).is_some_and(|known| **known == *found) {
            return None;
        }
        let found: Arc<[IpAddr]> = found.into();
        self.0.insert(host_id, found.clone()).map(|_| found)
    }
}

/// Follows the names of one upstream's hosts as long as it is in use.
pub(super) async fn follow_names(yard: Arc<Yard>, upstream: Weak<Upstream>) {
    let mut known = KnownAddresses::default();
    loop {
        let Some(interval) = upstream.upgrade().map(|upstream| upstream.settings().health.dns_interval) else { return };
        tokio::time::sleep(if interval.is_zero() { PAUSE } else { interval }).await;
        let Some(upstream) = upstream.upgrade().filter(|_| !interval.is_zero()) else { continue };
        let hosts: Vec<_> = upstream.cluster.fleet().hosts.iter().map(|view| view.host.clone()).collect();
        known.0.retain(|id, _| hosts.iter().any(|host| host.id == *id));
        for host in hosts.iter().filter(|host| is_name(&host.settings.address)) {
            let (name, port) = (host.settings.address.as_str(), host.settings.port);
            let looked_up = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((name, port))).await;
            let found = looked_up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let found = found.map(|addresses| addresses.map(|address| address.ip()).collect());
            if let Err(error) = &found {
                tracing::debug!(host = host.settings.name, %error, "a host's name could not be looked up");
            }
            let Some(addresses) = known.changed(host.id, found) else { continue };
            tracing::info!(host = host.settings.name, ?addresses, "a host's name stands for other addresses now");
            upstream.cluster.report(host.id, HostReport::Moved);
            for_pools(&yard, &upstream, host.id, |pool| pool.follow_addresses(&addresses));
        }
    }
}

/// Whether it has to be looked up: it is neither an address nor the directory of a socket.
fn is_name(address: &str) -> bool {
    !address.starts_with('/') && address.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(texts: &[&str]) -> io::Result<Vec<IpAddr>> {
        Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn only_another_set_of_addresses_is_news() {
        let mut known = KnownAddresses::default();
        let mut check = |host: u32, answer: io::Result<Vec<IpAddr>>, expect: Option<&[&str]>| {
            let expect = expect.map(|texts| found(texts).unwrap());
            assert_eq!(known.changed(host, answer).as_deref(), expect.as_deref());
        };
        check(1, found(&["10.0.0.2", "10.0.0.1"]), None);
        check(1, found(&["10.0.0.1", "::ffff:10.0.0.2", "10.0.0.1"]), None);
        check(1, Err(io::ErrorKind::NotFound.into()), None);
        check(1, found(&[]), None);
        check(2, found(&["10.0.0.9"]), None);
        check(1, found(&["10.0.0.3"]), Some(&["10.0.0.3"]));
        check(1, found(&["10.0.0.3"]), None);
        check(1, found(&["10.0.0.3", "10.0.0.1"]), Some(&["10.0.0.1", "10.0.0.3"]));
    }

    #[test]
    fn addresses_and_sockets_are_no_names() {
        for (address, expect) in [
            ("db.internal", true),
            ("localhost", true),
            ("10.0.0.1", false),
            ("[::1]", false),
            ("::1", false),
            ("/run/pg", false),
        ] {
            assert_eq!(is_name(address), expect, "{address}");
        }
    }
}
