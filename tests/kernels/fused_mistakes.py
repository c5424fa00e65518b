"""Changes of the fused kernels that make them wrong, and the cases that notice."""

from __future__ import annotations

__all__ = ["MISTAKES"]

_IN_BF16 = {
    "H and Delta are not awaited": (
        "    __syncthreads();  // all rows of H[l] and",
        "    // all rows of H[l] and",
        "ragged",
    ),
    "Delta is written too early": ("    __syncthreads();  // H[l] and", "    // H[l] and", "two runs"),
    "weights are not awaited": (
        "    finish_copies();\n    __syncthreads();\n    const",
        "    __syncthreads();\n    const",
        "one tile",
    ),
    "weights of others are not awaited": (
        "    finish_copies();\n    __syncthreads();\n    const",
        "    finish_copies();\n    const",
        "ragged",
    ),
    "padding of H is not cleared": (
        "w.lane % 4 * 2 + e % 2 >= Own::N)",
        "w.lane % 4 * 2 + e % 2 >= 999)",
        "no value at 0",
    ),
    "samples that are not there": ("!inside && k < Out::N", "false && k < Out::N", "ragged"),
    "half of BP3": ("bias[i][0] + bias[i][2]", "bias[i][0]", "ragged"),
    "BP3 of other columns": ("mine == d ? b", "false ? b", "wide rows"),
    "a layer of a run has the bias of the first": ("Own::B + k * Own::STEP", "Own::B", "two runs"),
    "a layer of a run has the weights of the last": ("Own::W - k * Own::STEP", "Own::W", "two runs"),
    "logits are not awaited": ("        __syncwarp();\n", "", "ragged"),
    "a slice too few": ("s < count; s += WARPS", "s < count - 1; s += WARPS", "ragged"),
}

_BARRIERS = {
    "weights and inputs": ("        __syncthreads();  // weights and inputs are there", "two runs"),
    "H of the layer below": ("            __syncthreads();  // all of H is there", "two runs"),
    "logits": ("        __syncthreads();  // all logits are there", "ragged"),
    "errors of the output": ("        __syncthreads();  // all errors of the output are there", "ragged"),
    "H of all threads": ("    __syncthreads();  // H[l] is there", "two runs"),
    "those who read H": ("    __syncthreads();  // nobody needs H[l] and", "ragged"),
    "Delta": ("    __syncthreads();  // all of Delta[l] is there", "two runs"),
}
_UNAWAITED = {f"no wait for {name}": (line, line[line.index("//") :], case) for name, (line, case) in _BARRIERS.items()}
_IN_FLOAT32 = _UNAWAITED | {
    "copies of inputs are not awaited": ("        finish_copies();\n        __sync", "        __sync", "ragged"),
    "H is on its way": ("    finish_copies();\n    __syncthreads();  // H", "    __syncthreads();  // H", "two runs"),
    "padding of H is not cleared": ("share.is_neuron(e) ? activate", "true ? activate", "no value at 0"),
    "padding of Delta is not cleared": ("share.is_neuron(e) ? backprop", "true ? backprop", "steep at 0"),
    "samples that are not there": ("(inside ? Out::N : 0) + team", "Out::N + team", "ragged"),
    "a layer of a run has the bias of the first": ("Own::B + k * Own::STEP", "Own::B", "two runs"),
    "a layer of a run has the weights of the first": ("Own::W + k * Own::STEP", "Own::W", "two runs"),
    "a layer of a run has the weights of the last": ("Own::W - k * Own::STEP", "Own::W", "two runs"),
    "layers of a run are kept in one place": ("Next::KEPT + k * KEPT_STEP<l + 1>", "Next::KEPT", "two runs"),
    "what comes back is that of the last layer": ("::KEPT - k * KEPT_STEP<l>", "::KEPT", "two runs"),
    "a layer is not kept": ("l + 1 + k < LAST - 1;", "l + 1 + k < LAST - 2;", "two runs"),
    "inputs of another tile": ("fetch_inputs(step, w, first);", "fetch_inputs(step, w, 0);", "ragged"),
    "a row of H elsewhere": ("PACK * turn_of<Own::P>(r / 4)", "0", "two runs"),
    "half of the rows": ("4 * K * (q / 4 * (ROWS / 2) + q % 4)", "4 * K * (q % 4)", "128 samples"),
    "columns of W elsewhere": ("b_at ^ PACK * turn<P>(first)", "b_at", "128 samples"),
    "a part of BP3": ("k < THREADS; k += Next::P", "k < Next::P; k += Next::P", "ragged"),
    "BP3 of some rows": ("int r = 0; r < SHARE; r += FOURS", "int r = 0; r < FOURS; r += FOURS", "128 samples"),
}  # fmt: skip

MISTAKES = {"bf16": _IN_BF16, "float32": _IN_FLOAT32}
"""By the precision of the kernel and what is wrong: a line of its text, what stands there instead, and the case."""
