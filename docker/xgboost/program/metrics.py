"""The metrics that the service evaluates: XGBoost's own, and those that its container adds, computed here."""

import numpy as np

# XGBoost's own; of these more is better.
RISING = {"auc", "aucpr", "map", "ndcg", "interval-regression-accuracy"}
NATIVE = RISING | {
    "aft-nloglik",
    "cox-nloglik",
    "error",
    "gamma-deviance",
    "gamma-nloglik",
    "logloss",
    "mae",
    "mape",
    "merror",
    "mlogloss",
    "mphe",
    "poisson-nloglik",
    "rmse",
    "rmsle",
    "tweedie-nloglik",
}


def counts(truth, guess):
    """By class, as columns: how often it was guessed and right, was guessed, was there."""
    classes = np.union1d(truth, guess)[:, None]
    return np.stack(
        [
            ((truth == classes) & (guess == classes)).sum(1),
            (guess == classes).sum(1),
            (truth == classes).sum(1),
        ]
    ).astype(float)


def ratio(part, whole):
    """Their ratio, and 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def precision(right, guessed, _there):
    return ratio(right, guessed)


def recall(right, _guessed, there):
    return ratio(right, there)


def f1(right, guessed, there):
    return ratio(2 * right, guessed + there)


def macro(score):
    """The mean over classes."""
    return lambda truth, guess: score(*counts(truth, guess)).mean()


def micro(score):
    """Over all classes together."""
    return lambda truth, guess: score(*counts(truth, guess).sum(1, keepdims=True))[0]


def binary(score):
    """Of the class 1."""
    return lambda truth, guess: score(*counts(truth == 1, guess == 1))[-1] if np.any((truth == 1) | (guess == 1)) else 0.0


def balanced_accuracy(truth, guess):
    right, _, there = counts(truth, guess)
    return (right[there > 0] / there[there > 0]).mean()


CLASSIFYING = {
    "accuracy": lambda truth, guess: (truth == guess).mean(),
    "balanced_accuracy": balanced_accuracy,
    "f1": macro(f1),
    "f1_binary": binary(f1),
    "f1_macro": macro(f1),
    "precision": binary(precision),
    "precision_macro": macro(precision),
    "precision_micro": micro(precision),
    "recall": binary(recall),
    "recall_macro": macro(recall),
    "recall_micro": micro(recall),
}


def mse(truth, predicted):
    return ((truth - predicted) ** 2).mean()


def r2(truth, predicted):
    spread = ((truth - truth.mean()) ** 2).sum()
    return 1 - ((truth - predicted) ** 2).sum() / spread if spread else 0.0


REGRESSING = {"mse": mse, "r2": r2}
OWN = CLASSIFYING | REGRESSING
ALL = NATIVE | set(OWN)


def rises(name):
    """Whether more of a metric is better."""
    return name.partition("@")[0] in RISING or (name in OWN and name != "mse")


def evaluator(names, objective):
    """A custom metric for XGBoost that gives the metrics of these names; none for none."""
    if not names:
        return None
    threshold = 0.0 if objective == "binary:logitraw" else 0.5

    def evaluate(predicted, matrix):
        truth = matrix.get_label()
        if len(truth) == 0:
            return [(name, 0.0) for name in names]
        if predicted.ndim == 2:
            guess = predicted.argmax(1)
        else:
            guess = predicted if objective == "multi:softmax" else predicted > threshold
        return [
            (name, float(CLASSIFYING[name](truth, guess) if name in CLASSIFYING else REGRESSING[name](truth, predicted)))
            for name in names
        ]

    return evaluate
