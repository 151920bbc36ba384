"""What the package says about itself, and what its source distribution holds."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
IGNORED = shutil.ignore_patterns("*.so", "__pycache__", "build", "dist", "runs", "site", "*.egg-info", ".*")


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """The files of a source distribution that is built from a copy of the checkout."""
    copy, dist = tmp_path_factory.mktemp("checkout") / "ssdfast", tmp_path_factory.mktemp("dist")
    shutil.copytree(CHECKOUT, copy, symlinks=True, ignore=IGNORED)
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(dist)], cwd=copy, check=True, capture_output=True)
    (archive,) = dist.glob("ssdfast-*.tar.gz")
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


def test_a_source_distribution_holds_what_a_build_and_its_tests_need(members):
    for folder, pattern in (("csrc", "*.h"), ("csrc", "*.cpp"), ("tests", "*.py"), ("docs", "*.md"), ("bench", "*.py")):
        files = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / folder).rglob(pattern)}
        assert files
        assert files <= members, sorted(files - members)
    assert {
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "Makefile",
        "mkdocs.yml",
        "constraints/h100.txt",
        "ssdfast/py.typed",
    } <= members


def test_a_source_distribution_holds_each_kernel_once_and_nothing_built(members):
    assert "kernels/probe_stats/schema.py" in members
    assert not [name for name in members if name.startswith("ssdfast/kernels") or name.endswith((".so", ".pyc"))]


def test_the_version_needs_no_torch():
    code = "import sys, ssdfast; print(ssdfast.__version__); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in (PROJECT["version"], "0+unknown")


def test_no_extra_is_empty_and_all_names_extras_that_exist():
    extras = PROJECT["optional-dependencies"]
    assert all(extras.values())
    (everything,) = extras["all"]
    names = set(everything.removeprefix("ssdfast[").removesuffix("]").split(","))
    assert names == set(extras) - {"all", "bench", "dev", "docs", "vllm"}


def test_the_citation_has_the_version_of_the_package():
    assert f"\nversion: {PROJECT['version']}\n" in (CHECKOUT / "CITATION.cff").read_text()
