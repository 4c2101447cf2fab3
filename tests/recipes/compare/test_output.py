"""A comparison overwrites no file but those of an earlier one."""

import pytest

from plugins.errors import RecipeError
from recipes.compare.output import PAGE, PICTURE, SIGNS, output_folder


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("kind", ["text", "link"])
def test_a_file_of_another_program_stays(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "text":
        path.write_text("mine")
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecipeError, match=f"holds {name}.*--output FOLDER"):
        output_folder([], tmp_path)


def test_pictures_and_pages_of_ones_own_stay(tmp_path):
    """Matplotlib writes its name into all pictures, and a copy of a page under another name is somebody's own."""
    kept = {"compare_mine.png": b"\x89PNG Software\0Matplotlib", "report_kept.html": PAGE, "compare-b.png": PICTURE}
    gone = {"compare-a-x.png": PICTURE, "report-a-x.html": PAGE, "compare.png": PICTURE}
    for name, content in (kept | gone).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "ranks.csv").write_text("label,mean_rank,a x,c\n")
    output_folder([], tmp_path, ["-d", "-e"])
    assert {path.name for path in tmp_path.iterdir()} == {*kept}


def test_beside_other_files(tmp_path):
    (tmp_path / "mine.csv").write_text("mine")
    assert output_folder([tmp_path], None) == tmp_path
    assert output_folder([], tmp_path / "new").is_dir()


def test_files_of_an_earlier_comparison_are_written_anew(tmp_path):
    """Also those of runs on folds, whose table has a further column."""
    for head in ("label,seed,folder,status", "label,seed,fold,folder,status"):
        (tmp_path / "runs.csv").write_text(f"{head}\n")
        assert output_folder([], tmp_path) == tmp_path
