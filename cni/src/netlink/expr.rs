//! nf_tables rules as chains of expressions.
//!
//! A rule is run left to right over sixteen 4-byte registers; an expression that does not match ends it. Key parts
//! that lie in neighbouring registers are one concatenated key, so `R0`.. name them in order. Numbers and meanings:
//! linux/netfilter/nf_tables.h and the nft(8) manual.
use super::message::{nest, put, put_be32, put_be64, put_string};

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;

/// A 4-byte register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u32);
/// Where verdicts go.
const VERDICT: Register = Register(0);
pub const R0: Register = Register(8);
pub const R1: Register = Register(9);
pub const R2: Register = Register(10);
pub const R3: Register = Register(11);
pub const R4: Register = Register(12);
pub const R5: Register = Register(13);
pub const R6: Register = Register(14);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    fn parts(&self) -> (i32, Option<&str>) {
        match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        }
    }
}

/// What a map yields, or an immediate loads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    Value(Vec<u8>),
    Verdict(Verdict),
}

pub(super) fn put_data(out: &mut Vec<u8>, attribute: u16, data: &Data) {
    nest(out, attribute, |out| match data {
        Data::Value(bytes) => put(out, NFTA_DATA_VALUE, bytes),
        Data::Verdict(verdict) => nest(out, NFTA_DATA_VERDICT, |out| {
            let (code, chain) = verdict.parts();
            put(out, 1, &code.to_be_bytes());
            if let Some(chain) = chain {
                put_string(out, 2, chain);
            }
        }),
    });
}

pub(super) fn put_value(out: &mut Vec<u8>, attribute: u16, bytes: &[u8]) {
    nest(out, attribute, |out| put(out, NFTA_DATA_VALUE, bytes));
}

#[derive(Clone, Copy, Debug)]
pub enum Meta {
    Mark = 3,
    InputName = 6,
    OutputName = 7,
    L4Proto = 16,
}

#[derive(Clone, Copy, Debug)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
}

#[derive(Clone, Copy, Debug)]
pub enum Track {
    State = 0,
    Status = 2,
}
/// Connection states as a bit mask, host order.
pub const CT_STATE_NEW: u32 = 8;
/// Status bit: the destination was translated.
pub const CT_STATUS_DNAT: u32 = 1 << 5;

#[derive(Clone, Copy, Debug)]
pub enum FibOf {
    Source = 1,
    Destination = 2,
}
/// RTN_LOCAL: an address of this host.
pub const FIB_LOCAL: u32 = 2;

/// ICMP "port unreachable", by which a TCP client too sees "connection refused".
pub const ICMP_PORT_UNREACHABLE: u8 = 3;

/// A rule being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub(super) bytes: Vec<u8>,
}

impl Rule {
    pub fn new() -> Rule {
        Rule::default()
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Vec<u8>)) -> Rule {
        nest(&mut self.bytes, NFTA_LIST_ELEM, |out| {
            put_string(out, NFTA_EXPR_NAME, name);
            nest(out, NFTA_EXPR_DATA, fill);
        });
        self
    }

    pub fn meta(self, key: Meta, into: Register) -> Rule {
        self.expression("meta", |out| {
            put_be32(out, 2, key as u32);
            put_be32(out, 1, into.0);
        })
    }

    pub fn set_mark(self, from: Register) -> Rule {
        self.expression("meta", |out| {
            put_be32(out, 2, Meta::Mark as u32);
            put_be32(out, 3, from.0);
        })
    }

    pub fn payload(self, base: Header, offset: u32, len: u32, into: Register) -> Rule {
        self.expression("payload", |out| {
            put_be32(out, 1, into.0);
            put_be32(out, 2, base as u32);
            put_be32(out, 3, offset);
            put_be32(out, 4, len);
        })
    }

    pub fn compare(self, op: Compare, register: Register, value: &[u8]) -> Rule {
        self.expression("cmp", |out| {
            put_be32(out, 1, register.0);
            put_be32(out, 2, op as u32);
            put_value(out, 3, value);
        })
    }

    /// register = (register & mask) ^ xor
    pub fn bitwise(self, register: Register, mask: &[u8], xor: &[u8]) -> Rule {
        self.expression("bitwise", |out| {
            put_be32(out, 1, register.0);
            put_be32(out, 2, register.0);
            put_be32(out, 3, mask.len() as u32);
            put_value(out, 4, mask);
            put_value(out, 5, xor);
        })
    }

    pub fn load(self, into: Register, value: &[u8]) -> Rule {
        self.expression("immediate", |out| {
            put_be32(out, 1, into.0);
            put_value(out, 2, value);
        })
    }

    pub fn verdict(self, verdict: Verdict) -> Rule {
        self.expression("immediate", |out| {
            put_be32(out, 1, VERDICT.0);
            put_data(out, 2, &Data::Verdict(verdict));
        })
    }

    /// Goes on only if the key is in the set.
    pub fn is_in(self, set: &str, key: Register) -> Rule {
        self.lookup(set, key, None)
    }

    /// Goes on with the map's value; ends the rule when the key is not there.
    pub fn map(self, map: &str, key: Register, into: Register) -> Rule {
        self.lookup(map, key, Some(into))
    }

    /// Does what the verdict map says of the key, if it says anything.
    pub fn verdict_map(self, map: &str, key: Register) -> Rule {
        self.lookup(map, key, Some(VERDICT))
    }

    fn lookup(self, set: &str, key: Register, into: Option<Register>) -> Rule {
        self.expression("lookup", |out| {
            put_string(out, 1, set);
            put_be32(out, 2, key.0);
            if let Some(into) = into {
                put_be32(out, 3, into.0);
            }
        })
    }

    pub fn track(self, key: Track, into: Register) -> Rule {
        self.expression("ct", |out| {
            put_be32(out, 2, key as u32);
            put_be32(out, 1, into.0);
        })
    }

    /// The type of the route to an address: `FIB_LOCAL` for one of our own.
    pub fn fib_type(self, of: FibOf, into: Register) -> Rule {
        self.expression("fib", |out| {
            put_be32(out, 1, into.0);
            put_be32(out, 2, 3);
            put_be32(out, 3, of as u32);
        })
    }

    /// A random number from `offset` up, below `offset + modulus`, host order.
    pub fn random(self, modulus: u32, offset: u32, into: Register) -> Rule {
        self.expression("numgen", |out| {
            put_be32(out, 1, into.0);
            put_be32(out, 2, modulus);
            put_be32(out, 3, 1);
            put_be32(out, 4, offset);
        })
    }

    /// `family` is 2 (IPv4) or 10 (IPv6).
    pub fn dnat(self, family: u8, address: Register, port: Register) -> Rule {
        self.expression("nat", |out| {
            put_be32(out, 1, 1);
            put_be32(out, 2, family.into());
            put_be32(out, 3, address.0);
            put_be32(out, 5, port.0);
        })
    }

    /// With a fully random source port, which keeps parallel connections from colliding.
    pub fn masquerade(self) -> Rule {
        const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
        self.expression("masq", |out| put_be32(out, 1, NF_NAT_RANGE_PROTO_RANDOM_FULLY))
    }

    pub fn reject(self) -> Rule {
        self.expression("reject", |out| {
            put_be32(out, 1, 0);
            put(out, 2, &[ICMP_PORT_UNREACHABLE]);
        })
    }

    /// Adds a key to a set, or renews the time it has left. Ends the rule when the set is full.
    pub fn remember(self, set: &str, key: Register, timeout_ms: u64) -> Rule {
        const NFT_DYNSET_OP_UPDATE: u32 = 1;
        self.expression("dynset", |out| {
            put_string(out, 1, set);
            put_be32(out, 3, NFT_DYNSET_OP_UPDATE);
            put_be32(out, 4, key.0);
            put_be64(out, 6, timeout_ms);
        })
    }
}
