"""The example of agreement: that it finds wrong labels, and which model it asks."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.scripts import EXAMPLES, image_folder, load, run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for a script: it imports its neighbours
    return load("agreement")


def test_agreement_is_the_cosine_with_the_own_class(example: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(k, 5, generator=generator) for k in (20, 3))
    labels = torch.arange(20) % 3
    found = example.agreement(images, texts, labels)
    for image, label, one in zip(images, labels, found, strict=True):
        expected = image @ texts[label] / (image.norm() * texts[label].norm())
        torch.testing.assert_close(one, expected)
    torch.testing.assert_close(example.agreement(images * 7, texts * 0.1, labels), found)
    assert example.agreement(torch.zeros(3, 5), texts, labels[:3]).tolist() == [0.0] * 3
    evidence = example.evidence_of(images, texts, labels)
    assert torch.equal(evidence.scores, found.clamp(min=0))
    assert torch.equal(evidence.features, images)


@pytest.mark.slow
def test_it_runs_and_finds_wrong_labels(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "out.json"
    monkeypatch.setattr(example, "transformed_views", lambda images: [images])  # 24 take a while
    methods = ("weak only", "sparse, agreeing 30 %", "only agreeing 80 %")
    monkeypatch.setattr(example, "METHODS", {name: example.METHODS[name] for name in methods})
    options = ("--images", "600", "--epochs", "8", "--seeds", "1", "--json", str(figures))
    run(example, monkeypatch, *options)
    printed = capsys.readouterr().out
    assert "300 training images, 60 with a wrong label. Of the 60 of least agreement" in printed
    found = int(printed.split("least agreement ")[1].split()[0])
    assert found > 36  # 12 by chance
    recorded = json.loads(figures.read_text())["runs"]
    assert set(recorded) == set(methods)
    assert all(name in printed for name in methods)
    wrong = {name: one["wrong"] for name, (one,) in recorded.items()}
    assert wrong["weak only"] == 0
    assert wrong["sparse, agreeing 30 %"] < 0.1
    assert wrong["only agreeing 80 %"] == pytest.approx((60 - found) / 240)


def test_every_method_trains(example: ModuleType) -> None:
    problem = example.digits(80)
    images, labels = problem.train.tensors
    evidence = example.evidence_of(images.flatten(1), torch.rand(10, 64), labels)
    for name in example.METHODS:
        model = example.train(problem, evidence, name, 2, 0)
        assert model(images).shape == (80, 10)
        assert example.wrong_share(name, evidence, torch.ones(80, dtype=torch.bool), 0) == (
            name != "weak only"
        )


def test_a_fifth_of_the_labels_is_wrong(example: ModuleType) -> None:
    problem = example.digits(400)
    images, labels = problem.train.tensors
    other = example.halved(problem)
    assert torch.equal(problem.train.tensors[0], images[::2])
    assert torch.equal(other.tensors[0], images[1::2])
    wrong = example.mislabel(problem, example.NOISE)
    assert int(wrong.sum()) == 40
    assert torch.equal(problem.train.tensors[1] != labels[::2], wrong)
    assert torch.equal(other.tensors[1], labels[1::2])


# CLIP ---------------------------------------------------------------------------------------------


def embedded(pixels: Tensor) -> Tensor:
    """Stand for an encoder: brightness and its complement."""
    light = pixels.flatten(1).mean(1)
    return torch.stack([light, 1 - light], 1)


class Words:
    """Stand for a tokenizer and a text encoder: the light word and the other."""

    def __call__(self, prompts: list[str]) -> Tensor:
        assert all(prompt.startswith("a photo of a ") for prompt in prompts)
        return torch.tensor([[1.0, 0.0] if "dog" in prompt else [0.0, 1.0] for prompt in prompts])


def as_transformers(wrapped: bool) -> Any:
    """Return what the example uses of transformers; newer releases wrap the embeddings."""

    def out(x: Tensor) -> Any:
        return SimpleNamespace(pooler_output=x) if wrapped else x

    class Model:
        def eval(self) -> "Model":
            return self

        def get_image_features(self, pixel_values: Tensor) -> Any:
            return out(embedded(pixel_values))

        def get_text_features(self, input_ids: Tensor) -> Any:
            return out(input_ids)

    def process(**given: Any) -> dict[str, Tensor]:
        if "text" in given:
            return {"input_ids": Words()(given["text"])}
        assert given["do_rescale"] is False  # they are in [0, 1]
        return {"pixel_values": torch.stack(given["images"])}

    return SimpleNamespace(
        CLIPModel=SimpleNamespace(from_pretrained=lambda name: Model()),
        CLIPProcessor=SimpleNamespace(from_pretrained=lambda name: process),
    )


def as_open_clip() -> Any:
    """Return what the example uses of open_clip."""
    model = SimpleNamespace(
        eval=lambda: None, encode_image=embedded, encode_text=lambda tokens: tokens
    )

    def prepare(picture: Any) -> Tensor:
        assert picture.mode == "RGB"
        return torch.tensor(list(picture.tobytes())).float() / 255

    return SimpleNamespace(
        create_model_and_transforms=lambda name, pretrained: (model, None, prepare),
        get_tokenizer=lambda name: Words(),
    )


@pytest.mark.parametrize("package", ["transformers", "transformers 5", "open_clip"])
def test_clip_is_asked_where_it_is_installed(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    of = {"transformers": as_transformers(False), "transformers 5": as_transformers(True)}
    monkeypatch.setitem(sys.modules, "transformers", of.get(package))
    monkeypatch.setitem(sys.modules, "open_clip", as_open_clip())
    images = torch.rand(70, 1, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    prompts = ["a photo of a cat", "a photo of a dog"]
    image_features, text_features = example.by_clip(images, prompts, "")
    torch.testing.assert_close(image_features, embedded(images))
    assert text_features.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_an_image_folder_with_clip(
    example: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image_folder(tmp_path, train=20, test=4)
    monkeypatch.setitem(sys.modules, "transformers", as_transformers(True))
    options = ("--data", str(tmp_path), "--epochs", "1", "--seeds", "1", "--size", "16", "--clip")
    run(example, monkeypatch, *options)
    assert "20 training images, 4 with a wrong label" in capsys.readouterr().out


def test_without_clip_it_says_what_to_install(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transformers", "open_clip"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match=r"got neither\. Install one: pip install transf"):
        run(example, monkeypatch, "--images", "40", "--clip")
