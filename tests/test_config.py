"""Settings: which layer wins, where each value came from, and what a wrong one says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from genokit.config import Settings, nearest, unknown_variables
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
        ("GENOKIT_TIMEOUT_S", "soon", "GENOKIT_TIMEOUT_S must be a number of seconds, but is 'soon'"),
        ("GENOKIT_TIMEOUT_S", "nan", "above 0, but is nan"),
        ("GENOKIT_BACKEND", "AWS", "backend must be 'local' or 'aws', but is 'AWS' (GENOKIT_BACKEND)"),
        ("GENOKIT_MIRRORS", '["a"', "GENOKIT_MIRRORS must be"),
        ("GENOKIT_BAKEND", "aws", "GENOKIT_BAKEND, which is no setting. Did you mean 'GENOKIT_BACKEND'?"),
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
