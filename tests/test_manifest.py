"""What manifests say, what is refused in them, and freezing folders into new ones."""

import hashlib
import json
import re
from pathlib import Path

import frictionless
import pytest

from genokit import Manifest, Settings
from genokit.errors import InvalidManifest, NotFound

OURS = Path(__file__).parents[1] / "data_manifests"
NAMES = [
    "eunomia-gibleed", "giab-hg002", "hg002-novaseq-30x", "mimic-iii-demo", "mimic-omop-maps", "mnist",
    "ohdsi-mimic-maps",
]  # fmt: skip
GOOD_HASH = "sha256:" + "0" * 64


def written(folder: Path, **changes: object) -> Path:
    """A small descriptor in a folder; ``resource_*`` changes fields of its one resource, None drops a field."""
    resource = {"name": "a", "path": "a.csv", "bytes": 3, "hash": GOOD_HASH}
    content: dict[str, object] = {"name": "small", "resources": [resource]}
    for field, value in changes.items():
        place: dict[str, object] = resource if field.startswith("resource_") else content
        key = field.removeprefix("resource_").replace("__", "-")
        place.pop(key, None)
        if value is not None:
            place[key] = value
    (folder / "datapackage.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_our_descriptors_are_valid_data_packages_with_licence_and_citation(name):
    content = json.loads((OURS / name / "datapackage.json").read_text())
    report = frictionless.Package.validate_descriptor(content)
    assert report.valid, report.errors
    assert content["$schema"] == "https://datapackage.org/profiles/2.0/datapackage.json"
    manifest = Manifest(name, settings=Settings(manifests=OURS))
    package = manifest.package
    assert package.name == manifest.ref == name
    assert package.title
    assert package.version
    assert package.licences
    assert "https://doi.org/" in package.citation
    assert all(resource.sources for resource in package.resources)


def test_every_manifest_in_the_folder_is_tested():
    assert sorted(file.parent.name for file in OURS.glob("*/datapackage.json")) == NAMES


def test_the_mnist_files_have_several_sources_each_and_a_declared_sample():
    manifest = Manifest("mnist", settings=Settings(manifests=OURS))
    assert [resource.bytes for resource in manifest.package.resources] == [47040016, 60008, 7840016, 10008]
    for resource in manifest.package.resources:
        kinds = [source.partition(":")[0] for source in resource.sources]
        assert kinds == ["https", "https", "s3", "pkg"]
    assert "sample of 5,000 images" in manifest._repr_html_()


def test_the_mimic_demo_has_26_tables_and_a_licence_from_physionet_and_nothing_else():
    resources = Manifest("mimic-iii-demo", settings=Settings(manifests=OURS)).package.resources
    assert len(resources) == 27
    assert sum(resource.path.endswith(".csv") for resource in resources) == 26
    for resource in resources:
        assert resource.sources == (f"https://physionet.org/files/mimiciii-demo/1.4/{resource.path}",)
    # NOTEEVENTS is its header alone, so that its hash can be computed without the file.
    header = "row_id,subject_id,hadm_id,chartdate,charttime,storetime,category,description,cgid,iserror,text\n"
    notes = next(resource for resource in resources if resource.name == "noteevents")
    assert notes.hash == "sha256:" + hashlib.sha256(header.encode()).hexdigest()


def test_the_files_of_hg002_have_an_md5_a_size_and_sources_with_the_same_file_name():
    for name, sources in (("giab-hg002", 2), ("hg002-novaseq-30x", 1)):
        for resource in Manifest(name, settings=Settings(manifests=OURS)).package.resources:
            assert resource.hash.startswith("md5:")
            assert resource.bytes
            assert [source.rpartition("/")[2] for source in resource.sources] == [resource.path] * sources


@pytest.mark.parametrize("name", ["mimic-omop-maps", "ohdsi-mimic-maps"])
def test_concept_maps_have_their_licence_and_come_from_one_commit_per_file(name):
    resources = Manifest(name, settings=Settings(manifests=OURS)).package.resources
    assert resources[0].path == "LICENSE"
    for resource in resources:
        assert re.match(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/", resource.sources[0])
        assert all(source.endswith("/" + resource.path) for source in resource.sources)


def test_the_constructor_reads_nothing():
    assert repr(Manifest("there/is/no such folder")).endswith("there/is/no such folder>")


def test_an_unknown_manifest_suggests_the_nearest_name():
    with pytest.raises(NotFound, match=r"no manifest 'mnits'.*Did you mean 'mnist'\?"):
        _ = Manifest("mnits", settings=Settings(manifests=OURS)).package


def test_a_path_without_a_descriptor_says_how_to_write_one(tmp_path):
    with pytest.raises(NotFound, match=r"freeze"):
        _ = Manifest(tmp_path).package


def test_the_nearest_folder_of_manifests_is_found_from_below(tmp_path, monkeypatch):
    monkeypatch.delenv("GENOKIT_MANIFESTS", raising=False)
    site = tmp_path / "data_manifests" / "small"
    site.mkdir(parents=True)
    written(site)
    below = tmp_path / "notebooks" / "deep"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Manifest("small").package.name == "small"
    assert len(Manifest("mnist").package.resources) == 4  # the package's own are found beside the site's


def test_a_manifest_by_path_is_referred_to_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(written(tmp_path).parent)
    manifest = Manifest(f"./{tmp_path.name}")
    monkeypatch.chdir("/")
    assert Path(manifest.ref) == tmp_path / "datapackage.json"
    assert Manifest(manifest.ref).package.name == "small"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Not A Name"}, ["'name'", "Not A Name"]),
        ({"name": ".."}, ["'name'"]),
        ({"title": 7}, ["'title'", "7"]),
        ({"resources": []}, ["'resources'"]),
        ({"resources": None}, ["'resources'", "freeze"]),
        ({"licenses": "MIT"}, ["'licenses'"]),
        ({"x__sample": {"resources": []}}, ["'x-sample'", "title"]),
        ({"x__sample": {"title": "sample", "resources": 3}}, ["'x-sample.resources'"]),
        ({"resource_name": ""}, ["'resources'", "name"]),
        ({"resource_path": "../a.csv"}, ["resource 'a'", "'path'", ".."]),
        ({"resource_path": "/etc/passwd"}, ["resource 'a'", "'path'", "relative"]),
        ({"resource_path": "C:/a.csv"}, ["'path'", "relative"]),
        ({"resource_path": "a\\..\\b"}, ["'path'"]),
        ({"resource_path": "a//b"}, ["'path'"]),
        ({"resource_path": "a\nb"}, ["'path'"]),
        ({"resource_path": ".hidden"}, ["'path'"]),
        ({"resource_path": "https://example.org/a.csv"}, ["'path'", "x-sources"]),
        ({"resource_path": ["a.csv", "b.csv"]}, ["'path'"]),
        ({"resource_path": None}, ["'path'"]),
        ({"resource_hash": "0" * 64}, ["resource 'a'", "'hash'", "sha256"]),
        ({"resource_hash": "sha256:" + "0" * 32}, ["'hash'", "64 hexadecimal digits"]),
        ({"resource_hash": "md5:" + "0" * 64}, ["'hash'", "'md5:' and 32"]),
        ({"resource_hash": "md5:" + "g" * 32}, ["'hash'"]),
        ({"resource_hash": "MD5:" + "0" * 32}, ["'hash'"]),
        ({"resource_hash": "sha1:" + "0" * 40}, ["'hash'", "sha1"]),
        ({"resource_hash": None}, ["'hash'"]),
        ({"resource_bytes": -1}, ["'bytes'"]),
        ({"resource_bytes": True}, ["'bytes'"]),
        ({"resource_bytes": "3"}, ["'bytes'"]),
        ({"resource_x__sources": "https://example.org/a"}, ["'x-sources'", "list"]),
        ({"resource_x__sources": ["ftp://example.org/a"]}, ["'x-sources'", "ftp://example.org/a"]),
        ({"resource_x__sources": ["http://example.org/a"]}, ["'x-sources'", "https"]),
        ({"resource_x__sources": ["pkg:npm/a#b"]}, ["'x-sources'", "version"]),
        ({"resource_x__sources": ["pkg:cran/a@1.0#b"]}, ["'x-sources'", "npm and pypi"]),
        ({"resource_x__sources": ["https://example.org/a.gz"], "resource_bytes": None}, ["'bytes'", "unpacked"]),
    ],
)
def test_an_invalid_descriptor_is_refused_with_file_and_field(tmp_path, changes, words):
    written(tmp_path, **changes)
    with pytest.raises(InvalidManifest) as caught:
        _ = Manifest(tmp_path).package
    for word in [str(tmp_path / "datapackage.json"), *words]:
        assert word in str(caught.value)


@pytest.mark.usefixtures("no_garbage")
@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00", '{"name": "a"', "[" * 100_000])
def test_a_file_that_is_not_a_descriptor_is_refused(tmp_path, text):
    (tmp_path / "datapackage.json").write_text(text)
    with pytest.raises(InvalidManifest, match=re.escape(str(tmp_path))):
        _ = Manifest(tmp_path).package


def test_two_resources_with_the_same_name_are_refused(tmp_path):
    one = {"name": "a", "path": "a", "hash": GOOD_HASH}
    written(tmp_path, resources=[one, one | {"path": "b"}])
    with pytest.raises(InvalidManifest, match=r"resource 'a'.* twice"):
        _ = Manifest(tmp_path).package


@pytest.fixture
def results(tmp_path) -> Path:
    folder = tmp_path / "my results"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.csv").write_text("id,x\n1,2\n")
    (folder / "a.txt").write_text("α")
    (folder / "a.md").write_text("")
    (folder / "sub" / "Figure 1.png").write_bytes(b"\x89PNG")
    (folder / ".hidden").write_text("secret")
    return folder


def test_a_frozen_folder_passes_frictionless_and_a_changed_byte_does_not(results):
    manifest = Manifest.freeze(results, "my-results", title="My results", licence="CC-BY-4.0", version="2.1")
    report = frictionless.validate(str(results / "datapackage.json"))
    assert report.valid, report.flatten(["title", "message"])
    package = manifest.package
    assert (package.title, package.version, package.licences) == ("My results", "2.1", ("CC-BY-4.0",))
    paths = [resource.path for resource in manifest.package.resources]
    assert paths == ["a.md", "a.txt", "b.csv", "sub/Figure 1.png"]
    assert [resource.name for resource in manifest.package.resources] == ["a", "a-2", "b", "sub-figure-1"]
    (results / "b.csv").write_text("id,x\n1,3\n")
    errors = frictionless.validate(str(results / "datapackage.json")).flatten(["type"])
    assert errors == [["hash-count"]]


def test_freezing_twice_gives_the_same_bytes_and_does_not_overwrite_by_accident(results):
    first = (Path(Manifest.freeze(results, "r").ref)).read_bytes()
    with pytest.raises(InvalidManifest, match="replace=True"):
        Manifest.freeze(results, "r")
    assert Path(Manifest.freeze(results, "r", replace=True).ref).read_bytes() == first


def test_a_frozen_folder_is_used_in_place(results, tmp_path):
    settings = Settings(home=tmp_path / "home")
    ref = Manifest.freeze(results, "my-results").ref
    dataset = Manifest(ref, settings=settings).fetch(progress=False)
    assert dataset["b"] == results / "b.csv"
    assert not dataset.sample
    assert not settings.cache.exists()
    assert dataset.ref == ref


def test_links_out_of_the_folder_are_not_frozen(results, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret.txt").write_text("secret")
    for target in (tmp_path / "elsewhere" / "secret.txt", tmp_path / "elsewhere"):
        link = results / "link"
        link.symlink_to(target)
        with pytest.raises(InvalidManifest, match="links out of the folder"):
            Manifest.freeze(results, "r")
        link.unlink()
    assert not (results / "datapackage.json").exists()


def test_a_link_inside_the_folder_is_frozen_as_its_target(results):
    (results / "c.csv").symlink_to("b.csv")
    resources = {resource.path: resource for resource in Manifest.freeze(results, "r").package.resources}
    assert resources["c.csv"].hash == resources["b.csv"].hash


def test_a_folder_that_links_to_itself_is_refused(results):
    (results / "loop").symlink_to(".")
    with pytest.raises(InvalidManifest, match="links to a folder"):
        Manifest.freeze(results, "r")


@pytest.mark.parametrize("bad", [{"name": "Not a name"}, {"name": "r", "licence": "my licence"}])
def test_nothing_is_written_when_a_frozen_descriptor_would_be_invalid(results, bad):
    with pytest.raises(InvalidManifest):
        Manifest.freeze(results, **bad)
    assert not (results / "datapackage.json").exists()


def test_an_empty_folder_is_not_frozen(tmp_path):
    with pytest.raises(InvalidManifest, match="no files"):
        Manifest.freeze(tmp_path, "r")
    with pytest.raises(NotFound):
        Manifest.freeze(tmp_path / "nowhere", "r")


def test_a_file_name_that_the_standard_forbids_is_refused(results):
    (results / "a\\b").write_text("")
    with pytest.raises(InvalidManifest, match="Rename"):
        Manifest.freeze(results, "r")


def test_a_hostile_title_is_shown_as_text(tmp_path):
    manifest = Manifest(written(tmp_path, title="<script>alert(1)</script>", description="<b>"))
    assert "<script>" not in manifest._repr_html_()
    assert "&lt;script&gt;" in manifest._repr_html_()
