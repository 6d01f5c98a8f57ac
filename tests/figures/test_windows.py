"""The figure of a window can be drawn on any columns: nothing collides, and what alarms is first and red."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from understudy.figures import windows
from understudy.figures.plots import COLOURS, MOST_COLUMNS, RED
from understudy.figures.windows import DrawnColumn

LONG = "A column whose name is as long as those of a warehouse, in US$ or CA$, and that goes on and on"
RNG = np.random.default_rng(0)
GAPS = np.where(RNG.random(300) < 0.2, np.nan, RNG.normal(size=300))


def column(name: str, before: np.ndarray = GAPS, now: np.ndarray = GAPS, **more: object) -> DrawnColumn:
    usual: dict[str, object] = {"values": (), "psi": 0.01, "p": 0.3, "alarm": False}
    return DrawnColumn(name, before, now, **{**usual, **more})  # type: ignore[arg-type]


COLUMNS = [
    column("numbers"),
    column("constant", np.full(300, 3.0), np.full(20, 3.0), psi=None, p=None),
    column("all missing", np.full(300, np.nan), np.full(20, np.nan), psi=None, p=None),
    column("no rows", np.array([]), np.array([]), psi=None, p=None),
    column("category", np.arange(8) % 2.0, np.zeros(4), values=("no", "yes"), psi=0.4, p=1e-200, alarm=True),
    column(f"{LONG} and on"),
    column(LONG, np.arange(300) % 8.0, np.arange(30) % 8.0, values=tuple(f"{LONG} {n}" for n in range(8))),
    column("many", np.arange(300) % 40.0, np.arange(30) % 40.0, values=tuple(map(str, range(40))), psi=0.2),
]


def drawn(columns: list[DrawnColumn]) -> Figure:
    figure = windows.figure(columns, f"{LONG}\n{LONG}")
    figure.draw_without_rendering()
    return figure


def test_nothing_is_cut_off_and_no_texts_collide() -> None:
    figure = drawn(COLUMNS)
    names = [text.get_window_extent() for text in figure.texts]
    for upper, lower in pairwise(names):
        assert upper.y0 >= lower.y1
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in names)
    assert max(box.x1 for box in names[1:]) < min(axes.bbox.x0 for axes in figure.axes)
    for axes in figure.axes[:-1]:
        ticks = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 <= right.x0 for left, right in pairwise(ticks))
    for text in figure.axes[-1].texts:
        assert text.get_window_extent().x1 <= figure.bbox.x1


def test_what_alarms_is_first_and_red_and_then_the_largest_index() -> None:
    figure = drawn(COLUMNS)
    assert [text.get_text() for text in figure.texts[1:4]] == ["category", "many", "numbers"]
    colours = [to_hex(bar.get_facecolor()) for bar in figure.axes[-1].patches]
    assert colours == [RED, *[COLOURS[0]] * (len(COLUMNS) - 1)]
    assert [text.get_text() for text in figure.axes[-1].texts[:6]] == ["PSI", "p", "0.400", "1e-200", "0.200", "0.3"]


def test_shares_of_both_samples_and_of_missing_cells_are_drawn() -> None:
    before, now = np.array([0, 0, 1, np.nan]), np.array([0, 1, 1, 1.0])
    axes = drawn([column("c", before, now, values=("no", "yes"))]).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [0.5, 0.25, 0.25]  # type: ignore[attr-defined]
    [lines] = axes.collections
    assert [path.vertices[0][1] for path in lines.get_paths()] == [0.25, 0.75, 0]  # type: ignore[index]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["no", "yes", "missing"]


@pytest.mark.parametrize("count", [1, 45])
def test_as_many_columns_are_drawn_as_have_room(count: int) -> None:
    figure = drawn([column(f"c{n}", alarm=n == count - 1) for n in range(count)])
    assert len(figure.axes) == 1 + min(count, MOST_COLUMNS)
    assert figure.texts[1].get_text() == f"c{count - 1}"
    assert (f"{MOST_COLUMNS} of {count} are drawn" in figure.texts[0].get_text()) == (count > MOST_COLUMNS)
