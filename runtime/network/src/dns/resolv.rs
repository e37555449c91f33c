//! Whom the host asks: its resolv.conf, read again whenever the file is another one.
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// As the C library: further ones are not asked.
const SERVERS_LIMIT: usize = 3;
const FILE_LIMIT_BYTES: u64 = 64 << 10;
const PORT: u16 = 53;

/// What tells one version of the file from another: device, inode, length, time of change in nanoseconds.
type Stamp = (u64, u64, u64, i128);

pub struct Resolv {
    path: PathBuf,
    /// Asking ourselves would go round for ever.
    own: Vec<IpAddr>,
    known: Mutex<(Option<Stamp>, Arc<[SocketAddr]>)>,
}

pub fn parse(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    let others = servers.filter(|ip| !own.contains(ip) && !ip.is_unspecified());
    others.take(SERVERS_LIMIT).map(|ip| SocketAddr::new(ip, PORT)).collect()
}

impl Resolv {
    pub fn new(path: PathBuf, own: Vec<IpAddr>) -> Resolv {
        Resolv { path, own, known: Mutex::new((None, Arc::new([]))) }
    }

    /// Empty when the host knows nobody to ask.
    pub fn servers(&self) -> Arc<[SocketAddr]> {
        let stamp = fs::metadata(&self.path).ok().filter(|m| m.len() <= FILE_LIMIT_BYTES).map(|m| {
            let changed = i128::from(m.ctime()) * 1_000_000_000 + i128::from(m.ctime_nsec());
            (m.dev(), m.ino(), m.len(), changed)
        });
        let mut known = self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if known.0 != stamp {
            let text = stamp.and_then(|_| fs::read_to_string(&self.path).ok()).unwrap_or_default();
            *known = (stamp, parse(&text, &self.own).into());
            tracing::debug!(path = %self.path.display(), servers = ?known.1, "name servers of the host");
        }
        known.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_again_when_the_file_changes() {
        let own: Vec<IpAddr> = vec!["10.43.0.10".parse().unwrap()];
        let text = "# nameserver 9.9.9.9\nsearch lan\nnameserver 10.43.0.10\nnameserver 192.0.2.53 # x\n\
                    nameserver fe80::1%eth0\n nameserver\t2001:db8::53\nnameserver x\noptions edns0\n";
        let expected: Vec<SocketAddr> = vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()];
        assert_eq!(parse(text, &own), expected);

        let path = std::env::temp_dir().join(format!("mote-resolv-{}", std::process::id()));
        let resolv = Resolv::new(path.clone(), own);
        assert!(resolv.servers().is_empty(), "no file");
        fs::write(&path, text).unwrap();
        assert_eq!(*resolv.servers(), expected);
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(*resolv.servers(), ["192.0.2.1:53".parse().unwrap()]);
        fs::remove_file(&path).unwrap();
        assert!(resolv.servers().is_empty());
    }
}
