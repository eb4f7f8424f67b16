"""Objects by their names, and the small helpers beside them."""

from __future__ import annotations

import collections
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from celeriac import Celeriac, objects


def test_objects_are_found_by_their_names() -> None:
    assert objects.get_cls_by_name("os.path.join") is os.path.join
    assert objects.get_cls_by_name("collections:OrderedDict") is collections.OrderedDict
    assert objects.get_cls_by_name("short", aliases={"short": "collections.OrderedDict"}) is collections.OrderedDict
    assert objects.get_cls_by_name(".decoder.JSONDecoder", package="json") is json.JSONDecoder
    assert objects.get_cls_by_name("json") is json
    assert objects.get_cls_by_name(dict) is dict
    assert objects.get_cls_by_name("json.nothing", default=7) == 7
    with pytest.raises(AttributeError):
        objects.get_cls_by_name("json.nothing")
    with pytest.raises(ImportError):
        objects.get_cls_by_name("there.is.no.such")


def test_classes_are_made_into_instances_and_names() -> None:
    assert objects.instantiate("collections:Counter", "aab")["a"] == 2
    assert objects.get_full_cls_name(collections.Counter) == "collections.Counter"
    assert objects.get_full_cls_name(collections.Counter()) == "collections.Counter"


def test_modules_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("value = 3")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    try:
        assert objects.import_from_cwd("only_here").value == 3
    finally:
        sys.modules.pop("only_here", None)
    assert sys.path == before
    with objects.cwd_in_path(), objects.cwd_in_path():
        assert sys.path.count(str(tmp_path)) == 1
    assert sys.path == before


def test_task_names_come_from_the_app() -> None:
    assert objects.gen_task_name(Celeriac("shop", set_as_current=False), "buy", "__main__") == "shop.buy"


def test_chunks_take_so_many_at_a_time() -> None:
    assert list(objects.chunks(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


def test_memoize_remembers_by_arguments() -> None:
    calls: list[Any] = []

    @objects.memoize(maxsize=2)
    def double(x: int, by: int = 2) -> int:
        calls.append(x)
        return x * by

    assert [double(1), double(1), double(1, by=3)] == [2, 2, 3]
    assert calls == [1, 1]
    double(2)
    double(1)  # was pushed out by the two after it
    assert calls == [1, 1, 2, 1]
    double.clear()
    double(1)
    assert calls == [1, 1, 2, 1, 1]


def test_memoize_takes_keys_and_places_of_ones_own() -> None:
    kept: dict[Any, Any] = {}
    total = objects.memoize(maxsize=5, keyfun=lambda args, kwargs: tuple(args[0]), Cache=lambda size: kept)(sum)
    assert total([1, 2]) == total([1, 2]) == 3
    assert kept == {(1, 2): 3}


def test_noop_does_nothing_with_anything() -> None:
    objects.noop(1, two=2)
