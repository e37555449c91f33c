//! `resource.Quantity`: amounts like "100m", "1.5Gi", "12e6". Fixed point, never floats.
//!
//! Behaviour of apimachinery/pkg/api/resource: nothing finer than a nano, parts of a nano round away from zero, sums keep
//! the notation of the first term that is not zero.
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};

/// How an amount is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Format {
    /// 12M
    #[default]
    DecimalSi,
    /// 12Mi
    BinarySi,
    /// 12e6
    DecimalExponent,
}

/// `mantissa` times ten to the `scale`. Without trailing zeros in the mantissa, so that equal amounts are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    scale: i32,
    format: Format,
}

/// The texts clients know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    Format,
    Suffix,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            QuantityError::Format => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            QuantityError::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for QuantityError {}

const NANO: i32 = -9;
/// Digits that are kept; what is longer is cut to the largest amount there is.
const MAX_DIGITS: usize = 37;
/// Exponents beyond this are as good as infinite (or as zero).
const MAX_EXPONENT: i64 = 1000;

const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

impl Quantity {
    pub fn new(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: 0, format }.normal()
    }
    pub fn milli(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: -3, format }.normal()
    }
    pub fn format(self) -> Format {
        self.format
    }

    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            None => return Err(QuantityError::Format),
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
        };
        let (whole, rest) = split(rest, |b| b.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, |b| b.is_ascii_digit()),
            None => ("", rest),
        };
        let (letters, exponent) = split(suffix, |b| b"eEinumkKMGTP".contains(&b));
        let (_, left) = split(exponent.strip_prefix(['-', '+']).unwrap_or(exponent), |b| b.is_ascii_digit());
        if !left.is_empty() {
            return Err(QuantityError::Format);
        }
        let (power, shift, format) = interpret(suffix, letters).ok_or(QuantityError::Suffix)?;
        if whole.is_empty() && fraction.is_empty() {
            // Upstream reads a suffix, a sign or a point alone as zero.
            return Ok(Quantity { format, ..Quantity::default() });
        }
        let fraction = fraction.trim_end_matches('0');
        let digits: String = [whole, fraction].concat();
        let digits = digits.trim_start_matches('0');
        let mut scale = power - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
        let mut mantissa = if digits.len() <= MAX_DIGITS {
            digits.bytes().fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0'))
        } else {
            // Only the leading digits count, and that something follows.
            scale += i32::try_from(digits.len() - MAX_DIGITS).unwrap_or(i32::MAX / 4);
            digits.bytes().take(MAX_DIGITS).fold(0, |sum, digit| sum * 10 + i128::from(digit - b'0')) + 1
        };
        if shift > 0 {
            mantissa = mantissa.saturating_mul(1 << shift);
        }
        let mut amount = Quantity { mantissa, scale, format }.round_up(NANO);
        if format == Format::BinarySi {
            let max = Quantity::new(i64::MAX, format);
            if amount > max {
                amount = max;
            }
            if amount.mantissa > 0 && amount < Quantity::new(1, format) {
                amount.format = Format::DecimalSi;
            }
        }
        if negative {
            amount.mantissa = -amount.mantissa;
        }
        Ok(amount)
    }

    /// What a client reads back after writing `text`: the canonical form, except that some texts upstream finds
    /// canonical enough stay as they are ("1e3", "0100m").
    pub fn canonical(text: &str) -> Result<String, QuantityError> {
        let text = text.trim();
        let amount = Quantity::parse(text)?;
        let unsigned = text.trim_start_matches(['-', '+']).trim_start_matches('0');
        let (whole, rest) = split(unsigned, |b| b.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split(rest, |b| b.is_ascii_digit()),
            None => ("", rest),
        };
        let whole = if whole.is_empty() { "0" } else { whole };
        let shifted = [whole, fraction].concat();
        let (letters, _) = split(suffix, |b| b"eEinumkKMGTP".contains(&b));
        let Some((power, shift, format)) = interpret(suffix, letters) else { return Err(QuantityError::Suffix) };
        let places = fraction.len() as i32;
        let keep = match format {
            Format::BinarySi => {
                let precision = 15 - whole.len() as i32 - shift as i32 * 3 / 10 - 1;
                fraction.is_empty() && precision >= 0 && shifted.parse().is_ok_and(|value: i64| value & 7 != 0)
            }
            _ => {
                let scale = power - places;
                shifted.len() <= 18
                    && scale >= NANO
                    && scale % 3 == 0
                    && !shifted.ends_with("000")
                    && !shifted.starts_with('0')
            }
        };
        Ok(if keep { text.into() } else { amount.to_string() })
    }

    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }
    /// Rounded away from zero, and capped at what fits.
    pub fn value(self) -> i64 {
        self.scaled(0)
    }
    /// Thousandths, rounded away from zero, and capped at what fits.
    pub fn milli_value(self) -> i64 {
        self.scaled(-3)
    }
    /// The nearest double.
    pub fn approximate(self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.scale)
    }
    fn scaled(self, scale: i32) -> i64 {
        let rounded = self.round_up(scale);
        let value = match u32::try_from(rounded.scale - scale).ok().and_then(|up| 10i128.checked_pow(up)) {
            Some(factor) => rounded.mantissa.saturating_mul(factor),
            None if rounded.mantissa == 0 => 0,
            None => i128::MAX * rounded.mantissa.signum(),
        };
        value.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Without anything finer than ten to the `scale`; rounds away from zero.
    fn round_up(mut self, scale: i32) -> Quantity {
        if self.scale < scale && self.mantissa != 0 {
            let down = u32::try_from(scale - self.scale).unwrap_or(u32::MAX);
            self.mantissa = match 10i128.checked_pow(down) {
                Some(factor) => {
                    let away = i128::from(self.mantissa % factor != 0) * self.mantissa.signum();
                    self.mantissa / factor + away
                }
                None => self.mantissa.signum(),
            };
            self.scale = scale;
        }
        self.normal()
    }

    fn normal(mut self) -> Quantity {
        if self.mantissa == 0 {
            self.scale = 0;
        }
        while self.mantissa != 0 && self.mantissa % 10 == 0 {
            self.mantissa /= 10;
            self.scale += 1;
        }
        self
    }

    /// As a whole number, if it is one and fits.
    fn whole(self) -> Option<i128> {
        self.mantissa.checked_mul(10i128.checked_pow(u32::try_from(self.scale).ok()?)?)
    }
}

/// A sum keeps the notation of its first term, unless that is zero.
impl Add for Quantity {
    type Output = Quantity;
    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        let (a, b, scale) = align(self, other);
        Quantity { mantissa: a.saturating_add(b), scale, format }.normal()
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity { mantissa: -self.mantissa, ..self }
    }
}

fn split(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !belongs(b)).unwrap_or(text.len());
    text.split_at(end)
}

/// The power of ten, the power of two, and the notation.
fn interpret(suffix: &str, letters: &str) -> Option<(i32, u32, Format)> {
    if let Some(&(_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((power, 0, Format::DecimalSi));
    }
    if let Some(&(_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((0, shift, Format::BinarySi));
    }
    if !letters.starts_with(['e', 'E']) || suffix.len() < 2 {
        return None;
    }
    let power: i64 = suffix[1..].parse().ok()?;
    Some((power.clamp(-MAX_EXPONENT, MAX_EXPONENT) as i32, 0, Format::DecimalExponent))
}

/// Both mantissas at the finer scale; the larger amount is capped when it does not fit there.
fn align(a: Quantity, b: Quantity) -> (i128, i128, i32) {
    let scale = match (a.mantissa, b.mantissa) {
        (0, _) => b.scale,
        (_, 0) => a.scale,
        _ => a.scale.min(b.scale),
    };
    let at = |q: Quantity| {
        let factor = u32::try_from(q.scale - scale).ok().and_then(|up| 10i128.checked_pow(up));
        match factor {
            Some(factor) => q.mantissa.saturating_mul(factor),
            None => i128::MAX * q.mantissa.signum(),
        }
    };
    (at(a), at(b), scale)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        let (a, b, _) = align(*self, *other);
        a.cmp(&b)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mantissa == 0 {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi
            && let Some(mut value) = self.whole()
            && value.unsigned_abs() >= 1024
        {
            let mut suffix = "";
            for (name, _) in BINARY {
                if value % 1024 != 0 {
                    break;
                }
                value /= 1024;
                suffix = name;
            }
            return write!(f, "{value}{suffix}");
        }
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        // The largest suffix is E: what is above it stays in the number.
        let top = if self.format == Format::DecimalExponent { i32::MAX } else { 18 };
        while scale.rem_euclid(3) != 0 || scale > top {
            mantissa = mantissa.saturating_mul(10);
            scale -= 1;
        }
        match DECIMAL.iter().find(|(_, power)| *power == scale) {
            Some((suffix, _)) if self.format != Format::DecimalExponent => write!(f, "{mantissa}{suffix}"),
            _ if scale == 0 => write!(f, "{mantissa}"),
            _ => write!(f, "{mantissa}e{scale}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("Ki", "0"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000", "1k"),
            ("5000m", "5"),
            ("0.1m", "100u"),
            ("0.1n", "1n"),
            ("1.0000000001", "1000000001n"),
            ("-0.5", "-500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("12e6", "12e6"),
            ("12E3", "12e3"),
            ("1e4", "10e3"),
            ("1000e3", "1e6"),
            ("1e-3", "1e-3"),
            ("100Mi", "100Mi"),
            ("0.5Mi", "512Ki"),
            ("0.0001Ki", "102400u"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1.1Ki", "1126400m"),
            ("9223372036854775807", "9223372036854775807"),
            ("10Ei", "9223372036854775807"),
            ("100E", "100E"),
            ("1000E", "1000E"),
        ] {
            assert_eq!(parse(text).to_string(), canonical, "{text}");
            assert_eq!(parse(canonical), parse(text), "{text}");
        }
    }

    #[test]
    fn some_texts_stay_as_written() {
        for (text, read) in [
            ("1e3", "1e3"),
            ("12E3", "12E3"),
            ("0100m", "0100m"),
            ("+5", "+5"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.500k", "1.500k"),
            ("2048Ki", "2Mi"),
            ("12Ki", "12Ki"),
            (" 64Mi ", "64Mi"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Ok(read), "{text}");
        }
    }

    #[test]
    fn refusals() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("1.5.6", QuantityError::Format),
            ("1 Mi", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1Mb", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1Kii", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn order_and_sums() {
        assert!(parse("1Gi") > parse("1G") && parse("100m") < parse("1") && parse("-1") < parse("0"));
        assert_eq!(parse("1000m"), parse("1"));
        assert!(parse("1e900") > parse("1E") && parse("1e-900") == parse("1n"));
        for (a, b, sum, difference) in [
            ("100m", "1", "1100m", "-900m"),
            ("0", "1Gi", "1Gi", "-1Gi"),
            ("1Gi", "1", "1073741825", "1073741823"),
            ("1Gi", "1Gi", "2Gi", "0"),
            ("500m", "500m", "1", "0"),
        ] {
            assert_eq!((parse(a) + parse(b)).to_string(), sum, "{a} + {b}");
            assert_eq!((parse(a) - parse(b)).to_string(), difference, "{a} - {b}");
        }
        assert_eq!((parse("1.1").value(), parse("100u").milli_value(), parse("-1.1").value()), (2, 1, -2));
        assert_eq!((parse("1e900").value(), parse("2Gi").milli_value()), (i64::MAX, 2_147_483_648_000));
    }
}
