//! The search space of one training-job definition: typed ranges, parsed from the API's strings.
//!
//! Invariant: a `Space` that `parse` returned is well formed: names unique, bounds finite and in order, scalings legal.
//! How a range is sampled or scaled to the unit cube belongs to `search`.

use std::collections::{BTreeMap, HashSet};

use crate::domain::request::ParameterRanges;
use crate::domain::status::Scaling;

/// The tunable hyperparameters, in the order integer, continuous, categorical of the request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Space {
    /// The parameters; every suggestion has one value for each, in this order.
    pub parameters: Vec<Parameter>,
}

/// One tunable hyperparameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The hyperparameter's name.
    pub name: String,
    /// What values it may take.
    pub range: Range,
}

/// The values that a hyperparameter may take; bounds are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub enum Range {
    /// A real number.
    Continuous {
        /// Smallest value.
        min: f64,
        /// Largest value.
        max: f64,
        /// As requested; `Auto` is for the search to choose.
        scaling: Scaling,
    },
    /// A whole number.
    Integer {
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
        /// As requested; `Auto` is for the search to choose.
        scaling: Scaling,
    },
    /// One of a list of texts.
    Categorical {
        /// The texts, as given.
        values: Vec<String>,
    },
}

/// One value of a [`Parameter`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// Of a continuous range.
    Real(f64),
    /// Of an integer range.
    Int(i64),
    /// Index into a categorical range's values.
    Category(usize),
}

/// What is wrong with a range; the text says what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpaceError {
    /// Two ranges of one name.
    #[error("The hyperparameter {0} has more than one range. Give each tunable hyperparameter one range.")]
    Duplicate(String),
    /// An empty name.
    #[error("A hyperparameter range has an empty Name. Give every range the name of a hyperparameter.")]
    EmptyName,
    /// A bound that is no number of the kind.
    #[error("The {bound} of hyperparameter {name} is [{text}], which is not {kind}. Provide {kind}.")]
    NotANumber {
        /// The hyperparameter.
        name: String,
        /// `MinValue` or `MaxValue`.
        bound: &'static str,
        /// The text given.
        text: String,
        /// What it should have been.
        kind: &'static str,
    },
    /// Minimum not below maximum.
    #[error(
        "The MinValue [{min}] of hyperparameter {name} must be less than its MaxValue [{max}]. Change one of them, or move a single value to StaticHyperParameters."
    )]
    Order {
        /// The hyperparameter.
        name: String,
        /// As given.
        min: String,
        /// As given.
        max: String,
    },
    /// A scaling that the range cannot have.
    #[error("ScalingType {scaling} can't be used for hyperparameter {name}: {why}.")]
    Scaling {
        /// The hyperparameter.
        name: String,
        /// As given.
        scaling: Scaling,
        /// The rule, and what to change.
        why: &'static str,
    },
    /// No categorical value.
    #[error("The categorical hyperparameter {0} has no values. List at least one.")]
    NoCategory(String),
    /// A categorical value given twice.
    #[error("The categorical hyperparameter {name} lists the value [{value}] more than once. Remove the duplicate.")]
    DuplicateCategory {
        /// The hyperparameter.
        name: String,
        /// The value.
        value: String,
    },
}

impl Space {
    /// Reads the API's ranges.
    pub fn parse(ranges: &ParameterRanges) -> Result<Space, SpaceError> {
        let mut parameters = Vec::new();
        for r in ranges.integer.iter().flatten() {
            let (min, max) = (integer(&r.name, "MinValue", &r.min_value)?, integer(&r.name, "MaxValue", &r.max_value)?);
            check_bounds(r, min < max, min > 0, false)?;
            parameters
                .push(Parameter { name: r.name.clone(), range: Range::Integer { min, max, scaling: r.scaling() } });
        }
        for r in ranges.continuous.iter().flatten() {
            let (min, max) = (real(&r.name, "MinValue", &r.min_value)?, real(&r.name, "MaxValue", &r.max_value)?);
            check_bounds(r, min < max, min > 0.0, min >= 0.0 && max < 1.0)?;
            parameters
                .push(Parameter { name: r.name.clone(), range: Range::Continuous { min, max, scaling: r.scaling() } });
        }
        for r in ranges.categorical.iter().flatten() {
            if r.values.is_empty() {
                return Err(SpaceError::NoCategory(r.name.clone()));
            }
            let mut seen = HashSet::new();
            if let Some(value) = r.values.iter().find(|v| !seen.insert(v.as_str())) {
                return Err(SpaceError::DuplicateCategory { name: r.name.clone(), value: value.clone() });
            }
            parameters.push(Parameter { name: r.name.clone(), range: Range::Categorical { values: r.values.clone() } });
        }
        let mut names = HashSet::new();
        for p in &parameters {
            if p.name.is_empty() {
                return Err(SpaceError::EmptyName);
            }
            if !names.insert(p.name.as_str()) {
                return Err(SpaceError::Duplicate(p.name.clone()));
            }
        }
        Ok(Space { parameters })
    }

    /// How many different points there are; `None` where a continuous range makes them uncountable or the product
    /// passes 2^53.
    #[must_use]
    pub fn cardinality(&self) -> Option<u64> {
        self.parameters.iter().try_fold(1_u64, |product, p| {
            let n = p.range.cardinality()?;
            product.checked_mul(n).filter(|n| *n <= 1 << 53)
        })
    }

    /// A suggestion's values as the API shows them: name to text.
    #[must_use]
    pub fn format(&self, values: &[Value]) -> BTreeMap<String, String> {
        self.parameters.iter().zip(values).map(|(p, v)| (p.name.clone(), p.range.format(*v))).collect()
    }

    /// The inverse of [`Space::format`]; `None` where a name is missing or a text is not of its range.
    #[must_use]
    pub fn read(&self, texts: &BTreeMap<String, String>) -> Option<Vec<Value>> {
        self.parameters.iter().map(|p| p.range.read(texts.get(&p.name)?)).collect()
    }
}

impl Range {
    /// Whether its values are a list of texts.
    #[must_use]
    pub const fn is_categorical(&self) -> bool {
        matches!(self, Self::Categorical { .. })
    }

    /// How many different values there are; `None` for a continuous range.
    #[must_use]
    pub fn cardinality(&self) -> Option<u64> {
        match self {
            Self::Continuous { .. } => None,
            Self::Integer { min, max, .. } => max.abs_diff(*min).checked_add(1),
            Self::Categorical { values } => Some(values.len() as u64),
        }
    }

    /// The API's text of a value. A real is the shortest text that reads back as the same number.
    #[must_use]
    pub fn format(&self, value: Value) -> String {
        match (self, value) {
            (Self::Categorical { values }, Value::Category(i)) => values.get(i).cloned().unwrap_or_default(),
            (_, Value::Real(x)) => format!("{x:?}"),
            (_, Value::Int(i)) => i.to_string(),
            (_, Value::Category(i)) => i.to_string(),
        }
    }

    /// Reads a value of this range from its text; `None` where it is outside.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<Value> {
        match self {
            Self::Continuous { min, max, .. } => {
                text.parse().ok().filter(|x| (*min..=*max).contains(x)).map(Value::Real)
            }
            Self::Integer { min, max, .. } => text.parse().ok().filter(|i| (*min..=*max).contains(i)).map(Value::Int),
            Self::Categorical { values } => values.iter().position(|v| v == text).map(Value::Category),
        }
    }
}

fn check_bounds(
    r: &crate::domain::request::NumericRange,
    ordered: bool,
    positive: bool,
    unit: bool,
) -> Result<(), SpaceError> {
    if !ordered {
        return Err(SpaceError::Order { name: r.name.clone(), min: r.min_value.clone(), max: r.max_value.clone() });
    }
    let why = match r.scaling() {
        Scaling::Logarithmic if !positive => "MinValue must be greater than 0. Raise MinValue or choose Linear",
        Scaling::ReverseLogarithmic if !unit => {
            "it is for continuous ranges with 0 <= MinValue and MaxValue < 1. Change the range or choose another ScalingType"
        }
        _ => return Ok(()),
    };
    Err(SpaceError::Scaling { name: r.name.clone(), scaling: r.scaling(), why })
}

fn integer(name: &str, bound: &'static str, text: &str) -> Result<i64, SpaceError> {
    // ±2^53: beyond it a float-based surrogate could not tell neighbours apart.
    let limit = 1_u64 << 53;
    text.trim().parse().ok().filter(|i: &i64| i.unsigned_abs() <= limit).ok_or_else(|| SpaceError::NotANumber {
        name: name.to_owned(),
        bound,
        text: text.to_owned(),
        kind: "a whole number within ±2^53",
    })
}

fn real(name: &str, bound: &'static str, text: &str) -> Result<f64, SpaceError> {
    text.trim().parse().ok().filter(|x: &f64| x.abs() <= 1e300).ok_or_else(|| SpaceError::NotANumber {
        name: name.to_owned(),
        bound,
        text: text.to_owned(),
        kind: "a number within ±1e300",
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Parameter, Range, Space, Value};
    use crate::domain::request::ParameterRanges;
    use crate::domain::status::Scaling;

    fn parse(json: serde_json::Value) -> Result<Space, String> {
        let ranges: ParameterRanges = serde_json::from_value(json).unwrap();
        Space::parse(&ranges).map_err(|error| error.to_string())
    }

    fn integer(min: &str, max: &str, scaling: &str) -> serde_json::Value {
        serde_json::json!({"IntegerParameterRanges":
            [{"Name": "depth", "MinValue": min, "MaxValue": max, "ScalingType": scaling}]})
    }

    fn continuous(min: &str, max: &str, scaling: &str) -> serde_json::Value {
        serde_json::json!({"ContinuousParameterRanges":
            [{"Name": "eta", "MinValue": min, "MaxValue": max, "ScalingType": scaling}]})
    }

    fn categorical(values: &[&str]) -> serde_json::Value {
        serde_json::json!({"CategoricalParameterRanges": [{"Name": "booster", "Values": values}]})
    }

    #[test]
    fn parameters_keep_the_order_integer_continuous_categorical() {
        let space = parse(serde_json::json!({
            "CategoricalParameterRanges": [{"Name": "c", "Values": ["x", "y"]}],
            "ContinuousParameterRanges": [{"Name": "b", "MinValue": " 1e-3", "MaxValue": "1"}],
            "IntegerParameterRanges": [{"Name": "a", "MinValue": "-2", "MaxValue": "2", "ScalingType": "Linear"}],
        }))
        .unwrap();
        let expected = [
            ("a", Range::Integer { min: -2, max: 2, scaling: Scaling::Linear }),
            ("b", Range::Continuous { min: 1e-3, max: 1.0, scaling: Scaling::Auto }),
            ("c", Range::Categorical { values: vec!["x".to_owned(), "y".to_owned()] }),
        ];
        let expected = expected.map(|(name, range)| Parameter { name: name.to_owned(), range });
        assert_eq!(space.parameters, expected);
        assert_eq!(parse(serde_json::json!({})).unwrap(), Space::default());
    }

    #[test]
    fn bounds_that_are_no_numbers_are_refused() {
        for text in ["", "one", "1.5", "1e3", "9007199254740993", "-9223372036854775808", "99999999999999999999"] {
            let error = parse(integer(text, "10", "Auto")).unwrap_err();
            let expected = format!("The MinValue of hyperparameter depth is [{text}], which is not a whole number");
            assert!(error.starts_with(&expected), "{error}");
        }
        for text in ["", "nan", "inf", "-Infinity", "1e301", "1e400", "0,5", "0x1"] {
            let error = parse(continuous("0", text, "Auto")).unwrap_err();
            assert!(error.starts_with(&format!("The MaxValue of hyperparameter eta is [{text}]")), "{error}");
        }
        assert!(parse(integer("-9007199254740992", "9007199254740992", "Auto")).is_ok());
        assert!(parse(continuous("-1e300", "1e300", "Auto")).is_ok());
    }

    #[test]
    fn bounds_have_to_be_in_order() {
        for (min, max) in [("2", "1"), ("1", "1")] {
            let error = parse(integer(min, max, "Auto")).unwrap_err();
            assert!(
                error.contains(&format!("MinValue [{min}]")) && error.contains(&format!("MaxValue [{max}]")),
                "{error}"
            );
        }
        assert!(parse(continuous("0.5", "0.50", "Linear")).unwrap_err().contains("must be less than"));
        assert!(parse(continuous("-0.0", "0.0", "Linear")).unwrap_err().contains("must be less than"));
    }

    #[test]
    fn scalings_have_to_suit_the_range() {
        for refused in [
            integer("0", "10", "Logarithmic"),
            integer("-1", "10", "Logarithmic"),
            integer("1", "10", "ReverseLogarithmic"),
            continuous("0", "1", "Logarithmic"),
            continuous("0.5", "1", "ReverseLogarithmic"),
            continuous("-0.5", "0.5", "ReverseLogarithmic"),
        ] {
            assert!(parse(refused).unwrap_err().starts_with("ScalingType "));
        }
        for good in [
            integer("1", "10", "Logarithmic"),
            integer("-5", "10", "Linear"),
            continuous("1e-9", "10", "Logarithmic"),
            continuous("0", "0.99", "ReverseLogarithmic"),
        ] {
            assert!(parse(good).is_ok());
        }
    }

    #[test]
    fn names_and_categories_are_unique_and_there() {
        assert!(parse(categorical(&["a", "b", "a"])).unwrap_err().contains("lists the value [a] more than once"));
        assert!(parse(categorical(&[])).unwrap_err().contains("has no values"));
        let mut twice = integer("1", "2", "Auto");
        twice["CategoricalParameterRanges"] = serde_json::json!([{"Name": "depth", "Values": ["a"]}]);
        assert!(parse(twice).unwrap_err().contains("depth has more than one range"));
        let unnamed = serde_json::json!({"CategoricalParameterRanges": [{"Name": "", "Values": ["a"]}]});
        assert!(parse(unnamed).unwrap_err().contains("empty Name"));
    }

    #[test]
    fn points_are_counted_up_to_2_to_the_53() {
        let mut space = parse(integer("1", "9007199254740992", "Auto")).unwrap();
        assert_eq!(space.cardinality(), Some(1 << 53));
        let two = Range::Categorical { values: vec!["a".to_owned(), "b".to_owned()] };
        space.parameters.push(Parameter { name: "more".to_owned(), range: two });
        assert_eq!(space.cardinality(), None);
        assert_eq!(parse(continuous("0", "1", "Auto")).unwrap().cardinality(), None);
        assert_eq!(parse(categorical(&["a", "b", "c"])).unwrap().cardinality(), Some(3));
        assert_eq!(Space::default().cardinality(), Some(1));
    }

    #[test]
    fn texts_outside_their_range_are_not_read() {
        let range = Range::Integer { min: 1, max: 5, scaling: Scaling::Auto };
        assert_eq!(
            ["1", "5", "0", "6", "1.0", ""].map(|t| range.read(t).is_some()),
            [true, true, false, false, false, false]
        );
        let range = Range::Continuous { min: 0.0, max: 1.0, scaling: Scaling::Auto };
        assert_eq!(["0", "1.0", "1.1", "nan", "x"].map(|t| range.read(t).is_some()), [true, true, false, false, false]);
        let range = Range::Categorical { values: vec!["a".to_owned()] };
        assert_eq!(["a", "A", ""].map(|t| range.read(t).is_some()), [true, false, false]);
        let space = parse(categorical(&["a"])).unwrap();
        assert_eq!(space.read(&std::collections::BTreeMap::new()), None);
    }

    proptest! {
        #[test]
        fn values_come_back_from_their_texts(
            x in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL, i in -(1_i64 << 53)..1 << 53, c in 0..3_usize
        ) {
            prop_assume!(x.abs() <= 1e300);
            let named = |(i, range)| Parameter { name: format!("p{i}"), range };
            let values = ["tab\t", "", "é\"'"].map(str::to_owned).to_vec();
            let space = Space { parameters: [
                Range::Continuous { min: -1e300, max: 1e300, scaling: Scaling::Auto },
                Range::Integer { min: -(1 << 53), max: 1 << 53, scaling: Scaling::Auto },
                Range::Categorical { values },
            ].into_iter().enumerate().map(named).collect() };
            let point = [Value::Real(x), Value::Int(i), Value::Category(c)];
            let texts = space.format(&point);
            prop_assert_eq!(space.read(&texts), Some(point.to_vec()));
            prop_assert!(texts.values().all(|text| text.len() < 30));
        }
    }
}
