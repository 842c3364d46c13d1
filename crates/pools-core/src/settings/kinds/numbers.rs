//! Counts, ports, durations, switches.

use std::{ops::RangeInclusive, time::Duration};

use super::Kind;

/// A whole number; see [`count`].
#[derive(Debug)]
pub struct Count {
    variable: &'static str,
    unit: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
}

/// A whole number of `unit`.
pub const fn count(
    variable: &'static str,
    unit: &'static str,
    default: u32,
    range: RangeInclusive<u32>,
) -> Count {
    Count { variable, unit, default, range }
}

impl Kind for Count {
    type Value = u32;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> u32 {
        self.default
    }

    fn parse(&self, text: &str) -> Option<u32> {
        text.parse().ok().filter(|number| self.range.contains(number))
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        self.unit
    }

    fn range(&self) -> String {
        format!("{}..={}", self.range.start(), self.range.end())
    }
}

/// A TCP port to listen on; see [`port`].
#[derive(Debug)]
pub struct Port {
    variable: &'static str,
    default: u16,
}

/// A TCP port, 1 to 65535: a random one (0) would be of no use to callers.
pub const fn port(variable: &'static str, default: u16) -> Port {
    Port { variable, default }
}

impl Kind for Port {
    type Value = u16;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> u16 {
        self.default
    }

    fn parse(&self, text: &str) -> Option<u16> {
        text.parse().ok().filter(|port| *port > 0)
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        "port"
    }

    fn range(&self) -> String {
        "1..=65535".to_owned()
    }
}

/// A duration written in milliseconds; see [`millis`].
#[derive(Debug)]
pub struct Millis(Count);

/// A duration written as a whole number of milliseconds.
pub const fn millis(variable: &'static str, default: u32, range: RangeInclusive<u32>) -> Millis {
    Millis(count(variable, "ms", default, range))
}

/// A duration written in seconds; see [`seconds`].
#[derive(Debug)]
pub struct Seconds(Count);

/// A duration written as seconds; a fraction is accepted.
pub const fn seconds(variable: &'static str, default: u32, range: RangeInclusive<u32>) -> Seconds {
    Seconds(count(variable, "s", default, range))
}

macro_rules! duration_kind {
    ($kind:ident, $from:expr, $parse:expr) => {
        impl Kind for $kind {
            type Value = Duration;

            fn variable(&self) -> &'static str {
                self.0.variable
            }

            fn default(&self) -> Duration {
                $from(u64::from(self.0.default))
            }

            fn parse(&self, text: &str) -> Option<Duration> {
                let value: Duration = $parse(text)?;
                let (start, end) = (u64::from(*self.0.range.start()), u64::from(*self.0.range.end()));
                ($from(start)..=$from(end)).contains(&value).then_some(value)
            }

            fn default_text(&self) -> String {
                self.0.default_text()
            }

            fn unit(&self) -> &'static str {
                self.0.unit
            }

            fn range(&self) -> String {
                self.0.range()
            }
        }
    };
}

duration_kind!(Millis, Duration::from_millis, |text: &str| text.parse().ok().map(Duration::from_millis));
duration_kind!(Seconds, Duration::from_secs, |text: &str| {
    text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
});

/// A switch; see [`flag`].
#[derive(Debug)]
pub struct Flag {
    variable: &'static str,
    default: bool,
}

/// `true`/`on`/`1` or `false`/`off`/`0`.
pub const fn flag(variable: &'static str, default: bool) -> Flag {
    Flag { variable, default }
}

impl Kind for Flag {
    type Value = bool;

    fn variable(&self) -> &'static str {
        self.variable
    }

    fn default(&self) -> bool {
        self.default
    }

    fn parse(&self, text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Some(true),
            "false" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    fn default_text(&self) -> String {
        self.default.to_string()
    }

    fn unit(&self) -> &'static str {
        "switch"
    }

    fn range(&self) -> String {
        "true, on, 1, false, off or 0".to_owned()
    }
}
