"""Losses and proxies from logits are torch's, whatever the size of the blocks."""

import pytest
import torch
import torch.nn.functional as F

from augloader.core.proxies import residual
from augloader.feedback import derived
from augloader.feedback.derived import losses_of, proxies_of


@pytest.mark.parametrize("values", [1, 7, 12, 2**20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_they_are_torchs(values: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "_VALUES", values)
    logits = torch.randn(11, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(11) % 3
    expected = F.cross_entropy(logits.float(), labels, reduction="none")
    torch.testing.assert_close(losses_of(logits, labels), expected)
    assert torch.equal(proxies_of(logits, labels), residual(logits, labels))


def test_labels_out_of_range_are_refused() -> None:
    for made in (losses_of, proxies_of):
        with pytest.raises(ValueError, match="labels must be in"):
            made(torch.zeros(2, 3), torch.tensor([0, 3]))
