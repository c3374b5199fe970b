//! A message's properties as a JSON object, and back without a change.
//!
//! Order and repeated names stay. Text, booleans and whole numbers are what JSON has for them; a floating-point number
//! always has a point or an exponent; what JSON lacks is an object: `{"base64": "…"}` for bytes, `{"float": "NaN"}`.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap as _,
};

use crate::types::{Properties, PropertiesBuilder, PropertyValue};

/// The properties as a JSON object.
pub(in crate::persistence) fn headers_to_json(properties: &Properties) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Headers(properties))
}

/// The properties that were written as `json`.
pub(in crate::persistence) fn headers_from_json(json: &str) -> Result<Properties, serde_json::Error> {
    serde_json::from_str::<Read>(json).map(|read| read.0.build())
}

struct Headers<'a>(&'a Properties);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Written(value))))
    }
}

struct Written<'a>(PropertyValue<'a>);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            PropertyValue::Text(text) => serializer.serialize_str(text),
            PropertyValue::Boolean(boolean) => serializer.serialize_bool(boolean),
            PropertyValue::Integer(integer) => serializer.serialize_i64(integer),
            PropertyValue::Float(float) if float.is_finite() => serializer.serialize_f64(float),
            PropertyValue::Float(float) => object(serializer, "float", &float.to_string()),
            PropertyValue::Bytes(bytes) => object(serializer, "base64", &BASE64_STANDARD.encode(bytes)),
        }
    }
}

fn object<S: Serializer>(serializer: S, name: &str, value: &str) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(name, value)?;
    map.end()
}

/// Filled while the object is read: a map would lose order and repeated names.
struct Read(PropertiesBuilder);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Read;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of headers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
                let mut builder = PropertiesBuilder::default();
                while let Some((name, value)) = map.next_entry::<String, ReadValue>()? {
                    builder.push(&name, value.as_value());
                }
                Ok(Read(builder))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// A value with its own text and bytes.
enum ReadValue {
    Text(String),
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Bytes(Vec<u8>),
}

impl ReadValue {
    fn as_value(&self) -> PropertyValue<'_> {
        match self {
            Self::Text(text) => PropertyValue::Text(text),
            Self::Boolean(boolean) => PropertyValue::Boolean(*boolean),
            Self::Integer(integer) => PropertyValue::Integer(*integer),
            Self::Float(float) => PropertyValue::Float(*float),
            Self::Bytes(bytes) => PropertyValue::Bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for ReadValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = ReadValue;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text, true, false, a number, {\"base64\": …} or {\"float\": …}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ReadValue, E> {
                Ok(ReadValue::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, boolean: bool) -> Result<ReadValue, E> {
                Ok(ReadValue::Boolean(boolean))
            }

            fn visit_i64<E: de::Error>(self, integer: i64) -> Result<ReadValue, E> {
                Ok(ReadValue::Integer(integer))
            }

            fn visit_u64<E: de::Error>(self, integer: u64) -> Result<ReadValue, E> {
                i64::try_from(integer).map(ReadValue::Integer).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, float: f64) -> Result<ReadValue, E> {
                Ok(ReadValue::Float(float))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadValue, A::Error> {
                let entry = map.next_entry::<String, String>()?;
                let (name, text) = entry.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                match name.as_str() {
                    "base64" => BASE64_STANDARD.decode(&text).map(ReadValue::Bytes).map_err(de::Error::custom),
                    "float" => text.parse().map(ReadValue::Float).map_err(de::Error::custom),
                    _ => Err(de::Error::unknown_field(&name, &["base64", "float"])),
                }
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Value {
        Text(String),
        Boolean(bool),
        Integer(i64),
        Float(f64),
        Bytes(Vec<u8>),
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<String>().prop_map(Value::Text),
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            any::<u64>().prop_map(|bits| Value::Float(f64::from_bits(bits))),
            prop_oneof![
                Just(f64::INFINITY),
                Just(f64::NEG_INFINITY),
                Just(f64::NAN),
                Just(-0.0),
                Just(1e300),
                Just(7.0)
            ]
            .prop_map(Value::Float),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        ]
    }

    fn properties(values: &[(String, Value)]) -> Properties {
        let mut builder = PropertiesBuilder::default();
        for (name, value) in values {
            let value = match value {
                Value::Text(text) => PropertyValue::Text(text),
                Value::Boolean(boolean) => PropertyValue::Boolean(*boolean),
                Value::Integer(integer) => PropertyValue::Integer(*integer),
                // A number that is none has many bit patterns; what it says is the same.
                Value::Float(float) if float.is_nan() => PropertyValue::Float(f64::NAN),
                Value::Float(float) => PropertyValue::Float(*float),
                Value::Bytes(bytes) => PropertyValue::Bytes(bytes),
            };
            builder.push(name, value);
        }
        builder.build()
    }

    proptest! {
        #[test]
        fn headers_come_back_to_the_last_bit(values in proptest::collection::vec((any::<String>(), value()), 0..8)) {
            let properties = properties(&values);
            let json = headers_to_json(&properties).unwrap();
            prop_assert!(!json.contains('\0'), "no database's text takes that");
            prop_assert_eq!(headers_from_json(&json).unwrap(), properties, "{}", json);
        }
    }

    #[test]
    fn headers_are_plain_json() {
        let values = [
            ("colour", Value::Text("grün \"\0".to_owned())),
            ("paid", Value::Boolean(true)),
            ("amount", Value::Integer(-42)),
            ("weight", Value::Float(2.0)),
            ("none", Value::Float(f64::NAN)),
            ("key", Value::Bytes(vec![0, 255])),
            ("paid", Value::Text("twice".to_owned())),
        ];
        let values = values.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(
            headers_to_json(&properties(&values)).unwrap(),
            concat!(
                r#"{"colour":"grün \"\u0000","paid":true,"amount":-42,"weight":2.0,"#,
                r#""none":{"float":"NaN"},"key":{"base64":"AP8="},"paid":"twice"}"#
            )
        );
    }

    #[test]
    fn what_somebody_broke_by_hand_is_no_header() {
        for broken in ["", "[]", r#"{"a": null}"#, r#"{"a": {"base64": "?"}}"#, r#"{"a": {"b": "c"}}"#, r#"{"a": {}}"#]
        {
            assert!(headers_from_json(broken).is_err(), "{broken}");
        }
    }
}
