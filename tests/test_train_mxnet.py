"""The one door to MXNet: what it lends NumPy, what it leaves behind, what it says where MXNet cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from genokit import train
from genokit.errors import InvalidParameters
from genokit.train.mxnet import KEPT, load, threads_running
from genokit.train.network import SHAPES, first_weights


def python(program: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python in which any warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, env={**os.environ, **environ}
    )


def test_loading_restores_numpy_and_the_environment_except_what_mxnet_needs_later():
    done = python(
        "import os, types, numpy as np; before = set(vars(np)); from genokit.train.mxnet import load, threads_running\n"
        "mx = load(2); mx.nd.ones(3).asnumpy()\n"
        "print(*[n for n, v in vars(np).items() if n not in before and not isinstance(v, types.ModuleType)])\n"
        "print(os.environ['OMP_NUM_THREADS'], threads_running())",
        OMP_NUM_THREADS="7",
    )
    assert done.stderr == ""
    left, threads = done.stdout.splitlines()
    assert set(left.split()) <= set(KEPT)
    assert threads == "7 2"


def test_the_thread_count_of_a_process_cannot_change():
    load()
    running = threads_running()
    with pytest.raises(InvalidParameters, match=rf"threads={running + 1}, but .* with {running}, .*restart the kernel"):
        load(running + 1)
    assert load(running) is load()


@pytest.mark.parametrize(
    ("missing", "said"),
    [("mxnet", "There are no wheels for other platforms"), ("distutils", "pip install setuptools"),
     ("requests", "pip install requests")],
)  # fmt: skip
def test_a_missing_package_is_an_error_that_says_how_to_install_it(missing, said):
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    done = python(
        f"import sys; sys.modules['{missing}'] = None\n"
        "from genokit.errors import MissingDependency; from genokit.train.mxnet import load\n"
        "try: load()\nexcept MissingDependency as error: print(error)"
    )
    assert done.stderr == ""
    assert said in done.stdout


@pytest.mark.parametrize(
    ("library", "package"), [("libgomp.so.1", "libgomp1"), ("libquadmath.so.0", "libquadmath0"), ("libmxnet.so", None)]
)
def test_a_missing_library_is_named_with_its_debian_package(tmp_path, library, package):
    (tmp_path / library).write_text("not a library")
    done = python(
        "from genokit.errors import MissingDependency; from genokit.train.mxnet import load\n"
        "try: load()\nexcept MissingDependency as error: print(error)",
        LD_LIBRARY_PATH=str(tmp_path),
        MXNET_LIBRARY_PATH=str(tmp_path / library) if package is None else "",
    )
    assert done.stderr == ""
    assert f"{library}: " in done.stdout
    assert ("Reinstall it." if package is None else f"apt-get install {package}") in done.stdout


def test_importing_train_loads_nothing_heavy():
    done = python(
        "import sys, genokit.train as t; t.Parameters(); dir(t);"
        "print([m for m in ('numpy', 'pandas', 'mxnet', 'matplotlib') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]"


def test_lenet_has_the_documented_shapes():
    mx = load()
    net = train.lenet()
    net.initialize()
    shapes = {name: parameter.data().shape for name, parameter in net.collect_params().items()}
    assert shapes == SHAPES
    assert sum(array.size for array in first_weights(5).values()) == 431_080
    x = mx.nd.zeros((2, 1, 28, 28))
    shapes = []
    for layer in net._children.values():
        x = layer(x)
        shapes.append(x.shape)
    assert shapes == [(2, 20, 24, 24), (2, 20, 12, 12), (2, 50, 8, 8), (2, 50, 4, 4), (2, 500), (2, 10)]


def test_initial_weights_depend_only_on_the_seed_and_have_the_right_spread():
    one, two, other = first_weights(1), first_weights(1), first_weights(2)
    assert (one["dense1_weight"] == two["dense1_weight"]).all()
    assert (one["dense1_weight"] != other["dense1_weight"]).any()
    assert one["dense1_weight"].std() == pytest.approx(np.sqrt(2 / 800), rel=0.01)
    assert not one["dense1_bias"].any()
