//! Numbers with a unit: durations, sizes, rates.

use std::num::NonZeroU32;
use std::time::Duration;

use super::{Notation, Show};

const TIMES: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const RATES: &[(&str, u64)] = &[("B/s", 1), ("kB/s", 1_000), ("MB/s", 1_000_000), ("GB/s", 1_000_000_000)];

/// The longest that anything may last, in ms: a year.
const LONGEST: u64 = 365 * 86_400_000;

impl Notation for Duration {
    const FORMAT: &'static str = "time";
    const ALLOWED: &'static str =
        "a whole number with its unit is allowed, as in \"40ms\", \"3s\", \"5m\", \"1h\" or \"7d\", up to \"365d\"";
    const EXAMPLES: &'static [&'static str] = &["40ms", "3s", "5m", "1h", "7d"];

    fn read(text: &str) -> Result<Self, String> {
        let time = quantity(text, TIMES)?;
        if time > LONGEST {
            return Err(format!("{text:?} is more than a year"));
        }
        Ok(Self::from_millis(time))
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        shown(u64::try_from(self.as_millis()).unwrap_or(u64::MAX), TIMES)
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u32);

impl Notation for Size {
    const FORMAT: &'static str = "size";
    const ALLOWED: &'static str = "a whole number with its unit is allowed, as in \"512B\", \"16KiB\" or \"1MiB\"";
    const EXAMPLES: &'static [&'static str] = &["512B", "16KiB", "1MiB"];

    fn read(text: &str) -> Result<Self, String> {
        let bytes = quantity(text, SIZES)?;
        u32::try_from(bytes).map(Self).map_err(|_| format!("{text:?} is 4 GiB or more"))
    }
}

impl Show for Size {
    fn show(&self) -> String {
        shown(self.0.into(), SIZES)
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) NonZeroU32);

impl Notation for Rate {
    const FORMAT: &'static str = "rate";
    const ALLOWED: &'static str =
        "a whole number of bytes a second with its unit is allowed, as in \"500kB/s\", \"10MB/s\" or \"1GB/s\", up to \
         \"4GB/s\"; for no bound leave the key out";
    const EXAMPLES: &'static [&'static str] = &["500kB/s", "10MB/s", "1GB/s"];

    fn read(text: &str) -> Result<Self, String> {
        let rate = u32::try_from(quantity(text, RATES)?).map_err(|_| format!("{text:?} is more than 4 GB/s"))?;
        NonZeroU32::new(rate).map(Self).ok_or_else(|| format!("{text:?} carries nothing"))
    }
}

/// The number in the smallest unit.
fn quantity(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("{text:?} does not begin with a whole number"));
    }
    if number.len() > 1 && number.starts_with('0') {
        return Err(format!("{text:?} begins with 0"));
    }
    if unit.is_empty() {
        return Err(format!("{text:?} has no unit"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        let names: Vec<_> = units.iter().map(|(name, _)| *name).collect();
        return Err(format!("{text:?} has the unit {unit:?}, which is none of {}", names.join(", ")));
    };
    let number: Option<u64> = number.parse().ok();
    number.and_then(|number| number.checked_mul(*factor)).ok_or_else(|| format!("{text:?} is too large"))
}

/// In the largest unit that leaves a whole number.
fn shown(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number % factor == 0;
    match units.iter().rev().find(fits).or(units.get(1)) {
        Some((name, factor)) => format!("{}{name}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown() {
        for (text, ms) in [("0s", 0), ("1ms", 1), ("40ms", 40), ("3s", 3_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(Duration::read(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(Duration::from_millis(ms).show(), text);
        }
        assert_eq!(Duration::read("365d"), Ok(Duration::from_secs(31_536_000)));
        assert_eq!(Duration::from_millis(90_000).show(), "90s");
    }

    #[test]
    fn wrong_durations_are_refused_with_their_reason() {
        for (text, said) in [
            ("", "does not begin"),
            ("s", "does not begin"),
            ("-3s", "does not begin"),
            (" 3s", "does not begin"),
            ("+3s", "does not begin"),
            ("3", "has no unit"),
            ("03s", "begins with 0"),
            ("3 s", "the unit \" s\""),
            ("3S", "the unit \"S\""),
            ("1.5s", "the unit \".5s\""),
            ("3s ", "the unit \"s \""),
            ("1h30m", "the unit \"h30m\""),
            ("\u{663}s", "does not begin"),
            ("366d", "more than a year"),
            ("99999999999999999999s", "too large"),
            ("18446744073709551615d", "too large"),
        ] {
            let fault = Duration::read(text).expect_err(text);
            assert!(fault.contains(said), "{text:?}: {fault}");
        }
    }

    #[test]
    fn sizes_and_rates_have_units_of_their_own() {
        assert_eq!(Size::read("16KiB"), Ok(Size(16384)));
        assert_eq!(Size(16384).show(), "16KiB");
        assert_eq!(Size::read("3GiB"), Ok(Size(3 << 30)));
        assert_eq!(Rate::read("10MB/s").map(|rate| rate.0.get()), Ok(10_000_000));
        for text in ["16KB", "16k", "16", "4GiB"] {
            assert!(Size::read(text).is_err(), "{text}");
        }
        for text in ["0MB/s", "10MiB/s", "10Mbit/s", "10M", "5GB/s"] {
            assert!(Rate::read(text).is_err(), "{text}");
        }
    }
}
