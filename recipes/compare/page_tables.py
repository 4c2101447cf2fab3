"""The tables of the report's page, as HTML: a row a group, and what differs in their configs. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from recipes.compare.notes import shorten
from recipes.compare.page_sections import DIFFERENCES, TABLE
from recipes.compare.page_texts import config, hidden, probability, sort_key, times
from recipes.compare.statistics import Row
from recipes.compare.table import SIZES, TIMES, in_one_unit
from recipes.compare.units import Metric

Settings = Mapping[str, Sequence[str | None]]  # for each key that differs the value of each group
LABEL = 44  # letters of a label where there is little room
ABSENT = '<span class="absent">–</span>'


def table(rows: Sequence[Row], settings: Settings, metric: Metric) -> str:
    """One row a group; the script sorts and filters it."""
    heads = [
        ("label", "group", "text", ""),
        ("n", "n", "number", "number of runs"),
        ("mean", metric.head, "number", "mean over seeds ± standard deviation"),
        ("interval", "95 % interval", "number", "95 % confidence interval of the mean"),
        ("difference", "difference", "number", "mean difference to the baseline, paired by seed, and its 95 % interval"),
        ("p", "p", "number", "p-value of the difference, corrected for the number of comparisons"),
        ("seconds", "time", "number", "mean time of a run; × how many times the baseline's"),
        ("memory", "memory", "number", "mean peak memory; × how many times the baseline's"),
        *((f"config-{place}", key, "text", f"config value {key}") for place, key in enumerate(settings)),
    ]
    head = "".join(
        f'<th scope="col" data-column="{name}" class="{kind}{config(name)}" aria-sort="none"{hidden(name)}>'
        f'<button type="button" title="{escape(f"{note}: sort" if note else "sort")}">{escape(title)}</button></th>'
        for name, title, kind, note in heads
    )
    costs = zip(
        in_one_unit([row.seconds for row in rows], TIMES),
        in_one_unit([row.memory for row in rows], SIZES),
        strict=True,
    )
    body = "".join(_row(rows, settings, metric, number, *cost) for number, cost in enumerate(costs))
    choices = "".join(
        f'<label><input type="checkbox" data-show="config-{place}"> {escape(key)}</label>' for place, key in enumerate(settings)
    )
    columns = f'<details class="menu"><summary>Config columns</summary><div>{choices}</div></details>' if choices else ""
    return TABLE.format(columns=columns, head=head, body=body, groups=len(rows))


def _row(rows: Sequence[Row], settings: Settings, metric: Metric, number: int, time: str, memory: str) -> str:
    """A group's row: each cell has the value by which it is sorted."""
    row = rows[number]
    tag = '<span class="tag">baseline</span>' if row.baseline else ""
    values: list[str] = [written[number] or "" for written in settings.values()]
    keys = [f"{key}={value}" for key, value in zip(settings, values, strict=True) if value]
    interval = "" if row.interval is None else f"{metric.text(row.interval[0])} – {metric.text(row.interval[1])}"
    difference = ""
    if row.difference is not None:
        difference = f'<span class="value">{metric.signed(row.difference)}</span>'
        if row.difference_interval is not None:
            low, high = row.difference_interval
            difference += f' <span class="range">[{metric.signed(low)}, {metric.signed(high)}]</span>'
    cells: list[tuple[object, str, str]] = [
        (row.n, str(row.n), ""),
        (row.mean, f'<span class="value">{metric.text(row.mean)}</span>{metric.deviation(row.deviation)}', ""),
        (row.interval[0] if row.interval else None, interval, ""),
        (row.difference, difference, ""),
        (row.p_corrected, "" if row.p_corrected is None else probability(row.p_corrected), ""),
        (row.seconds, f"{time}{times(row.seconds_ratio)}", ""),
        (row.memory, f"{memory}{times(row.memory_ratio)}", ""),
    ]
    cells += [(value, escape(value), " config") for value in values]
    written = "".join(
        f'<td class="{"text" if kind else "number"}{kind}" data-value="{escape(sort_key(value))}"'
        f"{' hidden' if kind else ''}>{text or ABSENT}</td>"
        for value, text, kind in cells
    )
    searched = escape(" ".join([row.label, *keys]).lower())
    return (
        f'<tr data-group="{number}" data-search="{searched}"{" class=baseline" if row.baseline else ""}>'
        f'<td class="select"><input type="checkbox" aria-label="show {escape(row.label)} in the plots"></td>'
        f'<th scope="row" class="text" data-value="{escape(row.label)}"><span class="swatch" data-swatch="{number}"></span>'
        f"<code>{escape(row.label)}</code>{tag}</th>{written}</tr>"
    )


def differences(rows: Sequence[Row], settings: Settings) -> str:
    """One row a config key, one column a group; what is not the baseline's is marked."""
    baseline = next((number for number, row in enumerate(rows) if row.baseline), 0)
    order = [baseline, *(number for number in range(len(rows)) if number != baseline)]
    head = "".join(
        f'<th scope="col" data-group="{number}"><span class="swatch" data-swatch="{number}"></span>'
        f'<code title="{escape(rows[number].label)}">{escape(shorten(rows[number].label, LABEL))}</code></th>'
        for number in order
    )
    body = ""
    for key, written in settings.items():
        body += f'<tr><th scope="row"><code>{escape(key)}</code></th>'
        for number in order:
            value = written[number]
            text = ABSENT if value is None else escape(value)
            changed = value != written[baseline]
            body += f'<td data-group="{number}"{" class=changed" if changed else ""}>{text}</td>'
        body += "</tr>"
    return DIFFERENCES.format(head=head, body=body)
