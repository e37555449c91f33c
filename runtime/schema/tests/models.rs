//! What this crate computes, held against models that are too simple to be wrong: sums of amounts, what selectors select, what
//! patches make of a tree, JSON text. The seed of a failure is printed; every run uses the same ones.
use mote_schema::{
    Doc, patch, prune,
    quantity::{Format, Quantity},
    selector::{FieldSelector, LabelSelector},
};
use mote_schema::{Map, Value, json};
use std::cmp::Ordering;

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % below.max(1)
    }
}

/// Runs `law` with a generator of its own each time, so that one seed repeats one failure.
fn each(times: u64, law: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    for seed in 1..=times {
        let run = || law(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if std::panic::catch_unwind(run).is_err() {
            panic!("seed {seed}");
        }
    }
}

fn pick<'a, T>(random: &mut Random, of: &'a [T]) -> &'a T {
    &of[random.next(of.len())]
}

// --- amounts ---

/// A text and its billionths, exactly.
fn amount(random: &mut Random) -> (String, i128) {
    const NANO: i128 = 1_000_000_000;
    let suffixes: [(&str, i128, i128); 16] = [
        ("n", 1, NANO),
        ("u", 1_000, NANO),
        ("m", 1_000_000, NANO),
        ("", 1, 1),
        ("k", 1_000, 1),
        ("M", 1_000_000, 1),
        ("G", 1_000_000_000, 1),
        ("T", 1_000_000_000_000, 1),
        ("Ki", 1 << 10, 1),
        ("Mi", 1 << 20, 1),
        ("Gi", 1 << 30, 1),
        ("Ti", 1 << 40, 1),
        ("e3", 1_000, 1),
        ("E6", 1_000_000, 1),
        ("e-3", 1_000_000, NANO),
        ("e0", 1, 1),
    ];
    let &(suffix, factor, divisor) = pick(random, &suffixes);
    let bound = [10, 1_000, 100_000][random.next(3)];
    let whole = random.next(bound) as i128;
    let places = random.next(4) as u32;
    let fraction = random.next(10usize.pow(places)) as i128;
    let sign = *pick(random, &["", "-", "+"]);
    let point = if places > 0 { format!(".{fraction:0width$}", width = places as usize) } else { String::new() };
    // Numerator and denominator; what is finer than a billionth rounds away from zero.
    let numerator = (whole * 10i128.pow(places) + fraction) * factor * NANO;
    let denominator = 10i128.pow(places) * divisor;
    let nanos = (numerator + denominator - 1) / denominator;
    (format!("{sign}{whole}{point}{suffix}"), if sign == "-" { -nanos } else { nanos })
}

fn away_from_zero(nanos: i128, unit: i128) -> i64 {
    let up = (nanos.abs() + unit - 1) / unit * nanos.signum();
    up.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[test]
fn amounts_add_up() {
    each(20_000, |random| {
        let ((a_text, a), (b_text, b)) = (amount(random), amount(random));
        let read = |text: &str| Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let (qa, qb) = (read(&a_text), read(&b_text));
        let check = |what: &str, q: Quantity, nanos: i128| {
            let exact = format!("{nanos}n");
            assert_eq!(q, read(&exact), "{a_text} {what} {b_text}: {q}, not {exact}");
            assert_eq!(q.value(), away_from_zero(nanos, 1_000_000_000), "{a_text} {what} {b_text}");
            assert_eq!(q.milli_value(), away_from_zero(nanos, 1_000_000), "{a_text} {what} {b_text}");
            assert_eq!((q.is_zero(), q.is_negative()), (nanos == 0, nanos < 0));
            let text = q.to_string();
            assert_eq!(read(&text), q, "{q:?} prints as {text}");
            // A binary amount without a suffix reads as a decimal one, upstream too.
            if read(&text).format() == q.format() {
                assert_eq!(read(&text).to_string(), text, "the canonical form is its own");
            }
        };
        check("read", qa, a);
        check("+", qa + qb, a + b);
        check("-", qa - qb, a - b);
        check("negated", -qa, -a);
        assert_eq!(qa.cmp(&qb), a.cmp(&b), "{a_text} {b_text}");
        let kept = Quantity::canonical(&a_text).unwrap();
        assert_eq!(read(&kept), qa, "{a_text} is kept as {kept}");
    });
}

/// Nothing is exact out there, yet order, signs and texts hold.
#[test]
fn extreme_amounts_keep_their_order() {
    let suffixes = ["", "n", "m", "E", "Ei", "Ki", "e99", "e999", "e-999", "e99999999999", "E-18", "e18"];
    each(4_000, |random| {
        let mut text = || {
            let digits: String = (0..=random.next(60)).map(|_| char::from(b'0' + random.next(10) as u8)).collect();
            let point = if random.next(3) == 0 { "." } else { "" };
            let more: String = (0..random.next(50)).map(|_| '9').collect();
            [*pick(random, &["", "-"]), &digits, point, &more, *pick(random, &suffixes)].concat()
        };
        let texts = [text(), text(), text()];
        let [a, b, c] = [&texts[0], &texts[1], &texts[2]].map(|text| Quantity::parse(text));
        let (Ok(a), Ok(b), Ok(c)) = (a, b, c) else { return };
        assert_eq!(a.cmp(&b), b.cmp(&a).reverse(), "{texts:?}");
        if a.cmp(&b) == b.cmp(&c) {
            assert_eq!(a.cmp(&c), a.cmp(&b), "{texts:?}");
        }
        for q in [a, a + b, a - b, -a] {
            let _ = (q.value(), q.milli_value(), q.approximate());
            let again = Quantity::parse(&q.to_string());
            assert!(again.is_ok_and(|r| r.is_negative() == q.is_negative()), "{texts:?}: {q}");
        }
        assert_ne!((a + Quantity::new(1, Format::DecimalSi)).cmp(&a), Ordering::Less, "{texts:?}");
    });
}

// --- selectors ---

#[test]
fn label_selectors_select_as_the_words_say() {
    const KEYS: [&str; 4] = ["a", "b.c/d", "in", "notin"];
    const VALUES: [&str; 6] = ["", "x", "y_z", "5", "-7", "in"];
    each(5_000, |random| {
        let mut terms: Vec<String> = Vec::new();
        let mut wanted: Vec<(usize, usize, Vec<&str>)> = Vec::new();
        for _ in 0..random.next(4) {
            let key = random.next(KEYS.len());
            let op = random.next(6);
            let values: Vec<&str> = (0..=random.next(3)).map(|_| *pick(random, &VALUES[..4])).collect();
            let (name, one) = (KEYS[key], values[0]);
            terms.push(match op {
                0 => format!("{name}{}{one}", *pick(random, &["=", "==", " = "])),
                1 => format!("{name}!={one}"),
                2 => format!("{name} in ({})", values.join(",")),
                3 => format!("{name} notin ({})", values.join(" ,")),
                4 => name.to_owned(),
                _ => format!("!{name}"),
            });
            wanted.push((key, op, values));
        }
        let text = terms.join(*pick(random, &[",", " , "]));
        let selector = LabelSelector::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).unwrap_or_else(|e| panic!("{text} prints as {printed}: {e}"));
        assert_eq!(again.to_string(), printed);
        for _ in 0..8 {
            let labels: Map = { KEYS.iter() }
                .filter_map(|key| match random.next(2) {
                    0 => Some(((*key).to_owned(), json!(*pick(random, &VALUES)))),
                    _ => None,
                })
                .collect();
            let matches = wanted.iter().all(|(key, op, values)| {
                let label = labels.get(KEYS[*key]).and_then(Value::as_str);
                match op {
                    0 => label == Some(values[0]),
                    1 => label != Some(values[0]),
                    2 => label.is_some_and(|label| values.contains(&label)),
                    3 => label.is_none_or(|label| !values.contains(&label)),
                    4 => label.is_some(),
                    _ => label.is_none(),
                }
            });
            let doc = Doc::encode(&labels).unwrap();
            assert_eq!(selector.matches(doc.root()), matches, "{text} of {labels:?}");
            assert_eq!(again.matches(doc.root()), matches, "{printed} of {labels:?}");
            let with = |key: &str| labels.get(key).and_then(Value::as_str);
            assert_eq!(selector.matches_with(with), matches, "{text} of {labels:?}");
        }
    });
}

#[test]
fn field_selectors_select_as_the_words_say() {
    const PATHS: [&str; 3] = ["metadata.name", "spec.on", "status.n"];
    const VALUES: [&str; 6] = ["", "x,y", r"a\b", "k=v", "true", "3"];
    let escape = |value: &str| value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
    each(5_000, |random| {
        let name = *pick(random, &VALUES);
        let (on, n) = (random.next(2) == 0, random.next(4));
        let doc = Doc::encode(&json!({"metadata": {"name": name}, "spec": {"on": on}, "status": {"n": n}})).unwrap();
        let have = [name.to_owned(), on.to_string(), n.to_string()];
        let (mut terms, mut matches) = (Vec::new(), true);
        for _ in 0..random.next(4) {
            let (at, value, negated) = (random.next(3), *pick(random, &VALUES), random.next(2) == 0);
            let sign = if negated { "!=" } else { *pick(random, &["=", "=="]) };
            terms.push(format!("{}{sign}{}", PATHS[at], escape(value)));
            matches &= (have[at] == value) != negated;
        }
        let text = terms.join(",");
        let selector = FieldSelector::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        // A number or boolean that is there compares by its text; "" means that of a field that is not there.
        assert_eq!(selector.matches(doc.root()), matches, "{text} of {have:?}");
    });
}

// --- trees and text ---

/// Any JSON without nulls in objects, which merge patches cannot write.
fn any(random: &mut Random, depth: usize) -> Value {
    const NAMES: [&str; 8] = ["a", "b", "spec", "a/b", "m~n", "", "é\u{1F600}", "0"];
    const TEXTS: [&str; 7] = ["", "x", "\u{0}\u{1f}\u{7f}", "</script>&\u{2028}", "\"\\/", "\u{10FFFF}é", "null"];
    match random.next(if depth > 3 { 4 } else { 7 }) {
        0 => json!(random.next(2) == 0),
        1 => json!(*pick(random, &TEXTS)),
        2 => json!(*pick(random, &[0, 23, 24, 255, 256, -1, i64::MIN, i64::MAX, 1 << 53])),
        3 => pick(random, &[json!(u64::MAX), json!(0.1), json!(-1.5e300), json!(5e-324), json!(f64::MAX)]).clone(),
        4 => (0..random.next(4)).map(|_| any(random, depth + 1)).collect(),
        _ => object(random, depth, &NAMES),
    }
}

fn object(random: &mut Random, depth: usize, names: &[&str]) -> Value {
    let members = (0..random.next(5)).map(|_| (pick(random, names).to_string(), any(random, depth + 1)));
    Value::Object(members.collect::<Vec<_>>().into_iter().collect())
}

#[test]
fn text_and_bytes_say_the_same() {
    each(4_000, |random| {
        let value = any(random, 0);
        let text = serde_json::to_string(&value).unwrap();
        let doc = Doc::from_json(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(doc.root().to_value(), value, "{text}");
        assert_eq!(Doc::encode(&value), Ok(doc.clone()), "{text}");
        assert_eq!(Doc::from_bytes(doc.bytes().clone()), Ok(doc.clone()), "{text}");
        let mut written = Vec::new();
        doc.write_json(&mut written);
        assert_eq!(serde_json::from_slice::<Value>(&written).ok().as_ref(), Some(&value), "{text}");
        assert_eq!(prune::parse_json(text.as_bytes()), Ok((value.clone(), vec![])), "{text}");
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(Doc::from_json(pretty.as_bytes()), Ok(doc), "{pretty}");
        let yaml = prune::to_yaml(&value).unwrap();
        assert_eq!(prune::parse_yaml(yaml.as_bytes()), Ok((value, vec![])), "{yaml}");
    });
}

/// Damaged bytes are refused, or are another document whose every reader works.
#[test]
fn damaged_bytes_are_refused_or_read() {
    each(4_000, |random| {
        let mut bytes = Doc::encode(&any(random, 0)).unwrap().bytes().to_vec();
        for _ in 0..=random.next(3) {
            let at = random.next(bytes.len());
            match random.next(4) {
                0 => bytes[at] = random.next(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, random.next(256) as u8),
                _ => bytes[at] ^= 1 << random.next(8),
            }
        }
        let Ok(doc) = Doc::from_bytes(bytes.into()) else { return };
        let mut text = Vec::new();
        doc.write_json(&mut text);
        assert_eq!(Doc::encode(&doc.root().to_value()).map(|doc| doc.root().to_value()), Ok(doc.root().to_value()));
        let again = Doc::from_json(&text).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&text)));
        assert_eq!(again.root().to_value(), doc.root().to_value());
    });
}

// --- patches ---

/// RFC 7386 the other way round: what makes `to` of `from`.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let gone = from.keys().filter(|name| !to.contains_key(name)).map(|name| (name.clone(), Value::Null));
    let changed = to.iter().filter(|(name, value)| from.get(name) != Some(value)).map(|(name, value)| {
        let old = from.get(name).filter(|old| old.is_object() && value.is_object());
        (name.clone(), old.map_or_else(|| value.clone(), |old| difference(old, value)))
    });
    Value::Object(gone.chain(changed).collect())
}

#[test]
fn a_merge_patch_makes_the_one_tree_of_the_other() {
    each(5_000, |random| {
        const NAMES: [&str; 4] = ["a", "b", "c", "a/b"];
        let (mut from, to) = (object(random, 0, &NAMES), object(random, 0, &NAMES));
        let patch = difference(&from, &to);
        let text = format!("{patch} on {from}");
        patch::merge(&mut from, &patch).unwrap();
        assert_eq!(from, to, "{text}");
        patch::merge(&mut from, &patch).unwrap();
        assert_eq!(from, to, "twice: {text}");
    });
}

/// RFC 6902 by its words and, where upstream's library differs, by that: the whole is no place to add to or take from, and what an
/// object does not have is null. Over a path that was already split.
fn model(root: &mut Value, op: &Value) -> Option<()> {
    let split = |name: &str| -> Option<Vec<String>> {
        let path = op[name].as_str()?;
        let unescape = |token: &str| token.replace("~1", "/").replace("~0", "~");
        Some(path.split('/').skip(1).map(unescape).collect())
    };
    fn at<'v>(mut value: &'v mut Value, path: &[String]) -> Option<&'v mut Value> {
        for token in path {
            value = match value {
                Value::Object(map) => map.get_mut(token)?,
                Value::Array(list) => list.get_mut(token.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(value)
    }
    fn peek(root: &mut Value, path: &[String]) -> Option<Value> {
        let Some((last, parents)) = path.split_last() else { return Some(root.clone()) };
        match at(root, parents)? {
            Value::Object(map) => Some(map.get(last).cloned().unwrap_or(Value::Null)),
            list => at(list, std::slice::from_ref(last)).cloned(),
        }
    }
    fn add(root: &mut Value, path: &[String], new: Value) -> Option<()> {
        let (last, parents) = path.split_last()?;
        match at(root, parents)? {
            Value::Object(map) => drop(map.insert(last.clone().into(), new)),
            Value::Array(list) if last == "-" => list.push(new),
            Value::Array(list) => {
                let index = last.parse::<usize>().ok().filter(|index| *index <= list.len())?;
                list.insert(index, new);
            }
            _ => return None,
        }
        Some(())
    }
    fn remove(root: &mut Value, path: &[String]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        match at(root, parents)? {
            Value::Object(map) => map.remove(last),
            Value::Array(list) => {
                let index = last.parse::<usize>().ok().filter(|index| *index < list.len())?;
                Some(list.remove(index))
            }
            _ => None,
        }
    }
    let path = split("path")?;
    match op["op"].as_str()? {
        "add" => add(root, &path, op["value"].clone()),
        "remove" => remove(root, &path).map(drop),
        // What an object does not have is put there, as upstream's library does it.
        "replace" if path.is_empty() => {
            *root = Some(op["value"].clone()).filter(|value| value.is_object() || value.is_array())?;
            Some(())
        }
        "replace" if at(root, &path).is_none() => {
            let parent = path.len().checked_sub(1)?;
            at(root, &path[..parent])?.as_object()?;
            add(root, &path, op["value"].clone())
        }
        "replace" => {
            *at(root, &path)? = op["value"].clone();
            Some(())
        }
        "move" => {
            let moved = remove(root, &split("from")?)?;
            add(root, &path, moved)
        }
        "copy" => {
            let from = split("from")?;
            from.first()?;
            let copied = peek(root, &from)?;
            add(root, &path, copied)
        }
        _ => (peek(root, &path)? == op["value"]).then_some(()),
    }
}

/// A pointer into the tree, most of the time to something that is there.
fn pointer(random: &mut Random, mut value: &Value) -> String {
    let mut path = String::new();
    while random.next(4) > 0 {
        let token = match value {
            Value::Object(map) if !map.is_empty() && random.next(8) > 0 => {
                map.keys().nth(random.next(map.len())).map(|key| key.to_string()).unwrap_or_default()
            }
            Value::Object(_) => pick(random, &["new", "~", "x/y"]).to_string(),
            Value::Array(list) => match random.next(6) {
                0 => "-".into(),
                1 => (list.len() + random.next(2)).to_string(),
                _ => random.next(list.len().max(1)).to_string(),
            },
            _ => break,
        };
        path += &format!("/{}", token.replace('~', "~0").replace('/', "~1"));
        value = match value {
            Value::Object(map) => map.get(&token).unwrap_or(&Value::Null),
            Value::Array(list) => token.parse::<usize>().ok().and_then(|at| list.get(at)).unwrap_or(&Value::Null),
            _ => break,
        };
    }
    path
}

#[test]
fn a_json_patch_does_what_its_operations_say() {
    each(6_000, |random| {
        let start = any(random, 0);
        let mut want = Some(start.clone());
        let mut operations = Vec::new();
        for _ in 0..=random.next(4) {
            let Some(tree) = &mut want else { break };
            let op = *pick(random, &["add", "remove", "replace", "move", "copy", "test"]);
            let path = pointer(random, tree);
            let mut operation = json!({"op": op, "path": path});
            match op {
                "move" | "copy" => {
                    let from = pointer(random, tree);
                    // Moving a value into itself means nothing.
                    if op == "move" && path.starts_with(&from) {
                        continue;
                    }
                    operation["from"] = from.into();
                }
                "remove" => {}
                "test" if random.next(2) == 0 => {
                    operation["value"] = tree.pointer(&path).cloned().unwrap_or(Value::Null);
                }
                _ => operation["value"] = any(random, 2),
            }
            if model(tree, &operation).is_none() {
                want = None;
            }
            operations.push(operation);
        }
        let operations = Value::Array(operations.into());
        let mut got = start.clone();
        let result = patch::json(&mut got, &operations);
        match want {
            Some(want) => {
                result.unwrap_or_else(|e| panic!("{operations} on {start}: {e:?}"));
                assert_eq!(got, want, "{operations} on {start}");
            }
            None => assert_eq!(result.map_err(|e| e.code), Err(422), "{operations} on {start} gave {got}"),
        }
    });
}
