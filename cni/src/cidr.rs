//! Address ranges, as Kubernetes and CNI write them: "10.42.0.0/24".
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub ip: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    pub fn new(ip: IpAddr, prefix: u8) -> Option<Cidr> {
        (prefix <= bits(ip)).then_some(Cidr { ip, prefix })
    }

    /// The range of one address.
    pub fn host(ip: IpAddr) -> Cidr {
        Cidr { ip, prefix: bits(ip) }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && (number(self.ip) ^ number(ip)) & self.mask() == 0
    }

    /// The n-th address, the first (0) being the network's own; None outside the range.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        (n <= self.last()).then(|| address((number(self.ip) & self.mask()) + n, self.ip.is_ipv4()))
    }

    /// Where in the range an address of it lies.
    pub fn position(&self, ip: IpAddr) -> Option<u128> {
        self.contains(ip).then(|| number(ip) & !self.mask() & self.all())
    }

    /// The position of the last address; IPv4's broadcast address.
    pub fn last(&self) -> u128 {
        !self.mask() & self.all()
    }

    /// The mask as bytes of the address's own length.
    pub fn mask_octets(&self) -> Vec<u8> {
        crate::netlink::address::octets(address(self.mask(), self.ip.is_ipv4()))
    }

    /// The first address as bytes.
    pub fn network_octets(&self) -> Vec<u8> {
        crate::netlink::address::octets(address(number(self.ip) & self.mask(), self.ip.is_ipv4()))
    }

    fn all(&self) -> u128 {
        if self.ip.is_ipv4() { u32::MAX.into() } else { u128::MAX }
    }

    fn mask(&self) -> u128 {
        let host_bits = u32::from(bits(self.ip) - self.prefix);
        self.all() & u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4(Ipv4Addr::from(number as u32)) } else { IpAddr::V6(Ipv6Addr::from(number)) }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("{text:?} is not an address range like 10.42.0.0/24");
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        Cidr::new(ip.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?).ok_or_else(wrong)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(text: String) -> Result<Cidr, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cidr: Cidr = "10.42.3.0/24".parse().unwrap();
        assert!(cidr.contains("10.42.3.255".parse().unwrap()));
        assert!(!cidr.contains("10.42.4.0".parse().unwrap()));
        assert!(!cidr.contains("::1".parse().unwrap()));
        assert_eq!(cidr.nth(1), Some("10.42.3.1".parse().unwrap()));
        assert_eq!(cidr.nth(256), None);
        assert_eq!(cidr.position("10.42.3.7".parse().unwrap()), Some(7));
        assert_eq!(cidr.mask_octets(), [255, 255, 255, 0]);
        let six: Cidr = "fd00:42::/64".parse().unwrap();
        assert_eq!(six.nth(10), Some("fd00:42::a".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("8.8.8.8".parse().unwrap()));
        for wrong in ["", "10.42.0.0", "10.42.0.0/33", "x/8", "10.42.0.0/-1", "::/129"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }
}
