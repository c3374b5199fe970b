"""Pictures as SVG: bars beside each other, and lines over time."""

from html import escape

INK, GRID = "#333", "#ddd"
COLOURS = ["#1f5fa8", "#c2571a", "#5b8c3a", "#8a5aa8", "#777"]
SHADE = "#fbe3b5"


def svg(width, height, title, parts):
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="sans-serif" font-size="13">\n<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, text(20, 28, title, size=17), *parts, "</svg>", ""])


def text(x, y, words, size=13, anchor="start", colour=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def bars(title, groups, note):
    """groups: (name, [(bar's name, value)]); each group has a scale of its own, because loads differ by far."""
    width, row, left, right = 900, 22, 250, 110
    parts, y = [text(20, 50, note, colour="#666")], 78
    names = list(dict.fromkeys(name for _, values in groups for name, _ in values))
    for group, values in groups:
        parts.append(text(20, y + 4, group, size=14))
        y += 12
        most = max(value for _, value in values)
        for name, value in values:
            length = (width - left - right) * value / most
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(text(left - 8, y + 15, name, anchor="end"))
            parts.append(f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="{row - 6}" fill="{colour}"/>')
            parts.append(text(left + length + 6, y + 15, number(value)))
            y += row
        y += 22
    return svg(width, y, title, parts)


def lines(title, panels, shades, seconds):
    """panels: (title, [(name, [(second, value)])]); shades: (from, to, name) over all of them."""
    width, left, right, top, panel, gap = 900, 80, 30, 80, 130, 46
    height = top + len(panels) * (panel + gap) + 10
    across = lambda second: left + (width - left - right) * second / seconds
    parts = []
    for begin, end, name in shades:
        x, span = across(begin), across(end) - across(begin)
        bottom = height - gap - 10
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="{span:.1f}" height="{bottom - top}" fill="{SHADE}"/>')
        parts.append(text(x + 3, top - 24, name, size=12, colour="#8a6d1f"))
    for index, (name, curves) in enumerate(panels):
        y0 = top + index * (panel + gap) + panel
        most = max([value for _, curve in curves for _, value in curve] + [1.0]) * 1.08
        for part in range(5):
            y = y0 - panel * part / 4
            parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
            parts.append(text(left - 6, y + 4, number(most * part / 4), size=11, anchor="end"))
        parts.append(text(left, y0 - panel - 5, name))
        for line, (label, curve) in enumerate(curves):
            colour = COLOURS[line]
            points = " ".join(f"{across(at):.1f},{y0 - panel * value / most:.1f}" for at, value in curve)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.4"/>')
            parts.append(text(width - right - 110 * line, y0 - panel - 5, label, size=12, anchor="end", colour=colour))
        for part in range(7):
            parts.append(text(across(seconds * part / 6), y0 + 16, f"{seconds * part / 6:.0f} s", size=11, anchor="middle"))
    return svg(width, height, title, parts)
