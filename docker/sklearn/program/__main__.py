"""Runs the user's script as the service's framework images do: python3 program train [ROOT]

The hyperparameter sagemaker_program names the script. Where sagemaker_submit_directory is an archive in S3, the server
has put it into the channel `code` (script_mode of an [[images]] entry), as this program has no credentials; a folder
or an archive of the image or of another channel is taken as it is. The script gets the other hyperparameters as
`--name value` and finds the SM_* variables, which the server sets. Its exit code is the program's.
"""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zlib
from pathlib import Path

LARGEST_FAILURE = 1024


class UserError(Exception):
    """What the user can mend; the text says how."""


def decoded(text):
    """The SDK sends texts as JSON, people send them plain."""
    try:
        return json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text


def source(root, hyperparameters):
    """The folder that has the user's files."""
    submitted = decoded(hyperparameters.get("sagemaker_submit_directory", "")).removeprefix("file://")
    if not submitted or submitted.startswith("s3://"):
        place = root / "input/data/code"
        if not place.exists():
            raise UserError(
                "there is no code: sagemaker_submit_directory is to name an archive in S3, and the server's [[images]] "
                "entry of this image to have script_mode = true, or there is to be a channel named code"
            )
        archive = place / submitted.rpartition("/")[2] if submitted else None
        # The user's own channel may hold the files themselves, as newer SDKs have it.
        place = archive if archive and archive.is_file() else place
    else:
        place = Path(submitted)
        if not place.exists():
            raise UserError(f"sagemaker_submit_directory is {submitted}, which is not there")
    if place.is_dir():
        return place
    folder = Path(tempfile.mkdtemp(prefix="code-"))
    try:
        unpack(place, folder)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{place.name} can't be unpacked: {error}") from error
    return folder


def unpack(archive, folder):
    """Files and folders, each with its permissions; Debian's Python has no safe extraction of its own yet."""
    with tarfile.open(archive) as members:
        for member in members:
            name = Path(member.name)
            if name.is_absolute() or ".." in name.parts or not (member.isfile() or member.isdir()):
                raise UserError(f"{archive.name} holds {member.name}, which is no file or folder within it")
            if member.isdir():
                (folder / name).mkdir(parents=True, exist_ok=True)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with members.extractfile(member) as packed, (folder / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
                    os.fchmod(unpacked.fileno(), member.mode & 0o777 | 0o600)


def check_requirements(folder):
    """Nothing can be installed where there is no network: what is asked for is to be in the image."""
    path = folder / "requirements.txt"
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        wanted = line.partition("#")[0].strip()
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", wanted)
        if not wanted:
            continue
        try:
            version = importlib.metadata.version(name.group()) if name else None
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is None:
            raise UserError(f"requirements.txt asks for {wanted}, which this image does not have: make an image with it")
        print(f"requirements.txt asks for {wanted}; this image has {version}", flush=True)


def command(script, arguments):
    if script.suffix == ".py":
        return [sys.executable, str(script), *arguments]
    if script.suffix == ".sh":
        return ["/bin/sh", str(script), *arguments]
    raise UserError(f"sagemaker_program is {script}; scripts of Python (.py) and of the shell (.sh) are run")


def run(root):
    """Runs the script; its exit code, and the end of what it wrote to its standard error."""
    hyperparameters = json.loads((root / "input/config/hyperparameters.json").read_text())
    program = decoded(hyperparameters.get("sagemaker_program", ""))
    if not program:
        raise UserError("the hyperparameter sagemaker_program is missing: it names the script to run")
    folder = source(root, hyperparameters)
    script = folder / program
    if not script.resolve().is_relative_to(folder.resolve()) or not script.is_file():
        there = ", ".join(sorted(path.name for path in folder.iterdir()))
        raise UserError(f"sagemaker_program is {program}, which is not among the files of the code: {there}")
    check_requirements(folder)
    if "SM_USER_ARGS" not in os.environ:
        raise UserError("SM_USER_ARGS, the script's arguments, is not set: the server is to set it")
    words = command(Path(program), json.loads(os.environ["SM_USER_ARGS"]))
    print("running", " ".join(words), flush=True)
    environment = os.environ | {
        "SM_USER_ENTRY_POINT": program,
        "SM_MODULE_NAME": script.stem,
        "SM_MODULE_DIR": decoded(hyperparameters.get("sagemaker_submit_directory", str(folder))),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
    }
    process = subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.PIPE)
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    tail = bytearray()
    teeing = threading.Thread(target=tee, args=(process.stderr, tail), daemon=True)
    teeing.start()
    status = process.wait()
    # Something that the script left behind may hold its standard error open.
    teeing.join(timeout=5)
    return (status if status >= 0 else 128 - status), bytes(tail).decode(errors="replace").strip()


def tee(errors, tail):
    while chunk := errors.read1(65536):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        tail += chunk
        del tail[: -LARGEST_FAILURE // 2]


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] != "train":
        sys.exit("this image trains, and does nothing else: its one argument is train")
    root = Path(sys.argv[2] if len(sys.argv) == 3 else "/opt/ml")
    try:
        status, errors = run(root)
        why = f"the script ended with {status}: {errors}" if status else ""
    except UserError as error:
        status, why = 1, str(error)
        print(f"ERROR: {why}", file=sys.stderr, flush=True)
    failure = root / "output/failure"
    # What the script wrote there itself tells more.
    if why and not failure.exists():
        failure.write_text(why[:LARGEST_FAILURE])
    sys.exit(status)


if __name__ == "__main__":
    main()
