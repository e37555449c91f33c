//! What rots: the database of a real directory with any sector changed, cut short, emptied or gone bad while the store
//! is open. It always opens, never panics, serves what can be read, and names the rest.
use crate::support::{Random, commit, options, put};
use mote_store::{Class::Durable, Options, Store};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Of each file.
const FLIPS: usize = 150;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("mote-damage-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }
    fn open(&self) -> Store {
        Store::open(Options { dir: Some(self.0.clone()), ..options() }).unwrap()
    }
    fn database(&self) -> PathBuf {
        self.0.join("store.redb")
    }
    fn aside(&self) -> usize {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("store.redb.damaged")).count()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Model = BTreeMap<String, String>;

fn all(store: &Store) -> Model {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    store.snapshot().range("", None).map(|entry| (entry.key.to_string(), text(&entry.value))).collect()
}

/// A closed store of some hundred entries, many of them written more than once.
fn filled(scratch: &Scratch) -> (Model, Vec<u8>) {
    let mut random = Random::new(3);
    for start in 0..4 {
        let store = scratch.open();
        for i in 0..80 {
            let value = format!("{start}-{i}-").repeat(random.below(80) as usize);
            commit(&store, put(Durable, &format!("/registry/things/{:03}", random.below(200)), &value)).unwrap();
        }
        store.close().unwrap();
    }
    let store = scratch.open();
    let model = all(&store);
    assert!(store.damaged().is_empty());
    (model, fs::read(scratch.database()).unwrap())
}

/// Cuts, holes and flips; where nothing is, nothing can rot.
fn damage(image: &[u8], random: &mut Random) -> Vec<u8> {
    let used: Vec<usize> =
        (0..image.len() / 512).filter(|sector| image[sector * 512..][..512].iter().any(|byte| *byte != 0)).collect();
    let mut image = image.to_vec();
    for _ in 0..=random.below(3) {
        // The header is one sector of hundreds, and the one that matters most.
        let place = if random.below(5) == 0 { 0 } else { used[random.below(used.len() as u64) as usize] * 512 };
        if place >= image.len() {
            continue;
        }
        match random.below(6) {
            0 => image.truncate(place),
            1 => image[place..][..512].fill(0),
            2 => image[place..][..512].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            _ => image[place + random.below(400) as usize] ^= 1 << random.below(8),
        }
    }
    image
}

#[test]
fn whatever_rots_the_store_opens_and_tells() {
    let scratch = Scratch::new("any");
    let (model, image) = filled(&scratch);
    let journal = fs::read(scratch.0.join("store.log")).unwrap();
    let (mut random, mut served) = (Random::new(17), 0);
    for case in 0..60 {
        fs::write(scratch.database(), damage(&image, &mut random)).unwrap();
        // What the journal still has would hide the damage.
        fs::write(scratch.0.join("store.log"), &journal).unwrap();
        let store = scratch.open();
        let found = all(&store);
        for (key, value) in &model {
            assert!(found.get(key) == Some(value) || !store.damaged().is_empty(), "case {case}: {key} went silently");
        }
        served +=
            usize::from(found.iter().filter(|(key, value)| model.get(*key) == Some(value)).count() * 2 > model.len());
        // It is written to, and what was found is there the next time, without damage.
        commit(&store, put(Durable, "new", "value")).unwrap();
        let damaged = !store.damaged().is_empty();
        store.close().unwrap();
        drop(store);
        let store = scratch.open();
        assert!(store.damaged().is_empty(), "case {case}: {:?}", store.damaged());
        assert_eq!(all(&store).len(), found.len() + 1, "case {case}");
        assert!(!damaged || scratch.aside() > 0, "case {case}: the damaged file is gone");
        drop(store);
    }
    assert!(served > 40, "{served}");
}

#[test]
fn an_empty_file_is_damage_and_not_a_new_store() {
    let scratch = Scratch::new("empty");
    filled(&scratch);
    fs::write(scratch.database(), "").unwrap();
    let store = scratch.open();
    assert!(!store.damaged().is_empty());
}

#[test]
fn what_rots_while_the_store_is_open_is_found_and_healed_from_memory() {
    let scratch = Scratch::new("scrub");
    let (model, _) = filled(&scratch);
    let store = scratch.open();
    assert!(store.scrub(u64::MAX).unwrap().is_empty());
    let mut image = fs::read(scratch.database()).unwrap();
    let place = image.windows(6).rposition(|text| text == b"3-79-3").unwrap_or(image.len() / 2);
    image[place] ^= 1;
    fs::write(scratch.database(), &image).unwrap();
    let named = store.scrub(u64::MAX).unwrap();
    assert!(!named.is_empty());
    // The writer has been told; what it writes anew holds all, and the rotten file is kept.
    commit(&store, put(Durable, "/registry/things/new", "x")).unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(scratch.aside(), 1);
    let store = scratch.open();
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    let mut expected = model;
    expected.insert("/registry/things/new".to_owned(), "x".to_owned());
    assert_eq!(all(&store), expected);
    assert!(store.scrub(u64::MAX).unwrap().is_empty());
}

/// A store that was killed: some of it is in the database, the rest in the journal alone.
fn killed(scratch: &Scratch) -> Model {
    filled(scratch);
    let store = scratch.open();
    for i in 0..60 {
        commit(&store, put(Durable, &format!("/registry/late/{:02}", i % 40), &format!("late-{i}-").repeat(i % 50)))
            .unwrap();
    }
    let model = all(&store);
    drop(store);
    model
}

/// Every byte that means something, one at a time, or as many of them as a test has time for.
#[test]
fn whatever_byte_rots_it_is_mended_or_told() {
    let scratch = Scratch::new("bytes");
    let model = killed(&scratch);
    let files = ["store.redb", "store.log"].map(|name| (name, fs::read(scratch.0.join(name)).unwrap()));
    let mut random = Random::new(29);
    let (mut mended, mut told) = (0, 0);
    for (which, (name, image)) in files.iter().enumerate() {
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0 || at % 4096 < 64).collect();
        for _ in 0..FLIPS {
            for (name, image) in &files {
                fs::write(scratch.0.join(name), image).unwrap();
            }
            let place = used[random.below(used.len() as u64) as usize];
            let mut damaged = image.clone();
            damaged[place] ^= 1 << random.below(8);
            fs::write(scratch.0.join(name), &damaged).unwrap();
            let store = scratch.open();
            let found = all(&store);
            if found == model {
                mended += 1;
            }
            told += usize::from(!store.damaged().is_empty());
            for (key, value) in &model {
                let right = found.get(key) == Some(value);
                assert!(right || !store.damaged().is_empty(), "{name}, byte {place}: {key} went silently");
                assert!(right || which == 0, "{name}, byte {place}: {key} is lost, though one bit can be turned back");
            }
            store.close().unwrap();
            drop(store);
            let store = scratch.open();
            assert!(store.damaged().is_empty(), "{name}, byte {place}: {:?}", store.damaged());
            assert_eq!(all(&store), found, "{name}, byte {place}");
        }
    }
    assert!(mended > FLIPS && told > FLIPS / 4, "{mended} were mended, {told} told of");
}

#[test]
fn more_than_a_bit_of_the_journal_is_told_unless_it_was_written_last() {
    let scratch = Scratch::new("journal");
    let model = killed(&scratch);
    let path = scratch.0.join("store.log");
    let image = fs::read(&path).unwrap();
    let last = image.windows(8).rposition(|text| text == b"late-59-").expect("the last one");
    let frames: Vec<usize> =
        (0..image.len() / 4096).map(|block| block * 4096).filter(|at| image[*at..].starts_with(b"MOTE")).collect();
    let database = fs::read(scratch.database()).unwrap();
    let (mut random, mut told) = (Random::new(31), 0);
    for frame in frames {
        let mut damaged = image.clone();
        for at in &mut damaged[frame + 64 + random.below(30) as usize..][..30] {
            *at ^= random.below(255) as u8 + 1;
        }
        fs::write(&path, &damaged).unwrap();
        fs::write(scratch.database(), &database).unwrap();
        let store = scratch.open();
        let found = all(&store);
        let lost = model.iter().filter(|(key, value)| found.get(*key) != Some(*value)).count();
        told += usize::from(!store.damaged().is_empty());
        let is_last = (frame..frame + 16 * 4096).contains(&last) && frame + 4096 > last;
        assert!(lost == 0 || !store.damaged().is_empty() || is_last, "block {}: {lost} went silently", frame / 4096);
    }
    assert!(told > 10, "{told}");
}

#[test]
fn what_rots_in_the_journal_while_the_store_is_open_is_found_and_leaves_it() {
    let scratch = Scratch::new("journal-scrub");
    filled(&scratch);
    let store = scratch.open();
    for i in 0..30 {
        commit(&store, put(Durable, &format!("/registry/late/{i:02}"), &"late".repeat(50))).unwrap();
    }
    assert!(store.scrub(u64::MAX).unwrap().is_empty());
    let (path, model) = (scratch.0.join("store.log"), all(&store));
    let mut image = fs::read(&path).unwrap();
    let place = image.windows(8).position(|text| text == b"latelate").expect("it is in the journal");
    image[place..place + 30].fill(0x5a);
    fs::write(&path, &image).unwrap();
    assert_eq!(store.scrub(u64::MAX).unwrap(), [format!("block {} of the journal", place / 4096)]);
    let rounds = store.stats().rounds;
    while store.stats().rounds == rounds {
        std::thread::yield_now();
    }
    // What it held is in the database now: a crash finds it there.
    drop(store);
    let store = scratch.open();
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    assert_eq!(all(&store), model);
}
