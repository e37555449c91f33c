//! Connection tracking: listing flows, and making the kernel forget some.
//!
//! Layout: linux/netfilter/nfnetlink_conntrack.h.
use super::address::from_octets;
use super::message::{Attrs, Message};
use super::{Result, Socket};
use std::net::IpAddr;

const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const NLA_F_NESTED: u16 = 0x8000;

/// A flow: where it was sent, and who answers. They differ when its destination was translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    pub protocol: u8,
    pub destination: IpAddr,
    pub destination_port: u16,
    pub answers: IpAddr,
    pub answers_port: u16,
    original: Vec<u8>,
    id: Vec<u8>,
}

fn message(kind: u16, family: u8) -> Message {
    Message::new(NFNL_SUBSYS_CTNETLINK << 8 | kind, 0, &[family, 0, 0, 0])
}

/// (source, destination, protocol, source port, destination port)
fn parse_tuple(tuple: Attrs<'_>) -> Option<(IpAddr, IpAddr, u8, u16, u16)> {
    let (ip, proto) = (tuple.nested(1), tuple.nested(2));
    let address = |v4, v6| ip.value(v4).or(ip.value(v6)).and_then(from_octets);
    let port = |kind| proto.value(kind).and_then(|v| v.first_chunk::<2>()).map_or(0, |b| u16::from_be_bytes(*b));
    Some((address(1, 3)?, address(2, 4)?, *proto.value(1)?.first()?, port(2), port(3)))
}

pub(super) fn parse(payload: &[u8]) -> Option<Flow> {
    let attrs = Attrs::new(payload.get(4..)?);
    let (_, destination, protocol, _, destination_port) = parse_tuple(attrs.nested(CTA_TUPLE_ORIG))?;
    let (answers, _, _, answers_port, _) = parse_tuple(attrs.nested(CTA_TUPLE_REPLY))?;
    let original = attrs.value(CTA_TUPLE_ORIG)?.to_vec();
    let id = attrs.value(CTA_ID).unwrap_or(&[]).to_vec();
    Some(Flow { protocol, destination, destination_port, answers, answers_port, original, id })
}

impl Socket {
    /// Flows of an address family that `keep` wants, `limit` of them at most.
    pub fn flows(&mut self, family: u8, limit: usize, keep: &dyn Fn(&Flow) -> bool) -> Result<Vec<Flow>> {
        let mut flows = Vec::new();
        self.dump(message(IPCTNL_MSG_CT_GET, family), "listing tracked connections", &mut |_, payload| {
            if flows.len() < limit {
                flows.extend(parse(payload).filter(keep));
            }
        })?;
        Ok(flows)
    }

    /// Forgets a flow; one that has ended meanwhile is no error.
    pub fn forget(&mut self, family: u8, flow: &Flow) -> Result<()> {
        let mut asked = message(IPCTNL_MSG_CT_DELETE, family).attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &flow.original);
        if !flow.id.is_empty() {
            asked = asked.attr(CTA_ID, &flow.id);
        }
        match self.request(asked, &format!("forgetting a flow to {}:{}", flow.destination, flow.destination_port)) {
            Err(error) if error.is_absent() => Ok(()),
            result => result,
        }
    }
}
