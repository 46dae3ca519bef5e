"""The correction that docs/extending.md shows is run as it stands."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    return str(found)


def loss_of(text: str) -> float:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(text, str(PAGE), "exec"), {"__name__": "example"})
    return float(shown.getvalue().splitlines()[-1].split()[0])


def test_the_example_is_about_twenty_lines() -> None:
    assert len([line for line in script().splitlines() if line.strip()]) <= 22


def test_the_example_trains_and_its_correction_acts() -> None:
    with_it = loss_of(script())
    assert with_it < 0.6
    assert with_it != loss_of(script().replace("corrections=[Fade]", "corrections=[]"))


def test_without_staleness_the_correction_changes_nothing() -> None:
    fresh = script().replace('method="dsp"', 'method="dsp", staleness=[0, 0, 0]')
    assert loss_of(fresh) == loss_of(fresh.replace("corrections=[Fade]", "corrections=[]"))
