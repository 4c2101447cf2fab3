"""The comparison on Weights & Biases: a workspace with the views of the report, and the command that syncs offline runs.

What is on wandb is read from the runs' results, never from wandb's own files. Nothing here imports torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plugins.errors import RecipeError
from recipes.compare.groups import Comparison
from recipes.compare.runs import RESUMED, Run
from recipes.compare.wandb_server import NO_KEY, _default_entity, _plain, _shortly, _why_not, save
from recipes.config.errors import printable
from recipes.store.wandb_sync import sync_command

if TYPE_CHECKING:
    from rich.console import Console

    from recipes.compare.statistics import Row

FILE = "wandb-workspace.json"
STEP = "trainer/global_step"
SPLITS = ("val", "train")
NO_TECHNIQUE = (*SPLITS, "test", "step", "trainer")  # what stands before the slash in names that everything has


# Syncing


def on_wandb(comparison: Comparison) -> dict[str, str]:
    """Where the runs of a comparison are on wandb, and how to sync those that are not there yet; lines with their names."""
    places = Counter(
        (run.result["wandb"].get("group"), run.result["wandb"].get("project"), _project_url(run)) for run in logged(comparison)
    )
    groups = [f"{f'group {group}' if group else 'runs'} in {url or f'project {project}'}" for group, project, url in places]
    lines = {"wandb": ", ".join(groups)} if groups else {}
    if command := sync_command(run.folder for run in [*comparison.runs, *comparison.unfinished]):
        lines["sync"] = command
    return lines


def _project_url(run: Run) -> str | None:
    url = run.result["wandb"].get("url")
    return str(url).partition("/runs/")[0] if url else None


def logged(comparison: Comparison) -> list[Run]:
    """The runs that wandb knows, or will once they are synced."""
    return [run for run in comparison.runs if isinstance(run.result.get("wandb"), dict) and run.result["wandb"].get("id")]


# The workspace


def show_workspace(comparison: Comparison, rows: Sequence[Row], output: Path, console: Console) -> None:
    """Make a workspace with the views of the report on wandb, or update the one that an earlier call made.

    Its address is kept in `wandb-workspace.json` of the folder `output`. Without a key or a server it says what it would make.

    Raises:
        RecipeError: the package wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces  # noqa: F401
    except ModuleNotFoundError:
        raise RecipeError('--wandb needs the package wandb-workspaces: pip install "wandb-workspaces>=0.4"') from None

    def say(line: str) -> None:
        console.print(printable(line), soft_wrap=True, markup=False, highlight=False)

    runs = logged(comparison)
    if not runs:
        say("wandb    none of these runs was logged to wandb: train them with logger=wandb, or logger=[csv,wandb]")
        return
    entity, project, chosen = choose_project(runs)
    name = _plain(f"comparison {output.resolve().name}")
    of_all = "" if len(chosen) == len(comparison.runs) else f" of {len(comparison.runs)}"
    made = sections(comparison, rows, chosen)
    say(f"wandb    workspace {name!r} in project {project}: {len(chosen)}{of_all} runs, grouped by group and job type")
    width = max(len(section.name) for section in made)
    for section in made:
        say(f"         {section.name:{width}}  {' · '.join(map(title, section.panels))}")
    if len(runs) < len(comparison.runs):
        say(f"         left out: {len(comparison.runs) - len(runs)} not logged to wandb")
    if len(chosen) < len(runs):
        say(f"         left out: {len(runs) - len(chosen)} in other projects; a workspace shows one, so compare these apart")
    command = sync_command(run.folder for run in chosen)
    reason, url = _why_not(), ""
    if not reason:
        try:
            url = save(make(comparison, made, chosen, entity or _default_entity(), project, name), output / FILE)
        except Exception as error:  # whatever the server says, the comparison stands
            reason = _shortly(error)
    if url:
        say(f"         saved: {url}")
    else:
        say(f"         not saved: {reason}")
        say(f"         to save it{': wandb login, then' if reason == NO_KEY else ','} repeat the command, with --wandb")
    if command:
        say(f"sync     {command}")


def choose_project(runs: Sequence[Run]) -> tuple[str | None, str, list[Run]]:
    """Owner and name of the project with the most runs, and those runs; None is the owner of the key.

    Of runs that were logged offline the owner need not be known: then it is that of the others.
    """
    owners = Counter(run.result["wandb"].get("entity") for run in runs if run.result["wandb"].get("entity"))
    usual = owners.most_common(1)[0][0] if owners else None
    places: dict[tuple[str | None, str], list[Run]] = {}
    for run in runs:
        place = run.result["wandb"]
        places.setdefault((place.get("entity") or usual, str(place.get("project"))), []).append(run)
    (entity, project), chosen = max(places.items(), key=lambda item: len(item[1]))
    return entity, project, chosen


def sections(comparison: Comparison, rows: Sequence[Row], runs: Sequence[Run]) -> list[Any]:
    """The sections of the workspace with their panels."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    from recipes.compare.markup import to_markdown

    metric, result = comparison.metric, f"result/{comparison.metric}"
    shown = max(10, len(comparison.groups))
    over_seeds: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev", "max_runs_to_show": shown}

    def curve(name: str) -> Any:
        return wr.LinePlot(title=name, x=STEP, y=[name], **over_seeds)

    def bars(name: str, title: str) -> Any:
        return wr.BarPlot(title=title, metrics=[name], max_bars_to_show=shown, **over_seeds)

    def against(name: str) -> Any:
        return wr.ScatterPlot(title=f"{metric} against {name}", x=wr.SummaryMetric(name), y=wr.SummaryMetric(result))

    names = list(dict.fromkeys(name for group in comparison.groups for run in group.runs[:1] for name in run.curves))
    curves = [name for split in SPLITS for name in names if name.startswith(f"{split}/")]
    leading = f"val/{metric.partition('/')[2]}"
    curves.sort(key=lambda name: name != leading)
    axes: list[Any] = [wr.Metric("JobType"), *(wr.Config(key) for key in comparable_keys(comparison)), wr.SummaryMetric(result)]
    made = [
        ws.Section(
            name="Comparison",
            panels=[bars(result, metric), against("seconds"), wr.MarkdownPanel(markdown=to_markdown(comparison, rows))],
            is_open=True,
        ),
        ws.Section(name="Learning curves", panels=[curve(name) for name in curves], is_open=True),
        ws.Section(
            name="Hyperparameters",
            panels=[
                wr.ParallelCoordinatesPlot(
                    title="hyperparameters", columns=[wr.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]
                )
            ],
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(columns=1, rows=1),
        ),
        ws.Section(
            name="Cost",
            panels=[bars(name, name) for name in ("seconds", "peak_memory", "samples_per_second", "parameters")],
        ),
        ws.Section(
            name="Runs",
            panels=[wr.RunComparer(diff_only="split")],
            layout_settings=ws.SectionLayoutSettings(columns=1, rows=1),
        ),
    ]
    by_owner: dict[str, list[str]] = {}
    for name in names:
        owner, slash, _ = name.partition("/")
        if slash and owner not in NO_TECHNIQUE:
            by_owner.setdefault(owner, []).append(name)
    made += [ws.Section(name=_plain(owner), panels=list(map(curve, owned))) for owner, owned in by_owner.items()]
    return [section for section in made if section.panels]


def comparable_keys(comparison: Comparison) -> list[str]:
    """The config keys that make an axis: numbers or words of which several groups have different ones."""
    keys = []
    for key in comparison.differing:
        values = [group.values[key] for group in comparison.groups if key in group.values]
        plain = all(isinstance(value, bool | int | float | str) for value in values)
        if plain and len(set(map(str, values))) > 1 and not key.endswith("._target_") and key != RESUMED:
            keys.append(key)
    return keys


def make(comparison: Comparison, made: Sequence[Any], runs: Sequence[Run], entity: str, project: str, name: str) -> Any:
    """The workspace with these sections, of these runs only, averaged over seeds."""
    import wandb_workspaces.workspaces as ws

    pinned = [f"summary:{name}" for name in (f"result/{comparison.metric}", "seconds", "peak_memory")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=list(made),
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=max(10, len(comparison.groups))),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("ID").isin([run.result["wandb"]["id"] for run in runs])),
            groupby=[ws.Metric("Group"), ws.Metric("JobType")],
            pinned_columns=pinned,
        ),
    )


def title(panel: Any) -> str:
    """A panel in words."""
    return str(getattr(panel, "title", None) or {"MarkdownPanel": "table", "RunComparer": "run comparer"}[type(panel).__name__])


# The server
