//! Reading answers in tests: as text, by a reader of its own that shares nothing with the writer but constants.
use super::wire::kind;

fn name(bytes: &[u8], at: &mut usize) -> String {
    let (mut text, mut here, mut jumped) = (String::new(), *at, false);
    loop {
        let len = usize::from(bytes[here]);
        if len >= 0xc0 {
            let target = (len & 0x3f) << 8 | usize::from(bytes[here + 1]);
            if !jumped {
                *at = here + 2;
            }
            (here, jumped) = (target, true);
            continue;
        }
        here += 1;
        if len == 0 {
            if !jumped {
                *at = here;
            }
            return text;
        }
        text.push_str(std::str::from_utf8(&bytes[here..here + len]).unwrap());
        text.push('.');
        here += len;
    }
}

/// The answer section's data, one text a record.
pub fn texts(bytes: &[u8]) -> Vec<String> {
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut at = 12;
    name(bytes, &mut at);
    at += 4;
    let mut records = Vec::new();
    for _ in 0..word(6) {
        name(bytes, &mut at);
        let (kind, len) = (word(at), usize::from(word(at + 8)));
        let start = at + 10;
        at = start + len;
        let data = &bytes[start..at];
        let mut inner = start;
        records.push(match kind {
            kind::A => data.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
            kind::AAAA => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(data).unwrap()).to_string(),
            kind::CNAME | kind::PTR | kind::NS => name(bytes, &mut inner),
            kind::TXT => String::from_utf8(data[1..].to_vec()).unwrap(),
            kind::SRV => {
                inner += 6;
                format!("{} {} {} {}", word(start), word(start + 2), word(start + 4), name(bytes, &mut inner))
            }
            kind::SOA => {
                let server = name(bytes, &mut inner);
                format!("soa {server} {}", u32::from_be_bytes(data[len - 4..].try_into().unwrap()))
            }
            other => format!("type {other}"),
        });
    }
    records
}
