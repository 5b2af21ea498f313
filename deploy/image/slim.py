"""Remove from a virtual environment what is only for building against it, or for its own tests.

Used while the image is built: ``python slim.py /opt/spreadtrain``. What may go is named here, file
by file or folder by folder; the build then imports everything that the product imports.
"""

import shutil
import sys
from pathlib import Path

# Folders at any depth, unless another package imports them at run time.
TESTS = ("tests", "test")
KEPT_TESTS = ("numpy/_core/tests", "numpy/testing")
# Globs from the folder of the packages.
UNUSED = (
    "pip",
    "pip-*.dist-info",
    "setuptools",
    "setuptools-*.dist-info",
    "pkg_resources",
    "_distutils_hack",
    "distutils-precedence.pth",
    "torch/include",
    "torch/share",
    "torch/bin/protoc*",
    "torch/bin/*test*",
    "torch/testing/_internal/py312_intrinsics.py",  # is not for this Python
    "torch/lib/*.a",
    "functorch",
    "torchgen/packaged",
    "pyarrow/include",
    "pyarrow/src",
    "ray/include",
    "ray/cpp",
    "ray/jars",
    "ray/rllib",
    "ray/dashboard/client",
    "**/*.pyi",
    "**/*.pxd",
    "**/*.h",
    "**/*.hpp",
    "**/*.cuh",
)


def slim(environment: Path) -> int:
    """Remove it, and return the bytes that were freed."""
    (packages,) = environment.glob("lib/python*/site-packages")
    unused = [path for pattern in UNUSED for path in packages.glob(pattern)]
    for name in TESTS:
        unused += [
            folder
            for folder in packages.glob(f"*/**/{name}")
            if folder.is_dir() and folder.relative_to(packages).as_posix() not in KEPT_TESTS
        ]
    freed = 0
    for path in unused:
        freed += _remove(path)
    return freed


def _remove(path: Path) -> int:
    if path.is_symlink() or path.is_file():
        size = path.lstat().st_size
        path.unlink()
        return size
    if not path.exists():
        return 0  # inside a folder that has gone already
    size = sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    return size


if __name__ == "__main__":
    sys.stdout.write(f"freed {slim(Path(sys.argv[1])) / 1e6:.0f} MB\n")
