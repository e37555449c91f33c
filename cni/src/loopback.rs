//! The `loopback` plugin, which containerd runs for every sandbox under that name before the network's own: sets
//! `lo` up. Where the distribution has installed its own, that one stays.
use crate::error::{Error, Result, code};
use crate::netlink::{Protocol, Socket};
use crate::netns::Namespace;
use serde_json::{Value, json};

/// Both the plugin's file name and its configuration's `type`.
pub const PLUGIN: &str = "loopback";

/// ADD and CHECK see to it that `lo` is up; DEL has nothing to do, since the namespace goes.
pub fn call(command: &str, netns: &str, version: &str) -> Result<Option<Value>> {
    match command {
        "ADD" => {
            Namespace::open(netns)?.run(|| {
                let mut socket = Socket::open(Protocol::Route)?;
                let index = socket.link("lo")?.index;
                Ok(socket.set_up(index)?)
            })?;
            let older = matches!(version, "0.3.0" | "0.3.1" | "0.4.0");
            let ip = |address: &str, family: &str| {
                let mut ip = json!({"interface": 0, "address": address});
                if older {
                    ip["version"] = family.into();
                }
                ip
            };
            Ok(Some(json!({
                "cniVersion": version,
                "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}],
                "ips": [ip("127.0.0.1/8", "4"), ip("::1/128", "6")],
                "dns": {},
            })))
        }
        "CHECK" => Namespace::open(netns)?.run(|| {
            let up = Socket::open(Protocol::Route)?.link("lo")?.up;
            if up { Ok(None) } else { Err(Error::new(code::CHECK_FAILED, "the loopback is not up")) }
        }),
        _ => Ok(None),
    }
}
