"""The command ``genokit``: one subcommand per function of the same name."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from genokit import __version__
from genokit.display import plain
from genokit.errors import GenokitError, InvalidParameters, NotebookFailed, NotFound, did_you_mean
from genokit.files import write_atomic

if TYPE_CHECKING:
    from genokit.stacks import Stack

EXAMPLES = """\
examples:
  genokit doctor                                        check this machine, and how to fix what is missing
  genokit fetch mnist                                   download a data set and check its hashes
  genokit verify mnist                                  check the hashes of a fetched data set again
  genokit freeze my-folder --name my-data               describe a folder of data, with hashes, for others to fetch
  genokit run notebooks/10_lenet.ipynb -p epochs=1      run a notebook with these parameters, or -f params.yaml
  genokit pipeline notebooks/pipelines/tour.toml        run notebooks that depend on one another, -p lenet.epochs=1
  genokit jobs --status RUNNING                         list the jobs of the account
  genokit stack diff batch spot_max_vcpus=64            show what a change of the AWS stack would do
  genokit local status                                  show the state of the embedded account and its jobs
  genokit local serve                                   accept requests from boto3, the AWS CLI and other AWS clients

Settings come from GENOKIT_* variables and the nearest genokit.toml; 'genokit doctor' shows them.
GENOKIT_DEBUG=1 shows the full traceback of an error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for an error or a failed check, 130 when interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        code = int(options.command(options) or 0)
        sys.stdout.flush()  # here, where a closed pipe is caught
        return code
    except GenokitError as error:
        if os.environ.get("GENOKIT_DEBUG"):
            raise
        failed = [error.run] if isinstance(error, NotebookFailed) else getattr(error, "runs", [])
        for one in failed:
            if one.traceback:
                print(plain(f"{one.source.name}:\n{one.traceback}\n"), file=sys.stderr)
        print(f"genokit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("genokit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


class _Parser(argparse.ArgumentParser):
    """argparse, but it suggests the nearest known command for an unknown one."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '?([^' ]*)'? \(choose from (.*)\)", message):
            known = re.findall(r"[\w-]+", found[2])
            message = f"there is no '{self.prog} {found[1]}'. {did_you_mean(found[1], known)}"
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="genokit",
        description="A research kit for notebooks: data, training, jobs and pipelines, here or on AWS.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genokit {__version__}")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, command: Any, says: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
        added.set_defaults(command=command)
        return added

    add("doctor", _doctor, "check this machine, and say how to fix what is missing")
    for name, command, says in (
        ("fetch", _fetch, "download a data set and check its hashes"),
        ("verify", _verify, "check the hashes of a fetched data set"),
    ):
        add(name, command, says).add_argument("name", help="a data set's name, or the path of its datapackage.json")
    freeze = add("freeze", _freeze, "describe a folder of data, with hashes, for others to fetch")
    freeze.add_argument("folder", type=Path)
    freeze.add_argument("--name", required=True, help="the data set's name: lower case, digits, '-', '_' and '.'")
    run = add("run", _run, "run a notebook with parameters, and keep the run")
    run.add_argument("notebook", type=Path, help="the notebook; it stays as it is: a copy is executed and kept")
    says = "a parameter of the cell tagged 'parameters', repeatable; VALUE is parsed by the parameter's type"
    run.add_argument("-p", "--parameter", action="append", default=[], type=_parameter, metavar="NAME=VALUE", help=says)
    says = "parameters from a YAML or JSON file; -p overrides them"
    run.add_argument("-f", "--parameters-file", "--parameters_file", type=Path, metavar="FILE", help=says)
    run.add_argument("--name", help="the run's name; default: the notebook's")
    run.add_argument("--cwd", type=Path, metavar="FOLDER", help="working folder; default: the notebook's")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="stop the run after that time")
    says = "stop the run when one cell has taken that long"
    run.add_argument("--cell-timeout", "--execution-timeout", type=float, metavar="SECONDS", help=says)
    run.add_argument(
        "--output", type=Path, metavar="FILE", help="also write the executed notebook there, failed or not"
    )
    run.add_argument("--log-output", action="store_true", help="print the output of cells as it comes")
    pipeline = add("pipeline", _pipeline, "run the notebooks of a pipeline, each after those it depends on")
    pipeline.add_argument("file", type=Path, help="the pipeline's TOML file")
    says = "a parameter of one of its notebooks, repeatable; VALUE is parsed by the parameter's type"
    form, parse = "NOTEBOOK.NAME=VALUE", _notebook_parameter
    pipeline.add_argument("-p", "--parameter", action="append", default=[], type=parse, metavar=form, help=says)
    jobs = add("jobs", _jobs, "list the jobs of the account")
    jobs.add_argument("--queue")
    jobs.add_argument("--status", help="such as RUNNING or FAILED")
    stack = add("stack", _stack, "deploy, compare, update or remove the CloudFormation stack that jobs need")
    stack.add_argument("action", choices=("deploy", "diff", "update", "teardown", "outputs", "parameters", "policy"))
    says = "the template's name or path (default: batch), then NAME=VALUE as spot_max_vcpus=64, an output or a policy"
    stack.add_argument("words", nargs="*", metavar="WORD", help=says)
    stack.add_argument("--stack-name", help="the stack's name in CloudFormation; default: as in the settings")
    says = "also if that removes or replaces resources with data or jobs"
    stack.add_argument("--replace", action="store_true", help=says)
    stack.add_argument("--confirm", metavar="STACK", help="the stack's name, to remove it and everything in it")
    local = add("local", _local, "show, stop, clear or serve the embedded account")
    actions = local.add_subparsers(metavar="ACTION", dest="action", required=True)
    for name, says in (
        ("status", "show its state and its jobs"),
        ("stop", "end its jobs and its supervisor"),
        ("clean", "stop it and delete its jobs and logs"),
    ):
        actions.add_parser(name, help=says)
    says = "accept requests from boto3, the AWS CLI and other AWS clients on this machine"
    serve = actions.add_parser("serve", help=says, description=says[0].upper() + says[1:] + ".")
    serve.add_argument("--port", type=int, default=0, help="default: any free port")
    serve.add_argument("--verbose", action="store_true", help="print every request to stderr")
    serve.set_defaults(command=_serve)
    return parser


def _doctor(options: argparse.Namespace) -> int:
    from genokit.doctor import doctor

    report = doctor()
    _say(report)
    return 1 if report.state == "problem" else 0


def _fetch(options: argparse.Namespace) -> None:
    from genokit import Manifest

    dataset = Manifest(options.name).fetch()
    _say(f"{dataset.title or dataset.name}{' (a sample)' if dataset.sample else ''}")
    for name, path in dataset.paths.items():
        _say(f"  {name}  {path}")


def _verify(options: argparse.Namespace) -> int:
    from genokit import Manifest

    manifest = Manifest(options.name)
    found = manifest.verify()
    _say(found.to_string(index=False))
    states = list(found["state"])
    whole, sample = states[: len(manifest.resources)], states[len(manifest.resources) :]
    return 0 if "wrong" not in states and ("missing" not in whole or sample) else 1


def _freeze(options: argparse.Namespace) -> None:
    from genokit import Manifest

    manifest = Manifest.freeze(options.folder, options.name)
    _say(f"Described: {manifest}")


def _run(options: argparse.Namespace) -> None:
    from genokit import run

    if options.output and not options.output.absolute().parent.is_dir():
        raise NotFound(f"the folder of {options.output} does not exist. Create it first.")
    parameters = _parameters_file(options.parameters_file) if options.parameters_file else {}
    try:
        done = run(
            options.notebook,
            {**parameters, **dict(options.parameter)},
            name=options.name,
            cwd=options.cwd,
            timeout_s=options.timeout,
            cell_timeout_s=options.cell_timeout,
            log_output=options.log_output,
        )
    except NotebookFailed as error:
        if options.output:
            write_atomic(options.output, error.path.read_bytes())
        raise
    if options.output:
        write_atomic(options.output, done.notebook.read_bytes())
    _print_outputs(done.outputs)
    print(f"Run: {done.path}\nPage: {done.html}")


def _pipeline(options: argparse.Namespace) -> None:
    from genokit import Pipeline

    parameters: dict[str, dict[str, object]] = {}
    for notebook, name, value in options.parameter:
        parameters.setdefault(notebook, {})[name] = value
    done = Pipeline(options.file).run(parameters)
    _print_outputs(
        {f"{notebook}.{name}": value for notebook, outputs in done.outputs.items() for name, value in outputs.items()}
    )
    print(f"Report: {done.report}")


def _jobs(options: argparse.Namespace) -> None:
    from genokit import Batch

    jobs = Batch().jobs(queue=options.queue, status=options.status)
    _say("No jobs." if jobs.empty else jobs.to_string(index=False))


def _stack(options: argparse.Namespace) -> None:
    from genokit import Stack

    words = list(options.words)
    name = "batch" if not words or "=" in words[0] else words.pop(0)
    stack = Stack(name, stack_name=options.stack_name)
    parameters = {} if options.action in ("outputs", "policy") else _assignments(words)
    if options.action == "outputs":
        _stack_outputs(stack, words)
    elif options.action == "policy":
        print(stack.policy(*words[:1]), end="")
    elif options.action == "diff":
        _say(stack.diff(**parameters))
    elif options.action in ("deploy", "update"):
        change = stack.deploy if options.action == "deploy" else stack.update
        _print_outputs(change(replace=options.replace, **parameters).outputs)
    elif options.action == "teardown":
        stack.teardown(confirm=options.confirm)
    else:
        for keyword, row in stack.parameters().iterrows():
            print(f"{keyword} = {row['default']}\n    {row['description']}")


def _assignments(words: Sequence[str]) -> dict[str, Any]:
    if wrong := [word for word in words if "=" not in word or not word.partition("=")[0].isidentifier()]:
        raise InvalidParameters(f"'{wrong[0]}' is not NAME=VALUE, such as spot_max_vcpus=64.")
    return dict(word.split("=", 1) for word in words)


def _stack_outputs(stack: Stack, names: Sequence[str]) -> None:
    outputs = stack.outputs
    for name in names:
        if name not in outputs:
            raise NotFound(f"Stack '{stack.stack_name}' has no output '{name}'. {did_you_mean(name, outputs)}")
        print(outputs[name])
    if not names:
        _print_outputs(outputs)


def _local(options: argparse.Namespace) -> None:
    from genokit import backends
    from genokit.display import size

    account = backends.account()
    if options.action == "stop":
        account.stop()
    elif options.action == "clean":
        account.clean()
    for name, value in account.status().items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {state}" for state, count in value.items())
        elif name == "bytes":
            value = size(float(str(value)))
        print(f"{name:<12} {value or 'none'}")


def _serve(options: argparse.Namespace) -> None:
    from genokit import Settings, backends

    settings = Settings.load()
    with backends.door(settings, options.port, verbose=options.verbose) as door:
        print(f"The embedded account in '{settings.home}' accepts requests. Set in a client's shell:\n")
        for line in door.environment(settings.region or "us-east-1"):
            print(line)
        print("\nCtrl-C stops serving; jobs go on. 'genokit local stop' ends them too.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            door.serve_forever()


def _say(shown: object) -> None:
    """Print text that may come from a notebook, a manifest or a job, without control characters."""
    print(plain(str(shown)))


def _print_outputs(outputs: Mapping[str, object]) -> None:
    for name, value in outputs.items():
        _say(f"{name} = {value}")


def _parameters_file(path: Path) -> dict[str, object]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"The parameters file {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidParameters(f"{path} is neither YAML nor JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise InvalidParameters(f"{path} must map names to values, with a line such as 'epochs: 3' for each parameter.")
    return found


def _parameter(text: str) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as epochs=3")
    from genokit.pipelines.values import Text

    return name.strip(), Text(value)


def _notebook_parameter(text: str) -> tuple[str, str, object]:
    left, value = _parameter(text)
    notebook, dot, name = left.partition(".")
    if not dot or not notebook or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not NOTEBOOK.NAME=VALUE, such as lenet.epochs=3")
    return notebook, name, value


if __name__ == "__main__":
    sys.exit(main())
