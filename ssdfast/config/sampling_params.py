"""How tokens are drawn, and the published recipes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Settings


class DecodingConfig(Settings):
    """How tokens are drawn: divide by the temperature, keep the top k, then the nucleus of mass p."""

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """above 0"""
    top_k: Annotated[int, Field(ge=0)] = 20
    """tokens that survive; 0 switches it off"""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """mass of the nucleus; 1 switches it off"""


class SamplingConfig(DecodingConfig):
    """Decoding as an engine may do it: with two more operators, before those above.

    The penalty is subtracted from the logits first; min-p follows the temperature.
    """

    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """tokens survive that are at least this share as likely as the likeliest; 0 switches it off"""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    """subtracted from the logits of tokens that the completion holds already"""


class Preset(Settings):
    """The two decoding settings of a published recipe."""

    decoding: DecodingConfig
    train: DecodingConfig


PRESETS = {
    # Temperatures compose: T_train * T_eval near 1.2 is where the paper's sweep peaks. Top-p 0.8 is its setting for
    # models that do not think.
    "paper": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.2, top_p=0.8)),
    "math": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.1)),
    "demo": Preset(decoding=DecodingConfig(), train=DecodingConfig(temperature=1.1)),
}
