"""What every test and doctest stands on: an embedded account of its own, never the user's."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from hypothesis import settings as hypothesis_settings
from seeds import ALL, seeds

import genokit
from genokit import Settings, backends

os.environ["OMP_NUM_THREADS"] = "1"  # workers of the tests share the cores, and weights depend on the number of threads
USERS_CACHE = Settings.load().cache  # fetched data are verified, so tests share them with their user


# How long one example takes says more of the machine than of the code.
hypothesis_settings.register_profile("genokit", deadline=None)
hypothesis_settings.load_profile("genokit")

# How long a test of a marker may take, where pyproject's default is too short; a mark of its own goes first.
LIMITS_S = {
    "slow": 1800,
    "spark": 1800,
    "browser": 900,
    "containers": 900,
    "policies": 900,
    "torch": 900,
    "clients": 2400,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            limits = [LIMITS_S[marker.name] for marker in item.iter_markers() if marker.name in LIMITS_S]
            if limits:
                item.add_marker(pytest.mark.timeout(max(limits)))


# jsonschema would load this for two seconds in every worker, to check a kind of address that no test has.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

# botocore parses its models once a process, not for each of the hundreds of sessions that tests make.
botocore.session.create_loader = cache(botocore.session.create_loader)


def in_memory() -> str | None:
    """Linux's folder in memory, where it holds programs too and has room: there no test waits for a disk."""
    try:
        about = os.statvfs("/dev/shm")
    except OSError:
        return None
    roomy = about.f_bavail * about.f_frsize >= 4 * 2**30
    return "/dev/shm" if roomy and not about.f_flag & os.ST_NOEXEC and os.access("/dev/shm", os.W_OK) else None


if folder := in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)  # the folder of tmp_path's folders


# The CI has them (.ci/run); elsewhere a line at the start says that they are missing.
LACKING = [name for name in ("samtools", "bcftools") if not shutil.which(name)]
collect_ignore = ["tests/test_genomics_debian.py"] if LACKING else []


def pytest_report_header() -> list[str]:
    counts = f"seeds of test_omop_small_counts: {seeds()[0]} to {seeds()[-1]} (CI_ALL=1: {ALL[0]} to {ALL[-1]})"
    return [counts, *(f"test_genomics_debian.py is left out: {name} is not installed" for name in LACKING)]


def pytest_collection_finish() -> None:
    """What the imports made stays: no collection of garbage looks through it, a third of the tests' time otherwise."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A script's `&` starts us with SIGINT ignored, and so would be all that tests start to interrupt it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module", autouse=True)
def module_account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Code that asks for no settings of its own, doctests above all, works in a folder of its module's tests."""
    settings = Settings(home=tmp_path_factory.mktemp("account"), cache=USERS_CACHE)
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("GENOKIT_")]:
        del os.environ[name]
    os.environ |= settings.environ()
    yield
    backends.account(settings).stop()
    os.environ.clear()
    os.environ |= before


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Settings]:
    """The settings of an embedded account made for one test, stopped after it."""
    settings = Settings(home=tmp_path / "account", cache=USERS_CACHE)
    yield settings
    backends.account(settings).stop()


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """For tests that exhaust the stack: what others left is finalized before, not meanwhile, where it would fail."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    """No figure outlives its test."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def cdm() -> genokit.Cdm:
    """The sample of synthetic patients, GiBleed."""
    return genokit.Cdm()


@pytest.fixture(scope="session")
def mnist() -> genokit.Dataset:
    """MNIST, fetched once and kept."""
    return genokit.Manifest("mnist").fetch()
