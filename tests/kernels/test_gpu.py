"""On a GPU: true shapes, the table's tiles, the ladder's path. The other files here run their checks on it, too."""

from __future__ import annotations

import pytest
import torch
from bench_gpu_work import LIMIT, TOP_K, Shape, batches, make_weights, reference
from kernel_cases import MOE_ENCODINGS
from kernel_tolerances import BF16, F16, F32
from moe_reference import relative

from gptoss_convert.kernels.device import devices

pytestmark = pytest.mark.gpu

# Eight experts are enough to go wrong; rows and columns are gpt-oss's.
SHAPE = Shape("true", 8, 2880, 2880)
TOLERANCES = {"float32": F32, "bfloat16": BF16, "float16": F16}


@pytest.mark.parametrize("tokens", [1, 4, 5, 16, 512])
@pytest.mark.parametrize("encoding", [*MOE_ENCODINGS, "GGML_MXFP4 in planes", "Q8_0 in planes"])
def test_true_widths_are_right_by_the_ladder(encoding: str, tokens: int) -> None:
    from gptoss_convert.kernels.by_ladder import moe_by_ladder

    weights = make_weights(encoding, SHAPE, "cuda")
    (batch,) = batches(SHAPE, tokens, 1, "cuda")
    found, path = moe_by_ladder(batch.x, batch.logits, weights, devices()[0], top_k=TOP_K, limit=LIMIT)
    assert relative(found.cpu().numpy(), reference(batch, weights).cpu().numpy()) <= TOLERANCES[path.dot]


def test_bit_identical_in_a_cuda_graph() -> None:
    from gptoss_convert.kernels.moe import moe

    weights = make_weights("MXFP4", SHAPE, "cuda")
    (batch,) = batches(SHAPE, 16, 1, "cuda")

    def run() -> torch.Tensor:
        found = moe(batch.x, batch.logits, weights, top_k=TOP_K, limit=LIMIT)
        assert isinstance(found, torch.Tensor)
        return found

    expected = run().clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(found, expected)
