"""The kernel: a tile of logits in the tensor cores' accumulators, reduced to partial states before the next replaces
it.

A program takes tiles of ROWS positions by IDS vocabulary entries of one model, one after the other. It multiplies into
float32 sums in registers and reduces each row to a partial state (``probe_stats.state``) where they are: no logit is
written anywhere. Programs that run at the same time have the same entries, so each piece of the head is read
from memory once.

For the top list, the entries of a row are in groups of GROUP consecutive ones. The list's tokens are the largest of
their groups, but for groups with several of them. Kept of a group are its largest logit, whose lowest bits give way to
its place in the group, the sum of e^x, and that sum without the largest: a second token near the list would be seen in
it, and the mass outside the list is a sum and not a difference (``triton_lists``).

Logits are finite here. NaN or an infinity makes a sum NaN, and the row goes by its logits (``triton_blocks``).

Cost of an entry on sm_90, counted in the machine code: 20 instructions without temperatures, 30 with the default ones,
of which 128 are issued per clock of an SM, beside H products, of which 2,048 are made.

Legend: z logit, m nearly the row's maximum within the tile, x = z - m; R = ROWS, I = IDS, P = PART, G = GROUP.
"""

import triton
import triton.language as tl

from ..probe_stats.triton_math import AHEAD, INF, LOG2E, MAX, SUM, WEIGHTED

ROWS = tl.constexpr(128)
GROUP = tl.constexpr(32)  # a power of two
BEYOND = tl.constexpr(-1e30)  # the logit of entries beyond the vocabulary: finite, so that 0 times it is 0


@triton.jit(do_not_specialize=["n_rows"])
def tile_states(
    hidden_ptr, weight_ptr, token_ptr, token_z_ptr, state_ptr, largest_ptr, sum_ptr, rest_ptr, n_rows, vocab, size,
    stride_hidden, stride_weight, slots,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
    IDS: tl.constexpr, PART: tl.constexpr, DEPTH: tl.constexpr, EX2: tl.constexpr,
):  # fmt: skip
    """The state of every tile, state_ptr float32 [tiles, slots, N] without REST and POSSIBLE, and its groups.

    AHEAD leaves out the group of the trace's token. hidden_ptr: [N, H]. weight_ptr: [V, H]. token_ptr: int64 [N].
    token_z_ptr: float32 [N]. largest_ptr, sum_ptr, rest_ptr: float32 [N, tiles * I / G]. PART: I, I / 2 or I / 4, so
    many columns are reduced at a time. H is a multiple of DEPTH. RATES, ROOTS, ROOT_OF, POWERS: as in ``first_sweep``.
    EX2: the hardware's own exponential, by PTX.
    """
    n = n_rows.to(tl.int64)
    row_tiles = tl.cdiv(n_rows, ROWS)
    tiles = tl.cdiv(vocab, IDS)
    for index in range(tl.program_id(0), row_tiles * tiles, tl.num_programs(0)):
        tile = index // row_tiles
        first_row, first_id = (index % row_tiles) * ROWS, tile * IDS
        z = _logits(
            hidden_ptr, weight_ptr, first_row, first_id, n_rows, vocab, size, stride_hidden, stride_weight, IDS,
            DEPTH,
        )  # fmt: skip
        row = first_row + tl.arange(0, ROWS)
        live = row < n_rows
        first_group = row.to(tl.int64) * (tiles * (IDS // GROUP)) + tile * (IDS // GROUP)
        group = first_group[:, None] + tl.arange(0, PART // GROUP)[None, :]
        # One part after the other: registers hold the values of one beside the logits of the others.
        parts = (z,)
        if IDS > PART:
            parts = _halves(z, IDS)
        if IDS > 2 * PART:
            parts = _halves(parts[0], IDS // 2) + _halves(parts[1], IDS // 2)  # type: ignore[misc]
        m = tl.full([ROWS], -INF, tl.float32)
        winners = ()
        for i in tl.static_range(IDS // PART):
            largest = _largest_of_groups(parts[i], PART)
            tl.store(largest_ptr + group + i * (PART // GROUP), largest, mask=live[:, None])
            m = tl.maximum(m, tl.max(largest, axis=1))
            winners = winners + (largest,)  # type: ignore[assignment]  # noqa: RUF005

        token = tl.load(token_ptr + row, mask=live, other=-1).to(tl.int32)
        token_z = tl.load(token_z_ptr + row, mask=live, other=0.0)
        ahead = tl.zeros([ROWS], tl.float32)
        weighted = tl.zeros([ROWS], tl.float32)
        sums = ()
        for _ in tl.static_range(len(RATES)):
            sums = sums + (tl.zeros([ROWS], tl.float32),)  # type: ignore[assignment]  # noqa: RUF005
        for i in tl.static_range(IDS // PART):
            of_part = group + i * (PART // GROUP)
            ahead += _ahead(parts[i], token, token_z, first_id + i * PART, PART)
            new = _part_sums(
                parts[i], m, winners[i], sum_ptr + of_part, rest_ptr + of_part, live, RATES, ROOTS, ROOT_OF, POWERS,
                PART, EX2,
            )  # fmt: skip
            weighted += new[0]
            total = ()
            for j in tl.static_range(len(RATES)):
                total = total + (sums[j] + new[1 + j],)  # type: ignore[assignment]  # noqa: RUF005
            sums = total
        out_ptr = state_ptr + tile.to(tl.int64) * slots * n + row
        tl.store(out_ptr + MAX * n, m, mask=live)
        tl.store(out_ptr + WEIGHTED * n, weighted, mask=live)
        tl.store(out_ptr + AHEAD * n, ahead, mask=live)
        for j in tl.static_range(len(RATES)):
            tl.store(out_ptr + (SUM + j) * n, sums[j], mask=live)


@triton.jit
def _halves(z, IDS: tl.constexpr):
    """The left and the right half of [R, I]: registers change their names alone."""
    return tl.split(tl.permute(tl.reshape(z, [ROWS, 2, IDS // 2]), [0, 2, 1]))


@triton.jit
def _logits(
    hidden_ptr, weight_ptr, first_row, first_id, n_rows, vocab, size, stride_hidden, stride_weight,
    IDS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Logits [R, I] of a tile."""
    h = tl.arange(0, DEPTH)
    row = first_row + tl.arange(0, ROWS)
    ids = first_id + tl.arange(0, IDS)
    hidden_ptr += tl.where(row < n_rows, row, 0).to(tl.int64)[:, None] * stride_hidden + h[None, :]
    weight_ptr += tl.where(ids < vocab, ids, 0).to(tl.int64)[None, :] * stride_weight + h[:, None]
    z = tl.zeros([ROWS, IDS], tl.float32)
    for _ in range(0, size, DEPTH):
        z = tl.dot(tl.load(hidden_ptr), tl.load(weight_ptr), z)
        hidden_ptr += DEPTH
        weight_ptr += DEPTH
    if first_id + IDS > vocab:
        z = tl.where((ids < vocab)[None, :], z, BEYOND)
    return z


@triton.jit
def _grouped(z, PART: tl.constexpr):
    """[R, P] as [R, P / G, G], without a value that moves; shaped back, they would go through shared memory."""
    return tl.reshape(z, [ROWS, PART // GROUP, GROUP])


@triton.jit
def _largest_of_groups(z, PART: tl.constexpr):
    """The largest logit of each group with its place in the lowest bits, [R, P / G]."""
    bits = _grouped(z, PART).to(tl.int32, bitcast=True) & -GROUP
    # No two keys of a group are alike.
    return tl.max((bits | tl.arange(0, GROUP)[None, None, :]).to(tl.float32, bitcast=True), axis=2)


@triton.jit
def _part_sums(
    z, m, largest, sum_ptr, rest_ptr, live,
    RATES: tl.constexpr, ROOTS: tl.constexpr, ROOT_OF: tl.constexpr, POWERS: tl.constexpr,
    PART: tl.constexpr, EX2: tl.constexpr,
):  # fmt: skip
    """WEIGHTED and the sums of all rates, each [R], of logits [R, P]; writes the sums of the groups."""
    # Not in one step with the factor: far from zero, a product would lose what the difference keeps.
    x = _grouped(z, PART) - m[:, None, None]
    u = _exp2(x * (ROOTS[0] * LOG2E), EX2)
    e = _power(u, POWERS[0])
    group_sum = tl.sum(e, axis=2)
    tl.store(sum_ptr, group_sum, mask=live[:, None])
    # Multiplied, not selected: e is at most 1, or NaN, which the sum shall show; and a select is another instruction.
    winner = (largest.to(tl.int32, bitcast=True) & (GROUP - 1)).to(tl.float32)
    others = (tl.arange(0, GROUP).to(tl.float32)[None, None, :] != winner[:, :, None]).to(tl.float32)
    tl.store(rest_ptr, tl.sum(others * e, axis=2), mask=live[:, None])
    sums = (_row_sum(e * x), tl.sum(group_sum, axis=1))
    for j in tl.static_range(1, len(RATES)):
        v = _power(_exp2(x * (ROOTS[ROOT_OF[j]] * LOG2E), EX2), POWERS[j])
        sums = sums + (_row_sum(v),)  # type: ignore[assignment]  # noqa: RUF005
    return sums


@triton.jit
def _ahead(z, token, token_z, first_id, PART: tl.constexpr):
    """The tokens of [R, P] that rank before the trace's, [R], without those of its own group.

    Groups of smaller ids count the tokens that are as likely too: those above the float before. The own group is
    counted by ``triton_lists``, which knows its logits one by one.
    """
    bits = token_z.to(tl.int32, bitcast=True)
    bits = tl.where(token_z > 0, bits - 1, tl.where(token_z < 0, bits + 1, -0x7FFFFFFF))
    first = first_id + tl.arange(0, PART // GROUP)[None, :] * GROUP
    before, after = first + GROUP <= token[:, None], first > token[:, None]
    bar = tl.where(before, bits.to(tl.float32, bitcast=True)[:, None], tl.where(after, token_z[:, None], INF))
    return _row_sum((_grouped(z, PART) > bar[:, :, None]).to(tl.float32))


@triton.jit
def _row_sum(x):
    """[R] of [R, P / G, G]."""
    return tl.sum(tl.sum(x, axis=2), axis=1)


@triton.jit
def _power(u, n: tl.constexpr):
    """u^n, n < 256, by squares."""
    result = u
    square = u
    for bit in tl.static_range(8):
        if (n >> bit) & 1:
            if n & ((1 << bit) - 1):
                result *= square
            else:
                result = square
        if n >> (bit + 1):
            square *= square
    return result


@triton.jit
def _exp2(x, EX2: tl.constexpr):
    """2^x. Triton's own keeps numbers below 1e-38 apart from 0, for three more instructions."""
    if EX2:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, is_pure=True, pack=1)
    else:
        return tl.exp2(x)
