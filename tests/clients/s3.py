"""A tuning job whose data, artifacts and checkpoints are in S3: s3.py ENDPOINT S3_ENDPOINT ACCESS_KEY SECRET_KEY

ENDPOINT is a server with the image local/rows:1, whose every first attempt is lost after it wrote a checkpoint. Ends with the first expectation that is not met.
"""

import io
import sys
import tarfile
import time

import boto3
from botocore.config import Config

ENDPOINT, S3_ENDPOINT, ACCESS_KEY, SECRET_KEY = sys.argv[1:]
DEADLINE = 120
ROWS = 1000
credentials = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
tuner = boto3.client("sagemaker", endpoint_url=ENDPOINT, config=Config(retries={"max_attempts": 0}), **credentials)
s3 = boto3.client("s3", endpoint_url=S3_ENDPOINT, config=Config(s3={"addressing_style": "path"}), **credentials)

s3.create_bucket(Bucket="lab")
s3.put_object(Bucket="lab", Key="data/rows.csv", Body=b"1,2\n" * ROWS)
tuner.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName="far",
    HyperParameterTuningJobConfig={
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 6, "MaxParallelTrainingJobs": 3},
        "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0.5", "MaxValue": "8"}]},
    },
    TrainingJobDefinition={
        "AlgorithmSpecification": {
            "TrainingImage": "local/rows:1",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+);"}],
        },
        "RoleArn": "arn:aws:iam::000000000000:role/any",
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://lab/data/"}},
            }
        ],
        "OutputDataConfig": {"S3OutputPath": "s3://lab/models"},
        "CheckpointConfig": {"S3Uri": "s3://lab/checkpoints"},
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 300},
    },
)
begun = time.monotonic()
while True:
    job = tuner.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="far")
    if job["HyperParameterTuningJobStatus"] != "InProgress":
        break
    assert time.monotonic() - begun < DEADLINE, job
    time.sleep(0.1)
listed = tuner.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName="far")
reasons = [summary.get("FailureReason") for summary in listed["TrainingJobSummaries"]]
assert job["TrainingJobStatusCounters"]["Completed"] == 6, (job["TrainingJobStatusCounters"], reasons)
for summary in listed["TrainingJobSummaries"]:
    training = tuner.describe_training_job(TrainingJobName=summary["TrainingJobName"])
    artifacts = training["ModelArtifacts"]["S3ModelArtifacts"]
    name = training["TrainingJobName"]
    assert artifacts == f"s3://lab/models/{name}/output/model.tar.gz", artifacts
    packed = s3.get_object(Bucket="lab", Key=artifacts.removeprefix("s3://lab/"))["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(packed)) as model:
        files = {member.name: model.extractfile(member).read().decode() for member in model if member.isfile()}
    x = summary["TunedHyperParameters"]["x"]
    assert files == {"from": f"half of {x}\n", "rows": f"rows {ROWS}\n"}, files
    kept = s3.get_object(Bucket="lab", Key=f"checkpoints/{name}/half")["Body"].read()
    assert kept == f"half of {x}\n".encode(), kept
