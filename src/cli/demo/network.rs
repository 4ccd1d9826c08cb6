//! A small neural network: one hidden layer, softmax, stochastic gradient descent with mini-batches.
//!
//! | symbol | meaning                         | shape               |
//! |--------|---------------------------------|---------------------|
//! | x      | features of one example         | inputs              |
//! | V, c   | weights and biases of layer one | inputs × hidden, hidden |
//! | h      | activations, h = f(xV + c)      | hidden              |
//! | W, b   | weights and biases of layer two | hidden × classes, classes |
//! | p      | class probabilities, softmax(hW + b) | classes        |
//!
//! The loss is the cross-entropy −ln p[class]; its gradient at the last layer is p − onehot(class).
//!
//! Invariant: everything follows from the seed and the arguments. Reading data and telling metrics belong to the trainer.

use serde_json::json;

/// One row of the data.
#[derive(Debug, Clone)]
pub(super) struct Example {
    /// Between 0 and 1.
    pub(super) features: Vec<f32>,
    /// The right answer.
    pub(super) class: usize,
}

/// The hidden layer's non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    Relu,
    Tanh,
    Sigmoid,
}

impl Activation {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "relu" => Some(Self::Relu),
            "tanh" => Some(Self::Tanh),
            "sigmoid" => Some(Self::Sigmoid),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }

    fn apply(self, x: f32) -> f32 {
        match self {
            Self::Relu => x.max(0.0),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        }
    }

    /// The derivative, from the activation's own value.
    fn slope(self, y: f32) -> f32 {
        match self {
            Self::Relu => f32::from(u8::from(y > 0.0)),
            Self::Tanh => 1.0 - y * y,
            Self::Sigmoid => y * (1.0 - y),
        }
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform over −1 … 1, by 24 random bits: what an f32 holds exactly.
    fn symmetric(&mut self) -> f32 {
        (self.next() >> 40) as u32 as f32 / 8_388_608.0 - 1.0
    }

    /// Fisher and Yates' shuffle.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below the length of a slice")]
    pub(super) fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

/// A dense layer; the weights of one input stand together, so that both passes run over contiguous rows.
#[derive(Debug, Clone)]
struct Layer {
    weights: Vec<f32>,
    biases: Vec<f32>,
}

impl Layer {
    /// Uniform weights, scaled after Glorot and Bengio (2010).
    fn new(inputs: usize, outputs: usize, rng: &mut Rng) -> Self {
        let scale = (6.0 / (inputs + outputs) as f32).sqrt();
        let weights = (0..inputs * outputs).map(|_| rng.symmetric() * scale).collect();
        Self { weights, biases: vec![0.0; outputs] }
    }

    fn zeros_like(&self) -> Self {
        Self { weights: vec![0.0; self.weights.len()], biases: vec![0.0; self.biases.len()] }
    }

    fn forward(&self, input: &[f32], output: &mut [f32]) {
        output.copy_from_slice(&self.biases);
        for (x, row) in input.iter().zip(self.weights.chunks_exact(output.len())) {
            if *x != 0.0 {
                add_scaled(output, row, *x);
            }
        }
    }

    /// Adds the gradient that an error at the output means.
    fn add_gradient(&mut self, input: &[f32], error: &[f32]) {
        add_scaled(&mut self.biases, error, 1.0);
        for (x, row) in input.iter().zip(self.weights.chunks_exact_mut(error.len())) {
            if *x != 0.0 {
                add_scaled(row, error, *x);
            }
        }
    }

    /// Takes a step against a gradient and clears it.
    fn step(&mut self, gradient: &mut Layer, rate: f32) {
        add_scaled(&mut self.weights, &gradient.weights, -rate);
        add_scaled(&mut self.biases, &gradient.biases, -rate);
        gradient.weights.fill(0.0);
        gradient.biases.fill(0.0);
    }
}

fn add_scaled(target: &mut [f32], source: &[f32], factor: f32) {
    for (t, s) in target.iter_mut().zip(source) {
        *t += factor * s;
    }
}

/// The network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    activation: Activation,
    first: Layer,
    second: Layer,
}

impl Network {
    pub(super) fn new(inputs: usize, hidden: usize, classes: usize, activation: Activation, rng: &mut Rng) -> Self {
        Self { activation, first: Layer::new(inputs, hidden, rng), second: Layer::new(hidden, classes, rng) }
    }

    /// One pass over the examples in the given order; returns the mean loss.
    pub(super) fn train_epoch(&mut self, examples: &[Example], order: &[usize], batch: usize, rate: f32) -> f32 {
        let (mut first_gradient, mut second_gradient) = (self.first.zeros_like(), self.second.zeros_like());
        let (mut hidden, mut output) = (self.first.biases.clone(), self.second.biases.clone());
        let mut hidden_error = hidden.clone();
        let mut loss = 0.0;
        for indices in order.chunks(batch) {
            for example in indices.iter().map(|index| &examples[*index]) {
                self.forward(&example.features, &mut hidden, &mut output);
                loss -= output[example.class].max(f32::MIN_POSITIVE).ln();
                output[example.class] -= 1.0;
                let rows = self.second.weights.chunks_exact(output.len());
                for ((error, h), row) in hidden_error.iter_mut().zip(&hidden).zip(rows) {
                    let back: f32 = row.iter().zip(&output).map(|(w, e)| w * e).sum();
                    *error = back * self.activation.slope(*h);
                }
                second_gradient.add_gradient(&hidden, &output);
                first_gradient.add_gradient(&example.features, &hidden_error);
            }
            let rate = rate / indices.len() as f32;
            self.first.step(&mut first_gradient, rate);
            self.second.step(&mut second_gradient, rate);
        }
        loss / order.len().max(1) as f32
    }

    /// The share of examples whose likeliest class is the right one.
    pub(super) fn accuracy(&self, examples: &[Example]) -> f64 {
        let (mut hidden, mut output) = (self.first.biases.clone(), self.second.biases.clone());
        let mut right = 0_usize;
        for example in examples {
            self.forward(&example.features, &mut hidden, &mut output);
            let best = (0..output.len()).max_by(|a, b| output[*a].total_cmp(&output[*b]));
            right += usize::from(best == Some(example.class));
        }
        right as f64 / examples.len().max(1) as f64
    }

    /// What the model file holds.
    pub(super) fn to_json(&self) -> serde_json::Value {
        json!({
            "activation": self.activation.name(),
            "hidden_units": self.first.biases.len(),
            "first": { "weights": self.first.weights, "biases": self.first.biases },
            "second": { "weights": self.second.weights, "biases": self.second.biases },
        })
    }

    fn forward(&self, features: &[f32], hidden: &mut [f32], output: &mut [f32]) {
        self.first.forward(features, hidden);
        for h in hidden.iter_mut() {
            *h = self.activation.apply(*h);
        }
        self.second.forward(hidden, output);
        softmax(output);
    }
}

/// Shifted by the maximum, so that nothing overflows.
fn softmax(values: &mut [f32]) {
    let maximum = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in values.iter_mut() {
        *value = (*value - maximum).exp();
        sum += *value;
    }
    for value in values {
        *value /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exclusive or: what a network without a hidden layer can't learn.
    fn xor() -> Vec<Example> {
        let row = |a: u8, b: u8| Example { features: vec![a.into(), b.into()], class: usize::from(a ^ b) };
        vec![row(0, 0), row(0, 1), row(1, 0), row(1, 1)]
    }

    #[test]
    fn every_activation_learns() {
        for activation in [Activation::Relu, Activation::Tanh, Activation::Sigmoid] {
            let mut network = Network::new(2, 8, 2, activation, &mut Rng::seeded(3));
            let loss = (0..4000).map(|_| network.train_epoch(&xor(), &[0, 1, 2, 3], 4, 1.0)).last();
            assert!(network.accuracy(&xor()) > 0.99, "{activation:?} ended at a loss of {loss:?}");
        }
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let examples = [Example { features: vec![0.3, -0.7], class: 1 }];
        let network = Network::new(2, 3, 2, Activation::Tanh, &mut Rng::seeded(5));
        let loss_of = |network: &Network| network.clone().train_epoch(&examples, &[0], 1, 0.0);
        let mut stepped = network.clone();
        stepped.train_epoch(&examples, &[0], 1, 1.0);
        for index in 0..network.first.weights.len() {
            let gradient = network.first.weights[index] - stepped.first.weights[index];
            let mut moved = network.clone();
            moved.first.weights[index] += 0.01;
            let up = loss_of(&moved);
            moved.first.weights[index] -= 0.02;
            let slope = (up - loss_of(&moved)) / 0.02;
            assert!((slope - gradient).abs() < 1e-2, "weight {index}: {slope} is not {gradient}");
        }
    }
}
