"""MLflow's pages as a person browses them, in headless Chromium, on what real runs have written.

With `SPECTRO_SCREENSHOTS=FOLDER` the images of the pages stay there for a look.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COMMANDS = (
    "--multirun model=hog_svm,pixels seed=0,1",
    "model=resnet18 cnn.pretrained=false cnn.size_px=32 train.epochs=2",
    "--multirun model=hog_svm sweeper=hog_svm n_trials=3 study=small",
)
# What a table's column or a page's line holds.
LONGEST = 48

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with runs of three families, several seeds and a search, made by the command line."""
    pytest.importorskip("playwright", reason="no playwright: pip install spectro[browser]")
    outputs = tmp_path_factory.mktemp("ui") / "outputs"
    for command in COMMANDS:
        words = [f"outputs={outputs}", "data.scale=0.3", *command.split()]
        done = subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *words], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
    return f"sqlite:///{outputs / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow server` on that store; it ends with its children, whatever the tests did."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, said = f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("server") / "log"
    command = ["mlflow", "server", "--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with said.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--workers", "1"],
            cwd=said.parent,
            env={**os.environ, **quiet},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 90
        while not _answers(f"{address}/health"):
            assert process.poll() is None, said.read_text()[-2000:]
            assert time.monotonic() < until, said.read_text()[-2000:]
            time.sleep(0.3)
        yield address
    finally:
        for sign, wait_s in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                break
            try:
                process.wait(wait_s)
            except subprocess.TimeoutExpired:
                continue
        process.wait(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def browser(server: str) -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # A container's root has no sandbox.
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A page of somebody who has never been here; nothing but the server can be reached."""
    context = browser.new_context(base_url=server, viewport={"width": 1800, "height": 1100})
    context.route(lambda address: not address.startswith(server), lambda route: route.abort())
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def shot(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """A function that keeps an image of a page."""
    folder = Path(os.environ.get("SPECTRO_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def keep(page: Any, name: str) -> None:
        page.wait_for_timeout(700)  # what fades in has done so
        page.screenshot(path=folder / f"{name}.png")

    return keep


@pytest.fixture(scope="module")
def runs(store: str) -> dict[str, Any]:
    """The runs of the store by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("field")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def open_view(page: Any, runs: dict[str, Any], key: str) -> None:
    """Opens a view by the address that the terminal and the description give, and makes room for it."""
    from spectro.tracking._pages import view_address

    page.goto(f"/{view_address(next(iter(runs.values())).info.experiment_id, key)}")
    page.get_by_test_id("sort-header-Run Name").wait_for()
    close_assistant(page)


def close_assistant(page: Any) -> None:
    """Closes the panel that MLflow opens for whoever comes for the first time."""
    button = page.locator("[data-component-id='mlflow.assistant.chat_panel.close']")
    if button.count():
        button.click()


def headers(page: Any) -> list[str]:
    """The columns of the table from left to right, as far as they are on the screen."""
    found = page.locator("[data-testid^='sort-header-']").all()
    found.sort(key=lambda one: one.bounding_box()["x"])
    return [str(one.get_attribute("data-testid")).removeprefix("sort-header-") for one in found]


def row_of(page: Any, name: str) -> Any:
    """The table's row of a run."""
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def is_drawn(image: Any) -> bool:
    """Whether an image has arrived and is one."""
    image.wait_for()
    return bool(image.evaluate("async one => { await one.decode(); return one.naturalWidth > 100 }"))


def test_from_the_first_page_to_the_results_in_two_clicks(page: Any, shot: Callable[[Any, str], None]) -> None:
    """MLflow greets with language models; the experiment's description leads to the runs and their scores."""
    page.goto("/")
    page.get_by_role("link", name="field", exact=True).click()
    page.get_by_text("Training runs that know the same classes").wait_for()
    greeting = page.get_by_role("button", name="Got it")
    page.wait_for_timeout(1500)
    if greeting.count():
        greeting.click()
    shot(page, "1_experiment")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Results", exact=True).click()
    there = opened.value
    there.get_by_test_id("sort-header-test/macro_f1").wait_for()
    close_assistant(there)
    shot(there, "2_results")
    assert "viewStateShareKey=results" in there.url
    assert headers(there)[:6] == [
        "Run Name",
        "Created",
        *(f"test/macro_f1{end}" for end in ("", "_ci_low", "_ci_high")),
        "test/n_records",
    ]
    for name in ("hog_svm full seed 0", "hog_svm full seed 1", "pixels full seed 1", "resnet18 full seed 0"):
        assert row_of(there, name).is_visible(), name
    assert not there.get_by_text("trial 0", exact=True).count()


def test_a_run_s_page_shows_its_result_and_its_figures(
    page: Any, runs: dict[str, Any], shot: Callable[[Any, str], None]
) -> None:
    """Its description holds the table and the figures, and the files are shown, not offered for download."""
    open_view(page, runs, "results")
    page.get_by_role("link", name="hog_svm full seed 1", exact=True).click()
    page.get_by_text("balanced accuracy").wait_for()
    close_assistant(page)
    page.get_by_text("Show more", exact=True).click()
    metrics = runs["hog_svm full seed 1"].data.metrics
    score = f"{metrics['test/macro_f1']:.2f} [{metrics['test/macro_f1_ci_low']:.2f}"
    assert page.get_by_text(score).is_visible()
    assert page.get_by_text("recall of brak_Empty zone").is_visible()
    assert is_drawn(page.locator("img[src*='path=figures/confusion_test.png']"))
    page.get_by_text("In brackets:").scroll_into_view_if_needed()
    shot(page, "3_run")

    page.get_by_role("tab", name="Artifacts").or_(page.get_by_role("link", name="Artifacts")).first.click()
    page.get_by_text("figures", exact=True).click()
    page.get_by_text("confusion_test.png", exact=True).click()
    assert is_drawn(page.locator("img[src^='blob:']").first)
    shot(page, "4_figure")


def test_three_families_side_by_side(page: Any, runs: dict[str, Any], shot: Callable[[Any, str], None]) -> None:
    """Ticked and compared, runs show in what they differ, and what came of it."""
    names = ["hog_svm full seed 0", "pixels full seed 0", "resnet18 full seed 0"]
    open_view(page, runs, "results")
    for name in names:
        row_of(page, name).get_by_role("checkbox", name="Press Space").check()
    page.get_by_test_id("runs-compare-button").click()
    page.get_by_text("Comparing 3 Runs").wait_for()
    close_assistant(page)
    for name in names:
        assert page.get_by_text(name, exact=True).first.is_visible()
    page.get_by_text("Show diff only").first.click()
    line = page.get_by_role("row").filter(has=page.get_by_text("model.name", exact=True))
    assert line.inner_text().split()[1:] == ["hog_svm", "pixels", "resnet18"]
    assert not page.get_by_text("data.label_set", exact=True).count()
    line.scroll_into_view_if_needed()
    shot(page, "5_parameters_compared")
    # Of this long table the page draws only what is on the screen.
    score = page.get_by_text("test/macro_f1", exact=True)
    page.get_by_text("Metrics", exact=True).scroll_into_view_if_needed()
    page.mouse.move(900, 800)
    for _ in range(60):
        if score.count():
            break
        page.mouse.wheel(0, 400)
        page.wait_for_timeout(100)
    score.scroll_into_view_if_needed()
    shot(page, "5_metrics_compared")


def test_families_are_averaged_over_seeds(page: Any, runs: dict[str, Any], shot: Callable[[Any, str], None]) -> None:
    """One row for each model and stage, with the mean of its seeds."""
    open_view(page, runs, "families")
    page.get_by_text("Group: model: resnet18").first.wait_for()
    shot(page, "6_families")
    for name in ("hog_svm", "pixels", "resnet18"):
        assert page.get_by_text(f"Group: model: {name}").first.is_visible()
    scores = [runs[f"pixels full seed {seed}"].data.metrics["test/macro_f1"] for seed in (0, 1)]
    group = page.get_by_role("row").filter(has_text="Group: model: pixels")
    # The page draws a row in two halves.
    halves = page.locator(f"[row-index='{group.get_attribute('row-index')}']").all_inner_texts()
    # Nor does it draw the columns in their order.
    shown = [float(number) for number in re.findall(r"(\d[.\d]*)\s+\(average\)", " ".join(halves))]
    assert any(number == pytest.approx(sum(scores) / 2) for number in shown)
    assert not page.get_by_text("trial 0", exact=True).count()


def test_a_search_opens_to_its_trials(page: Any, runs: dict[str, Any], shot: Callable[[Any, str], None]) -> None:
    """The parent says how the search went, and expands to every trial and to the final run."""
    open_view(page, runs, "searches")
    children = [name for name in runs if name.startswith(("trial ", "final: "))]
    assert len(children) == 4
    assert not page.get_by_role("link", name="trial 0", exact=True).count()
    row_of(page, "sweep small").get_by_role("button").first.click()
    page.get_by_role("link", name="trial 0", exact=True).wait_for()
    shot(page, "7_search")
    for name in children:
        assert page.get_by_role("link", name=name, exact=True).is_visible()
    assert headers(page)[2:4] == ["objective", "best"]

    page.get_by_role("link", name="sweep small", exact=True).click()
    page.get_by_text("3 trials: 3 complete").wait_for()
    close_assistant(page)
    page.get_by_text("Show more", exact=True).click()
    assert page.get_by_text("0.01 to 1000, log").first.is_visible()
    assert is_drawn(page.locator("img[src*='optimization_history']"))
    shot(page, "8_search_described")


def test_every_name_can_be_read(runs: dict[str, Any]) -> None:
    """A name is words that a person knows, and short enough for a column; hashes are for odd labels only."""
    for run in runs.values():
        assert re.fullmatch(r"[\w .:=,-]{1,48}", run.info.run_name)
        for name in (*run.data.metrics, *run.data.params):
            assert len(name) <= LONGEST, name
            assert re.fullmatch(r"[a-zA-Z0-9_]+([./][\w \-]+)*", name), name
            assert not re.search(r"[0-9a-f]{8}", name), name
        visible = [key for key in run.data.tags if not key.startswith("mlflow.")]
        assert all(len(key) <= 20 for key in visible), visible
