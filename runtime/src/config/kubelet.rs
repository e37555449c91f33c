//! `kubelet`: the names of a KubeletConfiguration. A map's entry is set as the list of its name and its value.
use super::{keys::duration, source::Value};
use mote_kubelet::eviction::{Amount, SIGNALS, Settings};
use std::{fmt::Display, time::Duration};

pub const EXPECTS_AMOUNT: &str =
    "a signal such as memory.available and a quantity or percentage, as in {nodefs.available: 10%}";
pub const EXPECTS_TIME: &str = "a time such as 1m30s";

type List<T> = [Option<T>; SIGNALS.len()];

pub fn set_amount(list: &mut List<Amount>, value: &Value) -> Option<()> {
    set_entry(list, value, Amount::parse)
}

pub fn set_entry<T>(list: &mut List<T>, value: &Value, parse: fn(&str) -> Option<T>) -> Option<()> {
    let Value::List(entry) = value else { return None };
    let [name, text] = &entry[..] else { return None };
    let at = SIGNALS.iter().position(|(signal, _)| signal == name)?;
    list[at] = Some(parse(text)?);
    Some(())
}

/// No shorter than a second, no longer than a day.
pub fn time(text: &str) -> Option<Duration> {
    duration(text).filter(|time| time.as_secs() <= 86400)
}

pub fn shown<T: Display>(list: &List<T>) -> String {
    let set = SIGNALS.iter().zip(list).filter_map(|((name, _), value)| Some(format!("{name}: {}", value.as_ref()?)));
    format!("{{{}}}", set.collect::<Vec<_>>().join(", "))
}

/// A soft threshold is one with a grace period.
pub fn conflict(settings: &Settings) -> Option<String> {
    let at =
        settings.soft.iter().zip(&settings.soft_grace).position(|(soft, grace)| soft.is_some() && grace.is_none())?;
    Some(format!("{} has no time in kubelet.evictionSoftGracePeriod", SIGNALS[at].0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in
            [("90s", Some(90)), ("1m30s", Some(90)), ("24h", Some(86400)), ("0s", None), ("1", None), ("", None)]
        {
            assert_eq!(time(text), want.map(Duration::from_secs), "{text}");
        }
    }
}
