"""What a Debian has that enforces SELinux: its policy, its tools, labels on all files, and our policy module.

Labels are attributes of files, and nobody waits for them at a boot: they are in the disk image.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from machinelib import diskimage
from machinelib.addon import AddOn, name_add_on, obtain_add_on
from machinelib.apt import run_tool
from machinelib.cache import Artifact, obtain_artifact, say
from machinelib.layers import CHECKOUT
from machinelib.recipe import hash_inputs

KIND = "seimage"
# What packaging/rpm/usercontainerd.spec puts there on a Fedora, whose policy has another name.
MODULE = "usr/share/selinux/packages/default/usercontainerd.pp.bz2"

_PACKAGES = (
    "selinux-policy-default",
    "selinux-policy-dev",
    "policycoreutils",
    "selinux-utils",
    "policycoreutils-python-utils",
    "make",
    "bzip2",
)
# What manages and analyses policies; building a module takes m4 and checkmodule.
# What analyses policies.
_NOT_NEEDED = ("python3-networkx",)

_CONFIGURATION = "SELINUX=enforcing\\nSELINUXTYPE=default\\n"
# The kernel lane's way to the host, of which no policy knows.
_HOSTFS = "(genfscon hostfs / (system_u object_r nfs_t ((s0) (s0))))"
_COMMANDS = (
    f"printf '{_CONFIGURATION}' >/etc/selinux/config",
    f"echo '{_HOSTFS}' >/usr/share/selinux/default/hostfs.cil",
    # As the package's script: at priority 100.
    "cd /usr/share/selinux/default && mkdir -p /var/lib/selinux/default &&"
    " semodule -n -s default -X 100 -i hostfs.cil $(sed 's/.*/-i &.pp.bz2/' .modules)",
    "ldconfig -X",
)

SELINUX = AddOn("selinux", _PACKAGES, _NOT_NEEDED, _COMMANDS)

_BUILD_MODULE = f"""
    cd /usr/src/usercontainerd-selinux
    make -f /usr/share/selinux/devel/Makefile usercontainerd.pp
    bzip2 -9 usercontainerd.pp
    mkdir -p "$(dirname /{MODULE})"
    mv usercontainerd.pp.bz2 /{MODULE}
    semodule -n -s default -X 200 -i /{MODULE}
    rm -r /usr/src/usercontainerd-selinux
"""
_LABEL = "setfiles -F -e /proc -e /sys -e /dev /etc/selinux/default/contexts/files/file_contexts /"


def obtain_labelled_image(system: Artifact, suite: str) -> Path:
    """The disk image, made if it is not cached."""
    digest = _hash_labelled_image(system.path.name)
    artifact = obtain_artifact(KIND, digest, partial(_build, system=system, suite=suite))
    return artifact.path / diskimage.IMAGE


def list_image_names(system: str) -> list[str]:
    """The artifacts that machines with SELinux are made of, beside those of the kernel lane."""
    return [f"{KIND}-{_hash_labelled_image(system)}", name_add_on(SELINUX, system)]


def _hash_labelled_image(system: str) -> str:
    sources = [path.read_text() for path in sorted((CHECKOUT / "packaging/selinux").glob("*.??"))]
    return hash_inputs(
        diskimage.hash_image(system), name_add_on(SELINUX, system), sources, _BUILD_MODULE, _LABEL
    )


def _build(stage: Path, system: Artifact, suite: str) -> None:
    diskimage.require_root()
    policy = obtain_add_on(SELINUX, system, suite)
    say("making a disk image with SELinux's labels")
    # A copy, since in an overlay files and directories are of different devices, which setfiles takes for mount points.
    root = stage / "root"
    for layer in (system, policy):
        run_tool(["cp", "-a", "--reflink=auto", "-T", str(layer.path / "tree"), str(root)])
    shutil.copytree(CHECKOUT / "packaging/selinux", root / "usr/src/usercontainerd-selinux")
    for command in (_BUILD_MODULE, _LABEL):
        run_tool(["chroot", str(root), "sh", "-ec", command])
    diskimage.write_image(stage, root)
    shutil.rmtree(root)
    policy.release()
