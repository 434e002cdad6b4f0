"""The page of a report: escaped through and through, and what a real browser makes of it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdpo_solve.report import html
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import ReportOptions, make_report
from sdpo_solve.report.page import page, write_page
from tests.helpers.browser import Browser
from tests.helpers.journals import Made, make

ATTACK = (
    "</pre></script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<a href=javascript:1>x</a><style>body{display:none}</style>\x1b]0;owned\x07\u202e\ud800\x00&lt;"
    "<iframe src=http://203.0.113.1/></iframe>"
)


def write(tmp_path: Path) -> Path:
    hostile = {"model": ATTACK, "difficulty": ATTACK}
    for problem in ("inc", "dec"):
        for method in ("sdpo", "best-of-k"):
            solved = (6,) if method == "sdpo" else ()
            made = Made(
                problem, method, solved_at=solved, overfits_at=(2,), header=hostile,
                code=lambda i: f"# {i} {ATTACK}", feedback=ATTACK,
            )  # fmt: skip
            make(tmp_path / "runs", made)
    make(tmp_path / "runs", Made("inc", seed=1, fails_after=4, header=hostile))
    evil = {"problem": f"evil {ATTACK.replace(chr(0), '')}", **hostile}
    make(tmp_path / "runs", Made("evil", header=evil))
    cohort = load_cohort([tmp_path / "runs"])
    path = tmp_path / "report.html"
    write_page(make_report(cohort, ReportOptions(n_replicates=100)), cohort, path)
    return path


def test_what_a_template_prints_is_cleaned_and_escaped() -> None:
    page = html.render("base.html.j2", title='<b>&"\x1b[2J')
    assert "<title>&lt;b&gt;&amp;&#34;</title>" in page


def test_nothing_a_model_wrote_becomes_an_element(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    assert len(re.findall(r"<script", text)) == 1
    assert not re.search(r"<(img|iframe|a|link|object|embed)\b", text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", text)


def test_the_page_forbids_itself_every_request(tmp_path: Path) -> None:
    text = write(tmp_path).read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", text.replace("src=http://203", ""))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.mark.chromium
def test_a_real_browser_runs_none_of_it_and_asks_for_nothing(tmp_path: Path, browser: Browser) -> None:
    path = write(tmp_path)
    browser.open(path)
    assert browser.run("document.title") == "sdpo, best-of-k · sdpo-solve report"
    assert browser.requests() == [path.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.run("document.querySelectorAll('img, iframe, a, script').length") == 1
    assert "document.title='owned'" in browser.run("document.querySelector('pre').textContent")


@pytest.mark.chromium
def test_filters_and_axes_work(tmp_path: Path, browser: Browser) -> None:
    browser.open(write(tmp_path))
    shown = "Array.from(document.querySelectorAll('[data-run]')).filter((r) => r.offsetHeight > 0).length"
    assert browser.run(shown) == 6
    pick = "(id, v) => {{ const e = document.getElementById(id); e.value = v; e.dispatchEvent(new Event('input')); }}"
    pick = pick.replace("{{", "{").replace("}}", "}")
    browser.run(f"({pick})('arm', 'sdpo')")
    assert browser.run(shown) == 4
    browser.run(f"({pick})('find', 'INC')")
    assert browser.run(shown) == 2
    browser.run(f"({pick})('status', 'failed')")
    assert browser.run(shown) == 1
    assert browser.run("document.getElementById('count').textContent") == "1 of 6 runs"
    chart = "Array.from(document.querySelectorAll('[data-chart]')).filter((f) => f.offsetHeight > 0).map((f) => f.dataset.chart).join()"
    assert browser.run(chart) == "attempts"
    browser.run("document.querySelector('[data-axis=seconds]').click()")
    assert browser.run(chart) == "seconds"
    # The curve is drawn: a path wider than half of its picture.
    assert (
        browser.run("document.querySelector('[data-chart=seconds] .curve').getBoundingClientRect().width")
        > 300
    )


@pytest.mark.chromium
@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tmp_path: Path, browser: Browser, dark: bool) -> None:
    browser.open(write(tmp_path), dark=dark)
    assert contrast(browser, "body", "body") > 10
    assert contrast(browser, "th", "body") > 4.5
    for part in ("solved", "failed", "overfit"):
        assert contrast(browser, f".{part}", "body") > 4.5, part


@pytest.mark.chromium
def test_a_narrow_screen_never_scrolls_sideways(tmp_path: Path, browser: Browser) -> None:
    browser.open(write(tmp_path), width=360)
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run("document.documentElement.scrollWidth") <= 360


def contrast(browser: Browser, ink: str, ground: str) -> float:
    """The contrast ratio of WCAG 2.1 between the colour of one element and the background of another."""

    def luminance(css: str) -> float:
        parts = [int(n) / 255 for n in re.findall(r"\d+", css)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colour = browser.run(f"getComputedStyle(document.querySelector('{ink}')).color")
    back = browser.run(f"getComputedStyle(document.querySelector('{ground}')).backgroundColor")
    lights = sorted([luminance(colour), luminance(back)])
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def test_the_page_of_a_run_tells_its_roll_backs(tmp_path: Path) -> None:
    made = Made(notices=("version 1 collapsed (repetition 0.9); back to version 0",))
    make(tmp_path, made)
    cohort = load_cohort([tmp_path])
    text = page(make_report(cohort, ReportOptions(n_replicates=100)), cohort)
    assert "update 1: version 1 collapsed (repetition 0.9); back to version 0" in text
