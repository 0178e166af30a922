"""Encodings: what the bits of an individual mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moevoprune.errors import InputError
from moevoprune.heads.encodings import ENCODINGS, Encoding, HeadMask, HeadShape, make_encoding
from moevoprune.heads.reference import train_reference_head
from moevoprune.heads.settings import HeadSettings

DEPTH_NEEDED = {
    "features": 0,
    "neurons": 1,
    "neurons:1": 1,
    "neurons:2": 2,
    "neurons:both": 2,
    "features+neurons": 0,
    "connections": 0,
}


@st.composite
def encodings(draw: st.DrawFn) -> Encoding:
    name = draw(st.sampled_from(sorted(DEPTH_NEEDED)))
    widths = st.integers(1, 6)
    hidden = tuple(draw(st.lists(widths, min_size=DEPTH_NEEDED[name], max_size=2)))
    return make_encoding(name, HeadShape(draw(widths), hidden, draw(st.integers(1, 4))))


@st.composite
def individuals(draw: st.DrawFn) -> tuple[Encoding, np.ndarray]:
    encoding = draw(encodings())
    bits = draw(st.lists(st.booleans(), min_size=encoding.n_bits, max_size=encoding.n_bits))
    return encoding, np.array(bits, dtype=np.bool_)


def encode(encoding: Encoding, mask: HeadMask) -> np.ndarray:
    """Bits of a mask, written down from the encodings' definition."""
    shape = encoding.shape
    on_inputs = np.isin(np.arange(shape.n_features), mask.inputs)
    on_hidden = [np.isin(np.arange(width), units) for width, units in zip(shape.hidden, mask.hidden, strict=True)]
    if encoding.name == "connections":
        assert mask.connections is not None
        first = np.zeros(shape.widths[:2], dtype=np.bool_)
        first[mask.inputs] = mask.connections[0]
        return np.concatenate([first.ravel(), *(kept.ravel() for kept in mask.connections[1:])])
    parts = {
        "features": [on_inputs],
        "neurons": on_hidden,
        "neurons:1": on_hidden[:1],
        "neurons:2": on_hidden[1:],
        "neurons:both": on_hidden,
        "features+neurons": [on_inputs, *on_hidden],
    }[encoding.name]
    return np.concatenate(parts)


def test_every_encoding_is_tested_here() -> None:
    assert set(ENCODINGS) == set(DEPTH_NEEDED)


@pytest.mark.parametrize(
    ("name", "hidden", "n_bits"),
    [
        ("features", (), 7),
        ("features", (5, 3), 7),
        ("neurons", (5,), 5),
        ("neurons", (5, 3), 8),
        ("neurons:1", (5,), 5),
        ("neurons:1", (5, 3), 5),
        ("neurons:2", (5, 3), 3),
        ("neurons:both", (5, 3), 8),
        ("features+neurons", (), 7),
        ("features+neurons", (5,), 12),
        ("features+neurons", (5, 3), 15),
        ("connections", (), 14),
        ("connections", (5,), 35),
        ("connections", (5, 3), 50),
    ],
)
def test_number_of_bits(name: str, hidden: tuple[int, ...], n_bits: int) -> None:
    encoding = make_encoding(name, HeadShape(7, hidden, 2))
    assert encoding.n_bits == n_bits
    assert encoding.name == name
    assert encoding.dense().shape == (n_bits,)
    assert encoding.dense().dtype == np.bool_
    assert encoding.dense().all()


@given(individuals())
def test_decoding_loses_nothing(individual: tuple[Encoding, np.ndarray]) -> None:
    encoding, bits = individual
    before = bits.copy()
    mask = encoding.decode(bits)
    assert np.array_equal(encode(encoding, mask), bits)
    assert np.array_equal(bits, before)
    for indices in (mask.inputs, *mask.hidden):
        assert indices.dtype == np.int64
        assert np.all(np.diff(indices) > 0)
    for layer, kept in enumerate(mask.connections or ()):
        assert kept.dtype == np.bool_
        assert kept.shape == mask.widths(encoding.shape.n_outputs)[layer : layer + 2]


@given(encodings())
def test_the_dense_individual_is_the_dense_head(encoding: Encoding) -> None:
    shape = encoding.shape
    dense = encoding.dense()
    assert encoding.shrunk_shape(dense) == shape.widths
    pairs = zip(shape.widths[:-1], shape.widths[1:], strict=True)
    weights = sum(a * b for a, b in pairs)
    mask = encoding.decode(dense)
    assert mask.n_parameters(shape.n_outputs, bias=False) == weights + shape.n_outputs
    assert mask.n_parameters(shape.n_outputs, bias=True) == weights + sum(shape.widths[1:])


@given(individuals())
def test_the_empty_individual_and_counts(individual: tuple[Encoding, np.ndarray]) -> None:
    encoding, bits = individual
    assert encoding.count_active(bits) == bits.sum()
    stack = np.stack([bits, ~bits, encoding.dense(), np.zeros_like(bits)])
    counts = encoding.count_active(stack)
    assert counts.dtype == np.int64
    assert counts.tolist() == [bits.sum(), (~bits).sum(), encoding.n_bits, 0]
    assert encoding.count_active(stack.reshape(2, 2, -1)).shape == (2, 2)


def test_shrunk_shapes() -> None:
    shape = HeadShape(4, (3, 2), 5)

    def shrunk(name: str, bits: str) -> tuple[int, ...]:
        return make_encoding(name, shape).shrunk_shape(np.array([bit == "1" for bit in bits if bit in "01"]))

    assert shrunk("features", "0110") == (2, 3, 2, 5)
    assert shrunk("features", "0000") == (0, 3, 2, 5)
    assert shrunk("neurons", "011 00") == (4, 2, 0, 5)
    assert shrunk("neurons:1", "010") == (4, 1, 2, 5)
    assert shrunk("neurons:2", "10") == (4, 3, 1, 5)
    assert shrunk("neurons:both", "111 01") == (4, 3, 1, 5)
    assert shrunk("features+neurons", "1000 110 01") == (1, 2, 1, 5)
    # a feature without a connection is not read; a unit without one stays, as its bias may speak
    assert shrunk("connections", "000 010 000 110" + "00 00 00") == (2, 3, 2, 5)


def test_connection_bits_run_row_by_row() -> None:
    encoding = make_encoding("connections", HeadShape(3, (2,), 2))
    mask = encoding.decode(np.array([0, 1, 0, 0, 1, 1], dtype=np.bool_))
    assert mask.inputs.tolist() == [0, 2]
    assert mask.connections is not None
    assert [kept.tolist() for kept in mask.connections] == [[[False, True], [True, True]]]


@settings(deadline=None, max_examples=60)
@given(individuals(), st.booleans())
def test_parameters_are_those_the_reference_leaves_unmasked(
    individual: tuple[Encoding, np.ndarray], bias: bool
) -> None:
    encoding, bits = individual
    shape, mask = encoding.shape, encoding.decode(bits)
    training = HeadSettings(hidden=shape.hidden, bias=bias, epochs=1, schedule="constant")
    rows = np.zeros((1, shape.n_features), dtype=np.float32)
    labels = np.zeros(1, dtype=np.int64)
    reference = train_reference_head(rows, labels, np.arange(1), mask, shape, training, seed=0)
    buffers = dict(reference.module.named_buffers())
    count = 0
    for name, parameter in reference.module.named_parameters():
        _, layer, kind = name.split(".")
        if kind == "weight":
            count += int(torch.count_nonzero(buffers[f"layers.{layer}.mask"]))
        elif f"gate{layer}" in buffers:
            count += int(buffers[f"gate{layer}"].sum())
        else:
            count += parameter.numel()
    assert mask.n_parameters(shape.n_outputs, bias) == count


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("feature", "'features'"),
        ("neuron", "'neurons'"),
        ("conections", "'connections'"),
        ("neurons:3", "'neurons:"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        make_encoding(name, HeadShape(4, (3,), 2))
    message = str(caught.value)
    assert f"{name!r}; did you mean {expected}" in message
    assert all(known in message for known in ENCODINGS)
    assert "\n" not in message


def test_a_name_like_no_other_gets_the_list_alone() -> None:
    with pytest.raises(InputError) as caught:
        make_encoding("zzz", HeadShape(4, (3,), 2))
    assert "did you mean" not in str(caught.value)
    assert "features+neurons" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("neurons", ()),
        ("neurons:1", ()),
        ("neurons:2", ()),
        ("neurons:both", ()),
        ("neurons:2", (3,)),
        ("neurons:both", (3,)),
    ],
)
def test_too_few_hidden_layers(name: str, hidden: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"head\.hidden") as caught:
        make_encoding(name, HeadShape(4, hidden, 2))
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
