"""Values about the parts of a head, in the order of the bits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from moevoprune.heads.encodings import HeadShape, make_encoding

NAMES = ["features", "neurons", "neurons:1", "neurons:2", "neurons:both", "features+neurons"]


def numbered(shape):
    """A different number for every part."""
    generator = np.random.default_rng(0)
    widths = shape.widths
    return (
        generator.normal(size=widths[0]),
        [generator.normal(size=width) for width in shape.hidden],
        [generator.normal(size=pair) for pair in itertools.pairwise(widths)],
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_gets_the_value_of_the_part_that_it_takes_away(name):
    shape = HeadShape(5, (4, 3), 2)
    encoding = make_encoding(name, shape)
    inputs, units, connections = numbered(shape)
    arranged = encoding.arrange(inputs, units, connections)
    assert arranged.shape == (encoding.n_bits,)
    for bit in range(encoding.n_bits):
        bits = encoding.dense()
        bits[bit] = False
        mask = encoding.decode(bits)
        gone = [
            np.delete(inputs, mask.inputs),
            *(np.delete(u, k) for u, k in zip(units, mask.hidden, strict=True)),
        ]
        assert np.concatenate(gone).tolist() == [arranged[bit]]


@pytest.mark.parametrize("hidden", [(), (4,), (4, 3)])
def test_every_connection_bit_gets_the_value_of_its_connection(hidden):
    shape = HeadShape(5, hidden, 2)
    encoding = make_encoding("connections", shape)
    inputs, units, connections = numbered(shape)
    arranged = encoding.arrange(inputs, units, connections)
    assert arranged.shape == (encoding.n_bits,)
    for bit in range(encoding.n_bits):
        mask = encoding.decode(np.arange(encoding.n_bits) == bit)
        values = [connections[0][mask.inputs], *connections[1:]]
        found = np.concatenate([v[kept] for v, kept in zip(values, mask.connections, strict=False)])
        assert found.tolist() == [arranged[bit]]


def test_a_head_without_hidden_layers_has_feature_bits_only():
    encoding = make_encoding("features+neurons", HeadShape(3, (), 2))
    assert encoding.arrange(np.arange(3.0), [], []).tolist() == [0, 1, 2]
