"""The report's section of techniques, as HTML. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from recipes.compare.groups import Group
from recipes.compare.notes import shorten
from recipes.compare.page_sections import AXIS, PICTURE, SEEN, controls, plot, select
from recipes.compare.page_tables import LABEL
from recipes.compare.statistics import Row
from recipes.compare.technique_plots import technique_pictures, used_techniques


def technique(found: Mapping[str, Any], groups: Sequence[Group], rows: Sequence[Row]) -> str:
    """What a technique recorded: curves, histograms, pictures."""
    name = found["name"]
    key = escape(name)
    used = [number for number, group in enumerate(groups) if name in used_techniques(group)]
    count = "1 group" if len(used) == 1 else f"{len(used)} groups"
    parts = [f"<h3>{key}</h3>", f'<p class="hint">In {count}.</p>' if used else ""]
    if found["curves"]:
        names = [(curve, curve.partition("/")[2] or curve) for curve in found["curves"]]
        parts.append(controls(select(f"technique-{key}", "recorded", names) + AXIS.format(name=f"technique-{key}")))
        parts.append(plot(f"technique-{key}"))
    if found["histograms"]:
        names = [(entry, entry.partition("/")[2] or entry) for entry in found["histograms"]]
        numbers = sorted({int(number) for entry in found["histograms"].values() for number in entry})
        having = [(str(number), rows[number].label) for number in numbers]
        parts.append(
            controls(select(f"histogram-{key}", "histogram", names) + select(f"histogram-group-{key}", "group", having))
        )
        parts.append(plot(f"histogram-{key}"))
    pictures = technique_pictures(name, groups)
    if pictures:
        looks = any(name in run.options.get("diagnostics", ()) for group in groups for run in group.runs)
        does, hint = ("has seen", SEEN) if looks else ("does to a batch", PICTURE)
        shown = "".join(
            f'<figure data-group="{number}"><img alt="what {key} {does}" src="{source}">'
            f'<figcaption><span class="swatch" data-swatch="{number}"></span>'
            f"<code>{escape(shorten(rows[number].label, LABEL))}</code></figcaption></figure>"
            for number, source in pictures.items()
        )
        parts.append(f'<div class="pictures">{shown}</div><p class="hint">{hint}</p>')
    return f'<article class="technique" data-technique="{key}">{"".join(parts)}</article>'
