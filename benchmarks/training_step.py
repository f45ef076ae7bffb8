"""Time of one training step: the joint methods over the U-Net, in one process, all cases in turn.

    python -m benchmarks.training_step --out benchmarks/results/training_step.json
    python -m benchmarks.training_step --compile        # adds the compiled cases (minutes of compiling)

The baseline `unet` is what the bundle us_layers_supervised trains: MONAI's SupervisedTrainer in float32. The GRN+
paper prints 0.0070 s for the U-Net, 0.0329 s for GRN+ and 0.0458 s for GRN. `unet_bf16` is the same step in
bfloat16, so that the gain of the precision and the cost of the method can be told apart. `…_each_pass` are the same
steps without shared passes of S: every loss has passes of its own, as the algorithms are printed. `…_narrow_d` has a
discriminator of width 16 instead of the published 64. A step of GRN-SSL has `--batch` labelled and as many unlabelled
images. Also: the share of this machine's measured matrix-product peak that the networks reach.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._common import finish, interleaved, median_ratio, parser
from grn_monai.engines import AdversarialJointTrainer, JointTrainer, SemiSupervisedJointTrainer
from grn_monai.networks import PatchDiscriminator, ResNetGenerator

METHODS: dict[str, type[JointTrainer]] = {
    "grn_plus": JointTrainer,
    "grn_sel": AdversarialJointTrainer,
    "grn_ssl": SemiSupervisedJointTrainer,
}


def saved_by_sharing(times: dict[str, list[float]]) -> dict[str, float]:
    """Share of a step's time that one pass of S for several losses saves, by method and mode."""
    pairs = {name.removesuffix("_each_pass"): name for name in times if name.endswith("_each_pass")}
    plain = {name: name if name in times else name.removesuffix("_joint") for name in pairs}
    return {name: 1 - median_ratio(times, plain[name], pairs[name]) for name in pairs}


def segmentor() -> nn.Module:
    """S as the bundles build it."""
    return UNet(2, 1, 7, (16, 32, 64, 128, 256), (2, 2, 2, 2))


def adam(*modules: nn.Module) -> torch.optim.Adam:
    """The optimizer of the papers."""
    return torch.optim.Adam([p for m in modules for p in m.parameters()], lr=2e-4, betas=(0.5, 0.999), fused=True)


def loss_function() -> nn.Module:
    """Dice loss as the bundles use it."""
    return DiceLoss(softmax=True, to_onehot_y=True)


def unet_step(batch: dict[str, torch.Tensor], compile_networks: bool = False) -> Callable[[], Any]:
    """One iteration of the baseline."""
    network = segmentor()
    if compile_networks:
        network.compile()
    trainer = SupervisedTrainer(
        "cpu", 1, [batch], network, adam(network), loss_function(), decollate=False, optim_set_to_none=True
    )
    return lambda: trainer._iteration(trainer, batch)


def unet_bf16_step(batch: dict[str, torch.Tensor]) -> Callable[[], Any]:
    """The baseline's iteration in bfloat16 (MONAI's trainer has it on CUDA only)."""
    network, loss = segmentor(), loss_function()
    optimizer = adam(network)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(batch["image"])
        loss(logits.float(), batch["label"]).backward()
        optimizer.step()

    return step


def grn_step(
    batch: dict[str, torch.Tensor],
    base_channels: int,
    amp: bool,
    compile_networks: bool = False,
    layout: torch.memory_format | None = None,
    method: type[JointTrainer] = JointTrainer,
    share: bool = True,
    width: int = 64,
    **options: Any,
) -> Callable[[], Any]:
    """One iteration of GRN+, GRN-SEL or GRN-SSL as its bundle trains it."""
    network, generator = segmentor(), ResNetGenerator(base_channels=base_channels)
    if layout is not None:
        generator.to(memory_format=layout)  # type: ignore[call-overload]
    if compile_networks:
        network.compile()
        generator.compile()
    adversarial = issubclass(method, AdversarialJointTrainer)
    joint = options.get("segmentor_update", "alternate" if adversarial else "joint") == "joint"
    if adversarial:
        discriminator = PatchDiscriminator(channels=width)
        if compile_networks:
            discriminator.compile()
        options |= {"discriminator": discriminator, "discriminator_optimizer": adam(discriminator)}
    trainer = method(
        "cpu",
        1,
        [batch],
        network,
        adam(network),
        loss_function(),
        generator,
        adam(generator, network) if joint else adam(generator),
        amp=amp,
        share_passes=share,
        decollate=False,
        optim_set_to_none=True,
        **options,
    )
    if not share:
        trainer._one_batch = False
    return lambda: trainer._iteration(trainer, batch)


def matrix_peak(dtype: torch.dtype, sizes: tuple[int, ...] = (1024, 2048, 4096), repeats: int = 5) -> float:
    """GFLOP/s of the best square matrix product: a peak, so the fastest size, repeat and library count.

    ``mm`` goes to the BLAS, a 1x1 convolution (the same product) to oneDNN, which the networks use too.
    """
    best = 0.0
    for n in sizes:
        a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
        image = a.t().reshape(1, n, 1, n).contiguous(memory_format=torch.channels_last)
        kernel = b[:, :, None, None].contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            for product in (lambda a=a, b=b: a @ b, lambda x=image, k=kernel: torch.nn.functional.conv2d(x, k)):
                product()
                for _ in range(repeats):
                    start = time.perf_counter()
                    product()
                    best = max(best, 2 * n**3 / (time.perf_counter() - start) / 1e9)
    return best


def forward_share(network: nn.Module, x: torch.Tensor, peak: float, rounds: int) -> dict[str, float]:
    """GFLOP, seconds and share of the peak of a forward pass."""
    network.eval()
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(x)
        times = interleaved({"forward": lambda: network(x)}, rounds)["forward"]
    gflop = counter.get_total_flops() / 1e9
    seconds = statistics.median(times)
    return {"gflop": gflop, "seconds": seconds, "share_of_matrix_peak": gflop / seconds / peak}


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--size", type=int, default=256, help="side of the images (default 256)")
    p.add_argument("--batch", type=int, default=4, help="images in a batch (default 4)")
    p.add_argument("--rounds", type=int, default=15, help="rounds of all cases (default 15)")
    p.add_argument("--compile", action="store_true", help="add compiled cases")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape = (args.batch, 1, args.size, args.size)
    batch = {
        "image": torch.rand(shape) * 2 - 1,
        "label": torch.randint(0, 7, shape),
        "unlabeled": torch.rand(shape) * 2 - 1,
    }

    steps = {"unet": unet_step(batch), "unet_bf16": unet_bf16_step(batch)}
    for base in (20, 12):
        steps[f"grn_plus_{base}_float32_contiguous"] = grn_step(batch, base, False, layout=torch.contiguous_format)
        steps[f"grn_plus_{base}_float32"] = grn_step(batch, base, False)
        steps[f"grn_plus_{base}_bf16"] = grn_step(batch, base, True)
    for name, method in METHODS.items():
        for update in ("joint", "alternate"):
            options: dict[str, Any] = {"method": method, "segmentor_update": update}
            if (name, update) != ("grn_plus", "joint"):  # measured above
                steps[f"{name}_20_bf16_{update}"] = grn_step(batch, 20, True, **options)
            steps[f"{name}_20_bf16_{update}_each_pass"] = grn_step(batch, 20, True, share=False, **options)
        if name != "grn_plus":
            steps[f"{name}_20_float32"] = grn_step(batch, 20, False, method=method)
            steps[f"{name}_20_bf16_narrow_d"] = grn_step(batch, 20, True, method=method, width=16)
    if args.compile:
        steps["unet_compiled"] = unet_step(batch, compile_networks=True)
        for base in (20, 12):
            steps[f"grn_plus_{base}_float32_compiled"] = grn_step(batch, base, False, compile_networks=True)
            steps[f"grn_plus_{base}_bf16_compiled"] = grn_step(batch, base, True, compile_networks=True)
    start = time.perf_counter()
    peak = matrix_peak(torch.float32)
    times = interleaved(steps, args.rounds, warmup=3)
    peak = max(peak, matrix_peak(torch.float32))  # a shared machine is not always equally fast
    x = batch["image"]
    finish(
        {
            "benchmark": "training_step",
            "size": args.size,
            "batch": args.batch,
            "rounds": args.rounds,
            "seconds": {k: statistics.median(v) for k, v in times.items()},
            "ratio_to_unet": {k: median_ratio(times, k, "unet") for k in times},
            "ratio_to_unet_bf16": {k: median_ratio(times, k, "unet_bf16") for k in times},
            "saved_by_sharing": saved_by_sharing(times),
            "printed_ratio": {"grn_plus": 0.0329 / 0.0070, "grn_ssl": 0.0458 / 0.0070},
            "matrix_peak_gflops": {"float32": peak, "bfloat16": matrix_peak(torch.bfloat16)},
            "forward_float32": {
                "segmentor": forward_share(segmentor(), x, peak, args.rounds),
                "segmentor_of_generator_20": forward_share(nn.Sequential(ResNetGenerator(), segmentor()), x, peak, 7),
                "segmentor_of_generator_12": forward_share(
                    nn.Sequential(ResNetGenerator(base_channels=12), segmentor()), x, peak, 7
                ),
            },
            "total_seconds": time.perf_counter() - start,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
