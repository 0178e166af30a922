"""The HTML report in a real browser: no errors, no requests, and it answers pointer and keyboard."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from moevoprune import PruningProblem, evolve
from moevoprune.fronts.member_maps import MemberMaps
from moevoprune.fronts.plots import save_figures
from moevoprune.fronts.report import write_report
from moevoprune.fronts.wording import short_number

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 375, "height": 800}


@pytest.fixture(scope="module")
def front(small_features, quick_head):
    return evolve(PruningProblem(small_features, head=quick_head, cv=3, seed=1), pop_size=10, n_gen=4, seed=1)


@pytest.fixture(scope="module")
def report(front, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "a run"
    front.save(folder)
    save_figures(front, folder / "figures")
    _maps(len(front)).save(folder)
    return write_report([folder], folder / "report.html")


@pytest.fixture
def open_page(browser, report):
    """Opens the report; fails where the page complains, or asks for anything but itself."""

    @contextmanager
    def opened(viewport=DESKTOP, **options) -> Iterator:
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        try:
            page = context.new_page()
            complaints, requests = [], []
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda request: requests.append(request.url))
            page.goto(report.as_uri())
            yield page
            assert complaints == []
            # what is in the page itself is asked for by no one else
            assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]
        finally:
            context.close()

    return opened


def _maps(members: int) -> MemberMaps:
    jpeg = io.BytesIO()
    Image.new("RGB", (40, 40), (90, 140, 90)).save(jpeg, "jpeg")
    heat = np.zeros((members + 1, 2, 4, 4), np.uint8)
    # member 0 looks at the whole of the first image, nobody at anything else
    heat[0, 0] = 255
    return MemberMaps(
        keys=("left", "right"),
        labels=np.array([0, 1]),
        thumbnails=(jpeg.getvalue(),) * 2,
        heat=heat,
        predicted=np.tile(np.arange(members + 1)[:, None] % 3, (1, 2)),
        confidence=np.ones((members + 1, 2), np.float16),
    )


def _alone(front) -> int:
    """A member far from all others in the plot as it starts, but for the knee."""
    places = np.column_stack([np.log(front.active), 3 * front.column("accuracy")])
    distances = np.hypot(*(places[:, None] - places[None]).T)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=0)
    nearest[front.knee()] = 0
    return int(nearest.argmax())


def _centre(point) -> tuple[float, float]:
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _kept(page) -> list[int]:
    """Cells of the mask that are drawn as kept."""
    drawn = page.locator(".masks .shade5").get_attribute("d") or ""
    return sorted(8 * int(row) + int(column) for column, row in re.findall(r"M(\d+) (\d+)h", drawn))


def test_a_hover_shows_the_numbers_of_a_member(open_page, front):
    member = _alone(front)
    with open_page() as page:
        assert page.locator(".tooltip").is_hidden()
        page.mouse.move(*_centre(page.locator(f".points [data-member='{member}']")))
        text = page.locator(".tooltip").inner_text()
        assert text.startswith(f"Member {member}")
        for value in (*front.values[member], front.test[member]):
            assert short_number(value) in text
        page.mouse.move(5, 5)
        assert page.locator(".tooltip").is_hidden()


def test_a_click_shows_the_mask_and_the_confusion_matrices(open_page, front, small_features):
    member = _alone(front)
    with open_page() as page:
        assert page.locator(".selected").inner_text().startswith(f"Member {front.knee()} (knee")
        assert _kept(page) == front.heads[front.knee()].inputs.tolist()
        for chosen, head in ((member, front.heads[member]), (len(front), front.dense_head)):
            page.mouse.click(*_centre(page.locator(f".points [data-member='{chosen}']")))
            expected = "Unpruned" if chosen == len(front) else f"Member {member}"
            assert page.locator(".selected").inner_text().startswith(expected)
            assert _kept(page) == head.inputs.tolist()
            assert page.locator(".kept").inner_text() == f"{len(head.inputs)} of 14 features"
            counts = [int(cell) for cell in page.locator("[data-confusion='0'] td").all_inner_texts()]
            truth = confusion_matrix(small_features.y_test, head.predict(small_features.X_test), labels=[0, 1, 2])
            assert counts == truth.ravel().tolist()
            validation = [int(cell) for cell in page.locator("[data-confusion='1'] td").all_inner_texts()]
            member_number = -1 if chosen == len(front) else chosen
            again = front.predictions.confusion(member_number, "validation", 3)
            assert validation == again.ravel().tolist()


def test_heat_maps_follow_the_selected_member(open_page, front):
    with open_page() as page:
        page.locator(".thumbnails canvas").nth(1).wait_for()

        def colourful(number: int) -> bool:
            return (
                page.locator(".thumbnails canvas")
                .nth(number)
                .evaluate(
                    "c => { const p = c.getContext('2d').getImageData(9, 9, 1, 1).data; return p[0] > p[2] + 40; }"
                )
            )

        page.locator(".points [tabindex='0']").focus()
        page.keyboard.press("Home")
        page.keyboard.press("Enter")
        assert page.locator(".selected").inner_text().startswith("Member 0")
        assert [colourful(0), colourful(1)] == [True, False]
        assert page.locator(".thumbnails figcaption").all_inner_texts() == ["✓ a, 100 %", "✗ a, 100 %; it is b"]
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        assert not colourful(0)


def test_the_keyboard_goes_through_the_members(open_page, front):
    knee = front.knee()
    with open_page() as page:
        page.locator(".choose-across").focus()
        for _ in range(5):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.classList.contains('point')"):
                break
        focused = "Number(document.activeElement.dataset.member)"
        assert page.evaluate(focused) == knee
        page.keyboard.press("ArrowRight")
        assert page.evaluate(focused) == knee + 1
        assert page.locator(".tooltip").is_visible()
        assert page.locator(".selected").inner_text().startswith(f"Member {knee} ")
        page.keyboard.press("Space")
        assert page.locator(".selected").inner_text() == page.locator(".tooltip strong").inner_text()
        page.keyboard.press("Home")
        assert page.evaluate(focused) == 0
        page.keyboard.press("End")
        assert page.evaluate(focused) == len(front)
        page.keyboard.press("Escape")
        assert page.locator(".tooltip").is_hidden()
        label = page.locator(f".points [data-member='{len(front)}']").get_attribute("aria-label")
        assert label.startswith("Unpruned (dense) head: active features 14,")


def test_other_objectives_can_be_drawn(open_page, front):
    smallest, largest = int(front.column("cka").argmin()), int(front.column("cka").argmax())
    with open_page() as page:

        def place(member: int) -> tuple[float, float]:
            return _centre(page.locator(f".points [data-member='{member}']"))

        page.locator(".panel").scroll_into_view_if_needed()
        page.select_option(".choose-up", label="CKA, validation")
        assert page.locator(".axis.up").text_content() == "CKA, validation (higher is better)"
        assert place(smallest)[1] > place(largest)[1]
        page.select_option(".choose-across", label="CKA, validation")
        assert page.locator(".axis.across").text_content() == "CKA, validation (higher is better)"
        assert place(smallest)[0] < place(largest)[0]
        assert page.locator(".test").first.is_hidden()
        page.mouse.move(*place(smallest))
        assert short_number(front.column("cka")[smallest]) in page.locator(".tooltip").inner_text()


def test_test_scores_can_be_hidden(open_page):
    with open_page() as page:
        circle = page.locator(".chart .test").first
        assert circle.is_visible()
        page.locator(".show-tests input").uncheck()
        assert circle.is_hidden()


def test_a_phone_needs_no_scrolling_sideways(open_page):
    with open_page(PHONE, has_touch=True) as page:
        page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        wide = page.locator(".scroll").evaluate_all(
            "boxes => boxes.some((box) => box.scrollWidth > box.clientWidth)"
        )
        assert wide


def test_dark_and_light(open_page):
    def brightness(page, of: str) -> float:
        value = page.evaluate(f"getComputedStyle(document.body).{of}")
        return sum(int(channel) for channel in re.findall(r"\d+", value)[:3]) / 3

    with open_page(color_scheme="dark") as page:
        assert brightness(page, "backgroundColor") < 40
        assert brightness(page, "color") > 200
        page.locator("button.theme").click()
        assert brightness(page, "backgroundColor") > 230
    with open_page(color_scheme="light") as page:
        assert brightness(page, "backgroundColor") > 230
        page.locator("button.theme").click()
        assert brightness(page, "backgroundColor") < 40


def test_without_scripts_everything_is_there_but_the_controls(open_page, front):
    with open_page(java_script_enabled=False) as page:
        assert page.locator(".chart").is_visible()
        assert page.locator(".chart .point").count() == len(front) + 1
        assert page.locator(".selected").inner_text().startswith(f"Member {front.knee()} (knee")
        assert _kept(page) == front.heads[front.knee()].inputs.tolist()
        assert page.locator("[data-confusion='0']").is_visible()
        for picture in page.locator("figure img").all():
            picture.scroll_into_view_if_needed()
            assert picture.is_visible()
            assert picture.bounding_box()["height"] > 20
        # space, lines, convergence, and two images with heat
        assert page.locator("figure img").count() == 5
        assert page.locator("select, button, .controls").evaluate_all("all => all.length") > 0
        for control in page.locator("select, button, input").all():
            assert control.is_hidden()
        assert page.get_by_text("Scripts are off").is_visible()
