"""What all tests share."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadlines, no complaints about slow generation: machines are loaded. No database: the checkout may be read-only.
settings.register_profile(
    "usercontainerd", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("usercontainerd")
