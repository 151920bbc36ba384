"""Builds csrc/ into ssdfast/kernels/_C: LibTorch stable ABI, limited Python API, one wheel for every torch >= 2.11.

Without a compiler the package is installed without the extension and says so once; SSDFAST_REQUIRE_EXTENSION=1 makes
that an error.
"""

import os
import sys
import tempfile

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

STABLE_ABI_2_10 = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# setuptools packs whatever an earlier build left in build/lib, such as modules that are gone.
FRESH = tempfile.TemporaryDirectory(prefix="ssdfast-build-")


class BuildOrWarn(BuildExtension):
    """Leaves the extension out where it cannot be built: all kernels then run in plain torch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.use_ninja = False  # not by with_options, which setuptools 77 does not take

    def build_extensions(self):
        try:
            super().build_extensions()
        except Exception as error:
            if os.environ.get("SSDFAST_REQUIRE_EXTENSION"):
                raise
            self.extensions.clear()
            print(
                f"warning: ssdfast is installed without its C++ extension ({error}), and its kernels run in plain torch"
                " on CPUs: install a C++17 compiler and install ssdfast again",
                file=sys.stderr,
            )


setup(
    ext_modules=[
        CppExtension(
            name="ssdfast.kernels._C",
            sources=sorted(os.path.join("csrc", f) for f in os.listdir("csrc") if f.endswith(".cpp")),
            depends=sorted(os.path.join("csrc", f) for f in os.listdir("csrc") if f.endswith(".h")),
            include_dirs=[os.path.abspath("csrc")],
            extra_compile_args=[
                "-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-ffp-contract=off", "-Wno-psabi",
                STABLE_ABI_2_10, "-DPy_LIMITED_API=0x03090000",
            ],
            extra_link_args=["-Wl,-S" if sys.platform == "darwin" else "-Wl,-s"],
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildOrWarn},
    options={"bdist_wheel": {"py_limited_api": "cp39"}, "build": {"build_lib": FRESH.name}},
)  # fmt: skip
