"""What goes to the GPU when not all of a model fits."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.pool.placement import NothingFits, Placement, choose_placement
from specialists.pool.room import Room

GIB = 1 << 30


@dataclass(frozen=True)
class Model:
    """Bytes of each layer's trunk and experts, from first to last, and of the output."""

    trunks: tuple[int, ...]
    experts: tuple[int, ...]
    output: int

    @property
    def num_layers(self) -> int:
        return len(self.trunks)

    def need(self, placement: Placement) -> Room:
        """As llama.cpp places layers: the output first, then the last layers, the first ones last."""
        asked = self.num_layers + 1 if placement.gpu_layers < 0 else placement.gpu_layers
        first_on_device = self.num_layers - max(0, asked - 1)
        device = self.output if asked > 0 else 0
        for layer in range(max(0, first_on_device), self.num_layers):
            device += self.trunks[layer] + (self.experts[layer] if layer >= placement.cpu_expert_layers else 0)
        whole = self.output + sum(self.trunks) + sum(self.experts)
        return Room(device, whole - device)


models = st.integers(1, 12).flatmap(
    lambda layers: st.builds(
        Model,
        trunks=st.tuples(*[st.integers(0, 50)] * layers),
        experts=st.one_of(st.just((0,) * layers), st.tuples(*[st.integers(0, 200)] * layers)),
        output=st.integers(0, 50),
    )
)


@given(model=models, device=st.integers(0, 3000), ram=st.integers(0, 3000), asked=st.integers(-1, 14))
def test_the_most_that_fits_is_placed_on_the_device(model: Model, device: int, ram: int, asked: int) -> None:
    """What is chosen fits, nothing that keeps more on the device would, and an error means that nothing does."""
    room, wanted = Room(device, ram), Placement(asked)
    has_experts = any(model.experts)
    layers = model.num_layers + 1 if asked < 0 else min(asked, model.num_layers + 1)
    most = model.num_layers if has_experts else 0
    inwards = [
        wanted,
        *(Placement(asked, experts) for experts in range(1, most + 1)),
        *(Placement(fewer, most) for fewer in range(layers - 1, 0, -1)),
    ]
    if asked == 0:
        inwards = [wanted]

    try:
        chosen = choose_placement(
            wanted, num_layers=model.num_layers, has_experts=has_experts, need=model.need, room=room
        )
    except NothingFits:
        assert not any(room.holds(model.need(each)) for each in inwards)
        return

    assert chosen == wanted or room.holds(model.need(chosen))
    earlier = inwards[: inwards.index(chosen)]
    assert not any(room.holds(model.need(each)) for each in earlier)


def test_experts_are_left_behind_before_layers() -> None:
    """A mixture keeps all its attention on the device as long as some experts fit beside it."""
    model = Model(trunks=(1,) * 30, experts=(10,) * 30, output=2)

    chosen = choose_placement(Placement(), num_layers=30, has_experts=True, need=model.need, room=Room(132, 1000))

    assert chosen == Placement(-1, 20)


def test_a_dense_model_leaves_its_first_layers_behind() -> None:
    """llama.cpp counts layers on the device from the end, the output as one."""
    model = Model(trunks=(10,) * 8, experts=(0,) * 8, output=5)

    chosen = choose_placement(Placement(), num_layers=8, has_experts=False, need=model.need, room=Room(36, 1000))

    assert chosen == Placement(4)
    assert model.need(chosen).device_bytes == 35


def test_what_was_asked_for_is_a_bound() -> None:
    """A person who wants five layers there gets at most five, and one who wants none is left alone."""
    model = Model(trunks=(10,) * 8, experts=(0,) * 8, output=10)

    def chosen(layers: int, device: int) -> Placement:
        room = Room(device, 1000)
        return choose_placement(Placement(layers), num_layers=8, has_experts=False, need=model.need, room=room)

    assert (chosen(5, 1000), chosen(5, 35), chosen(0, 0)) == (Placement(5), Placement(3), Placement(0))


def test_nothing_fits_with_the_sums() -> None:
    """The error holds what it takes, what it takes at the least, what there is, and the mend."""
    model = Model(trunks=(GIB,) * 4, experts=(2 * GIB,) * 4, output=2 * GIB)

    with pytest.raises(NothingFits) as caught:
        choose_placement(Placement(), num_layers=4, has_experts=True, need=model.need, room=Room(GIB, 64 * GIB))

    assert str(caught.value) == (
        "it takes 14.0 GiB of GPU memory and 0 bytes of RAM, and with as little on the GPU as can be still 2.0 GiB of "
        "GPU memory and 12.0 GiB of RAM, of 1.0 GiB of GPU memory and 64.0 GiB of RAM; lower context or parallel, or "
        "run it on the CPU with gpu_layers = 0"
    )


def test_what_is_left_behind_needs_room_too() -> None:
    """RAM that does not hold the rest is no way out."""
    model = Model(trunks=(GIB,) * 4, experts=(2 * GIB,) * 4, output=2 * GIB)

    with pytest.raises(NothingFits, match=r"with enough of it in RAM 6\.0 GiB of GPU memory and 8\.0 GiB of RAM"):
        choose_placement(Placement(), num_layers=4, has_experts=True, need=model.need, room=Room(7 * GIB, 4 * GIB))
