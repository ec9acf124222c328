"""What tests of pulling need: alice with a store of her own, and a registry that a test commands."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakeregistry import FakeRegistry, build_tar, file, member
from usercontainerd.base.paths import Paths
from usercontainerd.base.programs import find_programs
from usercontainerd.engine.context import Context, build_context
from usercontainerd.engine.images.local import empty_trash, open_images
from usercontainerd.engine.transfers.obtaining import pull_image
from usercontainerd.store.layout import Store

DIR, SYM, LNK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


SMALL = build_tar(member("bin", DIR), file("bin/sh", b"#!", mode=0o755))


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        yield fake


@pytest.fixture
def context(registry: FakeRegistry, tmp_path: Path) -> Iterator[Context]:
    """Alice with a store of her own in a temporary directory; the fake registry may be asked without TLS."""
    config = tmp_path / "config"
    (config / "containers").mkdir(parents=True)
    (config / "containers" / "registries.conf").write_text(
        f'unqualified-search-registries = ["{registry.host}"]\n'
        f'[[registry]]\nlocation = "{registry.host}"\ninsecure = true\n'
        '[[registry]]\nlocation = "localhost:5000"\ninsecure = true\n'
    )
    environment = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(config),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
    }
    yield build_context(environment, find_programs(), os.getuid(), os.getgid())
    made = Store(Paths.from_environment(environment, os.getuid()))
    if os.path.isdir(made.root):
        # What belongs to subordinate IDs pytest could not delete.
        os.rename(made.layers, f"{made.trash}/layers")
        empty_trash(build_context(environment, find_programs(), os.getuid(), os.getgid()))
        assert os.listdir(made.trash) == []


def store_of(context: Context) -> Store:
    return Store(context.paths)


def snapshot(context: Context) -> list[str]:
    """Every file of the store but for its format, locks, and what the next pull goes on with."""
    root = context.paths.data
    return sorted(
        os.path.join(directory, name)
        for directory, _, names in os.walk(root)
        for name in names
        if not directory.endswith(("/locks", "/partial")) and (directory, name) != (root, "format")
    )


def wait_for_children(seconds: float = 60) -> None:
    """No worker may be left, and no zombie."""
    end = time.monotonic() + seconds
    with pytest.raises(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                pytest.fail(f"a child is still there after {seconds} s")
            time.sleep(0.01)


def pull(context: Context, registry: FakeRegistry, name: str = "app:latest") -> Path:
    """Pull an image of one layer; return the directory of that layer."""
    record = pull_image(context, f"{registry.host}/{name}")
    return Path(open_images(context).layer_directories(record)[-1])


def in_namespace(context: Context, *command: str) -> str:
    """Run a command as root of the user namespace."""
    from usercontainerd.kernel.idmap import read_id_map

    id_map = read_id_map(context.uid, context.gid, context.user)
    script = (
        "import os, sys\n"
        "from usercontainerd.kernel.idmap import parse_id_map\n"
        "from usercontainerd.kernel.userns import enter_user_namespace\n"
        "enter_user_namespace(parse_id_map(sys.argv[1]))\n"
        "os.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, id_map.render(), *command], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


DRIVER = (
    "import os, sys, signal\n"
    "from usercontainerd.base.programs import find_programs\n"
    "from usercontainerd.engine.context import build_context\n"
    "from usercontainerd.engine.transfers.obtaining import pull_image\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
    "context = build_context(dict(os.environ), find_programs(), os.getuid(), os.getgid())\n"
    "def progress(phase, item, done, total):\n"
    "    print(phase, item, done, total, flush=True)\n"
    "pull_image(context, sys.argv[1], progress=progress)\n"
)


def start_pull(context: Context, name: str, *, start_new_session: bool = False) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, name],
        env={**dict(context.environment), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=start_new_session,
    )
