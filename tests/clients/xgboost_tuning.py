"""The service guide's XGBoost tuning job on real data: xgboost_tuning.py ENDPOINT S3_ENDPOINT ACCESS_KEY SECRET_KEY

The request is the guide's, for 12 training jobs and with data, bucket and role of its own: no metric definitions, the
image under its name on AWS. Ends with the first expectation that is not met.
"""

import csv
import io
import random
import sys
import tarfile
import time
from pathlib import Path

import boto3
import numpy
import xgboost
from botocore.config import Config

ENDPOINT, S3_ENDPOINT, ACCESS_KEY, SECRET_KEY = sys.argv[1:]
DEADLINE = 240
JOBS, PARALLEL, INSTANCES = 12, 3, 2
credentials = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "region_name": "us-east-1"}
tuner = boto3.client("sagemaker", endpoint_url=ENDPOINT, config=Config(retries={"max_attempts": 0}), **credentials)
s3 = boto3.client("s3", endpoint_url=S3_ENDPOINT, config=Config(s3={"addressing_style": "path"}), **credentials)
bucket, prefix = "lab", "breast-cancer"
role = "arn:aws:iam::000000000000:role/any"
training_image = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:1.0-1-cpu-py3"


def as_csv(rows):
    return "".join(",".join(row) + "\n" for row in rows).encode()


# The service wants the label first; in the file it is last.
rows = [row[-1:] + row[:-1] for row in csv.reader((Path(__file__).parent / "breast_cancer.csv").open())]
random.Random(0).shuffle(rows)
validation = rows[:170]
s3.create_bucket(Bucket=bucket)
s3.put_object(Bucket=bucket, Key=f"{prefix}/train/a.csv", Body=as_csv(rows[170:370]))
s3.put_object(Bucket=bucket, Key=f"{prefix}/train/b.csv", Body=as_csv(rows[370:]))
s3.put_object(Bucket=bucket, Key=f"{prefix}/validation/rows.csv", Body=as_csv(validation))


def channel(name, uri):
    source = {"S3DataDistributionType": "FullyReplicated", "S3DataType": "S3Prefix", "S3Uri": uri}
    return {
        "ChannelName": name,
        "CompressionType": "None",
        "ContentType": "csv",
        "DataSource": {"S3DataSource": source},
    }


tuner.create_hyper_parameter_tuning_job(
    HyperParameterTuningJobName="MyTuningJob",
    HyperParameterTuningJobConfig={
        "ParameterRanges": {
            "CategoricalParameterRanges": [],
            "ContinuousParameterRanges": [
                {"MaxValue": "1", "MinValue": "0", "Name": "eta"},
                {"MaxValue": "2", "MinValue": "0", "Name": "alpha"},
                {"MaxValue": "10", "MinValue": "1", "Name": "min_child_weight"},
            ],
            "IntegerParameterRanges": [{"MaxValue": "10", "MinValue": "1", "Name": "max_depth"}],
        },
        "ResourceLimits": {"MaxNumberOfTrainingJobs": JOBS, "MaxParallelTrainingJobs": PARALLEL},
        "Strategy": "Bayesian",
        "HyperParameterTuningJobObjective": {"MetricName": "validation:auc", "Type": "Maximize"},
        "RandomSeed": 123,
    },
    TrainingJobDefinition={
        "AlgorithmSpecification": {"TrainingImage": training_image, "TrainingInputMode": "File"},
        "InputDataConfig": [
            channel("train", f"s3://{bucket}/{prefix}/train"),
            channel("validation", f"s3://{bucket}/{prefix}/validation/"),
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{prefix}/output"},
        "ResourceConfig": {"InstanceCount": INSTANCES, "InstanceType": "ml.c4.2xlarge", "VolumeSizeInGB": 10},
        "RoleArn": role,
        "StaticHyperParameters": {
            "eval_metric": "auc",
            "num_round": "100",
            "objective": "binary:logistic",
            "rate_drop": "0.3",
            "tweedie_variance_power": "1.4",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 43200},
    },
)
begun = time.monotonic()
while True:
    job = tuner.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="MyTuningJob")
    if job["HyperParameterTuningJobStatus"] != "InProgress":
        break
    assert time.monotonic() - begun < DEADLINE, job
    time.sleep(0.2)
listed = tuner.list_training_jobs_for_hyper_parameter_tuning_job(
    HyperParameterTuningJobName="MyTuningJob",
    MaxResults=100,
    SortBy="FinalObjectiveMetricValue",
    SortOrder="Descending",
)["TrainingJobSummaries"]
reasons = [summary.get("FailureReason") for summary in listed]
assert job["TrainingJobStatusCounters"]["Completed"] == JOBS, (job, reasons)
assert len(listed) == JOBS, listed
scores = [summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for summary in listed]
assert scores == sorted(scores, reverse=True) and scores[0] > 0.98, scores
# The image trained by what the tuning job suggested.
assert len(set(scores)) > 3, scores

best = tuner.describe_training_job(TrainingJobName=job["BestTrainingJob"]["TrainingJobName"])
metrics = {metric["MetricName"]: metric["Value"] for metric in best["FinalMetricDataList"]}
assert metrics["validation:auc"] == scores[0] and metrics["train:auc"] > 0.98, metrics
# Dozens of predefined metrics were not asked for, and are no news.
assert len(best["SecondaryStatusTransitions"][-1]["StatusMessage"]) < 1000, best["SecondaryStatusTransitions"][-1]

key = best["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
packed = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
    assert archive.getnames() == ["xgboost-model"], archive.getnames()
    model = xgboost.Booster(model_file=bytearray(archive.extractfile("xgboost-model").read()))
assert model.num_boosted_rounds() == 100 and model.num_features() == 30
model.set_param({"eval_metric": "auc"})
table = numpy.array(validation, float)
scored = model.eval(xgboost.DMatrix(table[:, 1:], table[:, 0]), "validation")
auc = float(scored.rpartition(":")[2])
assert abs(auc - scores[0]) < 1e-4, (scored, scores[0])

for summary in listed:
    value = summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    tuned = sorted(summary["TunedHyperParameters"].items())
    print(f"{summary['TrainingJobName']}  {value:.5f}  " + "  ".join(f"{name} {text[:6]}" for name, text in tuned))
