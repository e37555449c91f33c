//! One build taken apart: its sections, crates, functions, generics, and data with a name and without. Pure: what the
//! files hold is given.
use crate::{
    attribute::{self, Generic, Kind, Origin, Share},
    elf::{self, Elf},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How many functions, generics, pieces of data and texts are kept.
const LISTED: usize = 60;
/// Text in the read-only data shorter than this is counted and not listed.
const TEXT_BYTES: usize = 400;
/// How much of a text is shown.
const SHOWN_CHARS: usize = 70;
/// Functions smaller than this stand together in the tree.
const LEAF_BYTES: u64 = 1024;

#[derive(Debug, Default)]
pub struct Analysis {
    pub architecture: &'static str,
    pub build_id: String,
    pub file_bytes: u64,
    /// As xz -9 packs it; not known where there is no xz.
    pub xz_bytes: Option<u64>,
    pub sections: Vec<Section>,
    /// Empty for a build without symbols.
    pub crates: BTreeMap<String, Share>,
    pub kinds: BTreeMap<&'static str, u64>,
    pub functions: Vec<(String, u64)>,
    pub generics: Vec<Generic>,
    pub data: Vec<(String, u64)>,
    /// Embedded text without a symbol, by its beginning.
    pub texts: Vec<(String, u64)>,
    pub text_bytes: u64,
    pub libraries: Vec<String>,
    /// Crate, module, function, bytes.
    pub tree: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
}

#[derive(Debug)]
pub struct Section {
    pub name: String,
    /// In the file: nothing for what is only zeroed in memory.
    pub file_bytes: u64,
    pub memory_bytes: u64,
    /// What no symbol names: literals, tables of vectors, padding.
    pub unnamed_bytes: u64,
}

/// Of the file that ships, and the same before it was stripped, which gives the names.
pub fn analyse(shipped: &[u8], with_symbols: &[u8], xz_bytes: Option<u64>) -> Result<Analysis, elf::Error> {
    let stripped = elf::parse(shipped)?;
    let named = elf::parse(with_symbols)?;
    let mut found = Analysis {
        architecture: stripped.architecture(),
        build_id: stripped.build_id(shipped),
        file_bytes: shipped.len() as u64,
        xz_bytes,
        crates: attribute::by_crate(&named.symbols),
        generics: attribute::generics(&named.symbols),
        libraries: stripped.libraries.clone(),
        ..Analysis::default()
    };
    found.generics.truncate(LISTED);
    let mut in_sections: BTreeMap<&str, u64> = BTreeMap::new();
    for symbol in &named.symbols {
        if let Some(section) = named.section_of(symbol.address) {
            *in_sections.entry(&section.name).or_default() += symbol.bytes;
            // What is only zeroed in memory is not in the file.
            if section.file_bytes == 0 {
                continue;
            }
        }
        let origin = Origin::of(symbol);
        *found.kinds.entry(origin.kind.name()).or_default() += symbol.bytes;
        let list = if origin.kind == Kind::Data { &mut found.data } else { &mut found.functions };
        list.push((attribute::readable(&symbol.name), symbol.bytes));
        let modules = found.tree.entry(origin.crate_name).or_default();
        *modules.entry(origin.module).or_default().entry(origin.function).or_default() += symbol.bytes;
    }
    for section in stripped.sections {
        let bytes = in_sections.get(&*section.name).copied().unwrap_or(0);
        let unnamed_bytes = section.file_bytes.saturating_sub(bytes);
        let elf::Section { name, file_bytes, memory_bytes, .. } = section;
        found.sections.push(Section { name, file_bytes, memory_bytes, unnamed_bytes });
    }
    for list in [&mut found.functions, &mut found.data] {
        list.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        list.truncate(LISTED);
    }
    texts(&mut found, &named, with_symbols);
    fold(&mut found.tree);
    if !found.tree.is_empty() {
        unnamed(&mut found);
    }
    Ok(found)
}

/// Runs of text in the read-only data that no symbol names: what `include_str!` and literals bring.
fn texts(found: &mut Analysis, elf: &Elf, file: &[u8]) {
    let Some((start, bytes)) = elf.content(file, ".rodata") else { return };
    let mut free = vec![true; bytes.len()];
    for symbol in &elf.symbols {
        let from = symbol.address.saturating_sub(start) as usize;
        if symbol.address >= start
            && let Some(taken) = free.get_mut(from..from.saturating_add(symbol.bytes as usize).min(bytes.len()))
        {
            taken.fill(false);
        }
    }
    let readable = |at: usize| free[at] && (matches!(bytes[at], b' '..=b'~' | b'\n' | b'\t') || bytes[at] >= 0x80);
    let mut at = 0;
    while at < bytes.len() {
        let end = (at..bytes.len()).find(|at| !readable(*at)).unwrap_or(bytes.len());
        // Shorter ones may be code or numbers that look like text.
        if end - at >= 8 && std::str::from_utf8(&bytes[at..end]).is_ok() {
            found.text_bytes += (end - at) as u64;
            if end - at >= TEXT_BYTES {
                let text: String = String::from_utf8_lossy(&bytes[at..end]).chars().take(SHOWN_CHARS).collect();
                found.texts.push((text.replace(char::is_whitespace, " "), (end - at) as u64));
            }
        }
        at = end + 1;
    }
    found.texts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    found.texts.truncate(LISTED);
}

/// Small functions of a module stand together: the tree is for looking at.
fn fold(tree: &mut BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>) {
    for functions in tree.values_mut().flat_map(BTreeMap::values_mut) {
        let small: Vec<_> = functions.extract_if(.., |_, bytes| *bytes < LEAF_BYTES).collect();
        if !small.is_empty() {
            functions.insert(format!("{} smaller ones", small.len()), small.iter().map(|(_, bytes)| bytes).sum());
        }
    }
}

/// The rest of the file, so that the tree is whole.
fn unnamed(found: &mut Analysis) {
    let mut rest: BTreeMap<String, u64> = BTreeMap::new();
    for section in found.sections.iter().filter(|section| section.unnamed_bytes > 0) {
        rest.insert(section.name.clone(), section.unnamed_bytes);
    }
    if let Some(bytes) = rest.get_mut(".rodata") {
        let text = found.text_bytes.min(*bytes);
        *bytes -= text;
        rest.insert(".rodata: text".to_owned(), text);
    }
    found.tree.insert("without a name".to_owned(), BTreeMap::from([(String::new(), rest)]));
}

impl Analysis {
    /// All of it, for programs and for the page.
    pub fn json(&self) -> Value {
        let pairs = |list: &[(String, u64)]| -> Value {
            list.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect()
        };
        let sections = self.sections.iter().map(|section| {
            json!({"name": section.name, "fileBytes": section.file_bytes, "memoryBytes": section.memory_bytes, "unnamedBytes": section.unnamed_bytes})
        });
        let generics = self.generics.iter().map(|generic| {
            json!({"name": generic.name, "instances": generic.instances, "bytes": generic.bytes, "largestBytes": generic.largest_bytes, "largest": generic.largest})
        });
        json!({
            "architecture": self.architecture,
            "buildId": self.build_id,
            "fileBytes": self.file_bytes,
            "xzBytes": self.xz_bytes,
            "sections": sections.collect::<Value>(),
            "crates": self.crates_json(),
            "kinds": self.kinds,
            "functions": pairs(&self.functions),
            "generics": generics.collect::<Value>(),
            "data": pairs(&self.data),
            "texts": pairs(&self.texts),
            "textBytes": self.text_bytes,
            "libraries": self.libraries,
            "tree": self.tree,
        })
    }

    /// What is kept of a release, to compare later ones with.
    pub fn baseline(&self) -> Value {
        let sections = self.sections.iter().map(|section| (section.name.clone(), section.file_bytes.into()));
        json!({
            "fileBytes": self.file_bytes,
            "xzBytes": self.xz_bytes,
            "sections": sections.collect::<Map<_, _>>(),
            "crates": self.crates_json(),
            "functions": self.functions.iter().map(|(name, bytes)| (name.clone(), (*bytes).into())).collect::<Map<_, _>>(),
        })
    }

    fn crates_json(&self) -> Value {
        let share = |share: &Share| json!({"code": share.code_bytes, "data": share.data_bytes});
        self.crates.iter().map(|(name, bytes)| (name.clone(), share(bytes))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_taken_apart() {
        static TEXT: &str = include_str!("../SPECIFICATION.md");
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = analyse(&file, &file, None).unwrap();
        assert!(found.crates["mote_size_report"].code_bytes > 10_000, "{:?}", found.crates);
        let in_tree: u64 = found.tree.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values).sum();
        let in_sections: u64 = found.sections.iter().map(|section| section.file_bytes).sum();
        // Symbols may overlap by a few bytes, as the C library's do.
        assert!(in_tree.abs_diff(in_sections) < in_sections / 50, "{in_tree} of {in_sections}");
        assert!(
            found
                .texts
                .iter()
                .any(|(text, bytes)| text.contains("What the binary may weigh") || *bytes >= TEXT.len() as u64)
        );
        assert!(found.generics.iter().all(|generic| generic.instances > 1 && generic.largest_bytes <= generic.bytes));
        assert_eq!(found.architecture, std::env::consts::ARCH);
    }
}
