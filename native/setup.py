"""How the extension is compiled: one file for all Python versions from 3.11 on."""

from pathlib import Path

from setuptools import Extension, setup

HERE = Path(__file__).parent

setup(
    ext_modules=[
        Extension(
            "stream_native._kernel",
            sorted(str(path.relative_to(HERE)) for path in HERE.glob("src/*.c")),
            depends=sorted(str(path.relative_to(HERE)) for path in HERE.glob("src/*.h")),
            # No contraction: a fused multiply-add rounds once where the other path rounds twice.
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-fvisibility=hidden", "-ffp-contract=off"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
