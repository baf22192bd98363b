"""Files are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from genokit.files import replaced_folder, sha256, write_atomic

ROOT = Path(__file__).parents[1]


def test_what_is_written_is_read_back_bytes_and_text_alike(tmp_path):
    assert write_atomic(tmp_path / "deep" / "er" / "a", b"\x00\r\n").read_bytes() == b"\x00\r\n"
    assert write_atomic(str(tmp_path / "b"), "line\r\nα\n").read_bytes() == "line\r\nα\n".encode()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_atomic(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "half\ud800")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_behind(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="a"):
        write_atomic(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = write_atomic(tmp_path / "a", b"0" * 1_000_000)
    seen = set()
    done = threading.Event()

    def read():
        over = False
        while not over:
            over = done.is_set()
            seen.add(hashlib.sha256(path.read_bytes()).hexdigest())

    reader = threading.Thread(target=read)
    reader.start()
    for digit in b"123":
        write_atomic(path, bytes([digit]) * 1_000_000)
    done.set()
    reader.join()
    whole = {hashlib.sha256(bytes([digit]) * 1_000_000).hexdigest() for digit in b"0123"}
    assert seen <= whole


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = write_atomic(tmp_path / "a", b"0" * 3_000_000)
    code = """
import sys
from genokit.files import write_atomic

print(flush=True)
while True:
    write_atomic(sys.argv[1], b"1" * 3_000_000)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=ROOT) as writer:
        writer.stdout.readline()
        threading.Event().wait(0.2)
        writer.send_signal(signal.SIGKILL)
    assert len(path.read_bytes()) == 3_000_000
    assert len(set(path.read_bytes())) == 1


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(tmp_path):
    (tmp_path / "usual").write_text("")
    assert write_atomic(tmp_path / "new", "").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "usual").chmod(0o750)
    assert write_atomic(tmp_path / "usual", "x").stat().st_mode & 0o777 == 0o750


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path):
    assert write_atomic(tmp_path / ("n" * 255), "x").read_text() == "x"


def test_the_hash_is_that_of_the_bytes(tmp_path):
    data = os.urandom(300_000)
    assert sha256(write_atomic(tmp_path / "a", data)) == hashlib.sha256(data).hexdigest()


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path):
    place = tmp_path / "data"
    for text in ("old", "new"):
        with replaced_folder(place) as staged:
            (staged / "a.txt").write_text(text)

    def fail() -> None:
        with replaced_folder(place) as staged:
            (staged / "a.txt").write_text("half")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert (place / "a.txt").read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["data"]
