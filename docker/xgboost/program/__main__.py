"""Trains as the service's XGBoost does, by its container contract: python3 program train [ROOT]

ROOT is the contract's folder, /opt/ml. A UserError is what the user can mend: it is written to output/failure and ends
the program with 1, and so does anything else that goes wrong, with a traceback in the log besides.
"""

import json
import sys
import traceback
from pathlib import Path

import hosts
from boosting import save, train
from data import content_type, load
from hyperparameters import UserError, parse
from xgboost.core import XGBoostError

LARGEST_FAILURE = 1024


def run(root):
    config = root / "input/config"
    settings = parse(json.loads((config / "hyperparameters.json").read_text()))
    channels = json.loads((config / "inputdataconfig.json").read_text())
    resources = json.loads((config / "resourceconfig.json").read_text())
    unknown = sorted(set(channels) - {"train", "validation"})
    if unknown:
        raise UserError(f"the channels {', '.join(unknown)} are not known; there are train and validation")
    if "train" not in channels:
        raise UserError("the channel train is missing")
    tables = {}
    for name, channel in channels.items():
        kind = content_type(channel.get("ContentType"))
        tables[name] = load(root / "input/data" / name, kind, weighted=settings.csv_weights)
        print(f"channel {name}: {len(tables[name].labels)} rows, {tables[name].columns} columns", flush=True)
    with hosts.together(resources["hosts"], resources["current_host"]):
        model = train(settings, tables, root / "checkpoints")
        if hosts.is_first():
            save(model, root / "model/xgboost-model")


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] != "train":
        sys.exit("this image trains, and does nothing else: its one argument is train")
    root = Path(sys.argv[2] if len(sys.argv) == 3 else "/opt/ml")
    try:
        run(root)
    except UserError as error:
        why = str(error)
    except XGBoostError as error:
        # The first lines are for people, what follows is a stack of addresses.
        why = str(error).split("Stack trace:")[0].strip()
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    else:
        return
    print(f"ERROR: {why}", file=sys.stderr, flush=True)
    (root / "output/failure").write_text(why[:LARGEST_FAILURE])
    sys.exit(1)


if __name__ == "__main__":
    main()
