"""What script mode does by the container contract, without a container: python3 -m unittest test_program"""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(__file__).parent / "program"
SUBMITTED = '"s3://lab/code/sourcedir.tar.gz"'
# Shows what a script is given.
SHOW = "import json, os, sys; print('given', json.dumps([sys.argv, os.environ['SM_MODULE_NAME'], os.getcwd()]))"


def packed(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


class ScriptMode(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name in ("input/config", "input/data", "output"):
            (self.root / name).mkdir(parents=True)

    def start(self, hyperparameters, arguments=()):
        (self.root / "input/config/hyperparameters.json").write_text(json.dumps(hyperparameters))
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        if arguments is not None:
            environment["SM_USER_ARGS"] = json.dumps(list(arguments))
        command = [sys.executable, PROGRAM, "train", self.root]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def run_with(self, files, program='"train.py"', arguments=(), submitted=SUBMITTED):
        if files is not None:
            (self.root / "input/data/code").mkdir(exist_ok=True)
            (self.root / "input/data/code/sourcedir.tar.gz").write_bytes(packed(files))
        hyperparameters = {"sagemaker_program": program, "sagemaker_submit_directory": submitted, "x": "1"}
        process = self.start(hyperparameters, arguments)
        log, errors = process.communicate(timeout=60)
        return process.returncode, log, errors

    def failure(self):
        return (self.root / "output/failure").read_text()

    def test_the_script_of_the_archive_gets_the_hyperparameters(self):
        status, log, errors = self.run_with({"train.py": SHOW, "helper.py": ""}, arguments=["--x", "1", "-v", "True"])
        self.assertEqual(status, 0, errors)
        argv, module, folder = json.loads(log.partition("given ")[2])
        self.assertEqual((argv, module), (["train.py", "--x", "1", "-v", "True"], "train"))
        self.assertFalse(folder.startswith(str(self.root)))

    def test_a_script_in_a_subfolder_runs_where_the_code_begins(self):
        status, log, errors = self.run_with({"src/train.py": SHOW, "data.txt": ""}, '"src/train.py"')
        self.assertEqual(status, 0, errors)
        argv, module, folder = json.loads(log.partition("given ")[2])
        self.assertEqual((argv, module), (["src/train.py"], "train"))
        self.assertNotEqual(Path(folder).name, "src")

    def test_a_server_that_gives_no_arguments_is_told(self):
        status, _, _ = self.run_with({"train.py": SHOW}, arguments=None)
        self.assertEqual(status, 1)
        self.assertIn("SM_USER_ARGS, the script's arguments, is not set", self.failure())

    def test_files_in_a_channel_or_in_the_image_are_run_where_they_are(self):
        for submitted, place in ((SUBMITTED, "input/data/code"), (None, "image")):
            place = self.root / place
            place.mkdir()
            (place / "train.py").write_text(SHOW)
            status, log, errors = self.run_with(None, "train.py", submitted=submitted or f"file://{place}")
            self.assertEqual(status, 0, errors)
            self.assertEqual(json.loads(log.partition("given ")[2])[2], str(place))

    def test_a_script_that_fails_tells_why(self):
        status, _, errors = self.run_with({"train.py": "import sys; print('oh no', file=sys.stderr); sys.exit(7)"})
        self.assertEqual((status, errors), (7, "oh no\n"))
        self.assertEqual(self.failure(), "the script ended with 7: oh no")

    def test_what_the_user_can_mend_is_told(self):
        cases = [
            (None, '"train.py"', "there is no code"),
            ({"train.py": SHOW}, '"other.py"', "not among the files of the code: train.py"),
            ({"train.py": SHOW}, '"../train.py"', "not among the files of the code"),
            ({"train.py": SHOW}, '""', "sagemaker_program is missing"),
            ({"train.py": SHOW, "requirements.txt": "no-such-package>=1\n"}, '"train.py"', "no-such-package>=1"),
            ({"../out.py": SHOW}, '"train.py"', "holds ../out.py, which is no file or folder within it"),
        ]
        for files, program, told in cases:
            with self.subTest(told=told):
                (self.root / "output/failure").unlink(missing_ok=True)
                status, _, errors = self.run_with(files, program)
                self.assertEqual(status, 1)
                self.assertIn(told, self.failure())
                self.assertNotIn("Traceback", errors)

    def test_sigterm_reaches_the_script(self):
        script = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(3))\nprint('ready')\nsignal.pause()"
        (self.root / "input/data/code").mkdir()
        (self.root / "input/data/code/train.py").write_text(script)
        process = self.start({"sagemaker_program": "train.py"})
        while process.stdout.readline() != "ready\n":
            pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 3)


if __name__ == "__main__":
    unittest.main()
