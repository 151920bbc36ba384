"""What ``soft_label_ce`` refuses, and what it says."""

import pytest
import torch

from ssdfast.kernels import LmHead, soft_label_ce


def _good():
    return {
        "hidden_NH": torch.ones(4, 32),
        "lm_head_VH": torch.ones(300, 32),
        "label_ids_NK": torch.tensor([[5, 7, -1]] * 4),
        "label_probs_NK": torch.tensor([[0.75, 0.25, 0.0]] * 4),
    }


def _ids(value, dtype=torch.int64):
    return _good()["label_ids_NK"].index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(value)).to(dtype)


def _probs(value):
    return _good()["label_probs_NK"].index_put((torch.tensor(2), torch.tensor(1)), torch.tensor(value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_NH": torch.ones(4)}, r"hidden_NH must have shape \[N, H\], got \[4\]"),
        ({"hidden_NH": torch.ones(4, 16)}, "hidden_NH has hidden size 16, lm_head_VH 32"),
        ({"hidden_NH": torch.ones(4, 32).long()}, "hidden_NH must be bf16, fp16, fp32 or fp64, got torch.int64"),
        ({"hidden_NH": torch.ones(32, 4).T}, r"hidden_NH has stride 4 along H: call .contiguous\(\) first"),
        ({"lm_head_VH": torch.ones(300, 32).bfloat16()}, "hidden_NH is torch.float32, lm_head_VH torch.bfloat16"),
        ({"lm_head_VH": torch.ones(0, 32)}, r"lm_head_VH is empty: \[0, 32\]"),
        ({"lm_head_VH": torch.ones(300, 32, device="meta")}, "hidden_NH is on cpu, lm_head_VH on meta"),
        ({"lm_head_VH": LmHead(torch.ones(300, 32), torch.ones(9))}, r"bias of lm_head_VH must be floating \[300\]"),
        ({"label_ids_NK": torch.ones(4).long()}, r"got \[4\]: give hard labels as ids\[:, None\]"),
        ({"label_ids_NK": torch.ones(5, 3).long()}, r"label_ids_NK must have shape \[4, K\], K >= 1, got \[5, 3\]"),
        ({"label_ids_NK": torch.ones(4, 0).long()}, r"label_ids_NK must have shape \[4, K\], K >= 1, got \[4, 0\]"),
        ({"label_ids_NK": torch.ones(4, 3)}, "label_ids_NK must be integer, got torch.float32"),
        ({"label_probs_NK": torch.ones(4, 2)}, r"label_probs_NK has shape \[4, 2\], label_ids_NK \[4, 3\]"),
        ({"label_probs_NK": torch.ones(4, 3).long()}, "label_probs_NK must be floating, got torch.int64"),
        ({"label_probs_NK": torch.ones(4, 3, device="meta")}, "label_probs_NK is on meta, the hidden states on cpu"),
        ({"label_ids_NK": torch.ones(4, 3, device="meta").long()}, "label_ids_NK is on meta, the hidden"),
        ({"label_probs_NK": torch.ones(4, 3).requires_grad_()}, r"label_probs_NK requires a gradient.*.detach\(\)"),
        ({"label_ids_NK": _ids(300)}, r"label_ids_NK\[2, 1\] must be in \[0, 299\], or -1 if empty, got 300"),
        ({"label_ids_NK": _ids(-100)}, r"label_ids_NK\[2, 1\] must be in \[0, 299\], or -1 if empty, got -100"),
        ({"label_ids_NK": _ids(-1)}, r"label_ids_NK\[2, 1\] is empty \(-1\) but has probability 0.25: set it to 0"),
        ({"label_probs_NK": _probs(-0.5)}, r"label_probs_NK\[2, 1\] must be in \[0, inf\), got -0.5"),
        ({"label_probs_NK": _probs(float("nan"))}, r"label_probs_NK\[2, 1\] must be in \[0, inf\), got nan"),
        ({"label_probs_NK": _probs(float("inf"))}, r"label_probs_NK\[2, 1\] must be in \[0, inf\), got inf"),
        ({"weight_N": torch.ones(3)}, r"weight_N must have shape \[4\], got \[3\]"),
        ({"weight_N": torch.ones(4).long()}, "weight_N must be floating, got torch.int64"),
        ({"weight_N": torch.ones(4, device="meta")}, "weight_N is on meta, the hidden states on cpu"),
        ({"weight_N": torch.ones(4).requires_grad_()}, "weight_N requires a gradient"),
        ({"reduction": "average"}, "reduction must be one of none, sum, mean, got 'average'"),
        ({"z_loss": -0.1}, r"z_loss must be in \[0, inf\), got -0.1"),
        ({"z_loss": float("nan")}, r"z_loss must be in \[0, inf\), got nan"),
        ({"backend": "cuda"}, "backend must be one of reference.*, got 'cuda'"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        soft_label_ce(**(_good() | change))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16], ids=str)
def test_takes_any_integer(dtype):
    want = soft_label_ce(**_good())
    assert torch.equal(soft_label_ce(**(_good() | {"label_ids_NK": _ids(7, dtype)})), want)


def test_labels_may_require_a_gradient_where_none_is_computed():
    with torch.no_grad():
        soft_label_ce(**(_good() | {"label_probs_NK": torch.ones(4, 3).requires_grad_(), "label_ids_NK": _ids(9) + 1}))


def test_float64_needs_the_reference():
    args = _good() | {"hidden_NH": torch.ones(4, 32).double(), "lm_head_VH": torch.ones(300, 32).double()}
    assert soft_label_ce(**args).dtype == torch.float64
    with pytest.raises(ValueError, match="use backend='reference'"):
        soft_label_ce(**args, backend="cpu")
