"""The command, on a real systemd: containers made by `create`, from the cradle to the grave."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.containers import BUSYBOX, Container, run, wait_until

WEB = "localhost:5000/web:latest"
SLEEP = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")
DATA = Path("~/.local/share/usercontainerd").expanduser()
RUNTIME = Path(os.environ.get("XDG_RUNTIME_DIR", "/run/user/1000"))


def cli(*words: str, status: int | None = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command; its exit status has to be ``status``."""
    result = subprocess.run(
        ["usercontainer", *words], capture_output=True, text=True, check=False, timeout=120, input=stdin or ""
    )
    if status is not None and result.returncode != status:
        pytest.fail(f"usercontainer {' '.join(words)}: {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def out(*words: str) -> str:
    return cli(*words).stdout.strip()


@pytest.fixture(autouse=True, scope="module")
def busybox() -> None:
    cli("pull", "-q", BUSYBOX, WEB)


@pytest.fixture
def created(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Make containers: ``created("--init", command=…)`` returns the name; all are gone after the test."""
    names: list[str] = []
    stem = request.node.name.removeprefix("test_").replace("_", "-").split("[")[0][:40]

    def make(
        *options: str, image: str = BUSYBOX, command: tuple[str, ...] = SLEEP, network: str = "none"
    ) -> str:
        name = f"{stem}-{len(names)}-{os.urandom(2).hex()}"
        names.append(name)
        cli("create", "--name", name, "--network", network, *options, image, *command)
        return name

    yield make
    for name in names:
        cli("rm", "-f", name)


def field(name: str, template: str) -> str:
    return out("inspect", "--format", template, name)


def test_a_life(created: Callable[..., str]) -> None:
    name = created()
    assert (
        out("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}} {{.Status}}") == "created Created"
    )
    assert name not in out("ps")
    assert out("start", name) == name
    assert field(name, "{{.State.Status}}") == "running"
    pid = int(field(name, "{{.State.Pid}}"))
    assert run(
        "systemctl", "--user", "show", "--value", "-p", "MainPID", f"container@{name}"
    ).stdout.strip() == str(pid)
    assert re.search(rf"sh -c trap 'exit 0'.*Up .*{name}", out("ps"))
    assert out("start", name) == name  # no error, no second one
    assert int(field(name, "{{.State.Pid}}")) == pid
    out("restart", name)
    assert int(field(name, "{{.State.Pid}}")) != pid
    out("stop", name)
    assert re.match(
        r"exited Exited \(0\) ", out("ps", "-a", "-f", f"name={name}", "--format", "{{.State}} {{.Status}}")
    )
    assert out("stop", name) == name
    assert out("rm", name) == name
    assert "no such container" in cli("start", name, status=125).stderr
    assert name not in out("ps", "-a")
    assert not list(DATA.rglob(f"*{name}*")) and not list(RUNTIME.glob(f"*/**/*{name}*"))


def test_ids_are_names_too(created: Callable[..., str]) -> None:
    name = created()
    identity = field(name, "{{.Id}}")
    assert re.fullmatch("[0-9a-f]{64}", identity)
    assert out("start", identity) == identity
    assert identity[:12] in out("ps", "-q").split()
    assert out("ps", "-q", "--no-trunc", "-f", f"name={name}") == identity
    assert out("exec", identity[:12], "hostname") == name
    out("rm", "-f", identity[:10])


def test_create_prints_the_id_and_makes_up_a_name(tmp_path: Path) -> None:
    file = tmp_path / "id"
    identity = out("create", "--cidfile", str(file), BUSYBOX)
    assert file.read_text() == identity
    assert "exists already" in cli("create", "--cidfile", str(file), BUSYBOX, status=125).stderr
    assert re.fullmatch("[a-z]+_[a-z]+", field(identity, "{{.Name}}"))
    out("rm", identity)


def test_a_name_is_taken_once(created: Callable[..., str]) -> None:
    name = created()
    assert "is taken" in cli("create", "--name", name, BUSYBOX, status=125).stderr


def test_it_has_no_failure_of_one_that_had_its_name(container: Callable[..., Container]) -> None:
    one = container('image = "localhost:5000/no/such:image"\nnetwork = "none"\n')
    assert one.start(check=False).returncode != 0 and one.show("ActiveState") == "failed"
    one.path.unlink()
    run("systemctl", "--user", "daemon-reload")
    cli("create", "--name", one.name, "--network", "none", BUSYBOX, *SLEEP)
    try:
        assert one.show("ActiveState") == "inactive"
        assert "Created" in out("ps", "-a", "--filter", f"name={one.name}")
    finally:
        cli("rm", one.name)


@pytest.mark.parametrize("option", [("--runtime",), ()])
def test_a_masked_unit_is_not_written_over(option: tuple[str, ...]) -> None:
    name = f"masked-{os.urandom(3).hex()}"
    unit = f"container@{name}.service"
    run("systemctl", "--user", "mask", *option, unit)
    try:
        for verb in ("create", "run"):
            result = cli(verb, "--name", name, "--network", "none", BUSYBOX, "true", status=125)
            assert f"systemctl --user unmask {''.join(f'{o} ' for o in option)}{unit}" in result.stderr
        assert out("ps", "-aq", "--filter", f"name={name}") == ""
    finally:
        run("systemctl", "--user", "unmask", *option, unit)
    cli("run", "--rm", "--name", name, "--network", "none", BUSYBOX, "true")


def test_what_it_writes_stays_until_it_is_removed(created: Callable[..., str]) -> None:
    name = created()
    out("start", name)
    out("exec", "-u", "www", name, "sh", "-c", "echo kept > /tmp/file; mkdir -m 000 /tmp/closed")
    out("restart", name)
    assert out("exec", name, "cat", "/tmp/file") == "kept"
    assert out("exec", name, "stat", "-c", "%U", "/tmp/file") == "www"
    out("rm", "-f", name)
    assert not list((DATA / "trash").iterdir())
    cli("create", "--name", name, "--network", "none", BUSYBOX, *SLEEP)
    out("start", name)
    cli("exec", name, "test", "-e", "/tmp/file", status=1)


def test_definition_and_unit(created: Callable[..., str]) -> None:
    name = created("-e", "A=%h $HOME", "--restart", "always", "-m", "64m")
    file = DATA / "created" / f"{name}.toml"
    text = file.read_text()
    assert re.search(r'image = "localhost:5000/busybox:latest@sha256:[0-9a-f]{64}"', text)
    assert 'writable_layer = "keep"' in text
    assert file.stat().st_mode & 0o777 == 0o600
    run("systemctl", "--user", "start", f"container@{name}")  # no daemon-reload
    assert out("exec", name, "sh", "-c", "echo $A") == "%h $HOME"
    interim = RUNTIME / "systemd/user" / f"container@{name}.service"
    assert interim.exists()
    run("systemctl", "--user", "daemon-reload")
    assert not interim.exists()
    shown = run("systemctl", "--user", "cat", f"container@{name}").stdout
    assert "generator/container@" in shown and "MemoryMax=64M" in shown and "Restart=always" in shown
    wants = run("systemctl", "--user", "show", "--value", "-p", "Wants", "default.target").stdout
    assert f"container@{name}.service" in wants
    assert field(name, "{{.State.Status}}") == "running"
    out("rm", "-f", name)
    wants = run("systemctl", "--user", "show", "--value", "-p", "Wants", "default.target").stdout
    assert f"container@{name}.service" not in wants


def test_a_container_stays_on_its_image(created: Callable[..., str]) -> None:
    name = created(image="localhost:5000/multi:latest")
    before = field(name, "{{.Image}}")
    # The name comes to mean another image.
    names = DATA / "names"
    (record,) = [file for file in names.iterdir() if "multi:latest" in file.name]
    text = record.read_text()
    changed = json.loads(text)
    changed["image"] = "sha256:" + out("images", "-q", "--no-trunc", "localhost:5000/web").removeprefix(
        "sha256:"
    )
    changed["digests"] = []
    try:
        record.write_text(json.dumps(changed))
        assert field(name, "{{.Image}}") == before
        out("start", name)
        assert out("exec", name, "ls", "/bin/busybox") == "/bin/busybox"
    finally:
        record.write_text(text)


def test_options_reach_the_container(created: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    name = created(
        *(
            "-e",
            "A=x y",
            "-v",
            f"{tmp_path}:/host:ro",
            "--tmpfs",
            "/scratch:size=1M,mode=0700",
            "-w",
            "/host",
        ),
        *(
            "--hostname",
            "hosty",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "-l",
            "team=blue",
        ),
        *("--stop-signal", "USR1", "--annotation", "a=b"),
        command=("sh", "-c", "trap 'exit 5' USR1; sleep 1000 & wait"),
    )
    out("start", name)
    script = (
        "echo $A; pwd; hostname; cat file; grep -E 'CapEff|NoNew' /proc/self/status; df /scratch | tail -1"
    )
    words = out("exec", name, "sh", "-c", script)
    assert words.startswith("x y\n/host\nhosty\nfrom the host")
    assert "CapEff:\t0000000000000000" in words and "NoNewPrivs:\t1" in words and "1024" in words
    assert name in out("ps", "-f", "label=team=blue", "--format", "{{.Names}}")
    out("stop", name)
    assert field(name, "{{.State.ExitCode}}") == "5"


def test_published_ports(created: Callable[..., str]) -> None:
    name = created("-P", image=WEB, command=(), network="pasta")
    out("start", name)
    (binding,) = json.loads(field(name, "{{json .NetworkSettings.Ports}}"))["8080/tcp"]
    assert f"->{8080}/tcp" in out("ps", "-f", f"name={name}", "--format", "{{.Ports}}")
    page = run(
        "curl", "-s", "--retry", "5", "--retry-connrefused", f"http://127.0.0.1:{binding['HostPort']}/"
    )
    assert page.stdout.startswith("It works")


def test_a_running_container_is_not_removed_without_force(created: Callable[..., str]) -> None:
    name = created()
    out("start", name)
    assert "the container runs" in cli("rm", name, status=125).stderr
    assert field(name, "{{.State.Status}}") == "running"
    out("rm", "--force", name)
    assert "no such container" in cli("rm", name, status=125).stderr
    assert cli("rm", "-f", name).stdout == ""


def test_a_written_definition_is_never_removed(container: Callable[..., Container]) -> None:
    one = container(
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nwritable_layer = "keep"\n'
    )
    assert str(one.path) in cli("rm", "-f", one.name, status=125).stderr
    one.start()
    out("exec", "-u", "www", one.name, "touch", "/tmp/x")
    one.path.unlink()
    assert one.path.parent.exists()
    out("rm", "-f", one.name)
    assert not (DATA / "containers" / one.name).exists()


def test_stop_with_a_time(created: Callable[..., str]) -> None:
    name = created(
        "--stop-timeout", "80", command=("sleep", "1000")
    )  # process 1 without a handler ignores SIGTERM
    out("start", name)
    before = time.monotonic()
    out("stop", "-t", "1", name)
    assert 0.9 < time.monotonic() - before < 60
    assert field(name, "{{.State.ExitCode}}") == "137"


def test_a_failed_start_is_explained(container: Callable[..., Container]) -> None:
    missing = container('image = "localhost:5000/no-such-image"\n')
    assert "localhost:5000/no-such-image" in cli("start", missing.name, status=125).stderr
    assert out("ps", "-a", "-f", f"name={missing.name}", "--format", "{{.State}}") == "failed"
    wrong = container(f'image = "{BUSYBOX}"\ncomand = "x"\n')
    assert (
        f'{wrong.path}:2: error: comand: unknown key (did you mean "command"?)'
        in cli("start", wrong.name, status=125).stderr
    )
    assert out("ps", "-a", "-f", f"name={wrong.name}", "--format", "{{.State}}") == "invalid"
    absent = container(f'image = "{BUSYBOX}"\ncommand = ["/no/such/program"]\nnetwork = "none"\n')
    assert "/no/such/program" in cli("start", absent.name, status=125).stderr


def test_a_changed_definition_is_used_at_the_next_start(container: Callable[..., Container]) -> None:
    text = (
        f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\nenvironment = {{ A = "1" }}\n'
    )
    one = container(text)
    out("start", one.name)
    one.path.write_text(text.replace('"1"', '"2"') + "stop_timeout = 3\n")
    assert out("exec", one.name, "sh", "-c", "echo $A") == "1"
    out("stop", "-t", "0", one.name)
    out("start", one.name)
    assert out("exec", one.name, "sh", "-c", "echo $A") == "2"
    assert one.show("TimeoutStopUSec") == "3s"


def test_a_definition_that_systemd_has_not_seen() -> None:
    one = Container(f"unseen-{os.urandom(2).hex()}")
    one.path.parent.mkdir(parents=True, exist_ok=True)
    one.path.write_text(f'image = "{BUSYBOX}"\ncommand = ["sleep", "1000"]\nnetwork = "none"\n')
    try:
        assert out("ps", "-a", "-f", f"name={one.name}", "--format", "{{.State}}") == "created"
        out("start", one.name)
        assert out("exec", one.name, "hostname") == one.name
    finally:
        one.remove()


def test_images() -> None:
    lines = out("images").splitlines()
    assert re.match(r"REPOSITORY +TAG +IMAGE ID +CREATED +SIZE", lines[0])
    assert any(re.match(r"localhost:5000/busybox +latest +[0-9a-f]{12} ", line) for line in lines)
    identity = out("images", "-q", "--no-trunc", BUSYBOX)
    assert out("pull", "-q", BUSYBOX) == identity.removeprefix("sha256:")
    (image,) = json.loads(out("inspect", "--type", "image", identity[7:19]))
    assert (
        image["Id"] == identity.removeprefix("sha256:")
        and "localhost:5000/busybox:latest" in image["RepoTags"]
    )
    assert "unknown" in cli("pull", "-q", "localhost:5000/no-such", status=125).stderr


def test_removal_in_a_written_definition_is_told(container: Callable[..., Container]) -> None:
    one = container(f'image = "{BUSYBOX}"\nremove = true\nnetwork = "none"\ncommand = ["true"]\n')
    result = cli("verify", str(one.path))
    assert f"{one.path}:2: warning: remove: has no effect here" in result.stdout + result.stderr
    one.start()
    wait_until(lambda: one.has_ended, "it has ended")
    assert one.path.exists() and one.name in out("ps", "-a")


def test_verify(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('image = "busybox"\n')
    bad.write_text('image = "busybox"\n\nport = ["80"]\nmemory = "x"\n')
    assert "1 definition verified" in cli("verify", str(good)).stderr
    lines = cli("verify", str(good), str(bad), status=1).stdout.splitlines()
    assert lines[0].startswith(f'{bad}:3: error: port: unknown key (did you mean "ports"?)')
    assert lines[1].startswith(f"{bad}:4: error: memory: ")
    shown = json.loads(cli("verify", "--json", str(bad), status=1).stdout)
    assert [each["line"] for each in shown] == [3, 4]


def test_doctor() -> None:
    findings = {each["name"]: each["verdict"] for each in json.loads(cli("doctor", "--json").stdout)}
    assert "missing" not in findings.values()
    for name in (
        "user namespaces",
        "overlay",
        "subuid",
        "newuidmap",
        "systemd --user",
        "generator",
        "crun",
        "pasta",
    ):
        assert findings[name] == "fine", name
    assert {"cgroup cpu", "cgroup io", "cgroup memory", "cgroup pids", "linger", "seccomp"} <= findings.keys()
    assert not list(DATA.glob(".usercontainer-trial*"))


def test_doctor_without_a_session(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "none")}
    result = subprocess.run(
        ["usercontainer", "doctor"], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert result.returncode == 1
    assert re.search(r"missing +runtime directory", result.stdout)
    assert re.search(r"missing +systemd --user", result.stdout)


@pytest.mark.parametrize(
    ("verb", "what"), [("save", "saving was stopped"), ("export", "the export was stopped")]
)
def test_what_is_ended_is_told_by_its_name(created: Callable[..., str], verb: str, what: str) -> None:
    words = [verb, BUSYBOX if verb == "save" else created()]
    with subprocess.Popen(
        ["usercontainer", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert select.select([process.stdout], [], [], 60)[0], "it writes, more than a pipe holds"
        process.terminate()
        assert what in process.stderr.read()
        assert process.wait(timeout=60) == 143


def test_ps_of_many_formats(created: Callable[..., str]) -> None:
    name = created()
    out("start", name)
    (shown,) = json.loads(out("ps", "--format", "json", "-f", f"name={name}"))
    assert shown["Names"] == name and shown["State"] == "running"
    assert json.loads(out("ps", "-f", f"name={name}", "--format", "{{json .}}"))["Image"] == BUSYBOX
    assert out("ps", "-f", f"name={name}", "--format", r"table {{.Names}}\t{{.State}}").split() == [
        *("NAMES", "STATE", name, "running"),
    ]
    assert out("container", "ls", "-q", "-f", f"name={name}") == out("ps", "-q", "-f", f"name={name}")


def test_nothing_is_left_running(created: Callable[..., str]) -> None:
    name = created()
    out("start", name)
    out("exec", name, "true")
    one = Container(name)
    # Its two, and the copier of its output, since it is a shell.
    wait_until(lambda: len(_processes(one)) == 3, "only the container's own processes are left")


def _processes(one: Container) -> list[str]:
    return [pid for file in one.cgroup.rglob("cgroup.procs") for pid in file.read_text().split()]
