//! What trees promise: the same as their bytes, shared until changed.
use super::{Map, Value};
use crate::{Doc, json};

#[test]
fn is_small() {
    assert_eq!(std::mem::size_of::<Value>(), 24);
    assert_eq!(std::mem::size_of::<super::Name>(), 24);
}

#[test]
fn a_tree_is_what_its_doc_is() {
    for text in [
        r#"{"a":1,"b":[true,null,"x",-3,18446744073709551615,1.5],"metadata":{"f:name":{},"labels":{},"name":"n"}}"#,
        r#"{"long":"a string that does not fit into a value's own bytes","é":"ü"}"#,
        "[]",
        "3",
    ] {
        let doc = Doc::from_json(text.as_bytes()).unwrap();
        let value = doc.root().to_value();
        assert_eq!(value.to_string(), text);
        assert_eq!(value.to_doc().unwrap(), doc, "{text}");
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(value, Value::from(serde_json::from_str::<serde_json::Value>(text).unwrap()));
    }
}

#[test]
fn the_macro_writes_what_it_shows() {
    let (name, list, none, key) = ("n", vec![1, 2], None::<i64>, "k");
    let inner = json!({"z": 1});
    let value = json!({
        "name": name, "list": list, "none": none, (key): [name, null, {"a": [], "b": {}}, 1 + 1],
        "inner": inner["z"], "neg": -1, "text": format!("{name}!"),
    });
    assert_eq!(
        value.to_string(),
        r#"{"inner":1,"k":["n",null,{"a":[],"b":{}},2],"list":[1,2],"name":"n","neg":-1,"none":null,"text":"n!"}"#
    );
    assert_eq!(json!([]).to_string(), "[]");
    assert_eq!(json!("x"), "x");
}

#[test]
fn a_clone_is_shared_until_one_changes() {
    let one = json!({"spec": {"a": [1, 2]}, "status": {"b": 1}});
    let mut other = one.clone();
    other["status"]["b"] = 2.into();
    assert_eq!(one["status"]["b"], 1);
    let spec = |value: &Value| value["spec"].as_object().cloned().unwrap_or_default();
    assert!(spec(&one).is_shared(&spec(&other)));
    assert_ne!(one, other);
    other["spec"]["a"][1] = 3.into();
    assert_eq!(one["spec"]["a"][1], 2);
    other["new"]["deep"] = true.into();
    assert_eq!(other["new"]["deep"], true);
    assert_eq!(other["absent"]["deep"], Value::Null);
}

#[test]
fn members_are_sorted_and_the_last_of_two_stays() {
    let map: Map = [("b", 1), ("a", 2), ("metadata", 3), ("b", 4), ("a", 5)]
        .map(|(k, v)| (k, Value::from(v)))
        .into_iter()
        .collect();
    assert_eq!(Value::Object(map).to_string(), r#"{"a":5,"b":4,"metadata":3}"#);
}

#[test]
fn pointers_lead_to_places() {
    let value = json!({"a/b": [{"~c": 1}]});
    assert_eq!(value.pointer("/a~1b/0/~0c"), Some(&json!(1)));
    assert_eq!(value.pointer(""), Some(&value));
    for missing in ["a", "/a~1b/1", "/a~1b/00", "/a~1b/0/~0c/x"] {
        assert_eq!(value.pointer(missing), None, "{missing}");
    }
}
