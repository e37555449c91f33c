//! Server-side printing: the `meta.k8s.io/v1` Table that kubectl shows. `kinds` says which columns a kind has and which
//! function fills them; names, order, types, priorities and texts are those of pkg/printers/internalversion/printers.go.
//! kubectl drops the columns of priority 1 without `-o wide`; a server always sends them all.
//!
//! The Table is written as text, row by row, straight from the stored bytes.
mod access;
mod custom;
mod duration;
mod kinds;
mod network;
mod pod;
mod policy;
mod row;
mod storage;
mod workload;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use kinds::Printer;
use mote_schema::{Kind, Object, Status, Value, doc::write_string, structural::columns::columns};
use row::Row;

/// What a row carries besides its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    #[default]
    Metadata,
    Object,
    None,
}

impl Include {
    /// The query parameter `includeObject`.
    pub fn parse(text: &str) -> Result<Include, Status> {
        match text {
            "" | "Metadata" => Ok(Include::Metadata),
            "Object" => Ok(Include::Object),
            "None" => Ok(Include::None),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

#[derive(Default)]
pub struct Options {
    pub include: Include,
    /// ListMeta; null leaves `{}`.
    pub metadata: Value,
    /// Later frames of a watch: columnDefinitions is null.
    pub omit_columns: bool,
    /// meta.k8s.io/v1beta1
    pub beta: bool,
}

/// Appends a meta.k8s.io/v1 Table.
pub fn write_table(kind: &Kind, objects: &[Object], options: &Options, out: &mut Vec<u8>) {
    write_table_at(Timestamp::now(), kind, objects, options, out);
}

fn write_table_at(now: Timestamp, kind: &Kind, objects: &[Object], options: &Options, out: &mut Vec<u8>) {
    let printer = kinds::printer(kind);
    let version = if options.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" };
    out.extend_from_slice(br#"{"kind":"Table","apiVersion":""#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    match &options.metadata {
        Value::Null => out.extend_from_slice(b"{}"),
        metadata => out.extend_from_slice(metadata.to_string().as_bytes()),
    }
    out.extend_from_slice(br#","columnDefinitions":"#);
    let columns = kind.custom.as_ref().map(|custom| columns(custom));
    match &columns {
        _ if options.omit_columns => out.extend_from_slice(b"null"),
        Some(columns) => custom::write_columns(columns, out),
        None => write_columns(printer, out),
    }
    out.extend_from_slice(br#","rows":["#);
    for (place, object) in objects.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let row = &mut |row: &mut Row<'_>| match &columns {
            Some(columns) => custom::cells(columns, row),
            None => (printer.cells)(row),
        };
        write_row(now, row, (printer.completed)(object), object, (options.include, version), out);
    }
    out.extend_from_slice(b"]}");
}

fn write_columns(printer: &Printer, out: &mut Vec<u8>) {
    let start = out.len();
    for column in printer.columns() {
        out.push(if out.len() == start { b'[' } else { b',' });
        for (key, text) in [
            (r#"{"name":"#, column.name.as_str()),
            (r#","type":"#, column.kind),
            (r#","format":"#, column.format),
            (r#","description":"#, column.name.as_str()),
        ] {
            out.extend_from_slice(key.as_bytes());
            write_string(text, out);
        }
        out.extend_from_slice(if column.wide { br#","priority":1}"# } else { br#","priority":0}"# });
    }
    out.push(b']');
}

fn write_row(
    now: Timestamp,
    cells: &mut dyn FnMut(&mut Row<'_>),
    completed: Option<(&str, &str)>,
    object: &Object,
    (include, version): (Include, &str),
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"cells":["#);
    cells(&mut Row::new(object, now, out));
    out.push(b']');
    if let Some((reason, message)) = completed {
        out.extend_from_slice(br#","conditions":[{"type":"Completed","status":"True","reason":"#);
        write_string(reason, out);
        out.extend_from_slice(br#","message":"#);
        write_string(message, out);
        out.extend_from_slice(b"}]");
    }
    out.extend_from_slice(br#","object":"#);
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Object => object.write_json(true, out),
        Include::Metadata => write_metadata(object, version, out),
    }
    out.push(b'}');
}

/// Appends an object's PartialObjectMetadata; `version` is that of meta.k8s.io asked for.
pub(crate) fn write_metadata(object: &Object, version: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":{"#);
    let start = out.len();
    let stored = object.revision != 0;
    if stored {
        out.extend_from_slice(br#""resourceVersion":"#);
        write_string(&object.revision.to_string(), out);
    }
    for (name, value) in object.meta().entries().filter(|(name, _)| !stored || *name != "resourceVersion") {
        if out.len() > start {
            out.push(b',');
        }
        write_string(name, out);
        out.push(b':');
        value.write_json(out);
    }
    out.extend_from_slice(b"}}");
}
