"""PyTorch Lightning trains on each draw once, on two ranks too, and goes on from checkpoints."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from augloader import (
    Constant,
    CoresetSampler,
    Every,
    FacilityLocation,
    InfoBatch,
    LossRank,
    Residual,
    Sample,
    StableInfluence,
    SwitchOff,
    Uniform,
    WeightedAugmentedDataset,
    sweep,
    wrap,
)
from augloader.loading import HeadInfluence
from tests.frameworks import accuracy, require_each_draw_once, run, start

pytest.importorskip("lightning")
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.tuner.tuning import Tuner

from augloader.integrations import lightning as lightning_module
from augloader.integrations.lightning import CoresetCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own
N = 40
Draws = list[tuple[int, int, int, float, float]]  # epoch, index, copy, weight, strength


class Network(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.draws: Draws = []
        self.logged: list[dict[str, float]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(inputs)
        return logits

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        rows = zip(batch.keys.tolist(), batch.weight.tolist(), batch.strength.tolist(), strict=True)
        self.draws += [(e, i, c, w, s) for (e, i, c), w, s in rows]
        logits = self(batch.input)
        losses = F.cross_entropy(logits, batch.target, reduction="none")
        return {"loss": (losses * batch.weight).mean(), "losses": losses, "logits": logits}

    def validation_step(self, batch: Sample, batch_idx: int) -> None:
        self(batch.input)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def on_train_epoch_end(self) -> None:
        metrics = self.trainer.callback_metrics.items()
        self.logged.append({name: float(value) for name, value in metrics})


def dataset() -> WeightedAugmentedDataset:
    inputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
    return WeightedAugmentedDataset(TensorDataset(inputs, torch.arange(N) % 3))


def fit(
    epochs: int,
    folder: Path,
    sampler: CoresetSampler,
    *more: Callback,
    loader: type[DataLoader[Any]] = DataLoader,
    resume: Path | None = None,
    validate: bool = False,
    **options: Any,
) -> Network:
    data, network = dataset(), Network()
    callback = CoresetCallback(sampler, **{"data": data, **options})
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, callbacks=[callback, *more],
        logger=False, enable_checkpointing=bool(more), enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    plain = DataLoader(data, batch_size=8) if validate else None
    trained = loader(data, batch_size=8, sampler=sampler)
    trainer.fit(network, trained, plain, ckpt_path=resume)
    assert trainer.reload_dataloaders_every_n_epochs == 0  # type: ignore[attr-defined]
    return network


def learning() -> CoresetSampler:
    return CoresetSampler(
        dataset(), FacilityLocation(), fraction=0.3, refresh=Every(2), strength=LossRank(), seed=0
    )


def changing() -> CoresetSampler:
    """Return a sampler whose epochs have 5, 7, 7 and 5 batches."""
    return CoresetSampler(
        dataset(),
        FacilityLocation(),
        fraction=0.3,
        refresh=Every(1, warmup=1),
        strength=LossRank(),
        epochs=4,
        strength_schedule=SwitchOff(last=1),
        keep_unaugmented_copies=False,
    )


def of_epoch(draws: Draws, epoch: int) -> Counter[tuple[int, int]]:
    return Counter((i, copy) for e, i, copy, *_ in draws if e == epoch)


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_train_on_each_draw_once(tmp_path: Path) -> None:
    options = "--epochs", "3", "--images", "301", "--devices", "2"
    printed = run("lightning_module", "DistributedCoresetSampler", tmp_path, [], *options)
    require_each_draw_once(tmp_path, ranks=2, epochs=3, images=301)
    assert accuracy(printed, "2 devices") > 0.2


# On two ranks with an odd number of draws a rank, and refreshes from the reports of both.
RESUMED = """
import sys, warnings
from pathlib import Path
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from augloader import DistributedCoresetSampler, Every, FacilityLocation, LossRank
from augloader.integrations.lightning import CoresetCallback
from tests.integrations.test_lightning import Network, dataset

warnings.simplefilter("ignore")
FOLDER = Path(sys.argv[1])


class Data(LightningDataModule):
    def setup(self, stage):
        self.sampler = DistributedCoresetSampler(
            dataset(), FacilityLocation(), fraction=0.28, refresh=Every(2), strength=LossRank()
        )

    def train_dataloader(self):
        return DataLoader(dataset(), batch_size=4, sampler=self.sampler)


def fit(name, resume=None):
    data, network = Data(), Network()
    saving = ModelCheckpoint(
        FOLDER / name, filename="{step}", save_top_k=-1, every_n_train_steps=1
    )
    callback = CoresetCallback(lambda: data.sampler, dataset(), reports=True)
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback, saving],
    )
    trainer.fit(network, datamodule=data, ckpt_path=resume)
    return network, trainer.global_rank


if __name__ == "__main__":
    whole, rank = fit("whole")
    assert len(whole.draws) == 4 * 26
    for step in (10, 14):
        rest, rank = fit("rest", FOLDER / "whole" / f"step={step}.ckpt")
        epochs, batches = divmod(step, 7)
        assert rest.draws == whole.draws[26 * epochs + 4 * batches :], (step, rank)
        assert torch.equal(rest.layer.weight, whole.layer.weight), (step, rank)
    (FOLDER / f"done-{rank}").touch()
    torch.distributed.destroy_process_group()  # Lightning leaves it to the end of the process
"""


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(RESUMED)
    start([str(program), str(tmp_path)], tmp_path)
    assert {path.name for path in tmp_path.glob("done-*")} == {"done-0", "done-1"}


@pytest.mark.parametrize("validate", [False, True])
def test_epochs_of_changing_length_are_trained_on_whole(tmp_path: Path, validate: bool) -> None:
    sampler = CoresetSampler(
        dataset(),
        Uniform(),
        fraction=lambda epoch, _: 0.2 + 0.1 * epoch,
        refresh=Every(2, warmup=1),
        epochs=6,
        strength_schedule=SwitchOff(last=1),
        keep_unaugmented_copies=False,
    )
    network = fit(6, tmp_path, sampler, validate=validate)
    for epoch, copies in enumerate([0, 12, 12, 20, 20, 0]):
        found = of_epoch(network.draws, epoch)
        assert set(found.values()) == {1}
        assert sum(copy for _, copy in found) == copies
        assert len(found) == N + copies


def test_what_an_epoch_consists_of_is_logged(tmp_path: Path) -> None:
    logged = fit(3, tmp_path, learning()).logged
    assert [epoch["coreset/selected"] for epoch in logged] == [12, 12, 12]
    assert [epoch["coreset/draws"] for epoch in logged] == [52, 52, 52]
    assert all(0 < epoch["coreset/coverage"] <= 1 for epoch in logged)
    assert all(0 <= epoch["coreset/strength"] <= 1 for epoch in logged)
    assert logged[0]["coreset/seconds"] > 0


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("planned", [2, 4])
def test_training_goes_on_from_a_checkpoint(tmp_path: Path, planned: int, validate: bool) -> None:
    def saving(name: str) -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / name, filename="{epoch}", save_top_k=-1)

    whole = fit(4, tmp_path, learning(), saving("whole"), validate=validate)
    fit(planned, tmp_path, learning(), saving("first"), validate=validate)
    sampler = learning()
    checkpoint = tmp_path / "first" / "epoch=1.ckpt"
    rest = fit(4, tmp_path, sampler, saving("rest"), validate=validate, resume=checkpoint)
    assert rest.draws == [draw for draw in whole.draws if draw[0] >= 2]
    assert torch.equal(rest.layer.weight, whole.layer.weight)


def test_nothing_is_begun_from_a_checkpoint_of_the_last_epoch(tmp_path: Path) -> None:
    """Also where the sampler plans no other epoch."""
    saving = ModelCheckpoint(tmp_path / "whole", filename="{epoch}", save_top_k=-1)
    whole = fit(4, tmp_path, changing(), saving)
    rest = fit(4, tmp_path, changing(), resume=tmp_path / "whole" / "epoch=3.ckpt")
    assert not rest.draws
    assert torch.equal(rest.layer.weight, whole.layer.weight)


def test_an_epoch_of_a_pruned_base_goes_on(tmp_path: Path) -> None:
    def sampler() -> CoresetSampler:
        given: dict[str, Any] = {"fraction": 0.5, "copies": 0, "epochs": 3}
        return CoresetSampler(dataset(), Uniform(), base=InfoBatch(0.5, 0), **given)

    saving = ModelCheckpoint(
        tmp_path / "whole", filename="{step}", save_top_k=-1, every_n_train_steps=1
    )
    whole = fit(3, tmp_path, sampler(), saving)
    assert len(of_epoch(whole.draws, 1)) < N
    for step, done in ((3, 24), (7, N + 16)):
        rest = fit(3, tmp_path, sampler(), resume=tmp_path / "whole" / f"step={step}.ckpt")
        assert rest.draws == whole.draws[done:]
        assert torch.equal(rest.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("step", [7, 10, 13, 14])  # 7 batches an epoch
@pytest.mark.parametrize("stateful", [False, True])
def test_training_goes_on_within_an_epoch(tmp_path: Path, stateful: bool, step: int) -> None:
    loader = DataLoader
    if stateful:
        loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    whole = fit(3, tmp_path, learning(), loader=loader)
    saving = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    fit(3, tmp_path, learning(), saving, loader=loader)
    rest = fit(3, tmp_path, learning(), loader=loader, resume=tmp_path / f"step={step}.ckpt")
    epochs, batches = divmod(step, 7)
    assert rest.draws == whole.draws[52 * epochs + 8 * batches :]
    assert torch.equal(rest.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("step", [5, 6, 12, 19])
@pytest.mark.parametrize("validate", [False, True])
def test_epochs_of_changing_length_go_on(tmp_path: Path, validate: bool, step: int) -> None:
    saving = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole = fit(4, tmp_path, changing(), saving, validate=validate)
    lengths = [len(of_epoch(whole.draws, epoch)) for epoch in range(4)]
    assert [-(-length // 8) for length in lengths] == [5, 7, 7, 5]
    resume = tmp_path / f"step={step}.ckpt"
    rest = fit(4, tmp_path, changing(), resume=resume, validate=validate)
    begun = [0, 5, 12, 19]  # the steps before each epoch
    epoch = max(e for e in range(4) if begun[e] <= step)
    done = sum(lengths[:epoch]) + 8 * (step - begun[epoch])
    assert rest.draws == whole.draws[done:]
    assert torch.equal(rest.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize(("validate", "late"), [(False, True), (True, False), (True, True)])
def test_a_checkpoint_of_an_end_goes_on_with_another_length(
    tmp_path: Path, validate: bool, late: bool, epoch: int
) -> None:
    saving = ModelCheckpoint(
        tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=late
    )
    whole = fit(4, tmp_path, changing(), saving, validate=validate)
    resume = tmp_path / f"epoch={epoch}.ckpt"
    rest = fit(4, tmp_path, changing(), resume=resume, validate=validate)
    assert rest.draws == [draw for draw in whole.draws if draw[0] > epoch]
    assert torch.equal(rest.layer.weight, whole.layer.weight)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_sweep_runs_in_the_trainers_precision(tmp_path: Path, precision: Any) -> None:
    seen: list[tuple[bool, torch.dtype]] = []

    class Noted(Network):
        def forward(self, inputs: Tensor) -> Tensor:
            logits = super().forward(inputs)
            seen.append((self.training, logits.dtype))
            return logits

    sampler = learning()
    callback, loader = (
        CoresetCallback(sampler, dataset()),
        DataLoader(dataset(), 8, sampler=sampler),
    )
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=1, callbacks=[callback], precision=precision,
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Noted(), loader)
    wanted = torch.float32 if precision == "32-true" else torch.bfloat16
    assert set(seen) == {(False, wanted), (True, wanted)}


def test_reports_make_refreshes_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []
    monkeypatch.setattr("augloader.integrations.lightning.sweep", lambda *_, **__: swept.append(1))
    sampler = CoresetSampler(
        dataset(), FacilityLocation(), fraction=0.3, refresh=Every(2, warmup=1), seed=0
    )
    fit(4, tmp_path, sampler, data=None)
    assert sampler.selection is not None
    assert not swept


def test_reports_after_the_first_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*given: Any, **options: Any) -> Any:
        calls.append(given)
        return sweep(*given, **options)

    monkeypatch.setattr("augloader.integrations.lightning.sweep", counted)
    fit(4, tmp_path, learning(), reports=True, network="layer")
    assert [type(given[0]) for given in calls] == [nn.Linear]


def test_a_function_may_return_the_sampler(tmp_path: Path) -> None:
    sampler, data = learning(), dataset()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[CoresetCallback(lambda: sampler, data)],
    )  # fmt: skip
    trainer.fit(Network(), DataLoader(data, batch_size=8, sampler=sampler))
    assert sampler.selection is not None
    with pytest.raises(TypeError, match="must be a CoresetSampler or return one, got NoneType"):
        _ = CoresetCallback(lambda: None).sampler  # type: ignore[arg-type, return-value]


def test_a_loader_without_the_sampler_is_refused(tmp_path: Path) -> None:
    other = learning()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[CoresetCallback(other, dataset())],
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="must draw from the callback's sampler, got another"):
        trainer.fit(Network(), DataLoader(dataset(), batch_size=8, shuffle=True))


def test_lightning_must_not_shard_the_sampler() -> None:
    trainer: Any = SimpleNamespace(world_size=2)
    callback = CoresetCallback(learning(), dataset())
    with pytest.raises(TypeError, match="must be a DistributedCoresetSampler on 2 ranks, got Core"):
        callback.on_fit_start(trainer, Network())


def test_loaders_made_by_wrap_and_mixed_batches_are_reported(tmp_path: Path) -> None:
    class Wrapped(Network):
        def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
            inputs, target, draw = batch
            given = super().training_step(draw._replace(input=inputs, target=target), batch_idx)
            mixed = draw._replace(mixed=torch.ones(len(target), dtype=torch.bool))
            return {**given, "target": target, **({"batch": mixed} if batch_idx else {})}

    inputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
    plain = DataLoader(TensorDataset(inputs, torch.arange(N) % 3), batch_size=8)
    loader, sampler = wrap(plain, Uniform(), count=4)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[CoresetCallback(sampler, loader.dataset)],
    )  # fmt: skip
    network = Wrapped()
    trainer.fit(network, loader)
    assert len(network.draws) == N + 4
    first = {i for _, i, *_ in network.draws[:8]}  # the other batches were mixed
    assert len(sampler.table.missing("losses")) == N - len(first)


class Steady(Network):
    """Returns the influence along the last step, and saves what that step was."""

    def __init__(self) -> None:
        super().__init__()
        self.influence = HeadInfluence(self.layer)

    def training_step(self, batch: Sample, batch_idx: int) -> dict[str, Tensor]:
        with self.influence:
            found = super().training_step(batch, batch_idx)
        return found | {"influence": self.influence(found["logits"], batch.target)}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["influence"] = self.influence.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.influence.load_state_dict(checkpoint["influence"])


def test_the_influence_of_a_step_is_reported_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    def fit(epochs: int, *more: Callback, resume: Path | None = None) -> Tensor:
        rule = StableInfluence("gradient", window=2)
        sampler = CoresetSampler(dataset(), Uniform(), fraction=0.5, strength=rule, seed=0)
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", devices=1, logger=False,
            enable_checkpointing=bool(more), enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, callbacks=[CoresetCallback(sampler), *more],
        )  # fmt: skip
        trainer.fit(Steady(), DataLoader(dataset(), 8, sampler=sampler), ckpt_path=resume)
        strengths: Tensor = sampler.strengths
        return strengths

    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole = fit(4, saving)
    assert torch.equal(fit(4, resume=tmp_path / "epoch=1.ckpt"), whole)
    # By hand:
    rule = StableInfluence("gradient", window=2)
    sampler = CoresetSampler(dataset(), Uniform(), fraction=0.5, strength=rule, seed=0)
    network = Steady()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(4):
        sampler.begin(epoch)
        for i, batch in enumerate(DataLoader(dataset(), 8, sampler=sampler)):
            found = network.training_step(batch, i)
            optimizer.zero_grad()
            found["loss"].backward()
            optimizer.step()
            sampler.report(
                batch, loss=found["losses"], logits=found["logits"], influence=found["influence"]
            )
    assert torch.equal(sampler.strengths, whole)


def test_a_validated_checkpoint_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    def chosen() -> CoresetSampler:
        return CoresetSampler(dataset(), Uniform(), fraction=0.3, refresh=Every(2), seed=0)

    whole = fit(4, tmp_path, chosen())
    sampler, network = chosen(), Network()
    saving = ModelCheckpoint(tmp_path / "saved", filename="{epoch}", save_top_k=-1)
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        callbacks=[CoresetCallback(sampler, dataset()), saving], enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    loader = DataLoader(dataset(), batch_size=8, sampler=sampler)
    trainer.fit(network, loader)
    first = tmp_path / "saved" / "epoch=0.ckpt"
    trainer.validate(network, DataLoader(dataset(), batch_size=8), ckpt_path=first, verbose=False)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(network, loader)
    assert network.draws == whole.draws


def test_a_state_of_other_ranks_is_refused(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(1, tmp_path, learning(), saving)
    path = tmp_path / "epoch=0.ckpt"
    saved = torch.load(path)
    (state,) = (part for name, part in saved["callbacks"].items() if "Coreset" in name)
    state["tables"] *= 2
    torch.save(saved, path)
    with pytest.raises(ValueError, match="state must be of 1 ranks, got that of 2"):
        fit(2, tmp_path, learning(), resume=path)


def test_the_sample_is_found_in_batches_of_several_loaders() -> None:
    held = Sample(*([torch.zeros(2)] * 7))
    for batch in ([held, torch.zeros(1)], {"a": torch.zeros(1), "coreset": held}, held):
        assert lightning_module._drawn(batch, None) is held
    assert lightning_module._drawn({"a": torch.zeros(1)}, held) is held
    with pytest.raises(TypeError, match="batch must hold a Sample"):
        lightning_module._drawn({"a": torch.zeros(1)}, None)


class LossAlone(Network):
    def training_step(self, batch: Sample, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx)["loss"]


def trainer_of(folder: Path, callback: CoresetCallback) -> Trainer:
    return Trainer(
        max_epochs=2, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[callback],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "rule", "options", "asked"),
    [
        (FacilityLocation(), Constant(), {"data": dataset()}, ""),
        (Uniform(), Constant(), {}, ""),
        (FacilityLocation(), Constant(), {}, "for FacilityLocation.*selects from reports"),
        (FacilityLocation(), Constant(), {"data": dataset(), "reports": True}, "from reports"),
        (Uniform(), LossRank(), {"data": dataset()}, "the rule LossRank"),
    ],
)
def test_the_loss_alone_is_enough_where_nothing_needs_reports(
    tmp_path: Path, strategy: Any, rule: Any, options: dict[str, Any], asked: str
) -> None:
    warmup = 0 if "data" in options else 1
    every = Every(1, warmup=warmup)
    sampler = CoresetSampler(dataset(), strategy, fraction=0.3, strength=rule, refresh=every)
    trainer = trainer_of(tmp_path, CoresetCallback(sampler, **options))
    network, loader = LossAlone(), DataLoader(dataset(), batch_size=8, sampler=sampler)
    if asked:
        with pytest.raises(
            ValueError, match=rf'return "losses" or "logits" .*{asked}.*"logits": l'
        ):
            trainer.fit(network, loader)
    else:
        trainer.fit(network, loader)
        assert len(network.draws) == 2 * N + 12 * (2 - warmup)


def test_a_pruned_base_is_told_the_losses(tmp_path: Path) -> None:
    given: dict[str, Any] = {"fraction": 0.3, "base": InfoBatch(0.5, 0), "epochs": 2}
    for network in (Network(), LossAlone()):
        sampler = CoresetSampler(dataset(), Uniform(), **given)
        trainer = trainer_of(tmp_path, CoresetCallback(sampler, dataset()))
        loader = DataLoader(dataset(), batch_size=8, sampler=sampler)
        if isinstance(network, LossAlone):
            with pytest.raises(ValueError, match=r'"losses" or "logits" for the base InfoBatch\('):
                trainer.fit(network, loader)
        else:
            trainer.fit(network, loader)
            assert sampler.kept is not None
            assert len(sampler.kept) < N


@pytest.mark.parametrize(
    ("tune", "from_module"), [("lr_find", False), ("lr_find", True), ("scale_batch_size", True)]
)
def test_a_tuner_without_callbacks_is_told_of(tmp_path: Path, tune: str, from_module: bool) -> None:
    class Loading(Network):
        lr, batch_size = 0.1, 8

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(dataset(), self.batch_size, sampler=sampler)

    sampler, network = learning(), Loading() if from_module else Network()
    callback = CoresetCallback(sampler, dataset())
    loader = None if from_module else DataLoader(dataset(), batch_size=8, sampler=sampler)
    steps: Any = {"num_training": 12} if tune == "lr_find" else {"max_trials": 1}
    with pytest.raises(RuntimeError, match=r"must have a selection where .*Finder draws from"):
        getattr(Tuner(trainer_of(tmp_path, callback)), tune)(network, loader, **steps)


def test_a_tuner_may_use_a_plain_loader_or_a_selection(tmp_path: Path) -> None:
    class Rated(Network):
        lr = 0.1

    for begun in (False, True):
        sampler, network = learning(), Rated()
        trainer = trainer_of(tmp_path, CoresetCallback(sampler, dataset()))
        loader = DataLoader(dataset(), batch_size=8, sampler=sampler)
        plain = loader if begun else DataLoader(dataset(), batch_size=8, shuffle=True)
        if begun:
            sampler.begin(0, lambda network=network: sweep(network, dataset(), Residual()))  # type: ignore[misc]
        found = Tuner(trainer).lr_find(network, plain, num_training=5)
        assert found is not None
        network.draws.clear()
        trainer.fit(network, loader)
        assert set(of_epoch(network.draws, 0).values()) == {1}
        assert len(network.draws) == 2 * 52
