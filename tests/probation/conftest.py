"""Version 2 has just replaced version 1 on a live server, and is on probation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import monitor
from tests.conftest import Ended
from understudy.probation import watch
from understudy.schema.declaration import Limits, Live, Probation
from understudy.table import TABLE

Watches = Callable[..., Ended]


@pytest.fixture
def watches(call: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> Watches:
    """Watch the version on probation by a probation of these settings, without pauses."""
    monkeypatch.setattr(watch, "EVERY", 0.2)

    def watches(server: str, *options: str, **settings: Any) -> Ended:
        limits = Limits(probation=Probation(**settings))
        monkeypatch.setattr(monitor, "TABLE", replace(TABLE, limits=limits, live=Live()))
        return call(monitor, "--probation", server, *options)

    return watches
