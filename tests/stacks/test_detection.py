"""Detection: boxes move with their images, of several sizes, in lists; a dataset of one's own."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from augloader import Draw, Sample
from tests.stacks.planned import BATCH, COPIES, EPOCHS, N, Planned, Seen

pytestmark = pytest.mark.stacks
Batch = tuple[list[Tensor], list[dict[str, Tensor]], Sample]


class Boxes(Dataset[Any]):
    """Images of several sizes, each with a bright box; the strong ones are mirrored."""

    strong = v2.RandomHorizontalFlip(p=1.0)

    def __len__(self) -> int:
        return N

    def __getitem__(self, draw: Draw) -> Any:
        width, height = 12 + draw.index % 5, 10 + draw.index % 3
        left, top = draw.index % 4, draw.index % 2
        image = torch.zeros(1, height, width)
        image[:, top : top + 3, left : left + 4] = 1.0
        boxes = tv_tensors.BoundingBoxes(
            [[left, top, left + 4, top + 3]], format="XYXY", canvas_size=(height, width)
        )
        item = tv_tensors.Image(image), {"boxes": boxes, "labels": torch.tensor([1])}
        return (self.strong(*item) if draw.strength > 0 else item), draw


def lists(rows: list[Any]) -> Batch:
    items, draws = zip(*rows, strict=True)
    found, targets = zip(*items, strict=True)
    return list(found), list(targets), Sample.of(draws)


class Detector(nn.Module):
    """Return the loss of each image: of the middle of its box, from where it is bright."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 4)

    def forward(self, found: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        bright = [image[0].nonzero().float().mean(0) for image in found]
        boxes = torch.stack([target["boxes"].as_subclass(Tensor)[0] for target in targets])
        losses = F.smooth_l1_loss(self.layer(torch.stack(bright)), boxes.float(), reduction="none")
        return losses.mean(1)


def train(sampler: Planned, rate: float, resume: Any = None) -> tuple[Seen, nn.Module, Any]:
    model, seen, saved = Detector(), Seen(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    loader = DataLoader(Boxes(), BATCH, sampler=sampler, collate_fn=lists)
    if resume:
        sampler.load_state_dict(resume[0])
        sampler.table.load_state_dict(resume[1])
        model.load_state_dict(resume[2])
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.begin(epoch)
        for batches, (found, targets, draw) in enumerate(loader, 1):
            for image, target, i, strength in zip(
                found, targets, draw.index.tolist(), draw.strength.tolist(), strict=True
            ):
                (left, top, right, bottom) = target["boxes"][0].int().tolist()
                assert image.shape[1:] == (10 + i % 3, 12 + i % 5)
                assert image[0, top:bottom, left:right].sum() == image.sum() == 12
                mirrored = image.shape[2] - i % 4 - 4
                assert left == (mirrored if strength > 0 else i % 4)
            losses = model(found, targets)
            optimizer.zero_grad()
            (losses * draw.weight).mean().backward()
            optimizer.step()
            sampler.report(draw, loss=losses)
            seen.add(draw)
            if (epoch, batches) == (1, 3):
                state = {name: value.clone() for name, value in model.state_dict().items()}
                saved = sampler.state_dict(3 * BATCH), sampler.table.state_dict(), state
    return seen, model, saved


def planned() -> Planned:
    return Planned(Boxes())


def test_every_planned_draw_is_trained_on_once() -> None:
    sampler = planned()
    seen, model, _ = train(sampler, 0.0)
    seen.require_planned(sampler.chosen)
    found, targets, _ = lists([Boxes()[Draw(i, strength=0.0)] for i in range(N)])
    with torch.no_grad():
        torch.testing.assert_close(sampler.table.evidence().losses, model(found, targets))


def test_training_goes_on_from_a_checkpoint() -> None:
    whole, model, saved = train(planned(), 0.1)
    rest, other, _ = train(planned(), 0.1, saved)
    assert rest.rows == whole.rows[N + 3 * BATCH :]
    assert len(rest.rows) == 2 * (N + COPIES) - 3 * BATCH
    for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
