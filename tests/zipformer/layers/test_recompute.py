import torch
from tiny_corpus import tiny_model_config
from torch import Tensor

from zipformer.layers.schedule import Clock
from zipformer.model import AsrModel


def losses_and_gradients(*, checkpointing: bool, causal: bool) -> tuple[Tensor, dict[str, Tensor], Clock]:
    """Of a model whose every layer draws dropout, skipping and regularisers."""
    config = tiny_model_config(20)
    config.encoder.causal = causal
    torch.manual_seed(1)
    model = AsrModel(config).train()
    model.clock.batch = 10.0
    model.encoder.checkpointing = checkpointing
    torch.manual_seed(2)
    features = torch.randn(3, 150, 80)
    losses = model.losses(features, torch.tensor([150, 120, 60]), [[3, 4, 5], [6, 7], [8]])
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return total.detach(), gradients, model.clock


def test_recomputed_layers_have_the_same_gradients_bit_by_bit() -> None:
    for causal in (False, True):
        plain, plain_gradients, plain_clock = losses_and_gradients(checkpointing=False, causal=causal)
        total, gradients, clock = losses_and_gradients(checkpointing=True, causal=causal)
        assert torch.equal(total, plain)
        assert gradients.keys() == plain_gradients.keys()
        assert all(torch.equal(gradients[name], plain_gradients[name]) for name in gradients)
        assert clock.state_dict() == plain_clock.state_dict()


def test_less_is_kept_for_backward() -> None:
    def kept(checkpointing: bool) -> int:
        model = AsrModel(tiny_model_config(20)).train()
        model.encoder.checkpointing = checkpointing
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.encoder(torch.randn(4, 200, 32, requires_grad=True), torch.full((4,), 200))
        return sum(sizes.values())

    assert kept(True) < 0.3 * kept(False)


def test_a_clock_replays_its_draws_and_goes_on() -> None:
    clock = Clock(seed=4)
    state = clock.random.getstate()
    drawn = [clock.random.random() for _ in range(3)]
    after = clock.random.getstate()
    with clock.replay(state):
        assert [clock.random.random() for _ in range(3)] == drawn
    assert clock.random.getstate() == after
