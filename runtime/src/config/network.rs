//! Address blocks and names, as the configuration writes them.
use std::{fmt, net::Ipv4Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Cidr {
        Cidr { address, prefix }
    }

    /// "10.42.0.0/16"; the address must be the block's first.
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, prefix) = text.split_once('/')?;
        let cidr = Cidr { address: address.parse().ok()?, prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32)? };
        (cidr.address.to_bits() & !cidr.mask() == 0).then_some(cidr)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.address.to_bits()
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The n-th address of the block.
    pub fn nth(self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits().wrapping_add(n))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// RFC 1123 subdomain, as Kubernetes checks names with: IsDNS1123Subdomain in apimachinery's validation package.
pub fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = label.as_bytes();
        label.len() <= 63
            && bytes.first().is_some_and(|c| plain(*c))
            && bytes.last().is_some_and(|c| plain(*c))
            && bytes.iter().all(|c| plain(*c) || *c == b'-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_start_at_their_first_address() {
        #[track_caller]
        fn check(text: &str, good: bool) {
            assert_eq!(Cidr::parse(text).map(|cidr| cidr.to_string()), good.then(|| text.to_owned()));
        }
        check("10.42.0.0/16", true);
        check("0.0.0.0/0", true);
        check("10.0.0.1/32", true);
        check("10.42.0.1/16", false);
        check("10.42.0.0/33", false);
        check("10.42.0.0", false);
        check("fd00::/64", false);
    }

    #[test]
    fn blocks_overlap_when_one_holds_the_other() {
        #[track_caller]
        fn check(one: &str, other: &str, expected: bool) {
            let (one, other) = (Cidr::parse(one).unwrap(), Cidr::parse(other).unwrap());
            assert_eq!(one.overlaps(other), expected);
            assert_eq!(other.overlaps(one), expected);
        }
        check("10.42.0.0/16", "10.43.0.0/16", false);
        check("10.42.0.0/15", "10.43.0.0/16", true);
        check("0.0.0.0/0", "10.43.0.0/16", true);
    }
}
