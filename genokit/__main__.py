"""The command ``genokit``: one subcommand per function of the same name.

examples:
  genokit doctor                                        check this machine, and how to fix what is missing
  genokit fetch mnist                                   download a data set and check its hashes
  genokit verify mnist                                  check the hashes of a fetched data set again, or of a run
  genokit why table.csv                                 list the runs that made or used a file
  genokit freeze my-folder --name my-data               describe a folder of data, with hashes, for others to fetch
  genokit run notebooks/10_lenet.ipynb -p epochs=1      run a notebook with these parameters
  genokit schema notebooks/10_lenet.ipynb               print a JSON Schema of its parameters, for forms and editors
  genokit pipeline notebooks/pipelines/tour.toml        run notebooks that depend on one another, -p lenet.epochs=1
  genokit runs                                          list the runs of notebooks
  genokit reproduce runs/20261129-101112-lenet-0a1b2c   run a run or a pipeline again, and compare the results
  genokit debug runs/20261129-101112-lenet-0a1b2c       repeat a failed run, or a job by its id, cell by cell
  genokit diff runs/20261129-101112-lenet-0a1b2c ...    compare two runs
  genokit clean --runs --older-than 90                  delete the runs of more than 90 days ago
  genokit jobs --status RUNNING                         list the jobs of the account
  genokit stack diff batch spot_max_vcpus=64            show what a change of the AWS stack would do
  genokit image publish gpu-torch                       build an image for jobs and publish it where they find it
  genokit local status                                  show the state of the embedded account and its jobs
  genokit local serve                                   accept requests from boto3, the AWS CLI and other AWS clients

Settings come from GENOKIT_* variables and the nearest genokit.toml; 'genokit doctor' shows them.
GENOKIT_DEBUG=1 shows the full traceback of an error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from genokit import __version__
from genokit.display import plain
from genokit.errors import GenokitError, InvalidParameters, NotebookFailed, NotFound, did_you_mean

Options = argparse.Namespace


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for an error or a failed check, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    # jsonschema would load this for two seconds, to check a kind of address that notebooks do not have.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
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
    except (KeyboardInterrupt, SystemExit) as error:
        print("genokit: interrupted", *getattr(error, "__notes__", ()), sep="\n  ", file=sys.stderr)
        return int(getattr(error, "code", 130))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="genokit",
        description="A research kit for notebooks: data, training, jobs and pipelines, here or on AWS.",
        epilog=str(__doc__).partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"genokit {__version__}")
    parser.set_defaults(command=lambda _: parser.print_help())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(command: Callable[[Options], int | None], says: str) -> argparse.ArgumentParser:
        name = command.__name__.removeprefix("_")
        added = commands.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
        added.set_defaults(command=command)
        return added

    data = "a data set's name, or the path of its datapackage.json"
    add(_doctor, "check this machine, and say how to fix what is missing")
    add(_fetch, "download a data set and check its hashes").add_argument("name", help=data)
    says = f"{data}; or the folder of a run or a pipeline"
    add(_verify, "check the hashes of a fetched data set, or of all files of a run").add_argument("name", help=says)
    says = "the file; it is found by its content"
    add(_why, "list the runs that made or used a file").add_argument("file", type=Path, help=says)
    freeze = add(_freeze, "describe a folder of data, with hashes, for others to fetch")
    freeze.add_argument("folder", type=Path)
    freeze.add_argument("--name", required=True, help="the data set's name: lower case, digits, '-', '_' and '.'")
    run = add(_run, "run a notebook with parameters, and keep the run")
    run.add_argument("notebook", type=Path, help="the notebook; it stays as it is: a copy is executed and kept")
    says = "a parameter of the cell tagged 'parameters', repeatable; VALUE is parsed by the parameter's type"
    run.add_argument("-p", "--parameter", action="append", default=[], type=_parameter, metavar="NAME=VALUE", help=says)
    run.add_argument("--cwd", type=Path, metavar="FOLDER", help="working folder; default: the notebook's")
    run.add_argument("--queue", help="run it as a Batch job in this job queue, and wait for it")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="stop the run after this time")
    run.add_argument("--log-output", action="store_true", help="print what the cells print, as it arrives")
    schema = add(_schema, "print a JSON Schema of a notebook's parameters")
    schema.add_argument("notebook", type=Path, help="the notebook; it is not run")
    pipeline = add(_pipeline, "run the notebooks of a pipeline, each after those it depends on")
    pipeline.add_argument("file", type=Path, help="the pipeline's TOML file")
    says = "a parameter of one of its notebooks, repeatable; VALUE is parsed by the parameter's type"
    form, parse = "NOTEBOOK.NAME=VALUE", _notebook_parameter
    pipeline.add_argument("-p", "--parameter", action="append", default=[], type=parse, metavar=form, help=says)
    pipeline.add_argument("--queue", help="run the notebooks as Batch jobs in this job queue")
    pipeline.add_argument("--fresh", action="store_true", help="execute every notebook, changed or not")
    pipeline.add_argument("--only", metavar="NOTEBOOK", help="execute this one with the last results of the others")
    pipeline.add_argument("--up-to", metavar="NOTEBOOK", help="run this one and those that it needs")
    pipeline.add_argument("--from", dest="start_from", metavar="NOTEBOOK", help="run this one and those that need it")
    pipeline.add_argument("--cold", action="store_true", help="start every kernel as a new process")
    says = "execute nothing; open this one with the last results of those that it needs"
    pipeline.add_argument("--edit", metavar="NOTEBOOK", help=says)
    pipeline.add_argument("--dry-run", action="store_true", help="execute nothing; list what would run, and why")
    add(_runs, "list the runs of notebooks")
    stop = add(_stop, "stop a notebook that is running, or all notebooks of a pipeline")
    stop.add_argument("folder", type=Path, help="the folder of the run or the pipeline")
    again = add(_reproduce, "run a notebook or a pipeline again and compare the results; exit code 1 if any differ")
    again.add_argument("folder", type=Path, metavar="CRATE", help="the folder of a run or a pipeline")
    step = add(_debug, "make a folder in which a failed run or job can be repeated")
    step.add_argument("step", metavar="FOLDER|JOB_ID", help="a run's folder, or a job's id")
    diff = add(_diff, "compare the parameters, outputs, code and figures of two runs")
    diff.add_argument("runs", nargs=2, type=Path, metavar="FOLDER", help="a run's folder")
    clean = add(_clean, "delete runs of notebooks, oldest first")
    clean.add_argument("--runs", action="store_true", required=True, help="runs; 'genokit local clean' deletes jobs")
    clean.add_argument("--older-than", type=float, default=math.inf, metavar="DAYS", help="those that ended longer ago")
    clean.add_argument("--larger-than", type=float, default=math.inf, metavar="GB", help="as many as exceed this")
    jobs = add(_jobs, "list the jobs of the account")
    jobs.add_argument("--queue")
    jobs.add_argument("--status", help="such as RUNNING or FAILED")
    stack = add(_stack, "deploy, compare, update or remove the CloudFormation stack that jobs need")
    stack.add_argument("action", choices=("deploy", "diff", "update", "teardown", "outputs", "policy"))
    says = "the template's name or path (default: batch), then NAME=VALUE as spot_max_vcpus=64, an output or a policy"
    stack.add_argument("words", nargs="*", metavar="WORD", help=says)
    stack.add_argument("--stack-name", help="the stack's name in CloudFormation; default: as in the settings")
    says = "also if that removes or replaces resources with data or jobs"
    stack.add_argument("--replace", action="store_true", help=says)
    stack.add_argument("--confirm", metavar="STACK", help="the stack's name, to remove it and everything in it")
    image = add(_image, "build the kit's image for jobs and publish it where they find it")
    image.add_argument("action", choices=("publish",))
    image.add_argument("name", nargs="?", default="cpu", help="cpu (the default), gpu or gpu-torch")
    image.add_argument("--again", action="store_true", help="build it even if its files have not changed")
    local = add(_local, "show, stop, clear or serve the embedded account")
    says = "show its state; end its jobs and its supervisor; also delete its jobs and logs; or accept other AWS clients"
    local.add_argument("action", choices=("status", "stop", "clean", "serve"), help=says)
    local.add_argument("--port", type=int, default=0, help="where to serve; default: any free port")
    local.add_argument("--verbose", action="store_true", help="print every request that is served to stderr")
    return parser


def _doctor(options: Options) -> int:
    from genokit.doctor import doctor

    report = doctor()
    _say(report)
    return 1 if report.state == "problem" else 0


def _fetch(options: Options) -> None:
    from genokit import Manifest

    dataset = Manifest(options.name).fetch()
    _say(f"{dataset.title or dataset.name}{' (a sample)' if dataset.sample else ''}")
    for name, path in dataset.paths.items():
        _say(f"  {name}  {path}")


def _verify(options: Options) -> int:
    from genokit import Manifest
    from genokit.pipelines import crate

    if Path(options.name, crate.METADATA).is_file():
        files = crate.verify(options.name)
        _say(files.to_string(index=False))
        return int(set(files["state"]) != {"unchanged"})
    manifest = Manifest(options.name)
    found = manifest.verify()
    _say(found.to_string(index=False))
    states = list(found["state"])
    whole, sample = states[: len(manifest.package.resources)], states[len(manifest.package.resources) :]
    return 0 if "wrong" not in states and ("missing" not in whole or sample) else 1


def _why(options: Options) -> int:
    from genokit.pipelines import why

    found = why(options.file)
    _say("No run made or used it." if found.empty else found.to_string(index=False))
    return int(found.empty)


def _freeze(options: Options) -> None:
    from genokit import Manifest

    _say(f"Described: {Manifest.freeze(options.folder, options.name)}")


def _run(options: Options) -> None:
    from genokit import run

    parameters = dict(options.parameter)
    done = run(
        options.notebook,
        parameters,
        cwd=options.cwd,
        timeout_s=options.timeout,
        log_output=options.log_output,
        queue=options.queue,
    )
    _print_outputs(done.outputs)
    print(f"Run: {done.path}\nPage: {done.html}")


def _schema(options: Options) -> None:
    from genokit.pipelines import parameters

    _say(json.dumps(parameters(options.notebook).json_schema(), indent=1))


def _pipeline(options: Options) -> None:
    from genokit import Pipeline

    parameters: dict[str, dict[str, object]] = {}
    for name, value in options.parameter:
        notebook, _, name = name.partition(".")
        parameters.setdefault(notebook, {})[name] = value
    names = ("fresh", "only", "up_to", "start_from", "dry_run", "edit", "queue")
    chosen = {name: getattr(options, name) for name in names}
    done = Pipeline(options.file).run(parameters, warm=not options.cold, **chosen)
    if options.dry_run or options.edit:
        _say(done if options.edit else done.to_string(index=False))
        return
    for name, run in done.runs.items():
        why = f"executed because {run.reason}" if run.reason else "executed"
        _say(f"{name}: {f'restored from {run.cached_from}' if run.cached_from else why}")
    for notebook, outputs in done.outputs.items():
        _print_outputs({f"{notebook}.{name}": value for name, value in outputs.items()})
    print(f"Report: {done.report}")


def _runs(options: Options) -> None:
    from genokit.pipelines import runs

    found = runs()
    _say("No runs." if found.empty else found.to_string(index=False))


def _stop(options: Options) -> None:
    from genokit.pipelines import Run, follow

    folders = [record.parent for record in sorted(options.folder.glob("**/run.json"))]
    found = [Run.load(folder) for folder in folders or [options.folder]]
    found = [run for run in found if run.state == "RUNNING"] or found[:1]
    for run in found:
        run.stop()
    for run in found:
        if run.job:
            with contextlib.suppress(NotebookFailed):  # of course; what it has done is fetched
                follow(run, progress=False)
        _say(f"Stopped: {run.name}")


def _debug(options: Options) -> None:
    from genokit import Batch, Run

    is_path = os.sep in options.step or Path(options.step).is_dir()
    failed = Run.load(options.step) if is_path else Batch().job(options.step)
    made = failed.debug()
    print(f"Folder: {made.path}")
    if made.left_out:
        print(f"Left out, because they look like secrets: {', '.join(made.left_out)}")
    print(f"Run: {made.command}")


def _diff(options: Options) -> None:
    from genokit.pipelines import Run, compare

    _say(compare(*map(Run.load, options.runs)).table.to_string(index=False, na_rep=""))


def _reproduce(options: Options) -> int:
    from genokit.pipelines import reproduce

    found = reproduce(options.folder)
    table = found.table.to_string(index=False, na_rep="")
    _say("\n".join([table, *(f"package {line}" for line in found.packages), repr(found)]))
    return int(not found.equal)


def _clean(options: Options) -> None:
    from genokit.pipelines import clean

    if options.older_than == options.larger_than == math.inf:
        raise InvalidParameters("Which runs? Give --older-than DAYS, --larger-than GB, or both; nothing was deleted.")
    deleted = clean(older_than_days=options.older_than, larger_than_gb=options.larger_than)
    _say("".join(f"Deleted {folder}\n" for folder in deleted) + f"{len(deleted)} deleted.")


def _jobs(options: Options) -> None:
    from genokit import Batch

    jobs = Batch().jobs(queue=options.queue, status=options.status)
    _say("No jobs." if jobs.empty else jobs.to_string(index=False))


def _stack(options: Options) -> None:
    from genokit import Stack

    action, words = options.action, list(options.words)
    name = "batch" if not words or "=" in words[0] else words.pop(0)
    stack = Stack(name, stack_name=options.stack_name)
    if action == "outputs":
        outputs = stack.outputs
        for word in words:
            if word not in outputs:
                raise NotFound(f"Stack '{stack.stack_name}' has no output '{word}'. {did_you_mean(word, outputs)}")
            print(outputs[word])
        _print_outputs({} if words else outputs)
    elif action == "policy":
        print(stack.policy(*words[:1]), end="")
    else:
        if wrong := [word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word]:
            raise InvalidParameters(f"'{wrong[0]}' is not NAME=VALUE, such as spot_max_vcpus=64.")
        parameters = dict(word.split("=", 1) for word in words)
        if action == "diff":
            _say(stack.diff(**parameters))
        elif action == "teardown":
            stack.teardown(confirm=options.confirm)
        else:
            change = stack.deploy if action == "deploy" else stack.update
            _print_outputs(change(replace=options.replace, **parameters).outputs)


def _image(options: Options) -> None:
    from genokit import Image

    Image(options.name).publish(again=options.again)


def _local(options: Options) -> None:
    from genokit import backends

    if options.action == "serve":
        _serve(options.port, options.verbose)
        return
    account = backends.account()
    if options.action == "stop":
        account.stop()
    elif options.action == "clean":
        account.clean()
    for name, value in account.status().items():
        if isinstance(value, dict):
            value = ", ".join(f"{count} {state}" for state, count in value.items())
        print(f"{name:<12} {value or 'none'}")


def _serve(port: int, verbose: bool) -> None:
    from genokit import Settings, backends

    settings = Settings.load()
    with backends.door(settings, port, verbose=verbose) as door:
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


def _parameter(text: str) -> tuple[str, object]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE, such as epochs=3")
    from genokit.pipelines.values import Text

    return name.strip(), Text(value)


def _notebook_parameter(text: str) -> tuple[str, object]:
    name, value = _parameter(text)
    if not re.fullmatch(r"[^.]+\..+", name):
        raise argparse.ArgumentTypeError(f"'{text}' is not NOTEBOOK.NAME=VALUE, such as lenet.epochs=3")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
