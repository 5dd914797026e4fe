from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "stream_native._kernel",
            ["stream_native/kernel.c"],
            extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-ffp-contract=off"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
