"""What a Fedora has and a Debian has not: rpm with its database, rpmbuild, rpmlint, dnf."""

from __future__ import annotations

from machinelib.addon import AddOn

_PACKAGES = (
    *("rpm", "rpmlint", "dnf", "createrepo-c"),
    *("python3-pip", "python3-setuptools"),
    *("selinux-policy-dev", "make"),
)
# What manages and analyses policies; building one takes m4 and checkmodule.
_NOT_NEEDED = (
    *("policycoreutils", "policycoreutils-python-utils", "python3-audit", "python3-networkx"),
    *("python3-semanage", "python3-sepolicy", "python3-setools"),
)

# What the scripts of these packages would do: without compiled modules rpmlint and dnf take seconds to start.
_COMMANDS = (
    "python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3/dist-packages",
    "ldconfig -X",
    "rpmdb --initdb --dbpath /var/lib/rpm",
)

RPM_TOOLS = AddOn("rpmtools", _PACKAGES, _NOT_NEEDED, _COMMANDS)
