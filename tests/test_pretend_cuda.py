"""The rules of the pretended device, by what breaks them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.pretend_cuda import Gpu, pretend_cuda


def test_values_are_the_cpus(pretended: Gpu) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    there = x.to("cuda")
    assert (there.device, there.is_cuda, there.is_meta) == (torch.device("cuda", 0), True, False)
    assert (there @ there.t()).cpu().equal(x @ x.t())
    there[:, 1].add_(1)  # through a view
    assert there.cpu()[:, 1].equal(x[:, 1] + 1)


def test_training_is_the_cpus(pretended: Gpu) -> None:
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x, y, start = torch.randn(16, 4), torch.randint(3, (16,)), here.state_dict()
    there = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    there.load_state_dict(start)
    there.to("cuda")
    for model, device in ((here, "cpu"), (there, "cuda")):
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x.to(device)), y.to(device)).backward()
            optimizer.step()
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(b.detach().cpu(), a.detach())


MEET: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda here, there: here + there,
    "matmul": lambda here, there: here @ there,
    "cat": lambda here, there: torch.cat([here, there]),
    "where": lambda here, there: torch.where(there > 0, here, there),
    "write": lambda here, there: here.add_(there),
    "index on the GPU into the CPU": lambda here, there: here[there.long()],
}


@pytest.mark.parametrize("name", MEET)
def test_devices_that_meet_raise(pretended: Gpu, name: str) -> None:
    here, there = torch.zeros(2, 2), torch.zeros(2, 2).cuda()
    with pytest.raises(RuntimeError, match="on the same device"):
        MEET[name](here, there)


def test_numbers_and_indices_of_the_cpu_may_meet_it(pretended: Gpu) -> None:
    there = torch.arange(4.0).cuda()
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6]
    assert there[torch.tensor([3, 0])].tolist() == [3, 0]
    with pytest.raises((TypeError, RuntimeError)):
        there.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_a_copy_that_nothing_waited_for_is_garbage(pretended: Gpu) -> None:
    given = torch.arange(4.0)
    found = given.cuda().to("cpu", non_blocking=True)
    assert found.is_pinned()
    assert found.isnan().all()
    torch.cuda.synchronize()
    assert found.equal(given)
    assert given.cuda().to("cpu").equal(given)


def test_an_event_tells_of_the_copies_before_it_alone(pretended: Gpu) -> None:
    given, events = torch.arange(4.0), [torch.cuda.Event(), torch.cuda.Event()]
    found = []
    for event in events:
        found.append(given.cuda().to("cpu", non_blocking=True))
        event.record()
    assert events[0].query()
    assert found[0].equal(given)
    assert found[1].isnan().all()
    pretended.behind = 1
    assert not events[1].query()
    assert found[1].isnan().all()
    assert events[1].query()
    assert found[1].equal(given)
    assert not any(what == "synchronize" for what, _ in pretended.waits)


def test_pinned_memory_must_stay_until_its_copy_is_over(pretended: Gpu) -> None:
    given = torch.zeros(4).pin_memory()
    there = given.to("cuda", non_blocking=True)
    given.add_(1)
    with pytest.raises(RuntimeError, match="written to before its copy was over"):
        there.sum().item()


WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool((x > 0).any()),
    "list": lambda x: x.tolist(),
    "copy": lambda x: x.cpu(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.unique(),
    "repeat": lambda x: x.repeat_interleave(x.long()),
    "synchronize": lambda x: torch.cuda.synchronize(),
    "pageable": lambda x: torch.zeros(4).copy_(x, non_blocking=True),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_counted_by_line(pretended: Gpu, name: str) -> None:
    there = torch.ones(4).to("cuda")
    pretended.clear()
    WAITS[name](there)
    assert pretended.waits.total() == 1
    ((_, line),) = pretended.waits
    assert line.startswith("test_pretend_cuda.py:")
    assert "1 waits" in pretended.report()


def test_what_does_not_wait_is_not_counted(pretended: Gpu) -> None:
    there, host = torch.ones(4).cuda(), torch.zeros(4).pin_memory()
    pretended.clear()
    there[there > 0] = 2.0  # a mask that is filled with one number
    there.where(there > 1, there * 3).sum()
    there.repeat_interleave(there.long(), output_size=8)
    host.copy_(there, non_blocking=True)
    host.to("cuda", non_blocking=True)
    assert not pretended.waits
    assert pretended.copies.total() == 2
    assert pretended.kernels > 4


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_debug_mode_raises_where_the_host_waits(pretended: Gpu) -> None:
    there = torch.ones(4).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchronizing CUDA operation: item"):
            there.sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert there.sum().item() == 4


def test_a_graph_is_replayed_on_its_own_memory(pretended: Gpu) -> None:
    x, total = torch.ones(4).cuda(), torch.zeros(4).cuda()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        double = x * 2
        total.add_(double)
    assert double.cpu().isnan().all()  # captured, and not done
    assert total.cpu().equal(torch.zeros(4))
    for given in (1.0, 5.0):
        x.fill_(given)
        graph.replay()
        assert double.cpu().equal(torch.full((4,), 2 * given))
    assert total.cpu().equal(torch.full((4,), 12.0))


def test_a_capture_may_not_wait(pretended: Gpu) -> None:
    x = torch.ones(4).cuda()
    for name in ("item", "mask", "copy"):
        with (
            pytest.raises(RuntimeError, match="not permitted when stream is capturing"),
            torch.cuda.graph(torch.cuda.CUDAGraph()),
        ):
            WAITS[name](x)


def test_random_numbers_are_the_devices_own(pretended: Gpu) -> None:
    state = torch.get_rng_state()
    a, b = (torch.rand(4, device="cuda").cpu() for _ in range(2))
    assert not a.equal(b)
    assert torch.get_rng_state().equal(state)


def test_nothing_is_left_of_it(request: pytest.FixtureRequest) -> None:
    before = torch.tensor, torch.cuda.is_available, torch.Tensor.to
    with pretend_cuda():
        assert torch.cuda.is_available()
        assert torch.zeros(2).cuda().is_cuda
    assert (torch.tensor, torch.cuda.is_available, torch.Tensor.to) == before
