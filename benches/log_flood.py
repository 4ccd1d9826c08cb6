"""What logs cost in memory: resident memory while training jobs write as fast as they can, above that of an idle server.

    .venv/bin/python benches/log_flood.py target/release/tunesmith [JOBS [MIB]]

Each of JOBS (1) training jobs at once writes MIB (1000) of lines that a metric is read from. Counted are the server and the
supervisors of the training jobs, at their highest. As processes, and as containers where DOCKER_HOST names a daemon.
"""

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import boto3

BINARY = str(Path(sys.argv[1]).resolve())
JOBS, MIB = (int(sys.argv[n]) if len(sys.argv) > n else otherwise for n, otherwise in ((2, 1), (3, 1000)))
FLOOD = f"yes 'epoch=1 loss=0.123456789 seconds=12.5 and a few words more' | head -c {MIB << 20}; echo loss=1"
IMAGE = "tunesmith-bench/flood:1"


def tell_image(docker_host):
    """An [[images]] entry that floods: a process, or a container of busybox."""
    if not docker_host:
        return f'command = ["/bin/sh", "-c", {FLOOD!r}]'
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(next(p for p in ("/usr/bin/busybox", "/bin/busybox") if os.path.exists(p)), "bin/busybox")
        for name in ("sh", "yes", "head", "echo"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    change = f'ENTRYPOINT ["/bin/sh", "-c", "{FLOOD}"]'
    subprocess.run(["docker", "import", "-c", change, "-", IMAGE], input=archive.getvalue(), check=True, capture_output=True)
    return f'docker_image = "{IMAGE}"'


def resident_kib(server):
    """Of the server, and of all its process's descendants and former descendants that are supervisors."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command = (status.parent / "cmdline").read_bytes().split(b"\0")
            text = status.read_text()
        except OSError:
            continue
        if command[0] == BINARY.encode() and (status.parent.name == str(server) or b"supervis" in b" ".join(command[1:2])):
            total += int(re.search(r"VmRSS:\s+(\d+)", text)[1])
    return total


def measure(docker_host):
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tunesmith.toml")
        config.write_text(
            f"max_running = {JOBS}\n[process]\nallow_root = true\n"
            f'[[images]]\nname = "bench/flood:1"\n{tell_image(docker_host)}\n'
        )
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--data-dir", f"{folder}/data", "--config", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                endpoint = next(filter(None, (re.search(r"http://[\d.]+:\d+", line) for line in server.stdout)))[0]
                flood(endpoint, server.pid)
            finally:
                server.terminate()


def flood(endpoint, pid):
    client = boto3.client(
        "sagemaker", endpoint_url=endpoint, region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    client.list_hyper_parameter_tuning_jobs()
    idle = resident_kib(pid)
    client.create_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="flood",
        HyperParameterTuningJobConfig={
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": JOBS, "MaxParallelTrainingJobs": JOBS},
            "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]},
        },
        TrainingJobDefinition={
            "AlgorithmSpecification": {
                "TrainingImage": "bench/flood:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
            },
            "RoleArn": "arn:aws:iam::000000000000:role/any",
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 600},
        },
    )
    begun, highest, status = time.monotonic(), 0, "InProgress"
    while status == "InProgress" and time.monotonic() - begun < 600:
        highest = max(highest, resident_kib(pid))
        time.sleep(0.05)
        status = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="flood")["HyperParameterTuningJobStatus"]
    seconds = time.monotonic() - begun
    print(
        f"{JOBS} jobs of {MIB} MiB of log, {status} after {seconds:.1f} s: idle {idle / 1024:.0f} MiB, highest "
        f"{highest / 1024:.0f} MiB, {(highest - idle) / 1024 / JOBS:.1f} MiB a job above idle (goal: at most 64)"
    )


print("processes:")
measure(None)
if os.environ.get("DOCKER_HOST"):
    print("containers:")
    measure(os.environ["DOCKER_HOST"])
else:
    print("containers: not measured, DOCKER_HOST is not set")
