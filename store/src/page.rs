//! Reads a database of format 1, the redb file that stores kept until format 2, without redb: redb trusts what it reads
//! and may panic on a damaged file. Nothing here writes, panics, recurses without bound or believes a number.
//!
//! redb's page checksums are not looked at. What stands in for them: every record has a checksum of its own (`record`),
//! keys must ascend and stay between the keys of the page above, and the table says how many there are. After a crash
//! the newest commit may be there in part only: then both commits in the file are read, and the newer version of a key
//! wins. Layout: redb's `docs/design.md`, file format 3.
use crate::record;
use std::{
    collections::{BTreeMap, HashSet},
    io,
};

const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const HEADER_BYTES: usize = 320;
const SLOT_BYTES: usize = 128;
const PAGE_BYTES: u64 = 4096;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// Branches of a page hold at least two: no real tree is nearly this deep.
const MAX_DEPTH: usize = 32;
/// Of one page; the largest value the store takes is a small part of it.
const MAX_PAGE_BYTES: u64 = 64 << 20;

/// What was found in the file.
#[derive(Debug, Default)]
pub(crate) struct Old {
    pub format: Option<u64>,
    pub reserved: Option<u64>,
    /// The newest batch of the journal all of which is here.
    pub journal: Option<u64>,
    /// Each with its record (`record`), which is intact; in key order.
    pub entries: Vec<(String, Vec<u8>)>,
    /// What is missing: keys, or in words the place where keys were.
    pub damaged: Vec<String>,
    /// Keys whose newest version could not be read; an older one is in `entries`, and they may have been deleted since.
    pub older: Vec<String>,
}

/// `read` fills the whole buffer or fails. An error comes back only when the file's first page cannot be read.
pub(crate) fn read(read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>, len: u64) -> io::Result<Old> {
    let file = File { read, len };
    let mut header = [0; HEADER_BYTES];
    read(0, &mut header)?;
    let clean = header[9] & 2 == 0;
    let primary = usize::from(header[9] & 1);
    let trees = Geometry::of(&header).map(|geometry| {
        [primary, 1 - primary].map(|slot| Tree::read(&file, geometry, &header[64 + slot * SLOT_BYTES..]))
    });
    let Some([mut newest, mut previous]) = trees else {
        return Ok(file.salvage(Tree { lost: vec![Range::default()], ..Tree::default() }));
    };
    // The primary's transaction is the later one, unless the power went while the two changed places, or the bit rotted.
    let transaction = |slot: usize| number(&header[64 + slot * SLOT_BYTES..], 104);
    let turned = transaction(primary) < transaction(1 - primary);
    if turned && newest.newest() < previous.newest() {
        std::mem::swap(&mut newest, &mut previous);
    }
    if clean {
        newest.bad.extend(turned.then(|| "the header".to_owned()));
        if newest.bad.is_empty() && newest.lost.is_empty() && !newest.is_whole() {
            newest.bad.push("the number of entries".to_owned());
        }
    } else {
        if !newest.is_whole() && previous.is_whole() {
            // The power went during the last commit, which nobody was told of.
            newest = previous;
        } else if newest.is_whole() && previous.is_whole() {
            // A page of the last commit may still hold what was there before: whole, and out of date.
            for (key, entry) in &mut newest.entries {
                match previous.entries.get(key) {
                    Some(old) if modified(old) > modified(entry) => entry.clone_from(old),
                    _ => {}
                }
            }
        }
    }
    Ok(file.salvage(newest))
}

fn modified(record: &[u8]) -> u64 {
    number(record, 8).unwrap_or_default()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

/// Where pages are.
#[derive(Clone, Copy)]
struct Geometry {
    region_header: u64,
    region: u64,
}

impl Geometry {
    fn of(header: &[u8]) -> Option<Geometry> {
        let pages = |at| short(header, at).map(|pages| pages as u64 * PAGE_BYTES);
        let (region_header, data) = (pages(16)?, pages(20)?);
        let sane = header.starts_with(MAGIC) && short(header, 12) == Some(PAGE_BYTES as usize) && data > 0;
        sane.then_some(Geometry { region_header, region: region_header + data })
    }

    /// Offset and length of a page by its number: index, region and the power of two of its size.
    fn page(self, number: u64) -> Option<(u64, u64)> {
        let order = number >> 59;
        let bytes = PAGE_BYTES.checked_shl(order as u32).filter(|bytes| *bytes <= MAX_PAGE_BYTES)?;
        let (index, region) = (number & (0xf_ffff >> order), number >> 20 & 0xf_ffff);
        Some((PAGE_BYTES + region.checked_mul(self.region)? + self.region_header + index * bytes, bytes))
    }
}

/// Keys above `after` and up to `last`; none: without bound.
#[derive(Clone, Debug, Default)]
struct Range {
    after: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
}

impl Range {
    fn holds(&self, key: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| key > after) && self.last.as_deref().is_none_or(|last| key <= last)
    }
}

/// One commit.
#[derive(Default)]
struct Tree {
    format: Option<u64>,
    reserved: Option<u64>,
    journal: Option<u64>,
    entries: BTreeMap<String, Vec<u8>>,
    /// How many entries its table should have.
    length: Option<u64>,
    lost: Vec<Range>,
    /// Keys with a record that is not what was written.
    bad: Vec<String>,
}

impl Tree {
    fn read(file: &File<'_>, geometry: Geometry, slot: &[u8]) -> Tree {
        let mut tree = Tree::default();
        let mut tables = BTreeMap::new();
        let mut walk = Walk { file, geometry, seen: HashSet::new(), lost: Vec::new() };
        if slot.get(1).is_some_and(|there| *there != 0) {
            walk.tree(number(slot, 8), None, &mut |key, definition| {
                // Type, length, whether there is a root, the root.
                let root = definition.get(9).filter(|there| **there != 0).and_then(|_| number(definition, 10));
                tables.insert(key.to_vec(), (number(definition, 1), root));
            });
        }
        if let Some((_, Some(root))) = tables.get(b"meta".as_slice()) {
            walk.tree(Some(*root), Some(8), &mut |key, value| match key {
                b"format" => tree.format = number(value, 0),
                b"reserved" => tree.reserved = number(value, 0),
                b"journal" => tree.journal = number(value, 0),
                _ => {}
            });
        }
        walk.lost.clear();
        match tables.get(b"entries".as_slice()) {
            Some((length, root)) => {
                tree.length = *length;
                if root.is_some() {
                    walk.tree(*root, None, &mut |key, bytes| {
                        let key = String::from_utf8_lossy(key).into_owned();
                        match record::decode(&key, bytes) {
                            Some(_) => drop(tree.entries.insert(key, bytes.to_vec())),
                            None => tree.bad.push(key),
                        }
                    });
                }
                tree.lost = walk.lost;
            }
            None => tree.lost.push(Range::default()),
        }
        tree
    }

    fn newest(&self) -> u64 {
        self.entries.values().map(|record| modified(record)).max().unwrap_or_default()
    }

    fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.bad.is_empty() && self.length == Some(self.entries.len() as u64)
    }
}

struct Walk<'a> {
    file: &'a File<'a>,
    geometry: Geometry,
    seen: HashSet<u64>,
    lost: Vec<Range>,
}

impl Walk<'_> {
    /// In key order, as far as it can be read; what cannot is in `lost`.
    fn tree(&mut self, root: Option<u64>, fixed_value: Option<usize>, visit: &mut dyn FnMut(&[u8], &[u8])) {
        match root {
            Some(root) => self.page(root, Range::default(), fixed_value, MAX_DEPTH, visit),
            None => self.lost.push(Range::default()),
        }
    }

    fn page(
        &mut self,
        page: u64,
        range: Range,
        fixed_value: Option<usize>,
        depth: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) {
        let place = self.geometry.page(page).filter(|(offset, _)| depth > 0 && self.seen.insert(*offset));
        let Some(bytes) = place.and_then(|(offset, len)| self.file.get(offset, len)) else {
            return self.lost.push(range);
        };
        match bytes.first() {
            Some(&LEAF) => {
                let pairs = pairs(&bytes, fixed_value);
                let ascend = pairs.windows(2).all(|pair| pair[0].0 < pair[1].0);
                // A page that belongs elsewhere.
                if pairs.is_empty() || !ascend || !pairs.iter().all(|(key, _)| range.holds(key)) {
                    return self.lost.push(range);
                }
                if pairs.len() < count(&bytes) {
                    self.lost.push(range);
                }
                pairs.into_iter().for_each(|(key, value)| visit(key, value));
            }
            Some(&BRANCH) => match children(&bytes, range.clone()) {
                Some(children) => {
                    for (child, range) in children {
                        self.page(child, range, fixed_value, depth - 1, visit);
                    }
                }
                None => self.lost.push(range),
            },
            _ => self.lost.push(range),
        }
    }
}

/// How many pairs a leaf says that it has.
fn count(page: &[u8]) -> usize {
    page.get(2..4).map_or(0, |count| usize::from(u16::from_le_bytes([count[0], count[1]])))
}

/// The pairs of a leaf; of one that is damaged those that can be told. Two bytes count them; then where each key ends,
/// where each value ends (unless their size is fixed), keys, values.
fn pairs(page: &[u8], fixed_value: Option<usize>) -> Vec<(&[u8], &[u8])> {
    let count = count(page);
    let ends = if fixed_value.is_some() { 4 } else { 8 };
    let key_end = |n: usize| short(page, 4 + 4 * n);
    let keys_end = count.checked_sub(1).and_then(key_end);
    let value_end = |n: usize| match fixed_value {
        Some(bytes) => Some(keys_end? + bytes * (n + 1)),
        None => short(page, 4 + 4 * count + 4 * n),
    };
    let pair = |n: usize| {
        let key = if n == 0 { 4 + ends * count } else { key_end(n - 1)? };
        let value = if n == 0 { keys_end? } else { value_end(n - 1)? };
        Some((page.get(key..key_end(n)?)?, page.get(value..value_end(n)?)?))
    };
    (0..count).filter_map(pair).collect()
}

/// The keys of a page that looks like a leaf, whatever became of it.
pub(crate) fn keys(page: &[u8]) -> Vec<String> {
    match page.first() {
        Some(&LEAF) => {
            pairs(page, None).into_iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// Each child with the keys it may hold. Checksums (16 bytes each), page numbers, where keys end, keys.
fn children(page: &[u8], range: Range) -> Option<Vec<(u64, Range)>> {
    let keys = usize::from(u16::from_le_bytes(page.get(2..4)?.try_into().ok()?));
    let numbers = 8 + 16 * (keys + 1);
    let ends = numbers + 8 * (keys + 1);
    let mut children = Vec::with_capacity(keys + 1);
    let (mut from, mut after) = (ends + 4 * keys, range.after);
    for n in 0..keys {
        let end = short(page, ends + 4 * n)?;
        let key = page.get(from..end)?.to_vec();
        let range = Range { after: after.replace(key.clone()), last: Some(key) };
        children.push((number(page, numbers + 8 * n)?, range));
        from = end;
    }
    children.push((number(page, numbers + 8 * keys)?, Range { after, last: range.last }));
    Some(children)
}

struct File<'a> {
    read: &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>,
    len: u64,
}

impl File<'_> {
    fn get(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        (self.read)(offset, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Looks for what a tree misses in all pages of the file, also those that are no longer part of one.
    fn salvage(&self, tree: Tree) -> Old {
        let Tree { format, reserved, journal, mut entries, lost, mut bad, .. } = tree;
        let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        if !lost.is_empty() || !bad.is_empty() {
            for page in 1..self.len / PAGE_BYTES {
                self.collect(page * PAGE_BYTES, &mut |key, record| {
                    let wanted = bad.iter().any(|bad| bad == key) || lost.iter().any(|lost| lost.holds(key.as_bytes()));
                    let newer = found.get(key).is_none_or(|known| modified(known) < modified(record));
                    if wanted && newer && !entries.contains_key(key) && record::decode(key, record).is_some() {
                        found.insert(key.to_owned(), record.to_vec());
                    }
                });
            }
        }
        bad.retain(|key| !found.contains_key(key));
        let text = |bound: &Option<Vec<u8>>, open: &str| {
            bound.as_ref().map_or_else(|| open.to_owned(), |key| format!("{:?}", String::from_utf8_lossy(key)))
        };
        let places = lost.iter().map(|lost| {
            format!("keys between {} and {}", text(&lost.after, "the first"), text(&lost.last, "the last"))
        });
        let damaged = bad.into_iter().chain(places).collect();
        let older = found.keys().cloned().collect();
        entries.extend(found);
        Old { format, reserved, journal, entries: entries.into_iter().collect(), damaged, older }
    }

    /// The records of a page that looks like a leaf.
    fn collect(&self, offset: u64, visit: &mut dyn FnMut(&str, &[u8])) {
        let Some(mut page) = self.get(offset, PAGE_BYTES) else { return };
        if page[0] != LEAF {
            return;
        }
        let count = usize::from(u16::from_le_bytes([page[2], page[3]]));
        // Where the last value ends says how long the page is.
        let end = count.checked_sub(1).and_then(|last| short(&page, 4 + 4 * count + 4 * last)).unwrap_or(0) as u64;
        if end > PAGE_BYTES && end <= MAX_PAGE_BYTES {
            match self.get(offset, end) {
                Some(whole) => page = whole,
                None => return,
            }
        }
        for (key, record) in pairs(&page, None) {
            if let Ok(key) = str::from_utf8(key) {
                visit(key, record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, root::Held};
    use redb::{Builder, Database, StorageBackend, TableDefinition};
    use std::{
        io::Read as _,
        sync::{Arc, Mutex},
    };

    const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
    const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

    #[derive(Clone, Debug, Default)]
    struct Image(Arc<Mutex<Vec<u8>>>);

    impl StorageBackend for Image {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            out.copy_from_slice(&self.0.lock().unwrap()[offset as usize..offset as usize + out.len()]);
            Ok(())
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(len as usize, 0);
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.lock().unwrap()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
            Ok(())
        }
    }

    fn random(seed: &mut u64, below: u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed % below
    }

    type Entries = BTreeMap<String, Vec<u8>>;

    fn commit(database: &Database, model: &mut Entries, revision: u64, seed: &mut u64) {
        let transaction = database.begin_write().unwrap();
        {
            let mut entries = transaction.open_table(ENTRIES).unwrap();
            for _ in 0..4 {
                let key = format!("/registry/pods/default/{}", random(seed, 300));
                if random(seed, 4) == 0 {
                    entries.remove(key.as_bytes()).unwrap();
                    model.remove(&key);
                } else {
                    let large = if random(seed, 40) == 0 { 9_000 } else { 700 };
                    let value = Value::from(vec![revision as u8; random(seed, large) as usize]);
                    let record = record::encode(&key, &Held { value, created: 2, modified: revision });
                    entries.insert(key.as_bytes(), record.as_slice()).unwrap();
                    model.insert(key, record);
                }
            }
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert("format", 1).unwrap();
            meta.insert("reserved", 10_000).unwrap();
        }
        transaction.commit().unwrap();
    }

    /// A file with 200 commits, and what it holds.
    fn image(close: bool) -> (Vec<u8>, Entries) {
        let (image, mut model, mut seed) = (Image::default(), Entries::new(), 7);
        let database = Builder::new().set_cache_size(65_536).create_with_backend(image.clone()).unwrap();
        for revision in 3..203 {
            commit(&database, &mut model, revision, &mut seed);
        }
        let bytes = image.0.lock().unwrap().clone();
        if !close {
            return (bytes, model);
        }
        database.close().unwrap();
        let bytes = image.0.lock().unwrap().clone();
        (bytes, model)
    }

    fn read_bytes(bytes: &[u8]) -> Old {
        let at = |offset: u64, out: &mut [u8]| {
            let from = usize::try_from(offset).map_err(io::Error::other)?;
            let found = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(found);
            Ok(())
        };
        read(&at, bytes.len() as u64).unwrap()
    }

    #[test]
    fn a_file_of_redbs_is_read_closed_or_not() {
        for close in [true, false] {
            let (bytes, model) = image(close);
            let old = read_bytes(&bytes);
            assert_eq!((old.format, old.reserved), (Some(1), Some(10_000)));
            assert_eq!((old.damaged, old.older), (Vec::<String>::new(), Vec::new()), "closed: {close}");
            assert_eq!(old.entries, model.into_iter().collect::<Vec<_>>(), "closed: {close}");
        }
    }

    #[test]
    fn damage_is_never_silent() {
        let (bytes, model) = image(true);
        let used: Vec<usize> = (0..bytes.len() / 512)
            .filter(|sector| bytes[sector * 512..][..512].iter().any(|byte| *byte != 0))
            .collect();
        let (mut seed, mut named, mut nearly_all) = (11, 0, 0);
        for _ in 0..400 {
            let mut damaged = bytes.clone();
            let sector = &mut damaged[used[random(&mut seed, used.len() as u64) as usize] * 512..][..512];
            match random(&mut seed, 3) {
                0 => sector[random(&mut seed, 512) as usize] ^= 1 << random(&mut seed, 8),
                1 => sector.fill(0),
                _ => sector.iter_mut().for_each(|byte| *byte = random(&mut seed, 256) as u8),
            }
            let old = read_bytes(&damaged);
            let found: Entries = old.entries.into_iter().collect();
            for (key, record) in &found {
                assert!(record::decode(key, record).is_some(), "{key}");
            }
            if found != model {
                assert!(!old.damaged.is_empty() || !old.older.is_empty());
                named += 1;
            }
            nearly_all +=
                usize::from(found.keys().filter(|key| model.contains_key(*key)).count() * 10 > model.len() * 8);
        }
        assert!(named > 100 && nearly_all > 360, "{named} {nearly_all}");
    }

    /// Files that a node of format 1 left, one stopped and one cut off: these bytes stay readable.
    #[test]
    fn what_format_1_wrote_is_read() {
        let closed: &[u8] = include_bytes!("../tests/fixtures/format-1-closed.redb.gz");
        let crashed: &[u8] = include_bytes!("../tests/fixtures/format-1-crashed.redb.gz");
        for file in [closed, crashed] {
            let mut bytes = Vec::new();
            flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            let old = read_bytes(&bytes);
            assert_eq!((old.format, old.damaged, old.older), (Some(1), Vec::<String>::new(), Vec::new()));
            let mut keys: Vec<String> = [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11].map(|i| format!("c{i}")).into();
            keys.push("large".to_owned());
            let mut keys: Vec<String> = keys.iter().map(|key| format!("/registry/configmaps/default/{key}")).collect();
            keys.push("/registry/secrets/default/empty".to_owned());
            keys.sort();
            assert_eq!(old.entries.iter().map(|(key, _)| key).collect::<Vec<_>>(), keys.iter().collect::<Vec<_>>());
            let held = |key: &str| {
                let (_, record) = old.entries.iter().find(|(known, _)| known.ends_with(key)).unwrap();
                record::decode(&format!("/registry/{key}"), record).unwrap()
            };
            let lazy = held("configmaps/default/c3");
            assert_eq!((lazy.created, lazy.modified > lazy.created), (5, true));
            assert!(lazy.value.windows(5).any(|text| text == b"three"));
            assert!(
                held("configmaps/default/large").value.len() > 20_000 && held("secrets/default/empty").value.is_empty()
            );
        }
    }

    #[test]
    fn a_file_that_is_nothing_gives_nothing() {
        for bytes in [vec![0; 40_000], b"this is no database ".repeat(1000)] {
            let old = read_bytes(&bytes);
            assert!(old.entries.is_empty() && !old.damaged.is_empty());
        }
    }
}
