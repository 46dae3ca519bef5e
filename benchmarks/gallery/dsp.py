"""Diversely Stale Parameters, Xu, Huo, Huang, arXiv 1909.02625: what staleness costs, with slack and without."""

from benchmarks.gallery.entry import ERROR, LOSS, Claim, Entry, Scale, Way, difference

_RECIPE = (
    "--data cifar10 --model resnet20 --batch-size 128 --lr 0.1 --optimizer.momentum 0.9 --optimizer.weight-decay 5e-4 "
    "--schedule one-cycle --groups 1 --output.gap false --output.log-every 100 "
)
_BP, _LEAST, _PUBLISHED, _SLACK = "BP", "DSP (2,1,0)", "DSP (4,2,0)", "DSP (6,3,0), with slack"
_WAYS = (
    Way(_BP, "--method sgd --stages 1"),
    *(
        Way(name, f"--method dsp --stages 3 --staleness {staleness}")
        for name, staleness in ((_LEAST, "2,1,0"), (_PUBLISHED, "4,2,0"), (_SLACK, "6,3,0"))
    ),
)


def _claim(way: str, against: str) -> Claim:
    says = f"{way} generalises no worse than {against}"
    return Claim(says, (way, against), difference(ERROR.key), at_most=0.0, unit=" points")


ENTRY = Entry(
    name="dsp",
    title="Diversely stale parameters: what staleness costs",
    source="Xu, Huo, Huang, arXiv 1909.02625",
    published=(
        "Its abstract says that it trains faster, is more robust to stragglers and generalises better than the methods "
        "it is compared with; its example of three stages is (4,2,0). Held against is backpropagation."
    ),
    figures=(ERROR, LOSS),
    scales={
        "smoke": Scale(
            "digits and a small network, six updates: it runs",
            "--data digits --model mlp --batch-size 32 --lr 0.05 --groups 1 --updates 6",
            _WAYS,
            seeds=1,
        ),
        "cpu": Scale(
            "ResNet-20 on CIFAR-10, 4 epochs, one cycle up to a rate of 0.1; bfloat16, channels last",
            _RECIPE + "--epochs 4 --precision bf16 --training.channels-last true",
            _WAYS,
        ),
        "full": Scale("160 epochs, float32", _RECIPE + "--epochs 160 --output.evaluate-every 10", _WAYS),
    },
    claims=(_claim(_LEAST, _BP), _claim(_PUBLISHED, _BP), _claim(_SLACK, _PUBLISHED)),
    chance=90.0,
)
