"""The files for a JupyterHub: they parse, and the names in them exist."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import yaml

from genokit import Settings
from genokit.config import unknown_variables
from genokit.workspaces.kinds import TYPES

ROOT = Path(__file__).parent.parent
HUB = ROOT / "environments" / "hub"
VALUES = yaml.safe_load((HUB / "values.yaml").read_text())
TLJH = yaml.safe_load((HUB / "tljh.yaml").read_text())
HOOK = VALUES["hub"]["extraConfig"]["members"]


class _Spawner:
    """What a hook of JupyterHub is given."""

    def __init__(self, name: str) -> None:
        self.user = type("User", (), {"name": name})()
        self.environment: dict[str, object] = {}
        self.service_account = ""


def spawned(name: str) -> _Spawner:
    """The server of a member after the hook of values.yaml."""
    config = type("Config", (), {"KubeSpawner": type("KubeSpawner", (), {})()})()
    exec(compile(HOOK, "values.yaml", "exec"), {"c": config})
    spawner = _Spawner(name)
    try:
        config.KubeSpawner.pre_spawn_hook(spawner).send(None)
    except StopIteration:
        return spawner
    raise AssertionError("the hook waits")


def test_the_variables_are_settings_and_pick_the_workspace():
    names = VALUES["singleuser"]["extraEnv"] | spawned("ben").environment
    environ = {name: str(value) for name, value in names.items()}
    assert unknown_variables(environ) == []
    settings = Settings.load(start="/", environ=environ)
    assert (settings.workspace, settings.member, settings.backend) == ("s3://BUCKET", "ben", "aws")


def test_each_allowed_member_has_a_role_and_a_service_account():
    members = VALUES["hub"]["config"]["GenericOAuthenticator"]["allowed_users"]
    accounts = {one["metadata"]["name"] for one in yaml.safe_load_all((HUB / "members.yaml").read_text())}
    servers = [spawned(name) for name in members]
    assert {one.service_account for one in servers} == accounts
    assert all(str(one.environment["MEMBER_ROLE"]).startswith("arn:aws:iam::") for one in servers)
    assert all(TYPES["member"][0](name) for name in members)


def test_a_server_s_start_writes_the_profile_that_the_settings_name(tmp_path):
    command = VALUES["singleuser"]["lifecycleHooks"]["postStart"]["exec"]["command"]
    environ = {"HOME": str(tmp_path), "AWS_ROLE_ARN": "arn:hub", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
               "MEMBER_ROLE": "arn:member", "GENOKIT_MEMBER": "ben", "PATH": "/usr/bin:/bin"}  # fmt: skip
    subprocess.run(command, env=environ, check=True)
    assert (tmp_path / ".aws" / "config").read_text().splitlines() == [
        "[profile irsa]", "role_arn = arn:hub", "web_identity_token_file = /token",
        "[profile member]", "role_arn = arn:member", "source_profile = irsa", "role_session_name = ben",
    ]  # fmt: skip
    assert VALUES["singleuser"]["extraEnv"]["GENOKIT_PROFILE"] == "member"


def test_servers_are_closed_to_one_another_and_to_the_node_s_role():
    single = VALUES["singleuser"]
    assert single["networkPolicy"]["egressAllowRules"] == {"privateIPs": False, "cloudMetadataServer": False}
    assert single["cloudMetadata"] == {"blockWithIptables": True}
    assert single["allowPrivilegeEscalation"] is False
    assert VALUES["hub"]["config"]["JupyterHub"]["admin_access"] is False


def test_the_littlest_hub_gives_every_server_the_workspace_and_the_member_s_name():
    assert set(TLJH["users"]["extra_user_groups"]["workspace"]) == set(TLJH["users"]["allowed"])
    config = type("Config", (), {"Spawner": type("Spawner", (), {})()})()
    exec(compile((HUB / "tljh_config.py").read_text(), "tljh_config.py", "exec"), {"get_config": lambda: config})
    environ = config.Spawner.environment
    assert unknown_variables(environ) == []
    assert environ["GENOKIT_MEMBER"](_Spawner("anna")) == "anna"
    assert ast.parse((HUB / "tljh_config.py").read_text())


def test_what_the_page_and_the_files_name_exists():
    page = (ROOT / "docs" / "hub.md").read_text()
    for name in re.findall(r"environments/[\w./-]+", page):
        assert (ROOT / name).exists(), name
    workspace = yaml.load((ROOT / "genokit" / "stacks" / "workspace.yaml").read_text(), yaml.BaseLoader)
    assert "Bucket" in workspace["Outputs"]
    assert "/opt/genokit/bin" in (ROOT / "environments" / "Dockerfile").read_text()
    assert json.dumps(VALUES)
