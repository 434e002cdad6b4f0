"""`python -m tests.pictures RUN RUNS`: makes the two pictures of the README again, from real journals.

`.pictures/run.svg` is what the terminal shows at the end of RUN, `.pictures/report.png` the top of the page
that `report --html` writes of RUNS, as Chromium draws it. Samples nothing.
"""

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

sys.path.insert(0, str(Path(__file__).parent))

from sdpo_solve.cli import live_run
from sdpo_solve.report.cohort import load_cohort
from sdpo_solve.report.figures import ReportOptions, make_report
from sdpo_solve.report.follow import Follower
from sdpo_solve.report.page import write_page
from sdpo_solve.report.runs import one_run_dir
from tests.helpers.browser import Browser

PICTURES = Path(__file__).parents[2] / ".pictures"
# A calm dark terminal: background, foreground, the eight colours, the eight bright ones.
THEME = TerminalTheme(
    (20, 23, 27),
    (222, 226, 230),
    [
        (54, 61, 69),
        (240, 113, 103),
        (95, 211, 138),
        (230, 180, 80),
        (102, 170, 240),
        (214, 140, 220),
        (80, 200, 200),
        (200, 206, 212),
    ],
    [
        (120, 130, 140),
        (255, 143, 128),
        (120, 230, 160),
        (250, 205, 110),
        (135, 195, 255),
        (235, 165, 240),
        (110, 225, 225),
        (240, 244, 248),
    ],
)
# rich's own frame asks a web server for a font; this one is complete in itself.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font: bold 15px system-ui, sans-serif; }}
{styles}
</style>
<defs>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def draw_run(run: Path) -> None:
    """The last frame of a finished run and what is printed behind it."""
    follower = Follower(one_run_dir(run))
    follower.poll()
    name = "/".join(follower.run_dir.parts[-3:])
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(live_run.frame(follower.progress))
    live_run.print_result(console, follower.progress, f"runs/{name}")
    console.save_svg(
        str(PICTURES / "run.svg"), theme=THEME, title="sdpo-solve run", code_format=SVG, unique_id="run"
    )


def draw_report(runs: Path) -> None:
    """The page down to its curves and what they come to."""
    cohort = load_cohort([runs])
    with tempfile.TemporaryDirectory() as folder, Browser() as browser:
        path = Path(folder) / "report.html"
        write_page(make_report(cohort, ReportOptions()), cohort, path)
        browser.open(path, width=1000)
        below = browser.run("document.querySelectorAll('h2')[1].offsetTop")
        size = {"width": 1000, "height": below - 20, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.picture(PICTURES / "report.png")


def main(run: Path, runs: Path) -> None:
    PICTURES.mkdir(exist_ok=True)
    draw_run(run)
    draw_report(runs)
    for picture in sorted(PICTURES.iterdir()):
        print(f"{picture.name}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
