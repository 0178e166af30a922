"""Ensembles against single heads, from planted scores: tables, tests, verdicts and gains."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from moevoprune.fronts.ensemble_tables import BEST_MEMBER, DENSE, EnsembleRow, EnsembleStudy, WindowResult
from moevoprune.studies.ensemble_gains import claim_sections, largest_gains_table
from moevoprune.studies.ensemble_means import ACCURACY, AUROC, ensemble_rows, ways_table, windows_table
from moevoprune.studies.ensemble_windows_figure import plot_ensemble_windows

SEEDS = 6
# test accuracy of each way, and how far a window's votes are above its members
WAYS = {("default", "soft"): 0.8, ("greedy", "soft"): 0.7, (BEST_MEMBER, None): 0.8, (DENSE, None): 0.75}
LEAD = {"up": 0.05, "down": -0.05}


def planted(generator, lead):
    def near(level):
        return level + 0.004 * generator.normal()

    ways = tuple(
        EnsembleRow(
            name,
            name,
            voting,
            3,
            20,
            0.5,
            100,
            0.8,
            near(level),
            near(0.1),
            None,
            None,
            0,
            near(0.7),
            (0,),
            (1.0,),
        )
        for (name, voting), level in WAYS.items()
    )
    windows = tuple(
        WindowResult(
            low,
            low + 30,
            4,
            hard=near(0.7 + lead),
            soft=near(0.7 + lead),
            best_member=near(0.72),
            best_by_validation=near(0.7),
            mean_member=near(0.68),
            ood_auroc=near(0.9),
            ood_best_member=near(0.9),
            ood_best_by_selection=near(0.9 - lead),
            ood_mean_member=near(0.85),
        )
        for low in (50, 55)
    )
    return EnsembleStudy("accuracy", 40, "msp", ways, windows)


@pytest.fixture(scope="module")
def studies():
    generator = np.random.default_rng(2)
    return {data: [planted(generator, lead) for _ in range(SEEDS)] for data, lead in LEAD.items()}


def cells(table):
    _, _, *lines = table.splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def short(value, sign=""):
    return f"{value:{sign}.3f}".replace("0.", ".", 1)


def test_claims_are_tests_of_means_over_the_windows(studies):
    sections = claim_sections(studies)
    verdicts = dict(section.rsplit(": ", 1) for section in sections[1::2])
    assert len(verdicts) == 9
    both = "(ahead on up, behind on down)."
    assert verdicts["Accuracy: soft vote against the member one would have picked"] == f"**holds in part** {both}"
    assert verdicts["AUROC: mean score against the member one would have picked"] == f"**holds in part** {both}"
    neither = "(no difference shown on up, no difference shown on down)."
    assert verdicts["The default ensemble against the best member by validation"] == f"**does not hold** {neither}"
    assert verdicts["The default ensemble against the dense head"] == "**holds** (ahead on up, ahead on down)."
    greedy = "The greedy ensemble, of few members, against the dense head"
    assert verdicts[greedy] == "**does not hold** (behind on up, behind on down)."

    columns = [
        [np.mean([getattr(window, name) for window in study.windows]) for study in studies["up"]]
        for name in ("hard", "best_member")
    ]
    of_up = cells(sections[2 * 3])[0]
    assert of_up[1:3] == [short(np.mean(column)) for column in columns]
    p_value = ttest_rel(*columns).pvalue
    assert of_up[4] == "< .001" if p_value < 0.001 else float(of_up[4]) == pytest.approx(p_value, abs=5e-4)


def test_of_a_trial_nothing_is_concluded(studies):
    sections = claim_sections(studies, conclusive=False)
    assert all("**nothing can be concluded**" in section for section in sections[1::2])


def test_the_largest_gain_is_of_means_over_the_seeds(studies):
    gains = [
        np.mean([study.windows[place].hard - study.windows[place].best_member for study in studies["down"]])
        for place in (0, 1)
    ]
    head = largest_gains_table(studies).splitlines()[0].split("|")
    column = [cell.strip() for cell in head].index("majority vote over member best on test")
    assert cells(largest_gains_table(studies))[1][column - 1] == short(max(gains), "+")


def test_tables_and_lines_have_what_was_scored(studies):
    seeds = studies["up"]
    default, *_, dense = cells(ways_table(seeds))
    assert default[:3] == ["default, soft", "3", ".50"]
    assert dense[0] == DENSE
    assert dense[3].split(" [")[0] == short(np.mean([study.row(DENSE).test for study in seeds]))
    # no rows are out of distribution
    assert dense[6] == ""
    first, _ = cells(windows_table(seeds, ACCURACY))
    assert first[:2] == ["50\N{EN DASH}80", "4"]
    assert [cell.split(" [")[0] for cell in first[2:]] == [
        short(np.mean([getattr(study.windows[0], name) for study in seeds])) for name in ACCURACY
    ]
    assert len(cells(windows_table(seeds, AUROC))[0]) == 2 + len(AUROC)

    lines = ensemble_rows("up", 3, seeds[2])
    assert [(line["data"], line["seed"]) for line in lines] == [("up", 3)] * 6
    assert lines[3]["test"] == seeds[2].row(DENSE).test
    assert (lines[5]["ensemble"], lines[5]["soft"]) == ("window", seeds[2].windows[1].soft)


def test_the_figure_shows_means_over_the_seeds(studies):
    ax = plot_ensemble_windows(studies)
    assert [panel.get_title() for panel in ax.figure.axes] == ["up", "down", "", ""]
    drawn = [line.get_ydata() for line in ax.get_lines()]
    soft = np.mean([[window.soft for window in study.windows] for study in studies["up"]], axis=0)
    assert any(len(values) == 2 and np.allclose(values, soft) for values in drawn)
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()][1] == "ensemble: majority vote"
