"""The hyperparameters of the service's XGBoost: texts in, checked values out. One that is not listed is refused."""

from dataclasses import dataclass, field

import metrics


class UserError(Exception):
    """What the user can mend; the text says how."""


@dataclass
class Settings:
    """What a training job is to do."""

    num_round: int
    csv_weights: bool = False
    early_stopping_rounds: int | None = None
    # What early stopping looks at: the tuning job's objective where there is one, else the last one evaluated.
    watched: str | None = None
    own_metrics: list[str] = field(default_factory=list)
    # For XGBoost itself.
    params: dict = field(default_factory=dict)


def whole(low=None, high=None):
    """Reads an integer within bounds that belong to it."""
    return lambda text: within(int(text), low, high)


def real(low=None, high=None, above=None, below=None):
    """Reads a number within bounds; `above` and `below` do not belong to it."""

    def read(text):
        value = within(float(text), low, high)
        if (above is not None and not value > above) or (below is not None and not value < below):
            raise ValueError(f"it is to be above {above}" + (f" and below {below}" if below is not None else ""))
        return value

    return read


def within(value, low, high):
    if low is not None and not value >= low:
        raise ValueError(f"it is to be {low} or more")
    if high is not None and not value <= high:
        raise ValueError(f"it is to be {high} or less")
    return value


def one_of(*values):
    """Reads one of these words."""

    def read(text):
        if text not in values:
            raise ValueError(f"it is to be one of {', '.join(values)}")
        return text

    return read


def metric_names(text):
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        plain, at, threshold = name.partition("@")
        if at:
            if plain not in ("error", "ndcg", "map"):
                raise ValueError(f"{name}: only error, ndcg and map take a value after @")
            float(threshold.removesuffix("-"))
        elif name not in metrics.ALL:
            raise ValueError(f"{name} is not a metric; there are {', '.join(sorted(metrics.ALL))}")
    return names


# What goes to XGBoost under its own name.
FRACTION = real(above=0, high=1)
PARAMETERS = {
    "booster": one_of("gbtree", "gblinear", "dart"),
    "verbosity": whole(0, 3),
    "nthread": whole(1),
    "eta": real(0, 1),
    "gamma": real(0),
    "max_depth": whole(0),
    "min_child_weight": real(0),
    "max_delta_step": real(0),
    "subsample": FRACTION,
    "colsample_bytree": FRACTION,
    "colsample_bylevel": FRACTION,
    "colsample_bynode": FRACTION,
    "lambda": real(0),
    "alpha": real(0),
    "tree_method": one_of("auto", "exact", "approx", "hist"),
    "scale_pos_weight": real(above=0),
    "updater": str,
    "refresh_leaf": whole(0, 1),
    "process_type": one_of("default", "update"),
    "grow_policy": one_of("depthwise", "lossguide"),
    "max_leaves": whole(0),
    "max_bin": whole(2),
    "monotone_constraints": str,
    "interaction_constraints": str,
    "sample_type": one_of("uniform", "weighted"),
    "normalize_type": one_of("tree", "forest"),
    "rate_drop": real(0, 1),
    "one_drop": whole(0, 1),
    "skip_drop": real(0, 1),
    "tweedie_variance_power": real(above=1, below=2),
    "huber_slope": real(above=0),
    "objective": one_of(
        "binary:logistic",
        "binary:logitraw",
        "binary:hinge",
        "count:poisson",
        "multi:softmax",
        "multi:softprob",
        "rank:pairwise",
        "rank:ndcg",
        "rank:map",
        "reg:linear",
        "reg:squarederror",
        "reg:logistic",
        "reg:gamma",
        "reg:pseudohubererror",
        "reg:squaredlogerror",
        "reg:absoluteerror",
        "reg:tweedie",
        "survival:aft",
        "survival:cox",
    ),
    "num_class": whole(2),
    "base_score": real(),
    "seed": whole(-(2**31) + 1, 2**31 - 2),
    "num_parallel_tree": whole(1),
    "max_cached_hist_node": whole(1),
    "max_cat_to_onehot": whole(1),
    "max_cat_threshold": whole(1),
    "aft_loss_distribution": one_of("normal", "logistic", "extreme"),
    "aft_loss_distribution_scale": real(above=0),
}

# What this program does itself.
OWN = {
    "num_round": whole(1),
    "csv_weights": whole(0, 1),
    "early_stopping_rounds": whole(1),
    "eval_metric": metric_names,
    # A stopped job's model is saved either way.
    "save_model_on_termination": one_of("true", "false"),
    "_tuning_objective_metric": str,
}

# Of older releases; they changed how fast a model came about, not which.
WITHOUT_EFFECT = {"predictor", "dsplit", "sketch_eps", "deterministic_histogram", "single_precision_histogram"}


def parse(texts):
    """Checks what hyperparameters.json has, all of it before it complains."""
    values, complaints = {}, []
    for name, text in texts.items():
        reader = PARAMETERS.get(name) or OWN.get(name)
        if name in WITHOUT_EFFECT:
            print(f"the hyperparameter {name} has no effect in this release of XGBoost", flush=True)
        elif reader is None:
            complaints.append(f"the hyperparameter {name} is not known")
        else:
            try:
                values[name] = reader(text.strip().strip('"'))
            except ValueError as error:
                complaints.append(f"the hyperparameter {name} can't be {text!r}: {error}")
    if "num_round" not in texts:
        complaints.append("the hyperparameter num_round is missing")
    if values.get("objective", "").startswith("multi:") and "num_class" not in texts:
        complaints.append(f"the objective {values['objective']} needs the hyperparameter num_class")
    if complaints:
        raise UserError("; ".join(complaints))
    return settings(values)


def settings(values):
    params = {name: value for name, value in values.items() if name in PARAMETERS}
    if params.get("objective") == "reg:linear":
        params["objective"] = "reg:squarederror"
    evaluated = values.get("eval_metric", [])
    # The tuning job's objective is evaluated whether asked for or not. "validation:auc" is the metric auc of validation.
    objective = values.get("_tuning_objective_metric", "").partition(":")[2]
    if objective in metrics.ALL and objective not in evaluated:
        evaluated = [*evaluated, objective]
    natively = [name for name in evaluated if name not in metrics.OWN]
    if natively:
        params["eval_metric"] = natively
    elif evaluated:
        params["disable_default_eval_metric"] = 1
    return Settings(
        num_round=values["num_round"],
        csv_weights=values.get("csv_weights") == 1,
        early_stopping_rounds=values.get("early_stopping_rounds"),
        watched=objective if objective in evaluated else next(reversed(evaluated), None),
        own_metrics=[name for name in evaluated if name in metrics.OWN],
        params=params,
    )
