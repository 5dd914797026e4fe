"""What is said of an error that a step raised."""

from __future__ import annotations

import polars as pl
import pytest

from stream.transform.raised import what_was_raised


def raised(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        function()
    return what_was_raised(caught.value)


def test_the_type_the_words_and_the_place_in_the_users_code_are_said():
    def score():
        return {}["dep_delay"]

    # The test that calls it is the users' code, too.
    assert raised(score) == f"KeyError: 'dep_delay' (test_raised.py:{score.__code__.co_firstlineno + 1} in score)"


def test_an_error_without_words_is_said_by_its_type():
    def refuse():
        raise ValueError

    assert raised(refuse).startswith("ValueError (test_raised.py:")


def test_the_place_is_the_last_one_that_is_neither_ours_nor_in_polars():
    def cast():
        pl.DataFrame({"at": ["soon"]}).select(pl.col("at").cast(pl.Int8))

    said = raised(cast)
    assert said.startswith("InvalidOperationError: conversion from")
    assert said.endswith(f"(test_raised.py:{cast.__code__.co_firstlineno + 1} in cast)")


def test_an_error_in_code_that_is_only_ours_has_no_place():
    assert what_was_raised(KeyError("a")) == "KeyError: 'a'"
