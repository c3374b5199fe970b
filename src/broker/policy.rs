//! Which policy a destination is under: ActiveMQ's patterns over dotted names.

use std::{sync::Arc, time::Duration};

use crate::config::RedeliveryPolicy;

/// Whether `name` matches `pattern`: `.` separates levels, `*` stands for one level, `>` for all that are left.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut levels = name.split('.');
    for expected in pattern.split('.') {
        match (expected, levels.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (literal, Some(level)) if literal == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// The first policy whose pattern matches.
pub(super) fn redelivery_for(policies: &[Arc<RedeliveryPolicy>], name: &str) -> Option<Arc<RedeliveryPolicy>> {
    policies.iter().find(|policy| matches(&policy.destination, name)).cloned()
}

/// How long the `failure`th redelivery waits, counted from 1.
pub(super) fn delay_before(policy: &RedeliveryPolicy, failure: u32) -> Duration {
    let factor = policy.backoff_multiplier.max(1.0).powf(f64::from(failure.saturating_sub(1)));
    let seconds = policy.delay.as_secs_f64() * factor;
    Duration::try_from_secs_f64(seconds).unwrap_or(policy.delay_max).min(policy.delay_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_activemq_writes_them() {
        for (pattern, name, expected) in [
            (">", "orders", true),
            ("orders", "orders", true),
            ("orders", "orders.new", false),
            ("orders.*", "orders.new", true),
            ("orders.*", "orders", false),
            ("orders.*", "orders.new.eu", false),
            ("orders.>", "orders.new.eu", true),
            ("orders.>", "orders", false),
            ("*.new", "orders.new", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} and {name}");
        }
    }

    #[test]
    fn delays_grow_up_to_their_bound() {
        let policy = RedeliveryPolicy {
            destination: ">".into(),
            attempts: 9,
            delay: Duration::from_secs(1),
            backoff_multiplier: 3.0,
            delay_max: Duration::from_secs(5),
            count_lost_consumers: false,
        };
        let delays: Vec<_> = (1..=4).map(|failure| delay_before(&policy, failure).as_secs()).collect();
        assert_eq!(delays, [1, 3, 5, 5]);
        assert_eq!(delay_before(&policy, u32::MAX), policy.delay_max);
    }
}
