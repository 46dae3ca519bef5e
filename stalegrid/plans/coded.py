"""Which messages of a run are coded, and which codecs it cannot have.

Does not know: how messages are coded, engines.
"""

from collections.abc import Callable, Iterable, Mapping

from stalegrid.codecs import Chosen, Coding
from stalegrid.consensus import Mixing, has_name
from stalegrid.errors import ConfigError
from stalegrid.programs import Edge, Layout
from stalegrid.written import text_of

WITHIN = {"activation": "activation", "gradient": "gradient"}
"""Which setting of ``codec`` is for messages within a group, by the name of the edge; of others nothing may be lost."""


def floating(layout: Layout) -> tuple[int, ...]:
    """Return what is coded of tensors between stages: all of those of floating numbers."""
    return tuple(spec.numel if spec.dtype.is_floating_point else 0 for spec in layout)


def check_codecs(
    chosen: Mapping[str, Chosen],
    mixing: Mixing,
    edges: Iterable[Edge],
    coding: Callable[[Edge], Coding | None],
    *,
    momentum: bool,
    plain: bool = True,
) -> None:
    """Check the codecs of a run.

    Args:
        chosen: codecs by the setting that chose them.
        mixing: of the run.
        edges: all there are.
        coding: edge -> how its messages are coded.
        momentum: whether momentum is mixed.
        plain: whether all of the parameters are averaged at once, by the usual lag rule.

    Raises:
        ConfigError: a codec would lose what nobody can do without, or has nothing to do.
    """
    if momentum and (mixing.sends_differences or "parameters" in chosen):
        raise ConfigError(
            f"nobody has said how momentum is coded (mixing.momentum: true, mixing: {mixing.text}); leave it out, or "
            "take adapt-then-combine without a codec"
        )
    if "parameters" in chosen and not plain:
        raise ConfigError(
            "what is late, sparse or taken in turns is not coded too (codec.parameters: "
            f"{chosen['parameters']}, mixing: {mixing.text}); take lag rule own-current, sparse 1 and no fragments, or "
            "leave the codec out"
        )
    kinds = {**WITHIN, **mixing.coded}
    for kind, codec in chosen.items():
        _check_mixing(kind, codec, mixing)
        own = [found for e in edges if kinds.get(e.name) == kind and (found := coding(e)) is not None]
        if not own:
            raise ConfigError(
                f"no message of the run is of the kind that has a codec (codec.{kind}: {codec}, mixing: "
                f"{text_of(mixing)}); leave it out"
            )
        for one in own:
            _check_shapes(kind, one)


def _check_mixing(kind: str, codec: Chosen, mixing: Mixing) -> None:
    if kind not in mixing.coded.values():
        return
    name = text_of(mixing)
    if not has_name(mixing):
        raise ConfigError(
            f"a mixing of your own says what it sends, coded or not (codec.{kind}: {codec}, mixing: {name}); "
            "let it code its messages, or take one by name"
        )
    if mixing.averages_parameters and codec.codec.sparse and not mixing.sends_differences:
        raise ConfigError(
            f"a parameter that is not sent would count as 0 (codec.{kind}: {codec}, mixing: {mixing.text}); "
            "take mixing choco, which sends what has changed"
        )
    if mixing.sends_differences and codec.feedback:
        raise ConfigError(f"{mixing.name} sends what was lost by itself (codec.{kind}: {codec}); leave feedback out")


def _check_shapes(kind: str, coding: Coding) -> None:
    what = f"codec.{kind}: {coding.codec}{',feedback' if coding.feedback else ''}"
    if coding.feedback and len(coding.layouts) > 1:
        raise ConfigError(
            f"what was lost of a message cannot be added to one of another shape ({what}, shapes: "
            f"{len(coding.layouts)}); let all batches have one, or leave feedback out"
        )
    if coding.alike:
        raise ConfigError(
            f"messages of batches of several shapes would look alike ({what}, shapes: {len(coding.layouts)}); let all "
            "batches have one, or take another codec"
        )
