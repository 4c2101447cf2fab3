"""The command `export.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from plugins.errors import RecipeError
from recipes.cli.exits import exit_with, run_command
from recipes.cli.flags import parse_flags
from recipes.cli.printing import expect_printed
from recipes.cli.words import folders_among, key_of, learn_own, value_of
from recipes.config.catalogue import Catalogue, installed_folders
from recipes.config.environment import told
from recipes.config.invoked import as_typed
from recipes.config.spelling import suggest
from recipes.launch import ranks

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}  # by format
OWN = ("format", "output")


def main(words: Sequence[str] | None = None) -> None:
    """`export.py`: ends the process with an exit code unless all went well."""
    exit_with(lambda: run_command(_export, words))


def _export(words: list[str]) -> int:
    flags = parse_flags(words, "export.py")
    if ranks.world() > 1:
        raise RecipeError("export.py writes a file in one process: start one, not several")
    from recipes.config.changing import ON_EXPORT, read_run
    from recipes.config.own import typed_again
    from recipes.config.searching import search_folders

    learn_own(flags)
    catalogue = Catalogue([*installed_folders(), *search_folders([], flags.config_dir)])
    if flags.help:
        from recipes.config.help import export_help

        asked = [word for word in flags.overrides if not Path(word).is_dir() and key_of(word) not in OWN]
        print(as_typed(export_help(catalogue, ON_EXPORT, asked)), end="")
        expect_printed()
        return 0
    folders = folders_among(flags.overrides)
    if len(folders) != 1:
        raise RecipeError(f"expected one run folder, got {len(folders)}: python export.py RUN_FOLDER format=onnx")
    changes = [word for word in flags.overrides if word not in folders and key_of(word) not in OWN]
    form, output = file_of(value_of("format", flags.overrides), value_of("output", flags.overrides))
    folder = Path(folders[0])
    from recipes.run import memory

    trained = read_run(catalogue, folder)
    changes = typed_again(trained, changes)
    with memory.told(trained):
        with told():
            from recipes.run.export import export

        export(catalogue, folder, changes, form, output)
    expect_printed()
    return 0


def file_of(form: str | None, name: str | None) -> tuple[str, Path]:
    """Format and file, of which each may be told by the other; refused where they do not fit."""
    ending = Path(name or "").suffix
    form = form or next((each for each, known in ENDINGS.items() if known == ending), None)
    if form is None:
        raise RecipeError(f"no format is given: expected one of format={', format='.join(ENDINGS)}")
    if form not in ENDINGS:
        raise RecipeError(f"there is no format={form}; {suggest(form, [*ENDINGS], 'format={}')}")
    output = Path(name or f"model{ENDINGS[form]}")
    if output.suffix != ENDINGS[form]:
        raise RecipeError(f"output={output}: expected a file that ends with {ENDINGS[form]} for format={form}")
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise RecipeError(f"output={output}: expected a file in a folder that there is")
    return form, output
