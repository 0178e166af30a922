import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.ux import UX
from pymoo.operators.mutation.bitflip import BitflipMutation
from pymoo.operators.sampling.rnd import BinaryRandomSampling
from pymoo.optimize import minimize

from moevoprune.errors import InputError
from moevoprune.search.sampling import DensitySampling, MaskSampling, as_masks


class CountProblem(Problem):
    """Few bits against many; notes the type of what it is asked to evaluate."""

    def __init__(self, n_var=20):
        super().__init__(n_var=n_var, n_obj=2, xl=False, xu=True, vtype=bool)
        self.dtypes = set()

    def _evaluate(self, x, out, *args, **kwargs):
        self.dtypes.add(x.dtype)
        active = x.sum(axis=1)
        out["F"] = np.column_stack([active, (self.n_var - active) ** 2])


def draw(sampling, n, n_var=20, seed=0):
    masks = sampling._do(CountProblem(n_var), n, random_state=np.random.default_rng(seed))
    assert masks.dtype == np.bool_
    assert masks.shape == (n, n_var)
    return masks


def strata(n, low, high):
    """Sizes that stratum i may have, from the definition, edges within rounding."""
    edges = low * ((high + 1) / low) ** (np.arange(n + 1) / n)
    return [
        (math.floor(a + 1e-6), max(math.ceil(b - 1e-6) - 1, math.floor(a + 1e-6)))
        for a, b in itertools.pairwise(edges)
    ]


def test_uniform_spreads_over_densities():
    densities = draw(DensitySampling(), 2000, 200).mean(axis=1)
    # Against the quantiles of U(0, 1); half of the bits each would give about 0.5 throughout.
    np.testing.assert_allclose(
        np.quantile(densities, [0.1, 0.25, 0.5, 0.75, 0.9]), [0.1, 0.25, 0.5, 0.75, 0.9], atol=0.05
    )


def test_uniform_keeps_to_a_range_of_densities():
    shares = draw(DensitySampling(densities=(0.4, 0.8)), 2000, 400).mean(axis=1)
    np.testing.assert_allclose(np.quantile(shares, [0.1, 0.5, 0.9]), [0.44, 0.6, 0.76], atol=0.03)
    equal = draw(DensitySampling(densities=(0.8, 0.8)), 500, 400)
    np.testing.assert_allclose(equal.mean(axis=0), 0.8, atol=0.09)
    with pytest.raises(InputError, match=r"densities are \(0.8, 0.4\)"):
        DensitySampling(densities=(0.8, 0.4))
    with pytest.raises(InputError, match="'uniform' only"):
        DensitySampling("log", densities=(0.2, 0.4))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(1, 60), n_var=st.integers(1, 300), seed=st.integers(0, 99))
def test_log_has_one_individual_in_each_stratum(data, n, n_var, seed):
    low = data.draw(st.integers(1, n_var))
    high = data.draw(st.integers(low, n_var))
    sizes = np.sort(draw(DensitySampling("log", low, high), n, n_var, seed).sum(axis=1))
    for size, (first, last) in zip(sizes, strata(n, low, high), strict=True):
        assert max(first, low) <= size <= min(last, high)


def test_log_spans_all_sizes_by_default_in_random_order():
    sizes = draw(DensitySampling("log"), 50, 80_000).sum(axis=1)
    assert sizes.min() <= 2
    assert sizes.max() > 60_000
    assert (np.diff(sizes) < 0).any()
    # A quarter of the population on each quarter of the log scale.
    counts = np.histogram(np.log(sizes), bins=np.linspace(0, np.log(80_001), 5))[0]
    assert counts.max() - counts.min() <= 2


def test_log_sizes_are_log_uniform_inside_their_stratum():
    sizes = np.sort([draw(DensitySampling("log", 100, 9999), 2, 9999, seed).sum(axis=1) for seed in range(400)])
    quantiles = np.quantile(np.log10(sizes), [0.1, 0.5, 0.9], axis=0).T
    np.testing.assert_allclose(quantiles, [[2.1, 2.5, 2.9], [3.1, 3.5, 3.9]], atol=0.08)


def test_log_bits_are_spread_evenly():
    masks = draw(DensitySampling("log"), 4000, 16)
    share = masks.mean(axis=0) / masks.mean()
    assert share.min() > 0.9
    assert share.max() < 1.1


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), n_var=st.integers(1, 9), seed=st.integers(0, 99))
def test_log_repeats_a_mask_only_where_its_size_is_used_up(n, n_var, seed):
    masks = draw(DensitySampling("log"), n, n_var, seed)
    rows, counts = np.unique(masks, axis=0, return_counts=True)
    for row in rows[counts > 1]:
        size = row.sum()
        distinct = (rows.sum(axis=1) == size).sum()
        assert distinct == math.comb(n_var, int(size))


def test_log_with_all_masks_of_a_size_gets_each():
    masks = draw(DensitySampling("log", 2, 2), 45, 10)
    assert len(np.unique(masks, axis=0)) == 45


@pytest.mark.parametrize("sampling", [DensitySampling(), DensitySampling("log"), MaskSampling(np.zeros((3, 20)))])
def test_same_generator_gives_same_population(sampling):
    np.testing.assert_array_equal(draw(sampling, 30, seed=5), draw(sampling, 30, seed=5))
    assert (draw(sampling, 30, seed=5) != draw(sampling, 30, seed=6)).any()


def test_global_random_state_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw(DensitySampling(), 5)
    draw(DensitySampling("log"), 5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("sampling", [DensitySampling(), DensitySampling("log"), MaskSampling(np.zeros((1, 20)))])
@pytest.mark.parametrize("state", [None, 3, np.random.RandomState(0)])
def test_missing_generator_is_refused(sampling, state):
    with pytest.raises(InputError, match="pass a numpy Generator"):
        sampling._do(CountProblem(), 4, random_state=state)
    with pytest.raises(InputError, match="pass a numpy Generator"):
        sampling.do(CountProblem(), 4, random_state=state)


def test_do_takes_a_seed_as_pymoo_does():
    a, b = (DensitySampling().do(CountProblem(), 4, seed=1).get("X") for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "arguments",
    [
        {"scale": "linear"},
        {"low": 2},
        {"scale": "uniform", "high": 3},
        {"scale": "log", "low": 0},
        {"scale": "log", "low": True},
        {"scale": "log", "high": 2.0},
        {"scale": "log", "low": 5, "high": 4},
    ],
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(InputError):
        DensitySampling(**arguments)


@pytest.mark.parametrize("bounds", [{"high": 21}, {"low": 21}])
def test_bounds_beyond_the_mask_are_refused(bounds):
    with pytest.raises(InputError, match="20 bits"):
        draw(DensitySampling("log", **bounds), 3)


@pytest.mark.parametrize("dtype", [bool, int, np.int8, np.uint8, float, np.float32])
def test_given_masks_come_first_as_bool(dtype):
    given_masks = (np.arange(60).reshape(3, 20) % 3 == 0).astype(dtype)
    masks = draw(MaskSampling(given_masks, fill=DensitySampling("log", 4, 4)), 10)
    np.testing.assert_array_equal(masks[:3], given_masks.astype(bool))
    assert (masks[3:].sum(axis=1) == 4).all()
    np.testing.assert_array_equal(draw(MaskSampling(given_masks), 2), given_masks[:2].astype(bool))
    np.testing.assert_array_equal(draw(MaskSampling(given_masks), 3), given_masks.astype(bool))


def test_given_masks_are_copied_both_ways():
    given_masks = np.zeros((2, 20), dtype=bool)
    sampling = MaskSampling(given_masks)
    given_masks[:] = True
    draw(sampling, 2)[:] = True
    assert not draw(sampling, 2).any()


@pytest.mark.parametrize(
    "masks",
    [
        np.zeros(20),
        np.full((1, 20), 2),
        np.full((1, 20), -1),
        np.full((1, 20), np.nan),
        [["a"]],
        [[1], [1, 0]],
        None,
    ],
)
def test_bad_masks_are_refused(masks):
    with pytest.raises(InputError, match="start masks"):
        MaskSampling(masks)


def test_wrong_length_and_bad_fill_are_refused():
    with pytest.raises(InputError, match="19 bits but the problem has 20"):
        draw(MaskSampling(np.zeros((1, 19))), 3)

    class Doubled(DensitySampling):
        def _do(self, problem, n_samples, *args, random_state=None, **kwargs):
            return np.full((n_samples, problem.n_var), 2)

    with pytest.raises(InputError, match="drawn by Doubled hold 2"):
        draw(MaskSampling(np.zeros((1, 20)), fill=Doubled()), 3)


def test_as_masks_names_the_first_wrong_bit():
    with pytest.raises(InputError, match=r"things hold 7 at row 1, bit 2; give only 0 and 1"):
        as_masks([[0, 0, 0], [1, 0, 7]], "things")


@pytest.mark.parametrize(
    "sampling",
    [
        DensitySampling(),
        DensitySampling("log"),
        MaskSampling(np.eye(20, dtype=int), fill=BinaryRandomSampling()),
    ],
)
def test_pymoo_runs_reproducibly_with_them(sampling):
    fronts = []
    for _ in range(2):
        problem = CountProblem()
        algorithm = NSGA2(pop_size=30, sampling=sampling, crossover=UX(), mutation=BitflipMutation())
        result = minimize(problem, algorithm, ("n_gen", 5), seed=3)
        assert problem.dtypes == {np.dtype(bool)}
        fronts.append(result.X)
    np.testing.assert_array_equal(*fronts)
