"""What a job ran with: versions of Python, inferay, and the packages that scores depend on."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata

from inferay import __version__

#: Packages whose version may change a score or the bytes of an output.
_PACKAGES = (
    "catboost", "jax", "lightgbm", "mlflow", "numpy", "onnxruntime", "pandas", "pillow", "polars",
    "pyarrow", "ray", "scikit-learn", "scipy", "tensorflow", "torch", "transformers", "xgboost",
)


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions that are installed here, by name.

    Args:
        packages: Further ones, such as the environment declares.
    """
    found = {
        "inferay": __version__, "python": platform.python_version(),
        "platform": platform.platform(),
    }
    for name in sorted({*_PACKAGES, *packages}):
        try:
            found[name] = metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):   # ValueError: no name of a package
            continue
    return found
