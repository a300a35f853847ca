"""docs/add-a-method.md does what it says: its method is not there yet, and its code works."""

import sys
from types import ModuleType

import pytest
from tiny import ROOT
from tutorial import code_blocks

from pipeline.config import load_config
from pipeline.merging import methods
from pipeline.merging.options import check_options
from pipeline.report import style
from pipeline.vectors import TaskVectors


def test_the_method_of_the_page_works(monkeypatch: pytest.MonkeyPatch, vectors: TaskVectors):
    blocks = code_blocks(ROOT / "docs" / "add-a-method.md")
    function, row, look, tests = (code for language, code in blocks if language == "python")
    [(name, method)] = eval(f"{{{row}}}", vars(methods)).items()
    assert name not in methods.METHODS, "choose a method for the page that is not there yet"
    [(named, drawn)] = eval(f"{{{look}}}", vars(style)).items()
    assert named == name
    own = (drawn.colour, drawn.marker, drawn.open)
    assert own not in {(one.colour, one.marker, one.open) for one in style.LOOKS.values()}

    monkeypatch.setitem(methods.METHODS, name, method)
    check_options(name, method.defaults)
    module = ModuleType(f"pipeline.merging.{method.function.partition(':')[0]}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(function, vars(module))
    namespace: dict = {}
    exec(tests, namespace)
    found = [test for called, test in namespace.items() if called.startswith("test_")]
    assert len(found) == 3
    for test in found:
        test(*([vectors] if test.__code__.co_argcount else []))


def test_the_profile_of_the_page_has_the_keys_of_a_profile():
    [block] = [c for kind, c in code_blocks(ROOT / "docs" / "add-a-method.md") if kind == "yaml"]
    merge = load_config(ROOT, "mini").profile.merge
    keys = [line.strip().partition(":")[0] for line in block.splitlines()[1:]]
    assert {*keys} >= {*type(merge).model_fields}
