"""Settings: one frozen value, resolved from keyword, environment and file, that remembers where each value came from.

A keyword beats a ``GENOKIT_*`` variable, which beats the nearest ``genokit.toml`` at or above the working folder, which
beats the default. Nothing is read at import.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genokit.errors import ConfigError, did_you_mean
from genokit.files import private_folder

if TYPE_CHECKING:
    from genokit.display import Html

FILE = "genokit.toml"
SMALLEST_CELL = 5
PATHS = ("home", "cache", "runs", "manifests")
# What each setting must be; all others are texts.
EXPECTED = {
    **dict.fromkeys(PATHS, "a path"),
    "backend": "'local' or 'aws'",
    "mirrors": "a list of folders and URLs",
    "workspace": "a folder or s3://bucket/prefix",
    "timeout_s": "a number of seconds above 0",
    "retention_days": "a number of days above 0",
    "min_cell": f"a whole number of persons, {SMALLEST_CELL} or more",
}

# Folders, separated by colons, in which other users' settings and homes are used. No file can set it.
TRUST = "GENOKIT_TRUST"
# Variables of the kit that are not settings.
OTHER_VARIABLES = ("GENOKIT_DEBUG", "GENOKIT_RUN", TRUST)

StrPath = str | os.PathLike[str]


def cpus() -> int:
    """Count the CPUs that this process may use, which a cluster or a container may have restricted."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS


@dataclass(frozen=True)
class Settings:
    """Where the kit works and how. Created directly, it reads nothing; ``Settings.load()`` reads environment and file.

    Paths become absolute; a relative one is meant from the working folder.

    Parameters
    ----------
    backend : {"local", "aws"}
        Where jobs run: in the embedded account in ``home``, or on AWS.
    home : path
        The folder of the embedded account, and of all that has no folder of its own. Default: ``~/.genokit``.
    cache : path
        Fetched data. Default: ``home/data``.
    runs : path
        Runs of notebooks and pipelines. Default: ``home/runs``.
    manifests : path, optional
        A folder of data manifests. Default: the nearest ``data_manifests`` at or above the working folder, else the
        package's own.
    mirrors : iterable of str
        Folders or URLs that are tried before a manifest's own sources.
    region, profile : str, optional
        AWS region and profile. Default: boto3's.
    stack : str
        The CloudFormation stack that jobs on AWS run in.
    project : str, optional
        The tag by which costs are summed.
    timeout_s : float
        Seconds to wait for a connection to a data source, and for its first answer.
    retention_days : float
        Days after which the embedded account deletes ended jobs, their events and logs.
    min_cell : int
        Counts of persons below it are not shown: 5 or more.
    workspace : str, optional
        The workspace that ``Workspace()`` opens: a folder, or ``s3://bucket/prefix``.
    member : str, optional
        Who you are in workspaces. Default: the login name; on AWS the session name of the role.
    origins : mapping
        Where each value came from. Filled in by ``load``.

    Raises
    ------
    ConfigError
        A value has a wrong type or is out of range.

    Examples
    --------
    >>> settings = Settings(home="/data/kit")
    >>> settings.runs
    PosixPath('/data/kit/runs')
    >>> settings.origins["home"], settings.origins["runs"]
    ('keyword', 'default')
    """

    backend: str = "local"
    home: Path = Path("~/.genokit")
    cache: Path = None  # type: ignore[assignment]  # filled from home below
    runs: Path = None  # type: ignore[assignment]
    manifests: Path | None = None
    mirrors: tuple[str, ...] = field(default=(), repr=False)  # an address may hold a password
    region: str | None = None
    profile: str | None = None
    stack: str = "genokit-batch"
    project: str | None = None
    timeout_s: float = 10.0
    retention_days: float = 30.0
    min_cell: int = SMALLEST_CELL
    workspace: str | None = None
    member: str | None = None
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        given: dict[str, str] = {}
        for name, default in _defaults().items():
            value = getattr(self, name)
            given[name] = self.origins.get(name, "default" if value == default else "keyword")
            object.__setattr__(self, name, _checked(name, value, given[name]))
        for name, folder in (("cache", "data"), ("runs", "runs")):
            if getattr(self, name) is None:
                object.__setattr__(self, name, self.home / folder)
        object.__setattr__(self, "origins", given)

    @classmethod
    def load(cls, *, start: StrPath | None = None, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Resolve every setting: keyword, else ``GENOKIT_*`` variable, else the nearest genokit.toml, else default.

        None means not given. Of several values of ``min_cell`` the highest
        holds, so that nobody can lower what a shared workspace demands.

        Parameters
        ----------
        start : path, optional
            The folder from which to look upwards for genokit.toml. Default: the working folder.
        environ : mapping of str to str, optional
            The variables to read. Default: those of this process.
        **given
            Single settings, as in ``load(backend="aws")``.

        Raises
        ------
        ConfigError
            A value is wrong; the message names the file or variable that it comes from.

        Examples
        --------
        >>> Settings.load(start="/", environ={"GENOKIT_REGION": "eu-central-1"}, home="/data/kit").region
        'eu-central-1'
        """
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        file = nearest(FILE, start)
        layers = [
            _from_file(file) if file else {},
            _from_environ(os.environ if environ is None else environ),
            {name: (_checked(name, value, "keyword"), "keyword") for name, value in given.items() if value is not None},
        ]
        for layer in layers:
            for name, (value, origin) in layer.items():
                if name != "min_cell" or value >= values.get(name, 0):
                    values[name], origins[name] = value, origin
        return cls(**values, origins=origins)

    def environ(self) -> dict[str, str]:
        """The ``GENOKIT_*`` variables by which another process, in any folder, gets these same settings.

        >>> Settings(home="/data/kit").environ()["GENOKIT_CACHE"]
        '/data/kit/data'
        """
        values = {name: getattr(self, name) for name in _defaults()}
        if values["manifests"] is None:
            # Seen from the other process's working folder, the nearest one may be another.
            values["manifests"] = nearest("data_manifests")
        values["mirrors"] = json.dumps(list(self.mirrors)) if self.mirrors else None
        trusted = {TRUST: os.environ[TRUST]} if TRUST in os.environ else {}
        return {_variable(name): str(value) for name, value in values.items() if value is not None} | trusted

    def made(self, name: str) -> Path:
        """One of the settings' folders, made on first use for its owner alone (0700).

        Parameters
        ----------
        name : str
            "home", "cache" or "runs".

        Returns
        -------
        Path

        Raises
        ------
        ConfigError
            It cannot be made, or the home belongs to another user, or others can write to it.
        """
        folder: Path = getattr(self, name)
        try:
            if folder.is_relative_to(self.home):
                private_home(self.home)
            return private_folder(folder, data=not folder.is_relative_to(self.home))
        except OSError as error:
            raise ConfigError(
                f"The {name} {folder} ({self.origins[name]}) cannot be used: {error}. "
                f"Make it writable, or set {_variable(name)} to another folder."
            ) from error

    def _repr_html_(self) -> Html:
        from genokit.display import card, noted

        return card("Settings", [(name, noted(value, self.origins[name])) for name, value in self.items()])

    def items(self) -> list[tuple[str, Any]]:
        """Name and value of every setting, to show; mirrors as one text, without passwords.

        >>> dict(Settings(mirrors=["https://me:secret@mirror.org/data"]).items())["mirrors"]
        'https://***@mirror.org/data'
        """
        values = {name: getattr(self, name) for name in _defaults()}
        values["mirrors"] = ", ".join(re.sub(r"//[^/@]*@", "//***@", mirror) for mirror in self.mirrors) or None
        return list(values.items())


def nearest(name: str, start: StrPath | None = None) -> Path | None:
    """The file or folder of this name in the folder ``start`` (default: the working one) or the nearest above it."""
    folder = Path.cwd() if start is None else Path(start).absolute()
    found = next((place / name for place in (folder, *folder.parents) if os.path.exists(place / name)), None)
    if found:
        _refuse_others(found, 0o002)
    return found


def private_home(home: Path) -> Path:
    """The home, made on first use for its owner alone. Raises as ``check_home``, and OSError."""
    check_home(home)
    return private_folder(home, data=True)


def check_home(home: Path) -> None:
    """Raise ConfigError if a home belongs to another user, others can write to it, or anyone can replace it."""
    if os.path.exists(home):
        _refuse_others(home, 0o022)
    for folder in home.resolve().parents:
        with contextlib.suppress(FileNotFoundError):  # a sticky bit, as /tmp has, prevents it
            if os.stat(folder).st_mode & 0o1002 == 0o002:
                _refuse(home, f"is in '{folder}', where anyone can replace it", f"chmod o-w '{folder}'")


def _refuse_others(path: Path, writable: int) -> None:
    """Raise ConfigError unless a file or folder, and the link to it, belong to this user, root, or (as git does) the
    user who called sudo, and nobody with the mode bits ``writable`` can write to it."""
    owners = {0, os.geteuid() if os.name == "posix" else path.stat().st_uid}
    if owners == {0} and os.environ.get("SUDO_UID", "").isdecimal():
        owners.add(int(os.environ["SUDO_UID"]))
    for found in (path.lstat(), path.stat()):
        if found.st_uid not in owners:
            _refuse(path, f"belongs to another user ({found.st_uid})")
        if found.st_mode & writable and not stat.S_ISLNK(found.st_mode):
            _refuse(path, f"can be changed by others (mode {found.st_mode & 0o777:o})", f"chmod go-w '{path}'")


def _refuse(path: Path, why: str, mend: str = "") -> None:
    trusted = [Path(one).expanduser() for one in os.environ.get(TRUST, "").split(os.pathsep)]
    if os.name == "posix" and not any(one.is_absolute() and path.is_relative_to(one) for one in trusted):
        raise ConfigError(
            f"'{path}' {why}, so it is not used: it could make you run someone else's jobs. "
            f"{f'Close it: {mend}. Or, if' if mend else 'If'} you trust everyone who can write there, set the "
            f"variable {TRUST}='{path}'."
        )


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """The ``GENOKIT_*`` variables that the kit does not know, sorted."""
    known = {*map(_variable, _defaults()), *OTHER_VARIABLES}
    return sorted(name for name in environ if name.startswith("GENOKIT_") and name not in known)


def _defaults() -> dict[str, Any]:
    return {item.name: item.default for item in dataclasses.fields(Settings) if item.name != "origins"}


def _variable(name: str) -> str:
    return f"GENOKIT_{name.upper()}"


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    import tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{path} is not TOML: {error}. Strings need quotes: runs = "runs".') from error
    return {name: (_checked(name, value, str(path), path.parent), str(path)) for name, value in content.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    for variable in unknown_variables(environ):
        near = difflib.get_close_matches(variable, map(_variable, _defaults()), 1, 0.93)
        if near:
            raise ConfigError(f"The environment has {variable}, which is not a setting. Did you mean '{near[0]}'?")
    texts = {name: environ.get(_variable(name)) for name in _defaults()}
    return {
        name: (_checked(name, _parsed(name, text), _variable(name)), _variable(name))
        for name, text in texts.items()
        if text
    }


def _parsed(name: str, text: str) -> Any:
    """A variable's text as a value of the setting; left as it is if it cannot be one, which ``_checked`` reports."""
    with contextlib.suppress(ValueError):
        if name in ("min_cell", "timeout_s", "retention_days"):
            return (int if name == "min_cell" else float)(text)
        if name == "mirrors":
            listed = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",")]
            return [part for part in listed if part]
    return text


def _checked(name: str, value: Any, origin: str, base: Path = Path()) -> Any:
    """The value in its own type. Raises ConfigError, naming the setting and where it was set."""
    if name not in _defaults():
        raise ConfigError(f"{origin}: there is no setting '{name}'. {did_you_mean(name, _defaults())}")
    if value is None and _defaults()[name] is None:
        return None
    with contextlib.suppress(TypeError):
        if name in PATHS:
            return _absolute(value, base)
        if name == "workspace":
            return os.fspath(value) if "://" in os.fspath(value) else str(_absolute(value, base))
        if name == "mirrors" and not isinstance(value, (str, bytes)):
            parts = [os.fspath(part) for part in value]
            return tuple(part if "://" in part else str(_absolute(part, base)) for part in parts)
        if name in ("timeout_s", "retention_days") and 0 < value < float("inf") and not isinstance(value, bool):
            return float(value)
        if name == "min_cell" and isinstance(value, int) and value >= SMALLEST_CELL:
            return value
        if (name not in EXPECTED and isinstance(value, str)) or (name == "backend" and value in ("local", "aws")):
            return value
    expected = EXPECTED.get(name, "a text")
    raise ConfigError(f"{name} must be {expected}, but is {value!r} of type {type(value).__name__} ({origin}).")


def _absolute(path: StrPath, base: Path) -> Path:
    try:
        return (base / Path(path).expanduser()).absolute()
    except RuntimeError as error:
        raise ConfigError(f"'{path}' cannot be resolved: {error} Set GENOKIT_HOME to a folder.") from error
