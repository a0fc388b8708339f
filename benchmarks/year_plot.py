"""The picture of a year: cost of a round, memory, size of the ledger, by month. Pure.

In: three rows of numbers. Out: an SVG of its own letters and lines. Never: a font, a script or a file from elsewhere: it is shown
on pages that may be read without a network, in the light and in the dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 960, 270
LEFT, TOP, SPAN, DEPTH, APART = 52, 64, 240, 150, 310  # of a panel; APART from one to the next
INK, FAINT, LINE, GROUND = "#1b2436", "#d5dbe8", "#2f4a8c", "#f7f8fb"
HEAD = 'xmlns="http://www.w3.org/2000/svg" role="img" font-family="system-ui, sans-serif" font-size="12"'


def picture(title: str, panels: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Returns the picture; a panel is its heading and a number for each month."""
    says = "; ".join(f"{name}: {values[0]:.0f} in month 1, {values[-1]:.0f} in month {len(values)}" for name, values in panels)
    drawn = "\n".join(_panel(LEFT + APART * n, name, values) for n, (name, values) in enumerate(panels))
    return f"""<svg {HEAD} viewBox="0 0 {WIDTH} {HEIGHT}">
<title>{escape(title)}</title>
<desc>{escape(says)}</desc>
<rect width="{WIDTH}" height="{HEIGHT}" fill="{GROUND}" rx="10"/>
<text x="{WIDTH / 2:.0f}" y="24" text-anchor="middle" font-size="15" fill="{INK}">{escape(title)}</text>
{drawn}
</svg>
"""


def _panel(x: float, name: str, values: Sequence[float]) -> str:
    step = _step(max(values))
    top = step * (int(max(values) / step) + 1)
    parts = [f'<text x="{x}" y="{TOP - 14}" fill="{INK}">{escape(name)}</text>']
    for n in range(int(top / step) + 1):
        y = _y(n * step, top)
        parts.append(f'<path d="M{x} {y:.1f}h{SPAN}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">{n * step:,.0f}</text>')
    places = [(x + SPAN * (n + 0.5) / len(values), _y(value, top)) for n, value in enumerate(values)]
    parts.append(f'<path d="M{" L".join(f"{a:.1f} {b:.1f}" for a, b in places)}" fill="none" stroke="{LINE}" stroke-width="2"/>')
    for n, (a, b) in enumerate(places, 1):
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{LINE}"/>')
        parts.append(f'<text x="{a:.1f}" y="{TOP + DEPTH + 18}" text-anchor="middle" fill="{INK}">{n}</text>')
    parts.append(f'<text x="{x + SPAN / 2:.0f}" y="{TOP + DEPTH + 38}" text-anchor="middle" fill="{INK}">month</text>')
    return "\n".join(parts)


def _y(value: float, top: float) -> float:
    return TOP + DEPTH * (1 - value / top)


def _step(largest: float) -> float:
    """Returns a round number of which three to six make the axis."""
    power = 1.0
    while largest / power > 60:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10, 20) if largest / (power * factor) < 6)
