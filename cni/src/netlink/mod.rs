//! One small netlink codec for everything Mote says to the kernel about networks: links, addresses, routes and
//! neighbours (rtnetlink), packet rules (nf_tables) and connection tracking. No other program is ever run for it.
//!
//! What lives here: the socket and its errors. Messages are built and taken apart in `message`; each kernel
//! subsystem has a file of its own. Invariant: a request is answered before the call returns, and its error says
//! what was being done, in the kernel's own words where the kernel offers some (NLMSGERR_ATTR_MSG).

pub mod address;
pub mod conntrack;
pub mod expr;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod link;
pub mod message;
pub mod nft;

use message::{Attrs, HEADER_LEN, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

/// The kernel never builds a larger datagram for us (it splits dumps at 32 kB on its own).
const RECEIVE_BYTES: usize = 64 << 10;
/// A dump longer than this is not read to its end: no table of one node comes near it.
const DUMP_LIMIT_BYTES: usize = 64 << 20;
/// One transaction; 10,000 services are about 4 MB.
pub const BATCH_LIMIT_BYTES: usize = 32 << 20;

const SOL_NETLINK: i32 = 270;
const NETLINK_CAP_ACK: i32 = 10;
const NETLINK_EXT_ACK: i32 = 11;

#[derive(Debug)]
pub enum Error {
    /// The kernel refused: what was asked, the error number, and the kernel's own explanation if it gave one.
    Kernel { doing: String, errno: Errno, message: Option<String> },
    /// The socket itself failed.
    Socket { doing: String, errno: Errno },
    /// An answer that cannot be understood, or none at all.
    Answer { doing: String, what: &'static str },
    /// More than one request may carry.
    TooLarge { doing: String, bytes: usize },
}

impl Error {
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::Kernel { errno, .. } | Error::Socket { errno, .. } => Some(*errno),
            _ => None,
        }
    }
    /// The thing named is not there: a link, table, chain or element.
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::SRCH | Errno::ADDRNOTAVAIL | Errno::NXIO))
    }
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EXIST)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Kernel { doing, errno, message: Some(message) } => write!(f, "{doing}: {errno} ({message})"),
            Error::Kernel { doing, errno, message: None } => write!(f, "{doing}: {errno}"),
            Error::Socket { doing, errno } => write!(f, "{doing}: netlink socket: {errno}"),
            Error::Answer { doing, what } => write!(f, "{doing}: {what}"),
            Error::TooLarge { doing, bytes } => write!(f, "{doing}: {bytes} bytes are more than one request may carry"),
        }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Route,
    Netfilter,
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it, wherever it is used.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub fn open(protocol: Protocol) -> Result<Socket> {
        let doing = || format!("opening a {protocol:?} netlink socket");
        let number = match protocol {
            // Number 0, which rustix writes as no protocol.
            Protocol::Route => None,
            Protocol::Netfilter => Some(net::netlink::NETFILTER),
        };
        let fail = |errno| Error::Socket { doing: doing(), errno };
        let fd =
            net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number).map_err(fail)?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0)).map_err(fail)?;
        // Niceties: errors in words, and acknowledgements that do not repeat the request. Old kernels lack them.
        for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
            set_option(&fd, option);
        }
        Ok(Socket { fd, sequence: 1, buffer: vec![0; RECEIVE_BYTES] })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Sends one request and waits for its acknowledgement.
    pub fn request(&mut self, message: Message, doing: &str) -> Result<()> {
        let sequence = self.next_sequence();
        self.send(&message.finish(NLM_F_REQUEST | NLM_F_ACK, sequence), doing)?;
        self.collect(sequence, doing, &mut |_, _| {})
    }

    /// Asks for a dump, or for one object, and hands every answer (message type, payload) to `each`.
    pub fn dump(&mut self, message: Message, doing: &str, each: &mut dyn FnMut(u16, &[u8])) -> Result<()> {
        let sequence = self.next_sequence();
        self.send(&message.finish(NLM_F_REQUEST | NLM_F_DUMP, sequence), doing)?;
        self.collect(sequence, doing, each)
    }

    /// Asks for one object. The acknowledgement that follows ends the wait.
    pub fn get(&mut self, message: Message, doing: &str, each: &mut dyn FnMut(u16, &[u8])) -> Result<()> {
        let sequence = self.next_sequence();
        self.send(&message.finish(NLM_F_REQUEST | NLM_F_ACK, sequence), doing)?;
        self.collect(sequence, doing, each)
    }

    fn send(&mut self, bytes: &[u8], doing: &str) -> Result<()> {
        loop {
            match net::send(&self.fd, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::Socket { doing: doing.to_owned(), errno }),
            }
        }
    }

    /// Reads one datagram; None when there is none and `wait` is false.
    fn receive(&mut self, wait: bool, doing: &str) -> Result<Option<usize>> {
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            match net::recv(&self.fd, &mut self.buffer[..], flags) {
                Ok((len, _)) => return Ok(Some(len)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if !wait => return Ok(None),
                Err(errno) => return Err(Error::Socket { doing: doing.to_owned(), errno }),
            }
        }
    }

    fn collect(&mut self, sequence: u32, doing: &str, each: &mut dyn FnMut(u16, &[u8])) -> Result<()> {
        let mut total = 0;
        loop {
            let len = self.receive(true, doing)?.unwrap_or(0);
            total += len;
            if total > DUMP_LIMIT_BYTES {
                return Err(Error::Answer { doing: doing.to_owned(), what: "the answer does not end" });
            }
            for answer in message::split(&self.buffer[..len]) {
                if answer.sequence != sequence {
                    continue;
                }
                match answer.kind {
                    NLMSG_ERROR => {
                        return match parse_error(answer.flags, answer.payload) {
                            None => Ok(()),
                            Some((errno, message)) => Err(Error::Kernel { doing: doing.to_owned(), errno, message }),
                        };
                    }
                    NLMSG_DONE => return Ok(()),
                    kind => each(kind, answer.payload),
                }
            }
        }
    }

    /// Sends a prepared series of messages as one datagram (an nf_tables transaction) and reads the errors: the
    /// kernel has queued them all by the time `send` returns, so silence is success. `first` is the sequence number
    /// of the first message and `describe` says what the n-th was for.
    fn transact(&mut self, bytes: &[u8], first: u32, describe: &dyn Fn(u32) -> String, doing: &str) -> Result<()> {
        if bytes.len() > BATCH_LIMIT_BYTES {
            return Err(Error::TooLarge { doing: doing.to_owned(), bytes: bytes.len() });
        }
        if bytes.len() > 64 << 10 {
            // Best effort: without it a large batch fails with EMSGSIZE, which is then reported.
            let _ = net::sockopt::set_socket_send_buffer_size_force(&self.fd, bytes.len() * 2);
        }
        // Answers to an earlier call that was given up on.
        while self.receive(false, doing)?.is_some() {}
        self.send(bytes, doing)?;
        let mut failed = None;
        while let Some(len) = self.receive(false, doing)? {
            for answer in message::split(&self.buffer[..len]) {
                if answer.kind == NLMSG_ERROR
                    && failed.is_none()
                    && let Some((errno, message)) = parse_error(answer.flags, answer.payload)
                {
                    let index = answer.sequence.wrapping_sub(first);
                    failed = Some(Error::Kernel { doing: format!("{doing}: {}", describe(index)), errno, message });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// (errno, the kernel's words); None for an acknowledgement.
fn parse_error(flags: u16, payload: &[u8]) -> Option<(Errno, Option<String>)> {
    const NLM_F_CAPPED: u16 = 0x100;
    const NLM_F_ACK_TLVS: u16 = 0x200;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let code = payload.first_chunk::<4>().map_or(-1, |b| i32::from_ne_bytes(*b));
    if code == 0 {
        return None;
    }
    let errno = Errno::from_raw_os_error(code.saturating_neg().clamp(1, 4095));
    let mut message = None;
    if flags & NLM_F_ACK_TLVS != 0 {
        // The request's header follows the code, and the whole request too unless the kernel capped it.
        let echoed =
            payload.get(4..8).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_ne_bytes(*b) as usize);
        let skip = if flags & NLM_F_CAPPED != 0 { HEADER_LEN } else { message::align(echoed) };
        for (kind, value) in Attrs::new(payload.get(4 + skip..).unwrap_or(&[])) {
            if kind == NLMSGERR_ATTR_MSG {
                message = Some(message::text(value).to_owned());
            }
        }
    }
    Some((errno, message))
}

fn set_option(fd: &OwnedFd, option: i32) {
    let on: i32 = 1;
    // SAFETY: the descriptor is open and the pointer and length describe `on`, which outlives the call.
    unsafe {
        libc::setsockopt(fd.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), size_of::<i32>() as u32);
    }
}
