"""Settings: which layer wins, where each value came from, and what a wrong one says."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from genokit import Manifest, backends, run
from genokit.config import Settings, check_home, nearest, unknown_variables
from genokit.doctor import doctor
from genokit.errors import ConfigError


def test_a_keyword_beats_a_variable_beats_the_file_beats_the_default(tmp_path):
    (tmp_path / "genokit.toml").write_text('home = "file"\ncache = "file"\nruns = "file"\n')
    environ = {"GENOKIT_HOME": "/variable", "GENOKIT_CACHE": "/variable"}
    settings = Settings.load(start=tmp_path, environ=environ, home="/keyword")
    assert (settings.home, settings.cache, settings.runs) == (Path("/keyword"), Path("/variable"), tmp_path / "file")
    assert settings.backend == "local"


def test_settings_know_where_each_value_came_from(tmp_path):
    file = tmp_path / "genokit.toml"
    file.write_text('runs = "runs"\n')
    settings = Settings.load(start=tmp_path, environ={"GENOKIT_REGION": "eu-central-1"}, backend="aws")
    assert settings.origins["backend"] == "keyword"
    assert settings.origins["region"] == "GENOKIT_REGION"
    assert settings.origins["runs"] == str(file)
    assert settings.origins["timeout_s"] == "default"
    assert str(file) in settings._repr_html_()


def test_the_nearest_file_above_is_found_and_its_paths_are_relative_to_it(tmp_path):
    (tmp_path / "genokit.toml").write_text(
        'runs = "r"\nmanifests = "m"\nmirrors = ["mirror", "https://mirror.org/x", "/abs"]'
    )
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    settings = Settings.load(start=deep, environ={})
    assert settings.runs == tmp_path / "r"
    assert settings.manifests == tmp_path / "m"
    assert settings.mirrors == (str(tmp_path / "mirror"), "https://mirror.org/x", "/abs")
    (tmp_path / "a" / "genokit.toml").write_text("")
    assert Settings.load(start=deep, environ={}).manifests is None


def test_settings_made_directly_read_neither_file_nor_variable(tmp_path, monkeypatch):
    (tmp_path / "genokit.toml").write_text("this is not TOML")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENOKIT_BACKEND", "aws")
    settings = Settings(home=tmp_path / "home")
    assert settings.backend == "local"
    assert settings.cache == tmp_path / "home" / "data"
    assert not settings.home.exists()


def test_relative_paths_and_the_tilde_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    settings = Settings(home="here")
    monkeypatch.chdir("/")
    assert settings.home == tmp_path / "here"
    assert Settings().home == Path("/home/someone/.genokit")
    assert Settings(runs="~/runs").runs == Path("/home/someone/runs")


def test_another_process_in_another_folder_resolves_the_same_settings(tmp_path, monkeypatch):
    (tmp_path / "data_manifests").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        home="h", mirrors=["/a,b", "https://c.org"], region="eu-central-1", profile="lab", timeout_s=2, manifests="m"
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "genokit.toml").write_text('home = "wrong"\nruns = "wrong"\ntimeout_s = 99')
    assert Settings.load(start=tmp_path / "other", environ=settings.environ()) == settings
    assert Settings(home="h").environ()["GENOKIT_MANIFESTS"] == str(tmp_path / "data_manifests")


def test_an_empty_variable_is_no_value():
    assert Settings.load(start="/", environ={"GENOKIT_REGION": "", "GENOKIT_HOME": "/h"}).region is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('run = "x"', "there is no setting 'run'. Did you mean 'runs'?"),
        ('zzz = "x"', "Known: backend, cache, home"),
        ("runs = 3", "runs must be a path, but is 3 of type int"),
        ('timeout_s = "10"', "timeout_s must be a number of seconds above 0, but is '10' of type str"),
        ("timeout_s = true", "timeout_s must be a number of seconds above 0"),
        ("timeout_s = 0", "timeout_s must be a number of seconds above 0"),
        ("retention_days = -1", "retention_days must be a number of days above 0"),
        ('mirrors = "/m"', "mirrors must be a list of folders and URLs"),
        ("mirrors = [1]", "mirrors must be a list of folders and URLs"),
        ('backend = "azure"', "backend must be 'local' or 'aws', but is 'azure'"),
        ("region = 1", "region must be a text"),
        ("runs = runs", "is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_name(tmp_path, content, said):
    (tmp_path / "genokit.toml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        Settings.load(start=tmp_path, environ={})
    assert said in str(caught.value)
    assert str(tmp_path / "genokit.toml") in str(caught.value)


def test_a_file_that_is_not_text_is_a_config_error(tmp_path):
    (tmp_path / "genokit.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.load(start=tmp_path, environ={})


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("GENOKIT_TIMEOUT_S", "soon", "timeout_s must be a number of seconds above 0, but is 'soon'"),
        ("GENOKIT_TIMEOUT_S", "nan", "above 0, but is nan"),
        ("GENOKIT_BACKEND", "AWS", "backend must be 'local' or 'aws', but is 'AWS' of type str (GENOKIT_BACKEND)"),
        ("GENOKIT_MIRRORS", '["a"', "mirrors must be a list"),
        ("GENOKIT_BAKEND", "aws", "GENOKIT_BAKEND, which is not a setting. Did you mean 'GENOKIT_BACKEND'?"),
    ],
)
def test_what_is_wrong_in_a_variable_is_said_with_its_name(variable, value, said):
    with pytest.raises(ConfigError) as caught:
        Settings.load(start="/", environ={variable: value})
    assert said in str(caught.value)
    assert variable in str(caught.value)


def test_a_wrong_keyword_says_that_it_was_one():
    with pytest.raises(ConfigError, match=r"home must be a path, but is 3 of type int \(keyword\)"):
        Settings(home=3)
    with pytest.raises(ConfigError, match=r"must be a list"):
        Settings(mirrors="/one")


def test_other_variables_of_the_prefix_are_listed_and_harmless():
    environ = {"GENOKIT_DEBUG": "1", "GENOKIT_FLAVOUR": "x", "GENOKIT_HOME": "/h", "PATH": ""}
    assert unknown_variables(environ) == ["GENOKIT_FLAVOUR"]
    assert Settings.load(start="/", environ=environ).home == Path("/h")


def test_mirrors_in_a_variable_are_parted_by_commas_or_json():
    for text in ("/a, https://b.org", '["/a", "https://b.org"]'):
        assert Settings.load(start="/", environ={"GENOKIT_MIRRORS": text}).mirrors == ("/a", "https://b.org")


def test_the_password_of_a_mirror_is_never_shown():
    settings = Settings(mirrors=["https://me:hunter2@mirror.org"])
    assert "hunter2" not in repr(settings) + str(settings) + settings._repr_html_() + str(settings.items())
    assert "hunter2" in settings.environ()["GENOKIT_MIRRORS"]


def test_settings_are_values_equal_hashable_frozen_and_pickled():
    settings = Settings(home="/h", mirrors=["/m"])
    assert settings == Settings.load(start="/", environ={"GENOKIT_HOME": "/h", "GENOKIT_MIRRORS": "/m"})
    assert hash(settings) == hash(Settings(home="/h", mirrors=("/m",)))
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(AttributeError):
        settings.home = Path("/x")


def test_the_sample_file_of_the_repository_names_every_setting_and_loads():
    file = Path(__file__).parents[1] / "genokit.toml"
    settings = Settings.load(start=file.parent, environ={"HOME": "/h"})
    assert settings.runs == file.parent / "runs"
    for name, _ in settings.items():
        assert f"{name} = " in file.read_text()


def test_nearest_finds_folders_as_well_as_files(tmp_path):
    (tmp_path / "data_manifests").mkdir()
    (tmp_path / "x" / "y").mkdir(parents=True)
    assert nearest("data_manifests", tmp_path / "x" / "y") == tmp_path / "data_manifests"
    assert nearest("surely-no-such-folder-anywhere", tmp_path) is None


# --- whose settings and whose home

OTHER = 54321  # a user that no machine has


def seen_from_a_subfolder(tmp_path: Path, name: str = "genokit.toml") -> Path:
    """A shared folder with a settings file, and a folder of one's own in it."""
    shared = tmp_path / "shared"
    (shared / "mine").mkdir(parents=True)
    (shared / name).write_text('stack = "another"\n' if name == "genokit.toml" else "")
    return shared


if os.geteuid() == 0:  # who else could give files away

    @pytest.mark.parametrize("name", ["genokit.toml", "data_manifests", ".git"])
    def test_what_another_user_put_above_the_working_folder_is_refused_until_it_is_allowed(tmp_path, monkeypatch, name):
        shared = seen_from_a_subfolder(tmp_path, name)
        os.chown(shared / name, OTHER, OTHER)
        with pytest.raises(ConfigError, match=rf"{name}' belongs to another user \({OTHER}\).*GENOKIT_TRUST='"):
            nearest(name, shared / "mine")
        monkeypatch.setenv("GENOKIT_TRUST", f"/elsewhere:{shared}")
        assert nearest(name, shared / "mine") == shared / name
        for value in (".", str(tmp_path / "share"), str(shared / "mine"), ""):  # a relative one would be true anywhere
            monkeypatch.chdir(shared)
            monkeypatch.setenv("GENOKIT_TRUST", value)
            with pytest.raises(ConfigError, match="belongs to another user"):
                nearest(name, shared / "mine")

    def test_a_settings_file_cannot_allow_itself(tmp_path):
        shared = seen_from_a_subfolder(tmp_path)
        (shared / "genokit.toml").write_text(f'trust = "{shared}"\n')
        with pytest.raises(ConfigError, match="no setting 'trust'"):
            Settings.load(start=shared / "mine", environ={})
        os.chown(shared / "genokit.toml", OTHER, OTHER)
        with pytest.raises(ConfigError, match="belongs to another user"):
            Settings.load(start=shared / "mine", environ={"GENOKIT_TRUST": str(shared)})  # not this process's

    def test_a_link_of_another_user_is_refused_whatever_it_leads_to(tmp_path):
        shared = seen_from_a_subfolder(tmp_path)
        (shared / "genokit.toml").rename(tmp_path / "mine.toml")
        (shared / "genokit.toml").symlink_to(tmp_path / "mine.toml")
        assert Settings.load(start=shared / "mine", environ={}).stack == "another"
        os.lchown(shared / "genokit.toml", OTHER, OTHER)
        with pytest.raises(ConfigError, match="belongs to another user"):
            Settings.load(start=shared / "mine", environ={})
        home = tmp_path / "home"
        home.symlink_to(tmp_path / "real")
        (tmp_path / "real").mkdir(mode=0o700)
        check_home(home)
        os.lchown(home, OTHER, OTHER)
        with pytest.raises(ConfigError, match="belongs to another user"):
            check_home(home)

    def test_root_by_sudo_obeys_the_files_of_who_called_it(tmp_path, monkeypatch):
        shared = seen_from_a_subfolder(tmp_path)
        os.chown(shared / "genokit.toml", OTHER, OTHER)
        for uid in ("0", "x", str(OTHER + 1), f"-{OTHER}"):
            monkeypatch.setenv("SUDO_UID", uid)
            with pytest.raises(ConfigError, match="belongs to another user"):
                Settings.load(start=shared / "mine", environ={})
        monkeypatch.setenv("SUDO_UID", str(OTHER))
        assert Settings.load(start=shared / "mine", environ={}).stack == "another"

    def as_user(uid: int, code: str, **environ: str) -> str:
        """What code prints that runs as a user; what it needs of the kit is loaded before, as root."""
        loaded = "import os, sys, tomllib\nimport genokit.files\nfrom genokit.config import *\n"
        become = f"os.umask(0o022)\nos.setgroups([])\nos.setgid({uid})\nos.setuid({uid})\nos.chdir('/')\n"
        code = f"{loaded}{become}try:\n    {code}\nexcept ConfigError as error:\n    print('refused:', error)"
        own = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": os.environ["PATH"], **environ}
        return subprocess.run(
            [sys.executable, "-c", code], env=own, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def test_two_users_of_one_machine_do_not_obey_one_another_s_settings_and_homes():
        scratch = Path(tempfile.mkdtemp(dir="/tmp"))
        scratch.chmod(0o1777)  # a shared scratch folder
        try:
            alice, bob = OTHER, OTHER + 1
            (scratch / "genokit.toml").write_text('stack = "of-alice"\n')
            os.chown(scratch / "genokit.toml", alice, alice)
            load = f"print(Settings.load(start='{scratch}', environ={{}}, home='/h').stack)"
            assert as_user(alice, load) == "of-alice\n"
            assert as_user(bob, load).startswith("refused:")
            assert as_user(bob, load, SUDO_UID=str(alice)).startswith("refused:")  # he isn't root
            assert as_user(bob, load, GENOKIT_TRUST=str(scratch)) == "of-alice\n"
            make = f"print(oct(Settings(home='{scratch}/home').made('home').stat().st_mode & 0o777))"
            assert as_user(alice, make) == "0o700\n"
            assert as_user(bob, make).startswith("refused:")
            os.chown(scratch / "genokit.toml", 0, 0)
            assert as_user(bob, load) == "of-alice\n"  # root's
        finally:
            shutil.rmtree(scratch)

    def test_a_home_of_another_user_is_refused_by_all_that_would_use_it(tmp_path):
        home = tmp_path / "home"
        settings = Settings(home=home)
        clients = backends.clients(settings)
        clients.s3.put_object(Bucket="genokit", Key="a", Body=b"x")
        os.chown(home, OTHER, OTHER)
        fresh = backends.clients(Settings(home=home))
        uses = {
            "batch": lambda: fresh.batch.describe_job_queues(),
            "logs": lambda: fresh.logs.describe_log_groups(),
            "s3": lambda: fresh.s3.list_buckets(),
            "s3 that was there": lambda: clients.s3.get_object(Bucket="genokit", Key="a"),
            "account": lambda: backends.account(settings).status(),
            "clean": lambda: backends.account(settings).clean(),
            "door": lambda: backends.door(settings),
            "cache": lambda: settings.made("cache"),
            "run": lambda: run(hello(tmp_path), settings=settings, progress=False),
        }
        for use in uses.values():
            with pytest.raises(ConfigError, match="home' belongs to another user"):
                use()
        [found] = [row for row in doctor(settings, only=["home"]).rows if row.check == "home"]
        assert found.state == "problem"
        assert "belongs to another user" in found.detail


def test_settings_and_homes_that_others_may_change_are_refused(tmp_path, monkeypatch):
    shared, home = seen_from_a_subfolder(tmp_path), tmp_path / "home"
    (shared / "genokit.toml").chmod(0o664)  # as umask 002 makes them: its group is the owner's own, or of his choice
    assert Settings.load(start=shared / "mine", environ={}).stack == "another"
    (shared / "genokit.toml").chmod(0o646)
    with pytest.raises(ConfigError, match=r"can be changed by others \(mode 646\).*chmod go-w"):
        Settings.load(start=shared / "mine", environ={})
    for mode in (0o770, 0o702, 0o777, 0o1777):
        home.mkdir(exist_ok=True)
        home.chmod(mode)
        with pytest.raises(ConfigError, match="can be changed by others"):
            Settings(home=home).made("cache")
    monkeypatch.setenv("GENOKIT_TRUST", str(tmp_path))
    assert Settings(home=home).made("cache") == home / "data"
    assert Settings(home=home).environ()["GENOKIT_TRUST"] == str(tmp_path)  # for jobs and kernels, too


def test_a_home_in_a_folder_where_anyone_may_exchange_it_is_refused_and_one_in_tmp_is_not(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    for deep in (place / "home", place / "a" / "home"):
        place.chmod(0o777)
        with pytest.raises(ConfigError, match=r"is in '.*place', where anyone can replace it.*chmod o-w"):
            Settings(home=deep).made("home")
        assert not deep.exists()
        place.chmod(0o1777)
        assert Settings(home=deep).made("home").stat().st_mode & 0o777 == 0o700


def test_a_home_whose_link_leads_nowhere_says_so(tmp_path):
    (tmp_path / "home").symlink_to(tmp_path / "purged")
    with pytest.raises(ConfigError, match=r"The home .*home .*cannot be used"):
        Settings(home=tmp_path / "home").made("home")


def hello(folder: Path) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('a patient')")])
    nbformat.write(notebook, folder / "hello.ipynb")
    return folder / "hello.ipynb"


FIRST = {
    "fetch": "Manifest(sys.argv[1]).fetch(progress=False)",
    "batch": "clients().batch.describe_job_queues()",
    "s3": "clients().s3.put_object(Bucket='genokit', Key='a/b', Body=b'x')",
    "s3 upload": "clients().s3.create_multipart_upload(Bucket='genokit', Key='a')",
    "stack": "clients().client('cloudformation').describe_stacks()",
    "door": "door().server_close()",
    "run": "main(['run', sys.argv[2]])",
}


@pytest.mark.parametrize("first", FIRST)
def test_whoever_comes_first_makes_the_home_for_its_owner_alone(tmp_path, first):
    package, mirror = tmp_path / "package", tmp_path / "mirrors" / "small"
    for folder in (package, mirror):
        folder.mkdir(parents=True)
    (package / "a.txt").write_text("a")
    Manifest.freeze(package, "small")
    (package / "a.txt").rename(mirror / "a.txt")
    code = (
        "import os, sys\nos.umask(0o022)\nfrom genokit import Manifest\nfrom genokit.__main__ import main\n"
        f"from genokit.backends import account, clients, door\n{FIRST[first]}\naccount().stop()"
    )
    home = tmp_path / "above" / "home"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GENOKIT_")}
    environ |= {"GENOKIT_HOME": str(home), "GENOKIT_MIRRORS": str(mirror.parent)}
    environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", code, str(package), str(hello(tmp_path))]
    subprocess.run(command, env=environ, cwd=tmp_path, check=True, capture_output=True)
    assert [folder.stat().st_mode & 0o777 for folder in (home, home.parent)] == [0o700, 0o700]
    assert (home / ".gitignore").read_text().endswith("\n*\n")
    held = [path for path in home.rglob("*") if path.is_file()]
    assert held
    assert [path for path in held if path.stat().st_mode & 0o077 and not path.is_relative_to(home / "data")] == []


def test_an_account_that_an_older_version_left_open_is_closed(tmp_path):
    settings = Settings(home=tmp_path / "home")
    backends.clients(settings).batch.describe_job_queues()
    settings.home.chmod(0o755)
    (settings.home / "batch.sqlite").chmod(0o644)
    backends.clients(settings).batch.describe_job_queues()
    assert settings.home.stat().st_mode & 0o777 == 0o700
    assert (settings.home / "batch.sqlite").stat().st_mode & 0o777 == 0o600
