"""Every table and figure of the four papers: what runs it, and what came out of what was run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Found = dict[str, Any]
Said = Callable[[Found], str]

COCO = "Liu & Mirzasoleiman (2022)"
KUCHNIK = "Kuchnik & Smith (2019)"
HE = "He et al. (2019)"
SADA = "Yang et al. (2025)"
DIR = "--data DIR"
CIFAR = "1,000 CIFAR-10 images, ResNet-8"


@dataclass(frozen=True)
class Entry:
    """A table or figure of a paper.

    Attributes:
        paper: which one.
        place: which table or figure, and of what.
        command: what runs it, in the schedule that was run; with ``--schedule paper`` or ``he-*``
            and the paper's data in the paper's.
        size: at which it was run here; "" where it was not.
        shown: a result of ours: table and row of the tables above, or a JSON file and what it says.
        policy: strong augmentation of that row.
        paper_says: the paper's number for the same.
        without: why it was not run, or is not run by anything.
    """

    paper: str
    place: str
    command: str
    size: str = ""
    shown: tuple[str, str | Said] | None = None
    policy: str = "trivial"
    paper_says: str = ""
    without: str = ""


def papers(table: str, more: str = "") -> str:
    return f"`papers.py {table} {DIR}{' ' * bool(more)}{more}`"


def figures(name: str) -> str:
    return f"`figures.py {name} {DIR}`"


def protocol(more: str = "") -> str:
    return f"`strategies.py {DIR} --classes airplane automobile{' ' * bool(more)}{more}`"


def jacobian(found: Found) -> str:
    """Say how singular values and subspaces change, smallest and largest range."""
    noise = found["found"]["mlp"]["noise, at most 16"]
    change, angle = noise["relative change"], noise["left angle"]
    return (
        f"MLP, noise of 16: {100 * change[0]:+.1f} % of the largest and {100 * change[-1]:+.1f} % "
        f"of the smallest singular values, {57.296 * angle[0]:.0f}° for the largest, up to "
        f"{57.296 * max(angle):.0f}° below"
    )


def sharing(found: Found) -> str:
    """Say how much of a coreset has the largest losses, at first and at last."""
    shares = found["found"]["share of the largest losses"]
    return (
        f"a coreset of {found['found']['by chance'][0]:.0%} shares {shares[0]:.0%} of its images "
        f"with the largest losses at first, {shares[-1]:.0%} at last"
    )


def losses(found: Found) -> str:
    """Say what refinement does to both losses of Mixup and AutoAugment."""
    said = []
    for name in ("Mixup", "AutoAugment, Cutout"):
        before, after = (found["found"][f"{c}, {name}"] for c in ("to the end", "refined"))
        said.append(
            f"{name}: augmented {before['augmented loss'][-1]:.2f}, clean "
            f"{before['clean loss'][-1]:.2f}; refined clean {after['clean loss'][-1]:.2f}"
        )
    return "; ".join(said)


def spectra(found: Found) -> str:
    """Say how the largest singular value within class 0 compares with the standard one."""
    values = {k: v["singular values, class 0"][0] for k, v in found["found"].items()}
    plain = values["to the end, standard"]
    return "largest of class 0, beside the standard one: " + ", ".join(
        f"{name} {values[f'to the end, {name}'] / plain:.2f}×, refined "
        f"{values[f'refined, {name}'] / plain:.2f}×"
        for name in ("Mixup", "AutoAugment, Cutout")
    )


def translated(found: Found) -> str:
    """Say what 10 % by influence gain over a random 10 %, in share of the whole gain."""
    runs = found["transformations"]["translate"]
    none, full = (sum(runs[name]) / len(runs[name]) for name in ("none", "full"))
    return f"translations: {100 * none:.2f} → {100 * full:.2f} % when all are augmented"


def speed(found: Found) -> str:
    """Say the speed-up of augmenting 30 %."""
    rows = {(row["kind"], row["fraction"]): row for row in found["rows"]}
    return f"{rows[('c', 0.3)]['speedup']['median']:.2f}× at 30 %"


def selecting(found: Found) -> str:
    """Say how long a selection takes."""
    summary = found["summary"]
    return f"{summary['caltech256_seconds']:.1f} s and {summary['tinyimagenet_seconds']:.1f} s"


SPECTRUM = "papers/cifar10/reduced/figure-spectrum.json"
REFINED = "papers/cifar10/reduced/figure-refined.json"
OVERLAP = "papers/cifar10/reduced/figure-overlap.json"
STRATEGIES = "strategies-cifar10--amd-epyc-2c--cpu.json"
NO_DATA = "no files of it at hand"
GPU = "needs a GPU"
UNKNOWN = "SADA's tables are not public"

ENTRIES = (
    Entry(
        COCO,
        "Figure 1, the Jacobian",
        figures("spectrum"),
        f"50 of {CIFAR} and an MLP, 15 epochs",
        (SPECTRUM, jacobian),
        paper_says="larger noise moves more, the prominent subspaces least",
    ),
    Entry(
        COCO,
        "Table 1, CIFAR-10 / ResNet-20",
        papers("table1"),
        CIFAR,
        ("table1", "coreset, 5 a class"),
        paper_says="37.8, random 33.5",
    ),
    Entry(
        COCO,
        "Table 1, CIFAR-10 / WRN-28-10",
        papers("table1", "--network wrn-28-10"),
        without=GPU,
    ),
    Entry(
        COCO,
        "Tables 1, 2, Caltech-256 / ResNet-18, weak alone too",
        papers("table1-caltech table2", "--dataset caltech256 --network resnet18"),
        without=NO_DATA,
    ),
    Entry(
        COCO,
        "Tables 3, 6, TinyImageNet / ResNet-50",
        papers("table3 table6", "--dataset tinyimagenet --network resnet50 --refresh 15"),
        without=NO_DATA,
    ),
    Entry(
        COCO,
        "Table 4, CIFAR-10 / ResNet-20",
        papers("table4", "--policy highest-loss"),
        CIFAR,
        ("table4", "coreset, 30%"),
        "highest-loss",
        "75.0 % of the gain, random 65.6 %",
    ),
    Entry(
        COCO,
        "Table 4, long tail / ResNet-32",
        papers("table4-tail"),
        CIFAR,
        ("table4-tail", "coreset, 30%"),
        paper_says="74.8 % of the gain, by the hardest of several versions",
    ),
    Entry(
        COCO,
        "Table 4, SVHN / ResNet-32",
        papers("table4-svhn", "--dataset svhn --network resnet32"),
        without=NO_DATA,
    ),
    Entry(
        COCO,
        "Table 5, half of the labels wrong",
        papers("table5"),
        CIFAR,
        ("table5", "coreset, 30%"),
        paper_says="74.67, random 74.46",
    ),
    Entry(
        COCO,
        "Table 6, its shape",
        papers("table6"),
        CIFAR,
        ("table6", "coreset, 20%"),
        paper_says="40.88 on TinyImageNet, random 38.97",
    ),
    Entry(
        COCO,
        "Table 6, ImageNet / ResNet-50",
        papers("table6-imagenet", "--dataset imagenet --network resnet50 --epochs 90 --refresh 15"),
        without=NO_DATA,
    ),
    Entry(
        COCO,
        "Figure 2, speed-up",
        f"`train.py {DIR}`",
        "5,000 CIFAR-10 images, ResNet-20",
        ("train--amd-epyc-2c--cpu.json", speed),
        paper_says="3.43×, which the count of passes does not allow",
    ),
    Entry(
        COCO,
        "Figure 2, speed-up of a random choice and of max-loss",
        f"`train.py {DIR}`",
        without="which images are chosen does not change a step; a random choice saves the sweep",
    ),
    Entry(
        COCO,
        "Abstract and introduction, 6.3×, 3.3×, 2.2×, 5×",
        f"`train.py {DIR}`",
        without="each is a step's saving at another size of the subset, on a GPU; `augloader.cost` "
        "gives it of one's own seconds",
    ),
    Entry(
        COCO,
        "Appendix D.7, seconds of a selection",
        "`selection.py --shapes`",
        "30 % of random proxies of the shapes of Caltech-256 and TinyImageNet, two threads",
        ("selection-shapes--amd-epyc-2c--cpu.json", selecting),
        paper_says="the appendix is not at hand",
    ),
    Entry(
        COCO,
        "Section 5.1, coresets and losses",
        figures("overlap"),
        CIFAR,
        (OVERLAP, sharing),
        paper_says="grows through training",
    ),
    Entry(
        KUCHNIK,
        "Table 1, Figures 1, 3 to 7, 9, 10, 12, Tables 4, 7, 10, 13, 16, 19, CIFAR-10",
        protocol(),
        "CIFAR-10, ResNet-8, 10 rounds",
        (STRATEGIES, translated),
        paper_says="96.3 → 97.3 %",
    ),
    Entry(
        KUCHNIK,
        "Figures 2, 8, scores before and after",
        protocol(),
        without="drawn by the script; the record is of before scores were kept",
    ),
    Entry(
        KUCHNIK,
        "Table 1, Figures 11, 13, the other tables, MNIST and NORB",
        f"`strategies.py {DIR} --dataset mnist`",
        without=NO_DATA,
    ),
    Entry(
        KUCHNIK,
        "Figures 14 to 16, margins, clusters, k-DPPs",
        protocol("--replot FILE"),
        "the same",
        (STRATEGIES, lambda _: "drawn from the record; a text below"),
    ),
    Entry(
        KUCHNIK,
        "ResNet50v2 features",
        protocol("--architecture lenet"),
        without="networks of torchvision's are not taken here; a saved feature network is, "
        "`--network FILE`",
    ),
    Entry(KUCHNIK, "Figure 17, epoch time", protocol("--deep"), without="an option, not recorded"),
    Entry(
        HE,
        "Figure 1, Table 2, losses",
        figures("refined"),
        CIFAR,
        (REFINED, losses),
        paper_says="refinement lowers the clean loss, of Mixup most",
    ),
    Entry(
        HE,
        "Table 1, CIFAR-10 / PreActResNet-18",
        papers("refinement"),
        CIFAR,
        ("refinement", "refined, Mixup"),
        paper_says="96.26, to the end 95.92",
    ),
    Entry(
        HE,
        "Table 1, CIFAR-100, WRN-28-10 (AutoAugment: he-wrn-cosine)",
        papers("refinement", "--dataset cifar100 --schedule he-wrn"),
        without=f"{NO_DATA}, {GPU}",
    ),
    Entry(HE, "Table 1, Shake-Shake", "–", without="the network is not built here"),
    Entry(HE, "Figure 2, a sketch of the idea", "–", without="nothing is measured in it"),
    Entry(
        HE,
        "Figure 3, spectrum of the features",
        figures("refined"),
        CIFAR,
        (REFINED, spectra),
        paper_says="Mixup's below, AutoAugment's above the standard one, refined closer to it",
    ),
    Entry(
        HE,
        "Figure 4, when Mixup ends",
        papers("switch-off"),
        CIFAR,
        ("switch-off", "off for the last 20%"),
        paper_says="a picture",
    ),
    Entry(
        HE,
        "Table 3, T1 and T2",
        papers("longer"),
        CIFAR,
        ("longer", "and T2 refined, T1 = 1"),
        paper_says="80.09 on CIFAR-100, to the end 79.33",
    ),
    Entry(
        HE,
        "Section 4.1, fading",
        papers("fade"),
        CIFAR,
        ("fade", "Mixup, faded in the last fifth"),
        paper_says="no significant difference",
    ),
    Entry(
        HE,
        "Table 4, TinyImageNet, the usual gamma and p",
        papers("refinement", "--dataset tinyimagenet --schedule he-preact"),
        without=NO_DATA,
    ),
    Entry(
        HE,
        "Table 4, other gamma and p; Table 5, ImageNet",
        "–",
        without=f"not built: {NO_DATA}, and 200 to 300 epochs on 8 GPUs",
    ),
    Entry(HE, "Rademacher and VC bounds", "–", without="out of scope: they bound, not measure"),
    Entry(HE, "Table 6, Pascal VOC", "–", without="out of scope: transfer to detection"),
    Entry(
        SADA,
        "Figure 1, difficulty over epochs",
        "`augloader.plot.evolution`",
        without="a picture for a user's own training",
    ),
    Entry(
        SADA,
        "Figure 3, window and decay",
        papers("sada-window"),
        CIFAR,
        ("sada-window", "beta = 0.9, L = 3"),
        paper_says=UNKNOWN,
    ),
    Entry(
        SADA,
        "Tables, accuracy",
        papers("sada"),
        CIFAR,
        ("sada", "clean, SADA"),
        paper_says=UNKNOWN,
    ),
    Entry(
        SADA,
        "Figure 4, accuracy and cost",
        papers("frontier-6"),
        CIFAR,
        ("frontier-6", "AutoAugment, Cutout, SADA"),
        paper_says=UNKNOWN,
    ),
    Entry(SADA, "Figure 6, fine-grained / ResNet-50", "–", without=NO_DATA),
)
