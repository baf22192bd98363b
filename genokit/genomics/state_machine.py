"""One sample's steps as a state machine of AWS Step Functions, in the Amazon States Language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from genokit.genomics.cohort_plan import Sizes, planned, queue_of
from genokit.storage import Address

if TYPE_CHECKING:
    import pandas as pd

    from genokit.batch import Batch

# Batch was throttled or broken, and nothing was submitted. A reclaimed host is the job definition's own to retry.
RETRY = {
    "ErrorEquals": ["Batch.AWSBatchException", "Batch.ServerException", "Batch.TooManyRequestsException"],
    "IntervalSeconds": 5, "MaxAttempts": 6, "BackoffRate": 2.0, "MaxDelaySeconds": 300, "JitterStrategy": "FULL",
}  # fmt: skip


class StateMachine(NamedTuple):
    """A state machine, and for each sample the input of its execution: what the words of each step's command are."""

    definition: dict[str, Any]
    inputs: dict[str, dict[str, dict[str, str]]]


def export(
    samples: pd.DataFrame | Address, reference: Address, *, genes: Address | None = None, out: Address | None = None,
    queue_high: str = "highPriority", queue_low: str = "lowPriority", aligner: str = "minibwa", vcpus: Sizes = None,
    memory_gib: Sizes = None, timeout_h: float = 24, batch: Batch | None = None,
) -> StateMachine:  # fmt: skip
    """Export the workflow to AWS Step Functions: a state machine that runs one sample in each execution.

    Align goes first, then at the same time call, which annotate follows, and stats. Each is a Batch job of the same
    definitions as those of ``workflow``, which are registered if they are not yet, and leaves the same records, so that
    ``workflow`` finds finished what an execution has made. An execution ends where a job fails, with the name of the
    step and what Batch says of the job.

    Parameters
    ----------
    samples, reference, genes, out, queue_high, queue_low, aligner, vcpus, memory_gib, batch
        As for ``workflow``.
    timeout_h : float, default 24
        The longest time for each job, its waiting included, in hours.

    Returns
    -------
    StateMachine
        ``definition`` in the Amazon States Language, and ``inputs``, the input of an execution for each sample.

    Raises
    ------
    InvalidParameters, NotFound, MissingDependency
        As ``workflow``.

    Examples
    --------
    ::

        exported = genomics.export("samples.csv", "s3://lab/hg38.fa", genes="s3://lab/genes.gff3", out="s3://lab/out")
        states = boto3.client("stepfunctions")
        for sample, given in exported.inputs.items():
            states.start_execution(stateMachineArn=Stack("genomics").outputs["StateMachine"], input=json.dumps(given))
    """
    from genokit.batch import Batch

    plan = planned(samples, reference, genes, out, "pip", aligner, vcpus, memory_gib, batch or Batch())
    arns = {step: definition.arn for step, definition in plan.definitions.items()}
    queues = {step: queue_of(step, queue_high, queue_low) for step in arns}
    return StateMachine(machine(arns, queues, round(timeout_h * 3600)), plan.samples)


def machine(definitions: Mapping[str, str], queues: Mapping[str, str], timeout_s: int) -> dict[str, Any]:
    """The state machine for the job definitions and queues of the steps.

    >>> definitions = {"align": "align:1", "call": "call:3", "stats": "stats:1"}
    >>> [*machine(definitions, dict.fromkeys(definitions, "highPriority"), 3600)["States"]]
    ['Align', 'AlignFailed', 'CallAndStats']
    """

    def states(step: str, following: str | None = None) -> dict[str, Any]:
        name = step.capitalize()
        task = {
            "Type": "Task", "Resource": "arn:aws:states:::batch:submitJob.sync",
            "Parameters": {"JobName": f"genomics-{step}", "JobQueue": queues[step],
                           "JobDefinition": definitions[step], "Parameters.$": f"$.{step}"},
            "ResultSelector": {"JobId.$": "$.JobId"}, "ResultPath": "$.job",
            "TimeoutSeconds": timeout_s, "Retry": [RETRY],
            "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": f"{name}Failed"}],
            **({"Next": following} if following else {"End": True}),
        }  # fmt: skip
        failed = {"Type": "Fail", "Error": f"{name}Failed", "CausePath": "States.JsonToString($.error)"}
        return {name: task, f"{name}Failed": failed}

    call = states("call", "Annotate") | states("annotate") if "annotate" in definitions else states("call")
    branches = [{"StartAt": "Call", "States": call}, {"StartAt": "Stats", "States": states("stats")}]
    both = {"Type": "Parallel", "Branches": branches, "ResultPath": "$.branches", "End": True}
    about = "Align, then call and annotate beside stats, for one sample. Made by genokit.genomics.export."
    return {"Comment": about, "StartAt": "Align", "States": {**states("align", "CallAndStats"), "CallAndStats": both}}
