"""What `study --estimate` says that a design can find."""

import re

from ssdfast.config import StudyConfig
from ssdfast.workflows.study.design import format_design


def lines(problems, **values):
    return list(format_design(StudyConfig(model="model", arms=("ssd", "control"), **values), problems))


def smallest(problems, seeds):
    (found,) = re.findall(r"problems: (\d\.\d+) \(power 80 %, corrected for 4 tests\)", lines(problems, seeds=seeds)[0])
    return float(found)


def test_more_seeds_and_problems_find_smaller_differences():
    assert smallest(100, (0, 1, 2)) > smallest(100, (0, 1, 2, 3, 4)) > smallest(1000, tuple(range(8)))


def test_problems_that_are_not_probed_do_not_count():
    assert smallest(1000, (0, 1, 2)) == smallest(200, (0, 1, 2))
    few = lines(1000, seeds=(0, 1, 2), num_probe_traces=10)[0]
    assert few == lines(10, seeds=(0, 1, 2))[0] != lines(1000, seeds=(0, 1, 2))[0]
    assert "and 10 problems" in few


def test_what_cannot_be_found_is_said():
    said = "\n".join(lines(5))
    assert "no verdict: the models are probed at answers to 5 problems, and at least 8 are needed" in said
    assert "one seed per arm are about these trained models" in said
    assert "5 problems x 1 sample: none" in said


def test_every_arm_adds_tests_to_pass():
    more = StudyConfig(model="model", arms=("ssd", "ssd-soft", "temperature-only", "control"), seeds=(0, 1, 2))
    said = next(format_design(more, 100))
    assert "corrected for 12 tests" in said
    (found,) = re.findall(r"problems: (\d\.\d+)", said)
    assert float(found) > smallest(100, (0, 1, 2))


def test_the_arm_with_the_fewest_seeds_counts():
    arms = {"ssd": {"recipe": "ssd", "seeds": (0, 1, 2)}, "control": None}
    config = StudyConfig(model="model", arms=arms, seeds=(0, 1, 2, 3, 4))
    assert "3 seeds per arm" in next(format_design(config, 100))
