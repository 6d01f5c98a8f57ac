"""Charts as SVG that stands inside a page: drawn by Vega-Lite, coloured by the page's stylesheet.

A colour is a variable of `templates/base.css`, so that one drawing serves light, dark and paper. What can be pointed at
has its figures in a `<title>`, which browsers show without a script.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 340, 290  # pixels; a phone has room for one chart, a desk for two beside each other
GAUGE = {"width": 230, "height": 50}  # pixels
SHARES = {"width": 260, "height": 76}
FEW_NAMES = 6  # of values, that have room below their bars
TEXT, MUTED, LINE = "var(--text)", "var(--muted)", "var(--line)"
PLAIN = "format(datum.value, datum.value != 0 && abs(datum.value) < 0.001 ? '~e' : '.4~r')"  # 300, and not 3e+2
FONT = "system-ui, sans-serif"
LETTER, MOST_ROOM = 7.4, 190  # pixels: of a wide font, whatever font the page has in the end; of names beside an axis
CONFIG: dict[str, Any] = {
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {"labelColor": MUTED, "titleColor": TEXT, "titleFontWeight": "normal", "gridColor": LINE, "gridWidth": 0.6}
    | {"domainColor": MUTED, "tickColor": MUTED, "labelFontSize": 12, "titleFontSize": 13},
}
SYMBOL = re.compile(r'<(\w+) aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="[^"]*"([^>]*?)/>')
SAID = {"description": {"field": "said", "type": "nominal"}}
ROLES = re.compile(r' (?:role|aria-roledescription|aria-hidden|aria-label|xmlns:xlink|xmlns|version|class)="[^"]*"')


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Args:
        name: What it shows.
        colour: As CSS has it.
        points: Of x and y.
        is_dashed: Whether it is drawn so.
        has_dots: Whether its points are to be seen.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    is_dashed: bool = False
    has_dots: bool = False


@dataclass(frozen=True)
class Measured:
    """A figure with its interval, on a line of its own.

    Args:
        name: What it is of.
        colour: As CSS has it.
        interval: The value, and its lower and upper bound.
    """

    name: str
    colour: str
    interval: tuple[float, float, float]


def lines(
    curves: Sequence[Line],
    x: str,
    y: str,
    alt: str,
    reference: Sequence[tuple[float, float]] = (),
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> Markup:
    """Curves over one another.

    Args:
        curves: Each in its colour.
        x: What the horizontal axis says.
        y: What the vertical axis says.
        alt: What the chart shows, for those who do not see it.
        reference: Points of a thin grey line, such as that of chance.
        limits: Of "x" or "y"; else those of the points.
    """
    scales = {name: {"domain": list(ends), "nice": False} for name, ends in (limits or {}).items()}
    axes = {
        name: {"field": name, "type": "quantitative", "title": title, "scale": scales.get(name, {"zero": False})}
        | {"axis": {"tickCount": 5}}
        for name, title in (("x", x), ("y", y))
    }
    layers: list[dict[str, Any]] = []
    if reference:
        chance = {"type": "line", "stroke": MUTED, "strokeDash": [4, 4], "strokeWidth": 1.2, "aria": False}
        layers.append({"data": _points(reference), "mark": chance, "encoding": axes | {"order": {"field": "n"}}})
    for curve in curves:
        dash = {"strokeDash": [6, 3]} if curve.is_dashed else {}
        drawn = {"type": "line", "stroke": curve.colour, "strokeWidth": 2.2, "aria": False, **dash}
        layers.append({"data": _points(curve.points), "mark": drawn, "encoding": axes | {"order": {"field": "n"}}})
    for curve in curves:
        said = [f"{curve.name}: {x.lower()} {at:.3f}, {y.lower()} {value:.3f}" for at, value in curve.points]
        dots = {"type": "circle", "color": curve.colour, "size": 50, "opacity": 1 if curve.has_dots else 0}
        layers.append({"data": _points(curve.points, said), "mark": dots, "encoding": axes | SAID})
    return _svg({"layer": layers, "width": WIDTH, "height": HEIGHT}, alt)


def intervals(measured: Sequence[Measured], alt: str) -> Markup:
    """Figures with their intervals, one below the other, the first on top."""
    room = min(MOST_ROOM, LETTER * max(len(each.name) for each in measured))
    axis = {"minExtent": room, "labelLimit": room, "ticks": False, "domain": False, "labelColor": TEXT}
    name = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": axis | {"labelPadding": 6}}
    height = 60 + 26 * len(measured)
    return _svg({"layer": _bars(measured, {"y": name}, 4), "width": WIDTH, "height": height}, alt)


def gauge(measured: Measured, limit: float) -> Markup:
    """A figure with its interval beside the limit that it is held to, small enough for the cell of a table."""
    said = {"limit": limit, "said": f"limit {limit:g}"}
    mark = {"type": "rule", "stroke": TEXT, "strokeWidth": 2, "strokeDash": [4, 3]}
    x = {"field": "limit", "type": "quantitative"}
    held = {"data": {"values": [said]}, "mark": mark, "encoding": {"x": x} | SAID}
    bars = _bars([measured], {"y": {"value": 12}}, 3)
    return _svg({"layer": [*bars, held], **GAUGE}, f"{measured.name}, beside its limit")


def shares(names: Sequence[str], before: Sequence[float], now: Sequence[float], colour: str, alt: str) -> Markup:
    """How often each value or range came before, as bars, and now, as strokes in a colour."""
    rows = [
        {
            "place": place,
            "name": name,
            "before": one,
            "now": other,
            "said": f"{name}: {one:.1%} before, {other:.1%} now",
        }
        for place, (name, one, other) in enumerate(zip(names, before, now, strict=True))
    ]
    is_few = len(names) <= FEW_NAMES
    labels = {
        "labelExpr": f"{json.dumps(list(names))}[datum.value]",
        "labelAngle": 0,
        "labelLimit": SHARES["width"] / len(names),
    }
    axis = {"title": None, "ticks": False, "domain": False, **(labels if is_few else {"labels": False})}
    x = {"field": "place", "type": "ordinal", "axis": axis}
    height = {"type": "quantitative", "axis": None}
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "bar", "color": LINE}, "encoding": {"x": x, "y": height | {"field": "before"}} | SAID},
        {"mark": {"type": "tick", "color": colour, "thickness": 3, "opacity": 1}}
        | {"encoding": {"x": x, "y": height | {"field": "now"}} | SAID},
    ]
    return _svg({"data": {"values": rows}, "layer": layers, **SHARES}, alt)


def _bars(measured: Sequence[Measured], place: dict[str, Any], ticks: int) -> list[dict[str, Any]]:
    """The layers of figures with their intervals, which stand in a place by their name."""
    rows = [
        {"name": each.name, "value": value, "low": low, "high": high, "colour": each.colour}
        | {"said": f"{each.name}: {value:.4g} ({low:.4g} to {high:.4g})"}
        for each in measured
        for value, low, high in [each.interval]
    ]
    axis = {"tickCount": ticks, "labelExpr": PLAIN, "labelOverlap": "parity", "labelSeparation": 12, "labelBound": True}
    x = {"type": "quantitative", "scale": {"zero": False, "padding": 8}, "axis": axis, "title": None}
    encoding = place | {"color": {"field": "colour", "type": "nominal", "scale": None}} | SAID
    bar = encoding | {"x": x | {"field": "low"}, "x2": {"field": "high"}}
    return [
        {"data": {"values": rows}, "mark": {"type": "rule", "strokeWidth": 3}, "encoding": bar},
        {"data": {"values": rows}, "mark": {"type": "circle", "size": 90, "opacity": 1}}
        | {"encoding": encoding | {"x": x | {"field": "value"}}},
    ]


def _points(points: Sequence[tuple[float, float]], said: Sequence[str] = ()) -> dict[str, Any]:
    values = [{"x": x, "y": y, "n": n} for n, (x, y) in enumerate(points)]
    return {"values": [value | {"said": text} for value, text in zip(values, said, strict=True)] if said else values}


def _svg(spec: dict[str, Any], alt: str) -> Markup:
    """The SVG of a Vega-Lite specification."""
    import vl_convert  # loads V8, which most who ask for records do without

    fitted = {"autosize": {"type": "fit", "contains": "padding"}, "padding": 4, "config": CONFIG, **spec}
    drawn = str(vl_convert.vegalite_to_svg(fitted))
    drawn = SYMBOL.sub(r"<\1\3><title>\2</title></\1>", drawn)
    drawn = ROLES.sub("", drawn)
    named = Markup('<svg role="img" aria-label="{}"').format(alt)
    return Markup(drawn.replace("<svg", named, 1))  # noqa: S704 - Vega escapes every text in it
