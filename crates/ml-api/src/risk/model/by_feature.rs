//! Feature values as a JSON object by name, so that a stored model outlives a change of the order.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::Serializer;

use crate::risk::features::{FEATURE_COUNT, Feature, Features};

pub(super) fn serialize<S: Serializer>(values: &Features, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(Feature::ALL.into_iter().map(Feature::name).zip(values))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Features, D::Error> {
    deserializer.deserialize_map(ByFeature)
}

struct ByFeature;

impl<'de> Visitor<'de> for ByFeature {
    type Value = Features;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with the {FEATURE_COUNT} features")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Features, A::Error> {
        let mut values = [None; FEATURE_COUNT];
        while let Some(name) = map.next_key::<String>()? {
            let feature =
                Feature::from_name(&name).ok_or_else(|| Error::custom(format!("no feature: {name}")))?;
            values[feature as usize] = Some(map.next_value()?);
        }
        let mut complete = [0.0; FEATURE_COUNT];
        for feature in Feature::ALL {
            let value = values[feature as usize];
            complete[feature as usize] = value.ok_or_else(|| Error::missing_field(feature.name()))?;
        }
        Ok(complete)
    }
}
