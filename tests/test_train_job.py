"""The training as a command, and as a job of the embedded Batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import pytest
from botocore.stub import ANY, Stubber
from small_mnist import small_mnist

from genokit import Batch, Settings, train
from genokit.backends import Clients
from genokit.errors import InvalidParameters
from genokit.train.__main__ import main
from genokit.train.job import for_job


@pytest.fixture(scope="module")
def few(mnist, tmp_path_factory):
    return small_mnist(train.load_digits(mnist), tmp_path_factory.mktemp("few digits"), 256, 256)


def test_a_job_gives_the_same_weights_as_fit(few, account):
    parameters = train.Parameters(batch_size=128)
    job = train.submit(few, parameters, batch=Batch(settings=account), epochs=2).wait()
    assert job.status == "SUCCEEDED", job.log()
    assert job.name.startswith("lenet-")
    model = train.load(job.parameters["out"])
    assert account.home in model_path(job).parents
    here = train.fit(few, parameters.replace(epochs=2), progress=False)
    assert model.sha256 == here.model.sha256
    assert model.sha256 in job.log()
    read = train.History.from_log(job.log())
    assert read.parameters == model.parameters
    assert np.allclose(read.table["validation_accuracy"], here.table["validation_accuracy"], atol=1e-6)

    # The same out again, said from here: the checkpoint there is whole, so there is nothing left to train.
    out = os.path.relpath(job.parameters["out"])
    again = train.submit(few, parameters, epochs=2, out=out, batch=Batch(settings=account)).wait()
    assert again.parameters["out"] == job.parameters["out"]
    assert again.status == "SUCCEEDED", again.log()
    assert model.sha256 in again.log()
    assert again.log().count("Epoch[1] Validation-accuracy") == 1  # told again, not trained again
    assert len(train.History.from_log(again.log())) == 2


def model_path(job):
    return Path(job.parameters["out"]) / "lenet.safetensors"


def test_an_impossible_training_is_refused_before_submission(few, account):
    batch = Batch(settings=account)
    with pytest.raises(InvalidParameters, match=r"'epoch'\. Did you mean 'epochs'"):
        train.submit(few, epoch=3, batch=batch)
    with pytest.raises(InvalidParameters, match=r"needs a GPU\. Use gpus=1"):
        train.submit(few, device="gpu", batch=batch)
    with pytest.raises(InvalidParameters, match="threads=4 need as many vCPUs, got vcpus=1"):
        train.submit(few, threads=4, batch=batch)
    with pytest.raises(InvalidParameters, match="bfloat16' needs PyTorch"):
        train.submit(few, engine="mxnet", precision="bfloat16", batch=batch)
    for submit in (train.submit, train.sweep, partial(train.predict, "lenet.safetensors")):
        with pytest.raises(InvalidParameters, match=r"dataset must be fetched data.*got 'mnist'"):
            submit("mnist", batch=batch)
    assert len(batch.jobs()) == 0


def test_a_job_with_a_gpu_trains_on_it_also_if_the_parameters_say_so_too():
    for parameters in (train.Parameters(), train.Parameters(device="gpu")):
        assert for_job(parameters, gpus=1, vcpus=4) == train.Parameters(device="gpu", threads=4)


def test_a_job_on_aws_keeps_its_checkpoint_in_the_stacks_bucket(few, tmp_path):
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    client, formation = boto3.client("batch", **keys), boto3.client("cloudformation", **keys)
    batch = Batch(Clients(Settings(home=tmp_path, backend="aws"), batch=client, cloudformation=formation))
    arn = "arn:aws:batch:us-east-1:123456789012:job-definition/lenet:1"
    with Stubber(client) as stubber, Stubber(formation) as formed:
        formed.add_response("describe_stacks", {"Stacks": [stack()]}, {"StackName": "genokit-batch"})
        stubber.add_response("describe_job_definitions", {"jobDefinitions": []})
        stubber.add_response(
            "register_job_definition", {"jobDefinitionName": "lenet", "jobDefinitionArn": arn, "revision": 1}
        )
        place = {"computeEnvironmentName": "gpus", "computeEnvironmentArn": "arn:gpus", "ecsClusterArn": "arn:cluster"}
        order = [{"order": 1, "computeEnvironment": "arn:gpus"}]
        queue = {"jobQueueName": "gpu", "jobQueueArn": "arn:aws:batch:us-east-1:123456789012:job-queue/gpu"}
        queue |= {"state": "ENABLED", "priority": 1, "computeEnvironmentOrder": order}
        stubber.add_response("describe_job_queues", {"jobQueues": [queue]})
        stubber.add_response("describe_compute_environments", {"computeEnvironments": [place]})
        given = {
            "jobName": ANY, "jobQueue": "gpu", "jobDefinition": arn, "parameters": Bucket(), "containerOverrides": {},
            "propagateTags": True, "tags": ANY,
        }  # fmt: skip
        stubber.add_response("submit_job", {"jobName": "lenet", "jobId": "ab12"}, given)
        assert train.submit(few, queue="gpu", batch=batch).id == "ab12"
        stubber.assert_no_pending_responses()


class Bucket:
    """Parameters whose checkpoint is in the stack's bucket."""

    def __eq__(self, parameters):
        return parameters["out"].startswith("s3://bucket/train/lenet-")


def stack():
    """A deployed stack, as far as a submission asks for it."""
    names = ("ImageCpu", "ImageGpu", "JobRole", "ExecutionRole", "LogGroup", "Bucket")
    outputs = [{"OutputKey": name, "OutputValue": name.lower()} for name in names]
    return {"StackName": "genokit-batch", "StackStatus": "CREATE_COMPLETE", "CreationTime": 0, "Outputs": outputs}


@pytest.fixture
def handlers():
    """What handles signals here: the command takes them over for the rest of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_command_reports_every_mistake_in_one_line(few, tmp_path, capsys, handlers):
    wishes = {
        "--epochs 0 --momentum 2": "epochs must be a whole number from 1 to 10000, got 0\nmomentum must be",
    }
    for words, said in wishes.items():
        assert main(["--data", few.ref, "--out", str(tmp_path), *words.split()]) == 1
        assert said in capsys.readouterr().err
    assert main(["--data", "mnits", "--out", str(tmp_path)]) == 1
    assert "Did you mean 'mnist'?" in capsys.readouterr().err


def test_the_command_says_that_the_training_diverged(few, tmp_path):
    words = ["--data", few.ref, "--out", str(tmp_path), "--learning-rate", "50"]
    done = subprocess.run([sys.executable, "-m", "genokit.train", *words], capture_output=True, text=True, check=True)
    assert done.stdout.count("The training diverged: after 1 epoch its loss is ") == 1
    assert "smaller learning_rate" in done.stdout


def test_a_signal_that_comes_after_the_training_does_not_change_its_exit_code():
    program = (
        "import atexit, os, signal; from genokit.train.workers import leave\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM)); leave(lambda: 0)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_command_prints_its_usage():
    done = subprocess.run([sys.executable, "-m", "genokit.train", "--help"], capture_output=True, text=True, check=True)
    assert "--learning-rate float" in done.stdout
    assert done.stderr == ""
