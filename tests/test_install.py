"""Where users install the package: each line of docs/install.md that can be tried without another machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .requirements import CHECKOUT, PROJECT, requirements, resolve

INSTALL = (CHECKOUT / "docs" / "install.md").read_text(encoding="utf-8")
H100_EXTRAS = ("sample", "eval", "train", "ray", "vllm")
H100_PACKAGES = ("liger-kernel", "flash-linear-attention", "flash-attn-4>=4.0.0b0")


def python(version: str) -> str:
    """An interpreter of this version with pip; skips the test where there is none."""
    places = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for path in filter(None, places):
        if subprocess.run([path, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return path
    pytest.skip(f"needs Python {version} with pip")


@pytest.fixture
def registry():
    """Skips the test where pip cannot reach its index."""
    command = [sys.executable, "-m", "pip", "index", "versions", "--timeout", "20", "safetensors"]
    if subprocess.run(command, capture_output=True, timeout=120).returncode:
        pytest.skip("needs a package index")


@pytest.mark.registry
def test_the_versions_for_a_laptop_resolve(registry, tmp_path):
    versions = resolve(sys.executable, requirements("all"), CHECKOUT / "constraints/laptop.txt", tmp_path / "report")
    assert versions["torch"].startswith("2.13.0")
    assert "vllm" not in versions


@pytest.mark.registry
def test_the_versions_for_an_h100_resolve(registry, tmp_path):
    wanted = [*requirements(*H100_EXTRAS), *H100_PACKAGES]
    versions = resolve(python("3.12"), wanted, CHECKOUT / "constraints/h100.txt", tmp_path / "report")
    assert (versions["torch"], versions["vllm"]) == ("2.13.0", "0.30.0")


def test_the_documented_commands_are_those_that_are_resolved():
    assert f"'.[{','.join(H100_EXTRAS)}]'" in INSTALL
    assert all(package in INSTALL for package in H100_PACKAGES)
    for name in re.findall(r"-c (\S+)", INSTALL):
        assert (CHECKOUT / name).is_file()
    for extra in set(PROJECT["optional-dependencies"]) - {"bench", "dev", "docs"}:
        assert f"`[{extra}]`" in INSTALL


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout without anything that was built."""
    directory = tmp_path_factory.mktemp("copy") / "ssdfast"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "dist", "runs", "site", "*.egg-info", ".*")
    shutil.copytree(CHECKOUT, directory, symlinks=True, ignore=ignored)
    return directory


def wheel(directory: Path, dist: Path, **environment: str) -> tuple[list[str], str]:
    """The files of a wheel, and what its build printed."""
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", build, str(dist)], cwd=directory, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = dist.glob("*.whl")
    listing = subprocess.run([sys.executable, "-m", "zipfile", "-l", str(file)], capture_output=True, text=True)
    return [line.split()[0] for line in listing.stdout.splitlines()[1:]], done.stdout + done.stderr


def test_without_a_compiler_it_installs_with_one_warning_and_no_stale_file(copy, tmp_path):
    stale = copy / "build" / "lib" / "ssdfast" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    names, printed = wheel(copy, tmp_path, CC="/nowhere/cc", CXX="/nowhere/c++")
    assert printed.count("warning: ssdfast is installed without its C++ extension") == 1
    assert any(name.endswith("ssdfast/kernels/backends.py") for name in names)
    assert not [name for name in names if "_C." in name or name.endswith("gone.py")]


def test_the_kernels_warn_once_where_there_is_no_extension(copy):
    code = (
        "import torch, warnings\n"
        "from ssdfast.kernels import probe_stats\n"
        "assert probe_stats.backends() == ('reference',), probe_stats.backends()\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2): probe_stats(torch.randn(2, 50), None, torch.zeros(2, dtype=torch.int64))\n"
        "print(len(caught), caught[0].message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.stdout.startswith("1 the kernels run in plain torch, which is slow"), done.stderr
    assert "pip install -e" in done.stdout


@pytest.mark.parametrize(("command", "hidden"), [("train", "accelerate"), ("study", "scipy"), ("study", "accelerate")])
def test_a_default_install_names_the_extra_before_any_work(command, hidden, tmp_path):
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name == '{hidden}' else find(name, *rest)\n"
        "from ssdfast import cli\n"
        "sys.exit(cli.run(sys.argv[1:]))\n"
    )
    given = {"train": ["--model", "m", "--traces", "t"], "study": ["demo"]}[command]
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", code, command, *given, "--out", str(out)], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert "pip install 'ssdfast[train" in done.stderr
    assert hidden in done.stderr
    assert not out.exists()
