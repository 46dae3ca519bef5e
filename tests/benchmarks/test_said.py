"""What README.md and pages of docs say of speed follows from benchmarks/results.json.

``SAID`` has pieces of their text, wherever they stand, and what the figures of each are; ``STATED`` those whose figures
follow from no file, and where they are from.  A page has no other figure with a unit.
"""

import json
import re
from math import exp
from pathlib import Path

import pytest
from torch import nn

from benchmarks.text import BATCH, CONTEXT, WIDTH, decoder
from benchmarks.workloads import wide
from tests.benchmarks.figures import figures, is_shown, plain

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())
EXCHANGES = json.loads((ROOT / "benchmarks" / "tables" / "exchanges.json").read_text())["rows"]
LOSSES = [json.loads(line) for line in (ROOT / "benchmarks" / "far-loss.jsonl").read_text().splitlines()]


def figure(row: str, what: str, of: str = "median") -> float:
    return float(RESULTS[row]["figures"][what][of])


def spread(row: str, what: str, scale: float = 1) -> tuple[float, ...]:
    return tuple(scale * figure(row, what, of) for of in ("median", "least", "greatest"))


def ratio(row: str, over: str, under: str) -> float:
    (found,) = [one["median"] for one in RESULTS[row]["ratios"] if one["what"] == f"{over} / {under}"]
    return float(found)


def over_ddp(row: str, way: str) -> float:
    model = f"{way.split()[0]} " if row == "cpu" else ""
    return ratio(row, f"{way}, samples/s", f"{model}DDP, samples/s")


def in_emulated(what: str, slack: int = 2) -> float:
    return 1000 * figure("breakdown", f"emulated, m = {slack} (K-1-k): {what}, s/update")


def share(run: str, what: str) -> float:
    return 100 * ratio("breakdown", f"{run}: {what}, s/update", f"{run}: whole, s/update")


def to_loss(way: str, what: str = "s") -> float:
    return figure("far-loss", f"{way}, {what} to a loss of 2.35")


def last_loss(way: str) -> float:
    (found,) = [one["losses"][-1] for one in LOSSES if (one["way"], one["rate"], one["seed"]) == (way, 0.003, 0)]
    return float(found)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


GRID = "S=2 K=2 pham-ahn, M = 4, m = 4,0, averaging every 10"

DECODER = size(decoder(65))
"""Of far-loss, with the 65 characters of its text."""

CPU = [over_ddp("cpu", f"{model} {way}") for model in ("resnet20", "resnet56") for way in ("K=2", "S=2 ring")]
MIXED = [over_ddp("slow-link", f"S=2 K=2, mixing every {n}, lag {lag}") for n in (1, 4, 16) for lag in (0, 1)]
PIPELINES = [
    ratio("cpu", f"{m} K=2, samples/s", f"{m} best torch pipeline, samples/s") for m in ("resnet20", "resnet56")
]
THREADS = [ratio("cpu", f"{m} K=2, samples/s", f"{m} two threads, samples/s") for m in ("resnet20", "resnet56")]
LIMITS = [
    figure("cpu", f"{m} S=2 ring, samples/s") / figure("cpu", f"{m} limit, samples/s") for m in ("resnet20", "resnet56")
]
JEMALLOC = [one["median"] for one in RESULTS["memory"]["ratios"] if one["what"].startswith("jemalloc")]
SLOW_K4 = figure("slow-link", "K=4 pipeline, samples/s")
ENDS = ("DDP", "S=2", "one process, two threads", "K=2 spectrain")
SEEDS = [spread("time-to-accuracy", f"{way}, last accuracy", 100) for way in ENDS]
BEST = {name: 1000 * figure("emulated", f"torch {name} M=8, s/batch") for name in ("1F1B", "GPipe", "Interleaved1F1B")}
BF16 = spread("precision-loss", "K=2, bf16, last test loss")
FLOAT32 = spread("precision-loss", "K=2, last test loss")

SAID: dict[str, dict[str, tuple[float, ...]]] = {
    "README.md": {
        "(5.5 million parameters)": (size(wide()) / 1e6,),
        "37 times the samples of DDP": (over_ddp("slow-link", "K=4 pipeline"),),
        "3 to 27 times": (min(MIXED), max(MIXED)),
        "2.2 times as fast as PyTorch's best pipeline schedule": (
            ratio("emulated", "best torch, s/batch", "m = 1 (K-1-k), s/batch"),
        ),
        "1.05 to 1.2 times the samples of DDP": (min(CPU), max(CPU)),
    },
    "docs/exchanges.md": {
        "outer steps every 40 updates 50": (40, to_loss("S=4, outer steps every 40")),
        "averaging every 40 59": (40, to_loss("S=4, averaging every 40")),
        "every 10 95": (10, to_loss("S=4, averaging every 10")),
        "all-reduce in float16 135": (to_loss("DDP, float16 messages"),),
        "all-reduce 234": (to_loss("DDP"),),
        "for 0.03 in loss": (EXCHANGES["diloco"]["loss"][0] - EXCHANGES["ring"]["loss"][0],),
    },
    "docs/performance.md": {
        "its mean factor is 1.13, so no schedule can be below 68 ms": (exp(0.5**2 / 2), 60 * exp(0.5**2 / 2)),
        "medians 141, 155 and 161 ms a batch": (BEST["1F1B"], BEST["GPipe"], BEST["Interleaved1F1B"]),
        "without any pipeline, takes 61.4 ms": (
            1000 * figure("emulated", "a device alone, plain PyTorch loop, s/batch"),
        ),
        "62.5 ms, of them 2.0 overhead": (in_emulated("whole"), in_emulated("overhead")),
        "(1.4 of which the plain loop has too": (
            1000 * figure("emulated", "a device alone, plain PyTorch loop, s/batch") - 60,
        ),
        "0.2 waiting for messages under way, 0.3 waiting for others": (in_emulated("messages"), in_emulated("bubble")),
        "65.8 ms: nothing hides a message (1.5 ms) nor a stage that is late for a moment (1.9 ms)": (
            in_emulated("whole", 1),
            in_emulated("messages", 1),
            in_emulated("bubble", 1),
        ),
        "messages and bubble are 0.3 %": (share("resnet20 K=2", "messages"),),
        "0.0 and 0.3 % with": (share("resnet20 S=2 ring", "messages"), share("resnet20 S=2 ring", "bubble")),
        "is at 0.95 and 0.98 of it": tuple(
            ratio("cpu", f"{m} K=2, samples/s", f"{m} limit, samples/s") for m in ("resnet20", "resnet56")
        ),
        "at 1.02 and 1.14. (More": tuple(LIMITS),
        "is 1/9 of the time with 8 micro-batches": (1 / (8 + 1), 8),
        "the limit itself is 1.125 times": (9 / 8,),
        "is therefore 1.2 to 1.25": tuple(PIPELINES),
        "6 to 11 % for smaller operations": tuple(100 * (one / 1.125 - 1) for one in PIPELINES),
        "comes within 14 %": (100 * (1 - 1 / max(THREADS)),),
        "1.05 MB a sample, 43 samples/s": (
            figure("slow-link", "DDP, bytes sent/sample") / 1e6,
            figure("slow-link", "DDP, samples/s"),
        ),
        "20 kB a sample, 1,574 samples/s": (figure("slow-link", "K=4 pipeline, bytes sent/sample") / 1e3, SLOW_K4),
        "are 84 % full": (100 * 2 * 832 * 4 * SLOW_K4 / 12.5e6,),
        "it is 10 kB and 3,132 samples/s": (
            figure("slow-link", "K=4 pipeline, bfloat16 messages, bytes sent/sample") / 1e3,
            figure("slow-link", "K=4 pipeline, bfloat16 messages, samples/s"),
        ),
        "DDP comes to 82": (figure("slow-link", "DDP, float16 messages, samples/s"),),
        "every 16 updates 27 kB": (16, figure("slow-link", "S=2 K=2, mixing every 16, lag 0, bytes sent/sample") / 1e3),
        "153 s (153 to 166)": spread("time-to-accuracy", "DDP, s for all epochs"),
        "159 (157 to 168)": spread("time-to-accuracy", "S=2, s for all epochs"),
        "172 (156 to 172)": spread("time-to-accuracy", "one process, two threads, s for all epochs"),
        "167 (165 to 179)": spread("time-to-accuracy", "K=2 spectrain, s for all epochs"),
        "62.3, 62.7, 63.4 and 62.1 %": tuple(median for median, _, _ in SEEDS),
        "differ by up to 2.3 points": (max(greatest - least for _, least, greatest in SEEDS),),
        "a plain loop takes 18.4 ms for an update": (1000 * figure("cuda", "plain loop, s/update"),),
        "19.1 and": (1000 * figure("cuda", "K=2, two processes, s/update"),),
        "14.7, since": (1000 * figure("cuda", "K=4, four processes, s/update"),),
        "each for half a batch: 31.7 ms": (1000 * figure("cuda", "S=2, two processes, s/update"),),
        "add to that: 28.9 ms": (1000 * figure("cuda", "simulator 1 x 4, s/update"),),
        "come to two of 10 s": (5 * figure("checkpoint", "checkpoints in such a run"),),
        "134 MB of parameters and momentum": (figure("checkpoint", "stage 1, written, MB"),),
        "273 MB on the first": (figure("checkpoint", "stage 0, written, MB"),),
        "grows by 122 to 177 MB": spread("checkpoint", "stage 1, added, MB")[1:],
        "blocks of 16.8 MB": (2**22 * 4 / 1e6,),
        "3.3 s on five processes and 2.9 s on the simulator": (
            figure("start", "2 x 2 on processes, s to the first update"),
            figure("start", "the same on the simulator, s"),
        ),
        "at 12.5 MB/s: 175 ms": (100 / 8, 1000 * 2 * 2**20 * 1514 / 1448 / 12.5e6),
        "leaves 13 % of them unused": (
            100
            - 100 * ratio("far", "limited by links: m = 2 (K-1-k), samples/s", "limited by links: ideal, samples/s"),
        ),
        "fill them to 0.92": (
            ratio("far", "limited by links: m = 4 (K-1-k), samples/s", "limited by links: ideal, samples/s"),
        ),
        "(last loss 2.149 against 2.165)": (last_loss("DDP, float16 messages"), last_loss("mean gradient")),
        "a model of 6.4 MB": (4 * DECODER / 1e6,),
        "0.24 MB an update (0.48 where all": (2 * 3 / 4 * 4 * DECODER / 1e6 / 40, 3 * 4 * DECODER / 1e6 / 40),
        "between two stages 1 MB": (2 * BATCH * CONTEXT * WIDTH * 4 / 1e6,),
        "(49 s, and 57 s": (to_loss("local SGD every 40"), to_loss("local SGD every 10")),
        "slower by a fourth, with a wide scatter (125 to 195 samples/s)": spread(
            "far-loss", "S=4, outer steps every 40, samples/s"
        )[1:],
        "fastest: 85 s, in 616 updates, against 110 s of": (
            to_loss(GRID),
            to_loss(GRID, "updates"),
            to_loss("torch GPipe M=2"),
        ),
        "needed 539 updates against 245, so it takes 112 s": (
            to_loss("K=4 pipedream, M = 8, m = 8,5,2,0", "updates"),
            to_loss("torch GPipe M=2", "updates"),
            to_loss("K=4 pipedream, M = 8, m = 8,5,2,0"),
        ),
        "(229 MB)": (figure("large", "import torch, MB"),),
        "occupies 294 MB": (figure("large", "observer peak, MB"),),
        "the run 2.7 GB": (figure("large", "starter peak, MB") / 1e3,),
        "peaks are within 3 % of it": (max(abs(100 * one - 100) for one in JEMALLOC),),
        "exceeds it by 13 %": (
            100 * ratio("memory", "stashed stage 0 peak, MB", "stashed stage 0 closed form, MB") - 100,
        ),
        "1,064 against 777 MB": (
            figure("memory", "stashed stage 0 peak, MB"),
            figure("memory", "jemalloc, stashed stage 0 peak, MB"),
        ),
        "60 tensors of 8.4 MB": (60, 2**21 * 4 / 1e6),
        "takes 26.7 gradients a second": (figure("server", "server, 10M parameters, inverse-staleness, gradients/s"),),
        "12 gradients a second, below 20": (
            figure("server", "server, 10M parameters, dc-asgd, gradients/s"),
            figure("server", "goal, gradients/s"),
        ),
        "2.536 (2.521 to 2.556) against 2.549 (2.527 to 2.560)": (*BF16, *FLOAT32),
        "a seed, 0.039, is": (figure("precision-loss", "bf16, largest gap of the two curves of a seed"),),
        "Two stages of ResNet-20 train 23 % more samples with it here, a plain loop 22 %": (
            100 * ratio("channels-last", "resnet20 K=2 channels last, samples/s", "resnet20 K=2, samples/s") - 100,
            100 * ratio("channels-last", "resnet20 loop channels last, samples/s", "resnet20 loop, samples/s") - 100,
        ),
        "Compiling gains a plain loop of ResNet-20 15 %, of a transformer 5 %": (
            100 * ratio("compiled", "resnet20 loop compiled, samples/s", "resnet20 loop, samples/s") - 100,
            100 * ratio("compiled", "transformer loop compiled, samples/s", "transformer loop, samples/s") - 100,
        ),
        "together are 0.6 %": (share("resnet20 K=2", "messages") + share("resnet20 K=2", "bubble"),),
    },
}

STATED: dict[str, dict[str, str]] = {
    "README.md": {},
    "docs/exchanges.md": {"20 ms and": "what far-loss is set to", "alpha 0.1,": "what the runs are set to"},
    "docs/performance.md": {
        "Eight devices of 20 + 40 ms": "what frontier is set to",
        "are within 10 %": "the goal of the row",
        "The goal of 1.35": "the goal of cpu",
        "the goals of 1.03 and 1.05 are": "the goals of emulated",
        "(1.5 epochs": "what time-to-accuracy is set to",
        "rates below 0.0005": "what far-loss is set to",
        "is busy 60 ms": "what emulated is set to",
        "buckets of 128 kB": "what slow-link is set to",
        "Devices allow 60 ms": "what far is set to",
        "1 MiB x 1514/1448": "a batch of vectors, and TCP's headers in a frame of Ethernet",
        "(40 MB)": "what server is set to",
    },
}

START = {"README.md": "", "docs/exchanges.md": "## What talking less", "docs/performance.md": "## What the figures say"}
"""Where the text begins that speaks of measured figures; what is before is held by other tests."""


def told(page: str) -> str:
    return plain((ROOT / page).read_text().partition(START[page])[2] if START[page] else (ROOT / page).read_text())


def loose(text: str) -> list[tuple[int, str]]:
    """Return the figures that must be of a piece: numbers with a point, or with a unit."""
    return figures(text, " ".join(re.findall(r"(?<![\d.])\d[\d,]*(?![\d.])", text)))


def faults(page: str, text: str) -> list[str]:
    pieces = [*SAID[page], *STATED[page]]
    found = [f"is not said: {piece}" for piece in pieces if piece not in text]
    for piece, values in SAID[page].items():
        shown = [one for _, one in figures(piece)]
        if len(shown) != len(values) or not all(map(is_shown, values, shown)):
            found.append(f"{piece}: {values}")
    spans = [one.span() for piece in pieces for one in re.finditer(re.escape(piece), text)]
    outside = [at for at, _ in loose(text) if not any(start <= at < end for start, end in spans)]
    return found + [f"from nowhere: {text[max(0, at - 40) : at + 20]}" for at in outside]


@pytest.mark.parametrize("page", SAID)
def test_what_a_page_says_follows_from_the_results(page: str) -> None:
    assert faults(page, told(page)) == []


@pytest.mark.parametrize("page", SAID)
def test_a_changed_digit_is_found(page: str) -> None:
    """Every digit of every figure that is said or has a unit, one after the other."""
    text = told(page)
    said = {text.find(piece) + at: one for piece in SAID[page] for at, one in figures(piece)} | dict(
        figures(text, text)
    )
    places = [at + i for at, one in said.items() for i, sign in enumerate(one) if sign.isdigit()]
    changed = [f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}" for at in places]
    missed = [at for at, one in zip(places, changed, strict=True) if not faults(page, one)]
    assert [text[max(0, at - 40) : at + 20] for at in missed] == []
