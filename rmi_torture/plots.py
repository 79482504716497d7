"""Plots as SVG text: no library, no script, nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from rmi_torture.series import Shade

WIDTH, HEIGHT = 960, 240
LEFT, RIGHT, TOP, BOTTOM = 70, 12, 12, 28
COLOURS = ("#1f6f8b", "#d1495b", "#8d8d8d", "#66a182", "#edae49")
SHADE_COLOURS: Mapping[str, str] = {
    "kill": "#d1495b",
    "power": "#8b1e3f",
    "nameserver": "#edae49",
    "pause": "#edae49",
    "partition": "#3d5a80",
    "deaf": "#3d5a80",
    "mute": "#3d5a80",
    "delay": "#98c1d9",
    "loss": "#98c1d9",
    "full": "#66a182",
    "clock": "#b49fcc",
    "member": "#d1495b",
}

Point = tuple[float, float]


def line_plot(
    curves: Mapping[str, Sequence[Point]],
    shades: Sequence[Shade],
    seconds: float,
    *,
    unit: str,
    logarithmic: bool = False,
    from_zero: bool = True,
) -> str:
    """Return a plot of curves over time, with the faults shaded.

    Args:
        curves: name to points (second, value).
        shades: the faults.
        seconds: the end of the time axis.
        unit: of the values.
        logarithmic: draw the values by their logarithms; those at or below 0 are left out.
        from_zero: let the value axis begin at 0.
    """
    values = [y for points in curves.values() for _, y in points if not logarithmic or y > 0]
    if not values:
        return "<p>Nothing to draw.</p>"
    low, high = (0.0 if from_zero and not logarithmic else min(values)), max(values)
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
    if high <= low:
        low, high = low - 1, high + 1
    x = _scale(0, seconds, LEFT, WIDTH - RIGHT)
    y = _value_scale(low, high, logarithmic)
    parts = [_shade(shade, x) for shade in shades]
    parts += _axes(x, y, seconds, _ticks(low, high, logarithmic), unit)
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4">'
            f"<title>{escape(name)}</title></polyline>"
        )
        parts.append(
            f'<text x="{LEFT + 8 + 150 * number}" y="{TOP + 12}" fill="{colour}">'
            f"{escape(name)}</text>"
        )
    return _svg(parts, HEIGHT)


def bar_plot(rows: Mapping[str, Mapping[str, int]], kinds: Sequence[str]) -> str:
    """Return horizontal bars: for each row the shares of each kind, and the numbers."""
    parts = []
    bar, gap = 20, 10
    for place, (name, counts) in enumerate(rows.items()):
        total = sum(counts.values()) or 1
        top = TOP + place * (bar + gap)
        parts.append(
            f'<text x="{LEFT + 30}" y="{top + 15}" text-anchor="end">{escape(name)}</text>'
        )
        left = float(LEFT + 40)
        for number, kind in enumerate(kinds):
            width = (WIDTH - 360) * counts.get(kind, 0) / total
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{bar}" '
                f'fill="{COLOURS[number]}"/>'
            )
            left += width
        told = ", ".join(f"{kind} {counts.get(kind, 0):,}" for kind in kinds)
        parts.append(f'<text x="{WIDTH - 240}" y="{top + 15}">{escape(told)}</text>')
    return _svg(parts, TOP + len(rows) * (bar + gap) + gap)


def _svg(parts: Sequence[str], height: int) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" xmlns="http://www.w3.org/2000/svg">'
        + "".join(parts)
        + "</svg>"
    )


def _scale(low: float, high: float, to_low: float, to_high: float) -> Callable[[float], float]:
    factor = (to_high - to_low) / ((high - low) or 1)
    return lambda value: to_low + (value - low) * factor


def _value_scale(low: float, high: float, logarithmic: bool) -> Callable[[float], float]:
    if not logarithmic:
        return _scale(low, high, HEIGHT - BOTTOM, TOP)
    by_log = _scale(math.log10(low), math.log10(high), HEIGHT - BOTTOM, TOP)
    return lambda value: by_log(math.log10(max(value, low)))


def _shade(shade: Shade, x: Callable[[float], float]) -> str:
    left = x(shade.begin_s)
    width = max(1.0, x(shade.end_s) - left)
    colour = SHADE_COLOURS.get(shade.kind, "#999999")
    title = f"{shade.kind} {shade.target}, {shade.begin_s:.1f} to {shade.end_s:.1f} s"
    return (
        f'<rect x="{left:.1f}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}" '
        f'fill="{colour}" opacity="0.18"><title>{escape(title)}</title></rect>'
    )


def _ticks(low: float, high: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        first, last = round(math.log10(low)), round(math.log10(high))
        return [10.0**power for power in range(first, last + 1)]
    step = 10 ** math.floor(math.log10((high - low) / 2))
    while (high - low) / step > 6:
        step *= 2
    first = math.ceil(low / step)
    return [step * n for n in range(first, math.floor(high / step) + 1)]


def _axes(
    x: Callable[[float], float],
    y: Callable[[float], float],
    seconds: float,
    ticks: Sequence[float],
    unit: str,
) -> list[str]:
    parts = []
    for tick in ticks:
        at = y(tick)
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dddddd"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:,.6g}</text>')
    for tick in _ticks(0, seconds, logarithmic=False):
        parts.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{tick:g} s</text>'
        )
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{TOP + 12}" text-anchor="end">{escape(unit)}</text>'
    )
    return parts
