"""The gate: what may leave leaves made anew, and every attempt to send more is refused in a fixed sentence."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.numpy import load, save

from genokit.errors import InvalidParameters, OutputRefused
from genokit.workspaces import gate
from genokit.workspaces.evaluation import most_persons
from genokit.workspaces.kinds import ReleasePolicy

ROW = "ANNA,1950-02-03,C50.9"  # what must not leave
TABLE = {"type": "aggregate",
         "columns": {"sex": ["F", "M", "other"], "ward": ["a", "b", "c"], "n": "count", "age": "number"},
         "counts": ["n"], "by": ["sex", "ward"]}  # fmt: skip
DECLARED = {
    "table.csv": TABLE,
    "predictions.csv": {"type": "predictions", "columns": {"id": "label", "risk": "number"}},
    "summary.json": {"type": "numbers", "keys": ["cases", "mean"]},
    "figure.png": {"type": "figure"},
    "model.safetensors": {"type": "model"},
}
GOOD = "sex,ward,n,age\nF,a,120,61.25\nF,b,40,59\nM,a,98,60\nM,b,41,58.5\n"


def passed(folder: Path, name: str, content: bytes | str, **changes) -> gate.Passed:
    """What the gate makes of a file."""
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with gate.opened(folder) as out:
        return gate.check(
            out,
            gate.declare({name: {**DECLARED[name], **changes}}),
            ReleasePolicy(10),
            data_bytes=320_000,
            most_persons=300,
        )[0]


def refused(folder: Path, name: str, content: bytes | str, **changes) -> str:
    """The sentence that refuses a file; it holds nothing that the file holds."""
    with pytest.raises(OutputRefused) as caught:
        passed(folder, name, content, **changes)
    assert "ANNA" not in str(caught.value)
    return str(caught.value)


def picture(size: tuple[int, int] = (8, 8), **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "teal").save(file, format="PNG", **options)
    return file.getvalue()


# --- files


def linked(folder: Path) -> None:
    (folder / "table.csv").symlink_to("/etc/passwd")


def dangling(folder: Path) -> None:
    (folder / "table.csv").symlink_to(folder / "absent")


def twice(folder: Path) -> None:
    (folder.parent / "other").write_text(GOOD)
    os.link(folder.parent / "other", folder / "table.csv")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "table.csv")


def directory(folder: Path) -> None:
    (folder / "table.csv").mkdir()


def setuid(folder: Path) -> None:
    (folder / "table.csv").write_text(GOOD)
    (folder / "table.csv").chmod(0o4755)


def sparse(folder: Path) -> None:
    (folder / "table.csv").touch()
    os.truncate(folder / "table.csv", 2**20)


def terabyte(folder: Path) -> None:
    (folder / "table.csv").touch()
    os.truncate(folder / "table.csv", 2**40)


def large(folder: Path) -> None:
    (folder / "table.csv").write_bytes(b"x" * (17 * 2**20))


def absent(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (linked, "is a link"),
        (dangling, "is a link"),
        (twice, "not a plain file with one name"),
        (pipe, "not a plain file with one name"),
        (directory, "not a plain file with one name"),
        (setuid, "not a plain file with one name"),
        (sparse, "has holes"),
        (terabyte, "is larger than allowed"),
        (large, "is larger than allowed"),
        (absent, "is missing"),
    ],
)
def test_only_a_plain_file_of_its_size_passes(make, why, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    make(folder)
    with gate.opened(folder) as out, pytest.raises(OutputRefused, match=why):
        gate.check(out, gate.declare({"table.csv": TABLE}), ReleasePolicy(10))


@pytest.mark.parametrize(
    "name",
    [ROW, "Table.csv", "TABLE.CSV", "table.csv\n", "table.csv ", "\u202etable.csv", "tаble.csv", ".hidden", "-rf",
     "x" * 255, "table.csv.bak", "core", "table.html", "table.svg", "a\\b", "log.txt", b"\xff\xfe.csv", "results.zip"],
)  # fmt: skip
def test_a_name_that_was_not_declared_is_refused_and_not_repeated(name, tmp_path):
    (tmp_path / "table.csv").write_text(GOOD)
    with open(os.path.join(os.fsencode(tmp_path), os.fsencode(name)), "w"):
        pass
    with gate.opened(tmp_path) as out, pytest.raises(OutputRefused) as caught:
        gate.check(out, gate.declare({"table.csv": TABLE}), ReleasePolicy(10))
    assert str(caught.value) == "There is a file or folder that is not a declared output."


def test_a_folder_that_is_a_link_is_not_opened(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match=r"link|directory"), gate.opened(tmp_path / "link"):
        pass


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ({"a.svg": {"type": "figure"}}, "ends with .png"),
        ({"../a.csv": TABLE}, "ends with .csv"),
        ({"a/b.csv": TABLE}, "ends with .csv"),
        ({"A.csv": TABLE}, "ends with .csv"),
        ({"a.pkl": {"type": "pickle"}}, "needs a type"),
        ({"a.csv": {"type": "aggregate", "columns": {"n": "count"}}}, "needs counts"),
        ({"a.csv": {**TABLE, "by": ["site"]}}, "no column 'site'"),
        ({"a.csv": {**TABLE, "columns": {"n": "text"}}}, "must be one of"),
        ({"a.csv": {**TABLE, "columns": {**TABLE["columns"], "ward": "label"}}}, "'ward'.* needs a list of the labels"),
        ({"a.csv": {**TABLE, "columns": {**TABLE["columns"], "ward": []}}}, "'ward' .* a list of labels"),
        ({"a.csv": {**TABLE, "columns": {**TABLE["columns"], "id": "label"}}}, "'id'.* needs a list of the labels"),
        ({"a.csv": {**TABLE, "by": ["sex", "age"]}}, "'age'.* needs a list of the labels"),
        ({"a.csv": {**TABLE, "by": ["sex", "n"]}}, "'n'.* needs a list of the labels"),
        ({"a.csv": {**TABLE, "counts": ["age"]}}, "needs counts"),
        ({"a.csv": {"type": "predictions", "columns": {"risk": "number"}}}, "two columns"),
        ({"a.json": {"type": "numbers"}}, "needs keys"),
        ({"a.json": {"type": "numbers", "keys": "cases"}}, "keys of 'a.json' must be a list of names, got 'cases'"),
        ({"a.csv": {**TABLE, "by": "sex"}}, "by of 'a.csv' must be a list of names, got 'sex'"),
        ({"a.csv": {**TABLE, "columns": ["sex"]}}, "columns of 'a.csv' must be a mapping of names to types"),
        ({"a.json": "numbers"}, "Outputs are given as"),
        (["a.json"], "Outputs are given as"),
        ({"a.safetensors": {"type": "model", "share": 2}}, "above 0 and at most 1"),
        ({"a.png": {"type": "figure", "columns": {}}}, "does not take 'columns'"),
    ],
)
def test_a_declaration_that_would_let_anything_pass_is_refused(outputs, why):
    with pytest.raises(InvalidParameters, match=why):
        gate.declare(outputs)


# --- tables


def test_a_table_leaves_with_small_counts_hidden_and_its_numbers_rounded(tmp_path):
    content = GOOD.replace("M,b,41,58.5", "M,b,3,58.123456789").replace("120,61.25", "120,61.123456789")
    one = passed(tmp_path, "table.csv", content)
    assert one.content.decode() == "sex,ward,n,age\nF,a,,\nF,b,,\nM,a,,\nM,b,,\n"  # each would give the small one back
    assert one.hidden == 4
    assert passed(tmp_path, "table.csv", GOOD.replace("61.25", "61.123456789")).content.decode() == GOOD.replace(
        "61.25", "61.1235"
    ).replace("60\n", "60\n")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (f"sex,ward,n,age,more\nF,a,120,61,{ROW}\n", "declared columns"),
        ("ward,sex,n,age\na,F,120,61\n", "declared columns"),
        ("", "declared columns"),
        ("\ufeff" + GOOD, "declared columns"),
        (GOOD + f"{ROW},x\n", "label that was not declared"),
        (GOOD + "F,c\n", "another number of cells"),
        (GOOD + "F,c,12,60,extra\n", "another number of cells"),
        (GOOD + "\n", "another number of cells"),
        (GOOD + "F,\"=cmd|'/C calc'!A0\",12,60\n", "label that was not declared"),
        (GOOD + "F,@SUM(A1),12,60\n", "label that was not declared"),
        (GOOD + "F,+1,12,60\n", "label that was not declared"),
        (GOOD + "F,-1,12,60\n", "label that was not declared"),
        (GOOD + "F,\t=1,12,60\n", "label that was not declared"),
        (GOOD + "F,<script>alert(1)</script>'\",12,60\n".replace('"', ""), "label that was not declared"),
        (GOOD + 'F,"two\nlines",12,60\n', "label that was not declared"),
        (GOOD + "F,\u202eabc,12,60\n", "label that was not declared"),
        (GOOD + f"F,{'x' * 65},12,60\n", "label that was not declared"),
        (GOOD + "F,c,12.5,60\n", "count that is not a whole number"),
        (GOOD + "F,c,-12,60\n", "count that is not a whole number"),
        (GOOD + "F,c,1e300,60\n", "count that is not a whole number"),
        (GOOD + "F,c,12,nan\n", "cell that is not a number"),
        (GOOD + "F,c,12,inf\n", "cell that is not a number"),
        (GOOD + "F,c,12,1_000\n", "cell that is not a number"),
        (GOOD + "F,c,12,٣\n", "cell that is not a number"),
        (GOOD + "F,c,12, 60\n", "cell that is not a number"),
        (GOOD + f"F,c,12,0.{'1' * 5000}\n", "cell that is not a number"),
        (GOOD + "F,a,120,60\n", "rows that repeat"),
        (GOOD + "F,c,12,60\x00\n", "not a number|not a CSV"),
        (GOOD.encode() + b"F,\xff,12,60\n", "not a CSV file in UTF-8"),
        (GOOD + 'F,"c"x,12,60\n', "not a CSV file"),
        (GOOD + 'F,"' + "c" * 200_000 + '",12,60\n', "not a CSV file"),
        ("sex,ward,n,age\n" + "".join(f"F,w{i},12,60\n" for i in range(5001)), "more than 5,000 rows"),
        (b"PK\x03\x04" + GOOD.encode(), "declared columns"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", "declared columns"),
    ],
)
def test_a_table_with_anything_else_is_refused(content, why, tmp_path):
    assert re.search(why, refused(tmp_path, "table.csv", content))


ROWS_AS = {
    "a row as a label": ("sex,ward,n,age\nF,p17 born 1950-02-03 dose 2.5,100,60\n", {}),
    "a row as an id": ("id,n\np17:1950-02-03:C50.9,100\n", {"columns": {"id": ["a", "b"], "n": "count"}, "by": ["id"]}),
    "a row as another case of a label": ("sex,ward,n,age\nF,A,100,60\nf,a,100,60\n", {}),
    "a row as numbers without labels": ("n,age\n100,1950.02\n100,2.5\n",
        {"columns": {"n": "count", "age": "number"}, "by": []}),
    "a row as numbers of a label that repeats": ("ward,n,age\na,100,1950.02\na,100,2.5\n",
        {"columns": {"ward": ["a"], "n": "count", "age": "number"}, "by": []}),
    "a row as a count": ("sex,ward,n,age\nF,a,19500203,60\n", {}),
    "rows as counts that add up to more than all": ("sex,ward,n,age\nF,a,250,60\nM,a,203,60\n", {}),
    "a row as a count without groups": ("ward,n\na,19500203\n", {"columns": {"ward": ["a"], "n": "count"}, "by": []}),
}  # fmt: skip


@pytest.mark.parametrize(("content", "changes"), ROWS_AS.values(), ids=ROWS_AS)
def test_rows_do_not_leave_as_labels_or_counts_of_a_table(content, changes, tmp_path):
    why = refused(tmp_path, "table.csv", content, **changes)
    assert re.search("label that was not declared|rows that repeat|more persons than there are", why)


def test_groups_that_overlap_are_counted_one_by_one(tmp_path):
    """Without ``by`` a person may be in several rows, such as those of diagnoses."""
    content = "ward,n\na,300\nb,290\n"
    changes = {"columns": {"ward": ["a", "b"], "n": "count"}, "by": []}
    assert passed(tmp_path, "table.csv", content, **changes).content.decode() == content
    assert "more persons" in refused(tmp_path, "table.csv", content, **{**changes, "by": ["ward"]})


def test_the_persons_of_a_csv_are_not_more_than_its_lines_or_columns(tmp_path):
    for name, content, most in [
        ("rows.csv", "id,age\np1,40\np2,50\np3,60\n", 3),
        ("columns.csv", "gene;p1;p2;p3;p4\nBRCA2;0;0;1;0\n", 5),
        ("empty.csv", "", 1),
        ("rows.parquet", "PAR1", float("inf")),
    ]:
        (tmp_path / name).write_text(content)
        assert most_persons(tmp_path / name) == most


def test_ways_to_write_the_same_table_make_the_same_bytes(tmp_path):
    """Spaces, quotes, line ends and digits could each carry a bit a cell."""
    other = GOOD.replace("\n", "\r\n").replace("F,a", '"F","a"')
    other = other.replace(",98,60", ",+98,6.0e1").replace("61.25", "061.250")
    assert passed(tmp_path, "table.csv", other).content == passed(tmp_path, "table.csv", GOOD).content


def test_the_order_of_rows_tells_nothing(tmp_path):
    """5,000 rows in an order of the program's choice would carry some 54,000 bits."""
    head, *rows = GOOD.splitlines(keepends=True)
    contents = {
        passed(tmp_path, "table.csv", head + "".join(some)).content for some in itertools.permutations(rows)
    }  # fmt: skip
    assert contents == {GOOD.encode()}


def test_counts_are_rounded_as_the_policy_says(tmp_path):
    (tmp_path / "table.csv").write_text(GOOD)
    with gate.opened(tmp_path) as out:
        one = gate.check(out, gate.declare({"table.csv": TABLE}), ReleasePolicy(8, 5))[0]
    assert one.table["n"].tolist() == [120, 40, 100, 40]


def test_predictions_never_leave(tmp_path):
    one = passed(tmp_path, "predictions.csv", "id,risk\np1,0.5\np2,0.25\n")
    assert one.content == b""
    assert one.table["risk"].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("content", ["id,risk\np1,0.5\np1,0.5\n", f"id,risk\n{ROW}\n", 'id,risk\n"p 1",0.5\n'])
def test_predictions_with_strange_ids_are_refused(content, tmp_path):
    refused(tmp_path, "predictions.csv", content)


# --- numbers


def test_numbers_leave_with_six_digits_in_the_declared_order(tmp_path):
    one = passed(tmp_path, "summary.json", '{"mean":  1.23456789012345, "cases": 120}')
    assert one.content == b'{"cases": 120, "mean": 1.23457}'


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"cases": ROW, "mean": 1}),
        json.dumps({"cases": 1, "mean": 1, ROW: 1}),
        json.dumps({"cases": [1, 2], "mean": 1}),
        json.dumps({"cases": True, "mean": 1}),
        json.dumps([1, 2]),
        '{"cases": NaN, "mean": 1}',
        '{"cases": 1e999, "mean": 1}',
        f'{{"cases": {"9" * 400}, "mean": 1}}',
        '{"cases": 1}',
        "[" * 100_000,
        "{",
        "",
        json.dumps({"cases": 1, "mean": 1}) + " " * 2**16,
    ],
)
def test_a_json_with_anything_but_the_declared_numbers_is_refused(content, tmp_path):
    refused(tmp_path, "summary.json", content)


# --- figures


def test_a_figure_leaves_without_metadata_and_without_what_follows_it(tmp_path):
    info = PngInfo()
    info.add_text("Comment", ROW)
    info.add_itxt("XML:com.adobe.xmp", ROW)
    exif = Image.Exif()
    exif[0x010E] = ROW
    private = b"prVt" + ROW.encode()
    private = struct.pack(">I", len(ROW)) + private + struct.pack(">I", zlib.crc32(private))
    data = picture(pnginfo=info, exif=exif.tobytes())
    data = data[:-12] + private + data[-12:] + ROW.encode() * 100
    assert data.count(b"ANNA") > 100
    one = passed(tmp_path, "figure.png", data)
    assert b"ANNA" not in one.content
    chunks, at = [], 8
    while at < len(one.content):
        (length,) = struct.unpack(">I", one.content[at : at + 4])
        chunks.append(one.content[at + 4 : at + 8])
        at += 12 + length
    assert set(chunks) == {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
    with Image.open(io.BytesIO(one.content)) as image:
        assert image.convert("RGB").getpixel((0, 0)) == (0, 128, 128)


def test_the_lowest_bits_of_a_figure_do_not_survive(tmp_path):
    dice = np.random.default_rng(3)
    base = np.full((64, 64, 3), 128, np.uint8)
    hidden = base | dice.integers(0, 2, base.shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(hidden).save(file, format="PNG")
    with Image.open(io.BytesIO(passed(tmp_path, "figure.png", file.getvalue()).content)) as image:
        assert len(image.convert("RGB").getcolors()) <= gate.COLOURS
    invisible = np.dstack([hidden, np.zeros((64, 64), np.uint8)])  # rows in what is transparent
    file = io.BytesIO()
    Image.fromarray(invisible).save(file, format="PNG")
    with Image.open(io.BytesIO(passed(tmp_path, "figure.png", file.getvalue()).content)) as image:
        assert image.convert("RGB").getcolors() == [(4096, (255, 255, 255))]


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<html><script>alert(1)</script></html>",
        b"GIF89a",
        picture()[:40],
        picture((3000, 3000)),
        b"\x89PNG\r\n\x1a\n" + ROW.encode(),
        b"",
    ],
    ids=["svg", "html", "gif", "cut off", "too many pixels", "only the signature", "empty"],
)
def test_what_is_no_picture_of_a_reasonable_size_is_refused(content, tmp_path):
    refused(tmp_path, "figure.png", content)


# --- models


def tensor(dtype: str, size: int) -> bytes:
    """A file of safetensors with one tensor of a type that numpy does not have."""
    head = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4 * size]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4 * size)


def test_a_model_leaves_without_its_free_texts(tmp_path):
    weights = {"b": np.ones(3, np.float32), "a": np.zeros((2, 2), np.float32)}
    one = passed(tmp_path, "model.safetensors", save(weights, metadata={"note": ROW}))
    assert b"ANNA" not in one.content
    assert {name: value.tolist() for name, value in load(one.content).items()} == {
        name: value.tolist() for name, value in weights.items()
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps({"a": [1, 2]}), "not a file of safetensors"),
        (tensor("BF16", 2), "not a file of safetensors"),
        (tensor("F8_E4M3", 1), "not a file of safetensors"),
        (tensor("F4", 1), "not a file of safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(500), "not a file of safetensors"),
        (b"PAR1" + bytes(500) + b"PAR1", "not a file of safetensors"),
        (b"\x08\x08\x12\x07pytorch" + bytes(500), "not a file of safetensors"),
        (b"", "not a file of safetensors"),
        (struct.pack("<Q", 2**62) + b"{}", "not a file of safetensors"),
        (save({f"{ROW}=": np.ones(1)}), "strange name"),
        (save({f"t{i}": np.ones(1, np.int8) for i in range(1001)}), "larger than allowed|too many tensors"),
        (save({"rows": np.ones(5000, np.float32)}), "larger than allowed"),
        (save({"a": np.ones(1)}) + ROW.encode(), "not a file of safetensors"),
    ],
    ids=[
        "pickle",
        "half a number",
        "a quarter of a number",
        "an eighth of a number",
        "HDF5",
        "Parquet",
        "ONNX",
        "empty",
        "a header of exabytes",
        "a row as a name",
        "many names",
        "large for its rows",
        "more bytes",
    ],
)
def test_a_model_that_could_hold_the_rows_is_refused(content, why, tmp_path):
    assert re.search(why, refused(tmp_path, "model.safetensors", content))


def test_a_compressed_archive_is_no_output_of_any_type(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", "0" * 10**7)
    for name in DECLARED:
        folder = tmp_path / name
        folder.mkdir()
        refused(folder, name, file.getvalue())


def test_hostile_tables_are_read_in_bounded_time(tmp_path):
    frame = pd.DataFrame({"id": [f"p{i}" for i in range(200_000)], "risk": 0.123456789})
    one = passed(tmp_path, "predictions.csv", frame.to_csv(index=False))
    assert len(one.table) == 200_000


def test_more_rows_than_the_checking_process_could_hold_are_refused(tmp_path):
    """64 MiB of the shortest rows took 4.4 GiB, more than the job that checks has; its end would have cost no quota."""
    content = "id,risk\n" + "1,1\n" * 2**21
    tracemalloc.start()
    assert "has more than 1,000,000 rows" in refused(tmp_path, "predictions.csv", content)
    assert tracemalloc.get_traced_memory()[1] < 500 * 2**20
    tracemalloc.stop()
