"""What the XGBoost program does by the container contract, without a container: python3 -m unittest test_program"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
import unittest
from pathlib import Path

import numpy as np
import xgboost

PROGRAM = Path(__file__).parent / "program"
sys.path.insert(0, str(PROGRAM))

import metrics  # noqa: E402

BASE = {"num_round": "5", "objective": "binary:logistic", "eval_metric": "auc", "nthread": "1"}
VALIDATION_AUC = re.compile(r".*\[[0-9]+\].*#011validation-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*")


def rows(count, seed):
    """Rows of three features whose label is whether the first two add up to more than the third."""
    features = np.random.default_rng(seed).random((count, 3)).round(4)
    return np.column_stack([(features[:, 0] + features[:, 1] > features[:, 2] + 0.5).astype(int), features])


def csv(table):
    return "".join(",".join(f"{value:g}" for value in row) + "\n" for row in table)


def libsvm(table):
    return "".join(
        f"{row[0]:g} " + " ".join(f"{i}:{v:g}" for i, v in enumerate(row[1:])) + "\n" for row in table
    )


TRAIN, VALIDATION = rows(200, 1), rows(100, 2)


class Contract:
    """The folder of one host."""

    def __init__(self, test, hyperparameters, channels, kind="text/csv", hosts=("algo-1",), host=None):
        folder = tempfile.TemporaryDirectory()
        test.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name in ("input/config", "model", "output/data", "checkpoints"):
            (self.root / name).mkdir(parents=True)
        for channel, files in channels.items():
            (self.root / "input/data" / channel).mkdir(parents=True)
            for name, text in ({"data": files} if isinstance(files, str) else files).items():
                (self.root / "input/data" / channel / name).write_text(text)
        about = {} if kind is None else {"ContentType": kind}
        self.put("hyperparameters", hyperparameters)
        self.put("inputdataconfig", {channel: about for channel in channels})
        self.put("resourceconfig", {"current_host": host or hosts[0], "hosts": list(hosts)})

    def put(self, name, value):
        (self.root / f"input/config/{name}.json").write_text(json.dumps(value))

    def start(self, **variables):
        command = [sys.executable, PROGRAM, "train", self.root]
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | variables
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)

    def run(self, **variables):
        process = self.start(**variables)
        try:
            log = process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            log = process.communicate()[0]
        return process.returncode, log

    def model(self):
        return xgboost.Booster(model_file=self.root / "model/xgboost-model")


class Training(unittest.TestCase):
    def completes(self, contract):
        status, log = contract.run()
        self.assertEqual(status, 0, log)
        return log

    def fails(self, *arguments, **named):
        contract = Contract(self, *arguments, **named)
        status, log = contract.run()
        self.assertEqual(status, 1, log)
        self.assertNotIn("Traceback", log)
        return (contract.root / "output/failure").read_text()

    def test_a_csv_is_learnt_and_each_round_is_logged_as_the_service_does(self):
        contract = Contract(self, BASE, {"train": csv(TRAIN), "validation": csv(VALIDATION)})
        log = self.completes(contract)
        scraped = [VALIDATION_AUC.match(line.replace("\t", "#011")) for line in log.splitlines()]
        scraped = [float(match.group(1)) for match in scraped if match]
        self.assertEqual(len(scraped), 5)
        self.assertGreater(scraped[-1], 0.9)
        model = contract.model()
        self.assertEqual((model.num_boosted_rounds(), model.num_features()), (5, 3))

    def test_libsvm_is_what_a_channel_without_a_content_type_holds_and_learns_the_same(self):
        from_csv = Contract(self, BASE, {"train": csv(TRAIN)})
        from_libsvm = Contract(self, BASE, {"train": {"a": libsvm(TRAIN[:50]), "deep": libsvm(TRAIN[50:])}}, kind=None)
        self.completes(from_csv)
        self.completes(from_libsvm)
        self.assertEqual(from_csv.model().get_dump(), from_libsvm.model().get_dump())

    def test_an_empty_field_is_missing_and_weights_are_the_second_column(self):
        weighted = np.insert(TRAIN, 1, np.where(TRAIN[:, 0] == 1, 0, 1), axis=1)
        contract = Contract(self, BASE | {"csv_weights": "1"}, {"train": csv(weighted) + "0,1,,0.5,\n"})
        self.completes(contract)
        # Nothing but the label 0 has any weight.
        guess = contract.model().predict(xgboost.DMatrix(TRAIN[:, 1:]))
        self.assertLess(guess.max(), 0.5)

    def test_the_objective_of_the_tuning_job_is_evaluated_unasked_for(self):
        tuned = BASE | {"_tuning_objective_metric": "validation:f1", "eval_metric": "logloss"}
        log = self.completes(Contract(self, tuned, {"train": csv(TRAIN), "validation": csv(VALIDATION)}))
        self.assertRegex(log, r"\[4\]\ttrain-logloss:\S+\ttrain-f1:\S+\tvalidation-logloss:\S+\tvalidation-f1:0\.\d{5}\n")

    def test_early_stopping_keeps_the_best_round(self):
        noise = VALIDATION.copy()
        noise[:, 0] = 1 - noise[:, 0]
        contract = Contract(
            self, BASE | {"early_stopping_rounds": "3", "num_round": "50"}, {"train": csv(TRAIN), "validation": csv(noise)}
        )
        log = self.completes(contract)
        scores = [float(score) for score in re.findall(r"validation-auc:(\S+)", log)]
        self.assertLess(len(scores), 50)
        self.assertEqual(contract.model().num_boosted_rounds(), scores.index(max(scores)) + 1)

    def test_training_goes_on_from_its_last_checkpoint(self):
        contract = Contract(self, BASE | {"num_round": "3"}, {"train": csv(TRAIN)})
        self.completes(contract)
        kept = list((contract.root / "checkpoints").iterdir())
        self.assertTrue(kept and all(re.fullmatch(r"xgboost-checkpoint\.\d+", path.name) for path in kept), kept)
        done = xgboost.Booster(model_file=max(kept, key=lambda path: path.name)).num_boosted_rounds()
        (contract.root / "checkpoints/xgboost-checkpoint.99").write_text("torn")
        contract.put("hyperparameters", BASE | {"num_round": "6"})
        log = self.completes(contract)
        self.assertEqual(re.findall(r"^\[(\d+)\]", log, re.M), [str(n) for n in range(done, 6)])
        self.assertEqual(contract.model().num_boosted_rounds(), 6)

    def test_sigterm_ends_it_after_a_round_with_a_model(self):
        contract = Contract(self, BASE | {"num_round": "1000000"}, {"train": csv(TRAIN)})
        process = contract.start()
        for line in process.stdout:
            if line.startswith("[2]"):
                break
        process.send_signal(signal.SIGTERM)
        log = process.communicate(timeout=60)[0]
        self.assertEqual(process.returncode, 0, log[-2000:])
        self.assertGreaterEqual(contract.model().num_boosted_rounds(), 3)

    def test_two_hosts_train_one_model_and_the_first_writes_it(self):
        hosts = ("127.0.0.1", "localhost")
        halves = (TRAIN[:80], TRAIN[80:])
        contracts = [
            Contract(self, BASE, {"train": csv(half), "validation": csv(VALIDATION)}, hosts=hosts, host=host)
            for host, half in zip(hosts, halves)
        ]
        ends = self.together(contracts)
        self.assertIn("[4]\ttrain-auc:", ends[0][1])
        self.assertNotIn("[4]", ends[1][1])
        self.assertFalse(list((contracts[1].root / "model").iterdir()))
        alone = Contract(self, BASE, {"train": csv(TRAIN), "validation": csv(VALIDATION)})
        self.completes(alone)
        probe = xgboost.DMatrix(VALIDATION[:, 1:])
        # All rows were learnt from: the model is about that of one host that has them all.
        difference = np.abs(contracts[0].model().predict(probe) - alone.model().predict(probe))
        self.assertLess(difference.mean(), 0.05)

    def test_a_host_without_rows_trains_along(self):
        hosts = ("127.0.0.1", "localhost")
        channels = [{"train": csv(TRAIN)}, {"train": {}}]
        contracts = [Contract(self, BASE, c, hosts=hosts, host=host) for host, c in zip(hosts, channels)]
        self.together(contracts)
        self.assertEqual(contracts[0].model().num_boosted_rounds(), 5)

    def together(self, contracts):
        ends = [None] * len(contracts)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])

        def run(n):
            ends[n] = contracts[n].run(XGBOOST_TRACKER_PORT=port)

        threads = [threading.Thread(target=run, args=(n,)) for n in range(len(contracts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(all(status == 0 for status, _ in ends), ends)
        return ends

    def test_what_the_user_can_mend_is_told(self):
        train = {"train": csv(TRAIN)}
        cases = [
            ((BASE | {"eta": "2", "depth": "3"}, train), ["eta can't be '2'", "depth is not known"]),
            (({"objective": "multi:softmax"}, train), ["num_round is missing", "num_class"]),
            ((BASE | {"eval_metric": "auc,roc"}, train), ["roc is not a metric"]),
            ((BASE, {"validation": csv(VALIDATION)}), ["channel train is missing"]),
            ((BASE, {"train": ""}), ["no data in the channel train"]),
            ((BASE, {"train": "label,a,b\n1,2,3\n"}), ["not a CSV of numbers", "no header"]),
            ((BASE, {"train": {"a": "\n", "b": "1,2,3\n", "c": "1,2\n"}}), ["differ in their columns: b has 3, c has 2"]),
            ((BASE, {"train": csv(TRAIN), "validation": "1,2\n"}), ["validation has 1 features"]),
            ((BASE | {"num_round": "5"}, {"train": "5,1\n7,2\n"}), ["has the label 5; labels are from 0 to 1"]),
        ]
        for arguments, told in cases:
            with self.subTest(told=told):
                failure = self.fails(*arguments)
                for part in told:
                    self.assertIn(part, failure)
        self.assertIn("application/x-parquet is not read", self.fails(BASE, train, kind="application/x-parquet"))
        self.assertIn("line 1 is not libsvm", self.fails(BASE, train, kind="text/libsvm"))


class Metrics(unittest.TestCase):
    def test_all_of_them_are_predefined(self):
        images = tomllib.loads((PROGRAM.parent.parent / "tunesmith.toml").read_text())["images"]
        defined = {d["name"]: d["regex"] for d in images[0]["metric_definitions"]}
        self.assertEqual(set(defined), {f"{channel}:{name}" for channel in ("train", "validation") for name in metrics.ALL})
        for name, regex in defined.items():
            channel, _, metric = name.partition(":")
            line = f"[7]#011x:1#011{channel}-{metric}:0.25000#011y:2"
            self.assertEqual(re.findall(regex, line), ["0.25000"], name)
    TRUTH, GUESS = np.array([0, 1, 2, 2, 1, 0.0]), np.array([0, 2, 2, 2, 1, 1.0])

    def scores(self, *names):
        return [metrics.CLASSIFYING[name](self.TRUTH, self.GUESS) for name in names]

    def test_classes_are_counted_as_usual(self):
        # By class: 0 is found once of 2, 1 once of 2 among 2 guesses, 2 twice of 2 among 3 guesses.
        expected = [4 / 6, (1 + 1 / 2 + 2 / 3) / 3, (1 / 2 + 1 / 2 + 1) / 3, (2 / 3 + 1 / 2 + 4 / 5) / 3, 4 / 6]
        names = ["accuracy", "precision_macro", "recall_macro", "f1", "recall_micro"]
        np.testing.assert_allclose(self.scores(*names), expected)

    def test_binary_scores_are_those_of_class_1(self):
        np.testing.assert_allclose(self.scores("precision", "recall", "f1_binary"), [1 / 2, 1 / 2, 1 / 2])
        nothing = np.zeros(3)
        self.assertEqual(metrics.CLASSIFYING["f1_binary"](nothing, nothing), 0)


if __name__ == "__main__":
    unittest.main()
