from __future__ import annotations

from dataclasses import replace

import pytest

from usercontainerd.base.errors import InvalidDefinition
from usercontainerd.base.programs import Programs
from usercontainerd.definition.model import Definition, Mount, MountType, Output, Resources, Restart
from usercontainerd.systemd.unit import (
    build_failed_unit,
    build_image_drop_in,
    build_unit,
    check_install,
    plan_links,
    render_quota,
    render_seconds,
    render_size,
)

PROGRAMS = Programs("/usr/libexec/usercontainerd")
PLAIN = Definition(
    name="app", image="nginx", sources=("/home/alice/.config/usercontainerd/containers/app.toml",)
)


def build(**changes: object) -> str:
    return build_unit(replace(PLAIN, **changes), PROGRAMS)  # type: ignore[arg-type]


def read_section(text: str, section: str) -> list[str]:
    body = text.partition(f"[{section}]\n")[2]
    return body.partition("\n\n")[0].splitlines()


def test_plain() -> None:
    assert (
        build()
        == """\
# Generated from /home/alice/.config/usercontainerd/containers/app.toml
# by usercontainerd-generator. Do not edit this: edit that file, then run
# systemctl --user daemon-reload.

[Unit]
Description=Container app (nginx)
Documentation=man:container-definition(5)
SourcePath=/home/alice/.config/usercontainerd/containers/app.toml

[Service]
Type=notify
NotifyAccess=all
ExecStart=/usr/libexec/usercontainerd/launch app
ExecStopPost=-/usr/libexec/usercontainerd/cleanup app
KillMode=process
TimeoutStopSec=10
SuccessExitStatus=143
SyslogIdentifier=app
Slice=container.slice
Delegate=yes
DelegateSubgroup=container
OOMPolicy=stop
TasksMax=2048
"""
    )


def test_resources() -> None:
    resources = Resources(32 << 20, 28 << 20, 0, 0.5, 200, 20, 50)
    assert read_section(build(resources=resources), "Service")[-7:] == [
        "MemoryHigh=28M",
        "MemoryMax=32M",
        "MemorySwapMax=0",
        "CPUQuota=50%",
        "CPUWeight=200",
        "TasksMax=20",
        "IOWeight=50",
    ]


def test_no_word_on_swap_means_as_much_as_memory() -> None:
    assert "MemorySwapMax=1G" in build(resources=Resources(memory=1 << 30))
    assert "MemorySwapMax=infinity" in build(resources=Resources(memory=1 << 30, swap=-1))


@pytest.mark.parametrize(
    ("signal", "lines"),
    [
        ("SIGTERM", ["SuccessExitStatus=143"]),
        ("SIGINT", ["KillSignal=SIGINT", "SuccessExitStatus=130"]),
        ("SIGQUIT", ["KillSignal=SIGQUIT", "SuccessExitStatus=131 SIGQUIT"]),
        ("SIGRTMIN+3", ["KillSignal=SIGRTMIN+3", "SuccessExitStatus=SIGRTMIN+3"]),
    ],
)
def test_stop_signal(signal: str, lines: list[str]) -> None:
    text = build(stop_signal=signal)
    assert [line for line in text.splitlines() if line.startswith(("KillSignal", "Success"))] == lines
    assert read_section(build_image_drop_in(PLAIN, signal), "Service") == (
        lines if signal != "SIGTERM" else []
    )


def test_the_definition_comes_before_the_image() -> None:
    assert build_image_drop_in(replace(PLAIN, stop_signal="SIGTERM"), "SIGQUIT") == ""
    assert build_image_drop_in(replace(PLAIN, stop_timeout=0), "SIGQUIT") == ""
    assert build_image_drop_in(PLAIN, None) == ""
    assert build_image_drop_in(PLAIN, "SIGQUIT").startswith("# What the image nginx asks for;")


def test_a_copier_outlives_the_main_process() -> None:
    for output, mode in ((Output.AUTO, "process"), (Output.PIPE, "process"), (Output.JOURNAL, "mixed")):
        assert f"KillMode={mode}" in read_section(build(output=output), "Service")


def test_no_patience() -> None:
    section = read_section(build(stop_timeout=0), "Service")
    assert {"KillSignal=SIGKILL", "TimeoutStopSec=10", "SuccessExitStatus=SIGKILL"} <= set(section)


def test_bind_mounts_are_waited_for() -> None:
    mounts = (
        Mount(MountType.BIND, "/data", "/srv/my data"),
        Mount(MountType.BIND, "/again", "/srv/my data"),
        Mount(MountType.BIND, "/odd", "/srv/a\nb"),
        Mount(MountType.BIND, "/host", "/"),
        Mount(MountType.VOLUME, "/v", "db"),
        Mount(MountType.TMPFS, "/t"),
    )
    assert [line for line in build(mounts=mounts).splitlines() if "Mounts" in line] == [
        'RequiresMountsFor="/srv/my data"'
    ]


def test_the_user_has_the_last_word() -> None:
    text = build(
        restart=Restart.ALWAYS,
        unit=(("Description", ("Mine, %H",)), ("After", ("a.service", "b.service"))),
        service=(("Restart", ("no",)), ("SuccessExitStatus", ("7",)), ("RestartSec", ("5s",))),
        install=(("WantedBy", ("default.target other.target",)),),
    )
    assert read_section(text, "Unit")[-3:] == ["Description=Mine, %H", "After=a.service", "After=b.service"]
    service = read_section(text, "Service")
    assert service[-3:] == ["Restart=no", "SuccessExitStatus=7", "RestartSec=5s"]
    assert "SuccessExitStatus=143" in service
    assert "Restart=always" not in service
    assert read_section(text, "Install") == ["WantedBy=default.target", "WantedBy=other.target"]


@pytest.mark.parametrize(
    ("section", "key", "value", "words"),
    [
        ("service", "Nice", "1\nExecStartPre=/bin/evil", "one line"),
        ("service", "Ni ce", "1", "name of a systemd directive"),
        ("unit", "After", "a.service\\", "backslash"),
        ("install", "WantedBy", "default", 'did you mean "default.target"'),
        ("install", "WantedBy", "../../x.target", "not the name of a unit"),
        ("install", "Alias", "app.service", "only PREFIX@app.service"),
        ("install", "Alias", "@app.service", "not the name of a unit"),
        ("install", "Alias", "web@other.service", "only PREFIX@app.service"),
    ],
)
def test_what_cannot_be_passed_through(section: str, key: str, value: str, words: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        build(**{section: ((key, (value,)),)})
    assert words in str(caught.value)
    assert key in str(caught.value)


def test_install_values_become_single_units() -> None:
    assert check_install("app", (("WantedBy", ("a.target b.target", "c.target")),)) == (
        ("WantedBy", ("a.target", "b.target", "c.target")),
    )


def test_nothing_of_ours_expands() -> None:
    text = build(description="100% $HOME\nExecStart=/bin/evil\\", sources=("/home/%h/50%.toml",))
    assert "Description=100%% $HOME ExecStart=/bin/evil\\.\n" in text
    assert "SourcePath=/home/%%h/50%%.toml\n" in text


def test_a_source_that_no_unit_can_name() -> None:
    text = build(sources=("/tmp/a\nb.toml",))
    assert "SourcePath" not in text
    assert text.startswith("# Generated from /tmp/a\\nb.toml\n")


def test_failed_unit() -> None:
    problems = ["/a.toml:3: error: memory: no size", "/a.toml:9: error: x"]
    text = build_failed_unit("app", problems, "/a.toml", PROGRAMS)
    assert "#   /a.toml:3: error: memory: no size\n#   /a.toml:9: error: x\n" in text
    assert "Description=Container app (broken definition)\n" in text
    assert "ExecStartPre=/usr/libexec/usercontainerd/renew-unit app\n" in text


def test_alias_of_a_template() -> None:
    assert check_install("web@", (("Alias", ("site@.service",)),))


def test_links() -> None:
    install = (
        ("WantedBy", ("default.target graphical-session.target", "default.target")),
        ("RequiredBy", ("container@db.service",)),
        ("UpheldBy", ("x.target",)),
        ("Alias", ("web@app.service",)),
        ("Also", ("other.service",)),
        ("DefaultInstance", ("blue",)),
    )
    assert plan_links(replace(PLAIN, install=install)) == (
        "default.target.wants/container@app.service",
        "graphical-session.target.wants/container@app.service",
        "container@db.service.requires/container@app.service",
        "x.target.upholds/container@app.service",
        "web@app.service",
    )


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1, "1"), (1536, "1536"), (1 << 40, "1T"), (-1, "infinity")]
)
def test_size(size: int, text: str) -> None:
    assert render_size(size) == text


@pytest.mark.parametrize(
    ("cpus", "text"), [(0.5, "50%"), (2, "200%"), (0.125, "12.5%"), (1e-9, "0.01%"), (1 / 3, "33.33%")]
)
def test_quota(cpus: float, text: str) -> None:
    assert render_quota(cpus) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(10.0, "10"), (0.25, "250ms"), (1e-6, "1ms"), (float("inf"), "infinity"), (-1, "infinity")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert render_seconds(seconds) == text
