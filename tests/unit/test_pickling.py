"""Exceptions that pickle can carry, and truth in words."""

from __future__ import annotations

import pickle

import pytest

from celeriac import pickling


class TooMany(ValueError):
    """Can't be made again from its arguments."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


class Broken(TooMany):
    """No better."""


def test_what_pickle_can_carry_stays_itself() -> None:
    error = KeyError("a")
    assert pickling.get_pickleable_exception(error) is error
    assert pickling.get_pickled_exception(error) is error
    assert pickling.get_pickleable_etype(KeyError) is KeyError


def test_else_the_nearest_base_class_stands_in() -> None:
    found = pickling.get_pickleable_exception(Broken(1, 2))
    assert type(found) is ValueError
    assert pickle.loads(pickle.dumps(found)).args == ("1 and 2",)


def test_else_a_stand_in_with_its_name_and_text() -> None:
    class Local(Exception):
        pass

    found = pickling.get_pickleable_exception(Local("a", lambda: None))
    assert isinstance(found, pickling.UnpickleableExceptionWrapper)
    again = pickle.loads(pickle.dumps(found))
    assert (again.exc_cls_name, again.exc_module) == ("Local", __name__)
    assert "Local('a'" in str(again)
    restored = pickling.get_pickled_exception(again)
    assert (type(restored).__name__, type(restored).__module__, restored.args[0]) == ("Local", __name__, "a")
    assert pickling.find_pickleable_exception(Local("a", 1)) is None


def test_classes_are_made_by_name() -> None:
    made = pickling.create_exception_cls("Lost", "far.away")
    assert (made.__name__, made.__module__, made.__bases__) == ("Lost", "far.away", (Exception,))
    assert issubclass(pickling.subclass_exception("Lost", KeyError, "far.away"), KeyError)


@pytest.mark.parametrize(("word", "means"), [("yes", True), ("On", True), ("1", True), ("no", False), ("0", False)])
def test_words_are_true_or_false(word: str, means: bool) -> None:
    assert pickling.strtobool(word) is means


def test_other_words_are_refused() -> None:
    with pytest.raises(TypeError, match="'maybe' is neither true nor false: say one of true, yes"):
        pickling.strtobool("maybe")
    assert pickling.strtobool(True) is True
    assert pickling.strtobool("ja", {"ja": True}) is True
