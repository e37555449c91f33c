//! Label and field selectors: parse, match.
use crate::Ref;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub op: Op,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl LabelSelector {
    /// `a=b,c in (d,e),!f`; the error is upstream's text.
    pub fn parse(_text: &str) -> Result<LabelSelector, String> {
        unimplemented!()
    }
    /// From a `metav1.LabelSelector` inside an object. An absent selector matches nothing, an empty one everything.
    pub fn from_ref(_selector: Ref<'_>) -> Result<Option<LabelSelector>, String> {
        unimplemented!()
    }
    /// `labels` is a map of strings.
    pub fn matches(&self, _labels: Ref<'_>) -> bool {
        unimplemented!()
    }
}

/// `metadata.name=x,status.phase!=Running`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    /// (dotted path, value, negated)
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    pub fn parse(_text: &str) -> Result<FieldSelector, String> {
        unimplemented!()
    }
    pub fn matches(&self, _root: Ref<'_>) -> bool {
        unimplemented!()
    }
}
