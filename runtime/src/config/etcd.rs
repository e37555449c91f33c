//! `store.etcd`: the servers that have the data in place of this machine's disk.

/// Upstream's --etcd-prefix.
const PREFIX: &str = "/registry";
/// A cluster of etcd has at most seven members.
const MAX_ENDPOINTS: usize = 16;

#[derive(Clone, Debug, PartialEq)]
pub struct Etcd {
    /// As they were written; empty: the data is on this machine's disk.
    pub endpoints: Vec<String>,
    pub prefix: String,
    /// Paths of PEM files; "" for none.
    pub ca_file: String,
    pub cert_file: String,
    pub key_file: String,
    /// A user of etcd's, and the file that holds their password; "" for none.
    pub username: String,
    pub password_file: String,
}

impl Default for Etcd {
    fn default() -> Etcd {
        let file = String::new;
        Etcd {
            endpoints: Vec::new(),
            prefix: PREFIX.to_owned(),
            ca_file: file(),
            cert_file: file(),
            key_file: file(),
            username: String::new(),
            password_file: file(),
        }
    }
}

/// Host, port and whether TLS is spoken there.
pub fn endpoint(text: &str) -> Option<(&str, u16, bool)> {
    let (is_tls, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (host, port) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port.strip_prefix(':'))
        }
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(2379), |port| port.parse().ok()).filter(|port| *port > 0)?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':');
    (!host.is_empty() && host.bytes().all(is_name)).then_some((host, port, is_tls))
}

impl Etcd {
    pub fn is_used(&self) -> bool {
        !self.endpoints.is_empty()
    }

    pub fn endpoints(list: &[String]) -> Option<Vec<String>> {
        let good = list.len() <= MAX_ENDPOINTS && list.iter().all(|text| endpoint(text).is_some());
        good.then(|| list.to_vec())
    }

    /// As every key begins.
    #[cfg(feature = "etcd")]
    pub fn key_prefix(&self) -> String {
        [self.prefix.trim_end_matches('/'), "/"].concat()
    }

    /// The way to each.
    #[cfg(feature = "etcd")]
    pub fn servers(&self) -> Vec<Box<dyn mote_grpc::Dial>> {
        use mote_api::outbound::{Far, Files};
        let file = |path: &str| (!path.is_empty()).then(|| path.into());
        let files = Files { ca: file(&self.ca_file), identity: file(&self.cert_file).zip(file(&self.key_file)) };
        let known = self.endpoints.iter().filter_map(|text| endpoint(text));
        known.map(|(host, port, tls)| Box::new(Far::new(host, port, tls.then(|| files.clone()))) as _).collect()
    }

    /// Who Mote is there. The password is the file's first line.
    #[cfg(feature = "etcd")]
    pub fn login(&self) -> Option<mote_store::Login> {
        let path = self.password_file.clone();
        let password = move || -> mote_store::Password {
            let path = path.clone();
            Box::pin(mote_api::unblock(move || match std::fs::read_to_string(&path) {
                Ok(text) => Ok(text.lines().next().unwrap_or_default().to_owned()),
                Err(error) => Err([&path, ": ", &error.to_string()].concat()),
            }))
        };
        (!self.username.is_empty())
            .then(|| mote_store::Login { name: self.username.clone(), password: Box::new(password) })
    }

    pub fn conflict(&self) -> Option<(&'static str, &'static str)> {
        let halves = |one: &str, other: &str| one.is_empty() != other.is_empty();
        if halves(&self.cert_file, &self.key_file) {
            return Some(("store.etcd.certFile", "certFile and keyFile go together"));
        }
        halves(&self.username, &self.password_file)
            .then_some(("store.etcd.username", "username and passwordFile go together"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (text, expected) in [
            ("https://etcd-1.example:2379", Some(("etcd-1.example", 2379, true))),
            ("http://127.0.0.1:12379/", Some(("127.0.0.1", 12379, false))),
            ("https://10.0.0.1", Some(("10.0.0.1", 2379, true))),
            ("https://[fd00::1]:2380", Some(("fd00::1", 2380, true))),
            ("10.0.0.1:2379", None),
            ("https://", None),
            ("https://a:0", None),
            ("https://a/b", None),
            ("https://[a]:1", None),
        ] {
            assert_eq!(endpoint(text), expected, "{text}");
        }
    }
}
