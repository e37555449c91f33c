//! The plugin's input: the network configuration on stdin and the CNI_* variables.
use crate::Cidr;
use crate::error::{Error, Result, code};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;

/// Oldest first. 0.1.0 and 0.2.0 have another result format, which no runtime of today asks for.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What a configuration without a version means (the specification's rule), which is one we do not speak.
const UNNAMED_VERSION: &str = "0.1.0";
/// A configuration with the previous result is a few kB; this is room for one of every port.
pub const STDIN_LIMIT_BYTES: usize = 1 << 20;
const HOST_PORTS_LIMIT: usize = 1024;
pub const DEFAULT_DATA_DIR: &str = "/run/mote/cni";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    #[serde(default)]
    pub cni_version: String,
    pub name: String,
    /// Carries the gateway's address.
    pub link: String,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Cidr,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: Cidr,
    /// 0: as the link of the default route.
    #[serde(default)]
    pub mtu: u32,
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    #[serde(default)]
    pub runtime_config: RuntimeConfig,
    pub prev_result: Option<serde_json::Value>,
    /// Only for GC.
    #[serde(default, rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Option<Vec<Attachment>>,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from(DEFAULT_DATA_DIR)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// A host port, as the portMappings capability has it. Go's decoder, which callers are used to, takes any case:
/// containerd before 2.0 capitalizes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(default = "tcp", alias = "Protocol")]
    pub protocol: String,
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// "" and the unspecified addresses mean every address of the host.
pub fn host_ip(mapping: &PortMapping) -> Result<Option<IpAddr>> {
    if mapping.host_ip.is_empty() {
        return Ok(None);
    }
    let ip: IpAddr = mapping.host_ip.parse().map_err(|_| {
        Error::new(code::INVALID_CONFIG, format!("portMappings: hostIP {:?} is not an IP address", mapping.host_ip))
    })?;
    Ok(if ip.is_unspecified() { None } else { Some(ip) })
}

/// IP protocol number.
pub fn protocol_number(name: &str) -> Result<u8> {
    match name.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok(6),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        _ => Err(Error::new(code::INVALID_CONFIG, format!("portMappings: unknown protocol {name:?}"))),
    }
}

impl Config {
    pub fn parse(stdin: &[u8]) -> Result<Config> {
        let version = supported_version(stdin)?;
        let config: Config = serde_json::from_slice(stdin)
            .map_err(|e| Error::new(code::INVALID_CONFIG, format!("network configuration: {e}")))?;
        config.check()?;
        Ok(Config { cni_version: version, ..config })
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(code::INVALID_CONFIG, what));
        if !is_name(&self.name) {
            return wrong(format!("network name {:?} has characters that the specification forbids", self.name));
        }
        if !is_link_name(&self.link) {
            return wrong(format!("link: {:?} cannot be a link's name", self.link));
        }
        if self.pod_cidr.last() < 3 {
            return wrong(format!("podCIDR: {} has no room for a gateway and a pod", self.pod_cidr));
        }
        if self.mtu != 0 && !(68..=65535).contains(&self.mtu) {
            return wrong(format!("mtu: {} is not between 68 and 65535", self.mtu));
        }
        if self.runtime_config.port_mappings.len() > HOST_PORTS_LIMIT {
            return wrong(format!("portMappings: more than {HOST_PORTS_LIMIT}"));
        }
        for mapping in &self.runtime_config.port_mappings {
            protocol_number(&mapping.protocol)?;
            host_ip(mapping)?;
            if mapping.container_port == 0 {
                return wrong("portMappings: containerPort 0".to_owned());
            }
        }
        Ok(())
    }

    pub fn network(&self) -> crate::Network {
        crate::Network {
            link: self.link.clone(),
            pod_cidr: self.pod_cidr,
            cluster_cidr: self.cluster_cidr,
            mtu: self.mtu,
        }
    }
}

/// The configuration's version, if we speak it.
pub fn supported_version(stdin: &[u8]) -> Result<String> {
    let version = version(stdin)?;
    if !SUPPORTED_VERSIONS.contains(&version.as_str()) {
        let mut error = Error::new(code::INCOMPATIBLE_VERSION, "incompatible CNI versions");
        error.details = format!("config is {version:?}, plugin supports {}", SUPPORTED_VERSIONS.join(", "));
        return Err(error);
    }
    Ok(version)
}

/// Which plugin the configuration is for; "" when it does not say.
pub fn plugin_type(stdin: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Typed {
        #[serde(default, rename = "type")]
        plugin: String,
    }
    serde_json::from_slice::<Typed>(stdin).unwrap_or_default().plugin
}

/// The configuration's version, which decides how even errors are written.
pub fn version(stdin: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        cni_version: Option<String>,
    }
    let versioned: Versioned = serde_json::from_slice(stdin)
        .map_err(|e| Error::new(code::DECODING_FAILURE, format!("network configuration on stdin: {e}")))?;
    Ok(versioned.cni_version.filter(|v| !v.is_empty()).unwrap_or_else(|| UNNAMED_VERSION.to_owned()))
}

/// Network names and container IDs: alphanumeric first, then also "_", "." and "-". They become file names.
pub fn is_name(text: &str) -> bool {
    text.len() <= 255
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

pub fn is_link_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 15
        && text != "."
        && text != ".."
        && text.chars().all(|c| c.is_ascii_graphic() && c != '/' && c != ':')
}

/// What to do, and for whom: the CNI_* variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
}

impl Request {
    /// `variable` reads the environment. All that is missing is named at once.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Request> {
        let get = |name: &str| variable(name).unwrap_or_default();
        let request = Request {
            command: get("CNI_COMMAND"),
            container_id: get("CNI_CONTAINERID"),
            netns: get("CNI_NETNS"),
            ifname: get("CNI_IFNAME"),
        };
        let wrong = |what: String| Err(Error::new(code::INVALID_ENVIRONMENT, what));
        let needed: &[(&str, &str)] = match request.command.as_str() {
            "" => &[("CNI_COMMAND", "")],
            "ADD" | "CHECK" => &[
                ("CNI_CONTAINERID", &request.container_id),
                ("CNI_NETNS", &request.netns),
                ("CNI_IFNAME", &request.ifname),
            ],
            // The namespace may be long gone.
            "DEL" => &[("CNI_CONTAINERID", &request.container_id), ("CNI_IFNAME", &request.ifname)],
            "GC" | "STATUS" | "VERSION" => &[],
            other => return wrong(format!("unknown CNI_COMMAND: {other}")),
        };
        let missing: Vec<&str> = needed.iter().filter(|(_, value)| value.is_empty()).map(|(name, _)| *name).collect();
        if !missing.is_empty() {
            return wrong(format!("required env variables [{}] missing", missing.join(",")));
        }
        if !request.container_id.is_empty() && !is_name(&request.container_id) {
            return wrong(format!("invalid characters in CNI_CONTAINERID {:?}", request.container_id));
        }
        if !request.ifname.is_empty() && !is_link_name(&request.ifname) {
            return wrong(format!("CNI_IFNAME {:?} cannot be a link's name", request.ifname));
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations() {
        let check = |json: &str, expected: Option<(u32, &str)>| {
            let got = Config::parse(json.as_bytes());
            match expected {
                None => assert!(got.is_ok(), "{json}: {got:?}"),
                Some((code, words)) => {
                    let error = got.unwrap_err();
                    assert_eq!(error.code, code, "{json}: {error}");
                    assert!(error.to_string().contains(words), "{json}: {error}");
                }
            }
        };
        let whole = r#""name":"mote","link":"mote0","podCIDR":"10.42.0.0/24","clusterCIDR":"10.42.0.0/16""#;
        check(&format!(r#"{{"cniVersion":"1.0.0",{whole}}}"#), None);
        check(&format!(r#"{{"cniVersion":"1.1.0",{whole},"runtimeConfig":{{}}}}"#), None);
        check("rubbish", Some((code::DECODING_FAILURE, "stdin")));
        check("", Some((code::DECODING_FAILURE, "stdin")));
        check("[]", Some((code::DECODING_FAILURE, "stdin")));
        check(r#"{"cniVersion":"9.0.0"}"#, Some((code::INCOMPATIBLE_VERSION, "plugin supports 0.3.0")));
        check(&format!("{{{whole}}}"), Some((code::INCOMPATIBLE_VERSION, "0.1.0")));
        check(r#"{"cniVersion":"1.0.0","name":"mote"}"#, Some((code::INVALID_CONFIG, "link")));
        let cases = [
            ("10.42.0.0/24", "10.42.0.0/99", "address range"),
            ("10.42.0.0/24", "10.42.0.0/31", "no room"),
            ("mote0", "a-link-name-that-is-long", "link's name"),
            (r#""mote""#, r#""../etc""#, "characters"),
        ];
        for (from, to, words) in cases {
            let json = format!(r#"{{"cniVersion":"1.0.0",{}}}"#, whole.replacen(from, to, 1));
            check(&json, Some((code::INVALID_CONFIG, words)));
        }
        let ports = |mapping: &str| {
            format!(r#"{{"cniVersion":"1.0.0",{whole},"runtimeConfig":{{"portMappings":[{mapping}]}}}}"#)
        };
        check(&ports(r#"{"hostPort":80,"containerPort":80,"protocol":"UDP","hostIP":"127.0.0.1"}"#), None);
        // As containerd spells it.
        check(&ports(r#"{"HostPort":80,"ContainerPort":80,"Protocol":"TCP","HostIP":""}"#), None);
        check(&ports(r#"{"hostPort":80,"containerPort":80,"protocol":"x"}"#), Some((7, "unknown protocol")));
        check(&ports(r#"{"hostPort":80,"containerPort":80,"hostIP":"x"}"#), Some((7, "not an IP")));
        check(&ports(r#"{"hostPort":70000,"containerPort":80}"#), Some((7, "70000")));
    }

    #[test]
    fn environments() {
        let check = |variables: &[(&str, &str)], expected: std::result::Result<(), &str>| {
            let read = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            match (Request::read(&read), expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(words)) => {
                    assert_eq!((error.code, error.message.as_str()), (code::INVALID_ENVIRONMENT, words));
                }
                (got, expected) => panic!("{variables:?}: {got:?}, expected {expected:?}"),
            }
        };
        let (id, netns, ifname) = (("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0"));
        check(&[("CNI_COMMAND", "ADD"), id, netns, ifname], Ok(()));
        check(&[("CNI_COMMAND", "DEL"), id, ifname], Ok(()));
        check(&[("CNI_COMMAND", "VERSION")], Ok(()));
        check(&[], Err("required env variables [CNI_COMMAND] missing"));
        check(&[("CNI_COMMAND", "ADD"), netns], Err("required env variables [CNI_CONTAINERID,CNI_IFNAME] missing"));
        check(&[("CNI_COMMAND", "JUMP")], Err("unknown CNI_COMMAND: JUMP"));
        check(
            &[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "../x"), ifname],
            Err("invalid characters in CNI_CONTAINERID \"../x\""),
        );
    }
}
