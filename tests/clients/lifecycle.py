"""A tuning job from its creation to its end, by boto3: lifecycle.py ENDPOINT BUCKETS

ENDPOINT is a server with the images local/score:1 (prints `score=<x>`, copies its channel into its model) and
local/sleep:1; BUCKETS is the folder that stands for S3. Ends with the first expectation that is not met.
"""

import sys
import tarfile
import time
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

ENDPOINT, BUCKETS = sys.argv[1], Path(sys.argv[2])
DEADLINE = 120
client = boto3.client(
    "sagemaker",
    endpoint_url=ENDPOINT,
    region_name="eu-west-1",
    aws_access_key_id="any",
    aws_secret_access_key="any",
    config=Config(retries={"max_attempts": 0}),
)


def request(name, image="local/score:1", jobs=6, parallel=2):
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": jobs, "MaxParallelTrainingJobs": parallel},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0.5", "MaxValue": "8"}],
                "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}],
                "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
            },
            "RandomSeed": 7,
        },
        "TrainingJobDefinition": {
            "AlgorithmSpecification": {
                "TrainingImage": image,
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.]+)"}],
            },
            "StaticHyperParameters": {"fixed": "yes"},
            "RoleArn": "arn:aws:iam::000000000000:role/any",
            "InputDataConfig": [
                {
                    "ChannelName": "train",
                    "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/data/"}},
                }
            ],
            "OutputDataConfig": {"S3OutputPath": "s3://bucket/models"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 300},
        },
        "Tags": [{"Key": "team", "Value": "search"}],
    }


def describe(name):
    return client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)


def wait_for(name, *statuses):
    """Polls as the SageMaker SDK does, only faster."""
    begun = time.monotonic()
    while time.monotonic() - begun < DEADLINE:
        described = describe(name)
        if described["HyperParameterTuningJobStatus"] in statuses:
            return described
        time.sleep(0.1)
    raise AssertionError(f"{name} is not {statuses} after {DEADLINE} s: {described}")


def equal(actual, expected, what):
    assert actual == expected, f"{what}: {actual!r} is not {expected!r}"


def refused(code, text, operation, **arguments):
    try:
        getattr(client, operation)(**arguments)
    except ClientError as error:
        equal(error.response["Error"]["Code"], code, operation)
        assert text in error.response["Error"]["Message"], f"{operation}: {error}"
        equal(error.response["ResponseMetadata"]["HTTPStatusCode"], 400, operation)
        assert error.response["ResponseMetadata"]["RequestId"], f"{operation}: no request id"
    else:
        raise AssertionError(f"{operation} was not refused")


def whole_life():
    data = BUCKETS / "bucket/data"
    data.mkdir(parents=True)
    (data / "rows.csv").write_text("1,2\n")
    arn = client.create_hyper_parameter_tuning_job(**request("life"))["HyperParameterTuningJobArn"]
    equal(arn, "arn:aws:sagemaker:eu-west-1:000000000000:hyper-parameter-tuning-job/life", "ARN")
    described = wait_for("life", "Completed", "Failed", "Stopped")
    equal(described["HyperParameterTuningJobStatus"], "Completed", "status")
    equal(described["TrainingJobStatusCounters"]["Completed"], 6, "completed")
    equal(described["ObjectiveStatusCounters"], {"Succeeded": 6, "Pending": 0, "Failed": 0}, "objectives")

    listed = client.list_training_jobs_for_hyper_parameter_tuning_job(
        HyperParameterTuningJobName="life", SortBy="FinalObjectiveMetricValue", SortOrder="Descending"
    )["TrainingJobSummaries"]
    values = [job["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for job in listed]
    equal(values, sorted(values, reverse=True), "order")
    for job, value in zip(listed, values):
        equal(round(float(job["TunedHyperParameters"]["x"]), 4), round(value, 4), "objective of " + job["TrainingJobName"])
    best = described["BestTrainingJob"]
    equal(best["TrainingJobName"], listed[0]["TrainingJobName"], "best")

    training = client.describe_training_job(TrainingJobName=best["TrainingJobName"])
    equal(training["TrainingJobStatus"], "Completed", "training status")
    equal(training["TuningJobArn"], arn, "TuningJobArn")
    equal(training["HyperParameters"]["fixed"], "yes", "static hyperparameter")
    equal(training["HyperParameters"]["_tuning_objective_metric"], "score", "objective hyperparameter")
    equal(training["FinalMetricDataList"][0]["MetricName"], "score", "final metric")
    uri = training["ModelArtifacts"]["S3ModelArtifacts"]
    equal(uri, f"s3://bucket/models/{best['TrainingJobName']}/output/model.tar.gz", "artifact")
    with tarfile.open(BUCKETS / uri.removeprefix("s3://")) as archive:
        equal(archive.extractfile(archive.getmember("rows.csv")).read(), b"1,2\n", "model")

    pages = client.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName="life", PaginationConfig={"PageSize": 2}
    )
    names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    equal(names, sorted(job["TrainingJobName"] for job in listed), "paginated names")
    summaries = client.list_hyper_parameter_tuning_jobs(NameContains="IF", StatusEquals="Completed")
    equal([job["HyperParameterTuningJobName"] for job in summaries["HyperParameterTuningJobSummaries"]], ["life"], "list")
    found = client.list_training_jobs(NameContains="life", SortBy="Name", MaxResults=100)["TrainingJobSummaries"]
    equal([job["TrainingJobName"] for job in found], names, "training jobs")

    client.get_waiter("training_job_completed_or_stopped").wait(
        TrainingJobName=names[0], WaiterConfig={"Delay": 1, "MaxAttempts": 2}
    )
    return arn, names


def by_a_model():
    """Bayesian search gets near the greatest x, which is 8."""
    model = request("model", jobs=14)
    model["HyperParameterTuningJobConfig"]["Strategy"] = "Bayesian"
    client.create_hyper_parameter_tuning_job(**model)
    described = wait_for("model", "Completed", "Failed", "Stopped")
    equal(described["HyperParameterTuningJobConfig"]["Strategy"], "Bayesian", "strategy")
    equal(described["TrainingJobStatusCounters"]["Completed"], 14, "completed")
    best = described["BestTrainingJob"]["FinalHyperParameterTuningJobObjectiveMetric"]["Value"]
    assert best > 7.5, f"the best of 14 is {best}"


def tags(arn, training_job):
    child = client.describe_training_job(TrainingJobName=training_job)["TrainingJobArn"]
    equal(client.list_tags(ResourceArn=child)["Tags"], [{"Key": "team", "Value": "search"}], "a training job's tags")
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "vision"}, {"Key": "cost", "Value": "low"}])
    client.delete_tags(ResourceArn=arn, TagKeys=["cost"])
    equal(client.list_tags(ResourceArn=arn)["Tags"], [{"Key": "team", "Value": "vision"}], "tags")


def stopping():
    client.create_hyper_parameter_tuning_job(**request("stopped", image="local/sleep:1", jobs=4))
    begun = time.monotonic()
    while describe("stopped")["TrainingJobStatusCounters"]["InProgress"] < 2:
        assert time.monotonic() - begun < DEADLINE, "no training job started"
        time.sleep(0.1)
    refused("ValidationException", "terminal", "delete_hyper_parameter_tuning_job", HyperParameterTuningJobName="stopped")
    client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    described = wait_for("stopped", "Completed", "Failed", "Stopped")
    equal(described["HyperParameterTuningJobStatus"], "Stopped", "status")
    equal(described["TrainingJobStatusCounters"]["Stopped"], 2, "stopped training jobs")
    children = client.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName="stopped")
    for job in children["TrainingJobSummaries"]:
        client.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName=job["TrainingJobName"], WaiterConfig={"Delay": 1, "MaxAttempts": 2}
        )


def errors():
    name = {"HyperParameterTuningJobName": "nowhere"}
    missing = "Amazon SageMaker can't find a tuning job called nowhere. Type another name."
    refused("ResourceNotFound", missing, "describe_hyper_parameter_tuning_job", **name)
    refused("ResourceNotFound", missing, "stop_hyper_parameter_tuning_job", **name)
    not_found = "Requested resource not found."
    refused("ValidationException", not_found, "describe_training_job", TrainingJobName="nowhere")
    taken = "A hyperparameter tuning job with the name, Life, already exists. Choose a different name."
    refused("ResourceInUse", taken, "create_hyper_parameter_tuning_job", **request("Life"))
    constraint = "1 validation error detected: Value 'not_a_name' at 'hyperParameterTuningJobName' failed to satisfy constraint"
    refused("ValidationException", constraint, "create_hyper_parameter_tuning_job", **request("not_a_name"))
    refused("ValidationException", "local/score:1", "create_hyper_parameter_tuning_job", **request("b", image="none:1"))
    # The client passes on a strategy that its own model does not know.
    extension = request("extension")
    extension["HyperParameterTuningJobConfig"]["Strategy"] = "CMA"
    refused("ValidationException", "TPE, SMAC, Anneal]", "create_hyper_parameter_tuning_job", **extension)
    unknown = request("unknown")
    unknown["HyperParameterTuningJobConfig"]["Strategy"] = "Hyperband"
    refused("ValidationException", "MaxResource parameter is not provided", "create_hyper_parameter_tuning_job", **unknown)
    beyond = request("beyond", parallel=101, jobs=200)
    refused("ResourceLimitExceeded", "100", "create_hyper_parameter_tuning_job", **beyond)
    try:
        client.get_waiter("training_job_completed_or_stopped").wait(
            TrainingJobName="nowhere", WaiterConfig={"Delay": 1, "MaxAttempts": 1}
        )
    except WaiterError:
        pass
    else:
        raise AssertionError("the waiter found a training job that does not exist")


def deleting(names):
    client.delete_hyper_parameter_tuning_job(HyperParameterTuningJobName="life")
    refused("ResourceNotFound", "life", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName="life")
    equal(client.describe_training_job(TrainingJobName=names[0])["TrainingJobStatus"], "Completed", "after the delete")
    client.delete_training_job(TrainingJobName=names[0])
    refused("ValidationException", "Requested resource not found.", "describe_training_job", TrainingJobName=names[0])


life_arn, training_jobs = whole_life()
by_a_model()
tags(life_arn, training_jobs[0])
errors()
stopping()
deleting(training_jobs)
print("every expectation was met")
