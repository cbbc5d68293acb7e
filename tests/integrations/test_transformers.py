"""A transformers Trainer trains on each draw once, on ranks too, and goes on from checkpoints."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augloader import (
    CoresetSampler,
    DistributedCoresetSampler,
    Every,
    FacilityLocation,
    InfoBatch,
    LastLayerGradient,
    Loss,
    LossRank,
    RandomPruning,
    Rank,
    Sample,
    StableInfluence,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
)
from augloader.loading import HeadInfluence
from tests.frameworks import TORCHRUN, start

pytest.importorskip("transformers")
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    TrainingArguments,
    default_data_collator,
)
from transformers.trainer_pt_utils import LabelSmoother

from augloader.integrations.transformers import CoresetTrainer

pytestmark = [pytest.mark.stacks, pytest.mark.filterwarnings("ignore")]  # transformers' own
N, EPOCHS, CLASSES = 41, 3, 3
Row = tuple[int, int, int, float, float, bool]  # epoch, index, copy, weight, strength, marked


def mark(image: Tensor) -> Tensor:
    """A strong transform that leaves a trace in the first pixel."""
    return torch.cat([torch.full_like(image[:, :1], 9.0), image[:, 1:]], 1)


def items() -> list[dict[str, Any]]:
    images = torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return [{"pixel_values": x, "labels": i % CLASSES, "name": f"{i}.png"} for i, x in
            enumerate(images)]  # fmt: skip


def dataset() -> WeightedAugmentedDataset:
    return WeightedAugmentedDataset(items(), strong=mark, fields=("pixel_values", "labels"))


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3 * 8 * 8, CLASSES)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.layer(pixel_values.flatten(1))
        return {"logits": logits} if labels is None else {
            "loss": F.cross_entropy(logits, labels), "logits": logits
        }  # fmt: skip


class Logits(nn.Module):
    """What ``sweep`` takes: from inputs to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(pixel_values=images)["logits"]
        return logits


class Recorded(CoresetTrainer):
    """Write down what is trained on."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.rows: list[Row] = []

    def augmented(self, inputs: dict[str, Any], draw: Sample) -> tuple[dict[str, Any], Sample]:
        assert set(inputs) == {"pixel_values", "labels"}
        marked = (inputs["pixel_values"][:, :, 0] == 9).flatten(1).all(1).tolist()
        keys = draw.keys.tolist()
        columns = zip(keys, draw.weight.tolist(), draw.strength.tolist(), marked, strict=True)
        self.rows += [(*key, weight, strength, strong) for key, weight, strength, strong in columns]
        assert (inputs["labels"] == draw.index % CLASSES).all()
        return super().augmented(inputs, draw)


def planned(**options: Any) -> CoresetSampler:
    given = {"fraction": 0.3, "refresh": Every(1, warmup=1), "strength": LossRank()}
    given |= {"epochs": EPOCHS, "constant_length": True}
    return CoresetSampler(dataset(), FacilityLocation(), **{**given, **options})


def trainer(
    folder: Path, sampler: CoresetSampler, model: Any = None, evidence: Any = None, **options: Any
) -> Recorded:
    given = {"num_train_epochs": EPOCHS, "per_device_train_batch_size": 8, "report_to": []}
    given |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "learning_rate": 0.01}
    arguments = TrainingArguments(str(folder), **{**given, **options})
    return Recorded(
        model or Images(), arguments, train_dataset=dataset(), sampler=sampler, evidence=evidence,
        data_collator=default_data_collator,
    )  # fmt: skip


def require_epochs_as_planned(rows: list[Row], selections: list[set[int]]) -> None:
    """Each sample once an epoch, and the selected ones once more, strong and marked, no other."""
    for epoch, chosen in enumerate(selections):
        mine = [row for row in rows if row[0] == epoch and row[3] > 0]
        wanted = Counter([(i, 0) for i in range(N)] + [(j, 1) for j in chosen])
        assert Counter((i, copy) for _, i, copy, *_ in mine) == wanted
        assert all((strength > 0) == marked for *_, strength, marked in mine)
        assert all(copy == 1 or strength == 0 for _, _, copy, _, strength, _ in mine)


def test_every_planned_draw_is_trained_on_once(tmp_path: Path) -> None:
    model = Images()
    selections: list[set[int]] = [set()]

    def evidence() -> Any:
        return sweep(Logits(model), dataset(), LastLayerGradient())

    sampler = planned()
    refresh = sampler.refresh

    def recorded(*given: Any, **options: Any) -> Any:
        chosen = refresh(*given, **options)
        selections.append(set(chosen.indices.tolist()))
        return chosen

    sampler.refresh = recorded  # type: ignore[method-assign]
    training = trainer(tmp_path, sampler, model, evidence, learning_rate=0.0)
    training.train()
    assert len(selections) == EPOCHS
    require_epochs_as_planned(training.rows, selections)
    assert training.state.global_step == EPOCHS * -(-len(sampler) // 8)
    assert training.lr_scheduler.get_last_lr()[0] == 0
    with torch.no_grad():
        logits = Logits(model)(default_data_collator(items())["pixel_values"])
    expected = F.cross_entropy(logits, torch.arange(N) % CLASSES, reduction="none")
    known = sampler.table.evidence()
    torch.testing.assert_close(known.losses, expected)
    assert known.labels is not None
    assert known.labels.tolist() == [i % CLASSES for i in range(N)]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_sweep_runs_in_the_trainings_precision(tmp_path: Path, bf16: bool) -> None:
    model = Images()
    seen: list[torch.dtype] = []

    def evidence() -> Any:
        def forward(model: Any, batch: Any) -> Any:
            logits = model(batch.input)
            seen.append(logits.dtype)
            return logits, batch.target

        # Not accelerate's forward, which casts by itself once the training has begun.
        plain = nn.Sequential(nn.Flatten(), model.layer)
        return sweep(plain, dataset(), LastLayerGradient(), forward=forward)

    trainer(tmp_path, planned(), model, evidence, bf16=bf16).train()
    assert set(seen) == {torch.bfloat16 if bf16 else torch.float32}


def test_the_loss_is_weighted_and_accumulated(tmp_path: Path) -> None:
    """One step over all batches of an epoch is one of plain SGD on the mean of their means."""
    options = {"optim": "sgd", "max_grad_norm": 0.0, "gradient_accumulation_steps": 7}
    options |= {"num_train_epochs": 1, "lr_scheduler_type": "constant", "learning_rate": 0.1}
    model = Images()
    sampler = planned(refresh=Every(1), weighting="population")
    evidence = sweep(Logits(model), dataset(), LastLayerGradient())
    trainer(tmp_path, sampler, model, lambda: evidence, **options).train()
    other, data = Images(), dataset()
    draws = list(sampler)
    batches = [draws[i : i + 8] for i in range(0, len(draws), 8)]
    for batch in batches:
        rows = [data[draw] for draw in batch]
        logits = other(torch.stack([row.input for row in rows]))["logits"]
        target = torch.tensor([row.target for row in rows])
        loss = F.cross_entropy(logits, target, reduction="none")
        weight = torch.tensor([draw.weight for draw in batch])
        ((loss * weight).mean() / len(batches)).backward()
    with torch.no_grad():
        for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
            assert mine.grad is not None
            torch.testing.assert_close(mine - 0.1 * mine.grad, theirs)


@pytest.mark.parametrize("step", [3, 7, 9, 14])  # 7 steps an epoch
def test_training_goes_on_from_a_checkpoint(tmp_path: Path, step: int) -> None:
    options = {"save_strategy": "steps", "save_steps": 1, "save_only_model": False}
    whole = trainer(tmp_path, planned(), **options)
    whole.train()
    length = len(whole.sampler)
    epochs, batches = divmod(step, -(-length // 8))
    resume = tmp_path / f"checkpoint-{step}"
    rest = trainer(tmp_path / "rest", planned())
    rest.train(resume_from_checkpoint=str(resume))
    assert rest.rows == whole.rows[epochs * length + 8 * batches :]
    for mine, theirs in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    (resume / "coreset-0.pt").unlink()
    with pytest.raises(ValueError, match=r"must hold coreset-0\.pt, got none in .*Resume on"):
        rest.train(resume_from_checkpoint=str(resume))


def test_epochs_of_several_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"epochs of one length, got 41 and 53 draws\. Pass const"):
        trainer(tmp_path, planned(constant_length=False)).train()


@pytest.mark.parametrize(
    "options", [{"base": InfoBatch(0.5)}, {"base": Rank(Loss()), "base_fraction": 0.5}]
)
def test_a_base_pruned_by_reports_is_refused_before_training(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    options = {"copies": 0, **options}
    refused = trainer(tmp_path, planned(constant_length=False, **options))
    with pytest.raises(ValueError, match=r"base must be as long in every epoch, got (Info|Rank)"):
        refused.train()
    assert not refused.rows
    trainer(tmp_path, planned(constant_length=False, **options), num_train_epochs=1).train()
    trainer(tmp_path, planned(**options)).train()


@pytest.mark.parametrize(
    "options", [{"base": RandomPruning(0.5)}, {"base": Uniform(), "base_fraction": 0.5}]
)
def test_a_base_of_one_length_is_trained_on(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {"copies": 0, "pad_to_multiple_of": 8, **options}
    sampler = CoresetSampler(dataset(), Uniform(), fraction=1.0, **options)
    training = trainer(tmp_path, sampler)
    training.train()
    assert len(training.rows) == 24 * EPOCHS


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    sharding = DistributedCoresetSampler(dataset(), Uniform(), fraction=0.3, num_replicas=1, rank=0)
    with pytest.raises(TypeError, match="must be a plain CoresetSampler, got Distributed"):
        trainer(tmp_path, sharding)
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(TypeError, match=r"must be a WeightedAugmentedDataset, got list\. Wrap it"):
        CoresetTrainer(Images(), arguments, train_dataset=items(), sampler=planned())
    with pytest.raises(ValueError, match=r"compute_loss_func must be None, got one\. Override row"):
        CoresetTrainer(
            Images(), arguments, train_dataset=dataset(), sampler=planned(),
            compute_loss_func=lambda *_: 0,
        )  # fmt: skip

    class Other(CoresetTrainer):
        def _get_train_sampler(self, *given: Any, **options: Any) -> Any:
            return None

    other = Other(Images(), arguments, train_dataset=dataset(), sampler=planned())
    with pytest.raises(RuntimeError, match=r"must draw from the sampler, got another\. Leave get_"):
        other.train()


def test_other_losses_are_to_be_given(tmp_path: Path) -> None:
    training = trainer(tmp_path, planned())
    inputs = {"labels": torch.zeros(4, 2, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"must have \(b, C\) logits .* Override row_losses"):
        training.row_losses({"logits": torch.zeros(4, 2, 3)}, inputs)
    with pytest.raises(ValueError, match=r"got logits of shape None and labels of None"):
        training.row_losses({"last_hidden_state": torch.zeros(4, 2)}, {})


class Steady(CoresetTrainer):
    """Reports the influence along the last step, and checks it by hand."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.influence = HeadInfluence(self.model)
        self.heads: list[tuple[Tensor, Tensor]] = []  # before each step

    def compute_loss(self, *given: Any, **options: Any) -> Any:
        layer = self.model.layer
        self.heads.append((layer.weight.detach().clone(), layer.bias.detach().clone()))
        with self.influence:
            return super().compute_loss(*given, **options)

    def row_losses(self, outputs: Any, inputs: dict[str, Any]) -> dict[str, Tensor]:
        found = super().row_losses(outputs, inputs)
        influence = self.influence(found["logits"], found["target"])
        (weight, bias), (before, other) = self.heads[-1], self.heads[max(0, len(self.heads) - 2)]
        change = inputs["pixel_values"].flatten(1) @ (before - weight).T + other - bias
        gradient = found["logits"].softmax(1) - F.one_hot(found["target"], CLASSES)
        torch.testing.assert_close(influence, (gradient * change).sum(1).detach())
        return found | {"influence": influence}


def test_the_influence_of_a_step_is_reported(tmp_path: Path) -> None:
    rule = StableInfluence("gradient", window=2)
    sampler = CoresetSampler(dataset(), Uniform(), fraction=0.5, strength=rule, seed=0)
    before = sampler.strengths
    arguments = TrainingArguments(
        str(tmp_path), num_train_epochs=EPOCHS, per_device_train_batch_size=8, use_cpu=True,
        save_strategy="no", report_to=[], learning_rate=0.1,
    )  # fmt: skip
    training = Steady(Images(), arguments, train_dataset=dataset(), sampler=sampler)
    training.train()
    assert len(training.heads) > EPOCHS
    assert not torch.equal(sampler.strengths, before)


def test_labels_are_smoothed_as_by_the_trainer(tmp_path: Path) -> None:
    training = trainer(tmp_path, planned())
    training.args.label_smoothing_factor = 0.1
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    found = training.row_losses({"logits": logits}, {"labels": labels})
    expected = LabelSmoother(epsilon=0.1)({"logits": logits}, labels)
    torch.testing.assert_close(found["loss"].mean(), expected)


def test_a_batch_without_names_is_refused(tmp_path: Path) -> None:
    training = trainer(tmp_path, planned())
    training.data_collator = list
    with pytest.raises(TypeError, match="data_collator must return a mapping, got list"):
        next(iter(training.get_train_dataloader()))


def test_evaluation_is_left_alone(tmp_path: Path) -> None:
    training = trainer(tmp_path, planned(), num_train_epochs=1)
    training.eval_dataset = items()
    assert training.evaluate()["eval_loss"] > 0


def test_sequences_are_padded_by_the_collate_function_of_ones_own(tmp_path: Path) -> None:
    texts = [{"input_ids": [i % 9] * (1 + i % 5), "attention_mask": [1] * (1 + i % 5),
              "labels": i % CLASSES} for i in range(N)]  # fmt: skip
    data = WeightedAugmentedDataset(texts, fields=("input_ids", "labels"))
    seen = []

    def padded(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        seen.extend(rows)
        most = max(len(row["input_ids"]) for row in rows)
        columns = {
            name: torch.tensor([row[name] + [0] * (most - len(row[name])) for row in rows])
            for name in ("input_ids", "attention_mask")
        }
        return {**columns, "labels": torch.tensor([row["labels"] for row in rows])}

    sampler = CoresetSampler(data, Uniform(), count=5)
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], num_train_epochs=1, disable_tqdm=True,
        per_device_train_batch_size=8, save_strategy="no",
    )  # fmt: skip
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            num_labels=CLASSES,
        )
    )
    CoresetTrainer(
        model, arguments, train_dataset=data, sampler=sampler, data_collator=padded
    ).train()
    assert len(seen) == N + 5
    assert all(text in seen for text in texts)
    assert len(sampler.table.missing("losses")) == 0


RANKS = """
import json, sys, warnings
from pathlib import Path
import torch
from tests.integrations.test_transformers import *

warnings.simplefilter("ignore")
FOLDER = Path(sys.argv[1])


def fit(folder, resume=None, **options):
    given = {"pad_to_multiple_of": 8, "group": torch.distributed.group.WORLD}
    arguments = {"per_device_train_batch_size": 4, "ddp_backend": "gloo", **options}
    TrainingArguments(str(folder), use_cpu=True, report_to=[], ddp_backend="gloo").device
    sampler = planned(**given)
    training = trainer(folder, sampler, **arguments)
    training.train(resume_from_checkpoint=resume)
    return training


if __name__ == "__main__":
    TrainingArguments(str(FOLDER), use_cpu=True, report_to=[], ddp_backend="gloo").device
    for multiple in (1, 4):
        try:
            trainer(FOLDER, planned(pad_to_multiple_of=multiple), per_device_train_batch_size=4)
        except ValueError as error:
            assert "Pass 8: some draws would be trained on twice" in str(error)
        else:
            raise SystemExit("not refused")
    whole = fit(FOLDER, save_strategy="steps", save_steps=1)
    rank = torch.distributed.get_rank()
    rest = fit(FOLDER / "rest", resume=str(FOLDER / "checkpoint-9"))
    assert rest.rows == whole.rows[7 * 4 + 2 * 4:], rank
    found = [p.sum().item() for p in whole.model.parameters()]
    assert found == [p.sum().item() for p in rest.model.parameters()], rank
    (FOLDER / f"{rank}.json").write_text(json.dumps(whole.rows))
    torch.distributed.destroy_process_group()
"""


@pytest.mark.distributed
def test_two_ranks_train_on_each_draw_once_and_go_on(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RANKS)
    start([*TORCHRUN, str(program), str(tmp_path)], tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == EPOCHS * 28
    rows = [tuple(row) for rank in ranks for row in rank]
    copies = [{i for e, i, copy, *_ in rows if e == epoch and copy} for epoch in range(EPOCHS)]
    assert [len(chosen) for chosen in copies] == [0, 12, 12]
    require_epochs_as_planned(rows, copies)
