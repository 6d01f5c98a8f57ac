"""Every command that is printed can be pasted, whatever the registered model is called, and is about that model."""

import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from mlflow import MlflowClient

import promote
import register
from deploy.mysql import free_port
from tests.conftest import Ended
from understudy.serving import __main__ as serve

Call = Callable[..., Ended]
NAME = "Loans 2; echo $HOME"
REASON = ("--reason", "a reason")
# A command of ours in what was printed: up to what stands between it and the next one.
COMMAND = re.compile(
    r"(?:python (?:promote|register)\.py|\./serve\.sh)(?:(?!, or | or |; python|\)$| follows| records).)*", re.MULTILINE
)


def commands(ended: Ended) -> Iterator[list[str]]:
    """The words of each command of ours that was printed, as a shell splits them."""
    for command in COMMAND.findall(ended.out + ended.err):
        yield shlex.split(command)


@pytest.fixture
def printed(batch_store: str, call: Call) -> Iterator[Callable[..., Ended]]:
    """Calls a script for the odd name; at the end there must have been commands, and each must be for that name."""
    seen: list[list[str]] = []

    def printed(script: ModuleType, *arguments: str) -> Ended:
        ended = call(script, "--name", NAME, *arguments)
        seen.extend(commands(ended))
        return ended

    yield printed
    assert seen
    for words in seen:
        assert words[words.index("--name") + 1] == NAME, words


def test_what_goes_well_names_the_model_in_the_next_command(printed: Callable[..., Ended], call: Call) -> None:
    for script, *arguments in [
        (register,),
        (promote, "staging"),
        (promote, "production"),
        (promote,),
        (promote, "check"),
    ]:
        ended = printed(script, *arguments)
        assert ended.code == 0
        assert ended.out.splitlines()[-1].startswith("next: ")
        [*_, words] = commands(ended)
        assert NAME in words


def test_what_is_not_there_names_the_model_in_the_fix(printed: Callable[..., Ended]) -> None:
    assert printed(promote, "staging").code == 2  # no registered model
    printed(register)
    for arguments in [("production",), ("rollback", *REASON), ("archive",), ("rollback",), ("staging", "--force")]:
        assert printed(promote, *arguments).code == 2
    assert printed(serve, "--port", str(free_port())).code == 2
    printed(promote, "production", "--version", "1", "--force", *REASON)
    for arguments in [("staging", "--version", "1"), ("archive", "--version", "1"), ("rollback", *REASON)]:
        assert printed(promote, *arguments).code == 2


def test_what_was_done_by_hand_names_the_model_in_the_fixes(printed: Callable[..., Ended], batch_store: str) -> None:
    client = MlflowClient(batch_store)
    for family in ("LogisticRegression", "RandomForestClassifier", "DecisionTreeClassifier"):
        printed(register, "--model", family)
    for version in ("1", "2"):
        printed(promote, "production", "--version", version, "--force", *REASON)
    client.set_registered_model_alias(NAME, "production", "3")  # without a record
    client.set_registered_model_alias(NAME, "Production", "1")
    assert len(printed(promote, "check").out.splitlines()) > 5
    assert "the records say" in printed(promote).out
    client.delete_registered_model_alias(NAME, "production")
    printed(promote, "check")
    record = client.search_runs([client.get_experiment_by_name(f"{NAME} promotions").experiment_id])[0]  # type: ignore[union-attr]
    client.delete_run(record.info.run_id)
    client.delete_model_version(NAME, "2")
    printed(promote, "check")


def test_a_version_that_was_archived_by_hand_sends_people_to_check(in_production: str, call: Call) -> None:
    assert call(promote).out.endswith("next: ./serve.sh\n")
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        MlflowClient(in_production).transition_model_version_stage("Loan_prediction", "1", "Archived")
    shown = call(promote)
    assert (shown.code, shown.out.splitlines()[-1]) == (0, "next: python promote.py check")
    assert call(promote, "check").code == 4
