//! The commands of the CNI specification 1.1 (https://www.cni.dev/docs/spec/): one short process a call.
//!
//! Everything a call made is found again by names and files alone (the link's name follows from the attachment, the
//! reservation lists the host ports), so DEL and GC need neither the pod's namespace nor an earlier result, and may
//! be repeated.
use crate::config::{Config, Request, STDIN_LIMIT_BYTES, SUPPORTED_VERSIONS, plugin_type, supported_version, version};
use crate::error::{Error, Result, code};
use crate::gateway::{self, LINK_PREFIX, mac_of, set_sysctl};
use crate::ipam::{Pool, Reservation};
use crate::netlink::address::{Address, Route};
use crate::netlink::link::Veth;
use crate::netlink::{Protocol, Socket};
use crate::netns::Namespace;
use crate::{Cidr, loopback, ports};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::process::ExitCode;

const LATEST: &str = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1];

/// The whole process: environment and stdin in, result or error on stdout, exit code 0 or 1.
pub fn plugin_main() -> ExitCode {
    let mut stdin = Vec::new();
    let read = std::io::stdin().take(STDIN_LIMIT_BYTES as u64 + 1).read_to_end(&mut stdin);
    let outcome = match read {
        Err(e) => Err(Error::io("reading stdin", e)),
        Ok(len) if len > STDIN_LIMIT_BYTES => {
            Err(Error::new(code::DECODING_FAILURE, format!("stdin has more than {STDIN_LIMIT_BYTES} bytes")))
        }
        Ok(_) => call(&|name| std::env::var(name).ok(), &stdin),
    };
    let (output, exit) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => (error_json(&error, &stdin), ExitCode::FAILURE),
    };
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stdout(), "{output}");
    exit
}

/// In the version that the caller speaks, if it says and we know it.
fn error_json(error: &Error, stdin: &[u8]) -> Value {
    let spoken = version(stdin).ok().filter(|v| SUPPORTED_VERSIONS.contains(&v.as_str()));
    let mut output =
        json!({"cniVersion": spoken.as_deref().unwrap_or(LATEST), "code": error.code, "msg": error.message});
    if !error.details.is_empty() {
        output["details"] = error.details.as_str().into();
    }
    output
}

fn call(variable: &dyn Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<Option<Value>> {
    let request = Request::read(variable)?;
    if request.command == "VERSION" {
        let spoken = version(stdin).unwrap_or_else(|_| LATEST.to_owned());
        return Ok(Some(json!({"cniVersion": spoken, "supportedVersions": SUPPORTED_VERSIONS})));
    }
    if plugin_type(stdin) == loopback::PLUGIN {
        return loopback::call(&request.command, &request.netns, &supported_version(stdin)?);
    }
    let config = Config::parse(stdin)?;
    match request.command.as_str() {
        "ADD" => add(&request, &config).map(Some),
        "CHECK" => check(&request, &config).map(|()| None),
        "DEL" => delete(&config, &|r| r.container_id == request.container_id && r.ifname == request.ifname, &request)
            .map(|()| None),
        "GC" => collect_garbage(&config).map(|()| None),
        _ => status(&config).map(|()| None),
    }
}

/// The host's end of a pod's link: our prefix and digits that follow from the attachment (FNV-1a).
pub fn host_link_name(network: &str, container_id: &str, ifname: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in [network, container_id, ifname].join("/").bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{LINK_PREFIX}{:011x}", hash >> 20)
}

fn add(request: &Request, config: &Config) -> Result<Value> {
    let namespace = Namespace::open(&request.netns)?;
    let network = config.network();
    let mut socket = Socket::open(Protocol::Route)?;
    let mtu = gateway::ensure(&mut socket, &network)?.mtu;
    ports::ensure(&network, false)?;
    let host_ports = &config.runtime_config.port_mappings;
    let ip = Pool::lock(&config.data_dir, &config.name)?.reserve(
        config.pod_cidr,
        &request.container_id,
        &request.ifname,
        host_ports,
    )?;
    let name = host_link_name(&config.name, &request.container_id, &request.ifname);
    let end = PodEnd { ifname: &request.ifname, host: &name, ip, gateway: network.gateway(), mtu };
    let attached = attach(&mut socket, &namespace, &end).and_then(|()| ports::open(ip, host_ports));
    if let Err(error) = attached {
        // Undone by what it is known by; the first error is the one to tell.
        let _ = socket.delete_link(&name);
        let _ = ports::close(ip, host_ports);
        let _ = Pool::lock(&config.data_dir, &config.name).and_then(|pool| pool.release(ip));
        return Err(error);
    }
    let mut interfaces = json!([
        {"name": name, "mac": mac_text(network.gateway())},
        {"name": request.ifname, "mac": mac_text(ip), "sandbox": request.netns},
    ]);
    let mut address = json!({"interface": 1, "address": Cidr::host(ip).to_string(), "gateway": network.gateway()});
    match config.cni_version.as_str() {
        "0.3.0" | "0.3.1" | "0.4.0" => address["version"] = if ip.is_ipv4() { "4" } else { "6" }.into(),
        "1.0.0" => {}
        _ => {
            for interface in interfaces.as_array_mut().into_iter().flatten() {
                interface["mtu"] = mtu.into();
            }
        }
    }
    Ok(json!({
        "cniVersion": config.cni_version,
        "interfaces": interfaces,
        "ips": [address],
        "routes": [{"dst": default_route(ip), "gw": network.gateway()}],
        "dns": {},
    }))
}

fn default_route(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
}

/// A pod's link, from both sides.
struct PodEnd<'a> {
    ifname: &'a str,
    host: &'a str,
    ip: IpAddr,
    gateway: IpAddr,
    mtu: u32,
}

fn attach(socket: &mut Socket, namespace: &Namespace, end: &PodEnd<'_>) -> Result<()> {
    let &PodEnd { ifname, host, ip, gateway, mtu } = end;
    // A link left by a plugin that was killed between its making and its reservation's.
    if socket.link(host).is_ok() {
        socket.delete_link(host)?;
    }
    let (mac, peer_mac) = (mac_of(gateway), mac_of(ip));
    socket.create_veth(&Veth { name: host, peer: ifname, peer_namespace: namespace.fd(), mac, peer_mac, mtu })?;
    // Without redirects, which would tell a pod that speaks to itself through the host not to. With route_localnet
    // a host port answers on 127.0.0.1 too; `ports` drops what pods send there.
    for (key, value) in [("send_redirects", "0"), ("route_localnet", "1")] {
        set_sysctl(&format!("net/ipv4/conf/{host}/{key}"), value)?;
    }
    namespace.run(|| {
        let mut socket = Socket::open(Protocol::Route)?;
        let loopback = socket.link("lo")?;
        if !loopback.up {
            socket.set_up(loopback.index)?;
        }
        let link = socket.link(ifname)?.index;
        socket.add_address(&Address { link, ip, prefix: Cidr::host(ip).prefix })?;
        socket.set_up(link)?;
        let to = |destination, gateway| Route { destination, gateway, link, source: Some(ip), mtu: 0 };
        let direct = Cidr::host(gateway);
        socket.add_route(&to(Some((direct.ip, direct.prefix)), None))?;
        socket.add_route(&to(None, Some(gateway)))?;
        // Both ends know each other from the start: the first packet needs no question.
        Ok(socket.add_neighbour(link, gateway, &mac)?)
    })?;
    let (link, pod) = (socket.link(host)?.index, Cidr::host(ip));
    // The gateway's address here too: it is what masquerading over this link then takes.
    socket.add_address(&Address { link, ip: gateway, prefix: Cidr::host(gateway).prefix })?;
    let destination = Some((pod.ip, pod.prefix));
    socket.add_route(&Route { destination, gateway: None, link, source: Some(gateway), mtu: 0 })?;
    Ok(socket.add_neighbour(link, ip, &peer_mac)?)
}

fn mac_text(ip: IpAddr) -> String {
    mac_of(ip).iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

fn check(request: &Request, config: &Config) -> Result<()> {
    let failed = |what: String| Err(Error::new(code::CHECK_FAILED, what));
    let Some(previous) = &config.prev_result else {
        return Err(Error::new(code::INVALID_CONFIG, "required prevResult missing"));
    };
    let reservations = Pool::lock(&config.data_dir, &config.name)?.reservations()?;
    let ours = reservations.iter().find(|r| r.container_id == request.container_id && r.ifname == request.ifname);
    let Some(ours) = ours else {
        return failed(format!("no address is reserved for {} {}", request.container_id, request.ifname));
    };
    let wanted = Cidr::host(ours.ip).to_string();
    let listed = previous["ips"].as_array().into_iter().flatten().any(|ip| ip["address"] == wanted.as_str());
    if !listed {
        return failed(format!("prevResult does not have the reserved address {wanted}"));
    }
    let name = host_link_name(&config.name, &request.container_id, &request.ifname);
    let mut socket = Socket::open(Protocol::Route)?;
    let (ip, gateway) = (ours.ip, config.network().gateway());
    let host = socket.link(&name)?;
    let leads_there = |r: &Route| r.link == host.index && r.destination == Some((ip, Cidr::host(ip).prefix));
    if !host.up || !socket.routes()?.iter().any(leads_there) {
        return failed(format!("the host has no route to {ip} over {name}"));
    }
    Namespace::open(&request.netns)?.run(|| {
        let mut socket = Socket::open(Protocol::Route)?;
        let link = socket.link(&request.ifname)?;
        if !socket.addresses()?.iter().any(|a| a.link == link.index && a.ip == ip) {
            return failed(format!("{} does not have the address {ip}", request.ifname));
        }
        let is_default = |r: &Route| r.destination.is_none() && r.gateway == Some(gateway) && r.link == link.index;
        if !socket.routes()?.iter().any(is_default) {
            return failed(format!("there is no default route via {gateway}"));
        }
        Ok(())
    })
}

fn delete(config: &Config, which: &dyn Fn(&Reservation) -> bool, request: &Request) -> Result<()> {
    let mut errors = Vec::new();
    let pool = Pool::lock(&config.data_dir, &config.name)?;
    for reservation in pool.reservations()?.iter().filter(|r| which(r)) {
        errors.extend(detach(config, &pool, reservation));
    }
    // Also without a reservation there may be a link.
    errors.extend(delete_link(&host_link_name(&config.name, &request.container_id, &request.ifname)));
    Error::all(errors).map_or(Ok(()), Err)
}

/// All steps, whatever fails; the address is given back only when nothing of it is left.
fn detach(config: &Config, pool: &Pool, reservation: &Reservation) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(ports::close(reservation.ip, &reservation.ports).err());
    errors.extend(delete_link(&host_link_name(&config.name, &reservation.container_id, &reservation.ifname)));
    if errors.is_empty() {
        errors.extend(pool.release(reservation.ip).err());
    }
    errors
}

fn delete_link(name: &str) -> Option<Error> {
    let deleted = Socket::open(Protocol::Route).and_then(|mut socket| socket.delete_link(name));
    deleted.err().filter(|e| !e.is_absent()).map(Error::from)
}

fn collect_garbage(config: &Config) -> Result<()> {
    let Some(valid) = &config.valid_attachments else {
        return Err(Error::new(code::INVALID_CONFIG, "required cni.dev/valid-attachments missing"));
    };
    let pool = Pool::lock(&config.data_dir, &config.name)?;
    let is_valid = |r: &&Reservation| valid.iter().any(|a| a.container_id == r.container_id && a.ifname == r.ifname);
    let mut errors = Vec::new();
    for reservation in pool.reservations()?.iter().filter(|r| !is_valid(r)) {
        errors.extend(detach(config, &pool, reservation));
    }
    Error::all(errors).map_or(Ok(()), Err)
}

/// Whether an ADD would find what it needs.
fn status(config: &Config) -> Result<()> {
    let unavailable = |e: Error| Error::new(code::PLUGIN_NOT_AVAILABLE, e.to_string());
    Pool::lock(&config.data_dir, &config.name).map_err(unavailable)?;
    let mut socket = Socket::open(Protocol::Route).map_err(|e| unavailable(e.into()))?;
    gateway::ensure(&mut socket, &config.network()).map_err(unavailable)?;
    ports::ensure(&config.network(), false).map_err(unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rubbish_is_answered_as_the_specification_says() {
        let check = |variables: &[(&str, &str)], stdin: &str, version: &str, code: u32, words: &str| {
            let read = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
            let error = call(&read, stdin.as_bytes()).unwrap_err();
            let json = error_json(&error, stdin.as_bytes());
            assert_eq!((&json["cniVersion"], &json["code"]), (&version.into(), &code.into()), "{stdin}: {json}");
            assert!(json["msg"].as_str().unwrap().contains(words), "{stdin}: {json}");
        };
        let add = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/x"), ("CNI_IFNAME", "eth0")];
        let config = |version: &str| {
            format!(
                r#"{{"cniVersion":"{version}","name":"n","link":"b0","podCIDR":"10.1.0.0/24","clusterCIDR":"10.1.0.0/16"}}"#
            )
        };
        check(&[], "", "1.1.0", code::INVALID_ENVIRONMENT, "CNI_COMMAND");
        check(&add, "rubbish", "1.1.0", code::DECODING_FAILURE, "stdin");
        check(&add, &config("0.2.0"), "1.1.0", code::INCOMPATIBLE_VERSION, "incompatible");
        check(&add, r#"{"cniVersion":"0.4.0"}"#, "0.4.0", code::INVALID_CONFIG, "name");
        check(&add, &config("1.0.0"), "1.0.0", code::INVALID_ENVIRONMENT, "network namespace \"/x\"");
        check(&[("CNI_COMMAND", "GC")], &config("1.1.0"), "1.1.0", code::INVALID_CONFIG, "valid-attachments");
        let own = [add[0], add[1], ("CNI_NETNS", "/proc/self/ns/net"), add[3]];
        check(&own, &config("1.0.0"), "1.0.0", code::INVALID_ENVIRONMENT, "the host's own");
        let file = [add[0], add[1], ("CNI_NETNS", "/proc/self/exe"), add[3]];
        check(&file, &config("1.0.0"), "1.0.0", code::INVALID_ENVIRONMENT, "is not a network namespace");
        check(&[add[0], ("CNI_COMMAND", "")], "", "1.1.0", code::INVALID_ENVIRONMENT, "missing");
    }

    #[test]
    fn version_says_what_is_supported() {
        let read = |name: &str| (name == "CNI_COMMAND").then(|| "VERSION".to_owned());
        let output = call(&read, br#"{"cniVersion":"1.0.0"}"#).unwrap().unwrap();
        assert_eq!(output["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
        assert_eq!(output["cniVersion"], "1.0.0");
    }

    #[test]
    fn link_names_fit_and_differ() {
        let (a, b) = (host_link_name("n", "c1", "eth0"), host_link_name("n", "c2", "eth0"));
        assert!(a.len() <= 15 && a != b && a == host_link_name("n", "c1", "eth0"));
    }
}
