"""The report in a real browser: it asks no network, says no error, fits a phone, and axe finds nothing against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from startup_ray.report import write_report
from startup_ray.storage import Folder
from tests.browser import MARKS, looked_at, opened
from tests.report.made import HISTORY, JOB, dataset_in, judged, run_in
from tests.report.made_gan import gan_in, judged_gan
from tests.report.made_sweep import BEST, confirmed, finished, many, searched, sweep_in, trial_in

EVIL = ("</style><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & 'x'")
pytestmark = MARKS


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from opened()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reports of a classifier, of a GAN, of three runs, of both kinds and of sweeps; names in them are attacks."""
    storage = Folder(str(tmp_path_factory.mktemp("pages")))
    dataset = dataset_in(storage / "dataset", EVIL)
    names = ("a-1", "b-1", "c-1")
    for i, name in enumerate(names):
        run_in(storage / name, JOB | {"training": {"epochs": i + 3}}, HISTORY)
        judged(storage / name, dataset, wrong=4 * i + 2)
    judged_gan(gan_in(storage / "gan-1"), dataset)
    folders = [storage / name for name in names]
    searched(sweep_in(storage / "sweep-1", dataset=dataset))
    confirmed(storage / "sweep-1", {1: (0.94, 0.945, 0.95), 0: (0.95, 0.93, 0.1)})
    for i, evil in enumerate(EVIL, start=20):
        values = BEST[0] | {"training.optimizer": evil, evil: [evil]}
        trial_in(storage / "sweep-1", i, values, [0.5], state="failed", reason=f"{evil} " * 20)
    test = {"trial": 4, "metrics": {"accuracy": 0.93}, "intervals": {"accuracy": [0.9, 0.95]}}
    finished(storage / "sweep-1", importance={"model.dense": 0.4, EVIL[0]: 0.6}, test=test)
    axes = {f"model.args.{'long_' * i}name_{i}": "choice(a category of many words, b, 'c')" for i in range(12)}
    many(sweep_in(storage / "sweep-2", space=axes, model={"kind": "python", "build": "x:y"}, confirm=0), 100)
    finished(storage / "sweep-2")
    return {
        "gan": write_report([storage / "gan-1"], storage.path("gan.html")),
        "mixed": write_report([storage / "gan-1", folders[0]], storage.path("mixed.html")),
        "one": write_report(folders[:1], storage.path("one.html")),
        "several": write_report(folders, storage.path("several.html")),
        "sweep": write_report([storage / "sweep-1"], storage.path("sweep.html")),
        "wide sweep": write_report([storage / "sweep-2"], storage.path("wide.html")),
    }


@pytest.mark.parametrize("which", ["one", "several", "gan", "mixed", "sweep", "wide sweep"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1_280])
def test_nothing_is_wrong_with_the_page(
    browser: Any, pages: dict[str, str], which: str, scheme: str, width: int
) -> None:
    with looked_at(browser, Path(pages[which]).as_uri(), scheme=scheme, width=width):
        pass


def test_pictures_are_there_before_anybody_scrolls(browser: Any, pages: dict[str, str]) -> None:
    """Or they would be missing in print."""
    page = browser.new_page(viewport={"width": 390, "height": 200})
    try:
        page.goto(Path(pages["one"]).as_uri())
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    finally:
        page.close()


def test_by_its_own_rules_no_script_runs(browser: Any, pages: dict[str, str]) -> None:
    page = browser.new_page()
    try:
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(Path(pages["one"]).as_uri())
        assert said == []
        page.evaluate(
            "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
            " document.body.append(s); }"
        )
        assert page.evaluate("window.ran") is None
    finally:
        page.close()


@pytest.mark.parametrize(("which", "least"), [("several", 20), ("mixed", 10)])
def test_links_lead_to_what_they_name(browser: Any, pages: dict[str, str], which: str, least: int) -> None:
    page = browser.new_page()
    try:
        page.goto(Path(pages[which]).as_uri())
        links = page.locator("a[href]")
        assert links.count() > least
        for i in range(links.count()):
            name = links.nth(i).get_attribute("href")
            assert name.startswith("#")
            links.nth(i).evaluate("link => link.click()")
            assert page.evaluate("document.querySelector(':target') !== null"), name
            assert page.locator(name).is_visible(), name
    finally:
        page.close()


@pytest.mark.parametrize("which", ["one", "gan", "sweep", "wide sweep"])
def test_all_that_can_be_used_is_reached_by_keyboard_and_seen(browser: Any, pages: dict[str, str], which: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    try:
        page.goto(Path(pages[which]).as_uri())
        wanted = page.locator("a[href], summary, [tabindex='0']:visible").count()
        reached = set()
        for _ in range(wanted + 5):
            page.keyboard.press("Tab")
            at = page.evaluate(
                "() => { const e = document.activeElement; const all = [...document.querySelectorAll('*')];"
                " return [all.indexOf(e), getComputedStyle(e).outlineStyle, e.tagName]; }"
            )
            if at[2] != "BODY":
                reached.add(at[0])
                assert at[1] != "none", at
        assert len(reached) >= wanted - page.locator("details:not([open]) [tabindex='0']").count()
    finally:
        page.close()
