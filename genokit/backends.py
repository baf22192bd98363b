"""The only switch between this machine and AWS: everything above it uses clients in boto3's calling shape."""

from __future__ import annotations

import getpass
import re
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any

from genokit.config import Settings, check_home
from genokit.errors import AccessDenied, ConfigError, InvalidRequest, renamed
from genokit.refusals import translated_errors as translated_errors

if TYPE_CHECKING:
    from genokit.databases import AthenaDatabase, DuckDatabase
    from genokit.local.account import Account
    from genokit.local.door import Door


@dataclass(frozen=True)
class Backend:
    """What differs between jobs on this machine and jobs on AWS."""

    billed: bool  # whether a job's hours are paid for
    shares_folders: bool  # whether a job sees this machine's folders
    poll_s: float  # time between two polls of a running job
    grace_s: float  # time for which waiting is normal for a job
    log_delay_s: float  # time by which the last log lines may follow the job's end
    services: frozenset[str] | None = None  # the services that exist; None: all of AWS's

    def offers(self, service: str) -> bool:
        """Whether a service exists, by boto3's name."""
        return self.services is None or service in self.services


# The services of the embedded account, and their modules in genokit.local.
EMBEDDED = {"batch": "batch", "cloudformation": "stack", "logs": "logs", "s3": "s3"}
HERE = Backend(
    billed=False, shares_folders=True, poll_s=0.25, grace_s=2.0, log_delay_s=0.0, services=frozenset(EMBEDDED)
)
AWS = Backend(billed=True, shares_folders=False, poll_s=4.0, grace_s=120.0, log_delay_s=4.0)


CREATING = RLock()  # threads that need a client at the same time share one


class Clients:
    """The services' clients in boto3's shape: ``batch``, ``logs``, ``s3``, and any other by ``client(name)``.

    Parameters
    ----------
    settings : Settings
        Whether the clients are those of AWS or of the embedded account.
    **services
        Clients to use as they are, by boto3's name of the service. The others are created on first use.

    Examples
    --------
    >>> Clients(Settings(), batch="a Stubber's client").batch
    "a Stubber's client"
    """

    def __init__(self, settings: Settings, **services: Any) -> None:
        self.settings = settings
        self.backend = HERE if settings.backend == "local" else AWS
        self.services: dict[str, Any] = services
        self.stack_outputs: dict[str, dict[str, str]] = {}  # by stack, once it is deployed

    shares_folders = renamed("shares_folders", "backend.shares_folders")

    def __repr__(self) -> str:
        return f"<Clients {self.place}>"

    @property
    def batch(self) -> Any:
        return self.client("batch")

    @property
    def logs(self) -> Any:
        return self.client("logs")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    def client(self, service: str) -> Any:
        """The client of any service, by boto3's name.

        Calling what the embedded account lacks raises NotImplementedError.
        """
        with CREATING:
            if service not in self.services:
                make = _embedded if self.backend is HERE else _boto3
                self.services[service] = make(service, self.settings)
            return self.services[service]

    # --- what the deployed stack offers to jobs

    def outputs(self, stack: str | None = None) -> dict[str, str]:
        """The outputs of a stack (default: the settings'); empty if it is not deployed. Raises AccessDenied."""
        name = stack or self.settings.stack
        if name in self.stack_outputs:
            return dict(self.stack_outputs[name])
        try:
            with translated_errors(f"stack '{name}'"):
                deployed = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        except InvalidRequest:  # AWS's answer if there is no such stack
            return {}
        outputs = {one["OutputKey"]: one["OutputValue"] for one in deployed.get("Outputs", [])}
        if deployed["StackStatus"].endswith("_COMPLETE"):
            self.stack_outputs[name] = outputs
        return dict(outputs)

    def output(self, key: str, stack: str | None = None) -> str:
        """One output of a stack. Raises ConfigError if it is not deployed."""
        outputs = self.outputs(stack)
        if key not in outputs:
            template = "batch" if stack is None else stack.removeprefix("genokit-")
            other = ', or name another: stack = "..." in genokit.toml' if stack is None else ""
            raise ConfigError(
                f"The stack '{stack or self.settings.stack}' is not deployed in "
                f"{self.settings.region or 'the default region'}, or has no output '{key}'. Deploy it with "
                f"Stack('{template}').deploy(){other}."
            )
        return outputs[key]

    @property
    def bucket(self) -> str:
        """The bucket for code, parameters and results; every embedded account has one."""
        if self.backend is HERE:
            return self.outputs().get("Bucket", "genokit")
        return self.output("Bucket")

    def container(self, image: str, *, gpus: int = 0) -> dict[str, Any]:
        """The containerProperties for an image.

        ``genokit``, or ``genokit:gpu-torch`` to name one, is the kit's own. On AWS it is the image in the stack's
        repository, by its digest if it has been published and the user may look it up, else by its tag.
        """
        own = re.fullmatch(r"genokit(?::([a-z-]+))?", image)
        if self.backend is HERE or not (own or "@sha256:" in image):
            return {"image": image}
        repository = self.outputs().get("Repository")
        if own:
            image = f"{repository}:genokit-{own[1]}" if own[1] else self.output("ImageGpu" if gpus else "ImageCpu")
            with suppress(AccessDenied):
                if image.startswith(f"{repository}:") and (digest := self.image_digest(image)):
                    image = f"{repository}@{digest}"
        elif not image.startswith(f"{repository}@"):
            return {"image": image}
        return {
            "image": image,
            "jobRoleArn": self.output("JobRole"),
            "executionRoleArn": self.output("ExecutionRole"),
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": self.output("LogGroup")}},
        }

    def image_digest(self, image: str) -> str:
        """Look up the digest of ``repository:tag`` in ECR; "" if the tag does not exist. Raises AccessDenied."""
        repository, _, tag = image.rpartition(":")
        asked = {"repositoryName": repository.partition("/")[2], "imageIds": [{"imageTag": tag}]}
        try:
            with translated_errors(f"image '{image}'"):
                return str(self.client("ecr").describe_images(**asked)["imageDetails"][0]["imageDigest"])
        except InvalidRequest as error:
            if error.code != "ImageNotFoundException":
                raise
            return ""

    def job_environment(self) -> dict[str, str]:
        """The variables by which the kit inside a job finds the same account."""
        if self.backend is HERE:
            return {}  # the embedded account gives them to every job
        return {"GENOKIT_BACKEND": "aws", "GENOKIT_STACK": self.settings.stack, "GENOKIT_REGION": self.region}

    def submission_lock(self) -> AbstractContextManager[None]:
        """A lock to hold while a name is looked up and its job submitted, so that two kernels never both submit it.

        AWS has no such lock: of two kernels that look at once, both find nothing and both submit.
        """
        if self.backend is not HERE:
            return nullcontext()
        from genokit.local.batch import alone

        return alone(self.settings.home)

    @property
    def region(self) -> str:
        """The region that jobs run in; for the embedded account, the one whose prices and names are used."""
        if self.backend is HERE:
            return self.settings.region or "us-east-1"
        return str(self.settings.region or self.batch.meta.region_name)

    @property
    def caller(self) -> str:
        """Who calls: the login name here; on AWS the user's name, or the session name of a role."""
        if self.backend is HERE:
            return getpass.getuser()
        with translated_errors("your identity"):
            return str(self.client("sts").get_caller_identity()["Arn"]).rpartition("/")[2]

    @property
    def place(self) -> str:
        """Where jobs run and how they are isolated, for a card."""
        if self.backend is HERE:
            return "here as your user, with no container or IAM isolation"
        return f"on AWS, {self.settings.region or 'default region'}"


def clients(settings: Settings | None = None) -> Clients:
    """Clients in boto3's calling shape, of AWS or of the embedded account.

    Parameters
    ----------
    settings : Settings, optional
        Default: ``Settings.load()``.

    Returns
    -------
    Clients
        ``batch``, ``logs``, ``s3``, and any other by ``client(name)``.

    Examples
    --------
    >>> clients().s3.list_objects_v2(Bucket="genokit", Prefix="nothing/")["KeyCount"]
    0
    """
    return Clients(settings or Settings.load())


def account(settings: Settings | None = None) -> Account:
    """The embedded account of the settings: its status, and methods to stop and to clear it."""
    from genokit.local.account import Account

    settings = settings or Settings.load()
    check_home(settings.home)
    return Account(settings.home)


def door(settings: Settings | None = None, port: int = 0, *, verbose: bool = False) -> Door:
    """A server that offers the embedded account to other AWS clients, once ``serve_forever()`` is called."""
    from genokit.local.door import Door

    settings = settings or Settings.load()
    return Door(settings.made("home"), settings.environ(), port, verbose=verbose)


@dataclass(frozen=True)
class _Session:
    """The parts of a boto3 session that pyathena uses, with this kit's clients."""

    clients: Clients

    def client(self, service: str, **_: object) -> Any:
        return self.clients.client(service)

    def get_credentials(self) -> Any:
        """Credentials for Arrow, which reads results from S3 itself."""
        import boto3

        return boto3.Session(profile_name=self.clients.settings.profile).get_credentials()


def athena(clients: Clients, workgroup: str, database: str = "default") -> Any:
    """A connection of pyathena to a workgroup, with a default database. Raises ConfigError.

    An interrupt cancels the running query. Wrap its use in ``translated_queries``.
    """
    import pyathena

    if not (clients.backend.offers("athena") or "athena" in clients.services):
        raise ConfigError(
            f"Athena's workgroup '{workgroup}' exists on AWS only, but the settings say backend = 'local'. "
            'Set backend = "aws" in genokit.toml, or GENOKIT_BACKEND=aws.'
        )
    return pyathena.connect(
        session=_Session(clients), region_name=clients.region, work_group=workgroup, schema_name=database,
        poll_interval=clients.backend.poll_s / 4,
    )  # fmt: skip


def database(address: str, clients: Clients | None = None) -> DuckDatabase | AthenaDatabase:
    """The database at an address: ``athena://workgroup/database`` on AWS, or ``:memory:``, DuckDB in this process.

    >>> database(":memory:").dialect
    'duckdb'
    """
    from genokit.databases import AthenaDatabase, DuckDatabase

    if not address.startswith("athena:"):
        import duckdb

        still = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
        return DuckDatabase(duckdb.connect(address, config=still), "main")
    match = re.fullmatch(r"athena://([\w.-]{1,128})/([\w-]{1,255})", address)
    if not match:
        raise ConfigError(f"'{address}' must be athena://workgroup/database, such as athena://genokit-omop/omop.")
    return AthenaDatabase(athena(clients or Clients(Settings.load()), match[1], match[2]), match[2])


def _embedded(service: str, settings: Settings) -> Any:
    from genokit.local.client import client, offer

    environment = settings.environ()
    if service not in EMBEDDED:
        return client(service, offer({}, settings.home, environment), environment)
    module = import_module(f"genokit.local.{EMBEDDED[service]}")
    return client(service, module.service(settings.made("home"), environment), environment)


def _boto3(service: str, settings: Settings) -> Any:
    import boto3
    from botocore.config import Config

    with translated_errors(f"a client for {service}"):
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        # Batch throttles frequent calls, and waiting pays; data and prices have other sources.
        retries = {"mode": "adaptive", "total_max_attempts": 3 if service in ("s3", "pricing") else 6}
        region = "us-east-1" if service == "pricing" else None  # which serves the prices of all regions
        return session.client(
            service, region_name=region, config=Config(retries=retries, connect_timeout=settings.timeout_s)
        )
