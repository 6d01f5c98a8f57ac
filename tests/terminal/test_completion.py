"""A shell completes what people type, asked as bash asks once argcomplete is activated as docs/terminal.md says."""

import re
import shlex
import subprocess

import pytest

from tests.conftest import PROJECT, environment

ACTIVATE = re.search(r"^ +(eval .*)", (PROJECT / "docs" / "terminal.md").read_text(), re.MULTILINE)
ASK = """
{activate}
COMP_WORDS=({words}) COMP_LINE={line} COMP_POINT={point} COMP_CWORD={last} COMP_TYPE=9
_python_argcomplete_global "${{COMP_WORDS[0]}}" "${{COMP_WORDS[{last}]}}" "${{COMP_WORDS[{last}-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("python promote.py ro", {"rollback"}),
        ("python promote.py production --rule ", {"better", "not-worse", "point"}),
        ("python train.py --gri", {"--grid"}),
        ("python -m understudy.declare --tar", {"--target"}),
        ("./serve.sh --sta", {"--stage"}),
    ],
)
def test_bash_completes_verbs_options_and_choices(line: str, answer: set[str]) -> None:
    assert ACTIVATE
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    script = ASK.format(
        activate=ACTIVATE[1].replace(".venv/bin/", ""),
        words=shlex.join(words),
        line=shlex.quote(line),
        point=len(line),
        last=len(words) - 1,
    )
    asked = subprocess.run(
        ["bash", "-c", script], cwd=PROJECT, env=environment(), capture_output=True, text=True, check=True
    )
    assert {word.strip() for word in asked.stdout.split()} == answer
