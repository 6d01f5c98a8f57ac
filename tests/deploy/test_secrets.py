"""What `make secrets` writes, and what it refuses."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import secrets
from tests.conftest import Ended, is_refusal

Call = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    secrets.make(tmp_path)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def refusal(call: Call, folder: Path) -> str:
    """What is said of the secrets in a folder."""
    umask = os.umask(0)
    ended = call(secrets, str(folder))
    os.umask(umask)
    assert is_refusal(ended), ended.err
    return ended.err


def test_what_is_there_stays_and_containers_can_read_it(folder: Path) -> None:
    kept = {path: path.read_text() for path in folder.iterdir()}
    write(folder / "reader_password", "Team-Exchange-2026")
    (folder / "reader_password").chmod(0o600)
    secrets.make(folder)
    assert {path: path.read_text() for path in folder.iterdir()} == {
        **kept,
        folder / "reader_password": "Team-Exchange-2026",
    }
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("value", ["", "short", "Change-me-123", "my secret password", "123456789012"])
def test_what_anybody_could_guess_is_refused(folder: Path, call: Call, value: str) -> None:
    write(folder / "trainer_password", value)
    assert "fix: delete that file, then: make secrets\n" in refusal(call, folder)


@pytest.mark.parametrize("name", ["admin_password", "root_password"])
def test_nobody_is_told_to_delete_what_a_volume_keeps(folder: Path, call: Call, name: str) -> None:
    write(folder / name, "")
    assert "fix: before the first start delete that file" in refusal(call, folder)


@pytest.mark.parametrize("character", ["'", '"', "\\", "#", " ", ";", "é"])
def test_a_databases_password_that_mysql_could_misread_is_refused(folder: Path, call: Call, character: str) -> None:
    text = (folder / secrets.RUNTIME).read_text()
    write(folder / secrets.RUNTIME, re.sub("password=.{9}", f"password=a{character}b", text, count=1))
    assert f"the secret {secrets.RUNTIME} [tracking] in {folder} has other characters" in refusal(call, folder)
    write(folder / secrets.RUNTIME, text)
    write(folder / "root_password", f"an{character}uncommon-one")
    assert "the secret root_password" in refusal(call, folder)
