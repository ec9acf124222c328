"""pip and venv for a machine, and the wheels that this project needs: a machine has no network of its own.

A layer over the root file system. Wheels of pure Python come from the index that the host's pip uses; systemd-python,
which its makers publish as source only, is made into a wheel of the copy that Debian has compiled.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import os
import platform
import sys
import zipfile
from functools import partial
from pathlib import Path

from machinelib.addon import unpack_packages
from machinelib.apt import run_tool
from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.hosttools import MachineError
from machinelib.recipe import hash_inputs

KIND = "pip"
WHEELS = "/srv/wheels"  # in the machine

_PACKAGES = ("python3-pip", "python3-venv")
_NOT_NEEDED = ("media-types",)
_COMPILED = "systemd-python"
_BUILD_TOOLS = ("setuptools", "wheel")
_CHECKOUT = Path(__file__).resolve().parents[2]
_CONFIGURATION = f"[global]\nno-index = true\nfind-links = {WHEELS}\ndisable-pip-version-check = true\n"


def obtain_pip(system: Artifact, suite: str) -> Artifact:
    """The layer (in `tree` of the artifact), built if it is not cached; `suite` is the root file system's."""
    build = partial(_build, system=system.path / "tree", suite=suite)
    return obtain_artifact(KIND, hash_pip(system), build)


def hash_pip(system: Artifact | str) -> str:
    """Changes with the packages, and with what lies below."""
    name = system if isinstance(system, str) else system.path.name
    return hash_inputs("pip 1", name, _PACKAGES, _NOT_NEEDED, _CONFIGURATION, _list_requirements())


def _list_requirements() -> list[str]:
    configuration = configparser.ConfigParser()
    configuration.read(_CHECKOUT / "setup.cfg")
    listed = configuration["options"]["install_requires"].split()
    return sorted({*listed, *_BUILD_TOOLS} - {_COMPILED})


def _build(stage: Path, system: Path, suite: str) -> None:
    if os.geteuid() != 0:
        raise MachineError("building the layer with pip needs root (once)")
    say("fetching pip and wheels (some seconds, then cached)")
    tree = unpack_packages(stage, system, suite, _PACKAGES, _NOT_NEEDED)
    wheels = tree / WHEELS.strip("/")
    wheels.mkdir(parents=True)
    _fetch_wheels(tree, wheels)
    _pack_compiled(system / "usr/lib/python3/dist-packages", wheels)
    for path in wheels.iterdir():
        path.chmod(0o644)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/pip.conf").write_text(_CONFIGURATION)


def _fetch_wheels(tree: Path, wheels: Path) -> None:
    """With the pip that was just unpacked: it runs from its own wheel, with any Python."""
    (pip,) = (tree / "usr/share/python-wheels").glob("pip-*.whl")
    options = ["--quiet", "--dest", str(wheels), "--only-binary", ":all:", "--platform", "any"]
    run_tool([sys.executable, f"{pip}/pip", "download", *options, *_list_requirements()])


def _pack_compiled(packages: Path, wheels: Path) -> None:
    (information,) = packages.glob("systemd_python-*.*-info")  # egg-info or dist-info
    version = information.name.removeprefix("systemd_python-").rpartition(".")[0]
    tag = next(path.name.split(".")[1] for path in (packages / "systemd").glob("_daemon.*.so"))
    python = "cp" + tag.split("-")[1]
    name = f"systemd_python-{version}"
    full_tag = f"{python}-{python}-linux_{platform.machine()}"
    (metadata,) = [each for each in information.iterdir() if each.name in ("PKG-INFO", "METADATA")]
    contents = {
        str(path.relative_to(packages)): path.read_bytes()
        for path in sorted((packages / "systemd").iterdir())
        if path.is_file()
    }
    contents[f"{name}.dist-info/METADATA"] = metadata.read_bytes()
    contents[f"{name}.dist-info/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: machine\nRoot-Is-Purelib: false\nTag: {full_tag}\n".encode()
    )
    record = "".join(f"{path},{_hash(data)},{len(data)}\n" for path, data in contents.items())
    contents[f"{name}.dist-info/RECORD"] = f"{record}{name}.dist-info/RECORD,,\n".encode()
    with zipfile.ZipFile(wheels / f"{name}-{full_tag}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)


def _hash(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={digest}"
