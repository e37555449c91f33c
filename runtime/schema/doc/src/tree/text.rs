//! Strings of a tree: short ones in place, long ones shared; and the names of members, numbers where the dictionary has them.
use crate::doc::{Key as Stored, names};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// What a `Value` holds without an allocation of its own.
const INLINE: usize = 22;

/// An immutable string; cloning copies no text.
#[derive(Clone)]
pub struct Text(Form);

#[derive(Clone)]
enum Form {
    Inline { len: u8, bytes: [u8; INLINE] },
    Shared(Arc<str>),
}

impl Text {
    pub const fn new() -> Text {
        Text(Form::Inline { len: 0, bytes: [0; INLINE] })
    }
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // SAFETY: `From<&str>` is the only one that makes it, of a whole string.
            Form::Inline { len, bytes } => unsafe { std::str::from_utf8_unchecked(&bytes[..usize::from(*len)]) },
            Form::Shared(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        if text.len() > INLINE {
            return Text(Form::Shared(text.into()));
        }
        let mut bytes = [0; INLINE];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Text(Form::Inline { len: text.len() as u8, bytes })
    }
}

/// The name of a member.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Spelling);

/// One form for one name, so that equal names are equal here.
#[derive(Clone, PartialEq, Eq)]
enum Spelling {
    Known(u16),
    /// "f:" and a known name.
    Field(u16),
    Other(Text),
}

impl Name {
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Spelling::Known(id) => names::name(*id).unwrap_or_default(),
            Spelling::Field(id) => names::prefixed(*id).unwrap_or_default(),
            Spelling::Other(text) => text.as_str(),
        }
    }

    /// "f:" before it, as managedFields names a field.
    pub fn as_field(&self) -> Name {
        match &self.0 {
            Spelling::Known(id) => Name(Spelling::Field(*id)),
            _ => Name::from(["f:", self].concat()),
        }
    }

    /// What is behind an "f:".
    pub fn of_field(&self) -> Option<Name> {
        match &self.0 {
            Spelling::Field(id) => Some(Name(Spelling::Known(*id))),
            _ => self.strip_prefix("f:").map(Name::from),
        }
    }

    /// As a Doc holds it. `None` for bytes that are no text, or a number from a dictionary to come.
    pub fn read(stored: Stored<'_>) -> Option<Name> {
        let name = match stored {
            Stored::Name(id) => Spelling::Known(id),
            Stored::Field(id) => Spelling::Field(id),
            // A name may have come into the dictionary since.
            Stored::Inline(_) => return stored.text().map(Name::from),
        };
        stored.text().map(|_| Name(name))
    }

    pub fn stored(&self) -> Stored<'_> {
        match &self.0 {
            Spelling::Known(id) => Stored::Name(*id),
            Spelling::Field(id) => Stored::Field(*id),
            Spelling::Other(text) => Stored::Inline(text.as_bytes()),
        }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(match Stored::of(name.as_bytes()) {
            Stored::Name(id) => Spelling::Known(id),
            Stored::Field(id) => Spelling::Field(id),
            Stored::Inline(_) => Spelling::Other(name.into()),
        })
    }
}

macro_rules! like_str {
    ($($name:ident)*) => {$(
        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &$name) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &$name) -> Ordering {
                // Equal names have one number, which is quicker than their letters.
                if self == other { Ordering::Equal } else { self.as_str().cmp(other.as_str()) }
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.as_str() == other
            }
        }
        impl PartialEq<$name> for &str {
            fn eq(&self, other: &$name) -> bool {
                *self == other.as_str()
            }
        }
        impl PartialEq<$name> for String {
            fn eq(&self, other: &$name) -> bool {
                self == other.as_str()
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> $name {
                text.as_str().into()
            }
        }
        impl From<&String> for $name {
            fn from(text: &String) -> $name {
                text.as_str().into()
            }
        }
        impl From<std::borrow::Cow<'_, str>> for $name {
            fn from(text: std::borrow::Cow<'_, str>) -> $name {
                (*text).into()
            }
        }
        impl From<&$name> for $name {
            fn from(text: &$name) -> $name {
                text.clone()
            }
        }
        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.as_str().into()
            }
        }
    )*};
}
like_str! { Text Name }

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Text {}

impl From<Name> for Text {
    fn from(key: Name) -> Text {
        match key.0 {
            Spelling::Other(text) => text,
            _ => key.as_str().into(),
        }
    }
}

impl From<&Name> for Text {
    fn from(key: &Name) -> Text {
        key.clone().into()
    }
}
impl Default for Text {
    fn default() -> Text {
        Text::new()
    }
}
