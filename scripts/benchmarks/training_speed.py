"""Training speed against the plain way: ImageFolder, transforms, a DataLoader with two workers, fp32, eager.

    python scripts/benchmarks/training_speed.py
    python scripts/benchmarks/training_speed.py --models vpt --batch 4 --records 4000

VPT and ResNet-18 on this machine's best device. Both ways train the same random network on the same records for as
many steps, in processes of their own that take turns; the first epoch is left out. Ratios are medians
over --repeats rounds; run it on a quiet machine.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BACKBONES = {"vpt": "deit_small_patch16_224", "cnn": "resnet18"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS = ("plain", "ours")


def classifier(model: str, options: argparse.Namespace) -> Any:
    """The unfitted classifier of a model, with random weights."""
    from spectro.classifiers import CnnClassifier, Loss, Training, VptClassifier

    kind = {"vpt": VptClassifier, "cnn": CnnClassifier}[model]
    training = Training(
        optimizer="adam",
        lr=1e-4,
        batch_size=options.batch,
        epochs=options.epochs,
        patience=None,
        precision=options.precision,
        compile=options.compile,
    )
    return kind(
        backbone=BACKBONES[model],
        pretrained=False,
        image_fit="squash",
        training=training,
        loss=Loss("cross_entropy", class_weights="none"),
        device=options.device,
        **({"variant": "deep"} if model == "vpt" else {}),
    )


def files(root: Path, n: int) -> list[tuple[Path, str]]:
    """The images and labels that both ways train on."""
    images = [(path, path.parent.name) for path in sorted((root / "train").rglob("*.png"))]
    return [images[i % len(images)] for i in range(n)]


def plain(model: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """As a user would write it who has read torchvision's tutorial."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    from spectro.classifiers.networks.device import choose

    device = choose(options.device, "fp32").device
    size = transforms.Resize((224, 224))
    data = datasets.ImageFolder(
        root / "train", transforms.Compose([size, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    )
    number = {Path(path): i for i, (path, _) in enumerate(data.samples)}
    chosen = Subset(data, [number[path] for path, _ in files(root, options.records)])
    loader = DataLoader(chosen, options.batch, shuffle=True, num_workers=2, pin_memory=device.type == "cuda")
    torch.manual_seed(0)
    network, _ = classifier(model, options)._build(len(data.classes), empty=True)
    if model == "vpt":
        network.forward = functools.partial(prompts_the_plain_way, network)
    network.to(device).train()
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-4)
    loss = torch.nn.CrossEntropyLoss()
    seconds = []
    for _ in range(options.epochs):
        start = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            loss(network(images.to(device)), labels.to(device)).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return {"epochs": seconds, "device": str(device)}


def prompts_the_plain_way(network: Any, images: Any) -> Any:
    """Deep prompts as one would write them: put before the patches of every block, blocks run whole."""
    import torch

    vit = network.backbone
    n, length = vit.num_prefix_tokens, network.prompts.shape[1]
    tokens = vit._pos_embed(vit.patch_embed(images))
    for i, block in enumerate(vit.blocks):
        patches = tokens[:, n if i == 0 else n + length :]
        tokens = block(torch.cat([tokens[:, :n], network.prompts[i].expand(len(images), -1, -1), patches], dim=1))
    return network.head(vit.norm(tokens)[:, 0])


def ours(model: str, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `spectro` does."""
    import numpy as np

    from spectro.data import Images, ImageStore
    from spectro.data.images import file_digest

    start = time.perf_counter()
    estimator = classifier(model, options)
    chosen = files(root, options.records)
    paths = list(dict.fromkeys(path for path, _ in chosen))
    digest_of = {path: file_digest(path) for path in paths}
    store = ImageStore()
    store.add(paths, list(digest_of.values()), estimator.specs)
    decode_s = time.perf_counter() - start
    start = time.perf_counter()
    X = Images(store, [digest_of[path] for path, _ in chosen])
    estimator.fit(X, np.array([label for _, label in chosen], dtype=object))
    fit_s = time.perf_counter() - start
    seconds = [row["seconds"] for row in estimator.history_]
    start_up = fit_s - sum(seconds) + seconds[0] - statistics.median(seconds[1:])
    return {"epochs": seconds, "decode_s": decode_s, "start_up_s": start_up, **estimator.facts_}


def gflop_per_record(model: str, options: argparse.Namespace) -> float:
    """Counted in a step of one record, with attention written out: counters miss fused attention on a processor."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network, _ = classifier(model, options)._build(4, empty=True)
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, 224, 224)).sum().backward()
    return counter.get_total_flops() / 2 / 1e9


def matrix_peak(device: str, precision: str) -> float:
    """GFLOP/s of the fastest of some large matrix products, as torch multiplies them."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for n in (2048, 4096) if device == "cpu" else (4096, 8192):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        for _ in range(4 if device == "cpu" else 50):
            start = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * n**3 / (time.perf_counter() - start) / 1e9)
    return best


def worker(way: str, model: str, root: Path, options: argparse.Namespace) -> None:
    """One way in a process of its own."""
    import resource

    import torch

    run: dict[str, Callable[..., dict[str, Any]]] = {"plain": plain, "ours": ours}
    measured = run[way](model, root, options)
    measured["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    if torch.cuda.is_available():
        measured["device_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
    if way == "ours":
        measured["peak"] = matrix_peak(measured["device"], measured["precision"])
        measured["gflop"] = gflop_per_record(model, options)
    print(json.dumps(measured))


def compare(model: str, root: Path, options: argparse.Namespace, arguments: list[str]) -> None:
    """Both ways in turn, and a line for each."""
    rounds: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            command = [sys.executable, __file__, *arguments, "--worker", way, model, str(root)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rounds[way].append(json.loads(done.stdout.splitlines()[-1]))
    speed = {
        way: [options.records / statistics.median(run["epochs"][1:]) for run in runs] for way, runs in rounds.items()
    }
    ratio = statistics.median(o / p for o, p in zip(speed["ours"], speed["plain"], strict=True))
    last = rounds["ours"][-1]
    share = statistics.median(speed["ours"]) * last["gflop"] / statistics.median(run["peak"] for run in rounds["ours"])
    print(f"{model} ({BACKBONES[model]}), batch {options.batch}, {options.records} records, {last['device']}")
    for way in WAYS:
        memory = max(run.get("device_memory_mb") or run["memory_mb"] for run in rounds[way])
        print(f"  {way:6} {statistics.median(speed[way]):9.1f} records/s   {memory:7.0f} MB at most")
    print(f"  ratio  {ratio:9.2f}")
    print(
        f"  {last['gflop']:.1f} GFLOP a record: {share:.0%} of {last['peak']:.0f} GFLOP/s, the {last['precision']} peak"
    )
    print(f"  start-up {last['start_up_s']:.1f} s, decoding once {last['decode_s']:.1f} s", flush=True)


def main(arguments: list[str]) -> None:
    """Reads the command line and runs what it asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--records", type=int, default=160, help="records in an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="epochs, the first of which is left out")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", help="of our way: auto, bf16 or fp32")
    parser.add_argument("--compile", default="auto", help="of our way: auto, always or never")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=3, metavar=("WAY", "MODEL", "ROOT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        way, model, root = options.worker
        worker(way, model, Path(root), options)
        return
    from spectro.demo.generate import make_demo

    with tempfile.TemporaryDirectory() as folder:
        root = make_demo(Path(folder) / "demo", "field")
        for model in options.models:
            compare(model, root, options, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
