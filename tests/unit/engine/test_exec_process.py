"""What `exec` changes of init's own description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from usercontainerd.base.errors import InvalidArgument, RuntimeFailure
from usercontainerd.base.paths import Paths
from usercontainerd.engine.containers.exec_process import plan_exec_capabilities, plan_process
from usercontainerd.engine.containers.execution import ExecRequest, describe_process
from usercontainerd.engine.containers.lookup import Init
from usercontainerd.runtime.capabilities import DEFAULT_CAPABILITIES
from usercontainerd.runtime.failure import explain_crun_failure

PASSWD = "root:x:0:0::/root:/bin/sh\nwww:x:33:33::/srv:/bin/sh\n"
GROUP = "root:x:0:\nwww:x:33:\nextra:x:44:www\n"
PROCESS: dict[str, Any] = {
    "user": {"uid": 0, "gid": 0, "additionalGids": [5], "umask": 18},
    "env": ["PATH=/bin", "HOME=/root", "A=1"],
    "cwd": "/",
    "capabilities": {"bounding": [*DEFAULT_CAPABILITIES, "CAP_SYS_TIME"], "effective": ["CAP_CHOWN"]},
    "noNewPrivileges": True,
}
INIT = Init(1, -1, "/x", "/")


def plan(*command: str, **options: Any) -> dict[str, Any]:
    return plan_process(PROCESS, ExecRequest(command or ("true",), **options), (PASSWD, GROUP), "web")


def test_only_the_command_differs() -> None:
    planned = plan("sh", "-c", "x")
    assert planned == {**PROCESS, "args": ["sh", "-c", "x"], "terminal": False, "env": PROCESS["env"]}


def test_environment_directory_terminal() -> None:
    planned = plan(environment=(("A", "2"), ("B", "x=y")), directory="/tmp", terminal=True)
    assert planned["env"] == ["PATH=/bin", "HOME=/root", "A=2", "TERM=xterm", "B=x=y"]
    assert planned["cwd"] == "/tmp" and planned["terminal"] is True
    assert plan(terminal=True, environment=(("TERM", "vt100"),))["env"][-1] == "TERM=vt100"


def test_another_user() -> None:
    planned = plan(user="www")
    user = planned["user"]
    assert (user["uid"], user["gid"], user["umask"]) == (33, 33, 18)
    assert 44 in user["additionalGids"] and 5 not in user["additionalGids"]
    assert "HOME=/srv" in planned["env"]
    assert planned["capabilities"]["effective"] == ["CAP_SYS_TIME"]
    assert planned["capabilities"]["bounding"] == PROCESS["capabilities"]["bounding"]
    assert planned["noNewPrivileges"] is True
    assert plan(user="www:extra")["user"]["gid"] == 44
    assert (plan(user="1234")["user"]["uid"], plan(user="1234")["user"]["gid"]) == (1234, 0)
    with pytest.raises(InvalidArgument):
        plan(user="nobody")


def test_a_home_that_was_set_on_purpose_stays() -> None:
    process = {**PROCESS, "env": ["HOME=/elsewhere"]}
    planned = plan_process(process, ExecRequest(("x",), user="www"), (PASSWD, GROUP), "web")
    assert planned["env"] == ["HOME=/elsewhere"]


def test_capabilities_of_root_and_others() -> None:
    assert plan_exec_capabilities({"bounding": ["CAP_CHOWN"]}, 0)["effective"] == ["CAP_CHOWN"]
    assert plan_exec_capabilities({"bounding": ["CAP_CHOWN"]}, 5)["effective"] == []
    assert plan_exec_capabilities({}, 0)["permitted"] == []
    assert plan_exec_capabilities({"bounding": ["CAP_SYS_TIME"]}, 5)["ambient"] == ["CAP_SYS_TIME"]
    assert plan_exec_capabilities({"bounding": ["CAP_SYS_TIME"]}, 0)["inheritable"] == []


@pytest.mark.parametrize("word", ['a "quoted"\n\\ word', "\udcff", "ünïcode", "", "\x01"])
def test_the_short_way_means_the_same(tmp_path: Path, word: str) -> None:
    paths = Paths.from_environment({"XDG_RUNTIME_DIR": str(tmp_path)}, 1000)
    bundle = Path(paths.bundle("web"))
    bundle.mkdir(parents=True)
    (bundle / "process.json").write_text(json.dumps(PROCESS))
    text = describe_process(paths, "web", INIT, ExecRequest(("sh", word)))
    assert json.loads(text) == plan("sh", word)


def test_without_a_description(tmp_path: Path) -> None:
    paths = Paths.from_environment({"XDG_RUNTIME_DIR": str(tmp_path)}, 1000)
    with pytest.raises(RuntimeFailure, match="cannot read how the container was started"):
        describe_process(paths, "web", INIT, ExecRequest(("sh",)))


@pytest.mark.parametrize(
    ("log", "status"),
    [
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ("the path `/etc/passwd` exists but it is not executable: Operation not permitted", 126),
        ("open executable: Permission denied", 126),
        ("open executable: Operation not permitted", 126),
        ("something else", 125),
        ("", 125),
    ],
)
def test_what_crun_says(log: str, status: int) -> None:
    assert explain_crun_failure(log, "web").exit_status == status
