//! Reads sections, symbols and needed libraries of a 64-bit little-endian ELF file: all that is needed of elf(5), and every
//! offset checked.
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
    pub code: bool,
    address: u64,
    /// Where it stands in the file.
    at: usize,
}

#[derive(Debug, PartialEq)]
pub struct Symbol {
    pub name: String,
    pub bytes: u64,
    /// Code, or else data.
    pub code: bool,
    /// The C file it was made of, where the compiler has said so.
    pub source: Option<String>,
    pub address: u64,
}

#[derive(Debug, Default, PartialEq)]
pub struct Elf {
    pub sections: Vec<Section>,
    /// Functions and data by address, one for each; none in a stripped file.
    pub symbols: Vec<Symbol>,
    /// What has to be there for the program to start: the loader and libraries. A static program has none.
    pub libraries: Vec<String>,
    machine: u64,
}

impl Elf {
    /// As `uname -m` says it.
    pub fn architecture(&self) -> &'static str {
        match self.machine {
            62 => "x86_64",
            183 => "aarch64",
            243 => "riscv64",
            _ => "another",
        }
    }

    /// The bytes of a section, with the address of the first.
    pub fn content<'a>(&self, file: &'a [u8], name: &str) -> Option<(u64, &'a [u8])> {
        let section = self.sections.iter().find(|section| section.name == name && section.file_bytes > 0)?;
        let end = section.at.checked_add(section.file_bytes as usize)?;
        Some((section.address, file.get(section.at..end)?))
    }

    /// What the linker tells builds apart by; empty where it does not.
    pub fn build_id(&self, file: &[u8]) -> String {
        let note = self.content(file, ".note.gnu.build-id").and_then(|(_, bytes)| bytes.get(16..)).unwrap_or_default();
        note.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The section that an address is in.
    pub fn section_of(&self, address: u64) -> Option<&Section> {
        self.sections.iter().find(|section| {
            address >= section.address && address - section.address < section.memory_bytes && section.name != ".tbss"
        })
    }
}

const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNAMIC: u32 = 6;
const SHT_NOBITS: u32 = 8;
const SHF_ALLOC: u64 = 2;
const SHF_EXECINSTR: u64 = 4;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
const STT_FILE: u8 = 4;
const STT_GNU_IFUNC: u8 = 10;
const DT_NEEDED: u64 = 1;

struct Header<'a> {
    name_at: usize,
    kind: u32,
    flags: u64,
    address: u64,
    at: usize,
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
    let mut elf = Elf { machine: number(file, 0x12, 2)?, ..Elf::default() };
    for header in &headers {
        if header.flags & SHF_ALLOC != 0 {
            let file_bytes = if header.kind == SHT_NOBITS { 0 } else { header.bytes };
            let name = text(names, header.name_at)?;
            if name == ".interp" {
                elf.libraries.push(text(header.content, 0)?);
            }
            let code = header.flags & SHF_EXECINSTR != 0;
            let Header { address, at, bytes: memory_bytes, .. } = *header;
            elf.sections.push(Section { name, file_bytes, memory_bytes, code, address, at });
        }
        if header.kind == SHT_DYNAMIC {
            let names = headers.get(header.link).ok_or(Error::Truncated("a library's name"))?.content;
            for entry in header.content.chunks_exact(16).filter(|entry| number(entry, 0, 8) == Ok(DT_NEEDED)) {
                elf.libraries.push(text(names, number(entry, 8, 8)? as usize)?);
            }
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
        address: number(file, at + 16, 8)?,
        at: start,
        bytes,
        link: number(file, at + 40, 4)? as usize,
        content,
    })
}

fn symbols(table: &[u8], names: &[u8]) -> Result<Vec<Symbol>, Error> {
    let mut symbols = Vec::new();
    let mut source = None;
    for entry in table.chunks_exact(SYMBOL_BYTES) {
        let (info, bytes) = (number(entry, 4, 1)? as u8, number(entry, 16, 8)?);
        let (kind, local) = (info & 0xf, info >> 4 == 0);
        let name = || text(names, number(entry, 0, 4)? as usize);
        if kind == STT_FILE {
            // Local symbols follow the name of their file; that of the C library's first and last is none.
            source = Some(name()?).filter(|file| file.ends_with(".c") && file != "crtstuff.c");
        } else if bytes > 0 && [STT_FUNC, STT_OBJECT, STT_GNU_IFUNC].contains(&kind) {
            let source = source.clone().filter(|_| local);
            symbols.push(Symbol {
                name: name()?,
                bytes,
                code: kind != STT_OBJECT,
                source,
                address: number(entry, 8, 8)?,
            });
        }
    }
    // What has no file's name before it, as the C library's and what was hidden, follows the last that has.
    let of_library = |symbol: &Symbol| ["__libc_", "_dl_", "_IO_"].iter().any(|start| symbol.name.starts_with(start));
    let last: Vec<String> =
        symbols.iter().filter(|symbol| of_library(symbol)).filter_map(|symbol| symbol.source.clone()).collect();
    for symbol in &mut symbols {
        symbol.source.take_if(|source| last.contains(source));
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
        assert!(elf.libraries.iter().any(|name| name.starts_with("libc.so")), "{:?}", elf.libraries);
        assert_eq!(elf.architecture(), std::env::consts::ARCH);
        let (address, bytes) = elf.content(&file, ".text").unwrap();
        assert_eq!(bytes.len() as u64, text.file_bytes);
        assert_eq!(elf.section_of(address).unwrap().name, ".text");
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
