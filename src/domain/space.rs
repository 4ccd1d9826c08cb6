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
    let limit = 1_i64 << 53;
    text.trim().parse().ok().filter(|i: &i64| i.abs() <= limit).ok_or_else(|| SpaceError::NotANumber {
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
