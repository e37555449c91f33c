//! Nothing an expression says can cost more than its budget, take more than the stack, or end the process.
use mote_cel::{Budget, Environment, PER_CALL_LIMIT, RUNTIME_BUDGET, Type, Value};
use mote_schema::{Value as Json, json};

fn environment() -> Environment {
    Environment::new().with("self", Type::Dyn)
}

/// What was spent; None when it did not compile.
fn run(text: &str, data: &Json) -> Option<(bool, u64)> {
    let program = environment().compile(text).ok()?;
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let value = Value::from_json(data, &Type::Dyn).expect("dyn data is never wrong");
    let result = program.evaluate(&[("self", value)], &mut budget);
    Some((result.is_ok_and(|value| value.to_json().is_ok()), budget.spent()))
}

#[test]
fn expensive_expressions_are_cut_off() {
    let list: Vec<u32> = (0..2_000).collect();
    let data = json!({"l": list, "s": "a".repeat(100_000)});
    for text in [
        "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))",
        "self.l.map(a, self.l.map(b, a * b)).size() > 0",
        "self.l.all(a, !self.s.matches('a*a*a*b'))",
        "self.l.map(a, self.s + self.s).size() > 0",
        "lists.range(1000000000).size() > 0",
        "self.l.map(a, self.l).flatten().distinct().size() > 0",
        "self.l.all(a, self == self)",
        "self.s.replace('', self.s).size() > 0",
        "self.l.transformMap(i, v, self.s + self.s).size() > 0",
    ] {
        let (is_done, spent) = run(text, &data).unwrap_or_else(|| panic!("{text} compiles"));
        assert!(!is_done, "{text} was evaluated, for {spent}");
        // The step that went over is part of it.
        assert!(spent < 2 * PER_CALL_LIMIT + 100_000_000, "{text}: {spent}");
    }
}

/// Doubling is free in upstream's count.
#[test]
fn doubling_a_list_is_work() {
    let text = format!("[[1, 2]]{}.size() > 0", ".map(a, a + a)".repeat(60));
    assert!(run(&text, &Json::Null).is_some_and(|(is_done, _)| !is_done));
    let text = format!("optional.of([1]){}.hasValue()", ".optMap(a, a + a)".repeat(12));
    assert!(run(&text, &Json::Null).is_some_and(|(is_done, _)| is_done));
    // Each of these repeats what it stands behind; thirty of them are too large to be compiled.
    assert!(run(&format!("optional.of(1){}", ".optMap(a, a)".repeat(30)), &Json::Null).is_none());
}

/// On a stack as large as the main thread's, which is where a node evaluates.
#[test]
fn nesting_is_bounded() {
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(nest).expect("a thread");
    thread.join().expect("nothing overflows");
}

fn nest() {
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "true", ""),
        ("-", "1", ""),
        ("self.map(x, ", "x", ")"),
        ("f(", "1", ")"),
        ("true ? 1 : ", "1", ""),
        ("1 + ", "1", ""),
        ("", "self", ".a"),
        ("", "self", "[0]"),
        ("", "self", "[?0]"),
        ("", "self", ".exists(x, true)"),
        ("'%s'.format([", "1", "])"),
    ] {
        for depth in [10, 240, 260, 5_000] {
            let text = open.repeat(depth) + inner + &close.repeat(depth);
            // Either way is fine; what counts is that it ends.
            let _ = run(&text, &json!([[1]]));
        }
        let _ = environment().compile(&(open.repeat(20_000) + inner));
    }
    assert!(environment().compile(&"a".repeat(100_001)).is_err());
}

/// Random words, and random damage to expressions that are right.
#[test]
fn no_text_ends_the_process() {
    const WORDS: [&str; 58] = [
        "self",
        ".",
        "a",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        "1",
        "2u",
        "1.5",
        "'x'",
        "b'y'",
        "true",
        "null",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        ">=",
        "in",
        "&&",
        "||",
        "!",
        " ",
        "map",
        "all",
        "exists",
        "filter",
        "size",
        "has",
        "x",
        "string",
        "matches",
        "split",
        "'('",
        "format",
        "'%d'",
        "optional",
        "of",
        "orValue",
        "\\",
        "\"",
        "`",
        "é",
        "duration",
        "timestamp",
        "sort",
        "sortBy",
        "flatten",
    ];
    const RIGHT: [&str; 4] = [
        "self.a.filter(x, x > 1).map(y, y * 2).all(z, z < 10 || has(self.b))",
        "self.?a[?0].orValue('x') == \"\\u00e9\" ? {'a': [1, 2]} : {}",
        "timestamp('2020-01-01T00:00:00Z') + duration('1h') > timestamp(0) && 'é' in ['a', b'c' == b'\\xff' ? 'x' : 'y']",
        "'%s %d'.format([self.a, 1]).split(' ').transformMap(i, v, v + string(i)).exists(k, k == 1)",
    ];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let data = json!({"a": [1, 2.5, "x", null, {"b": []}], "b": {"a": "x"}});
    let mut compiled = 0;
    for _ in 0..6_000 {
        let mut text = String::new();
        if random(2) == 0 {
            for _ in 0..random(12) + 1 {
                text.push_str(WORDS[random(WORDS.len())]);
            }
        } else {
            let mut chars: Vec<char> = RIGHT[random(RIGHT.len())].chars().collect();
            for _ in 0..random(4) + 1 {
                let at = random(chars.len().max(1)).min(chars.len().saturating_sub(1));
                if chars.is_empty() {
                    break;
                }
                match random(3) {
                    0 => drop(chars.remove(at)),
                    1 => chars.insert(at, chars[random(chars.len())]),
                    _ => chars.truncate(at.max(1)),
                }
            }
            text.extend(chars);
        }
        if let Some((_, spent)) = run(&text, &data) {
            compiled += 1;
            assert!(spent <= RUNTIME_BUDGET, "{text}: {spent}");
        }
    }
    assert!(compiled > 100, "{compiled}");
}

/// The same expression over the same data costs the same, and no more than was estimated when sizes are known.
#[test]
fn costs_are_what_they_were_and_within_the_estimate() {
    let environment = environment();
    for text in [
        "[1, 2, 3].all(x, x in [1, 2, 3] && [4, 5].exists(y, y > x))",
        "['a', 'b'].map(x, x + 'c').join(',').size() == 5",
        "'abc'.matches('^[a-c]+$') && 'a,b'.split(',').size() == 2",
        "{'a': 1, 'b': 2}.all(k, v, k.size() == v || v == 2)",
        "quantity('1Gi').isGreaterThan(quantity('1M')) ? ip('10.0.0.1').family() : 0",
    ] {
        let program = environment.compile(text).expect(text);
        let estimate = program.estimated_cost(&environment);
        let spend = || {
            let mut budget = Budget::new(RUNTIME_BUDGET);
            program.evaluate(&[("self", Value::Null)], &mut budget).expect(text);
            budget.spent()
        };
        let spent = spend();
        assert_eq!(spent, spend(), "{text}");
        assert!(spent <= estimate.max, "{text}: {spent} of {}", estimate.max);
    }
}
