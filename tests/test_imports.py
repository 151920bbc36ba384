"""What an import finds: every package in the wheel, and the operators once.

Other packages look for one named "kernels"; in a checkout they must not load this one a second time.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent


def test_transformers_does_not_register_the_operators_again():
    code = """
import sys
import ssdfast.kernels
from transformers import LlamaForCausalLM
assert not [name for name in sys.modules if name.startswith("kernels.")], "registered under two names"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_wheel_holds_every_package():
    """An editable install finds them anyway, so that a missing one shows only at the user's."""
    listed = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(init.parent.relative_to(CHECKOUT).parts)
        for top in ("ssdfast", "kernels")
        for init in (CHECKOUT / top).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(name if name.startswith("ssdfast") else f"ssdfast.{name}" for name in found)
