"""Builds csrc/ into ssdfast/kernels/_C: LibTorch stable ABI, limited Python API, one wheel for every torch >= 2.11."""

import os

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

STABLE_ABI_2_10 = "-DTORCH_TARGET_VERSION=0x020a000000000000"

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
            py_limited_api=True,
        )
    ],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=False)},
    options={"bdist_wheel": {"py_limited_api": "cp39"}},
)  # fmt: skip
