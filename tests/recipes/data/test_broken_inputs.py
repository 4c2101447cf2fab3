"""Files as people have them, through the real command: what cannot be right is one line that says what and where, and leaves nothing.

What is odd and right all the same is taken: those stand below, `TAKEN`.
"""

import gzip
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import command
from tests.sparsely import sparsely

N = 40
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(N, 3)).astype(np.float32)
Y = np.arange(N) % 2
FAST = ("logger=[]", "trainer.progress=false", "trainer.accelerator=cpu", "max_steps=2", "data.batch_size=8")

# ------------------------------------------------------------------ what is written

ROWS = [f"{row / 7:.3f},{'red' if row % 3 else 'blue'},{'yes' if row % 2 else 'no'}" for row in range(N)]


def table(*rows, header="size,colour,label", end="\n", encoding="utf-8"):
    """A csv file."""
    return (end.join([header, *rows]) + end).encode(encoding)


def changed(row, text):
    """The rows with another one in a line of the file."""
    rows = list(ROWS)
    rows[row - 2] = text
    return rows


def csv(content, *words):
    """How a table is written, and the words that train on it."""

    def write(folder):
        (folder / "t.csv").write_bytes(content)
        return ["data=csv", f"data.path={folder / 't.csv'}", "data.target=label", *words]

    return write


def npz(compressed=False, **arrays):
    """The same for arrays."""

    def write(folder):
        (np.savez_compressed if compressed else np.savez)(folder / "a.npz", **{"x": X, "y": Y, **arrays})
        return ["data=npz", f"data.path={folder / 'a.npz'}"]

    return write


def raw(name, content, *words, kind="npz"):
    """The same for a file of bytes."""

    def write(folder):
        (folder / name).write_bytes(content)
        return [f"data={kind}", f"data.path={folder / name}", *words]

    return write


def picture(size=(8, 8), mode="RGB", kind="png", seed=0, **further):
    """An image's file."""
    file = io.BytesIO()
    depth = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(depth).convert(mode).save(file, kind, **further)
    return file.getvalue()


def images(*words, without=(), **files):
    """The same for a folder of images: ten of each of two classes, and further files by their names."""

    def write(folder):
        for number in range(20):
            place = folder / "p" / ("cat", "dog")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:02}.png").write_bytes(picture(seed=number))
        for name in without:
            shutil.rmtree(folder / "p" / name)
        for name, content in files.items():
            place = folder / "p" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        return ["data=image_folder", f"data.path={folder / 'p'}", *words]

    return write


def named(content, *words):
    """The same with a table of labels."""

    def write(folder):
        found = images(*words)(folder)
        (folder / "labels.csv").write_bytes(content)
        return [*found, f"data.labels={folder / 'labels.csv'}"]

    return write


def made(make, *words):
    """Whatever else: `make` is given the folder, and returns what lies in it."""

    def write(folder):
        return [*words, f"data.path={make(folder)}"]

    return write


# ------------------------------------------------------------------ arrays that are none


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def with_objects(folder):
    array = np.empty(N, dtype=object)
    array[:] = [Evil(folder / "ran")] * N
    np.savez(folder / "a.npz", x=X, y=array)
    return folder / "a.npz"


def pickled(folder):
    (folder / "a.npz").write_bytes(pickle.dumps(Evil(folder / "ran")))
    return folder / "a.npz"


def head(shape, descr="<f8"):
    """The head of an array that says so."""
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def with_member(content, compression=zipfile.ZIP_STORED):
    """A file whose x has these bytes."""

    def write(folder):
        np.savez(folder / "a.npz", y=Y)
        with zipfile.ZipFile(folder / "a.npz", "a", compression) as archive:
            archive.writestr("x.npy", content)
        return folder / "a.npz"

    return write


def bomb(folder):
    """An array of 8 TiB in a file of some kilobytes: the archive says so, too, so that it is no lie that gives it away."""
    shape = (N, 2**40 // N // 8 * 8)
    with_member(head(shape) + bytes(2**16), zipfile.ZIP_DEFLATED)(folder)
    content = bytearray((folder / "a.npz").read_bytes())
    told = (len(head(shape)) + 2**16).to_bytes(4, "little")
    assert content.count(told) >= 2
    (folder / "a.npz").write_bytes(content.replace(told, (2**32 - 2).to_bytes(4, "little")))
    return folder / "a.npz"


def link_to_itself(folder):
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def columns(count):
    """A table of so many columns, a piece at a time."""

    def write(folder):
        with open(folder / "wide.csv", "w") as file:
            for start in range(0, count, 10**5):
                file.write(",".join(f"c{number}" for number in range(start, start + 10**5)) + ",")
            file.write("label\n")
        return folder / "wide.csv"

    return write


def of_folder(name):
    def make(folder):
        (folder / name).mkdir(parents=True)
        return folder / name

    return make


def moved(*words):
    """Images without folders of classes."""

    def write(folder):
        found = images(*words)(folder)
        for file in [*(folder / "p").rglob("*.png")]:
            file.rename(folder / "p" / file.name)
        for name in ("cat", "dog"):
            (folder / "p" / name).rmdir()
        return found

    return write


def within(folder):
    images()(folder)
    (folder / "q").mkdir()
    (folder / "p").rename(folder / "q" / "p")
    return folder / "q"


HALF = picture((64, 64), kind="jpeg")[:900]
REFUSED = {
    # tables
    "csv: nothing": (csv(b""), "t.csv is empty: its first line must name the columns"),
    "csv: a header alone": (csv(table()), "t.csv has no rows below its header"),
    "csv: a missing target": (
        csv(table(*changed(9, "1.0,red,"))),
        "column label, the target, has no value in 1 of 40 rows (line 9)",
    ),
    "csv: no target": (csv(table(*ROWS, header="size,colour,lable")), "has no column label: did you mean lable?"),
    "csv: a name twice": (csv(table(*ROWS, header="size,size,label")), "line 1 names the column size twice"),
    "csv: mixed types": (
        csv(table(*changed(7, "big,red,no"))),
        "column size holds numbers but for 1 of 40 cells (big in line 7)",
    ),
    "csv: another separator": (csv(table(*ROWS).replace(b",", b";")), "type data.separator=semicolon"),
    "csv: tabs": (csv(table(*ROWS).replace(b",", b"\t")), "type data.separator=tab"),
    "csv: decimal commas": (
        csv(table(*ROWS).replace(b",", b";").replace(b".", b","), "data.separator=semicolon"),
        "column size holds numbers with a decimal comma, such as",
    ),
    "csv: NaN": (
        csv(table(*changed(5, "NaN,red,no"))),
        "column size has 1 holes in 40 rows (line 5): fill them by data.impute",
    ),
    "csv: infinity": (csv(table(*changed(5, "inf,red,no"))), "column size, line 5: inf is no finite number"),
    "csv: beyond 32 bits": (
        csv(table(*changed(5, "1e300,red,no"))),
        "column size, line 5: 1e300 is beyond the numbers of 32 bits",
    ),
    "csv: an unseen category": (
        csv(
            table(
                *(
                    f"{row},{part}"
                    for row, part in zip(changed(30, "1.0,green,no"), ["train"] * 25 + ["test"] * 15, strict=True)
                ),
                header="size,colour,label,part",
            ),
            "data.split=part",
        ),
        "column colour, line 30: no training row holds green; data.unseen=ignore",
    ),
    "csv: dates": (
        csv(table(*(f"2024-01-{1 + row % 28:02},{line}" for row, line in enumerate(ROWS)), header="day,size,colour,label")),
        "column day holds dates, such as 2024-01-01 in line 2",
    ),
    "csv: dates as target": (
        csv(table(*(f"{row},2024-01-{1 + row % 28:02}" for row in range(N)), header="size,label")),
        "column label, the target, holds dates",
    ),
    "csv: 10 million columns": (made(columns(10**7), "data=csv", "data.target=label"), "has more than 10,000 columns"),
    "csv: an id as target": (
        csv(table(*(f"{line},p{row}" for row, line in enumerate(ROWS)), header="size,colour,x,label"), "data.drop=[x]"),
        "column label, the target, is another class in each row, as an id",
    ),
    "csv: an id": (
        csv(table(*(f"p{row},{line}" for row, line in enumerate(ROWS)), header="name,size,colour,label")),
        "column name is another value in each row, as an id",
    ),
    "csv: a short row": (csv(table(*changed(12, "1.0,red"))), "line 12 has 2 cells, expected 3 as in the header"),
    "csv: a long row": (csv(table(*changed(12, "1.0,red,no,no"))), "line 12 has 4 cells, expected 3"),
    "csv: latin-1": (csv(table(*changed(3, "1.0,größer,no"), encoding="latin-1")), "line 3 is no UTF-8 (byte 0xf6 at place 7)"),
    "csv: utf-16": (csv(table(*ROWS, encoding="utf-16")), "t.csv: line 1"),
    "csv: an open quote": (csv(table(*changed(6, '1.0,"red,no'))), "the row of line 6 cannot be read"),
    "csv: a column without a name": (csv(table(*ROWS, header=",colour,label")), "column 1 has no name in the header"),
    "csv: an empty column": (
        csv(table(*(f",{line}" for line in ROWS), header="none,size,colour,label")),
        "column none has no value in any of its 40 rows",
    ),
    "csv: one class": (csv(table(*(line.replace("yes", "no") for line in ROWS))), "the target: all 40 rows hold one class, no"),
    "csv: NaN as label": (csv(table(*changed(4, "1.0,red,nan"))), "the target, has no value in 1 of 40 rows (line 4)"),
    "csv: a target of numbers and infinity": (
        csv(table(*(f"{row},{row * 0.3 if row else 'inf'}" for row in range(N)), header="size,label")),
        "column label, line 2: inf is no finite number",
    ),
    "csv: one row": (csv(table(ROWS[0])), "t.csv"),
    "csv: zipped": (csv(gzip.compress(table(*ROWS))), "t.csv: line 1"),
    "csv: an npz file": (csv(table(*ROWS)[:30] + bytes(100)), "holds a zero byte"),
    "csv: a folder": (
        made(of_folder("t.csv"), "data=csv", "data.target=label"),
        "t.csv is a folder: data.path must be a csv file",
    ),
    "csv: nothing there": (made(lambda folder: folder / "no.csv", "data=csv", "data.target=label"), "no file"),
    "csv: a link to itself": (made(link_to_itself, "data=csv", "data.target=label"), "no file"),
    "csv: the target as input": (
        csv(table(*ROWS), "data.inputs=[label]"),
        "data.inputs must name other columns than data.target",
    ),
    # arrays
    "npz: text": (raw("a.npz", b"1,2,3\n"), "a.npz cannot be read as an npz file: write it with numpy.savez"),
    "npz: nothing": (raw("a.npz", b""), "a.npz cannot be read as an npz file"),
    "npz: an npy file": (
        raw("a.npz", head((2, 2)) + bytes(32)),
        "a.npz is one array, and inputs and targets are two: write both with numpy.savez",
    ),
    "npz: no array": (
        made(lambda folder: (zipfile.ZipFile(folder / "a.npz", "w").close(), folder / "a.npz")[1], "data=npz"),
        "a.npz holds no array",
    ),
    "npz: an empty folder": (made(of_folder("a"), "data=npz"), "holds no array"),
    "npz: another name": (npz(), "a.npz has no array z: it has x, y"),
    "npz: objects": (
        made(with_objects, "data=npz"),
        "a.npz holds an array of Python objects, which are never unpickled: write numbers or text",
    ),
    "npz: a pickle": (made(pickled, "data=npz"), "a.npz cannot be read as an npz file"),
    "npz: a head that lies": (made(with_member(head((N, 10**12)) + bytes(64)), "data=npz"), "a.npz is damaged"),
    "npz: a packed head that lies": (
        made(with_member(head((N, 10**12)) + bytes(64), zipfile.ZIP_DEFLATED), "data=npz"),
        "a.npz is damaged",
    ),
    "npz: a negative shape": (made(with_member(head((N, -3)) + bytes(64)), "data=npz"), "a.npz"),
    "npz: a bomb": (made(bomb, "data=npz"), "a.npz"),
    "npz: unequal lengths": (npz(y=Y[:30]), "arrays differ in length: x has 40, y has 30"),
    "npz: NaN": (npz(x=np.where(X > 2, np.nan, X * np.nan)), "x holds 120 values that are NaN or infinite"),
    "npz: NaN as label": (npz(y=np.where(Y, 1.0, np.nan)), "y holds 20 values that are NaN or infinite"),
    "npz: infinite targets": (npz(y=np.where(Y, 1.5, np.inf)), "y holds 20 values that are NaN or infinite"),
    "npz: no rows": (npz(x=X[:0], y=Y[:0]), "x must be at least one sample"),
    "npz: no features": (npz(x=X[:, :0]), "x must be at least one sample"),
    "npz: one number": (npz(x=np.array(1.0)), "x must be features (samples, features) or images"),
    "npz: one label": (npz(y=np.array(1)), "y must be an array with one entry a sample"),
    "npz: one class": (npz(y=Y * 0), "all 40 training labels are of one class, 0"),
    "npz: an id": (npz(y=np.arange(N) * 10**6), "they reach from 0 to 39000000, out of range"),
    "npz: beyond 64 bits": (npz(y=np.full(N, 2**64 - 1, np.uint64) - Y.astype(np.uint64)), "y must hold class numbers"),
    "npz: complex": (npz(x=X.astype(complex)), "x must be numbers, got dtype('complex128')"),
    "npz: complex targets": (npz(y=Y.astype(complex)), "y must hold numbers or names, got complex128"),
    "npz: dates": (npz(x=X.astype("datetime64[s]")), "x must be numbers, got dtype('<M8[s]')"),
    "npz: dates as targets": (npz(y=Y.astype("datetime64[D]")), "y must hold numbers or names, got datetime64[D]"),
    "npz: fields": (npz(x=np.zeros((N, 2), [("a", "f4"), ("b", "i4")])), "x must be numbers, got dtype("),
    "npz: text as input": (npz(x=np.array([["a"]] * N)), "x must be numbers"),
    "npz: text with holes": (
        npz(y=np.array(["a", "b", "", "c"] * 10)),
        "y has no label in 10 of 40 places, such as number 2 (from 0)",
    ),
    "npz: truth values alone": (npz(y=np.ones(N, bool)), "of one class"),
    "npz: a folder with a broken array": (
        made(lambda folder: (np.save(folder / "y.npy", Y), (folder / "x.npy").write_bytes(b"x"), folder)[2], "data=npz"),
        "is damaged",
    ),
    "npz: nothing there": (made(lambda folder: folder / "no.npz", "data=npz"), "no file"),
    # images
    "images: nothing there": (made(lambda folder: folder / "no", "data=image_folder"), "no folder"),
    "images: a file": (
        raw("p", b"x", kind="image_folder"),
        "p is a file: data.path must be a folder with a folder of images for each class",
    ),
    "images: a link to itself": (made(link_to_itself, "data=image_folder"), "loop"),
    "images: an empty folder": (made(of_folder("p"), "data=image_folder"), "p has no folders: it must have one for each class"),
    "images: empty classes": (
        images(without=["cat", "dog"], **{"cat/a.txt": b"", "dog/b.txt": b""}),
        "cat has no images (.jpg",
    ),
    "images: one class": (images(without=["dog"]), "p has one folder, cat, and a class alone is nothing to tell apart"),
    "images: one folder too high": (made(within, "data=image_folder"), "if these are in it, type data.path="),
    "images: no classes": (moved(), "p has no folders: it must have one for each class"),
    "images: hidden files alone": (
        images(without=["cat"], **{"cat/.DS_Store": b"", "cat/Thumbs.db": b"", "cat/._a.png": b""}),
        "cat has no images (.jpg",
    ),
    "images: vector graphics": (
        images(without=["cat"], **{"cat/a.svg": b"<svg/>"}),
        "cat has no images (.jpg, .jpeg, .png, .bmp, .gif, .webp, .tif, .tiff, .ppm, .pgm); it holds a.svg",
    ),
    "images: text": (
        images(**{"cat/z.png": b"hello"}),
        "cat/z.png cannot be read as an image (of no kind that is known here): write it again, or take it away; data.broken=skip leaves it out",
    ),
    "images: no byte": (images(**{"cat/z.jpg": b""}), "cat/z.jpg cannot be read as an image (the file is empty)"),
    "images: breaks off": (
        images(
            **{"cat/z.jpg": HALF},
        ),
        "images differ in size",
    ),
    "images: breaks off, resized": (
        images("data.size=8", **{"cat/z.jpg": HALF}),
        "cat/z.jpg cannot be read as an image (image file is truncated",
    ),
    "images: several are broken": (
        images("data.size=8", **{f"cat/z{n}.jpg": HALF for n in range(5)}),
        "5 files cannot be read as images: ",
    ),
    "images: several sizes": (images(**{"cat/z.png": picture((9, 8))}), "images differ in size: "),
    "images: floats": (
        images(**{"cat/z.tif": picture(mode="F", kind="tiff")}),
        "z.tif cannot be read as an image (its pixels are of the kind F, expected 8 or 16 bits)",
    ),
    "images: a bomb": (
        images(**{"cat/z.pgm": b"P5 100000 100000 255\n"}),
        "z.pgm cannot be read as an image (Image size (10000000000 pixels) exceeds limit",
    ),
    "images: a class of broken ones": (
        images("data.broken=skip", without=["cat"], **{"cat/a.png": b"", "cat/b.png": b""}),
        "none of the images of the class cat can be read",
    ),
    "images: none but broken ones": (
        images("data.broken=skip", without=["cat", "dog"], **{"cat/a.png": b"", "dog/b.png": b""}),
        "2 files cannot be read as images",
    ),
    "images: a test of further classes": (
        made(
            lambda folder: (
                within(folder),
                (folder / "q" / "p").rename(folder / "q" / "train"),
                (folder / "q" / "test" / "cow").mkdir(parents=True),
                folder / "q",
            )[3],
            "data=image_folder",
        ),
        "has the class cow, which",
    ),
    "images: no labels": (images("data.labels=no.csv"), "no.csv: data.labels must be a csv file"),
    "images: labels of files that are not there": (
        named(b"file,label\nx.png,a\ny.png,b\n"),
        "2 files cannot be read as images: ",
    ),
    "images: a folder in the table": (named(b"file,label\ncat,a\ndog/01.png,b\n"), "p/cat (line 2 of"),
    "images: a missing label": (
        named(b"file,label\ncat/00.png,\ndog/01.png,b\n"),
        "column label, the target, has no value in 1 of 2 rows (line 2)",
    ),
    "images: one named twice": (
        named(b"file,label\ncat/00.png,a\ncat/00.png,b\n"),
        'column file, line 3 names "cat/00.png", as line 2 does',
    ),
    "images: another separator": (named(b"file;label\ncat/00.png;a\n"), "type data.separator=semicolon"),
    "images: labels for folders": (images("data.task=regression"), "data.task must be left out without data.labels=FILE.csv"),
}
REFUSED["npz: another name"] = (lambda folder: [*npz()(folder), "data.input=z"], "a.npz has no array z: it has x, y")


def run(write, tmp_path, *words):
    """The ended command, in an empty folder of its own."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    return command("train.py", *write(tmp_path / "in"), *FAST, *words, cwd=tmp_path / "out", forked=True)


def expect_one_line(done, tmp_path):
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert not done.stdout and not any((tmp_path / "out").iterdir())
    assert not (tmp_path / "in" / "ran").exists(), "something was unpickled"


@pytest.mark.parametrize("name", sparsely(REFUSED))
def test_is_one_line_and_leaves_nothing(name, tmp_path):
    write, says = REFUSED[name]
    done = run(write, tmp_path)
    expect_one_line(done, tmp_path)
    assert says in done.stderr


# ------------------------------------------------------------------ odd, and taken

DEEP = io.BytesIO()
Image.fromarray(RANDOM.integers(0, 65536, (8, 8), dtype=np.uint16)).save(DEEP, "png")
ODD = {
    "cat/deep.png": DEEP.getvalue(),
    "cat/print.jpg": picture(mode="CMYK", kind="jpeg"),
    "cat/palette.gif": picture(mode="P", kind="gif", save_all=True, append_images=[Image.new("P", (8, 8), 3)]),
    "dog/clear.PNG": picture(mode="RGBA"),
    "dog/bits.BMP": picture(mode="1", kind="bmp"),
    "dog/web.WebP": picture(kind="webp"),
    "a b, c=d größer/one.JPEG": picture(kind="jpeg"),
    "dog/.DS_Store": b"x",
    "__MACOSX/dog/._a.png": b"x",
}
TAKEN = {
    "csv: a byte order mark": (csv(b"\xef\xbb\xbf" + table(*ROWS)), "1 numeric and 1 categorical columns"),
    "csv: other line ends": (csv(table(*ROWS, end="\r\n")), "40 rows"),
    "csv: empty lines": (csv(table(*(line for row in ROWS for line in (row, "")))), "40 rows"),
    "csv: line breaks in a cell": (csv(table(*(row.replace("red", '"dark\nred"') for row in ROWS))), "40 rows"),
    "npz: a bomb that fits": (npz(compressed=True, x=np.zeros((N, 1000))), "28 training samples"),
    "npz: column by column": (npz(x=np.asfortranarray(X)), "28 training samples"),
    "npz: the other end first": (npz(x=X.astype(">f8"), y=Y.astype(">i8")), "28 training samples"),
    "npz: truth values": (npz(y=Y.astype(bool)), "target y: 2 classes"),
    "npz: text": (npz(y=np.array(["no", "größer"])[Y]), "target y: 2 classes"),
    "images: of every kind": (images("data.size=8", **ODD), "27 images (3, 8, 8) are in memory"),
    "images: broken ones left out": (
        images("data.broken=skip", "data.size=8", **{"cat/z.jpg": HALF, "dog/none.png": b""}),
        "2 broken files left out: ",
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_is_taken(name, tmp_path):
    write, says = TAKEN[name]
    done = run(write, tmp_path, "model=linear")
    assert done.returncode == 0 and not done.stderr and says in " ".join(done.stdout.split())


# ------------------------------------------------------------------ another library reads

HUB = {
    "nothing there": (made(lambda folder: folder / "no", "data.input=[size]", "data.target=label"), "no folder or file"),
    "no column": (
        raw("t.csv", table(*ROWS), "data.input=[big]", "data.target=label", kind="huggingface"),
        "has no column big; it has size",
    ),
    "no input": (raw("t.csv", table(*ROWS), "data.target=label", kind="huggingface"), "data.input must name a column"),
    "text as input": (
        raw("t.csv", table(*ROWS), "data.input=[colour]", "data.target=label", kind="huggingface"),
        "holds text, expected numbers",
    ),
    "an empty cell": (
        raw("t.csv", table(*changed(9, ",red,no")), "data.input=[size]", "data.target=label", kind="huggingface"),
        "row 7: the cell is empty",
    ),
    "damaged": (
        raw("t.parquet", b"PAR1" + bytes(40), "data.input=[size]", "data.target=label", kind="huggingface"),
        "t.parquet cannot be read",
    ),
    "lists of several lengths": (
        raw(
            "t.jsonl",
            b"".join(json.dumps({"s": [0.5] * (2 + row % 2), "label": row % 2}).encode() + b"\n" for row in range(N)),
            "data.input=s",
            "data.target=label",
            kind="huggingface",
        ),
        "lists differ in length, 2 in row 0 and 3 in row 1",
    ),
    "an image that breaks off": (
        lambda folder: [
            "data=huggingface",
            *images("data.size=8", "data.input=image", "data.target=label", **{"cat/z.jpg": HALF})(folder)[1:],
        ],
        "cannot be read as an image (image file is truncated",
    ),
}


@pytest.mark.parametrize("name", HUB)
def test_what_datasets_reads_is_one_line(name, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write, says = HUB[name]
    words = write
    done = run((lambda folder: ["data=huggingface", *words(folder)]) if name == "nothing there" else words, tmp_path)
    expect_one_line(done, tmp_path)
    assert says in done.stderr
