"""Which packages are installed: the few that can change a result, and every one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

CAN_CHANGE_A_RESULT = (
    "ml-core", "torch", "numpy", "h5py", "scikit-learn", "pandas", "pyarrow", "pillow",
    "safetensors", "pydantic", "matplotlib", "mlflow", "optuna", "scipy",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Return the versions of the installed packages that can change a result, by name."""
    found = {}
    for name in CAN_CHANGE_A_RESULT:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def installed_packages() -> dict[str, str]:
    """Return the version of every package this Python can import, by name, sorted without case.

    Of two copies on the path it is the first, which is the one imported; what names no version
    (a folder left by a broken uninstall) is left out.
    """
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        fields = distribution.metadata  # read once: each access parses the file
        name, version = fields["Name"], fields["Version"]
        if name and version:
            found.setdefault(name, version)
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def render_packages(packages: Mapping[str, str]) -> str:
    """Return packages.txt: a line ``name==version`` per package, which pip can install from."""
    return "".join(f"{name}=={version}\n" for name, version in packages.items())


def parse_packages(text: str) -> dict[str, str]:
    """Return what `render_packages` was given; lines of another form are left out."""
    pairs = (line.strip().partition("==") for line in text.splitlines())
    return {name: version for name, equals, version in pairs if equals}
