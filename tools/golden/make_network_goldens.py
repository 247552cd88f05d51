"""Make `tests/models/golden/networks.npz`: what the original networks give for small random weights and pictures.

The originals are `RRDBNet` of basicsr 1.4.2 and `SRVGGNetCompact` of realesrgan 0.3.0. Run it where both are
installed, their own requirements need not be:

    pip install torch numpy "setuptools<81" cython
    pip install --no-build-isolation --no-deps basicsr==1.4.2 realesrgan==0.3.0
    python tools/golden/make_network_goldens.py tests/models/golden/networks.npz

With a second argument, a folder that holds the official `realesr-animevideov3.pth`, that network's result for one
picture is stored too.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

Arrays = dict[str, np.ndarray[Any, Any]]

ANIME = "realesr-animevideov3"

CASES: dict[str, tuple[str, dict[str, int], tuple[int, ...]]] = {
    "srvgg_x4": ("srvgg", {"num_feat": 8, "num_conv": 3, "upscale": 4}, (2, 3, 5, 7)),
    "srvgg_x2": ("srvgg", {"num_feat": 12, "num_conv": 2, "upscale": 2}, (1, 3, 1, 5)),
    "rrdb_x4": ("rrdb", {"num_feat": 6, "num_block": 2, "num_grow_ch": 3, "scale": 4}, (2, 3, 5, 6)),
    "rrdb_x2": ("rrdb", {"num_feat": 4, "num_block": 1, "num_grow_ch": 2, "scale": 2}, (1, 3, 6, 10)),
    "rrdb_x1": ("rrdb", {"num_feat": 4, "num_block": 1, "num_grow_ch": 2, "scale": 1}, (1, 3, 8, 12)),
}
"""Case: architecture, arguments of the original class, shape of the picture."""


def reference_classes() -> dict[str, Any]:
    """The installed packages' own classes by architecture.

    `import basicsr` runs its whole training framework, which needs OpenCV, lmdb and a torchvision that still has
    `transforms.functional_tensor`. The packages are therefore entered in `sys.modules` as bare folders and only the
    modules with the networks are run, beside stand-ins for names that those import but do not use.

    Raises:
        ImportError: one of the packages is not installed.
    """
    before = set(sys.modules)
    try:
        for package in ("basicsr", "realesrgan"):
            found = importlib.util.find_spec(package)
            if found is None or not found.submodule_search_locations:
                raise ImportError(f"{package} is not installed")
            folder = Path(found.submodule_search_locations[0])
            for part in ("", ".archs", ".utils"):
                bare = types.ModuleType(package + part)
                bare.__path__ = [str(folder / part.strip("."))]
                sys.modules[package + part] = bare
        _stand_in("basicsr.utils", get_root_logger=None)
        _stand_in("basicsr.ops")
        _stand_in("basicsr.ops.dcn", ModulatedDeformConvPack=object, modulated_deform_conv=None)
        if importlib.util.find_spec("torchvision") is None:
            _stand_in("torchvision", __version__="0.9.0")
        return {
            "rrdb": importlib.import_module("basicsr.archs.rrdbnet_arch").RRDBNet,
            "srvgg": importlib.import_module("realesrgan.archs.srvgg_arch").SRVGGNetCompact,
        }
    finally:
        # Whoever imports the packages in earnest afterwards must not meet the stand-ins.
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"basicsr", "realesrgan", "torchvision"}:
                del sys.modules[name]


def _stand_in(name: str, **attributes: object) -> None:
    module = sys.modules.setdefault(name, types.ModuleType(name))
    for key, value in attributes.items():
        setattr(module, key, value)


def reference(case: str) -> tuple[Any, torch.Tensor]:
    """The original network of a case, with seeded random weights, and its picture."""
    architecture, arguments, shape = CASES[case]
    torch.manual_seed(sorted(CASES).index(case))
    network = reference_classes()[architecture](num_in_ch=3, num_out_ch=3, **arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # As large as trained weights are: with the initial ones the residual branches would vanish.
            spread = 0.7 * (parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.4)
            # To half precision, so that the file compresses.
            parameter.copy_(parameter.normal_(0, spread).half())
    return network, torch.rand(shape)


def main(target: Path, weights: Path | None) -> None:
    """Write the file."""
    arrays: Arrays = {}
    with torch.no_grad():
        for case in CASES:
            network, picture = reference(case)
            arrays[f"{case}/x"] = picture.numpy()
            arrays[f"{case}/y"] = network(picture).numpy()
            for key, value in network.state_dict().items():
                arrays[f"{case}/state/{key}"] = value.numpy()
        if weights is not None:
            network = reference_classes()["srvgg"](num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=16, upscale=4)
            official = torch.load(weights / f"{ANIME}.pth", map_location="cpu", weights_only=True)
            network.load_state_dict(official["params"])
            picture = torch.rand(1, 3, 10, 12)
            arrays[f"{ANIME}/x"] = picture.numpy()
            arrays[f"{ANIME}/y"] = network.eval()(picture).numpy()
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **arrays)  # type: ignore[arg-type]  # the stub takes the names for its own flags
    print(f"{target}: {target.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
