"""Asking a registry whether a login is good: GET /v2/, its challenge answered without a word of any repository."""

from __future__ import annotations

from usercontainerd.base.errors import RegistryError
from usercontainerd.registry.authentication import parse_challenges
from usercontainerd.registry.origins import may_send_password

TYPE_CHECKING = False
if TYPE_CHECKING:
    from usercontainerd.registry.session import Session


def check_login(session: Session) -> None:
    """Raise ``PullDenied`` if the registry does not take the session's credentials, ``RegistryError`` for trouble.

    A registry that wants none takes all, as with Podman.
    """
    base = session.find_base()
    response = session.follow("GET", f"{base}/v2/", {}, None)
    challenges = parse_challenges(response.header("WWW-Authenticate"))
    response.close()
    for challenge in challenges:
        realm = challenge.parameters.get("realm", "")
        # Without the password it would give a token to anybody, which proves nothing.
        if challenge.scheme == "bearer" and realm and not may_send_password(realm, base):
            raise RegistryError(
                f"the registry has its tokens from {realm[:200]!r}, and a password is not sent to another domain",
                where=base,
            )
    session.expect(session.request("GET", f"{base}/v2/", scope=()), (200,))
