"""Random requests to every operation that the door has: each is answered with a code of AWS's, and hurts nobody."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any
from urllib.parse import quote

import pytest
from embedded import Box, served, through
from wire import raw, s3_signed, signed

from genokit import Settings
from genokit.local import shapes
from genokit.local.door import Door


@pytest.fixture
def door(account: Settings) -> Iterator[Door]:
    with served(account) as door:
        yield door


TEXTS = [
    *("", "0", "-1", "1.5", "²", "٣", "nan", "*", "$.a", '"', "{", "%s", "\r\n", "\x00", "\ud800", "a/b", "../.."),
    *(
        "9" * 30,
        "9" * 5000,
        "x" * 300,
        "x" * 5000,
        "ü" * 100,
        "f/" + "9" * 30,
        "b/" + "9" * 5000,
        "9" * 20 + "/" + "9" * 20,
    ),
    *("highPriority", "this-machine", "genokit", "/aws/batch/job", "task:" + "9" * 30, "arn:aws:batch:local:0:job/x"),
]
NUMBERS = [0, 1, -1, 5, 100, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308]
BODIES = [
    *(b"", b"x", b"<a>", b"<a/>", b"\xff", b"<Delete><Object><Key>\xc3\xbc</Key></Object></Delete>"),
    b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber></Part></CompleteMultipartUpload>",
]


def test_every_operation_answers_random_input_with_a_code_of_aws_s_and_never_with_a_500(
    door: Door, account: Settings
) -> None:
    dice = random.Random(5)
    for service, times in (("batch", 12), ("logs", 40), ("s3", 12)):
        offered = import_module(f"genokit.local.{service}").OPERATIONS
        for name, model in shapes.operations(service).items():
            for _ in range(times if name in offered else 1):
                status, said = asked_at_random(door, dice, service, model)
                assert status < 500 or (status == 501 and name not in offered), (name, said)
    with through(door) as clients:
        box = Box(account, clients)
        named = {"computeEnvironmentName": "after", "type": "UNMANAGED"}
        order = [
            {
                "order": 1,
                "computeEnvironment": clients.batch.create_compute_environment(**named)["computeEnvironmentArn"],
            }
        ]
        clients.batch.create_job_queue(jobQueueName="after", priority=1, computeEnvironmentOrder=order)
        assert box.wait(box.submit(box.define("true"), queue="after"))["status"] == "SUCCEEDED"
        for call in ("describe_compute_environments", "describe_job_queues", "describe_job_definitions"):
            assert any(getattr(clients.batch, call)().values())


def at_random(dice: random.Random, shape: Any, depth: int = 0) -> Any:
    """A value that a shape may have, or, now and then, one of another type."""
    kind = shape.type_name if dice.random() > 0.04 else dice.choice(["string", "integer", "list of", "boolean", "null"])
    if kind == "structure":
        needed = getattr(shape, "required_members", [])
        likely = 0.3 if depth < 3 else 0.1
        chosen = [one for one in shape.members if one in needed or dice.random() < likely]
        return {one: at_random(dice, shape.members[one], depth + 1) for one in chosen}
    if kind in ("list", "list of"):
        return [at_random(dice, getattr(shape, "member", shape), depth + 1) for _ in range(dice.choice([0, 1, 1, 2]))]
    if kind == "map":
        return {dice.choice(TEXTS): at_random(dice, shape.value, depth + 1) for _ in range(dice.choice([0, 1, 2]))}
    if kind in ("integer", "long", "float", "double", "timestamp"):
        return dice.choice(NUMBERS)
    if kind == "boolean":
        return dice.random() < 0.5
    enum = getattr(shape, "enum", None)
    return None if kind == "null" else dice.choice(enum) if enum and dice.random() < 0.8 else dice.choice(TEXTS)


def asked_at_random(door: Door, dice: random.Random, service: str, model: Any) -> tuple[int, Any]:
    """The answer to a request for an operation, with members at random, in whatever place each has on the wire."""
    given = at_random(dice, model.input_shape) if model.input_shape else {}
    given = given if isinstance(given, dict) else {}
    path, _, query = model.http["requestUri"].partition("?")
    headers, asked = {}, [query] if query else []
    for member, shape in model.input_shape.members.items() if model.input_shape else ():
        place, name = shape.serialization.get("location"), shape.serialization.get("name", member)
        text = str(given[member]).encode("utf-8", "replace").decode() if member in given else "genokit"
        if place == "uri":
            path = re.sub(rf"\{{{name}\+?\}}", lambda _, text=text: quote(text, safe="/~"), path)
        elif place == "querystring" and member in given:
            asked.append(f"{name}={quote(text, safe='')}")
        elif place == "header" and member in given:
            headers[name] = re.sub(r"[^\x20-\x7e]", "?", text[:2000]).strip()
        if place:
            given.pop(member, None)
    path = path if path.startswith("/") and not path.startswith("//") else "/x"
    if service == "s3":
        body = dice.choice(BODIES)
        digest = hashlib.sha256(body).hexdigest()
        asked = sorted(one if "=" in one else f"{one}=" for part in asked for one in part.split("&"))
        signed_headers = s3_signed(door, model.http["method"], "?".join([path, "&".join(asked)]), digest)
        signed_headers = headers | signed_headers | {"Content-Length": str(len(body))}
        loose = {name for name in headers if name.lower().startswith("x-amz-")}
        signed_headers = {name: value for name, value in signed_headers.items() if name not in loose}
        return raw(door, model.http["method"], "?".join([path, "&".join(asked)]), signed_headers, body)
    target = f"?{'&'.join(sorted(asked))}" if asked else ""
    more = {"X_Amz_Target": f"Logs_20140328.{model.name}"} if service == "logs" else {}
    body = json.dumps(given).encode()
    asking = signed(door, path + target, body, method=model.http["method"], service=service, **more)
    return raw(door, model.http["method"], path + target, asking, body)
