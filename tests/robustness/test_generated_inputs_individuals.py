"""What an algorithm may hand to ``PruningProblem``: masks of every form are evaluated alike, others refused."""

from __future__ import annotations

import numpy as np
import pytest
from generating import EXAMPLES, REPEATABLE, arrays_of_any_kind, in_time
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from readers import is_read

from moevoprune import InputError, PruningProblem


@pytest.fixture(scope="module")
def problem(small_features, quick_head):
    with PruningProblem(small_features, head=quick_head, cv=2, seed=1) as made:
        yield made


@pytest.fixture(scope="module")
def known(problem):
    """Masks that are trained once, so that thousands of requests cost nothing."""
    masks = np.random.default_rng(1).random((12, problem.n_var)) < 0.5
    masks[0], masks[1] = True, False
    return masks, problem.losses(problem.values(masks))


_FORMS = {
    "bool": lambda masks: masks,
    "int": lambda masks: masks.astype(np.int64),
    "uint8": lambda masks: masks.astype(np.uint8),
    "float": lambda masks: masks.astype(np.float64),
    "half": lambda masks: masks.astype(np.float16),
    "negative zero": lambda masks: np.where(masks, 1.0, -0.0),
    "big-endian": lambda masks: masks.astype(">f8"),
    "lists": lambda masks: masks.tolist(),
    "lists of ints": lambda masks: masks.astype(int).tolist(),
    "columns first": np.asfortranarray,
    "every second of a larger array": lambda masks: np.repeat(masks, 2, axis=0)[::2],
    "reversed twice": lambda masks: masks[:, ::-1].copy()[:, ::-1],
    "read-only": lambda masks: np.frombuffer(masks.tobytes(), np.bool_).reshape(masks.shape),
}


def test_masks_of_every_form_give_the_same_values_in_order(problem, known):
    masks, losses = known
    trained = problem.n_trained
    tried = 0

    @settings(max_examples=EXAMPLES["individuals"], **REPEATABLE)
    @given(st.lists(st.integers(0, len(masks) - 1), max_size=20), st.sampled_from(sorted(_FORMS)))
    def ask(rows, form):
        nonlocal tried
        tried += 1
        given_masks = _FORMS[form](masks[rows])
        if not len(rows):
            # lists without rows have no width
            given_masks = np.zeros((0, problem.n_var), bool)
        before = np.array(given_masks, copy=True)
        out: dict[str, np.ndarray] = {}
        problem._evaluate(given_masks, out)
        np.testing.assert_array_equal(out["F"], losses[rows])
        np.testing.assert_array_equal(out["G"][:, 0] <= 0, masks[rows].any(axis=1))
        np.testing.assert_array_equal(given_masks, before)

    ask()
    assert tried >= EXAMPLES["individuals"]
    assert problem.n_trained == trained, "a mask was trained twice"


_ANY = st.one_of(
    arrays_of_any_kind(),
    hnp.arrays(
        "<f8",
        st.tuples(st.integers(0, 4), st.just(14)),
        elements=st.sampled_from([0, 1, np.nan, np.inf, 0.5, -1, 2, 1e308]),
    ),
    st.none(),
    st.text(max_size=5),
    st.integers(-(2**70), 2**70),
    st.recursive(
        st.booleans() | st.integers(-1, 2) | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=14),
        max_leaves=40,
    ),
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=2),
)


def test_anything_else_is_refused_in_one_line_and_nothing_is_trained(problem, known):
    trained, requested = problem.n_trained, problem.n_requested
    tried = 0
    valid = 0

    @settings(max_examples=EXAMPLES["individuals"], **REPEATABLE)
    @given(_ANY)
    def ask(individuals):
        nonlocal tried, valid
        tried += 1
        out: dict[str, np.ndarray] = {}
        with in_time():
            try:
                array = np.asarray(individuals)
                fits = array.ndim == 2 and array.shape[1] == problem.n_var and np.isin(array, [0, 1]).all()
            except (ValueError, TypeError):
                fits = False
            if fits:
                valid += 1
                return
            assert not is_read(lambda: problem._evaluate(individuals, out))
            assert out == {}

    ask()
    assert tried >= EXAMPLES["individuals"]
    assert valid < tried / 2
    assert (problem.n_trained, problem.n_requested) == (trained, requested)


def test_a_single_mask_is_refused_with_what_to_do(problem):
    with pytest.raises(InputError, match=r"shape \(14,\); give a 2-D array"):
        problem.values(np.ones(14, bool))
