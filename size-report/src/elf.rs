//! Reads sections and symbols of a 64-bit little-endian ELF file: all that is needed of elf(5), and every offset checked.
use std::fmt;

#[derive(Debug, PartialEq)]
pub enum Error {
    NotElf,
    /// A table or name lies outside the file.
    Truncated(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NotElf => write!(f, "not a 64-bit little-endian ELF file"),
            Error::Truncated(what) => write!(f, "{what} lies outside the file"),
        }
    }
}

#[derive(Debug, PartialEq)]
pub struct Section {
    pub name: String,
    /// In the file: nothing for what is only zeroed in memory.
    pub file_bytes: u64,
    pub memory_bytes: u64,
}

#[derive(Debug, PartialEq)]
pub struct Symbol {
    pub name: String,
    pub bytes: u64,
    /// Code, or else data.
    pub code: bool,
    address: u64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Elf {
    pub sections: Vec<Section>,
    /// Functions and data, one for each address; none in a stripped file.
    pub symbols: Vec<Symbol>,
}

const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;

struct Header<'a> {
    name_at: usize,
    kind: u32,
    flags: u64,
    bytes: u64,
    link: usize,
    content: &'a [u8],
}

pub fn parse(file: &[u8]) -> Result<Elf, Error> {
    if file.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(Error::NotElf);
    }
    let table = number(file, 0x28, 8)? as usize;
    let count = number(file, 0x3c, 2)? as usize;
    let names_at = number(file, 0x3e, 2)? as usize;
    let headers: Vec<Header<'_>> =
        (0..count).map(|n| header(file, table.saturating_add(n * SECTION_HEADER_BYTES))).collect::<Result<_, _>>()?;
    let names = headers.get(names_at).map(|h| h.content).unwrap_or_default();
    let mut elf = Elf::default();
    for header in &headers {
        if header.flags & SHF_ALLOC != 0 {
            let file_bytes = if header.kind == SHT_NOBITS { 0 } else { header.bytes };
            elf.sections.push(Section { name: text(names, header.name_at)?, file_bytes, memory_bytes: header.bytes });
        }
        if header.kind == SHT_SYMTAB {
            let names = headers.get(header.link).ok_or(Error::Truncated("a symbol's name"))?.content;
            elf.symbols = symbols(header.content, names)?;
        }
    }
    Ok(elf)
}

fn header(file: &[u8], at: usize) -> Result<Header<'_>, Error> {
    let kind = number(file, at + 4, 4)? as u32;
    let (start, bytes) = (number(file, at + 24, 8)? as usize, number(file, at + 32, 8)?);
    let end = start.saturating_add(bytes as usize);
    let content = if kind == SHT_NOBITS { &[] } else { file.get(start..end).ok_or(Error::Truncated("a section"))? };
    Ok(Header {
        name_at: number(file, at, 4)? as usize,
        kind,
        flags: number(file, at + 8, 8)?,
        bytes,
        link: number(file, at + 40, 4)? as usize,
        content,
    })
}

fn symbols(table: &[u8], names: &[u8]) -> Result<Vec<Symbol>, Error> {
    let mut symbols = Vec::new();
    for entry in table.chunks_exact(SYMBOL_BYTES) {
        let (info, bytes) = (number(entry, 4, 1)? as u8, number(entry, 16, 8)?);
        let kind = info & 0xf;
        if bytes > 0 && (kind == STT_FUNC || kind == STT_OBJECT) {
            let name = text(names, number(entry, 0, 4)? as usize)?;
            symbols.push(Symbol { name, bytes, code: kind == STT_FUNC, address: number(entry, 8, 8)? });
        }
    }
    // Aliases share an address; the bytes are there once.
    symbols.sort_by_key(|symbol| symbol.address);
    symbols.dedup_by_key(|symbol| symbol.address);
    Ok(symbols)
}

fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64, Error> {
    let field = bytes.get(at..at.saturating_add(width)).ok_or(Error::Truncated("a header"))?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn text(names: &[u8], at: usize) -> Result<String, Error> {
    let rest = names.get(at..).ok_or(Error::Truncated("a name"))?;
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_an_elf_file_with_symbols() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = parse(&file).unwrap();
        let text = elf.sections.iter().find(|section| section.name == ".text").unwrap();
        let code: u64 = elf.symbols.iter().filter(|symbol| symbol.code).map(|symbol| symbol.bytes).sum();
        assert!(code > text.file_bytes / 2 && code <= text.file_bytes, "{code} of {}", text.file_bytes);
        assert!(elf.sections.iter().any(|section| section.name == ".bss" && section.file_bytes == 0));
    }

    #[test]
    fn rubbish_is_refused() {
        assert_eq!(parse(b"#!/bin/sh\n"), Err(Error::NotElf));
        assert_eq!(parse(b""), Err(Error::NotElf));
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for bytes in [6, 40, 64, file.len() / 2] {
            assert!(matches!(parse(&file[..bytes]), Err(Error::Truncated(_))), "{bytes}");
        }
    }
}
