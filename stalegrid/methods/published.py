"""Each published method as a setting of the parts, a few lines each.

Does not know: how any part works.
"""

from stalegrid.consensus import UsualTurns
from stalegrid.methods.method import Method, ServerMethod
from stalegrid.programs import Schedule, gpipe, one_f_one_b, stale


def _twice(stages: int, micro_batches: int) -> Schedule:
    return stale([2 * (stages - 1 - k) for k in range(stages)], micro_batches)


def _once(stages: int, micro_batches: int) -> Schedule:
    return stale([stages - 1 - k for k in range(stages)], micro_batches)


def _never(stages: int, micro_batches: int) -> Schedule:
    return stale([0] * stages, micro_batches)


def _one_less(stages: int, micro_batches: int) -> Schedule:
    return stale([max(0, 2 * (stages - 1 - k) - 1) for k in range(stages)], micro_batches)


def _not(stages: int, micro_batches: int) -> Schedule:
    return stale([0] * stages, micro_batches)


METHODS = (
    Method(
        "pham-ahn",
        "Pham and Ahn, arXiv 2509.05679",
        "2(K-1-k)",
        _twice,
        mixing="combine-while-adapt",
        shape=(2, 2),
    ),
    Method(
        "dsp", "Xu, Huo, Huang, Diversely Stale Parameters, arXiv 1909.02625", "2(K-1-k)", _twice, view="recomputed"
    ),
    Method(
        "fdg",
        "Zhuang et al., Fully Decoupled with Delayed Gradients, arXiv 1906.09108",
        "2(K-1-k)-1, 0 last",
        _one_less,
        view="current",
        corrections=("shrink=0.5",),
    ),
    Method(
        "fdg-forward-first",
        "Zhuang et al., the other order of FDG's code: forward, backward, update; arXiv 1906.09108",
        "2(K-1-k)",
        _twice,
        view="current",
        corrections=("shrink=0.5",),
    ),
    Method(
        "adl",
        "Zhuang et al., Accumulated Decoupled Learning, ICML 2021",
        "2(K-1-k)",
        _twice,
        view="current",
        corrections=("shrink=1",),
        micro_batches=4,
        reduction="sum",
    ),
    Method("ddg", "Huo et al., Decoupled Backpropagation, arXiv 1804.10574", "K-1-k", _once),
    Method("features-replay", "Huo et al., Features Replay, arXiv 1807.04511", "K-1-k", _once, view="recomputed"),
    Method("pipedream", "Narayanan et al., PipeDream, SOSP 2019", "K-1-k", _once),
    Method(
        "pipedream-2bw",
        "Narayanan et al., PipeDream-2BW, arXiv 2006.09503",
        "K-1-k",
        _once,
        view="double-buffered",
        mixing="all-reduce",
        micro_batches=4,
    ),
    Method(
        "pipemare",
        "Yang et al., PipeMare, arXiv 1910.05124",
        "K-1-k",
        _once,
        view="corrected",
        corrections=("pipemare-rate",),
    ),
    Method("spectrain", "Chen, Yang, Cheng, SpecTrain, arXiv 1809.02839", "K-1-k", _once, view="predicted-twice"),
    Method("pipeoptim", "Guan et al., PipeOptim, arXiv 2312.00839", "K-1-k", _once, view="predicted"),
    Method(
        "async-nesterov",
        "Ajanthan et al., Nesterov for asynchronous pipelines, arXiv 2505.01099",
        "K-1-k",
        _once,
        optimizer="NAdam",
        momentum=0.99,
    ),
    Method("paci", "Elam et al., PACI, arXiv 2606.07881", "K-1-k", _once, view="current", micro_batches=4),
    # Three that are published for models in one piece and gradients of now: no stage runs ahead unless asked.
    Method(
        "sgp",
        "Assran et al., Stochastic Gradient Push, arXiv 1811.10792",
        "0",
        _never,
        mixing="push-sum",
        shape=(2, 1),
    ),
    Method(
        "exact-diffusion",
        "Yuan et al., Exact Diffusion, arXiv 1702.05122",
        "0",
        _never,
        mixing="exact-diffusion",
        shape=(2, 1),
    ),
    Method(
        "gradient-tracking",
        "Nedic, Olshevsky, Shi, DIGing, arXiv 1607.03218",
        "0",
        _never,
        mixing="gradient-tracking",
        shape=(2, 1),
    ),
    Method(
        "diloco",
        "Douillard et al., DiLoCo, arXiv 2311.08105",
        "0",
        _not,
        mixing="outer",
        turns=UsualTurns(period=500),
        shape=(2, 1),
    ),
    Method(
        "streaming-diloco",
        "Douillard et al., Streaming DiLoCo, arXiv 2501.18512",
        "0",
        _not,
        mixing="outer,keep=0.5",
        turns=UsualTurns(period=100, lag=5, fragments=True),
        shape=(2, 2),
    ),
    Method(
        "noloco",
        "Kolehmainen et al., NoLoCo, arXiv 2506.10911",
        "0",
        _not,
        mixing="noloco",
        turns=UsualTurns(period=100),
        shape=(2, 1),
    ),
    Method(
        "snoo",
        "Kallusky et al., SNOO, arXiv 2510.15830",
        "0",
        _not,
        mixing="outer",
        turns=UsualTurns(period=30),
        shape=(1, 1),
        max_groups=1,
    ),
    Method(
        "asyncmesh",
        "Ajanthan et al., AsyncMesh, arXiv 2601.22442",
        "K-1-k",
        _once,
        mixing="adapt-then-combine",
        turns=UsualTurns(lag=10, lag_rule="ema", sparse=0.05, topology="complete"),
        optimizer="NAdam",
        momentum=0.99,
        shape=(2, 2),
    ),
    Method(
        "ad-psgd",
        "Lian et al., Asynchronous Decentralized Parallel SGD, arXiv 1710.06952",
        "2(K-1-k)",
        _twice,
        mixing="pairwise",
        shape=(4, 1),
    ),
    Method(
        "choco",
        "Koloskova, Stich, Jaggi, CHOCO-SGD, arXiv 1902.00340",
        "0",
        _not,
        mixing="choco",
        shape=(4, 1),
    ),
    Method(
        "sgd",
        "Robbins and Monro 1951; torch.optim's own loop, stage after stage",
        "0",
        gpipe,
        shape=(1, 1),
        stale=False,
        max_groups=1,
    ),
    Method(
        "data-parallel",
        "mean gradient of all groups at every update; Li et al., PyTorch Distributed, arXiv 2006.15704",
        "0",
        gpipe,
        mixing="all-reduce",
        shape=(2, 1),
        stale=False,
        max_stages=1,
    ),
    Method(
        "gpipe",
        "Huang et al., GPipe, arXiv 1811.06965",
        "0",
        gpipe,
        mixing="all-reduce",
        shape=(1, 2),
        micro_batches=4,
        stale=False,
    ),
    Method(
        "1f1b",
        "Narayanan et al., PipeDream-flush, arXiv 2006.09503",
        "0",
        one_f_one_b,
        mixing="all-reduce",
        shape=(1, 2),
        micro_batches=4,
        stale=False,
    ),
)


SERVER_METHODS = (
    ServerMethod(
        "hardsync", "synchronous SGD with a parameter server; Zhang et al., arXiv 1511.05950", 1, synchronous=True
    ),
    ServerMethod(
        "softsync",
        "Zhang, Gupta, Lian, Liu, staleness-aware n-softsync, arXiv 1511.05950",
        1,
        corrections=("inverse-staleness",),
        free=True,
    ),
    ServerMethod("asgd", "Dean et al., Downpour SGD, NIPS 2012", None),
)
