//! Parts of timestamps and durations.
use super::{Context, Function, Outcome, wrong};
use crate::{
    time::{Civil, zone},
    value::Value,
};

const DATE: &str = ".T:i .Ts:i";
const CLOCK: &str = ".T:i .Ts:i .R:i";

pub const FUNCTIONS: &[Function] = &[
    Function { name: "getFullYear", signatures: DATE, run: |c, args| date(c, args, |at| at.year) },
    Function { name: "getMonth", signatures: DATE, run: |c, args| date(c, args, |at| at.month - 1) },
    Function { name: "getDate", signatures: DATE, run: |c, args| date(c, args, |at| at.day) },
    Function { name: "getDayOfMonth", signatures: DATE, run: |c, args| date(c, args, |at| at.day - 1) },
    Function { name: "getDayOfWeek", signatures: DATE, run: |c, args| date(c, args, |at| at.weekday) },
    Function { name: "getDayOfYear", signatures: DATE, run: |c, args| date(c, args, |at| at.day_of_year) },
    Function { name: "getHours", signatures: CLOCK, run: |c, args| clock(c, args, 3_600_000_000_000, |at| at.hour) },
    Function { name: "getMinutes", signatures: CLOCK, run: |c, args| clock(c, args, 60_000_000_000, |at| at.minute) },
    Function { name: "getSeconds", signatures: CLOCK, run: |c, args| clock(c, args, 1_000_000_000, |at| at.second) },
    Function { name: "getMilliseconds", signatures: CLOCK, run: milliseconds },
];

fn date<'a>(_: &mut Context<'_>, args: &[Value<'a>], part: fn(Civil) -> i64) -> Outcome<'a> {
    let (at, offset) = match args {
        [Value::Timestamp(at)] => (at, 0),
        [Value::Timestamp(at), Value::String(name)] => (at, zone(name)?),
        _ => return wrong(),
    };
    Ok(Value::Int(part(at.civil(offset))))
}

fn clock<'a>(context: &mut Context<'_>, args: &[Value<'a>], unit: i64, part: fn(Civil) -> i64) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => date(context, args, part),
    }
}

/// Of the second for a time, of all for a duration.
fn milliseconds<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 1_000_000)),
        [Value::Timestamp(at), ..] => Ok(Value::Int(i64::from(at.nanos / 1_000_000))),
        _ => wrong(),
    }
}
