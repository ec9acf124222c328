"""Frozen dataclasses that cost next to nothing to define: the type checker, and whoever asks, sees the real ones.

``dataclasses`` imports ``inspect`` (7 ms with what that brings) and compiles functions for each class (0.5 ms): a third
of what a short command imports. Here all classes share functions that go by the names of the fields. What
``dataclasses`` itself offers, such as ``fields``, works on such classes, too: their fields are made when it asks for
them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass, field, replace
    from typing import Any

    __all__ = ("dataclass", "field", "replace")
else:

    def dataclass(*, frozen: bool) -> Callable[[type], type]:
        """What ``dataclasses.dataclass(frozen=True)`` is, of a class that inherits from none."""
        if not frozen:
            raise TypeError("only frozen ones: dataclasses.dataclass makes the others")
        return _complete

    def field(*, default_factory: Callable[[], Any]) -> _Factory:
        """What ``dataclasses.field`` is: a default that is made anew for each instance."""
        return _Factory(default_factory)

    def replace(record: Any, /, **changes: Any) -> Any:
        """What ``dataclasses.replace`` is: a record with other values in some fields."""
        return record.__class__(**{**_read_fields(record), **changes})


class _Factory:
    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _Fields:
    """``__dataclass_fields__``: made, by the real thing, for who asks."""

    def __get__(self, instance: object, owner: Any) -> dict[str, Any]:
        import dataclasses

        columns: list[tuple[str, Any, Any]] = []
        for name in owner.__match_args__:
            if name in owner._factories:
                value = dataclasses.field(default_factory=owner._factories[name])
            elif name in owner._defaults:
                value = dataclasses.field(default=owner._defaults[name])
            else:
                value = dataclasses.field()
            columns.append((name, owner.__annotations__[name], value))
        made: Any = dataclasses.make_dataclass(owner.__name__, columns, frozen=True)
        fields: dict[str, Any] = made.__dataclass_fields__
        return fields


def _complete(cls: Any) -> Any:
    if cls.__bases__ != (object,):
        raise TypeError(f"{cls.__name__} inherits: that is left to dataclasses.dataclass")
    own = dict(vars(cls))
    names = tuple(cls.__annotations__)
    cls._factories = {name: own[name].make for name in names if isinstance(own.get(name), _Factory)}
    cls._defaults = {name: own[name] for name in names if name in own and name not in cls._factories}
    for name in cls._factories:
        delattr(cls, name)
    setattr(cls, "__match_args__", names)  # noqa: B010  # an assignment mypy takes for one to its own class
    cls.__dataclass_fields__ = _Fields()
    for name, method in _METHODS.items():
        if name not in own:
            setattr(cls, name, method)
    return cls


class _Record:
    """The methods that all classes get."""

    def __init__(self: Any, /, *values: Any, **given: Any) -> None:
        cls = self.__class__
        names = cls.__match_args__
        state = {**cls._defaults, **dict(zip(names, values)), **given}  # noqa: B905  # too many are found below
        for name, make in cls._factories.items():
            if name not in state:
                state[name] = make()
        twice = [name for name in names[: len(values)] if name in given]
        if twice or len(values) > len(names) or state.keys() != set(names):
            missing = [name for name in names if name not in state]
            unknown = [name for name in given if name not in names]
            raise TypeError(
                f"{cls.__qualname__}(): {len(values)} of at most {len(names)} values by their place; "
                f"missing: {missing}, unknown: {unknown}, given twice: {twice}"
            )
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _read_fields(self) == _read_fields(other)

    def __hash__(self) -> int:
        return hash(tuple(_read_fields(self).values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in _read_fields(self).items())
        return f"{self.__class__.__qualname__}({fields})"

    def __setattr__(self, name: str, value: object) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {name: method for name, method in vars(_Record).items() if callable(method)}


def _read_fields(record: Any) -> dict[str, Any]:
    state = record.__dict__
    return {name: state[name] for name in record.__match_args__}
