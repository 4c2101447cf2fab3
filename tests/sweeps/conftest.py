import sys

import pytest

from recipes.check import choice, harness

MANY = "# Made for a test.\n{option}:\n  _target_: {target}\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package with regularizers: one a class of a module; the sweeps find them beside ours."""

    def put(text, *classes):
        package = tmp_path / "packages" / "made_for_a_test"
        options = package / "conf" / "regularizer"
        options.mkdir(parents=True)
        (package / "regularizer").mkdir()
        for name in classes:
            option = name.lower()
            (package / "regularizer" / f"{option}.py").write_text(text)
            target = f"made_for_a_test.regularizer.{option}.{name}"
            (options / f"{option}.yaml").write_text(MANY.format(option=option, target=target))
        metadata = package.parent / "made_for_a_test-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: made-for-a-test\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[lightning_recipes]\nmade_for_a_test = made_for_a_test.conf\n")
        monkeypatch.syspath_prepend(package.parent)
        choice.catalogue.cache_clear()

    yield put
    for function in (choice.catalogue, harness.needs, harness._needs, harness.works_on):
        function.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_for_a_test"]:
        del sys.modules[name]
