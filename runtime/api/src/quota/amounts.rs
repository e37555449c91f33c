//! Lists of amounts by resource name ("requests.cpu": 500m) and their arithmetic (apiserver/pkg/quota/v1/resources.go).
use mote_schema::Gather as _;
use mote_schema::{Map, Value};
use mote_schema::{Ref, quantity::Quantity};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amounts(pub BTreeMap<String, Quantity>);

impl Amounts {
    /// A ResourceList as it is stored; what is no amount is left out.
    pub fn of(list: Ref<'_>) -> Amounts {
        let amount = |value: Ref<'_>| match value.as_str() {
            Some(text) => Quantity::parse(text).ok(),
            None => value.as_i64().and_then(|number| Quantity::parse(&number.to_string()).ok()),
        };
        Amounts(list.entries().filter_map(|(name, value)| Some((name.to_owned(), amount(value)?))).gather())
    }

    pub fn to_value(&self) -> Value {
        let pairs = self.0.iter().map(|(name, amount)| (name.clone(), Value::from(amount.to_string())));
        Value::Object(pairs.collect::<Map>())
    }

    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    pub fn set(&mut self, name: impl Into<String>, amount: Quantity) {
        self.0.insert(name.into(), amount);
    }

    pub fn add(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            let sum = self.get(name).map_or(*amount, |own| own + *amount);
            self.0.insert(name.clone(), sum);
        }
    }

    /// Each name's larger amount.
    pub fn raise(&mut self, other: &Amounts) {
        for (name, amount) in &other.0 {
            if self.get(name).is_none_or(|own| *amount > own) {
                self.0.insert(name.clone(), *amount);
            }
        }
    }

    /// What is more than in `other`, never below nothing.
    pub fn above(&self, other: &Amounts) -> Amounts {
        let zero = Quantity::default();
        let rest = |name: &str, own: Quantity| other.get(name).map_or(own, |there| own - there);
        Amounts(self.0.iter().map(|(name, own)| (name.clone(), rest(name, *own).max(zero))).gather())
    }

    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Amounts {
        Amounts(self.0.iter().filter(|(name, _)| keep(name)).map(|(name, own)| (name.clone(), *own)).gather())
    }

    pub fn without_zeros(mut self) -> Amounts {
        self.0.retain(|_, amount| !amount.is_zero());
        self
    }
}

/// As refusals list them: "pods=1,requests.cpu=500m".
impl std::fmt::Display for Amounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, amount)) in self.0.iter().enumerate() {
            write!(f, "{}{name}={amount}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
