"""The server of Weights & Biases: whether it can be reached, and a workspace saved there once. Nothing here imports torch."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from plugins.errors import RecipeError
from recipes.config.errors import one_line
from recipes.config.kinds import is_text, is_texts
from recipes.config.untrusted import read_json

PATIENCE = 10  # seconds for an answer of the server
# by default wandb tries for minutes, also while the process ends
WAITING = {"x_graphql_retry_max": 1, "x_graphql_retry_wait_max_seconds": 1, "x_graphql_timeout_seconds": PATIENCE}
NO_KEY = "there is no key on this machine"
NOT_SENT = ("offline", "dryrun", "disabled")  # values of WANDB_MODE


def _why_not() -> str:
    """Why nothing is sent; empty where the server answers to the key."""
    import wandb

    if (mode := os.environ.get("WANDB_MODE")) in NOT_SENT:
        return f"WANDB_MODE is {mode}"
    try:
        waiting = {name: value for name, value in WAITING.items() if name in wandb.Settings.model_fields}
        wandb.setup(wandb.Settings(silent=True, **waiting))  # type: ignore[arg-type]
        if not wandb.login(prompt=False, verify=False):
            return NO_KEY
        wandb.Api(timeout=PATIENCE)
    except Exception as error:  # whatever is wrong with the key or the server, the comparison stands
        return _shortly(error)
    return ""


def _default_entity() -> str:
    import wandb

    return str(wandb.Api(timeout=PATIENCE).default_entity)


def save(workspace: Any, path: Path) -> str:
    """Save a workspace on the server, in place of the one that `path` remembers; returns its address."""
    import wandb_workspaces.workspaces as ws

    from recipes.store.files import write_text

    names = [section.name for section in workspace.sections]
    known = _remembered(path)
    if f"/{workspace.entity}/{workspace.project}?" in known.get("url", ""):
        try:
            there = ws.Workspace.from_url(known["url"])
        except ValueError:  # somebody has removed it
            there = workspace
        if there is not workspace:
            others = [section for section in there.sections if section.name not in (*known.get("sections", []), *names)]
            there.name, there.sections = workspace.name, [*workspace.sections, *others]
            there.settings, there.runset_settings = workspace.settings, workspace.runset_settings
            workspace = there
    workspace.save()
    write_text(path, json.dumps({"url": workspace.url, "sections": names}, indent=2) + "\n")
    return str(workspace.url)


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = read_json(path)
    except (OSError, RecipeError):
        return {}
    return known if is_text(known.get("url")) and is_texts(known.get("sections", [])) else {}


def _plain(text: str) -> str:
    """A name without the signs that wandb takes for emojis, such as + and =."""
    return re.sub(r"[^\w .,:()\[\]-]", "-", text)


def _shortly(error: Exception) -> str:
    """An error in one line, without the repetitions that wandb adds when it has tried several times."""
    text = one_line(error).partition(" while retrying: ")[0]
    return text if len(text) <= 300 else text[:299] + "…"
