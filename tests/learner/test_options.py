"""Options that a stored run may hold though they are gone."""

import pytest

from sdpo_solve.config import read_options
from sdpo_solve.errors import ConfigError
from sdpo_solve.learner.options import Options

GONE = {"kl_clip": None, "entropy_weight": 0.0, "position_ramp_tokens": 0, "reference_kl": 0.0}


def test_options_that_are_gone_are_read_where_they_did_nothing() -> None:
    stored = {**Options(lr=1e-4).model_dump(mode="json"), **GONE}
    assert read_options(Options, stored, "learner") == Options(lr=1e-4)
    with pytest.raises(ConfigError, match="kl_clip"):
        read_options(Options, {"kl_clip": 1.0}, "learner")
