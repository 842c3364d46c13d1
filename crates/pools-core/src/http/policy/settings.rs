//! A [`Policy`](super::Policy) that operators can change: one declaration per upstream, by the prefix of its variables.
//!
//! ```
//! use pools_core::{http::Policy, settings::{Section, Values}};
//!
//! pools_core::policy_settings! {
//!     /// What the calls to the kettle may take.
//!     pub struct KettlePolicy in "Kettle: limits of its calls" for "KETTLE" with rate = Policy::default();
//! }
//!
//! let environment = [("KETTLE_MAX_IN_FLIGHT", "1"), ("KETTLE_BREAKER_FAILURES", "0"), ("KETTLE_RATE_PER_SECOND", "7")];
//! let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
//! let policy = KettlePolicy::read(&Values::from_map(environment)).unwrap().policy();
//! assert_eq!((policy.max_in_flight, policy.breaker, policy.rate.map(|rate| rate.per_second)), (1, None, Some(7)));
//! assert_eq!(policy.retry_budget, Policy::default().retry_budget);
//! ```

/// Declares the settings of one upstream's [`Policy`](crate::http::Policy): `for` the prefix of the variables, `=` the policy that their defaults and
/// whatever has no setting come from. `with rate` adds `…_RATE_PER_SECOND`, for an upstream that has no setting of its own for that. The
/// struct's `policy()` is what was read.
#[macro_export]
macro_rules! policy_settings {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident in $title:literal for $up:literal with rate = $base:expr;
    ) => {
        $crate::policy_settings! { @declare $(#[doc = $doc])+ $name, $title, $up, $base;
            /// Most calls in any one second, in order of arrival. 0 for any number.
            pub rate_per_second: u32 = $crate::settings::count(
                concat!($up, "_RATE_PER_SECOND"), "calls", $base.rate.map_or(0, |rate| rate.per_second), 0..=1_000
            );
        }

        impl $name {
            /// The rules that were read.
            pub fn policy(&self) -> $crate::http::Policy {
                let rate = (self.rate_per_second > 0).then(|| $crate::resilience::Rate::per_second(self.rate_per_second));
                $crate::http::Policy { rate, ..self.with_own_rate() }
            }
        }
    };
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident in $title:literal for $up:literal = $base:expr;
    ) => {
        $crate::policy_settings! { @declare $(#[doc = $doc])+ $name, $title, $up, $base; }

        impl $name {
            /// The rules that were read.
            pub fn policy(&self) -> $crate::http::Policy {
                self.with_own_rate()
            }
        }
    };
    (
        @declare $(#[doc = $doc:literal])+ $name:ident, $title:literal, $up:literal, $base:expr; $($rate:tt)*
    ) => {
        $crate::settings! {
            $(#[doc = $doc])+
            pub struct $name in $title {
                /// Most requests under way at once, their bodies included: what it may take of the pool's places.
                pub max_in_flight: u32 = $crate::settings::count(
                    concat!($up, "_MAX_IN_FLIGHT"), "requests", $base.max_in_flight, 1..=10_000
                );
                /// Most requests that wait for one of these places, and most that wait for their turn.
                pub max_queue: u32 = $crate::settings::count(
                    concat!($up, "_MAX_QUEUE"), "requests", $base.max_queue, 0..=100_000
                );
                /// Longest wait for a place, and for a connection.
                pub wait_timeout: ::std::time::Duration = $crate::settings::millis(
                    concat!($up, "_WAIT_TIMEOUT_MS"), $crate::settings::in_millis($base.wait_timeout), 1..=3_600_000
                );
                /// Longest time from the end of a request to the end of the answer's head; `HTTP_TIMEOUT_MS` without a byte ends it too. The
                /// breaker counts silence that lasts so long; what ends earlier, with the request or its total, says nothing.
                pub head_timeout: ::std::time::Duration = $crate::settings::millis(
                    concat!($up, "_HEAD_TIMEOUT_MS"), $crate::settings::in_millis($base.head_timeout), 1..=3_600_000
                );
                /// Longest time for everything: waits, attempts, pauses, body.
                pub total_timeout: ::std::time::Duration = $crate::settings::millis(
                    concat!($up, "_TOTAL_TIMEOUT_MS"), $crate::settings::in_millis($base.total_timeout), 1..=3_600_000
                );
                /// How often a request that does no harm twice is sent again.
                pub max_retries: u32 = $crate::settings::count(
                    concat!($up, "_MAX_RETRIES"), "retries", $base.max_retries, 0..=10
                );
                /// How many per cent of the requests may be sent again in all.
                pub retry_budget: u32 = $crate::settings::count(
                    concat!($up, "_RETRY_BUDGET"), "per cent", $base.retry_budget, 0..=100
                );
                /// After so many failures in a row nobody is sent for a while. 0 never stops.
                pub breaker_failures: u32 = $crate::settings::count(
                    concat!($up, "_BREAKER_FAILURES"),
                    "failures",
                    $base.breaker.as_ref().map_or(0, |breaker| breaker.failures),
                    0..=1_000
                );
                /// How long nobody is sent, before one request tries.
                pub breaker_pause: ::std::time::Duration = $crate::settings::millis(
                    concat!($up, "_BREAKER_PAUSE_MS"),
                    $crate::settings::in_millis($base.breaker.clone().unwrap_or_default().pause),
                    1..=600_000
                );
                $($rate)*
            }
        }

        impl $name {
            fn with_own_rate(&self) -> $crate::http::Policy {
                let base = $base;
                let breaker = (self.breaker_failures > 0).then(|| $crate::http::BreakerPolicy {
                    failures: self.breaker_failures,
                    pause: self.breaker_pause,
                    ..base.breaker.clone().unwrap_or_default()
                });
                $crate::http::Policy {
                    max_in_flight: self.max_in_flight,
                    max_queue: self.max_queue,
                    wait_timeout: self.wait_timeout,
                    head_timeout: self.head_timeout,
                    total_timeout: self.total_timeout,
                    max_retries: self.max_retries,
                    retry_budget: self.retry_budget,
                    breaker,
                    ..base
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #![expect(unreachable_pub, reason = "the macro declares for other crates")]

    use std::time::Duration;

    use crate::{
        http::{BreakerPolicy, Policy},
        resilience::Rate,
        settings::{SettingError, Values},
    };

    fn base() -> Policy {
        Policy {
            head_timeout: Duration::from_secs(7),
            retry_statuses: &[418],
            breaker: Some(BreakerPolicy { statuses: &[], ..BreakerPolicy::default() }),
            ..Policy::default()
        }
    }

    policy_settings! {
        /// With a rate of the settings.
        pub struct Rated in "Rated" for "UP" with rate = base();
    }

    policy_settings! {
        /// With a rate of its own.
        pub struct Own in "Own" for "OWN" = Policy { rate: Some(Rate::per_second(3)), breaker: None, ..base() };
    }

    fn read(variables: &[(&str, &str)]) -> Result<Policy, SettingError> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Rated::read(&Values::from_map(environment.collect())).map(|settings| settings.policy())
    }

    #[test]
    fn without_variables_the_policy_is_the_declared_one() {
        assert_eq!(read(&[]).unwrap(), base());
        let own = Own::read(&Values::default()).unwrap().policy();
        assert_eq!(own, Policy { rate: Some(Rate::per_second(3)), breaker: None, ..base() });
        let variables = |section: crate::settings::Section| section.rows.into_iter().map(|row| row.variable);
        assert!(variables(Rated::section()).any(|name| name == "UP_RATE_PER_SECOND"));
        assert!(variables(Own::section()).all(|name| name.starts_with("OWN_") && !name.contains("RATE")));
    }

    #[test]
    fn each_variable_changes_its_part_and_nothing_else() {
        let ms = Duration::from_millis;
        let breaker = base().breaker.unwrap();
        let cases = [
            ("UP_MAX_IN_FLIGHT", Policy { max_in_flight: 5, ..base() }),
            ("UP_MAX_QUEUE", Policy { max_queue: 5, ..base() }),
            ("UP_WAIT_TIMEOUT_MS", Policy { wait_timeout: ms(5), ..base() }),
            ("UP_HEAD_TIMEOUT_MS", Policy { head_timeout: ms(5), ..base() }),
            ("UP_TOTAL_TIMEOUT_MS", Policy { total_timeout: ms(5), ..base() }),
            ("UP_MAX_RETRIES", Policy { max_retries: 5, ..base() }),
            ("UP_RETRY_BUDGET", Policy { retry_budget: 5, ..base() }),
            (
                "UP_BREAKER_FAILURES",
                Policy { breaker: Some(BreakerPolicy { failures: 5, ..breaker.clone() }), ..base() },
            ),
            (
                "UP_BREAKER_PAUSE_MS",
                Policy { breaker: Some(BreakerPolicy { pause: ms(5), ..breaker }), ..base() },
            ),
            ("UP_RATE_PER_SECOND", Policy { rate: Some(Rate::per_second(5)), ..base() }),
        ];
        for (name, expected) in &cases {
            assert_eq!(&read(&[(name, "5")]).unwrap(), expected, "{name}");
        }
        assert_eq!(cases.len(), Rated::section().rows.len(), "a setting without a test");
        assert_eq!(read(&[("UP_BREAKER_FAILURES", "0")]).unwrap().breaker, None);
    }

    #[test]
    fn a_wrong_value_is_named_with_its_range() {
        let error = |name, value| read(&[(name, value)]).unwrap_err().to_string();
        assert_eq!(error("UP_MAX_IN_FLIGHT", "0"), "UP_MAX_IN_FLIGHT: \"0\" is not in 1..=10000 requests");
        assert_eq!(error("UP_RETRY_BUDGET", "101"), "UP_RETRY_BUDGET: \"101\" is not in 0..=100 per cent");
        assert_eq!(error("UP_HEAD_TIMEOUT_MS", "1s"), "UP_HEAD_TIMEOUT_MS: \"1s\" is not in 1..=3600000 ms");
    }
}
