"""The device's own limits: ``python bench/rates.py`` records the rate of a copy and of a 16-bit product."""

from __future__ import annotations

import torch
from common import DEVICE, HALF, REHEARSAL, record
from roofline import measured_rates

SIZE = 64 if REHEARSAL else 8192  # of a square product, large enough for the highest rate


def main() -> None:
    a, b = (torch.randn(SIZE, SIZE, device=DEVICE).to(HALF) for _ in range(2))
    rates = measured_rates(a, b)
    row = {"copy_bytes_per_second": rates.bytes_per_second, "product_flops": rates.flops, "product_size": SIZE}
    print(f"copy {rates.bytes_per_second / 1e12:.3g} TB/s, product {rates.flops / 1e12:.3g} TFLOP/s")
    print(f"written to {record('rates', [row])}")


if __name__ == "__main__":
    main()
