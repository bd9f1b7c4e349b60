"""Import paths: what they find, and what is said when they do not."""

from __future__ import annotations

import sys

import pytest

from common.exits import Exit, UsageError
from common.import_path import import_callable, is_import_path


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working directory of its own; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_names_without_colon_are_built_in():
    assert is_import_path("my_pkg.nets:build")
    assert not is_import_path("resnet18")


def test_finds_functions_in_packages_of_the_working_directory(workplace):
    package = workplace / "plugged_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(
        "def build():\n    return 'built'\n\nclass Maker:\n    make = staticmethod(build)\n"
    )
    assert import_callable("plugged_pkg.nets:build")() == "built"
    assert import_callable("plugged_pkg.nets:Maker.make")() == "built"


def test_a_file_of_the_working_directory_never_replaces_an_installed_module(workplace):
    (workplace / "yaml.py").write_text("def safe_load(text):\n    return 'shadow'\n")
    assert import_callable("yaml:safe_load")("a: 1") == {"a": 1}


@pytest.mark.parametrize("text", ["nets.py:build", "my pkg:build", ":build", "nets:", "a:b:c", "../nets:build", "1a:b"])
def test_malformed_paths_are_refused_before_anything_is_imported(text):
    with pytest.raises(UsageError, match=r"is no import path; write it as `package\.module:name`") as caught:
        import_callable(text, field="model.architecture")
    assert caught.value.exit == Exit.USAGE
    assert caught.value.field == "model.architecture"


def test_a_missing_module_is_named_with_the_place_looked_at(workplace):
    with pytest.raises(UsageError, match="there is no module `absent_pkg`") as caught:
        import_callable("absent_pkg.nets:build")
    assert str(workplace) in str(caught.value)


def test_a_missing_submodule_is_told_apart_from_a_missing_dependency(workplace):
    (workplace / "needs_other.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(UsageError, match="it needs `not_installed_anywhere`"):
        import_callable("needs_other:build")
    with pytest.raises(UsageError, match=r"there is no module `yaml\.absent`"):
        import_callable("yaml.absent:build")


@pytest.mark.parametrize("source", ["def build(:\n", "1 / 0\n", "from math import no_such_name\n"])
def test_errors_inside_the_module_are_reported_as_its_own(workplace, source):
    (workplace / "breaks.py").write_text(source)
    with pytest.raises(UsageError, match=r"importing `breaks` failed with \w+Error: .+; correct that module"):
        import_callable("breaks:build")


def test_a_wrong_name_gets_a_suggestion(workplace):
    (workplace / "suggests.py").write_text("def build_net():\n    pass\n\nWIDTH = 3\n")
    with pytest.raises(UsageError, match=r"suggests\.py has no `bild_net`; did you mean `build_net`\?"):
        import_callable("suggests:bild_net")
    with pytest.raises(UsageError, match="is of type int, which cannot be called"):
        import_callable("suggests:WIDTH")
