from torchvision.transforms import v2

from augloader.augment.pixels import ops


def test_numbers_are_the_positions_of_the_names() -> None:
    assert len(set(ops.OPS)) == len(ops.OPS) == 16
    for number, name in enumerate(ops.OPS):
        words = "".join(f"_{c}" if c.isupper() else c.upper() for c in name).lstrip("_")
        assert getattr(ops, words) == number


def test_numbers_are_those_of_stored_parameters() -> None:
    assert (ops.IDENTITY, ops.ROTATE, ops.INVERT, ops.SHARPNESS, ops.FLIP) == (0, 5, 10, 14, 15)


def test_every_operation_is_of_one_kind() -> None:
    assert [ops.IDENTITY, *ops.GEOMETRY, *ops.COLOUR, ops.FLIP] == list(range(len(ops.OPS)))


def test_signs_and_gates_are_torchvisions() -> None:
    spaces = {
        **v2.AutoAugment._AUGMENTATION_SPACE,
        **v2.TrivialAugmentWide._AUGMENTATION_SPACE,
        **v2.AugMix._AUGMENTATION_SPACE,
    }
    assert set(spaces) == set(ops.OPS) - {"Flip"}
    assert ops.FLIP in ops.GATED
    for name, (magnitudes, signed) in spaces.items():
        number = ops.OPS.index(name)
        assert (number in ops.SIGNED) == signed
        assert (number in ops.GATED) == (magnitudes(10, 8, 8) is None and name != "Identity")


def test_neutral_magnitudes() -> None:
    assert ops.NEUTRAL[ops.POSTERIZE] == 8
    assert ops.NEUTRAL[ops.SOLARIZE] * 255 > 255  # white pixels too stay
    assert set(ops.NEUTRAL) == set(range(16)) - set(ops.SIGNED) - set(ops.GATED) - {ops.IDENTITY}
