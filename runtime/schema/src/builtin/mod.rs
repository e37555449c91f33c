//! The built-in kinds: `table.rs` and `kinds.txt` are written by `mote-schema-generate`, this file gives their rows a short form.
use crate::table::{Container, Extra, Field, ListType, Names, Presence, Shape, Table, Type};
use std::borrow::Cow;

#[rustfmt::skip]
mod table;

/// One line a kind, a subresource (indented) or a part (+); `kind.rs` reads it.
pub(crate) static KINDS: &str = include_str!("kinds.txt");

pub(crate) static TABLE: Table = Table {
    types: Cow::Borrowed(&table::TYPES),
    fields: Cow::Borrowed(&table::FIELDS),
    extras: Cow::Borrowed(&table::EXTRAS),
    names: Names::Dictionary,
    texts: Cow::Borrowed(table::TEXTS),
    text_ends: Cow::Borrowed(&table::TEXT_ENDS),
};

const fn t(package: u16, name: u16, first: u16, count: u16) -> Type {
    Type { package, name, first, count }
}

/// `flags`: 1 required, 2 merge, 4 retainKeys, 8 atomic, 16 pointer, 32 always (48 null), 64 replace.
#[allow(clippy::too_many_arguments, reason = "a row of the generated table")]
const fn f(
    name: u16,
    shape: Shape,
    container: Container,
    list_type: Option<ListType>,
    flags: u8,
    number: u16,
    inline: u8,
    extra: u16,
) -> Field {
    Field {
        name,
        shape,
        container,
        list_type,
        number,
        inline,
        required: flags & 1 != 0,
        patch_merge: flags & 2 != 0,
        patch_retain_keys: flags & 4 != 0,
        patch_replace: flags & 64 != 0,
        atomic: flags & 8 != 0,
        presence: match flags >> 4 & 3 {
            0 => Presence::Omit,
            1 => Presence::Pointer,
            3 => Presence::Null,
            _ => Presence::Always,
        },
        extra,
    }
}

const fn e(list_keys: u16, merge_key: u16, default: u16, values: u16, go_type: u16) -> Extra {
    Extra { list_keys, merge_key, default, values, go_type }
}
