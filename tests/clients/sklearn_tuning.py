"""A script tuned in script mode, as the SDK's SKLearn estimator asks for it: sklearn_tuning.py ENDPOINT S3_ENDPOINT ACCESS_KEY SECRET_KEY

Ends with the first expectation that is not met.
"""

import io
import json
import sys
import tarfile
import time
from pathlib import Path

import boto3
from botocore.config import Config

ENDPOINT, S3_ENDPOINT, ACCESS_KEY, SECRET_KEY = sys.argv[1:]
DEADLINE = 240
SCRIPT = """
import argparse, os
import joblib, pandas
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
import columns

parser = argparse.ArgumentParser()
parser.add_argument("--n-estimators", type=int)
parser.add_argument("--min-samples-leaf", type=int)
parser.add_argument("--criterion")
parser.add_argument("--train", default=os.environ["SM_CHANNEL_TRAIN"])
given = parser.parse_args()
rows = pandas.read_csv(f"{given.train}/rows.csv", header=None)
forest = RandomForestClassifier(given.n_estimators, criterion=given.criterion, min_samples_leaf=given.min_samples_leaf,
                                random_state=0)
features, labels = rows.drop(columns=columns.LABEL), rows[columns.LABEL]
print(f"accuracy={cross_val_score(forest, features, labels, cv=3).mean():.5f};")
joblib.dump(forest.fit(features, labels), os.path.join(os.environ["SM_MODEL_DIR"], "model.joblib"))
"""
credentials = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
tuner = boto3.client("sagemaker", endpoint_url=ENDPOINT, config=Config(retries={"max_attempts": 0}), **credentials)
s3 = boto3.client("s3", endpoint_url=S3_ENDPOINT, config=Config(s3={"addressing_style": "path"}), **credentials)


def packed(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


s3.create_bucket(Bucket="lab")
s3.put_object(Bucket="lab", Key="data/rows.csv", Body=(Path(__file__).parent / "breast_cancer.csv").read_bytes())
code = packed({"train.py": SCRIPT, "columns.py": "LABEL = 30\n", "requirements.txt": "pandas>=2\n"})
s3.put_object(Bucket="lab", Key="sklearn-job/source/sourcedir.tar.gz", Body=code)
tuner.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName="script",
    HyperParameterTuningJobConfig={
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {
            "IntegerParameterRanges": [
                {"Name": "n-estimators", "MinValue": "5", "MaxValue": "40"},
                {"Name": "min-samples-leaf", "MinValue": "1", "MaxValue": "30"},
            ],
            # The SDK encodes texts as JSON.
            "CategoricalParameterRanges": [{"Name": "criterion", "Values": ['"gini"', '"entropy"']}],
        },
    },
    TrainingJobDefinition={
        "AlgorithmSpecification": {
            "TrainingImage": "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3",
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=([0-9.]+);"}],
        },
        "StaticHyperParameters": {
            "sagemaker_program": json.dumps("train.py"),
            "sagemaker_submit_directory": json.dumps("s3://lab/sklearn-job/source/sourcedir.tar.gz"),
            "sagemaker_container_log_level": "20",
            "sagemaker_region": json.dumps("us-east-1"),
        },
        "InputDataConfig": [
            {
                "ChannelName": "train",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://lab/data"}},
            }
        ],
        "RoleArn": "arn:aws:iam::000000000000:role/any",
        "OutputDataConfig": {"S3OutputPath": "s3://lab/models"},
        "ResourceConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    },
)
begun = time.monotonic()
while True:
    job = tuner.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="script")
    if job["HyperParameterTuningJobStatus"] != "InProgress":
        break
    assert time.monotonic() - begun < DEADLINE, job
    time.sleep(0.2)
listed = tuner.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName="script")
listed = listed["TrainingJobSummaries"]
assert job["TrainingJobStatusCounters"]["Completed"] == 4, [summary.get("FailureReason") for summary in listed]
for summary in listed:
    assert summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] > 0.9, summary
    training = tuner.describe_training_job(TrainingJobName=summary["TrainingJobName"])
    channels = {c["ChannelName"]: c["DataSource"]["S3DataSource"]["S3Uri"] for c in training["InputDataConfig"]}
    assert channels == {"train": "s3://lab/data", "code": "s3://lab/sklearn-job/source/sourcedir.tar.gz"}, channels
    key = training["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://lab/")
    model = s3.get_object(Bucket="lab", Key=key)["Body"].read()
    with tarfile.open(fileobj=io.BytesIO(model)) as archive:
        assert archive.getnames() == ["model.joblib"], archive.getnames()
