"""What is found before a job is submitted: in the embedded account, and in what AWS would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from described import environment, queue, stubbed

from genokit import Settings
from genokit.backends import Clients
from genokit.batch import resources
from genokit.batch.diagnose import preflight
from genokit.batch.diagnose.findings import Finding, Findings
from genokit.batch.resources import JobQueue
from genokit.errors import AccessDenied

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/align:1"


def definition(
    *command: str, vcpus: float = 1, memory_mib: int = 64, gpus: int = 0, image: str = "genokit", **container: Any
) -> dict[str, Any]:
    asked = [("VCPU", f"{vcpus:g}"), ("MEMORY", str(memory_mib)), *([("GPU", str(gpus))] if gpus else [])]
    needs = [{"type": kind, "value": value} for kind, value in asked]
    properties = {"image": image, "command": list(command), "resourceRequirements": needs, **container}
    return {"jobDefinitionName": "task", "type": "container", "containerProperties": properties}


def described(*places: dict[str, Any], **changes: Any) -> list[JobQueue]:
    """The queue highPriority over these environments, as read from AWS."""
    names = [place["computeEnvironmentName"] for place in places]
    batch = stubbed(
        "batch",
        ("describe_job_queues", {"jobQueues": [queue("highPriority", *names, **changes)]}),
        ("describe_compute_environments", {"computeEnvironments": list(places)}),
    )
    return resources.queues(Clients(Settings(), batch=batch))


def problems(what: dict[str, Any], queues: list[JobQueue], clients: Clients | None = None, **request: Any) -> list[str]:
    request = {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": "task", **request}
    found = preflight.check(clients or Clients(Settings()), request, what, queues=queues)
    return [f"{one.about}: {one.message}" for one in found.problems]


def level_of(about: str, found: Findings) -> str:
    return next(one.level for one in found if one.about == about)


# --- in the embedded account


def submission(**changes: Any) -> dict[str, Any]:
    return {"jobName": "one", "jobQueue": "highPriority", "jobDefinition": "task", **changes}


def test_a_job_that_fits_has_no_problem(account: Settings) -> None:
    found = preflight.check(Clients(account), submission(parameters={"who": "you"}), definition("echo", "Ref::who"))
    assert found.level == "ok"
    assert [one.about for one in found] == ["queue 'highPriority'", "environment 'this-machine'", "size"]
    assert repr(found) == "<Findings 3, 0 of them problems>"


def test_a_job_that_is_larger_than_this_machine_is_found_in_the_scheduler_s_own_words(account: Settings) -> None:
    found = preflight.check(Clients(account), submission(), definition("true", vcpus=4096, gpus=64))
    (one,) = found.problems
    assert one.about == "size"
    assert "MISCONFIGURATION" not in one.message
    assert "The job asks for more than the compute environment 'this-machine' has: 4096 vCPU of" in one.message


def test_overrides_count_not_what_they_override(account: Settings) -> None:
    large = {"containerOverrides": {"resourceRequirements": [{"type": "VCPU", "value": "4096"}]}}
    assert preflight.check(Clients(account), submission(**large), definition("true")).level == "problem"


def test_an_unknown_queue_is_answered_with_the_nearest(account: Settings) -> None:
    found = preflight.check(Clients(account), submission(jobQueue="highPrio"), definition("true"))
    assert [one.message for one in found.problems] == ["There is no job queue 'highPrio'. Did you mean 'highPriority'?"]


def test_what_is_disabled_takes_no_jobs(account: Settings) -> None:
    clients = Clients(account)
    clients.batch.update_job_queue(jobQueue="lowPriority", state="DISABLED")
    found = preflight.check(clients, submission(jobQueue="lowPriority"), definition("true"))
    assert "It is DISABLED: it takes no new jobs" in found.problems[0].message
    clients.batch.update_compute_environment(computeEnvironment="this-machine", state="DISABLED")
    found = preflight.check(clients, submission(), definition("true"))
    assert [one.about for one in found.problems] == ["environment 'this-machine'"]


def test_where_nothing_can_run_containers_only_the_image_genokit_passes(
    account: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    clients = Clients(account)
    assert preflight.check(clients, submission(), definition("true")).level == "ok"
    found = preflight.check(clients, submission(), definition("true", image="ubuntu:24.04"))
    assert "docker nor podman" in found.problems[0].message


def test_large_amounts_are_written_out(account: Settings) -> None:
    asked = {"resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "4096000"}]}
    found = preflight.check(Clients(account), submission(containerOverrides=asked), definition("true"))
    assert "4096000 MiB of memory of" in found.problems[0].message


# --- words, secrets, shares


def test_every_ref_needs_a_parameter_and_every_parameter_a_ref() -> None:
    queues = described(environment("a"))
    what = definition("align", "Ref::reads", "Ref::out") | {"parameters": {"out": "x"}}
    assert problems(what, queues, parameters={"read": "y"}) == [
        "parameters: The command has Ref::reads, but 'reads' has no value. Did you mean 'read'?"
    ]
    found = preflight.check(Clients(Settings()), submission(parameters={"read": "y"}), what, queues=queues)
    assert "warning  parameters: 'read' is given, but no word of the command is Ref::read." in str(found)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "db_password", "api_key"])
def test_what_looks_like_a_secret_is_named_and_never_shown(name: str) -> None:
    what = definition("true", environment=[{"name": name, "value": "hunter2"}])
    found = preflight.check(Clients(Settings()), submission(), what, queues=described(environment("a")))
    assert level_of(f"environment variable '{name}'", found) == "warning"
    assert "hunter2" not in f"{found}{found!r}{found._repr_html_()}"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "TOKEN_FILE", "SECRET_ARN", "LANG", "KEYBOARD"])
def test_what_only_sounds_like_a_secret_passes(name: str) -> None:
    what = definition("true", environment=[{"name": name, "value": "x"}])
    assert preflight.check(Clients(Settings()), submission(), what, queues=described(environment("a"))).level == "ok"


# --- sizes, by what AWS describes


@pytest.mark.parametrize(
    ("place", "what", "says"),
    [
        ({"instanceTypes": ["m5.xlarge"]}, {"vcpus": 8}, "8 vCPU of 4"),
        ({"instanceTypes": ["m5.xlarge"]}, {"memory_mib": 17000}, "17000 MiB of memory of 16352"),
        ({"instanceTypes": ["c5", "m5"]}, {"gpus": 1}, "1 GPU of 0"),
        ({"instanceTypes": ["g4dn.xlarge"]}, {"gpus": 2}, "2 GPU of 1"),
        ({"instanceTypes": ["optimal"], "maxvCpus": 16}, {"vcpus": 32}, "32 vCPU of 16 (its maxvCpus)"),
        ({"instanceTypes": ["c7i.2xlarge", "r6i.large"]}, {"vcpus": 8, "memory_mib": 16100}, None),
        ({"instanceTypes": ["c6i.2xlarge", "g5.xlarge"]}, {"vcpus": 8, "gpus": 1}, "no one instance type"),
        ({"instanceTypes": ["optimal"]}, {"vcpus": 64, "memory_mib": 200_000}, None),
        ({"instanceTypes": ["zz9.large"]}, {"vcpus": 64}, None),
        ({"instanceTypes": ["m5.large", "zz9"]}, {"vcpus": 64}, None),
    ],
)
def test_what_no_instance_of_the_queue_holds_is_a_problem(
    place: dict[str, Any], what: dict[str, Any], says: str | None
) -> None:
    found = problems(definition("true", **what), described(environment("a", **place)))
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_a_job_of_all_the_memory_that_an_instance_has_is_warned_about() -> None:
    what, queues = definition("true", memory_mib=8100), described(environment("a", instanceTypes=["m5.large"]))
    found = preflight.check(Clients(Settings()), submission(), what, queues=queues)
    assert level_of("size", found) == "warning"
    assert "has just the memory" in next(one.message for one in found if one.about == "size")


def test_one_environment_that_has_the_room_is_enough() -> None:
    places = environment("a", instanceTypes=["m5.large"]), environment("b", instanceTypes=["m5.4xlarge"])
    assert problems(definition("true", vcpus=16), described(*places)) == []


def test_one_environment_that_takes_no_jobs_is_a_warning_beside_one_that_does() -> None:
    places = (environment("a", status="INVALID", statusReason="CLIENT_ERROR - x"), environment("b"))
    found = preflight.check(Clients(Settings()), submission(), definition("true"), queues=described(*places))
    assert level_of("environment 'a'", found) == "warning"
    assert "CLIENT_ERROR - x" in problems(definition("true"), described(places[0]))[0]
    assert "with maxvCpus 0" in problems(definition("true"), described(environment("a", maxvCpus=0)))[0]


def test_a_definition_for_ec2_does_not_start_on_fargate_nor_the_other_way_round() -> None:
    fargate, ec2 = environment("a", "FARGATE"), environment("b")
    assert "made for EC2" in problems(definition("true", memory_mib=2048), described(fargate))[0]
    other = definition("true", memory_mib=2048) | {"platformCapabilities": ["FARGATE"]}
    assert "made for FARGATE" in problems(other, described(ec2))[0]


def test_a_multi_node_job_is_as_large_as_its_nodes_together_and_stays_off_spot() -> None:
    node = definition("true", vcpus=8)["containerProperties"]
    nodes = {"numNodes": 4, "mainNode": 0, "nodeRangeProperties": [{"targetNodes": "0:3", "container": node}]}
    what = {"type": "multinode", "nodeProperties": nodes}
    assert problems(what, described(environment("a"))) == []
    assert "32 vCPU of 16" in problems(what, described(environment("a", maxvCpus=16)))[0]
    assert "takes no multi-node jobs" in problems(what, described(environment("a", "SPOT")))[0]


# --- roles and images


ROLE = "arn:aws:iam::123456789012:role/lab/align"
FOUND = {"Role": {"Path": "/", "RoleName": "align", "RoleId": "A" * 20, "Arn": ROLE, "CreateDate": "2026-01-01"}}


@pytest.mark.parametrize(("answer", "level"), [(FOUND, "ok"), ("NoSuchEntity", "problem"), ("AccessDenied", "unknown")])
def test_a_role_is_looked_up_where_that_is_allowed(answer: Any, level: str) -> None:
    clients = Clients(Settings(), iam=stubbed("iam", ("get_role", answer)))
    queues = described(environment("a"))
    found = preflight.check(clients, submission(), definition("true", jobRoleArn=ROLE), queues=queues)
    assert level_of("role 'align'", found) == level
    assert problems(definition("true", jobRoleArn="arn:aws:iam::999999999999:role/x"), queues, clients) == []


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"imageDetails": []}, "ok"),
        ("ImageNotFoundException", "problem"),
        ("RepositoryNotFoundException", "problem"),
        ("AccessDeniedException", "unknown"),
        ("ServerException", "unknown"),
    ],
)
def test_an_image_is_looked_up_in_the_account_s_own_registry(answer: Any, level: str) -> None:
    clients = Clients(Settings(), ecr=stubbed("ecr", ("describe_images", answer)))
    queues = described(environment("a"))
    found = preflight.check(clients, submission(), definition("true", image=IMAGE), queues=queues)
    assert level_of(f"image '{IMAGE}'", found) == level
    for other in (IMAGE.replace("123456789012", "999999999999"), IMAGE.replace("us-east-1", "eu-west-1")):
        found = preflight.check(clients, submission(), definition("true", image=other), queues=queues)
        assert other not in str(found), "of another account or region, which nobody can look up"


def test_many_submissions_ask_for_a_role_once() -> None:
    clients = Clients(Settings(), iam=stubbed("iam", ("get_role", FOUND)))  # a second call would have no answer
    queues, known = described(environment("a")), dict[str, Finding | None]()
    for _ in range(3):
        found = preflight.check(clients, submission(), definition("true", jobRoleArn=ROLE), queues=queues, known=known)
        assert level_of("role 'align'", found) == "ok"


def test_the_embedded_account_s_roles_mean_nothing_and_stop_nothing(account: Settings) -> None:
    what = definition("true", jobRoleArn="arn:aws:iam::000000000000:role/x")
    found = preflight.check(Clients(account), submission(), what)
    assert level_of("role 'x'", found) == "unknown"
    assert not found.problems


def test_who_may_not_read_the_queues_is_told_so() -> None:
    clients = Clients(Settings(), batch=stubbed("batch", ("describe_job_queues", "AccessDeniedException")))
    with pytest.raises(AccessDenied, match="job queues"):
        preflight.check(clients, submission(), definition("true"))
