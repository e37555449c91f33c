//! A world for network tests: the process in namespaces of its own as "the host", threads in further ones as pods
//! and as the outside. Nothing of it is left when the process ends.
use mote_cni::netlink::address::{Address, Route};
use mote_cni::netlink::link::Veth;
use mote_cni::netlink::{Protocol, Socket};
use mote_cni::netns::Namespace;
use rustix::thread::UnshareFlags;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// Long enough for a busy machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub struct Place {
    pub path: String,
    work: Sender<Work>,
}

fn unshare(flags: UnshareFlags) {
    // SAFETY: neither the file table nor memory is unshared, which is what the function warns about.
    unsafe { rustix::thread::unshare_unsafe(flags) }.expect("unshare");
}

/// Puts this (still single-threaded) process into namespaces of its own. False when that is not allowed here.
pub fn enter() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return false;
    }
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS);
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let lo = socket.link("lo").unwrap().index;
    socket.set_up(lo).unwrap();
    true
}

impl Place {
    pub fn new() -> Place {
        let ((work, jobs), (tell, told)) = (channel::<Work>(), channel());
        std::thread::spawn(move || {
            unshare(UnshareFlags::NEWNET);
            let id = rustix::thread::gettid().as_raw_nonzero();
            tell.send(format!("/proc/{}/task/{id}/ns/net", std::process::id())).unwrap();
            for job in jobs {
                job();
            }
        });
        Place { path: told.recv().unwrap(), work }
    }

    /// Sockets made inside belong to the place wherever they are used.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        self.work.send(Box::new(move || drop(tell.send(work())))).unwrap();
        told.recv().unwrap()
    }

    /// Answers every TCP connection and datagram with "NAME saw PEER".
    pub fn serve(&self, name: &str, port: u16) {
        let (tcp, udp) = self.run(move || (TcpListener::bind(("0.0.0.0", port)), UdpSocket::bind(("0.0.0.0", port))));
        serve(name, tcp.unwrap(), udp.unwrap());
    }

    pub fn ask_tcp(&self, to: &str) -> Result<String, String> {
        let to = to.to_owned();
        self.run(move || ask_tcp(&to))
    }

    pub fn ask_udp(&self, to: &str) -> Result<String, String> {
        let to = to.to_owned();
        self.run(move || ask_udp(&to))
    }
}

pub fn serve(name: &str, tcp: TcpListener, udp: UdpSocket) {
    let (name, also) = (name.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let _ = write!(stream, "{name} saw {}", stream.peer_addr().unwrap().ip());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{also} saw {}", peer.ip()).as_bytes(), peer);
        }
    });
}

pub fn ask_tcp(to: &str) -> Result<String, String> {
    let address: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|e| e.kind().to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.kind().to_string())?;
    Ok(answer)
}

pub fn ask_udp(to: &str) -> Result<String, String> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).map_err(|e| e.kind().to_string())?;
    socket.send(b"hello").map_err(|e| e.kind().to_string())?;
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).map_err(|e| e.kind().to_string())?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Calls the plugin, which is this very test's program.
pub fn call(command: &str, id: &str, netns: &str, config: &Value) -> Result<Value, Value> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let json = if output.stdout.is_empty() { Value::Null } else { serde_json::from_slice(&output.stdout).unwrap() };
    if output.status.success() { Ok(json) } else { Err(json) }
}

/// A place outside the node: 192.0.2.2, the host being 192.0.2.1 and its default route leading there. The outside
/// knows the way to nothing but the host's own address, and to `routed` through it.
pub fn outside(routed: Option<(IpAddr, u8)>) -> Place {
    let place = Place::new();
    let namespace = Namespace::open(&place.path).unwrap();
    let (host, away): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mut socket = Socket::open(Protocol::Route).unwrap();
    let (mac, peer_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let veth = Veth { name: "uplink", peer: "net0", peer_namespace: namespace.fd(), mac, peer_mac, mtu: 1500 };
    socket.create_veth(&veth).unwrap();
    let link = socket.link("uplink").unwrap().index;
    socket.add_address(&Address { link, ip: host, prefix: 24 }).unwrap();
    place.run(move || {
        let mut socket = Socket::open(Protocol::Route).unwrap();
        let link = socket.link("net0").unwrap().index;
        socket.add_address(&Address { link, ip: away, prefix: 24 }).unwrap();
        socket.set_up(link).unwrap();
        if routed.is_some() {
            let route = Route { destination: routed, gateway: Some(host), link, source: None, mtu: 0 };
            socket.add_route(&route).unwrap();
        }
    });
    let default = Route { destination: None, gateway: Some(away), link, source: None, mtu: 0 };
    socket.add_route(&default).unwrap();
    place
}
