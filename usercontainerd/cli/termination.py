"""What SIGTERM does to a command that takes long."""

from __future__ import annotations


def catch_termination(what: str) -> None:
    """Let SIGTERM end what goes on as Ctrl-C does: the store is left whole. ``what`` is the error to be told."""
    import signal

    from usercontainerd.engine.cancellation import cancel_on

    cancel_on((signal.SIGTERM,), what, exit_status=128 + signal.SIGTERM)
