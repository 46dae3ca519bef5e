"""Asynchronous Nesterov (arXiv 2505.01099) and PipeDream-2BW with error feedback (arXiv 2606.30634), on characters."""

import math

from benchmarks.gallery.entry import LOSS, Claim, Entry, Record, Scale, Way, difference

_STAGES = (4, 8)
_RECIPE = "--data text --data.context 64 --model gpt --batch-size 16 --groups 1 --output.gap false "
_ADAMW = "--optimizer adamw --lr 0.003 --optimizer.weight-decay 0 "
_NADAM = "--optimizer nadam --lr 0.002 --optimizer.momentum 0.99 --optimizer.weight-decay 0 "
_RATES = ("0.001", "0.0005")
_PUBLISHED = math.log(27.72) - math.log(30.63)
"""Validation perplexity on WikiText, 8 stages, 134 million parameters: of asynchronous Nesterov, and of GPipe."""


def _ways(numbers: tuple[int, ...], adamw: str = _ADAMW, nadam: str = _NADAM) -> tuple[Way, ...]:
    found = []
    for stages in numbers:
        cut = f"--stages {stages}"
        parts = f"{cut} --micro-batches {stages}"  # as many as batches are under way
        found += [
            _way(stages, "GPipe, AdamW", f"{adamw}--method gpipe {parts}"),
            _way(stages, "GPipe, NAdam", f"{nadam}--method gpipe {parts}"),
            _way(stages, "async Nesterov", f"{nadam}--method async-nesterov {cut}"),
            _way(stages, "PipeDream, AdamW", f"{adamw}--method pipedream {cut}"),
            _way(stages, "2BW, AdamW", f"{adamw}--method pipedream-2bw {parts}"),
            _way(stages, "2BW fed back", f"{adamw}--method pipedream-2bw --corrections error-feedback=1.0 {parts}"),
        ]
    return tuple(found)


def _way(stages: int, name: str, options: str) -> Way:
    return Way(f"K={stages} {name}", options, panel=f"K = {stages}")


def _tried(numbers: tuple[int, ...]) -> tuple[Way, ...]:
    """Return asynchronous Nesterov with smaller rates, and feedback of half of what there is."""
    nesterov, fed = "--method async-nesterov --stages", "--method pipedream-2bw --corrections error-feedback=0.5"
    return (
        *(_way(k, f"async Nesterov, {r}", f"{_NADAM}{nesterov} {k} --lr {r}") for k in numbers for r in _RATES),
        *(_way(k, "2BW half fed back", f"{_ADAMW}{fed} --stages {k} --micro-batches {k}") for k in numbers),
    )


def _nesterov(stages: int) -> Claim:
    says = (
        f"K={stages}: asynchronous Nesterov ends {-_PUBLISHED:.3f} nats below GPipe "
        "(perplexity 27.72 and 30.63, published of 8 stages)"
    )
    ways = (f"K={stages} async Nesterov", f"K={stages} GPipe, AdamW")
    tried = "a half and a quarter of the rate are what was tried, and are rows of the table"
    return Claim(says, ways, difference(LOSS.key), at_most=_PUBLISHED, unit=" nats", tried=tried)


def _closed(stages: int) -> Claim:
    ways = tuple(f"K={stages} {name}" for name in ("2BW, AdamW", "2BW fed back", "GPipe, AdamW"))
    says = f"K={stages}: error feedback closes 0.5 or more of the gap of one-step delay (0.5 to 0.7, published)"
    tried = "a coefficient of a half, for 1 as published, is what was tried"
    return Claim(says, ways, _share, at_least=0.5, tried=tried)


def _share(late: Record, fed: Record, exact: Record) -> float:
    return float((late[LOSS.key] - fed[LOSS.key]) / (late[LOSS.key] - exact[LOSS.key]))


ENTRY = Entry(
    name="text",
    title="Asynchronous Nesterov and error feedback, on characters of text",
    source="Ajanthan et al., arXiv 2505.01099; Zmushko et al., arXiv 2606.30634",
    published=(
        "With eight stages, asynchronous Nesterov beats GPipe on WikiText, and feedback of the update closes 50 to "
        "70 % of the gap that a delay of one update opens."
    ),
    figures=(LOSS,),
    scales={
        "smoke": Scale(
            "digits and a small network, six updates: it runs",
            "--data digits --model mlp --batch-size 16 --groups 1 --updates 6",
            _ways((2, 4), "--optimizer adamw ", "--optimizer nadam "),
            seeds=1,
        ),
        "cpu": Scale(
            "a decoder of 0.8 million parameters on the characters of Tiny Shakespeare, 600 updates of 16 samples of "
            "64 characters; AdamW at 0.003, the better of two rates with synchronous training, and NAdam at 0.002, not "
            "tuned; forward and backward in bfloat16",
            _RECIPE + "--updates 600 --precision bf16 --output.evaluate-every 0.5 --output.log-every 50",
            _ways(_STAGES) + _tried(_STAGES),
        ),
        "full": Scale("20,000 updates", _RECIPE + "--updates 20000", _ways(_STAGES)),
    },
    claims=tuple(claim(stages) for stages in _STAGES for claim in (_nesterov, _closed)),
)
