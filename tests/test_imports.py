"""Other packages look for one named "kernels"; in a checkout they must not load this one a second time."""

import subprocess
import sys
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
