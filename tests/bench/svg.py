"""Small plots, for light and dark backgrounds."""

import math
from xml.sax.saxutils import escape

WIDTH = 720
# On a light background, and on a dark one.
COLOURS = (
    ("#0b6e4f", "#34d399"),
    ("#c1440e", "#fb923c"),
    ("#3b5b92", "#93c5fd"),
    ("#8a6d3b", "#fcd34d"),
    ("#6b4c9a", "#c4b5fd"),
    ("#555555", "#cbd5e1"),
    ("#b8336a", "#f9a8d4"),
    ("#2e8b9a", "#67e8f9"),
)
FONT = 'font-family="sans-serif" font-size="12"'


def bars(title, rows, unit="×"):
    """Horizontal bars on a logarithmic scale: `rows` are pairs of a name and a number."""
    left, bar, gap, top, bottom = 230, 18, 8, 40, 45
    height = top + len(rows) * (bar + gap) + bottom
    values = [value for _, value in rows]
    low = min(0.5, *values)
    scale = (WIDTH - left - 90) / math.log10(max(*values, 2) / low)
    one = left + scale * math.log10(1 / low)
    parts = []
    for tick in _ticks((low, max(*values, 2))):
        x = left + scale * math.log10(tick / low)
        parts.append(_line(x, top - 6, x, height - bottom, "axis" if tick == 1 else "grid"))
        parts.append(_text(x, height - bottom + 16, f"{tick:g}{unit}", "middle"))
    for index, (name, value) in enumerate(rows):
        y = top + index * (bar + gap)
        begin, end = sorted((one, left + scale * math.log10(value / low)))
        parts.append(_text(left - 8, y + 13, name, "end"))
        parts.append(_box(begin, y, max(end - begin, 1.5), bar, 0))
        parts.append(_text(end + 6, y + 13, f"{value:.3g}{unit}"))
    parts.append(_text((left + WIDTH - 90) / 2, height - 8, "logarithmic scale", "middle"))
    return _document(title, height, parts)


def lines(title, x_label, y_label, series):
    """Lines on logarithmic scales: `series` maps a name to pairs of x and y."""
    left, right, top, bottom, height = 70, 240, 40, 45, 380
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    x_at = _axis(xs, left, WIDTH - right)
    y_at = _axis(ys, height - bottom, top)
    parts = []
    for tick in _ticks(xs):
        parts.append(_line(x_at(tick), top, x_at(tick), height - bottom, "grid"))
        parts.append(_text(x_at(tick), height - bottom + 16, f"{tick:,.0f}", "middle"))
    for tick in _ticks(ys):
        parts.append(_line(left, y_at(tick), WIDTH - right, y_at(tick), "grid"))
        parts.append(_text(left - 6, y_at(tick) + 4, f"{tick:g}", "end"))
    for index, (name, points) in enumerate(series.items()):
        colour = index % len(COLOURS)
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" class="line c{colour}"/>')
        parts += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3" class="c{colour}"/>' for x, y in points]
        y = top + 8 + index * 18
        parts.append(_box(WIDTH - right + 14, y - 9, 10, 10, colour))
        parts.append(_text(WIDTH - right + 30, y, name))
    parts.append(_text((left + WIDTH - right) / 2, height - 8, f"{x_label} (logarithmic)", "middle"))
    middle = (top + height - bottom) / 2
    parts.append(f'<g transform="translate(16 {middle}) rotate(-90)">{_text(0, 0, f"{y_label} (logarithmic)", "middle")}</g>')
    return _document(title, height, parts)


def _axis(values, begin, end):
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = max((high - low) * 0.05, 0.05)
    low, high = low - margin, high + margin
    return lambda value: begin + (math.log10(value) - low) / (high - low) * (end - begin)


def _ticks(values):
    low, high = min(values), max(values)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10**exponent for exponent in range(first, last + 1)]
    steps = (1, 2, 5) if last - first <= 2 else (1,)
    return [tick for decade in decades for step in steps if low * 0.9 <= (tick := decade * step) <= high * 1.1]


def _text(x, y, text, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text.replace("`", ""))}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _box(x, y, width, height, colour):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="c{colour}"/>'


def _document(title, height, parts):
    heading = f'<text x="12" y="20" font-weight="bold">{escape(title)}</text>'
    background = f'<rect width="{WIDTH}" height="{height}" class="page"/>'
    body = "\n".join((f"<style>{_style()}</style>", background, heading, *parts))
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT}>\n{body}\n</svg>\n'


def _style():
    """Colours for the light or dark scheme of the browser."""

    def rules(page, text, grid, which):
        series = "".join(f".c{index}{{fill:{pair[which]}}}" for index, pair in enumerate(COLOURS))
        strokes = "".join(f".line.c{index}{{fill:none;stroke:{pair[which]}}}" for index, pair in enumerate(COLOURS))
        return f".page{{fill:{page}}}text{{fill:{text}}}.grid{{stroke:{grid}}}.axis{{stroke:{text}}}{series}{strokes}"

    light, dark = rules("#fff", "#000", "#ddd", 0), rules("#0d1117", "#e6edf3", "#30363d", 1)
    return f"{light}.line{{stroke-width:2}}@media(prefers-color-scheme:dark){{{dark}}}"
