"""Robustness: held to loops of its own, to scikit-learn, and to resampling."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import r2_score

from moevoprune import FeatureSet, HeadSettings, InputError, PruningProblem, evolve
from moevoprune.features.corruptions import CORRUPTIONS, corrupt
from moevoprune.features.preprocessing import Preprocessing
from moevoprune.fronts.robustness import (
    RobustnessCurve,
    feature_dropout,
    feature_noise,
    from_csv,
    image_corruptions,
    load_robustness,
    predictors_of,
    to_csv,
)


@pytest.fixture(scope="module")
def front(small_features, quick_head):
    return evolve(PruningProblem(small_features, head=quick_head, cv=3, seed=1), pop_size=8, n_gen=3, seed=1)


@pytest.fixture(scope="module")
def regression_front(small_regression):
    return evolve(
        PruningProblem(small_regression, head=HeadSettings(epochs=20), cv=3), pop_size=6, n_gen=2, seed=1
    )


class Spy:
    """A predictor of its own kind: notes what it is given, and always says 1."""

    def __init__(self):
        self.seen = []

    def predict(self, features):
        self.seen.append(features.copy())
        return np.ones(len(features), dtype=np.int64)


def of(curves, name, kind="feature_noise"):
    (found,) = [curve for curve in curves if (curve.name, curve.kind) == (name, kind)]
    return found


# --- noise on features -----------------------------------------------------------------------------------------


def test_without_noise_it_is_the_test_score(front, small_features):
    curves = feature_noise(front, small_features, [0], seed=1)
    assert [curve.name for curve in curves] == ["knee", "best", "dense", "ensemble"]
    assert of(curves, "knee").accuracy == pytest.approx((front.test[front.knee()],))
    assert of(curves, "best").accuracy == pytest.approx((front.test[front.best("accuracy")],))
    assert of(curves, "dense").accuracy == pytest.approx((front.dense_test,))
    ensemble = predictors_of(front)["ensemble"]
    expected = np.mean(ensemble.predict(small_features.X_test) == small_features.y_test)
    assert of(curves, "ensemble").accuracy == pytest.approx((expected,))


def test_noise_is_in_training_deviations_and_the_same_for_all(small_features):
    features = FeatureSet(
        np.c_[small_features.X_train * np.arange(1, 15), np.ones(96)],
        small_features.y_train,
        np.c_[small_features.X_test * np.arange(1, 15), np.ones(45)],
        small_features.y_test,
    )
    one, other = Spy(), Spy()
    curves = feature_noise({"one": one, "other": other}, features, (1.0, 0.0, 0.5), seed=4, repeats=3)
    np.testing.assert_array_equal(one.seen, other.seen)
    assert of(curves, "one").severities == (0, 0.5, 1)
    assert len(one.seen) == 9
    noise = [rows - features.X_test for rows in one.seen]
    np.testing.assert_array_equal(one.seen[0], features.X_test)
    np.testing.assert_allclose(2 * noise[1], noise[2], atol=1e-4)
    assert np.abs(noise[2] - noise[5]).max() > 0.1
    spread = np.concatenate([noise[number][:, :14] for number in (2, 5, 8)]).std(axis=0)
    np.testing.assert_allclose(spread, features.X_train[:, :14].std(axis=0), rtol=0.25)
    # together, the 1,890 numbers say it more exactly
    assert (spread / features.X_train[:, :14].std(axis=0)).mean() == pytest.approx(1, abs=0.05)


def test_validation_rows_are_training_rows_too(small_features):
    features = FeatureSet(
        small_features.X_train,
        small_features.y_train,
        small_features.X_test,
        small_features.y_test,
        X_val=small_features.X_test * 100,
        y_val=small_features.y_test,
    )
    spy = Spy()
    feature_noise({"spy": spy}, features, [1], seed=0, repeats=8)
    noise = np.concatenate(spy.seen) - np.tile(features.X_test, (8, 1))
    both = np.concatenate([features.X_train, features.X_val])
    assert (noise.std(axis=0) / both.std(axis=0)).mean() == pytest.approx(1, abs=0.05)


def test_accuracy_and_error_are_those_of_a_loop(front, small_features):
    spy, head = Spy(), front.dense_head
    curves = feature_noise({"spy": spy, "head": head}, small_features, (0.5, 2), seed=9, repeats=4)
    for number, severity in enumerate((0.5, 2)):
        rights = []
        for repeat in range(4):
            logits = head.outputs(spy.seen[2 * repeat + number]).astype(np.float64)
            rights.append(
                [int(row.argmax() == label) for row, label in zip(logits, small_features.y_test, strict=True)]
            )
        share = np.mean(rights, axis=0)
        at = of(curves, "head").severities.index(severity)
        assert of(curves, "head").accuracy[at] == pytest.approx(np.mean(rights))
        assert of(curves, "head").error[at] == pytest.approx(np.std(share) / np.sqrt(45))
    accuracy = np.mean(small_features.y_test == 1)
    # of an answer that does not vary it is the binomial error
    assert of(curves, "spy").error == pytest.approx((np.sqrt(accuracy * (1 - accuracy) / 45),) * 2)


def test_the_seed_decides(front, small_features):
    first, again, other = (feature_noise(front, small_features, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    # strong noise hurts
    assert of(first, "dense").accuracy[-1] < of(first, "dense").accuracy[0] - 0.05


def test_regression_has_r2(regression_front, small_regression):
    spy = Spy()
    head = regression_front.dense_head
    spy.predict = lambda rows: (spy.seen.append(rows.copy()), np.zeros((len(rows), 2)))[1]
    curves = feature_noise({"spy": spy, "dense": head}, small_regression, (0, 0.5), seed=2, repeats=3)
    targets = small_regression.y_test
    clean, noisy = of(curves, "dense").accuracy
    assert clean == pytest.approx(regression_front.dense_test)
    predicted = [head.predict(rows) for rows in spy.seen[1::2]]
    assert noisy == pytest.approx(np.mean([r2_score(targets, guess) for guess in predicted]), abs=1e-6)
    # the standard error against the bootstrap
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(targets), len(targets)) for _ in range(400)]
    bootstrap = [np.mean([r2_score(targets[rows], guess[rows]) for guess in predicted]) for rows in draws]
    assert of(curves, "dense").error[1] == pytest.approx(np.std(bootstrap), rel=0.3)


def test_constant_targets_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 3))
    targets = np.c_[rows @ [1, 2, 3], rng.normal(size=30)]
    test = targets[20:].copy()
    test[:, 1] = 7
    features = FeatureSet(rows[:20], targets[:20], rows[20:], test, task="regression")
    for second in (7.0, 6.0):
        guess = np.c_[test[:, 0] + 0.3, np.full(10, second)]
        predictor = SimpleNamespace(predict=lambda rows, guess=guess: guess)
        (curve,) = feature_noise({"it": predictor}, features, [0])
        assert curve.accuracy[0] == pytest.approx(r2_score(features.y_test, guess), abs=1e-5)


def test_diverged_heads_have_the_worst_score(front, regression_front, small_features, small_regression):
    for good, data, worst in ((front, small_features, 0), (regression_front, small_regression, -1e3)):
        head = good.dense_head
        broken = replace(head, weights=(head.weights[0] * np.float32("nan"), *head.weights[1:]))
        (curve,) = feature_noise({"broken": broken}, data, [0, 1])
        assert curve.accuracy == (worst, worst)
        assert curve.error == (0, 0)


def test_predictors(front):
    names = list(predictors_of(front, [0, 2]))
    assert names == ["knee", "best", "member 0", "member 2", "dense", "ensemble"]
    assert predictors_of(front, [2])["member 2"] is front.heads[2]
    # a run of an older version
    assert "ensemble" not in predictors_of(replace(front, predictions=None))
    empty = replace(front, masks=front.masks[:0], F=front.F[:0])
    with pytest.raises(InputError, match="no members"):
        predictors_of(empty)


@pytest.mark.parametrize(
    "wrong",
    [
        {"severities": []},
        {"severities": [-1]},
        {"severities": [0, float("nan")]},
        {"severities": [float("inf")]},
        {"repeats": 0},
        {"seed": -1},
    ],
)
def test_arguments_out_of_range(front, small_features, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        feature_noise(front, small_features, **wrong)


def test_features_of_another_width(front, small_regression):
    with pytest.raises(InputError, match="14 features"):
        feature_noise({"dense": front.dense_head}, small_regression)


# --- lost features ---------------------------------------------------------------------------------------------


def test_lost_features_have_their_training_mean(small_features):
    one, other = Spy(), Spy()
    curves = feature_dropout({"one": one, "other": other}, small_features, (0.5, 0, 0.25, 1), seed=4, repeats=3)
    np.testing.assert_array_equal(one.seen, other.seen)
    assert of(curves, "one", "feature_dropout").severities == (0, 0.25, 0.5, 1)
    mean = np.tile(small_features.X_train.mean(axis=0, dtype=np.float64), (45, 1))
    lost = np.array([rows != small_features.X_test for rows in one.seen]).reshape(3, 4, 45, 14)
    for rows, gone in zip(one.seen, lost.reshape(12, 45, 14), strict=True):
        np.testing.assert_allclose(rows[gone], mean[gone], atol=1e-6)
    np.testing.assert_allclose(lost.mean(axis=(0, 2, 3)), (0, 0.25, 0.5, 1), atol=0.05)
    # what is lost is lost at larger shares, too, and each draw is another
    assert (lost[:, 1] <= lost[:, 2]).all()
    assert (lost[0, 2] != lost[1, 2]).any()


def test_accuracy_with_lost_features_is_that_of_a_loop(front, small_features):
    spy = Spy()
    curves = feature_dropout({"spy": spy, "dense": front.dense_head}, small_features, [0.5], seed=1, repeats=4)
    rights = [np.mean(front.dense_head.predict(rows) == small_features.y_test) for rows in spy.seen]
    assert of(curves, "dense", "feature_dropout").accuracy == pytest.approx((np.mean(rights),))
    everything = of(feature_dropout(front, small_features, [1], seed=1), "dense", "feature_dropout").accuracy
    # all rows are the same then
    assert everything[0] in [np.mean(small_features.y_test == label) for label in range(3)]
    with pytest.raises(InputError, match=r"shares of lost features are 0\.5, 1\.5: give numbers of 0 to 1"):
        feature_dropout(front, small_features, [0.5, 1.5])


# --- images ----------------------------------------------------------------------------------------------------


class Brightest:
    """A backbone of 12 x 12 pixels with three features, the mean of each colour; it predicts the largest."""

    feature_size = 3

    def __init__(self):
        self.preprocessing = Preprocessing(resize=14, crop=12)
        self.batches = []

    def features(self, pixels):
        self.batches.append(pixels)
        return pixels.mean(dim=(2, 3))

    @staticmethod
    def predict(features):
        return features.argmax(axis=1)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(5)
    labels = np.arange(21) % 3
    pixels = rng.integers(100, 150, (21, 12, 12, 3))
    pixels[np.arange(21), :, :, labels] += 12
    return [Image.fromarray(image.astype(np.uint8)) for image in pixels], labels


def test_corrupted_images_go_through_the_backbone_once(pictures):
    images, labels = pictures
    backbone, spy, counts = Brightest(), Spy(), []
    curves = image_corruptions(
        {"mean": backbone, "one": spy},
        backbone,
        images,
        labels,
        ["contrast", "gaussian_noise"],
        [3, 5, 3],
        seed=6,
        progress=lambda done, total: counts.append((done, total)),
    )
    assert [(curve.kind, curve.name) for curve in curves] == [
        ("contrast", "mean"),
        ("contrast", "one"),
        ("gaussian_noise", "mean"),
        ("gaussian_noise", "one"),
    ]
    assert all(curve.severities == (0, 3, 5) for curve in curves)
    # the images as they are serve both kinds
    assert sum(len(batch) for batch in backbone.batches) == 5 * 21
    assert counts[-1] == (105, 105)
    assert len(spy.seen) == 5
    assert of(curves, "one", "contrast").accuracy == pytest.approx((1 / 3,) * 3)

    prepare = backbone.preprocessing.normalised
    for curve in curves:
        if curve.name == "mean":
            for severity, accuracy in zip(curve.severities, curve.accuracy, strict=True):
                right = 0
                for place, (image, label) in enumerate(zip(images, labels, strict=True)):
                    rng = np.random.default_rng([6, 0xC022, place])
                    pixels = prepare(corrupt(image, curve.kind, int(severity), rng)).numpy()
                    right += int(pixels.astype(np.float64).mean(axis=(1, 2)).argmax() == label)
                assert accuracy == pytest.approx(right / 21)


def test_all_corruptions_by_default(pictures):
    images, labels = pictures
    curves = image_corruptions({"mean": Brightest()}, Brightest(), images[:3], labels[:3], severities=[1])
    assert [curve.kind for curve in curves] == list(CORRUPTIONS)


def test_a_front_s_heads_read_the_backbone(front):
    class Fourteen(Brightest):
        def features(self, pixels):
            return pixels.flatten(1)[:, :14]

    images = [Image.new("RGB", (12, 12), (i * 9, 0, 0)) for i in range(4)]
    curves = image_corruptions(front, Fourteen(), images, [0, 1, 2, 0], ["jpeg"], [2])
    assert [curve.name for curve in curves] == ["knee", "best", "dense", "ensemble"]
    pixels = torch.stack([Fourteen().preprocessing.normalised(image) for image in images])
    expected = np.mean(front.dense_head.predict(pixels.flatten(1)[:, :14].numpy()) == [0, 1, 2, 0])
    assert of(curves, "dense", "jpeg").accuracy[0] == pytest.approx(expected)


def test_images_that_do_not_fit(pictures):
    images, labels = pictures
    for some, given in ((images, labels[:3]), ([], [])):
        with pytest.raises(InputError, match="one label for each image"):
            image_corruptions({}, Brightest(), some, given)
    with pytest.raises(InputError, match="severity"):
        image_corruptions({}, Brightest(), images, labels, severities=[6])
    with pytest.raises(InputError, match="unknown corruption"):
        image_corruptions({}, Brightest(), images, labels, ["snow"])


# --- files -----------------------------------------------------------------------------------------------------

CURVES = [
    RobustnessCurve("knee", "feature_noise", (0.0, 0.25, 2.0), (0.9, 0.8, -3.25), (0.01, 0.02, 0.0)),
    RobustnessCurve('a,"b"\n<i>é', "jpeg", (0.0, 1.0), (1.0, 0.5), (0.0, 0.125)),
]


def test_csv_is_read_back(tmp_path):
    assert load_robustness(tmp_path) is None
    (tmp_path / "robustness.csv").write_bytes(to_csv(CURVES).encode())
    assert load_robustness(tmp_path) == CURVES
    assert to_csv(CURVES).splitlines()[:2] == [
        "name,kind,severity,accuracy,error",
        "knee,feature_noise,0,0.900000,0.010000",
    ]
    assert from_csv(to_csv([])) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "name,kind,severity,accuracy,error\nknee,jpeg,1,0.5\n",
        "name,kind,severity,accuracy,error\nknee,jpeg,1,0.5,x\n",
        "name,kind,severity,accuracy,error\nknee,jpeg,1,nan,0\n",
        "name,kind,severity,accuracy,error\nknee\n",
        'name,kind,severity,accuracy,error\n"knee,jpeg,1,0.5,0\n',
    ],
)
def test_damaged_tables_are_refused(tmp_path, text):
    (tmp_path / "robustness.csv").write_text(text)
    with pytest.raises(InputError, match=r"robustness\.csv"):
        load_robustness(tmp_path)


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "robustness.csv").write_bytes(b"name,kind\xff")
    with pytest.raises(InputError, match="UTF-8"):
        load_robustness(tmp_path)
