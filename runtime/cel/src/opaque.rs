//! Values of the libraries' own types.
use crate::auth::{Authorizer, Decision, ResourceCheck};
use mote_schema::quantity::Quantity;
use std::{cmp::Ordering, fmt, net::IpAddr, rc::Rc};

#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    Quantity(Quantity),
    Ip(IpAddr),
    /// The address as written, and the length of the prefix.
    Cidr(IpAddr, u8),
    Url(Url),
    Semver(Semver),
    /// By the name `format.named` knows.
    Format(&'static str),
    Authorizer(Rc<dyn Authorizer + 'a>, Option<Rc<str>>),
    /// The authorizer, the service account in whose name it is asked, and the path.
    PathCheck(Rc<dyn Authorizer + 'a>, Option<Rc<str>>, Rc<str>),
    /// The same, with an API group.
    GroupCheck(Rc<dyn Authorizer + 'a>, Option<Rc<str>>, Rc<str>),
    ResourceCheck(Rc<dyn Authorizer + 'a>, Box<ResourceCheck>),
    Decision(Decision),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub text: Box<str>,
    pub scheme: Box<str>,
    /// With the port.
    pub host: Box<str>,
    pub path: Box<str>,
    pub query: Box<str>,
}

#[derive(Clone, Debug)]
pub struct Semver {
    pub numbers: [u64; 3],
    /// After the dash, split at dots.
    pub pre: Vec<Box<str>>,
    /// After the plus.
    pub build: Box<str>,
}

impl Semver {
    /// Semantic Versioning 2.0.0, section 11; build metadata does not count.
    pub fn order(&self, other: &Semver) -> Ordering {
        let number = |text: &str| text.parse::<u64>().ok();
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => {
                for (a, b) in self.pre.iter().zip(&other.pre) {
                    let order = match (number(a), number(b)) {
                        (Some(a), Some(b)) => a.cmp(&b),
                        (Some(_), None) => Ordering::Less,
                        (None, Some(_)) => Ordering::Greater,
                        (None, None) => a.cmp(b),
                    };
                    if order.is_ne() {
                        return order;
                    }
                }
                self.pre.len().cmp(&other.pre.len())
            }
        })
    }
}

impl Opaque<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(..) => "net.CIDR",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Opaque::PathCheck(..) => "kubernetes.authorization.PathCheck",
            Opaque::GroupCheck(..) => "kubernetes.authorization.GroupCheck",
            Opaque::ResourceCheck(..) => "kubernetes.authorization.ResourceCheck",
            Opaque::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub fn equals(&self, other: &Opaque<'_>) -> bool {
        match (self, other) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => a == b,
            (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
            (Opaque::Cidr(a, x), Opaque::Cidr(b, y)) => a == b && x == y,
            (Opaque::Url(a), Opaque::Url(b)) => a.text == b.text,
            (Opaque::Semver(a), Opaque::Semver(b)) => a.order(b).is_eq(),
            (Opaque::Format(a), Opaque::Format(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Opaque<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opaque::Quantity(quantity) => write!(f, "{quantity}"),
            Opaque::Ip(ip) => write!(f, "{ip}"),
            Opaque::Cidr(ip, length) => write!(f, "{ip}/{length}"),
            Opaque::Url(url) => f.write_str(&url.text),
            Opaque::Semver(Semver { numbers: [major, minor, patch], pre, build }) => {
                write!(f, "{major}.{minor}.{patch}")?;
                if !pre.is_empty() {
                    write!(f, "-{}", pre.join("."))?;
                }
                if build.is_empty() { Ok(()) } else { write!(f, "+{build}") }
            }
            other => f.write_str(other.type_name()),
        }
    }
}
