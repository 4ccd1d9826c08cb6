"""Boosting round by round: a log line for each, checkpoints, and an end when asked for."""

import os
import re
import signal
import time

import hosts
import metrics
import numpy as np
import xgboost
from hyperparameters import UserError
from scipy.sparse import csr_matrix
from xgboost.callback import EarlyStopping, TrainingCallback

CHECKPOINT = "xgboost-checkpoint"
KEPT_CHECKPOINTS = 5
# Saving a checkpoint may take this part of the time at most: a model grows with each round, and saving it too.
CHECKPOINT_SHARE = 0.05


def train(settings, tables, checkpoints):
    """Trains on all hosts' rows together, from the last checkpoint on; returns the model."""
    columns = hosts.largest(max(table.columns for table in tables.values()))
    for name, table in tables.items():
        if hosts.total(len(table.labels)) == 0:
            raise UserError(f"no data in the channel {name}")
        # A host may have no rows of its own; the others then say how wide they are. A sparse row may end early.
        if 0 < table.columns < columns and not isinstance(table.features, csr_matrix):
            raise UserError(f"the channel {name} has {table.columns} features where another file has {columns}")
    check_labels(settings.params, tables)
    params = {"nthread": int(os.environ.get("SM_NUM_CPUS", 0)) or len(os.sched_getaffinity(0))} | settings.params
    matrices = {name: matrix(table, columns, params["nthread"]) for name, table in tables.items()}
    begun, done = resumed(checkpoints)
    if done:
        print(f"going on after round {done} from a checkpoint", flush=True)
    if done >= settings.num_round:
        return begun
    callbacks = [Log(done), Checkpoints(checkpoints, done), Stop()]
    if settings.early_stopping_rounds:
        callbacks.append(early_stopping(settings, params, matrices))
    return xgboost.train(
        params,
        matrices["train"],
        num_boost_round=settings.num_round - done,
        evals=[(matrices[name], name) for name in ("train", "validation") if name in matrices],
        custom_metric=metrics.evaluator(settings.own_metrics, params.get("objective")),
        xgb_model=begun,
        callbacks=callbacks,
        verbose_eval=False,
    )


def check_labels(params, tables):
    """XGBoost itself complains of labels in words that do not name them."""
    objective = params.get("objective", "")
    if objective in ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic"):
        bound, told = 1, "from 0 to 1"
    elif objective.startswith("multi:"):
        bound, told = params["num_class"] - 1, f"from 0 to num_class - 1, {params['num_class'] - 1}"
    else:
        return
    for name, table in tables.items():
        outside = ~((table.labels >= 0) & (table.labels <= bound))
        if outside.any():
            raise UserError(
                f"the channel {name} has the label {table.labels[outside][0]:g}; labels are {told} with {objective}"
            )


def matrix(table, columns, threads):
    features = table.features
    if isinstance(features, csr_matrix):
        features = csr_matrix((features.data, features.indices, features.indptr), shape=(len(table.labels), columns))
    elif not len(table.labels):
        features = np.empty((0, columns), np.float32)
    return xgboost.DMatrix(features, table.labels, weight=table.weights, qid=table.groups, nthread=threads)


def early_stopping(settings, params, matrices):
    watched = settings.watched
    if watched == "tweedie-nloglik":
        # XGBoost adds the power to the name.
        watched += f"@{params.get('tweedie_variance_power', 1.5):g}"
    return EarlyStopping(
        rounds=settings.early_stopping_rounds,
        data_name="validation" if "validation" in matrices else "train",
        metric_name=watched,
        maximize=metrics.rises(watched) if watched else None,
        # A linear model has no rounds that could be taken back.
        save_best=params.get("booster") != "gblinear",
    )


def resumed(folder):
    """The model of the last checkpoint that can be read, and how many rounds it has; on every host the first host's."""
    raw = b""
    if hosts.is_first() and folder.is_dir():
        named = [path for path in folder.iterdir() if re.fullmatch(rf"{CHECKPOINT}\.\d+", path.name)]
        for path in sorted(named, key=lambda path: int(path.suffix[1:]), reverse=True):
            try:
                raw = path.read_bytes()
                xgboost.Booster(model_file=bytearray(raw))
                break
            except xgboost.core.XGBoostError:
                raw = b""
                print(f"the checkpoint {path.name} can't be read", flush=True)
    raw = hosts.of_the_first(raw)
    if not raw:
        return None, 0
    model = xgboost.Booster(model_file=bytearray(raw))
    return model, model.num_boosted_rounds()


def save(model, path):
    """Whole under its name or not there: whoever copies the folder meanwhile gets no half of one."""
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_bytes(model.save_raw())
    os.replace(unfinished, path)


class Log(TrainingCallback):
    """The service's line for each round, which metric definitions are written for: [12]<tab>train-auc:0.98127<tab>…"""

    def __init__(self, done):
        super().__init__()
        self.done = done

    def after_iteration(self, model, epoch, evals_log):
        if hosts.is_first():
            scores = [
                f"\t{channel}-{name}:{values[-1]:.5f}"
                for channel, series in evals_log.items()
                for name, values in series.items()
            ]
            print(f"[{self.done + epoch}]{''.join(scores)}", flush=True)
        return False


class Checkpoints(TrainingCallback):
    """Saves the model of each round that there is time for, and keeps the last ones; the first host does."""

    def __init__(self, folder, done):
        super().__init__()
        self.folder = folder if hosts.is_first() and folder.is_dir() else None
        self.done = done
        self.not_before = 0.0

    def after_iteration(self, model, epoch, evals_log):
        begun = time.monotonic()
        if self.folder and begun >= self.not_before:
            path = self.folder / f"{CHECKPOINT}.{self.done + epoch}"
            save(model, path)
            self.forget(path)
            self.not_before = time.monotonic() + (time.monotonic() - begun) / CHECKPOINT_SHARE
        return False

    def forget(self, newest):
        older = sorted(self.folder.glob(f"{CHECKPOINT}.*"), key=lambda path: path.stat().st_mtime)
        for path in older[:-KEPT_CHECKPOINTS]:
            if path != newest:
                path.unlink()


class Stop(TrainingCallback):
    """Ends training after the round in which SIGTERM came, on every host after the same one: the model is kept."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, _signal, _frame):
        self.asked = 1

    def after_iteration(self, model, epoch, evals_log):
        stop = hosts.largest(self.asked) == 1
        if stop and hosts.is_first():
            print("stopping after this round", flush=True)
        return stop
