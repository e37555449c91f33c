//! Small changes to a Doc without a tree: what is not on the way to a change is copied as bytes.
use super::{Doc, DocError, Ref, Writer};
use crate::Value;

/// A change at a path of member names. Members on the way that are missing, or are no objects, become objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit<'a> {
    pub path: &'a [&'a str],
    /// None removes.
    pub value: Option<Value>,
}

impl<'a> Edit<'a> {
    pub fn set(path: &'a [&'a str], value: impl Into<Value>) -> Edit<'a> {
        Edit { path, value: Some(value.into()) }
    }
    pub fn remove(path: &'a [&'a str]) -> Edit<'a> {
        Edit { path, value: None }
    }
}

impl Doc {
    /// A new Doc with all edits made; paths are distinct and none leads through another. Members keep their places,
    /// new ones come last.
    pub fn edit(&self, edits: &[Edit<'_>]) -> Result<Doc, DocError> {
        let mut writer = Writer::with_capacity(self.bytes().len() + 256);
        let edits: Vec<&Edit<'_>> = edits.iter().collect();
        write(&mut writer, self.root(), &edits, 0)?;
        writer.finish()
    }
}

/// `edits` all lead through this object, with `depth` names behind them.
fn write(writer: &mut Writer, object: Ref<'_>, edits: &[&Edit<'_>], depth: usize) -> Result<(), DocError> {
    writer.begin_map()?;
    for (name, value) in object.entries() {
        if edits.iter().any(|edit| edit.path.get(depth) == Some(&name)) {
            member(writer, name, value, edits, depth)?;
        } else {
            writer.key(name);
            writer.copy(value)?;
        }
    }
    for (i, edit) in edits.iter().enumerate() {
        let Some(name) = edit.path.get(depth) else { continue };
        let first = edits[..i].iter().all(|earlier| earlier.path.get(depth) != Some(name));
        if first && !object.get(name).exists() {
            member(writer, name, Ref::absent(), edits, depth)?;
        }
    }
    writer.end();
    Ok(())
}

fn member(writer: &mut Writer, name: &str, value: Ref<'_>, edits: &[&Edit<'_>], depth: usize) -> Result<(), DocError> {
    let here: Vec<&Edit<'_>> = edits.iter().copied().filter(|edit| edit.path.get(depth) == Some(&name)).collect();
    if let Some(last) = here.iter().find(|edit| edit.path.len() == depth + 1) {
        if let Some(value) = &last.value {
            writer.key(name);
            value.write(writer)?;
        }
        return Ok(());
    }
    if !value.is_map() && here.iter().all(|edit| edit.value.is_none()) {
        // Nothing to remove from.
        if value.exists() {
            writer.key(name);
            writer.copy(value)?;
        }
        return Ok(());
    }
    writer.key(name);
    write(writer, value, &here, depth + 1)
}
