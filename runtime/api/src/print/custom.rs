//! Columns of custom kinds: what their definitions name (apiextensions-apiserver/pkg/registry/customresource/tableconvertor).
use super::row::{Row, UNKNOWN};
use mote_schema::{
    Ref,
    doc::write_string,
    structural::columns::{Column, text_of},
};

pub(super) fn write_columns(columns: &[Column<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(br#"[{"name":"Name","type":"string","format":"name","description":"Name","priority":0}"#);
    for column in columns {
        let described = format!("Custom resource definition column (in JSONPath format): {}", column.text);
        for (key, text) in [
            (r#",{"name":"#, column.name),
            (r#","type":"#, column.type_name),
            (r#","format":"#, column.format),
            (r#","description":"#, if column.description.is_empty() { &described } else { column.description }),
        ] {
            out.extend_from_slice(key.as_bytes());
            write_string(text, out);
        }
        out.extend_from_slice(format!(r#","priority":{}}}"#, column.priority).as_bytes());
    }
    out.push(b']');
}

pub(super) fn cells(columns: &[Column<'_>], row: &mut Row<'_>) {
    row.name();
    for column in columns {
        match column.path.first(row.object.root()) {
            Some(value) => cell(column.type_name, value, row),
            None => row.raw("null"),
        }
    }
}

/// A value of another type than its column's is not shown.
fn cell(type_name: &str, value: Ref<'_>, row: &mut Row<'_>) {
    let number = value.as_f64();
    match (type_name, number) {
        ("string", _) => row.text(&text_of(value)),
        ("integer", Some(number)) => match value.as_i64() {
            Some(whole) => row.int(whole),
            None => row.int(number as i64),
        },
        ("number", Some(number)) => row.raw(mote_schema::Value::from(number).to_string().trim_end_matches(".0")),
        ("boolean", _) if value.as_bool().is_some() => row.bool(value.is_true()),
        ("date", _) => match value.as_str() {
            None => row.raw("null"),
            Some("") => row.text(UNKNOWN),
            Some(text) => {
                let since = row.since(value);
                let is_time = mote_schema::prune::parse_time(text).is_some();
                row.text(if is_time { &since } else { "<invalid>" });
            }
        },
        _ => row.raw("null"),
    }
}
