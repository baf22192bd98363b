"""Who may do what, as the library tells it and as the generated policies of AWS enforce it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pandas as pd
import pytest
from botocore.exceptions import ClientError
from iam import allowed
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count
from recorded import listen, needs
from template import WORKSPACE, Template, cfn_lint

from genokit import Run, Settings, Stack, Workspace, backends
from genokit.errors import AccessDenied, InvalidParameters, InvalidRequest
from genokit.workspaces import access, log
from genokit.workspaces.kinds import ROLES
from genokit.workspaces.template import POLICIES, filled

STATIC = Template(WORKSPACE)
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
BUCKET = STATIC.value({"Fn::GetAtt": ["Bucket", "Arn"]})


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """A workspace with a member in each role and a data set, as its custodian sees it."""
    ws = Workspace.create(tmp_path / "lab", "anna", settings=Settings(home=tmp_path / "anna"))
    ws.grant("ben", "analyst").grant("cleo", "modeller").grant("dan", "viewer")
    (tmp_path / "ages").mkdir()
    (tmp_path / "ages" / "ages.csv").write_text("id,age\n1,30\n")
    ws.publish(tmp_path / "ages", terms="GRU")
    return ws


# --- the report


def test_the_report_says_who_may_do_what_and_why(ws):
    report = ws.access_report().set_index(["member", "dataset", "action"])
    assert tuple(report.loc[("ben", "ages@1.0.0", "read")]) == (False, "analyst, terms not accepted")
    assert tuple(report.loc[("anna", "ages@1.0.0", "read")]) == (True, "custodian")
    assert tuple(report.loc[("cleo", "ages@1.0.0", "read")]) == (False, "modeller")
    assert tuple(report.loc[("dan", "", "granted")]) == (False, "viewer")


def test_a_diff_shows_what_a_change_would_change_and_writes_nothing(ws):
    changes = ws.diff("granted", who="ben", role="custodian")
    assert "granted" in changes["action"].tolist()
    row = changes[changes["dataset"] == "ages@1.0.0"].iloc[0]
    assert (row["member"], row["before"], row["after"], row["why"]) == ("ben", False, True, "custodian")
    assert set(ws.diff("revoked", who="cleo")["why"]) == {"not a member"}
    assert ws.members().set_index("member")["role"]["ben"] == "analyst"
    assert ws.diff("granted", who="ben", role="analyst").empty


def test_a_diff_of_what_one_may_not_do_is_refused(ws):
    dan = Workspace(ws.address, "dan", settings=ws.clients.settings)
    with pytest.raises(AccessDenied, match="'dan' is viewer"):
        dan.diff("granted", who="dan", role="custodian")


# --- random memberships


def entries(seed: int) -> list[log.LogEntry]:
    """A log with random members, data sets, accepted terms and expiries, before and after NOW."""
    chance, found = random.Random(seed), []

    def add(member: str, kind: str, **fields: object) -> None:
        previous = found[-1].sha256 if found else log.START
        entry = log.parsed(log.encoded(len(found) + 1, previous, member, kind, fields), len(found) + 1)
        found.append(log.LogEntry(**{**vars(entry), "time": log.now(NOW - timedelta(days=30))}))

    def end() -> str:
        return log.now(NOW + timedelta(hours=chance.choice([-24, -1, 1, 24])))

    add("anna", "created", name="lab")
    for i in range(chance.randint(1, 4)):
        add("anna", "published", name=f"d{i}", version="1.0.0", title="d", duo=["GRU"], policy="default",
            folder=f"data/d{i}/1.0.0/{i:016x}", manifest=f"{i:064x}", files=1, bytes=1)  # fmt: skip
    for i in range(chance.randint(1, 6)):
        member = f"m{i}{chance.choice(['', '.x', '@lab'])}"
        add("anna", "granted", who=member, role=chance.choice(ROLES), expires=chance.choice([None, None, end()]))
        for ref in chance.sample(sorted(access.published(found)), 1):
            add(member, "accepted", dataset=ref, expires=end())
        if chance.random() < 0.2:
            add("anna", "revoked", who=member)
    return [one for one, refused in access.judged(found) if not refused]


def policies(found: list[log.LogEntry], at: datetime = NOW) -> dict[str, list[dict]]:
    """The statements of each member's role, from the generated template."""
    managed = STATIC.of("IAM::ManagedPolicy")
    lines = filled(WORKSPACE.read_text(), found, log.now(at)).partition("\nOutputs:")[0].splitlines()
    statements = {}
    for line in lines:
        if line.startswith("  Member"):
            role = json.loads(line.partition(": ")[2])["Properties"]
            member = role["Tags"][0]["Value"]
            own = [one for policy in role.get("Policies", []) for one in policy["PolicyDocument"]["Statement"]]
            statements[member] = STATIC.value(own) + [
                one for name in role["ManagedPolicyArns"] for one in managed[name["Ref"]]["PolicyDocument"]["Statement"]
            ]
    return statements


def bucket_policy(**parameters: str) -> list[dict]:
    return Template(WORKSPACE, **parameters).of("S3::BucketPolicy")["BucketPolicy"]["PolicyDocument"]["Statement"]


def request(member: str, at: datetime, **more: str) -> dict[str, str]:
    return {
        "aws:PrincipalTag/member": member, "aws:CurrentTime": f"{at:%Y-%m-%dT%H:%M:%SZ}", "aws:SecureTransport": "true",
        "aws:PrincipalArn": f"arn:aws:iam::123456789012:role/genokit-batch-{member}-X", "s3:signatureAge": "1000",
        **more,
    }  # fmt: skip


def intended(found: list[log.LogEntry], member: str, action: str, key: str, at: datetime) -> bool:
    """What the rules say in words, without a policy."""
    me, time = access.members(found).get(member), log.now(at)
    if me is None or not me.holds(time):
        return False
    folder, _, rest = key.partition("/")
    owner = rest.partition("/")[0]
    author, custodian = me.role != "viewer", me.role == "custodian"
    if action == "s3:GetObject":
        if folder == "data":
            (ref,) = [ref for ref, one in access.published(found).items() if key.startswith(one["folder"])]
            accepted = access.accepted_until(found, member, ref)
            return custodian or (me.role == "analyst" and accepted is not None and time < accepted)
        return {
            "log": True, "signed": True, "practice": True, "released": True, "truth": custodian, "results": custodian,
            "runs": me.role in ("custodian", "analyst") or (author and owner == member),
            "code": custodian or (author and owner == member),
        }[folder]  # fmt: skip
    if action == "s3:PutObject":
        own = author and owner == member
        return {"log": False, "signed": own, "runs": own, "code": own}.get(folder, custodian)
    return False


ACTIONS = (
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion", "s3:PutObjectAcl", "s3:GetObjectAcl",
    "s3:PutObjectTagging", "s3:GetObjectVersion", "s3:RestoreObject", "s3:BypassGovernanceRetention",
)  # fmt: skip


@pytest.mark.parametrize("seeds", [range(start, start + 20) for start in range(0, 100, 20)], ids=str)
def test_policies_of_random_memberships_allow_what_is_intended_and_no_more(seeds):
    bucket, checked = bucket_policy(), 0
    for seed in seeds:
        found = entries(seed)
        own = policies(found)
        known = [*access.members(found), "mallory"]
        keys = [f"{one['folder']}/d/a.csv" for one in access.published(found).values()]
        keys += [f"{top}/x/y" for top in ("practice", "truth", "results", "released")] + ["log/00000001.json"]
        keys += [f"{top}/{name}/x" for top in ("signed", "runs", "code") for name in known]
        for member in known:
            for at in (NOW, NOW + timedelta(hours=2)):  # when the policies are made, and when some have expired
                context = request(member, at)
                for key in keys:
                    for action in ACTIONS if key in keys[:2] else ACTIONS[:3]:
                        is_allowed = allowed(own.get(member, []), bucket, action, f"{BUCKET}/{key}", context)
                        assert is_allowed == intended(found, member, action, key, at), (seed, member, action, key, at)
                        checked += 1
    assert checked > 5_000


def as_member(role: str, action: str, key: str, bucket: list[dict] | None = None, **more: str) -> bool:
    managed = STATIC.of("IAM::ManagedPolicy")
    own = [one for name in POLICIES[role] for one in managed[name]["PolicyDocument"]["Statement"]]
    return allowed(own, bucket or bucket_policy(), action, f"{BUCKET}/{key}", request("ben", NOW, **more))


@pytest.mark.parametrize("role", ROLES)
def test_an_entry_is_written_if_its_number_is_free_and_by_no_viewer(role):
    assert not as_member(role, "s3:PutObject", "log/00000002.json")
    assert as_member(role, "s3:PutObject", "log/00000002.json", **{"s3:if-none-match": "*"}) == (role != "viewer")


def test_nothing_goes_without_tls_or_with_an_old_signature():
    assert as_member("viewer", "s3:GetObject", "log/00000001.json")
    assert not as_member("viewer", "s3:GetObject", "log/00000001.json", **{"aws:SecureTransport": "false"})
    assert as_member("viewer", "s3:GetObject", "log/00000001.json", **{"s3:signatureAge": "900000"})
    assert not as_member("viewer", "s3:GetObject", "log/00000001.json", **{"s3:signatureAge": "900001"})


def test_with_an_endpoint_data_are_read_through_it_alone():
    bucket = bucket_policy(VpcEndpoint="vpce-0123456789abcdef0")
    assert not as_member("custodian", "s3:GetObject", "data/d/1/x/a.csv", bucket)
    assert as_member(
        "custodian", "s3:GetObject", "data/d/1/x/a.csv", bucket, **{"aws:SourceVpce": "vpce-0123456789abcdef0"}
    )
    assert not as_member("custodian", "s3:GetObject", "data/d/1/x/a.csv", bucket, **{"aws:SourceVpce": "vpce-1"})
    assert as_member("viewer", "s3:GetObject", "log/00000001.json", bucket)


def test_nobody_lists_data_or_changes_the_bucket_but_custodians_find_files():
    for action in ("s3:PutBucketPolicy", "s3:PutBucketAcl", "s3:DeleteBucket", "s3:PutBucketVersioning"):
        assert not any(
            allowed(policy["PolicyDocument"]["Statement"], [], action, BUCKET, request("ben", NOW))
            for policy in STATIC.of("IAM::ManagedPolicy").values()
        )
    viewer = STATIC.of("IAM::ManagedPolicy")["ViewerPolicy"]["PolicyDocument"]["Statement"]
    for prefix, answer in (("log/", True), ("data/", False), ("", False)):
        context = {**request("ben", NOW), "s3:prefix": prefix}
        assert allowed(viewer, [], "s3:ListBucket", BUCKET, context) == answer


# --- what the library asks of S3, as each member


def asked(ws: Workspace, member: str, work: Callable[[Workspace], object]) -> list[tuple[str, str, dict[str, str]]]:
    """The actions, resources and contexts of the requests to S3 that some work makes."""
    clients, calls = backends.clients(ws.clients.settings), []
    listen("s3", clients.s3, calls)
    work(Workspace(ws.address, member, clients=clients))
    found = []
    for call in calls:
        context = {"s3:if-none-match": "*"} if "IfNoneMatch" in call.request else {}
        context |= {"s3:prefix": call.request["Prefix"]} if "Prefix" in call.request else {}
        # Who may not list is told 403 of an absent object, which the library takes for absent.
        for need in [one for one in needs(call) if one.action != "s3:ListBucket" or "Prefix" in call.request]:
            found.append((need.action, need.resource.replace("arn:aws:s3:::genokit", BUCKET), context))
    assert found
    return found


def test_what_the_library_asks_of_s3_is_allowed_to_the_member_who_asks(account, tmp_path):
    ws = Workspace.create("s3://genokit", "anna", name="lab", settings=account)
    ws.grant("ben", "analyst").grant("cleo", "modeller").grant("dan", "viewer")
    (tmp_path / "ages").mkdir()
    (tmp_path / "ages" / "ages.csv").write_text("id,age\n1,30\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "predict.py").write_text("print(1)")
    run = Run(tmp_path / "run", "r", "FAILED", tmp_path / "n.ipynb", "5e" * 32, NOW).save()
    outputs = {"n.json": {"type": "numbers", "keys": ["n"]}}
    mock = pd.DataFrame({"id": [7], "age": [99]})

    def see(mine: Workspace) -> None:
        mine.audit(), mine.members(), mine.datasets(), mine.runs(), mine.practice("ages", progress=False)

    def send(mine: Workspace) -> None:
        mine.submit("count", tmp_path / "code", ["python", "predict.py"], start=False)
        mine.run(mine.publish(run))

    work: list[tuple[str, Callable[[Workspace], object]]] = [
        ("anna", lambda mine: mine.publish(tmp_path / "ages", terms="GRU", practice=mock)),
        ("anna", lambda mine: mine.challenge("count", "ages", outputs=outputs)),
        ("anna", lambda mine: mine.fetch("ages", progress=False)),
        ("ben", lambda mine: mine.accept("ages")),
        ("ben", lambda mine: mine.fetch("ages", progress=False)),
        *((member, see) for member in ("anna", "ben", "cleo", "dan")),
        *((member, send) for member in ("anna", "ben", "cleo")),
    ]
    bucket = bucket_policy()
    for member, step in work:
        requests = asked(ws, member, step)
        own = policies(ws.entries(), datetime.now(UTC))[member]
        context = request(member, datetime.now(UTC))
        denied = [(action, where) for action, where, more in requests
                  if not allowed(own, bucket, action, where, context | more)]  # fmt: skip
        assert denied == [], member


# --- the evaluator against moto's S3


CASES = [
    ([("Allow", "s3:GetObject", "data/*")], "data/a", True),
    ([("Allow", "s3:GetObject", "data/*")], "log/a", False),
    ([("Allow", "s3:Get*", "*"), ("Deny", "s3:*", "data/*")], "data/a", False),
    ([("Allow", "s3:Get*", "*"), ("Deny", "s3:*", "data/*")], "log/a", True),
    ([("Allow", "s3:PutObject", "*")], "log/a", False),
    ([("Allow", "s3:GetObject", "l*/a")], "log/a", True),
]


@pytest.mark.parametrize(("rules", "key", "answer"), CASES)
def test_the_evaluator_answers_as_moto_s_s3_does(rules, key, answer):
    statements = [
        {"Effect": effect, "Action": action, "Resource": f"arn:aws:s3:::lab/{path}"} for effect, action, path in rules
    ]
    assert allowed(statements, [], "s3:GetObject", f"arn:aws:s3:::lab/{key}", {}) == answer
    assert moto_allows(statements, key) == answer


@set_initial_no_auth_action_count(6)
@mock_aws
def moto_allows(statements: list[dict], key: str) -> bool:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    s3, iam = boto3.client("s3", **keys), boto3.client("iam", **keys)
    s3.create_bucket(Bucket="lab")
    for one in ("data/a", "log/a"):
        s3.put_object(Bucket="lab", Key=one, Body=b"")
    iam.create_user(UserName="ben")
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName="ben", PolicyName="own", PolicyDocument=document)
    made = iam.create_access_key(UserName="ben")["AccessKey"]
    ben = boto3.client("s3", region_name="us-east-1", aws_access_key_id=made["AccessKeyId"],
                       aws_secret_access_key=made["SecretAccessKey"])  # fmt: skip
    try:
        ben.get_object(Bucket="lab", Key=key)
    except ClientError as error:
        return error.response["Error"]["Code"] != "AccessDenied"
    return True


# --- the template


def test_cfn_lint_finds_nothing_in_the_template_with_members(ws, tmp_path):
    ws.grant("finn", "custodian", expires=NOW + timedelta(days=36500))
    ws.grant("greta", "viewer", principal="arn:aws:iam::210987654321:role/greta")
    Workspace(ws.address, "ben", settings=ws.clients.settings).accept("ages")
    written = ws.template(tmp_path / "workspace.yaml")
    assert cfn_lint(written) == (0, "", "")


def test_the_template_has_a_role_for_each_member_under_its_own_name(ws, tmp_path):
    ws.grant("greta", "viewer", principal="arn:aws:iam::210987654321:role/greta")
    ws.grant("past", "custodian", expires=datetime(2020, 1, 1, tzinfo=UTC))
    template = Template(ws.template(tmp_path / "workspace.yaml"))
    made = [one["Properties"] for one in template.raw["Resources"].values() if one["Type"] == "AWS::IAM::Role"]
    roles = {one["Tags"][0]["Value"]: one for one in made}
    assert set(roles) == {"anna", "ben", "cleo", "dan", "greta"}
    trust = {name: template.value(one["AssumeRolePolicyDocument"])["Statement"][0] for name, one in roles.items()}
    assert trust["ben"]["Principal"] == {"AWS": "arn:aws:iam::123456789012:user/ben"}
    assert trust["greta"]["Principal"] == {"AWS": "arn:aws:iam::210987654321:role/greta"}
    for name, one in trust.items():
        assert one["Condition"] == {"StringEquals": {"sts:RoleSessionName": name}}


def test_the_bucket_is_closed_encrypted_versioned_logged_and_owned(ws):
    bucket = STATIC.of("S3::Bucket")["Bucket"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert "DestinationBucketName" in bucket["LoggingConfiguration"]
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert STATIC.of("KMS::Key")["Key"]["EnableKeyRotation"]


def test_the_stack_is_deployed_and_brought_up_to_date_from_the_log(account, tmp_path):
    bucket = Stack("workspace", settings=account).deploy().outputs["Bucket"]
    ws = Workspace.create(f"s3://{bucket}", "anna", name="lab", settings=account).grant("ben", "modeller")
    stack = Stack(str(ws.template(tmp_path / "workspace.yaml")), settings=account)
    assert stack.stack_name == "genokit-workspace"
    assert "2 to add" in repr(stack.diff())
    assert "AWS::IAM::Role" in set(stack.deploy().resources()["type"])
    assert Workspace(f"s3://{bucket}", "ben", settings=account).audit().intact


def test_a_principal_must_be_an_arn_of_a_user_or_role(ws):
    for wrong in ("*", "arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:user/${x}"):
        with pytest.raises(InvalidParameters, match="the ARN of a user or role"):
            ws.grant("ben", "analyst", principal=wrong)


def test_more_members_than_a_template_holds_are_refused():
    found = entries(0)
    many = [log.LogEntry(**{**vars(found[0]), "kind": "granted", "fields": {"who": f"m{i}", "role": "viewer"}})
            for i in range(100)]  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"The template of \d+ members has"):
        filled(WORKSPACE.read_text(), [*found, *many], log.now(NOW))
