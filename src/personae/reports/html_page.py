"""One self-contained HTML page about a trained character: pictures, loss curve, card, commands.

Pictures are inside the file, nothing is fetched, there is no script. It reads on a phone, follows
the reader's dark mode, and prints on white.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from PIL import Image

SMOOTHING = 0.9  # share of the running mean kept at each step of the drawn loss
WIDTH, HEIGHT = 640, 220  # of the curve's drawing, in its own units
LEFT, BOTTOM, TOP = 52, 28, 12

STYLE = """
:root { --paper: #fbfaf7; --ink: #22252b; --faint: #6d717a; --line: #dcd9d1; --mark: #b4492d; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191d; --ink: #e8e6e1; --faint: #9aa0a9; --line: #33373e; --mark: #f0916f; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .25rem; }
p { margin: 0 0 1rem; max-width: 42rem; }
.faint, figcaption, th { color: var(--faint); }
.grid { display: grid; gap: 1.1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(13rem, 40vw), 1fr)); }
.grid.small { grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); gap: .6rem; }
figure { margin: 0; break-inside: avoid; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--line);
  border-radius: 4px; }
figcaption { font-size: .85rem; line-height: 1.35; padding-top: .35rem; }
svg { width: 100%; max-width: 44rem; height: auto; font-size: 12px; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 400; vertical-align: top; padding: .2rem 1.5rem .2rem 0; }
td { padding: .2rem 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .8rem 1rem; border: 1px solid var(--line); border-radius: 4px;
  font: .85rem/1.6 ui-monospace, Menlo, Consolas, monospace; }
@media print {
  :root { --paper: #fff; --ink: #000; --faint: #444; --line: #bbb; --mark: #000; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; }
  .grid { grid-template-columns: repeat(4, 1fr); }
  .grid.small { grid-template-columns: repeat(8, 1fr); }
  pre { white-space: pre-wrap; }
}
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with a caption; the alternative text says what it shows."""

    image: Image.Image
    caption: str
    alternative: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures under a heading; `small` ones are for looking over, not for looking at."""

    heading: str
    about: str
    pictures: Sequence[Shown]
    small: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """What a training run lost, step by step.

    Attributes:
        losses: (step, loss) of every step.
        validation: (step, loss) on held-out pictures at fixed noise, and the base's loss there.
    """

    losses: Sequence[tuple[int, float]]
    validation: Sequence[tuple[int, float]] = ()
    base: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows, from top to bottom."""

    title: str
    lead: str
    galleries: Sequence[Gallery]
    curve: Curve | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def render(page: Page) -> str:
    """Return the page as HTML."""
    body = "\n".join(_body(page))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _body(page: Page) -> Iterator[str]:
    yield f"<h1>{escape(page.title)}</h1>\n<p>{escape(page.lead)}</p>"
    for gallery in page.galleries:
        yield f"<h2>{escape(gallery.heading)}</h2>"
        yield f'<p class="faint">{escape(gallery.about)}</p>'
        yield f'<div class="grid{" small" if gallery.small else ""}">'
        yield from map(_figure, gallery.pictures)
        yield "</div>"
    if page.curve and len(page.curve.losses) > 1:
        yield "<h2>Learning</h2>"
        yield f'<p class="faint">{escape(in_words(page.curve))}</p>'
        yield draw_curve(page.curve)
    if page.facts:
        rows = (
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in page.facts.items()
        )
        yield "<h2>Card</h2>\n<table>" + "\n".join(rows) + "</table>"
    if page.commands:
        lines = "\n".join(map(escape, page.commands))
        yield f"<h2>Go on</h2>\n<pre>{lines}</pre>"


def _figure(shown: Shown) -> str:
    buffer = io.BytesIO()
    shown.image.convert("RGB").save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    caption = f"<figcaption>{escape(shown.caption)}</figcaption>" if shown.caption else ""
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{shown.image.width}" '
        f'height="{shown.image.height}" alt="{escape(shown.alternative)}">{caption}</figure>'
    )


def in_words(curve: Curve) -> str:
    """Return what the curve shows, for those who cannot see it and those who cannot read it."""
    smooth = smoothed(curve.losses)
    text = (
        f"Smoothed training loss: {smooth[0][1]:.3f} at step {smooth[0][0]}, {smooth[-1][1]:.3f} "
        f"at step {smooth[-1][0]}. The faint line is the loss of each single step."
    )
    if curve.validation and curve.base:
        last = curve.validation[-1][1]
        change = (last - curve.base) / curve.base
        text += (
            f" Dots: loss on held-out pictures at fixed noise, {last:.3f} at the end, "
            f"{abs(change):.1%} {'below' if change < 0 else 'above'} the untouched base's "
            f"{curve.base:.3f} (dashed)."
        )
    return text


def smoothed(losses: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the running means of the losses, the first steps not biased towards 0."""
    mean, weight, result = 0.0, 0.0, []
    for step, loss in losses:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        result.append((step, mean / weight))
    return result


def draw_curve(curve: Curve) -> str:
    """Return the curve as SVG."""
    values = [loss for _, loss in (*curve.losses, *curve.validation)]
    values += [curve.base] if curve.base else []
    low, high, last = min(values), max(values), curve.losses[-1][0]
    scale = (HEIGHT - TOP - BOTTOM) / max(high - low, 1e-12)

    def at(step: float, loss: float) -> str:
        x = LEFT + (WIDTH - LEFT - 10) * step / last
        return f"{x:.1f},{HEIGHT - BOTTOM - (loss - low) * scale:.1f}"

    def line(points: Sequence[tuple[int, float]], style: str) -> str:
        places = " ".join(at(*point) for point in points)
        return f'<polyline points="{places}" fill="none" {style}/>'

    parts = [line(curve.losses, 'stroke="var(--line)" stroke-width="1"')]
    if curve.base:
        dashed = 'stroke="var(--faint)" stroke-dasharray="4 4"'
        parts.append(line([(0, curve.base), (last, curve.base)], dashed))
    parts.append(line(smoothed(curve.losses), 'stroke="var(--ink)" stroke-width="2"'))
    for point in curve.validation:
        x, y = at(*point).split(",")
        parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="var(--mark)"/>')
    floor = HEIGHT - BOTTOM
    parts += [
        f'<path d="M{LEFT} {TOP}V{floor}H{WIDTH - 10}" fill="none" stroke="var(--faint)"/>',
        _text(LEFT - 8, TOP + 8, f"{high:.2f}", "end"),
        _text(LEFT - 8, floor, f"{low:.2f}", "end"),
        _text(LEFT, floor + 18, "step 0", "start"),
        _text(WIDTH - 10, floor + 18, f"step {last}", "end"),
    ]
    label = escape(in_words(curve))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="var(--faint)">{text}</text>'
