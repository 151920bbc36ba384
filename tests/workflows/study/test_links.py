"""Links to the trained models of the arms that a study has now."""

import pytest

from ssdfast import run_dir
from ssdfast.workflows.study import runner


class Models:
    def __init__(self, **models):
        self.models = models

    def trained_models(self):
        return self.models.items()


def test_links_follow_the_arms_and_nothing_else_is_removed(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
    runner._link_models(Models(), tmp_path)
    runner._link_models(Models(**{"a-0": tmp_path / "train/a", "b-0": tmp_path / "train/none"}), tmp_path)
    assert [link.name for link in (tmp_path / "models").iterdir()] == ["a-0"]
    (tmp_path / "models" / "mine").mkdir()
    runner._link_models(Models(**{"b-0": tmp_path / "train/b"}), tmp_path)
    assert {link.name for link in (tmp_path / "models").iterdir()} == {"b-0", "mine"}
    assert (tmp_path / "models" / "b-0").readlink().as_posix() == "../train/b"
    with pytest.raises(ValueError, match="is in the way of a link"):
        run_dir.link(tmp_path / "models" / "mine", tmp_path / "train/a")
