"""Units of measure and money: their dimension, their size, and compound ones as "miles per hour" and "m/s^2".

pint was the library to take and does not fit: it reads any word that a prefix and a symbol spell ("cats" as centi-
technical atmospheres, "pads" as pico-...), knows no "square centimeters", no money and no Chinese, and takes half a
second to load in every worker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

_DEFINITIONS = """
== m: m 1: m meter metre 米 公尺 | cm 1/100: cm centimeter centimetre 厘米 公分
mm 1/1000: mm millimeter millimetre 毫米
km 1000: km kilometer kilometre 千米 公里 | in 0.0254: in inch inche | ft 0.3048: ft foot feet | yd 0.9144: yd yard
mi 1609.344: mi mile 英里 | dm 1/10: dm decimeter decimetre 分米 | nm 1/1000000000: nm nanometer nanometre
um 1/1000000: μm micrometer micrometre micron
== kg: kg 1: kg kilogram kilo 千克 公斤 | g 1/1000: g gram gramme 克 | mg 1/1000000: mg milligram 毫克
lb 0.45359237: lb lbs pound | oz 0.028349523125: oz ounce | ton 1000: ton tonne 吨
== s: s 1: s sec second 秒 | ms 1/1000: ms millisecond 毫秒 | min 60: min mins minute 分钟 | h 3600: h hr hrs hour 小时
day 86400: day 天 | week 604800: week 周
== year: year 1: year yr 年 | month 1/12: month 月
== angle: degree 1: degree deg 度 | arcminute 1/60: arcminute | arcsecond 1/3600: arcsecond
== usd: dollar 1: dollar usd buck 美元 | cent 1/100: cent ¢ | quarter-dollar 1/4: quarter-dollar
== eur: euro 1: euro eur 欧元
== gbp: pound 1: gbp pound-sterling 英镑 | pence 1/100: pence penny
== cny: yuan 1: yuan rmb cny 元 块 | jiao 1/10: jiao 角 | fen 1/100: fen
== jpy: yen 1: yen jpy 日元 | == inr: rupee 1: rupee rs inr | == rub: ruble 1: ruble rouble руб рублей рубля рубль
== celsius: celsius 1: celsius centigrade °c | == fahrenheit: fahrenheit 1: fahrenheit °f | == K: kelvin 1: kelvin K
== J: J 1: J joule | kJ 1000: kJ kilojoule | MJ 1000000: MJ megajoule 
cal 4.184: cal calorie | kcal 4184: kcal kilocalorie
eV 1.602176634e-19: eV electronvolt | kWh 3600000: kWh kilowatt-hour
== N: N 1: N newton | kN 1000: kN kilonewton | == W: W 1: W watt | kW 1000: kW kilowatt | MW 1000000: MW megawatt
== Pa: Pa 1: Pa pascal | kPa 1000: kPa kilopascal | atm 101325: atm atmosphere
== V: V 1: V volt | mV 1/1000: mV millivolt | kV 1000: kV kilovolt | == A: A 1: A amp ampere | mA 1/1000: mA milliamp
== Ω: ohm 1: ohm Ω | == C: coulomb 1: coulomb | == F: farad 1: farad | == T: tesla 1: tesla
== Hz: Hz 1: Hz hertz | kHz 1000: kHz kilohertz | MHz 1000000: MHz megahertz | == mol: mol 1: mol mole
== byte: byte 1: byte | kilobyte 1000: kilobyte kb KB | megabyte 1000000: megabyte MB | gigabyte 1000000000: gigabyte GB
== bit: bit 1: bit
== radian: radian 1: radian rad
"""
_VOLUMES = {
    "l": "0.001: l L liter litre 升", "ml": "0.000001: ml mL milliliter millilitre cc 毫升",
    "gal": "0.003785411784: gal gallon",
    "qt": "0.000946352946: qt quart", "pint": "0.000473176473: pint", "cup": "0.0002365882365: cup",
}  # fmt: skip
_COMPOUND = {
    "mph": "mi/h",
    "kph": "km/h",
    "kmh": "km/h",
    "kmph": "km/h",
    "fps": "ft/s",
    "mps": "m/s",
    "acre": "acre",
    "hectare": "hectare",
}
_AREAS = {"acre": "4046.8564224", "hectare": "10000"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "平方": 2, "立方": 3}
_AFTER = {"squared": 2, "cubed": 3}
_TOKEN = re.compile(r"平方|立方|[^\W\d_]+(?:-[a-z]+)?|[°¢]|\^?-?[0-9]+|[/*()·.]")


_DEGREES_OF = re.compile(r"degrees? (celsius|fahrenheit|c\b|f\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Unit:
    """A unit by its dimension, the powers of its base units, and its size in them."""

    name: str
    dimension: tuple[tuple[str, int], ...]
    size: Fraction

    def times(self, other: Unit, power: int = 1) -> Unit:
        powers = dict(self.dimension)
        for base, exponent in other.dimension:
            powers[base] = powers.get(base, 0) + power * exponent
        dimension = tuple(sorted((base, exponent) for base, exponent in powers.items() if exponent))
        return Unit(f"{self.name} {other.name}^{power}", dimension, self.size * other.size**power)


ONE = Unit("", (), Fraction(1))


def _table() -> dict[str, Unit]:
    table: dict[str, Unit] = {}
    base = ""
    for entry in re.split(r"\||\n", _DEFINITIONS.strip()):
        entry = entry.strip()
        if entry.startswith("=="):
            base, _, entry = entry[2:].partition(":")
            base, entry = base.strip(), entry.strip()
        head, _, spellings = entry.partition(":")
        if head:
            name, size = head.split()
            unit = Unit(name, ((base, 1),), Fraction(size))
            table |= dict.fromkeys(spellings.split(), unit)
    for name, entry in _VOLUMES.items():
        size, _, spellings = entry.partition(":")
        table |= dict.fromkeys(spellings.split(), Unit(name, (("m", 3),), Fraction(size)))
    for name, size in _AREAS.items():
        table[name] = Unit(name, (("m", 2),), Fraction(size))
    return table


UNITS = _table()
CURRENCIES = frozenset(("usd", "eur", "gbp", "cny", "jpy", "inr", "rub"))
DEGREE, CELSIUS, FAHRENHEIT = UNITS["degree"], UNITS["celsius"], UNITS["fahrenheit"]


def unit_named(word: str) -> Unit | None:
    """The unit that a single word names, in the singular or plural."""
    for spelling in (
        word,
        word.lower(),
        word.lower().rstrip("."),
        word.lower().removesuffix("s"),
        word.lower().removesuffix("es"),
    ):
        if spelling in UNITS and (
            len(spelling) > 2 or spelling == word or spelling not in ("n", "j", "v", "w", "a", "k")
        ):
            return UNITS[spelling]
        if spelling in _COMPOUND:
            over, _, under = _COMPOUND[spelling].partition("/")
            return UNITS[over].times(UNITS[under], -1)
    return None


def parse_unit(text: str) -> Unit | None:
    """The unit that `text` spells out, such as "km/h" or "feet per second squared"; None for anything more or else."""
    unit, sign, found, power = ONE, 1, False, 0
    last: tuple[Unit, int] | None = None
    depth = 0
    for token in _TOKEN.findall(_DEGREES_OF.sub(r"\1", text)):
        if token in ("/", "per", "每"):
            sign = -1
        elif token in ("*", "·", "."):
            continue
        elif token in "()":
            depth += 1 if token == "(" else -1
            if token == ")":
                sign = 1
        elif token in _POWERS or token.lower() in _POWERS:
            power = _POWERS[token.lower() if token.isascii() else token]
        elif token in _AFTER or (token.lstrip("^-").isdigit()):
            if last is None:
                return None
            exponent = _AFTER[token] if token in _AFTER else int(token.lstrip("^"))
            unit = unit.times(last[0], last[1] * (exponent - 1))
            last = None
        else:
            factor = unit_named(token)
            if factor is None:
                return None
            unit = unit.times(factor, sign * (power or 1))
            last, found, power = (factor, sign), True, 0
            sign = sign if depth else 1
    return unit if found and not power else None


def singular(word: str) -> str:
    """A noun without its plural ending, in lower case."""
    lower = word.lower()
    if len(lower) > 4 and lower.endswith("ies"):
        return lower[:-3] + "y"
    if len(lower) > 4 and lower.endswith(("ches", "shes", "xes", "sses")):
        return lower[:-2]
    return lower[:-1] if len(lower) > 3 and lower.endswith("s") and not lower.endswith("ss") else lower


def compatible_labels(gold: Sequence[str], answer: Sequence[str]) -> bool:
    """Whether two nouns may be of the same thing: one is missing, or says no more than part of the other."""
    ours, theirs = set(gold), set(answer)
    return not ours or not theirs or ours <= theirs or theirs <= ours
