"""A step of the workflow as a command: inputs from here or S3, a working folder of its own, outputs that are whole.

The tools are commands of pysam. Each holds Python's global lock to its end, so that no signal would be handled
meanwhile: it runs in a process of its own, forked from this one, since to start Python and to load pysam takes longer
than many a command. Whatever ends the step, SIGTERM too, ends the tools, and removes the working folder.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gzip
import hashlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import IO, Any

from genokit import errors, files, storage
from genokit.errors import AccessDenied, ConfigError, GenokitError, InvalidParameters, NotFound, StepFailed

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
FULL = re.compile("No space left|File too large|write failed|writing|failed to write", re.IGNORECASE)
ALIGNERS = {"minibwa": "minibwa", "mappy": "mappy -x sr"}  # and their commands, as headers name them
STOPPING = (signal.SIGTERM, signal.SIGINT)
RECORD = "{sample}.{step}.json"  # what a step writes last: the key of what its outputs were made from, and their names
UPPER = bytes(range(256)).upper()
SUM = ".sha256"  # what is added to an output's name for the file with its checksum
HELP = {
    "bam": "BAM of the sample, with its index beside it",
    "genes": "gene models in GFF3, as Ensembl writes them, gzip or not",
    "reference": "FASTA of the reference, gzip or not; the BAM and VCF must have been made with it",
    "vcf": "VCF of the sample, bgzipped, with its index (.tbi) beside it",
    "sample": "name of the sample",
    "out": "folder for the results, here or s3://bucket/folder",
}


def check_name(name: str) -> str:
    """The name of a sample or lane, if it is allowed. Raises InvalidParameters.

    >>> check_name("NA12878")
    'NA12878'
    """
    if not NAME.fullmatch(name):
        raise InvalidParameters(
            f"{name!r} cannot be the name of a sample or lane. Use up to 100 letters, digits, '.', '_' and '-', and "
            "begin with a letter or digit."
        )
    return name


def package(name: str) -> Any:
    """A package that pip installs for the steps. Raises MissingDependency.

    >>> package("minimap3")
    Traceback (most recent call last):
    genokit.errors.MissingDependency: minimap3 cannot be imported (No module named 'minimap3'). Install it with: pip \
install 'genokit[genomics]'
    """
    try:
        return import_module(name)
    except ImportError as error:
        how = "pip install 'genokit[genomics]'"
        if name == "mappy":  # it has no wheels
            how = (
                "pip install mappy, which needs a C compiler and zlib's headers (Debian: gcc, python3-dev, zlib1g-dev)"
            )
        raise errors.MissingDependency(f"{name} cannot be imported ({error}). Install it with: {how}") from error


class Reference:
    """A reference's address, and its FASTA in the working folder, with its index."""

    def __init__(self, address: str, fasta: Path) -> None:
        self.address, self.fasta = address, fasta

    @functools.cached_property
    def sequences(self) -> dict[str, tuple[int, str]]:
        """The length and M5 of each sequence. Raises StepFailed if the index is wrong about any line of the FASTA."""
        found = {}
        try:
            with self.fasta.open("rb") as file:
                for row in Path(f"{self.fasta}.fai").read_text().splitlines():
                    name, *numbers = row.split("\t")
                    length, offset, bases, width = map(int, numbers)
                    head = next(filter(bytes.strip, file), b"")
                    right = head.split()[:1] == [f">{name}".encode()] and file.tell() == offset
                    end, lines = offset + length // bases * width + length % bases, max(1, 2**16 // width) * width
                    size, md5 = 0, hashlib.md5()
                    while part := file.read(min(lines, end - file.tell())):
                        right = right and not part[bases::width].strip()
                        sequence = part.translate(UPPER, b"\r\n")
                        size += len(sequence)
                        md5.update(sequence)
                    if not right or size != length:
                        raise ValueError(row)
                    found[name] = length, md5.hexdigest()
                if any(map(bytes.strip, file)):
                    raise ValueError("more sequences")
        except (ValueError, ZeroDivisionError) as error:
            raise fault(self.address, "its index (.fai) is of another file, or two of its sequences have the same "
                        "name, or one has no bases") from error  # fmt: skip
        return found

    def check(self, address: str, found: Mapping[str, str | None]) -> None:
        """Raise StepFailed unless a file was made with this reference; ``found`` has the M5 of its sequences."""
        for name, md5 in found.items():
            expected = self.sequences.get(name, (0, "no such sequence"))[1]
            if md5 != expected:
                raise fault(address, f"it was made with another reference than '{self.address}': the M5 of sequence "
                            f"'{name}' is {md5 or 'not given'}, expected {expected}")  # fmt: skip


def fault(address: object, reason: str) -> StepFailed:
    """The error that names a file and what is wrong with it."""
    return StepFailed(f"'{address}' cannot be used: {reason}.", path=str(address), reason=reason)


def is_gzip(path: Path) -> bool:
    """Whether a file begins as a gzip file does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextlib.contextmanager
def unpacked(path: Path, address: str, mode: str = "rt") -> Iterator[IO[Any]]:
    """Read a file, gzip or not, as ASCII text or in mode "rb". Raises StepFailed where it is damaged."""
    opener: Any = gzip.open if is_gzip(path) else open
    try:
        with opener(path, mode, encoding="ascii" if mode == "rt" else None) as source:
            yield source
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise fault(address, f"its data are damaged or cut short ({error})") from error


def run_command(folder: Path, command: Sequence[object], *streams: int) -> None:
    """Run a command such as ``("samtools", "stats", bam, ">", text)`` in this process, and exit if it fails."""
    import pysam

    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)  # of a pipe that others write to, this process would keep the end open
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)  # where pysam leaves a file if it is killed
    package, name, *arguments = map(str, command)
    output = {"save_stdout": arguments[-1]} if ">" in arguments else {"catch_stdout": False}
    try:
        getattr(import_module(f"pysam.{package}"), name)(*arguments[: -2 if ">" in arguments else None], **output)
    except pysam.SamtoolsError as error:
        sys.exit(str(error.args[0]).rpartition("stderr=")[2].strip() or "no reason given")


class Tools:
    """Commands of samtools and bcftools side by side, each reading what the one before writes.

    ``about`` is the file that an error names. With ``feed``, ``stdin`` is the first command's input.
    """

    def __init__(self, folder: Path, about: str, *commands: Sequence[object], feed: bool = False) -> None:
        self.folder, self.about, self.commands = folder, about, commands
        self.processes: list[multiprocessing.process.BaseProcess] = []
        fork = multiprocessing.get_context("fork").Process
        self.said = [tempfile.TemporaryFile(dir=folder) for _ in commands]  # noqa: SIM115
        source, end = os.pipe() if feed else (os.open(os.devnull, os.O_RDONLY), None)
        self.stdin = os.fdopen(end, "wb") if end else None
        for command, said in zip(commands, self.said, strict=True):
            following, out = (-1, os.open(os.devnull, os.O_WRONLY)) if command is commands[-1] else os.pipe()
            self.processes.append(fork(target=run_command, args=(folder, command, source, out, said.fileno())))
            self.processes[-1].start()
            os.close(source)  # the process before gets a broken pipe if this one ends
            os.close(out)
            source = following

    def write(self, data: bytes) -> None:
        """Write to the first command. Raises StepFailed if it has ended."""
        assert self.stdin
        try:
            self.stdin.write(data)
        except BrokenPipeError:
            self.finish()
            raise

    def finish(self) -> None:
        """Wait for the commands. Raises StepFailed with what the first that failed has said."""
        if self.stdin:
            with contextlib.suppress(BrokenPipeError):  # the command that ended says why
                self.stdin.close()
        for process in self.processes:
            process.join()
        codes = [-1 if process.exitcode is None else process.exitcode for process in self.processes]
        lines: list[str] = []
        for file, code in zip(self.said, codes, strict=True):
            with file:
                file.seek(0)
                lines += file.read().decode(errors="replace").split("\n") if code else []
        if any(codes):
            lines = [line for line in lines if line.strip() and not line.startswith("[W::")][-6:]
            if FULL.search("".join(lines)) or is_full(self.folder):
                lines.append(f"the scratch folder '{self.folder.parent}' may be full")
            name = next(" ".join(map(str, c[:2])) for c, code in zip(self.commands, codes, strict=True) if code)
            reason = f"{name} failed with exit code {max(codes, key=abs)}: {'; '.join(lines)}"
            raise StepFailed(f"'{self.about}': {reason}", path=self.about, reason=reason)

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            process.kill()
            process.join()
        for file in (self.stdin, *self.said):
            with contextlib.suppress(OSError):  # what is still in the pipe has no reader
                if file:
                    file.close()


def is_full(folder: Path) -> bool:
    """Whether a folder's disk has less than a mebibyte left."""
    return shutil.disk_usage(folder).free < 2**20


class Step:
    """A run of a step: ``folder`` is its own working folder, and ``out`` in it has the outputs to publish."""

    def __init__(self, name: str, given: argparse.Namespace, folder: Path) -> None:
        self.name, self.given, self.folder, self.out, self.threads = name, given, folder, folder / "out", given.threads
        self.sample = check_name(given.sample)
        if self.threads < 1:
            raise InvalidParameters(f"--threads must be at least 1, got {self.threads}.")
        self.out.mkdir()
        self.running: list[Tools] = []

    def start(self, about: str, *commands: Sequence[object], feed: bool = False) -> Tools:
        """Start commands in the working folder."""
        self.running = [one for one in self.running if any(p.is_alive() for p in one.processes)]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # no process is started and not known
        try:
            self.running.append(Tools(self.folder, about, *commands, feed=feed))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self.running[-1]

    def do(self, about: str, *commands: Sequence[object]) -> None:
        """Run commands to their end."""
        self.start(about, *commands).finish()

    def input(self, address: str, *beside: str) -> Path:
        """Make an input file available in a new subfolder of the working folder, together with its index files.

        ``beside`` lists the suffixes of the index files, such as ".bai". If there is a checksum file, it must match.
        """
        place = Path(tempfile.mkdtemp(dir=self.folder))
        for one in (address, *(f"{address}{ending}" for ending in beside)):
            path = storage.local(one, place)
            with contextlib.suppress(NotFound, AccessDenied):  # S3 denies what is absent to those who may not list
                expected = storage.read(f"{one}{SUM}", at_most=64).decode(errors="replace")
                if files.sha256(path) != expected:
                    raise fault(one, f"its SHA-256 is not the one in '{one}{SUM}'")
            if not path.stat().st_size:
                raise fault(one, "it is empty")
            if path.parent != place:
                (place / path.name).symlink_to(path)
        return place / address.rstrip("/").rpartition("/")[2]

    def reference(self, address: str) -> Reference:
        """Fetch the reference and its index (.fai); if there is no index, make one."""
        given, fasta = self.input(address), self.folder / "reference.fa"
        if is_gzip(given):
            with unpacked(given, address, "rb") as source, fasta.open("wb") as file:
                shutil.copyfileobj(source, file)
        else:
            fasta.symlink_to(given)
        try:
            Path(f"{fasta}.fai").symlink_to(self.input(f"{address}.fai"))
        except (NotFound, AccessDenied):
            self.do(address, ("samtools", "faidx", fasta))
        return Reference(address, fasta)

    def bam(self, address: str, reference: Reference) -> Path:
        """A BAM with its index, which was aligned to this reference."""
        import pysam

        path = self.input(address, ".bai")
        self.do(address, ("samtools", "quickcheck", path))
        with pysam.AlignmentFile(str(path)) as file:
            reference.check(address, {one["SN"]: one.get("M5") for one in file.header.to_dict().get("SQ", [])})
            if not file.mapped:
                raise fault(address, "no read in it is aligned")
        return path

    def publish(self) -> None:
        """Write every output, each whole, their checksums, and the record; if one cannot be written, none is left."""
        made = sorted(self.out.iterdir())
        places = [storage.join(self.given.out, path.name) for path in made]
        record = storage.join(self.given.out, RECORD.format(sample=self.sample, step=self.name))
        storage.delete(record)
        for place in places:
            storage.delete(place + SUM)
        try:
            for path, place in zip(made, places, strict=True):
                storage.upload(path, place)
            for path, place in zip(made, places, strict=True):
                storage.write(place + SUM, f"{files.sha256(path)}  {path.name}\n")
            if self.given.key:
                about = {"step": self.name, "key": self.given.key, "outputs": [path.name for path in made]}
                about["versions"] = versions(getattr(self.given, "aligner", None))
                storage.write(record, json.dumps(about, indent=1) + "\n")
        except BaseException:
            for place in places:
                storage.delete(place)
                storage.delete(place + SUM)
            raise


def versions(aligner: str | None) -> dict[str, str | None]:
    """The versions of what makes the results; None for a package that is not installed.

    >>> list(versions("minibwa"))
    ['genokit', 'pysam', 'minibwa']
    """
    from importlib import metadata

    names = ("genokit", "pysam", aligner)
    return {name: next((one.version for one in metadata.distributions(name=name)), None) for name in names if name}


def main(work: Callable[[Step], None], *options: str, more: Mapping[str, Mapping[str, Any]] | None = None) -> int:
    """Run a step as a command; returns the exit code: 0, 1 with the error on standard error, or 128 and the signal.

    ``options`` are names in ``HELP``, and ``more`` has the arguments of ``add_argument`` for others.
    """
    name, about = work.__name__, str(work.__doc__).partition(" Raises")[0]
    parser = argparse.ArgumentParser(f"python -m genokit.genomics.{name}", description=about, allow_abbrev=False)
    for option, how in {**(more or {}), **{one: {"required": True, "help": HELP[one]} for one in options}}.items():
        parser.add_argument(f"--{option}", **how)
    parser.add_argument("--scratch", type=os.path.abspath, default=tempfile.gettempdir(), help="for a working folder")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="the job's vCPUs (default: 1)")
    parser.add_argument("--key", default="", help="what tells these inputs from others, for the record of the outputs")
    given = parser.parse_args()

    def stop(number: int, _frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # cleaning up is not to be interrupted
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in STOPPING}
    step = None
    try:
        package("pysam")  # once: the processes of the step are forks of this one
        with tempfile.TemporaryDirectory(prefix=f"genokit-{name}-", dir=given.scratch) as folder:
            for number in before:
                signal.signal(number, stop)
            try:
                step = Step(name, given, Path(folder))
                work(step)
                step.publish()
            finally:
                for tools in step.running if step else ():
                    tools.end()
        return 0
    except GenokitError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
    except OSError as error:
        where = f"'{error.filename}'" if error.filename else f"the scratch folder '{given.scratch}'"
        sys.stderr.write(f"{ConfigError.__name__}: {where} cannot be used: {error.strerror or error}.\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 1
