"""The columns that name the rows of an output."""

from __future__ import annotations

import numpy as np

from gpulstm.data.labels import Labels

ROWS = np.array([0, 0, 1])


def test_without_ids_the_names_stand_in_a_column_called_series() -> None:
    columns = Labels().id_columns(["a", "b"], ROWS)
    assert {name: list(values) for name, values in columns.items()} == {"series": ["a", "a", "b"]}


def test_ids_keep_their_own_types() -> None:
    labels = Labels(("shop", "item"), ((3, "x"), (4, "y")))
    columns = labels.id_columns(["3/x", "4/y"], ROWS)
    assert columns["shop"].dtype.kind == "i" and columns["shop"].tolist() == [3, 3, 4]
    assert columns["item"].tolist() == ["x", "x", "y"]


def test_ids_of_several_types_stay_what_they_are() -> None:
    columns = Labels(("id",), ((1,), ("one",))).id_columns(["1", "one"], ROWS)
    assert columns["id"].tolist() == [1, 1, "one"]


def test_some_of_the_series() -> None:
    labels = Labels(("id",), ((1,), (2,), (3,)))
    assert labels.select([2, 0]).ids == ((3,), (1,))
    assert Labels().select([1]) == Labels()
