"""What definition and image together say about health."""

from __future__ import annotations

import pytest

from usercontainerd.definition.health import HealthPlan
from usercontainerd.definition.model import Definition, Health, HealthAction
from usercontainerd.definition.specifiers import Owner
from usercontainerd.definition.toml_reader import SourceText, parse_definition
from usercontainerd.definition.toml_writer import render_definition
from usercontainerd.engine.containers.health_plans import find_health_plan
from usercontainerd.oci.image import Healthcheck, ImageConfiguration
from usercontainerd.oci.platform import Platform


def find(own: Health, check: Healthcheck | None, shell: tuple[str, ...] = ()) -> HealthPlan | None:
    image = ImageConfiguration(Platform("linux", "amd64"), (), healthcheck=check, shell=shell)
    return find_health_plan(Definition("web", "nginx", health=own), image)


SHELL_CHECK = Healthcheck(("CMD-SHELL", "curl localhost"), interval=5.0, retries=9)


def test_the_image() -> None:
    assert find(Health(), SHELL_CHECK) == HealthPlan(
        ("/bin/sh", "-c", "curl localhost"), interval=5.0, retries=9
    )
    plan = find(Health(), SHELL_CHECK, ("/bin/bash", "-c"))
    assert plan is not None
    assert plan.command == ("/bin/bash", "-c", "curl localhost")


def test_the_definition_changes_settings_of_the_image_s() -> None:
    plan = find(Health(retries=2, on_failure=HealthAction.STOP), SHELL_CHECK)
    assert plan is not None
    assert (plan.retries, plan.interval, plan.on_failure) == (2, 5.0, HealthAction.STOP)


def test_a_command_of_its_own_takes_nothing_from_the_image() -> None:
    assert find(Health(command=("CMD", "true")), SHELL_CHECK) == HealthPlan(("true",))


@pytest.mark.parametrize(
    "check",
    [
        None,
        Healthcheck(("NONE",)),
        Healthcheck(()),
        Healthcheck(("CMD",)),
        Healthcheck(("CMD-SHELL",)),
        Healthcheck(("CMD-SHELL", " ")),
        Healthcheck(("CMD", "a\0b")),
        Healthcheck(("CMD", "a" * 200_000)),
        Healthcheck(("SOMETHING", "else")),
    ],
)
def test_no_check(check: Healthcheck | None) -> None:
    assert find(Health(), check) is None
    assert find(Health(command=("NONE",)), SHELL_CHECK) is None


def test_what_an_image_asks_for_is_kept_within_reason() -> None:
    wild = Healthcheck(("CMD", "true"), interval=1e-9, timeout=-5.0, start_period=1e30, retries=-3)
    plan = find(Health(), wild)
    assert plan is not None
    assert plan.interval == 1.0
    assert (plan.timeout, plan.retries) == (30.0, 3)
    assert plan.start_period < 1e9


@pytest.mark.parametrize(
    "health",
    [
        Health(command=("CMD", "a b", "%i", "")),
        Health(command=("CMD-SHELL", 'test "$x" = 5%')),
        Health(command=("NONE",)),
        Health(interval=0.0, timeout=1.5, retries=4, start_period=60.0, on_failure=HealthAction.KILL),
    ],
)
def test_it_can_be_written_and_read(health: Health) -> None:
    definition = Definition("web", "nginx", health=health)
    owner = Owner(home="/h", runtime_root="/r", user_name="ann", uid=1)
    read, problems = parse_definition("web", [SourceText("/web.toml", render_definition(definition))], owner)
    assert problems == ()
    assert read is not None
    assert read.health == health
