"""Loading a model: what is not a decoder, and devices."""

from __future__ import annotations

import pytest
import torch

from harness.core.devices import choose_device
from harness.core.errors import UserError
from harness.engine.model import find_layers


def test_a_network_without_decoder_layers_is_refused():
    with pytest.raises(UserError, match="no decoder layers found in Linear"):
        find_layers(torch.nn.Linear(2, 2))


def test_an_unknown_device_is_refused_with_the_valid_ones():
    with pytest.raises(UserError, match="unknown device 'gpu'; valid: cpu, cuda"):
        choose_device("gpu")
