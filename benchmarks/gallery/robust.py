"""Diversely Stale Parameters, Xu, Huo, Huang, arXiv 1909.02625: robust to stragglers."""

from benchmarks.gallery.entry import RATE, Claim, Entry, Scale, Way, quotient
from benchmarks.gallery.kept import COSTS

_DISTURBED = {
    "undisturbed": "",
    "straggler": "--devices.slow 0,1=1.5",
    "jitter": "--devices.jitter 0.5",
    "stalled link": "--devices.outages 0,0>0,1@2000-2600;0,0>0,1@9000-9600",
}
_RUNS = {
    "1F1B": "--method 1f1b",
    "DSP (2,1,0)": "--method dsp --staleness 2,1,0",
    "DSP (4,2,0)": "--method dsp --staleness 4,2,0",
    "DSP (12,6,0), with slack": "--method dsp --staleness 12,6,0",
}


def _name(run: str, disturbed: str) -> str:
    return f"{run}, {disturbed}"


_WAYS = (
    *(Way(_name(run, name), f"{how} {what}") for name, what in _DISTURBED.items() for run, how in _RUNS.items()),
    Way(_name("DSP (48,24,0)", "jitter"), f"--method dsp --staleness 48,24,0 {_DISTURBED['jitter']}"),
)
_DEVICES = (
    f"--data digits --model mlp --batch-size 32 --stages 3 --groups 1 --cuts 5,9 --costs {COSTS}/three.yaml "
    "--devices.link 5,1000 --output.gap false --output.evaluate-every 0 "
)


def _claim(disturbed: str, at_least: float) -> Claim:
    says = f"DSP (4,2,0) is faster than 1F1B, {disturbed}"
    ways = (_name("DSP (4,2,0)", disturbed), _name("1F1B", disturbed))
    return Claim(says, ways, quotient(RATE.key), at_least=at_least, unit=" times")


_JITTER = (
    "jitter leaves the median of an action what it is, so that a device is slower by exp(0.5^2 / 2), 13 %, in the "
    "mean, for which no slack makes up: 0.88 is what can be had; (48,24,0) is what was tried"
)


def _slack(disturbed: str, tried: str = "") -> Claim:
    says = f"slack, (12,6,0), makes up for what is {disturbed}: as fast as undisturbed, to 5 %"
    ways = (_name("DSP (12,6,0), with slack", disturbed), _name("DSP (4,2,0)", "undisturbed"))
    return Claim(says, ways, quotient(RATE.key), at_least=0.95, unit=" times", tried=tried)


ENTRY = Entry(
    name="robust",
    title="Diversely stale parameters: robust to stragglers",
    source="Xu, Huo, Huang, arXiv 1909.02625",
    published="Its abstract says that it trains faster and is more robust to stragglers than what it is compared with.",
    figures=(RATE,),
    scales={
        "smoke": Scale("30 updates: it runs", _DEVICES + "--updates 30", _WAYS, seeds=1),
        "cpu": Scale(
            "virtual time of three equal devices, 20 ms forward and 40 ms backward, links of 5 ms; a straggler takes "
            "half as long again, jitter is log-normal with sigma 0.5, and the link is out twice for 0.6 s; 400 updates",
            _DEVICES + "--updates 400",
            _WAYS,
        ),
    },
    claims=(*(_claim(name, 1.0) for name in _DISTURBED), _slack("jitter", _JITTER), _slack("stalled link")),
)
