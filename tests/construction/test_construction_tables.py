"""Where the rows come from: bundled sets, CSV files, files of features; and networks as files."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save
from sklearn.datasets import load_linnerud, load_wine
from sklearn.preprocessing import OneHotEncoder

from moevoprune import FeatureSet, InputError
from moevoprune.construction.network import start_network
from moevoprune.construction.storing import StoredNetwork
from moevoprune.construction.tables import BUNDLED, open_table, read_csv, split_table

FRUIT = (
    "size,colour,ripe,kind\n1.5,red,True,apple\n3,yellow,False,banana\n2,green,True,apple\n4.5,green,True,banana\n"
)


@pytest.fixture
def fruit(tmp_path):
    path = tmp_path / "fruit.csv"
    path.write_text(FRUIT, encoding="utf-8")
    return path


def write(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_become_one_column_each_as_scikit_learn_does_it(fruit):
    table = read_csv(fruit, ["kind"])
    frame = pd.read_csv(fruit)
    coded = OneHotEncoder(sparse_output=False).fit_transform(frame[["colour"]])
    expected = np.column_stack([frame["size"], coded, frame["ripe"].astype(float)])
    np.testing.assert_array_equal(table.rows, expected)
    assert table.encoding.feature_names == ("size", "colour=green", "colour=red", "colour=yellow", "ripe")
    assert (table.task, table.class_names) == ("classification", ("apple", "banana"))
    np.testing.assert_array_equal(table.targets, [0, 1, 0, 1])


def test_columns_are_left_out_and_several_targets_are_regression(fruit, tmp_path):
    table = read_csv(fruit, ["size"], drop=["kind", "colour"])
    assert (table.task, table.rows.shape, table.targets.shape) == ("regression", (4, 1), (4, 1))
    path = write(tmp_path, "a;b;c\n1;2;3\n4;5;7\n")
    table = read_csv(path, ["c", "a"])
    assert (table.task, table.target_names) == ("regression", ("c", "a"))
    np.testing.assert_array_equal(table.targets, [[3, 1], [7, 4]])
    np.testing.assert_array_equal(table.rows, [[2], [5]])


@pytest.mark.parametrize(
    ("values", "task", "names"),
    [
        ([10, 9, 2, 9], "classification", ("2", "9", "10")),
        ([1.0, 0.0, 1.0, 0.0], "classification", ("0", "1")),
        ([1.5, 0.0, 1.0, 0.0], "regression", ()),
        (["True", "False", "True", "True"], "classification", ("False", "True")),
        (list(range(30)), "regression", ()),
    ],
)
def test_the_task_is_read_off_the_target(values, task, names, tmp_path):
    lines = "\n".join(f"{number},{value}" for number, value in enumerate(values))
    table = read_csv(write(tmp_path, f"x,y\n{lines}\n"), ["y"])
    assert (table.task, table.class_names) == (task, names)
    assert read_csv(write(tmp_path, "x,y\n1,3\n2,4\n"), ["y"], "regression").task == "regression"


@pytest.mark.parametrize(
    ("text", "target", "words"),
    [
        ("a,b\n1,2\n,3\n4,5\n", "b", "column 'a' has no value in row 2"),
        ("a,b\n1,2\n2,\n", "b", "column 'b' has no value in row 2"),
        ("a,b\n1,2\n2,inf\n", "a", "column 'b' is infinite in row 2"),
        ("a,b\n1,2\n?,3\n4,5\n", "b", r"column 'a' holds numbers, but '\?' in row 2"),
        ("size,b\n1,2\n", "sise", "no column 'sise' for --target; did you mean 'size'"),
        ("a,b\n1,2\n", "", "name the column to predict with --target; its columns are 'a', 'b'"),
        ("a,b,c\nx,2,1\ny,3,2\n", "a,b", "column 'a' holds texts: regression needs numbers"),
        ("a,b\n1,x\n2,x\n", "b", "holds one class only"),
        ("a\n1\n2\n", "a", "no columns to learn from"),
        ("a,b\n", "a", "no rows to learn from"),
        ("", "a", "is no table"),
        ('a,b\n1,2\n1,2,3\n"', "a", "is no table"),
        ("y,a,y\n0,1,2\n1,2,3\n", "y", "has two columns 'y'"),
        ("a,b\n0,1,2\n1,2,3\n", "b", "is no table"),
        ("a;b\n0,5;1\n2;0\n", "b", "column 'a' holds numbers with commas, such as '0,5' in row 1"),
        ("a;b\n1;0,5\n2;1,5\n", "b", "column 'b' holds numbers with commas"),
        ("a,b\n" + "".join(f"name{i},{i % 2}\n" for i in range(60)), "b", "60 different texts"),
    ],
)
def test_bad_tables_are_one_clear_line(text, target, words, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=words) as caught:
        read_csv(path, [name for name in target.split(",") if name])
    assert str(path) in str(caught.value)


def test_whole_numbers_beyond_64_bits_are_numbers(tmp_path):
    table = read_csv(write(tmp_path, f"x,y\n{10**30},1e30\n-{10**30},0\n"), ["y"])
    np.testing.assert_array_equal(table.rows, [[1e30], [-1e30]])
    assert table.class_names == ("0.0", "1e+30")
    large = read_csv(write(tmp_path, f"x,y\n1,{2**53}\n2,{2**53 + 1}\n"), ["y"], "classification")
    assert large.class_names == (str(2**53), str(2**53 + 1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    table, network = tmp_path / "pipe.csv", tmp_path / "pipe.safetensors"
    os.mkfifo(table)
    os.mkfifo(network)
    with pytest.raises(InputError, match="not a regular file"):
        read_csv(table, ["y"])
    with pytest.raises(InputError, match="not a regular file"):
        StoredNetwork.load(network)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["a"]},
        {"class_names": []},
        {"columns": [{"name": "x", "categories": None}]},
        {"columns": []},
        {"columns": 5},
        None,
    ],
)
def test_a_stored_network_whose_names_do_not_fit_is_damaged(change, tmp_path):
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    network = start_network(rows, np.arange(8) % 2, (4,), 2, 1)
    about = {"class_names": ["a", "b"], "target_names": ["y"], "columns": None}
    text = "[" * 100_000 if change is None else json.dumps({**about, **change})
    path = tmp_path / "network.safetensors"
    path.write_bytes(save(network.to_arrays(), {"format": "moevoprune-network-1", "about": text}))
    with pytest.raises(InputError, match="is damaged"):
        StoredNetwork.load(path)
    path.write_bytes(save(network.to_arrays(), {"format": "moevoprune-network-1", "about": json.dumps(about)}))
    with pytest.raises(InputError, match="give an array of numbers"):
        StoredNetwork.load(path).predict(np.array([["1", "2", "3"]]))


def test_files_that_are_none(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read_csv(tmp_path / "absent.csv", ["a"])
    latin = tmp_path / "latin.csv"
    latin.write_bytes("größe,b\n1,2\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        read_csv(latin, ["b"])
    with pytest.raises(InputError, match="did you mean 'diabetes'"):
        open_table("diabetis")
    with pytest.raises(InputError, match="--target and --drop name columns of a CSV file"):
        open_table("wine", target=["a"])
    with pytest.raises(InputError, match="wine is a classification set"):
        open_table("wine", task="regression")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="need the package pandas"):
        read_csv(write(tmp_path, "a,b\n1,2\n"), ["a"])


def test_bundled_sets_are_scikit_learns():
    tables = {name: open_table(name) for name in BUNDLED}
    np.testing.assert_array_equal(tables["wine"].rows, load_wine().data)
    assert tables["digits"].rows.shape == (1797, 64)
    np.testing.assert_array_equal(tables["linnerud"].targets, load_linnerud().target)
    assert tables["diabetes"].targets.shape == (442, 1)
    assert tables["linnerud"].target_names == ("Weight", "Waist", "Pulse")


def test_splits_are_stratified_and_follow_the_seed():
    wine = open_table("wine")
    one, same, other = (split_table(wine, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.X_test, same.X_test)
    assert not np.array_equal(one.X_test, other.X_test)
    assert (one.n_train, one.n_test) == (133, 45)
    shares = [np.bincount(part) / len(part) for part in (one.y_train, one.y_test)]
    np.testing.assert_allclose(*shares, atol=0.02)
    assert split_table(one, 5) is one


def test_too_few_rows_to_split(tmp_path):
    lonely = read_csv(write(tmp_path, "x,y\n" + "1,a\n" * 9 + "1,b\n"), ["y"])
    with pytest.raises(InputError, match="class 'b' has one row only"):
        split_table(lonely, 1)
    with pytest.raises(InputError, match="too few to hold back"):
        split_table(read_csv(write(tmp_path, "x,y\n1,.5\n2,.7\n3,.9\n"), ["y"]), 1)


def test_features_of_a_file_come_split(tmp_path, small_features):
    small_features.save(tmp_path / "small.npz")
    opened = open_table(str(tmp_path / "small.npz"))
    assert isinstance(opened, FeatureSet)
    np.testing.assert_array_equal(opened.X_test, small_features.X_test)


def test_a_stored_network_predicts_what_it_predicted(fruit, tmp_path):
    table = read_csv(fruit, ["kind"])
    rows = table.rows.astype(np.float32)
    network = start_network(rows, table.targets, (6, 5), 2, seed=1)
    stored = StoredNetwork.of(network, table)
    stored.save(tmp_path / "network.safetensors")
    loaded = StoredNetwork.load(tmp_path / "network.safetensors")
    expected = np.array(["apple", "banana"])[network.outputs(rows).argmax(axis=1)]
    np.testing.assert_array_equal(loaded.predict(rows), expected)
    np.testing.assert_array_equal(loaded.predict(fruit), expected)
    # columns in another order, and one that is not read
    frame = pd.read_csv(fruit)[["ripe", "kind", "colour", "size"]]
    np.testing.assert_array_equal(loaded.predict(frame), expected)
    with pytest.raises(InputError, match="lacks the column 'colour'"):
        loaded.predict(frame.drop(columns="colour"))
    with pytest.raises(InputError, match="column 'colour' holds 'blue', not seen in training in row 3"):
        loaded.predict(frame.replace("green", "blue"))


def test_stored_regression_keeps_units_and_damaged_files_are_refused(tmp_path, small_regression):
    network = start_network(small_regression.X_train, small_regression.y_train, (4,), 2, seed=1)
    path = tmp_path / "n.safetensors"
    StoredNetwork.of(network, small_regression).save(path)
    loaded = StoredNetwork.load(path)
    np.testing.assert_array_equal(
        loaded.predict(small_regression.X_test), network.predict(small_regression.X_test)
    )
    with pytest.raises(InputError, match="not trained on a CSV table"):
        loaded.predict(tmp_path / "rows.csv")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as a network"):
        StoredNetwork.load(path)
    with pytest.raises(InputError, match="cannot be read as a network"):
        StoredNetwork.load(tmp_path / "absent.safetensors")
