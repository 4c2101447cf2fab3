"""Packages with options of their own, written as pip leaves them."""

from recipes.config.catalogue import ENTRY_POINTS


def make_entry_points(folder, name, **values):
    """What pip leaves of a package with these entry points."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join([f"[{ENTRY_POINTS}]", *(" = ".join(pair) for pair in values.items()), ""]))


def make_diagnostics(folder, name, code):
    """A package of one file with the option diagnostics/`name`, whose class has that name with a capital."""
    conf = folder / name / "conf" / "diagnostics"
    conf.mkdir(parents=True)
    (conf / f"{name}.yaml").write_text(f"{name}:\n  _target_: {name}.{name.title()}\n")
    (folder / name / "__init__.py").write_text(code)
    make_entry_points(folder, name, **{name: f"{name}.conf"})
