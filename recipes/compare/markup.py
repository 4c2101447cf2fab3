"""The comparison as a table in Markdown and LaTeX. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from recipes.compare.groups import Comparison
from recipes.compare.statistics import Row
from recipes.compare.table import columns, legend, title

MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_<>[]|"})
LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
    | {"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "…": r"\ldots{}", "·": r"$\cdot$", "≥": r"$\geq$", "≤": r"$\leq$"}
    | {"→": r"$\to$"}
)


def to_markdown(comparison: Comparison, rows: Sequence[Row]) -> str:
    """The table and the notes below it."""
    found = columns(rows)
    lines = [title(comparison), ""]
    lines.append("| " + " | ".join(column.heading for column in found) + " |")
    lines.append("|" + "|".join("---" if column.left else "--:" for column in found) + "|")
    for number, row in enumerate(rows):
        cells = [column.cells[number] for column in found]
        cells[0] = "`" + row.label.replace("|", "\\|") + "`" + cells[0][len(row.label) :]
        for place, column in enumerate(found):
            if row.significant and column.marked:
                cells[place] = "**" + cells[place].replace("*", "\\*") + "**"
        lines.append("| " + " | ".join(cells) + " |")
    if said := legend(rows):
        lines += ["", said.replace("*", "\\*")]
    lines += ["", *(f"- {note.translate(MARKDOWN)}" for note in comparison.notes)]
    return "\n".join(lines).rstrip() + "\n"


def to_latex(comparison: Comparison, rows: Sequence[Row]) -> str:
    r"""A tabular for `\input`; needs the package booktabs."""
    found = columns(rows)
    said = "; ".join(filter(None, [title(comparison), legend(rows)]))
    lines = [f"% {said}", "% needs \\usepackage{booktabs}"]
    lines += [f"% {note}" for note in comparison.notes]
    lines += [r"\begin{tabular}{" + "".join("l" if column.left else "r" for column in found) + "}", r"\toprule"]
    lines += [" & ".join(column.heading.translate(LATEX) for column in found) + r" \\", r"\midrule"]
    for number, row in enumerate(rows):
        cells = []
        for column in found:
            text = column.cells[number].translate(LATEX)
            if column.name == "label":
                text = r"\texttt{" + row.label.translate(LATEX) + "}" + text[len(row.label.translate(LATEX)) :]
            else:
                text = text.replace("-", "$-$")
            if row.significant and column.marked:
                text = r"\textbf{" + text + "}"
            cells.append(text)
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
