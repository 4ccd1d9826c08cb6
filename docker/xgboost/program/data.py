"""Channels: all files beneath a folder, in the service's CSV or libsvm, as one table."""

from dataclasses import dataclass

import numpy as np
from hyperparameters import UserError
from scipy.sparse import csr_matrix

CSV = {"csv", "text/csv"}
LIBSVM = {"libsvm", "text/libsvm", "text/x-libsvm"}
DELIMITERS = ",;\t| "


@dataclass
class Table:
    """Rows of a channel. What a sparse row does not have is missing, not 0."""

    features: np.ndarray | csr_matrix
    labels: np.ndarray
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def columns(self):
        return self.features.shape[1]


def content_type(text):
    """What a channel's ContentType means; libsvm where there is none, as on the service."""
    kind, *parameters = [part.strip() for part in (text or "libsvm").lower().split(";")]
    if kind in LIBSVM:
        return "libsvm"
    if kind not in CSV:
        known = ", ".join(sorted(CSV | LIBSVM))
        raise UserError(f"the content type {text} is not read by this image; {known} are")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "label_size" and value.strip() != "1":
            raise UserError(f"{text}: the label is one column, label_size=1")
    return "csv"


def load(folder, kind, weighted):
    """Reads a channel. `weighted`: a CSV's second column has the rows' weights."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] not in "._")
    files = [path for path in files if path.stat().st_size > 0]
    return libsvm(files) if kind == "libsvm" else csv(files, weighted)


def csv(files, weighted):
    read = [(rows, path) for path in files if len(rows := csv_file(path))]
    if not read:
        return Table(np.empty((0, 0), np.float32), np.empty(0, np.float32), np.empty(0) if weighted else None)
    widths = {rows.shape[1]: path.name for rows, path in read}
    if len(widths) > 1:
        told = ", ".join(f"{name} has {width}" for width, name in widths.items())
        raise UserError(f"the files of a channel differ in their columns: {told}")
    rows = np.concatenate([rows for rows, _ in read])
    first = 2 if weighted else 1
    if rows.shape[1] <= first:
        raise UserError(f"{read[0][1].name} has {rows.shape[1]} columns: no feature is left beside the label")
    return Table(rows[:, first:], rows[:, 0], rows[:, 1] if weighted else None)


def csv_file(path):
    with path.open(errors="replace") as file:
        line = next((line for line in file if line.strip()), "")
    delimiter = next((mark for mark in DELIMITERS if mark in line.strip()), ",")
    how = {"dtype": np.float32, "delimiter": delimiter, "ndmin": 2, "comments": None, "encoding": "utf-8"}
    try:
        return np.loadtxt(path, **how)
    except ValueError:
        # Slower by far: fields may be empty, that is, missing.
        try:
            return np.loadtxt(path, converters=lambda field: float(field) if field.strip() else np.nan, **how)
        except ValueError as error:
            # A first line of words would otherwise be met as one of a wrong number.
            header = " (no header is expected)" if not any(mark.isdigit() for mark in line) else ""
            raise UserError(f"{path.name} is not a CSV of numbers{header}: {error}") from error


def libsvm(files):
    labels, weights, groups, values, columns, starts = [], [], [], [], [], [0]
    for path in files:
        with path.open(errors="replace") as file:
            for number, line in enumerate(file, 1):
                fields = line.partition("#")[0].split()
                if not fields:
                    continue
                try:
                    label, _, weight = fields[0].partition(":")
                    labels.append(float(label))
                    weights.append(float(weight or 1))
                    for field in fields[1:]:
                        index, _, value = field.partition(":")
                        if index == "qid":
                            groups.append(int(value))
                        else:
                            columns.append(int(index))
                            values.append(float(value))
                            if columns[-1] < 0:
                                raise ValueError("an index is below 0")
                except ValueError as error:
                    raise UserError(f"{path.name}, line {number} is not libsvm: {error}") from error
                starts.append(len(values))
    if groups and len(groups) != len(labels):
        raise UserError("either each line has a qid, or none has")
    shape = (len(labels), max(columns, default=-1) + 1)
    features = csr_matrix((np.array(values, np.float32), np.array(columns, np.int64), np.array(starts)), shape=shape)
    weighted = any(weight != 1 for weight in weights)
    return Table(
        features,
        np.array(labels, np.float32),
        np.array(weights, np.float32) if weighted else None,
        np.array(groups) if groups else None,
    )
