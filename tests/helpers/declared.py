"""Declarations of a user's own, which no library has: an activation, a loss and an update rule."""

from __future__ import annotations

import bpcore as bp

__all__ = ["BUMP", "LOG_COSH", "WARM"]

BUMP = bp.Activation("bump", "z * exp(-0.5 * z*z) + 0.1 * z")
LOG_COSH = bp.Loss("log_cosh", "softplus(2*(a - y)) - (a - y) - log(2)", reduce="mean")
WARM = bp.UpdateRule(
    "warm",
    "v = mu*v + ramp*g; theta = theta - eta*v / (1 + abs(v))",
    state=("v",),
    hyper={"mu": 0.8},
    scalars="seen = seen + eta; ramp = where(t < 3, t / 3, 1) * min(seen, 1)",
    running={"seen": 0.5},
)
