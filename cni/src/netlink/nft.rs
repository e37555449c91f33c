//! nf_tables: transactions over one table, and reading what is in it.
//!
//! A `Batch` is one transaction: the kernel applies all of it or nothing, and packets see the rules before or the
//! rules after, never a mixture. Additions are idempotent (what is there already is no error); deletions are not.
//! Layouts: linux/netfilter/nf_tables.h.
use super::expr::{Data, Rule, put_data, put_value};
use super::message::{Attrs, Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, nest, put_be32, text, u32_at};
use super::{Error, Result, Socket};
use std::borrow::Cow;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;

/// Elements of one message share an attribute, whose length has 16 bits.
const ELEMENTS_CHUNK_BYTES: usize = 32 << 10;

/// IPv4 tables; the codec itself does not care.
pub const FAMILY_IPV4: u8 = 2;
pub const FAMILY_IPV6: u8 = 10;

/// Which packets a base chain sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// Before connection tracking.
pub const PRIORITY_RAW: i32 = -300;
pub const PRIORITY_DNAT: i32 = -100;
pub const PRIORITY_FILTER: i32 = 0;
pub const PRIORITY_SNAT: i32 = 100;

#[derive(Clone, Copy, Debug)]
pub struct BaseChain {
    pub name: &'static str,
    /// "filter" or "nat"
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

/// How one part of a key or value is shown by tools that list the table; parts are padded to four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Ipv4Address,
    Protocol,
    Port,
    Number,
}

impl Field {
    /// nft's datatype numbers.
    const fn code(self) -> u32 {
        match self {
            Field::Ipv4Address => 7,
            Field::Protocol => 12,
            Field::Port => 13,
            Field::Number => 19,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Keys,
    Verdicts,
    Values(&'static [Field]),
}

#[derive(Clone, Debug)]
pub struct Set {
    pub name: Cow<'static, str>,
    pub key: &'static [Field],
    pub holds: Holds,
    /// Written by rules, with a timeout for every element; `limit` elements at most.
    pub remembered_limit: Option<u32>,
}

impl Set {
    /// Bytes a key has.
    pub const fn key_len(&self) -> usize {
        self.key.len() * 4
    }
}

/// One entry of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<Data>,
}

/// A transaction being put together.
pub struct Batch {
    family: u8,
    table: Cow<'static, str>,
    bytes: Vec<u8>,
    labels: Vec<String>,
    sets: u32,
}

const FIRST_SEQUENCE: u32 = 1;

impl Batch {
    pub fn new(family: u8, table: &'static str) -> Batch {
        let mut batch = Batch { family, table: Cow::Borrowed(table), bytes: Vec::new(), labels: Vec::new(), sets: 0 };
        batch.frame(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// How many messages besides the frame.
    pub fn len(&self) -> usize {
        self.labels.len() - 1
    }
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn frame(&mut self, kind: u16) {
        let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
        let sequence = FIRST_SEQUENCE + self.labels.len() as u32;
        self.bytes.extend(Message::new(kind, 0, &[0, 0, high, low]).finish(NLM_F_REQUEST, sequence));
        self.labels.push("framing the transaction".to_owned());
    }

    fn message(&self, kind: u16, flags: u16) -> Message {
        message(kind, flags, self.family)
    }

    fn push(&mut self, message: Message, label: String) {
        let sequence = FIRST_SEQUENCE + self.labels.len() as u32;
        self.bytes.extend(message.finish(NLM_F_REQUEST, sequence));
        self.labels.push(label);
    }

    pub fn add_table(&mut self) {
        let message = self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE).string(1, &self.table).be32(2, 0);
        self.push(message, format!("adding table {}", self.table));
    }

    pub fn delete_table(&mut self) {
        let message = self.message(NFT_MSG_DELTABLE, 0).string(1, &self.table);
        self.push(message, format!("deleting table {}", self.table));
    }

    /// The table, empty, whatever there was before.
    pub fn replace_table(&mut self) {
        self.add_table();
        self.delete_table();
        self.add_table();
    }

    pub fn add_base_chain(&mut self, chain: &BaseChain) {
        let message = self
            .message(NFT_MSG_NEWCHAIN, NLM_F_CREATE)
            .string(1, &self.table)
            .string(3, chain.name)
            .nest(4, |hook| {
                put_be32(hook, 1, chain.hook as u32);
                put_be32(hook, 2, chain.priority as u32);
            })
            .string(7, chain.kind);
        self.push(message, format!("adding chain {}", chain.name));
    }

    pub fn add_chain(&mut self, name: &str) {
        let message = self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE).string(1, &self.table).string(3, name);
        self.push(message, format!("adding chain {name}"));
    }

    /// Removes a chain's rules.
    pub fn flush_chain(&mut self, name: &str) {
        let message = self.message(NFT_MSG_DELRULE, 0).string(1, &self.table).string(2, name);
        self.push(message, format!("emptying chain {name}"));
    }

    pub fn add_rule(&mut self, chain: &str, rule: Rule) {
        let mut message =
            self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND).string(1, &self.table).string(2, chain);
        message = message.nest(4, |out| out.extend_from_slice(&rule.bytes));
        self.push(message, format!("adding a rule to chain {chain}"));
    }

    pub fn add_set(&mut self, set: &Set) {
        const NFT_SET_MAP: u32 = 0x8;
        const NFT_SET_TIMEOUT: u32 = 0x10;
        const NFT_SET_EVAL: u32 = 0x20;
        const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
        let concatenated = |fields: &[Field]| fields.iter().fold(0, |code, field| code << 6 | field.code());
        let mut flags = if set.holds == Holds::Keys { 0 } else { NFT_SET_MAP };
        if set.remembered_limit.is_some() {
            flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
        }
        self.sets += 1;
        let mut message = self
            .message(NFT_MSG_NEWSET, NLM_F_CREATE)
            .string(1, &self.table)
            .string(2, &set.name)
            .be32(3, flags)
            .be32(4, concatenated(set.key))
            .be32(5, set.key_len() as u32)
            .be32(10, self.sets);
        message = match set.holds {
            Holds::Keys => message,
            Holds::Verdicts => message.be32(6, NFT_DATA_VERDICT).be32(7, 0),
            Holds::Values(fields) => message.be32(6, concatenated(fields)).be32(7, fields.len() as u32 * 4),
        };
        if let Some(limit) = set.remembered_limit {
            message = message.nest(9, |desc| put_be32(desc, 1, limit));
        }
        self.push(message, format!("adding set {}", set.name));
    }

    pub fn add_elements<'a>(&mut self, set: &str, elements: impl IntoIterator<Item = (&'a [u8], Option<&'a Data>)>) {
        self.elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, "adding to", &mut elements.into_iter());
    }

    pub fn delete_elements<'a>(&mut self, set: &str, keys: impl IntoIterator<Item = &'a [u8]>) {
        let mut elements = keys.into_iter().map(|key| (key, None));
        self.elements(NFT_MSG_DELSETELEM, 0, set, "removing from", &mut elements);
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        doing: &str,
        elements: &mut dyn Iterator<Item = (&'a [u8], Option<&'a Data>)>,
    ) {
        let mut list = Vec::new();
        loop {
            let next = elements.next();
            if let Some((key, data)) = next {
                nest(&mut list, 1, |element| {
                    put_value(element, 1, key);
                    if let Some(data) = data {
                        put_data(element, 2, data);
                    }
                });
            }
            if !list.is_empty() && (next.is_none() || list.len() > ELEMENTS_CHUNK_BYTES) {
                let full = std::mem::take(&mut list);
                let message = self.message(kind, flags).string(1, &self.table).string(2, set);
                self.push(message.nest(3, |out| out.extend_from_slice(&full)), format!("{doing} set {set}"));
            }
            if next.is_none() {
                return;
            }
        }
    }

    /// Applies the transaction. Nothing has changed when this fails.
    pub fn commit(mut self, socket: &mut Socket, doing: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.frame(NFNL_MSG_BATCH_END);
        let labels = &self.labels;
        let describe = |index: u32| labels.get(index as usize).cloned().unwrap_or_default();
        socket.transact(&self.bytes, FIRST_SEQUENCE, &describe, doing)
    }
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, &[family, 0, 0, 0])
}

impl Socket {
    pub fn has_table(&mut self, family: u8, table: &str) -> Result<bool> {
        let asked = message(NFT_MSG_GETTABLE, 0, family).string(1, table);
        match self.get(asked, &format!("looking for table {table}"), &mut |_, _| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names of a table's chains.
    pub fn chains(&mut self, family: u8, table: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        self.dump(message(NFT_MSG_GETCHAIN, 0, family), &format!("listing chains of {table}"), &mut |_, payload| {
            let attrs = Attrs::new(payload.get(4..).unwrap_or(&[]));
            if attrs.value(1).map(text) == Some(table) {
                names.extend(attrs.value(3).map(|name| text(name).to_owned()));
            }
        })?;
        Ok(names)
    }

    /// What a set or map holds. Verdicts are told apart from values, their chain included.
    pub fn elements(&mut self, family: u8, table: &str, set: &str) -> Result<Vec<Element>> {
        let asked = message(NFT_MSG_GETSETELEM, 0, family).string(1, table).string(2, set);
        let mut elements = Vec::new();
        self.dump(asked, &format!("listing set {set}"), &mut |_, payload| {
            for (_, element) in Attrs::new(payload.get(4..).unwrap_or(&[])).nested(3) {
                let element = Attrs::new(element);
                if let Some(key) = element.nested(1).value(1) {
                    elements.push(Element { key: key.to_vec(), data: parse_data(element.nested(2)) });
                }
            }
        })?;
        Ok(elements)
    }

    /// Removes a table with all that is in it; whether there was one.
    pub fn remove_table(&mut self, family: u8, table: &'static str) -> Result<bool> {
        let mut batch = Batch::new(family, table);
        batch.delete_table();
        match batch.commit(self, &format!("removing table {table}")) {
            Ok(()) => Ok(true),
            Err(Error::Kernel { errno: rustix::io::Errno::NOENT, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn parse_data(data: Attrs<'_>) -> Option<Data> {
    use super::expr::Verdict;
    if let Some(value) = data.value(1) {
        return Some(Data::Value(value.to_vec()));
    }
    let verdict = data.nested(2);
    let code = verdict.value(1).and_then(|v| u32_at(v, 0)).map(|v| u32::from_be(v) as i32)?;
    let chain = || verdict.value(2).map(text).unwrap_or("").to_owned();
    Some(Data::Verdict(match code {
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        -3 => Verdict::Jump(chain()),
        -4 => Verdict::Goto(chain()),
        _ => Verdict::Return,
    }))
}
