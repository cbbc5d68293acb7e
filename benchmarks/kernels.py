"""Compare the fused kernels with the dense chains on the CPU, on odd and tiny images.

    compute-sanitizer --tool memcheck python benchmarks/kernels.py
    TRITON_INTERPRET=1 python benchmarks/kernels.py --device cpu --quick

Run it from the repository's root, for it takes the images and chains of the tests. It prints how
many pixels differ and by how many levels at most, last a line of JSON, and fails where "nearest"
differs at all; in Triton's interpreter, which may round sums twice, where more than a few do.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

import torch

from augloader.augment.pixels.dense import apply_dense
from augloader.augment.pixels.fused import apply_fused
from tests.augment.pixels.test_dense import chains, differing, maps, photos

SIZES = ((1, 1), (2, 2), (8, 8), (3, 5), (17, 23), (97, 64))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few tiny images")
    options = parser.parse_args(argv)
    rows, sizes = (3, SIZES[:2]) if options.quick else (24, SIZES)
    allowed = 0.0 if options.device == "cuda" else 0.02
    found = {}
    for size in sizes:
        for channels in (1, 3):
            op, magnitude = chains(rows, 2)
            given = photos(rows, channels, size), op, magnitude, maps(rows)
            out = apply_fused(*(x.to(options.device) for x in given))
            last = given[0].contiguous(memory_format=torch.channels_last).to(options.device)
            again = apply_fused(last, *(x.to(options.device) for x in given[1:]))
            name = f"{size[0]} x {size[1]} x {channels}"
            largest, share = differing(out.cpu(), apply_dense(*given))
            found[name] = {"largest": largest, "share": share, "same": torch.equal(out, again)}
            print(name, found[name])
    wrong = [k for k, v in found.items() if v["share"] > allowed or not v["same"]]
    print(json.dumps({"benchmark": "kernels", "device": options.device, "wrong": wrong}))
    if wrong:
        sys.exit(f"The kernels differ from the dense chains for {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
