"""Baselines: masks of the sizes asked for."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from moevoprune import HeadSettings, InputError
from moevoprune.baselines import (
    BASELINES,
    BestFixed,
    GradualMagnitude,
    RandomBest,
    Ranked,
    default_sizes,
    make_baseline,
    rank_bits,
)
from moevoprune.baselines.gradual import prune_gradually, pruning_schedule
from moevoprune.heads.batches import epoch_order
from moevoprune.heads.start import StartWeights

ENCODINGS = [
    ("features", ()),
    ("features", (8,)),
    ("neurons", (8, 6)),
    ("neurons:2", (8, 6)),
    ("features+neurons", (8, 6)),
    ("connections", ()),
    ("connections", (4, 3)),
]


def sum_of_numbers(masks):
    """A score that can be checked by hand."""
    return masks @ np.arange(masks.shape[1]) / 100.0


def test_default_sizes():
    sizes = default_sizes(1280)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, 1280)
    assert {25, 64, 128, 320} < set(sizes)
    assert 24 <= len(sizes) <= 28
    ratios = np.array(sizes[8:]) / np.array(sizes[7:-1])
    assert ratios.max() < 1.5
    for n_bits in range(1, 60):
        few = default_sizes(n_bits)
        assert few == sorted(set(few))
        assert {1, n_bits} <= set(few) <= set(range(1, n_bits + 1))
        assert all(type(size) is int for size in few)


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(("encoding", "hidden"), ENCODINGS)
def test_every_baseline_gives_the_sizes_asked_for(task, encoding, hidden, several_features, ranking_data):
    found = {}
    for _ in range(2):
        data = ranking_data(several_features[task], encoding, hidden, sum_of_numbers)
        n_bits = data.encoding.n_bits
        sizes = [1, np.int64(2), n_bits, n_bits // 2]
        for name, baseline in BASELINES.items():
            assert baseline is make_baseline(name)
            assert baseline.name == name
            masks = baseline.masks(data, sizes)
            assert masks.dtype == np.bool_
            if name == "best_fixed":
                assert masks.shape == (1, n_bits)
            else:
                assert masks.shape == (4, n_bits)
                assert masks.sum(axis=1).tolist() == sizes
            np.testing.assert_array_equal(masks, found.setdefault(name, masks))


@pytest.mark.parametrize("size", [0, 15, -1, 2.0, True, "3", None])
@pytest.mark.parametrize("name", ["anova", "random", "best_fixed", "gradual_magnitude"])
def test_sizes_are_checked(name, size, small_features, ranking_data):
    data = ranking_data(small_features, evaluate=sum_of_numbers)
    with pytest.raises(InputError, match="size = "):
        make_baseline(name).masks(data, [3, size])


def test_no_sizes_no_masks(small_features, ranking_data):
    data = ranking_data(small_features, evaluate=sum_of_numbers)
    for name in set(BASELINES) - {"best_fixed"}:
        assert make_baseline(name).masks(data, []).shape == (0, 14)


def test_unknown_baseline():
    with pytest.raises(InputError, match="did you mean 'neuron_norm'"):
        make_baseline("neuron_norms")


def test_ranked_takes_the_top_and_of_equals_the_first(small_features, with_constants, ranking_data):
    data = ranking_data(with_constants(small_features, (2, 7, 11)))
    masks = Ranked("anova_f").masks(data, [5, 12, 13])
    scores = rank_bits(data, "anova_f")
    assert set(np.flatnonzero(masks[0])) == set(np.argsort(scores)[-5:])
    assert np.flatnonzero(~masks[1]).tolist() == [7, 11]
    assert np.flatnonzero(~masks[2]).tolist() == [11]
    assert Ranked("anova_f").name == "anova_f"


def test_random_masks_are_the_best_of_those_drawn(small_features, ranking_data):
    seen = []

    def score(masks):
        seen.append(masks)
        scores = sum_of_numbers(masks)
        scores[:4] = np.nan
        return scores

    data = ranking_data(small_features, evaluate=score)
    masks = RandomBest(6).masks(data, [3, 9])
    drawn = np.concatenate(seen)
    assert drawn.shape == (12, 14)
    assert drawn.sum(axis=1).tolist() == [3] * 6 + [9] * 6
    assert len(np.unique(drawn, axis=0)) > 8
    np.testing.assert_array_equal(masks[0], drawn[4 + sum_of_numbers(drawn[4:6]).argmax()])
    np.testing.assert_array_equal(masks[1], drawn[6 + sum_of_numbers(drawn[6:]).argmax()])
    # what a size gets does not depend on the others
    data = ranking_data(small_features, evaluate=sum_of_numbers)
    both = RandomBest(6).masks(data, [3, 9])
    np.testing.assert_array_equal(RandomBest(6).masks(data, [9])[0], both[1])
    other = ranking_data(small_features, evaluate=sum_of_numbers, seed=4)
    assert not np.array_equal(RandomBest(6).masks(other, [3, 9]), both)
    with pytest.raises(InputError, match="n = 0"):
        RandomBest(0)


def test_best_fixed_is_one_of_ten_densities(small_features, ranking_data):
    seen = []

    def score(masks):
        seen.append(masks)
        return -np.abs(masks.sum(axis=1) - 5.0)

    data = ranking_data(small_features, evaluate=score)
    (mask,) = BestFixed().masks(data, [1, 2, 3])
    (drawn,) = seen
    assert drawn.sum(axis=1).tolist() == [1, 2, 4, 5, 7, 8, 9, 11, 12, 14]
    np.testing.assert_array_equal(mask, drawn[3])


@pytest.mark.parametrize("name", ["random", "best_fixed"])
def test_searching_needs_a_score(name, small_features, ranking_data):
    with pytest.raises(InputError, match=f"'{name}'.*validation score"):
        make_baseline(name).masks(ranking_data(small_features), [2])


def test_pruning_schedule():
    left = pruning_schedule(1000, 50, 20)
    assert len(left) == 15
    assert left[0] == 900
    assert left[-1] == 50
    assert (np.diff(left) <= 0).all()
    # halfway in time, an eighth of the way is still to go
    assert left[7] == 1000 - round(1000 * (0.95 - 0.85 / 8))
    assert pruning_schedule(100, 95, 8) == [95] * 6
    assert pruning_schedule(100, 100, 4) == [100] * 3
    assert pruning_schedule(100, 7, 1) == [7]
    assert pruning_schedule(100, 7, 2)[-1] == 7


def plain_gradual_pruning(data, size):
    """Full-size parameters under masks, float64, without any shrinking."""
    encoding, head = data.encoding, data.head
    widths = encoding.shape.widths
    start = StartWeights(encoding.shape, head, data.seed).weights(encoding.decode(encoding.dense()))
    weights = [torch.tensor(w, requires_grad=True) for w in start]
    biases = [torch.zeros(w, dtype=torch.float64, requires_grad=True) for w in widths[1:]]
    if head.optimiser == "adam":
        optimiser = torch.optim.Adam([*weights, *biases])
    else:
        optimiser = torch.optim.SGD([*weights, *biases], lr=1.0, momentum=head.momentum, nesterov=head.nesterov)
    rates = iter(head.learning_rates(-(-len(data.features) // head.batch_size)))
    x = torch.tensor(data.features, dtype=torch.float64)
    y = torch.tensor(data.targets)
    bits = encoding.dense()
    for epoch, count in enumerate(pruning_schedule(encoding.n_bits, size, head.epochs)):
        mask = encoding.decode(bits)
        gates = [torch.zeros(width, dtype=torch.float64) for width in widths]
        for gate, kept in zip(gates, [mask.inputs, *mask.hidden, np.arange(widths[-1])], strict=True):
            gate[torch.from_numpy(kept)] = 1.0
        exists = [torch.ones_like(w) for w in weights]
        for layer, kept in enumerate(mask.connections or ()):
            rows = mask.inputs if layer == 0 else np.arange(widths[layer])
            exists[layer].zero_()
            exists[layer][torch.from_numpy(rows)] = torch.from_numpy(kept).double()
        for batch in torch.from_numpy(epoch_order(len(x), data.seed, epoch)).split(head.batch_size):
            values = x[batch] * gates[0]
            for layer in range(len(weights)):
                values = values @ (weights[layer] * exists[layer]) + biases[layer]
                if layer < len(weights) - 1:
                    values = values.relu() * gates[layer + 1]
            if data.task == "classification":
                loss = torch.nn.functional.cross_entropy(values, y[batch])
            else:
                loss = ((values - y[batch]) ** 2).mean()
            optimiser.param_groups[0]["lr"] = next(rates)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        # norms of the weights between parts that are left
        left = [torch.outer(above, below) for above, below in itertools.pairwise(gates)]
        matrices = [(w * e * a).detach().numpy() for w, e, a in zip(weights, exists, left, strict=True)]
        norms = encoding.arrange(
            np.sqrt((matrices[0] ** 2).sum(axis=1)),
            [np.sqrt((m**2).sum(axis=0)) for m in matrices[:-1]],
            [np.abs(m) for m in matrices],
        )
        norms[~bits] = -1.0
        bits = np.zeros_like(bits)
        bits[np.argsort(-norms, kind="stable")[:count]] = True
    return bits


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(("encoding", "hidden"), ENCODINGS)
def test_gradual_pruning_is_that_of_full_masked_heads(
    optimiser, task, encoding, hidden, several_features, ranking_data
):
    data = ranking_data(
        several_features[task], encoding, hidden, dtype=torch.float64, optimiser=optimiser, learning_rate=0.02
    )
    for size in (2, data.encoding.n_bits // 2):
        np.testing.assert_array_equal(prune_gradually(data, size), plain_gradual_pruning(data, size))


def test_gradual_pruning_keeps_what_carries_the_class(small_features, ranking_data):
    # without decay the start weights of 14 features outlast so short a training
    data = ranking_data(small_features, hidden=(16,), epochs=40, weight_decay=0.02)
    (mask,) = GradualMagnitude().masks(data, [2])
    assert set(np.flatnonzero(mask)) == set(np.argsort(rank_bits(data, "anova_f"))[-2:])


def test_gradual_pruning_leaves_the_global_generator_alone(small_features, ranking_data):
    before = torch.get_rng_state()
    GradualMagnitude().masks(ranking_data(small_features), [3])
    assert torch.equal(before, torch.get_rng_state())
    assert torch.is_grad_enabled()


def test_gradual_pruning_survives_a_head_that_diverges(small_features, ranking_data):
    data = ranking_data(small_features, learning_rate=1e30)
    assert GradualMagnitude().masks(data, [3]).sum() == 3


def test_gradual_pruning_without_momentum(small_features, ranking_data):
    head = HeadSettings(hidden=(4,), epochs=4, momentum=0.0, nesterov=False)
    data = replace(ranking_data(small_features, hidden=(4,)), head=head)
    assert GradualMagnitude().masks(data, [5]).sum() == 5


def test_default_sizes_within_bounds():
    assert default_sizes(100, low=5, high=20)[0] == 5
    assert default_sizes(100, low=5, high=20)[-1] == 20
    assert default_sizes(100, low=0) == default_sizes(100)
