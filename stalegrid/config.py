"""What a user can ask for, with defaults; every field is an option of the command line and of YAML files.

Does not know: what any option does.
"""

import reprlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stalegrid.errors import ConfigError
from stalegrid.written.numbers import finite, whole


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """What the devices and links are like, or shall be taken to be like.

    Args:
        costs: YAML table of what the parts of the model cost, as ``stalegrid profile`` writes it; gives the simulator
            a clock.
        emulate: let processes sleep until every action has taken as long as the costs say.
        slow: units whose every action takes so many times as long, such as 1,2=3.0 for unit (1,2), several with ;
            between; 3=3.0 is the device with that number, counted group by group, on any grid.
        jitter: sigma of the log-normal jitter of every action.
        stalls: probability that an action stalls and for how many ms, such as 0.01,200.
        link: latency in ms, or latency and bandwidth in Mbit/s, between stages, such as 1,100; in virtual time only.
        lateral_link: likewise between groups; in virtual time only.
        outages: of units or links, in ms, such as 0,1@1000-3000 or 0,1>0,2@1000-3000, several with ; between; in
            virtual time only.
    """

    costs: Path | None = None
    emulate: bool = False
    slow: str | None = None
    jitter: float = 0.0
    stalls: list[float] | None = None
    link: list[float] | None = None
    lateral_link: list[float] | None = None
    outages: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(DeviceSettings):
    """How to train.

    Args:
        method: published method; see ``stalegrid methods``.
        groups: S, data-parallel groups; the method's own shape if left out.
        stages: K, pipeline stages; the method's own shape if left out.
        staleness: m_k per stage in batches, such as 4,2,0; the method's if left out; auto for the least that is about
            as fast as any, estimated from the costs, which are measured here if left out.
        within: share of the best throughput that staleness auto may miss.
        queues: p_k per stage instead of staleness: activations that may wait behind the one being taken, such as
            1,1,0 for staleness 4,2,0.
        view: weights a forward uses and a late backward sees: stashed, current, recomputed, predicted,
            predicted-twice, corrected or double-buffered; the method's if left out.
        corrections: in the order in which they act: inverse-staleness, pipemare-rate=UPDATES, shrink=BETA,
            dc-asgd=LAMBDA, dc-asgd-adaptive=LAMBDA, gap-aware, clip=NORM, or none; the method's if left out.
        clip: largest L2 norm of each stage's gradient, after all corrections.
        mixing: what groups exchange: none, combine-while-adapt, adapt-then-combine or all-reduce; the method's if
            left out.
        topology: who mixes with whom: ring, torus, exponential, complete, star, one-peer-exponential, edges or matrix.
        edges: edge list for topology edges, such as 0-1,1-2 (both ways) or 0>1,1>0.
        matrix: rows of the mixing matrix for topology matrix.
        period: H, updates from one mixing to the next.
        lag: c, mix with the neighbours' parameters of that many updates ago.
        mix_momentum: mix the optimizer's momentum buffers too.
        micro_batches: M, batches an update averages over; the method's if left out.
        learners: how many (lambda), for methods with parameter servers; 4 if left out.
        servers: how many these methods split the parameters over.
        softsync: n; an update averages over learners/n gradients, whoever sent them.
        staleness_rule: what staleness does to a gradient or its rate, in place of corrections: constant, inverse,
            exponential=BETA, dc=LAMBDA or gap; the method's if left out.
        max_staleness: bound on the staleness of every gradient; a learner that might exceed it waits.
        momentum_at: with parameter servers, whether the server or each learner has the momentum.
        deliveries: record of the order in which a run took gradients, to be repeated on the simulator.
        cuts: names of the modules that begin stages 1..K-1; balanced by measured time if left out.
        batch_size: samples of one group in one update, or of one gradient of a learner.
        epochs: passes over the training data.
        updates: number of updates, instead of epochs.
        engine: processes (torch.distributed) or simulator (all units in this process).
        processes: how many processes share the units; one a unit if left out.
        device: cpu, cuda, or auto for cuda where there is one.
        dtype: that floating parameters, buffers and data are cast to; each keeps its own if left out.
        threads: of each process's arithmetic; another number may change the last bits.
        seed: of everything that is drawn.
        deadline: seconds that a unit waits for a message before the run ends with an error.
        gap: measure how far weights move between the forward of a batch and its update; costs a copy of the parameters
            where the view keeps none.
        log_every: updates between two reports.
        evaluate_every: epochs between two evaluations; 0 for the end only.
        trace: record what every unit did when; written to trace.json, for ui.perfetto.dev.
        out: folder for results; must not exist yet.
    """

    method: str = "pham-ahn"
    groups: int | None = None
    stages: int | None = None
    staleness: list[int] | Literal["auto"] | None = None
    within: float = 0.02
    queues: list[int] | None = None
    view: str | None = None
    corrections: list[str] | None = None
    clip: float | None = None
    mixing: str | None = None
    topology: str = "ring"
    edges: str | None = None
    matrix: list[list[float]] | None = None
    period: int = 1
    lag: int = 0
    mix_momentum: bool = False
    micro_batches: int | None = None
    cuts: list[str] | None = None
    learners: int | None = None
    servers: int = 1
    softsync: int | None = None
    staleness_rule: str | None = None
    max_staleness: int | None = None
    momentum_at: Literal["server", "learner"] = "server"
    deliveries: Path | None = None
    batch_size: int = 32
    epochs: float = 10.0
    updates: int | None = None
    engine: Literal["processes", "simulator"] = "processes"
    processes: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64", "bfloat16"] | None = None
    threads: int = 1
    seed: int = 0
    deadline: float = 120.0
    gap: bool = True
    log_every: int = 10
    evaluate_every: float = 1.0
    trace: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if hasattr(value, "tolist"):  # numpy's numbers and arrays
                value = value.tolist()
            if isinstance(value, str) and hint == Path | None:
                value = Path(value)
            object.__setattr__(self, field.name, value)
            if not _fits(value, hint):
                raise ConfigError(f"{field.name} must be {_named(hint)} ({field.name}: {reprlib.repr(value)})")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """How to train, and what.

    Args:
        data: digits (ships with scikit-learn), cifar10 or mnist.
        data_dir: folder that holds the data's official files.
        model: mlp, convnet, resnet20, resnet32, resnet56 or resnet110.
        augment: crop and flip the training images; on for cifar10 if left out.
        optimizer: sgd, adam, adamw or nadam; the method's if left out, else sgd.
        lr: learning rate, the largest one of a schedule; 0.05 for sgd and 0.002 for others if left out.
        momentum: of sgd, or the first beta of the others; the method's if left out, else 0.9.
        nesterov: Nesterov's momentum, for sgd.
        weight_decay: L2 penalty (decoupled for adamw and nadam).
        schedule: constant, cosine, one-cycle, or step (a tenth at 1/2 and 3/4 of the run).
        milestones: epochs after which schedule step takes a tenth, instead.
    """

    data: Literal["digits", "cifar10", "mnist"] = "digits"
    data_dir: Path | None = None
    model: str = "mlp"
    augment: bool | None = None
    optimizer: Literal["sgd", "adam", "adamw", "nadam"] | None = None
    lr: float | None = None
    momentum: float | None = None
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "one-cycle"
    milestones: list[float] | None = None


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is what the type of a field says."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return value in parts
    if get_origin(hint) is list:
        return isinstance(value, list | tuple) and all(_fits(entry, parts[0]) for entry in value)
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float):
        return whole(value) if hint is int else finite(value)
    return isinstance(value, hint) and (hint not in (str, Path) or _written(str(value)))


def _written(text: str) -> bool:
    """Return whether files and systems take a text: what came from no UTF-8 holds halves of characters."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text)


def _named(hint: Any) -> str:
    """Return what the type of a field is called."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(parts)}"
    if get_origin(hint) is list:
        return f"a list, each entry {_named(parts[0])}"
    if parts:
        return " or ".join(_named(part) for part in parts)
    return _NAMES[hint]


_NAMES = {
    bool: "true or false",
    int: "a whole number of 64 bits",
    float: "a number that is not infinite",
    str: "text in UTF-8",
    Path: "a path in UTF-8",
    type(None): "left out",
}
