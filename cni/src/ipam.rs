//! Which pod has which address: one small file an address, on tmpfs, so that it outlives Mote and the containers'
//! runtime but not the boot that ended the pods.
//!
//! `DIR/NETWORK/` holds `lock` (flock, held over every change), `last` (the address given out last: a freed one
//! rests as long as possible) and a file per address in use, named after it. Files appear whole (rename), so a plugin
//! that is killed leaves either a reservation or none.
use crate::Cidr;
use crate::config::PortMapping;
use crate::error::{Error, Result, code};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How many addresses are tried before the pool counts as exhausted; more than a node has pods by far.
const TRIES_LIMIT: u128 = 1 << 16;

/// Who has an address, and what must be undone when it is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    #[serde(skip, default = "unspecified")]
    pub ip: IpAddr,
    pub container_id: String,
    pub ifname: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
}

fn unspecified() -> IpAddr {
    IpAddr::V4(0.into())
}

/// The pool, locked until dropped.
pub struct Pool {
    dir: PathBuf,
    _lock: File,
}

impl Pool {
    pub fn lock(data_dir: &Path, network: &str) -> Result<Pool> {
        let dir = data_dir.join(network);
        fs::create_dir_all(&dir).map_err(|e| Error::io(dir.display(), e))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(|e| Error::io(path.display(), e))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::io(path.display(), e))?;
        Ok(Pool { dir, _lock: lock })
    }

    /// Everything reserved. A file that cannot be read as a reservation counts as one of nobody.
    pub fn reservations(&self) -> Result<Vec<Reservation>> {
        let mut reservations = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| Error::io(self.dir.display(), e))? {
            let entry = entry.map_err(|e| Error::io(self.dir.display(), e))?;
            let Some(ip) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let bytes = fs::read(entry.path()).unwrap_or_default();
            let reservation = serde_json::from_slice(&bytes).unwrap_or_else(|_| Reservation {
                ip,
                container_id: String::new(),
                ifname: String::new(),
                ports: Vec::new(),
            });
            reservations.push(Reservation { ip, ..reservation });
        }
        Ok(reservations)
    }

    /// Reserves an address of `range` for a container's link: neither the network's own, nor the gateway (the
    /// first), nor the broadcast address.
    pub fn reserve(&self, range: Cidr, container_id: &str, ifname: &str, ports: &[PortMapping]) -> Result<IpAddr> {
        let reservations = self.reservations()?;
        if let Some(found) = reservations.iter().find(|r| r.container_id == container_id && r.ifname == ifname) {
            return Err(Error::new(
                code::DUPLICATE,
                format!(
                    "{} has been allocated to {container_id} {ifname}, duplicate allocation is not allowed",
                    found.ip
                ),
            ));
        }
        let taken: BTreeSet<IpAddr> = reservations.iter().map(|r| r.ip).collect();
        let (first, count) = (2, range.last().saturating_sub(2));
        let start = fs::read_to_string(self.dir.join("last"))
            .ok()
            .and_then(|text| range.position(text.trim().parse().ok()?))
            .map_or(0, |position| position.saturating_sub(first) + 1);
        let ip = (0..count.min(TRIES_LIMIT))
            .filter_map(|step| range.nth(first + (start + step) % count))
            .find(|ip| !taken.contains(ip))
            .ok_or_else(|| {
                Error::new(
                    code::POOL_EXHAUSTED,
                    format!("no IP addresses available in {range}: all {count} are in use"),
                )
            })?;
        let reservation =
            Reservation { ip, container_id: container_id.to_owned(), ifname: ifname.to_owned(), ports: ports.to_vec() };
        let json = serde_json::to_vec(&reservation).map_err(|e| Error::io("writing a reservation", e))?;
        self.write(&ip.to_string(), &json)?;
        self.write("last", ip.to_string().as_bytes())?;
        Ok(ip)
    }

    pub fn release(&self, ip: IpAddr) -> Result<()> {
        let path = self.dir.join(ip.to_string());
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path.display(), e)),
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (path, new) = (self.dir.join(name), self.dir.join(".new"));
        fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(|e| Error::io(path.display(), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Dir {
            let path = std::env::temp_dir().join(format!("mote-ipam-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Dir(path)
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn addresses_go_round_and_run_out() {
        let dir = Dir::new("round");
        let range: Cidr = "10.9.0.0/29".parse().unwrap();
        let pool = Pool::lock(&dir.0, "net").unwrap();
        let reserve = |id: &str| pool.reserve(range, id, "eth0", &[]).map(|ip| ip.to_string());
        for (id, ip) in [("a", "10.9.0.2"), ("b", "10.9.0.3"), ("c", "10.9.0.4")] {
            assert_eq!(reserve(id).unwrap(), ip);
        }
        pool.release("10.9.0.2".parse().unwrap()).unwrap();
        pool.release("10.9.0.2".parse().unwrap()).unwrap();
        assert_eq!(reserve("d").unwrap(), "10.9.0.5", "a freed address rests");
        assert_eq!(reserve("e").unwrap(), "10.9.0.6");
        assert_eq!(reserve("f").unwrap(), "10.9.0.2");
        assert_eq!(reserve("g").unwrap_err().code, code::POOL_EXHAUSTED);
        assert_eq!(reserve("f").unwrap_err().code, code::DUPLICATE);
        assert_eq!(pool.reservations().unwrap().len(), 5);
    }

    #[test]
    fn a_damaged_file_keeps_its_address_taken() {
        let dir = Dir::new("damaged");
        let range: Cidr = "10.9.0.0/29".parse().unwrap();
        let pool = Pool::lock(&dir.0, "net").unwrap();
        fs::write(dir.0.join("net/10.9.0.2"), "").unwrap();
        fs::write(dir.0.join("net/last"), "rubbish").unwrap();
        assert_eq!(pool.reserve(range, "a", "eth0", &[]).unwrap().to_string(), "10.9.0.3");
        let nobody = pool.reservations().unwrap().into_iter().find(|r| r.container_id.is_empty()).unwrap();
        assert_eq!(nobody.ip.to_string(), "10.9.0.2");
    }
}
