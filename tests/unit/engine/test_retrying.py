"""Pulls that are tried again."""

from __future__ import annotations

import time

import pytest

from usercontainerd.base.errors import NoSuchImage, RegistryError, UsercontainerError
from usercontainerd.engine.transfers.retrying import Retry


class Flaky:
    def __init__(self, *errors: UsercontainerError) -> None:
        self.errors = list(errors)
        self.waits: list[float] = []
        self.notices: list[str] = []

    def attempt(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "image"

    def run(self, retry: Retry, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(time, "sleep", self.waits.append)
        return retry.run(self.attempt, self.notices.append)


def test_it_succeeds_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(*[RegistryError("broken")] * 3)
    assert flaky.run(Retry(3), monkeypatch) == "image"
    assert flaky.waits == [1, 2, 4]
    assert flaky.notices[0] == "Trying again in 1 s: broken"


def test_the_last_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(*[RegistryError("broken")] * 3)
    with pytest.raises(RegistryError):
        flaky.run(Retry(2, 0.5), monkeypatch)
    assert flaky.waits == [0.5, 0.5]


def test_an_answer_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    flaky = Flaky(NoSuchImage("none"))
    with pytest.raises(NoSuchImage):
        flaky.run(Retry(5), monkeypatch)
    assert flaky.waits == []
