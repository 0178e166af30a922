"""Which members of a front vote: every way against a plain loop, and by validation rows alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, mean_squared_error, r2_score

from moevoprune import HeadSettings, InputError, PruningProblem, evolve
from moevoprune.fronts import ensembles as module
from moevoprune.fronts.ensemble_greedy import LOSSES
from moevoprune.fronts.ensemble_pool import Pool
from moevoprune.fronts.ensemble_ways import WINDOWS
from moevoprune.fronts.ensembles import WAYS, choose_members
from moevoprune.heads.ensemble import HeadEnsemble

N_MEMBERS = 24


@pytest.fixture(scope="module")
def problem(small_features, quick_head):
    return PruningProblem(small_features, head=quick_head, cv=3, seed=1)


@pytest.fixture(scope="module")
def evolved(problem):
    return evolve(problem, pop_size=12, n_gen=3, seed=1)


@pytest.fixture(scope="module")
def front(problem, evolved):
    """Heads of drawn masks, with drawn predictions, the better the larger: they differ more than evolved ones."""
    generator = np.random.default_rng(4)
    sizes = np.sort(generator.integers(1, 13, N_MEMBERS))
    masks = np.array([generator.permutation(14) < size for size in sizes])
    targets = generator.integers(0, 3, 80)
    skill = np.linspace(0.3, 2.0, N_MEMBERS + 1)[:, None, None]
    outputs = generator.normal(size=(N_MEMBERS + 1, 80, 3)) + skill * np.eye(3)[targets]
    n_test = len(evolved.predictions.test_targets)
    return replace(
        evolved,
        masks=masks,
        active=masks.sum(axis=1),
        F=generator.random((N_MEMBERS, 3)),
        values=generator.random((N_MEMBERS, 3)),
        test=generator.random(N_MEMBERS),
        heads=tuple(problem.fitness.train_final(masks)),
        predictions=replace(
            evolved.predictions,
            validation_rows=np.arange(80),
            validation_targets=targets,
            validation_outputs=outputs.astype(np.float32),
            test_predictions=generator.integers(0, 3, (N_MEMBERS + 1, n_test)),
        ),
    )


@pytest.fixture(scope="module")
def regression(small_regression):
    problem = PruningProblem(small_regression, head=HeadSettings(hidden=(4,), epochs=8), cv=3)
    return evolve(problem, pop_size=10, n_gen=4, seed=1)


def accuracies(front):
    predicted = front.predictions
    return np.array(
        [accuracy_score(predicted.validation_targets, o.argmax(axis=1)) for o in predicted.validation_outputs[:-1]]
    )


def union_of(front, members):
    return set().union(*(front.heads[member].inputs.tolist() for member in members))


def brier(targets, probabilities):
    return float(((probabilities - np.eye(3)[targets]) ** 2).sum(axis=1).mean())


def log_loss(targets, probabilities):
    return -float(np.log(probabilities[np.arange(len(targets)), targets]).mean())


def error_rate(targets, probabilities):
    return 1 - accuracy_score(targets, probabilities.argmax(axis=1))


def select_by_hand(front, measure, initial, rounds, limit=None):
    """Caruana's selection as one would write it down: a list of members, with repetition."""
    predicted = front.predictions
    probabilities = softmax(predicted.validation_outputs[:-1].astype(np.float64), axis=2)

    def loss(members):
        return measure(predicted.validation_targets, probabilities[members].mean(axis=0))

    def fits(members):
        return limit is None or len(union_of(front, members)) <= limit

    bag = []
    for member in sorted(range(len(front)), key=lambda m: loss([m])):
        if len(bag) < initial and fits([*bag, member]):
            bag.append(member)
    for _ in range(rounds):
        options = [m for m in range(len(front)) if fits([*bag, m])]
        losses = {m: loss([*bag, m]) for m in options}
        best = min(losses.values())
        if best >= loss(bag) - 1e-9:
            break
        level = [m for m in options if losses[m] <= best + 1e-9]
        bag.append(min(level, key=lambda m: (len(union_of(front, [*bag, m])), m)))
    members, counts = np.unique(bag, return_counts=True)
    return members, counts / len(bag)


MEASURES = {"squared": brier, "log": log_loss, "error": error_rate}


def test_every_loss_is_tested():
    assert set(MEASURES) == set(LOSSES)


@pytest.mark.parametrize("loss", MEASURES)
@pytest.mark.parametrize("initial", [1, 3, 1000])
def test_greedy_is_ensemble_selection(front, loss, initial):
    members, weights = select_by_hand(front, MEASURES[loss], initial, 50)
    chosen = choose_members(front, "greedy", loss=loss, initial=initial)
    np.testing.assert_array_equal(chosen.members, members)
    np.testing.assert_allclose(chosen.weights, weights)


def test_greedy_votes_with_replacement_and_stops(front):
    assert any(
        len(set(choose_members(front, "greedy", initial=n).weights.round(9).tolist())) > 1 for n in range(1, 6)
    )
    assert len(choose_members(front, "greedy", initial=4, rounds=0).members) == 4
    assert choose_members(front, "greedy", initial=4, rounds=0).weights.tolist() == [0.25] * 4


@pytest.mark.parametrize("limit", [3, 6, 10])
def test_no_way_exceeds_the_features_allowed(front, limit):
    for how in WAYS:
        if how == "window":
            # no member that small is so accurate
            with pytest.raises(InputError, match="none of these members"):
                choose_members(front, how, max_features=limit)
        wide = {"low": 0, "high": 100} if how == "window" else {}
        chosen = choose_members(front, how, max_features=limit, **wide)
        assert 1 <= len(union_of(front, chosen.members)) <= limit
        assert f"at most {limit} features" in chosen.how
    members, weights = select_by_hand(front, brier, 3, 50, limit)
    chosen = choose_members(front, "greedy", initial=3, max_features=limit)
    np.testing.assert_array_equal(chosen.members, members)
    np.testing.assert_allclose(chosen.weights, weights)
    assert len(union_of(front, choose_members(front, "greedy", bags=7, max_features=limit).members)) <= limit


@pytest.mark.parametrize("how", WAYS)
def test_no_more_members_than_asked_for(front, how):
    for most in (1, 2, 4):
        assert len(choose_members(front, how, members=most).members) <= most
    assert len(choose_members(front, "greedy", bags=5, members=3).members) == 3


def test_of_equal_members_the_one_with_fewer_new_features_votes(front):
    outputs = front.predictions.validation_outputs.copy()
    # the best as a pair: two members that make up for each other's mistakes, and all others bad
    half = np.arange(80) < 40
    targets = np.eye(3)[front.predictions.validation_targets]
    outputs[:] = -5 * targets
    first, twin, larger = 2, 15, 8
    front = replace(front, heads=(*front.heads[:15], front.heads[3], *front.heads[16:]))
    outputs[first] = np.where(half[:, None], 9 * targets, 0)
    outputs[twin] = outputs[larger] = np.where(half[:, None], 0, 8 * targets)
    changed = replace(front, predictions=replace(front.predictions, validation_outputs=outputs))
    assert larger < twin
    assert len(union_of(front, [first, twin])) < len(union_of(front, [first, larger]))
    chosen = choose_members(changed, "greedy", initial=1, rounds=1)
    assert chosen.members.tolist() == [first, twin]


def test_bags(front):
    once, again, other = (choose_members(front, "greedy", bags=8, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(once.members, again.members)
    np.testing.assert_array_equal(once.weights, again.weights)
    assert once.members.tolist() != other.members.tolist() or once.weights.tolist() != other.weights.tolist()
    assert once.weights.sum() == pytest.approx(1)
    plain, whole = choose_members(front, "greedy"), choose_members(front, "greedy", bags=3, bag_fraction=1.0)
    np.testing.assert_array_equal(whole.members, plain.members)
    np.testing.assert_allclose(whole.weights, plain.weights)


@pytest.mark.parametrize("seed", range(6))
def test_bags_are_drawn_from_members_that_fit(front, seed):
    sizes = [len(head.inputs) for head in front.heads]
    fitting = {member for member, size in enumerate(sizes) if size <= 2}
    assert 1 < len(fitting) < len(front) / 4
    chosen = choose_members(front, "greedy", bags=1, bag_fraction=0.1, max_features=2, seed=seed)
    assert set(chosen.members.tolist()) <= fitting
    # every bag holds the whole of them
    whole = choose_members(front, "greedy", bags=3, bag_fraction=1.0, max_features=2, seed=seed)
    assert len(union_of(front, whole.members)) <= 2
    plain = choose_members(front, "greedy", max_features=2)
    assert set(plain.members.tolist()) <= set(whole.members.tolist())


def test_all(front):
    chosen = choose_members(front, "all")
    np.testing.assert_array_equal(chosen.members, np.arange(len(front)))
    np.testing.assert_allclose(chosen.weights, 1 / len(front))
    ranked = sorted(range(len(front)), key=lambda m: (-accuracies(front)[m], m))
    assert choose_members(front, "all", members=5).members.tolist() == sorted(ranked[:5])


def test_windows_are_those_of_the_papers(front):
    assert WINDOWS == ((50, 60), (55, 65), (60, 70), (65, 75), (70, 80), (75, 85), (80, 90), (85, 95))
    quality = accuracies(front)
    ranked = np.sort(quality)
    for low, high in [*WINDOWS, (0, 100), (0, 1)]:
        bottom, top = (ranked[int(np.round(p / 100 * (len(front) - 1)))] for p in (low, high))
        expected = [member for member in range(len(front)) if bottom <= quality[member] <= top]
        chosen = choose_members(front, "window", low=low, high=high)
        assert chosen.members.tolist() == expected
        np.testing.assert_allclose(chosen.weights, 1 / len(expected))
    assert (
        choose_members(front, "window").members.tolist()
        == choose_members(front, "window", low=85, high=95).members.tolist()
    )


def test_knee(front):
    scaled = (front.F - front.F.min(axis=0)) / np.ptp(front.F, axis=0)
    distance = [np.linalg.norm(row - scaled[front.knee()]) for row in scaled]
    chosen = choose_members(front, "knee", members=4)
    assert front.knee() in chosen.members
    assert sorted(distance)[3] == pytest.approx(max(distance[member] for member in chosen.members))
    assert choose_members(front, "knee", members=1).members.tolist() == [front.knee()]


def test_diverse(front):
    quality = accuracies(front)
    guesses = front.predictions.validation_outputs[:-1].argmax(axis=2)
    ranked = sorted(range(len(front)), key=lambda m: (-quality[m], m))
    ranked = [member for member in ranked if quality[member] >= max(quality) - 0.2 - 1e-9]
    expected = ranked[:1]
    while len(expected) < min(4, len(ranked)):
        apart = {
            member: np.mean([np.mean(guesses[member] != guesses[other]) for other in expected])
            for member in ranked
            if member not in expected
        }
        expected.append(max(apart, key=lambda m: round(apart[m], 12)))
    chosen = choose_members(front, "diverse", members=4, floor=0.2)
    assert chosen.members.tolist() == sorted(expected)
    assert choose_members(front, "diverse", floor=0).members.tolist() == [
        member for member in range(len(front)) if quality[member] == max(quality)
    ]


def test_diverse_leaves_out_what_agrees_in_every_row(front):
    outputs = front.predictions.validation_outputs.copy()
    outputs[:] = outputs[0]
    same = replace(front, predictions=replace(front.predictions, validation_outputs=outputs))
    assert len(choose_members(same, "diverse").members) == 1


def test_diverse_when_the_best_are_too_large(front):
    smallest = min(len(head.inputs) for head in front.heads)
    chosen = choose_members(front, "diverse", floor=0, max_features=smallest)
    assert len(union_of(front, chosen.members)) == smallest


def test_union_reads_no_more_than_the_best_member(front):
    best = min(range(len(front)), key=lambda m: (-accuracies(front)[m], m))
    chosen = choose_members(front, "union")
    limit = len(front.heads[best].inputs)
    assert len(union_of(front, chosen.members)) <= limit
    members, weights = select_by_hand(front, brier, 1, 50, limit)
    np.testing.assert_array_equal(chosen.members, members)
    np.testing.assert_allclose(chosen.weights, weights)


def test_the_default_reads_fewer_features_than_the_dense_head(front):
    for how in (front, replace(front, heads=(*front.heads[:-1], front.dense_head))):
        assert len(how.ensemble().inputs) < how.dense_head.n_features
    # where every head reads all, so may the ensemble
    everything = replace(front, heads=(front.dense_head,) * len(front))
    assert len(everything.ensemble().inputs) == everything.dense_head.n_features


def test_the_default_is_the_more_accurate_half(front):
    predicted = front.predictions
    accuracy = [
        accuracy_score(predicted.validation_targets, outputs.argmax(axis=1))
        for outputs in predicted.validation_outputs[:-1]
    ]
    # by default one feature fewer, which binds where there are few
    chosen = choose_members(front, max_features=front.dense_head.n_features)
    others = set(range(len(front))) - set(chosen.members.tolist())
    assert len(front) / 2 - 1 <= len(chosen.members) <= len(front)
    assert min(accuracy[member] for member in chosen.members) >= max(accuracy[member] for member in others)
    assert len(set(chosen.weights)) == 1
    few = choose_members(front, members=2, max_features=front.dense_head.n_features)
    assert set(few.members) <= set(chosen.members)
    assert len(few.members) == 2
    # of many sizes, not the two best
    sizes = front.active[chosen.members]
    assert sizes.min() <= front.active[few.members].min() < front.active[few.members].max() <= sizes.max()


@pytest.mark.parametrize("how", WAYS)
def test_test_rows_have_no_say(front, how):
    predicted = front.predictions
    garbled = replace(
        front,
        test=front.test[::-1],
        predictions=replace(
            predicted,
            test_targets=predicted.test_targets[::-1],
            test_predictions=np.zeros_like(predicted.test_predictions),
        ),
    )
    ours, theirs = choose_members(front, how), choose_members(garbled, how)
    np.testing.assert_array_equal(ours.members, theirs.members)
    np.testing.assert_array_equal(ours.weights, theirs.weights)
    assert ours.weights.sum() == pytest.approx(1)
    assert (np.diff(ours.members) > 0).all()
    assert (ours.weights > 0).all()


@pytest.mark.parametrize("how", WAYS)
def test_diverged_members_never_take_part(front, how):
    best = int(np.argmax(accuracies(front)))
    outputs = front.predictions.validation_outputs.copy()
    outputs[best, 3, 1] = np.nan
    heads = list(front.heads)
    other = front.knee()
    heads[other] = replace(heads[other], weights=tuple(w * np.float32(np.inf) for w in heads[other].weights))
    broken = replace(front, heads=heads, predictions=replace(front.predictions, validation_outputs=outputs))
    assert not {best, other} & set(choose_members(broken, how).members.tolist())
    outputs[:] = np.nan
    with pytest.raises(InputError, match="all have diverged"):
        choose_members(broken, how)


@pytest.mark.parametrize("how", WAYS)
def test_regression(regression, small_regression, how):
    chosen = choose_members(regression, how)
    heads = [regression.heads[member] for member in chosen.members]
    features = small_regression.X_test
    expected = np.tensordot(chosen.weights, [head.outputs(features) for head in heads], axes=1)
    ensemble = regression.ensemble(how)
    np.testing.assert_allclose(ensemble.predict(features), expected, rtol=1e-4)
    with pytest.raises(InputError, match="regression heads"):
        regression.ensemble(how, "hard")


def test_regression_measures(regression):
    predicted = regression.predictions
    pool = Pool.of(regression)
    for place, member in enumerate(pool.members):
        r2 = r2_score(predicted.validation_targets, predicted.validation_outputs[member])
        assert pool.quality[place] == pytest.approx(r2, abs=1e-6)
    scale = predicted.validation_targets.std(axis=0)

    def loss(members):
        mean = predicted.validation_outputs[members].astype(np.float64).mean(axis=0)
        return mean_squared_error(predicted.validation_targets / scale, mean / scale)

    singles = [loss([member]) for member in range(len(regression))]
    alone = choose_members(regression, "greedy", initial=1, rounds=0)
    assert alone.members.tolist() == [int(np.argmin(singles))]
    several = choose_members(regression, "greedy", initial=1)
    counts = np.rint(several.weights / several.weights.min()).astype(int)
    assert loss(np.repeat(several.members, counts).tolist()) <= min(singles) + 1e-9
    for name in ("log", "error"):
        with pytest.raises(InputError, match="use squared"):
            choose_members(regression, "greedy", loss=name)


def test_a_front_makes_its_ensemble(evolved, small_features):
    chosen = choose_members(evolved, "greedy", initial=2)
    ensemble = evolved.ensemble("greedy", initial=2)
    assert isinstance(ensemble, HeadEnsemble)
    assert ensemble.n_members == len(chosen.members)
    np.testing.assert_array_equal(ensemble.weights, chosen.weights)
    expected = sum(
        weight * evolved.heads[member].predict_proba(small_features.X_test)
        for member, weight in zip(chosen.members, chosen.weights, strict=True)
    )
    np.testing.assert_allclose(ensemble.predict_proba(small_features.X_test), expected, atol=1e-5)
    assert evolved.ensemble(voting="hard").voting == "hard"
    # as the objective measures it, but for float32
    np.testing.assert_allclose(Pool.of(evolved).quality, evolved.column("accuracy"), atol=1e-9)


def test_a_newcomer_adds_a_way(front, monkeypatch):
    def smallest(pool, members=2):
        votes = np.zeros(len(pool.members))
        votes[:members] = 1
        return votes, "the smallest"

    monkeypatch.setitem(module.WAYS, "smallest", smallest)
    assert choose_members(front, "smallest", members=3).members.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("how", "options", "said"),
    [
        ("gredy", {}, "did you mean 'greedy'"),
        ("greedy", {"los": "log"}, "no option 'los'; did you mean 'loss'"),
        ("all", {"rounds": 3}, "no option 'rounds'; it has members, max_features"),
        ("all", {"pool": None}, "no option 'pool'"),
        ("greedy", {"loss": "hinge"}, "use one of squared, log, error"),
        ("greedy", {"initial": 0}, "initial = 0"),
        ("greedy", {"rounds": -1}, "rounds = -1"),
        ("greedy", {"bags": 1.5}, "bags = 1.5"),
        ("greedy", {"bag_fraction": 0}, "bag_fraction = 0"),
        ("greedy", {"bag_fraction": 1.5}, "bag_fraction = 1.5"),
        ("greedy", {"bag_fraction": float("nan")}, "bag_fraction = nan"),
        ("greedy", {"members": 0}, "members = 0"),
        ("union", {"max_features": -1}, "max_features = -1"),
        ("union", {"max_features": "3"}, "max_features = '3'"),
        ("window", {"low": 80, "high": 70}, "ends above its start"),
        ("window", {"low": -1}, "low = -1"),
        ("window", {"high": 101}, "high = 101"),
        ("knee", {"members": 0}, "members = 0"),
        ("diverse", {"members": 0}, "members = 0"),
        ("diverse", {"floor": 2}, "floor = 2"),
        ("diverse", {"floor": True}, "floor = True"),
    ],
)
def test_bad_options_are_refused(front, how, options, said):
    with pytest.raises(InputError, match=said):
        choose_members(front, how, **options)


def test_too_few_features_are_refused(front):
    everything = replace(front, heads=(front.dense_head,) * len(front))
    for how in WAYS:
        with pytest.raises(InputError, match="every member reads more, 14 features at least"):
            choose_members(everything, how, max_features=13)
    # some members read so few, but none in the window
    heads = [front.dense_head] * len(front)
    worst = int(np.argmin(accuracies(front)))
    heads[worst] = front.heads[0]
    with pytest.raises(InputError, match="none of these members"):
        choose_members(replace(front, heads=tuple(heads)), "window", max_features=13)


def test_fronts_without_predictions_are_refused(front):
    with pytest.raises(InputError, match="no validation predictions"):
        choose_members(replace(front, predictions=None))
